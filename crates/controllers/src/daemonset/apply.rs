//! Carries a DaemonSet's plan out: revision, pods, status, history.

use std::collections::HashMap;
use std::sync::Arc;

use evenkeel_api::selector::LabelSelector;
use evenkeel_client::Api;
use evenkeel_client::view::index;
use evenkeel_client::{EventType, LoopContext, ObjectKey, Outcome, View};
use futures::future::join_all;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;

use super::backoff::Backoff;
use super::plan::{GENERATION_LABEL, Plan, TEMPLATE_GENERATION, World, plan};
use super::{fit, status};
use crate::claim;
use crate::error::ReconcileError;
use crate::history::{self, HASH_LABEL, Owner, label};
use crate::pod_control::{self, PodControl, next_available, wait_until};
use crate::revisions::{RevisionControl, Written};
use crate::told::write_status;

pub(super) struct Reconciler {
    sets: Arc<View<DaemonSet>>,
    nodes: Arc<View<Node>>,
    pods: Arc<View<Pod>>,
    revisions: Arc<View<ControllerRevision>>,
    context: LoopContext,
    /// By the set's uid.
    backoff: Mutex<HashMap<String, Backoff>>,
}

impl Reconciler {
    pub(super) fn new(
        sets: Arc<View<DaemonSet>>,
        nodes: Arc<View<Node>>,
        pods: Arc<View<Pod>>,
        revisions: Arc<View<ControllerRevision>>,
        context: LoopContext,
    ) -> Self {
        Self {
            sets,
            nodes,
            pods,
            revisions,
            context,
            backoff: Mutex::default(),
        }
    }

