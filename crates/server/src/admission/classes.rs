//! What a pod gets from its runtime class, and the class of ingresses that name none.

use evenkeel_api::{Status, object};
use serde_json::Value;

use super::storage::newest_default;
use super::{Change, Operation, Plugin, look_up};
use crate::registry::Registry;

/// `RuntimeClass`: the overhead of the runtime, and where and beside what it runs.
pub(super) struct RuntimeClass;

fn is_new_pod(change: &Change<'_>) -> bool {
    change.is_core("Pod") && change.operation == Operation::Create && change.subresource.is_none()
}

/// The runtime class that a pod names.
fn class_of(
    registry: &Registry,
    change: &Change<'_>,
    pod: &Value,
) -> Result<Option<Value>, Status> {
    let name = object::text(pod, &["spec", "runtimeClassName"]);
    if name.is_empty() {
        return Ok(None);
    }
    look_up::object(registry, ("node.k8s.io", "v1", "RuntimeClass"), "", name)
        .map(Some)
        .ok_or_else(|| {
            let why = format!("pod rejected: RuntimeClass \"{name}\" not found");
            change.forbidden(pod, &why)
        })
}

fn mismatch(change: &Change<'_>, pod: &Value) -> Status {
    let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
    change.forbidden(pod, why)
}

impl Plugin for RuntimeClass {
    fn mutate(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &mut Value,
    ) -> Result<(), Status> {
        if !is_new_pod(change) {
            return Ok(());
        }
        let Some(class) = class_of(registry, change, object)? else {
            return Ok(());
        };
        if let Some(overhead) = object::at(&class, &["overhead", "podFixed"]) {
            let given = object::at(object, &["spec", "overhead"]);
            let empty = given
                .and_then(Value::as_object)
                .is_none_or(|map| map.is_empty());
            if !empty && given != Some(overhead) {
                return Err(mismatch(change, object));
            }
            let spec = object::fields(object::child(object, "spec"));
            spec.insert("overhead".to_owned(), overhead.clone());
        }
        if let Some(scheduling) = class.get("scheduling") {
            schedule(change, scheduling, object)?;
        }
        Ok(())
    }

    fn validate(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &Value,
    ) -> Result<(), Status> {
        if !is_new_pod(change) {
            return Ok(());
        }
        let class = class_of(registry, change, object)?;
        let wanted = class
            .as_ref()
            .and_then(|class| object::at(class, &["overhead", "podFixed"]));
        let given = object::at(object, &["spec", "overhead"]);
        match (wanted, given) {
            (Some(wanted), given) if given != Some(wanted) => Err(mismatch(change, object)),
            (None, Some(_)) => Err(change.forbidden(
                object,
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined \
                 Overhead",
            )),
            _ => Ok(()),
        }
    }
}

/// The class's node selector and tolerations join those of the pod.
fn schedule(change: &Change<'_>, scheduling: &Value, pod: &mut Value) -> Result<(), Status> {
    let wanted = scheduling.get("nodeSelector").and_then(Value::as_object);
    for (key, value) in wanted.into_iter().flatten() {
        let shown = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if let Some(own) = object::at(pod, &["spec", "nodeSelector", key])
            && own != value
        {
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; \
                 pod.spec.nodeSelector[{key}] = {}",
                shown(value),
                shown(own)
            );
            return Err(change.forbidden(pod, &why));
        }
        let selector = object::child(object::child(pod, "spec"), "nodeSelector");
        object::fields(selector).insert(key.clone(), value.clone());
    }
    let more = object::list(scheduling, &["tolerations"]);
    if more.is_empty() {
        return Ok(());
    }
    let own = object::fields(object::child(pod, "spec"))
        .entry("tolerations")
        .or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(own) = own {
        for toleration in more {
            if !own.contains(toleration) {
                own.push(toleration.clone());
            }
        }
    }
    Ok(())
}

/// `DefaultIngressClass`
pub(super) struct DefaultIngressClass;

impl Plugin for DefaultIngressClass {
    fn mutate(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &mut Value,
    ) -> Result<(), Status> {
        const GROUP: &str = "networking.k8s.io";
        let gvk = &change.row.gvk;
        let new = change.operation == Operation::Create && change.subresource.is_none();
        let named = object::at(object, &["spec", "ingressClassName"]).is_some()
            || object::annotation(object, "kubernetes.io/ingress.class").is_some();
        if gvk.group != GROUP || gvk.kind != "Ingress" || !new || named {
            return Ok(());
        }
        let classes = look_up::objects(registry, (GROUP, "v1", "IngressClass"), "");
        let annotation = ["ingressclass.kubernetes.io/is-default-class"];
        if let Some(class) = newest_default(classes, &annotation) {
            let spec = object::fields(object::child(object, "spec"));
            spec.insert("ingressClassName".to_owned(), object::name(&class).into());
        }
        Ok(())
    }
}
