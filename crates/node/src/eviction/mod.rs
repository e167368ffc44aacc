//! Eviction: pods that use more disk than they may, and pods that must go when the node itself
//! runs short.
//!
//! Looked at every ten seconds, as kubelet does. What to do is decided by pure functions
//! ([`storage`] for a pod's own limits, [`pressure`] for the node's signals); measuring is in
//! [`disk`]; ending a pod is its worker's part, which is told through [`Evictions`]. A node whose
//! pods have no such limits and that is not short of anything walks no directory.

pub mod disk;
pub mod pressure;
pub mod storage;
pub mod thresholds;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_runtime::ContainerState;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tracing::{debug, info};

use self::pressure::{Candidate, Pressure, Signals};
use self::storage::{DiskUse, verdict};
use crate::context::Context;
use crate::events::Kind;
use crate::images_gc;
use crate::machine::{filesystem, meminfo};
use crate::pod::model::PodModel;
use crate::register;
use crate::volume::{blocking, pod_dir};

/// Time between looks.
const PERIOD: Duration = Duration::from_secs(10);
/// Seconds that an evicted pod's containers get.
const GRACE_SECONDS: i64 = 1;
/// Pods of this priority and above are critical: they are never evicted.
const CRITICAL: i32 = 2_000_000_000;

/// A pod's eviction, for its worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eviction {
    /// What the pod's status says.
    pub message: String,
    /// Seconds until its containers are killed.
    pub grace_seconds: i64,
    /// The node wanted the room back: the pod gets the condition `DisruptionTarget`.
    pub disruption: bool,
}

/// Evictions decided on and not yet begun, by pod UID.
#[derive(Debug, Default)]
pub struct Evictions(Mutex<HashMap<String, Eviction>>);

impl Evictions {
    /// Takes what was decided for a pod.
    pub fn take(&self, uid: &str) -> Option<Eviction> {
        self.0.lock().remove(uid)
    }

    fn put(&self, uid: &str, eviction: Eviction) {
        self.0.lock().insert(uid.to_owned(), eviction);
    }
}

/// Watches over disk and memory until the future is dropped.
pub(crate) async fn run(context: Arc<Context>) {
    loop {
        tokio::time::sleep(PERIOD).await;
        look(&context).await;
    }
}

/// One look: pods over their own limits go first; only when there is none, the node's signals
/// count.
async fn look(context: &Arc<Context>) {
    let pods = active(context);
    let mut evicted = false;
    for model in pods.iter().filter(|model| storage::limited(model)) {
        if let Some(message) = verdict(model, &disk_use(context, model).await) {
            evicted |= evict(context, model, message, false);
        }
    }
    if context.config.eviction_hard.is_empty() {
        return;
    }
    let signals = signals(context);
    let now = context.config.clock.now();
    let met = {
        let mut pressure = context.pressure.lock();
        pressure.observe(&context.config.eviction_hard, &signals, now)
    };
    let Some(worst) = met.into_iter().next().filter(|_| !evicted) else {
        return;
    };
    context.recorder.record(
        register::reference(context),
        Kind::Warning,
        "EvictionThresholdMet",
        format!("Attempting to reclaim {}", worst.signal.resource()),
    );
    if worst.signal.is_disk() {
        // What can be had back without ending anybody's work goes first.
        images_gc::remove_unused(context).await;
        if !worst.is_met(&self::signals(context)) {
            return;
        }
    }
    let mut candidates = Vec::new();
    for model in &pods {
        candidates.push(candidate(context, model, worst.signal.is_disk()).await);
    }
    for candidate in pressure::ranked(worst.signal, candidates) {
        let Some(model) = pods.iter().find(|model| model.uid() == candidate.uid) else {
            continue;
        };
        let message = pressure::message(&worst, &signals, &candidate);
        if evict(context, model, message, true) {
            // One at a time: its end may be all that was needed.
            return;
        }
    }
}

/// Pods that have anything running and are not ending.
fn active(context: &Context) -> Vec<PodModel> {
    let pods: Vec<Arc<Pod>> = context.pods.lock().values().cloned().collect();
    pods.into_iter()
        .map(PodModel::new)
        .filter(|model| !model.phase_is_final() && model.deletion().is_none())
        .filter(|model| {
            let observed = context.view.observed(model.uid());
            let mut containers = observed.containers.iter();
            containers.any(|container| container.state == ContainerState::Running)
        })
        .collect()
}

/// Tells the pod's worker; false for a pod that must stay.
fn evict(context: &Context, model: &PodModel, message: String, disruption: bool) -> bool {
    let priority = model.spec().and_then(|spec| spec.priority).unwrap_or(0);
    if priority >= CRITICAL || model.is_static() {
        debug!(pod = model.full_name(), "a critical pod is not evicted");
        return false;
    }
    info!(pod = model.full_name(), message, "evicted");
    context.evictions.put(
        model.uid(),
        Eviction {
            message,
            grace_seconds: GRACE_SECONDS,
            disruption,
        },
    );
    context.wakers.wake(model.uid());
    true
}

fn signals(context: &Context) -> Signals {
    let disk = filesystem(&context.config.root);
    Signals {
        memory: meminfo("MemAvailable").zip(meminfo("MemTotal")),
        disk: disk.map(|(size, free, ..)| (free, size)),
        inodes: disk
            .filter(|(_, _, inodes, _)| *inodes > 0)
            .map(|(_, _, inodes, free)| (number(free), number(inodes))),
    }
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What a pod's volumes, writable layers and logs take.
async fn disk_use(context: &Context, model: &PodModel) -> DiskUse {
    let volumes = storage::on_disk(model);
    let dir = pod_dir(&context.config.root, model.uid()).join("volumes/kubernetes.io~empty-dir");
    let mut out = DiskUse::default();
    let measured = blocking(move || {
        let sizes: BTreeMap<String, u64> = volumes
            .into_iter()
            .map(|name| {
                let size = disk::usage(&dir.join(&name));
                (name, size)
            })
            .collect();
        Ok(sizes)
    })
    .await;
    match measured {
        Ok(sizes) => out.volumes = sizes,
        Err(error) => debug!(pod = model.full_name(), error, "volumes not measured"),
    }
    for container in &context.view.observed(model.uid()).containers {
        let root = match context.config.runtime.container_stats(&container.id).await {
            Ok(stats) => stats.rootfs_used_bytes,
            Err(error) => {
                debug!(%error, container = container.id, "no figures");
                0
            }
        };
        let logs = log_use(container.log_path.clone()).await;
        *out.containers.entry(container.name.clone()).or_default() += root + logs;
    }
    out
}

/// A container's log with what was rotated out of it: all files of its directory.
async fn log_use(log: PathBuf) -> u64 {
    let measured = blocking(move || Ok(log.parent().map_or(0, disk::usage))).await;
    measured.unwrap_or(0)
}

async fn candidate(context: &Context, model: &PodModel, disk: bool) -> Candidate {
    let mut containers = BTreeMap::new();
    let mut extra = 0;
    if disk {
        let used = disk_use(context, model).await;
        extra = used.volumes.values().sum();
        containers = used.containers;
    } else {
        for container in &context.view.observed(model.uid()).containers {
            if container.state != ContainerState::Running {
                continue;
            }
            if let Ok(stats) = context.config.runtime.container_stats(&container.id).await {
                containers.insert(container.name.clone(), stats.memory_working_set);
            }
        }
    }
    Candidate::new(model, containers, extra, disk)
}

/// The pressure conditions of the node, shared with what reports them.
pub type SharedPressure = Mutex<Pressure>;

#[cfg(test)]
mod tests;
