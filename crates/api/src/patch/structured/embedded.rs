//! Fields that are there even when the JSON lacks them.
//!
//! Go holds some structs by value and writes some fields even when they are empty. The reference
//! compares such structs, so a field of theirs that JSON leaves out is not a field that was
//! added later. That decides whether `f:spec` itself shows up in managed fields, so it is kept
//! here, for built-in types.

use serde_json::Value;

use super::Shape;
use crate::schema::{Ty, TypeDef};

/// `{}`
pub(super) static EMPTY: std::sync::LazyLock<Value> =
    std::sync::LazyLock::new(|| Value::Object(serde_json::Map::new()));
static NULL: Value = Value::Null;
static NO_TEXT: Value = Value::String(String::new());
static FALSE: Value = Value::Bool(false);
static ZERO: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| Value::from(0));

/// What a present struct holds in a field that its JSON lacks.
pub(super) fn absent<'v>(shape: Shape<'_>, name: &str) -> Option<&'v Value> {
    let definition = shape.schema.definition(shape.ty)?;
    if !definition.name.starts_with("io.k8s.") {
        return None;
    }
    let field = definition.fields.get(name)?;
    match &field.ty {
        Ty::Struct(_) if by_value(definition, name) => Some(&EMPTY),
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
