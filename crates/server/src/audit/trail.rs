//! What one request leaves: collected while it goes through the door, handed out at each stage.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use evenkeel_api::{Status, clock, object};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Audit;
use super::event::{
    self, AuthenticationMetadata, Event, Level, Object, ResponseStatus, Stage, User,
};
use super::policy::Record;
use crate::auth::Identity;
use crate::http::{Answer, Attributes, full};

/// The annotations of authorization.
const DECISION: &str = "authorization.k8s.io/decision";
const REASON: &str = "authorization.k8s.io/reason";

/// What one request leaves.
#[derive(Debug)]
pub(crate) struct Trail {
    audit: Arc<Audit>,
    record: Record,
    event: Mutex<Event>,
}

/// Tells of the end when it is dropped: of requests that outlive their answers, and of those whose
/// client has gone away or whose handler panicked.
#[derive(Debug)]
pub(crate) struct Closing(Option<Arc<Trail>>);

impl Closing {
    pub(crate) fn new(trail: Arc<Trail>) -> Self {
        Self(Some(trail))
    }

    /// The end has been told already.
    pub(crate) fn settle(&mut self) {
        self.0 = None;
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        if let Some(trail) = self.0.take() {
            trail.complete_detached();
        }
    }
}

impl Trail {
    /// Begins to record a request; `None`: the policy does not want it. Without an identity nobody
    /// knows who asks.
    pub(crate) fn begin(
        audit: &Arc<Audit>,
        id: &str,
        parts: &Parts,
        attributes: &Attributes,
        identity: Option<&Identity>,
        peer: Option<IpAddr>,
    ) -> Option<Arc<Self>> {
        let record = audit.policy.record(identity, attributes);
        audit.counts.level(record.level);
        if record.level == Level::None {
            return None;
        }
        let received = clock::rfc3339_micro(audit.clock.now());
        let uri = parts
            .uri
            .path_and_query()
            .map_or_else(|| parts.uri.path().to_owned(), ToString::to_string);
        let event = Event {
            level: record.level,
            audit_id: id.to_owned(),
            stage: Stage::RequestReceived,
            request_uri: uri,
            verb: attributes.verb.clone(),
            user: identity.map(User::of).unwrap_or_default(),
            impersonated_user: None,
            authentication_metadata: None,
            source_ips: event::source_ips(&parts.headers, peer),
            user_agent: event::user_agent(&parts.headers),
            object_ref: Event::object_ref(attributes),
            response_status: None,
            request_object: None,
            response_object: None,
            stage_timestamp: received.clone(),
            request_received_timestamp: received,
            annotations: BTreeMap::new(),
        };
        Some(Arc::new(Self {
            audit: Arc::clone(audit),
            record,
            event: Mutex::new(event),
        }))
    }

    /// Tells of a stage. `false`: it could not be told to somebody who must know.
    async fn tell(&self, stage: Stage) -> bool {
        let Some((mut well, later)) = self.hand_out(stage) else {
            return true;
        };
        for sending in later {
            well &= sending.await;
        }
        well
    }

    fn hand_out(
        &self,
        stage: Stage,
    ) -> Option<(bool, Vec<futures::future::BoxFuture<'static, bool>>)> {
        if self.record.omits(stage) {
            return None;
        }
        let mut event = self.event.lock();
        event.stage = stage;
        if stage != Stage::RequestReceived {
            event.stage_timestamp = clock::rfc3339_micro(self.now());
        }
        Some(self.audit.hand_out(&event))
    }

    fn now(&self) -> Timestamp {
        self.audit.clock.now()
    }

    /// The request is here. `false`: that can't be recorded though it must be.
    pub(crate) async fn received(&self) -> bool {
        let told = self.tell(Stage::RequestReceived).await;
        if !told {
            self.audit.counts.rejected();
        }
        told
    }

    /// Somebody acts as somebody else.
    /// The constraint is the verb of the constrained way in which the caller may be him; empty
    /// for the old one.
    pub(crate) fn impersonated(&self, identity: &Identity, constraint: &str) {
        let mut event = self.event.lock();
        event.impersonated_user = Some(User::of(identity));
        if !constraint.is_empty() {
            event.authentication_metadata = Some(AuthenticationMetadata {
                impersonation_constraint: constraint.to_owned(),
            });
        }
    }

    /// What the authorizer said last.
    pub(crate) fn decided(&self, decision: &str, reason: &str) {
        let mut event = self.event.lock();
        let annotations = &mut event.annotations;
        annotations.insert(DECISION.to_owned(), decision.to_owned());
        annotations.insert(REASON.to_owned(), reason.to_owned());
    }

    /// Is the object of the request recorded?
    pub(crate) fn wants_request(&self) -> bool {
        self.record.level >= Level::Request
    }

