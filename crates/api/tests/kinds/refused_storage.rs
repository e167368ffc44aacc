//! Volumes, claims, classes, quotas, limits, budgets and priorities that are refused, with the
//! reference's words.

use serde_json::{Value, json};

use super::{check, create_errors, pod, prepared, update_errors, with};

fn volume() -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "disk"},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "hostPath": {"path": "/data"},
        },
    })
}

fn claim() -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
        },
    })
}

#[test]
fn volumes() {
    check(
        vec![
            (json!({}), vec![]),
            (
                json!({"accessModes": null}),
                vec!["spec.accessModes: Required value"],
            ),
            (
                json!({"accessModes": ["ReadWriteOnce", "ReadWriteOncePod"]}),
                vec![
                    "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
                ],
            ),
            (
                json!({"capacity": {"storage": "0"}}),
                vec!["spec.capacity[storage]: Invalid value: \"0\": must be greater than zero"],
            ),
            (
                json!({"capacity": {"storage": null, "cpu": "1"}}),
                vec![
                    "spec.capacity: Unsupported value: {\"cpu\":\"1\"}: supported values: \"storage\"",
                ],
            ),
            (
                json!({"hostPath": null}),
                vec!["spec: Required value: must specify a volume type"],
            ),
            (
                json!({"nfs": {"server": "s", "path": "/p"}}),
                vec!["spec.nfs: Forbidden: may not specify more than 1 volume type"],
            ),
            (
                json!({"hostPath": null, "local": {"path": "/mnt/a"}}),
                vec!["spec.nodeAffinity: Required value: Local volume requires node affinity"],
            ),
            (
                json!({"hostPath": {"path": "/"}, "persistentVolumeReclaimPolicy": "Recycle"}),
                vec![
                    "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'",
                ],
            ),
            (
                json!({"persistentVolumeReclaimPolicy": "Keep"}),
                vec![
                    "spec.persistentVolumeReclaimPolicy: Unsupported value: \"Keep\": supported values: \"Delete\", \"Recycle\", \"Retain\"",
                ],
            ),
            (
                json!({"hostPath": null, "csi": {"driver": "", "volumeHandle": ""}}),
                vec![
                    "spec.csi.driver: Required value",
                    "spec.csi.volumeHandle: Required value",
                ],
            ),
            (
                json!({"hostPath": null, "iscsi": {"targetPortal": "p", "iqn": "x", "lun": 300}}),
                vec![
                    "spec.iscsi.iqn: Invalid value: \"x\": must be valid format",
                    "spec.iscsi.lun: Invalid value: 300: must be between 0 and 255, inclusive",
                ],
            ),
            (
                json!({"volumeMode": "Tape"}),
                vec![
                    "spec.volumeMode: Unsupported value: \"Tape\": supported values: \"Block\", \"Filesystem\"",
                ],
            ),
        ],
        |patch| with(volume(), &json!({"spec": patch})),
    );
    assert_eq!(
        update_errors(volume(), &json!({"spec": {"hostPath": {"path": "/other"}}})),
        [
            "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"
        ]
    );
    let made = prepared(volume());
    assert_eq!(made["spec"]["persistentVolumeReclaimPolicy"], "Retain");
    assert_eq!(
        made["spec"]["hostPath"],
        json!({"path": "/data", "type": ""})
    );
    assert_eq!(made["status"]["phase"], "Pending");
}

#[test]
fn claims() {
    check(
        vec![
            (json!({}), vec![]),
            (
                json!({"accessModes": null, "resources": null}),
                vec![
                    "spec.accessModes: Required value: at least 1 access mode is required",
                    "spec.resources[storage]: Required value",
                ],
            ),
            (
                json!({"resources": {"requests": {"storage": "-1"}}}),
                vec!["spec.resources[storage]: Invalid value: \"-1\": must be greater than zero"],
            ),
            (
                json!({"dataSourceRef": {"kind": "Backup", "name": "b"}}),
                vec![
                    "spec.dataSource: Invalid value: \"Backup\": must be 'PersistentVolumeClaim' when referencing the default apiGroup",
                    "spec.dataSourceRef: Invalid value: \"Backup\": must be 'PersistentVolumeClaim' when referencing the default apiGroup",
                ],
            ),
            // What only newer fields can say is dropped from the older one.
            (
                json!({"dataSource": {"kind": "Backup", "name": "b"}}),
                vec![],
            ),
        ],
        |patch| with(claim(), &json!({"spec": patch})),
    );
    let errors = |patch: Value| update_errors(claim(), &patch);
    assert_eq!(errors(json!({"spec": {"volumeName": "disk"}})), [""; 0]);
    assert_eq!(
        errors(json!({"spec": {"storageClassName": "fast"}})),
        [""; 0]
    );
    let more = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    let immutable = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
    assert_eq!(errors(more), [immutable]);
    assert_eq!(
        errors(json!({"spec": {"volumeMode": "Block"}})),
        [
            immutable,
            "volumeMode: Invalid value: \"Block\": field is immutable"
        ]
    );
    let from = json!({"spec": {"dataSource": {"kind": "PersistentVolumeClaim", "name": "old"}}});
    let made = prepared(with(claim(), &from));
    assert_eq!(made["spec"]["dataSourceRef"], made["spec"]["dataSource"]);
}

