use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::row::Rows;
use crate::schema::SchemaSource;

/// The built-in types, and some that are published but have no row yet.
static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    fn source<K: schemars::JsonSchema>(generator: &mut schemars::SchemaGenerator) {
        generator.subschema_for::<K>();
    }
    let mut sources: Vec<SchemaSource> = Rows::builtin()
        .iter()
        .filter_map(|row| row.source)
        .collect();
    sources.extend([
        source::<k8s_openapi::api::core::v1::PersistentVolume> as SchemaSource,
        source::<k8s_openapi::api::events::v1::Event>,
        source::<k8s_openapi::api::networking::v1::Ingress>,
        source::<k8s_openapi::api::networking::v1::NetworkPolicy>,
        source::<k8s_openapi::api::apps::v1::ControllerRevision>,
        source::<k8s_openapi::api::batch::v1::CronJob>,
        source::<k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler>,
        source::<k8s_openapi::api::discovery::v1::EndpointSlice>,
    ]);
    Schema::from_sources(&sources)
});

#[test]
fn a_status_keeps_its_words() {
    let status = Status::not_found("apps", "deployments", "web");
    let bytes = encode_status(&status);
    let envelope = decode_envelope(&bytes).expect("own envelope");
    assert_eq!((envelope.api_version, envelope.kind), ("v1", "Status"));
    let text = String::from_utf8_lossy(envelope.raw);
    assert!(
        text.contains("deployments.apps \"web\" not found"),
        "{text}"
    );
}

/// Types of the group of measured figures, which are told as JSON only.
const METRICS: &str = "io.k8s.metrics.pkg.apis.metrics.v1beta1.";

/// Every row of a published stable type can be told by protobuf; the others are named here.
#[test]
fn rows_have_a_form() {
    let rows = Rows::builtin();
    let without: Vec<&str> = rows
        .iter()
        .filter(|row| !has_form(&row.type_name))
        .map(|row| &*row.type_name)
        .collect();
    let named = [
        format!("{METRICS}NodeMetrics"),
        format!("{METRICS}PodMetrics"),
    ];
    assert_eq!(without, named);
    for row in rows.iter().filter(|row| has_form(&row.type_name)) {
        let kind = kind_type(rows.schema(), &row.gvk.api_version(), &row.gvk.kind);
        assert_eq!(kind, Some(rows.ty(row)), "{}", row.type_name);
    }
}

