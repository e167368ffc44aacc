//! The way to the writer, and which transactions it takes together.
//!
//! A commit costs as much processor time as a dozen of the writes in it, and as much again to tell all
//! who watch. So a group waits for writes that are known to be on their way ([`Queue::announce`]), and
//! for as many as there were in the last one: who had his answer a moment ago is likely to come again.
//! Not a moment is waited where there was one and no more is announced: who writes alone never waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::oneshot;

use crate::error::StoreError;
use crate::model::{Op, Revision, Txn, TxnResult};
use crate::store::Awaits;
use crate::validate::MAX_TXN_BYTES;

/// The most transactions and bytes that one fsync covers, so that the first of a group does not
/// wait long for the last.
const GROUP_TXNS: usize = 1024;
const GROUP_BYTES: usize = MAX_TXN_BYTES;
/// A group waits this long for each write that it may get, about as long as the door takes for one,
const EACH: Duration = Duration::from_micros(100);
/// and no longer than this for all.
const MOMENT: Duration = Duration::from_millis(3);
/// With so many there is little left to gain.
const ENOUGH: usize = 64;
/// After so long the last group says nothing about the next one.
const RECENT: Duration = Duration::from_millis(10);
/// When nobody came in that moment, so many groups wait for nobody: what was announced is held up
/// by something else.
const IMPATIENT: u32 = 16;

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the writer is asked to do.
pub(crate) enum Request {
    /// Carry out a validated transaction.
    Txn(Txn, Answer<TxnResult>),
    /// Forget history before a revision.
    Compact(Revision, Answer<()>),
}

/// What became of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    /// There is something to do.
    Work,
    /// Nobody came.
    Quiet,
    /// Closed and empty.
    Closed,
}

#[derive(Default)]
struct Waiting {
    requests: VecDeque<Request>,
    closed: bool,
    /// So many groups wait for nobody.
    impatient: u32,
    /// How many the next group may be, to judge by the last one.
    expected: usize,
    /// How many the last group was, and when.
    last: Option<(usize, Instant)>,
    /// Somebody who wrote for himself has left something to tidy up.
    nudged: bool,
}

/// The way to the writer.
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    /// Writes that are on their way, those that wait here among them.
    announced: AtomicUsize,
    /// The writer waits for them.
    gathering: AtomicBool,
    each: Duration,
    recent: Duration,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            wake: Condvar::new(),
            announced: AtomicUsize::new(0),
            gathering: AtomicBool::new(false),
            each: EACH,
            recent: RECENT,
        }
    }
}

impl Awaits for Queue {
    fn ended(&self) {
        self.announced.fetch_sub(1, Ordering::SeqCst);
        // The writer looks at the count after it has said that it waits, and here it is the other
        // way round: one of the two notices.
        if self.gathering.load(Ordering::SeqCst) {
            let waiting = self.waiting.lock();
            let complete = self.is_complete(&waiting);
            drop(waiting);
            if complete {
                self.wake.notify_one();
            }
        }
    }
}

impl Queue {
    /// Says that a write is on its way, until [`Awaits::ended`].
    pub(crate) fn announce(&self) {
        self.announced.fetch_add(1, Ordering::SeqCst);
    }

