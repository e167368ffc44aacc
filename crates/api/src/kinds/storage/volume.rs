//! Persistent volumes.

use serde_json::{Value, json};

use super::{
    CLASS_ANNOTATION, CLASS_DEPRECATED, VOLUME_MODES, access_modes, class_name,
    node_selector_warnings, positive, sources,
};
use crate::field::{ErrorList, FieldError, Path};
use crate::kinds::pod;
use crate::object::{self, child, default_field, fields};
use crate::quantity::Quantity;
use crate::row::Strategy;
use crate::validation::{self, Cursor};

const RECLAIM_POLICIES: [&str; 3] = ["Delete", "Recycle", "Retain"];
const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";
/// The sources that can be mounted with options.
const MOUNTED: [&str; 13] = [
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "nfs",
    "rbd",
    "quobyte",
    "iscsi",
    "cinder",
    "cephfs",
    "azureFile",
    "vsphereVolume",
    "azureDisk",
    "photonPersistentDisk",
];

/// What persistent volumes do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct PersistentVolumes;

/// Defaults of the sources: field, its field, value.
fn source_defaults(spec: &mut Value) {
    let defaults = [
        ("hostPath", "type", json!("")),
        ("rbd", "pool", json!("rbd")),
        ("rbd", "user", json!("admin")),
        ("rbd", "keyring", json!("/etc/ceph/keyring")),
        ("iscsi", "iscsiInterface", json!("default")),
        ("azureDisk", "cachingMode", json!("ReadWrite")),
        ("azureDisk", "fsType", json!("ext4")),
        ("azureDisk", "readOnly", json!(false)),
        ("azureDisk", "kind", json!("Shared")),
        ("scaleIO", "storageMode", json!("ThinProvisioned")),
        ("scaleIO", "fsType", json!("xfs")),
    ];
    for (source, field, value) in defaults {
        if let Some(source) = spec.get_mut(source).filter(|source| source.is_object()) {
            default_field(source, field, value);
        }
    }
}

impl Strategy for PersistentVolumes {
    fn defaults(&self, object: &mut Value) {
        default_field(child(object, "status"), "phase", "Pending");
        let spec = child(object, "spec");
        default_field(spec, "persistentVolumeReclaimPolicy", "Retain");
        default_field(spec, "volumeMode", "Filesystem");
        pod::round_up(spec, "capacity");
        source_defaults(spec);
    }

    fn prepare_create(&self, object: &mut Value) {
        let mut status = json!({"phase": "Pending"});
        if let Some(now) = object::at(object, &["metadata", "creationTimestamp"]) {
            status["lastPhaseTransitionTime"] = now.clone();
        }
        fields(object).insert("status".to_owned(), status);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        object::keep_status(new, old);
    }

    fn prepare_status_at(&self, new: &mut Value, old: &Value, now: &str) {
        const SINCE: &str = "lastPhaseTransitionTime";
        let of = |object: &Value, name: &str| object::at(object, &["status", name]).cloned();
        let (before, since) = (of(old, SINCE), of(new, SINCE));
        let moved = of(new, "phase") != of(old, "phase");
        if moved && (since.is_none() || since == before) {
            fields(child(new, "status")).insert(SINCE.to_owned(), now.into());
        } else if !moved && since.is_none() {
            object::set_or_remove(fields(child(new, "status")), SINCE, before);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let root = Cursor::root(object);
        let spec = root.child("spec");
        validate_spec(&spec, object::name(object), &mut out);
        let annotated = root
            .child("metadata")
            .child("annotations")
            .has(MOUNT_OPTIONS);
        if annotated && !MOUNTED.iter().any(|source| spec.has(source)) {
            out.push(FieldError::forbidden(
                &root
                    .child("metadata")
                    .at("annotations")
                    .child(MOUNT_OPTIONS),
                "may not specify mount options for this volume type",
            ));
        }
        out
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let (spec, before) = (
            Cursor::root(new).child("spec"),
            Cursor::root(old).child("spec"),
        );
        let changed = sources::fields().any(|field| {
            let mut now = spec.raw(field).clone();
            // The secret for expansion may be added later.
            if field == "csi"
                && before
                    .child("csi")
                    .raw("controllerExpandSecretRef")
                    .is_null()
                && let Some(source) = now.as_object_mut()
            {
                source.remove("controllerExpandSecretRef");
            }
            now != *before.raw(field)
        });
        if changed {
            out.push(FieldError::forbidden(
                &spec.at("persistentvolumesource"),
                "spec.persistentvolumesource is immutable after creation",
            ));
        }
        validation::immutable(
            spec.raw("volumeMode"),
            before.raw("volumeMode"),
            &Path::new("volumeMode"),
            &mut out,
        );
        if before.has("nodeAffinity") && spec.raw("nodeAffinity") != before.raw("nodeAffinity") {
            out.push(FieldError::invalid(
                &Path::new("nodeAffinity"),
                spec.raw("nodeAffinity").clone(),
                "field is immutable, except for updating from beta label to GA",
            ));
        }
        if before.has("volumeAttributesClassName") && !spec.has("volumeAttributesClassName") {
            out.push(FieldError::forbidden(
                &spec.at("volumeAttributesClassName"),
                "update from non-nil value to nil is forbidden",
            ));
        }
        out
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut out = Vec::new();
        let root = Cursor::root(new);
        let annotations = root.child("metadata").child("annotations");
        let mount_options = "deprecated since v1.31; use \"mountOptions\" attribute instead";
        for (key, told) in [
            (CLASS_ANNOTATION, CLASS_DEPRECATED),
            (MOUNT_OPTIONS, mount_options),
        ] {
            if annotations.has(key) {
                out.push(format!("{}: {told}", annotations.path.key(key)));
            }
        }
        let spec = root.child("spec");
        if spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
            out.push(
                "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. \
                 Instead, the recommended approach is to use dynamic provisioning."
                    .to_owned(),
            );
        }
        node_selector_warnings(&spec.child("nodeAffinity").child("required"), &mut out);
        for (source, shown, since, until) in [
            ("cephfs", "cephfs", "1.28", "1.31"),
            (
                "photonPersistentDisk",
                "photonPersistentDisk",
                "1.11",
                "1.16",
            ),
            ("scaleIO", "scaleIO", "1.16", "1.22"),
            ("storageos", "storageOS", "1.22", "1.25"),
            ("glusterfs", "glusterfs", "1.25", "1.26"),
            ("rbd", "rbd", "1.28", "1.31"),
        ] {
            if spec.has(source) {
                out.push(format!(
                    "spec.{shown}: deprecated in v{since}, non-functional in v{until}+"
                ));
            }
        }
        out
    }
}

