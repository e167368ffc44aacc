//! Plugins by tables, from the statements of the reference's documentation.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::objects::{node, node_with, pod, pod_with};
use crate::cycle::{Decision, Turn, feasible_nodes_to_find, schedule_one};
use crate::plugins::default_placement;
use crate::pod::PodInfo;
use crate::resources::pod_requests;
use crate::snapshot::Snapshot;

/// What is decided for a pod, given nodes and the pods on them.
pub(crate) fn decide(nodes: &[Node], bound: &[(Pod, &str)], pod: Pod) -> Decision {
    let mut snapshot = Snapshot::default();
    for node in nodes {
        snapshot.set_node(&Arc::new(node.clone()));
    }
    for (pod, node) in bound {
        snapshot.add_pod(Arc::new(PodInfo::new(Arc::new(pod.clone()))), node);
    }
    let info = PodInfo::new(Arc::new(pod));
    schedule_one(&default_placement(), &snapshot, &info, &mut Turn::new(7)).0
}

fn placed(decision: &Decision) -> Option<&str> {
    decision.node.as_deref()
}

fn tainted(key: &str, value: &str, effect: &str) -> Node {
    let taint = json!({"key": key, "value": value, "effect": effect});
    node_with("n", 1000, 1024, &json!({"spec": {"taints": [taint]}}))
}

#[test]
fn without_nodes() {
    let decision = decide(&[], &[], pod("web", 1));
    assert_eq!(decision.filtered(), "no nodes available to schedule pods");
}

#[test]
fn taints_and_tolerations() {
    let tolerating =
        |toleration: Value| pod_with("web", 1, &json!({"spec": {"tolerations": [toleration]}}));
    let rows: &[(&str, Value, bool)] = &[
        (
            "equal",
            json!({"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}),
            true,
        ),
        (
            "equal is the default",
            json!({"key": "k", "value": "v", "effect": "NoSchedule"}),
            true,
        ),
        (
            "exists",
            json!({"key": "k", "operator": "Exists", "effect": "NoSchedule"}),
            true,
        ),
        (
            "every effect",
            json!({"key": "k", "operator": "Exists"}),
            true,
        ),
        ("everything", json!({"operator": "Exists"}), true),
        (
            "other value",
            json!({"key": "k", "operator": "Equal", "value": "w", "effect": "NoSchedule"}),
            false,
        ),
        (
            "other key",
            json!({"key": "l", "operator": "Exists", "effect": "NoSchedule"}),
            false,
        ),
        (
            "other effect",
            json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}),
            false,
        ),
    ];
    for (what, toleration, fits) in rows {
        let node = tainted("k", "v", "NoSchedule");
        let decision = decide(&[node], &[], tolerating(toleration.clone()));
        assert_eq!(decision.node.is_some(), *fits, "{what}");
    }
    let decision = decide(&[tainted("k", "v", "NoExecute")], &[], pod("web", 1));
    assert_eq!(
        decision.message(),
        "0/1 nodes are available: 1 node(s) had untolerated taint(s). no new claims to \
         deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for \
         scheduling."
    );
}

#[test]
fn prefer_no_schedule_only_prefers() {
    let soft = tainted("k", "v", "PreferNoSchedule");
    assert_eq!(
        placed(&decide(std::slice::from_ref(&soft), &[], pod("web", 1))),
        Some("n")
    );
    let decision = decide(&[soft, node("other", 1000, 1024)], &[], pod("web", 1));
    assert_eq!(placed(&decision), Some("other"));
}

