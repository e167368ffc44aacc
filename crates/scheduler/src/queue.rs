//! The pods that wait for a node. Pure: time is handed in.
//!
//! *Active* pods are tried next: highest rank first, then first in, first out. A pod that no node
//! takes becomes *unschedulable* until an event that its rejecting plugins find hopeful, or for
//! five minutes; then it is active again, after its back-off if that has not passed. As in the
//! reference, a pod in back-off is taken early when nothing else waits, unless it failed by an
//! error. *Gated* pods wait for a change of their own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::framework::{ClusterEvent, PluginSet};
use crate::pod::PodInfo;
use crate::profile::Profiles;
use crate::snapshot::Snapshot;

/// The first back-off.
pub const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
/// The longest back-off.
pub const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// The longest stay among the unschedulable.
pub const MAX_UNSCHEDULABLE: Duration = Duration::from_secs(5 * 60);

type Sequence = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Active(Reverse<i64>, Sequence),
    Backoff(Instant, Sequence),
    Unschedulable(Instant, Sequence),
    Gated,
    /// Being scheduled or bound.
    Out,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<PodInfo>,
    place: Place,
    /// Tries that ended in a no, for the back-off.
    attempts: u32,
    rejected_by: PluginSet,
    /// When the last try ended.
    since: Instant,
    /// The last try ended in an error of the door or a plugin.
    failed: bool,
    /// Its victims are being evicted: it is not tried again before that has been asked for.
    held: bool,
    /// Something hopeful happened while it was held.
    hopeful: bool,
}

/// How a try ended without a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// These plugins said no.
    Rejected(PluginSet),
    /// Something went wrong, for example the door refused the binding.
    Failed,
}

/// The queue.
#[derive(Debug, Default)]
pub struct Queue {
    entries: HashMap<Arc<str>, Entry>,
    active: BTreeMap<(Reverse<i64>, Sequence), Arc<str>>,
    backoff: BTreeMap<(Instant, Sequence), Arc<str>>,
    unschedulable: BTreeMap<(Instant, Sequence), Arc<str>>,
    sequence: Sequence,
}

/// How many pods are where, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueDepth {
    /// To be tried next.
    pub active: usize,
    /// Waiting out their back-off.
    pub backoff: usize,
    /// Waiting for an event.
    pub unschedulable: usize,
    /// Waiting for their gates.
    pub gated: usize,
}

fn backoff(attempts: u32) -> Duration {
    let factor = 2u32.saturating_pow(attempts.saturating_sub(1).min(16));
    INITIAL_BACKOFF.saturating_mul(factor).min(MAX_BACKOFF)
}

impl Queue {
    fn leave(&mut self, uid: &str) {
        let Some(entry) = self.entries.get_mut(uid) else {
            return;
        };
        match std::mem::replace(&mut entry.place, Place::Out) {
            Place::Active(rank, sequence) => {
                self.active.remove(&(rank, sequence));
            }
            Place::Backoff(at, sequence) => {
                self.backoff.remove(&(at, sequence));
            }
            Place::Unschedulable(at, sequence) => {
                self.unschedulable.remove(&(at, sequence));
            }
            Place::Gated | Place::Out => {}
        }
    }

    fn activate(&mut self, profiles: &Profiles, uid: &Arc<str>) {
        self.leave(uid);
        self.sequence += 1;
        if let Some(entry) = self.entries.get_mut(uid) {
            let rank = Reverse(profiles.rank(&entry.pod));
            entry.place = Place::Active(rank, self.sequence);
            self.active.insert((rank, self.sequence), Arc::clone(uid));
        }
    }

