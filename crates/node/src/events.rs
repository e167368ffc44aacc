//! Events through the API, as kubelet records them: repeated ones are counted in the same object,
//! and an object that makes too many is held back.
//!
//! Recording never waits: events go through a bounded queue, and one that finds it full is dropped
//! with a log line, because no pod may wait for the telling of its story.

use std::collections::HashMap;

use evenkeel_api::clock::SharedClock;
use evenkeel_client::Api;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Patch, PatchParams, PostParams};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::pod::model::{ContainerModel, PodModel};
use crate::pod::status::seconds;

/// Longest message that the API takes.
const MAX_MESSAGE: usize = 1024;
/// Events kept for counting.
const CACHE: usize = 4096;
/// Events that an object may make at once.
const BURST: f64 = 25.0;
/// Seconds in which it may make another one.
const REFILL_SECONDS: f64 = 300.0;

/// `Normal` or `Warning`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// All is well.
    Normal,
    /// Something to look at.
    Warning,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub struct Happening {
    about: ObjectReference,
    kind: Kind,
    reason: &'static str,
    message: String,
}

/// Where events are handed in.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Happening>,
}

impl Recorder {
    /// A recorder and the work that writes what it is told.
    #[must_use]
    pub fn new(client: Client, clock: SharedClock, host: String) -> (Self, Writer) {
        let (queue, inbox) = mpsc::channel(4096);
        let writer = Writer {
            client,
            clock,
            host,
            inbox,
            known: HashMap::new(),
            spam: HashMap::new(),
            last_name: 0,
        };
        (Self { queue }, writer)
    }

    /// Records.
    pub fn record(
        &self,
        about: ObjectReference,
        kind: Kind,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let happening = Happening {
            about,
            kind,
            reason,
            message: message.into(),
        };
        debug!(
            kind = ?happening.kind,
            object = happening.about.name.as_deref().unwrap_or_default(),
            reason,
            message = happening.message,
            "event"
        );
        if self.queue.try_send(happening).is_err() {
            warn!(reason, "event dropped: too many at once");
        }
    }

    /// Records about a pod.
    pub fn pod(
        &self,
        pod: &PodModel,
        kind: Kind,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.record(pod_reference(pod, None), kind, reason, message);
    }

    /// Records about a container of a pod.
    pub fn container(
        &self,
        pod: &PodModel,
        container: &ContainerModel,
        kind: Kind,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.record(
            pod_reference(pod, Some(container.field_path())),
            kind,
            reason,
            message,
        );
    }
}

fn pod_reference(pod: &PodModel, field_path: Option<String>) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(pod.name().to_owned()),
        namespace: Some(pod.namespace().to_owned()),
        uid: Some(pod.uid().to_owned()),
        resource_version: pod.pod.metadata.resource_version.clone(),
        field_path,
    }
}

type Key = (String, String, Kind, &'static str, String);

struct Known {
    namespace: String,
    name: String,
    count: i32,
    last: Timestamp,
}

/// Writes events, one after the other.
pub struct Writer {
    client: Client,
    clock: SharedClock,
    host: String,
    inbox: mpsc::Receiver<Happening>,
    known: HashMap<Key, Known>,
    spam: HashMap<String, (f64, Timestamp)>,
    last_name: u64,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Writer {
    /// Writes until every recorder is gone.
    pub async fn run(mut self) {
        while let Some(happening) = self.inbox.recv().await {
            if let Err(error) = self.write(&happening).await {
                debug!(%error, reason = happening.reason, "event not written");
            }
        }
    }

    /// A token bucket for each object, as client-go's spam filter.
    fn spams(&mut self, object: &str, now: Timestamp) -> bool {
        if self.spam.len() > CACHE {
            self.spam
                .retain(|_, (_, at)| now.duration_since(*at) < SignedDuration::from_hours(2));
        }
        let (tokens, at) = self.spam.entry(object.to_owned()).or_insert((BURST, now));
        let passed = now.duration_since(*at).as_secs_f64().max(0.0);
        *tokens = (*tokens + passed / REFILL_SECONDS).min(BURST);
        *at = now;
        if *tokens < 1.0 {
            return true;
        }
        *tokens -= 1.0;
        false
    }

    async fn write(&mut self, happening: &Happening) -> Result<(), kube::Error> {
        let now = self.clock.now();
        let about = &happening.about;
        let object = about
            .uid
            .clone()
            .or_else(|| about.name.clone())
            .unwrap_or_default();
        if self.spams(&object, now) {
            return Ok(());
        }
        let mut message = happening.message.clone();
        if message.len() > MAX_MESSAGE {
            let mut end = MAX_MESSAGE;
            while !message.is_char_boundary(end) {
                end -= 1;
            }
            message.truncate(end);
        }
        let key: Key = (
            object,
            about.field_path.clone().unwrap_or_default(),
            happening.kind,
            happening.reason,
            message.clone(),
        );
        if let Some(known) = self.known.get_mut(&key) {
            known.count += 1;
            known.last = now;
            let patch = serde_json::json!({
                "count": known.count, "lastTimestamp": seconds(now), "message": message,
            });
            let api: Api<Event> = Api::namespaced(self.client.clone(), &known.namespace);
            let answer = api
                .patch_unread(
                    &known.name,
                    &PatchParams::default(),
                    &Patch::Strategic(&patch),
                )
                .await;
            match answer {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => return other,
            }
        }
        let namespace = about
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned());
        // Two events of one instant still get two names.
        let unique = u64::try_from(now.as_nanosecond())
            .unwrap_or(0)
            .max(self.last_name + 1);
        self.last_name = unique;
        let name = format!("{}.{:x}", about.name.as_deref().unwrap_or("node"), unique);
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: about.clone(),
            type_: Some(format!("{:?}", happening.kind)),
            reason: Some(happening.reason.to_owned()),
            message: Some(message),
            source: Some(EventSource {
                component: Some("kubelet".to_owned()),
                host: Some(self.host.clone()),
            }),
            reporting_component: Some("kubelet".to_owned()),
            reporting_instance: Some(self.host.clone()),
            count: Some(1),
            first_timestamp: Some(seconds(now)),
            last_timestamp: Some(seconds(now)),
            ..Event::default()
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        api.create_unread(&PostParams::default(), &event).await?;
        if self.known.len() >= CACHE {
            self.known
                .retain(|_, known| now.duration_since(known.last) < SignedDuration::from_mins(10));
        }
        self.known.insert(
            key,
            Known {
                namespace,
                name,
                count: 1,
                last: now,
            },
        );
        Ok(())
    }
}
