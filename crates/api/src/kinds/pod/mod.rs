//! Pods: defaults, validation, what may change, resources and the columns of their table.
//!
//! The parts that templates share with pods ([`template_defaults`], [`validate_template`]) are
//! used by every workload. What the node or the scheduler decide stays out: here are only facts
//! about the object.

mod containers;
mod defaults;
mod env;
mod host;
mod image;
mod label_keys;
mod level;
mod limits;
mod os;
mod probes;
mod projected;
mod resize;
pub mod resources;
mod scheduling;
mod security;
mod status;
mod table;
mod update;
mod validate;
mod volumes;
mod warnings;

use serde_json::{Value, json};

pub(crate) use defaults::round_up;
pub use defaults::template as template_defaults;
pub use image::pull_policy;
pub use limits::is_extended as is_extended_resource;
pub(crate) use limits::{
    amount as validate_amount, container_limits as validate_requirements, container_resource_name,
    overcommits, resource_name,
};
pub use resize::{prepare as prepare_resize, validate as validate_resize};
pub use resources::{compute_qos, pod_limits, pod_requests};
pub(crate) use scheduling::{
    effect as validate_taint_effect, node_selector as validate_node_selector,
    tolerations as validate_tolerations,
};
pub use table::{columns, status_text};
pub use validate::template as validate_template;
pub(crate) use volumes::{host_path as validate_host_path, nfs as validate_nfs};
pub use warnings::of as warnings_of;

use crate::field::ErrorList;
use crate::object::{self, Fields, fields};
use crate::row::Strategy;
use crate::validation::{Cursor, ip_warning};

/// What pods do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pods;

