//! Who has to go for a group that fits nowhere.
//!
//! As in the reference, with the whole cluster as one domain: all less important pods are thought
//! away, the group is placed, and as many as possible are let back, those first whose eviction would
//! break a disruption budget, the most important first. A group that goes as one is let back as one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use evenkeel_client::ObjectKey;
use jiff::Timestamp;

use super::{Core, GroupCycle, preempts};
use crate::cycle::{begin, decide, first_taker};
use crate::extenders::Outside;
use crate::groups::goes_as_one;
use crate::plugins::preemption::{by_budget, is_leaving_by_preemption, started};
use crate::pod::PodInfo;

use super::super::unreserve;

/// How a group can be placed.
#[derive(Debug, Default)]
pub(super) struct Rescue {
    /// Where its pods will go, by uid.
    pub(super) places: BTreeMap<Arc<str>, Arc<str>>,
    /// Who has to go for that.
    pub(super) victims: Vec<Arc<PodInfo>>,
    /// Its victims have been asked already.
    under_way: bool,
}

impl Rescue {
    /// Nobody has to go.
    pub(super) fn is_free(&self) -> bool {
        !self.under_way && self.victims.is_empty()
    }
}

/// What goes or stays as one.
struct Unit {
    pods: Vec<(Arc<PodInfo>, Arc<str>)>,
    is_group: bool,
}

impl Unit {
    fn importance(&self) -> (Reverse<i32>, Reverse<bool>, Reverse<usize>, Timestamp) {
        let priority = self.pods.iter().map(|(pod, _)| pod.priority).max();
        let since = self.pods.iter().map(|(pod, _)| started(pod)).min();
        (
            Reverse(priority.unwrap_or(i32::MIN)),
            Reverse(self.is_group),
            Reverse(self.pods.len()),
            since.unwrap_or(Timestamp::MAX),
        )
    }

    fn has_terms(&self) -> bool {
        self.pods.iter().any(|(pod, _)| pod.terms.is_some())
    }
}

/// Does the pod look at more than the node it goes to?
fn looks_around(pod: &PodInfo) -> bool {
    let spread = pod
        .spec()
        .and_then(|spec| spec.topology_spread_constraints.as_ref());
    pod.terms.is_some() || !pod.claims.is_empty() || spread.is_some_and(|list| !list.is_empty())
}

impl Core {
    /// Looks for a way, and what is to be said of it. Leaves everything as it was.
    pub(super) fn rescue(&mut self, cycle: &GroupCycle) -> Result<(Rescue, String), String> {
        if !cycle.profile.preempts() {
            return Err(String::new());
        }
        if cycle.pods().any(|pod| !preempts(pod)) {
            return Err("not eligible due to preemptionPolicy=Never.".to_owned());
        }
        let priority = cycle.group.spec.priority.unwrap_or(0);
        if let Some(places) = self.under_way(cycle, priority) {
            let rescue = Rescue {
                places,
                under_way: true,
                ..Rescue::default()
            };
            return Ok((rescue, "ongoing preemption on nominated nodes".to_owned()));
        }
        let mut units = self.units(&cycle.key, priority);
        if units.is_empty() {
            return Err("No preemption victims found for incoming preemptor".to_owned());
        }
        units.sort_by_key(Unit::importance);
        for unit in &units {
            for (pod, _) in &unit.pods {
                self.snapshot.remove_pod(&pod.uid);
            }
        }
        // They are placed anew: what was set aside for them counts no more.
        let nominated: Vec<(Arc<PodInfo>, Arc<str>)> = cycle
            .pods()
            .filter_map(|pod| Some((Arc::clone(pod), self.snapshot.unnominate(&pod.uid)?)))
            .collect();
        let placed = self.place_all(cycle);
        let result = match placed {
            Ok(members) => {
                let victims = self.let_back(cycle, &members, units);
                for (pod, _) in &members {
                    self.snapshot.remove_pod(&pod.uid);
                }
                self.put_back(&victims);
                let victims = victims.into_iter().flat_map(|unit| unit.pods);
                let victims: Vec<Arc<PodInfo>> = victims.map(|(pod, _)| pod).collect();
                let text = format!(
                    "found a placement for podgroup, preempting {} victims",
                    victims.len()
                );
                let places = members.iter();
                let places = places.map(|(pod, node)| (Arc::clone(&pod.uid), Arc::clone(node)));
                let rescue = Rescue {
                    places: places.collect(),
                    victims,
                    under_way: false,
                };
                Ok((rescue, text))
            }
            Err(text) => {
                self.put_back(&units);
                Err(text)
            }
        };
        for (pod, node) in nominated {
            self.snapshot.nominate(pod, &node);
        }
        result
    }

    fn put_back(&mut self, units: &[Unit]) {
        for unit in units {
            for (pod, node) in &unit.pods {
                self.snapshot.add_pod(Arc::clone(pod), node);
            }
        }
    }

    /// Where the group's pods are to go once those leave that have been asked to.
    fn under_way(&self, cycle: &GroupCycle, priority: i32) -> Option<BTreeMap<Arc<str>, Arc<str>>> {
        let mut places = BTreeMap::new();
        for pod in cycle.pods() {
            if let Some(node) = self.snapshot.nomination(&pod.uid) {
                places.insert(Arc::clone(&pod.uid), Arc::clone(node));
            }
        }
        let nodes: BTreeSet<&Arc<str>> = places.values().collect();
        let leaving = nodes.into_iter().any(|name| {
            let node = self.snapshot.find(name).map(|at| self.snapshot.node(at));
            let mut pods = node.into_iter().flat_map(|node| &node.pods);
            pods.any(|pod| pod.priority < priority && is_leaving_by_preemption(&pod.pod))
        });
        leaving.then_some(places)
    }

