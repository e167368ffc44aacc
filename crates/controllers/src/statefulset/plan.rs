//! What a StatefulSet needs: pure.
//!
//! The order is the reference's (`updateStatefulSet`): first the pods the set is to have, lowest
//! ordinal first; then those it has too many, highest first; then those of an older revision,
//! highest first. An ordered set takes one step and waits until it has borne fruit; a parallel one
//! takes all at once.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};

use super::identity::{self, name, revision};
use super::{retention, rollout};
use crate::{history, pods};

/// One thing to do. They are done in order; one that fails ends the round.
#[derive(Debug, Clone)]
pub enum Action {
    /// Create the pod, and before it the claims that are missing.
    Create {
        /// The pod.
        pod: Box<Pod>,
        /// Its missing claims, owned as the policy wants it.
        claims: Vec<PersistentVolumeClaim>,
    },
    /// The pod can't be created, for this reason.
    Blocked {
        /// The pod.
        pod: Box<Pod>,
        /// Why not.
        why: String,
    },
    /// Create claims that a pod which is there waits for.
    CreateClaims {
        /// The pod.
        pod: Arc<Pod>,
        /// What it lacks.
        claims: Vec<PersistentVolumeClaim>,
    },
    /// Write a pod back with the identity and storage of its ordinal.
    Update {
        /// The pod as it is to be.
        pod: Box<Pod>,
        /// Claims to create before.
        claims: Vec<PersistentVolumeClaim>,
    },
    /// Write a claim's owners.
    Own {
        /// The claim as it is to be.
        claim: Box<PersistentVolumeClaim>,
        /// Somebody else controls it: told as a warning.
        contested: bool,
    },
    /// Delete the pod.
    Delete(Arc<Pod>),
}

/// Which revisions a set rolls between.
#[derive(Debug, Clone)]
pub struct Revisions {
    /// Where it comes from.
    pub current: Arc<ControllerRevision>,
    /// Where it goes.
    pub update: Arc<ControllerRevision>,
}

/// What there is.
pub struct World<'a> {
    /// The set.
    pub set: &'a StatefulSet,
    /// Its revisions.
    pub revisions: &'a Revisions,
    /// Its pods.
    pub pods: &'a [Arc<Pod>],
    /// Looks a claim of the namespace up.
    pub claim: &'a dyn Fn(&str) -> Option<Arc<PersistentVolumeClaim>>,
    /// Now.
    pub now: Timestamp,
}

impl std::fmt::Debug for World<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("set", &name(&self.set.metadata))
            .field("pods", &self.pods.len())
            .finish_non_exhaustive()
    }
}

/// A place of the set: the pod that is there, or the ordinal that is empty.
#[derive(Debug, Clone)]
pub(super) enum Replica {
    There(Arc<Pod>),
    Missing(i32),
}

/// Decides.
#[must_use]
pub fn plan(world: &World<'_>) -> Vec<Action> {
    let mut actions = Vec::new();
    if world.set.metadata.deletion_timestamp.is_some() {
        return actions;
    }
    let replicas = world.replicas();
    let condemned = world.condemned();
    let ordered = is_ordered(world.set);
    for replica in &replicas {
        if world.tend(replica, &mut actions) && ordered {
            return actions;
        }
    }
    for pod in &condemned {
        world.own_claims(pod, &mut actions);
    }
    let first_bad = world.first_unavailable(&replicas, &condemned);
    for pod in &condemned {
        if world.condemn(pod, first_bad.as_deref(), &mut actions) && ordered {
            return actions;
        }
    }
    rollout::roll(world, &replicas, &mut actions);
    actions
}

/// Pods come and go one after the other.
#[must_use]
pub fn is_ordered(set: &StatefulSet) -> bool {
    set.spec.pod_management_policy.as_deref() != Some("Parallel")
}

