//! The work queue: which keys need a look, each at most once, each by one worker at a time.
//!
//! The contract is client-go's `workqueue`: a key added while it waits is one key; a key added
//! while it is worked on is looked at once more afterwards; failures come back after 5 ms, 10 ms …
//! 1000 s. Memory is bounded by the number of distinct keys.
//!
//! One thing is more: a key that took long to look at rests before it is handed out again. Where each
//! change of a thousand pods wakes their owner, and a look at the owner goes through all thousand,
//! the looks would take all the time that the changes need.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::metrics::LoopMetrics;

/// First wait after a failure.
pub const FIRST_RETRY: Duration = Duration::from_millis(5);
/// Longest wait after a failure.
pub const LAST_RETRY: Duration = Duration::from_secs(1000);
/// Shorter rests are none: timers have milliseconds.
const SHORTEST_REST: Duration = Duration::from_millis(1);
/// So many ended rests are remembered before they are cleared away.
const ENDED_RESTS: usize = 1024;

#[derive(Debug)]
struct Inner<K> {
    ready: VecDeque<K>,
    dirty: HashSet<K>,
    processing: HashSet<K>,
    failures: HashMap<K, u32>,
    later: BTreeMap<(Instant, u64), K>,
    due: HashMap<K, (Instant, u64)>,
    resting: HashMap<K, Instant>,
    sequence: u64,
    closed: bool,
}

/// A deduplicating, delaying, rate-limited queue of keys.
#[derive(Debug)]
pub struct WorkQueue<K> {
    inner: Mutex<Inner<K>>,
    notify: Notify,
    metrics: Arc<LoopMetrics>,
}

