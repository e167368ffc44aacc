//! Validation of a pod's volumes.

use std::collections::{BTreeMap, BTreeSet};

use super::{env, projected};
use crate::field::{ErrorList, FieldError, Path};
use crate::kinds::storage::{claim, sources};
use crate::names;
use crate::validation::{self, Cursor, text};

/// The good volumes of a pod by name.
pub(super) type Volumes<'a> = BTreeMap<&'a str, Cursor<'a>>;

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const HOST_PATH_TYPES: [&str; 8] = [
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];
/// In the order in which the reference looks at them: the first one set is the one that counts.
/// With each, the field that its "more than one" error names, which is not always its own.
const SOURCES: [(&str, &str); 30] = [
    ("emptyDir", "emptyDir"),
    ("hostPath", "hostPath"),
    ("gitRepo", "gitRepo"),
    ("gcePersistentDisk", "gcePersistentDisk"),
    ("awsElasticBlockStore", "awsElasticBlockStore"),
    ("secret", "secret"),
    ("nfs", "nfs"),
    ("iscsi", "iscsi"),
    ("glusterfs", "glusterfs"),
    ("flocker", "flocker"),
    ("persistentVolumeClaim", "persistentVolumeClaim"),
    ("rbd", "rbd"),
    ("cinder", "cinder"),
    ("cephfs", "cephFS"),
    ("quobyte", "quobyte"),
    ("downwardAPI", "downwarAPI"),
    ("fc", "fc"),
    ("flexVolume", "flexVolume"),
    ("configMap", "configMap"),
    ("azureFile", "azureFile"),
    ("vsphereVolume", "vsphereVolume"),
    ("photonPersistentDisk", "photonPersistentDisk"),
    ("portworxVolume", "portworxVolume"),
    ("azureDisk", "azureDisk"),
    ("storageos", "storageos"),
    ("projected", "projected"),
    ("scaleIO", "scaleIO"),
    ("csi", "csi"),
    ("ephemeral", "ephemeral"),
    ("image", "image"),
];

/// Checks all volumes. `pod_name` is known for pods, not for templates.
pub(super) fn validate<'a>(
    spec: &Cursor<'a>,
    pod_name: Option<&str>,
    out: &mut ErrorList,
) -> Volumes<'a> {
    let mut good = Volumes::new();
    let pod_name = pod_name.filter(|name| !name.is_empty());
    let made: BTreeSet<String> = spec
        .items("volumes")
        .filter(|volume| volume.has("ephemeral"))
        .filter_map(|volume| Some(format!("{}-{}", pod_name?, volume.text("name"))))
        .collect();
    for volume in spec.items("volumes") {
        let mut wrong = ErrorList::new();
        source(&volume, pod_name, &mut wrong);
        let name = volume.text("name");
        if name.is_empty() {
            wrong.push(FieldError::required(&volume.at("name"), ""));
        } else {
            validation::dns_label(name, &volume.at("name"), &mut wrong);
        }
        if good.contains_key(name) {
            wrong.push(FieldError::duplicate(&volume.at("name"), name));
        }
        if wrong.is_empty() {
            good.insert(name, volume.clone());
        }
        out.append(&mut wrong);
        if let Some(claim) = volume.get("persistentVolumeClaim")
            && made.contains(claim.text("claimName"))
        {
            out.push(FieldError::invalid(
                &claim.at("claimName"),
                claim.text("claimName"),
                "must not reference a PVC that gets created for an ephemeral volume",
            ));
        }
    }
    good
}

fn source(volume: &Cursor<'_>, pod_name: Option<&str>, out: &mut ErrorList) {
    let mut found = false;
    for (name, named_as) in SOURCES {
        let Some(source) = volume.get(name) else {
            continue;
        };
        if found {
            out.push(FieldError::forbidden(
                &volume.at(named_as),
                "may not specify more than 1 volume type",
            ));
            continue;
        }
        found = true;
        match name {
            "emptyDir" => empty_dir(&source, out),
            "hostPath" => host_path(&source, out),
            "gitRepo" => validation::required(&source, "repository", out),
            "secret" | "configMap" => files_of(&source, name, out),
            "nfs" => nfs(&source, out),
            "persistentVolumeClaim" => validation::required(&source, "claimName", out),
            "downwardAPI" => {
                mode(&source, "defaultMode", out);
                for item in source.items("items") {
                    // The reference names the volume, not the item.
                    downward_file(&Cursor::new(item.value, source.path.clone()), out);
                }
            }
            "projected" => projected::validate(&source, out),
            "csi" => csi(&source, out),
            "ephemeral" => ephemeral(volume, &source, pod_name, out),
            "image" => {
                validation::required(&source, "reference", out);
                validation::required_one_of(
                    &source,
                    "pullPolicy",
                    &["Always", "IfNotPresent", "Never"],
                    out,
                );
            }
            _ => sources::of_pod(volume, name, out),
        }
    }
    if !found {
        out.push(FieldError::required(
            &volume.path,
            "must specify a volume type",
        ));
    }
}

