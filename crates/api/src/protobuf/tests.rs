use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::row::Rows;

#[test]
fn a_status_keeps_its_words() {
    let rows = Rows::builtin();
    let status = Status::not_found("apps", "deployments", "web");
    let bytes = encode_status(&status);
    let envelope = decode_envelope(&bytes).expect("own envelope");
    assert_eq!((envelope.api_version, envelope.kind), ("v1", "Status"));
    assert!(!envelope.raw.is_empty());
    let _ = rows;
}

/// Every row of a published stable type can be told by protobuf; the others are named here.
#[test]
fn rows_have_a_form() {
    let rows = Rows::builtin();
    let without: Vec<&str> = rows
        .iter()
        .filter(|row| !has_form(&row.type_name))
        .map(|row| &*row.type_name)
        .collect();
    assert_eq!(without, Vec::<&str>::new());
    for row in rows.iter() {
        let kind = kind_type(rows.schema(), &row.gvk.api_version(), &row.gvk.kind);
        assert_eq!(kind, Some(rows.ty(row)), "{}", row.type_name);
    }
}

/// Types that are reachable but lack numbers, and fields that lack one, would be lost in silence.
#[test]
fn every_field_has_a_number() {
    fn named(node: &numbers::Node, name: &str) -> bool {
        node.slots.iter().any(|(_, slot)| match slot {
            numbers::Slot::Field(field) => *field == name,
            numbers::Slot::Inline(node) => named(node, name),
        })
    }
    let rows = Rows::builtin();
    let mut missing = Vec::new();
    for definition in &rows.schema().types {
        if definition.fields.is_empty() {
            continue;
        }
        let Some(node) = numbers::of(&definition.name) else {
            missing.push(definition.name.clone());
            continue;
        };
        for name in definition.fields.keys() {
            if !matches!(&**name, "apiVersion" | "kind") && !named(node, name) {
                missing.push(format!("{}.{name}", definition.name));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}

fn round(api_version: &str, kind: &str, object: &Value) -> Value {
    let rows = Rows::builtin();
    let ty = kind_type(rows.schema(), api_version, kind).expect("known");
    let message = encode(rows.schema(), &ty, object).expect("fits");
    decode(rows.schema(), &ty, &message).expect("own message")
}

#[test]
fn inline_and_odd_values_survive() {
    let pod = json!({
        "metadata": {
            "name": "web", "labels": {"a": "", "b": "c"},
            "creationTimestamp": "2024-05-06T07:08:09Z",
            "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {".": {}}}}],
        },
        "spec": {
            "containers": [{
                "name": "c",
                "resources": {"limits": {"cpu": "100m", "memory": "1Gi"}},
                "livenessProbe": {"httpGet": {"port": "web", "path": "/"}, "periodSeconds": 3},
                "securityContext": {"runAsUser": 0, "privileged": false},
                "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            }],
            "volumes": [{"name": "v", "emptyDir": {}}],
            "terminationGracePeriodSeconds": 0,
        },
        "status": {},
    });
    assert_eq!(round("v1", "Pod", &pod), pod);
    let review = json!({
        "metadata": {},
        "spec": {"user": "u", "extra": {"k": ["a", "b"]}},
        "status": {"allowed": false},
    });
    assert_eq!(
        round("authorization.k8s.io/v1", "SubjectAccessReview", &review),
        review
    );
    let lease = json!({"metadata": {}, "spec": {"renewTime": "2024-05-06T07:08:09.123456Z"}});
    assert_eq!(round("coordination.k8s.io/v1", "Lease", &lease), lease);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        thread_local! {
            static ROWS: Rows = Rows::builtin();
        }
        let _ = decode_envelope(&bytes).is_ok();
        ROWS.with(|rows| {
            for kind in ["Pod", "ConfigMap", "Service", "Event"] {
                let ty = kind_type(rows.schema(), "v1", kind).expect("known");
                if let Ok(value) = decode(rows.schema(), &ty, &bytes) {
                    prop_assert!(encode(rows.schema(), &ty, &value).is_ok());
                }
            }
            Ok(())
        })?;
    }
}
