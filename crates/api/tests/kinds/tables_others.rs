//! The tables of workloads, storage and the rest, as kubectl prints them.

use serde_json::json;

use super::tables::{aged, cells, headings};

#[test]
fn jobs_and_their_schedules() {
    let job = aged(json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "sum"},
        "spec": {"completions": 3, "parallelism": 1, "selector": {"matchLabels": {"a": "b"}},
            "template": {"spec": {"containers": [{"name": "c", "image": "i:1"}]}}},
        "status": {"succeeded": 1, "startTime": "2026-01-01T23:55:00Z"},
    }));
    assert_eq!(
        headings(&job, true),
        [
            "Name",
            "Status",
            "Completions",
            "Duration",
            "Age",
            "Containers",
            "Images",
            "Selector"
        ]
    );
    assert_eq!(
        cells(&job, true),
        ["sum", "Running", "1/3", "5m", "5m30s", "c", "i:1", "a=b"]
    );
    let mut done = job.clone();
    done["status"]["conditions"] = json!([{"type": "Complete", "status": "True"}]);
    done["status"]["completionTime"] = json!("2026-01-01T23:55:42Z");
    assert_eq!(
        cells(&done, false)[1..4],
        [json!("Complete"), json!("1/3"), json!("42s")]
    );
    let cron = aged(json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nightly"},
        "spec": {"schedule": "0 3 * * *", "suspend": false, "jobTemplate": {"spec": {"template":
            {"spec": {"containers": [{"name": "c", "image": "i:1"}]}}}}},
        "status": {"active": [{}], "lastScheduleTime": "2026-01-01T23:00:00Z"},
    }));
    assert_eq!(
        headings(&cron, true),
        [
            "Name",
            "Schedule",
            "Timezone",
            "Suspend",
            "Active",
            "Last Schedule",
            "Age",
            "Containers",
            "Images",
            "Selector"
        ]
    );
    assert_eq!(
        cells(&cron, true),
        [
            json!("nightly"),
            json!("0 3 * * *"),
            json!("<none>"),
            json!("False"),
            json!(1),
            json!("60m"),
            json!("5m30s"),
            json!("c"),
            json!("i:1"),
            json!("<none>")
        ]
    );
}

#[test]
fn sets() {
    let set = |kind: &str, status: serde_json::Value| {
        aged(json!({
            "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "web"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template":
                {"spec": {"nodeSelector": {"disk": "ssd"},
                    "containers": [{"name": "c", "image": "i:1"}]}}},
            "status": status,
        }))
    };
    let stateful = set("StatefulSet", json!({"readyReplicas": 2}));
    assert_eq!(
        headings(&stateful, true),
        ["Name", "Ready", "Age", "Containers", "Images"]
    );
    assert_eq!(cells(&stateful, true), ["web", "2/3", "5m30s", "c", "i:1"]);
    let daemon = set(
        "DaemonSet",
        json!({"desiredNumberScheduled": 4, "currentNumberScheduled": 3, "numberReady": 2,
            "updatedNumberScheduled": 1}),
    );
    assert_eq!(
        headings(&daemon, false),
        [
            "Name",
            "Desired",
            "Current",
            "Ready",
            "Up-to-date",
            "Available",
            "Node Selector",
            "Age"
        ]
    );
    assert_eq!(
        cells(&daemon, false),
        [
            json!("web"),
            json!(4),
            json!(3),
            json!(2),
            json!(1),
            json!(0),
            json!("disk=ssd"),
            json!("5m30s")
        ]
    );
    let revision = aged(json!({
        "apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 2,
        "metadata": {"name": "web-1", "ownerReferences": [{"apiVersion": "apps/v1",
            "kind": "StatefulSet", "name": "web", "uid": "u", "controller": true}]},
    }));
    assert_eq!(
        cells(&revision, true),
        [
            json!("web-1"),
            json!("statefulset.apps/web"),
            json!(2),
            json!("5m30s")
        ]
    );
}

#[test]
fn storage() {
    let volume = aged(json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "disk"},
        "spec": {"accessModes": ["ReadWriteMany", "ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "fast",
            "volumeMode": "Filesystem", "claimRef": {"namespace": "default", "name": "data"}},
        "status": {"phase": "Bound"},
    }));
    assert_eq!(
        headings(&volume, true),
        [
            "Name",
            "Capacity",
            "Access Modes",
            "Reclaim Policy",
            "Status",
            "Claim",
            "StorageClass",
            "VolumeAttributesClass",
            "Reason",
            "Age",
            "VolumeMode"
        ]
    );
    assert_eq!(
        cells(&volume, true),
        [
            "disk",
            "1Gi",
            "RWO,RWX",
            "Retain",
            "Bound",
            "default/data",
            "fast",
            "<unset>",
            "",
            "5m30s",
            "Filesystem"
        ]
    );
    let claim = aged(json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"]}, "status": {"phase": "Pending"},
    }));
    assert_eq!(
        headings(&claim, true),
        [
            "Name",
            "Status",
            "Volume",
            "Capacity",
            "Access Modes",
            "StorageClass",
            "VolumeAttributesClass",
            "Age",
            "VolumeMode"
        ]
    );
    assert_eq!(
        cells(&claim, true),
        [
            "data", "Pending", "", "", "", "", "<unset>", "5m30s", "<unset>"
        ]
    );
    let class = aged(json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "fast"},
        "provisioner": "example.com/disks", "allowVolumeExpansion": true,
    }));
    assert_eq!(
        cells(&class, false),
        [
            json!("fast"),
            json!("example.com/disks"),
            json!("Delete"),
            json!("Immediate"),
            json!(true),
            json!("5m30s")
        ]
    );
}

