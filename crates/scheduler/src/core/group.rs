//! One cycle for a whole group of pods: all that wait are tried one after another, each seeing the
//! others before it as placed; if too few of them fit, nothing of it stays.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_client::{Change, ObjectKey};
use k8s_openapi::api::scheduling::v1beta1::PodGroup;
use tokio::time::Instant;

use super::{About, Action, Asking, Core, Eviction, Nomination, Question, unreserve};
use crate::cycle::{Begun, Decision, begin, decide};
use crate::extenders::Outside;
use crate::framework::{ClusterEvent, CycleState, PluginSet};
use crate::groups::min_count;
use crate::plugins::gang;
use crate::pod::PodInfo;
use crate::profile::Profile;
use crate::queue::Missed;

mod preempt;

/// What a group's status says of its last cycle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupOutcome {
    /// Enough of its pods have been placed.
    pub scheduled: bool,
    /// `Scheduled`, `Unschedulable` or `SchedulerError`.
    pub reason: &'static str,
    /// Why.
    pub message: String,
}

/// A node that was chosen for a pod of the group, while it is not sure that it stays so.
#[derive(Debug)]
struct Place {
    node: Arc<str>,
    state: CycleState,
    wait: Option<Duration>,
    /// The node that had been set aside for the pod.
    nominated: Option<Arc<str>>,
}

/// A pod of the group that was tried.
#[derive(Debug)]
struct Tried {
    pod: Arc<PodInfo>,
    decision: Decision,
    place: Option<Place>,
}

/// The cycle.
#[derive(Debug)]
pub(super) struct GroupCycle {
    key: ObjectKey,
    group: Arc<PodGroup>,
    profile: Arc<Profile>,
    /// So many have to be placed.
    min: usize,
    /// So many are placed, before and in this cycle.
    scheduled: usize,
    left: VecDeque<Arc<PodInfo>>,
    tried: Vec<Tried>,
}

impl GroupCycle {
    /// Why there can't be enough of them any more.
    fn hopeless(&self) -> Option<String> {
        let (min, scheduled, left) = (self.min, self.scheduled, self.left.len());
        (scheduled + left < min).then(|| {
            format!("minCount ({min}) cannot be satisfied: {scheduled} scheduled, {left} remaining")
        })
    }

    fn pods(&self) -> impl Iterator<Item = &Arc<PodInfo>> {
        self.tried.iter().map(|tried| &tried.pod).chain(&self.left)
    }

    fn gang(&self) -> PluginSet {
        let mut set = PluginSet::default();
        let mut names = self.profile.plugins.iter().map(|plugin| plugin.name());
        if let Some(at) = names.position(|name| name == gang::NAME) {
            set.insert(at);
        }
        set
    }
}

fn preempts(pod: &PodInfo) -> bool {
    let policy = pod
        .spec()
        .and_then(|spec| spec.preemption_policy.as_deref());
    policy != Some("Never")
}

/// What all pods of a group must have in common.
fn mismatch(group: &PodGroup, pods: &[Arc<PodInfo>], first: &PodInfo) -> Option<String> {
    let priority = group.spec.priority.unwrap_or(0);
    let policy = |pod: &PodInfo| {
        if preempts(pod) {
            "PreemptLowerPriority"
        } else {
            "Never"
        }
    };
    pods.iter().find_map(|pod| {
        if pod.scheduler_name() != first.scheduler_name() {
            Some(format!(
                "all pods in a single pod group should have the same .spec.schedulerName set, \
                 got: {:?} and {:?}",
                pod.scheduler_name(),
                first.scheduler_name()
            ))
        } else if pod.priority != priority {
            Some(format!(
                "all pods in a single pod group should have the same priority as the pod group's \
                 priority, got {} and {priority}",
                pod.priority
            ))
        } else if preempts(pod) != preempts(first) {
            Some(format!(
                "all pods in a single pod group should have the same preemption policy, got {} \
                 and {}",
                policy(pod),
                policy(first)
            ))
        } else {
            None
        }
    })
}

impl Core {
    /// Says whether the door serves pod groups.
    pub fn serve_groups(&mut self, served: bool) {
        self.snapshot.groups.serve(served);
    }