#[test]
fn resources() {
    type Row<'a> = (&'a str, Value, &'a [(Pod, &'a str)], &'a str);
    let small = || node("n", 1000, 1024);
    let rows: &[Row<'_>] = &[
        (
            "fits exactly",
            json!({"cpu": "1", "memory": "1Gi"}),
            &[],
            "",
        ),
        ("cpu", json!({"cpu": "1001m"}), &[], "1 Insufficient cpu"),
        (
            "memory",
            json!({"memory": "1025Mi"}),
            &[],
            "1 Insufficient memory",
        ),
        (
            "both",
            json!({"cpu": "2", "memory": "2Gi"}),
            &[],
            "1 Insufficient cpu, 1 Insufficient memory",
        ),
        (
            "storage",
            json!({"ephemeral-storage": "1"}),
            &[],
            "1 Insufficient ephemeral-storage",
        ),
        (
            "extended",
            json!({"example.com/gpu": "1"}),
            &[],
            "1 Insufficient example.com/gpu",
        ),
        (
            "none asked, none left",
            json!({}),
            &[(pod("full", 1000), "n")],
            "",
        ),
        (
            "taken",
            json!({"cpu": "600m"}),
            &[(pod("half", 500), "n")],
            "1 Insufficient cpu",
        ),
    ];
    for (what, requests, bound, text) in rows {
        let asking = pod_with(
            "web",
            0,
            &json!({"spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]}}),
        );
        let decision = decide(&[small()], bound, asking);
        if text.is_empty() {
            assert_eq!(placed(&decision), Some("n"), "{what}");
        } else {
            let text = format!("0/1 nodes are available: {text}.");
            assert_eq!(decision.filtered(), text, "{what}");
        }
    }
}

#[test]
fn the_number_of_pods_is_a_resource() {
    let one = node_with(
        "n",
        1000,
        1024,
        &json!({"status": {"allocatable": {"pods": "1"}}}),
    );
    let decision = decide(&[one], &[(pod("first", 0), "n")], pod("second", 0));
    assert_eq!(
        decision.filtered(),
        "0/1 nodes are available: 1 Too many pods."
    );
}

#[test]
fn requests_of_init_containers_sidecars_and_overhead() {
    let container = |cpu: &str, more: Value| {
        let mut made = json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        if let (Some(into), Some(more)) = (made.as_object_mut(), more.as_object()) {
            into.extend(more.clone());
        }
        made
    };
    let always = json!({"restartPolicy": "Always"});
    let rows: &[(&str, Value, i64)] = &[
        (
            "sum",
            json!({"containers": [container("1", json!({})), container("2", json!({}))]}),
            3000,
        ),
        (
            "an init container that asks for more",
            json!({"containers": [container("1", json!({}))], "initContainers": [container("2", json!({}))]}),
            2000,
        ),
        (
            "init containers run one at a time",
            json!({"containers": [container("1", json!({}))],
                "initContainers": [container("500m", json!({})), container("700m", json!({}))]}),
            1000,
        ),
        (
            "a sidecar runs beside",
            json!({"containers": [container("1", json!({}))], "initContainers": [container("2", always.clone())]}),
            3000,
        ),
        (
            "an init container after a sidecar runs beside it",
            json!({"containers": [container("1", json!({}))],
                "initContainers": [container("2", always), container("5", json!({}))]}),
            7000,
        ),
        (
            "overhead comes on top",
            json!({"containers": [container("1", json!({}))], "overhead": {"cpu": "250m"}}),
            1250,
        ),
        (
            "the pod's own request takes the place of the sum",
            json!({"containers": [container("1", json!({}))], "resources": {"requests": {"cpu": "4"}}}),
            4000,
        ),
    ];
    for (what, spec, milli_cpu) in rows {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {}, "spec": spec})).expect("a pod");
        assert_eq!(pod_requests(&pod).exact.milli_cpu, *milli_cpu, "{what}");
    }
}

#[test]
fn node_selectors_and_affinity() {
    let there =
        |labels: Value| node_with("n", 1000, 1024, &json!({"metadata": {"labels": labels}}));
    let required = |terms: Value| {
        json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
    };
    let one = |key: &str, operator: &str, values: Value| {
        required(
            json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]),
        )
    };
    let rows: &[(&str, Value, bool)] = &[
        ("selector", json!({"nodeSelector": {"disk": "ssd"}}), true),
        (
            "selector of another value",
            json!({"nodeSelector": {"disk": "hdd"}}),
            false,
        ),
        ("in", one("disk", "In", json!(["ssd", "nvme"])), true),
        ("not in", one("disk", "NotIn", json!(["ssd"])), false),
        ("not in, absent", one("gpu", "NotIn", json!(["a"])), true),
        ("exists", one("disk", "Exists", json!([])), true),
        (
            "does not exist",
            one("disk", "DoesNotExist", json!([])),
            false,
        ),
        ("greater", one("cores", "Gt", json!(["4"])), true),
        ("not greater", one("cores", "Gt", json!(["8"])), false),
        ("less", one("cores", "Lt", json!(["16"])), true),
        (
            "terms are alternatives",
            required(json!([
                {"matchExpressions": [{"key": "x", "operator": "Exists"}]},
                {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}])),
            true,
        ),
        (
            "expressions are all required",
            required(json!([{"matchExpressions": [
                {"key": "x", "operator": "Exists"}, {"key": "disk", "operator": "Exists"}]}])),
            false,
        ),
        (
            "an empty term matches nothing",
            required(json!([{}])),
            false,
        ),
        (
            "by name",
            required(
                json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]),
            ),
            true,
        ),
        (
            "selector and affinity are both required",
            json!({"nodeSelector": {"disk": "hdd"}, "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}]}}}}),
            false,
        ),
    ];
    for (what, spec, fits) in rows {
        let node = there(json!({"disk": "ssd", "cores": "8"}));
        let decision = decide(&[node], &[], pod_with("web", 1, &json!({"spec": spec})));
        assert_eq!(decision.node.is_some(), *fits, "{what}");
        if !fits {
            assert_eq!(
                decision.filtered(),
                "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
                "{what}"
            );
        }
    }
    let elsewhere = required(json!([{"matchFields": [
        {"key": "metadata.name", "operator": "In", "values": ["gone"]}]}]));
    let decision = decide(
        &[there(json!({}))],
        &[],
        pod_with("web", 1, &json!({"spec": elsewhere})),
    );
    assert_eq!(
        decision.filtered(),
        "0/1 nodes are available: 1 node(s) didn't satisfy plugin(s) [NodeAffinity]."
    );
}

