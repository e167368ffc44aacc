//! Capacities, counters and conditions of devices that are refused, with the reference's words.

use serde_json::{Value, json};

use super::refused_cluster::named;
use super::{check, prepared, row_of, with};

fn slice(spec: &Value) -> Value {
    let base = json!({"driver": "d.example.com", "nodeName": "n1",
        "pool": {"name": "n1", "generation": 0, "resourceSliceCount": 1}});
    named(
        "resource.k8s.io/v1",
        "ResourceSlice",
        &json!({"spec": with(base, spec)}),
    )
}

#[test]
fn capacities() {
    let device = |policy: &Value| {
        slice(
            &json!({"devices": [{"name": "a", "allowMultipleAllocations": true, "capacity": {
            "memory": {"value": "10Gi", "requestPolicy": policy}}}]}),
        )
    };
    let range = |default: &str, range: Value| json!({"default": default, "validRange": range});
    check(
        vec![
            (json!({}), vec![]),
            (
                json!({"default": "1Gi", "validValues": ["1Gi", "2Gi"]}),
                vec![],
            ),
            (
                range("1Gi", json!({"min": "1Gi", "max": "10Gi", "step": "1Gi"})),
                vec![],
            ),
            (
                json!({"validValues": ["1Gi"]}),
                vec![
                    "spec.devices[0].capacity[memory].requestPolicy.default: Required value: required when validValues is defined",
                ],
            ),
            (
                json!({"validRange": {"min": "1Gi"}}),
                vec![
                    "spec.devices[0].capacity[memory].requestPolicy.default: Required value: required when validRange is defined",
                ],
            ),
            (
                json!({"default": "1Gi", "validValues": ["1Gi"], "validRange": {"min": "1Gi"}}),
                vec![
                    "spec.devices[0].capacity[memory].requestPolicy: Forbidden: exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time",
                ],
            ),
            (
                json!({"default": "3Gi", "validValues": ["20Gi", "1Gi", "1Gi"]}),
                vec![
                    "spec.devices[0].capacity[memory].requestPolicy.validValues[1]: Invalid value: \"1Gi\": values must be sorted in ascending order",
                    "spec.devices[0].capacity[memory].requestPolicy.validValues[0]: Invalid value: \"20Gi\": option is larger than capacity value: 10Gi",
                    "spec.devices[0].capacity[memory].requestPolicy.validValues[2]: Duplicate value: \"1073741824\"",
                    "spec.devices[0].capacity[memory].requestPolicy.validValues: Invalid value: \"3Gi\": default value is not valid according to the requestPolicy",
                ],
            ),
            (
                range("2Gi", json!({"min": "20Gi", "max": "1Gi"})),
                vec![
                    "spec.devices[0].capacity[memory].requestPolicy.validRange.min: Invalid value: \"20Gi\": min is larger than capacity value: 10Gi",
                    "spec.devices[0].capacity[memory].requestPolicy.validRange.min: Invalid value: \"2Gi\": default is less than min: 20Gi",
                    "spec.devices[0].capacity[memory].requestPolicy.validRange.max: Invalid value: \"20Gi\": min is larger than max: 1Gi",
                    "spec.devices[0].capacity[memory].requestPolicy.validRange.max: Invalid value: \"2Gi\": default is more than max: 1Gi",
                ],
            ),
            (
                range("1Gi", json!({"min": "1Gi", "max": "20Gi"})),
                vec![
                    "spec.devices[0].capacity[memory].requestPolicy.validRange.max: Invalid value: \"20Gi\": max is larger than capacity value: 10Gi",
                ],
            ),
            (
                range("2Gi", json!({"min": "1Gi", "max": "10Gi", "step": "2Gi"})),
                vec![
                    "spec.devices[0].capacity[memory].requestPolicy.validRange.step: Invalid value: \"2Gi\": value is not a multiple of a given step (2Gi) from (1Gi)",
                    "spec.devices[0].capacity[memory].requestPolicy.validRange.step: Invalid value: \"10Gi\": value is not a multiple of a given step (2Gi) from (1Gi)",
                ],
            ),
            (
                range("1Gi", json!({"min": "1Gi", "step": "10Gi"})),
                vec![
                    "spec.devices[0].capacity[memory].requestPolicy.validRange.step: Invalid value: \"10Gi\": one step 11Gi is larger than capacity value: 10Gi",
                ],
            ),
            (
                range("200m", json!({"min": "200m", "max": "1", "step": "100m"})),
                vec![],
            ),
            (
                range("250m", json!({"min": "200m", "max": "1", "step": "100m"})),
                vec![
                    "spec.devices[0].capacity[memory].requestPolicy.validRange.step: Invalid value: \"250m\": value is not a multiple of a given step (100m) from (200m)",
                ],
            ),
            (
                range("20u", json!({"min": "10u"})),
                vec![
                    "spec.devices[0].capacity[memory].requestPolicy.validRange.default: Invalid value: \"20u\": value cannot be represented as a milli value",
                    "spec.devices[0].capacity[memory].requestPolicy.validRange.min: Invalid value: \"10u\": value cannot be represented as a milli value",
                ],
            ),
        ],
        device,
    );
    check(
        vec![(
            json!({"default": "1Gi"}),
            vec![
                "spec.devices[0].capacity[memory].requestPolicy: Forbidden: allowMultipleAllocations must be true",
            ],
        )],
        |policy| {
            slice(&json!({"devices": [{"name": "a", "capacity": {
                "memory": {"value": "10Gi", "requestPolicy": policy}}}]}))
        },
    );
}

