//! When a row of answers becomes a result: `successThreshold` and `failureThreshold`.

use super::ProbeKind;

/// Counts answers of one kind in a row.
#[derive(Debug, Clone)]
pub struct Tally {
    success_threshold: u32,
    failure_threshold: u32,
    last: Option<bool>,
    row: u32,
    result: Option<bool>,
}

impl Tally {
    /// Nothing counted. Thresholds below 1 are the defaults.
    #[must_use]
    pub fn new(kind: ProbeKind, success: Option<i32>, failure: Option<i32>) -> Self {
        let positive = |given: Option<i32>, default: u32| {
            given
                .and_then(|n| u32::try_from(n).ok())
                .filter(|n| *n > 0)
                .unwrap_or(default)
        };
        Self {
            // More than one success may be asked for readiness only.
            success_threshold: if kind == ProbeKind::Readiness {
                positive(success, 1)
            } else {
                1
            },
            failure_threshold: positive(failure, 3),
            last: None,
            row: 0,
            result: None,
        }
    }

    /// Counts an answer; the result when this one made or changed it.
    pub fn count(&mut self, passed: bool) -> Option<bool> {
        if self.last == Some(passed) {
            self.row = self.row.saturating_add(1);
        } else {
            self.last = Some(passed);
            self.row = 1;
        }
        let threshold = if passed {
            self.success_threshold
        } else {
            self.failure_threshold
        };
        if self.row < threshold || self.result == Some(passed) {
            return None;
        }
        self.result = Some(passed);
        Some(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_count_answers_in_a_row() {
        let mut tally = Tally::new(ProbeKind::Readiness, Some(2), Some(3));
        let answers = [
            true, false, true, true, true, false, false, true, false, false, false,
        ];
        let results: Vec<_> = answers.iter().map(|passed| tally.count(*passed)).collect();
        assert_eq!(
            results,
            [
                None,
                None,
                None,
                Some(true),
                None,
                None,
                None,
                None,
                None,
                None,
                Some(false)
            ]
        );
    }

    #[test]
    fn only_readiness_asks_for_more_than_one_success() {
        let mut tally = Tally::new(ProbeKind::Liveness, Some(5), None);
        assert_eq!(tally.count(true), Some(true));
        assert_eq!((tally.count(false), tally.count(false)), (None, None));
        assert_eq!(tally.count(false), Some(false));
    }
}
