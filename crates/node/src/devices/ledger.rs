//! Which devices there are and who holds them. Pure: plugins are asked and files are written
//! elsewhere.
//!
//! No device is held by two containers that may run at the same time: what an init container held
//! goes to the containers after it in the same pod first, and everything else stays with its pod
//! until that has stopped.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::proto;

/// What a container holds of one resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// The devices.
    pub ids: BTreeSet<String>,
    /// What the plugin wants done for them; `None` until it has said so.
    pub given: Option<Given>,
}

/// What a plugin wants done for the devices of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Container path, host path, read only.
    pub mounts: Vec<(String, String, bool)>,
    /// Container path, host path, permissions.
    pub devices: Vec<(String, String, String)>,
    /// Annotations of the container.
    pub annotations: BTreeMap<String, String>,
    /// Devices of the Container Device Interface.
    pub cdi: Vec<String>,
    /// Groups besides those of the pod.
    #[serde(default)]
    pub groups: Vec<i64>,
}

impl Given {
    /// With what devices of the Container Device Interface come to.
    pub fn edit(&mut self, edits: crate::cdi::Edits) {
        self.env.extend(edits.env);
        self.mounts.extend(edits.mounts);
        self.devices.extend(edits.devices);
        self.groups.extend(edits.groups);
    }
}

impl From<proto::ContainerAllocateResponse> for Given {
    fn from(said: proto::ContainerAllocateResponse) -> Self {
        let mounts = said.mounts.into_iter();
        let devices = said.devices.into_iter();
        Self {
            env: said.envs,
            mounts: mounts
                .map(|one| (one.container_path, one.host_path, one.read_only))
                .collect(),
            devices: devices
                .map(|one| (one.container_path, one.host_path, one.permissions))
                .collect(),
            annotations: said.annotations,
            cdi: said.cdi_devices.into_iter().map(|one| one.name).collect(),
            groups: Vec::new(),
        }
    }
}

/// The devices of one resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resource {
    /// Whether each works.
    pub devices: BTreeMap<String, bool>,
    /// The plugin is there. Without it nothing works and nothing is given out.
    pub served: bool,
}

/// What a pod holds: by container, by resource.
pub type OfPod = BTreeMap<String, BTreeMap<String, Holding>>;

/// All resources and holdings of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// By name.
    pub resources: BTreeMap<String, Resource>,
    /// By the pod's uid.
    pub pods: BTreeMap<String, OfPod>,
}

/// A container's wish for devices of one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The pod's uid.
    pub pod: String,
    /// The container.
    pub container: String,
    /// It ends before others of the pod begin, so that what it held may be held again.
    pub passes_on: bool,
    /// The resource.
    pub resource: String,
    /// How many.
    pub count: usize,
}

/// What can be given for a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Of these the missing ones are to be taken.
    pub free: BTreeSet<String>,
    /// These are to be among them: init containers of the pod held them.
    pub again: BTreeSet<String>,
}

impl Ledger {
    /// Devices that work, and all, by resource: what the node says that it has.
    #[must_use]
    pub fn amounts(&self) -> BTreeMap<String, (usize, usize)> {
        let amount = |resource: &Resource| {
            let working = resource.devices.values().filter(|works| **works).count();
            let working = if resource.served { working } else { 0 };
            (working, resource.devices.len())
        };
        let all = self.resources.iter();
        all.map(|(name, resource)| (name.clone(), amount(resource)))
            .collect()
    }

    fn held(&self, resource: &str, except: Option<&str>) -> BTreeSet<&String> {
        let pods = self
            .pods
            .iter()
            .filter(|(uid, _)| Some(uid.as_str()) != except);
        pods.flat_map(|(_, containers)| containers.values())
            .filter_map(|held| held.get(resource))
            .flat_map(|holding| &holding.ids)
            .collect()
    }

