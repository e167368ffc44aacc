//! Jobs, cron jobs, stateful and daemon sets and their like that are refused, with the
//! reference's words.

use serde_json::{Value, json};

use super::{check, create_errors, deployment, prepared, row_of, texts, update_errors, with};

fn job() -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "sum", "uid": "6b2c9d3e-0000-4000-8000-000000000001"},
        "spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "sum", "image": "sum:1"}],
        }}},
    })
}

fn cron_job() -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nightly"},
        "spec": {"schedule": "0 3 * * *", "jobTemplate": {"spec": job()["spec"]}},
    })
}

fn stateful_set() -> Value {
    let mut object = deployment();
    object["kind"] = json!("StatefulSet");
    object
}

fn daemon_set() -> Value {
    let mut object = deployment();
    object["kind"] = json!("DaemonSet");
    object
}

#[test]
fn jobs() {
    check(
        vec![
            (json!({}), vec![]),
            (
                json!({"parallelism": -1, "completions": -2, "ttlSecondsAfterFinished": -3}),
                vec![
                    "spec.parallelism: Invalid value: -1: must be greater than or equal to 0",
                    "spec.completions: Invalid value: -2: must be greater than or equal to 0",
                    "spec.ttlSecondsAfterFinished: Invalid value: -3: must be greater than or equal to 0",
                ],
            ),
            (
                json!({"template": {"spec": {"restartPolicy": null}}}),
                vec![
                    "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
                ],
            ),
            (
                json!({"completionMode": "Sorted"}),
                vec![
                    "spec.completionMode: Unsupported value: \"Sorted\": supported values: \"NonIndexed\", \"Indexed\"",
                ],
            ),
            (
                json!({"completionMode": "Indexed", "parallelism": 2}),
                vec!["spec.completions: Required value: when completion mode is Indexed"],
            ),
            (
                json!({"backoffLimitPerIndex": 1}),
                vec![
                    "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
                ],
            ),
            (
                json!({"managedBy": "nobody"}),
                vec![
                    "spec.managedBy: Invalid value: \"nobody\": must be a domain-prefixed path (such as \"acme.io/foo\")",
                ],
            ),
            (
                json!({"podFailurePolicy": {"rules": [{"action": "Hope"}]}}),
                vec![
                    "spec.podFailurePolicy.rules[0].action: Unsupported value: \"Hope\": supported values: \"Count\", \"FailIndex\", \"FailJob\", \"Ignore\"",
                    "spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
                ],
            ),
            (
                json!({"podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes":
                    {"operator": "In", "containerName": "other", "values": [3, 0, 3]}}]}}),
                vec![
                    "spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: \"other\": must be one of the container or initContainer names in the pod template",
                    "spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator",
                    "spec.podFailurePolicy.rules[0].onExitCodes.values[2]: Duplicate value: 3",
                    "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [3,0,3]: must be ordered",
                ],
            ),
            (
                json!({"completionMode": "Indexed", "completions": 5,
                    "successPolicy": {"rules": [{"succeededIndexes": "7", "succeededCount": 6}]}}),
                vec![
                    "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"7\": error parsing succeededIndexes: too large index: \"7\"",
                    "spec.successPolicy.rules[0].succeededCount: Invalid value: 6: must be less than or equal to 5 (the number of specified completions)",
                    "spec.successPolicy.rules[0].succeededCount: Invalid value: 6: must be less than or equal to 0 (the number of indexes in the specified succeededIndexes field)",
                ],
            ),
            (
                json!({"podReplacementPolicy": "Never"}),
                vec![
                    "spec.podReplacementPolicy: Unsupported value: \"Never\": supported values: \"Failed\", \"TerminatingOrFailed\"",
                ],
            ),
            (
                json!({"manualSelector": true}),
                vec![
                    "spec.selector: Required value",
                    "spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`",
                ],
            ),
            (
                json!({"selector": {"matchLabels": {"a": "b"}}}),
                vec![
                    "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\",\"batch.kubernetes.io/controller-uid\":\"6b2c9d3e-0000-4000-8000-000000000001\"}}: `selector` not auto-generated",
                    "spec.template.metadata.labels: Invalid value: {\"batch.kubernetes.io/controller-uid\":\"6b2c9d3e-0000-4000-8000-000000000001\",\"batch.kubernetes.io/job-name\":\"sum\",\"controller-uid\":\"6b2c9d3e-0000-4000-8000-000000000001\",\"job-name\":\"sum\"}: `selector` does not match template `labels`",
                ],
            ),
        ],
        |patch| with(job(), &json!({"spec": patch})),
    );
}

