//! The cluster as a cycle sees it: nodes with the sums of their pods, kept up to date in place.
//!
//! The scheduling task owns it and changes it only between cycles, so a cycle reads it by
//! reference: nothing is copied, however large the cluster. Each node carries the generation of
//! its last change. Pods that other pods count are kept as classes (namespace, labels, terms) with
//! a count per node, so that a selector is evaluated once per class and not once per pod.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use evenkeel_api::placement::HostPort;
use evenkeel_api::selector::LabelSelector;
use evenkeel_client::ObjectKey;
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;

use crate::affinity::NamespaceLabels;
use crate::devices::Devices;
use crate::groups::{Groups, goes_as_one};
use crate::pod::{PodClass, PodInfo};
use crate::resources::Resources;
use crate::storage::Storage;

/// Position of a node in the snapshot; stays the same while the node exists.
pub type NodeIndex = usize;

const ZONE: &str = "topology.kubernetes.io/zone";
const REGION: &str = "topology.kubernetes.io/region";

/// The domains that a node label makes: nodes of equal values are in one, nodes without it in none.
#[derive(Debug, Default)]
pub struct Topology {
    of: Vec<Option<usize>>,
    count: usize,
}

impl Topology {
    /// The number of a node's domain, below [`Topology::count`].
    #[must_use]
    pub fn domain(&self, node: NodeIndex) -> Option<usize> {
        self.of.get(node).copied().flatten()
    }

    /// How many domains there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }
}

/// A node and the sums of its pods.
#[derive(Debug, Default, Clone)]
pub struct NodeInfo {
    /// Its position.
    pub at: NodeIndex,
    /// Its name.
    pub name: Arc<str>,
    /// The object; `None` while only pods are known that name it.
    pub node: Option<Arc<Node>>,
    /// It is cordoned or has taints. Most nodes have neither, and to fetch the object of each for
    /// every pod costs more than the other filters together.
    pub guarded: bool,
    /// Grows with every change of the node or its pods.
    pub generation: u64,
    /// What pods may take.
    pub allocatable: Resources,
    /// How many pods it may hold.
    pub allowed_pods: usize,
    /// What its pods requested.
    pub requested: Resources,
    /// CPU for scoring, in millicores.
    pub scored_milli_cpu: i64,
    /// Memory for scoring, in bytes.
    pub scored_memory: i64,
    /// Its pods, bound or assumed.
    pub pods: Vec<Arc<PodInfo>>,
    /// Host ports taken.
    pub ports: Vec<HostPort>,
    /// Sizes of its images in bytes, by name.
    pub images: HashMap<Arc<str>, i64>,
}

impl NodeInfo {
    /// A label of the node.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        let labels = self.node.as_ref()?.metadata.labels.as_ref()?;
        labels.get(key).map(String::as_str)
    }

    /// Counts a pod in.
    pub fn take_in(&mut self, info: &Arc<PodInfo>) {
        self.requested.add(&info.requests.exact);
        self.scored_milli_cpu += info.requests.scored_milli_cpu;
        self.scored_memory += info.requests.scored_memory;
        self.ports.extend(info.ports.iter().cloned());
        self.pods.push(Arc::clone(info));
    }

    /// Stops counting a pod that was counted in.
    pub fn let_go(&mut self, info: &PodInfo) {
        self.requested.subtract(&info.requests.exact);
        self.scored_milli_cpu -= info.requests.scored_milli_cpu;
        self.scored_memory -= info.requests.scored_memory;
        for port in &info.ports {
            if let Some(at) = self.ports.iter().position(|held| held == port) {
                self.ports.swap_remove(at);
            }
        }
        if let Some(at) = self.pods.iter().position(|held| held.uid == info.uid) {
            self.pods.swap_remove(at);
        }
    }

    fn zone(&self) -> String {
        let part = |key| self.label(key).unwrap_or_default();
        format!("{}:{}", part(REGION), part(ZONE))
    }
}

