//! Deployments and replica sets that are refused, with the reference's words.

use serde_json::json;

use super::{check, create_errors, deployment, with};

#[test]
fn deployments() {
    check(
        vec![
            (json!({}), vec![]),
            (
                json!({"replicas": -1}),
                vec!["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                json!({"selector": null}),
                vec![
                    "spec.selector: Required value",
                    "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
                ],
            ),
            (
                json!({"selector": {"matchLabels": null}}),
                vec!["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
            ),
            (
                json!({"selector": {"matchLabels": {"app": "other"}}}),
                vec![
                    "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
                ],
            ),
            (
                json!({"template": {"metadata": null}}),
                vec![
                    "spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`",
                ],
            ),
            (
                json!({"selector": {"matchExpressions": [{"key": "app", "operator": "Has"}]}}),
                vec![
                    "spec.selector.matchExpressions[0].operator: Invalid value: \"Has\": not a valid selector operator",
                    "spec.selector: Invalid value: {\"matchExpressions\":[{\"key\":\"app\",\"operator\":\"Has\"}],\"matchLabels\":{\"app\":\"web\"}}: invalid label selector",
                ],
            ),
            (
                json!({"template": {"spec": {"restartPolicy": "Never"}}}),
                vec![
                    "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                ],
            ),
            (
                json!({"template": {"spec": {"activeDeadlineSeconds": 5}}}),
                vec![
                    "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
                ],
            ),
            (
                json!({"strategy": {"type": "Blue"}}),
                vec![
                    "spec.strategy: Unsupported value: {\"Type\":\"Blue\",\"RollingUpdate\":null}: supported values: \"Recreate\", \"RollingUpdate\"",
                ],
            ),
            (
                json!({"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}}),
                vec![
                    "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
                ],
            ),
            (
                json!({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}),
                vec![
                    "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
                ],
            ),
            (
                json!({"strategy": {"rollingUpdate": {"maxUnavailable": "101%"}}}),
                vec![
                    "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
                ],
            ),
            (
                json!({"strategy": {"rollingUpdate": {"maxSurge": "many"}}}),
                vec![
                    "spec.strategy.rollingUpdate.maxSurge: Invalid value: \"many\": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
                ],
            ),
            (
                json!({"minReadySeconds": 600}),
                vec![
                    "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds",
                ],
            ),
            (
                json!({"template": {"spec": {"containers": []}}}),
                vec!["spec.template.spec.containers: Required value"],
            ),
        ],
        |patch| with(deployment(), &json!({"spec": patch})),
    );
}

#[test]
fn a_replica_set_is_checked_like_a_deployment() {
    let mut object = deployment();
    object["kind"] = json!("ReplicaSet");
    assert_eq!(create_errors(object.clone()), Vec::<String>::new());
    object["spec"]["selector"] = json!({"matchLabels": {"app": "other"}});
    assert_eq!(
        create_errors(object),
        [
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`"
        ]
    );
}
