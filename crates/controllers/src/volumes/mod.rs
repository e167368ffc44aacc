//! Storage: claims and volumes are bound, protected, made, grown and given back.
//!
//! The binding loop is the reference's `persistentvolume-binder`; whoever makes volumes is told by
//! annotations, the built-in provisioner ([`local_path`]) as any other. What never lives here: a
//! directory or a mount. Those are the node agent's.

mod apply;
pub mod attach;
pub mod binding;
pub mod class_protection;
pub mod ephemeral;
pub mod expand;
pub mod facts;
pub mod local_path;
pub mod matching;
pub mod plan;
pub mod protection;
pub mod snapshots;
pub mod source;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use evenkeel_client::{Change, LoopContext, ObjectKey, View, WorkQueue, run_loop};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;

use facts::{class_of, class_of_volume, held_for, name, volume_name, volume_spec};

/// Claims and volumes looked at at once.
const WORKERS: usize = 16;
/// Index of volumes that nobody holds, by class.
const FREE: &str = "free";
/// Index of volumes by the claim they are held for (`NAMESPACE/NAME`).
const HELD: &str = "held";
/// Index of claims that name no volume, by class.
const UNBOUND: &str = "unbound";
/// Index of claims by the volume they name.
const NAMES: &str = "names";

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Claim(ObjectKey),
    Volume(String),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(key) => write!(f, "claim {key}"),
            Self::Volume(name) => write!(f, "volume {name}"),
        }
    }
}

fn free(volume: &PersistentVolume) -> Vec<String> {
    let free = volume_spec(volume).claim_ref.is_none();
    free.then(|| class_of_volume(volume).to_owned())
        .into_iter()
        .collect()
}

fn held(volume: &PersistentVolume) -> Vec<String> {
    let held = held_for(volume);
    held.map(|(_, key)| key.to_string()).into_iter().collect()
}

fn unbound(claim: &PersistentVolumeClaim) -> Vec<String> {
    let unbound = volume_name(claim).is_none();
    unbound
        .then(|| class_of(claim).to_owned())
        .into_iter()
        .collect()
}

fn names(claim: &PersistentVolumeClaim) -> Vec<String> {
    volume_name(claim).map(str::to_owned).into_iter().collect()
}

/// Binds claims and volumes. Runs until the context's shutdown.
pub async fn run_binder(context: LoopContext) {
    let claims = context.views.of::<PersistentVolumeClaim>();
    let volumes = context.views.of::<PersistentVolume>();
    let classes = context.views.of::<StorageClass>();
    let pods = context.views.of::<Pod>();
    claims.add_index(UNBOUND, unbound);
    claims.add_index(NAMES, names);
    volumes.add_index(FREE, free);
    volumes.add_index(HELD, held);
    pods.add_index(facts::BY_CLAIM, facts::by_claim);
    claims.synced().await;
    volumes.synced().await;
    classes.synced().await;
    pods.synced().await;
    let queue = WorkQueue::new(context.metrics.of("persistentvolume-binder"));
    {
        let (queue, volumes) = (Arc::clone(&queue), Arc::clone(&volumes));
        claims.on_change(move |change| claim_changed(change, &volumes, &queue));
    }
    {
        let (queue, claims) = (Arc::clone(&queue), Arc::clone(&claims));
        volumes.on_change(move |change| volume_changed(change, &claims, &queue));
    }
    {
        let (queue, claims) = (Arc::clone(&queue), Arc::clone(&claims));
        classes.on_change(move |change| {
            // One that comes may be the default of claims that have none.
            for class in [change.key.name.as_str(), ""] {
                wake(&claims, class, &queue);
            }
        });
    }
    {
        let (queue, claims) = (Arc::clone(&queue), Arc::clone(&claims));
        pods.on_change(move |change| pod_changed(change, &claims, &queue));
    }
    let reconciler = apply::Reconciler {
        claims,
        volumes,
        classes,
        pods,
        queue: Arc::clone(&queue),
        context: context.clone(),
    };
    run_loop(
        "persistentvolume-binder",
        WORKERS,
        queue,
        context.shutdown,
        |key| reconciler.reconcile(key),
    )
    .await;
}

/// Looks again at the claims of a class that have no volume.
fn wake(claims: &View<PersistentVolumeClaim>, class: &str, queue: &WorkQueue<Key>) {
    for claim in claims.by_index(UNBOUND, class) {
        queue.add(Key::Claim(ObjectKey::of(claim.as_ref())));
    }
}

fn claim_changed(
    change: &Change<PersistentVolumeClaim>,
    volumes: &View<PersistentVolume>,
    queue: &WorkQueue<Key>,
) {
    queue.add(Key::Claim(change.key.clone()));
    for side in change.sides() {
        if let Some(volume) = volume_name(side) {
            queue.add(Key::Volume(volume.to_owned()));
        }
    }
    for volume in volumes.by_index(HELD, &change.key.to_string()) {
        queue.add(Key::Volume(name(&volume.metadata).to_owned()));
    }
}

fn volume_changed(
    change: &Change<PersistentVolume>,
    claims: &View<PersistentVolumeClaim>,
    queue: &WorkQueue<Key>,
) {
    queue.add(Key::Volume(change.key.name.clone()));
    for side in change.sides() {
        if let Some((_, key)) = held_for(side) {
            queue.add(Key::Claim(key));
        }
    }
    for claim in claims.by_index(NAMES, &change.key.name) {
        queue.add(Key::Claim(ObjectKey::of(claim.as_ref())));
    }
    let volume = change.latest();
    if volume_spec(volume).claim_ref.is_none() {
        wake(claims, class_of_volume(volume), queue);
    }
}

/// What a claim that waits for its consumer says depends on who the consumers are.
fn pod_changed(change: &Change<Pod>, claims: &View<PersistentVolumeClaim>, queue: &WorkQueue<Key>) {
    let came_or_went = change.old.is_none() || change.new.is_none();
    if !came_or_went {
        return;
    }
    for (claim, _) in facts::pod_claims(change.latest()) {
        let key = ObjectKey::new(change.key.namespace.clone(), claim);
        if claims
            .get_key(&key)
            .is_some_and(|claim| volume_name(&claim).is_none())
        {
            queue.add(Key::Claim(key));
        }
    }
}
