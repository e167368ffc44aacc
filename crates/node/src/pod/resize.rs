//! In-place resize (KEP-1287): what a pod asks for now, what the node has granted, and what its
//! containers have.
//!
//! Everything else of the agent sees the pod with what was *granted* in place of what it asks for
//! ([`with`]): requests, limits, classes and statuses follow by themselves. Nothing is kept on
//! disk: what containers have is in the pod's status, from which a new agent goes on, and what the
//! pod asks for beyond that is judged again.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_api::quantity::Quantity;
use evenkeel_runtime::Resources;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;
use serde_json::json;

use super::model::PodModel;
use crate::context::Context;
use crate::spec::resources::{container_resources, pod_resources};

/// A resize that waits for room is judged again so often.
pub const AGAIN: SignedDuration = SignedDuration::from_secs(5);
/// A resize that could not be carried out is tried again after that.
pub const RETRY: SignedDuration = SignedDuration::from_secs(10);
/// What can be resized.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// The name that the resources of the pod as a whole have in an allocation.
pub const WHOLE: &str = "";

/// The resources of containers by name, and of the pod as a whole.
pub type Allocation = BTreeMap<String, ResourceRequirements>;

/// A resize that is not granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// `Deferred` or `Infeasible`.
    pub reason: &'static str,
    /// Why.
    pub message: String,
    /// The pod's generation that asks for it.
    pub generation: Option<i64>,
    /// When it is judged again; `None`: when the pod changes.
    pub again: Option<Timestamp>,
}

/// What is known of a pod's resizes.
#[derive(Debug, Clone, Default)]
pub struct Resize {
    /// Not granted.
    pub pending: Option<Pending>,
    /// Granted and not carried out yet.
    pub progress: Option<Progress>,
    /// By container: its id and what it has, while that is not what was granted.
    pub stale: BTreeMap<String, (String, ResourceRequirements)>,
}

/// A resize under way.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// The pod's generation that asked for it.
    pub generation: Option<i64>,
    /// The pod's limits before.
    pub before: Resources,
    /// What was set for the pod as a whole before.
    pub whole: Option<ResourceRequirements>,
    /// The pod's own limits, and those of containers that need no restart, are set.
    pub limits_set: bool,
    /// What went wrong, and when it is tried again.
    pub error: Option<(String, Timestamp)>,
}

/// Containers that can be resized.
fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| {
        let init = spec.init_containers.iter().flatten();
        init.chain(&spec.containers)
    })
}

/// What a pod asks for.
#[must_use]
pub fn asked(pod: &Pod) -> Allocation {
    let each = containers(pod).map(|container| {
        let resources = container.resources.clone().unwrap_or_default();
        (container.name.clone(), resources)
    });
    let whole = pod.spec.as_ref().and_then(|spec| spec.resources.clone());
    each.chain(whole.map(|whole| (WHOLE.to_owned(), whole)))
        .collect()
}

/// What a pod has by its status, as far as its containers run; otherwise what it asks for.
#[must_use]
pub fn shown(pod: &Pod) -> Allocation {
    let mut all = asked(pod);
    let Some(status) = &pod.status else {
        return all;
    };
    let statuses = status.container_statuses.iter().flatten();
    let mut some_run = false;
    for one in statuses.chain(status.init_container_statuses.iter().flatten()) {
        let runs = one.state.as_ref().is_some_and(|it| it.running.is_some());
        some_run |= runs;
        let (Some(have), Some(asks)) = (&one.resources, all.get_mut(&one.name)) else {
            continue;
        };
        if runs {
            take_over(asks, have);
        }
    }
    let have = status.resources.as_ref().filter(|_| some_run);
    if let (Some(have), Some(asks)) = (have, all.get_mut(WHOLE)) {
        take_over(asks, have);
    }
    all
}

/// Puts what there is in place of what is asked for, as far as it can be resized.
fn take_over(asks: &mut ResourceRequirements, have: &ResourceRequirements) {
    for (asks, have) in [
        (&mut asks.requests, &have.requests),
        (&mut asks.limits, &have.limits),
    ] {
        for name in RESIZABLE {
            let value = have.as_ref().and_then(|list| list.get(name)).cloned();
            match value {
                Some(value) => {
                    let list = asks.get_or_insert_with(BTreeMap::new);
                    list.insert(name.to_owned(), value);
                }
                None => {
                    if let Some(list) = asks {
                        list.remove(name);
                    }
                }
            }
        }
    }
}

/// Are two wishes the same, whatever the way they are written?
#[must_use]
pub fn same(one: &ResourceRequirements, other: &ResourceRequirements) -> bool {
    !changes(one, other, "cpu") && !changes(one, other, "memory")
}

/// Does a resource differ?
#[must_use]
pub fn changes(one: &ResourceRequirements, other: &ResourceRequirements, name: &str) -> bool {
    let value = |list: &Option<BTreeMap<String, Written>>| {
        let text = &list.as_ref()?.get(name)?.0;
        text.parse::<Quantity>().ok()
    };
    value(&one.requests) != value(&other.requests) || value(&one.limits) != value(&other.limits)
}