    /// Takes in a pod group's change.
    pub fn pod_group(&mut self, change: &Change<PodGroup>, now: Instant) {
        let key = &change.key;
        let before = self.snapshot.groups.set(key, change.new.clone());
        let Some(group) = &change.new else {
            self.regroup(key, now);
            return;
        };
        let fewer = before
            .as_deref()
            .is_none_or(|before| min_count(before) > min_count(group));
        if fewer {
            self.regroup(key, now);
            self.queue
                .event(&self.profiles, &ClusterEvent::PodGroup(key), now);
        }
    }

    /// Looks again at the gates of the group's pods.
    fn regroup(&mut self, key: &ObjectKey, now: Instant) {
        let pods: Vec<Arc<PodInfo>> = self.snapshot.groups.waiting(key).cloned().collect();
        for pod in pods {
            self.queue
                .put(&self.profiles, &self.snapshot, pod, false, now);
        }
    }

    /// A pod of a group has come: it may be the one that the others waited for. `before` is how
    /// many there were.
    pub(super) fn joined(&mut self, pod: &PodInfo, before: usize, now: Instant) {
        let Some(key) = pod.group.clone() else {
            return;
        };
        let count = self.snapshot.groups.count(&key);
        let min = self.snapshot.groups.get(&key).map(|group| min_count(group));
        let Some(min) = min.map(|min| min.unwrap_or(1)) else {
            return;
        };
        if before < min && count >= min {
            self.regroup(&key, now);
        }
        if before < count && count >= min {
            self.queue
                .event(&self.profiles, &ClusterEvent::PodGroup(&key), now);
        }
    }

    /// The cycle of the group to which the pod that is next belongs.
    pub(super) fn group_cycle(
        &mut self,
        key: ObjectKey,
        first: Arc<PodInfo>,
        profile: Arc<Profile>,
        now: Instant,
    ) -> Option<Action> {
        let others: Vec<Arc<str>> = self
            .snapshot
            .groups
            .waiting(&key)
            .map(|pod| Arc::clone(&pod.uid))
            .filter(|uid| *uid != first.uid)
            .collect();
        let mut pods = vec![Arc::clone(&first)];
        pods.extend(others.iter().filter_map(|uid| self.queue.take(uid)));
        pods.sort_by(|a, b| {
            let made = |pod: &PodInfo| pod.pod.metadata.creation_timestamp.clone();
            (made(a), &a.key.name).cmp(&(made(b), &b.key.name))
        });
        let group = self.snapshot.groups.get(&key).map(Arc::clone);
        let Some(group) = group else {
            // It was deleted between the queue and here.
            let message = gang::waits(&first, &self.snapshot).unwrap_or_default();
            for pod in pods {
                self.fail(pod, message.clone(), now);
            }
            return self.outbox.pop_front();
        };
        let bound = self.snapshot.groups.placed_of(&key);
        let bound = bound.filter_map(|uid| self.snapshot.assigned(uid));
        let mut all: Vec<Arc<PodInfo>> = bound.map(|(_, pod)| Arc::clone(pod)).collect();
        all.extend(pods.iter().cloned());
        if let Some(message) = mismatch(&group, &all, &first) {
            for pod in pods {
                self.fail(pod, message.clone(), now);
            }
            self.tell_group(group, false, "SchedulerError", message);
            return self.outbox.pop_front();
        }
        let mut cycle = GroupCycle {
            min: min_count(&group).unwrap_or(1),
            scheduled: self.snapshot.groups.placed(&key),
            left: pods.into(),
            tried: Vec::new(),
            key,
            group,
            profile,
        };
        if cycle.gang().is_empty() {
            // The plugin is off: each goes for itself.
            cycle.min = 1;
        }
        self.advance(cycle, now)
    }

    /// Goes on with a cycle that asked the extenders about one of its pods.
    pub(super) fn group_answered(
        &mut self,
        mut cycle: GroupCycle,
        pod: Arc<PodInfo>,
        begun: Begun,
        answer: Result<Outside, String>,
        now: Instant,
    ) -> Option<Action> {
        match answer {
            Ok(outside) => {
                self.try_one(&mut cycle, pod, begun, &outside);
                self.advance(cycle, now)
            }
            Err(error) => {
                let message = format!("failed to schedule other pod from a pod group: {error}");
                self.take_back(&mut cycle);
                self.fail(pod, error, now);
                for pod in cycle.pods() {
                    self.fail(Arc::clone(pod), message.clone(), now);
                }
                self.tell_group(cycle.group, false, "SchedulerError", message);
                self.outbox.pop_front()
            }
        }
    }

