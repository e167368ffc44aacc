//! Requests of the fake: HTTP in, JSON out.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use evenkeel_api::selector::{FieldSelector, LabelSelector, field_text};
use futures::stream::{self, BoxStream, StreamExt as _};
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use kube::client::Body;
use serde_json::{Value, json};

use super::objects::{self, Entry, Key, Refused};
use super::route::{ROWS, Route, row_of};
use super::{Seen, Shared, text};

type Answer = Response<StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>>;

fn answer(code: u16, value: &Value) -> Answer {
    let bytes = Bytes::from(value.to_string());
    let frames = stream::once(async move { Ok(Frame::data(bytes)) }).boxed();
    let mut response = Response::new(StreamBody::new(frames));
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
    response
}

fn refusal((code, reason, message): Refused) -> Answer {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    });
    answer(code, &status)
}

/// Which objects a list or watch is about.
#[derive(Clone)]
struct Filter {
    labels: LabelSelector,
    fields: FieldSelector,
    metadata_only: bool,
}

impl Filter {
    fn matches(&self, value: &Value) -> bool {
        let labels = &value["metadata"]["labels"];
        self.labels
            .matches_with(|key| labels.get(key).and_then(Value::as_str))
            && self
                .fields
                .terms
                .iter()
                .all(|(field, equal, wanted)| (field_text(value, field) == *wanted) == *equal)
    }

    fn shown(&self, value: &Value) -> Value {
        if self.metadata_only {
            json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                "metadata": value["metadata"],
            })
        } else {
            value.clone()
        }
    }
}

pub(super) async fn serve(
    shared: Arc<Shared>,
    request: Request<Body>,
) -> Result<Answer, Infallible> {
    // Lets other tasks run, as a network would; a fake that never yields hides races.
    tokio::task::yield_now().await;
    let (parts, body) = request.into_parts();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return Ok(refusal((400, "BadRequest", error.to_string()))),
    };
    Ok(handle(&shared, &parts, &body).unwrap_or_else(refusal))
}

fn handle(
    shared: &Arc<Shared>,
    parts: &http::request::Parts,
    body: &[u8],
) -> Result<Answer, Refused> {
    let path = parts.uri.path();
    let query = query(parts.uri.query().unwrap_or(""));
    if let Some(found) = discovery(path) {
        return Ok(answer(200, &found));
    }
    let route = Route::parse(path).ok_or_else(|| {
        (
            404,
            "NotFound",
            "the server could not find the requested resource".into(),
        )
    })?;
    let watching = matches!(query.get("watch").map(String::as_str), Some("true" | "1"));
    let named = !route.name.is_empty();
    let verb = match (&parts.method, named) {
        (&Method::GET, true) => "get",
        (&Method::GET, false) if watching => "watch",
        (&Method::GET, false) => "list",
        (&Method::POST, _) => "create",
        (&Method::PUT, true) => "update",
        (&Method::PATCH, true) => "patch",
        (&Method::DELETE, true) => "delete",
        (&Method::DELETE, false) => "deletecollection",
        _ => return Err((405, "MethodNotAllowed", "not allowed".into())),
    };
    shared.seen.lock().push(Seen {
        verb,
        resource: route.resource(),
        namespace: route.namespace.clone(),
        name: route.name.clone(),
    });
    fault(shared, verb, &route)?;
    let accept = parts.headers.get(http::header::ACCEPT);
    let accept = accept.and_then(|value| value.to_str().ok()).unwrap_or("");
    let bad = |error: evenkeel_api::selector::SelectorError| (400, "BadRequest", error.to_string());
    let part = |name: &str| query.get(name).map_or("", String::as_str);
    let filter = Filter {
        labels: LabelSelector::parse(part("labelSelector")).map_err(bad)?,
        fields: FieldSelector::parse(part("fieldSelector")).map_err(bad)?,
        metadata_only: accept.contains("as=PartialObjectMetadata"),
    };
    let content = parts.headers.get(http::header::CONTENT_TYPE);
    let content = content.and_then(|value| value.to_str().ok()).unwrap_or("");
    match verb {
        "watch" => watch(shared, &route, &filter, part("resourceVersion")),
        "list" => Ok(list(shared, &route, &filter)),
        "deletecollection" => {
            let list: Vec<Value> = {
                let objects = shared.objects.lock();
                let all = objects.collection(&route.collection, &route.namespace);
                all.filter(|value| filter.matches(value)).cloned().collect()
            };
            for value in list {
                let key = objects::key(&route.collection, &value);
                shared.change(|objects, now| objects.delete(&key, &json!({}), now))?;
            }
            Ok(answer(200, &json!({"kind": "Status", "status": "Success"})))
        }
        _ => {
            let value: Value = if body.is_empty() {
                json!({})
            } else {
                serde_json::from_slice(body)
                    .map_err(|error| (400, "BadRequest", error.to_string()))?
            };
            let (code, value) = one(shared, verb, &route, content, value)?;
            Ok(answer(code, &filter.shown(&value)))
        }
    }
}

