//! List and watch: how a view follows the door.
//!
//! A list in pages, then a watch from the list's revision, resumed from the last revision seen
//! (bookmarks included) whenever it ends; 410 Gone means a new list; errors are backed off from
//! 100 ms to 30 s. The same code feeds typed views and the metadata-only ownership graph.

use std::borrow::Cow;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use futures::AsyncBufReadExt as _;
use kube::Resource;
use kube::core::params::{ListParams, WatchParams};
use kube::core::{ListMeta, ObjectMeta, Request, Status};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::lean::without_managed_fields;
use super::state::revision;
use crate::errors;
use crate::kind::{Decode, JsonError};
use crate::retry::Backoff;

/// Objects of a page of a list.
const PAGE: u32 = 2000;
/// A watch is given up when nothing, not even its end, came for so long: the server ends watches
/// after 290 s, so the connection behind it is dead.
const SILENCE: Duration = Duration::from_secs(330);
/// When tries to follow what is not served are this far apart, it is worth a warning.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes that the buffer for an event keeps.
const LINE: usize = 16 << 10;

/// What is reflected.
#[derive(Debug, Clone)]
pub struct Target {
    /// Path of the collection, such as `/apis/apps/v1/deployments`.
    pub path: String,
    /// Ask for `PartialObjectMetadata` only.
    pub metadata_only: bool,
    /// Only objects that this field selector matches, such as `metadata.name=x`.
    pub field_selector: Option<String>,
    /// Only objects that this label selector matches.
    pub label_selector: Option<String>,
}

impl Target {
    /// All objects of a kind in all namespaces.
    #[must_use]
    pub fn of<K: Resource<DynamicType = ()>>() -> Self {
        Self {
            path: K::url_path(&(), None),
            metadata_only: false,
            field_selector: None,
            label_selector: None,
        }
    }
}

/// One event of a watch.
#[derive(Debug)]
pub enum Event<K> {
    /// Added or modified.
    Put(K),
    /// Deleted.
    Gone(K),
}

/// Takes in what a reflection brings. Called from one task, in order.
pub trait Sink<K>: Send + Sync + 'static {
    /// These are all objects there are at `revision`.
    fn replace(&self, items: Vec<K>, revision: u64);
    /// One object changed at `revision`.
    fn event(&self, event: Event<K>, revision: u64);
    /// Nothing older than `revision` will come.
    fn bookmark(&self, revision: u64);
}

/// What takes in texts of any kind, so that the way to follow one is built once and not for each.
trait Texts: Send {
    /// A page of a list that is being read.
    fn page(&mut self, items: &[&RawValue]) -> Result<(), JsonError>;
    /// The pages since the last call are all objects there are at `revision`.
    fn listed(&mut self, revision: u64);
    /// One object changed; the answer is its revision. On an error nothing was taken in.
    fn event(&mut self, object: &str, gone: bool) -> Result<u64, JsonError>;
    /// Nothing older than `revision` will come.
    fn bookmark(&mut self, revision: u64);
}

struct Decoded<K, S> {
    sink: Arc<S>,
    items: Vec<K>,
}

impl<K: Decode + Resource + Send, S: Sink<K>> Texts for Decoded<K, S> {
    fn page(&mut self, items: &[&RawValue]) -> Result<(), JsonError> {
        for item in items {
            self.items.push(K::decode(item.get())?);
        }
        Ok(())
    }

    fn listed(&mut self, revision: u64) {
        self.sink.replace(std::mem::take(&mut self.items), revision);
    }

    fn event(&mut self, object: &str, gone: bool) -> Result<u64, JsonError> {
        let object = K::decode(object)?;
        let revision = revision(&object);
        let event = if gone {
            Event::Gone(object)
        } else {
            Event::Put(object)
        };
        self.sink.event(event, revision);
        Ok(revision)
    }

    fn bookmark(&mut self, revision: u64) {
        self.sink.bookmark(revision);
    }
}

enum Ended {
    Relist,
    Resume,
    Failed(kube::Error),
}

/// Follows `target` into `sink` until `shutdown`.
pub fn reflect<K, S>(
    client: kube::Client,
    target: Target,
    sink: Arc<S>,
    shutdown: CancellationToken,
) -> impl Future<Output = ()> + Send + use<K, S>
where
    K: Decode + Resource + Send + 'static,
    S: Sink<K>,
{
    follow_until(shutdown, client, target, texts(sink))
}

