//! The scheduler's whole state and how changes move it. No I/O: what is to be done comes out as
//! [`Action`]s.

mod group;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use evenkeel_api::devices::claims::made_for;
use evenkeel_api::selector::LabelSelector;
use evenkeel_client::{Change, ObjectKey};
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{
    Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, PodResourceClaimStatus,
    ReplicationController, Service,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::resource::v1::{DeviceClass, DeviceTaintRule, ResourceClaim, ResourceSlice};
use k8s_openapi::api::scheduling::v1beta1::PodGroup;
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass};
use tokio::time::Instant;

use crate::cycle::{Begun, Decision, Turn, begin, finish};
use crate::descheduling::plan::{Aims, Planned, is_marked, plan};
use crate::extenders::{Candidates, Extenders, Outside};
use crate::framework::{ClusterEvent, CycleState, Permission, PluginSet, Preemption};
use crate::groups::group_of;
use crate::plugins::preemption::cost;
use crate::pod::{PodInfo, is_terminal, node_name, scheduler_name};
use crate::profile::{Profile, Profiles};
use crate::queue::{Missed, Queue, QueueDepth};
use crate::snapshot::{Budget, Snapshot};

use group::GroupCycle;
pub use group::GroupOutcome;

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
    /// Ask the extenders, and go on with [`Core::answered`] before anything else.
    Ask(Question),
    /// Tell how the cycle of a group of pods ended.
    Group {
        /// The group.
        group: Arc<PodGroup>,
        /// How it ended.
        outcome: GroupOutcome,
    },
    /// Tell that the cycle itself failed; the pod is tried again.
    Failed {
        /// The pod.
        pod: Arc<PodInfo>,
        /// Why.
        message: String,
    },
    /// Tell that no node takes the pod.
    Tell {
        /// The pod.
        pod: Arc<PodInfo>,
        /// Why.
        decision: Decision,
        /// The text for event and condition.
        message: String,
        /// What becomes of the node that is set aside for it.
        nomination: Nomination,
        /// Who has to go for it; [`Core::evicted`] is told when that has been asked for.
        eviction: Option<Eviction>,
    },
}

/// What extenders are asked about a pod.
#[derive(Debug)]
pub struct Question {
    /// Who.
    pub extenders: Extenders,
    /// The pod.
    pub pod: Arc<Pod>,
    /// What about it.
    pub about: About,
}

/// What they are asked about it.
#[derive(Debug)]
pub enum About {
    /// Which of the nodes that can take it are allowed, and how good they are.
    Nodes(Vec<Arc<Node>>),
    /// Whose place it may take.
    Preemption(Candidates),
}

/// What they said; or why one that has to be asked gave no answer.
#[derive(Debug)]
pub enum Answer {
    /// Of nodes.
    Nodes(Result<Outside, String>),
    /// Of preemption: what is left.
    Preemption(Result<Vec<Preemption>, String>),
}

impl Question {
    /// Asks.
    pub async fn ask(&self) -> Answer {
        match &self.about {
            About::Nodes(nodes) => Answer::Nodes(self.extenders.ask(&self.pod, nodes).await),
            About::Preemption(candidates) => {
                Answer::Preemption(self.extenders.preempt(&self.pod, candidates).await)
            }
        }
    }
}

/// What becomes of `status.nominatedNodeName`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nomination {
    /// It stays as it is.
    Keep,
    /// It is taken back.
    Clear,
    /// This node is set aside.
    Set(Arc<str>),
}

/// Who has to go for a pod.
#[derive(Debug)]
pub struct Eviction {
    /// From which node.
    pub node: Arc<str>,
    /// Pods to be deleted.
    pub victims: Vec<Arc<PodInfo>>,
    /// Less important pods for which the node was set aside.
    pub displaced: Vec<Arc<PodInfo>>,
}