    fn advance(&mut self, mut cycle: GroupCycle, now: Instant) -> Option<Action> {
        while cycle.hopeless().is_none() {
            let Some(pod) = cycle.left.pop_front() else {
                break;
            };
            let begun = begin(&cycle.profile, &self.snapshot, &pod, &mut self.turn);
            let profile = &cycle.profile;
            if !self.turn.feasible().is_empty() && profile.extenders.are_interested(&pod.pod) {
                let question = self.question(&pod, profile);
                let group = Some(cycle);
                self.asking = Some(Asking::Nodes { pod, begun, group });
                return Some(Action::Ask(question));
            }
            self.try_one(&mut cycle, pod, begun, &Outside::default());
        }
        let any = cycle.tried.iter().any(|tried| tried.place.is_some());
        if any && cycle.scheduled >= cycle.min {
            self.keep(cycle, now);
        } else {
            self.give_up(cycle, now);
        }
        self.outbox.pop_front()
    }

    pub(super) fn question(&self, pod: &PodInfo, profile: &Profile) -> Question {
        let feasible = self.turn.feasible().iter();
        let nodes = feasible.filter_map(|at| self.snapshot.node(*at).node.clone());
        Question {
            extenders: profile.extenders.clone(),
            pod: Arc::clone(&pod.pod),
            about: About::Nodes(nodes.collect()),
        }
    }

    fn try_one(
        &mut self,
        cycle: &mut GroupCycle,
        pod: Arc<PodInfo>,
        begun: Begun,
        outside: &Outside,
    ) {
        let profile = Arc::clone(&cycle.profile);
        let (mut decision, mut state) = decide(
            &profile,
            &self.snapshot,
            &pod,
            &mut self.turn,
            begun,
            outside,
        );
        let mut place = None;
        if let Some(node) = decision.node.clone() {
            match self.admit(&profile, &pod, &node, &mut state) {
                Ok(wait) => {
                    let nominated = self.snapshot.unnominate(&pod.uid);
                    self.snapshot.add_pod(Arc::clone(&pod), &node);
                    cycle.scheduled += 1;
                    place = Some(Place {
                        node,
                        state,
                        wait,
                        nominated,
                    });
                }
                Err((by, message)) => {
                    decision.node = None;
                    decision.rejected_by = by;
                    decision.whole = Some(message);
                }
            }
        }
        cycle.tried.push(Tried {
            pod,
            decision,
            place,
        });
    }

    /// Enough of them fit: they are bound, and the others wait for themselves.
    fn keep(&mut self, cycle: GroupCycle, now: Instant) {
        let GroupCycle { group, tried, .. } = cycle;
        for Tried {
            pod,
            decision,
            place,
        } in tried
        {
            match place {
                Some(place) => {
                    let node = place.node;
                    self.assumed.insert(Arc::clone(&pod.uid), Arc::clone(&node));
                    self.outbox.push_back(Action::Bind {
                        pod,
                        node,
                        wait: place.wait,
                        state: place.state,
                        decision,
                    });
                }
                None => {
                    let action = self.missed(pod, decision, now);
                    self.outbox.push_back(action);
                }
            }
        }
        self.tell_group(group, true, "Scheduled", String::new());
    }

    /// Everything is as it was before the cycle.
    fn take_back(&mut self, cycle: &mut GroupCycle) {
        for tried in cycle.tried.iter_mut().rev() {
            let Some(mut place) = tried.place.take() else {
                continue;
            };
            unreserve(&cycle.profile, &tried.pod, &place.node, &mut place.state);
            self.snapshot.remove_pod(&tried.pod.uid);
            if let Some(node) = place.nominated {
                self.snapshot.nominate(Arc::clone(&tried.pod), &node);
            }
            tried.decision.node = None;
            // It had a node; what others lacked is not its reason.
            tried.decision.reasons.clear();
            cycle.scheduled -= 1;
        }
    }

