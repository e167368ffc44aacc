//! Trying again: exponential back-off, and the retry of optimistic writes.

use std::future::Future;
use std::time::Duration;

use crate::errors;

/// Exponential back-off between two bounds. Has no randomness of its own: loops that share a
/// cause are told apart by `seed`, so that a simulated run replays exactly.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    attempt: u32,
    seed: u64,
}

impl Backoff {
    /// Starts at `base`, doubles up to `max`.
    #[must_use]
    pub fn new(base: Duration, max: Duration, seed: u64) -> Self {
        Self {
            base,
            max,
            attempt: 0,
            seed,
        }
    }

    /// The next wait: the exponential value, shortened by up to a quarter.
    pub fn next_wait(&mut self) -> Duration {
        let factor = 2u32.saturating_pow(self.attempt.min(30));
        self.attempt = self.attempt.saturating_add(1);
        let full = self.base.saturating_mul(factor).min(self.max);
        let mixed = self
            .seed
            .wrapping_add(u64::from(self.attempt))
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            >> 32;
        full - full.mul_f64(0.25 * (mixed as f64 / f64::from(u32::MAX)))
    }

    /// Things work again.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

/// Runs `attempt` again while it answers 409 Conflict: five times, 10 ms apart and growing, as
/// `retry.DefaultRetry` of client-go. `attempt` must read the object afresh.
///
/// # Errors
/// The last error, conflict or other.
pub async fn retry_on_conflict<T, F, Fut>(mut attempt: F) -> Result<T, kube::Error>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, kube::Error>>,
{
    let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1), 0);
    for _ in 0..4 {
        match attempt().await {
            Err(error) if errors::is_conflict(&error) => {
                tokio::time::sleep(backoff.next_wait()).await;
            }
            other => return other,
        }
    }
    attempt().await
}