#[test]
fn classes() {
    let class = || {
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {"name": "fast"}, "provisioner": "example.com/disks"})
    };
    check(
        vec![
            (json!({}), vec![]),
            (
                json!({"provisioner": null}),
                vec!["provisioner: Required value"],
            ),
            (
                json!({"reclaimPolicy": "Recycle"}),
                vec![
                    "reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\"",
                ],
            ),
            (json!({"reclaimPolicy": ""}), vec![]),
            (
                json!({"volumeBindingMode": "Later"}),
                vec![
                    "volumeBindingMode: Unsupported value: \"Later\": supported values: \"Immediate\", \"WaitForFirstConsumer\"",
                ],
            ),
            (
                json!({"allowedTopologies": [{"matchLabelExpressions": [{"key": "zone", "values": ["a", "a"]}]}]}),
                vec![
                    "allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: \"a\"",
                ],
            ),
        ],
        |patch| with(class(), patch),
    );
    assert_eq!(
        update_errors(class(), &json!({"parameters": {"a": "b"}})),
        ["parameters: Invalid value: null: field is immutable"]
    );
}

#[test]
fn limits() {
    let range = |limits: &Value| {
        json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "limits"},
            "spec": {"limits": limits}})
    };
    check(
        vec![
            (json!([{"type": "Container", "max": {"cpu": "1"}}]), vec![]),
            (
                json!([{"type": "Nothing"}]),
                vec![
                    "spec.limits[0].type: Invalid value: \"Nothing\": must be a standard limit type or fully qualified",
                ],
            ),
            (
                json!([{"type": "Pod"}, {"type": "Pod"}]),
                vec!["spec.limits[1].type: Duplicate value: \"Pod\""],
            ),
            (
                json!([{"type": "Pod", "default": {"cpu": "1"}}]),
                vec![
                    "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
                ],
            ),
            (
                json!([{"type": "Pod", "min": {"cpu": "2"}, "max": {"cpu": "1"}}]),
                vec![
                    "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
                ],
            ),
            (
                json!([{"type": "PersistentVolumeClaim"}]),
                vec![
                    "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
                ],
            ),
            (
                json!([{"type": "Pod", "maxLimitRequestRatio": {"cpu": "800m"}}]),
                vec![
                    "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"800m\": ratio 800m is less than 1",
                ],
            ),
        ],
        range,
    );
    let made = prepared(range(
        &json!([{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}}]),
    ));
    assert_eq!(
        made["spec"]["limits"][0],
        json!({
            "type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"},
            "default": {"cpu": "2"}, "defaultRequest": {"cpu": "2", "memory": "1Mi"},
        })
    );
}

#[test]
fn quotas() {
    let quota = |spec: &Value| json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": spec});
    check(
        vec![
            (
                json!({"hard": {"cpu": "1", "count/jobs.batch": "5"}}),
                vec![],
            ),
            (
                json!({"hard": {"pods": "1.5"}}),
                vec!["spec.hard[pods]: Invalid value: \"1500m\": must be an integer"],
            ),
            (
                json!({"hard": {"storage": "1"}}),
                vec![
                    "spec.hard[storage]: Invalid value: \"storage\": must be a standard resource for quota",
                ],
            ),
            (
                json!({"hard": {"pods": "1"}, "scopes": ["BestEffort", "NotBestEffort"]}),
                vec![
                    "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes",
                ],
            ),
            (
                json!({"hard": {"secrets": "1"}, "scopes": ["Terminating"]}),
                vec![
                    "spec.scopes: Invalid value: [\"Terminating\"]: unsupported scope applied to resource",
                ],
            ),
            (
                json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]}}),
                vec![
                    "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
                ],
            ),
        ],
        quota,
    );
    assert_eq!(
        update_errors(
            quota(&json!({"hard": {"pods": "1"}})),
            &json!({"spec": {"scopes": ["BestEffort"]}})
        ),
        ["spec.scopes: Invalid value: [\"BestEffort\"]: field is immutable"]
    );
}

