//! What drivers of volumes register and report.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::class::parameters;
use super::{csi_driver, deprecated_node_label, validate_inline};
use crate::field::{ErrorList, FieldError, Path};
use crate::names;
use crate::object::{self, child, default_field, fields};
use crate::quantity::Quantity;
use crate::row::Strategy;
use crate::validation::{self, Cursor, label_selector, nonnegative, text};

const NODE_ID_MAX: usize = 256;
const METADATA_SIZE_MAX: usize = 256 * 1024;
const MESSAGE_MAX: usize = 1024;
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
const UPDATE_PERIOD_MIN: i64 = 10;
const GROUP_POLICIES: [&str; 3] = ["File", "None", "ReadWriteOnceWithFSType"];
const LIFECYCLES: [&str; 2] = ["Persistent", "Ephemeral"];

/// What CSI drivers do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct CsiDrivers;

/// What CSI nodes do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct CsiNodes;

/// What CSI storage capacities do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct CsiStorageCapacities;

/// What volume attachments do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct VolumeAttachments;

/// What volume attributes classes do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct VolumeAttributesClasses;

impl Strategy for CsiDrivers {
    fn defaults(&self, object: &mut Value) {
        let spec = child(object, "spec");
        default_field(spec, "attachRequired", true);
        default_field(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        let empty = spec
            .get("volumeLifecycleModes")
            .and_then(Value::as_array)
            .is_none_or(Vec::is_empty);
        if empty {
            fields(spec).insert("volumeLifecycleModes".to_owned(), json!(["Persistent"]));
        }
        for name in [
            "podInfoOnMount",
            "storageCapacity",
            "requiresRepublish",
            "seLinuxMount",
            "preventPodSchedulingIfMissing",
        ] {
            default_field(spec, name, false);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let spec = Cursor::root(object).child("spec");
        validation::one_of(&spec, "fsGroupPolicy", &GROUP_POLICIES, &mut out);
        token_requests(&spec, &mut out);
        for mode in spec.texts("volumeLifecycleModes") {
            if !LIFECYCLES.contains(&mode) {
                let path = spec.at("volumeLifecycleModes");
                out.push(FieldError::not_supported(&path, mode, &LIFECYCLES));
            }
        }
        if let Some(period) = spec
            .integer("nodeAllocatableUpdatePeriodSeconds")
            .filter(|period| *period < UPDATE_PERIOD_MIN)
        {
            out.push(FieldError::invalid(
                &spec.at("nodeAllocatableUpdatePeriodSeconds"),
                period,
                "must be greater than or equal to 10 seconds",
            ));
        }
        if spec.has("serviceAccountTokenInSecrets") && spec.list("tokenRequests").is_empty() {
            out.push(FieldError::invalid(
                &spec.at("serviceAccountTokenInSecrets"),
                spec.raw("serviceAccountTokenInSecrets").clone(),
                "serviceAccountTokenInSecrets is set but no tokenRequests are specified",
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
        // The first of these paths is spelt so in the reference.
        for (name, shown) in [
            ("attachRequired", "attachedRequired"),
            ("volumeLifecycleModes", "volumeLifecycleModes"),
        ] {
            validation::immutable(spec.raw(name), before.raw(name), &spec.at(shown), &mut out);
        }
        out
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let spec = Cursor::root(new).child("spec");
        let requests = spec.raw("tokenRequests");
        let same = old.is_some_and(|old| {
            object::at(old, &["spec", "tokenRequests"]).unwrap_or(&Value::Null) == requests
        });
        if same || spec.list("tokenRequests").is_empty() || spec.has("serviceAccountTokenInSecrets")
        {
            return Vec::new();
        }
        vec![
            "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true \
             to prevent possible logging of tokens in volume attributes"
                .to_owned(),
        ]
    }
}

fn token_requests(spec: &Cursor<'_>, out: &mut ErrorList) {
    let mut audiences = BTreeSet::new();
    for request in spec.items("tokenRequests") {
        let audience = request.text("audience");
        if !audiences.insert(audience) {
            out.push(FieldError::duplicate(&request.at("audience"), audience));
            continue;
        }
        let Some(seconds) = request.integer("expirationSeconds") else {
            continue;
        };
        let wrong = if seconds < TOKEN_SECONDS_MIN {
            "may not specify a duration less than 10 minutes"
        } else if seconds > TOKEN_SECONDS_MAX {
            "may not specify a duration larger than 2^32 seconds"
        } else {
            continue;
        };
        out.push(FieldError::invalid(
            &request.at("expirationSeconds"),
            seconds,
            wrong,
        ));
    }
}

impl Strategy for CsiNodes {
    // Health of storage is behind a gate that is off: there is nothing in the status.
    fn prepare_create(&self, object: &mut Value) {
        fields(object).remove("status");
    }

    fn prepare_update(&self, new: &mut Value, _old: &Value) {
        fields(new).insert("status".to_owned(), json!({}));
    }

    fn prepare_status(&self, new: &mut Value, old: &Value) {
        for name in ["labels", "annotations", "finalizers", "ownerReferences"] {
            let kept = object::at(old, &["metadata", name]).cloned();
            object::set_or_remove(object::metadata(new), name, kept);
        }
        fields(new).insert("status".to_owned(), json!({}));
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let mut seen = BTreeSet::new();
        for driver in Cursor::root(object).child("spec").items("drivers") {
            node_driver(&driver, &mut out);
            if !seen.insert(driver.text("name")) {
                out.push(FieldError::duplicate(
                    &driver.at("name"),
                    driver.text("name"),
                ));
            }
        }
        out
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let path = Path::new("spec").child("drivers");
        let plain = |driver: &Value| {
            let mut driver = driver.clone();
            fields(&mut driver).remove("allocatable");
            driver
        };
        for before in object::list(old, &["spec", "drivers"]) {
            for now in object::list(new, &["spec", "drivers"]) {
                if now.get("name") == before.get("name") {
                    validation::immutable(&plain(now), &plain(before), &path, &mut out);
                }
            }
        }
        out
    }
}

fn node_driver(at: &Cursor<'_>, out: &mut ErrorList) {
    csi_driver(at.text("name"), &at.at("name"), out);
    let id = at.text("nodeID");
    if id.is_empty() {
        out.push(FieldError::required(&at.at("nodeID"), ""));
    }
    if id.len() > NODE_ID_MAX {
        let wrong = format!("must be {NODE_ID_MAX} characters or less");
        out.push(FieldError::invalid(&at.at("nodeID"), id, &wrong));
    }
    nonnegative(&at.child("allocatable"), "count", out);
    let mut keys = BTreeSet::new();
    for key in at.texts("topologyKeys") {
        // The reference names the driver, not the key.
        if key.is_empty() {
            out.push(FieldError::required(&at.path, ""));
        }
        if !keys.insert(key) {
            out.push(FieldError::duplicate(&at.path, key));
        }
        validation::qualified_name(key, &at.path, out);
    }
}

impl Strategy for CsiStorageCapacities {
    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let root = Cursor::root(object);
        label_selector(&root.child("nodeTopology"), &mut out);
        validation::dns_subdomain(
            root.text("storageClassName"),
            &root.at("storageClassName"),
            &mut out,
        );
        let negative = root
            .text("capacity")
            .parse::<Quantity>()
            .is_ok_and(|amount| amount.is_negative());
        if negative {
            out.push(FieldError::invalid(
                &root.at("capacity"),
                root.text("capacity"),
                validation::NEGATIVE,
            ));
        }
        out
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let (at, before) = (Cursor::root(new), Cursor::root(old));
        for name in ["nodeTopology", "storageClassName"] {
            validation::immutable(at.raw(name), before.raw(name), &at.at(name), &mut out);
        }
        out
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let at = Cursor::root(new).child("nodeTopology");
        let mut out = Vec::new();
        for (key, _) in at.entries("matchLabels") {
            if let Some(told) = deprecated_node_label(key) {
                out.push(format!("{}: {told}", at.at("matchLabels").key(key)));
            }
        }
        for expression in at.items("matchExpressions") {
            if let Some(told) = deprecated_node_label(expression.text("key")) {
                out.push(format!("{}: {told}", expression.at("key")));
            }
        }
        out
    }
}

impl Strategy for VolumeAttachments {
    fn prepare_create(&self, object: &mut Value) {
        fields(object).insert("status".to_owned(), json!({"attached": false}));
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        object::keep_status(new, old);
    }

    fn prepare_status(&self, new: &mut Value, old: &Value) {
        object::keep_metadata_of_status(new, old);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let spec = Cursor::root(object).child("spec");
        if spec.text("attacher").is_empty() {
            out.push(FieldError::required(&spec.at("attacher"), "").declared());
        } else {
            csi_driver(spec.text("attacher"), &spec.at("attacher"), &mut out);
        }
        let source = spec.child("source");
        let volume = source.text("persistentVolumeName");
        const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        match (
            source.get("inlineVolumeSpec"),
            source.has("persistentVolumeName"),
        ) {
            (None, false) => out.push(FieldError::required(&source.path, ONE)),
            (Some(_), true) => out.push(FieldError::forbidden(&source.path, ONE)),
            (None, true) if volume.is_empty() => out.push(FieldError::required(
                &source.at("persistentVolumeName"),
                "must specify non empty persistentVolumeName",
            )),
            (None, true) => {
                let path = source.at("persistentVolumeName");
                validation::dns_subdomain(volume, &path, &mut out);
            }
            (Some(inline), false) => validate_inline(&inline, &mut out),
        }
        validation::dns_subdomain(spec.text("nodeName"), &spec.at("nodeName"), &mut out);
        attachment_status(object, &mut out);
        out
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let (at, before) = (Cursor::root(new), Cursor::root(old));
        validation::declared_immutable(
            at.raw("spec"),
            before.raw("spec"),
            &at.at("spec"),
            &mut out,
        );
        out
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        attachment_status(new, &mut out);
        out
    }

    fn bumps_generation(&self, _new: &Value, _old: &Value) -> bool {
        false
    }
}

fn attachment_status(object: &Value, out: &mut ErrorList) {
    let status = Cursor::root(object).child("status");
    let size: usize = status
        .entries("attachmentMetadata")
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    if size > METADATA_SIZE_MAX {
        let path = status.at("attachmentMetadata");
        out.push(FieldError::too_long(&path, METADATA_SIZE_MAX));
    }
    for name in ["attachError", "detachError"] {
        let error = status.child(name);
        if error.text("message").len() > MESSAGE_MAX {
            out.push(FieldError::too_long(&error.at("message"), MESSAGE_MAX));
        }
        if let Some(code) = error.integer("errorCode").filter(|code| *code < 0) {
            out.push(FieldError::invalid(
                &error.at("errorCode"),
                code,
                &text::inclusive_range(0, i64::from(i32::MAX)),
            ));
        }
    }
}

impl Strategy for VolumeAttributesClasses {
    fn changes_first(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let root = Cursor::root(object);
        let driver = root.text("driverName");
        if driver.is_empty() {
            out.push(FieldError::required(&root.at("driverName"), ""));
        } else {
            let lower = driver.to_lowercase();
            validation::named(
                names::qualified_name,
                &lower,
                &root.at("driverName"),
                &mut out,
            );
        }
        parameters(&root, false, &mut out);
        out
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let (at, before) = (Cursor::root(new), Cursor::root(old));
        for name in ["driverName", "parameters"] {
            if at.raw(name) != before.raw(name) {
                let told = format!("updates to {name} are forbidden.");
                out.push(FieldError::forbidden(&at.at(name), &told));
            }
        }
        out
    }
}