fn fault(shared: &Shared, verb: &str, route: &Route) -> Result<(), Refused> {
    let mut faults = shared.faults.lock();
    let resource = route.resource();
    let found = faults
        .iter()
        .position(|fault| fault.verb == verb && fault.resource == resource);
    let Some(fault) = found.and_then(|at| faults.remove(at)) else {
        return Ok(());
    };
    let reason: &'static str = Box::leak(fault.reason.into_boxed_str());
    Err((fault.code, reason, fault.message))
}

fn query(text: &str) -> HashMap<String, String> {
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), decoded(value)))
        .collect()
}

fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let pair = [bytes.next().unwrap_or(b'0'), bytes.next().unwrap_or(b'0')];
                let hex = std::str::from_utf8(&pair).unwrap_or("00");
                u8::from_str_radix(hex, 16).unwrap_or(b'?')
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn list(shared: &Shared, route: &Route, filter: &Filter) -> Answer {
    let objects = shared.objects.lock();
    let items: Vec<Value> = objects
        .collection(&route.collection, &route.namespace)
        .filter(|value| filter.matches(value))
        .map(|value| filter.shown(value))
        .collect();
    let version = route.collection.rsplit_once('/').map_or("", |pair| pair.0);
    let kind = row_of(&route.collection).map_or("List".to_owned(), |row| format!("{}List", row.3));
    let list = json!({
        "apiVersion": version, "kind": kind, "items": items,
        "metadata": {"resourceVersion": objects.revision.to_string()},
    });
    answer(200, &list)
}

fn watch(
    shared: &Arc<Shared>,
    route: &Route,
    filter: &Filter,
    from: &str,
) -> Result<Answer, Refused> {
    let from: u64 = from.parse().unwrap_or(0);
    if from < shared.objects.lock().compacted {
        let message = format!("too old resource version: {from}");
        return Err((410, "Expired", message));
    }
    let hang_up = shared.hang_up.subscribe();
    let revision = shared.revision.subscribe();
    let state = (
        Arc::clone(shared),
        route.clone(),
        filter.clone(),
        from,
        revision,
        hang_up,
    );
    let events = stream::unfold(state, |mut state| async move {
        loop {
            state.4.borrow_and_update();
            let (event, reached) = {
                let objects = state.0.objects.lock();
                next_event(&objects.log, &state.1, &state.2, state.3)
            };
            state.3 = reached;
            if let Some(event) = event {
                let line = Bytes::from(format!("{event}\n"));
                return Some((Ok(Frame::data(line)), state));
            }
            tokio::select! {
                biased;
                changed = state.5.changed() => {
                    changed.ok();
                    return None;
                }
                changed = state.4.changed() => changed.ok()?,
            }
        }
    });
    Ok(Response::new(StreamBody::new(events.boxed())))
}

/// The first event after `from` that this watch is about, and how far the log was read.
fn next_event(log: &[Entry], route: &Route, filter: &Filter, from: u64) -> (Option<Value>, u64) {
    let mut reached = from;
    let start = log.partition_point(|entry| entry.revision <= from);
    for entry in &log[start..] {
        reached = entry.revision;
        let ours = entry.collection == route.collection
            && (route.namespace.is_empty() || entry.namespace == route.namespace);
        if !ours {
            continue;
        }
        let before = entry.old.as_ref().filter(|value| filter.matches(value));
        let after = entry.new.as_ref().filter(|value| filter.matches(value));
        let (kind, value) = match (before, after) {
            (None, None) => continue,
            (None, Some(value)) => ("ADDED", value),
            (Some(_), Some(value)) => ("MODIFIED", value),
            (Some(value), None) => ("DELETED", entry.new.as_ref().unwrap_or(value)),
        };
        let mut value = filter.shown(value);
        value["metadata"]["resourceVersion"] = json!(entry.revision.to_string());
        return (Some(json!({"type": kind, "object": value})), reached);
    }
    (None, reached)
}

