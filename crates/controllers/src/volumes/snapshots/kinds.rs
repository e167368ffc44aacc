//! The kinds of snapshots, `snapshot.storage.k8s.io/v1`, with the fields that their users know, and
//! what definitions say of them.
//!
//! They are custom resources with definitions that the loop makes when they are not there. A
//! definition that somebody else wrote stays as it is.

use std::collections::BTreeMap;

use evenkeel_api::local_volume::SNAPSHOT_GROUP;
use evenkeel_client::custom_kind;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The version that is read.
pub const VERSION: &str = "v1";

/// Somebody's wish for the state of a volume, and how it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Name, namespace, finalizers.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is wished.
    #[serde(default)]
    pub spec: SnapshotSpec,
    /// How it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<SnapshotStatus>,
}

/// `spec` of a `VolumeSnapshot`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotSpec {
    /// Of what.
    #[serde(default)]
    pub source: SnapshotSource,
    /// By which class; unset means the default one of the volume's driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_snapshot_class_name: Option<String>,
}

/// What a snapshot is of: exactly one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotSource {
    /// A claim of the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim_name: Option<String>,
    /// A content that is there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_snapshot_content_name: Option<String>,
}

/// `status` of a `VolumeSnapshot`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotStatus {
    /// The content that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_volume_snapshot_content_name: Option<String>,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_time: Option<Time>,
    /// Volumes can be made from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_to_use: Option<bool>,
    /// What such a volume needs at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_size: Option<Quantity>,
    /// What went wrong last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<SnapshotError>,
}

/// What went wrong, and when.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SnapshotError {
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// A sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A snapshot that some storage has.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Content {
    /// Name, labels, finalizers.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Which one.
    #[serde(default)]
    pub spec: ContentSpec,
    /// How it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<ContentStatus>,
}

/// `spec` of a `VolumeSnapshotContent`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContentSpec {
    /// For whom.
    #[serde(default)]
    pub volume_snapshot_ref: ObjectReference,
    /// `Delete` or `Retain`.
    #[serde(default)]
    pub deletion_policy: String,
    /// Who has it.
    #[serde(default)]
    pub driver: String,
    /// The class it was made by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_snapshot_class_name: Option<String>,
    /// Of what.
    #[serde(default)]
    pub source: ContentSource,
    /// The mode of the volume it is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_volume_mode: Option<String>,
}

/// What a content is of: exactly one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContentSource {
    /// A volume, as its driver calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_handle: Option<String>,
    /// A snapshot that is there already, as its driver calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_handle: Option<String>,
}

/// `status` of a `VolumeSnapshotContent`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContentStatus {
    /// What its driver calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_handle: Option<String>,
    /// When it was made, in nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_time: Option<i64>,
    /// Bytes that a volume made from it needs at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_size: Option<i64>,
    /// Volumes can be made from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_to_use: Option<bool>,
    /// What went wrong last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<SnapshotError>,
}

/// How snapshots are made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Class {
    /// The name, and whether it is the default one.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// By whom.
    pub driver: String,
    /// What else the driver is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<BTreeMap<String, String>>,
    /// `Delete` or `Retain`.
    pub deletion_policy: String,
}

custom_kind!(
    Snapshot,
    NamespaceResourceScope,
    SNAPSHOT_GROUP,
    VERSION,
    "VolumeSnapshot",
    "volumesnapshots"
);
custom_kind!(
    Content,
    ClusterResourceScope,
    SNAPSHOT_GROUP,
    VERSION,
    "VolumeSnapshotContent",
    "volumesnapshotcontents"
);
custom_kind!(
    Class,
    ClusterResourceScope,
    SNAPSHOT_GROUP,
    VERSION,
    "VolumeSnapshotClass",
    "volumesnapshotclasses"
);

fn text(about: &str) -> Value {
    json!({"type": "string", "description": about})
}

fn once(field: &str) -> Value {
    json!({"rule": "self == oldSelf", "message": format!("{field} is immutable")})
}

fn exactly_one(one: &str, other: &str) -> Value {
    let message = format!("exactly one of {one} and {other} must be set");
    let rule = format!("has(self.{one}) != has(self.{other})");
    let kept = |field: &str| {
        json!({
            "rule": format!("!has(oldSelf.{field}) || has(self.{field})"),
            "message": format!("{field} is required once set"),
        })
    };
    json!([kept(one), kept(other), {"rule": rule, "message": message}])
}

fn error() -> Value {
    json!({
        "type": "object", "description": "What went wrong last.",
        "properties": {
            "message": text("A sentence."),
            "time": {"type": "string", "format": "date-time", "description": "When."},
        },
    })
}