#[test]
fn a_job_gets_labels_a_selector_and_defaults() {
    let made = prepared(job());
    assert_eq!(
        made["spec"]["selector"],
        json!({"matchLabels": {
            "batch.kubernetes.io/controller-uid": "6b2c9d3e-0000-4000-8000-000000000001",
        }})
    );
    let spec = made["spec"].as_object().expect("a spec");
    let mut plain = spec.clone();
    plain.remove("template");
    plain.remove("selector");
    assert_eq!(
        Value::Object(plain),
        json!({
            "backoffLimit": 6, "completionMode": "NonIndexed", "completions": 1,
            "manualSelector": false, "parallelism": 1,
            "podReplacementPolicy": "TerminatingOrFailed", "suspend": false,
        })
    );
    assert_eq!(made["status"], json!({}));
    assert_eq!(
        spec["template"]["metadata"]["labels"]["job-name"],
        json!("sum")
    );
}

#[test]
fn what_of_a_job_may_change() {
    let errors = |patch: Value| update_errors(job(), &patch);
    assert_eq!(errors(json!({"spec": {"parallelism": 3}})), [""; 0]);
    assert_eq!(
        errors(json!({"spec": {"completions": 3}})),
        ["spec.completions: Invalid value: 3: field is immutable"]
    );
    let image = json!({"spec": {"template": {"spec": {"dnsPolicy": "Default"}}}});
    assert!(errors(image)[0].starts_with("spec.template: Invalid value: {"));
    // While a job is suspended and has no pods, it may be sent elsewhere.
    let held = with(job(), &json!({"spec": {"suspend": true}}));
    let elsewhere = json!({"spec": {"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}}});
    assert_eq!(update_errors(held.clone(), &elsewhere), [""; 0]);
    let host = json!({"spec": {"template": {"spec": {"hostname": "other"}}}});
    assert!(update_errors(held, &host)[0].starts_with("spec.template.spec: Invalid"));
    let indexed = with(
        job(),
        &json!({"spec": {"completionMode": "Indexed", "completions": 3, "parallelism": 3}}),
    );
    let both = json!({"spec": {"completions": 4, "parallelism": 4}});
    assert_eq!(update_errors(indexed.clone(), &both), [""; 0]);
    assert_eq!(
        update_errors(indexed, &json!({"spec": {"completions": 5}})),
        [
            "spec.completions: Invalid value: 5: can only be modified in tandem with spec.parallelism"
        ]
    );
}

fn status_errors(object: Value, old: Value, new: Value) -> Vec<String> {
    let made = prepared(object);
    let of = |status: Value| {
        let mut object = made.clone();
        object["metadata"]["resourceVersion"] = json!("7");
        object["status"] = status;
        object
    };
    let row = row_of(&made);
    texts(&row.strategy.validate_status(&of(new), &of(old)))
}

#[test]
fn the_status_of_a_job() {
    let condition = |kind: &str| json!({"type": kind, "status": "True"});
    let errors = |old: Value, new: Value| status_errors(job(), old, new);
    let done = json!({
        "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:01:00Z",
        "succeeded": 1, "conditions": [condition("SuccessCriteriaMet"), condition("Complete")],
    });
    assert_eq!(errors(json!({}), done.clone()), [""; 0]);
    assert_eq!(
        errors(json!({}), json!({"conditions": [condition("Complete")]})),
        [
            "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
            "status.completionTime: Required value: completionTime is required for Complete jobs",
            "status.startTime: Required value: startTime is required for finished job",
        ]
    );
    assert_eq!(
        errors(
            done.clone(),
            with(
                done.clone(),
                &json!({"conditions": null, "completionTime": null})
            )
        ),
        [
            "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
            "status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
        ]
    );
    assert_eq!(
        errors(
            json!({"failed": 2, "succeeded": 2}),
            json!({"failed": 1, "succeeded": 1})
        ),
        [
            "status.failed: Invalid value: 1: cannot decrease the failed counter",
            "status.succeeded: Invalid value: 1: cannot decrease the succeeded counter",
        ]
    );
    assert_eq!(
        errors(json!({}), json!({"ready": 2, "active": 1})),
        ["status.ready: Invalid value: 2: cannot set more ready pods than active"]
    );
    assert_eq!(
        errors(
            json!({}),
            json!({"uncountedTerminatedPods": {"failed": ["a", "a", ""]}})
        ),
        [
            "status.uncountedTerminatedPods.failed[1]: Duplicate value: \"a\"",
            "status.uncountedTerminatedPods.failed[2]: Invalid value: \"\": must not be empty",
        ]
    );
    assert_eq!(
        errors(
            json!({"startTime": "2026-01-01T00:00:00Z"}),
            json!({"startTime": "2026-01-02T00:00:00Z"})
        ),
        [
            "status.startTime: Invalid value: \"2026-01-02T00:00:00Z\": field is immutable for unsuspended job once set"
        ]
    );
}

#[test]
fn cron_jobs() {
    check(
        vec![
            (json!({}), vec![]),
            (json!({"schedule": "@daily"}), vec![]),
            (json!({"timeZone": "Europe/Berlin"}), vec![]),
            (
                json!({"schedule": null}),
                vec!["spec.schedule: Required value"],
            ),
            (
                json!({"schedule": "* * * *"}),
                vec![
                    "spec.schedule: Invalid value: \"* * * *\": expected exactly 5 fields, found 4: [* * * *]",
                ],
            ),
            (
                json!({"schedule": "TZ=UTC * * * * *"}),
                vec![
                    "spec.schedule: Invalid value: \"TZ=UTC * * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
                ],
            ),
            (
                json!({"timeZone": "Mars/Olympus"}),
                vec![
                    "spec.timeZone: Invalid value: \"Mars/Olympus\": unknown time zone Mars/Olympus",
                ],
            ),
            (
                json!({"timeZone": "Local"}),
                vec![
                    "spec.timeZone: Invalid value: \"Local\": timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
                ],
            ),
            (
                json!({"concurrencyPolicy": "Queue"}),
                vec![
                    "spec.concurrencyPolicy: Unsupported value: \"Queue\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
                ],
            ),
            (
                json!({"successfulJobsHistoryLimit": -1}),
                vec![
                    "spec.successfulJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
                ],
            ),
            (
                json!({"jobTemplate": {"spec": {"selector": {"matchLabels": {"a": "b"}}}}}),
                vec![
                    "spec.jobTemplate.spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: `selector` will be auto-generated",
                ],
            ),
        ],
        |patch| with(cron_job(), &json!({"spec": patch})),
    );
    let long = with(cron_job(), &json!({"metadata": {"name": "n".repeat(53)}}));
    assert_eq!(
        create_errors(long),
        [format!(
            "metadata.name: Invalid value: \"{}\": must be no more than 52 characters",
            "n".repeat(53)
        )]
    );
}

#[test]
fn stateful_sets() {
    check(
        vec![
            (json!({"strategy": null}), vec![]),
            (
                json!({"podManagementPolicy": "Later"}),
                vec![
                    "spec.podManagementPolicy: Invalid value: \"Later\": must be 'OrderedReady' or 'Parallel'",
                ],
            ),
            (
                json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}}),
                vec![
                    "spec.updateStrategy.rollingUpdate: Invalid value: {\"Partition\":1,\"MaxUnavailable\":null}: only allowed for updateStrategy 'RollingUpdate'",
                ],
            ),
            (
                json!({"updateStrategy": {"rollingUpdate": {"partition": -1, "maxUnavailable": 0}}}),
                vec![
                    "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0",
                    "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0",
                ],
            ),
            (
                json!({"serviceName": "a.b"}),
                vec!["spec.serviceName: Invalid value: \"a.b\": must not contain dots"],
            ),
            (
                json!({"selector": {"matchLabels": null}}),
                vec!["spec.selector: Invalid value: {}: empty selector is invalid for statefulset"],
            ),
            (
                json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]}),
                vec![
                    "spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required",
                    "spec.volumeClaimTemplates[0].spec.resources[storage]: Required value",
                ],
            ),
            (
                json!({"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Ask"}}),
                vec![
                    "spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: \"Ask\": supported values: \"Retain\", \"Delete\"",
                ],
            ),
        ],
        |patch| with(stateful_set(), &json!({"spec": patch})),
    );
}

