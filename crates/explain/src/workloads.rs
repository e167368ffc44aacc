//! Stateful sets, disruption budgets, nodes that are drained and namespaces that go. Pure.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Event, NamespaceCondition, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::chain::Chain;

/// Explains a stateful set; `cause` is the chain of its first pod that is not healthy.
pub(crate) fn stateful_set(set: &StatefulSet, events: &[Event], cause: Option<Chain>) -> Chain {
    let mut chain = Chain::default();
    let meta = &set.metadata;
    let (namespace, name) = (
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default(),
    );
    let this = format!("StatefulSet {namespace}/{name}");
    let wanted = set.spec.replicas.unwrap_or(1);
    let status = set.status.clone().unwrap_or_default();
    let ready = status.ready_replicas.unwrap_or(0);
    chain.link(&this, format!("has {ready} of {wanted} replicas ready"));
    if status.replicas > wanted {
        chain.link(
            &this,
            format!(
                "is going down from {} to {wanted}, the last one first",
                status.replicas
            ),
        );
        chain.step(format!(
            "wait, and look again: kubectl get pods -n {namespace} -w"
        ));
    }
    if ready < wanted {
        if status.replicas < wanted
            && set.spec.pod_management_policy.as_deref() != Some("Parallel")
            && cause.is_some()
        {
            chain.link(
                &this,
                "brings its pods up in order: the next waits for the one before",
            );
        }
        let warnings = events
            .iter()
            .filter(|event| event.type_.as_deref() == Some("Warning"));
        let last = warnings.max_by_key(|event| event.last_timestamp.as_ref().map(|at| at.0));
        if let Some(event) = last.filter(|_| cause.is_none()) {
            chain.link(&this, event.message.clone().unwrap_or_default());
            chain.step("correct the pod template, or what refuses its pods or claims");
        }
        if let Some(cause) = cause {
            chain.follow(cause);
        }
        if chain.next.is_empty() {
            chain.step("wait, and look again: its pods are being made");
        }
    }
    chain
}

fn allows(budget: &PodDisruptionBudget) -> i32 {
    budget
        .status
        .as_ref()
        .and_then(|status| status.disruptions_allowed)
        .unwrap_or(0)
}

/// Explains a disruption budget; `cause` is the chain of its first pod that is not healthy.
pub(crate) fn budget(budget: &PodDisruptionBudget, cause: Option<Chain>) -> Chain {
    let mut chain = Chain::default();
    let meta = &budget.metadata;
    let this = format!(
        "PodDisruptionBudget {}/{}",
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default()
    );
    let status = budget.status.clone().unwrap_or_default();
    let allowed = allows(budget);
    if allowed > 0 {
        chain.link(this, format!("allows {allowed} evictions now"));
        return chain;
    }
    let (healthy, expected, desired) = (
        status.current_healthy.unwrap_or(0),
        status.expected_pods.unwrap_or(0),
        status.desired_healthy.unwrap_or(0),
    );
    chain.link(
        &this,
        format!(
            "allows no eviction: {healthy} of {expected} pods are healthy, and {desired} have to be"
        ),
    );
    if expected == 0 {
        chain.link(&this, "its selector matches no pods");
        chain.step("make the selector match the labels of the pods it is to protect");
    } else if desired >= expected {
        chain.link(
            &this,
            "asks for as many healthy pods as there are, so none may ever go",
        );
        chain.step("add replicas, or lower minAvailable (raise maxUnavailable) of the budget");
    } else if let Some(cause) = cause {
        chain.follow(cause);
    } else {
        chain.step("wait for its pods to become ready: kubectl get pods -w");
    }
    chain
}

/// Adds the budgets that keep pods on a node that takes no new ones.
pub(crate) fn drain(chain: &mut Chain, pods: &[Pod], budgets: &[PodDisruptionBudget]) {
    for pod in pods {
        let ends = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        if matches!(ends, Some("Succeeded" | "Failed")) {
            continue;
        }
        let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        for budget in budgets {
            let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            let wanted = selector.and_then(|selector| selector.match_labels.as_ref());
            let selects = wanted.is_some_and(|wanted| {
                wanted
                    .iter()
                    .all(|(key, value)| labels.get(key) == Some(value))
            });
            if budget.metadata.namespace != *namespace || !selects || allows(budget) > 0 {
                continue;
            }
            let (namespace, budget) = (
                namespace.as_deref().unwrap_or_default(),
                budget.metadata.name.as_deref().unwrap_or_default(),
            );
            chain.link(
                format!("Pod {namespace}/{}", name.as_deref().unwrap_or_default()),
                format!("can't be evicted: budget {budget} allows no disruption"),
            );
            chain.step(format!("evenkeel why pdb/{budget} -n {namespace}"));
        }
    }
}

/// Adds what a condition says is left of a namespace, and what helps.
pub(crate) fn remains(
    chain: &mut Chain,
    this: &str,
    namespace: &str,
    condition: &NamespaceCondition,
) {
    let message = condition.message.clone().unwrap_or_default();
    chain.link(this, message.as_str());
    match condition.type_.as_str() {
        "NamespaceFinalizersRemaining" => chain.step(format!(
            "see whether the owners of these finalizers are running; what they hold: kubectl get \
             ALL-OF-THE-KIND -n {namespace} -o yaml"
        )),
        "NamespaceDeletionDiscoveryFailure" => {
            chain.step("see which API does not answer: kubectl get apiservices");
        }
        "NamespaceDeletionContentFailure" | "NamespaceDeletionGroupVersionParsingFailure" => {
            chain.step("remove what the message names by hand; its deletion was refused");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn a_budget(status: Value) -> PodDisruptionBudget {
        serde_json::from_value(json!({"metadata": {"name": "b", "namespace": "d"},
            "spec": {"selector": {"matchLabels": {"app": "a"}}}, "status": status}))
        .expect("a budget")
    }

    #[test]
    fn a_budget_that_blocks_says_by_what_arithmetic() {
        let status = |healthy: i32, desired: i32, allowed: i32| {
            json!({"currentHealthy": healthy, "desiredHealthy": desired, "expectedPods": 3,
                "disruptionsAllowed": allowed})
        };
        assert!(budget(&a_budget(status(3, 2, 1)), None).is_healthy());
        let strict = budget(&a_budget(status(3, 3, 0)), None).to_string();
        assert!(strict.contains("none may ever go") && strict.contains("lower minAvailable"));
        let mut cause = Chain::default();
        cause.link("Pod d/a", "is not ready");
        cause.step("mend it");
        let told = budget(&a_budget(status(2, 2, 0)), Some(cause)).to_string();
        assert!(
            told.contains("2 of 3 pods are healthy") && told.contains("next: mend it"),
            "{told}"
        );
    }

    #[test]
    fn a_drained_node_names_the_budgets_it_waits_for() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "d",
            "labels": {"app": "a"}}, "status": {"phase": "Running"}}))
        .expect("a pod");
        let mut chain = Chain::default();
        drain(
            &mut chain,
            &[pod],
            &[a_budget(json!({"currentHealthy": 1, "desiredHealthy": 1,
            "expectedPods": 1, "disruptionsAllowed": 0}))],
        );
        let told = chain.to_string();
        assert!(
            told.contains("Pod d/p: can't be evicted: budget b allows no disruption"),
            "{told}"
        );
        assert!(told.contains("evenkeel why pdb/b -n d"), "{told}");
    }
}
