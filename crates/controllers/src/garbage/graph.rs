//! Who owns whom: pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::discovered::Resource;

/// Finalizer of a deletion that waits for dependents.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of a deletion that leaves dependents behind.
pub const ORPHAN: &str = "orphan";

/// An object, as far as ownership goes.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is.
    pub resource: Arc<Resource>,
    /// Where it is.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who owns it.
    pub owners: Vec<OwnerReference>,
    /// It has a deletion time stamp.
    pub deleting: bool,
    /// It waits for its dependents to go.
    pub foreground: bool,
    /// It waits for its dependents to be let go.
    pub orphan: bool,
}

impl Node {
    /// From an object's metadata.
    #[must_use]
    pub fn of(resource: &Arc<Resource>, meta: &ObjectMeta) -> Self {
        let deleting = meta.deletion_timestamp.is_some();
        let has = |name: &str| meta.finalizers.iter().flatten().any(|found| found == name);
        Self {
            resource: Arc::clone(resource),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            deleting,
            foreground: deleting && has(FOREGROUND),
            orphan: deleting && has(ORPHAN),
        }
    }

    /// The reference of this object to an owner.
    #[must_use]
    pub fn reference(&self, owner: &str) -> Option<&OwnerReference> {
        self.owners.iter().find(|item| item.uid == owner)
    }
}

/// What a change makes necessary, by uid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Look at this object now.
    Delete(String),
    /// Look at this object if its owner does not turn up.
    DeleteLater(String),
    /// Orphan the dependents of this one.
    Orphan(String),
}

/// All objects and their dependents, by uid.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: HashMap<String, Node>,
    dependents: HashMap<String, HashSet<String>>,
    synced: bool,
}

impl Graph {
    /// An object.
    #[must_use]
    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The objects that name this one as an owner.
    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = (&String, &Node)> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| self.nodes.get_key_value(uid))
    }

    /// The owner is there, in a place where it may own this object.
    #[must_use]
    pub fn is_owned_rightly(&self, node: &Node, owner: &OwnerReference) -> bool {
        let found = self.nodes.get(&owner.uid);
        found.is_some_and(|found| !found.resource.namespaced || found.namespace == node.namespace)
    }

    /// Every kind has been listed: what has an owner that is not here needs a look.
    pub fn synced(&mut self) -> Vec<Work> {
        if std::mem::replace(&mut self.synced, true) {
            return Vec::new();
        }
        let mut work = Vec::new();
        for (uid, node) in &self.nodes {
            let lost = node
                .owners
                .iter()
                .any(|owner| !self.is_owned_rightly(node, owner));
            if lost || node.foreground {
                work.push(Work::Delete(uid.clone()));
            }
            if node.orphan {
                work.push(Work::Orphan(uid.clone()));
            }
            if node.foreground {
                let dependents = self.dependents.get(uid).into_iter().flatten();
                work.extend(dependents.cloned().map(Work::Delete));
            }
        }
        work
    }

    /// Takes in an object as it is now.
    pub fn put(&mut self, uid: String, node: Node) -> Vec<Work> {
        let old = self.nodes.get(&uid).cloned();
        let mut work = Vec::new();
        let before: &[OwnerReference] = old.as_ref().map_or(&[], |old| &old.owners);
        for owner in before {
            let now = node.reference(&owner.uid);
            if now.is_none() {
                self.unlink(&owner.uid, &uid);
            }
            let blocks = |item: &OwnerReference| item.block_owner_deletion == Some(true);
            if blocks(owner) && !now.is_some_and(blocks) {
                work.extend(self.waiting(&owner.uid));
            }
        }
        for owner in &node.owners {
            if before.iter().any(|item| item.uid == owner.uid) {
                continue;
            }
            let dependents = self.dependents.entry(owner.uid.clone()).or_default();
            dependents.insert(uid.clone());
            if !self.synced {
                continue;
            }
            match self.nodes.get(&owner.uid) {
                Some(found) if found.foreground => work.push(Work::Delete(uid.clone())),
                Some(_) if self.is_owned_rightly(&node, owner) => {}
                _ => work.push(Work::DeleteLater(uid.clone())),
            }
        }
        let newly = |now: bool, was: fn(&Node) -> bool| now && !old.as_ref().is_some_and(was);
        if self.synced && newly(node.orphan, |old| old.orphan) {
            work.push(Work::Orphan(uid.clone()));
        }
        if self.synced && newly(node.foreground, |old| old.foreground) {
            let dependents = self.dependents.get(&uid).into_iter().flatten();
            work.extend(dependents.cloned().map(Work::Delete));
            work.push(Work::Delete(uid.clone()));
        }
        self.nodes.insert(uid, node);
        work
    }

    /// Takes in that an object is gone.
    pub fn gone(&mut self, uid: &str) -> Vec<Work> {
        let mut work = Vec::new();
        if let Some(node) = self.nodes.remove(uid) {
            for owner in &node.owners {
                self.unlink(&owner.uid, uid);
                work.extend(self.waiting(&owner.uid));
            }
        }
        if self.synced {
            let dependents = self.dependents.get(uid).into_iter().flatten();
            work.extend(dependents.cloned().map(Work::Delete));
        }
        work
    }

    /// The uids of a resource, to be dropped with it or compared with a new list.
    #[must_use]
    pub fn of_resource(&self, resource: &Resource) -> Vec<String> {
        let nodes = self.nodes.iter();
        nodes
            .filter(|(_, node)| node.resource.as_ref() == resource)
            .map(|(uid, _)| uid.clone())
            .collect()
    }

    fn waiting(&self, owner: &str) -> Option<Work> {
        let found = self.nodes.get(owner)?;
        (self.synced && found.foreground).then(|| Work::Delete(owner.to_owned()))
    }

    fn unlink(&mut self, owner: &str, uid: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(uid);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}
