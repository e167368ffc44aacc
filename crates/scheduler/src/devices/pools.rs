//! Pools: the slices of a driver that belong together, and which of them a node reaches.
//!
//! Slices of an older generation are as if they were not there. A pool of which slices are missing
//! is incomplete, and one that names a device twice is invalid: neither gives devices.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use evenkeel_api::devices::DeviceValue;
use evenkeel_api::placement::NodeTerm;
use k8s_openapi::api::core::v1::NodeSelector;
use k8s_openapi::api::resource::v1::{Device, ResourceSlice};
use parking_lot::Mutex;

use super::DeviceId;
use crate::snapshot::NodeInfo;

/// Answers of one selector for the devices of one slice.
type Answers = Vec<Option<Result<bool, String>>>;

/// A pool, among all of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolId {
    /// Whose it is.
    pub driver: Arc<str>,
    /// Its name.
    pub pool: Arc<str>,
}

/// From where devices are reached.
#[derive(Debug, Clone)]
pub enum Reach {
    /// From this node.
    Node(String),
    /// From all.
    All,
    /// From nodes that one of the terms matches.
    Terms(Vec<NodeTerm>),
    /// Each device says so itself.
    PerDevice,
    /// In a way that is not known here.
    Nowhere,
}

impl Reach {
    fn read(name: Option<&String>, all: Option<bool>, selector: Option<&NodeSelector>) -> Self {
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            return Self::Node(name.clone());
        }
        if all == Some(true) {
            return Self::All;
        }
        selector.map_or(Self::Nowhere, |selector| {
            let terms = selector.node_selector_terms.iter();
            Self::Terms(terms.filter_map(NodeTerm::read).collect())
        })
    }

    /// Is it reached from the node? Never when each device says so itself.
    #[must_use]
    pub fn reaches(&self, node: &NodeInfo) -> bool {
        match self {
            Self::Node(name) => **name == *node.name,
            Self::All => true,
            Self::Terms(terms) => terms.iter().any(|term| term.matches(node)),
            Self::PerDevice | Self::Nowhere => false,
        }
    }
}

/// A device and what is read from it once.
#[derive(Debug)]
pub struct DeviceInfo {
    /// Which one it is.
    pub id: DeviceId,
    /// As selectors see it.
    pub value: Result<DeviceValue, String>,
    /// Where it is, if the slice leaves that to the devices.
    pub reach: Option<Reach>,
}

/// A slice and what is read from it once.
#[derive(Debug)]
pub struct SliceInfo {
    /// The object.
    pub slice: Arc<ResourceSlice>,
    /// Its pool.
    pub pool: PoolId,
    /// Where it is reached.
    pub reach: Reach,
    /// Its devices, in its order.
    pub devices: Vec<DeviceInfo>,
    /// A device of it is bound under conditions: those that are simpler come first.
    pub conditional: bool,
    /// Answers of selectors, by expression: the same devices are asked for again and again.
    answers: Mutex<HashMap<Arc<str>, Answers>>,
}

/// Selectors whose answers a slice remembers.
const REMEMBERED: usize = 64;

impl SliceInfo {
    /// Reads a slice.
    #[must_use]
    pub fn new(slice: Arc<ResourceSlice>) -> Self {
        let spec = &slice.spec;
        let pool = PoolId {
            driver: spec.driver.as_str().into(),
            pool: spec.pool.name.as_str().into(),
        };
        let each = spec.per_device_node_selection == Some(true);
        let reach = if each {
            Reach::PerDevice
        } else {
            Reach::read(
                spec.node_name.as_ref(),
                spec.all_nodes,
                spec.node_selector.as_ref(),
            )
        };
        let all = || spec.devices.iter().flatten();
        let conditional = all().any(|device| device.binding_conditions.is_some());
        let devices = all().map(|device| DeviceInfo {
            id: DeviceId {
                driver: Arc::clone(&pool.driver),
                pool: Arc::clone(&pool.pool),
                device: device.name.as_str().into(),
            },
            value: DeviceValue::new(&spec.driver, device),
            reach: each.then(|| {
                Reach::read(
                    device.node_name.as_ref(),
                    device.all_nodes,
                    device.node_selector.as_ref(),
                )
            }),
        });
        Self {
            reach,
            conditional,
            devices: devices.collect(),
            pool,
            answers: Mutex::default(),
            slice,
        }
    }

    /// The device at a position of [`SliceInfo::devices`], as written.
    #[must_use]
    pub fn device(&self, at: usize) -> Option<&Device> {
        self.slice.spec.devices.as_ref()?.get(at)
    }

    /// Is any of its devices reached from the node?
    #[must_use]
    pub fn reaches(&self, node: &NodeInfo) -> bool {
        match self.reach {
            Reach::PerDevice => (0..self.devices.len()).any(|at| self.device_reaches(at, node)),
            ref reach => reach.reaches(node),
        }
    }

    /// Is the device reached from a node that the slice is reached from?
    #[must_use]
    pub fn device_reaches(&self, at: usize, node: &NodeInfo) -> bool {
        self.devices[at]
            .reach
            .as_ref()
            .is_none_or(|reach| reach.reaches(node))
    }

    /// What a selector says of a device; asked once.
    ///
    /// # Errors
    /// What went wrong in the evaluation.
    pub fn answer(
        &self,
        at: usize,
        expression: &Arc<str>,
        ask: impl FnOnce(&DeviceValue) -> Result<bool, String>,
    ) -> Result<bool, String> {
        let mut answers = self.answers.lock();
        if answers.len() >= REMEMBERED && !answers.contains_key(expression) {
            answers.clear();
        }
        let known = answers
            .entry(Arc::clone(expression))
            .or_insert_with(|| vec![None; self.devices.len()]);
        if let Some(answer) = &known[at] {
            return answer.clone();
        }
        let answer = self.devices[at]
            .value
            .as_ref()
            .map_or_else(|why| Err(why.clone()), ask);
        known[at] = Some(answer.clone());
        answer
    }
}