#[test]
fn a_stateful_set_mounts_what_its_templates_claim() {
    let set = with(
        stateful_set(),
        &json!({"spec": {"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}}),
    );
    let mut set = set;
    set["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "data", "mountPath": "/data"}]);
    assert_eq!(create_errors(set.clone()), [""; 0]);
    let made = prepared(set.clone());
    assert_eq!(
        made["spec"]["volumeClaimTemplates"][0],
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem",
                "resources": {"requests": {"storage": "1Gi"}}},
            "status": {"phase": "Pending"},
        })
    );
    assert_eq!(
        update_errors(
            set,
            &json!({"spec": {"serviceName": "other", "replicas": 4}})
        ),
        ["spec.serviceName: Invalid value: \"other\": field is immutable"]
    );
}

#[test]
fn daemon_sets() {
    check(
        vec![
            (json!({}), vec![]),
            (
                json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 1}}}),
                vec![
                    "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
                ],
            ),
            (
                json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0}}}),
                vec![
                    "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
                ],
            ),
            (
                json!({"updateStrategy": {"type": "Recreate"}}),
                vec![
                    "spec.updateStrategy: Unsupported value: {\"Type\":\"Recreate\",\"RollingUpdate\":null}: supported values: \"RollingUpdate\", \"OnDelete\"",
                ],
            ),
            (
                json!({"template": {"spec": {"restartPolicy": "OnFailure"}}}),
                vec![
                    "spec.template.spec.restartPolicy: Unsupported value: \"OnFailure\": supported values: \"Always\"",
                ],
            ),
        ],
        |patch| {
            let mut spec = patch.clone();
            spec["strategy"] = Value::Null;
            with(daemon_set(), &json!({"spec": spec}))
        },
    );
    let made = prepared(daemon_set());
    assert_eq!(
        made["metadata"]["annotations"],
        json!({"deprecated.daemonset.template.generation": "1"})
    );
    assert_eq!(made["status"]["numberReady"], 0);
}