/// Are two allocations the same?
#[must_use]
pub fn all_same(one: &Allocation, other: &Allocation) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .all(|(name, mine)| other.get(name).is_some_and(|its| same(mine, its)))
}

/// The pod with what was granted in place of what it asks for.
#[must_use]
pub fn with(pod: &Arc<Pod>, granted: &Allocation) -> Arc<Pod> {
    if all_same(&asked(pod), granted) {
        return Arc::clone(pod);
    }
    let mut changed = (**pod).clone();
    if let Some(spec) = &mut changed.spec {
        spec.resources = granted.get(WHOLE).cloned();
        let init = spec.init_containers.iter_mut().flatten();
        for container in init.chain(&mut spec.containers) {
            if let Some(resources) = granted.get(&container.name) {
                container.resources = Some(resources.clone());
            }
        }
    }
    Arc::new(changed)
}

/// Must the container be started anew to have other resources?
#[must_use]
pub fn restarts(container: &Container, before: &ResourceRequirements) -> bool {
    let now = container.resources.clone().unwrap_or_default();
    let mut policies = container.resize_policy.iter().flatten();
    policies.any(|policy| {
        policy.restart_policy == "RestartContainer" && changes(&now, before, &policy.resource_name)
    })
}

/// What events say of a pod's resize, as kubelet: a sentence and the wishes in JSON.
#[must_use]
pub fn told(pod: &Pod, what: &str, error: &str) -> String {
    let list = |all: Option<&Vec<Container>>| -> Vec<serde_json::Value> {
        let each = all.into_iter().flatten();
        each.map(
            |it| json!({"name": it.name, "resources": it.resources.clone().unwrap_or_default()}),
        )
        .collect()
    };
    let spec = pod.spec.as_ref();
    let init = list(spec.and_then(|spec| spec.init_containers.as_ref()));
    let mut summary = json!({
        "containers": list(spec.map(|spec| &spec.containers)),
        "generation": pod.metadata.generation.unwrap_or_default(),
    });
    if !init.is_empty() {
        summary["initContainers"] = init.into();
    }
    if !error.is_empty() {
        summary["error"] = error.into();
    }
    format!("{what}: {summary}")
}

/// Limits in which what is not limited is said to be so: an update takes a missing one as
/// unchanged.
fn explicit(resources: Resources) -> Resources {
    Resources {
        cpu_quota: Some(resources.cpu_quota.unwrap_or(-1)),
        cpu_period: Some(resources.cpu_period.unwrap_or(100_000)),
        memory_limit: Some(resources.memory_limit.unwrap_or(-1)),
        oom_score_adj: None,
        pids_limit: None,
        ..resources
    }
}

/// What both limits fit into.
fn wider(one: &Resources, other: &Resources) -> Resources {
    let larger = |a: Option<i64>, b: Option<i64>| match (a, b) {
        (Some(a), Some(b)) if a > 0 && b > 0 => Some(a.max(b)),
        _ => None,
    };
    explicit(Resources {
        cpu_shares: one.cpu_shares.max(other.cpu_shares),
        cpu_quota: larger(one.cpu_quota, other.cpu_quota),
        memory_limit: larger(one.memory_limit, other.memory_limit),
        ..Resources::default()
    })
}

/// What the running containers of a pod use together, in bytes.
async fn memory_usage(
    context: &Context,
    model: &PodModel,
) -> Result<i64, evenkeel_runtime::RuntimeError> {
    let observed = context.view.observed(model.uid());
    let mut sum = 0i64;
    for container in &model.containers {
        let latest = observed.latest(container.name());
        let running = latest.filter(|it| it.state == evenkeel_runtime::ContainerState::Running);
        if let Some(running) = running {
            let stats = context.config.runtime.container_stats(&running.id).await?;
            let usage = i64::try_from(stats.memory_usage).unwrap_or(i64::MAX);
            sum = sum.saturating_add(usage);
        }
    }
    Ok(sum)
}