#[test]
fn preferred_node_affinity_decides_between_equals() {
    let nodes: Vec<Node> = ["hdd", "ssd", "none"]
        .iter()
        .map(|disk| {
            node_with(
                disk,
                1000,
                1024,
                &json!({"metadata": {"labels": {"disk": disk}}}),
            )
        })
        .collect();
    let web = pod_with(
        "web",
        1,
        &json!({"spec": {"affinity": {"nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "preference": {"matchExpressions": [
                {"key": "disk", "operator": "In", "values": ["hdd"]}]}},
            {"weight": 50, "preference": {"matchExpressions": [
                {"key": "disk", "operator": "In", "values": ["ssd"]}]}}]}}}}),
    );
    assert_eq!(placed(&decide(&nodes, &[], web)), Some("ssd"));
}

#[test]
fn cordoned_nodes() {
    let cordoned = || node_with("n", 1000, 1024, &json!({"spec": {"unschedulable": true}}));
    let decision = decide(&[cordoned()], &[], pod("web", 1));
    assert_eq!(
        decision.filtered(),
        "0/1 nodes are available: 1 node(s) were unschedulable."
    );
    let tolerating = json!({"spec": {"tolerations": [
        {"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]}});
    let decision = decide(&[cordoned()], &[], pod_with("web", 1, &tolerating));
    assert_eq!(placed(&decision), Some("n"));
}

#[test]
fn host_ports() {
    let with = |name: &str, port: Value| {
        pod_with(
            name,
            1,
            &json!({"spec": {"containers": [{"name": "c", "ports": [port]}]}}),
        )
    };
    let first = || {
        with(
            "first",
            json!({"containerPort": 1, "hostPort": 80, "hostIP": "10.0.0.1"}),
        )
    };
    let rows: &[(&str, Value, bool)] = &[
        (
            "other port",
            json!({"containerPort": 1, "hostPort": 81}),
            true,
        ),
        (
            "every address",
            json!({"containerPort": 1, "hostPort": 80}),
            false,
        ),
        (
            "same address",
            json!({"containerPort": 1, "hostPort": 80, "hostIP": "10.0.0.1"}),
            false,
        ),
        (
            "other address",
            json!({"containerPort": 1, "hostPort": 80, "hostIP": "10.0.0.2"}),
            true,
        ),
        (
            "other protocol",
            json!({"containerPort": 1, "hostPort": 80, "protocol": "UDP"}),
            true,
        ),
        ("no host port", json!({"containerPort": 80}), true),
    ];
    for (what, port, fits) in rows {
        let nodes = [node("n", 1000, 1024)];
        let decision = decide(&nodes, &[(first(), "n")], with("second", port.clone()));
        assert_eq!(decision.node.is_some(), *fits, "{what}");
        if !fits {
            assert_eq!(
                decision.filtered(),
                "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod \
                 ports."
            );
        }
    }
}

#[test]
fn the_emptier_node_is_taken() {
    let nodes = [node("a", 4000, 4096), node("b", 4000, 4096)];
    let decision = decide(&nodes, &[(pod("x", 2000), "a")], pod("web", 500));
    assert_eq!(placed(&decision), Some("b"));
    assert_eq!(decision.feasible, 2);
    assert_eq!(&*decision.scores[0].node, "b");
    assert!(decision.scores[0].total > decision.scores[1].total);
}

#[test]
fn a_node_that_has_the_image_is_taken() {
    let image = json!({"status": {"images": [
        {"names": ["docker.io/library/shop:latest", "shop:latest"], "sizeBytes": 900_000_000}]}});
    let nodes = [node("a", 4000, 4096), node_with("b", 4000, 4096, &image)];
    assert_eq!(placed(&decide(&nodes, &[], pod("web", 100))), Some("b"));
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let grouped = json!({"spec": {"schedulingGroup": {"podGroupName": "gang"}}});
    let decision = decide(&[node("n", 1000, 1024)], &[], pod_with("web", 1, &grouped));
    assert_eq!(
        decision.filtered(),
        "0/1 nodes are available: spec.schedulingGroup needs pod groups, which are not served: the \
         feature gate GenericWorkload is closed (--feature-gates GenericWorkload=true opens it)."
    );
}

#[test]
fn large_clusters_are_searched_in_part() {
    let rows = [
        (10, 10),
        (99, 99),
        (100, 100),
        (1000, 420),
        (5000, 500),
        (6000, 300),
        (50_000, 2500),
    ];
    for (nodes, enough) in rows {
        assert_eq!(feasible_nodes_to_find(0, nodes), enough, "{nodes} nodes");
    }
    assert_eq!(feasible_nodes_to_find(100, 5000), 5000);
    assert_eq!(feasible_nodes_to_find(30, 1000), 300);
}
