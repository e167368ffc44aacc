//! watch: changes as they happen, in order, without a gap.
//!
//! A watch is a cursor into the kind's log. When it starts before the log, or falls out of it, it
//! goes on from the store's history; where that is compacted it ends with 410 and the client
//! lists again. Nothing is ever skipped, and a slow reader costs a writer nothing.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use evenkeel_api::row::ResourceDef;
use evenkeel_api::schema::{Schema, Ty};
use evenkeel_api::{Status, cbor, protobuf};
use evenkeel_store::{Event, EventKind, StoreError, WatchStream, prefix_end};
use futures::StreamExt as _;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, Sleep};

use super::Request;
use super::options;
use super::read::{revision_of, selection};
use super::show::{TableStyle, metadata_only};
use super::socket::Socket;
use crate::cache::{Change, ChangeKind, KindCache, event_line, metadata_line};
use crate::door::PeerAddress;
use crate::families::nanoseconds;
use crate::http::{Answer, Encoding, Media, Shape, answer, stream};
use crate::metrics::Histogram;
use crate::object::{Object, Selection};
use crate::registry::{Registry, store_status};

/// Bookmarks come this often to those who ask for them.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A watch without a time-out of its own lives at least this long, in seconds.
const DEFAULT_TIMEOUT: u64 = 1800;
/// So many changes are taken from the log at once,
const BATCH: usize = 256;
/// and about so many bytes are handed on at once.
const PIECE: usize = 64 << 10;
/// Over a connection changes are told at once when all is quiet, and in a burst once in this time,
/// all that came together: a write to a socket costs more than the event in it.
const PACE: Duration = Duration::from_millis(5);
/// The more there was to tell, the longer the time to the next piece: so much for each event …
const PACE_OF_ONE: Duration = Duration::from_millis(1);
/// … and no longer than this.
const SLOWEST_PACE: Duration = Duration::from_millis(20);

/// Where changes come from.
enum Source {
    /// The kind's log.
    Log { cursor: u64, end: Receiver<u64> },
    /// The store's history.
    Store(WatchStream),
}

impl Source {
    /// How long somebody over a connection waits after so many changes for the next ones. Who is
    /// behind, or reads what has left the log, is not kept waiting.
    fn pace(&self, changes: usize) -> Option<Duration> {
        if matches!(self, Self::Store(_)) || changes >= BATCH {
            return None;
        }
        let many = u32::try_from(changes).unwrap_or(u32::MAX);
        let pace = PACE_OF_ONE.saturating_mul(many);
        Some(pace.clamp(PACE, SLOWEST_PACE))
    }
}

pub(super) struct Watch {
    registry: Registry,
    cache: Arc<KindCache>,
    row: Arc<ResourceDef>,
    selection: Selection,
    media: Media,
    schema: Arc<Schema>,
    style: Option<TableStyle>,
    source: Source,
    /// What is to be sent before anything else.
    initial: VecDeque<Bytes>,
    events: Arc<AtomicU64>,
    sizes: Arc<Histogram>,
    /// Every event is a piece of its own.
    apart: bool,
    bookmarks: bool,
    next_bookmark: Instant,
    /// Revision of the last change sent or passed over.
    last: u64,
    /// What happens up to here is not told: the watch was asked for from the future.
    after: u64,
    began: Instant,
    /// When the initial objects were asked for, until they are all sent.
    listing: Option<(Instant, Arc<Histogram>)>,
    deadline: Instant,
    /// Goes off at the next bookmark or the end. Kept from event to event: a new timer for each
    /// would cost more than many an event.
    alarm: Pin<Box<Sleep>>,
    /// Somebody reads it over a connection.
    remote: bool,
    /// When more may be told.
    told_again: Option<Instant>,
    done: bool,
}