/// The state.
#[derive(Debug)]
pub struct Core {
    profiles: Profiles,
    snapshot: Snapshot,
    queue: Queue,
    turn: Turn,
    /// The cycle that waits for extenders.
    asking: Option<Asking>,
    /// What the cycle of a group has led to, and is still to be carried out.
    outbox: VecDeque<Action>,
    /// The groups whose victims are being asked to go, by the pod that stands for them.
    evicting: HashMap<Arc<str>, ObjectKey>,
    /// Pods counted on a node before the door has said so.
    assumed: HashMap<Arc<str>, Arc<str>>,
}

/// A cycle that waits for extenders.
#[derive(Debug)]
enum Asking {
    /// Plugins have filtered.
    Nodes {
        pod: Arc<PodInfo>,
        begun: Begun,
        /// The pod is one of a group.
        group: Option<GroupCycle>,
    },
    /// No node takes the pod, and there are others whose place it could take.
    Preemption {
        pod: Arc<PodInfo>,
        decision: Decision,
    },
}

/// Did anything change about an unbound pod that scheduling looks at?
fn worth_a_try(old: &Pod, new: &Pod) -> bool {
    old.spec != new.spec
        || old.metadata.labels != new.metadata.labels
        || old.metadata.annotations != new.metadata.annotations
        || claim_statuses(old) != claim_statuses(new)
}

fn claim_statuses(pod: &Pod) -> Option<&Vec<PodResourceClaimStatus>> {
    pod.status.as_ref()?.resource_claim_statuses.as_ref()
}

impl Core {
    /// Nothing known yet. Ties between nodes fall by `seed`.
    #[must_use]
    pub fn new(profiles: impl Into<Profiles>, seed: u64) -> Self {
        Self {
            profiles: profiles.into(),
            snapshot: Snapshot::default(),
            queue: Queue::default(),
            turn: Turn::new(seed),
            asking: None,
            outbox: VecDeque::new(),
            evicting: HashMap::new(),
            assumed: HashMap::new(),
        }
    }