/// Follows in a task of its own.
pub(super) fn reflect_in<K, S>(
    tasks: &TaskTracker,
    client: kube::Client,
    sink: Arc<S>,
    shutdown: CancellationToken,
) where
    K: Decode + Resource<DynamicType = ()> + Send + 'static,
    S: Sink<K>,
{
    spawn(tasks, shutdown, client, Target::of::<K>(), texts(sink));
}

fn texts<K, S>(sink: Arc<S>) -> Box<dyn Texts>
where
    K: Decode + Resource + Send + 'static,
    S: Sink<K>,
{
    Box::new(Decoded {
        sink,
        items: Vec::new(),
    })
}

fn spawn(
    tasks: &TaskTracker,
    shutdown: CancellationToken,
    client: kube::Client,
    target: Target,
    texts: Box<dyn Texts>,
) {
    tasks.spawn(follow_until(shutdown, client, target, texts));
}

async fn follow_until(
    shutdown: CancellationToken,
    client: kube::Client,
    target: Target,
    mut texts: Box<dyn Texts>,
) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = follow(&client, &target, texts.as_mut()) => {}
    }
}

async fn follow(client: &kube::Client, target: &Target, texts: &mut dyn Texts) {
    let mut hasher = std::hash::DefaultHasher::new();
    target.path.hash(&mut hasher);
    let mut backoff = Backoff::new(
        Duration::from_millis(100),
        Duration::from_secs(30),
        hasher.finish(),
    );
    loop {
        let mut at = match list(client, target, texts).await {
            Ok(at) => at,
            Err(error) => {
                pause(&mut backoff, target, "list", &error).await;
                continue;
            }
        };
        loop {
            let began = at;
            let ended = watch(client, target, texts, &mut at).await;
            if at > began {
                backoff.reset();
            }
            match ended {
                Ended::Resume if at > began => {}
                // Ended at once without news: do not spin on a server that keeps hanging up.
                Ended::Resume => tokio::time::sleep(backoff.next_wait()).await,
                Ended::Relist => {
                    tokio::time::sleep(backoff.next_wait()).await;
                    break;
                }
                Ended::Failed(error) => pause(&mut backoff, target, "watch", &error).await,
            }
        }
    }
}

async fn pause(backoff: &mut Backoff, target: &Target, verb: &str, error: &kube::Error) {
    let wait = backoff.next_wait();
    let message = errors::message(error);
    // The definition of a custom kind may be made at this moment.
    if errors::is_not_found(error) && wait < PATIENCE {
        tracing::debug!(path = target.path, verb, ?wait, "not served yet");
    } else {
        tracing::warn!(
            path = target.path,
            verb,
            error = message,
            ?wait,
            "cannot follow, trying again"
        );
    }
    tokio::time::sleep(wait).await;
}

async fn list(
    client: &kube::Client,
    target: &Target,
    texts: &mut dyn Texts,
) -> Result<u64, kube::Error> {
    let request = Request::new(&target.path);
    let mut params = ListParams::default().limit(PAGE);
    params.field_selector.clone_from(&target.field_selector);
    params.label_selector.clone_from(&target.label_selector);
    loop {
        let built = if target.metadata_only {
            request.list_metadata(&params)
        } else {
            request.list(&params)
        };
        let text = client
            .request_text(built.map_err(kube::Error::BuildRequest)?)
            .await?;
        let page = without_managed_fields(&text);
        let page: RawList<'_> = serde_json::from_str(&page).map_err(kube::Error::SerdeError)?;
        texts
            .page(page.items.as_deref().unwrap_or_default())
            .map_err(kube::Error::SerdeError)?;
        let next = page.metadata.continue_.filter(|token| !token.is_empty());
        match next {
            Some(token) => params.continue_token = Some(token),
            None => {
                let at = page.metadata.resource_version.unwrap_or_default();
                let at = at.parse().unwrap_or(0);
                texts.listed(at);
                return Ok(at);
            }
        }
    }
}

