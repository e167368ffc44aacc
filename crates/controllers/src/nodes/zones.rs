//! How fast pods may be driven from silent nodes: by zone, as the reference does it. Pure.
//!
//! Many nodes that fall silent at once say more of the network in between than of the nodes.
//! Taking their pods away then would make it worse, so the more of a zone is silent the slower
//! nodes are given up, and none at all where nobody answers anywhere.

use std::collections::{BTreeMap, HashMap};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;

use super::health;
use crate::claim;

/// Between two nodes of a zone that are given up (`--node-eviction-rate` 0.1 a second).
const USUAL: SignedDuration = SignedDuration::from_secs(10);
/// Where most of a large zone is silent (`--secondary-node-eviction-rate` 0.01 a second).
const SLOW: SignedDuration = SignedDuration::from_secs(100);
/// A zone with no more nodes than this gives up none of them then (`--large-cluster-size-threshold`).
const LARGE: usize = 50;
/// Percent of a zone's nodes that are silent in a disruption (`--unhealthy-zone-threshold` 0.55).
const THRESHOLD: usize = 55;

/// How a zone is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nearly all nodes answer.
    Normal,
    /// Most do not.
    Partial,
    /// None does.
    Full,
}

/// The nodes of one zone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Nodes whose condition Ready is True.
    pub ready: usize,
    /// All others.
    pub not_ready: usize,
}

impl Count {
    /// What these numbers say.
    #[must_use]
    pub fn state(self) -> State {
        let all = self.ready + self.not_ready;
        match (self.ready, self.not_ready) {
            (0, 1..) => State::Full,
            (_, 3..) if self.not_ready * 100 >= THRESHOLD * all => State::Partial,
            _ => State::Normal,
        }
    }
}

/// The zone of a node; those without labels are one zone together.
#[must_use]
pub fn zone_of(node: &Node) -> String {
    let labels = claim::labels(&node.metadata);
    let label = |name: &str| labels.get(name).map_or("", String::as_str);
    let (region, zone) = (
        label("topology.kubernetes.io/region"),
        label("topology.kubernetes.io/zone"),
    );
    format!("{region}/{zone}")
}

/// All zones at one moment.
#[derive(Debug, Clone, Default)]
pub struct Zones(BTreeMap<String, Count>);

impl Zones {
    /// Counts nodes.
    pub fn of<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Self {
        let mut zones: BTreeMap<String, Count> = BTreeMap::new();
        for node in nodes {
            let count = zones.entry(zone_of(node)).or_default();
            match health::state(node, "Ready") {
                Some("True") => count.ready += 1,
                _ => count.not_ready += 1,
            }
        }
        Self(zones)
    }

    /// Nobody answers anywhere: nothing can be said of any node.
    #[must_use]
    pub fn all_are_silent(&self) -> bool {
        !self.0.is_empty() && self.0.values().all(|count| count.state() == State::Full)
    }

    /// The time between two nodes of this zone that are given up; `None`: none is.
    #[must_use]
    pub fn pace(&self, zone: &str) -> Option<SignedDuration> {
        if self.all_are_silent() {
            return None;
        }
        let count = self.0.get(zone).copied().unwrap_or_default();
        match count.state() {
            // Others answer, so this zone is really gone.
            State::Normal | State::Full => Some(USUAL),
            State::Partial if count.ready + count.not_ready > LARGE => Some(SLOW),
            State::Partial => None,
        }
    }
}

/// When the last node of each zone was given up.
#[derive(Debug, Default)]
pub struct Pacer(HashMap<String, Timestamp>);

impl Pacer {
    /// Whether a node of this zone may be given up now; if so, it is noted.
    pub fn may(&mut self, zones: &Zones, zone: &str, now: Timestamp) -> bool {
        let Some(pace) = zones.pace(zone) else {
            return false;
        };
        let last = self.0.get(zone);
        if last.is_some_and(|last| now.duration_since(*last) < pace) {
            return false;
        }
        self.0.insert(zone.to_owned(), now);
        true
    }
}

/// What may be done about the pods of a node that does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They are driven away.
    GiveUp,
    /// Not yet.
    Wait,
    /// Nobody answers, so that nobody is driven away, also who was to be.
    Spare,
}