/// Types that are reachable but lack numbers, and fields that lack one, would be lost in silence.
#[test]
fn every_field_has_a_number() {
    fn named(node: &numbers::Node, name: &str) -> bool {
        node.slots.iter().any(|(_, slot)| match slot {
            numbers::Slot::Field(field) | numbers::Slot::Either(field, _) => *field == name,
            numbers::Slot::Inline(node) => named(node, name),
        })
    }
    let rows = Rows::builtin();
    let mut missing = Vec::new();
    for definition in &rows.schema().types {
        let told_as_json = definition.name.starts_with(METRICS);
        if definition.fields.is_empty() || told_as_json {
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

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex"))
        .collect()
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// What Go has written, and what its JSON of the same object is: `golden.tsv` was made with
/// `k8s.io/apimachinery`'s own serializers from objects written for this test.
fn golden() -> impl Iterator<Item = (Vec<u8>, Value)> {
    include_str!("golden.tsv").lines().map(|line| {
        let (bytes, json) = line.split_once('\t').expect("two columns");
        (unhex(bytes), serde_json::from_str(json).expect("JSON"))
    })
}

/// Lists, which have no type of their own here, and statuses are only ever written.
fn golden_objects() -> impl Iterator<Item = (Ty, Vec<u8>, Value)> {
    golden().filter_map(|(bytes, json)| {
        let text = |name: &str| json[name].as_str().unwrap_or_default();
        let ty = kind_type(&SCHEMA, text("apiVersion"), text("kind"))?;
        Some((ty, bytes, json))
    })
}

#[test]
fn go_messages_are_read_as_go_reads_them() {
    let mut seen = 0;
    for (ty, bytes, mut json) in golden_objects() {
        let envelope = decode_envelope(&bytes).expect("envelope");
        assert_eq!(json["kind"], envelope.kind);
        let mut decoded = decode(&SCHEMA, &ty, envelope.raw).expect("message");
        without_nulls(&mut json);
        for name in ["apiVersion", "kind"] {
            json.as_object_mut().expect("object").remove(name);
        }
        without_nulls(&mut decoded);
        assert_eq!(decoded, json);
        seen += 1;
    }
    assert_eq!(seen, 26);
}

#[test]
fn what_is_written_reads_the_same() {
    for (ty, bytes, json) in golden_objects() {
        let envelope = decode_envelope(&bytes).expect("envelope");
        let decoded = decode(&SCHEMA, &ty, envelope.raw).expect("message");
        let written = encode_object(&SCHEMA, &json).expect("fits");
        let envelope = decode_envelope(&written).expect("envelope");
        assert_eq!(
            decode(&SCHEMA, &ty, envelope.raw).expect("message"),
            decoded
        );
    }
}

#[test]
fn lists_are_written_with_their_metadata() {
    let (bytes, list) = golden()
        .find(|(_, json)| json["kind"] == "ConfigMapList")
        .expect("in the table");
    // Maps of this list have one entry and its strings are all set, so Go's bytes can be met.
    let written = encode_object(&SCHEMA, &list).expect("fits");
    let (theirs, ours) = (
        decode_envelope(&bytes).expect("envelope"),
        decode_envelope(&written).expect("envelope"),
    );
    assert_eq!(
        (theirs.api_version, theirs.kind),
        (ours.api_version, ours.kind)
    );
    let meta_length = usize::from(theirs.raw[1]) + 2;
    assert_eq!(theirs.raw[..meta_length], ours.raw[..meta_length]);
}

#[test]
fn nesting_and_size_are_bounded() {
    let ty = kind_type(&SCHEMA, "v1", "Pod").expect("known");
    // A pod spec (2) of empty containers (2): two bytes make an object each.
    let mut spec = Vec::new();
    for _ in 0..MAX_VALUES {
        spec.extend_from_slice(&[0x12, 0]);
    }
    let mut message = Vec::new();
    wire::put_bytes(&mut message, 2, &spec);
    assert_eq!(decode(&SCHEMA, &ty, &message), Err(ProtobufError::TooLarge));
}

fn round(api_version: &str, kind: &str, object: &Value) -> Value {
    let ty = kind_type(&SCHEMA, api_version, kind).expect("known");
    let message = encode(&SCHEMA, &ty, object).expect("fits");
    decode(&SCHEMA, &ty, &message).expect("own message")
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
    let props = json!({
        "items": [{"type": "string"}, {"type": "integer"}],
        "additionalItems": false,
        "dependencies": {"a": ["b", "c"], "d": {"type": "object"}},
        "minimum": 0.5,
        "maximum": 7,
    });
    let definition = json!({
        "metadata": {},
        "spec": {"group": "g", "scope": "Cluster", "names": {"kind": "K", "plural": "ks"},
            "versions": [{"name": "v1", "served": true, "storage": false,
                "schema": {"openAPIV3Schema": props}}]},
    });
    assert_eq!(
        round(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            &definition
        ),
        definition
    );
    let lease = json!({"metadata": {}, "spec": {"renewTime": "2024-05-06T07:08:09.123456Z"}});
    assert_eq!(round("coordination.k8s.io/v1", "Lease", &lease), lease);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode_envelope(&bytes).is_err());
        let mut enveloped = b"k8s\0".to_vec();
        enveloped.extend_from_slice(&bytes);
        if let Ok(envelope) = decode_envelope(&enveloped) {
            prop_assert!(envelope.raw.len() <= bytes.len());
        }
        for kind in ["Pod", "ConfigMap", "Service", "Event"] {
            let ty = kind_type(&SCHEMA, "v1", kind).expect("known");
            if let Ok(value) = decode(&SCHEMA, &ty, &bytes) {
                let again = encode(&SCHEMA, &ty, &value);
                prop_assert!(again.is_ok(), "{again:?}");
            }
        }
    }

    /// Real messages with a few bytes changed come much further than noise.
    #[test]
    fn damaged_messages_are_survived(
        which in any::<prop::sample::Index>(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let objects: Vec<_> = golden_objects().collect();
        let (ty, mut bytes, _) = objects[which.index(objects.len())].clone();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(envelope) = decode_envelope(&bytes)
            && let Ok(value) = decode(&SCHEMA, &ty, envelope.raw)
        {
            let again = encode(&SCHEMA, &ty, &value);
            prop_assert!(again.is_ok(), "{again:?}");
        }
    }
}
