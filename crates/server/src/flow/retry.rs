//! When a refused client may come again: one second, and longer while many are refused.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// Nobody is sent away for longer than this, in seconds.
const MOST: u64 = 32;

/// Refusals of a level in the last seconds.
#[derive(Debug, Default)]
pub(super) struct Dropped(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Seconds and the refusals in each, the newest last.
    seconds: VecDeque<(u64, u64)>,
    after: u64,
    raised: Option<u64>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            seconds: VecDeque::new(),
            after: 1,
            raised: None,
        }
    }
}

impl Dropped {
    /// Counts a refusal in a second, and answers after how many seconds to come again. As in the
    /// reference it doubles when three for each second of it were refused within it, and falls by
    /// one when fewer than one were.
    pub(super) fn note(&self, second: u64) -> u64 {
        let mut state = self.0.lock();
        match state.seconds.back_mut() {
            Some((last, count)) if *last >= second => *count += 1,
            _ => {
                state.settle(second);
                state.seconds.push_back((second, 1));
            }
        }
        state.after
    }
}

impl State {
    /// Looks back when a second begins.
    fn settle(&mut self, second: u64) {
        let reach = (2 * self.after).min(MOST);
        self.seconds
            .retain(|(then, _)| second.saturating_sub(*then) <= reach);
        let refused: u64 = self
            .seconds
            .iter()
            .filter(|(then, _)| second.saturating_sub(*then) <= self.after)
            .map(|(_, count)| count)
            .sum();
        let may_rise = self
            .raised
            .is_none_or(|then| second.saturating_sub(then) >= self.after);
        if may_rise && refused >= 3 * self.after {
            self.after = (2 * self.after).min(MOST);
            self.raised = Some(second);
        } else if refused < self.after && self.after > 1 {
            self.after -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_while_many_are_refused_and_falls_again() {
        let dropped = Dropped::default();
        for _ in 0..100 {
            assert_eq!(dropped.note(10), 1);
        }
        assert_eq!(dropped.note(11), 2);
        for second in 12..60 {
            for _ in 0..200 {
                assert!(dropped.note(second) <= MOST);
            }
        }
        assert_eq!(dropped.note(60), MOST);
        let mut after = MOST;
        for step in 1..40 {
            let now = dropped.note(60 + 100 * step);
            assert!(now <= after);
            after = now;
        }
        assert_eq!(after, 1);
    }
}