    pub(super) async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(set) = self.sets.get_key(&key) else {
            return Ok(Outcome::Done);
        };
        let selector = LabelSelector::from_spec(Some(&set.spec.selector))
            .map_err(|error| ReconcileError::State(error.to_string()))?;
        if selector.is_everything() {
            let text = "This daemon set is selecting all pods. A non-empty selector is required.";
            let recorder = &self.context.recorder;
            recorder.tell(set.as_ref(), EventType::Warning, "SelectingAll", text);
            return Ok(Outcome::Done);
        }
        let uid = set.metadata.uid.clone().unwrap_or_default();
        if set.metadata.deletion_timestamp.is_some() {
            // Its revisions may have gone already: a count would be a guess.
            self.backoff.lock().remove(&uid);
            return Ok(Outcome::Done);
        }
        let mine = self.claim_pods(&set, &selector).await?;
        let (hash, history) = self.revision(&set, &selector, &mine).await?;
        let nodes = self.nodes.list();
        let now = self.context.clock.now();
        let backoff = self.backoff.lock().get(&uid).cloned().unwrap_or_default();
        let plan = plan(&World {
            set: &set,
            hash: &hash,
            nodes: &nodes,
            pods: &mine,
            backoff: &backoff,
            now,
        });
        self.note_failures(uid, backoff, &plan.failed);
        let changed = !plan.create.is_empty() || !plan.delete.is_empty();
        let look_again = plan.look_again;
        let done = self.carry_out(&set, &hash, plan).await;
        // What was just created and deleted counts already.
        let mine = if changed { self.owned(&set) } else { mine };
        let now = self.context.clock.now();
        let new = status::status(&set, &hash, &nodes, &mine, now);
        let written = self.write_status(&set, new).await;
        done?;
        written?;
        self.truncate(&set, &history, &mine).await?;
        let min_ready = set.spec.min_ready_seconds.unwrap_or(0);
        let next = next_available(&mine, min_ready, now);
        let next = [next, look_again].into_iter().flatten().min();
        Ok(next.map_or(Outcome::Done, |at| Outcome::After(wait_until(at, now))))
    }

    fn owned(&self, set: &DaemonSet) -> Vec<Arc<Pod>> {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        self.pods.by_index(index::CONTROLLER, uid)
    }

    async fn claim_pods(
        &self,
        set: &DaemonSet,
        selector: &LabelSelector,
    ) -> Result<Vec<Arc<Pod>>, ReconcileError> {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let orphans = self.pods.by_index(claim::ORPHAN, namespace);
        let claims = claim::claims(false, selector, self.owned(set), orphans);
        claim::carry_out(&self.context.client, &self.pods, set, claims).await
    }

    fn note_failures(&self, uid: String, mut backoff: Backoff, failed: &[String]) {
        let now = self.context.clock.now();
        for node in failed {
            backoff.note(node, now);
        }
        backoff.forget_old(now);
        let mut all = self.backoff.lock();
        if backoff.is_empty() {
            all.remove(&uid);
        } else {
            all.insert(uid, backoff);
        }
    }

    fn revision_control(&self) -> RevisionControl<'_> {
        RevisionControl {
            context: &self.context,
            view: &self.revisions,
        }
    }

    /// The hash of the template's revision, which is made or renumbered where it must be, and all
    /// revisions.
    async fn revision(
        &self,
        set: &DaemonSet,
        selector: &LabelSelector,
        pods: &[Arc<Pod>],
    ) -> Result<(String, Vec<Arc<ControllerRevision>>), ReconcileError> {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let claims = claim::claims(
            false,
            selector,
            self.revisions.by_index(index::CONTROLLER, uid),
            self.revisions.by_index(claim::ORPHAN, namespace),
        );
        let mut all = claim::carry_out(&self.context.client, &self.revisions, set, claims).await?;
        let control = self.revision_control();
        for revision in &mut all {
            if label(&revision.metadata, HASH_LABEL).is_empty() {
                let mut labelled = revision.as_ref().clone();
                let name = history::name(revision).to_owned();
                let labels = labelled.metadata.labels.get_or_insert_default();
                labels.insert(HASH_LABEL.to_owned(), name);
                *revision = control.replace(&labelled).await?;
            }
        }
        history::sort(&mut all);
        let owner = Owner {
            meta: &set.metadata,
            reference: claim::reference_to(set),
            template: &set.spec.template,
            collisions: set.status.as_ref().and_then(|it| it.collision_count),
        };
        let current = match control.take(history::step(&owner, &all)).await? {
            Written::Done(revision) => revision,
            Written::Collision => {
                let mut status = set.status.clone().unwrap_or_default();
                status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
                self.write_status(set, status).await?;
                return Err(ReconcileError::State("hash collision".to_owned()));
            }
        };
        let hash = label(&current.metadata, HASH_LABEL).to_owned();
        self.deduplicate(set, &current, &mut all, pods).await?;
        all.retain(|item| history::name(item) != history::name(&current));
        Ok((hash, all))
    }

    /// Two revisions of one template are one: the pods of the other go by the name of this.
    async fn deduplicate(
        &self,
        set: &DaemonSet,
        current: &ControllerRevision,
        all: &mut Vec<Arc<ControllerRevision>>,
        pods: &[Arc<Pod>],
    ) -> Result<(), ReconcileError> {
        let is_double = |item: &Arc<ControllerRevision>| {
            history::name(item) != history::name(current)
                && history::is_of(item, &set.spec.template)
        };
        let doubles: Vec<_> = all.iter().filter(|item| is_double(item)).cloned().collect();
        if doubles.is_empty() {
            return Ok(());
        }
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), namespace);
        let hash = label(&current.metadata, HASH_LABEL);
        let of_double = |pod: &&Arc<Pod>| {
            let found = label(&pod.metadata, HASH_LABEL);
            let mut doubles = doubles.iter();
            doubles.any(|item| label(&item.metadata, HASH_LABEL) == found)
        };
        for pod in pods.iter().filter(of_double) {
            let patch = json!({"metadata": {"labels": {HASH_LABEL: hash}}});
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let params = PatchParams::default();
            let written = api.patch(name, &params, &Patch::Merge(&patch)).await?;
            self.pods.note_written(written);
        }
        for double in &doubles {
            self.revision_control().delete(double).await?;
        }
        all.retain(|item| !is_double(item));
        Ok(())
    }

    async fn carry_out(
        &self,
        set: &DaemonSet,
        hash: &str,
        plan: Plan,
    ) -> Result<(), ReconcileError> {
        let recorder = &self.context.recorder;
        for (warning, reason, message) in plan.events {
            let kind = if warning {
                EventType::Warning
            } else {
                EventType::Normal
            };
            recorder.tell(set, kind, reason, message);
        }
        let control = PodControl {
            context: &self.context,
            view: &self.pods,
        };
        let pods: Vec<Pod> = plan
            .create
            .iter()
            .map(|node| new_pod(set, hash, node))
            .collect();
        let created = control.create_all(set, pods.iter()).await;
        let deletions = plan.delete.iter().map(|pod| control.delete(set, pod));
        let deleted: Result<Vec<()>, _> = join_all(deletions).await.into_iter().collect();
        created?;
        deleted?;
        Ok(())
    }

    async fn write_status(
        &self,
        set: &DaemonSet,
        status: DaemonSetStatus,
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
        set: &DaemonSet,
        old: &[Arc<ControllerRevision>],
        pods: &[Arc<Pod>],
    ) -> Result<(), ReconcileError> {
        let limit = set.spec.revision_history_limit.unwrap_or(10);
        let is_live = |revision: &ControllerRevision| {
            let hash = label(&revision.metadata, HASH_LABEL);
            pods.iter()
                .any(|pod| label(&pod.metadata, HASH_LABEL) == hash)
        };
        // Revisions in use count, and stay: as the reference has it for daemons.
        let excess = old
            .len()
            .saturating_sub(usize::try_from(limit).unwrap_or(0));
        for gone in old.iter().filter(|item| !is_live(item)).take(excess) {
            self.revision_control().delete(gone).await?;
        }
        Ok(())
    }
}

/// The pod of a node.
fn new_pod(set: &DaemonSet, hash: &str, node: &str) -> Pod {
    let template = &set.spec.template;
    let mut pod = pod_control::from_template(template, &set.metadata, claim::reference_to(set));
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), hash.to_owned());
    let annotations = set.metadata.annotations.as_ref();
    let generation = annotations
        .and_then(|all| all.get(TEMPLATE_GENERATION))
        .filter(|text| text.parse::<i64>().is_ok());
    if let Some(generation) = generation {
        labels.insert(GENERATION_LABEL.to_owned(), generation.clone());
    }
    let spec = pod.spec.get_or_insert_default();
    fit::add_tolerations(spec);
    fit::pin(spec, node);
    pod
}
