//! CPU, memory and OOM figures from a pod's requests and limits, as kubelet computes them.
//!
//! Pure arithmetic; nothing here writes a cgroup.

use std::collections::BTreeMap;

use evenkeel_runtime::Resources;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use crate::pod::model::{PodModel, Role};

/// CPU period in µs.
const PERIOD_US: u64 = 100_000;
/// The smallest quota that the kernel takes, in µs.
const MIN_QUOTA_US: i64 = 1_000;

type List = Option<BTreeMap<String, ApiQuantity>>;

/// Millicores of a resource list's `cpu`.
#[must_use]
pub fn cpu_milli(list: &List) -> Option<i64> {
    parse(list, "cpu").map(|quantity| quantity.milli())
}

/// Bytes of a resource list's `memory`.
#[must_use]
pub fn memory_bytes(list: &List) -> Option<i64> {
    parse(list, "memory").map(|quantity| quantity.units())
}

fn parse(list: &List, name: &str) -> Option<evenkeel_api::quantity::Quantity> {
    list.as_ref()?.get(name)?.0.parse().ok()
}

/// Requests of a container; a limit without a request counts as one.
fn requests(container: &Container) -> (i64, i64) {
    let Some(resources) = &container.resources else {
        return (0, 0);
    };
    (
        cpu_milli(&resources.requests)
            .or_else(|| cpu_milli(&resources.limits))
            .unwrap_or(0),
        memory_bytes(&resources.requests)
            .or_else(|| memory_bytes(&resources.limits))
            .unwrap_or(0),
    )
}

fn limits(container: &Container) -> (Option<i64>, Option<i64>) {
    let Some(resources) = &container.resources else {
        return (None, None);
    };
    (
        cpu_milli(&resources.limits).filter(|milli| *milli > 0),
        memory_bytes(&resources.limits).filter(|bytes| *bytes > 0),
    )
}

/// cgroup v1 shares for millicores.
#[must_use]
pub fn shares(milli: i64) -> u64 {
    u64::try_from(milli.saturating_mul(1024) / 1000)
        .unwrap_or(0)
        .clamp(2, 262_144)
}

/// Quota in µs per period for millicores.
#[must_use]
pub fn quota(milli: i64) -> i64 {
    (milli.saturating_mul(100_000) / 1000).max(MIN_QUOTA_US)
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
#[must_use]
pub fn qos_class(model: &PodModel) -> &'static str {
    let pod_level = model.spec().and_then(|spec| spec.resources.as_ref());
    let mut any = false;
    let mut guaranteed = true;
    let mut weigh = |limits: &List, requests: &List| {
        for name in ["cpu", "memory"] {
            let limit = parse(limits, name).filter(|quantity| !quantity.is_zero());
            let request = parse(requests, name).filter(|quantity| !quantity.is_zero());
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    };
    if let Some(resources) = pod_level {
        weigh(&resources.limits, &resources.requests);
    } else {
        for container in model.with_role(&[Role::Init, Role::Sidecar, Role::App]) {
            match &container.spec.resources {
                Some(resources) => weigh(&resources.limits, &resources.requests),
                None => weigh(&None, &None),
            }
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// `oom_score_adj` of a container on a machine with that much memory.
#[must_use]
pub fn oom_score_adj(model: &PodModel, container: &Container, capacity: i64) -> i32 {
    if model.spec().and_then(|spec| spec.priority).unwrap_or(0) >= 2_000_001_000 {
        return -997;
    }
    match qos_class(model) {
        "Guaranteed" => return -997,
        "BestEffort" => return 1000,
        _ => {}
    }
    let own = adjust(requests(container).1, capacity);
    let sidecar = model
        .container(&container.name)
        .is_some_and(|c| c.role == Role::Sidecar);
    if !sidecar {
        return own;
    }
    // A sidecar is not killed before the containers it serves.
    model
        .with_role(&[Role::App])
        .map(|app| adjust(requests(&app.spec).1, capacity))
        .min()
        .map_or(own, |least| least.min(own))
}

fn adjust(request: i64, capacity: i64) -> i32 {
    let share = i128::from(request) * 1000 / i128::from(capacity.max(1));
    i32::try_from(1000 - share).unwrap_or(3).clamp(3, 999)
}

/// Limits of one container.
#[must_use]
pub fn container_resources(model: &PodModel, container: &Container, capacity: i64) -> Resources {
    let (cpu_request, _) = requests(container);
    let (cpu_limit, memory_limit) = limits(container);
    Resources {
        cpu_shares: Some(shares(cpu_request)),
        cpu_quota: cpu_limit.map(quota),
        cpu_period: cpu_limit.map(|_| PERIOD_US),
        memory_limit,
        pids_limit: None,
        oom_score_adj: Some(oom_score_adj(model, container, capacity)),
    }
}

/// Limits of the pod as a whole.
#[must_use]
pub fn pod_resources(model: &PodModel) -> Resources {
    if qos_class(model) == "BestEffort" {
        return Resources {
            cpu_shares: Some(2),
            ..Resources::default()
        };
    }
    let (cpu_request, cpu_limit, memory_limit) = pod_totals(model);
    Resources {
        cpu_shares: Some(shares(cpu_request)),
        cpu_quota: cpu_limit.map(quota),
        cpu_period: cpu_limit.map(|_| PERIOD_US),
        memory_limit,
        ..Resources::default()
    }
}

/// Request and limits of the pod: apps and sidecars together, or the largest init container with
/// the sidecars before it; a limit holds only when every container has one.
fn pod_totals(model: &PodModel) -> (i64, Option<i64>, Option<i64>) {
    let mut request = 0;
    let mut limit = (Some(0), Some(0));
    let mut sidecar_request = 0;
    let mut sidecar_limit = (0, 0);
    let mut init_request = 0;
    let mut init_limit = (0, 0);
    for container in model.with_role(&[Role::Init, Role::Sidecar, Role::App]) {
        let own = requests(&container.spec).0;
        let (cpu, memory) = limits(&container.spec);
        let known = (cpu.unwrap_or(0), memory.unwrap_or(0));
        if cpu.is_none() {
            limit.0 = None;
        }
        if memory.is_none() {
            limit.1 = None;
        }
        if container.role == Role::Init {
            init_request = init_request.max(sidecar_request + own);
            init_limit.0 = init_limit.0.max(sidecar_limit.0 + known.0);
            init_limit.1 = init_limit.1.max(sidecar_limit.1 + known.1);
            continue;
        }
        if container.role == Role::Sidecar {
            sidecar_request += own;
            sidecar_limit = (sidecar_limit.0 + known.0, sidecar_limit.1 + known.1);
        }
        request += own;
        limit = (
            limit.0.map(|sum| sum + known.0),
            limit.1.map(|sum| sum + known.1),
        );
    }
    let mut totals = (
        request.max(init_request),
        limit.0.map(|sum: i64| sum.max(init_limit.0)),
        limit.1.map(|sum: i64| sum.max(init_limit.1)),
    );
    if let Some(resources) = model
        .spec()
        .and_then(|spec: &PodSpec| spec.resources.as_ref())
    {
        totals.0 = cpu_milli(&resources.requests).unwrap_or(totals.0);
        totals.1 = cpu_milli(&resources.limits).or(totals.1);
        totals.2 = memory_bytes(&resources.limits).or(totals.2);
    }
    totals
}