    /// Too few of them fit.
    fn give_up(&mut self, mut cycle: GroupCycle, now: Instant) {
        // Where enough are placed already, it is only those that came later that fit nowhere.
        let mut message = cycle
            .hopeless()
            .unwrap_or_else(|| "pod group is unschedulable".to_owned());
        self.take_back(&mut cycle);
        let (rescue, text) = match self.rescue(&cycle) {
            Ok((rescue, text)) => (Some(rescue), text),
            Err(text) => (None, text),
        };
        if !text.is_empty() {
            message = format!("{message}, {text}");
        }
        let mut by = cycle.gang();
        for tried in &cycle.tried {
            for at in tried.decision.rejected_by.iter() {
                by.insert(at);
            }
        }
        let untried = std::mem::take(&mut cycle.left)
            .into_iter()
            .map(|pod| Tried {
                pod,
                decision: Decision {
                    nodes: self.snapshot.len(),
                    ..Decision::default()
                },
                place: None,
            });
        let mut tried: Vec<Tried> = std::mem::take(&mut cycle.tried);
        tried.extend(untried.collect::<Vec<_>>());
        let priority = cycle.group.spec.priority.unwrap_or(0);
        let rescued = rescue.as_ref();
        let mut eviction = rescued.and_then(|rescue| self.eviction(rescue, priority, now));
        let evicting = eviction.is_some();
        for Tried {
            pod, mut decision, ..
        } in tried
        {
            decision.group = Some(message.clone());
            decision.rejected_by = by;
            self.queue
                .missed(&self.profiles, &pod.uid, Missed::Rejected(by), now);
            let node = rescue.as_ref().map(|rescue| rescue.places.get(&pod.uid));
            let nomination = match node {
                Some(Some(node)) => {
                    self.snapshot.nominate(Arc::clone(&pod), node);
                    Nomination::Set(Arc::clone(node))
                }
                Some(None) => Nomination::Keep,
                None if self.snapshot.unnominate(&pod.uid).is_some() => Nomination::Clear,
                None => Nomination::Keep,
            };
            if evicting {
                if eviction.is_some() {
                    self.evicting
                        .insert(Arc::clone(&pod.uid), cycle.key.clone());
                }
                self.queue.hold(&pod.uid);
            } else if rescue.as_ref().is_some_and(|rescue| rescue.is_free()) {
                // Nobody has to go for it after all.
                self.queue.release(&self.profiles, &pod.uid, true, now);
            }
            self.outbox.push_back(Action::Tell {
                message: decision.message(),
                pod,
                decision,
                nomination,
                eviction: eviction.take(),
            });
        }
        self.tell_group(cycle.group, false, "Unschedulable", message);
    }

    /// Whom to ask to go for a group.
    fn eviction(
        &mut self,
        rescue: &preempt::Rescue,
        priority: i32,
        now: Instant,
    ) -> Option<Eviction> {
        let staying = |victim: &&Arc<PodInfo>| victim.pod.metadata.deletion_timestamp.is_none();
        let victims: Vec<Arc<PodInfo>> = rescue.victims.iter().filter(staying).cloned().collect();
        let node = rescue.places.values().next()?;
        if victims.is_empty() {
            return None;
        }
        let mut displaced = Vec::new();
        for node in rescue.places.values() {
            let others = self.snapshot.nominated_to(node).iter();
            let less: Vec<Arc<PodInfo>> = others
                .filter(|other| other.priority < priority)
                .cloned()
                .collect();
            for other in less {
                self.snapshot.unnominate(&other.uid);
                self.queue.wake(&self.profiles, &other.uid, now);
                displaced.push(other);
            }
        }
        Some(Eviction {
            node: Arc::clone(node),
            victims,
            displaced,
        })
    }

    /// The victims of a group's pod have been asked to go: all of the group may be tried again.
    pub(super) fn group_evicted(&mut self, key: &ObjectKey, failed: bool, now: Instant) {
        let pods: Vec<Arc<PodInfo>> = self.snapshot.groups.waiting(key).cloned().collect();
        for pod in pods {
            self.queue.release(&self.profiles, &pod.uid, failed, now);
        }
    }

    fn fail(&mut self, pod: Arc<PodInfo>, message: String, now: Instant) {
        self.queue
            .missed(&self.profiles, &pod.uid, Missed::Failed, now);
        self.outbox.push_back(Action::Failed { pod, message });
    }

    fn tell_group(
        &mut self,
        group: Arc<PodGroup>,
        scheduled: bool,
        reason: &'static str,
        message: String,
    ) {
        let outcome = GroupOutcome {
            scheduled,
            reason,
            message,
        };
        self.outbox.push_back(Action::Group { group, outcome });
    }
}
