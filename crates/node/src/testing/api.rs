//! An API without a server: objects in a map behind a `kube::Client`.
//!
//! It knows what the agent uses (get, list, watch, create, status patches, deletion without grace,
//! token requests) and answers 404 to the rest. Not a model of the API server: the in-process
//! cluster uses the real one.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;
/// Resource, namespace, name.
type Key = (String, String, String);

struct Change {
    resource: String,
    type_: &'static str,
    object: Value,
    version: u64,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Value>,
    history: Vec<Arc<Change>>,
    version: u64,
    requests: Vec<String>,
}

struct Shared {
    state: Mutex<State>,
    version: watch::Sender<u64>,
}

/// The API.
#[derive(Clone)]
pub struct FakeApi {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for FakeApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeApi").finish_non_exhaustive()
    }
}

impl Default for FakeApi {
    fn default() -> Self {
        Self::new()
    }
}

struct Place {
    resource: String,
    namespace: String,
    name: String,
    sub: String,
}

impl Place {
    fn of(path: &str) -> Self {
        let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let group = if parts.first() == Some(&"api") { 2 } else { 3 };
        let mut rest = parts.split_off(group.min(parts.len()));
        let mut namespace = String::new();
        if rest.len() > 2 && rest[0] == "namespaces" {
            namespace = rest[1].to_owned();
            rest.drain(..2);
        }
        let mut rest = rest.into_iter().map(str::to_owned);
        let mut next = || rest.next().unwrap_or_default();
        Self {
            resource: next(),
            namespace,
            name: next(),
            sub: next(),
        }
    }

    fn key(&self) -> Key {
        (
            self.resource.clone(),
            self.namespace.clone(),
            self.name.clone(),
        )
    }
}

impl FakeApi {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                version: watch::Sender::new(0),
            }),
        }
    }

    /// A client of it.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        let this = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let this = this.clone();
            async move { this.serve(request).await }
        });
        kube::Client::new(service, "default")
    }

    /// Creates or replaces an object of a resource (`pods`, `configmaps` …).
    pub fn put(&self, resource: &str, mut object: Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let key = (
            resource.to_owned(),
            text(&object["metadata"]["namespace"]),
            text(&object["metadata"]["name"]),
        );
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(uuid::Uuid::new_v4().to_string());
        }
        self.store(key, object);
    }

    /// Changes an object in place.
    pub fn change(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        with: impl FnOnce(&mut Value),
    ) {
        let key = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        let Some(mut object) = self.shared.state.lock().objects.get(&key).cloned() else {
            return;
        };
        with(&mut object);
        self.store(key, object);
    }

    /// Removes an object, as a forced deletion does.
    pub fn remove(&self, resource: &str, namespace: &str, name: &str) {
        let key = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        let mut state = self.shared.state.lock();
        let Some(mut object) = state.objects.remove(&key) else {
            return;
        };
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let change = Change {
            resource: key.0,
            type_: "DELETED",
            object,
            version,
        };
        state.history.push(Arc::new(change));
        drop(state);
        self.shared.version.send_replace(version);
    }

    /// An object as it is now.
    #[must_use]
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        self.shared.state.lock().objects.get(&key).cloned()
    }

    /// All objects of a resource.
    #[must_use]
    pub fn list(&self, resource: &str) -> Vec<Value> {
        let state = self.shared.state.lock();
        state
            .objects
            .iter()
            .filter(|(key, _)| key.0 == resource)
            .map(|(_, o)| o.clone())
            .collect()
    }

    /// `METHOD /path` of every request so far.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.shared.state.lock().requests.clone()
    }

    /// Waits until an object is as asked, at most `limit`; answers it as it is then.
    pub async fn wait_for(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        limit: std::time::Duration,
        asked: impl Fn(Option<&Value>) -> bool,
    ) -> Option<Value> {
        let mut version = self.shared.version.subscribe();
        let reached = async {
            loop {
                version.borrow_and_update();
                let object = self.get(resource, namespace, name);
                if asked(object.as_ref()) {
                    return object;
                }
                if version.changed().await.is_err() {
                    return None;
                }
            }
        };
        match tokio::time::timeout(limit, reached).await {
            Ok(object) => object,
            Err(_) => self.get(resource, namespace, name),
        }
    }

    fn store(&self, key: Key, mut object: Value) {
        let mut state = self.shared.state.lock();
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let known = state.objects.insert(key.clone(), object.clone()).is_some();
        let type_ = if known { "MODIFIED" } else { "ADDED" };
        state.history.push(Arc::new(Change {
            resource: key.0,
            type_,
            object,
            version,
        }));
        drop(state);
        self.shared.version.send_replace(version);
    }

    async fn serve(&self, request: Request<Body>) -> Result<Answer, Infallible> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let query = head.uri.query().unwrap_or_default().to_owned();
        self.shared
            .state
            .lock()
            .requests
            .push(format!("{} {path}", head.method));
        let body = body
            .collect()
            .await
            .map(|body| body.to_bytes())
            .unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let place = Place::of(&path);
        Ok(match (head.method, place.name.is_empty()) {
            (Method::GET, true) if query.contains("watch=true") => self.watch(&place, &query),
            (Method::GET, true) => self.answer_list(&place, &query),
            (Method::GET, false) => {
                match self.get(&place.resource, &place.namespace, &place.name) {
                    Some(object) => reply(200, &object),
                    None => not_found(&place),
                }
            }
            (Method::POST, true) => self.create(&place, body),
            // Every token is another one; it lives as long as was asked for.
            (Method::POST, false) if place.sub == "token" => reply(
                201,
                &json!({ "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
                    "metadata": {}, "spec": body["spec"],
                    "status": { "token": format!("token-{}-{}", place.name, self.tokens()) } }),
            ),
            (Method::PATCH, false) => self.patch(&place, body),
            (Method::DELETE, false) => {
                let object = self.get(&place.resource, &place.namespace, &place.name);
                self.remove(&place.resource, &place.namespace, &place.name);
                match object {
                    Some(object) => reply(200, &object),
                    None => not_found(&place),
                }
            }
            _ => not_found(&place),
        })
    }

    /// Token requests so far.
    fn tokens(&self) -> usize {
        let state = self.shared.state.lock();
        let asked = state.requests.iter();
        asked.filter(|request| request.contains("/token")).count()
    }

    fn create(&self, place: &Place, mut body: Value) -> Answer {
        let given = |field: &str| {
            body["metadata"][field]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let mut name = given("name");
        if name.is_empty() && body["metadata"]["generateName"].is_string() {
            let count = self.shared.state.lock().version;
            name = format!("{}{count}", given("generateName"));
            body["metadata"]["name"] = json!(name);
        }
        if !place.namespace.is_empty() {
            body["metadata"]["namespace"] = json!(place.namespace);
        }
        if self.get(&place.resource, &place.namespace, &name).is_some() {
            return failure(409, "AlreadyExists", &format!("{name} already exists"));
        }
        self.put(&place.resource, body);
        match self.get(&place.resource, &place.namespace, &name) {
            Some(object) => reply(201, &object),
            None => not_found(place),
        }
    }

    fn patch(&self, place: &Place, body: Value) -> Answer {
        let Some(mut object) = self.get(&place.resource, &place.namespace, &place.name) else {
            return not_found(place);
        };
        let uid = &body["metadata"]["uid"];
        if !uid.is_null() && *uid != object["metadata"]["uid"] {
            return failure(409, "Conflict", "uid does not match");
        }
        merge(&mut object, body);
        self.store(place.key(), object.clone());
        reply(200, &object)
    }

    fn answer_list(&self, place: &Place, query: &str) -> Answer {
        let items: Vec<Value> = self
            .list(&place.resource)
            .into_iter()
            .filter(|object| selected(object, query))
            .collect();
        let version = self.shared.state.lock().version;
        reply(
            200,
            &json!({ "kind": "List", "apiVersion": "v1", "items": items,
                "metadata": { "resourceVersion": version.to_string() } }),
        )
    }

    fn watch(&self, place: &Place, query: &str) -> Answer {
        let from: u64 = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("resourceVersion="))
            .and_then(|version| version.parse().ok())
            .unwrap_or(0);
        let start = {
            let state = self.shared.state.lock();
            state
                .history
                .partition_point(|change| change.version <= from)
        };
        let state = (self.clone(), start, self.shared.version.subscribe());
        let (resource, query) = (place.resource.clone(), query.to_owned());
        let frames = stream::unfold(state, move |(this, mut at, mut version)| {
            let (resource, query) = (resource.clone(), query.clone());
            async move {
                loop {
                    version.borrow_and_update();
                    let change = this.shared.state.lock().history.get(at).cloned();
                    let Some(change) = change else {
                        version.changed().await.ok()?;
                        continue;
                    };
                    at += 1;
                    if change.resource != resource || !selected(&change.object, &query) {
                        continue;
                    }
                    let mut line =
                        json!({ "type": change.type_, "object": change.object }).to_string();
                    line.push('\n');
                    let frame = Frame::data(Bytes::from(line));
                    return Some((Ok::<_, Infallible>(frame), (this, at, version)));
                }
            }
        });
        let mut answer = Response::new(StreamBody::new(frames).boxed_unsync());
        *answer.status_mut() = http::StatusCode::OK;
        answer
    }
}

