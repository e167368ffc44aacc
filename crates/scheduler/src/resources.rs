//! Amounts of resources as the scheduler counts them, and what a pod asks for.
//!
//! Plain integers (millicores, bytes, whole units) instead of quantities: a cycle adds and
//! compares them for every node. The sums follow `k8s.io/component-helpers/resource`. What never
//! lives here: limits, quality of service, anything about nodes.

use std::collections::BTreeMap;

use evenkeel_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

/// CPU that a container without a request counts for when nodes are scored, in millicores.
pub const DEFAULT_MILLI_CPU: i64 = 100;
/// Memory that a container without a request counts for when nodes are scored, in bytes.
pub const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts of each resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPU in millicores.
    pub milli_cpu: i64,
    /// Memory in bytes.
    pub memory: i64,
    /// Ephemeral storage in bytes.
    pub ephemeral_storage: i64,
    /// Extended resources and huge pages in units, ordered by name.
    pub scalar: Vec<(Box<str>, i64)>,
}

/// Extended resources, huge pages and attachable volumes are counted by name; other unknown names
/// are not counted at all, as in the reference.
fn is_scalar(name: &str) -> bool {
    name.contains('/') || name.starts_with("hugepages-") || name.starts_with("attachable-volumes-")
}

impl Resources {
    /// Reads a resource list; unreadable amounts count as absent, the door has validated them.
    #[must_use]
    pub fn read(list: Option<&BTreeMap<String, Text>>) -> Self {
        let mut read = Self::default();
        for (name, text) in list.into_iter().flatten() {
            let Ok(amount) = text.0.parse::<Quantity>() else {
                continue;
            };
            match name.as_str() {
                "cpu" => read.milli_cpu = amount.milli(),
                "memory" => read.memory = amount.units(),
                "ephemeral-storage" => read.ephemeral_storage = amount.units(),
                // The map is ordered by name already.
                name if is_scalar(name) => read.scalar.push((name.into(), amount.units())),
                _ => {}
            }
        }
        read
    }

    /// The amount of a scalar resource, 0 when absent.
    #[must_use]
    pub fn scalar(&self, name: &str) -> i64 {
        self.scalar
            .binary_search_by(|(known, _)| known.as_ref().cmp(name))
            .map_or(0, |at| self.scalar[at].1)
    }

    /// Nothing at all?
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.milli_cpu == 0
            && self.memory == 0
            && self.ephemeral_storage == 0
            && self.scalar.iter().all(|(_, amount)| *amount == 0)
    }

    fn merge(&mut self, other: &Self, with: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral_storage = with(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.scalar {
            match self.scalar.binary_search_by(|(known, _)| known.cmp(name)) {
                Ok(at) => self.scalar[at].1 = with(self.scalar[at].1, *amount),
                Err(at) => self.scalar.insert(at, (name.clone(), with(0, *amount))),
            }
        }
    }

    /// Adds.
    pub fn add(&mut self, other: &Self) {
        self.merge(other, i64::saturating_add);
    }

    /// Takes away.
    pub fn subtract(&mut self, other: &Self) {
        self.merge(other, i64::saturating_sub);
        self.scalar.retain(|(_, amount)| *amount != 0);
    }

    /// Keeps the larger of each.
    pub fn raise(&mut self, other: &Self) {
        self.merge(other, i64::max);
    }
}

/// What a pod takes from a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodRequests {
    /// As requested: what the node must have free.
    pub exact: Resources,
    /// CPU for scoring, in millicores, where a container without a request counts for
    /// [`DEFAULT_MILLI_CPU`].
    pub scored_milli_cpu: i64,
    /// Memory for scoring, in bytes, likewise with [`DEFAULT_MEMORY`].
    pub scored_memory: i64,
}

