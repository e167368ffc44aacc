//! Workloads and pod groups: what is filled in, taken off, refused and kept.

use serde_json::{Value, json};

use super::tables::{aged, cells, headings};
use super::{SUBDOMAIN, check, create_errors, pod, prepared, update_errors, with};

fn group(policy: &Value) -> Value {
    json!({
        "apiVersion": "scheduling.k8s.io/v1beta1", "kind": "PodGroup",
        "metadata": {"name": "trainers"}, "spec": {"schedulingPolicy": policy},
    })
}

fn gang() -> Value {
    group(&json!({"gang": {"minCount": 3}}))
}

fn workload(templates: &Value) -> Value {
    json!({
        "apiVersion": "scheduling.k8s.io/v1beta1", "kind": "Workload",
        "metadata": {"name": "training"}, "spec": {"podGroupTemplates": templates},
    })
}

fn template(name: &str) -> Value {
    json!({"name": name, "schedulingPolicy": {"gang": {"minCount": 2}}})
}

#[test]
fn groups_go_one_by_one_unless_they_say_otherwise() {
    let object = prepared(with(
        gang(),
        &json!({
            "spec": {"schedulingConstraints": {"topology": [{"key": "zone"}]},
                "resourceClaims": [{"name": "a", "resourceClaimName": "b"}],
                "preemptionPolicy": "Never", "parentCompositePodGroupName": "all"},
            "status": {"conditions": []},
        }),
    ));
    // What belongs to closed gates is taken off.
    assert_eq!(
        object["spec"],
        json!({"schedulingPolicy": {"gang": {"minCount": 3}}, "disruptionMode": {"single": {}}})
    );
    assert_eq!(object["status"], json!({}));
}

#[test]
fn groups_that_are_refused() {
    check(
        vec![
            (json!({}), vec![]),
            (
                json!({"schedulingPolicy": {"basic": {}}}),
                vec![
                    "spec.schedulingPolicy: Invalid value: \"{basic, gang}\": must specify exactly one of: `basic`, `gang`",
                ],
            ),
            (
                json!({"schedulingPolicy": {"gang": null}}),
                vec![
                    "spec.schedulingPolicy: Invalid value: \"\": must specify one of: `basic`, `gang`",
                ],
            ),
            (
                json!({"schedulingPolicy": {"gang": {"minCount": 0}}}),
                vec!["spec.schedulingPolicy.gang.minCount: Required value"],
            ),
            (
                json!({"schedulingPolicy": {"gang": {"minCount": -1}}}),
                vec![
                    "spec.schedulingPolicy.gang.minCount: Invalid value: -1: must be greater than or equal to 1",
                ],
            ),
            (
                json!({"disruptionMode": {"single": {}, "all": {}}}),
                vec![
                    "spec.disruptionMode: Invalid value: \"{single, all}\": must specify exactly one of: `single`, `all`",
                ],
            ),
            (
                json!({"priority": 1_000_000_001}),
                vec![
                    "spec.priority: Invalid value: 1000000001: must be less than or equal to 1000000000",
                ],
            ),
            (
                json!({"workloadRef": {"workloadName": "w"}}),
                vec!["spec.workloadRef.templateName: Required value"],
            ),
        ],
        |patch| with(gang(), &json!({"spec": patch})),
    );
    assert_eq!(
        create_errors(with(
            gang(),
            &json!({"spec": {"workloadRef": {"workloadName": "a_b", "templateName": "a.b"}}})
        )),
        [
            format!("spec.workloadRef.workloadName: Invalid value: \"a_b\": {SUBDOMAIN}"),
            "spec.workloadRef.templateName: Invalid value: \"a.b\": must not contain dots"
                .to_owned(),
        ]
    );
}

