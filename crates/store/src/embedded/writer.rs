//! Who writes takes all transactions that wait, evaluates them in order, makes them durable with one
//! fsync, shows them to readers and watches, and answers. That is a thread of its own: while it waits
//! for the disk, the next group forms, and with nothing to do it sleeps on its queue. A caller who is
//! alone does it himself ([`Desk::alone`]): to wake a thread and to be woken by it takes as long as a
//! fast disk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::core::Core;
use super::evaluate::Pending;
use super::log::{Append, Record, RecordId};
use super::queue::{Queue, Request, Waited};
use super::space::{added, adds};
use crate::error::StoreError;
use crate::model::{EventBatch, EventKind, Revision};

/// How many dropped records ride along with a small group, and how many are dropped in one step
/// when nobody waits. They cost about 5 us each.
const DROP_ALONG: usize = 128;
const DROP_IDLE: usize = 512;
/// A caller writes for himself while commits take no longer than this: meanwhile his thread does
/// nothing else.
const QUICK: Duration = Duration::from_micros(500);
/// Room is made for what will come when nobody has come for so long.
const QUIET: Duration = Duration::from_millis(200);

/// Where writing is done, by one at a time.
pub(crate) struct Desk {
    core: Arc<Core>,
    queue: Arc<Queue>,
    writer: Mutex<Writer>,
}

impl Desk {
    pub(crate) fn new(core: Arc<Core>, queue: Arc<Queue>, garbage: Vec<RecordId>) -> Self {
        let writer = Writer {
            core: Arc::clone(&core),
            garbage: garbage.into(),
            untidy: true,
            stalled: false,
        };
        Self {
            core,
            queue,
            writer: Mutex::new(writer),
        }
    }

    /// Works until the queue is closed and empty.
    pub(crate) fn run(&self) {
        // Whatever ends this thread, even a panic: nobody may wait for it afterwards.
        let _end = End {
            desk: self,
            always: true,
        };
        // What is still to be dropped when the store closes is found again when it opens.
        let mut idle_work = true;
        // A start has much to write and nobody to wait for room.
        let mut quiet = QUIET;
        loop {
            let room = self.core.log.wants_room().then_some(quiet);
            match self.queue.wait(idle_work, room) {
                Waited::Closed => break,
                Waited::Quiet => {
                    self.core.log.make_room();
                    quiet = Duration::ZERO;
                    continue;
                }
                Waited::Work => quiet = QUIET,
            }
            let mut writer = self.writer.lock();
            // Whoever came while the desk was taken is in the group.
            writer.work(self.queue.group());
            idle_work = writer.tidy(self.queue.is_empty());
        }
    }

    /// Carries a request out in the caller's thread if nobody else writes or is about to, and the
    /// disk is quick; gives it back otherwise.
    pub(crate) fn alone(&self, request: Request) -> Option<Request> {
        let Some(mut writer) = self.free() else {
            return Some(request);
        };
        let _end = End {
            desk: self,
            always: false,
        };
        writer.work(vec![request]);
        if self.core.log.wants_tidying() {
            self.queue.nudge();
        }
        None
    }

    fn free(&self) -> Option<MutexGuard<'_, Writer>> {
        let quick = self.core.counters.pace().is_some_and(|pace| pace <= QUICK);
        if !quick || !self.queue.is_alone() {
            return None;
        }
        let writer = self.writer.try_lock()?;
        (!writer.has_idle_work()).then_some(writer)
    }
}

/// The writer's own state.
struct Writer {
    core: Arc<Core>,
    /// Records that compaction gave up and that are still in the log, in the order in which they
    /// must go: a deletion after what it deleted, so that a crash in between revives nothing.
    garbage: VecDeque<RecordId>,
    /// Whether the log has tidying up to do when nobody waits.
    untidy: bool,
    /// Whether dropping records failed, and no append has worked since.
    stalled: bool,
}