    /// All that are less important, those of a group that goes as one together.
    fn units(&self, own: &ObjectKey, priority: i32) -> Vec<Unit> {
        let mut singles = Vec::new();
        let mut groups: HashMap<&ObjectKey, Unit> = HashMap::new();
        for at in self.snapshot.order() {
            let node = self.snapshot.node(*at);
            for pod in &node.pods {
                if pod.priority >= priority || pod.group.as_ref() == Some(own) {
                    continue;
                }
                let of = (Arc::clone(pod), Arc::clone(&node.name));
                let group = pod.group.as_ref().filter(|key| {
                    let group = self.snapshot.groups.get(key);
                    group.is_some_and(|group| goes_as_one(group))
                });
                let unit = |is_group| Unit {
                    pods: Vec::new(),
                    is_group,
                };
                match group {
                    Some(key) => groups
                        .entry(key)
                        .or_insert_with(|| unit(true))
                        .pods
                        .push(of),
                    None => {
                        let mut single = unit(false);
                        single.pods.push(of);
                        singles.push(single);
                    }
                }
            }
        }
        singles.extend(groups.into_values());
        singles
    }

    /// Places the group in what is left. The pods stay counted where they are placed if there are
    /// enough of them.
    #[allow(clippy::type_complexity, reason = "pods and their nodes")]
    fn place_all(&mut self, cycle: &GroupCycle) -> Result<Vec<(Arc<PodInfo>, Arc<str>)>, String> {
        let pods: Vec<Arc<PodInfo>> = cycle.pods().cloned().collect();
        let profile = &cycle.profile;
        let mut placed = Vec::new();
        for pod in pods {
            let begun = begin(profile, &self.snapshot, &pod, &mut self.turn);
            let (decision, mut state) = decide(
                profile,
                &self.snapshot,
                &pod,
                &mut self.turn,
                begun,
                &Outside::default(),
            );
            let Some(node) = decision.node else {
                continue;
            };
            if self.admit(profile, &pod, &node, &mut state).is_ok() {
                self.snapshot.add_pod(Arc::clone(&pod), &node);
                placed.push((pod, node, state));
            }
        }
        // What plugins set aside is not theirs to keep: leaving pods free no devices and volumes.
        for (pod, node, state) in placed.iter_mut().rev() {
            unreserve(profile, pod, node, state);
        }
        let placed: Vec<(Arc<PodInfo>, Arc<str>)> = placed
            .into_iter()
            .map(|(pod, node, _)| (pod, node))
            .collect();
        let scheduled = cycle.scheduled + placed.len();
        if placed.is_empty() || scheduled < cycle.min {
            for (pod, _) in &placed {
                self.snapshot.remove_pod(&pod.uid);
            }
            return Err(format!(
                "minCount ({}) cannot be satisfied: {scheduled} scheduled, 0 remaining",
                cycle.min
            ));
        }
        Ok(placed)
    }

    /// Lets back whoever leaves the group its places; answers with the others.
    fn let_back(
        &mut self,
        cycle: &GroupCycle,
        members: &[(Arc<PodInfo>, Arc<str>)],
        units: Vec<Unit>,
    ) -> Vec<Unit> {
        let all = units.iter().flat_map(|unit| &unit.pods);
        let all = all.map(|(pod, _)| Arc::clone(pod)).collect();
        let (breaking, _) = by_budget(&self.snapshot, all);
        let breaking: HashSet<Arc<str>> = breaking.iter().map(|pod| Arc::clone(&pod.uid)).collect();
        let (first, then): (Vec<Unit>, Vec<Unit>) = units.into_iter().partition(|unit| {
            let mut pods = unit.pods.iter();
            pods.any(|(pod, _)| breaking.contains(&pod.uid))
        });
        let around = members.iter().any(|(pod, _)| looks_around(pod));
        let mut victims = Vec::new();
        for unit in first.into_iter().chain(then) {
            for (pod, node) in &unit.pods {
                self.snapshot.add_pod(Arc::clone(pod), node);
            }
            let everywhere = around || unit.has_terms();
            let nodes: BTreeSet<&Arc<str>> = unit.pods.iter().map(|(_, node)| node).collect();
            let touched: Vec<&(Arc<PodInfo>, Arc<str>)> = members
                .iter()
                .filter(|(_, node)| everywhere || nodes.contains(node))
                .collect();
            if !self.still_fit(cycle, &touched) {
                for (pod, _) in &unit.pods {
                    self.snapshot.remove_pod(&pod.uid);
                }
                victims.push(unit);
            }
        }
        victims.sort_by_key(Unit::importance);
        victims
    }

    /// Do the pods fit where they are, one after another?
    fn still_fit(&mut self, cycle: &GroupCycle, members: &[&(Arc<PodInfo>, Arc<str>)]) -> bool {
        for (pod, _) in members {
            self.snapshot.remove_pod(&pod.uid);
        }
        let mut fit = true;
        for (pod, node) in members {
            fit = fit
                && self.snapshot.find(node).is_some_and(|at| {
                    first_taker(&cycle.profile, &self.snapshot, pod, &[at]).is_some()
                });
            self.snapshot.add_pod(Arc::clone(pod), node);
        }
        fit
    }
}
