//! The audit log: who did what, when, and what came of it (`audit.k8s.io/v1`).
//!
//! A policy says how much of which request is recorded ([`policy`]); a [`Trail`] collects it while
//! the request goes through the door, and hands it out at each stage; sinks write it to a file or
//! send it to a webhook ([`sink`]). Without a policy nothing is recorded, and nothing is paid for
//! it. What never lives here: a decision about a request, and anything that a policy does not ask
//! for; whether secrets are recorded is the policy's word.

mod counts;
mod event;
mod log;
pub(crate) mod policy;
mod sink;
mod trail;
pub(crate) mod webhook;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_api::clock::SharedClock;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use serde::Serialize;

pub use log::Rotation;
pub use sink::{Batch, Mode};
pub(crate) use trail::{Closing, Trail};

use counts::Counts;
use event::{Event, Level};
use log::Lines;
use policy::Policy;
use sink::{Sent, Sink, Target};
use webhook::Webhook;

/// Names a request in all its events; clients may choose it.
pub(crate) const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// Events longer than this lose their objects, if they are to be truncated.
const EVENT_MOST: usize = 100 << 10;

/// How lines of a log look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A JSON object a line.
    Json,
    /// A line of text.
    Legacy,
}

/// A log file.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Its path; `-` is standard output.
    pub path: PathBuf,
    /// When it is exchanged.
    pub rotation: Rotation,
    /// How its lines look.
    pub format: Format,
    /// Whether requests wait for it.
    pub mode: Mode,
    /// Whether long events lose their objects.
    pub truncate: bool,
}

/// A webhook.
#[derive(Debug, Clone)]
pub struct WebhookOptions {
    /// A kubeconfig that says where it is.
    pub config: PathBuf,
    /// The first wait after a failure.
    pub initial_backoff: Duration,
    /// Whether requests wait for it.
    pub mode: Mode,
    /// How events are sent in batches.
    pub batch: Batch,
    /// Whether long events lose their objects.
    pub truncate: bool,
}

/// What is recorded, and where.
#[derive(Debug, Clone)]
pub struct AuditOptions {
    /// The policy file.
    pub policy: PathBuf,
    /// A log file.
    pub log: Option<LogOptions>,
    /// A webhook.
    pub webhook: Option<WebhookOptions>,
}

/// Why requests can't be recorded.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The policy is wrong.
    #[error("audit policy {}: {_1}", _0.display())]
    Policy(PathBuf, String),
    /// The log can't be written.
    #[error("audit log {}", _0.display())]
    Log(PathBuf, #[source] std::io::Error),
    /// The webhook's configuration is wrong.
    #[error("audit webhook {}: {_1}", _0.display())]
    Webhook(PathBuf, String),
}

/// Records requests.
#[derive(Debug)]
pub struct Audit {
    policy: Policy,
    sinks: Vec<Sink>,
    counts: Arc<Counts>,
    clock: SharedClock,
}

/// The name of a request: the client's, or a new one.
pub(crate) fn id_of(headers: &HeaderMap) -> HeaderValue {
    match headers.get(AUDIT_ID).filter(|id| !id.is_empty()) {
        Some(id) => id.clone(),
        None => {
            let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
            let id = uuid::Uuid::new_v4();
            HeaderValue::from_str(id.hyphenated().encode_lower(&mut text))
                .unwrap_or_else(|_| HeaderValue::from_static(""))
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'e> {
    kind: &'static str,
    api_version: &'static str,
    #[serde(flatten)]
    event: &'e Event,
}

impl Audit {
    /// Reads the policy and opens what events go to. Must be called within a runtime.
    ///
    /// # Errors
    /// Something is not as it should be; it is named.
    pub fn open(options: &AuditOptions, clock: SharedClock) -> Result<Self, AuditError> {
        let policy = Policy::load(&options.policy)?;
        let counts = Arc::<Counts>::default();
        let mut sinks = Vec::new();
        if let Some(log) = &options.log {
            let lines = Lines::open(&log.path, log.rotation.clone(), Arc::clone(&clock))
                .map_err(|error| AuditError::Log(log.path.clone(), error))?;
            // Batches are no use to a file: a line is written as soon as it is there.
            let batch = Batch {
                buffer_size: 10_000,
                max_size: 1,
                max_wait: Duration::from_secs(30),
                throttle: None,
            };
            sinks.push(Sink::new(
                Target::Log(lines),
                log.mode,
                &batch,
                log.truncate,
                log.format == Format::Legacy,
                Arc::clone(&counts),
            ));
        }
        if let Some(webhook) = &options.webhook {
            let target = Webhook::load(&webhook.config, webhook.initial_backoff)
                .map_err(|why| AuditError::Webhook(webhook.config.clone(), why))?;
            sinks.push(Sink::new(
                Target::Webhook(target),
                webhook.mode,
                &webhook.batch,
                webhook.truncate,
                false,
                Arc::clone(&counts),
            ));
        }
        Ok(Self {
            policy,
            sinks,
            counts,
            clock,
        })
    }

    /// Hands an event to all sinks; answers what is still to be waited for.
    fn hand_out(&self, event: &Event) -> (bool, Vec<futures::future::BoxFuture<'static, bool>>) {
        self.counts.event();
        let mut well = true;
        let mut later = Vec::new();
        for sink in &self.sinks {
            let Some(bytes) = self.render(sink, event) else {
                continue;
            };
            match sink.take(bytes) {
                Sent::Done(done) => well &= done,
                Sent::Later(sending) => later.push(sending),
            }
        }
        (well, later)
    }

    fn render(&self, sink: &Sink, event: &Event) -> Option<Bytes> {
        if sink.legacy {
            return Some(Bytes::from(event.legacy() + "\n"));
        }
        let bytes = encode(sink, event);
        if !sink.truncates || bytes.len() <= EVENT_MOST {
            return Some(bytes);
        }
        if event.level >= Level::Request {
            let mut less = event.clone();
            less.request_object = None;
            less.response_object = None;
            let truncated = "audit.k8s.io/truncated".to_owned();
            less.annotations.insert(truncated, "true".to_owned());
            let bytes = encode(sink, &less);
            if bytes.len() <= EVENT_MOST {
                return Some(bytes);
            }
        }
        self.counts.failed("truncate", 1);
        let id = &event.audit_id;
        tracing::error!(
            id,
            "an audit event is lost: too large even after truncating"
        );
        None
    }

    /// Sends what still waits.
    pub async fn close(&self) {
        for sink in &self.sinks {
            sink.close().await;
        }
    }

    pub(crate) fn metrics(&self) -> String {
        self.counts.text()
    }
}

/// An event as JSON: a line of a log, or an item of a list.
fn encode(sink: &Sink, event: &Event) -> Bytes {
    let written = match &*sink.target {
        Target::Log(_) => {
            let line = Line {
                kind: "Event",
                api_version: "audit.k8s.io/v1",
                event,
            };
            serde_json::to_vec(&line).map(|mut line| {
                line.push(b'\n');
                line
            })
        }
        Target::Webhook(_) => serde_json::to_vec(event),
    };
    // Nothing in an event can't be written.
    Bytes::from(written.unwrap_or_default())
}
