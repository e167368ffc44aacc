//! Tables as kubectl prints them.

use evenkeel_api::kinds::{table_cells, table_columns};
use serde_json::{Value, json};

use super::{deployment, pod, prepared, row_of, service, with};

const NOW: &str = "2026-01-02T00:00:00Z";

pub(super) fn headings(object: &Value, wide: bool) -> Vec<String> {
    table_columns(row_of(object))
        .iter()
        .filter(|column| wide || column.priority == 0)
        .map(|column| column.name.to_string())
        .collect()
}

pub(super) fn cells(object: &Value, wide: bool) -> Vec<Value> {
    let row = row_of(object);
    let now = NOW.parse().expect("a time");
    table_columns(row)
        .iter()
        .zip(table_cells(row, object, now))
        .filter(|(column, _)| wide || column.priority == 0)
        .map(|(_, cell)| cell)
        .collect()
}

pub(super) fn aged(object: Value) -> Value {
    with(
        object,
        &json!({"metadata": {"creationTimestamp": "2026-01-01T23:54:30Z"}}),
    )
}

fn word(status: Value) -> Value {
    let object = with(prepared(pod()), &json!({"status": status}));
    cells(&object, false)[2].clone()
}

#[test]
fn pods() {
    let object = aged(with(
        prepared(pod()),
        &json!({"spec": {"nodeName": "n1"}, "status": {
            "phase": "Running", "podIPs": [{"ip": "10.0.0.5"}],
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "web", "ready": true, "restartCount": 2,
                "state": {"running": {}},
                "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T23:58:00Z"}}}],
        }}),
    ));
    assert_eq!(
        headings(&object, true),
        [
            "Name",
            "Ready",
            "Status",
            "Restarts",
            "Age",
            "IP",
            "Node",
            "Nominated Node",
            "Readiness Gates"
        ]
    );
    assert_eq!(
        cells(&object, true),
        [
            "web",
            "1/1",
            "Running",
            "2 (2m ago)",
            "5m30s",
            "10.0.0.5",
            "n1",
            "<none>",
            "<none>"
        ]
    );
}

#[test]
fn the_word_for_a_pod() {
    let waiting = |reason: &str| json!([{"name": "web", "state": {"waiting": {"reason": reason}}}]);
    let ended = |fields: Value| json!([{"name": "web", "state": {"terminated": fields}}]);
    for (status, wanted) in [
        (json!({"phase": "Pending"}), "Pending"),
        (
            json!({"phase": "Pending", "containerStatuses": waiting("ContainerCreating")}),
            "ContainerCreating",
        ),
        (
            json!({"phase": "Running", "containerStatuses": waiting("CrashLoopBackOff")}),
            "CrashLoopBackOff",
        ),
        (
            json!({"phase": "Succeeded", "containerStatuses": ended(json!({"exitCode": 0, "reason": "Completed"}))}),
            "Completed",
        ),
        (
            json!({"phase": "Failed", "containerStatuses": ended(json!({"exitCode": 3}))}),
            "ExitCode:3",
        ),
        (
            json!({"phase": "Failed", "containerStatuses": ended(json!({"exitCode": 137, "signal": 9}))}),
            "Signal:9",
        ),
        (json!({"phase": "Failed", "reason": "Evicted"}), "Evicted"),
        (
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
            "SchedulingGated",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": ended(json!({"exitCode": 1, "reason": "Error"}))}),
            "Init:Error",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": waiting("CrashLoopBackOff")}),
            "Init:CrashLoopBackOff",
        ),
    ] {
        assert_eq!(word(status.clone()), wanted, "{status}");
    }
    let mut object = prepared(with(
        pod(),
        &json!({"spec": {"initContainers": [{"name": "i", "image": "x:1"}]}}),
    ));
    object["status"]["initContainerStatuses"] =
        json!([{"name": "i", "state": {"waiting": {"reason": "PodInitializing"}}}]);
    assert_eq!(cells(&object, false)[2], "Init:0/1");
    object["metadata"]["deletionTimestamp"] = json!(NOW);
    assert_eq!(cells(&object, false)[2], "Terminating");
}

#[test]
fn workloads_and_services() {
    let object = aged(with(
        prepared(deployment()),
        &json!({"status": {"readyReplicas": 1, "updatedReplicas": 1}}),
    ));
    assert_eq!(
        headings(&object, true),
        [
            "Name",
            "Ready",
            "Up-to-date",
            "Available",
            "Age",
            "Containers",
            "Images",
            "Selector"
        ]
    );
    assert_eq!(
        cells(&object, true),
        [
            json!("web"),
            json!("1/1"),
            json!(1),
            json!(0),
            json!("5m30s"),
            json!("web"),
            json!("nginx:1.24"),
            json!("app=web"),
        ]
    );
    let object = aged(with(
        prepared(service()),
        &json!({"spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.7"],
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}]}}),
    ));
    assert_eq!(
        cells(&object, true),
        [
            "web",
            "LoadBalancer",
            "10.96.0.7",
            "<pending>",
            "80:30080/TCP",
            "5m30s",
            "app=web"
        ]
    );
}

