//! The way to the writer, and which transactions it takes together.
//!
//! A commit costs as much processor time as a dozen of the writes in it, mostly in the kernel. So a
//! group waits a moment for writes that are known to be on their way ([`Queue::announce`]), and not
//! a moment for those that nobody has spoken of: who writes alone never waits.

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
/// The longest that a group waits for writes that were announced: about as long as a disk takes to
/// make one group durable.
const MOMENT: Duration = Duration::from_millis(1);
/// With so many there is little left to gain.
const ENOUGH: usize = 64;
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

#[derive(Default)]
struct Waiting {
    requests: VecDeque<Request>,
    closed: bool,
    /// So many groups wait for nobody.
    impatient: u32,
}

/// The way to the writer.
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    /// Writes that are on their way, those that wait here among them.
    announced: AtomicUsize,
    /// The writer waits for them.
    gathering: AtomicBool,
    moment: Duration,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            wake: Condvar::new(),
            announced: AtomicUsize::new(0),
            gathering: AtomicBool::new(false),
            moment: MOMENT,
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
    }

    /// Refuses new requests; those that wait are still carried out.
    pub(crate) fn close(&self) {
        self.waiting.lock().closed = true;
        self.wake.notify_one();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.lock().requests.is_empty()
    }

    /// The next group: transactions, or one compaction alone. `None` when closed and empty, or an
    /// empty group when there is nothing to do and `idle_work` says that the caller has work.
    pub(crate) fn take(&self, idle_work: bool) -> Option<Vec<Request>> {
        let mut waiting = self.waiting.lock();
        while waiting.requests.is_empty() {
            if waiting.closed {
                return None;
            }
            if idle_work {
                return Some(Vec::new());
            }
            self.wake.wait(&mut waiting);
        }
        self.gather(&mut waiting);
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
        Some(group)
    }

    /// Waits a moment for writes that are on their way, so that they share the fsync.
    fn gather(&self, waiting: &mut MutexGuard<'_, Waiting>) {
        if waiting.impatient > 0 {
            waiting.impatient -= 1;
            return;
        }
        let there = waiting.requests.len();
        self.gathering.store(true, Ordering::SeqCst);
        if !self.is_complete(waiting) {
            #[allow(
                clippy::disallowed_methods,
                reason = "the writer is a thread of its own, and bounds a wait for durability"
            )]
            let until = Instant::now() + self.moment;
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

    /// Nobody is on his way who is worth waiting for.
    fn is_complete(&self, waiting: &Waiting) -> bool {
        let announced = self.announced.load(Ordering::SeqCst);
        waiting.closed || waiting.requests.len() >= announced.min(ENOUGH)
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
