//! When those who watch a kind are told that it has changed: at once after a quiet time, and then of all
//! that has come in [`PACE`] together.
//!
//! To wake everybody who watches costs more than the change, and keeps from its work the processor that
//! somebody who writes one thing after the other is about to need (0028).

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Who has been told of a change of a kind is not told of the next one for so long.
const PACE: Duration = Duration::from_millis(2);

/// A kind whose watchers were told a moment ago.
struct Told<T> {
    kind: Arc<T>,
    /// When they may be told again.
    again: Instant,
    /// It has changed since.
    more: bool,
}

/// Tells the watchers of kinds, with [`PACE`] between.
pub(super) struct Herald<T> {
    tell: fn(&T),
    /// In the order in which they may be told again.
    told: VecDeque<Told<T>>,
    /// Kept from time to time: a new timer for each would cost more than many a change.
    alarm: Pin<Box<Sleep>>,
}

impl<T> Herald<T> {
    pub(super) fn new(tell: fn(&T)) -> Self {
        Self {
            tell,
            told: VecDeque::new(),
            alarm: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }

    /// Has the watchers of a kind told, now or when their time has come.
    pub(super) fn changed(&mut self, kind: Arc<T>, now: Instant) {
        let is_it = |told: &&mut Told<T>| Arc::ptr_eq(&told.kind, &kind);
        match self.told.iter_mut().find(is_it) {
            Some(told) => told.more = true,
            None => self.tell(kind, now),
        }
    }

    fn tell(&mut self, kind: Arc<T>, now: Instant) {
        (self.tell)(&kind);
        self.told.push_back(Told {
            kind,
            again: now + PACE,
            more: false,
        });
    }

    /// Tells those whose time has come.
    pub(super) fn tell_due(&mut self, now: Instant) {
        while self.told.front().is_some_and(|told| told.again <= now) {
            if let Some(told) = self.told.pop_front()
                && told.more
            {
                self.tell(told.kind, now);
            }
        }
    }

    /// Waits until somebody is to be told. Safe to cancel.
    pub(super) async fn due(&mut self) {
        let Some(next) = self.told.iter().find(|told| told.more) else {
            return std::future::pending().await;
        };
        if self.alarm.deadline() != next.again {
            self.alarm.as_mut().reset(next.again);
        }
        self.alarm.as_mut().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn count(kind: &AtomicU32) {
        kind.fetch_add(1, Ordering::Relaxed);
    }

    fn told(kind: &AtomicU32) -> u32 {
        kind.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_kind_is_told_at_once_and_a_busy_one_in_groups() {
        let (busy, quiet) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let mut herald = Herald::new(count);
        let began = Instant::now();
        for _ in 0..100 {
            herald.changed(Arc::clone(&busy), Instant::now());
        }
        herald.changed(Arc::clone(&quiet), Instant::now());
        assert_eq!((told(&busy), told(&quiet)), (1, 1));

        herald.due().await;
        assert_eq!(began.elapsed(), PACE);
        herald.tell_due(Instant::now());
        assert_eq!((told(&busy), told(&quiet)), (2, 1));

        // Told a moment ago, so once more in its time and not before.
        herald.changed(Arc::clone(&busy), Instant::now());
        herald.tell_due(Instant::now());
        assert_eq!(told(&busy), 2);
        herald.due().await;
        herald.tell_due(Instant::now());
        assert_eq!((told(&busy), told(&quiet)), (3, 1));
        assert_eq!(began.elapsed(), PACE * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_what_has_not_changed() {
        let kind = Arc::new(AtomicU32::new(0));
        let mut herald = Herald::new(count);
        herald.changed(Arc::clone(&kind), Instant::now());
        let due = tokio::time::timeout(PACE * 100, herald.due()).await;
        assert!(due.is_err());
        // After that time it is forgotten, and told at once again.
        herald.tell_due(Instant::now());
        assert!(herald.told.is_empty());
        herald.changed(Arc::clone(&kind), Instant::now());
        assert_eq!(told(&kind), 2);
    }
}