fn validate_spec(spec: &Cursor<'_>, name: &str, out: &mut ErrorList) {
    access_modes(spec, "", out);
    capacity(spec, out);
    validation::one_of(
        spec,
        "persistentVolumeReclaimPolicy",
        &RECLAIM_POLICIES,
        out,
    );
    if let Some(affinity) = spec.get("nodeAffinity") {
        match affinity.get("required") {
            Some(required) => pod::validate_node_selector(&required, out),
            None => out.push(FieldError::required(
                &affinity.at("required"),
                "must specify required node constraints",
            )),
        }
    }
    sources::validate(spec, name, out);
    if spec.text("persistentVolumeReclaimPolicy") == "Recycle"
        && spec.has("hostPath")
        && is_root(spec.child("hostPath").text("path"))
    {
        out.push(FieldError::forbidden(
            &spec.at("persistentVolumeReclaimPolicy"),
            "may not be 'recycle' for a hostPath mount of '/'",
        ));
    }
    class_name(spec, "storageClassName", out);
    validation::one_of(spec, "volumeMode", &VOLUME_MODES, out);
    attributes_class(spec, out);
}

fn is_root(path: &str) -> bool {
    path.starts_with('/') && path.split('/').all(|part| matches!(part, "" | "." | ".."))
}

fn attributes_class(spec: &Cursor<'_>, out: &mut ErrorList) {
    if !spec.has("volumeAttributesClassName") {
        return;
    }
    if spec.text("volumeAttributesClassName").is_empty() {
        out.push(FieldError::required(
            &spec.at("volumeAttributesClassName"),
            "an empty string is disallowed",
        ));
    } else {
        class_name(spec, "volumeAttributesClassName", out);
    }
    if !spec.has("csi") {
        out.push(FieldError::required(
            &spec.at("csi"),
            "has to be specified when using volumeAttributesClassName",
        ));
    }
}

fn capacity(spec: &Cursor<'_>, out: &mut ErrorList) {
    let at = spec.child("capacity");
    let count = spec.entries("capacity").count();
    if count == 0 {
        out.push(FieldError::required(&at.path, ""));
    }
    if !at.has("storage") || count > 1 {
        let shown = if count == 0 {
            Value::Null
        } else {
            at.value.clone()
        };
        out.push(FieldError::not_supported(&at.path, shown, &["storage"]));
    }
    for (name, value) in spec.entries("capacity") {
        let amount = value
            .as_str()
            .and_then(|text| text.parse::<Quantity>().ok());
        if let Some(amount) = amount {
            let path = at.path.key(name);
            if amount.is_negative() {
                out.push(FieldError::invalid(
                    &path,
                    amount.units(),
                    "must be a valid resource quantity",
                ));
            }
            positive(&amount, &path, out);
        }
    }
}

/// Checks a volume that stands inline in a volume attachment.
pub(super) fn validate_inline(spec: &Cursor<'_>, out: &mut ErrorList) {
    const INLINE: &str = "may not be specified in the context of inline volumes";
    for name in ["claimRef", "capacity"] {
        if spec.has(name) {
            out.push(FieldError::forbidden(&spec.at(name), INLINE));
        }
    }
    if !spec.has("csi") {
        out.push(FieldError::required(
            &spec.at("csi"),
            "has to be specified in the context of inline volumes",
        ));
    }
    access_modes(spec, "", out);
    if !matches!(spec.text("persistentVolumeReclaimPolicy"), "" | "Retain") {
        out.push(FieldError::forbidden(
            &spec.at("persistentVolumeReclaimPolicy"),
            "may only be Retain in the context of inline volumes",
        ));
    }
    if spec.has("nodeAffinity") {
        out.push(FieldError::forbidden(&spec.at("nodeAffinity"), INLINE));
    }
    sources::validate(spec, "", out);
    if !spec.text("storageClassName").is_empty() {
        out.push(FieldError::forbidden(&spec.at("storageClassName"), INLINE));
    }
    if !matches!(spec.text("volumeMode"), "" | "Filesystem") {
        out.push(FieldError::forbidden(
            &spec.at("volumeMode"),
            "may not specify volumeMode other than Filesystem in the context of inline volumes",
        ));
    }
}
