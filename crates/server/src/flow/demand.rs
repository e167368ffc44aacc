//! How many seats a level could use over a while: mean, deviation, peak.

use super::queues::Nanos;

/// Half of what a peak adds to the smoothed demand is gone after five minutes of looks every ten
/// seconds, as in the reference.
const SMOOTHING: f64 = 0.977;

/// Integrates the number of seats that are wanted.
#[derive(Debug)]
pub(super) struct Demand {
    since: Nanos,
    now: Nanos,
    value: u32,
    peak: u32,
    /// The integrals of the value and of its square, over seconds.
    first: f64,
    second: f64,
}

/// What was wanted between two looks.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Wanted {
    pub(super) mean: f64,
    pub(super) deviation: f64,
    pub(super) peak: u32,
    /// Follows rises of mean plus deviation at once, and falls slowly.
    pub(super) smoothed: f64,
}

impl Demand {
    pub(super) fn new(now: Nanos) -> Self {
        Self {
            since: now,
            now,
            value: 0,
            peak: 0,
            first: 0.0,
            second: 0.0,
        }
    }

    /// From now on so many seats are wanted.
    pub(super) fn set(&mut self, now: Nanos, value: u32) {
        self.pass(now);
        self.value = value;
        self.peak = self.peak.max(value);
    }

    fn pass(&mut self, now: Nanos) {
        if now > self.now {
            let seconds = seconds(now - self.now);
            let value = f64::from(self.value);
            self.first += seconds * value;
            self.second += seconds * value * value;
            self.now = now;
        }
    }

    /// What was wanted since the last look, after what was known before. Begins anew.
    pub(super) fn take(&mut self, now: Nanos, before: Wanted) -> Wanted {
        self.pass(now);
        let seconds = seconds(self.now - self.since);
        let mut wanted = Wanted {
            peak: self.peak,
            ..before
        };
        if seconds > 0.0 {
            wanted.mean = self.first / seconds;
            wanted.deviation = (self.second / seconds - wanted.mean * wanted.mean)
                .max(0.0)
                .sqrt();
            let envelope = wanted.mean + wanted.deviation;
            let fallen = SMOOTHING * before.smoothed + (1.0 - SMOOTHING) * envelope;
            wanted.smoothed = envelope.max(fallen);
        }
        *self = Self {
            since: self.now,
            value: self.value,
            peak: self.value,
            ..Self::new(self.now)
        };
        wanted
    }
}

#[expect(clippy::cast_precision_loss, reason = "a statistic")]
fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    #[test]
    fn a_rise_shows_at_once_and_fades() {
        let mut demand = Demand::new(0);
        demand.set(0, 10);
        demand.set(5 * SECOND, 30);
        let first = demand.take(10 * SECOND, Wanted::default());
        assert!((first.mean - 20.0).abs() < 1e-9, "{first:?}");
        assert!((first.deviation - 10.0).abs() < 1e-9, "{first:?}");
        assert_eq!(first.peak, 30);
        assert!((first.smoothed - 30.0).abs() < 1e-9, "{first:?}");
        demand.set(10 * SECOND, 0);
        let mut wanted = first;
        for look in 2..32 {
            wanted = demand.take(look * 10 * SECOND, wanted);
        }
        // Thirty looks are five minutes.
        assert!((14.0..16.0).contains(&wanted.smoothed), "{wanted:?}");
        assert_eq!(wanted.peak, 0);
    }
}
