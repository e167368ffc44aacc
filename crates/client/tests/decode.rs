//! Objects as servers write them, read as the types that loops know.

use evenkeel_api::Rows;
use evenkeel_api::schema::{Schema, Ty};
use evenkeel_client::{Decode as _, Kind};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet,
};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, ClusterTrustBundle, PodCertificateRequest,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Event, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod,
    ReplicationController, ResourceQuota, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::resource::v1::{
    DeviceClass, DeviceTaintRule, ResourceClaim, ResourceClaimTemplate, ResourceSlice,
};
use k8s_openapi::api::scheduling::v1beta1::PodGroup;
use k8s_openapi::api::storage::v1::{
    CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass,
};
use k8s_openapi::api::storagemigration::v1::StorageVersionMigration;
use serde_json::{Value, json as literal};

#[test]
fn a_time_that_nobody_gave_keeps_nobody_from_an_object() {
    let condition = r#"{"type":"A","status":"True","lastTransitionTime":null,"message":"null"}"#;
    let text = format!(
        r#"{{"metadata":{{"name":"a","deletionTimestamp":null}},"spec":null,"status":{{"conditions":[{condition}]}}}}"#
    );
    let service = Service::decode(&text).expect("an object");
    assert_eq!(service.metadata.deletion_timestamp, None);
    let conditions = service.status.and_then(|status| status.conditions);
    let condition = conditions.and_then(|mut all| all.pop()).expect("one");
    assert_eq!(condition.type_, "A");
    assert_eq!(condition.message, "null");
    assert_eq!(
        condition.last_transition_time.0.to_string(),
        "0001-01-01T00:00:00Z"
    );
}

#[test]
fn what_is_wrong_otherwise_is_told() {
    let wrong = Service::decode(r#"{"metadata":{"name":1},"spec":null}"#);
    let told = wrong.expect_err("a number is no name").to_string();
    assert!(told.starts_with("invalid type: integer `1`"), "{told}");
    let cut = Service::decode(r#"{"metadata":{"name":"a""#);
    assert!(cut.is_err_and(|error| error.is_eof()));
}

/// Values at the edges of what a type takes, and beyond them.
fn edges(ty: &Ty) -> Vec<Value> {
    let of = |values: Value| match values {
        Value::Array(values) => values,
        _ => Vec::new(),
    };
    of(match ty {
        Ty::Bool => literal!([true, false]),
        Ty::Int32 => literal!([0, i32::MIN, i32::MAX, 1.0, i64::MAX]),
        Ty::Int64 => literal!([0, i64::MIN, i64::MAX, 1e3, u64::MAX]),
        Ty::Number => literal!([0, -1.5, 1e308, u64::MAX]),
        Ty::String => literal!(["", "a", "\u{0}\u{10ffff}"]),
        Ty::Bytes => literal!(["", "YQ==", "YQ", "Y\nQ=="]),
        Ty::Time | Ty::MicroTime => literal!([
            "",
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59-14:00",
            "0001-01-01T00:00:00+14:00",
            "2026-02-28T23:59:60Z",
            "2026-02-28T24:00:00Z",
            "2026-02-28T01:02:03.123456789+23:59",
            "2026-02-28t01:02:03z",
            "2026-02-28 01:02:03Z",
        ]),
        Ty::Quantity => literal!(["0", "", "1e3", "1.5Gi", "-0.000000001", 1, 0.1, u64::MAX]),
        Ty::IntOrString => literal!([0, -1, "", "50%", i32::MAX, i64::MAX, 1.0]),
        Ty::Any => literal!([null, 1, "a", [], {}, {"a": [null]}]),
        Ty::Struct(_) | Ty::List(_) | Ty::Map(_) => Value::Null,
    })
}

/// Values of a type with one thing in them, for each thing that may be in them. A struct that holds
/// itself is gone into twice.
fn each(schema: &Schema, ty: &Ty, above: &mut Vec<usize>) -> Vec<Value> {
    let mut found = vec![Value::Null];
    match ty {
        Ty::Struct(index) => {
            found.push(literal!({}));
            if above.iter().filter(|it| *it == index).count() < 2 {
                above.push(*index);
                for (name, field) in &schema.get(*index).fields {
                    let values = each(schema, &field.ty, above).into_iter();
                    found.extend(values.map(|value| literal!({(&**name): value})));
                }
                above.pop();
            }
        }
        Ty::List(item) => {
            found.push(literal!([]));
            let values = each(schema, item, above).into_iter();
            found.extend(values.map(|value| literal!([value])));
        }
        Ty::Map(item) => {
            found.push(literal!({}));
            let values = each(schema, item, above).into_iter();
            found.extend(values.map(|value| literal!({"a": value})));
        }
        leaf => found.extend(edges(leaf)),
    }
    found
}

/// What of a kind the door takes in and its type here does not; and how much was taken in.
fn unread<K: Kind>(rows: &Rows) -> (Vec<String>, usize) {
    let (group, version, kind) = (K::group(&()), K::version(&()), K::kind(&()));
    let row = rows
        .by_kind(&group, &version, &kind)
        .expect("a row")
        .clone();
    let (mut wrong, mut taken) = (Vec::new(), 0);
    for mut object in each(rows.schema(), &rows.ty(&row), &mut Vec::new()) {
        // Version and kind are what the path says.
        let told = |name: &str| object.get(name).is_some();
        if told("apiVersion") || told("kind") {
            continue;
        }
        if !object.is_object() || rows.admit(&row, &mut object).mismatch.is_some() {
            continue;
        }
        row.strategy.defaults(&mut object);
        rows.fill(&row, &mut object);
        taken += 1;
        let text = object.to_string();
        if let Err(error) = K::decode(&text) {
            wrong.push(format!("{kind} {text}: {error}"));
        }
    }
    (wrong, taken)
}

/// One object that a loop can't read keeps it from all others of its kind.
#[test]
fn loops_can_read_whatever_the_door_takes_in() {
    let rows = Rows::with_gates(&["GenericWorkload".to_owned()]);
    let (mut wrong, mut taken) = (Vec::new(), 0);
    macro_rules! all {
        ($($kind:ty),+ $(,)?) => {$(
            let of_kind = unread::<$kind>(&rows);
            wrong.extend(of_kind.0);
            taken += of_kind.1;
        )+};
    }
    all!(
        CSIDriver,
        CSINode,
        CSIStorageCapacity,
        CertificateSigningRequest,
        ClusterRole,
        ClusterTrustBundle,
        ConfigMap,
        ControllerRevision,
        CronJob,
        DaemonSet,
        Deployment,
        DeviceClass,
        DeviceTaintRule,
        EndpointSlice,
        Endpoints,
        Event,
        HorizontalPodAutoscaler,
        IPAddress,
        Job,
        Lease,
        Namespace,
        Node,
        PersistentVolume,
        PersistentVolumeClaim,
        Pod,
        PodCertificateRequest,
        PodDisruptionBudget,
        PodGroup,
        ReplicaSet,
        ReplicationController,
        ResourceClaim,
        ResourceClaimTemplate,
        ResourceQuota,
        ResourceSlice,
        Secret,
        Service,
        ServiceAccount,
        ServiceCIDR,
        StatefulSet,
        StorageClass,
        StorageVersionMigration,
        ValidatingAdmissionPolicy,
        VolumeAttachment,
        VolumeAttributesClass,
    );
    assert!(taken > 10_000, "{taken} objects say too little");
    assert!(
        wrong.is_empty(),
        "{} of {taken} objects can't be read:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