#[test]
fn of_groups_only_the_count_changes() {
    let none: Vec<String> = Vec::new();
    let of = |patch: &Value| update_errors(gang(), &json!({"spec": patch}));
    assert_eq!(
        of(&json!({"schedulingPolicy": {"gang": {"minCount": 2}}})),
        none
    );
    assert_eq!(
        of(&json!({"disruptionMode": {"single": null, "all": {}}})),
        ["spec.disruptionMode: Invalid value: null: field is immutable"]
    );
    assert_eq!(
        of(&json!({"priority": 3, "priorityClassName": "high"})),
        [
            "spec.priorityClassName: Invalid value: null: field is immutable",
            "spec.priority: Invalid value: null: field is immutable"
        ]
    );
    assert_eq!(
        of(&json!({"schedulingPolicy": {"gang": null, "basic": {}}})),
        [
            "spec.schedulingPolicy.basic: Invalid value: null: field is immutable",
            "spec.schedulingPolicy.gang: Invalid value: null: field cannot be cleared once set",
        ]
    );
    assert_eq!(
        of(&json!({"workloadRef": {"workloadName": "w", "templateName": "t"}})),
        ["spec.workloadRef: Invalid value: null: field is immutable"]
    );
}

#[test]
fn workloads() {
    let none: Vec<String> = Vec::new();
    let both = || workload(&json!([template("a"), template("b")]));
    assert_eq!(create_errors(both()), none);
    assert_eq!(
        create_errors(workload(&json!([]))),
        [
            "spec: Invalid value: \"\": must specify one of: `podGroupTemplates`, `compositePodGroupTemplates`"
        ]
    );
    assert_eq!(
        create_errors(workload(&json!([template("a"), template("a")]))),
        ["spec.podGroupTemplates[1]: Duplicate value: {\"name\":\"a\"}"]
    );
    let many: Vec<Value> = (0..9).map(|at| template(&format!("t{at}"))).collect();
    assert_eq!(
        create_errors(workload(&json!(many))),
        ["spec.podGroupTemplates: Too many: 9: must have at most 8 items"]
    );
    let urgent = with(template("b"), &json!({"priority": 5}));
    assert_eq!(
        create_errors(workload(&json!([template("a"), urgent]))),
        ["spec: Invalid value: null: detected multiple priority configurations"]
    );
    assert_eq!(
        create_errors(with(
            both(),
            &json!({"spec": {"controllerRef": {"kind": "Job"}}})
        )),
        ["spec.controllerRef.name: Required value"]
    );
    // Counts change; templates come and go with another workload.
    let fewer = with(
        template("a"),
        &json!({"schedulingPolicy": {"gang": {"minCount": 1}}}),
    );
    let patch = |templates: Value| json!({"spec": {"podGroupTemplates": templates}});
    assert_eq!(
        update_errors(both(), &patch(json!([fewer, template("b")]))),
        none
    );
    assert_eq!(
        update_errors(both(), &patch(json!([template("a"), template("c")]))),
        [
            "spec.podGroupTemplates[1]: Forbidden: item may not be added",
            "spec.podGroupTemplates: Forbidden: item may not be removed",
        ]
    );
}

#[test]
fn pods_name_their_group() {
    let of = |group: Value| with(pod(), &json!({"spec": {"schedulingGroup": group}}));
    let none: Vec<String> = Vec::new();
    assert_eq!(create_errors(of(json!({"podGroupName": "trainers"}))), none);
    assert_eq!(
        create_errors(of(json!({}))),
        [
            "spec.schedulingGroup.podGroupName: Invalid value: null: must specify one of: `podGroupName`"
        ]
    );
    assert_eq!(
        create_errors(of(json!({"podGroupName": "a_b"}))),
        [format!(
            "spec.schedulingGroup.podGroupName: Invalid value: \"a_b\": {SUBDOMAIN}"
        )]
    );
}

#[test]
fn tables() {
    let object = aged(prepared(gang()));
    assert_eq!(
        headings(&object, true),
        ["Name", "Policy", "Workload", "Status", "Age"]
    );
    assert_eq!(
        cells(&object, true),
        ["trainers", "Gang", "<none>", "Pending", "5m30s"]
    );
    let told = |status: &str| {
        let conditions = json!([{"type": "PodGroupInitiallyScheduled", "status": status}]);
        with(
            object.clone(),
            &json!({"status": {"conditions": conditions}}),
        )
    };
    assert_eq!(cells(&told("False"), false)[3], "Unschedulable");
    assert_eq!(cells(&told("True"), false)[3], "Scheduled");
}