    /// The object of the request: what the path does not say is read from it, and it is kept where
    /// the level says so.
    pub(crate) fn request_object(&self, value: &Value) {
        let mut event = self.event.lock();
        if let Some(about) = &mut event.object_ref {
            let fill = |field: &mut String, name: &str| {
                if field.is_empty() {
                    *field = object::text(value, &["metadata", name]).to_owned();
                }
            };
            fill(&mut about.namespace, "namespace");
            fill(&mut about.name, "name");
            fill(&mut about.uid, "uid");
            fill(&mut about.resource_version, "resourceVersion");
        }
        if self.wants_request() {
            event.request_object = Some(self.kept(value.clone()));
        }
    }

    /// The patch of the request, as it came.
    pub(crate) fn request_patch(&self, patch: &Value) {
        if self.wants_request() {
            self.event.lock().request_object = Some(Object::Value(patch.clone()));
        }
    }

    fn kept(&self, mut value: Value) -> Object {
        if self.record.omit_managed_fields {
            event::drop_managed_fields(&mut value);
        }
        Object::Value(value)
    }

    /// Is the object of the answer recorded?
    fn wants_response(&self) -> bool {
        self.record.level >= Level::RequestResponse
    }

    /// The object of an answer that is not in JSON.
    pub(crate) fn response_object(&self, value: &Value) {
        if self.wants_response() {
            self.event.lock().response_object = Some(self.kept(value.clone()));
        }
    }

    /// The request was refused.
    pub(crate) fn refused(&self, status: &Status) {
        let mut event = self.event.lock();
        event.response_status = Some(ResponseStatus::of(status));
        if self.wants_response() {
            event.response_object = serde_json::to_value(status).ok().map(Object::Value);
        }
    }

    /// Whoever served the request panicked.
    pub(crate) async fn panicked(&self, why: &str) {
        let text = format!("APIServer panic'd: {why}");
        let status = Status::failure(500, "InternalError", text);
        self.event.lock().response_status = Some(ResponseStatus::of(&status));
        self.tell(Stage::Panic).await;
    }

    /// There is an answer. That of a request which goes on is told as begun; its end is told by a
    /// [`Closing`].
    pub(crate) async fn answered(
        &self,
        answer: Answer,
        notes: BTreeMap<String, String>,
        long: bool,
    ) -> Answer {
        let answer = if long {
            answer
        } else {
            self.read(answer).await
        };
        {
            let mut event = self.event.lock();
            let code = answer.status().as_u16();
            event.response_status.get_or_insert_default().code = code;
            for (name, text) in notes {
                event.annotations.entry(name).or_insert(text);
            }
        }
        let stage = if long {
            Stage::ResponseStarted
        } else {
            Stage::ResponseComplete
        };
        self.tell(stage).await;
        answer
    }

    /// Reads the answer's object, where it is wanted.
    async fn read(&self, answer: Answer) -> Answer {
        let (is_resource, deletes, has_object) = {
            let event = self.event.lock();
            (
                event.object_ref.is_some(),
                event.verb.starts_with("delete"),
                event.response_object.is_some(),
            )
        };
        let is_json = answer
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
        let wanted = self.wants_response() && !has_object;
        // What is there as a whole can be read without waiting for anybody.
        let is_whole = answer.body().size_hint().exact().is_some();
        if !is_resource || !is_json || !is_whole || !(wanted || deletes) {
            return answer;
        }
        let (parts, body) = answer.into_parts();
        let bytes = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => Bytes::new(),
        };
        // The answer to a deletion may be a status without an object.
        if deletes
            && let Ok(status) = serde_json::from_slice::<Status>(&bytes)
            && status.kind == "Status"
        {
            self.event.lock().response_status = Some(ResponseStatus::of(&status));
        }
        if wanted {
            self.event.lock().response_object = self.raw(&bytes);
        }
        Answer::from_parts(parts, full(bytes))
    }

    fn raw(&self, bytes: &[u8]) -> Option<Object> {
        if self.record.omit_managed_fields {
            let value = serde_json::from_slice(bytes).ok()?;
            return Some(self.kept(value));
        }
        let text = std::str::from_utf8(bytes).ok()?;
        let raw = RawValue::from_string(text.to_owned()).ok()?;
        Some(Object::Raw(raw))
    }

    /// Nobody knows who asks: that is all there is to tell.
    pub(crate) async fn unauthenticated(&self, status: &Status) {
        self.refused(status);
        self.tell(Stage::ResponseStarted).await;
    }

    /// Tells of the end where nobody can wait.
    fn complete_detached(&self) {
        // The panic itself is told.
        if std::thread::panicking() {
            return;
        }
        let closed = {
            let mut event = self.event.lock();
            let closed = event.response_status.is_none();
            if closed {
                event.response_status = Some(ResponseStatus::closed());
            }
            closed
        };
        if closed {
            tracing::debug!("a client went away before it was answered");
        }
        let Some((_, later)) = self.hand_out(Stage::ResponseComplete) else {
            return;
        };
        if !later.is_empty()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(futures::future::join_all(later));
        }
    }
}