    /// The plugins.
    #[must_use]
    pub fn profiles(&self) -> &Profiles {
        &self.profiles
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
            self.queue.event(&self.profiles, &event, now);
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
                .event(&self.profiles, &ClusterEvent::Namespace, now);
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

    /// Takes in a change of what controls pods, likewise.
    fn controller(&mut self, kind: &'static str, key: &ObjectKey, selector: Option<LabelSelector>) {
        let key = (kind, key.clone());
        match selector {
            Some(selector) => self.snapshot.controllers.insert(key, selector),
            None => self.snapshot.controllers.remove(&key),
        };
    }

    /// Takes in a ReplicaSet's change.
    pub fn replica_set(&mut self, change: &Change<ReplicaSet>) {
        let spec = change.new.as_ref().map(|set| &set.spec);
        let selector = spec.and_then(|spec| LabelSelector::from_spec(Some(&spec.selector)).ok());
        self.controller("ReplicaSet", &change.key, selector);
    }

    /// Takes in a StatefulSet's change.
    pub fn stateful_set(&mut self, change: &Change<StatefulSet>) {
        let spec = change.new.as_ref().map(|set| &set.spec);
        let selector = spec.and_then(|spec| LabelSelector::from_spec(Some(&spec.selector)).ok());
        self.controller("StatefulSet", &change.key, selector);
    }

    /// Takes in a ReplicationController's change.
    pub fn replication_controller(&mut self, change: &Change<ReplicationController>) {
        let spec = change.new.as_ref().and_then(|set| set.spec.as_ref());
        let selector = spec.and_then(|spec| spec.selector.as_ref());
        let selector = selector.map(LabelSelector::from_labels);
        self.controller("ReplicationController", &change.key, selector);
    }

    /// Takes in what a node says of its drivers.
    pub fn csi_node(&mut self, change: &Change<CSINode>, now: Instant) {
        let limits = |node: &CSINode| -> BTreeMap<String, i64> {
            let drivers = node.spec.drivers.iter();
            let told = drivers.filter_map(|driver| {
                let count = driver.allocatable.as_ref()?.count?;
                Some((driver.name.clone(), i64::from(count)))
            });
            told.collect()
        };
        let nodes = &mut self.snapshot.storage.csi_nodes;
        match change.new.as_deref().map(limits) {
            Some(limits) if !limits.is_empty() => nodes.insert(change.key.name.clone(), limits),
            _ => nodes.remove(&change.key.name),
        };
        self.queue
            .event(&self.profiles, &ClusterEvent::CsiNode, now);
    }

    /// Takes in a driver's change.
    pub fn csi_driver(&mut self, change: &Change<CSIDriver>, now: Instant) {
        let counts = |driver: &CSIDriver| driver.spec.storage_capacity == Some(true);
        let counted = &mut self.snapshot.storage.counted;
        if change.new.as_deref().is_some_and(counts) {
            counted.insert(change.key.name.clone());
        } else {
            counted.remove(&change.key.name);
        }
        self.queue
            .event(&self.profiles, &ClusterEvent::StorageCapacity, now);
    }

    /// Takes in how much room a driver has.
    pub fn capacity(&mut self, change: &Change<CSIStorageCapacity>, now: Instant) {
        let capacities = &mut self.snapshot.storage.capacities;
        match &change.new {
            Some(capacity) => capacities.insert(change.key.clone(), Arc::clone(capacity)),
            None => capacities.remove(&change.key),
        };
        self.queue
            .event(&self.profiles, &ClusterEvent::StorageCapacity, now);
    }

    /// Takes in a disruption budget's change; it moves no pod, only who is evicted.
    pub fn budget(&mut self, change: &Change<PodDisruptionBudget>) {
        let key = change.key.clone();
        let read = |budget: &PodDisruptionBudget| {
            let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            let status = budget.status.as_ref();
            let disrupted = status.and_then(|status| status.disrupted_pods.as_ref());
            // A selector that cannot be read matches nothing.
            Some(Budget {
                selector: LabelSelector::from_spec(selector).ok()?,
                allowed: status
                    .and_then(|status| status.disruptions_allowed)
                    .unwrap_or(0),
                disrupted: disrupted
                    .into_iter()
                    .flat_map(|pods| pods.keys().cloned())
                    .collect(),
            })
        };
        match change.new.as_deref().and_then(read) {
            Some(budget) => self.snapshot.budgets.insert(key, budget),
            None => self.snapshot.budgets.remove(&key),
        };
    }

    /// Takes in a claim's change.
    pub fn claim(&mut self, change: &Change<PersistentVolumeClaim>, now: Instant) {
        let key = &change.key;
        match &change.new {
            Some(claim) => {
                let claims = &mut self.snapshot.storage.claims;
                claims.insert(key.clone(), Arc::clone(claim));
                self.queue
                    .event(&self.profiles, &ClusterEvent::Claim(key), now);
            }
            None => drop(self.snapshot.storage.claims.remove(key)),
        }
    }

    /// Takes in a volume's change.
    pub fn volume(&mut self, change: &Change<PersistentVolume>, now: Instant) {
        let volumes = &mut self.snapshot.storage.volumes;
        match &change.new {
            Some(volume) => volumes.insert(change.key.name.clone(), Arc::clone(volume)),
            None => volumes.remove(&change.key.name),
        };
        self.queue.event(&self.profiles, &ClusterEvent::Volume, now);
    }

    /// Takes in a storage class's change.
    pub fn storage_class(&mut self, change: &Change<StorageClass>, now: Instant) {
        let classes = &mut self.snapshot.storage.classes;
        match &change.new {
            Some(class) => classes.insert(change.key.name.clone(), Arc::clone(class)),
            None => classes.remove(&change.key.name),
        };
        self.queue
            .event(&self.profiles, &ClusterEvent::StorageClass, now);
    }

    /// Takes in a device claim's change.
    pub fn resource_claim(&mut self, change: &Change<ResourceClaim>, now: Instant) {
        let key = &change.key;
        let devices = Arc::make_mut(&mut self.snapshot.devices);
        let freed = devices.set_claim(key, change.new.as_ref());
        // The pod that it was made for may have waited for it before the queue.
        let owner = change.new.as_deref().and_then(made_for);
        if let Some(pod) = owner.and_then(|(_, uid)| self.queue.get(uid)).cloned()
            && !self.assumed.contains_key(&pod.uid)
        {
            self.queue
                .put(&self.profiles, &self.snapshot, pod, false, now);
        }
        let event = ClusterEvent::ResourceClaim { key, freed };
        self.queue.event(&self.profiles, &event, now);
    }

    /// Takes in a change of a driver's devices.
    pub fn resource_slice(&mut self, change: &Change<ResourceSlice>, now: Instant) {
        let devices = Arc::make_mut(&mut self.snapshot.devices);
        devices.set_slice(&change.key.name, change.new.as_ref());
        self.queue
            .event(&self.profiles, &ClusterEvent::Devices, now);
    }

    /// Takes in a change of a rule that taints devices.
    pub fn device_taint_rule(&mut self, change: &Change<DeviceTaintRule>, now: Instant) {
        let devices = Arc::make_mut(&mut self.snapshot.devices);
        match &change.new {
            Some(rule) => devices
                .rules
                .insert(change.key.name.clone(), Arc::clone(rule)),
            None => devices.rules.remove(&change.key.name),
        };
        self.queue
            .event(&self.profiles, &ClusterEvent::Devices, now);
    }

    /// Takes in a device class's change.
    pub fn device_class(&mut self, change: &Change<DeviceClass>, now: Instant) {
        let devices = Arc::make_mut(&mut self.snapshot.devices);
        match &change.new {
            Some(class) => devices
                .classes
                .insert(change.key.name.clone(), Arc::clone(class)),
            None => devices.classes.remove(&change.key.name),
        };
        self.queue
            .event(&self.profiles, &ClusterEvent::Devices, now);
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
        } else if self.profiles.named(scheduler_name(new)).is_some() {
            self.waiting(new, now);
        }
    }

