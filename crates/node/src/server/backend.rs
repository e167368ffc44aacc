//! What the node's API needs to know from the agent: which container a request means, where its
//! log lies, which runtime runs it, how its network is reached, and the figures it reports.
//!
//! Nothing here opens a socket or a file. The server asks; the agent, which alone knows the pods,
//! answers with facts or with a [`BackendError`] in the words that kubelet uses, because clients
//! print them as they are.

use std::path::PathBuf;

use evenkeel_runtime::contract::{RuntimeError, SharedRuntime};
use futures::future::BoxFuture;
use http::StatusCode;
use serde_json::Value;

/// What a backend answers.
pub type Result<T> = std::result::Result<T, BackendError>;

/// A refusal with the HTTP status and the text that the client sees.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BackendError {
    /// Status of the response.
    pub status: StatusCode,
    /// For people; becomes the body as it is.
    pub message: String,
}

impl BackendError {
    /// Any other refusal.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    /// The node runs no pod of that name (404).
    pub fn pod_not_found(pod: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("pods {pod:?} not found"))
    }

    /// The pod's spec has no container of that name (400).
    pub fn container_not_valid(container: &str, pod: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            format!("container {container} is not valid for pod {pod}"),
        )
    }

    /// The container has not started; `reason` is what its status shows, for example
    /// `ContainerCreating`, `PodInitializing` or `ImagePullBackOff` (400).
    pub fn waiting_to_start(container: &str, pod: &str, reason: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            format!("container {container:?} in pod {pod:?} is waiting to start: {reason}"),
        )
    }

    /// `--previous` was asked for and there is no earlier instance (400).
    pub fn no_previous(container: &str, pod: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            format!("previous terminated container {container:?} in pod {pod:?} not found"),
        )
    }

    /// Exec or attach into a container that does not run (500, as kubelet answers it).
    pub fn container_not_running(container: &str) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("container not found ({container:?})"),
        )
    }
}

impl From<RuntimeError> for BackendError {
    fn from(error: RuntimeError) -> Self {
        let status = match &error {
            RuntimeError::NotFound { .. } => StatusCode::NOT_FOUND,
            RuntimeError::Invalid(_) => StatusCode::BAD_REQUEST,
            RuntimeError::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            source = cause.source();
        }
        Self { status, message }
    }
}

/// The pod that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodTarget {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub pod: String,
    /// UID, when the path carried one; a pod of that name with another UID is not found.
    pub uid: Option<String>,
}

/// The container that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerTarget {
    /// Its pod.
    pub pod: PodTarget,
    /// Name within the pod: container, init container or ephemeral container.
    pub container: String,
}

/// Where a container's log lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSource {
    /// The file that the runtime writes (CRI log format).
    pub path: PathBuf,
    /// The container that still writes it; `None` when it has ended, and nothing is followed.
    pub writer: Option<String>,
}

/// Where a pod's ports are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortForwardTarget {
    /// The pod's pinned network namespace; `None` for a pod on the host's network.
    pub netns: Option<PathBuf>,
}

/// The agent behind the node's API.
pub trait NodeBackend: Send + Sync + 'static {
    /// The wall clock, for `sinceSeconds`.
    fn now(&self) -> jiff::Timestamp;

    /// What runs the containers.
    fn runtime(&self) -> SharedRuntime;

    /// The runtime's id of a running container, for exec, attach and run.
    fn running_container<'a>(
        &'a self,
        target: &'a ContainerTarget,
    ) -> BoxFuture<'a, Result<String>>;

    /// The log of a container that runs or has run; `previous` asks for the instance before.
    fn container_log<'a>(
        &'a self,
        target: &'a ContainerTarget,
        previous: bool,
    ) -> BoxFuture<'a, Result<LogSource>>;

    /// The network of a running pod.
    fn port_forward<'a>(
        &'a self,
        target: &'a PodTarget,
    ) -> BoxFuture<'a, Result<PortForwardTarget>>;

    /// The pods of this node, for `/pods`: complete `v1` Pod objects.
    fn pods(&self) -> BoxFuture<'_, Result<Vec<Value>>>;

    /// `/stats/summary` (`stats.k8s.io/v1alpha1` Summary).
    fn stats_summary(&self) -> BoxFuture<'_, Result<Value>>;

    /// `/metrics`, in the Prometheus text format.
    fn metrics(&self) -> BoxFuture<'_, Result<String>>;

    /// `/metrics/resource`, in the Prometheus text format.
    fn metrics_resource(&self) -> BoxFuture<'_, Result<String>>;

    /// `/healthz`: an error's text says what is wrong.
    fn healthy(&self) -> BoxFuture<'_, std::result::Result<(), String>>;

    /// The `kubeletconfig` part of `/configz`.
    fn config(&self) -> Value;
}