pub(super) async fn watch(mut request: Request<'_>) -> Result<Answer, Status> {
    let socket = Socket::asked(&mut request.call.parts);
    let query = &request.call.query;
    let registry = request.door.registry.clone();
    let cache = registry.cache(&request.row)?;
    options::check_list(query, true)?;
    let selection = selection(&request)?;
    let send_initial = query
        .has("sendInitialEvents")
        .then(|| query.flag("sendInitialEvents"));
    let asked = query.get("resourceVersion");
    let from = if asked.is_empty() {
        0
    } else {
        revision_of(asked)?
    };
    let style = match request.media.shape {
        Shape::Table => Some(TableStyle::new(&request)?),
        _ => None,
    };
    let seconds = query
        .number("timeoutSeconds")
        .and_then(|value| u64::try_from(value).ok());
    // Watches without a time-out end at different times, so that they do not all come back at once.
    let timeout = seconds
        .filter(|seconds| *seconds > 0)
        .unwrap_or_else(|| DEFAULT_TIMEOUT + rand::random_range(0..DEFAULT_TIMEOUT));
    let bookmarks = query.flag("allowWatchBookmarks");
    let told = [
        &*request.row.gvk.group,
        &*request.row.plural,
        &*request.row.gvk.version,
    ];
    let deadline = Instant::now() + Duration::from_secs(timeout);
    let mut watch = Watch {
        registry: registry.clone(),
        cache: Arc::clone(&cache),
        row: Arc::clone(&request.row),
        selection,
        media: request.media,
        schema: Arc::clone(request.door.rows().schema()),
        style,
        source: Source::Log {
            cursor: 0,
            end: cache.subscribe(),
        },
        initial: VecDeque::new(),
        events: registry.counted.watch_events.of(&told),
        sizes: registry.counted.watch_sizes.of(&told),
        apart: socket.is_some(),
        bookmarks,
        next_bookmark: Instant::now() + BOOKMARK_EVERY,
        last: from,
        after: 0,
        began: Instant::now(),
        listing: None,
        deadline,
        alarm: Box::pin(tokio::time::sleep_until(deadline)),
        remote: request.call.parts.extensions.get::<PeerAddress>().is_some(),
        told_again: None,
        done: false,
    };
    let with_objects = send_initial.unwrap_or(from == 0);
    if with_objects {
        let current = registry.fresh().await?;
        if from > current {
            return Err(store_status(&StoreError::FutureRevision {
                requested: from,
                current,
            }));
        }
        watch
            .start_with_objects(send_initial.is_some() && bookmarks)
            .await?;
    } else {
        if from == 0 {
            registry.fresh().await?;
            watch.last = registry.caches.revision();
        }
        // One from the future begins quietly, and tells what comes behind it, as there.
        if watch.last > registry.caches.revision() && watch.last > registry.fresh().await? {
            watch.after = watch.last;
        }
        match watch.start_after(watch.last).await {
            Ok(()) => {}
            // A watch that can't start is told inside the stream, with 200, as the reference does.
            Err(status) => watch.fail(&status),
        }
    }
    if let Some(socket) = socket {
        let as_text = request.media.encoding == Encoding::Json;
        return Ok(socket.watch(watch, as_text));
    }
    let content_type = match request.media.encoding {
        Encoding::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        Encoding::Cbor => cbor::SEQUENCE,
        _ => "application/json",
    };
    let pieces = futures::stream::unfold(watch, |mut watch| async move {
        watch.next().await.map(|piece| (Ok(piece), watch))
    });
    Ok(answer(StatusCode::OK, content_type, stream(pieces)))
}

impl Watch {
    async fn start_with_objects(&mut self, end_bookmark: bool) -> Result<(), Status> {
        // Read before the objects: they are complete up to this revision at least.
        let revision = self.registry.caches.revision();
        let snapshot = self.cache.snapshot(&self.selection.namespace);
        self.source = Source::Log {
            cursor: snapshot.cursor,
            end: self.cache.subscribe(),
        };
        self.last = revision.max(snapshot.last);
        let mut piece = BytesMut::new();
        let objects = self.registry.shown(&self.row, snapshot.objects).await?;
        for object in objects {
            if self.selection.matches(&self.row, &object.head) {
                let event = self.render(ChangeKind::Added, &object);
                self.count(&event);
                piece.extend_from_slice(&event);
            }
            if piece.len() > PIECE || (self.apart && !piece.is_empty()) {
                self.initial.push_back(piece.split().freeze());
            }
        }
        if end_bookmark {
            let place = if self.selection.namespace.is_empty() {
                "cluster"
            } else {
                "namespace"
            };
            let gvk = &self.row.gvk;
            let told = [&*gvk.group, &*self.row.plural, place, &*gvk.version];
            let listed = self.registry.counted.watch_lists.of(&told);
            self.listing = Some((self.began, listed));
            piece.extend_from_slice(&self.bookmark(self.last, true));
        }
        if !piece.is_empty() {
            self.initial.push_back(piece.freeze());
        }
        Ok(())
    }

