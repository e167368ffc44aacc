//! The scheduler's whole state and how changes move it. No I/O: what is to be done comes out as
//! [`Action`]s.

use std::collections::HashMap;
use std::sync::Arc;

use evenkeel_api::selector::LabelSelector;
use evenkeel_client::Change;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use tokio::time::Instant;

use crate::cycle::{Decision, Turn, schedule_one};
use crate::framework::{ClusterEvent, CycleState, Permission, PluginSet, Profile};
use crate::pod::{PodInfo, is_terminal, node_name};
use crate::queue::{Missed, Queue, QueueDepth};
use crate::snapshot::Snapshot;

/// What a cycle leads to.
#[derive(Debug)]
pub enum Action {
    /// Write the binding; the pod is counted on the node already.
    Bind {
        /// The pod.
        pod: Arc<PodInfo>,
        /// The node.
        node: Arc<str>,
        /// What a `Permit` plugin asked to wait for at most.
        wait: Option<std::time::Duration>,
        /// What the plugins remember, for `unreserve`.
        state: CycleState,
        /// How it came about.
        decision: Decision,
    },
    /// Tell that no node takes the pod.
    Tell {
        /// The pod.
        pod: Arc<PodInfo>,
        /// Why.
        decision: Decision,
        /// The text for event and condition.
        message: String,
    },
}

/// The state.
#[derive(Debug)]
pub struct Core {
    profile: Arc<Profile>,
    snapshot: Snapshot,
    queue: Queue,
    turn: Turn,
    /// Pods counted on a node before the door has said so.
    assumed: HashMap<Arc<str>, Arc<str>>,
}

/// Did anything change about an unbound pod that scheduling looks at?
fn worth_a_try(old: &Pod, new: &Pod) -> bool {
    old.spec != new.spec
        || old.metadata.labels != new.metadata.labels
        || old.metadata.annotations != new.metadata.annotations
}

impl Core {
    /// Nothing known yet. Ties between nodes fall by `seed`.
    #[must_use]
    pub fn new(profile: Profile, seed: u64) -> Self {
        Self {
            profile: Arc::new(profile),
            snapshot: Snapshot::default(),
            queue: Queue::default(),
            turn: Turn::new(seed),
            assumed: HashMap::new(),
        }
    }

    /// The plugins.
    #[must_use]
    pub fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    /// The cluster as the next cycle sees it.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// How many pods wait where.
    #[must_use]
    pub fn depth(&self) -> QueueDepth {
        self.queue.depth()
    }

    /// Takes in a node's change.
    pub fn node(&mut self, change: &Change<Node>, now: Instant) {
        let Some(node) = &change.new else {
            self.snapshot.remove_node(&change.key.name);
            return;
        };
        let delta = self.snapshot.set_node(node);
        if !delta.any() {
            return;
        }
        if let Some(at) = self.snapshot.find(&change.key.name) {
            let node = self.snapshot.node(at);
            let event = ClusterEvent::Node { node, delta };
            self.queue.event(&self.profile, &event, now);
        }
    }

    /// Takes in a namespace's change.
    pub fn namespace(&mut self, change: &Change<Namespace>, now: Instant) {
        let name = &change.key.name;
        let labels = change
            .new
            .as_ref()
            .map(|namespace| namespace.metadata.labels.clone().unwrap_or_default());
        let before = match &labels {
            Some(labels) => self
                .snapshot
                .namespaces
                .insert(name.clone(), labels.clone()),
            None => self.snapshot.namespaces.remove(name),
        };
        if labels.is_some() && before != labels {
            self.queue
                .event(&self.profile, &ClusterEvent::Namespace, now);
        }
    }

    /// Takes in a service's change; it moves no pod, only preferences.
    pub fn service(&mut self, change: &Change<Service>) {
        let key = change.key.clone();
        let selector = change
            .new
            .as_ref()
            .and_then(|service| service.spec.as_ref()?.selector.clone());
        match selector.filter(|selector| !selector.is_empty()) {
            Some(selector) => self.snapshot.services.insert(key, selector),
            None => self.snapshot.services.remove(&key),
        };
    }

    /// Takes in a ReplicaSet's change, likewise.
    pub fn replica_set(&mut self, change: &Change<ReplicaSet>) {
        let key = change.key.clone();
        let spec = change.new.as_ref().map(|set| &set.spec);
        match spec.and_then(|spec| LabelSelector::from_spec(Some(&spec.selector)).ok()) {
            Some(selector) => self.snapshot.replica_sets.insert(key, selector),
            None => self.snapshot.replica_sets.remove(&key),
        };
    }

    /// Takes in a pod's change.
    pub fn pod(&mut self, change: &Change<Pod>, now: Instant) {
        let uid = |pod: &Arc<Pod>| pod.metadata.uid.clone().unwrap_or_default();
        if let Some(old) = &change.old {
            let replaced = change.new.as_ref().is_none_or(|new| uid(new) != uid(old));
            if replaced {
                self.gone(&uid(old), now);
            }
        }
        let Some(new) = &change.new else {
            return;
        };
        let id = uid(new);
        if is_terminal(new) {
            self.gone(&id, now);
        } else if let Some(node) = node_name(new) {
            self.on_node(new, node, now);
        } else if new
            .spec
            .as_ref()
            .and_then(|spec| spec.scheduler_name.as_deref())
            .unwrap_or("default-scheduler")
            == self.profile.scheduler_name
        {
            self.waiting(new, now);
        }
    }

    fn gone(&mut self, uid: &str, now: Instant) {
        self.queue.remove(uid);
        self.assumed.remove(uid);
        if let Some(pod) = self.snapshot.remove_pod(uid) {
            self.queue
                .event(&self.profile, &ClusterEvent::PodGone(&pod), now);
        }
    }

