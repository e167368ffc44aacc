//! Questions of what would be: could the pod run on a node if some pods left it, or came?
//!
//! Works on a copy of one node and on the cycle's prepared state, which is put right again after
//! each question. Nothing here changes the snapshot.

use std::sync::Arc;

use crate::framework::{Adjustment, CycleState, PluginIndex, PluginSet, Rejection};
use crate::pod::PodInfo;
use crate::profile::Profile;
use crate::snapshot::{NodeInfo, Snapshot};

/// One cycle's pod, and what its plugins have prepared.
#[derive(Debug)]
pub struct WhatIf<'a> {
    /// The plugins.
    pub profile: &'a Profile,
    /// The cluster as it is.
    pub snapshot: &'a Snapshot,
    /// The pod.
    pub pod: &'a PodInfo,
    pub(crate) state: &'a mut CycleState,
    pub(crate) skipped: PluginSet,
}

impl WhatIf<'_> {
    fn adjust(&mut self, node: &NodeInfo, other: &PodInfo, amount: i64) {
        let what = Adjustment {
            pod: self.pod,
            other,
            node,
            snapshot: self.snapshot,
        };
        for (at, plugin) in &self.profile.pre_filter {
            if !self.skipped.contains(*at) {
                plugin.adjust(self.state, &what, amount);
            }
        }
    }

    /// As if a pod were on the node.
    pub fn come(&mut self, node: &mut NodeInfo, other: &Arc<PodInfo>) {
        node.take_in(other);
        self.adjust(node, other, 1);
    }

    /// As if a pod were not on the node.
    pub fn go(&mut self, node: &mut NodeInfo, other: &Arc<PodInfo>) {
        node.let_go(other);
        self.adjust(node, other, -1);
    }

    /// Puts the prepared state right after pods of a copied node have gone.
    pub fn restore(&mut self, node: &NodeInfo, gone: &[Arc<PodInfo>]) {
        for other in gone {
            self.adjust(node, other, 1);
        }
    }

    /// Which plugin keeps the pod off the node, as things are on it.
    #[must_use]
    pub fn rejected(&self, node: &NodeInfo) -> Option<(PluginIndex, &'static str, Rejection)> {
        let mut filters = self.profile.filter.iter();
        filters.find_map(|(at, plugin)| {
            if self.skipped.contains(*at) {
                return None;
            }
            let why = plugin.filter(self.state, self.pod, node)?;
            Some((*at, plugin.name(), why))
        })
    }

    /// The same, also with the pods of at least its priority for which the node is set aside:
    /// the pod must fit both when they come and when they do not, for either may be.
    #[must_use]
    pub fn rejected_with_nominated(
        &mut self,
        node: &NodeInfo,
    ) -> Option<(PluginIndex, &'static str, Rejection)> {
        let snapshot = self.snapshot;
        let others: Vec<&Arc<PodInfo>> = snapshot
            .nominated_to(&node.name)
            .iter()
            .filter(|other| other.priority >= self.pod.priority && other.uid != self.pod.uid)
            .collect();
        if !others.is_empty() {
            let mut full = node.clone();
            for other in &others {
                self.come(&mut full, other);
            }
            let rejected = self.rejected(&full);
            for other in &others {
                self.go(&mut full, other);
            }
            if rejected.is_some() {
                return rejected;
            }
        }
        self.rejected(node)
    }
}