    /// What can be given for a wish; `None` when the container has what it wants already.
    /// `passed_on` are the containers of the pod that end before this one begins.
    ///
    /// # Errors
    /// There are too few, in kubelet's words.
    pub fn choose(
        &self,
        wish: &Wish,
        passed_on: &BTreeSet<String>,
    ) -> Result<Option<Choice>, String> {
        let own = self.pods.get(&wish.pod);
        let has = own.and_then(|pod| pod.get(&wish.container)?.get(&wish.resource));
        if let Some(has) = has {
            if has.ids.len() == wish.count {
                return Ok(None);
            }
            return Err(format!(
                "pod {:?} container {:?} changed request for resource {:?} from {} to {}",
                wish.pod,
                wish.container,
                wish.resource,
                has.ids.len(),
                wish.count
            ));
        }
        let nothing = Resource::default();
        let resource = self.resources.get(&wish.resource).unwrap_or(&nothing);
        if !resource.served {
            return Err(format!(
                "no healthy devices present; cannot allocate unhealthy devices {}",
                wish.resource
            ));
        }
        let works = |id: &&String| resource.devices.get(*id) == Some(&true);
        let others = self.held(&wish.resource, Some(&wish.pod));
        let mut again: BTreeSet<String> = BTreeSet::new();
        let mut kept: BTreeSet<String> = BTreeSet::new();
        for (container, held) in own.into_iter().flatten() {
            let Some(holding) = held.get(&wish.resource) else {
                continue;
            };
            if passed_on.contains(container) {
                again.extend(holding.ids.iter().filter(works).cloned());
            } else {
                kept.extend(holding.ids.iter().cloned());
            }
        }
        again.retain(|id| !kept.contains(id));
        let free: BTreeSet<String> = resource
            .devices
            .keys()
            .filter(works)
            .filter(|id| !others.contains(id) && !kept.contains(*id) && !again.contains(*id))
            .cloned()
            .collect();
        let again: BTreeSet<String> = again.into_iter().take(wish.count).collect();
        if again.len() + free.len() < wish.count {
            return Err(format!(
                "requested number of devices unavailable for {}. Requested: {}, Available: {}",
                wish.resource,
                wish.count,
                again.len() + free.len()
            ));
        }
        Ok(Some(Choice { free, again }))
    }

    /// The devices for a wish: those that are held again, then those that the plugin prefers, then
    /// any.
    #[must_use]
    pub fn pick(wish: &Wish, choice: &Choice, preferred: &[String]) -> BTreeSet<String> {
        let mut ids = choice.again.clone();
        let preferred = preferred.iter().filter(|id| choice.free.contains(*id));
        for id in preferred.chain(&choice.free) {
            if ids.len() >= wish.count {
                break;
            }
            ids.insert(id.clone());
        }
        ids
    }

    /// The container holds these from now on.
    pub fn take(&mut self, wish: &Wish, ids: BTreeSet<String>) {
        let containers = self.pods.entry(wish.pod.clone()).or_default();
        let held = containers.entry(wish.container.clone()).or_default();
        held.insert(wish.resource.clone(), Holding { ids, given: None });
    }

    /// What the plugin has said of what a container holds.
    pub fn give(&mut self, wish: &Wish, given: Given) {
        let held = self
            .pods
            .get_mut(&wish.pod)
            .and_then(|pod| pod.get_mut(&wish.container)?.get_mut(&wish.resource));
        if let Some(held) = held {
            held.given = Some(given);
        }
    }

    /// A pod holds nothing any more.
    pub fn release(&mut self, uid: &str) -> bool {
        self.pods.remove(uid).is_some()
    }

    /// Takes in what a plugin says of its devices. Answers whether the resource is new here.
    pub fn list(&mut self, resource: &str, devices: BTreeMap<String, bool>) -> bool {
        let new = !self.resources.contains_key(resource);
        let known = self.resources.entry(resource.to_owned()).or_default();
        known.devices = devices;
        known.served = true;
        new
    }

    /// A plugin is gone.
    pub fn lost(&mut self, resource: &str) {
        if let Some(known) = self.resources.get_mut(resource) {
            known.served = false;
            known.devices.values_mut().for_each(|works| *works = false);
        }
    }

    /// A plugin has been gone for long: the node does not have its devices any more.
    pub fn forget(&mut self, resource: &str) {
        if let Some(known) = self.resources.get_mut(resource)
            && !known.served
        {
            known.devices.clear();
        }
    }
}