impl<K: Clone + Eq + Hash + Debug> WorkQueue<K> {
    /// An empty queue that counts into `metrics`.
    #[must_use]
    pub fn new(metrics: Arc<LoopMetrics>) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                ready: VecDeque::new(),
                dirty: HashSet::new(),
                processing: HashSet::new(),
                failures: HashMap::new(),
                later: BTreeMap::new(),
                due: HashMap::new(),
                resting: HashMap::new(),
                sequence: 0,
                closed: false,
            }),
            notify: Notify::new(),
            metrics,
        })
    }

    /// The counters of the loop this queue feeds.
    #[must_use]
    pub fn metrics(&self) -> &Arc<LoopMetrics> {
        &self.metrics
    }

    /// The key needs a look.
    pub fn add(&self, key: K) {
        let added = self.inner.lock().add(key, &self.metrics);
        if added {
            self.notify.notify_one();
        }
    }

    /// The key needs a look after `delay`. An earlier appointment is kept, a later one replaced.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            self.add(key);
            return;
        }
        if self.inner.lock().appoint(key, Instant::now() + delay) {
            self.notify.notify_one();
        }
    }

    /// The key failed: look again after its own, growing wait.
    pub fn add_rate_limited(&self, key: K) {
        let wait = {
            let mut inner = self.inner.lock();
            let failures = inner.failures.entry(key.clone()).or_insert(0);
            let wait = FIRST_RETRY
                .saturating_mul(2u32.saturating_pow(*failures))
                .min(LAST_RETRY);
            *failures = failures.saturating_add(1);
            wait
        };
        LoopMetrics::bump(&self.metrics.retries);
        self.add_after(key, wait);
    }

    /// The key succeeded: its next failure starts at the first wait again.
    pub fn forget(&self, key: &K) {
        self.inner.lock().failures.remove(key);
    }

    /// How often the key failed in a row.
    pub fn failures(&self, key: &K) -> u32 {
        self.inner.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// Keys that wait now, without appointments.
    pub fn len(&self) -> usize {
        self.inner.lock().ready.len()
    }

    /// Nothing waits now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next key; `None` once the queue is closed. Call [`WorkQueue::done`] with it when the
    /// work ended.
    pub async fn next(&self) -> Option<K> {
        loop {
            let notified = self.notify.notified();
            let wake_at = {
                let mut inner = self.inner.lock();
                if inner.closed {
                    return None;
                }
                inner.promote(Instant::now(), &self.metrics);
                if let Some(key) = inner.ready.pop_front() {
                    inner.dirty.remove(&key);
                    inner.processing.insert(key.clone());
                    self.metrics
                        .depth
                        .store(inner.ready.len() as u64, Ordering::Relaxed);
                    if !inner.ready.is_empty() || !inner.later.is_empty() {
                        // One permit may stand for many keys: pass it on.
                        self.notify.notify_one();
                    }
                    return Some(key);
                }
                inner.later.keys().next().map(|slot| slot.0)
            };
            match wake_at {
                Some(at) => {
                    tokio::select! {
                        () = notified => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => notified.await,
            }
        }
    }

    /// The work on a key ended; it may be handed out again after its rest.
    pub fn done(&self, key: &K, rest: Duration) {
        let wake = {
            let mut inner = self.inner.lock();
            inner.processing.remove(key);
            inner.rest(key, rest);
            inner.dirty.remove(key) && inner.offer(key.clone(), &self.metrics)
        };
        if wake {
            self.notify.notify_one();
        }
    }

    /// Ends the queue: waiting and later callers of `next` get `None`.
    pub fn close(&self) {
        self.inner.lock().closed = true;
        self.notify.notify_waiters();
        self.notify.notify_one();
    }
}

impl<K: Clone + Eq + Hash + Debug> Inner<K> {
    /// Says whether somebody who waits for a key has to look.
    fn add(&mut self, key: K, metrics: &LoopMetrics) -> bool {
        if self.closed || self.dirty.contains(&key) {
            return false;
        }
        LoopMetrics::bump(&metrics.adds);
        if self.processing.contains(&key) {
            self.dirty.insert(key);
            return false;
        }
        self.offer(key, metrics)
    }

    /// Hands a key out, or puts it off to the end of its rest.
    fn offer(&mut self, key: K, metrics: &LoopMetrics) -> bool {
        match self.resting.get(&key).copied() {
            Some(until) if until > Instant::now() => return self.appoint(key, until),
            Some(_) => drop(self.resting.remove(&key)),
            None => {}
        }
        self.dirty.insert(key.clone());
        self.ready.push_back(key);
        metrics
            .depth
            .store(self.ready.len() as u64, Ordering::Relaxed);
        true
    }

    /// Puts a key off. An earlier appointment is kept: false.
    fn appoint(&mut self, key: K, at: Instant) -> bool {
        if let Some(found) = self.due.get(&key).copied() {
            if found.0 <= at {
                return false;
            }
            self.later.remove(&found);
        }
        self.sequence += 1;
        let slot = (at, self.sequence);
        self.due.insert(key.clone(), slot);
        self.later.insert(slot, key);
        true
    }

    fn rest(&mut self, key: &K, rest: Duration) {
        if rest < SHORTEST_REST {
            return;
        }
        let now = Instant::now();
        if self.resting.len() >= ENDED_RESTS {
            self.resting.retain(|_, until| *until > now);
        }
        self.resting.insert(key.clone(), now + rest);
    }

    fn promote(&mut self, now: Instant, metrics: &LoopMetrics) {
        while let Some(entry) = self.later.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let key = entry.remove();
            self.due.remove(&key);
            self.add(key, metrics);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Arc<WorkQueue<&'static str>> {
        WorkQueue::new(Arc::new(LoopMetrics::default()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_added_twice_comes_once_and_again_if_added_while_processing() {
        let queue = queue();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, Some("a"));
        queue.add("a");
        assert_eq!(queue.next().await, Some("b"));
        let quiet = tokio::time::timeout(Duration::from_secs(5), queue.next()).await;
        assert!(
            quiet.is_err(),
            "a is in flight and must not be handed out twice"
        );
        queue.done(&"a", Duration::ZERO);
        assert_eq!(queue.next().await, Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn retries_double_from_five_milliseconds() {
        let queue = queue();
        for wanted in [5u64, 10, 20, 40] {
            let before = Instant::now();
            queue.add_rate_limited("a");
            assert_eq!(queue.next().await, Some("a"));
            let waited = before.elapsed();
            assert!(waited >= Duration::from_millis(wanted), "{waited:?}");
            assert!(waited < Duration::from_millis(wanted + 3), "{waited:?}");
            queue.done(&"a", Duration::ZERO);
        }
        queue.forget(&"a");
        assert_eq!(queue.failures(&"a"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_appointment_wins() {
        let queue = queue();
        let before = Instant::now();
        queue.add_after("a", Duration::from_secs(60));
        queue.add_after("a", Duration::from_secs(1));
        queue.add_after("a", Duration::from_secs(30));
        assert_eq!(queue.next().await, Some("a"));
        assert!(before.elapsed() < Duration::from_secs(2));
        queue.done(&"a", Duration::ZERO);
        let quiet = tokio::time::timeout(Duration::from_secs(120), queue.next()).await;
        assert!(quiet.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_took_long_rests_and_others_do_not() {
        const REST: Duration = Duration::from_millis(40);
        let queue = queue();
        let began = Instant::now();
        queue.add("a");
        assert_eq!(queue.next().await, Some("a"));
        // Once while it is worked on, and once more after that: one look.
        queue.add("a");
        queue.done(&"a", REST);
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, Some("b"));
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(queue.next().await, Some("a"));
        assert!(began.elapsed() >= REST);
        queue.done(&"a", REST);
        let quiet = tokio::time::timeout(Duration::from_secs(5), queue.next()).await;
        assert!(quiet.is_err(), "nothing has changed");
        let before = Instant::now();
        queue.add("a");
        assert_eq!(queue.next().await, Some("a"));
        assert_eq!(before.elapsed(), Duration::ZERO, "it has rested");
    }

    #[tokio::test]
    async fn closing_wakes_all_workers() {
        let queue = queue();
        let waiting = async { tokio::join!(queue.next(), queue.next()) };
        let closing = async { queue.close() };
        let ((one, two), ()) = tokio::join!(waiting, closing);
        assert_eq!((one, two), (None, None));
    }
}
