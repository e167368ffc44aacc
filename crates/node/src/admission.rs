//! Admission by the node: a pod that did not come through the scheduler, or met another on the
//! way, and that does not fit is rejected before anything of it is made.
//!
//! The rules and the words are kubelet's (`pkg/kubelet/lifecycle/predicate.go`). A pod that was
//! admitted holds what it asks for until it has stopped; one that ran before the agent started is
//! not asked again.

use std::collections::{BTreeMap, HashMap};

use evenkeel_api::kinds::pod_requests;
use evenkeel_api::placement::HostPort;
use evenkeel_api::quantity::Quantity;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

/// What is shared out among pods, in the order in which kubelet looks.
const SHARED: [Shared; 3] = [
    ("cpu", "OutOfcpu"),
    ("memory", "OutOfmemory"),
    ("ephemeral-storage", "OutOfephemeral-storage"),
];

/// A resource, and the reason of a pod for which too little is left.
type Shared = (&'static str, &'static str);

/// What the node has for pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    /// Pods at most.
    pub pods: i64,
    /// Thousandths of a processor.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub storage: i64,
}

impl Capacity {
    fn of(&self, resource: &str) -> i64 {
        match resource {
            "cpu" => self.milli_cpu,
            "memory" => self.memory,
            _ => self.storage,
        }
    }
}

/// Why a pod may not run here, as its status and event say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// `OutOfcpu`, `NodePorts`, …
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
}

impl Rejection {
    fn predicate(name: &'static str, description: &str) -> Self {
        Self {
            reason: name,
            message: format!("Predicate {name} failed: {description}"),
        }
    }

    fn short_of((resource, reason): Shared, requested: i64, used: i64, capacity: i64) -> Self {
        Self {
            reason,
            message: format!(
                "Node didn't have enough resource: {resource}, requested: {requested}, used: \
                 {used}, capacity: {capacity}"
            ),
        }
    }

    /// Devices can't be given to the pod.
    #[must_use]
    pub fn unexpected(why: String) -> Self {
        Self {
            reason: "UnexpectedAdmissionError",
            message: format!("Allocate failed due to {why}, which is unexpected"),
        }
    }

    /// The pod requires another node.
    #[must_use]
    pub fn elsewhere() -> Self {
        Self::predicate(
            "NodeAffinity",
            "node(s) didn't match Pod's node affinity/selector",
        )
    }
}

/// What one admitted pod holds.
#[derive(Debug, Default)]
struct Holding {
    /// One for each of [`SHARED`].
    amounts: [i64; 3],
    ports: Vec<HostPort>,
}

impl Holding {
    fn of(pod: &Pod) -> Self {
        let requests = serde_json::to_value(pod).map(|pod| pod_requests(&pod));
        let requests = requests.unwrap_or_default();
        Self {
            amounts: SHARED.map(|(name, _)| amount(&requests, name)),
            ports: pod.spec.as_ref().map(HostPort::all).unwrap_or_default(),
        }
    }
}

fn amount(requests: &BTreeMap<String, Quantity>, name: &str) -> i64 {
    let of = |quantity: &Quantity| match name {
        "cpu" => quantity.milli(),
        _ => quantity.units(),
    };
    requests.get(name).map_or(0, of)
}

/// The admitted pods of a node, by UID.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<HashMap<String, Holding>>);

impl Ledger {
    /// Admits a pod that fits beside those admitted before; one that `ran` already is admitted
    /// as it is, and one that was admitted holds what it asks for now.
    ///
    /// # Errors
    /// What it does not fit for.
    pub fn admit(
        &self,
        uid: &str,
        pod: &Pod,
        capacity: &Capacity,
        ran: bool,
    ) -> Result<(), Rejection> {
        let holding = Holding::of(pod);
        let mut held = self.0.lock();
        let known = ran || held.contains_key(uid);
        if !known && let Some(rejection) = check(&holding, &held, capacity) {
            return Err(rejection);
        }
        held.insert(uid.to_owned(), holding);
        Ok(())
    }

    /// Lets a pod that was admitted hold what it asks for now, if that fits.
    ///
    /// # Errors
    /// `Infeasible` when the node would never have enough, `Deferred` when it has not now; and
    /// the sentence.
    pub fn resize(
        &self,
        uid: &str,
        pod: &Pod,
        capacity: &Capacity,
    ) -> Result<(), (&'static str, String)> {
        let wanted = Holding::of(pod);
        let mut held = self.0.lock();
        for (at, (resource, _)) in SHARED.into_iter().enumerate() {
            let (requested, whole) = (wanted.amounts[at], capacity.of(resource));
            if requested > whole {
                return Err((
                    "Infeasible",
                    format!(
                        "Node didn't have enough capacity: {resource}, requested: {requested}, \
                         capacity: {whole}"
                    ),
                ));
            }
        }
        let before = held.remove(uid);
        // Its ports are its own, and it is no other pod than it was.
        let asks = Holding {
            amounts: wanted.amounts,
            ports: Vec::new(),
        };
        if let Some(rejection) = check(&asks, &held, capacity) {
            held.extend(before.map(|before| (uid.to_owned(), before)));
            return Err(("Deferred", rejection.message));
        }
        held.insert(uid.to_owned(), wanted);
        Ok(())
    }