impl Writer {
    /// Tidies up a step; answers whether there is more to do when nobody waits.
    fn tidy(&mut self, idle: bool) -> bool {
        self.untidy = self.core.log.maintain(idle).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot tidy up the store");
            false
        });
        self.has_idle_work()
    }

    fn has_idle_work(&self) -> bool {
        self.untidy || !(self.garbage.is_empty() || self.stalled)
    }

    fn work(&mut self, mut group: Vec<Request>) {
        if let Some(Request::Compact(..)) = group.first() {
            if let Some(Request::Compact(revision, answer)) = group.pop() {
                // Nobody listens any more when the send fails, and nothing is lost by it.
                answer.send(self.compact(revision)).ok();
            }
        } else {
            self.commit(group);
        }
    }

    /// Makes `append` durable together with the next records to drop.
    fn append(&mut self, mut append: Append) -> Result<(), StoreError> {
        // Twice what comes in: however busy the writer is, old records go faster than new ones come.
        let drop = if append.put.is_empty() {
            DROP_IDLE
        } else {
            DROP_ALONG.max(2 * append.put.len())
        };
        let drop = drop.min(self.garbage.len());
        append.drop = self.garbage.iter().take(drop).copied().collect();
        if append.put.is_empty() && append.drop.is_empty() && append.compacted.is_none() {
            return Ok(());
        }
        #[allow(
            clippy::disallowed_methods,
            reason = "measures a latency, decides nothing"
        )]
        let began = Instant::now();
        let done = self.core.log.append(&append);
        self.core.counters.group(began.elapsed());
        match &done {
            Ok(()) => {
                self.garbage.drain(..drop);
                self.stalled = false;
            }
            Err(error) if append.put.is_empty() && append.compacted.is_none() => {
                // Nobody waits for this: rather than to try in a circle, wait for a write that works.
                tracing::warn!(%error, "compaction cannot drop old records yet");
                self.stalled = true;
            }
            Err(_) => {}
        }
        done
    }

    fn commit(&mut self, group: Vec<Request>) {
        let core = Arc::clone(&self.core);
        let mut answers = Vec::with_capacity(group.len());
        let mut batches: Vec<EventBatch> = Vec::new();
        let adding = group.iter().fold(0, |sum: u64, request| match request {
            Request::Txn(txn, _) => sum.saturating_add(added(txn)),
            _ => sum,
        });
        let room = core.space.check(adding);
        let index = core.index.read();
        let mut pending = Pending::new(&index);
        for request in group {
            let Request::Txn(txn, answer) = request else {
                continue;
            };
            if let Err(full) = &room
                && adds(&txn)
            {
                answers.push((answer, Err(full.clone())));
                continue;
            }
            let evaluated = pending.evaluate(txn, |range| {
                core.complete(range, (index.range(range)?, index.revision))
            });
            match evaluated {
                Ok(evaluated) => {
                    batches.extend(evaluated.batch);
                    answers.push((answer, Ok(evaluated.result)));
                }
                Err(error) => answers.push((answer, Err(error))),
            }
        }
        drop(pending);
        drop(index);
        let append = Append {
            put: batches.iter().flat_map(records).collect(),
            ..Append::default()
        };
        let done = self.append(append);
        if done.is_ok() && !batches.is_empty() {
            let mut index = core.index.write();
            let mut hub = core.hub.lock();
            for batch in batches {
                index.apply(&batch);
                hub.publish(Arc::new(batch));
            }
        }
        core.counters.txns(answers.len());
        for (answer, result) in answers {
            // A transaction whose caller is gone took effect all the same.
            answer.send(done.clone().and(result)).ok();
        }
    }

    fn compact(&mut self, revision: Revision) -> Result<(), StoreError> {
        {
            let index = self.core.index.read();
            index.check(revision)?;
            if revision == index.compacted {
                return Err(StoreError::Compacted {
                    requested: revision,
                    compacted: revision,
                });
            }
        }
        // The log learns of it first: a crash in between must not bring back what readers were
        // told is gone.
        self.append(Append {
            compacted: Some(revision),
            ..Append::default()
        })?;
        let garbage = self.core.index.write().compact(revision);
        self.garbage.extend(garbage);
        Ok(())
    }
}

/// Ends everything that waits for a writer, when dropped: always, or in a panic.
struct End<'a> {
    desk: &'a Desk,
    always: bool,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        if self.always || std::thread::panicking() {
            self.desk.queue.abandon();
            self.desk.core.log.close();
            self.desk.core.hub.lock().close();
        }
    }
}

fn records(batch: &EventBatch) -> impl Iterator<Item = Record> + '_ {
    let count = batch.events.len();
    (0u32..).zip(&batch.events).map(move |(sub, event)| Record {
        id: RecordId {
            revision: batch.revision,
            sub,
        },
        last: sub as usize + 1 == count,
        create_revision: event.kv.create_revision,
        version: if event.kind == EventKind::Delete {
            0
        } else {
            event.kv.version
        },
        key: event.kv.key.clone(),
        value: event.kv.value.clone(),
    })
}

#[cfg(test)]
mod tests;
