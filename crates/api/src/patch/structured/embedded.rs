//! Fields that are there even when the JSON lacks them.
//!
//! Go holds some structs by value and writes some fields even when they are empty. The reference
//! compares such structs, so a field of theirs that JSON leaves out is not a field that was
//! added later. That decides whether `f:spec` itself shows up in managed fields, so it is kept
//! here, for built-in types.

use serde_json::Value;

use super::Shape;
use crate::schema::{Field, Ty, TypeDef};

/// `{}`
pub(super) static EMPTY: std::sync::LazyLock<Value> =
    std::sync::LazyLock::new(|| Value::Object(serde_json::Map::new()));
static NULL: Value = Value::Null;
static NO_TEXT: Value = Value::String(String::new());
static FALSE: Value = Value::Bool(false);
static ZERO: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| Value::from(0));

/// What a present struct holds in a field that its JSON lacks.
pub(super) fn absent<'v>(shape: Shape<'_>, name: &str) -> Option<&'v Value> {
    let definition = go_struct(shape)?;
    implied(definition, name, definition.fields.get(name)?)
}

/// All fields that a present struct holds whether or not its JSON has them.
pub(super) fn all<'s>(shape: Shape<'s>) -> impl Iterator<Item = (&'s str, &'static Value)> {
    go_struct(shape).into_iter().flat_map(|definition| {
        definition
            .fields
            .iter()
            .filter_map(|(name, field)| Some((&**name, implied(definition, name, field)?)))
    })
}

fn go_struct(shape: Shape<'_>) -> Option<&TypeDef> {
    shape
        .schema
        .definition(shape.ty)
        .filter(|definition| definition.name.starts_with("io.k8s."))
}

fn implied(definition: &TypeDef, name: &str, field: &Field) -> Option<&'static Value> {
    match &field.ty {
        Ty::Struct(_) if by_value(definition, name) => Some(&EMPTY),
        Ty::Time | Ty::MicroTime if time_by_value(definition, name) => Some(&NULL),
        _ if !field.always => None,
        _ if field.pointer => Some(&NULL),
        Ty::String => Some(&NO_TEXT),
        Ty::Bool => Some(&FALSE),
        Ty::Int32 | Ty::Int64 => Some(&ZERO),
        _ => Some(&NULL),
    }
}

/// Struct fields held by value although `omitempty`, which never omits them.
fn by_value(definition: &TypeDef, name: &str) -> bool {
    match name {
        "metadata" | "spec" | "status" => true,
        "template" => !definition.name.ends_with("ReplicationControllerSpec"),
        "strategy" => definition.name.ends_with("apps.v1.DeploymentSpec"),
        "resources" => matches!(
            definition.short_name(),
            "Container" | "EphemeralContainer" | "PersistentVolumeClaimSpec"
        ),
        "state" | "lastState" => definition.short_name() == "ContainerStatus",
        "userInfo" => definition.short_name() == "SelfSubjectReviewStatus",
        "user" => definition.short_name() == "TokenReviewStatus",
        "conditions" => definition.name.ends_with("discovery.v1.Endpoint"),
        "taint" => definition.short_name() == "DeviceTaintRuleSpec",
        "devices" => matches!(
            definition.short_name(),
            "AllocationResult" | "ResourceClaimSpec"
        ),
        "source" => matches!(definition.short_name(), "Event" | "VolumeAttachmentSpec"),
        "metric" | "target" | "current" => definition.name.contains(".autoscaling."),
        "updateStrategy" | "loadBalancer" | "daemonEndpoints" | "kubeletEndpoint" | "nodeInfo"
        | "involvedObject" | "deprecatedSource" | "regarding" | "roleRef" | "scaleTargetRef"
        | "describedObject" | "jobTemplate" | "podSelector" => true,
        _ => false,
    }
}

/// Times held by value; zero ones are written as null.
fn time_by_value(definition: &TypeDef, name: &str) -> bool {
    match name {
        "lastTransitionTime"
        | "lastProbeTime"
        | "lastHeartbeatTime"
        | "lastUpdateTime"
        | "lastObservedTime"
        | "firstTimestamp"
        | "lastTimestamp"
        | "eventTime"
        | "deprecatedFirstTimestamp"
        | "deprecatedLastTimestamp" => true,
        "startedAt" | "finishedAt" => matches!(
            definition.short_name(),
            "ContainerStateRunning" | "ContainerStateTerminated"
        ),
        "time" => definition.short_name() == "VolumeError",
        _ => false,
    }
}