    /// Hands a request over; its answer fails with [`StoreError::Closed`] after [`Queue::close`].
    pub(crate) fn send(&self, request: Request) {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            // Dropping the request drops its sender, which its caller sees.
            return;
        }
        waiting.requests.push_back(request);
        let wake = !self.gathering.load(Ordering::SeqCst) || self.is_complete(&waiting);
        drop(waiting);
        if wake {
            self.wake.notify_one();
        }
    }

    /// Refuses new requests, and those that wait.
    pub(crate) fn abandon(&self) {
        let mut waiting = self.waiting.lock();
        waiting.closed = true;
        // Their callers see their answers dropped.
        waiting.requests.clear();
        drop(waiting);
        self.wake.notify_one();
    }

    /// Refuses new requests; those that wait are still carried out.
    pub(crate) fn close(&self) {
        self.waiting.lock().closed = true;
        self.wake.notify_one();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.lock().requests.is_empty()
    }

    /// Nobody waits here, and at most one is on his way.
    pub(crate) fn is_alone(&self) -> bool {
        if self.announced.load(Ordering::SeqCst) > 1 {
            return false;
        }
        let waiting = self.waiting.lock();
        waiting.requests.is_empty() && !waiting.closed
    }

    /// Has the writer's thread look whether there is something to tidy up.
    pub(crate) fn nudge(&self) {
        self.waiting.lock().nudged = true;
        self.wake.notify_one();
    }

    /// Waits until there is something to do: requests, or tidying up, which `idle_work` says that the
    /// caller has already; or until nobody has come for as long as `quiet` says.
    pub(crate) fn wait(&self, idle_work: bool, quiet: Option<Duration>) -> Waited {
        let mut waiting = self.waiting.lock();
        while waiting.requests.is_empty() {
            if waiting.closed {
                return Waited::Closed;
            }
            if std::mem::take(&mut waiting.nudged) || idle_work {
                return Waited::Work;
            }
            match quiet {
                None => self.wake.wait(&mut waiting),
                Some(quiet) => {
                    if self.wake.wait_for(&mut waiting, quiet).timed_out() {
                        return Waited::Quiet;
                    }
                }
            }
        }
        Waited::Work
    }

    /// The next group: transactions, one compaction alone, or nothing where nobody waits.
    pub(crate) fn group(&self) -> Vec<Request> {
        let mut waiting = self.waiting.lock();
        if waiting.requests.is_empty() {
            return Vec::new();
        }
        #[allow(
            clippy::disallowed_methods,
            reason = "the writer is a thread of its own, and bounds a wait for durability"
        )]
        let now = Instant::now();
        self.gather(&mut waiting, now);
        let mut group = Vec::new();
        let mut bytes = 0;
        while group.len() < GROUP_TXNS {
            let alone = match waiting.requests.front() {
                Some(Request::Txn(txn, _)) => {
                    bytes += size(txn);
                    reads_past(txn)
                }
                Some(Request::Compact(..)) => true,
                None => break,
            };
            if !group.is_empty() && (alone || bytes > GROUP_BYTES) {
                break;
            }
            group.extend(waiting.requests.pop_front());
            if alone {
                break;
            }
        }
        waiting.last = Some((group.len(), now));
        group
    }

    /// Waits for writes that are on their way, so that they share the fsync.
    fn gather(&self, waiting: &mut MutexGuard<'_, Waiting>, now: Instant) {
        if waiting.impatient > 0 {
            waiting.impatient -= 1;
            return;
        }
        let recent = |(_, when): &(usize, Instant)| now.duration_since(*when) < self.recent;
        waiting.expected = waiting.last.filter(recent).map_or(0, |(size, _)| size);
        let there = waiting.requests.len();
        self.gathering.store(true, Ordering::SeqCst);
        if !self.is_complete(waiting) {
            let wanted = u32::try_from(self.wanted(waiting)).unwrap_or(u32::MAX);
            let until = now + (self.each * wanted).min(MOMENT.max(self.each));
            while !self.is_complete(waiting) {
                if self.wake.wait_until(waiting, until).timed_out() {
                    break;
                }
            }
            if waiting.requests.len() == there && !self.is_complete(waiting) {
                waiting.impatient = IMPATIENT;
            }
        }
        self.gathering.store(false, Ordering::SeqCst);
    }

    /// How many the next group is to be.
    fn wanted(&self, waiting: &Waiting) -> usize {
        let announced = self.announced.load(Ordering::SeqCst);
        announced.max(waiting.expected).min(ENOUGH)
    }

    /// There are as many as are worth waiting for.
    fn is_complete(&self, waiting: &Waiting) -> bool {
        waiting.closed || waiting.requests.len() >= self.wanted(waiting)
    }
}

fn size(txn: &Txn) -> usize {
    let of = |op: &Op| match op {
        Op::Put { key, value } => key.len() + value.len(),
        _ => 0,
    };
    txn.success.iter().chain(&txn.failure).map(of).sum()
}

/// Whether the transaction reads at a given revision, which must then be committed, not pending.
fn reads_past(txn: &Txn) -> bool {
    let past = |op: &Op| matches!(op, Op::Range(range) if range.revision.is_some());
    txn.success.iter().chain(&txn.failure).any(past)
}

#[cfg(test)]
mod tests;