/// A pool as a node sees it.
#[derive(Debug)]
pub struct Pool {
    /// Which one it is.
    pub id: PoolId,
    /// Slices are missing.
    pub incomplete: bool,
    /// A device or set of counters is there twice, or a counter that a device takes from is not.
    pub invalid: bool,
    /// Its slices that the node reaches, by name.
    pub here: Vec<Arc<SliceInfo>>,
    /// All its slices.
    pub all: Vec<Arc<SliceInfo>>,
}

/// All slices.
#[derive(Debug, Default, Clone)]
pub struct Pools {
    slices: HashMap<String, Arc<SliceInfo>>,
    pools: BTreeMap<PoolId, BTreeMap<String, Arc<SliceInfo>>>,
    /// Pools of which a slice is reached from one node, by that node.
    local: HashMap<String, BTreeMap<PoolId, usize>>,
    /// Pools of which a slice may be reached from several.
    wide: BTreeMap<PoolId, usize>,
}

fn count(of: &mut BTreeMap<PoolId, usize>, id: &PoolId, add: bool) {
    let count = of.entry(id.clone()).or_default();
    *count = if add {
        *count + 1
    } else {
        count.saturating_sub(1)
    };
    if *count == 0 {
        of.remove(id);
    }
}

/// Does each device and each set of counters of a pool have a name of its own, and is there every
/// counter that devices take from?
fn is_valid(slices: &[Arc<SliceInfo>]) -> bool {
    let mut names = HashSet::new();
    let mut devices = slices.iter().flat_map(|slice| &slice.devices);
    if !devices.all(|device| names.insert(&*device.id.device)) {
        return false;
    }
    let mut sets = HashMap::new();
    let counters = slices.iter();
    let mut counters = counters.flat_map(|slice| slice.slice.spec.shared_counters.iter().flatten());
    if !counters.all(|set| sets.insert(set.name.as_str(), &set.counters).is_none()) {
        return false;
    }
    let devices = slices.iter();
    let devices = devices.flat_map(|slice| slice.slice.spec.devices.iter().flatten());
    let mut taken = devices.flat_map(|device| device.consumes_counters.iter().flatten());
    taken.all(|from| {
        let known = sets.get(from.counter_set.as_str());
        known.is_some_and(|known| from.counters.keys().all(|name| known.contains_key(name)))
    })
}

impl Pools {
    fn index(&mut self, slice: &SliceInfo, add: bool) {
        match &slice.reach {
            Reach::Node(name) => {
                let at = self.local.entry(name.clone()).or_default();
                count(at, &slice.pool, add);
                if at.is_empty() {
                    self.local.remove(name);
                }
            }
            Reach::All | Reach::Terms(_) | Reach::PerDevice => {
                count(&mut self.wide, &slice.pool, add);
            }
            Reach::Nowhere => {}
        }
    }

    /// Takes in a slice, or that it is gone.
    pub fn set(&mut self, name: &str, slice: Option<&Arc<ResourceSlice>>) {
        if let Some(before) = self.slices.remove(name) {
            self.index(&before, false);
            if let Some(pool) = self.pools.get_mut(&before.pool) {
                pool.remove(name);
                if pool.is_empty() {
                    self.pools.remove(&before.pool);
                }
            }
        }
        if let Some(slice) = slice {
            let info = Arc::new(SliceInfo::new(Arc::clone(slice)));
            self.index(&info, true);
            let pool = self.pools.entry(info.pool.clone()).or_default();
            pool.insert(name.to_owned(), Arc::clone(&info));
            self.slices.insert(name.to_owned(), info);
        }
    }

    /// The pools that a node reaches, in the order of their names.
    #[must_use]
    pub fn of(&self, node: &NodeInfo) -> Vec<Pool> {
        let local = self
            .local
            .get(&*node.name)
            .into_iter()
            .flat_map(BTreeMap::keys);
        let ids: BTreeSet<&PoolId> = local.chain(self.wide.keys()).collect();
        let pools = ids.into_iter().filter_map(|id| self.pool(id, node));
        let mut pools: Vec<Pool> = pools.collect();
        pools.sort_by_key(|pool| pool.all.iter().any(|slice| slice.conditional));
        pools
    }

    fn pool(&self, id: &PoolId, node: &NodeInfo) -> Option<Pool> {
        let slices = self.pools.get(id)?;
        let generation = |slice: &SliceInfo| slice.slice.spec.pool.generation;
        let newest = slices.values().map(|slice| generation(slice)).max()?;
        let all: Vec<Arc<SliceInfo>> = slices
            .values()
            .filter(|slice| generation(slice) == newest)
            .cloned()
            .collect();
        let mut here: Vec<Arc<SliceInfo>> = all
            .iter()
            .filter(|slice| slice.reaches(node))
            .cloned()
            .collect();
        if here.is_empty() {
            return None;
        }
        here.sort_by_key(|slice| slice.conditional);
        let wanted = all.first()?.slice.spec.pool.resource_slice_count;
        Some(Pool {
            id: id.clone(),
            incomplete: i64::try_from(all.len()) != Ok(wanted),
            invalid: !is_valid(&all),
            here,
            all,
        })
    }
}
