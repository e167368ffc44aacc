//! List and watch: how a view follows the door.
//!
//! A list in pages, then a watch from the list's revision, resumed from the last revision seen
//! (bookmarks included) whenever it ends; 410 Gone means a new list; errors are backed off from
//! 100 ms to 30 s. The same code feeds typed views and the metadata-only ownership graph.

use std::fmt::Debug;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncBufRead, AsyncBufReadExt as _};
use kube::Resource;
use kube::core::params::{ListParams, WatchParams};
use kube::core::{ObjectList, Request, Status, WatchEvent};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::lean::without_managed_fields;
use super::state::revision;
use crate::errors;
use crate::retry::Backoff;

/// Objects of a page of a list.
const PAGE: u32 = 2000;
/// A watch is given up when nothing, not even its end, came for so long: the server ends watches
/// after 290 s, so the connection behind it is dead.
const SILENCE: Duration = Duration::from_secs(330);

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
}

impl Target {
    /// All objects of a kind in all namespaces.
    #[must_use]
    pub fn of<K: Resource<DynamicType = ()>>() -> Self {
        Self {
            path: K::url_path(&(), None),
            metadata_only: false,
            field_selector: None,
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

enum Ended {
    Relist,
    Resume,
    Failed(kube::Error),
}

/// Follows `target` into `sink` until `shutdown`.
pub async fn reflect<K, S>(
    client: kube::Client,
    target: Target,
    sink: Arc<S>,
    shutdown: CancellationToken,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    S: Sink<K>,
{
    let follow = follow(&client, &target, sink.as_ref());
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = follow => {}
    }
}

async fn follow<K, S>(client: &kube::Client, target: &Target, sink: &S)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    S: Sink<K>,
{
    let mut hasher = std::hash::DefaultHasher::new();
    target.path.hash(&mut hasher);
    let mut backoff = Backoff::new(
        Duration::from_millis(100),
        Duration::from_secs(30),
        hasher.finish(),
    );
    loop {
        let mut at = match list(client, target).await {
            Ok((items, at)) => {
                sink.replace(items, at);
                at
            }
            Err(error) => {
                pause(&mut backoff, target, "list", &error).await;
                continue;
            }
        };
        loop {
            let began = at;
            let ended = watch(client, target, sink, &mut at).await;
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
    tracing::warn!(
        path = target.path,
        verb,
        error = message,
        ?wait,
        "cannot follow, trying again"
    );
    tokio::time::sleep(wait).await;
}

async fn list<K>(client: &kube::Client, target: &Target) -> Result<(Vec<K>, u64), kube::Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let request = Request::new(&target.path);
    let mut params = ListParams::default().limit(PAGE);
    params.field_selector.clone_from(&target.field_selector);
    let mut items = Vec::new();
    loop {
        let built = if target.metadata_only {
            request.list_metadata(&params)
        } else {
            request.list(&params)
        };
        let text = client
            .request_text(built.map_err(kube::Error::BuildRequest)?)
            .await?;
        let page: ObjectList<K> = serde_json::from_str(&without_managed_fields(&text))
            .map_err(kube::Error::SerdeError)?;
        items.extend(page.items);
        let next = page.metadata.continue_.filter(|token| !token.is_empty());
        match next {
            Some(token) => params.continue_token = Some(token),
            None => {
                let at = page.metadata.resource_version.unwrap_or_default();
                return Ok((items, at.parse().unwrap_or(0)));
            }
        }
    }
}

async fn watch<K, S>(client: &kube::Client, target: &Target, sink: &S, at: &mut u64) -> Ended
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    S: Sink<K>,
{
    let request = Request::new(&target.path);
    let params = WatchParams {
        field_selector: target.field_selector.clone(),
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
        Err(error) if errors::is_gone(&error) => return Ended::Relist,
        Err(error) => return Ended::Failed(error),
    };
    let mut line = String::new();
    loop {
        let event = match tokio::time::timeout(SILENCE, next_event(&mut lines, &mut line)).await {
            Ok(Ok(Some(event))) => event,
            Ok(Err(error)) if errors::is_gone(&error) => return Ended::Relist,
            Ok(Err(error)) => return Ended::Failed(error),
            Ok(Ok(None)) | Err(_) => return Ended::Resume,
        };
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                *at = revision(&object);
                sink.event(Event::Put(object), *at);
            }
            WatchEvent::Deleted(object) => {
                *at = revision(&object);
                sink.event(Event::Gone(object), *at);
            }
            WatchEvent::Bookmark(bookmark) => {
                if let Ok(revision) = bookmark.metadata.resource_version.parse() {
                    *at = revision;
                    sink.bookmark(revision);
                }
            }
            WatchEvent::Error(status) => {
                let error = kube::Error::Api(status);
                if errors::is_gone(&error) {
                    return Ended::Relist;
                }
                return Ended::Failed(error);
            }
        }
    }
}

/// The next event; `None` when the connection ends, in the middle of an event too.
async fn next_event<K: Clone + DeserializeOwned>(
    lines: &mut (impl AsyncBufRead + Unpin),
    line: &mut String,
) -> Result<Option<WatchEvent<K>>, kube::Error> {
    line.clear();
    // One large object is no reason to keep the room for it.
    line.shrink_to(LINE);
    match lines.read_line(line).await {
        Ok(0) => return Ok(None),
        Ok(_) => {}
        Err(error) => {
            tracing::debug!(%error, "a watch was cut off");
            return Ok(None);
        }
    }
    match serde_json::from_str(&without_managed_fields(line)) {
        Ok(event) => Ok(Some(event)),
        Err(error) if error.is_eof() => Ok(None),
        Err(error) => match serde_json::from_str::<Status>(line) {
            Ok(status) => Err(kube::Error::Api(status.boxed())),
            Err(_) => Err(kube::Error::SerdeError(error)),
        },
    }
}