#[test]
fn counters() {
    check(
        vec![
            (
                json!({"sharedCounters": [{"name": "card", "counters": {"memory": {"value": "1"}}}]}),
                vec![],
            ),
            (
                json!({"sharedCounters": [{"name": "", "counters": {}}]}),
                vec![
                    "spec.sharedCounters[0].name: Required value",
                    "spec.sharedCounters[0].counters: Required value",
                ],
            ),
            (
                json!({"sharedCounters": [
                    {"name": "card", "counters": {"memory": {"value": "1"}}},
                    {"name": "card", "counters": {"memory": {"value": "1"}}}]}),
                vec!["spec.sharedCounters[1]: Duplicate value: \"card\""],
            ),
            (
                json!({"devices": [{"name": "a", "consumesCounters": [{"counterSet": "card"}]}]}),
                vec!["spec.devices[0].consumesCounters[0].counters: Required value"],
            ),
            (
                json!({"devices": [{"name": "a", "consumesCounters": [
                    {"counterSet": "a", "counters": {"m": {"value": "1"}}},
                    {"counterSet": "b", "counters": {"m": {"value": "1"}}},
                    {"counterSet": "c", "counters": {"m": {"value": "1"}}}]}]}),
                vec!["spec.devices[0].consumesCounters: Too many: 3: must have at most 2 items"],
            ),
        ],
        slice,
    );
}

#[test]
fn places_and_conditions() {
    let each = |device: Value| {
        json!({"nodeName": null, "perDeviceNodeSelection": true,
            "devices": [with(json!({"name": "a"}), &device)]})
    };
    check(
        vec![
            (each(json!({"allNodes": true})), vec![]),
            (
                each(json!({})),
                vec![
                    "spec.devices[0]: Required value: exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
                ],
            ),
            (
                each(json!({"allNodes": true, "nodeName": "n"})),
                vec![
                    "spec.devices[0]: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
                ],
            ),
            (
                json!({"devices": [{"name": "a", "nodeName": "n"}]}),
                vec![
                    "spec.devices[0]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
                ],
            ),
            (
                json!({"devices": [{"name": "a", "bindingConditions": ["up"],
                    "bindingFailureConditions": ["down"]}]}),
                vec![],
            ),
            (
                json!({"devices": [{"name": "a", "bindingConditions": ["up"],
                    "bindingFailureConditions": ["up"]}]}),
                vec![
                    "spec.devices[0].bindingFailureConditions[0]: Invalid value: \"up\": bindingFailureConditions must not overlap with bindingConditions",
                ],
            ),
            (
                json!({"devices": [{"name": "a", "bindingConditions": ["up"]}]}),
                vec![
                    "spec.devices[0].bindingFailureConditions: Invalid value: null: bindingFailureConditions are required to use bindingConditions",
                ],
            ),
        ],
        slice,
    );
}

#[test]
fn what_belongs_to_closed_gates_is_taken_off() {
    let made = prepared(slice(
        &json!({"skipNodeOperations": ["x"], "devices": [{"name": "a",
        "attributes": {"many": {"ints": [1, 2]}, "one": {"int": 1}},
        "nodeAllocatableResources": {"cpu": {}},
        "consumesCounters": [{"counterSet": "c", "counters": {"m": {"value": "1"}},
            "compatibilityGroups": ["g"]}]}]}),
    ));
    let spec = &made["spec"];
    assert_eq!(spec.get("skipNodeOperations"), None);
    assert_eq!(
        spec["devices"][0],
        json!({"name": "a", "attributes": {"many": {}, "one": {"int": 1}},
            "consumesCounters": [{"counterSet": "c", "counters": {"m": {"value": "1"}}}]})
    );
    let claim = named(
        "resource.k8s.io/v1",
        "ResourceClaim",
        &json!({"spec": {"devices": {"requests": [{"name": "r", "exactly": {
            "deviceClassName": "c", "derivedAttributes": [{}]}}]}}}),
    );
    let made = prepared(claim);
    let exactly = &made["spec"]["devices"]["requests"][0]["exactly"];
    assert_eq!(exactly.get("derivedAttributes"), None);
}

#[test]
fn statuses_of_claims() {
    let claim = |result: &Value, devices: &Value| {
        let base = json!({"request": "r", "driver": "d.example.com", "pool": "p", "device": "a"});
        named(
            "resource.k8s.io/v1",
            "ResourceClaim",
            &json!({
                "spec": {"devices": {"requests": [{"name": "r", "exactly": {
                    "deviceClassName": "c", "allocationMode": "ExactCount", "count": 1}}]}},
                "status": {"allocation": {"devices": {"results": [with(base, result)]}},
                    "devices": devices},
            }),
        )
    };
    let share = "9e8d7c6b-0a1b-4c3d-8e9f-001122334455";
    let errors = |result: Value, devices: Value| -> Vec<String> {
        let new = claim(&result, &devices);
        let mut old = new.clone();
        old["status"] = json!({});
        let row = row_of(&new);
        let errors = row.strategy.validate_status(&new, &old);
        errors.iter().map(ToString::to_string).collect()
    };
    let own = json!({"driver": "d.example.com", "pool": "p", "device": "a", "shareID": share});
    assert_eq!(
        errors(json!({"shareID": share}), json!([own.clone()])),
        Vec::<String>::new()
    );
    assert_eq!(
        errors(json!({}), json!([own])),
        [format!(
            "status.devices[0]: Invalid value: d.example.com/p/a/{share}: must be an allocated \
             device in the claim"
        )]
    );
    assert_eq!(
        errors(json!({"shareID": "first"}), json!([])),
        [
            "status.allocation.devices.results[0].shareID: Invalid value: \"first\": error validating uid: invalid UUID length: 5"
        ]
    );
}
