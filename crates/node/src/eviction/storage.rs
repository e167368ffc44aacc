//! A pod's own limits on disk: `sizeLimit` of an `emptyDir`, `limits.ephemeral-storage` of its
//! containers. Pure.

use std::collections::BTreeMap;

use evenkeel_api::quantity::Quantity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use crate::pod::model::{ContainerModel, PodModel, Role};

/// What a pod has on disk, bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskUse {
    /// Its `emptyDir` volumes that are on disk, by name.
    pub volumes: BTreeMap<String, u64>,
    /// Writable layers and logs, by container.
    pub containers: BTreeMap<String, u64>,
}

impl DiskUse {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.volumes.values().chain(self.containers.values()).sum()
    }
}

/// A limit as it was written, and in bytes.
struct Limit<'a> {
    text: &'a str,
    bytes: i64,
}

fn parse(quantity: &ApiQuantity) -> Option<Limit<'_>> {
    let bytes = quantity.0.parse::<Quantity>().ok()?.units();
    (bytes > 0).then_some(Limit {
        text: &quantity.0,
        bytes,
    })
}

fn limit(container: &ContainerModel) -> Option<Limit<'_>> {
    let limits = container.spec.resources.as_ref()?.limits.as_ref()?;
    parse(limits.get("ephemeral-storage")?)
}

fn volume_limits(model: &PodModel) -> impl Iterator<Item = (&str, Limit<'_>)> {
    let volumes = model.spec().and_then(|spec| spec.volumes.as_deref());
    volumes.into_iter().flatten().filter_map(|volume| {
        let source = volume.empty_dir.as_ref()?;
        // What is in memory is bounded by its file system.
        let on_disk = source.medium.as_deref().unwrap_or_default().is_empty();
        let limit = source.size_limit.as_ref().and_then(parse)?;
        on_disk.then_some((volume.name.as_str(), limit))
    })
}

/// Does the pod limit its disk in any way?
#[must_use]
pub fn limited(model: &PodModel) -> bool {
    volume_limits(model).next().is_some() || model.containers.iter().any(|c| limit(c).is_some())
}

/// Names of the `emptyDir` volumes that are on disk.
#[must_use]
pub fn on_disk(model: &PodModel) -> Vec<String> {
    let volumes = model.spec().and_then(|spec| spec.volumes.as_deref());
    let volumes = volumes.into_iter().flatten();
    volumes
        .filter(|volume| {
            volume
                .empty_dir
                .as_ref()
                .is_some_and(|source| source.medium.as_deref().unwrap_or_default().is_empty())
        })
        .map(|volume| volume.name.clone())
        .collect()
}

fn over(used: u64, limit: i64) -> bool {
    u64::try_from(limit).is_ok_and(|limit| used > limit)
}

/// Why the pod must go, in kubelet's words.
#[must_use]
pub fn verdict(model: &PodModel, used: &DiskUse) -> Option<String> {
    for (name, limit) in volume_limits(model) {
        if used
            .volumes
            .get(name)
            .is_some_and(|used| over(*used, limit.bytes))
        {
            let text = limit.text;
            return Some(format!(
                "Usage of EmptyDir volume \"{name}\" exceeds the limit \"{text}\". "
            ));
        }
    }
    if let Some(limit) = pod_limit(model)
        && over(used.total(), limit.units())
    {
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "
        ));
    }
    for container in model.with_role(&[Role::App]) {
        let Some(limit) = limit(container) else {
            continue;
        };
        let name = container.name();
        if used
            .containers
            .get(name)
            .is_some_and(|used| over(*used, limit.bytes))
        {
            let text = limit.text;
            return Some(format!(
                "Container {name} exceeded its local ephemeral storage limit \"{text}\". "
            ));
        }
    }
    None
}

/// The limits of the containers together: apps and sidecars, or an init container that has more.
/// `None` when no container has one.
fn pod_limit(model: &PodModel) -> Option<Quantity> {
    let parsed = |container: &ContainerModel| limit(container)?.text.parse::<Quantity>().ok();
    let running = model
        .with_role(&[Role::App, Role::Sidecar])
        .filter_map(parsed);
    let sum = running.reduce(|sum, more| sum.plus(&more));
    let most = model.with_role(&[Role::Init]).filter_map(parsed).max();
    match (sum, most) {
        (Some(sum), Some(most)) => Some(sum.max(most)),
        (sum, most) => sum.or(most),
    }
}
