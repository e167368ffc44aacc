//! Carries out what the plans of claims and volumes say.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_client::Api;
use evenkeel_client::{EventType, LoopContext, ObjectKey, Outcome, View, WorkQueue, errors};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::PostParams;

use super::facts::{
    BY_CLAIM, PROVISIONER, PROVISIONER_BETA, annotate, annotation, claim_phase, class_of,
    default_class, held_for, held_uid, name, volume_name,
};
use super::plan::{ClaimStep, Reclaim, Seen, Told, VolumeStep, is_released};
use super::{FREE, HELD, Key, binding, plan};
use crate::error::ReconcileError;
use crate::pods;

/// A claim that waits is told of again so often: events are kept for an hour.
const REMIND: Duration = Duration::from_secs(900);

pub(super) struct Reconciler {
    pub(super) claims: Arc<View<PersistentVolumeClaim>>,
    pub(super) volumes: Arc<View<PersistentVolume>>,
    pub(super) classes: Arc<View<StorageClass>>,
    pub(super) pods: Arc<View<Pod>>,
    pub(super) queue: Arc<WorkQueue<Key>>,
    pub(super) context: LoopContext,
}

impl Reconciler {
    pub(super) async fn reconcile(&self, key: Key) -> Result<Outcome, ReconcileError> {
        match key {
            Key::Claim(key) => self.claim(&key).await,
            Key::Volume(name) => self.volume(&name).await,
        }
    }

    fn seen(&self, claim: &PersistentVolumeClaim) -> Seen {
        let key = ObjectKey::of(claim).to_string();
        let mut volumes = self.volumes.by_index(FREE, class_of(claim));
        volumes.extend(self.volumes.by_index(HELD, &key));
        let users = self.pods.by_index(BY_CLAIM, &key);
        let waiting = users
            .iter()
            .filter(|pod| !pods::is_terminal(pod) && pods::node_name(pod).is_none());
        Seen {
            volumes,
            named: volume_name(claim).and_then(|name| self.volumes.get("", name)),
            class: self.classes.get("", class_of(claim)),
            default: default_class(&self.classes.list()).cloned(),
            waiting_pods: waiting.map(|pod| name(&pod.metadata).to_owned()).collect(),
        }
    }

    async fn claim(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(claim) = self.claims.get_key(key) else {
            return Ok(Outcome::Done);
        };
        let mut seen = self.seen(&claim);
        if let Some(wanted) = volume_name(&claim).filter(|_| seen.named.is_none()) {
            // Lost is for good: what the view does not have is asked for before it is said.
            let api: Api<PersistentVolume> = Api::all(self.context.client.clone());
            seen.named = api.get_opt(wanted).await?.map(Arc::new);
        }
        match plan::claim(&claim, &seen) {
            ClaimStep::Bind(volume) => {
                self.bind(&claim, &volume).await?;
                return Ok(Outcome::Done);
            }
            ClaimStep::Wait(told) => {
                if let Some(told) = told {
                    self.tell(claim.as_ref(), &told);
                }
                self.claim_status(&claim, "Pending", None).await?;
            }
            ClaimStep::Lose(told) => {
                if claim_phase(&claim) != "Lost" {
                    let lost = self.claim_status(&claim, "Lost", None).await?;
                    self.tell(lost.as_ref(), &told);
                }
                return Ok(Outcome::Done);
            }
            ClaimStep::Class(class) => {
                let mut wanted = (*claim).clone();
                wanted.spec.get_or_insert_default().storage_class_name = Some(class);
                self.replace_claim(&wanted).await?;
                return Ok(Outcome::Done);
            }
            ClaimStep::Provision(provisioner, told) => {
                let noted = |name| annotation(&claim.metadata, name) == Some(provisioner.as_str());
                if !noted(PROVISIONER) || !noted(PROVISIONER_BETA) {
                    let mut wanted = (*claim).clone();
                    annotate(&mut wanted.metadata, PROVISIONER, &provisioner);
                    annotate(&mut wanted.metadata, PROVISIONER_BETA, &provisioner);
                    self.replace_claim(&wanted).await?;
                }
                self.tell(claim.as_ref(), &told);
            }
            ClaimStep::Misbound(told) => {
                let message = told.message.clone();
                self.tell(claim.as_ref(), &told);
                return Err(ReconcileError::State(message));
            }
        }
        Ok(Outcome::After(REMIND))
    }

    /// Writes what is missing of a binding, the volume first: a crash in between leaves a volume
    /// that nobody else takes.
    async fn bind(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &Arc<PersistentVolume>,
    ) -> Result<(), ReconcileError> {
        let volume = match binding::hold(volume, claim) {
            Some(wanted) => self.replace_volume(&wanted).await?,
            None => Arc::clone(volume),
        };
        let volume = self.phase(&volume, "Bound", "").await?;
        let claim = match binding::bind(claim, &volume) {
            Some(wanted) => self.replace_claim(&wanted).await?,
            None => Arc::new(claim.clone()),
        };
        self.claim_status(&claim, "Bound", Some(&volume)).await?;
        Ok(())
    }