#[test]
fn budgets_and_priorities() {
    let budget = |spec: &Value| {
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"},
            "spec": spec})
    };
    check(
        vec![
            (json!({"minAvailable": "50%"}), vec![]),
            (
                json!({"minAvailable": 1, "maxUnavailable": 1}),
                vec![
                    "spec: Invalid value: {\"MinAvailable\":1,\"Selector\":null,\"MaxUnavailable\":1,\"UnhealthyPodEvictionPolicy\":null}: minAvailable and maxUnavailable cannot be both set",
                ],
            ),
            (
                json!({"maxUnavailable": "101%"}),
                vec!["spec.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%"],
            ),
            (
                json!({"unhealthyPodEvictionPolicy": "Never"}),
                vec![
                    "spec.unhealthyPodEvictionPolicy: Unsupported value: \"Never\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\"",
                ],
            ),
        ],
        budget,
    );
    let class = |name: &str, value: i64| {
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": name}, "value": value})
    };
    assert_eq!(create_errors(class("high", 1_000_000_000)), [""; 0]);
    assert_eq!(
        create_errors(class("system-node-critical", 2_000_001_000)),
        [""; 0]
    );
    assert_eq!(
        create_errors(class("high", 1_000_000_001)),
        ["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"]
    );
    assert_eq!(
        create_errors(class("system-mine", 1)),
        [
            "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-mine is not a known system priority class"
        ]
    );
    assert_eq!(
        update_errors(class("high", 1), &json!({"value": 2})),
        ["value: Forbidden: may not be changed in an update."]
    );
}

#[test]
fn volumes_of_pods_outside_of_the_cluster() {
    let of = |source: &Value| {
        let mut volume = source.clone();
        volume["name"] = json!("v");
        with(pod(), &json!({"spec": {"volumes": [volume]}}))
    };
    let long = "p".repeat(70);
    check(
        vec![
            (
                json!({"iscsi": {"targetPortal": "p", "iqn": "x", "lun": 0, "chapAuthSession": true,
                    "initiatorName": "iqn.2020-01"}}),
                vec![
                    "spec.volumes[0].iscsi.iqn: Invalid value: \"x\": must be valid format starting with iqn, eui, or naa",
                    "spec.volumes[0].iscsi.secretRef: Required value",
                    "spec.volumes[0].iscsi.initiatorname: Invalid value: \"iqn.2020-01\": must be valid format",
                ],
            ),
            (
                json!({"iscsi": {"targetPortal": long, "iqn": "naa.60a98000", "lun": 256,
                    "initiatorName": "eui.0123456789abcdef"}}),
                vec![
                    "spec.volumes[0].iscsi.iqn: Invalid value: \"naa.60a98000\": must be valid format",
                    "spec.volumes[0].iscsi.lun: Invalid value: 256: must be between 0 and 255, inclusive",
                    "spec.volumes[0].name: Invalid value: \"v\": Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.",
                ],
            ),
            (
                json!({"gcePersistentDisk": {"pdName": ""}}),
                vec!["spec.volumes[0].persistentDisk.pdName: Required value"],
            ),
            (
                json!({"cinder": {"volumeID": "v", "secretRef": {}}}),
                vec!["spec.volumes[0].cinder.secretRef.name: Required value"],
            ),
            (
                json!({"storageos": {"secretRef": {"name": "s"}}}),
                vec!["spec.volumes[0].storageos.volumeName: Required value"],
            ),
            (
                json!({"fc": {"targetWWNs": ["x"]}}),
                vec![
                    "spec.volumes[0].fc.lun: Required value: lun is required if targetWWNs is specified",
                ],
            ),
            (
                json!({"azureDisk": {"diskName": "d", "diskURI": "x", "kind": "Shared"}}),
                vec![
                    "spec.volumes[0].azureDisk.diskURI: Unsupported value: \"x\": supported values: \"https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd\"",
                ],
            ),
        ],
        of,
    );
}