fn empty_dir(source: &Cursor<'_>, out: &mut ErrorList) {
    let negative = source
        .text("sizeLimit")
        .parse::<crate::quantity::Quantity>()
        .is_ok_and(|limit| limit.is_negative());
    if negative {
        out.push(FieldError::forbidden(
            &source.at("sizeLimit"),
            "SizeLimit field must be a valid resource quantity",
        ));
    }
}

/// Checks a `hostPath` source.
pub(crate) fn host_path(source: &Cursor<'_>, out: &mut ErrorList) {
    let path = source.text("path");
    if path.is_empty() {
        out.push(FieldError::required(&source.at("path"), ""));
        return;
    }
    no_back_steps(path, &source.at("path"), out);
    validation::one_of(source, "type", &HOST_PATH_TYPES, out);
}

/// Checks an `nfs` source.
pub(crate) fn nfs(source: &Cursor<'_>, out: &mut ErrorList) {
    validation::required(source, "server", out);
    validation::required(source, "path", out);
    if !source.text("path").starts_with('/') {
        out.push(FieldError::invalid(
            &source.at("path"),
            source.text("path"),
            "must be an absolute path",
        ));
    }
}

fn csi(source: &Cursor<'_>, out: &mut ErrorList) {
    let driver = source.text("driver");
    if driver.is_empty() {
        out.push(FieldError::required(&source.at("driver"), ""));
    } else if driver.len() > 63 {
        out.push(FieldError::too_long(&source.at("driver"), 63));
    } else {
        for wrong in names::dns1123_subdomain(&driver.to_lowercase()) {
            out.push(FieldError::invalid(&source.at("driver"), driver, &wrong));
        }
    }
    if let Some(secret) = source.get("nodePublishSecretRef")
        && secret.text("name").is_empty()
    {
        out.push(FieldError::required(&secret.at("name"), ""));
    }
}

fn ephemeral(
    volume: &Cursor<'_>,
    source: &Cursor<'_>,
    pod_name: Option<&str>,
    out: &mut ErrorList,
) {
    match source.get("volumeClaimTemplate") {
        None => out.push(FieldError::required(&source.at("volumeClaimTemplate"), "")),
        Some(template) => {
            claim::validate_spec(&template.child("spec"), out);
        }
    }
    let name = volume.text("name");
    if let Some(pod) = pod_name.filter(|_| !name.is_empty()) {
        let claim = format!("{pod}-{name}");
        for wrong in names::dns1123_subdomain(&claim) {
            out.push(FieldError::invalid(
                &volume.at("name"),
                name,
                &format!("PVC name {claim:?}: {wrong}"),
            ));
        }
    }
}

pub(super) fn mode(at: &Cursor<'_>, name: &str, out: &mut ErrorList) {
    if let Some(value) = at.integer(name).filter(|mode| !(0..=0o777).contains(mode)) {
        out.push(FieldError::invalid(&at.at(name), value, FILE_MODE));
    }
}

fn files_of(source: &Cursor<'_>, kind: &str, out: &mut ErrorList) {
    let name = if kind == "secret" {
        "secretName"
    } else {
        "name"
    };
    validation::required(source, name, out);
    mode(source, "defaultMode", out);
    for item in source.items("items") {
        key_to_path(&item, out);
    }
}

pub(super) fn key_to_path(item: &Cursor<'_>, out: &mut ErrorList) {
    validation::required(item, "key", out);
    validation::required(item, "path", out);
    local_path(item.text("path"), &item.at("path"), out);
    mode(item, "mode", out);
}

pub(super) fn downward_file(item: &Cursor<'_>, out: &mut ErrorList) {
    validation::required(item, "path", out);
    local_path(item.text("path"), &item.at("path"), out);
    if let Some(field) = item.get("fieldRef") {
        env::field_ref(&field, &env::VOLUME_FIELDS, out);
        if item.has("resourceFieldRef") {
            out.push(FieldError::invalid(
                &item.path,
                "resource",
                "fieldRef and resourceFieldRef can not be specified simultaneously",
            ));
        }
    } else if let Some(resource) = item.get("resourceFieldRef") {
        env::resource_ref(&resource, true, out);
    } else {
        out.push(FieldError::required(
            &item.path,
            "one of fieldRef and resourceFieldRef is required",
        ));
    }
    mode(item, "mode", out);
}

/// Refuses absolute paths and paths that climb.
pub(super) fn descending_path(path: &str, at: &Path, out: &mut ErrorList) {
    if path.starts_with('/') {
        out.push(FieldError::invalid(at, path, "must be a relative path"));
    }
    no_back_steps(path, at, out);
}

/// Refuses what [`descending_path`] does, and names that the node keeps for itself.
pub(super) fn local_path(path: &str, at: &Path, out: &mut ErrorList) {
    descending_path(path, at, out);
    if path.starts_with("..") && !path.starts_with("../") {
        out.push(FieldError::invalid(at, path, "must not start with '..'"));
    }
}

/// Refuses `..` elements.
pub(super) fn no_back_steps(path: &str, at: &Path, out: &mut ErrorList) {
    if text::has_back_steps(path) {
        out.push(FieldError::invalid(at, path, "must not contain '..'"));
    }
}