/// Gives containers (name and id) what was granted: the pod first has room for both, and at last
/// for no more than is granted.
///
/// # Errors
/// What the runtime says, or that a container uses more memory than it is to have.
pub async fn carry_out(
    context: &Context,
    model: &PodModel,
    before: &Resources,
    sandbox: &str,
    updates: &[(String, String)],
) -> Result<(), String> {
    let runtime = &context.config.runtime;
    let said = |error: evenkeel_runtime::RuntimeError| super::pull::error_chain(&error);
    let capacity = context.machine.memory;
    let mut wanted = Vec::new();
    for (name, id) in updates {
        let Some(container) = model.container(name) else {
            continue;
        };
        let resources = explicit(container_resources(model, &container.spec, capacity));
        if let Some(limit) = resources.memory_limit.filter(|limit| *limit > 0) {
            let usage = runtime
                .container_stats(id)
                .await
                .map_err(said)?
                .memory_usage;
            // It would be killed at once.
            if i64::try_from(usage).unwrap_or(i64::MAX) >= limit {
                return Err(format!(
                    "cannot decrease memory limits: attempting to set container {name:?} memory \
                     limit ({limit}) below current usage ({usage})"
                ));
            }
        }
        wanted.push((id, resources));
    }
    let after = explicit(pod_resources(model));
    if let Some(limit) = after.memory_limit.filter(|limit| *limit > 0)
        && before.memory_limit.is_none_or(|before| limit < before)
        && model.spec().is_some_and(|spec| spec.resources.is_some())
    {
        // Containers without limits of their own share the pod's.
        let usage = memory_usage(context, model).await.map_err(said)?;
        if usage >= limit {
            return Err(format!(
                "cannot decrease memory limits: attempting to set pod memory limit ({limit}) \
                 below current usage ({usage})"
            ));
        }
    }
    let both = wider(before, &pod_resources(model));
    runtime.update_sandbox(sandbox, &both).await.map_err(said)?;
    for (id, resources) in wanted {
        runtime
            .update_resources(id, &resources)
            .await
            .map_err(said)?;
    }
    runtime.update_sandbox(sandbox, &after).await.map_err(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(cpu: &str, more: serde_json::Value) -> Arc<Pod> {
        let mut pod = json!({
            "metadata": {"name": "p", "generation": 3},
            "spec": {"containers": [{"name": "a", "image": "i",
                "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"},
                    {"resourceName": "memory", "restartPolicy": "RestartContainer"}],
                "resources": {"requests": {"cpu": cpu, "memory": "64Mi"},
                    "limits": {"cpu": "2"}}}]},
        });
        if !more.is_null() {
            pod["status"] = more;
        }
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    #[test]
    fn what_was_granted_stands_in_for_what_is_asked() {
        let first = pod("1", json!(null));
        let granted = asked(&first);
        let second = pod("1500m", json!(null));
        assert!(!all_same(&asked(&second), &granted));
        let seen = with(&second, &granted);
        assert!(all_same(&asked(&seen), &granted));
        assert_eq!(seen.metadata.generation, Some(3));
        // Another way to write the same is no change.
        assert!(all_same(&asked(&pod("1000m", json!(null))), &granted));
    }

    #[test]
    fn a_new_agent_goes_on_from_the_status() {
        let resources = json!({"requests": {"cpu": "1", "memory": "64Mi"}});
        let status = |state: serde_json::Value| {
            json!({"containerStatuses": [{"name": "a", "image": "i", "imageID": "", "ready": true,
                "restartCount": 0, "state": state, "resources": resources}]})
        };
        let running = pod("2", status(json!({"running": {}})));
        let has = shown(&running);
        assert_eq!(has["a"].requests.as_ref().expect("some")["cpu"].0, "1");
        assert!(
            has["a"]
                .limits
                .as_ref()
                .is_none_or(|it| !it.contains_key("cpu"))
        );
        // What the pod as a whole has goes on likewise.
        let mut whole = (*running).clone();
        whole.spec.as_mut().expect("a spec").resources =
            Some(serde_json::from_value(json!({"limits": {"cpu": "3"}})).expect("resources"));
        whole.status.as_mut().expect("a status").resources =
            Some(serde_json::from_value(json!({"limits": {"cpu": "2"}})).expect("resources"));
        let has = shown(&whole);
        assert_eq!(has[WHOLE].limits.as_ref().expect("some")["cpu"].0, "2");
        let ended = pod("2", status(json!({"terminated": {"exitCode": 0}})));
        assert!(all_same(&shown(&ended), &asked(&ended)));
    }

    #[test]
    fn a_restart_is_needed_where_the_policy_says_so() {
        let pod = pod("1", json!(null));
        let container = &pod.spec.as_ref().expect("a spec").containers[0];
        let mut before = container.resources.clone().expect("some");
        assert!(!restarts(container, &before));
        let list = before.requests.as_mut().expect("some");
        list.insert(
            "cpu".to_owned(),
            serde_json::from_value(json!("2")).expect("a quantity"),
        );
        assert!(!restarts(container, &before));
        let list = before.requests.as_mut().expect("some");
        list.insert(
            "memory".to_owned(),
            serde_json::from_value(json!("1Gi")).expect("one"),
        );
        assert!(restarts(container, &before));
    }

    #[test]
    fn the_pod_has_room_for_both_in_between() {
        let limits = |quota: Option<i64>, memory: Option<i64>| Resources {
            cpu_quota: quota,
            memory_limit: memory,
            ..Resources::default()
        };
        let both = wider(&limits(Some(10), Some(5)), &limits(Some(20), Some(3)));
        assert_eq!((both.cpu_quota, both.memory_limit), (Some(20), Some(5)));
        let both = wider(&limits(None, Some(5)), &limits(Some(20), None));
        assert_eq!((both.cpu_quota, both.memory_limit), (Some(-1), Some(-1)));
    }
}
