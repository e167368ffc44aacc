//! Wall-clock time as something handed in.
//!
//! Durations and sleeps go through `tokio::time` where there is I/O, so that paused clocks work;
//! this trait is for time stamps that end up in objects.

use std::fmt::Debug;
use std::sync::Arc;

use jiff::Timestamp;

/// Tells the wall-clock time.
pub trait Clock: Send + Sync + Debug + 'static {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

/// Formats a time stamp the way `metav1.Time` is written: RFC 3339, UTC, whole seconds.
#[must_use]
pub fn rfc3339(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Formats a time stamp the way `metav1.MicroTime` is written: RFC 3339, UTC, microseconds.
#[must_use]
pub fn rfc3339_micro(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}
