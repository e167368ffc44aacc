//! Volumes, claims and their classes, as `pkg/apis/core` and `pkg/apis/storage` of the reference.

pub(super) mod claim;
mod class;
mod csi;
pub(super) mod sources;
mod volume;

pub use claim::PersistentVolumeClaims;
pub use class::StorageClasses;
pub use csi::{
    CsiDrivers, CsiNodes, CsiStorageCapacities, VolumeAttachments, VolumeAttributesClasses,
};
pub use volume::PersistentVolumes;
use volume::validate_inline;

use crate::field::{ErrorList, FieldError, Path};
use crate::names;
use crate::quantity::Quantity;
use crate::validation::{self, Cursor};

const ACCESS_MODES: [&str; 4] = [
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];
const CSI_DRIVER_MAX: usize = 63;

/// The annotation that named a class before there was a field.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const CLASS_DEPRECATED: &str = "deprecated since v1.8; use \"storageClassName\" attribute instead";

fn access_modes(spec: &Cursor<'_>, missing: &str, out: &mut ErrorList) {
    let path = spec.at("accessModes");
    if spec.list("accessModes").is_empty() {
        out.push(FieldError::required(&path, missing));
    }
    let (mut alone, mut others) = (false, false);
    for mode in spec.texts("accessModes") {
        let known = ACCESS_MODES.contains(&mode);
        if !known {
            out.push(FieldError::not_supported(&path, mode, &ACCESS_MODES));
        }
        alone |= mode == "ReadWriteOncePod";
        others |= known && mode != "ReadWriteOncePod";
    }
    if alone && others {
        out.push(FieldError::forbidden(
            &path,
            "may not use ReadWriteOncePod with other access modes",
        ));
    }
}

fn class_name(spec: &Cursor<'_>, name: &str, out: &mut ErrorList) {
    let class = spec.text(name);
    if !class.is_empty() {
        validation::dns_subdomain(class, &spec.at(name), out);
    }
}

/// Checks that an amount is above zero.
fn positive(amount: &Quantity, path: &Path, out: &mut ErrorList) -> bool {
    let good = !amount.is_negative() && !amount.is_zero();
    if !good {
        out.push(FieldError::invalid(
            path,
            amount.to_string(),
            "must be greater than zero",
        ));
    }
    good
}

/// Checks the name of a CSI driver.
pub(super) fn csi_driver(name: &str, path: &Path, out: &mut ErrorList) {
    if name.is_empty() {
        out.push(FieldError::required(path, ""));
        return;
    }
    if name.len() > CSI_DRIVER_MAX {
        out.push(FieldError::too_long(path, CSI_DRIVER_MAX));
    }
    for wrong in names::dns1123_subdomain(&name.to_lowercase()) {
        out.push(FieldError::invalid(path, name, &wrong));
    }
}

/// What is said about a label of nodes that has a successor.
pub(super) fn deprecated_node_label(key: &str) -> Option<&'static str> {
    Some(match key {
        "beta.kubernetes.io/arch" => "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
        "beta.kubernetes.io/os" => "deprecated since v1.14; use \"kubernetes.io/os\" instead",
        "failure-domain.beta.kubernetes.io/region" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead"
        }
        "failure-domain.beta.kubernetes.io/zone" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"
        }
        "beta.kubernetes.io/instance-type" => {
            "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"
        }
        "app.kubernetes.io/created-by" => "deprecated since v1.9",
        "scheduler.alpha.kubernetes.io/preferAvoidPods" => {
            "deprecated since v1.22; use Taints and Tolerations instead"
        }
        "node-role.kubernetes.io/master" => "use \"node-role.kubernetes.io/control-plane\" instead",
        _ => return None,
    })
}

/// Warnings about a node selector.
pub(super) fn node_selector_warnings(selector: &Cursor<'_>, out: &mut Vec<String>) {
    for term in selector.items("nodeSelectorTerms") {
        for expression in term.items("matchExpressions") {
            let key = expression.text("key");
            if let Some(told) = deprecated_node_label(key) {
                out.push(format!("{}: {key} is {told}", expression.at("key")));
            }
        }
    }
}