#[test]
fn revisions_and_replication_controllers() {
    let revision = |data: Value| {
        let mut object = json!({"apiVersion": "apps/v1", "kind": "ControllerRevision",
            "metadata": {"name": "web-1"}, "revision": 1});
        object["data"] = data;
        object
    };
    assert_eq!(create_errors(revision(json!({"spec": {}}))), [""; 0]);
    assert_eq!(
        create_errors(revision(json!([1]))),
        ["data: Required value: data must be a valid JSON object"]
    );
    assert_eq!(
        update_errors(revision(json!({"a": 1})), &json!({"data": {"a": 2}})),
        ["data: Invalid value: {\"a\":2}: field is immutable"]
    );
    let template = deployment()["spec"]["template"].clone();
    let controller = json!({"apiVersion": "v1", "kind": "ReplicationController",
        "metadata": {"name": "web"}, "spec": {"template": template}});
    let made = prepared(controller.clone());
    assert_eq!(made["spec"]["selector"], json!({"app": "web"}));
    assert_eq!(made["metadata"]["labels"], json!({"app": "web"}));
    assert_eq!(made["spec"]["replicas"], 1);
    assert_eq!(
        create_errors(with(
            controller.clone(),
            &json!({"spec": {"selector": {"app": "other"}}})
        )),
        [
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`"
        ]
    );
    assert_eq!(
        create_errors(with(controller, &json!({"spec": {"template": null}}))),
        [
            "spec.selector: Required value",
            "spec.template: Required value"
        ]
    );
}
