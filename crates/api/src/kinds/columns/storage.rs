//! Columns of volumes, claims and their classes.

use serde_json::Value;

use super::STRING;
use crate::kinds::table::{age, column, name, wide};
use crate::object::{annotation, at, deletion_timestamp, list, name as object_name, text};
use crate::row::{Cell, Column};

const DEFAULT_CLASS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";

fn modes(object: &Value, path: &[&str]) -> Value {
    let given = list(object, path);
    let short: Vec<&str> = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ]
    .into_iter()
    .filter(|(long, _)| given.iter().any(|mode| mode == long))
    .map(|(_, short)| short)
    .collect();
    short.join(",").into()
}

fn class(object: &Value) -> Value {
    annotation(object, CLASS)
        .unwrap_or_else(|| text(object, &["spec", "storageClassName"]))
        .into()
}

fn phase(object: &Value) -> Value {
    match deletion_timestamp(object) {
        Some(_) => "Terminating".into(),
        None => text(object, &["status", "phase"]).into(),
    }
}

/// The text of a field, or `<unset>`.
fn or_unset(object: &Value, path: &[&str]) -> Value {
    match at(object, path) {
        Some(Value::String(found)) => found.as_str().into(),
        _ => "<unset>".into(),
    }
}

fn or_zero(amount: &str) -> Value {
    if amount.is_empty() { "0" } else { amount }.into()
}

fn attributes_class(description: &'static str) -> Column {
    column(
        "VolumeAttributesClass",
        STRING,
        Cell::Of(|object| or_unset(object, &["spec", "volumeAttributesClassName"])),
        description,
    )
}

fn volume_mode() -> Column {
    wide(
        "VolumeMode",
        STRING,
        Cell::Of(|object| or_unset(object, &["spec", "volumeMode"])),
        "A file system, or a raw block device.",
    )
}

pub(in crate::kinds) fn persistent_volume() -> Vec<Column> {
    vec![
        column(
            "Capacity",
            STRING,
            Cell::Of(|object| or_zero(text(object, &["spec", "capacity", "storage"]))),
            "How much the volume holds.",
        ),
        column(
            "Access Modes",
            STRING,
            Cell::Of(|object| modes(object, &["spec", "accessModes"])),
            "All ways the volume can be mounted.",
        ),
        column(
            "Reclaim Policy",
            STRING,
            Cell::Of(|object| text(object, &["spec", "persistentVolumeReclaimPolicy"]).into()),
            "What becomes of the volume when its claim releases it.",
        ),
        column(
            "Status",
            STRING,
            Cell::Of(phase),
            "Whether the volume is free, bound or released.",
        ),
        column(
            "Claim",
            STRING,
            Cell::Of(|object| match at(object, &["spec", "claimRef"]) {
                Some(claim) => {
                    let (namespace, name) = (text(claim, &["namespace"]), text(claim, &["name"]));
                    format!("{namespace}/{name}").into()
                }
                None => "".into(),
            }),
            "The claim that the volume is bound to.",
        ),
        column(
            "StorageClass",
            STRING,
            Cell::Of(class),
            "StorageClass of the pv",
        ),
        attributes_class("VolumeAttributesClass of the pv"),
        column(
            "Reason",
            STRING,
            Cell::Of(|object| text(object, &["status", "reason"]).into()),
            "Why the volume is in its state, in one word for machines.",
        ),
        age(),
        volume_mode(),
    ]
}

pub(in crate::kinds) fn persistent_volume_claim() -> Vec<Column> {
    vec![
        column(
            "Status",
            STRING,
            Cell::Of(phase),
            "Whether the claim is bound.",
        ),
        column(
            "Volume",
            STRING,
            Cell::Of(|object| text(object, &["spec", "volumeName"]).into()),
            "The volume that the claim is bound to.",
        ),
        column(
            "Capacity",
            STRING,
            Cell::Of(|object| match text(object, &["spec", "volumeName"]) {
                "" => "".into(),
                _ => or_zero(text(object, &["status", "capacity", "storage"])),
            }),
            "How much the bound volume holds.",
        ),
        column(
            "Access Modes",
            STRING,
            Cell::Of(|object| match text(object, &["spec", "volumeName"]) {
                "" => "".into(),
                _ => modes(object, &["status", "accessModes"]),
            }),
            "The ways the bound volume can be mounted.",
        ),
        column(
            "StorageClass",
            STRING,
            Cell::Of(class),
            "StorageClass of the pvc",
        ),
        attributes_class("VolumeAttributesClass of the pvc"),
        age(),
        volume_mode(),
    ]
}

pub(in crate::kinds) fn storage_class() -> Vec<Column> {
    fn or_default(object: &Value, field: &str, default: &str) -> Value {
        match text(object, &[field]) {
            "" => default.into(),
            found => found.into(),
        }
    }
    vec![
        Column {
            cell: Cell::Of(|object| {
                let is_default = DEFAULT_CLASS
                    .iter()
                    .any(|key| annotation(object, key) == Some("true"));
                let mark = if is_default { " (default)" } else { "" };
                format!("{}{mark}", object_name(object)).into()
            }),
            ..name()
        },
        column(
            "Provisioner",
            STRING,
            Cell::Of(|object| text(object, &["provisioner"]).into()),
            "What makes the volumes.",
        ),
        column(
            "ReclaimPolicy",
            STRING,
            Cell::Of(|object| or_default(object, "reclaimPolicy", "Delete")),
            "What becomes of a volume when its claim releases it.",
        ),
        column(
            "VolumeBindingMode",
            STRING,
            Cell::Of(|object| or_default(object, "volumeBindingMode", "Immediate")),
            "When volumes are made and bound.",
        ),
        column(
            "AllowVolumeExpansion",
            STRING,
            Cell::Of(|object| {
                (object.get("allowVolumeExpansion") == Some(&Value::Bool(true))).into()
            }),
            "Whether volumes can grow.",
        ),
        age(),
    ]
}