/// Pods that other pods cannot tell apart, and where they are.
#[derive(Debug)]
pub struct ClassCount {
    /// What they share.
    pub class: Arc<PodClass>,
    /// One of them, for its terms.
    pub example: Arc<PodInfo>,
    /// How many are on which node.
    pub nodes: HashMap<NodeIndex, u32>,
}

/// What a node's change was about, for queueing hints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeDelta {
    /// It is new.
    pub added: bool,
    /// Its allocatable resources changed.
    pub allocatable: bool,
    /// Its labels changed.
    pub labels: bool,
    /// Its taints changed.
    pub taints: bool,
    /// It was cordoned or uncordoned.
    pub unschedulable: bool,
}

impl NodeDelta {
    /// Did anything change that a plugin looks at?
    #[must_use]
    pub fn any(&self) -> bool {
        self.added || self.allocatable || self.labels || self.taints || self.unschedulable
    }
}

/// A disruption budget as preemption reads it.
#[derive(Debug, Clone)]
pub struct Budget {
    /// The pods it is about, in its namespace.
    pub selector: LabelSelector,
    /// How many of them may be disrupted now.
    pub allowed: i32,
    /// Names of pods whose disruption is counted already.
    pub disrupted: HashSet<String>,
}

/// How common an image is.
#[derive(Debug, Clone, Copy, Default)]
pub struct ImageSpread {
    /// Nodes that have it.
    pub nodes: usize,
}

/// The cluster.
#[derive(Debug, Default)]
pub struct Snapshot {
    slots: Vec<NodeInfo>,
    free: Vec<NodeIndex>,
    by_name: HashMap<Arc<str>, NodeIndex>,
    /// Nodes that exist, zones taking turns.
    order: OnceLock<Vec<NodeIndex>>,
    assigned: HashMap<Arc<str>, (NodeIndex, Arc<PodInfo>)>,
    /// By namespace.
    classes: HashMap<String, HashMap<Arc<PodClass>, ClassCount>>,
    /// Classes whose pods carry inter-pod terms.
    with_terms: HashSet<Arc<PodClass>>,
    images: HashMap<Arc<str>, ImageSpread>,
    /// Pods for which room is being made, by node and by uid.
    nominated: HashMap<Arc<str>, Vec<Arc<PodInfo>>>,
    nominations: HashMap<Arc<str>, Arc<str>>,
    generation: u64,
    /// By label; made when first asked for, forgotten when nodes come, go or change labels.
    topologies: Mutex<HashMap<String, Arc<Topology>>>,
    /// How many pods on nodes use a claim.
    claim_users: HashMap<ObjectKey, i64>,
    /// Claims, volumes and classes.
    pub storage: Storage,
    /// Device claims, slices and classes. Shared with the cycle that is under way.
    pub devices: Arc<Devices>,
    /// Groups of pods.
    pub groups: Groups,
    /// Disruption budgets.
    pub budgets: BTreeMap<ObjectKey, Budget>,
    /// Labels of namespaces, for terms that select them.
    pub namespaces: NamespaceLabels,
    /// Selectors of services, for default spreading.
    pub services: BTreeMap<ObjectKey, BTreeMap<String, String>>,
    /// Selectors of what controls pods, by kind and name, for default spreading.
    pub controllers: HashMap<(&'static str, ObjectKey), LabelSelector>,
}

impl Snapshot {
    /// The nodes to visit, in order. Zones take turns, so that a search that ends early has seen
    /// all of them.
    #[must_use]
    pub fn order(&self) -> &[NodeIndex] {
        self.order.get_or_init(|| self.ordered())
    }

    /// A node.
    #[must_use]
    pub fn node(&self, at: NodeIndex) -> &NodeInfo {
        &self.slots[at]
    }

    /// A node by name, if it exists.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<NodeIndex> {
        let at = *self.by_name.get(name)?;
        self.slots[at].node.is_some().then_some(at)
    }