    /// What the pod held is free.
    pub fn release(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

fn check(
    wanted: &Holding,
    held: &HashMap<String, Holding>,
    capacity: &Capacity,
) -> Option<Rejection> {
    let pods = i64::try_from(held.len()).unwrap_or(i64::MAX);
    if pods >= capacity.pods {
        return Some(Rejection::short_of(
            ("pods", "OutOfpods"),
            1,
            pods,
            capacity.pods,
        ));
    }
    for (at, shared) in SHARED.into_iter().enumerate() {
        let requested = wanted.amounts[at];
        let used: i64 = held.values().map(|holding| holding.amounts[at]).sum();
        let whole = capacity.of(shared.0);
        if requested > 0 && requested > whole - used {
            return Some(Rejection::short_of(shared, requested, used, whole));
        }
    }
    let taken = |port: &HostPort| {
        let mut others = held.values().flat_map(|holding| &holding.ports);
        others.any(|other| other.conflicts(port))
    };
    wanted.ports.iter().any(taken).then(|| {
        Rejection::predicate(
            "NodePorts",
            "node(s) didn't have free ports for the requested pod ports",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn asking(cpu: &str, port: i32) -> Pod {
        pod(json!({"containers": [{
            "name": "a", "ports": [{"containerPort": 80, "hostPort": port}],
            "resources": {"requests": {"cpu": cpu}},
        }]}))
    }

    const CAPACITY: Capacity = Capacity {
        pods: 3,
        milli_cpu: 1000,
        memory: 1 << 30,
        storage: 1 << 30,
    };

    #[test]
    fn a_port_is_held_until_its_pod_has_stopped() {
        let ledger = Ledger::default();
        ledger
            .admit("a", &asking("100m", 8080), &CAPACITY, false)
            .unwrap();
        let refused = ledger.admit("b", &asking("100m", 8080), &CAPACITY, false);
        let refused = refused.unwrap_err();
        assert_eq!(refused.reason, "NodePorts");
        assert_eq!(
            refused.message,
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
        );
        ledger.release("a");
        ledger
            .admit("b", &asking("100m", 8080), &CAPACITY, false)
            .unwrap();
    }

    #[test]
    fn a_resize_waits_for_room_and_never_for_a_larger_node() {
        let ledger = Ledger::default();
        for (uid, port) in [("a", 1), ("b", 2)] {
            let pod = asking("400m", port);
            ledger.admit(uid, &pod, &CAPACITY, false).unwrap();
        }
        let resize = |cpu: &str| ledger.resize("a", &asking(cpu, 1), &CAPACITY);
        assert_eq!(
            resize("2"),
            Err((
                "Infeasible",
                "Node didn't have enough capacity: cpu, requested: 2000, capacity: 1000".to_owned()
            ))
        );
        assert_eq!(
            resize("700m"),
            Err((
                "Deferred",
                "Node didn't have enough resource: cpu, requested: 700, used: 400, capacity: 1000"
                    .to_owned()
            ))
        );
        assert_eq!(resize("600m"), Ok(()));
        let refused = ledger.admit("c", &asking("1m", 3), &CAPACITY, false);
        assert_eq!(refused.unwrap_err().reason, "OutOfcpu");
        ledger.release("b");
        assert_eq!(resize("700m"), Ok(()));
    }

    #[test]
    fn what_is_short_is_told_with_its_figures() {
        let ledger = Ledger::default();
        ledger
            .admit("a", &asking("600m", 1), &CAPACITY, false)
            .unwrap();
        let refused = ledger.admit("b", &asking("500m", 2), &CAPACITY, false);
        let refused = refused.unwrap_err();
        assert_eq!(refused.reason, "OutOfcpu");
        assert_eq!(
            refused.message,
            "Node didn't have enough resource: cpu, requested: 500, used: 600, capacity: 1000"
        );
        // One that ran before the agent started stays.
        ledger
            .admit("b", &asking("500m", 2), &CAPACITY, true)
            .unwrap();
        ledger
            .admit("c", &pod(json!({"containers": []})), &CAPACITY, false)
            .unwrap();
        let refused = ledger.admit("d", &pod(json!({"containers": []})), &CAPACITY, false);
        assert_eq!(refused.unwrap_err().reason, "OutOfpods");
    }
}