/// A container's request: while it is resized in place, the larger of what is wanted, allocated
/// and actual, so that a node is never promised twice.
fn of_container(
    container: &Container,
    statuses: Option<&Vec<ContainerStatus>>,
    infeasible: bool,
) -> (Resources, bool, bool) {
    let requests = container
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.as_ref());
    let mut amount = Resources::read(requests);
    let has = |name: &str| requests.is_some_and(|list| list.contains_key(name));
    let status = statuses
        .into_iter()
        .flatten()
        .find(|status| status.name == container.name);
    if let Some(status) = status {
        let allocated = status.allocated_resources.as_ref();
        let actual = status
            .resources
            .as_ref()
            .and_then(|resources| resources.requests.as_ref());
        if infeasible && allocated.is_some() {
            amount = Resources::default();
        }
        amount.raise(&Resources::read(allocated));
        amount.raise(&Resources::read(actual));
    }
    (amount, has("cpu"), has("memory"))
}

fn aggregate(spec: &PodSpec, each: impl Fn(&Container) -> Resources) -> Resources {
    let mut sum = Resources::default();
    for container in &spec.containers {
        sum.add(&each(container));
    }
    let mut sidecars = Resources::default();
    let mut peak = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut running = each(container);
        if container.restart_policy.as_deref() == Some("Always") {
            // A sidecar runs beside everything that starts after it.
            sum.add(&running);
            sidecars.add(&running);
            running = sidecars.clone();
        } else {
            running.add(&sidecars);
        }
        peak.raise(&running);
    }
    sum.raise(&peak);
    sum
}

/// What a pod asks for: containers, sidecars, the peak of its init containers, pod-level requests
/// (which take the place of the sum) and overhead.
#[must_use]
pub fn pod_requests(pod: &Pod) -> PodRequests {
    let Some(spec) = &pod.spec else {
        return PodRequests::default();
    };
    let status = pod.status.as_ref();
    let statuses = |init: bool| {
        status.and_then(|status| {
            if init {
                status.init_container_statuses.as_ref()
            } else {
                status.container_statuses.as_ref()
            }
        })
    };
    let infeasible = status
        .and_then(|status| status.conditions.as_ref())
        .into_iter()
        .flatten()
        .any(|condition| {
            condition.type_ == "PodResizePending"
                && condition.reason.as_deref() == Some("Infeasible")
        });
    let is_init = |container: &Container| {
        spec.init_containers
            .iter()
            .flatten()
            .any(|init| std::ptr::eq(init, container))
    };
    let read =
        |container: &Container| of_container(container, statuses(is_init(container)), infeasible);
    let mut exact = aggregate(spec, |container| read(container).0);
    let scored = aggregate(spec, |container| {
        let (amount, has_cpu, has_memory) = read(container);
        Resources {
            milli_cpu: if has_cpu {
                amount.milli_cpu
            } else {
                DEFAULT_MILLI_CPU
            },
            memory: if has_memory {
                amount.memory
            } else {
                DEFAULT_MEMORY
            },
            ..Resources::default()
        }
    });
    let (mut scored_milli_cpu, mut scored_memory) = (scored.milli_cpu, scored.memory);
    let whole = spec
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.as_ref());
    if let Some(list) = whole {
        let mut level = Resources::read(Some(list));
        // While it is resized, the larger of what is wanted, allocated and actual, likewise.
        let allocated = status.and_then(|status| status.allocated_resources.as_ref());
        let actual = status.and_then(|status| status.resources.as_ref());
        let actual = actual.and_then(|actual| actual.requests.as_ref());
        if infeasible && allocated.is_some() {
            level = Resources::default();
        }
        for known in [allocated, actual].into_iter().flatten() {
            level.raise(&Resources::read(Some(known)));
        }
        if list.contains_key("cpu") {
            exact.milli_cpu = level.milli_cpu;
            scored_milli_cpu = level.milli_cpu;
        }
        if list.contains_key("memory") {
            exact.memory = level.memory;
            scored_memory = level.memory;
        }
        for (name, amount) in level.scalar {
            match exact.scalar.binary_search_by(|(known, _)| known.cmp(&name)) {
                Ok(at) => exact.scalar[at].1 = amount,
                Err(at) => exact.scalar.insert(at, (name, amount)),
            }
        }
    }
    let overhead = Resources::read(spec.overhead.as_ref());
    exact.add(&overhead);
    PodRequests {
        exact,
        scored_milli_cpu: scored_milli_cpu.saturating_add(overhead.milli_cpu),
        scored_memory: scored_memory.saturating_add(overhead.memory),
    }
}
