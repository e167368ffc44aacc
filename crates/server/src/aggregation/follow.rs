//! The tasks that look after APIServices: one for all that makes and removes those of custom
//! kinds, and one for each server behind the door that asks it whether it answers.
//!
//! They write through the door, as `system:apiserver`. What a condition says of the way to a
//! server is planned by [`api_services::reachable`]; only that it answers has to be tried.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use evenkeel_api::kinds::api_services;
use evenkeel_api::object;
use http::{Method, StatusCode};
use serde_json::Value;
use tokio::sync::watch::Receiver;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::local::{self, PATH};
use super::remote::Remote;
use super::{learned, slices};
use crate::admission::look_up;
use crate::auth::Identity;
use crate::definitions::send;
use crate::door::Door;

/// A server that answers is asked again after this,
const RESYNC: Duration = Duration::from_secs(30);
/// and one that does not after this, twice as late each time.
const RETRY: Duration = Duration::from_millis(250);
/// An answer is to come in this time.
const LIMIT: Duration = Duration::from_secs(5);
/// One failure may be that of one endpoint.
const ATTEMPTS: usize = 3;

/// Looks after APIServices until the door is gone. The sender tells of a door that is open.
pub(crate) async fn run(door: tokio::sync::oneshot::Receiver<Weak<Door>>) {
    let Ok(door) = door.await else { return };
    let Some((mut services, mut definitions)) = door.upgrade().and_then(|door| {
        let services = door.aggregator().cache.subscribe();
        let row = door.registry().rows.by_kind(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
        )?;
        let definitions = door.registry().caches.of(row)?.subscribe();
        Some((services, definitions))
    }) else {
        return;
    };
    let mut following: HashMap<String, AbortOnDropHandle<()>> = HashMap::new();
    loop {
        services.mark_unchanged();
        definitions.mark_unchanged();
        {
            let Some(door) = door.upgrade() else { return };
            let there = door.aggregator().entries();
            local::apply(&door, local::plan(&door.rows(), &there)).await;
            let remotes: Vec<&str> = there
                .iter()
                .filter(|entry| entry.remote.is_some())
                .map(|entry| entry.place.name.as_str())
                .collect();
            following.retain(|name, _| {
                let kept = remotes.contains(&name.as_str());
                if !kept {
                    door.aggregator().forget(name);
                }
                kept
            });
            for name in remotes {
                following.entry(name.to_owned()).or_insert_with(|| {
                    let one = one(Arc::downgrade(&door), name.to_owned());
                    AbortOnDropHandle::new(tokio::spawn(one))
                });
            }
            // What became local again is so at once.
            for entry in there.iter().filter(|entry| entry.unmarked) {
                let Some(found) = door.aggregator().cache.get(&entry.place.name) else {
                    continue;
                };
                let mut new = found.value();
                let now = api_services::time(door.clock().now());
                // The change that makes this one stale brings us here again.
                if api_services::set_local(&mut new, &now) && !write(&door, &new).await {
                    tracing::debug!(name = entry.place.name, "not marked as local yet");
                }
            }
        }
        tokio::select! {
            changed = services.changed() => if changed.is_err() { return },
            changed = definitions.changed() => if changed.is_err() { return },
        }
    }
}

/// Looks after one APIService with a server behind it, for ever.
async fn one(door: Weak<Door>, name: String) {
    let mut retry = RETRY;
    loop {
        let mut pause = RESYNC;
        let seen = {
            let Some(door) = door.upgrade() else { return };
            let seen = Seen::of(&door, &name);
            if let Some(service) = &seen.api_service {
                if look(&door, service).await {
                    retry = RETRY;
                } else {
                    pause = retry;
                    retry = (retry * 2).min(RESYNC);
                }
            }
            seen
        };
        if !seen
            .wait_for_another(&door, &name, Instant::now() + pause)
            .await
        {
            return;
        }
        if let Some(door) = door.upgrade()
            && Seen::of(&door, &name).mark != seen.mark
        {
            retry = RETRY;
        }
    }
}

/// What the way to a server depends on.
struct Seen {
    api_service: Option<Value>,
    mark: String,
    changes: Vec<Receiver<u64>>,
}

