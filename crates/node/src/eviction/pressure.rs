//! A node that runs short: which conditions it shows, and which pod goes first. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use evenkeel_api::quantity::{Format, Quantity};
use jiff::{SignedDuration, Timestamp};

use super::thresholds::{Signal, Threshold, Thresholds};
use crate::pod::model::{ContainerModel, PodModel, Role};

/// A condition holds at least this long after its signal was last seen, so that it does not flap.
const TRANSITION: SignedDuration = SignedDuration::from_mins(5);

/// What is left and what there is of everything measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Signals {
    /// Memory, bytes.
    pub memory: Option<(i64, i64)>,
    /// The agent's file system, bytes.
    pub disk: Option<(i64, i64)>,
    /// Its inodes.
    pub inodes: Option<(i64, i64)>,
}

impl Signals {
    /// Left and capacity of a signal.
    #[must_use]
    pub fn of(&self, signal: Signal) -> Option<(i64, i64)> {
        match signal {
            Signal::MemoryAvailable => self.memory,
            Signal::ImageFsAvailable | Signal::NodeFsAvailable => self.disk,
            Signal::NodeFsInodesFree => self.inodes,
        }
    }
}

/// When the node was last seen to be short.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pressure {
    memory: Option<Timestamp>,
    disk: Option<Timestamp>,
}

impl Pressure {
    /// Notes what is short now; answers the thresholds that are met, the most urgent first.
    pub fn observe(
        &mut self,
        thresholds: &Thresholds,
        signals: &Signals,
        now: Timestamp,
    ) -> Vec<Threshold> {
        let met: Vec<Threshold> = thresholds
            .iter()
            .filter(|threshold| threshold.is_met(signals))
            .cloned()
            .collect();
        for threshold in &met {
            if threshold.signal.is_disk() {
                self.disk = Some(now);
            } else {
                self.memory = Some(now);
            }
        }
        met
    }

    /// Does `MemoryPressure` hold?
    #[must_use]
    pub fn memory(&self, now: Timestamp) -> bool {
        holds(self.memory, now)
    }

    /// Does `DiskPressure` hold?
    #[must_use]
    pub fn disk(&self, now: Timestamp) -> bool {
        holds(self.disk, now)
    }
}

fn holds(seen: Option<Timestamp>, now: Timestamp) -> bool {
    seen.is_some_and(|seen| now.duration_since(seen) < TRANSITION)
}

/// A pod that may have to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its UID.
    pub uid: String,
    priority: i32,
    /// Use and request of each container.
    containers: BTreeMap<String, (u64, i64)>,
    /// Use that belongs to no container.
    extra: u64,
}

impl Candidate {
    /// A pod with what its containers use, and what else it does.
    #[must_use]
    pub fn new(model: &PodModel, used: BTreeMap<String, u64>, extra: u64, disk: bool) -> Self {
        let resource = if disk { "ephemeral-storage" } else { "memory" };
        let request = |container: &ContainerModel| -> Option<i64> {
            let requests = container.spec.resources.as_ref()?.requests.as_ref()?;
            let quantity: Quantity = requests.get(resource)?.0.parse().ok()?;
            Some(quantity.units())
        };
        let containers = model
            .with_role(&[Role::App, Role::Sidecar])
            .map(|container| {
                let name = container.name().to_owned();
                let used = used.get(&name).copied().unwrap_or(0);
                let request = request(container).unwrap_or(0);
                (name, (used, request))
            })
            .collect();
        Self {
            uid: model.uid().to_owned(),
            priority: model.spec().and_then(|spec| spec.priority).unwrap_or(0),
            containers,
            extra,
        }
    }

    fn used(&self) -> i128 {
        let containers: u64 = self.containers.values().map(|(used, _)| used).sum();
        i128::from(containers) + i128::from(self.extra)
    }

    fn requested(&self) -> i128 {
        let requests = self.containers.values();
        requests.map(|(_, request)| i128::from(*request)).sum()
    }

    /// Use above the request; negative below it.
    fn excess(&self) -> i128 {
        self.used() - self.requested()
    }
}

/// The pods in the order in which they go: those above their request first, then by priority,
/// then by how far above they are. For inodes, which nobody requests, only priority and use count.
#[must_use]
pub fn ranked(signal: Signal, mut pods: Vec<Candidate>) -> Vec<Candidate> {
    let by_request = signal != Signal::NodeFsInodesFree;
    pods.sort_by_key(|pod| {
        (
            Reverse(by_request && pod.excess() > 0),
            pod.priority,
            Reverse(pod.excess()),
        )
    });
    pods
}

fn bytes(count: u64) -> Quantity {
    Quantity::from_units(i64::try_from(count).unwrap_or(i64::MAX), Format::BinarySi)
}

/// What the evicted pod's status says.
#[must_use]
pub fn message(threshold: &Threshold, signals: &Signals, pod: &Candidate) -> String {
    let resource = threshold.signal.resource();
    let mut text = format!("The node was low on resource: {resource}. ");
    if let Some((left, capacity)) = signals.of(threshold.signal) {
        let least = Quantity::from_units(threshold.least(capacity), Format::BinarySi);
        let left = Quantity::from_units(left, Format::BinarySi);
        text.push_str(&format!("Threshold quantity: {least}, available: {left}. "));
    }
    if threshold.signal == Signal::NodeFsInodesFree {
        return text;
    }
    for (name, (used, request)) in &pod.containers {
        if i128::from(*used) > i128::from(*request) {
            let used = bytes(*used);
            let request = Quantity::from_units(*request, Format::BinarySi);
            text.push_str(&format!(
                "Container {name} was using {used}, request is {request}, has larger \
                 consumption of {resource}. "
            ));
        }
    }
    text
}
