//! The objects of one kind and their recent changes.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use evenkeel_api::row::ResourceDef;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::change::{Change, ChangeKind};
use crate::object::Object;

/// The log of a kind keeps at least this many changes,
const LOG_LEAST: usize = 1_024;
/// and no more than that many,
const LOG_MOST: usize = 32_768;
/// and, beyond the least, no more bytes of objects than that.
const LOG_BYTES: usize = 4 << 20;
/// So many changes are taken from the log at once to let go of their events.
const FORGET: u64 = 256;

/// The objects of a kind at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// In key order.
    pub objects: Vec<Arc<Object>>,
    /// How many there are, also where not all are given.
    pub count: usize,
    /// Where the log goes on.
    pub cursor: u64,
    /// The revision of the kind's last change.
    pub last: u64,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<Box<str>, Arc<Object>>,
    log: VecDeque<Arc<Change>>,
    log_bytes: usize,
    /// Bytes of all objects.
    bytes: usize,
    /// Sequence number of the first change in the log.
    first: u64,
    /// The log holds every change after this revision.
    since: u64,
    /// The revision of the last change of this kind.
    last: u64,
    phase: Phase,
}

/// How far a cache is.
#[derive(Debug, Default)]
enum Phase {
    /// It follows the feed.
    #[default]
    Live,
    /// It is being filled; what the feed brings meanwhile is applied behind that. A deletion has
    /// no object.
    Waiting(Vec<(Box<str>, u64, Option<Object>)>),
}

impl State {
    fn list(&self, namespace: &str, after: Option<&str>) -> Vec<Arc<Object>> {
        self.some(namespace, after, usize::MAX).0
    }

    /// The first objects, at most so many, and how many there are in all. Counting is a walk along
    /// the tree: nobody's objects are touched for it.
    fn some(&self, namespace: &str, after: Option<&str>, most: usize) -> (Vec<Arc<Object>>, usize) {
        let prefix = if namespace.is_empty() {
            String::new()
        } else {
            format!("{namespace}/")
        };
        let from = match after {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(prefix.as_str()),
        };
        let mut all = self
            .objects
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(path, _)| path.starts_with(prefix.as_str()));
        let first: Vec<Arc<Object>> = all
            .by_ref()
            .take(most)
            .map(|(_, object)| Arc::clone(object))
            .collect();
        let count = first.len() + if first.len() < most { 0 } else { all.count() };
        (first, count)
    }
}

/// The objects of one kind, in key order, and a bounded log of changes.
#[derive(Debug)]
pub struct KindCache {
    row: Arc<ResourceDef>,
    /// What its objects are sealed as.
    resource: String,
    state: RwLock<State>,
    /// The state's last revision, for those who only ask whether anything has changed.
    last: AtomicU64,
    /// What the feed has brought of this kind, beyond what was there at the start.
    received: AtomicU64,
    end: watch::Sender<u64>,
    filling: tokio::sync::Mutex<()>,
    retired: watch::Sender<bool>,
    lines: Mutex<Lines>,
}

/// Which changes of the log may still have the events that were written of them, by sequence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Lines {
    /// None before it.
    from: u64,
    /// What was there when it was looked at last.
    seen: u64,
}

impl KindCache {
    /// An empty cache.
    #[must_use]
    pub fn new(row: Arc<ResourceDef>) -> Self {
        Self {
            resource: row.stored_group_resource(),
            row,
            state: RwLock::default(),
            last: AtomicU64::new(0),
            received: AtomicU64::new(0),
            end: watch::Sender::new(0),
            filling: tokio::sync::Mutex::default(),
            retired: watch::Sender::new(false),
            lines: Mutex::default(),
        }
    }

    /// A cache that keeps changes until it is filled.
    pub(super) fn waiting(row: Arc<ResourceDef>) -> Self {
        let state = State {
            phase: Phase::Waiting(Vec::new()),
            ..State::default()
        };
        Self {
            state: RwLock::new(state),
            ..Self::new(row)
        }
    }

    /// Held by whoever fills it.
    pub(super) fn filling(&self) -> &tokio::sync::Mutex<()> {
        &self.filling
    }