impl Seen {
    fn of(door: &Arc<Door>, name: &str) -> Self {
        let registry = door.registry();
        let cache = &door.aggregator().cache;
        let mut changes = vec![cache.subscribe()];
        for (group, kind) in [("", "Service"), ("discovery.k8s.io", "EndpointSlice")] {
            let row = registry.rows.by_kind(group, "v1", kind);
            if let Some(cache) = row.and_then(|row| registry.caches.of(row)) {
                changes.push(cache.subscribe());
            }
        }
        let api_service = cache.get(name).map(|object| object.value());
        let mut mark = String::new();
        if let Some(service) = &api_service {
            mark = service["spec"].to_string();
            let (namespace, service) = place(service);
            let found = look_up::object(registry, ("", "v1", "Service"), namespace, service);
            let revision = |value: &Value| object::resource_version(value).to_owned();
            mark.push_str(&found.as_ref().map(revision).unwrap_or_default());
            for slice in slices(registry, namespace, service) {
                mark.push_str(&format!(" {}={}", object::name(&slice), revision(&slice)));
            }
        }
        Self {
            api_service,
            mark,
            changes,
        }
    }

    /// Waits until what the way depends on has changed, or for some time. False when there is
    /// nothing to wait for any more.
    async fn wait_for_another(&self, door: &Weak<Door>, name: &str, until: Instant) -> bool {
        let mut changes = self.changes.clone();
        loop {
            let any = futures::future::select_all(
                changes.iter_mut().map(|change| Box::pin(change.changed())),
            );
            tokio::select! {
                () = tokio::time::sleep_until(until) => return true,
                (changed, _, _) = any => if changed.is_err() { return false },
            }
            let Some(door) = door.upgrade() else {
                return false;
            };
            if Self::of(&door, name).mark != self.mark {
                return true;
            }
        }
    }
}

fn place(api_service: &Value) -> (&str, &str) {
    let part = |name: &str| object::text(api_service, &["spec", "service", name]);
    (part("namespace"), part("name"))
}

/// Checks a server and writes what came of it; answers whether it answers, and that is written.
async fn look(door: &Arc<Door>, api_service: &Value) -> bool {
    let registry = door.registry();
    let (namespace, name) = place(api_service);
    let service = look_up::object(registry, ("", "v1", "Service"), namespace, name);
    let slices = slices(registry, namespace, name);
    let spec = |name: &str| object::text(api_service, &["spec", name]);
    let Some(remote) = door.aggregator().remote(spec("group"), spec("version")) else {
        return false;
    };
    let (status, reason, message) =
        match api_services::reachable(api_service, service.as_ref(), &slices) {
            Some(verdict) => verdict,
            None => match answers(door, &remote).await {
                Ok(()) => ("True", "Passed", "all checks passed".to_owned()),
                Err(why) => ("False", "FailedDiscoveryCheck", why),
            },
        };
    let passed = status == "True";
    let aggregator = door.aggregator();
    if passed {
        // Before the condition: who waits for it finds the resources too.
        let before = aggregator.known(&remote.name);
        let said = learned::ask(registry, &remote, &before).await;
        aggregator.learn(&remote.name, said);
    }
    let mut new = api_service.clone();
    let now = api_services::time(door.clock().now());
    let written = !api_services::set_available(&mut new, status, reason, &message, &now)
        || write(door, &new).await;
    if passed {
        let before = aggregator.known(&remote.name).swagger.clone();
        let said = learned::swagger(registry, &remote, before).await;
        aggregator.learn_swagger(&remote.name, said);
    }
    passed && written
}

async fn answers(door: &Arc<Door>, remote: &Remote) -> Result<(), String> {
    let who = Identity::user("system:kube-aggregator", &["system:masters"]);
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        let path = remote.path();
        let url = remote.url(door.registry(), &path);
        let found = remote
            .get(door.registry(), &path, "application/json", &who, LIMIT)
            .await;
        let why = match found {
            Ok((code, _, _)) if (200..300).contains(&code.as_u16()) => return Ok(()),
            Ok((code, _, _)) => format!("bad status from {url}: {}", code.as_u16()),
            Err(why) => format!("Get \"{url}\": {why}"),
        };
        last = format!("failing or missing response from {url}: {why}");
    }
    Err(last)
}

/// Writes a status; answers whether it is written. Somebody else may have been faster.
async fn write(door: &Arc<Door>, service: &Value) -> bool {
    let name = object::name(service);
    let path = format!("{PATH}/{name}/status");
    let (code, answer) = send(door, Method::PUT, &path, Some(service)).await;
    let settled = code.is_success() || matches!(code, StatusCode::CONFLICT | StatusCode::NOT_FOUND);
    if !settled {
        let message = object::text(&answer, &["message"]);
        tracing::warn!(name, message, "an APIService's condition can't be written");
    }
    code.is_success() || code == StatusCode::NOT_FOUND
}
