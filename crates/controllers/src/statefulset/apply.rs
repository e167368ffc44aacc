//! Carries a StatefulSet's plan out: revision, pods and claims, status, history.

use std::sync::Arc;

use evenkeel_api::selector::LabelSelector;
use evenkeel_client::view::index;
use evenkeel_client::{EventType, LoopContext, ObjectKey, Outcome, View, errors};
use futures::future::join_all;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::claims::ClaimControl;
use super::identity::{is_member, name, revision};
use super::plan::{Action, Revisions, World, is_ordered, plan};
use super::{rollout, status};
use crate::claim;
use crate::error::ReconcileError;
use crate::history::{self, Owner};
use crate::pod_control::{PodControl, next_available, wait_until};
use crate::revisions::{RevisionControl, Written};
use crate::told::write_status;

pub(super) struct Reconciler {
    pub(super) sets: Arc<View<StatefulSet>>,
    pub(super) pods: Arc<View<Pod>>,
    pub(super) revisions: Arc<View<ControllerRevision>>,
    pub(super) claims: Arc<View<PersistentVolumeClaim>>,
    pub(super) context: LoopContext,
}

impl Reconciler {
    pub(super) async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(set) = self.sets.get_key(&key) else {
            return Ok(Outcome::Done);
        };
        // A selector that can't be read stays so until the set is changed.
        let Ok(selector) = LabelSelector::from_spec(Some(&set.spec.selector)) else {
            return Ok(Outcome::Done);
        };
        let mut history = self.claim_revisions(&set, &selector).await?;
        let pods = self.claim_pods(&set, &selector).await?;
        if rollout::strategy(&set) == "Recreate" {
            let text = format!(
                "statefulset {key} uses Recreate strategy but feature gate \
                 StatefulSetRecreateStrategy is disabled"
            );
            let recorder = &self.context.recorder;
            recorder.tell(
                set.as_ref(),
                EventType::Warning,
                "UnknownStrategy",
                text.clone(),
            );
            return Err(ReconcileError::State(text));
        }
        let (revisions, collisions) = self.revisions(&set, &mut history).await?;
        let namespace = key.namespace.as_str();
        let look_up = |claim: &str| self.claims.get(namespace, claim);
        let actions = plan(&World {
            set: &set,
            revisions: &revisions,
            pods: &pods,
            claim: &look_up,
            now: self.context.clock.now(),
        });
        let done = self.carry_out(&set, &actions).await;
        // What was just created and deleted counts already.
        let mut pods = self.owned(&set);
        pods.retain(|pod| is_member(&set, pod));
        let now = self.context.clock.now();
        let new = status::status(&set, &revisions, collisions, &pods, now);
        let written = self.write_status(&set, new).await;
        done?;
        written?;
        self.truncate(&set, &revisions, &history, &pods).await?;
        let min_ready = set.spec.min_ready_seconds.unwrap_or(0);
        let next = next_available(&pods, min_ready, now);
        Ok(next.map_or(Outcome::Done, |at| Outcome::After(wait_until(at, now))))
    }

    fn owned(&self, set: &StatefulSet) -> Vec<Arc<Pod>> {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        self.pods.by_index(index::CONTROLLER, uid)
    }

    async fn claim_pods(
        &self,
        set: &StatefulSet,
        selector: &LabelSelector,
    ) -> Result<Vec<Arc<Pod>>, ReconcileError> {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let deleting = set.metadata.deletion_timestamp.is_some();
        let orphans = self.pods.by_index(claim::ORPHAN, namespace);
        let claims = claim::claims(deleting, selector, self.owned(set), orphans);
        let claims = claims.members(deleting, |pod| is_member(set, pod));
        claim::carry_out(&self.context.client, &self.pods, set, claims).await
    }

    async fn claim_revisions(
        &self,
        set: &StatefulSet,
        selector: &LabelSelector,
    ) -> Result<Vec<Arc<ControllerRevision>>, ReconcileError> {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let mut claims = claim::claims(
            set.metadata.deletion_timestamp.is_some(),
            selector,
            self.revisions.by_index(index::CONTROLLER, uid),
            self.revisions.by_index(claim::ORPHAN, namespace),
        );
        // Revisions are never released: nobody else has a use for them.
        claims.release.clear();
        let mut mine = claim::carry_out(&self.context.client, &self.revisions, set, claims).await?;
        history::sort(&mut mine);
        Ok(mine)
    }

    /// Brings the newest revision in line with the template.
    async fn revisions(
        &self,
        set: &StatefulSet,
        history: &mut Vec<Arc<ControllerRevision>>,
    ) -> Result<(Revisions, i32), ReconcileError> {
        let old = set.status.as_ref();
        let mut collisions = old.and_then(|it| it.collision_count).unwrap_or(0);
        if set.metadata.deletion_timestamp.is_some() {
            // No new revision for a set that goes: it would be in the way of its end.
            let named = |name: Option<&String>| {
                let found = history
                    .iter()
                    .find(|item| Some(history::name(item)) == name.map(String::as_str));
                found
                    .cloned()
                    .unwrap_or_else(|| history::known_by_name(name))
            };
            let current = named(old.and_then(|it| it.current_revision.as_ref()));
            let update = named(old.and_then(|it| it.update_revision.as_ref()));
            return Ok((Revisions { current, update }, collisions));
        }
        let control = RevisionControl {
            context: &self.context,
            view: &self.revisions,
        };
        let update = loop {
            let owner = Owner {
                meta: &set.metadata,
                reference: claim::reference_to(set),
                template: &set.spec.template,
                collisions: Some(collisions),
            };
            match control.take(history::step(&owner, history)).await? {
                Written::Done(revision) => break revision,
                Written::Collision => collisions += 1,
            }
        };
        history.retain(|item| history::name(item) != history::name(&update));
        history.push(Arc::clone(&update));
        history::sort(history);
        let current = old.and_then(|it| it.current_revision.as_deref());
        let current = history
            .iter()
            .find(|item| Some(history::name(item)) == current);
        let current = Arc::clone(current.unwrap_or(&update));
        Ok((Revisions { current, update }, collisions))
    }

    /// In order until one fails; a parallel set creates and deletes at once.
    async fn carry_out(&self, set: &StatefulSet, actions: &[Action]) -> Result<(), ReconcileError> {
        if is_ordered(set) {
            for action in actions {
                self.act(set, action).await?;
            }
            return Ok(());
        }
        // Who owns a claim is written before its pod goes, or nobody would.
        let (own, others): (Vec<&Action>, Vec<&Action>) = actions
            .iter()
            .partition(|action| matches!(action, Action::Own { .. }));
        let owned = join_all(own.into_iter().map(|action| self.act(set, action))).await;
        owned.into_iter().collect::<Result<(), _>>()?;
        let mut rest = others.as_slice();
        let mut batch = 1;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(batch.min(rest.len()));
            let done = join_all(now.iter().map(|action| self.act(set, action))).await;
            done.into_iter().collect::<Result<(), _>>()?;
            rest = later;
            batch *= 2;
        }
        Ok(())
    }

    async fn act(&self, set: &StatefulSet, action: &Action) -> Result<(), ReconcileError> {
        let claims = ClaimControl {
            context: &self.context,
            view: &self.claims,
            set,
        };
        let control = PodControl {
            context: &self.context,
            view: &self.pods,
        };
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        match action {
            Action::Create {
                pod,
                claims: missing,
            } => {
                if let Err(error) = claims.create(pod, missing).await {
                    return Err(self.tell_failure(set, "Create", pod, error));
                }
                let api = control.api(namespace);
                match api.create(&PostParams::default(), pod).await {
                    Ok(made) => {
                        self.pods.note_written(made);
                        self.tell_success(set, "Create", pod);
                        Ok(())
                    }
                    Err(error) if errors::is_namespace_terminating(&error) => Ok(()),
                    // Another's pod of this name, or one the view has not seen: not an event.
                    Err(error) if errors::is_already_exists(&error) => Err(error.into()),
                    Err(error) => Err(self.tell_failure(set, "Create", pod, error.into())),
                }
            }
            Action::Blocked { pod, why } => {
                let error = ReconcileError::State(why.clone());
                Err(self.tell_failure(set, "Create", pod, error))
            }
            Action::CreateClaims {
                pod,
                claims: missing,
            } => claims.create(pod, missing).await,
            Action::Update {
                pod,
                claims: missing,
            } => {
                if let Err(error) = claims.create(pod, missing).await {
                    return Err(self.tell_failure(set, "Update", pod, error));
                }
                let api = control.api(namespace);
                let params = PatchParams::default();
                let patch = Patch::Strategic(identity(pod));
                match api.patch(name(&pod.metadata), &params, &patch).await {
                    Ok(written) => {
                        self.pods.note_written(written);
                        self.tell_success(set, "Update", pod);
                        Ok(())
                    }
                    Err(error) if errors::is_not_found(&error) => Ok(()),
                    Err(error) => Err(self.tell_failure(set, "Update", pod, error.into())),
                }
            }
            Action::Own { claim, contested } => claims.own(claim, *contested).await,
            Action::Delete(pod) => match control.delete_quietly(pod).await {
                Ok(_) => {
                    self.tell_success(set, "Delete", pod);
                    Ok(())
                }
                Err(error) => Err(self.tell_failure(set, "Delete", pod, error.into())),
            },
        }
    }

    fn tell_success(&self, set: &StatefulSet, verb: &str, pod: &Pod) {
        let (pod, owner) = (name(&pod.metadata), name(&set.metadata));
        let text = format!("{verb} Pod {pod} in StatefulSet {owner} successful");
        let recorder = &self.context.recorder;
        recorder.tell(set, EventType::Normal, &format!("Successful{verb}"), text);
    }

    fn tell_failure(
        &self,
        set: &StatefulSet,
        verb: &str,
        pod: &Pod,
        error: ReconcileError,
    ) -> ReconcileError {
        let (pod, owner) = (name(&pod.metadata), name(&set.metadata));
        let text = format!("{verb} Pod {pod} in StatefulSet {owner} failed error: {error}");
        let recorder = &self.context.recorder;
        recorder.tell(set, EventType::Warning, &format!("Failed{verb}"), text);
        error
    }

    async fn write_status(
        &self,
        set: &StatefulSet,
        status: StatefulSetStatus,
    ) -> Result<(), ReconcileError> {
        if status::is_same(set.status.as_ref(), &status) {
            return Ok(());
        }
        let mut fresh = set.clone();
        fresh.status = Some(status);
        write_status(&self.context, &self.sets, &fresh).await?;
        Ok(())
    }

    async fn truncate(
        &self,
        set: &StatefulSet,
        revisions: &Revisions,
        history: &[Arc<ControllerRevision>],
        pods: &[Arc<Pod>],
    ) -> Result<(), ReconcileError> {
        let limit = set.spec.revision_history_limit.unwrap_or(10);
        let ends = [&revisions.current, &revisions.update].map(|it| history::name(it));
        let is_live = |item: &ControllerRevision| {
            let name = history::name(item);
            ends.contains(&name) || pods.iter().any(|pod| revision(pod) == name)
        };
        let control = RevisionControl {
            context: &self.context,
            view: &self.revisions,
        };
        for gone in history::beyond(history, limit, is_live) {
            control.delete(&gone).await?;
        }
        Ok(())
    }
}

/// What makes a pod that of its set: labels, and the volumes of its claims. Not the whole pod, since
/// a view does not hold all of it.
fn identity(pod: &Pod) -> Value {
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    let claims: Vec<&Volume> = volumes
        .filter(|volume| volume.persistent_volume_claim.is_some())
        .collect();
    json!({
        "metadata": {
            "uid": pod.metadata.uid,
            "resourceVersion": pod.metadata.resource_version,
            "labels": pod.metadata.labels,
        },
        "spec": { "volumes": claims },
    })
}