impl Strategy for Pods {
    fn defaults(&self, object: &mut Value) {
        defaults::pod(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        // After admission, which may have added containers.
        level::defaults(object::child(object, "spec"));
        let mut status = json!({"phase": "Pending", "qosClass": compute_qos(object)});
        if !object::list(object, &["spec", "schedulingGates"]).is_empty() {
            // The scheduler does not look at it yet, so that nobody else would say so.
            status["conditions"] = json!([{
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastTransitionTime": object::text(object, &["metadata", "creationTimestamp"]),
            }]);
        }
        fields(object).insert("status".to_owned(), status);
        label_keys::merge(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        // A client that does not know of resources of the whole pod does not take them away.
        if let Some(whole) = object::at(old, &["spec", "resources"]).cloned() {
            object::default_field(object::child(new, "spec"), "resources", whole);
        }
        object::keep_status(new, old);
    }

    fn prepare_status(&self, new: &mut Value, old: &Value) {
        // Old node agents spoil owner references, and garbage collection stands on them.
        let meta = object::metadata(new);
        meta.remove("deletionTimestamp");
        for name in [
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "ownerReferences",
        ] {
            let before = object::at(old, &["metadata", name]).cloned();
            object::set_or_remove(meta, name, before);
        }
        let qos = object::at(old, &["status", "qosClass"]).cloned();
        if let Some(qos) = qos {
            object::default_field(object::child(new, "status"), "qosClass", qos);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        validate::pod(object, &mut out);
        out
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        update::pod(new, old, &mut out);
        out
    }

    fn validate_status(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        status::validate(new, old, &mut out);
        out
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        // Only when it is made: pods are changed often, and mostly by agents.
        if old.is_some() {
            return Vec::new();
        }
        let mut out = Vec::new();
        let wrong = crate::names::dns1123_label(object::name(new));
        if !wrong.is_empty() {
            out.push(format!(
                "metadata.name: this is used in the Pod's hostname, which can result in surprising \
                 behavior; a DNS label is recommended: [{}]",
                wrong.join(" ")
            ));
        }
        out.extend(warnings_of(&Cursor::root(new)));
        out
    }

    fn status_warnings(&self, new: &Value) -> Vec<String> {
        let status = Cursor::root(new).child("status");
        let addresses = status.items("podIPs").chain(status.items("hostIPs"));
        addresses
            .filter_map(|it| ip_warning(it.text("ip"), &it.at("ip")))
            .collect()
    }

    fn grace_period(&self, object: &Value, asked: Option<i64>) -> Option<i64> {
        let spec = Cursor::root(object).child("spec");
        let finished = matches!(
            object::text(object, &["status", "phase"]),
            "Failed" | "Succeeded"
        );
        if spec.text("nodeName").is_empty() || finished {
            return Some(0);
        }
        let seconds = asked
            .or(spec.integer("terminationGracePeriodSeconds"))
            .unwrap_or_default();
        // A negative period counts as the shortest one.
        Some(if seconds < 0 { 1 } else { seconds })
    }
}

/// Keeps everything but the ephemeral containers as it was: an update through that subresource.
pub fn prepare_ephemeral_containers(new: &mut Value, old: &Value) {
    let containers = object::at(new, &["spec", "ephemeralContainers"]).cloned();
    let mut kept = old.clone();
    for name in ["resourceVersion", "managedFields"] {
        let given = object::at(new, &["metadata", name]).cloned();
        if given.is_some() {
            object::set_or_remove(object::metadata(&mut kept), name, given);
        }
    }
    object::set_or_remove(
        fields(object::child(&mut kept, "spec")),
        "ephemeralContainers",
        containers,
    );
    *new = kept;
    Pods.defaults(new);
}

/// What is wrong with an update through `ephemeralcontainers`.
#[must_use]
pub fn validate_ephemeral_containers(new: &Value, old: &Value) -> ErrorList {
    let mut out = ErrorList::new();
    validate::pod(new, &mut out);
    update::ephemeral_containers(new, old, &mut out);
    out
}

/// Assigns a pod to a node, as a `Binding` asks: the node's name, the binding's labels and
/// annotations, and the condition `PodScheduled`. `now` is an RFC 3339 time.
///
/// # Errors
/// Why the pod can't be assigned, in the reference's words; the answer is a conflict.
pub fn bind(pod: &mut Value, binding: &Value, now: &str) -> Result<(), String> {
    let name = object::name(pod).to_owned();
    if object::deletion_timestamp(pod).is_some() {
        return Err(format!(
            "pod {name} is being deleted, cannot be assigned to a host"
        ));
    }
    let assigned = object::text(pod, &["spec", "nodeName"]);
    if !assigned.is_empty() {
        return Err(format!(
            "pod {name} is already assigned to node {}",
            crate::field::quoted(assigned)
        ));
    }
    if !object::list(pod, &["spec", "schedulingGates"]).is_empty() {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let node = object::text(binding, &["target", "name"]).to_owned();
    fields(object::child(pod, "spec")).insert("nodeName".to_owned(), node.into());
    for map in ["labels", "annotations"] {
        let given: Fields = object::at(binding, &["metadata", map])
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        if !given.is_empty() {
            let metadata = object::child(pod, "metadata");
            fields(object::child(metadata, map)).extend(given);
        }
    }
    let status = object::child(pod, "status");
    // The room that was set aside has been taken (KEP-5278).
    fields(status).remove("nominatedNodeName");
    set_condition(
        status,
        json!({"type": "PodScheduled", "status": "True"}),
        now,
    );
    Ok(())
}

/// Puts a condition into a status, in place of the one of its type. The transition time is that
/// of the older one unless the condition's status differs. `now` is an RFC 3339 time.
pub fn set_condition(status: &mut Value, mut condition: Value, now: &str) {
    let list = fields(status)
        .entry("conditions")
        .or_insert_with(|| json!([]));
    if !list.is_array() {
        *list = json!([]);
    }
    let Some(list) = list.as_array_mut() else {
        return;
    };
    let place = list
        .iter()
        .position(|known| known.get("type") == condition.get("type"));
    let since = place
        .map(|place| &list[place])
        .filter(|known| known.get("status") == condition.get("status"))
        .and_then(|known| known.get("lastTransitionTime").cloned())
        .unwrap_or_else(|| now.into());
    object::default_field(&mut condition, "lastTransitionTime", since);
    match place {
        Some(place) => list[place] = condition,
        None => list.push(condition),
    }
}

/// The condition of a type in an object's status.
#[must_use]
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object::list(object, &["status", "conditions"])
        .iter()
        .find(|condition| condition.get("type").and_then(Value::as_str) == Some(kind))
}

/// Is a condition of an object true?
#[must_use]
pub fn has_condition(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|found| object::text(found, &["status"]) == "True")
}

/// Is a pod ready to take traffic?
#[must_use]
pub fn is_ready(pod: &Value) -> bool {
    has_condition(pod, "Ready")
}

/// Has a pod ended for good?
#[must_use]
pub fn is_finished(pod: &Value) -> bool {
    matches!(
        object::text(pod, &["status", "phase"]),
        "Failed" | "Succeeded"
    )
}

/// Does a pod count for its controller: not ended and not on its way out?
#[must_use]
pub fn is_active(pod: &Value) -> bool {
    !is_finished(pod) && object::deletion_timestamp(pod).is_none()
}