    async fn start_after(&mut self, revision: u64) -> Result<(), Status> {
        if let Some(cursor) = self.cache.cursor(revision) {
            self.source = Source::Log {
                cursor,
                end: self.cache.subscribe(),
            };
            return Ok(());
        }
        let start = Bytes::from(self.row.store_prefix());
        let end = prefix_end(&start);
        let changes = self
            .registry
            .store
            .watch(start, Some(end), Some(revision + 1))
            .await
            .map_err(|error| too_old(&error, revision))?;
        self.source = Source::Store(changes);
        Ok(())
    }

    fn fail(&mut self, status: &Status) {
        let told = match self.media.encoding {
            Encoding::Protobuf => {
                protobuf::watch_frame("ERROR", &protobuf::encode_status(status)).into()
            }
            _ => self.frame("ERROR", &json!(status)),
        };
        self.initial.push_back(told);
        self.done = true;
    }

    pub(super) fn is_protobuf(&self) -> bool {
        self.media.encoding == Encoding::Protobuf
    }

    /// The next piece of the answer; `None` at its end.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(piece) = self.initial.pop_front() {
                if self.initial.is_empty()
                    && let Some((began, listed)) = self.listing.take()
                {
                    listed.observe(nanoseconds(began.elapsed()));
                }
                return Some(piece);
            }
            if self.done {
                return None;
            }
            if self.remote
                && let Some(again) = self.told_again.take()
                && again > Instant::now()
            {
                tokio::time::sleep_until(again).await;
            }
            let wake = if self.bookmarks {
                self.next_bookmark.min(self.deadline)
            } else {
                self.deadline
            };
            if self.alarm.deadline() != wake {
                self.alarm.as_mut().reset(wake);
            }
            // Only custom kinds can lose their cache.
            let lost = async {
                match &self.row.custom {
                    Some(_) => self.cache.retirement().await,
                    None => std::future::pending().await,
                }
            };
            let step = tokio::select! {
                biased;
                step = step(&mut self.source, &self.cache, &self.row, &self.registry, self.last) => step,
                () = lost => return None,
                () = &mut self.alarm => Step::Wake,
            };
            match step {
                Step::Changes(changes) => {
                    let pace = self.source.pace(changes.len());
                    // Only custom kinds may have to be converted. That, and what is rare, is boxed: a
                    // watch keeps room for whatever it may ever wait for.
                    let changes = match &self.row.custom {
                        Some(_) => Box::pin(self.registry.shown_changes(&self.row, changes)).await,
                        None => Ok(changes),
                    };
                    match changes {
                        Ok(changes) => {
                            if let Some(piece) = self.take(&changes) {
                                self.told_again = pace.map(|pace| Instant::now() + pace);
                                return Some(piece);
                            }
                        }
                        Err(status) => self.fail(&status),
                    }
                }
                Step::Behind => {
                    if let Err(status) = Box::pin(self.start_after(self.last)).await {
                        self.fail(&status);
                    }
                }
                Step::Failed(error) => self.fail(&too_old(&error, self.last)),
                Step::Wake if Instant::now() >= self.deadline => return None,
                Step::Wake => {
                    self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                    let complete = self.complete_up_to();
                    if let Some(revision) = complete.filter(|revision| *revision >= self.last) {
                        self.last = revision;
                        return Some(self.bookmark(revision, false));
                    }
                }
            }
        }
    }

    /// The revision up to which everything has been sent, when the watch has caught up.
    fn complete_up_to(&self) -> Option<u64> {
        let revision = self.registry.caches.revision();
        match &self.source {
            Source::Log { cursor, .. } => {
                // Read after the revision: what the log holds now covers it.
                self.cache
                    .changes(*cursor, 1)
                    .filter(Vec::is_empty)
                    .map(|_| revision)
            }
            Source::Store(_) => None,
        }
    }

    fn take(&mut self, changes: &[Arc<Change>]) -> Option<Bytes> {
        let past = changes.partition_point(|change| change.object.revision <= self.after);
        let changes = &changes[past..];
        if self.apart {
            for change in changes {
                self.last = change.object.revision;
                if let Some(event) = self.event(change) {
                    self.count(&event);
                    self.initial.push_back(event);
                }
            }
            return self.initial.pop_front();
        }
        let mut events = Vec::with_capacity(changes.len());
        for change in changes {
            self.last = change.object.revision;
            if let Some(event) = self.event(change) {
                self.count(&event);
                events.push(event);
            }
        }
        if events.len() < 2 {
            // One event is the common case: its bytes are shared, not copied.
            return events.pop();
        }
        let mut piece = BytesMut::with_capacity(events.iter().map(Bytes::len).sum());
        for event in events {
            piece.extend_from_slice(&event);
        }
        Some(piece.freeze())
    }

    /// What a change is to this watch: objects enter and leave its selection.
    fn event(&mut self, change: &Arc<Change>) -> Option<Bytes> {
        let now = self.selection.matches(&self.row, &change.object.head);
        let before = change
            .previous
            .as_ref()
            .is_some_and(|previous| self.selection.matches(&self.row, &previous.head));
        let kind = match (change.kind, before, now) {
            (ChangeKind::Deleted, true, _) => ChangeKind::Deleted,
            (ChangeKind::Deleted, false, _) | (_, false, false) => return None,
            (_, false, true) => ChangeKind::Added,
            (_, true, true) => ChangeKind::Modified,
            (_, true, false) => ChangeKind::Deleted,
        };
        // In this process few watch a kind: what is written for one of them goes when it is read, and is
        // not kept for the others.
        if kind == change.kind && self.media == Media::JSON && self.remote {
            return Some(change.line());
        }
        if kind == ChangeKind::Deleted && change.kind != ChangeKind::Deleted {
            // What leaves the selection is shown as it last was inside, at the new revision.
            let mut gone = Object::clone(change.previous.as_deref().unwrap_or(&change.object));
            gone.revision = change.object.revision;
            return Some(self.render(kind, &gone));
        }
        Some(self.render(kind, &change.object))
    }

    fn render(&mut self, kind: ChangeKind, object: &Object) -> Bytes {
        let shown = match (self.media.shape, &mut self.style) {
            (Shape::Table, Some(style)) => style.event(&object.value()),
            (Shape::Metadata, _) if self.media.encoding == Encoding::Json => {
                return metadata_line(kind, object, self.media.meta_version());
            }
            (Shape::Metadata, _) => metadata_only(&object.value(), self.media.meta_version()),
            _ if self.media.encoding == Encoding::Json => return event_line(kind, object),
            _ => object.value(),
        };
        self.frame(kind.as_str(), &shown)
    }

    /// One event in the client's encoding.
    fn frame(&mut self, kind: &str, shown: &Value) -> Bytes {
        match self.media.encoding {
            Encoding::Protobuf => {}
            Encoding::Cbor => return cbor::watch_frame(kind, shown).into(),
            _ => return line(kind, shown),
        }
        match protobuf::encode_object(&self.schema, shown) {
            Ok(object) => protobuf::watch_frame(kind, &object).into(),
            Err(error) => {
                let status = Status::internal(format!("can't write protobuf: {error}"));
                self.done = true;
                protobuf::watch_frame("ERROR", &protobuf::encode_status(&status)).into()
            }
        }
    }

    fn count(&self, event: &Bytes) {
        self.events.fetch_add(1, Ordering::Relaxed);
        let bytes = u64::try_from(event.len()).unwrap_or(u64::MAX);
        self.sizes.observe(bytes.saturating_mul(1_000_000_000));
    }

    fn bookmark(&mut self, revision: u64, end_of_initial: bool) -> Bytes {
        let (api_version, kind) = match self.media.shape {
            // A table has an object like this one as its row.
            Shape::Object | Shape::Groups | Shape::Table => {
                (self.row.gvk.api_version(), self.row.gvk.kind.to_string())
            }
            Shape::Metadata => (
                self.media.meta_version().to_owned(),
                "PartialObjectMetadata".to_owned(),
            ),
        };
        let mut object = json!({
            "apiVersion": api_version,
            "kind": kind,
            "metadata": {"resourceVersion": revision.to_string()},
        });
        if self.media.shape != Shape::Metadata && self.row.custom.is_none() {
            let ty = self.schema.named(&self.row.type_name).unwrap_or(Ty::Any);
            self.schema.fill(&ty, &mut object);
        }
        if end_of_initial {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let shown = match &mut self.style {
            Some(style) => style.event(&object),
            None => object,
        };
        self.frame("BOOKMARK", &shown)
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    Bytes::from(format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n"))
}

fn too_old(error: &StoreError, revision: u64) -> Status {
    match error {
        StoreError::Compacted { compacted, .. } => Status::expired(format!(
            "too old resource version: {revision} ({compacted})"
        )),
        other => store_status(other),
    }
}

/// What happened next.
enum Step {
    Changes(Vec<Arc<Change>>),
    /// The log has moved past the cursor.
    Behind,
    Failed(StoreError),
    Wake,
}

async fn step(
    source: &mut Source,
    cache: &KindCache,
    row: &ResourceDef,
    registry: &Registry,
    last: u64,
) -> Step {
    match source {
        Source::Log { cursor, end } => loop {
            match cache.changes(*cursor, BATCH) {
                None => return Step::Behind,
                Some(changes) if changes.is_empty() => {
                    // The cache lives as long as the door; its end is the end of the watch.
                    if end.changed().await.is_err() {
                        return Step::Failed(StoreError::Closed);
                    }
                }
                Some(changes) => {
                    *cursor += changes.len() as u64;
                    return Step::Changes(changes);
                }
            }
        },
        Source::Store(stream) => loop {
            match stream.next().await {
                None => return Step::Failed(StoreError::Closed),
                Some(Err(error)) => return Step::Failed(error),
                Some(Ok(batch)) => {
                    for event in batch.events.iter().filter(|e| e.kv.mod_revision > last) {
                        let previous = event.prev.as_ref().map(|kv| &kv.value);
                        for value in [Some(&event.kv.value), previous].into_iter().flatten() {
                            Box::pin(registry.seal.insist(value)).await;
                        }
                    }
                    let changes: Vec<Arc<Change>> = batch
                        .events
                        .iter()
                        .filter(|event| event.kv.mod_revision > last)
                        .filter_map(|event| from_history(row, registry, event))
                        .collect();
                    if !changes.is_empty() {
                        return Step::Changes(changes);
                    }
                }
            }
        },
    }
}

fn from_history(row: &ResourceDef, registry: &Registry, event: &Event) -> Option<Arc<Change>> {
    let read = |kv: &evenkeel_store::KeyValue| {
        registry.read(row, &kv.key, &kv.value, kv.mod_revision).ok()
    };
    let previous = event.prev.as_ref().and_then(read);
    let (kind, object) = match event.kind {
        EventKind::Put if previous.is_some() => (ChangeKind::Modified, read(&event.kv)?),
        EventKind::Put => (ChangeKind::Added, read(&event.kv)?),
        EventKind::Delete => {
            let mut gone = Object::clone(previous.as_deref()?);
            gone.revision = event.kv.mod_revision;
            (ChangeKind::Deleted, Arc::new(gone))
        }
    };
    Some(Arc::new(Change::new(kind, object, previous)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_caught_up_waits_for_the_next_piece() {
        let (_changed, end) = tokio::sync::watch::channel(0);
        let log = Source::Log { cursor: 0, end };
        assert_eq!(log.pace(1), Some(PACE));
        assert_eq!(log.pace(12), Some(Duration::from_millis(12)));
        assert_eq!(log.pace(BATCH - 1), Some(SLOWEST_PACE));
        // There is more in the log already.
        assert_eq!(log.pace(BATCH), None);

        let history = Source::Store(futures::stream::empty().boxed());
        assert_eq!(history.pace(1), None);
        assert_eq!(history.pace(12), None);
    }
}