async fn watch(
    client: &kube::Client,
    target: &Target,
    texts: &mut dyn Texts,
    at: &mut u64,
) -> Ended {
    let request = Request::new(&target.path);
    let params = WatchParams {
        field_selector: target.field_selector.clone(),
        label_selector: target.label_selector.clone(),
        ..WatchParams::default()
    };
    let from = at.to_string();
    let built = if target.metadata_only {
        request.watch_metadata(&params, &from)
    } else {
        request.watch(&params, &from)
    };
    let answer = match built {
        Ok(mut built) => {
            let identity = http::HeaderValue::from_static("identity");
            let headers = built.headers_mut();
            headers.insert(http::header::ACCEPT_ENCODING, identity);
            client.request_stream(built).await
        }
        Err(error) => return Ended::Failed(kube::Error::BuildRequest(error)),
    };
    let mut lines = match answer {
        Ok(answer) => std::pin::pin!(answer),
        Err(error) => return ended(error),
    };
    let mut line = String::new();
    loop {
        line.clear();
        // One large object is no reason to keep the room for it.
        line.shrink_to(LINE);
        match tokio::time::timeout(SILENCE, lines.read_line(&mut line)).await {
            Ok(Ok(0)) | Err(_) => return Ended::Resume,
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "a watch was cut off");
                return Ended::Resume;
            }
        }
        match take_in(&without_managed_fields(&line), texts) {
            Ok(Some(revision)) => *at = revision,
            Ok(None) => {}
            // The connection ended in the middle of an event.
            Err(kube::Error::SerdeError(error)) if error.is_eof() => return Ended::Resume,
            Err(error) => return ended(error),
        }
    }
}

fn ended(error: kube::Error) -> Ended {
    if errors::is_gone(&error) {
        Ended::Relist
    } else {
        Ended::Failed(error)
    }
}

/// One line of a watch.
#[derive(Deserialize)]
struct RawEvent<'a> {
    #[serde(rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// The type and the object of an event as servers write it, if the rest of the line is one object:
/// whoever reads that knows. It spares reading each object twice, once to find its end.
fn as_written(line: &str) -> Option<(bool, &str)> {
    let rest = line.strip_prefix("{\"type\":\"")?;
    let (kind, rest) = rest.split_once("\",\"object\":")?;
    let object = rest.trim_end().strip_suffix('}')?;
    match kind {
        "ADDED" | "MODIFIED" => Some((false, object)),
        "DELETED" => Some((true, object)),
        _ => None,
    }
}

/// Hands one event on. The answer is the revision that it leads to.
fn take_in(line: &str, texts: &mut dyn Texts) -> Result<Option<u64>, kube::Error> {
    if let Some((gone, object)) = as_written(line)
        && let Ok(revision) = texts.event(object, gone)
    {
        return Ok(Some(revision));
    }
    let event: RawEvent<'_> = match serde_json::from_str(line) {
        Ok(event) => event,
        Err(error) if error.is_eof() => return Err(kube::Error::SerdeError(error)),
        // What went wrong may be told in place of an event.
        Err(error) => {
            return Err(serde_json::from_str(line)
                .map_or(kube::Error::SerdeError(error), |status: Status| {
                    kube::Error::Api(status.boxed())
                }));
        }
    };
    let taken = match &*event.kind {
        "ADDED" | "MODIFIED" => texts.event(event.object.get(), false).map(Some),
        "DELETED" => texts.event(event.object.get(), true).map(Some),
        "BOOKMARK" => bookmark_in(event.object.get()).inspect(|revision| {
            if let Some(revision) = revision {
                texts.bookmark(*revision);
            }
        }),
        "ERROR" => match serde_json::from_str::<Status>(event.object.get()) {
            Ok(status) => return Err(kube::Error::Api(status.boxed())),
            Err(error) => Err(error),
        },
        other => {
            tracing::debug!(other, "an event of a type that nobody knows was left out");
            Ok(None)
        }
    };
    taken.map_err(kube::Error::SerdeError)
}

fn bookmark_in(object: &str) -> Result<Option<u64>, JsonError> {
    #[derive(Deserialize)]
    struct Bookmark {
        metadata: ObjectMeta,
    }
    let bookmark: Bookmark = serde_json::from_str(object)?;
    let revision = bookmark.metadata.resource_version;
    Ok(revision.and_then(|revision| revision.parse().ok()))
}

/// The form of every list, its objects not yet read.
#[derive(Deserialize)]
pub(crate) struct RawList<'a> {
    #[serde(default)]
    pub(crate) metadata: ListMeta,
    #[serde(borrow, default)]
    pub(crate) items: Option<Vec<&'a RawValue>>,
}

#[cfg(test)]
mod tests;