    /// How many nodes exist.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order().len()
    }

    /// There is no node.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order().is_empty()
    }

    /// The upper bound of node indexes, for tables.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Every class of pods on nodes.
    pub fn classes(&self) -> impl Iterator<Item = &ClassCount> {
        self.classes.values().flat_map(HashMap::values)
    }

    /// Every class of pods of a namespace on nodes.
    pub fn classes_in(&self, namespace: &str) -> impl Iterator<Item = &ClassCount> {
        self.classes
            .get(namespace)
            .into_iter()
            .flat_map(HashMap::values)
    }

    /// The classes whose pods carry inter-pod terms.
    pub fn classes_with_terms(&self) -> impl Iterator<Item = &ClassCount> {
        self.with_terms
            .iter()
            .filter_map(|class| self.classes.get(&class.namespace)?.get(class))
    }

    /// On how many nodes an image is.
    #[must_use]
    pub fn image(&self, name: &str) -> Option<ImageSpread> {
        self.images.get(name).copied()
    }

    /// A pod that is on a node, bound or assumed.
    #[must_use]
    pub fn assigned(&self, uid: &str) -> Option<(&NodeInfo, &Arc<PodInfo>)> {
        let (at, info) = self.assigned.get(uid)?;
        Some((&self.slots[*at], info))
    }

    /// The domains that a label makes. Asking again is cheap: thousands of pods in a row ask for
    /// the same ones, and compare numbers instead of texts.
    #[must_use]
    pub fn topology(&self, key: &str) -> Arc<Topology> {
        let mut topologies = self.topologies.lock();
        if let Some(known) = topologies.get(key) {
            return Arc::clone(known);
        }
        let mut values: HashMap<&str, usize> = HashMap::new();
        let of = self.slots.iter().map(|slot| {
            let next = values.len();
            Some(*values.entry(slot.label(key)?).or_insert(next))
        });
        let of: Vec<Option<usize>> = of.collect();
        let made = Arc::new(Topology {
            of,
            count: values.len(),
        });
        topologies.insert(key.to_owned(), Arc::clone(&made));
        made
    }

    /// How many pods on nodes use a claim.
    #[must_use]
    pub fn claim_users(&self, claim: &ObjectKey) -> i64 {
        self.claim_users.get(claim).copied().unwrap_or(0)
    }

    /// Sets a node aside for a pod that is not bound yet, in place of another one.
    pub fn nominate(&mut self, info: Arc<PodInfo>, node: &str) {
        self.unnominate(&info.uid);
        let node: Arc<str> = node.into();
        self.nominations
            .insert(Arc::clone(&info.uid), Arc::clone(&node));
        self.nominated.entry(node).or_default().push(info);
    }

    /// No node is set aside for the pod any more. Gives back which one was.
    pub fn unnominate(&mut self, uid: &str) -> Option<Arc<str>> {
        let node = self.nominations.remove(uid)?;
        if let Some(pods) = self.nominated.get_mut(&node) {
            pods.retain(|pod| *pod.uid != *uid);
            if pods.is_empty() {
                self.nominated.remove(&node);
            }
        }
        Some(node)
    }

    /// The node set aside for a pod.
    #[must_use]
    pub fn nomination(&self, uid: &str) -> Option<&Arc<str>> {
        self.nominations.get(uid)
    }

    /// The pods for which a node is set aside.
    #[must_use]
    pub fn nominated_to(&self, node: &str) -> &[Arc<PodInfo>] {
        if self.nominated.is_empty() {
            return &[];
        }
        self.nominated.get(node).map_or(&[], Vec::as_slice)
    }

    fn slot(&mut self, name: &str) -> NodeIndex {
        if let Some(at) = self.by_name.get(name) {
            return *at;
        }
        let name: Arc<str> = name.into();
        let info = NodeInfo {
            name: Arc::clone(&name),
            ..NodeInfo::default()
        };
        let at = if let Some(at) = self.free.pop() {
            self.slots[at] = info;
            at
        } else {
            self.slots.push(info);
            self.slots.len() - 1
        };
        self.slots[at].at = at;
        self.by_name.insert(name, at);
        at
    }

    fn release_if_unused(&mut self, at: NodeIndex) {
        let slot = &self.slots[at];
        if slot.node.is_none() && slot.pods.is_empty() {
            self.by_name.remove(&slot.name);
            self.slots[at] = NodeInfo::default();
            self.free.push(at);
        }
    }

    /// Takes in a node as it is now.
    pub fn set_node(&mut self, node: &Arc<Node>) -> NodeDelta {
        let at = self.slot(node.metadata.name.as_deref().unwrap_or_default());
        self.generation += 1;
        let generation = self.generation;
        let status = node.status.as_ref();
        let list = status.and_then(|status| status.allocatable.as_ref());
        let allocatable = Resources::read(list);
        let pods = list
            .and_then(|list| list.get("pods"))
            .and_then(|text| text.0.parse::<evenkeel_api::quantity::Quantity>().ok())
            .map_or(0, |amount| usize::try_from(amount.units()).unwrap_or(0));
        let old = self.slots[at].node.clone();
        let delta = delta(
            old.as_deref(),
            node,
            self.slots[at].allocatable != allocatable || self.slots[at].allowed_pods != pods,
        );
        if delta.added || delta.labels {
            self.order.take();
            self.topologies.get_mut().clear();
        }
        let images = status.and_then(|status| status.images.as_ref());
        let old_images = old
            .as_ref()
            .and_then(|old| old.status.as_ref()?.images.as_ref());
        if images != old_images || delta.added {
            self.set_images(at, images.into_iter().flatten());
        }
        let slot = &mut self.slots[at];
        slot.allocatable = allocatable;
        slot.allowed_pods = pods;
        slot.guarded = node.spec.as_ref().is_some_and(|spec| {
            spec.unschedulable == Some(true) || spec.taints.iter().flatten().next().is_some()
        });
        slot.node = Some(Arc::clone(node));
        slot.generation = generation;
        delta
    }

    fn set_images<'a>(
        &mut self,
        at: NodeIndex,
        images: impl Iterator<Item = &'a k8s_openapi::api::core::v1::ContainerImage>,
    ) {
        for name in std::mem::take(&mut self.slots[at].images).into_keys() {
            if let Some(spread) = self.images.get_mut(&name) {
                spread.nodes -= 1;
                if spread.nodes == 0 {
                    self.images.remove(&name);
                }
            }
        }
        for image in images {
            for name in image.names.iter().flatten() {
                let name: Arc<str> = match self.images.get_key_value(name.as_str()) {
                    Some((known, _)) => Arc::clone(known),
                    None => name.as_str().into(),
                };
                let size = image.size_bytes.unwrap_or(0);
                if self.slots[at]
                    .images
                    .insert(Arc::clone(&name), size)
                    .is_none()
                {
                    self.images.entry(name).or_default().nodes += 1;
                }
            }
        }
    }

    /// Takes in that a node is gone. Its pods stay counted until they are gone as well.
    pub fn remove_node(&mut self, name: &str) {
        let Some(at) = self.by_name.get(name).copied() else {
            return;
        };
        self.set_images(at, std::iter::empty());
        self.generation += 1;
        let slot = &mut self.slots[at];
        slot.node = None;
        slot.guarded = false;
        slot.generation = self.generation;
        self.order.take();
        self.topologies.get_mut().clear();
        self.release_if_unused(at);
    }

    /// The nodes in turn by zone. Nodes come by the thousand when all is read for the first time, so
    /// that this is done when somebody asks.
    fn ordered(&self) -> Vec<NodeIndex> {
        let mut zones: BTreeMap<String, Vec<NodeIndex>> = BTreeMap::new();
        for (at, slot) in self.slots.iter().enumerate() {
            if slot.node.is_some() {
                zones.entry(slot.zone()).or_default().push(at);
            }
        }
        let longest = zones.values().map(Vec::len).max().unwrap_or(0);
        (0..longest)
            .flat_map(|turn| zones.values().filter_map(move |zone| zone.get(turn)))
            .copied()
            .collect()
    }

    /// Counts a pod on a node, taking the place of what was known of it.
    pub fn add_pod(&mut self, info: Arc<PodInfo>, node: &str) {
        self.remove_pod(&info.uid);
        let at = self.slot(node);
        self.generation += 1;
        let slot = &mut self.slots[at];
        slot.generation = self.generation;
        slot.take_in(&info);
        let count = self
            .classes
            .entry(info.class.namespace.clone())
            .or_default()
            .entry(Arc::clone(&info.class))
            .or_insert_with(|| ClassCount {
                class: Arc::clone(&info.class),
                example: Arc::clone(&info),
                nodes: HashMap::new(),
            });
        *count.nodes.entry(at).or_default() += 1;
        if info.terms.is_some() {
            self.with_terms.insert(Arc::clone(&info.class));
        }
        for claim in &info.claims {
            let key = ObjectKey::new(info.key.namespace.clone(), claim.name.clone());
            *self.claim_users.entry(key).or_default() += 1;
        }
        self.groups.place(&info, true);
        self.assigned.insert(Arc::clone(&info.uid), (at, info));
    }

    /// The other pods on nodes that go when this one has to: those of its group, if that goes as
    /// one.
    #[must_use]
    pub fn goes_with(&self, pod: &PodInfo) -> Vec<Arc<PodInfo>> {
        let group = pod.group.as_ref().filter(|key| {
            let group = self.groups.get(key);
            group.is_some_and(|group| goes_as_one(group))
        });
        let Some(key) = group else {
            return Vec::new();
        };
        let placed = self.groups.placed_of(key);
        let placed = placed.filter(|uid| ***uid != *pod.uid);
        let infos = placed.filter_map(|uid| self.assigned(uid));
        infos.map(|(_, info)| Arc::clone(info)).collect()
    }

    fn uncount(&mut self, at: NodeIndex, class: &Arc<PodClass>) {
        let Some(classes) = self.classes.get_mut(&class.namespace) else {
            return;
        };
        let Some(count) = classes.get_mut(class) else {
            return;
        };
        if let Some(here) = count.nodes.get_mut(&at) {
            *here -= 1;
            if *here == 0 {
                count.nodes.remove(&at);
            }
        }
        if count.nodes.is_empty() {
            classes.remove(class);
            self.with_terms.remove(class);
            if classes.is_empty() {
                self.classes.remove(&class.namespace);
            }
        }
    }

    /// Stops counting a pod. Gives back what was known of it.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let (at, info) = self.assigned.remove(uid)?;
        self.generation += 1;
        let slot = &mut self.slots[at];
        slot.generation = self.generation;
        slot.let_go(&info);
        self.groups.place(&info, false);
        for claim in &info.claims {
            let key = ObjectKey::new(info.key.namespace.clone(), claim.name.clone());
            if let Some(users) = self.claim_users.get_mut(&key) {
                *users -= 1;
                if *users == 0 {
                    self.claim_users.remove(&key);
                }
            }
        }
        self.uncount(at, &info.class);
        self.release_if_unused(at);
        Some(info)
    }
}

fn delta(old: Option<&Node>, new: &Node, allocatable: bool) -> NodeDelta {
    let Some(old) = old else {
        return NodeDelta {
            added: true,
            ..NodeDelta::default()
        };
    };
    let taints = |node: &Node| node.spec.as_ref().and_then(|spec| spec.taints.clone());
    let cordoned = |node: &Node| node.spec.as_ref().and_then(|spec| spec.unschedulable);
    NodeDelta {
        added: false,
        allocatable,
        labels: old.metadata.labels != new.metadata.labels,
        taints: taints(old) != taints(new),
        unschedulable: cordoned(old).unwrap_or(false) != cordoned(new).unwrap_or(false),
    }
}