    /// The claim that a volume is held for, if it is still there. That it is not is asked at the
    /// door before a volume is given up for it.
    async fn holder(
        &self,
        volume: &PersistentVolume,
    ) -> Result<Option<Arc<PersistentVolumeClaim>>, ReconcileError> {
        let Some((held, key)) = held_for(volume).filter(|(held, _)| !held_uid(held).is_empty())
        else {
            return Ok(None);
        };
        let is_it = |claim: &PersistentVolumeClaim| claim.metadata.uid == held.uid;
        if let Some(found) = self.claims.get_key(&key).filter(|claim| is_it(claim)) {
            return Ok(Some(found));
        }
        if is_released(volume) && self.claims.get_key(&key).is_none() {
            return Ok(None);
        }
        let api: Api<PersistentVolumeClaim> =
            Api::namespaced(self.context.client.clone(), &key.namespace);
        let found = api.get_opt(&key.name).await?;
        Ok(found.filter(is_it).map(Arc::new))
    }

    async fn volume(&self, name: &str) -> Result<Outcome, ReconcileError> {
        let Some(volume) = self.volumes.get("", name) else {
            return Ok(Outcome::Done);
        };
        let holder = self.holder(&volume).await?;
        match plan::volume(&volume, holder.as_deref()) {
            VolumeStep::Phase(phase) => {
                self.phase(&volume, phase, "").await?;
            }
            VolumeStep::WakeClaim => {
                if let Some(claim) = &holder {
                    self.queue.add(Key::Claim(ObjectKey::of(claim.as_ref())));
                }
            }
            VolumeStep::Mismatch(of_volume, of_claim) => {
                self.tell(volume.as_ref(), &of_volume);
                if let Some(claim) = &holder {
                    self.tell(claim.as_ref(), &of_claim);
                }
            }
            VolumeStep::Unbind => {
                if let Some(wanted) = binding::release(&volume) {
                    let free = self.replace_volume(&wanted).await?;
                    self.phase(&free, "Available", "").await?;
                }
            }
            VolumeStep::Reclaim(how) => {
                // A failure told earlier stays to be seen.
                let volume = if is_released(&volume) {
                    volume
                } else {
                    self.phase(&volume, "Released", "").await?
                };
                if let Reclaim::Failed(told) = how
                    && super::facts::volume_phase(&volume) != "Failed"
                {
                    let failed = self.phase(&volume, "Failed", &told.message).await?;
                    self.tell(failed.as_ref(), &told);
                }
            }
        }
        Ok(Outcome::Done)
    }

    fn tell<K: kube::Resource<DynamicType = ()>>(&self, object: &K, told: &Told) {
        let kind = if told.warning {
            EventType::Warning
        } else {
            EventType::Normal
        };
        let recorder = &self.context.recorder;
        recorder.tell(object, kind, told.reason, told.message.as_str());
    }

    fn claim_api(&self, claim: &PersistentVolumeClaim) -> Api<PersistentVolumeClaim> {
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        Api::namespaced(self.context.client.clone(), namespace)
    }

    async fn replace_claim(
        &self,
        wanted: &PersistentVolumeClaim,
    ) -> Result<Arc<PersistentVolumeClaim>, ReconcileError> {
        let api = self.claim_api(wanted);
        let params = PostParams::default();
        let written = api.replace(name(&wanted.metadata), &params, wanted).await;
        match written {
            Ok(written) => Ok(self.claims.note_written(written)),
            Err(error) => Err(self.gone(error, || self.claims.note_deleted(wanted))),
        }
    }

    async fn claim_status(
        &self,
        claim: &PersistentVolumeClaim,
        phase: &str,
        volume: Option<&PersistentVolume>,
    ) -> Result<Arc<PersistentVolumeClaim>, ReconcileError> {
        let Some(wanted) = binding::claim_status(claim, phase, volume) else {
            return Ok(Arc::new(claim.clone()));
        };
        let api = self.claim_api(claim);
        let params = PostParams::default();
        let written = api
            .replace_status(name(&wanted.metadata), &params, &wanted)
            .await;
        match written {
            Ok(written) => Ok(self.claims.note_written(written)),
            Err(error) => Err(self.gone(error, || self.claims.note_deleted(&wanted))),
        }
    }

    async fn replace_volume(
        &self,
        wanted: &PersistentVolume,
    ) -> Result<Arc<PersistentVolume>, ReconcileError> {
        let api: Api<PersistentVolume> = Api::all(self.context.client.clone());
        let params = PostParams::default();
        let written = api.replace(name(&wanted.metadata), &params, wanted).await;
        match written {
            Ok(written) => Ok(self.volumes.note_written(written)),
            Err(error) => Err(self.gone(error, || self.volumes.note_deleted(wanted))),
        }
    }

    async fn phase(
        &self,
        volume: &Arc<PersistentVolume>,
        phase: &str,
        message: &str,
    ) -> Result<Arc<PersistentVolume>, ReconcileError> {
        let Some(wanted) = binding::phase(volume, phase, message) else {
            return Ok(Arc::clone(volume));
        };
        let api: Api<PersistentVolume> = Api::all(self.context.client.clone());
        let params = PostParams::default();
        let written = api
            .replace_status(name(&wanted.metadata), &params, &wanted)
            .await;
        match written {
            Ok(written) => Ok(self.volumes.note_written(written)),
            Err(error) => Err(self.gone(error, || self.volumes.note_deleted(&wanted))),
        }
    }

    /// What was written to is gone: the view is told, and the next look finds it so.
    fn gone(&self, error: kube::Error, note: impl FnOnce()) -> ReconcileError {
        if errors::is_not_found(&error) {
            note();
        }
        error.into()
    }
}