impl World<'_> {
    fn min_ready(&self) -> i32 {
        self.set.spec.min_ready_seconds.unwrap_or(0)
    }

    pub(super) fn is_available(&self, pod: &Pod) -> bool {
        pods::available_at(pod, self.min_ready()).is_some_and(|at| at <= self.now)
    }

    pub(super) fn is_unavailable(&self, pod: &Pod) -> bool {
        !self.is_available(pod) || pod.metadata.deletion_timestamp.is_some()
    }

    pub(super) fn is_bad(&self, replica: &Replica) -> bool {
        match replica {
            Replica::There(pod) => self.is_unavailable(pod),
            Replica::Missing(_) => true,
        }
    }

    /// One place for each ordinal, lowest first.
    fn replicas(&self) -> Vec<Replica> {
        let ordinals = self
            .pods
            .iter()
            .filter_map(|pod| Some((identity::ordinal(pod)?, pod)));
        let there: HashMap<i32, &Arc<Pod>> = ordinals.collect();
        let place = |ordinal| match there.get(&ordinal) {
            Some(pod) => Replica::There(Arc::clone(pod)),
            None => Replica::Missing(ordinal),
        };
        identity::range(self.set).map(place).collect()
    }

    /// Pods beyond the range, highest ordinal first.
    fn condemned(&self) -> Vec<Arc<Pod>> {
        let mut condemned: Vec<_> = self
            .pods
            .iter()
            .filter(|pod| identity::ordinal(pod).is_some() && !identity::in_range(self.set, pod))
            .cloned()
            .collect();
        condemned.sort_by_key(|pod| std::cmp::Reverse(identity::ordinal(pod)));
        condemned
    }

    /// Below the partition a pod that was lost comes back as it was.
    fn new_pod(&self, ordinal: i32) -> Pod {
        let set = self.set;
        let strategy = set.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|it| it.rolling_update.as_ref());
        let is_rolling = rollout::strategy(set) == "RollingUpdate";
        let kept = match rolling {
            Some(rolling) => rolling.partition.unwrap_or(0),
            None if is_rolling => set
                .status
                .as_ref()
                .and_then(|it| it.current_replicas)
                .unwrap_or(0),
            None => 0,
        };
        let old = ordinal < identity::start(set).saturating_add(kept);
        let revision = if old {
            &self.revisions.current
        } else {
            &self.revisions.update
        };
        let template = history::template_of(revision);
        let template = template.as_ref().unwrap_or(&set.spec.template);
        identity::new_pod(set, template, history::name(revision), ordinal)
    }

    /// The uid of the first pod that serves nobody: the only unhealthy one that an ordered set
    /// may end when it shrinks. Empty where the first such place has no pod.
    fn first_unavailable(&self, replicas: &[Replica], condemned: &[Arc<Pod>]) -> Option<String> {
        let condemned = condemned.iter().rev().cloned().map(Replica::There);
        let mut all = replicas.iter().cloned().chain(condemned);
        match all.find(|replica| self.is_bad(replica))? {
            Replica::There(pod) => pod.metadata.uid.clone(),
            Replica::Missing(_) => Some(String::new()),
        }
    }

    /// Brings one place in order. True: an ordered set must wait here.
    fn tend(&self, replica: &Replica, actions: &mut Vec<Action>) -> bool {
        let pod = match replica {
            Replica::Missing(ordinal) => {
                let pod = self.new_pod(*ordinal);
                if !self.is_held_up(&pod) {
                    actions.push(self.create(pod));
                }
                return true;
            }
            Replica::There(pod) => pod,
        };
        let going = pod.metadata.deletion_timestamp.is_some();
        if pods::is_terminal(pod) {
            // However it ended: what follows takes its place when it is gone.
            if !going {
                actions.push(Action::Delete(Arc::clone(pod)));
            }
            return true;
        }
        if pods::phase(pod) == "Pending" && !going {
            match self.missing_claims(pod) {
                Ok(claims) if claims.is_empty() => {}
                Ok(claims) => actions.push(Action::CreateClaims {
                    pod: Arc::clone(pod),
                    claims,
                }),
                Err(why) => {
                    let pod = Box::new(pod.as_ref().clone());
                    actions.push(Action::Blocked { pod, why });
                    return true;
                }
            }
        }
        if is_ordered(self.set)
            && (going || pods::phase(pod) != "Running" || !self.is_available(pod))
        {
            return true;
        }
        if !going {
            self.mend(pod, actions);
        }
        false
    }

    /// Writes identity, storage and ownership where they are not as they should be.
    fn mend(&self, pod: &Arc<Pod>, actions: &mut Vec<Action>) {
        let right = identity::identity_matches(self.set, pod);
        if !right || !identity::storage_matches(self.set, pod) {
            let mut wanted = pod.as_ref().clone();
            if let Some(ordinal) = identity::ordinal(pod) {
                identity::set_identity(&mut wanted, ordinal);
                if !identity::storage_matches(self.set, pod) {
                    identity::set_storage(self.set, &mut wanted, ordinal);
                }
            }
            actions.push(match self.missing_claims(&wanted) {
                Ok(claims) => Action::Update {
                    pod: Box::new(wanted),
                    claims,
                },
                Err(why) => Action::Blocked {
                    pod: Box::new(wanted),
                    why,
                },
            });
        }
        self.own_claims(pod, actions);
    }

    fn own_claims(&self, pod: &Pod, actions: &mut Vec<Action>) {
        for claim in self.present_claims(pod) {
            if let Some(owners) = retention::wanted_owners(self.set, &claim, pod) {
                let contested = retention::is_contested(self.set, &claim, pod);
                let mut claim = claim.as_ref().clone();
                claim.metadata.owner_references = Some(owners);
                let claim = Box::new(claim);
                actions.push(Action::Own { claim, contested });
            }
        }
    }

    fn present_claims(&self, pod: &Pod) -> Vec<Arc<PersistentVolumeClaim>> {
        let ordinal = identity::ordinal(pod).unwrap_or(0);
        let claims = identity::claims(self.set, ordinal);
        let look_up =
            |(_, claim): &(String, PersistentVolumeClaim)| (self.claim)(name(&claim.metadata));
        claims.iter().filter_map(look_up).collect()
    }

    /// Claims of a former pod of this name are about to go.
    fn is_held_up(&self, pod: &Pod) -> bool {
        let claims = self.present_claims(pod);
        claims
            .iter()
            .any(|claim| retention::is_stale(self.set, claim, pod))
    }

    fn create(&self, pod: Pod) -> Action {
        let pod = Box::new(pod);
        match self.missing_claims(&pod) {
            Ok(claims) => Action::Create { pod, claims },
            Err(why) => Action::Blocked { pod, why },
        }
    }

    fn missing_claims(&self, pod: &Pod) -> Result<Vec<PersistentVolumeClaim>, String> {
        let ordinal = identity::ordinal(pod).unwrap_or(0);
        let mut missing = Vec::new();
        for (_, mut claim) in identity::claims(self.set, ordinal) {
            match (self.claim)(name(&claim.metadata)) {
                Some(found) if found.metadata.deletion_timestamp.is_some() => {
                    return Err(format!("pvc {} is being deleted", name(&claim.metadata)));
                }
                Some(_) => {}
                None => {
                    let owners = retention::wanted_owners(self.set, &claim, pod);
                    claim.metadata.owner_references = owners.or(claim.metadata.owner_references);
                    missing.push(claim);
                }
            }
        }
        Ok(missing)
    }

    /// Ends one pod too many. True: an ordered set must wait here.
    fn condemn(&self, pod: &Arc<Pod>, first_bad: Option<&str>, actions: &mut Vec<Action>) -> bool {
        let ordered = is_ordered(self.set);
        if pod.metadata.deletion_timestamp.is_some() {
            return true;
        }
        let healthy = pods::phase(pod) == "Running" && self.is_available(pod);
        if ordered && !healthy && first_bad != pod.metadata.uid.as_deref() {
            return true;
        }
        actions.push(Action::Delete(Arc::clone(pod)));
        true
    }
}

/// The revision a pod is of is the one the set goes to.
pub(super) fn is_updated(world: &World<'_>, pod: &Pod) -> bool {
    revision(pod) == history::name(&world.revisions.update)
}