    /// Active, or in back-off while that lasts.
    fn ready(&mut self, profiles: &Profiles, uid: &Arc<str>, now: Instant) {
        let Some(entry) = self.entries.get(uid) else {
            return;
        };
        let until = entry.since + backoff(entry.attempts);
        if entry.attempts == 0 || until <= now {
            self.activate(profiles, uid);
            return;
        }
        self.leave(uid);
        self.sequence += 1;
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.place = Place::Backoff(until, self.sequence);
            self.backoff.insert((until, self.sequence), Arc::clone(uid));
        }
    }

    /// Takes in an unbound pod, new or changed. `changed` says that its specification, labels or
    /// annotations are different, so that a new try makes sense. Returns whether it is gated.
    pub fn put(
        &mut self,
        profiles: &Profiles,
        snapshot: &Snapshot,
        pod: Arc<PodInfo>,
        changed: bool,
        now: Instant,
    ) -> bool {
        let uid = Arc::clone(&pod.uid);
        let gated = profiles.gates(&pod, snapshot);
        let known = self.entries.get_mut(&uid);
        let place = known.as_ref().map(|entry| entry.place);
        match known {
            Some(entry) => entry.pod = pod,
            None => {
                let entry = Entry {
                    pod,
                    place: Place::Out,
                    attempts: 0,
                    rejected_by: PluginSet::default(),
                    since: now,
                    failed: false,
                    held: false,
                    hopeful: false,
                };
                self.entries.insert(Arc::clone(&uid), entry);
            }
        }
        match place {
            Some(Place::Out) => {}
            _ if gated => {
                self.leave(&uid);
                if let Some(entry) = self.entries.get_mut(&uid) {
                    entry.place = Place::Gated;
                }
            }
            None | Some(Place::Gated) => self.activate(profiles, &uid),
            // The rank may have changed.
            Some(Place::Active(rank, _)) => {
                let now_ranked = self
                    .entries
                    .get(&uid)
                    .map(|entry| profiles.rank(&entry.pod));
                if now_ranked != Some(rank.0) {
                    self.activate(profiles, &uid);
                }
            }
            Some(Place::Unschedulable(..)) if changed => self.hope(profiles, &uid, now),
            Some(Place::Backoff(..) | Place::Unschedulable(..)) => {}
        }
        gated
    }

    /// The pod is gone or bound.
    pub fn remove(&mut self, uid: &str) {
        self.leave(uid);
        self.entries.remove(uid);
    }

    /// The next pod to try. It stays known, outside all queues, until [`Queue::missed`] or
    /// [`Queue::remove`].
    pub fn pop(&mut self) -> Option<Arc<PodInfo>> {
        let uid = match self.active.pop_first() {
            Some((_, uid)) => uid,
            None => {
                let early = self
                    .backoff
                    .iter()
                    .find(|(_, uid)| self.entries.get(*uid).is_some_and(|entry| !entry.failed));
                let at = early.map(|(at, _)| *at)?;
                self.backoff.remove(&at)?
            }
        };
        let entry = self.entries.get_mut(&uid)?;
        entry.place = Place::Out;
        Some(Arc::clone(&entry.pod))
    }

    /// Takes a pod out that waits, to be tried with others of its group. It then stays known
    /// outside all queues, as after [`Queue::pop`]. `None` when it is not to be tried now.
    pub fn take(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let entry = self.entries.get(uid)?;
        let waits = matches!(
            entry.place,
            Place::Active(..) | Place::Backoff(..) | Place::Unschedulable(..)
        );
        if !waits || entry.held {
            return None;
        }
        let pod = Arc::clone(&entry.pod);
        self.leave(uid);
        Some(pod)
    }

    /// A try ended without a node.
    pub fn missed(&mut self, profiles: &Profiles, uid: &Arc<str>, why: Missed, now: Instant) {
        self.leave(uid);
        self.sequence += 1;
        let Some(entry) = self.entries.get_mut(uid) else {
            return;
        };
        entry.attempts = entry.attempts.saturating_add(1);
        entry.since = now;
        match why {
            Missed::Rejected(by) => {
                entry.rejected_by = by;
                entry.failed = false;
                let until = now + MAX_UNSCHEDULABLE;
                entry.place = Place::Unschedulable(until, self.sequence);
                self.unschedulable
                    .insert((until, self.sequence), Arc::clone(uid));
            }
            Missed::Failed => {
                entry.rejected_by = PluginSet::default();
                entry.failed = true;
                self.ready(profiles, uid, now);
            }
        }
    }

    /// Something happened: unschedulable pods for which it is hopeful get ready.
    pub fn event(&mut self, profiles: &Profiles, event: &ClusterEvent<'_>, now: Instant) {
        let hopeful: Vec<Arc<str>> = self
            .unschedulable
            .values()
            .filter(|uid| {
                self.entries
                    .get(*uid)
                    .is_some_and(|entry| profiles.hint(entry.rejected_by, &entry.pod, event))
            })
            .cloned()
            .collect();
        for uid in hopeful {
            self.hope(profiles, &uid, now);
        }
    }

    fn hope(&mut self, profiles: &Profiles, uid: &Arc<str>, now: Instant) {
        match self.entries.get_mut(uid) {
            Some(entry) if entry.held => entry.hopeful = true,
            _ => self.ready(profiles, uid, now),
        }
    }

    /// Keeps an unschedulable pod from being tried again until [`Queue::release`].
    pub fn hold(&mut self, uid: &str) {
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.held = true;
            entry.hopeful = false;
        }
    }

    /// Ends a [`Queue::hold`]. What happened meanwhile counts now; with `again` the pod is tried
    /// in any case.
    pub fn release(&mut self, profiles: &Profiles, uid: &Arc<str>, again: bool, now: Instant) {
        let Some(entry) = self.entries.get_mut(uid) else {
            return;
        };
        let hopeful = std::mem::take(&mut entry.hopeful);
        entry.held = false;
        if (hopeful || again) && matches!(entry.place, Place::Unschedulable(..)) {
            self.ready(profiles, uid, now);
        }
    }

    /// Something happened that is about this pod alone.
    pub fn wake(&mut self, profiles: &Profiles, uid: &Arc<str>, now: Instant) {
        let entry = self.entries.get(uid);
        if entry.is_some_and(|entry| matches!(entry.place, Place::Unschedulable(..))) {
            self.hope(profiles, uid, now);
        }
    }

    /// Moves on the pods whose time has come.
    pub fn tick(&mut self, profiles: &Profiles, now: Instant) {
        while let Some((&(at, sequence), uid)) = self.backoff.first_key_value() {
            if at > now {
                break;
            }
            let uid = Arc::clone(uid);
            self.backoff.remove(&(at, sequence));
            self.activate(profiles, &uid);
        }
        while let Some((&(at, sequence), uid)) = self.unschedulable.first_key_value() {
            if at > now {
                break;
            }
            let uid = Arc::clone(uid);
            self.unschedulable.remove(&(at, sequence));
            self.ready(profiles, &uid, now);
        }
    }

    /// When [`Queue::tick`] has something to do next.
    #[must_use]
    pub fn next_tick(&self) -> Option<Instant> {
        let first = |map: &BTreeMap<(Instant, Sequence), Arc<str>>| {
            map.first_key_value().map(|((at, _), _)| *at)
        };
        match (first(&self.backoff), first(&self.unschedulable)) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// The pod as the queue knows it.
    #[must_use]
    pub fn get(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.entries.get(uid).map(|entry| &entry.pod)
    }

    /// How many pods are where.
    #[must_use]
    pub fn depth(&self) -> QueueDepth {
        QueueDepth {
            active: self.active.len(),
            backoff: self.backoff.len(),
            unschedulable: self.unschedulable.len(),
            gated: self
                .entries
                .values()
                .filter(|entry| entry.place == Place::Gated)
                .count(),
        }
    }
}
