//! `Priority`: the number behind a priority class.
//!
//! The two classes of the system are known even where their objects are not.

use evenkeel_api::{Status, object};
use serde_json::Value;

use super::{Change, Operation, Plugin, look_up};
use crate::registry::Registry;

const CLASS: look_up::Kind = ("scheduling.k8s.io", "v1", "PriorityClass");
const LOWER: &str = "PreemptLowerPriority";

/// What a class gives to a pod.
struct Class {
    name: String,
    priority: i64,
    preemption: String,
}

impl Class {
    fn of(value: &Value) -> Self {
        let preemption = match object::text(value, &["preemptionPolicy"]) {
            "" => LOWER,
            policy => policy,
        };
        Self {
            name: object::name(value).to_owned(),
            priority: object::integer(value, &["value"]).unwrap_or_default(),
            preemption: preemption.to_owned(),
        }
    }

    fn system(name: &str) -> Option<Self> {
        let priority = match name {
            "system-cluster-critical" => 2_000_000_000,
            "system-node-critical" => 2_000_001_000,
            _ => return None,
        };
        Some(Self {
            name: name.to_owned(),
            priority,
            preemption: LOWER.to_owned(),
        })
    }
}

pub(super) struct Priority;

impl Plugin for Priority {
    fn mutate(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &mut Value,
    ) -> Result<(), Status> {
        let gvk = &change.row.gvk;
        let is_group = gvk.group == CLASS.0 && gvk.kind == "PodGroup";
        if is_group && change.subresource.is_none() && change.operation == Operation::Create {
            return set_of_group(registry, change, object);
        }
        if !change.is_core("Pod") || change.subresource.is_some() {
            return Ok(());
        }
        match change.operation {
            Operation::Create => set(registry, change, object),
            Operation::Update => {
                keep(change, object);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// There is one default at most.
    fn validate(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &Value,
    ) -> Result<(), Status> {
        let is_class = change.row.gvk.kind == CLASS.2 && change.row.gvk.group == CLASS.0;
        let is_default = object.get("globalDefault").and_then(Value::as_bool) == Some(true);
        if !is_class || !is_default || change.operation == Operation::Delete {
            return Ok(());
        }
        match default(registry) {
            Some(known)
                if change.operation == Operation::Create
                    || object::name(&known) != object::name(object) =>
            {
                let why = format!(
                    "PriorityClass {} is already marked as default. Only one default can exist",
                    object::name(&known)
                );
                Err(change.forbidden(object, &why))
            }
            _ => Ok(()),
        }
    }
}

/// The class for pods that name none: where two were made at once, the lower one.
fn default(registry: &Registry) -> Option<Value> {
    look_up::objects(registry, CLASS, "")
        .into_iter()
        .filter(|class| class.get("globalDefault").and_then(Value::as_bool) == Some(true))
        .min_by_key(|class| object::integer(class, &["value"]).unwrap_or_default())
}

/// The class that the object names, or the default one.
fn class_of(registry: &Registry, change: &Change<'_>, object: &Value) -> Result<Class, Status> {
    let named = object::text(object, &["spec", "priorityClassName"]).to_owned();
    if named.is_empty() {
        let none = || Class {
            name: String::new(),
            priority: 0,
            preemption: LOWER.to_owned(),
        };
        return Ok(default(registry).as_ref().map_or_else(none, Class::of));
    }
    look_up::object(registry, CLASS, "", &named)
        .as_ref()
        .map(Class::of)
        .or_else(|| Class::system(&named))
        .ok_or_else(|| {
            let why = format!("no PriorityClass with name {named} was found");
            change.forbidden(object, &why)
        })
}

/// A group of pods has the priority of its class; its pods must have the same.
fn set_of_group(registry: &Registry, change: &Change<'_>, group: &mut Value) -> Result<(), Status> {
    let class = class_of(registry, change, group)?;
    if let Some(given) = object::integer(group, &["spec", "priority"])
        && given != class.priority
    {
        let why = format!(
            "priority set in the pod group ({given}) must match the priority computed ({}) based \
             on the priority class set in the spec",
            class.priority
        );
        return Err(change.forbidden(group, &why));
    }
    let spec = object::fields(object::child(group, "spec"));
    spec.insert("priority".to_owned(), class.priority.into());
    if !class.name.is_empty() {
        spec.insert("priorityClassName".to_owned(), class.name.into());
    }
    Ok(())
}

fn set(registry: &Registry, change: &Change<'_>, pod: &mut Value) -> Result<(), Status> {
    let class = class_of(registry, change, pod)?;
    let computed = "priority admission controller computed";
    if let Some(given) = object::integer(pod, &["spec", "priority"])
        && given != class.priority
    {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; {computed} \
             {} from the given PriorityClass name",
            class.priority
        );
        return Err(change.forbidden(pod, &why));
    }
    let policy = object::text(pod, &["spec", "preemptionPolicy"]);
    if !policy.is_empty() && policy != class.preemption {
        let why = format!(
            "the string value of PreemptionPolicy ({policy}) must not be provided in pod spec; \
             {computed} {} from the given PriorityClass name",
            class.preemption
        );
        return Err(change.forbidden(pod, &why));
    }
    let spec = object::fields(object::child(pod, "spec"));
    if !class.name.is_empty() {
        spec.insert("priorityClassName".to_owned(), class.name.into());
    }
    spec.insert("priority".to_owned(), class.priority.into());
    spec.insert("preemptionPolicy".to_owned(), class.preemption.into());
    Ok(())
}

/// A client that does not know these fields does not take them away.
fn keep(change: &Change<'_>, pod: &mut Value) {
    for name in ["priority", "preemptionPolicy"] {
        let before = change.old.and_then(|old| object::at(old, &["spec", name]));
        if let Some(before) = before {
            object::default_field(object::child(pod, "spec"), name, before.clone());
        }
    }
}