fn policy() -> Value {
    json!({
        "type": "string", "enum": ["Delete", "Retain"],
        "description": "Whether the snapshot goes with the object that stands for it.",
    })
}

fn quantity() -> Value {
    json!({
        "description": "What a volume made from it needs at least.",
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "x-kubernetes-int-or-string": true,
        "pattern": "^(\\+|-)?(([0-9]+(\\.[0-9]*)?)|(\\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\\+|-)?(([0-9]+(\\.[0-9]*)?)|(\\.[0-9]+))))?$",
    })
}

/// What differs from kind to kind.
struct Shape<'a> {
    kind: &'a str,
    plural: &'a str,
    short: &'a [&'a str],
    scope: &'a str,
    about: &'a str,
    columns: Value,
    required: &'a [&'a str],
    fields: Value,
}

fn definition(shape: &Shape<'_>) -> Value {
    let mut properties = json!({
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
    });
    if let (Some(all), Some(more)) = (properties.as_object_mut(), shape.fields.as_object()) {
        all.extend(more.clone());
    }
    let mut version = json!({
        "name": VERSION, "served": true, "storage": true,
        "additionalPrinterColumns": shape.columns,
        "schema": {"openAPIV3Schema": {
            "type": "object", "description": shape.about, "required": shape.required,
            "properties": properties,
        }},
    });
    if shape.fields.get("status").is_some() {
        version["subresources"] = json!({"status": {}});
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{}.{SNAPSHOT_GROUP}", shape.plural),
            // The field's own answer to why a group of the project is defined from outside.
            "annotations": {"api-approved.kubernetes.io":
                "https://github.com/kubernetes-csi/external-snapshotter/pull/814"},
        },
        "spec": {
            "group": SNAPSHOT_GROUP, "scope": shape.scope,
            "names": {
                "kind": shape.kind, "listKind": format!("{}List", shape.kind),
                "plural": shape.plural, "singular": shape.kind.to_lowercase(),
                "shortNames": shape.short,
            },
            "versions": [version],
        },
    })
}

fn snapshot() -> Value {
    let column = |name: &str, kind: &str, path: &str, about: &str| json!({"name": name, "type": kind, "jsonPath": path, "description": about});
    definition(&Shape {
        kind: "VolumeSnapshot",
        plural: "volumesnapshots",
        short: &["vs"],
        scope: "Namespaced",
        about: "VolumeSnapshot is a wish for the state of a volume at a point in time, or for a \
                snapshot that is there already.",
        columns: json!([
            column("ReadyToUse", "boolean", ".status.readyToUse", "Volumes can be made from it."),
            column(
                "SourcePVC",
                "string",
                ".spec.source.persistentVolumeClaimName",
                "The claim it is of.",
            ),
            column(
                "SourceSnapshotContent",
                "string",
                ".spec.source.volumeSnapshotContentName",
                "The content that was there already.",
            ),
            column("RestoreSize", "string", ".status.restoreSize", "What a volume needs."),
            column("SnapshotClass", "string", ".spec.volumeSnapshotClassName", "Its class."),
            column(
                "SnapshotContent",
                "string",
                ".status.boundVolumeSnapshotContentName",
                "The content that has it.",
            ),
            column("CreationTime", "date", ".status.creationTime", "When it was made."),
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ]),
        required: &["spec"],
        fields: json!({
            "spec": {
                "type": "object", "required": ["source"],
                "properties": {
                    "source": {
                        "type": "object", "description": "Of what: exactly one of them.",
                        "properties": {
                            "persistentVolumeClaimName": {
                                "type": "string", "description": "A claim of the namespace.",
                                "x-kubernetes-validations": [once("persistentVolumeClaimName")],
                            },
                            "volumeSnapshotContentName": {
                                "type": "string", "description": "A content that is there.",
                                "x-kubernetes-validations": [once("volumeSnapshotContentName")],
                            },
                        },
                        "x-kubernetes-validations":
                            exactly_one("persistentVolumeClaimName", "volumeSnapshotContentName"),
                    },
                    "volumeSnapshotClassName": {
                        "type": "string",
                        "description": "Unset means the default class of the volume's driver.",
                        "x-kubernetes-validations": [{
                            "rule": "size(self) > 0",
                            "message": "volumeSnapshotClassName must not be the empty string when set",
                        }],
                    },
                },
            },
            "status": {
                "type": "object",
                "properties": {
                    "boundVolumeSnapshotContentName": text("The content that has it."),
                    "creationTime": {"type": "string", "format": "date-time"},
                    "readyToUse": {"type": "boolean"},
                    "restoreSize": quantity(),
                    "error": error(),
                    "volumeGroupSnapshotName": text("The group it was made with."),
                },
            },
        }),
    })
}

