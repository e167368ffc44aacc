//! What concerns storage: a class for claims that name none, objects that stay while they are in
//! use, and claims that grow only where their class lets them.

use evenkeel_api::quantity::Quantity;
use evenkeel_api::{Status, object};
use serde_json::Value;

use super::{Change, Operation, Plugin, look_up};
use crate::registry::Registry;

const CLASS: look_up::Kind = ("storage.k8s.io", "v1", "StorageClass");
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const DEFAULT: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];

/// The newest of the objects that an annotation makes the default; by name where they are of one
/// age.
pub(super) fn newest_default(classes: Vec<Value>, annotations: &[&str]) -> Option<Value> {
    let age = |class: &Value| object::text(class, &["metadata", "creationTimestamp"]).to_owned();
    classes
        .into_iter()
        .filter(|class| {
            annotations
                .iter()
                .any(|name| object::annotation(class, name) == Some("true"))
        })
        .min_by(|a, b| {
            age(b)
                .cmp(&age(a))
                .then_with(|| object::name(a).cmp(object::name(b)))
        })
}

/// `DefaultStorageClass`
pub(super) struct DefaultStorageClass;

impl Plugin for DefaultStorageClass {
    fn mutate(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &mut Value,
    ) -> Result<(), Status> {
        let has_class = object::annotation(object, CLASS_ANNOTATION).is_some()
            || object::at(object, &["spec", "storageClassName"])
                .is_some_and(|class| !class.is_null());
        if !change.is_core("PersistentVolumeClaim")
            || change.operation != Operation::Create
            || change.subresource.is_some()
            || has_class
        {
            return Ok(());
        }
        let classes = look_up::objects(registry, CLASS, "");
        if let Some(class) = newest_default(classes, &DEFAULT) {
            let spec = object::fields(object::child(object, "spec"));
            spec.insert("storageClassName".to_owned(), object::name(&class).into());
        }
        Ok(())
    }
}

/// `StorageObjectInUseProtection`: a finalizer that goes when nobody uses the object.
pub(super) struct StorageObjectInUseProtection;

impl Plugin for StorageObjectInUseProtection {
    fn mutate(&self, _: &Registry, change: &Change<'_>, object: &mut Value) -> Result<(), Status> {
        let gvk = &change.row.gvk;
        let finalizer = match (gvk.group.as_ref(), gvk.kind.as_ref()) {
            ("", "PersistentVolume") => "kubernetes.io/pv-protection",
            ("", "PersistentVolumeClaim") => "kubernetes.io/pvc-protection",
            ("storage.k8s.io", "VolumeAttributesClass") => "kubernetes.io/vac-protection",
            // As the plugin `PodGroupProtection` of the reference.
            ("scheduling.k8s.io", "PodGroup") => "scheduling.k8s.io/podgroup-protection",
            _ => return Ok(()),
        };
        let new = change.operation == Operation::Create && change.subresource.is_none();
        if !new || object::finalizers(object).contains(&finalizer) {
            return Ok(());
        }
        let finalizers = object::metadata(object)
            .entry("finalizers")
            .or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(finalizers) = finalizers {
            finalizers.push(finalizer.into());
        }
        Ok(())
    }
}

/// `PersistentVolumeClaimResize`
pub(super) struct PersistentVolumeClaimResize;

impl Plugin for PersistentVolumeClaimResize {
    fn validate(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &Value,
    ) -> Result<(), Status> {
        let Some(old) = change.old else {
            return Ok(());
        };
        if !change.is_core("PersistentVolumeClaim")
            || change.operation != Operation::Update
            || change.subresource.is_some()
        {
            return Ok(());
        }
        let size = |claim: &Value| -> Quantity {
            object::text(claim, &["spec", "resources", "requests", "storage"])
                .parse()
                .unwrap_or_default()
        };
        if size(object) <= size(old) {
            return Ok(());
        }
        if object::text(old, &["status", "phase"]) != "Bound" {
            let why = "Only bound persistent volume claims can be expanded";
            return Err(change.forbidden(object, why));
        }
        let class = |claim: &Value| -> String {
            object::annotation(claim, CLASS_ANNOTATION)
                .unwrap_or_else(|| object::text(claim, &["spec", "storageClassName"]))
                .to_owned()
        };
        let name = class(object);
        let grows = !name.is_empty()
            && name == class(old)
            && look_up::object(registry, CLASS, "", &name).is_some_and(|class| {
                class.get("allowVolumeExpansion").and_then(Value::as_bool) == Some(true)
            });
        if grows {
            return Ok(());
        }
        Err(change.forbidden(
            object,
            "only dynamically provisioned pvc can be resized and the storageclass that provisions \
             the pvc must support resize",
        ))
    }
}