    /// Has it been filled?
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self.state.read().phase, Phase::Live)
    }

    /// Puts in what was stored at a revision, and what came after it.
    pub(super) fn filled(&self, objects: impl Iterator<Item = (String, Object)>, revision: u64) {
        // Read outside the lock: the feed waits for it.
        let objects: BTreeMap<Box<str>, Arc<Object>> = objects
            .map(|(path, object)| (path.into(), Arc::new(object)))
            .collect();
        let bytes = objects.values().map(|object| object.bytes.len()).sum();
        let mut state = self.state.write();
        state.objects = objects;
        state.bytes = bytes;
        state.since = revision;
        self.set_last(&mut state, revision);
        let Phase::Waiting(kept) = std::mem::take(&mut state.phase) else {
            return;
        };
        for (path, revision, object) in kept {
            match object {
                Some(object) => self.apply_put(&mut state, &path, object),
                None => self.apply_delete(&mut state, &path, revision),
            }
        }
        drop(state);
        self.announce();
    }

    /// Says that this cache will not change any more: its kind is gone or has another type now.
    pub(super) fn retire(&self) {
        self.retired.send_replace(true);
    }

    /// Waits until the cache is retired.
    pub async fn retirement(&self) {
        // The sender lives in `self`, so that waiting can't fail while `self` is borrowed.
        drop(self.retired.subscribe().wait_for(|retired| *retired).await);
    }

    /// The kind.
    #[must_use]
    pub fn row(&self) -> &Arc<ResourceDef> {
        &self.row
    }

    /// `pods` or `deployments.apps`, as its objects are stored.
    pub(super) fn resource(&self) -> &str {
        &self.resource
    }

    /// The object at `NAMESPACE/NAME` or `NAME`.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<Arc<Object>> {
        self.state.read().objects.get(path).cloned()
    }

    /// How many changes of this kind the feed has brought.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// The revision of the last change of this kind.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }

    fn set_last(&self, state: &mut State, revision: u64) {
        state.last = revision;
        self.last.store(revision, Ordering::Release);
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    /// How many objects there are, and their bytes.
    #[must_use]
    pub fn stored(&self) -> (u64, u64) {
        let state = self.state.read();
        (state.objects.len() as u64, state.bytes as u64)
    }

    /// None at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The objects of a namespace (empty: of all), after a path, in key order.
    #[must_use]
    pub fn list(&self, namespace: &str, after: Option<&str>) -> Vec<Arc<Object>> {
        self.state.read().list(namespace, after)
    }

    /// The first objects after a path, at most so many, and how many there are in all, if nothing
    /// of this kind has changed after `revision`.
    #[must_use]
    pub fn list_at(
        &self,
        namespace: &str,
        after: Option<&str>,
        revision: u64,
        most: usize,
    ) -> Option<(Vec<Arc<Object>>, usize)> {
        let state = self.state.read();
        (state.last <= revision).then(|| state.some(namespace, after, most))
    }

    /// Objects, the end of the log and the last revision, taken together: what goes on from there
    /// misses nothing.
    #[must_use]
    pub fn snapshot(&self, namespace: &str) -> Snapshot {
        self.snapshot_of(namespace, usize::MAX)
    }

    /// As [`Self::snapshot`], with at most so many objects.
    #[must_use]
    pub fn snapshot_of(&self, namespace: &str, most: usize) -> Snapshot {
        let state = self.state.read();
        let (objects, count) = state.some(namespace, None, most);
        Snapshot {
            objects,
            count,
            cursor: state.first + state.log.len() as u64,
            last: state.last,
        }
    }

    /// The cursor behind the last change at or before a revision; `None` when the log does not
    /// reach back that far.
    #[must_use]
    pub fn cursor(&self, revision: u64) -> Option<u64> {
        let state = self.state.read();
        if revision < state.since {
            return None;
        }
        let behind = state
            .log
            .partition_point(|change| change.object.revision <= revision);
        Some(state.first + behind as u64)
    }

    /// Up to `most` changes from a cursor on; `None` when the log has moved past it.
    #[must_use]
    pub fn changes(&self, cursor: u64, most: usize) -> Option<Vec<Arc<Change>>> {
        let state = self.state.read();
        let skip = usize::try_from(cursor.checked_sub(state.first)?).unwrap_or(usize::MAX);
        Some(state.log.iter().skip(skip).take(most).cloned().collect())
    }

    /// Tells when the log grows: its end as a sequence number.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.end.subscribe()
    }

    /// Puts an object in without a change: what was there at start.
    pub(super) fn load(&self, path: &str, object: Object) {
        let mut state = self.state.write();
        let last = state.last.max(object.revision);
        self.set_last(&mut state, last);
        state.bytes += object.bytes.len();
        if let Some(previous) = state.objects.insert(path.into(), Arc::new(object)) {
            state.bytes -= previous.bytes.len();
        }
    }

    /// Says from which revision on the log is complete.
    pub(super) fn loaded(&self, revision: u64) {
        self.state.write().since = revision;
    }

    /// Takes in a write; to be announced.
    pub(super) fn put(&self, path: &str, object: Object) {
        self.received.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.write();
        if let Phase::Waiting(kept) = &mut state.phase {
            kept.push((path.into(), object.revision, Some(object)));
            return;
        }
        self.apply_put(&mut state, path, object);
    }

    fn apply_put(&self, state: &mut State, path: &str, object: Object) {
        if object.revision <= state.since {
            // What the cache was filled with shows it already.
            return;
        }
        let object = Arc::new(object);
        let previous = state.objects.insert(path.into(), Arc::clone(&object));
        state.bytes += object.bytes.len();
        state.bytes -= previous.as_ref().map_or(0, |previous| previous.bytes.len());
        let kind = if previous.is_some() {
            ChangeKind::Modified
        } else {
            ChangeKind::Added
        };
        self.log(state, kind, object, previous);
    }

    /// Takes in a deletion at a revision; to be announced.
    pub(super) fn delete(&self, path: &str, revision: u64) {
        self.received.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.write();
        if let Phase::Waiting(kept) = &mut state.phase {
            kept.push((path.into(), revision, None));
            return;
        }
        self.apply_delete(&mut state, path, revision);
    }

    fn apply_delete(&self, state: &mut State, path: &str, revision: u64) {
        if revision <= state.since {
            return;
        }
        let Some(previous) = state.objects.remove(path) else {
            return;
        };
        state.bytes -= previous.bytes.len();
        let mut object = Object::clone(&previous);
        object.revision = revision;
        self.log(state, ChangeKind::Deleted, Arc::new(object), Some(previous));
    }

    fn log(
        &self,
        state: &mut State,
        kind: ChangeKind,
        object: Arc<Object>,
        previous: Option<Arc<Object>>,
    ) {
        let sequence = state.first + state.log.len() as u64;
        self.set_last(state, object.revision);
        state.log_bytes += object.bytes.len();
        let change = Change::new(kind, object, previous).at(sequence);
        state.log.push_back(Arc::new(change));
        while state.log.len() > LOG_MOST
            || (state.log.len() > LOG_LEAST && state.log_bytes > LOG_BYTES)
        {
            let Some(oldest) = state.log.pop_front() else {
                break;
            };
            state.first = oldest.sequence() + 1;
            state.since = oldest.object.revision;
            state.log_bytes -= oldest.object.bytes.len();
        }
    }

    /// Lets go of the events that were written of changes that were there at the last call. They are
    /// as large as the objects again, and nobody comes for them any more but who is far behind.
    pub(super) fn forget_lines(&self) {
        let mut lines = self.lines.lock();
        loop {
            let (end, old): (u64, Vec<Arc<Change>>) = {
                let state = self.state.read();
                let end = state.first + state.log.len() as u64;
                lines.from = lines.from.clamp(state.first, end);
                let until = lines.seen.clamp(lines.from, lines.from + FORGET).min(end);
                let at = |sequence: u64| usize::try_from(sequence - state.first).unwrap_or(0);
                let old = state.log.range(at(lines.from)..at(until));
                (end, old.cloned().collect())
            };
            let Some(last) = old.last() else {
                lines.seen = end;
                return;
            };
            lines.from = last.sequence() + 1;
            old.iter().for_each(|change| change.forget_line());
        }
    }

    /// Tells watchers that the log has grown. Whoever takes in changes calls it behind them.
    pub(super) fn announce(&self) {
        let state = self.state.read();
        let end = state.first + state.log.len() as u64;
        drop(state);
        self.end.send_if_modified(|known| {
            let grows = end > *known;
            *known = end.max(*known);
            grows
        });
    }
}

#[cfg(test)]
mod tests;