fn one(
    shared: &Shared,
    verb: &str,
    route: &Route,
    content: &str,
    mut value: Value,
) -> Result<(u16, Value), Refused> {
    let key: Key = (
        route.collection.clone(),
        route.namespace.clone(),
        route.name.clone(),
    );
    let current = || {
        let objects = shared.objects.lock();
        let found = objects.get(&key).cloned();
        found.ok_or_else(|| objects::not_found(&key))
    };
    let on_status = route.sub == "status";
    match (verb, route.sub.as_str()) {
        ("get", "" | "status") => Ok((200, current()?)),
        ("get", "scale") => Ok((200, scale_of(&current()?))),
        ("create", "") => {
            if !route.namespace.is_empty() {
                value["metadata"]["namespace"] = json!(route.namespace);
            }
            let made = shared.change(|objects, now| objects.create(&key.0, value, now))?;
            Ok((201, made))
        }
        ("create", "binding") => {
            let mut pod = current()?;
            pod["spec"]["nodeName"] = value["target"]["name"].clone();
            shared.change(|objects, _| objects.update(&key, pod, false))?;
            Ok((201, json!({"kind": "Status", "status": "Success"})))
        }
        ("create", "eviction") => {
            shared.change(|objects, now| objects.delete(&key, &value["deleteOptions"], now))?;
            Ok((201, json!({"kind": "Status", "status": "Success"})))
        }
        ("update", "" | "status") => {
            let put = shared.change(|objects, _| objects.update(&key, value, on_status))?;
            Ok((200, put))
        }
        ("update", "finalize") => {
            let put = shared.change(|objects, _| objects.finalize(&key, &value))?;
            Ok((200, put))
        }
        ("update" | "patch", "scale") => {
            let mut object = current()?;
            object["spec"]["replicas"] = value["spec"]["replicas"].clone();
            let put = shared.change(|objects, _| objects.update(&key, object, false))?;
            Ok((200, scale_of(&put)))
        }
        ("patch", "" | "status") => {
            // Of strategic patches only what loops send: maps, and taking items off a list. Of applies
            // those of who owns all that he sends.
            if ![
                "application/apply-patch+yaml",
                "application/merge-patch+json",
                "application/strategic-merge-patch+json",
            ]
            .contains(&content)
            {
                let message = format!("the fake does not support {content}");
                return Err((415, "UnsupportedMediaType", message));
            }
            let mut object = current()?;
            let version = text(&value, "/metadata/resourceVersion").to_owned();
            merge(&mut object, &value);
            if version.is_empty()
                && let Some(meta) = object["metadata"].as_object_mut()
            {
                meta.remove("resourceVersion");
            }
            let put = shared.change(|objects, _| objects.update(&key, object, on_status))?;
            Ok((200, put))
        }
        ("delete", "") => {
            let (old, gone) = shared.change(|objects, now| objects.delete(&key, &value, now))?;
            if gone && route.plural != "pods" {
                return Ok((
                    200,
                    json!({"kind": "Status", "status": "Success", "metadata": {}}),
                ));
            }
            Ok((200, old))
        }
        _ => {
            let message = format!("the fake does not support {verb} on {}", route.resource());
            Err((405, "MethodNotAllowed", message))
        }
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in fields {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().cloned().unwrap_or_default();
            if let Some(items) = target.get_mut(list).and_then(Value::as_array_mut) {
                items.retain(|item| !gone.contains(item));
            }
        } else if value.is_null() {
            if let Some(target) = target.as_object_mut() {
                target.remove(name);
            }
        } else {
            merge(&mut target[name], value);
        }
    }
}

fn scale_of(object: &Value) -> Value {
    let labels = object["spec"]["selector"]["matchLabels"].as_object();
    let pairs = labels.into_iter().flatten();
    let selector: Vec<String> = pairs
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale",
        "metadata": {
            "name": object["metadata"]["name"], "namespace": object["metadata"]["namespace"],
            "uid": object["metadata"]["uid"],
            "resourceVersion": object["metadata"]["resourceVersion"],
        },
        "spec": {"replicas": object["spec"]["replicas"].as_i64().unwrap_or(0)},
        "status": {
            "replicas": object["status"]["replicas"].as_i64().unwrap_or(0),
            "selector": selector.join(","),
        },
    })
}

fn discovery(path: &str) -> Option<Value> {
    let resources = |group: &str, version: &str| -> Vec<Value> {
        let rows = ROWS.iter().filter(|row| row.0 == group && row.1 == version);
        rows.flat_map(|row| {
            let verbs = json!([
                "create",
                "delete",
                "deletecollection",
                "get",
                "list",
                "patch",
                "update",
                "watch"
            ]);
            let main = json!({
                "name": row.2, "singularName": row.3.to_lowercase(), "namespaced": row.4,
                "kind": row.3, "verbs": verbs,
            });
            let subs = row.5.iter().map(|sub| {
                json!({
                    "name": format!("{}/{sub}", row.2), "singularName": "",
                    "namespaced": row.4, "kind": row.3, "verbs": ["get", "patch", "update"],
                })
            });
            std::iter::once(main).chain(subs).collect::<Vec<_>>()
        })
        .collect()
    };
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        ["api"] => Some(json!({"kind": "APIVersions", "versions": ["v1"]})),
        ["apis"] => {
            let mut groups: Vec<Value> = Vec::new();
            for row in ROWS.iter().filter(|row| !row.0.is_empty()) {
                if groups.iter().any(|group| group["name"] == row.0) {
                    continue;
                }
                let version = json!({
                    "groupVersion": format!("{}/{}", row.0, row.1), "version": row.1,
                });
                groups.push(json!({
                    "name": row.0, "versions": [version], "preferredVersion": version,
                }));
            }
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["api", "v1"] => Some(json!({
            "kind": "APIResourceList", "groupVersion": "v1", "resources": resources("", "v1"),
        })),
        ["apis", group, version] => Some(json!({
            "kind": "APIResourceList", "groupVersion": format!("{group}/{version}"),
            "resources": resources(group, version),
        })),
        _ => None,
    }
}
