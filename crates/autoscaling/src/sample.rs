//! What pods use, as measured: the port through which figures come in.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

/// Why there are no figures. The text is shown to people in the ScalingActive condition.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct SampleError(pub String);

/// What one container used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSample {
    /// Its name.
    pub name: String,
    /// CPU, in thousandths of a core, averaged over the sample's window.
    pub cpu_millicores: i64,
    /// Working set, in bytes.
    pub memory_bytes: i64,
}

/// What one pod used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSample {
    /// Name of the pod, in the namespace asked for.
    pub pod: String,
    /// End of the window.
    pub at: Timestamp,
    /// The time the CPU figure is averaged over.
    pub window: SignedDuration,
    /// Each container that was measured.
    pub containers: Vec<ContainerSample>,
}

/// What was read for one metric of an autoscaler, in thousandths.
#[derive(Debug, Clone)]
pub enum Figure {
    /// Nothing: the pods' own samples are used.
    Samples,
    /// By pod.
    Pods(Result<BTreeMap<String, i64>, SampleError>),
    /// Of one object.
    Object(Result<i64, SampleError>),
    /// Of each series outside.
    External(Result<Vec<i64>, SampleError>),
}

/// A source of measured use.
pub trait PodMetrics: Send + Sync + 'static {
    /// The newest samples of these pods (all of one namespace). A pod without a sample is left
    /// out; nothing is ever made up. An error means that no figures can be had at all.
    fn samples<'a>(
        &'a self,
        namespace: &'a str,
        pods: &'a [Arc<Pod>],
    ) -> BoxFuture<'a, Result<Vec<PodSample>, SampleError>>;
}
