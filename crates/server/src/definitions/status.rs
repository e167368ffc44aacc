//! The task that follows definitions: it writes what [`names::plan`] says, and has definitions
//! that are being deleted emptied.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Weak};

use evenkeel_api::custom::{GROUP, names};
use evenkeel_api::object;
use evenkeel_api::row::ResourceDef;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::task::JoinSet;

use super::cleanup;
use crate::auth::Identity;
use crate::cache::KindCache;
use crate::door::Door;
use crate::object::Object;

/// So many changes are taken from the log at once.
const BATCH: usize = 256;
/// Path of the collection of definitions.
pub(super) const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Who writes conditions and empties kinds.
fn identity() -> Identity {
    Identity::user(
        "system:apiserver",
        &["system:masters", "system:authenticated"],
    )
}

/// Sends a request through the door; answers the code and the body.
pub(crate) async fn send(
    door: &Arc<Door>,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> (StatusCode, Value) {
    let bytes = body.map(Value::to_string).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .header(http::header::USER_AGENT, "kube-apiserver")
        .body(Full::new(bytes::Bytes::from(bytes)));
    let Ok(request) = request else {
        return (StatusCode::BAD_REQUEST, Value::Null);
    };
    let answer = door.handle(request, identity()).await;
    let code = answer.status();
    let body = match answer.into_body().collect().await {
        Ok(body) => serde_json::from_slice(&body.to_bytes()).unwrap_or_default(),
        Err(_) => Value::Null,
    };
    (code, body)
}

/// Follows definitions until the door is gone. The sender tells of a door that is open.
pub(crate) async fn run(door: tokio::sync::oneshot::Receiver<Weak<Door>>) {
    let Ok(door) = door.await else { return };
    let Some((cache, mut end)) = door.upgrade().and_then(|door| {
        let row = definitions_row(&door)?;
        let cache = door.registry().caches.of(&row)?;
        let end = cache.subscribe();
        Some((cache, end))
    }) else {
        return;
    };
    let emptying = Arc::new(Mutex::new(HashSet::new()));
    let mut cleanups = JoinSet::new();
    let snapshot = cache.snapshot("");
    let mut cursor = snapshot.cursor;
    let mut todo: BTreeSet<String> = names_of(&snapshot.objects);
    loop {
        while let Some(name) = todo.pop_first() {
            let Some(door) = door.upgrade() else { return };
            let more = follow(&door, &cache, &name, &emptying, &mut cleanups).await;
            todo.extend(more);
        }
        match cache.changes(cursor, BATCH) {
            Some(changes) if changes.is_empty() => {
                tokio::select! {
                    changed = end.changed() => if changed.is_err() { return },
                    Some(_) = cleanups.join_next() => {}
                }
            }
            Some(changes) => {
                cursor += changes.len() as u64;
                todo.extend(
                    changes
                        .iter()
                        .map(|change| change.object.head.name.to_string()),
                );
            }
            None => {
                let snapshot = cache.snapshot("");
                cursor = snapshot.cursor;
                todo.extend(names_of(&snapshot.objects));
            }
        }
    }
}

pub(super) fn definitions_row(door: &Door) -> Option<Arc<ResourceDef>> {
    door.registry()
        .rows
        .by_kind(GROUP, "v1", "CustomResourceDefinition")
        .cloned()
}

fn names_of(objects: &[Arc<Object>]) -> BTreeSet<String> {
    objects
        .iter()
        .map(|object| object.head.name.to_string())
        .collect()
}

/// Brings one definition's status up to date; answers which others are to be looked at again.
async fn follow(
    door: &Arc<Door>,
    cache: &KindCache,
    name: &str,
    emptying: &Arc<Mutex<HashSet<String>>>,
    cleanups: &mut JoinSet<()>,
) -> Vec<String> {
    let group = name.split_once('.').map_or("", |(_, group)| group);
    let Some(found) = cache.get(name) else {
        // Its names are free: others may have waited for them.
        return waiting(cache, group, name);
    };
    let definition = found.value();
    if cleanup::is_due(&definition) && emptying.lock().insert(name.to_owned()) {
        let (door, name, emptying) = (Arc::downgrade(door), name.to_owned(), Arc::clone(emptying));
        cleanups.spawn(async move {
            cleanup::run(&door, &name).await;
            emptying.lock().remove(&name);
        });
    }
    let mut claimed = names::Claimed::default();
    for other in in_group(cache, group) {
        if &*other.head.name != name {
            claimed.add(&other.value());
        }
    }
    let Some(wanted) = names::plan(&definition, &claimed, door.clock().now()) else {
        return Vec::new();
    };
    let released =
        wanted.pointer("/status/acceptedNames") != definition.pointer("/status/acceptedNames");
    let path = format!("{PATH}/{name}/status");
    let (code, answer) = send(door, Method::PUT, &path, Some(&wanted)).await;
    match code {
        // The change of the definition that made this one stale brings us here again.
        StatusCode::OK | StatusCode::CONFLICT | StatusCode::NOT_FOUND => {}
        _ => {
            let message = object::text(&answer, &["message"]);
            tracing::warn!(name, message, "a definition's conditions can't be written");
        }
    }
    if released && code == StatusCode::OK {
        waiting(cache, group, name)
    } else {
        Vec::new()
    }
}

/// The definitions of a group; their names end with it.
fn in_group(cache: &KindCache, group: &str) -> Vec<Arc<Object>> {
    let suffix = format!(".{group}");
    cache
        .list("", None)
        .into_iter()
        .filter(|object| {
            object
                .head
                .name
                .strip_suffix(suffix.as_str())
                .is_some_and(|plural| !plural.contains('.'))
        })
        .collect()
}

/// Other definitions of the group whose names are not all accepted.
fn waiting(cache: &KindCache, group: &str, name: &str) -> Vec<String> {
    in_group(cache, group)
        .into_iter()
        .filter(|object| &*object.head.name != name)
        .filter(|object| !evenkeel_api::custom::condition_is_true(&object.value(), "NamesAccepted"))
        .map(|object| object.head.name.to_string())
        .collect()
}