    /// The pod does not wait for a node any more.
    fn forget(&mut self, uid: &str) {
        if let Some(pod) = self.queue.get(uid).cloned() {
            self.snapshot.groups.waits_no_more(&pod);
        }
        self.queue.remove(uid);
    }

    fn gone(&mut self, uid: &str, now: Instant) {
        self.forget(uid);
        self.assumed.remove(uid);
        self.snapshot.unnominate(uid);
        if let Some(pod) = self.snapshot.remove_pod(uid) {
            self.queue
                .event(&self.profiles, &ClusterEvent::PodGone(&pod), now);
        }
    }

    fn on_node(&mut self, pod: &Arc<Pod>, node: &str, now: Instant) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let group = group_of(pod);
        let count = group.map_or(0, |group| self.snapshot.groups.count(&group));
        self.forget(uid);
        self.snapshot.unnominate(uid);
        let was_assumed = self.assumed.remove(uid).is_some();
        let before = self
            .snapshot
            .assigned(uid)
            .map(|(at, info)| (Arc::clone(&at.name), Arc::clone(info)));
        let info = Arc::new(PodInfo::new(Arc::clone(pod)));
        self.snapshot.add_pod(Arc::clone(&info), node);
        self.joined(&info, count, now);
        let Some((_, before)) = before.filter(|(at, _)| !was_assumed && **at == *node) else {
            self.queue
                .event(&self.profiles, &ClusterEvent::PodAssigned(&info), now);
            return;
        };
        if before.class.labels != info.class.labels {
            self.queue
                .event(&self.profiles, &ClusterEvent::PodLabels(&info), now);
        }
        let (was, is) = (&before.requests.exact, &info.requests.exact);
        let mut most = is.clone();
        most.raise(was);
        if most != *is {
            self.queue
                .event(&self.profiles, &ClusterEvent::PodShrunk(&info), now);
        }
    }

    fn waiting(&mut self, pod: &Arc<Pod>, now: Instant) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if self.assumed.contains_key(uid) {
            // Its binding is under way; what it is now is read again if that fails.
            return;
        }
        if pod.metadata.deletion_timestamp.is_some() {
            self.forget(uid);
            self.snapshot.unnominate(uid);
            return;
        }
        let known = self.queue.get(uid).cloned();
        let changed = known
            .as_ref()
            .is_some_and(|known| worth_a_try(&known.pod, pod));
        let info = Arc::new(PodInfo::new(Arc::clone(pod)));
        let was = known.as_ref().and_then(|known| known.nominated_node());
        match (info.nominated_node(), was) {
            (Some(node), _) => self.snapshot.nominate(Arc::clone(&info), node),
            (None, Some(_)) => drop(self.snapshot.unnominate(uid)),
            // Ours, and not yet in the status; it goes on with the pod as it is now.
            (None, None) => {
                if let Some(node) = self.snapshot.nomination(uid).cloned() {
                    self.snapshot.nominate(Arc::clone(&info), &node);
                }
            }
        }
        let group = info.group.as_ref();
        let count = group.map_or(0, |group| self.snapshot.groups.count(group));
        self.snapshot.groups.waits(&info);
        self.queue.put(
            &self.profiles,
            &self.snapshot,
            Arc::clone(&info),
            changed,
            now,
        );
        self.joined(&info, count, now);
    }

    /// Which node can be emptied, for the descheduling loop. Changes nothing.
    pub fn consolidate(&mut self, aims: Aims) -> Planned {
        let Some(profile) = self.profiles.iter().next().map(Arc::clone) else {
            return Planned::default();
        };
        plan(&mut self.snapshot, &profile, aims)
    }

    /// Does a pod still end on a node that is being emptied?
    #[must_use]
    pub fn is_emptying(&self) -> bool {
        let nodes = self
            .snapshot
            .order()
            .iter()
            .map(|at| self.snapshot.node(*at));
        let mut marked = nodes.filter(|node| node.node.as_deref().is_some_and(is_marked));
        marked.any(|node| {
            let mut pods = node.pods.iter();
            pods.any(|pod| pod.pod.metadata.deletion_timestamp.is_some())
        })
    }

    /// Moves on the pods whose back-off has passed.
    pub fn tick(&mut self, now: Instant) {
        self.queue.tick(&self.profiles, now);
    }

    /// When [`Core::tick`] has something to do next.
    #[must_use]
    pub fn next_tick(&self) -> Option<Instant> {
        self.queue.next_tick()
    }

    /// One cycle: the next pod, if one waits, or the next of a group that has been decided.
    pub fn cycle(&mut self, now: Instant) -> Option<Action> {
        if let Some(action) = self.outbox.pop_front() {
            return Some(action);
        }
        let pod = self.queue.pop()?;
        let Some(profile) = self.profiles.of(&pod).map(Arc::clone) else {
            // Its scheduler's name cannot change, and only known ones are put in the queue.
            self.queue.remove(&pod.uid);
            return None;
        };
        if let Some(key) = pod.group.clone()
            && self.snapshot.groups.is_served()
        {
            return self.group_cycle(key, pod, profile, now);
        }
        let begun = begin(&profile, &self.snapshot, &pod, &mut self.turn);
        if !self.turn.feasible().is_empty() && profile.extenders.are_interested(&pod.pod) {
            let question = self.question(&pod, &profile);
            let group = None;
            self.asking = Some(Asking::Nodes { pod, begun, group });
            return Some(Action::Ask(question));
        }
        self.conclude(pod, &profile, begun, &Outside::default(), now)
    }

    /// Goes on with the cycle that asked the extenders. It may ask again.
    pub fn answered(&mut self, answer: Answer, now: Instant) -> Option<Action> {
        match (self.asking.take()?, answer) {
            (Asking::Nodes { pod, begun, group }, Answer::Nodes(answer)) => match group {
                Some(cycle) => self.group_answered(cycle, pod, begun, answer, now),
                None => self.placed(pod, begun, answer, now),
            },
            (Asking::Preemption { pod, decision }, Answer::Preemption(left)) => {
                Some(self.preempting(pod, decision, left, now))
            }
            (Asking::Nodes { .. }, Answer::Preemption(_))
            | (Asking::Preemption { .. }, Answer::Nodes(_)) => None,
        }
    }

    fn placed(
        &mut self,
        pod: Arc<PodInfo>,
        begun: Begun,
        answer: Result<Outside, String>,
        now: Instant,
    ) -> Option<Action> {
        let profile = self.profiles.of(&pod).map(Arc::clone)?;
        match answer {
            Ok(outside) => self.conclude(pod, &profile, begun, &outside, now),
            Err(message) => {
                self.queue
                    .missed(&self.profiles, &pod.uid, Missed::Failed, now);
                Some(Action::Failed { pod, message })
            }
        }
    }

    /// Asks the extenders whose place the pod may take.
    fn ask_of_victims(
        &mut self,
        pod: Arc<PodInfo>,
        profile: &Profile,
        mut decision: Decision,
    ) -> Action {
        let nodes = self.snapshot.order().iter();
        let on_nodes = nodes.map(|at| {
            let node = self.snapshot.node(*at);
            (Arc::clone(&node.name), node.pods.clone())
        });
        let candidates = Candidates {
            found: std::mem::take(&mut decision.candidates),
            on_nodes: on_nodes.collect(),
        };
        let question = Question {
            extenders: profile.extenders.clone(),
            pod: Arc::clone(&pod.pod),
            about: About::Preemption(candidates),
        };
        self.asking = Some(Asking::Preemption { pod, decision });
        Action::Ask(question)
    }

    /// Goes on with what extenders have left of the ways to make room.
    fn preempting(
        &mut self,
        pod: Arc<PodInfo>,
        mut decision: Decision,
        left: Result<Vec<Preemption>, String>,
        now: Instant,
    ) -> Action {
        let best = left.map(|left| left.into_iter().min_by_key(cost));
        let failed = match best {
            Ok(Some(best)) => {
                decision.preemption = Some(best);
                return self.missed(pod, decision, now);
            }
            Ok(None) => "no candidate node for preemption".to_owned(),
            Err(error) => error,
        };
        decision.post = Some(format!("preemption: {failed}"));
        self.missed(pod, decision, now)
    }

    fn conclude(
        &mut self,
        pod: Arc<PodInfo>,
        profile: &Arc<Profile>,
        begun: Begun,
        outside: &Outside,
        now: Instant,
    ) -> Option<Action> {
        let (mut decision, mut state) = finish(
            profile,
            &self.snapshot,
            &pod,
            &mut self.turn,
            begun,
            outside,
        );
        let Some(node) = decision.node.clone() else {
            return Some(if decision.candidates.is_empty() {
                self.missed(pod, decision, now)
            } else {
                self.ask_of_victims(pod, profile, decision)
            });
        };
        match self.admit(profile, &pod, &node, &mut state) {
            Ok(wait) => {
                self.assumed.insert(Arc::clone(&pod.uid), Arc::clone(&node));
                self.snapshot.unnominate(&pod.uid);
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
                self.queue.missed(&self.profiles, &pod.uid, why, now);
                Some(Action::Tell {
                    pod,
                    decision,
                    message,
                    nomination: Nomination::Keep,
                    eviction: None,
                })
            }
        }
    }

    /// Reserve and Permit.
    fn admit(
        &self,
        profile: &Profile,
        pod: &PodInfo,
        node: &str,
        state: &mut CycleState,
    ) -> Result<Option<std::time::Duration>, (PluginSet, String)> {
        let mut by = PluginSet::default();
        let reserve = self.snapshot.find(node).map(|at| self.snapshot.node(at));
        for (at, plugin) in &profile.reserve {
            let reserved = reserve.map_or(Ok(()), |node| plugin.reserve(state, pod, node));
            if let Err(why) = reserved {
                unreserve(profile, pod, node, state);
                by.insert(*at);
                return Err((by, why.reasons.join(", ")));
            }
        }
        let mut wait: Option<std::time::Duration> = None;
        for (at, plugin) in &profile.permit {
            match plugin.permit(state, pod, node) {
                Permission::Allow => {}
                Permission::Wait(time) => {
                    wait = Some(wait.map_or(time, |other| other.min(time)));
                }
                Permission::Reject(why) => {
                    unreserve(profile, pod, node, state);
                    by.insert(*at);
                    return Err((by, why.reasons.join(", ")));
                }
            }
        }
        Ok(wait)
    }

    /// No node takes the pod: it waits, and perhaps others go for it.
    fn missed(&mut self, pod: Arc<PodInfo>, decision: Decision, now: Instant) -> Action {
        let message = decision.message();
        let why = Missed::Rejected(decision.rejected_by);
        self.queue.missed(&self.profiles, &pod.uid, why, now);
        let (mut nomination, mut eviction) = (Nomination::Keep, None);
        if let Some(preemption) = &decision.preemption {
            let node = Arc::clone(&preemption.node);
            let displaced: Vec<Arc<PodInfo>> = self
                .snapshot
                .nominated_to(&node)
                .iter()
                .filter(|other| other.priority < pod.priority)
                .cloned()
                .collect();
            for other in &displaced {
                self.snapshot.unnominate(&other.uid);
                self.queue.wake(&self.profiles, &other.uid, now);
            }
            self.snapshot.nominate(Arc::clone(&pod), &node);
            let staying = |victim: &&Arc<PodInfo>| victim.pod.metadata.deletion_timestamp.is_none();
            let victims: Vec<Arc<PodInfo>> =
                preemption.victims.iter().filter(staying).cloned().collect();
            if !victims.is_empty() {
                self.queue.hold(&pod.uid);
            }
            nomination = Nomination::Set(Arc::clone(&node));
            eviction = Some(Eviction {
                node,
                victims,
                displaced,
            });
        } else if decision.clear_nomination {
            self.snapshot.unnominate(&pod.uid);
            nomination = Nomination::Clear;
        }
        Action::Tell {
            pod,
            decision,
            message,
            nomination,
            eviction,
        }
    }

    /// The victims of a pod have been asked to go, or that failed and the pod is tried again.
    pub fn evicted(&mut self, uid: &Arc<str>, failed: bool, now: Instant) {
        if let Some(group) = self.evicting.remove(uid) {
            self.group_evicted(&group, failed, now);
            return;
        }
        self.queue.release(&self.profiles, uid, failed, now);
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
        if let Some(profile) = self.profiles.of(pod) {
            unreserve(profile, pod, node, &mut state);
        }
        if self.assumed.remove(&pod.uid).is_none() {
            // Meanwhile the watch has said where it is, or that it is gone.
            return;
        }
        self.snapshot.remove_pod(&pod.uid);
        self.queue
            .event(&self.profiles, &ClusterEvent::PodGone(pod), now);
        match latest {
            Some(latest) if latest.metadata.uid.as_deref() == Some(&*pod.uid) => {
                self.queue
                    .missed(&self.profiles, &pod.uid, Missed::Failed, now);
                match node_name(latest) {
                    Some(node) => self.on_node(latest, node, now),
                    None => self.waiting(latest, now),
                }
            }
            _ => self.forget(&pod.uid),
        }
    }
}

fn unreserve(profile: &Profile, pod: &PodInfo, node: &str, state: &mut CycleState) {
    for (_, plugin) in profile.reserve.iter().rev() {
        plugin.unreserve(state, pod, node);
    }
}
