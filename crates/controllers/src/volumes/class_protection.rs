//! Volume attributes classes stay while a claim or a volume names them: their protection finalizer,
//! which the door gives them when they are made, goes last.

use std::sync::Arc;

use evenkeel_client::Api;
use evenkeel_client::{Change, LoopContext, ObjectKey, Outcome, View, WorkQueue, run_loop};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kube::api::PostParams;

use super::protection::{Protection, needs, rewritten};
use crate::error::ReconcileError;

/// Keeps classes that claims and volumes name.
pub const CLASS: &str = "kubernetes.io/vac-protection";
/// Claims and volumes by the classes that they name.
const BY_CLASS: &str = "volume-attributes-class";

/// The classes of a claim: the one that it asks for, the one that its volume has, and the one that
/// the volume is being changed to.
#[must_use]
pub fn of_claim(claim: &PersistentVolumeClaim) -> Vec<String> {
    let spec = claim.spec.as_ref();
    let status = claim.status.as_ref();
    let asked = spec.and_then(|spec| spec.volume_attributes_class_name.as_ref());
    let has = status.and_then(|status| status.current_volume_attributes_class_name.as_ref());
    let change = status.and_then(|status| status.modify_volume_status.as_ref());
    let becomes = change.and_then(|change| change.target_volume_attributes_class_name.as_ref());
    let all = [asked, has, becomes].into_iter().flatten();
    all.filter(|name| !name.is_empty()).cloned().collect()
}

/// The class of a volume.
#[must_use]
pub fn of_volume(volume: &PersistentVolume) -> Vec<String> {
    let spec = volume.spec.as_ref();
    let name = spec.and_then(|spec| spec.volume_attributes_class_name.as_ref());
    let name = name.filter(|name| !name.is_empty());
    name.into_iter().cloned().collect()
}

struct Classes {
    classes: Arc<View<VolumeAttributesClass>>,
    claims: Arc<View<PersistentVolumeClaim>>,
    volumes: Arc<View<PersistentVolume>>,
    context: LoopContext,
}

impl Classes {
    fn is_used(&self, name: &str) -> bool {
        !self.claims.by_index(BY_CLASS, name).is_empty()
            || !self.volumes.by_index(BY_CLASS, name).is_empty()
    }

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(class) = self.classes.get_key(&key) else {
            return Ok(Outcome::Done);
        };
        let add = match needs(&class.metadata, CLASS) {
            Protection::Add => true,
            Protection::Judge if !self.is_used(&key.name) => false,
            Protection::Judge | Protection::Stay => return Ok(Outcome::Done),
        };
        let mut wanted = (*class).clone();
        let finalizers = rewritten(&class.metadata, CLASS, add);
        let gone = finalizers.is_empty() && class.metadata.deletion_timestamp.is_some();
        wanted.metadata.finalizers = Some(finalizers);
        let api: Api<VolumeAttributesClass> = Api::all(self.context.client.clone());
        match api
            .replace(&key.name, &PostParams::default(), &wanted)
            .await
        {
            Ok(_) if gone => self.classes.note_deleted(&class),
            Ok(written) => {
                self.classes.note_written(written);
            }
            Err(error) if evenkeel_client::errors::is_not_found(&error) => {
                self.classes.note_deleted(&class);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Outcome::Done)
    }
}

/// Classes that one side of a change names and the other does not, or whose user goes.
fn let_go<K>(change: &Change<K>, of: impl Fn(&K) -> Vec<String>) -> Vec<ObjectKey> {
    let named = |side: &Option<Arc<K>>| side.as_deref().map(&of).unwrap_or_default();
    let (before, now) = (named(&change.old), named(&change.new));
    let left = before.into_iter().filter(|name| !now.contains(name));
    left.map(|name| ObjectKey::new("", name)).collect()
}

/// Protects classes. Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let classes = context.views.of::<VolumeAttributesClass>();
    let claims = context.views.of::<PersistentVolumeClaim>();
    let volumes = context.views.of::<PersistentVolume>();
    claims.add_index(BY_CLASS, of_claim);
    volumes.add_index(BY_CLASS, of_volume);
    classes.synced().await;
    claims.synced().await;
    volumes.synced().await;
    let queue = WorkQueue::new(context.metrics.of("vac-protection"));
    {
        let queue = Arc::clone(&queue);
        classes.on_change(move |change| {
            let new = change.new.as_ref();
            if new.is_some_and(|it| needs(&it.metadata, CLASS) != Protection::Stay) {
                queue.add(change.key.clone());
            }
        });
    }
    {
        let queue = Arc::clone(&queue);
        claims.on_change(move |change| {
            let_go(change, of_claim)
                .into_iter()
                .for_each(|key| queue.add(key));
        });
    }
    {
        let queue = Arc::clone(&queue);
        volumes.on_change(move |change| {
            let_go(change, of_volume)
                .into_iter()
                .for_each(|key| queue.add(key));
        });
    }
    let reconciler = Classes {
        classes,
        claims,
        volumes,
        context: context.clone(),
    };
    run_loop("vac-protection", 1, queue, context.shutdown, |key| {
        reconciler.reconcile(key)
    })
    .await;
}