fn selected(object: &Value, query: &str) -> bool {
    let Some(at) = query.find("fieldSelector=") else {
        return true;
    };
    let selector = query[at + 14..].split('&').next().unwrap_or_default();
    let selector = selector.replace("%3D", "=");
    match selector.split_once('=') {
        Some(("spec.nodeName", node)) => object["spec"]["nodeName"] == *node,
        _ => true,
    }
}

/// A merge patch, but conditions merge by type as a strategic one does.
fn merge(target: &mut Value, patch: Value) {
    let (Some(fields), Value::Object(patch)) = (target.as_object_mut(), patch) else {
        return;
    };
    for (name, value) in patch {
        match value {
            Value::Null => {
                fields.remove(&name);
            }
            Value::Array(list) if name == "conditions" => {
                let have = fields.entry(name).or_insert_with(|| json!([]));
                for condition in list {
                    if let Some(all) = have.as_array_mut() {
                        match all.iter_mut().find(|old| old["type"] == condition["type"]) {
                            Some(old) => merge(old, condition),
                            None => all.push(condition),
                        }
                    }
                }
            }
            Value::Array(mut list) => {
                list.retain(|item| item.get("$patch").is_none());
                fields.insert(name, Value::Array(list));
            }
            Value::Object(_) => {
                let inner = fields.entry(name).or_insert_with(|| json!({}));
                merge(inner, value);
            }
            other => {
                fields.insert(name, other);
            }
        }
    }
}

fn reply(code: u16, value: &Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    *answer.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
    answer
}

fn failure(code: u16, reason: &str, message: &str) -> Answer {
    reply(
        code,
        &json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "reason": reason, "message": message, "code": code }),
    )
}

fn not_found(place: &Place) -> Answer {
    failure(
        404,
        "NotFound",
        &format!("{} \"{}\" not found", place.resource, place.name),
    )
}
