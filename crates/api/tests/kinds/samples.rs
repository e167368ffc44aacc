//! Manifests as users write them: admitted, defaulted, valid, and stable under defaulting again.

use evenkeel_api::row::Rows;
use evenkeel_api::validation::{validate_metadata, validate_metadata_update};
use serde_json::{Value, json};

fn documents() -> Vec<Value> {
    [
        include_str!("manifests/checkout.yaml"),
        include_str!("manifests/demo-nginx.yaml"),
        include_str!("manifests/order-service.yaml"),
    ]
    .iter()
    .flat_map(|text| text.split("\n---\n"))
    .map(|text| serde_saphyr::from_str(text).expect("yaml"))
    .collect()
}

#[test]
fn samples_are_valid_and_stable() {
    let rows = Rows::builtin();
    for mut object in documents() {
        let api_version = object["apiVersion"].as_str().expect("there").to_owned();
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let kind = object["kind"].as_str().expect("there").to_owned();
        let row = rows.by_kind(group, version, &kind).expect("known");
        let found = rows.schema().admit(&rows.ty(row), &mut object);
        assert!(
            found.unknown.is_empty() && found.mismatch.is_none(),
            "{found:?}"
        );
        if row.namespaced() && object["metadata"]["namespace"].is_null() {
            object["metadata"]["namespace"] = json!("default");
        }
        row.strategy.defaults(&mut object);
        let once = object.clone();
        row.strategy.defaults(&mut object);
        assert_eq!(once, object, "{kind}: defaults twice are defaults once");
        row.strategy.prepare_create(&mut object);
        let mut wrong = validate_metadata(row, &object);
        wrong.extend(row.strategy.validate(&object));
        assert!(wrong.is_empty(), "{kind}: {wrong:?}");
        // What is stored is admitted again without a loss.
        let mut again = object.clone();
        let found = rows.schema().admit(&rows.ty(row), &mut again);
        assert!(
            found.unknown.is_empty() && found.mismatch.is_none(),
            "{found:?}"
        );
        assert_eq!(again, object);
        object["metadata"]["resourceVersion"] = json!("7");
        let mut new = object.clone();
        row.strategy.prepare_update(&mut new, &object);
        let mut wrong = validate_metadata_update(row, &new, &object);
        wrong.extend(row.strategy.validate_update(&new, &object));
        assert!(wrong.is_empty(), "{kind}: {wrong:?}");
        assert_eq!(
            new, object,
            "{kind}: an update that changes nothing changes nothing"
        );
    }
}

#[test]
fn a_deployment_gets_the_defaults_of_the_reference() {
    let rows = Rows::builtin();
    let row = rows.by_kind("apps", "v1", "Deployment").expect("there");
    let mut object = documents()
        .into_iter()
        .find(|object| object["metadata"]["name"] == "demo-nginx")
        .expect("there");
    row.strategy.defaults(&mut object);
    assert_eq!(
        object["spec"],
        json!({
            "replicas": 3,
            "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 10,
            "selector": {"matchLabels": {"app": "demo"}},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}
            },
            "template": {
                "metadata": {"labels": {"app": "demo"}},
                "spec": {
                    "containers": [{
                        "name": "nginx",
                        "image": "nginx:1.24",
                        "imagePullPolicy": "IfNotPresent",
                        "resources": {},
                        "terminationMessagePath": "/dev/termination-log",
                        "terminationMessagePolicy": "File"
                    }],
                    "dnsPolicy": "ClusterFirst",
                    "restartPolicy": "Always",
                    "schedulerName": "default-scheduler",
                    "securityContext": {},
                    "terminationGracePeriodSeconds": 30
                }
            }
        })
    );
}
