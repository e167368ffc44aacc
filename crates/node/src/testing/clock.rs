//! Wall-clock time that moves with tokio's.

use evenkeel_api::clock::Clock;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// A clock that began at a given time and goes on as tokio's does.
#[derive(Debug, Clone)]
pub struct TokioClock {
    began: Instant,
    at: Timestamp,
}

impl TokioClock {
    /// It is `at` now.
    #[must_use]
    pub fn new(at: Timestamp) -> Self {
        Self {
            began: Instant::now(),
            at,
        }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.at + SignedDuration::try_from(self.began.elapsed()).unwrap_or(SignedDuration::MAX)
    }
}
