//! Events: what a loop tells people about an object.
//!
//! As client-go's recorder: the same event again is a patch of `count` and `lastTimestamp`; more
//! than ten different messages of one reason within ten minutes are combined; an object that
//! causes more than 25 events is limited to one every five minutes. Recording never waits: events
//! go through a bounded queue to one task, and are dropped with a counter when it is full.

mod correlate;
mod write;

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use evenkeel_api::clock::SharedClock;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use tokio::sync::mpsc;

/// Events that wait for the writing task.
const QUEUE: usize = 1024;

/// How an event is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Part of the ordinary course.
    Normal,
    /// Somebody may want to act.
    Warning,
}

impl EventType {
    /// As written in the event.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Something to tell about an object.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) about: ObjectReference,
    pub(crate) kind: EventType,
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// Writes events in the name of one component.
#[derive(Clone)]
pub struct Recorder {
    sender: mpsc::Sender<Told>,
    dropped: Arc<AtomicU64>,
}

impl Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Recorder {
    /// A recorder for `component` (such as `deployment-controller`), on node `host` where it is an
    /// agent's. `client` needs create and patch on events. The writing task ends with the last
    /// clone of the recorder. Must be called within a tokio runtime.
    #[must_use]
    pub fn new(client: kube::Client, clock: SharedClock, component: &str, host: &str) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let writer = write::Writer::new(client, clock, component, host);
        tokio_util::task::TaskTracker::new().spawn(writer.run(receiver));
        Self {
            sender,
            dropped: Arc::new(AtomicU64::new(0)),
        }
    }

    /// A recorder that tells nobody, for tests of plans.
    #[must_use]
    pub fn silent() -> Self {
        Self {
            sender: mpsc::channel(1).0,
            dropped: Arc::new(AtomicU64::new(0)),
        }
    }

    /// Tells about an object of a typed kind.
    pub fn tell<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.tell_about(reference(object), kind, reason, message);
    }

    /// Tells about whatever the reference names (with a `fieldPath`, a part of it).
    pub fn tell_about(
        &self,
        about: ObjectReference,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        let told = Told {
            about,
            kind,
            reason: reason.to_owned(),
            message: message.into(),
        };
        if self.sender.try_send(told).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Events dropped because the queue was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The reference to an object as events carry it: with its resource version.
#[must_use]
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    ObjectReference {
        resource_version: object.meta().resource_version.clone(),
        ..object.object_ref(&())
    }
}
