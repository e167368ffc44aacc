//! Pod groups: which pods belong together, and how many of them there are (KEP-4671).
//!
//! What never lives here: the queue, and what is decided about a group ([`crate::core`]).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use evenkeel_client::ObjectKey;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::scheduling::v1beta1::PodGroup;

use crate::pod::PodInfo;

/// The group that a pod says it belongs to.
#[must_use]
pub fn group_of(pod: &Pod) -> Option<ObjectKey> {
    let group = pod.spec.as_ref()?.scheduling_group.as_ref()?;
    let name = group.pod_group_name.as_deref()?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    Some(ObjectKey::new(namespace, name))
}

/// How many pods of a group have to be placed at once; `None`: each goes for itself.
#[must_use]
pub fn min_count(group: &PodGroup) -> Option<usize> {
    let gang = group.spec.scheduling_policy.gang.as_ref()?;
    Some(usize::try_from(gang.min_count).unwrap_or(0))
}

/// Whoever makes one pod of the group go makes all of them go.
#[must_use]
pub fn goes_as_one(group: &PodGroup) -> bool {
    let mode = group.spec.disruption_mode.as_ref();
    mode.is_some_and(|mode| mode.all.is_some())
}

#[derive(Debug, Default)]
struct Member {
    /// The pod while it has no node of its own in the API.
    waiting: Option<Arc<PodInfo>>,
    /// It is counted on a node, bound or assumed.
    placed: bool,
}

/// The groups and their pods.
#[derive(Debug, Default)]
pub struct Groups {
    served: bool,
    known: HashMap<ObjectKey, Arc<PodGroup>>,
    members: HashMap<ObjectKey, BTreeMap<Arc<str>, Member>>,
}

impl Groups {
    /// Says whether the door serves groups at all.
    pub fn serve(&mut self, served: bool) {
        self.served = served;
    }

    /// Does the door serve groups?
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.served
    }

    /// Takes in a group as it is now. Gives back what was known of it.
    pub fn set(&mut self, key: &ObjectKey, group: Option<Arc<PodGroup>>) -> Option<Arc<PodGroup>> {
        match group {
            Some(group) => self.known.insert(key.clone(), group),
            None => self.known.remove(key),
        }
    }

    /// A group.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<&Arc<PodGroup>> {
        self.known.get(key)
    }

    /// How many pods of the group are known.
    #[must_use]
    pub fn count(&self, key: &ObjectKey) -> usize {
        self.members.get(key).map_or(0, BTreeMap::len)
    }

    /// How many of them are on nodes, bound or assumed.
    #[must_use]
    pub fn placed(&self, key: &ObjectKey) -> usize {
        let members = self.members.get(key).into_iter().flatten();
        members.filter(|(_, member)| member.placed).count()
    }

    /// The uids of those on nodes.
    pub fn placed_of(&self, key: &ObjectKey) -> impl Iterator<Item = &Arc<str>> {
        let members = self.members.get(key).into_iter().flatten();
        members
            .filter(|(_, member)| member.placed)
            .map(|(uid, _)| uid)
    }

    /// Those that wait for a node.
    pub fn waiting(&self, key: &ObjectKey) -> impl Iterator<Item = &Arc<PodInfo>> {
        let members = self.members.get(key).into_iter().flatten();
        members
            .filter(|(_, member)| !member.placed)
            .filter_map(|(_, member)| member.waiting.as_ref())
    }

    fn change(&mut self, pod: &PodInfo, change: impl FnOnce(&mut Member)) {
        let Some(key) = &pod.group else {
            return;
        };
        let members = self.members.entry(key.clone()).or_default();
        let member = members.entry(Arc::clone(&pod.uid)).or_default();
        change(member);
        if member.waiting.is_none() && !member.placed {
            members.remove(&pod.uid);
            if members.is_empty() {
                self.members.remove(key);
            }
        }
    }

    /// A pod waits for a node.
    pub fn waits(&mut self, pod: &Arc<PodInfo>) {
        self.change(pod, |member| member.waiting = Some(Arc::clone(pod)));
    }

    /// It does not any more: it is bound, or gone.
    pub fn waits_no_more(&mut self, pod: &PodInfo) {
        self.change(pod, |member| member.waiting = None);
    }

    /// A pod is counted on a node, or not any more.
    pub(crate) fn place(&mut self, pod: &PodInfo, placed: bool) {
        self.change(pod, |member| member.placed = placed);
    }
}