#[test]
fn policies() {
    let quota = aged(json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
        "status": {"hard": {"pods": "10", "limits.cpu": "4", "cpu": "2"}, "used": {"cpu": "1"}},
    }));
    assert_eq!(headings(&quota, false), ["Name", "Request", "Limit", "Age"]);
    assert_eq!(
        cells(&quota, false),
        ["q", "cpu: 1/2, pods: 0/10", "limits.cpu: 0/4", "5m30s"]
    );
    let budget = aged(json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"},
        "spec": {"minAvailable": 2}, "status": {"disruptionsAllowed": 1},
    }));
    assert_eq!(
        headings(&budget, false),
        [
            "Name",
            "Min Available",
            "Max Unavailable",
            "Allowed Disruptions",
            "Age"
        ]
    );
    assert_eq!(
        cells(&budget, false),
        [
            json!("b"),
            json!("2"),
            json!("N/A"),
            json!(1),
            json!("5m30s")
        ]
    );
    let class = aged(json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"},
        "value": 1000, "preemptionPolicy": "Never",
    }));
    assert_eq!(
        cells(&class, true),
        [
            json!("high"),
            json!(1000),
            json!(false),
            json!("5m30s"),
            json!("Never")
        ]
    );
}

#[test]
fn networking_and_the_cluster() {
    let of = |api_version: &str, kind: &str, rest: serde_json::Value| {
        let mut object =
            json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}});
        for (name, value) in rest.as_object().into_iter().flatten() {
            object[name] = value.clone();
        }
        aged(object)
    };
    let ingress = of(
        "networking.k8s.io/v1",
        "Ingress",
        json!({"spec": {"ingressClassName": "proxy", "tls": [{}],
                "rules": [{"host": "a"}, {"host": "b"}, {"host": "c"}, {"host": "d"}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}}),
    );
    assert_eq!(
        headings(&ingress, false),
        ["Name", "Class", "Hosts", "Address", "Ports", "Age"]
    );
    assert_eq!(
        cells(&ingress, false),
        [
            "a",
            "proxy",
            "a,b,c + 1 more...",
            "10.0.0.1",
            "80, 443",
            "5m30s"
        ]
    );
    let mut class = of(
        "networking.k8s.io/v1",
        "IngressClass",
        json!({"spec": {"controller": "example.com/proxy"}}),
    );
    class["metadata"]["annotations"] =
        json!({"ingressclass.kubernetes.io/is-default-class": "true"});
    assert_eq!(
        cells(&class, false),
        ["a (default)", "example.com/proxy", "<none>", "5m30s"]
    );
    let policy = of(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        json!({"spec": {"podSelector": {"matchLabels": {"app": "web"}}}}),
    );
    assert_eq!(headings(&policy, false), ["Name", "Pod-Selector", "Age"]);
    assert_eq!(cells(&policy, false), ["a", "app=web", "5m30s"]);
    let attachment = of(
        "storage.k8s.io/v1",
        "VolumeAttachment",
        json!({"spec": {"attacher": "d", "nodeName": "n", "source": {"persistentVolumeName": "v"}}}),
    );
    assert_eq!(
        headings(&attachment, false),
        ["Name", "Attacher", "PV", "Node", "Attached", "Age"]
    );
    assert_eq!(
        cells(&attachment, false),
        [
            json!("a"),
            json!("d"),
            json!("v"),
            json!("n"),
            json!(false),
            json!("5m30s")
        ]
    );
    let request = of(
        "certificates.k8s.io/v1",
        "CertificateSigningRequest",
        json!({"spec": {"signerName": "s/t", "username": "dora", "expirationSeconds": 3600},
            "status": {"conditions": [{"type": "Approved"}], "certificate": "eA=="}}),
    );
    assert_eq!(
        headings(&request, false),
        [
            "Name",
            "Age",
            "SignerName",
            "Requestor",
            "RequestedDuration",
            "Condition"
        ]
    );
    assert_eq!(
        cells(&request, false),
        ["a", "5m30s", "s/t", "dora", "60m", "Approved,Issued"]
    );
    let claim = of(
        "resource.k8s.io/v1",
        "ResourceClaim",
        json!({"status": {"allocation": {}}}),
    );
    assert_eq!(cells(&claim, false), ["a", "allocated", "5m30s"]);
}