fn content() -> Value {
    let column = |name: &str, kind: &str, path: &str, about: &str| json!({"name": name, "type": kind, "jsonPath": path, "description": about});
    let place = "both spec.volumeSnapshotRef.name and spec.volumeSnapshotRef.namespace must be set";
    definition(&Shape {
        kind: "VolumeSnapshotContent",
        plural: "volumesnapshotcontents",
        short: &["vsc", "vscs"],
        scope: "Cluster",
        about: "VolumeSnapshotContent is a snapshot that some storage has.",
        columns: json!([
            column("ReadyToUse", "boolean", ".status.readyToUse", "Volumes can be made from it."),
            column("RestoreSize", "integer", ".status.restoreSize", "Bytes that a volume needs."),
            column("DeletionPolicy", "string", ".spec.deletionPolicy", "Does it go with this?"),
            column("Driver", "string", ".spec.driver", "Who has it."),
            column(
                "VolumeSnapshotClass",
                "string",
                ".spec.volumeSnapshotClassName",
                "The class it was made by.",
            ),
            column("VolumeSnapshot", "string", ".spec.volumeSnapshotRef.name", "For whom."),
            column(
                "VolumeSnapshotNamespace",
                "string",
                ".spec.volumeSnapshotRef.namespace",
                "Where that is.",
            ),
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ]),
        required: &["spec"],
        fields: json!({
            "spec": {
                "type": "object",
                "required": ["deletionPolicy", "driver", "source", "volumeSnapshotRef"],
                "x-kubernetes-validations": [{
                    "rule": "!has(oldSelf.sourceVolumeMode) || has(self.sourceVolumeMode)",
                    "message": "sourceVolumeMode is required once set",
                }],
                "properties": {
                    "deletionPolicy": policy(),
                    "driver": text("Who has it."),
                    "source": {
                        "type": "object", "description": "Of what: exactly one of them.",
                        "properties": {
                            "snapshotHandle": {
                                "type": "string", "description": "A snapshot that is there.",
                                "x-kubernetes-validations": [once("snapshotHandle")],
                            },
                            "volumeHandle": {
                                "type": "string", "description": "A volume.",
                                "x-kubernetes-validations": [once("volumeHandle")],
                            },
                        },
                        "x-kubernetes-validations": exactly_one("volumeHandle", "snapshotHandle"),
                    },
                    "sourceVolumeMode": {
                        "type": "string", "description": "The mode of the volume it is of.",
                        "x-kubernetes-validations": [once("sourceVolumeMode")],
                    },
                    "volumeSnapshotClassName": text("The class it was made by."),
                    "volumeSnapshotRef": {
                        "type": "object", "description": "For whom.",
                        "x-kubernetes-map-type": "atomic",
                        "properties": {
                            "apiVersion": {"type": "string"},
                            "fieldPath": {"type": "string"},
                            "kind": {"type": "string"},
                            "name": {"type": "string"},
                            "namespace": {"type": "string"},
                            "resourceVersion": {"type": "string"},
                            "uid": {"type": "string"},
                        },
                        "x-kubernetes-validations": [{
                            "rule": "has(self.name) && has(self.__namespace__)",
                            "message": place,
                        }],
                    },
                },
            },
            "status": {
                "type": "object",
                "properties": {
                    "snapshotHandle": text("What its driver calls it."),
                    "creationTime": {
                        "type": "integer", "format": "int64",
                        "description": "Nanoseconds since 1970.",
                    },
                    "restoreSize": {
                        "type": "integer", "format": "int64", "minimum": 0,
                        "description": "Bytes that a volume made from it needs at least.",
                    },
                    "readyToUse": {"type": "boolean"},
                    "error": error(),
                    "volumeGroupSnapshotHandle": text("The group it was made with."),
                },
            },
        }),
    })
}

fn class() -> Value {
    definition(&Shape {
        kind: "VolumeSnapshotClass",
        plural: "volumesnapshotclasses",
        short: &["vsclass", "vsclasses"],
        scope: "Cluster",
        about: "VolumeSnapshotClass says how snapshots are made.",
        columns: json!([
            {"name": "Driver", "type": "string", "jsonPath": ".driver"},
            {"name": "DeletionPolicy", "type": "string", "jsonPath": ".deletionPolicy"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ]),
        required: &["driver", "deletionPolicy"],
        fields: json!({
            "driver": text("By whom."),
            "deletionPolicy": policy(),
            "parameters": {
                "type": "object", "description": "What else the driver is told.",
                "additionalProperties": {"type": "string"},
            },
        }),
    })
}

/// The definitions of the three kinds.
#[must_use]
pub fn definitions() -> [Value; 3] {
    [class(), content(), snapshot()]
}
