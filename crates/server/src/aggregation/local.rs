//! The APIServices of what this server serves itself: of its built-in kinds, made at start, and of
//! custom kinds, made and removed with their definitions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use evenkeel_api::kinds::api_services::{self, CUSTOM_PRIORITY};
use evenkeel_api::row::Storage;
use evenkeel_api::{Rows, Status, object};
use http::{Method, StatusCode};
use serde_json::Value;

use super::Entry;
use crate::definitions::send;
use crate::door::Door;
use crate::verbs::touch_create;

/// Path of the collection.
pub(super) const PATH: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
/// So many are written at once.
const AT_ONCE: usize = 32;

/// Makes the missing ones of built-in kinds. Those that somebody has made his own are left alone.
pub(crate) async fn register_builtin(door: &Arc<Door>) -> Result<(), Status> {
    let rows = door.rows();
    let mut wanted = BTreeMap::new();
    for row in rows.iter_builtin() {
        let (group, version) = (&row.gvk.group, &row.gvk.version);
        if row.storage == Storage::BodyOnly || group == api_services::GROUP {
            continue;
        }
        if let Some(priority) = api_services::priority(group, version) {
            let service = api_services::local(group, version, priority, "onstart");
            wanted.insert(object::name(&service).to_owned(), service);
        }
    }
    let made = wanted
        .into_values()
        .map(|service| touch_create(door, service));
    futures::future::try_join_all(made).await?;
    Ok(())
}

/// What is to be done for custom kinds.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) make: Vec<Value>,
    pub(super) remove: Vec<String>,
}

/// Compares the custom kinds with the APIServices that there are.
pub(super) fn plan(rows: &Rows, there: &[Arc<Entry>]) -> Plan {
    let mut wanted = BTreeMap::new();
    for row in rows.iter().filter(|row| row.custom.is_some()) {
        let (group, version) = (&row.gvk.group, &row.gvk.version);
        let name = format!("{version}.{group}");
        wanted.entry(name).or_insert((group, version));
    }
    // What an older server had built in, and this one has not, goes.
    let builtin: BTreeSet<String> = rows
        .iter_builtin()
        .map(|row| format!("{}.{}", row.gvk.version, row.gvk.group))
        .collect();
    let mut plan = Plan::default();
    for entry in there {
        let name = entry.place.name.as_str();
        let gone = wanted.remove(name).is_none();
        let ours = match entry.managed.as_deref() {
            Some("true") => true,
            Some("onstart") => !builtin.contains(name),
            _ => false,
        };
        if gone && ours && entry.remote.is_none() {
            plan.remove.push(name.to_owned());
        }
    }
    plan.make = wanted
        .into_values()
        .map(|(group, version)| api_services::local(group, version, CUSTOM_PRIORITY, "true"))
        .collect();
    plan
}

/// Does what is planned. What can't be done now is planned again at the next change.
pub(super) async fn apply(door: &Arc<Door>, plan: Plan) {
    let told = |name: &str, (code, answer): (StatusCode, Value)| {
        let settled =
            code.is_success() || matches!(code, StatusCode::CONFLICT | StatusCode::NOT_FOUND);
        if !settled {
            let message = object::text(&answer, &["message"]);
            tracing::warn!(name, message, "an APIService can't be kept up to date");
        }
    };
    for batch in plan.make.chunks(AT_ONCE) {
        futures::future::join_all(batch.iter().map(|service| async move {
            told(
                object::name(service),
                send(door, Method::POST, PATH, Some(service)).await,
            );
        }))
        .await;
    }
    for batch in plan.remove.chunks(AT_ONCE) {
        futures::future::join_all(batch.iter().map(|name| async move {
            let path = format!("{PATH}/{name}");
            told(name, send(door, Method::DELETE, &path, None).await);
        }))
        .await;
    }
}