#[test]
fn nodes_events_and_the_rest() {
    let node = aged(json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": ""}},
        "spec": {"unschedulable": true},
        "status": {"conditions": [{"type": "Ready", "status": "True"}],
            "nodeInfo": {"kubeletVersion": "v1.37.0"},
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}}));
    assert_eq!(
        cells(&node, true),
        [
            "n",
            "Ready,SchedulingDisabled",
            "control-plane",
            "5m30s",
            "v1.37.0",
            "10.0.0.1",
            "<none>",
            "<unknown>",
            "<unknown>",
            "<unknown>",
        ]
    );
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"},
        "type": "Normal", "reason": "Scheduled", "message": " done\n", "count": 3,
        "lastTimestamp": "2026-01-01T23:59:00Z", "firstTimestamp": "2026-01-01T23:50:00Z",
        "source": {"component": "scheduler"},
        "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{a}"}});
    assert_eq!(
        headings(&event, false),
        ["Last Seen", "Type", "Reason", "Object", "Message"]
    );
    assert_eq!(
        cells(&event, true),
        [
            json!("60s"),
            json!("Normal"),
            json!("Scheduled"),
            json!("pod/p"),
            json!("spec.containers{a}"),
            json!("scheduler"),
            json!("done"),
            json!("10m"),
            json!(3),
            json!("e"),
        ]
    );
    let autoscaler = aged(json!({"apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"minReplicas": 2, "maxReplicas": 10,
            "scaleTargetRef": {"kind": "Deployment", "name": "d"},
            "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}},
                {"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 80}}},
            ]},
        "status": {"currentReplicas": 2, "currentMetrics": [
            {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 5}}}]}}));
    assert_eq!(
        cells(&autoscaler, false),
        [
            json!("h"),
            json!("Deployment/d"),
            json!("cpu: 5%/70%, memory: <unknown>/80%"),
            json!("2"),
            json!(10),
            json!(2),
            json!("5m30s"),
        ]
    );
    let endpoints = aged(
        json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "e"},
        "subsets": [{"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}],
            "ports": [{"port": 80}, {"port": 443}]}]}),
    );
    assert_eq!(
        cells(&endpoints, false),
        [
            "e",
            "10.0.0.1:80,10.0.0.2:80,10.0.0.1:443 + 1 more...",
            "5m30s"
        ]
    );
    let map = aged(
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"},
        "data": {"a": "b"}, "binaryData": {"c": "ZA=="}}),
    );
    assert_eq!(cells(&map, false), [json!("c"), json!(2), json!("5m30s")]);
    let binding = aged(json!({"apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding", "metadata": {"name": "b"},
        "roleRef": {"kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "User", "name": "u"},
            {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]}));
    assert_eq!(
        cells(&binding, true),
        ["b", "ClusterRole/view", "5m30s", "u", "", "n/s"]
    );
}

#[test]
fn kinds_of_which_little_is_shown() {
    for (api_version, kind, wanted) in [
        ("v1", "ServiceAccount", ["Name", "Age"].as_slice()),
        (
            "storage.k8s.io/v1",
            "CSIStorageCapacity",
            &["Name", "Created At"],
        ),
        (
            "scheduling.k8s.io/v1",
            "PriorityClass",
            &["Name", "Value", "Global-Default", "Age", "PreemptionPolicy"],
        ),
    ] {
        let object = json!({"apiVersion": api_version, "kind": kind});
        assert_eq!(headings(&object, false), wanted, "{kind}");
    }
}

#[test]
fn fields_that_pods_and_replica_sets_are_selected_by() {
    let places = |api_version: &str, kind: &str, path: &str| {
        let row = row_of(&json!({"apiVersion": api_version, "kind": kind}));
        let field = row.selectable.iter().find(|field| field.path == path);
        field.map(|field| field.at.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let node = Some(vec!["spec.nodeName".to_owned()]);
    assert_eq!(places("v1", "Pod", "spec.host"), node);
    assert_eq!(places("v1", "Pod", "status.podIPs"), Some(Vec::new()));
    assert_eq!(places("apps/v1", "ReplicaSet", "status.replicas"), None);
}

#[test]
fn every_row_has_as_many_cells_as_columns() {
    let now = NOW.parse().expect("a time");
    for row in super::rows().iter() {
        let object = json!({"metadata": {"name": "a"}});
        assert_eq!(
            table_columns(row).len(),
            table_cells(row, &object, now).len(),
            "{:?}",
            row.gvk
        );
    }
}