    fn on_node(&mut self, pod: &Arc<Pod>, node: &str, now: Instant) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.queue.remove(uid);
        let was_assumed = self.assumed.remove(uid).is_some();
        let before = self
            .snapshot
            .assigned(uid)
            .map(|(at, info)| (Arc::clone(&at.name), Arc::clone(info)));
        let info = Arc::new(PodInfo::new(Arc::clone(pod)));
        self.snapshot.add_pod(Arc::clone(&info), node);
        let Some((_, before)) = before.filter(|(at, _)| !was_assumed && **at == *node) else {
            self.queue
                .event(&self.profile, &ClusterEvent::PodAssigned(&info), now);
            return;
        };
        if before.class.labels != info.class.labels {
            self.queue
                .event(&self.profile, &ClusterEvent::PodLabels(&info), now);
        }
        let (was, is) = (&before.requests.exact, &info.requests.exact);
        let mut most = is.clone();
        most.raise(was);
        if most != *is {
            self.queue
                .event(&self.profile, &ClusterEvent::PodShrunk(&info), now);
        }
    }

    fn waiting(&mut self, pod: &Arc<Pod>, now: Instant) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if self.assumed.contains_key(uid) {
            // Its binding is under way; what it is now is read again if that fails.
            return;
        }
        if pod.metadata.deletion_timestamp.is_some() {
            self.queue.remove(uid);
            return;
        }
        let changed = self
            .queue
            .get(uid)
            .is_some_and(|known| worth_a_try(&known.pod, pod));
        let info = Arc::new(PodInfo::new(Arc::clone(pod)));
        self.queue.put(&self.profile, info, changed, now);
    }

    /// Moves on the pods whose back-off has passed.
    pub fn tick(&mut self, now: Instant) {
        self.queue.tick(&self.profile, now);
    }

    /// When [`Core::tick`] has something to do next.
    #[must_use]
    pub fn next_tick(&self) -> Option<Instant> {
        self.queue.next_tick()
    }

    /// One cycle: the next pod, if one waits.
    pub fn cycle(&mut self, now: Instant) -> Option<Action> {
        let pod = self.queue.pop()?;
        let (mut decision, mut state) =
            schedule_one(&self.profile, &self.snapshot, &pod, &mut self.turn);
        let Some(node) = decision.node.clone() else {
            let message = decision.message();
            self.queue.missed(
                &self.profile,
                &pod.uid,
                Missed::Rejected(decision.rejected_by),
                now,
            );
            return Some(Action::Tell {
                pod,
                decision,
                message,
            });
        };
        match self.admit(&pod, &node, &mut state) {
            Ok(wait) => {
                self.assumed.insert(Arc::clone(&pod.uid), Arc::clone(&node));
                self.snapshot.add_pod(Arc::clone(&pod), &node);
                Some(Action::Bind {
                    pod,
                    node,
                    wait,
                    state,
                    decision,
                })
            }
            Err((by, message)) => {
                decision.node = None;
                decision.rejected_by = by;
                let why = Missed::Rejected(by);
                self.queue.missed(&self.profile, &pod.uid, why, now);
                Some(Action::Tell {
                    pod,
                    decision,
                    message,
                })
            }
        }
    }

    /// Reserve and Permit.
    fn admit(
        &self,
        pod: &PodInfo,
        node: &str,
        state: &mut CycleState,
    ) -> Result<Option<std::time::Duration>, (PluginSet, String)> {
        let mut by = PluginSet::default();
        for (at, plugin) in &self.profile.reserve {
            if let Err(why) = plugin.reserve(state, pod, node) {
                self.unreserve(pod, node, state);
                by.insert(*at);
                return Err((by, why.reasons.join(", ")));
            }
        }
        let mut wait: Option<std::time::Duration> = None;
        for (at, plugin) in &self.profile.permit {
            match plugin.permit(state, pod, node) {
                Permission::Allow => {}
                Permission::Wait(time) => {
                    wait = Some(wait.map_or(time, |other| other.min(time)));
                }
                Permission::Reject(why) => {
                    self.unreserve(pod, node, state);
                    by.insert(*at);
                    return Err((by, why.reasons.join(", ")));
                }
            }
        }
        Ok(wait)
    }

    fn unreserve(&self, pod: &PodInfo, node: &str, state: &mut CycleState) {
        for (_, plugin) in self.profile.reserve.iter().rev() {
            plugin.unreserve(state, pod, node);
        }
    }

    /// The binding was not written: the pod is no longer counted and is tried again.
    /// `latest` is the pod as the view has it now, `None` when it is gone.
    pub fn not_bound(
        &mut self,
        pod: &Arc<PodInfo>,
        node: &str,
        mut state: CycleState,
        latest: Option<&Arc<Pod>>,
        now: Instant,
    ) {
        self.unreserve(pod, node, &mut state);
        if self.assumed.remove(&pod.uid).is_none() {
            // Meanwhile the watch has said where it is, or that it is gone.
            return;
        }
        self.snapshot.remove_pod(&pod.uid);
        self.queue
            .event(&self.profile, &ClusterEvent::PodGone(pod), now);
        match latest {
            Some(latest) if latest.metadata.uid.as_deref() == Some(&*pod.uid) => {
                self.queue
                    .missed(&self.profile, &pod.uid, Missed::Failed, now);
                match node_name(latest) {
                    Some(node) => self.on_node(latest, node, now),
                    None => self.waiting(latest, now),
                }
            }
            _ => self.queue.remove(&pod.uid),
        }
    }
}
