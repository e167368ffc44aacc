//! Who watches what, and the recent past they share.
//!
//! The hub holds a bounded tail of batches as the writer published them. A watch holds no queue:
//! only the first revision it has not read. A watch that nothing concerns is neither woken nor
//! touched otherwise, however much is written; one that is slow costs nothing but its place.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::model::{Event, EventBatch, Revision, covers};

/// How many batches one read takes from the tail, so that it holds the lock only briefly.
const READ_BATCHES: usize = 128;

/// What a watch covers.
#[derive(Debug, Clone)]
pub(crate) struct Interest {
    pub(crate) start: Bytes,
    pub(crate) end: Option<Bytes>,
}

impl Interest {
    fn matches(&self, event: &Event) -> bool {
        covers(&self.start, self.end.as_deref(), &event.kv.key)
    }

    /// The part of `batch` that concerns this watch; the batch itself, shared, if all of it does.
    pub(crate) fn filter(&self, batch: &Arc<EventBatch>) -> Option<Arc<EventBatch>> {
        let count = batch.events.iter().filter(|e| self.matches(e)).count();
        if count == 0 {
            return None;
        }
        if count == batch.events.len() {
            return Some(Arc::clone(batch));
        }
        let events = batch
            .events
            .iter()
            .filter(|e| self.matches(e))
            .cloned()
            .collect();
        Some(Arc::new(EventBatch {
            revision: batch.revision,
            events,
        }))
    }
}

#[derive(Debug)]
struct Slot {
    interest: Interest,
    /// Events before this revision do not concern the watch.
    from: Revision,
    /// The first revision that is not read yet and may concern the watch; `None`: it has read all.
    unread: Option<Revision>,
    /// Whether a progress note is owed.
    progress: bool,
    notify: Arc<Notify>,
}

/// What a watch does next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Deliver these, which may be none if they were filtered out, then ask again.
    Batches(Vec<Arc<EventBatch>>),
    /// Read the history from the first up to the second revision, both included.
    History(Revision, Revision),
    /// Deliver a progress note with this revision.
    Progress(Revision),
    /// Wait to be notified.
    Wait,
    /// The store has been closed and everything was delivered.
    Closed,
}

/// The tail and the watches. Kept behind a lock by its owner.
#[derive(Debug)]
pub(crate) struct Hub {
    /// Consecutive revisions, the last of which is `revision`, unless empty.
    tail: VecDeque<Arc<EventBatch>>,
    tail_bytes: usize,
    max_bytes: usize,
    max_batches: usize,
    revision: Revision,
    slots: BTreeMap<u64, Slot>,
    next_id: u64,
    closed: bool,
}

impl Hub {
    pub(crate) fn new(revision: Revision, max_bytes: usize, max_batches: usize) -> Self {
        Self {
            tail: VecDeque::new(),
            tail_bytes: 0,
            max_bytes,
            max_batches,
            revision,
            slots: BTreeMap::new(),
            next_id: 0,
            closed: false,
        }
    }

    pub(crate) fn watchers(&self) -> usize {
        self.slots.len()
    }

    /// Takes the next revision into the tail and wakes the watches that it concerns.
    pub(crate) fn publish(&mut self, batch: Arc<EventBatch>) {
        self.revision = batch.revision;
        for slot in self.slots.values_mut() {
            if slot.unread.is_none()
                && batch.revision >= slot.from
                && batch.events.iter().any(|e| slot.interest.matches(e))
            {
                slot.unread = Some(batch.revision);
                slot.notify.notify_one();
            }
        }
        self.tail_bytes += weight(&batch);
        self.tail.push_back(batch);
        while self.tail.len() > self.max_batches || self.tail_bytes > self.max_bytes {
            let Some(oldest) = self.tail.pop_front() else {
                break;
            };
            self.tail_bytes -= weight(&oldest);
        }
    }

    /// Adds a watch; `from` may lie in the past or the future.
    pub(crate) fn register(
        &mut self,
        interest: Interest,
        from: Option<Revision>,
    ) -> (u64, Arc<Notify>) {
        let from = from.unwrap_or(self.revision + 1);
        let unread = (from <= self.revision).then_some(from);
        let notify = Arc::new(Notify::new());
        let id = self.next_id;
        self.next_id += 1;
        let slot = Slot {
            interest,
            from,
            unread,
            progress: true,
            notify: Arc::clone(&notify),
        };
        self.slots.insert(id, slot);
        (id, notify)
    }

    pub(crate) fn unregister(&mut self, id: u64) {
        self.slots.remove(&id);
    }

    /// Owes every watch a progress note.
    pub(crate) fn request_progress(&mut self) -> Revision {
        for slot in self.slots.values_mut() {
            slot.progress = true;
            slot.notify.notify_one();
        }
        self.revision
    }

    /// Ends every watch once it has read all.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        for slot in self.slots.values() {
            slot.notify.notify_one();
        }
    }

    /// What the watch `id` does next.
    pub(crate) fn next(&mut self, id: u64) -> Next {
        let Some(slot) = self.slots.get_mut(&id) else {
            return Next::Closed;
        };
        let Some(unread) = slot.unread else {
            return if slot.progress {
                slot.progress = false;
                Next::Progress(self.revision)
            } else if self.closed {
                Next::Closed
            } else {
                Next::Wait
            };
        };
        let first = self
            .tail
            .front()
            .map_or(self.revision + 1, |batch| batch.revision);
        if unread < first {
            return Next::History(unread, first - 1);
        }
        let skip = usize::try_from(unread - first).unwrap_or(usize::MAX);
        let mut batches = Vec::new();
        let mut last = unread;
        for batch in self.tail.iter().skip(skip).take(READ_BATCHES) {
            batches.extend(slot.interest.filter(batch));
            last = batch.revision;
        }
        slot.unread = (last < self.revision).then_some(last + 1);
        Next::Batches(batches)
    }

    /// Notes that the watch `id` has read the history up to and including `revision`.
    pub(crate) fn read_until(&mut self, id: u64, revision: Revision) {
        let current = self.revision;
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.unread = (revision < current).then_some(revision + 1);
        }
    }
}

/// What a batch holds in memory, roughly.
fn weight(batch: &EventBatch) -> usize {
    let of = |kv: &crate::model::KeyValue| kv.key.len() + kv.value.len();
    let events = batch.events.iter();
    events
        .map(|e| 256 + of(&e.kv) + e.prev.as_ref().map_or(0, of))
        .sum::<usize>()
        + 64
}

#[cfg(test)]
mod tests;
