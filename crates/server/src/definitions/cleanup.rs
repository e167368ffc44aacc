//! The end of a custom kind: its objects are deleted before its definition goes.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use evenkeel_api::custom::{CLEANUP, condition_is_true, set_condition};
use evenkeel_api::object;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::status::{PATH, send};
use crate::door::Door;

/// Between two looks whether objects that something holds are gone.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Objects that are gone soon are looked for sooner.
const LOOK_SOON: Duration = Duration::from_millis(20);

/// Does the definition wait for its objects?
pub(super) fn is_due(definition: &Value) -> bool {
    object::deletion_timestamp(definition).is_some()
        && object::finalizers(definition).contains(&CLEANUP)
}

/// Deletes the objects of a definition, waits until they are gone, and takes the finalizer away.
pub(super) async fn run(door: &Weak<Door>, name: &str) {
    let mut wait = LOOK_SOON;
    loop {
        let Some(door) = door.upgrade() else { return };
        let (code, definition) = send(&door, Method::GET, &format!("{PATH}/{name}"), None).await;
        if code == StatusCode::NOT_FOUND || (code.is_success() && !is_due(&definition)) {
            return;
        }
        let done = if code.is_success() {
            step(&door, name, &definition).await
        } else {
            Err(object::text(&definition, &["message"]).to_owned())
        };
        match done {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => tracing::warn!(name, error, "a custom kind can't be emptied yet"),
        }
        drop(door);
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LOOK_AGAIN);
    }
}

/// One round; answers whether the definition is let go.
async fn step(door: &Arc<Door>, name: &str, definition: &Value) -> Result<bool, String> {
    let outcome = if condition_is_true(definition, "Established") {
        let left = empty(door, definition).await?;
        if left > 0 {
            mark(
                door,
                name,
                definition,
                [
                    "True",
                    "InstanceDeletionInProgress",
                    "CustomResource deletion is in progress",
                ],
                false,
            )
            .await?;
            return Ok(false);
        }
        [
            "False",
            "InstanceDeletionCompleted",
            "removed all instances",
        ]
    } else {
        [
            "False",
            "NeverEstablished",
            "resource was never established",
        ]
    };
    mark(door, name, definition, outcome, true).await
}

/// Deletes all objects; answers how many were there.
async fn empty(door: &Arc<Door>, definition: &Value) -> Result<usize, String> {
    let group = object::text(definition, &["spec", "group"]);
    let plural = object::text(definition, &["status", "acceptedNames", "plural"]);
    let served = object::list(definition, &["spec", "versions"])
        .iter()
        .find(|version| version.get("served") == Some(&Value::Bool(true)));
    let Some(version) = served.map(|version| object::text(version, &["name"])) else {
        // Nothing serves the objects, so nothing can delete them by the rules.
        return Ok(0);
    };
    let root = format!("/apis/{group}/{version}");
    let (code, all) = send(door, Method::GET, &format!("{root}/{plural}"), None).await;
    if !code.is_success() {
        return Err(format!(
            "could not list instances: {}",
            object::text(&all, &["message"])
        ));
    }
    let items = object::list(&all, &["items"]);
    let namespaces: BTreeSet<&str> = items
        .iter()
        .filter(|item| object::deletion_timestamp(item).is_none())
        .map(object::namespace)
        .collect();
    for namespace in namespaces {
        let place = if namespace.is_empty() {
            String::new()
        } else {
            format!("/namespaces/{namespace}")
        };
        let path = format!("{root}{place}/{plural}");
        let (code, answer) = send(door, Method::DELETE, &path, None).await;
        if !code.is_success() {
            return Err(format!(
                "could not issue all deletes: {}",
                object::text(&answer, &["message"])
            ));
        }
    }
    Ok(items.len())
}

/// Writes the condition, and lets the definition go when `done`. Answers whether it is let go.
async fn mark(
    door: &Arc<Door>,
    name: &str,
    definition: &Value,
    [status, reason, message]: [&str; 3],
    done: bool,
) -> Result<bool, String> {
    let mut new = definition.clone();
    let now = door.clock().now();
    let changed = set_condition(&mut new, "Terminating", status, reason, message, now);
    let mut seen = new.clone();
    if changed {
        let path = format!("{PATH}/{name}/status");
        let (code, answer) = send(door, Method::PUT, &path, Some(&new)).await;
        match code {
            StatusCode::OK => seen = answer,
            StatusCode::CONFLICT | StatusCode::NOT_FOUND => return Ok(false),
            _ => return Err(object::text(&answer, &["message"]).to_owned()),
        }
    }
    if !done {
        return Ok(false);
    }
    let left: Vec<&str> = object::finalizers(&seen)
        .into_iter()
        .filter(|finalizer| *finalizer != CLEANUP)
        .collect();
    let left = json!(left);
    object::metadata(&mut seen).insert("finalizers".to_owned(), left);
    let (code, answer) = send(door, Method::PUT, &format!("{PATH}/{name}"), Some(&seen)).await;
    match code {
        StatusCode::OK | StatusCode::NOT_FOUND => Ok(true),
        StatusCode::CONFLICT => Ok(false),
        _ => Err(object::text(&answer, &["message"]).to_owned()),
    }
}
