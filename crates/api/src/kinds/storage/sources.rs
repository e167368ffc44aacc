//! What a persistent volume is made of, and what a pod's volume is made of outside of the cluster.

use std::sync::LazyLock;

use regex::Regex;

use super::csi_driver;
use crate::field::{ErrorList, FieldError, Path};
use crate::kinds::pod;
use crate::validation::{self, Cursor, required, text};

const PORTAL_AND_NAME_MAX: usize = 64;
const TENANT_MAX: usize = 64;
const PORTAL_TOO_LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if \
     iscsi.initiatorName is specified.";
const HOST_AND_PORT: &str = "must be a host:port pair or multiple pairs separated by commas";

/// Compiles a pattern that is known at build time.
fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a constant pattern")
}

static IQN: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"iqn\.\d{4}-\d{2}\.([[:alnum:]\-.]+)(:[^,;*&$|\s]+)$"));
static EUI: LazyLock<Regex> = LazyLock::new(|| pattern("^eui.[[:alnum:]]{16}$"));
static NAA: LazyLock<Regex> = LazyLock::new(|| pattern("^naa.[[:alnum:]]{32}$"));

/// The sources in the reference's order: field, what the "more than one" error names, what other
/// errors name.
const SOURCES: [(&str, &str, &str); 22] = [
    ("hostPath", "hostPath", "hostPath"),
    ("gcePersistentDisk", "gcePersistentDisk", "persistentDisk"),
    (
        "awsElasticBlockStore",
        "awsElasticBlockStore",
        "awsElasticBlockStore",
    ),
    ("glusterfs", "glusterfs", "glusterfs"),
    ("flocker", "flocker", "flocker"),
    ("nfs", "nfs", "nfs"),
    ("rbd", "rbd", "rbd"),
    ("quobyte", "quobyte", "quobyte"),
    ("cephfs", "cephFS", "cephfs"),
    ("iscsi", "iscsi", "iscsi"),
    ("cinder", "cinder", "cinder"),
    ("fc", "fc", "fc"),
    ("flexVolume", "flexVolume", "flexVolume"),
    ("azureFile", "azureFile", "azureFile"),
    ("vsphereVolume", "vsphereVolume", "vsphereVolume"),
    (
        "photonPersistentDisk",
        "photonPersistentDisk",
        "photonPersistentDisk",
    ),
    ("portworxVolume", "portworxVolume", "portworxVolume"),
    ("azureDisk", "azureDisk", "azureDisk"),
    ("scaleIO", "scaleIO", "scaleIO"),
    ("local", "local", "local"),
    ("storageos", "storageos", "storageos"),
    ("csi", "csi", "csi"),
];

/// Whose source it is: the reference has two types for most of them, with rules of their own.
#[derive(Clone, Copy)]
enum Owner<'n> {
    /// A persistent volume of this name.
    Volume(&'n str),
    /// A pod.
    Pod,
}

/// Checks a source of a pod's volume that is somewhere outside of the cluster.
pub(crate) fn of_pod(volume: &Cursor<'_>, field: &str, out: &mut ErrorList) {
    let shown = SOURCES.iter().find(|(name, ..)| *name == field);
    let Some((_, _, shown)) = shown else { return };
    let source = Cursor::new(volume.raw(field), volume.at(shown));
    one(field, &source, Owner::Pod, out);
    let length = volume.text("name").len() + 1 + source.text("targetPortal").len();
    if field == "iscsi" && source.has("initiatorName") && length > PORTAL_AND_NAME_MAX {
        out.push(FieldError::invalid(
            &volume.at("name"),
            volume.text("name"),
            PORTAL_TOO_LONG,
        ));
    }
}

/// The fields of a spec that are its source.
pub(super) fn fields() -> impl Iterator<Item = &'static str> {
    SOURCES.iter().map(|(field, ..)| *field)
}

/// Checks that there is exactly one source, and that one.
pub(super) fn validate(spec: &Cursor<'_>, name: &str, out: &mut ErrorList) {
    let mut found = false;
    for (field, twice, shown) in SOURCES {
        let Some(source) = spec.get(field) else {
            continue;
        };
        // The reference does not count flex volumes among the others.
        if found && field != "flexVolume" {
            out.push(FieldError::forbidden(
                &spec.at(twice),
                "may not specify more than 1 volume type",
            ));
            continue;
        }
        found = true;
        let source = Cursor::new(source.value, spec.at(shown));
        one(field, &source, Owner::Volume(name), out);
        if field == "local" && !spec.has("nodeAffinity") {
            out.push(FieldError::required(
                &spec.at("nodeAffinity"),
                "Local volume requires node affinity",
            ));
        }
    }
    if !found {
        out.push(FieldError::required(
            &spec.path,
            "must specify a volume type",
        ));
    }
}

fn one(field: &str, at: &Cursor<'_>, owner: Owner<'_>, out: &mut ErrorList) {
    match field {
        "hostPath" => pod::validate_host_path(at, out),
        "gcePersistentDisk" => {
            required(at, "pdName", out);
            partition(at, out);
        }
        "awsElasticBlockStore" => {
            required(at, "volumeID", out);
            partition(at, out);
        }
        "glusterfs" => glusterfs(at, out),
        "flocker" => flocker(at, out),
        "nfs" => pod::validate_nfs(at, out),
        "rbd" => {
            required_list(at, "monitors", out);
            required(at, "image", out);
        }
        "quobyte" => quobyte(at, out),
        "cephfs" => required_list(at, "monitors", out),
        "iscsi" => iscsi(at, owner, out),
        "cinder" => {
            required(at, "volumeID", out);
            secret(at, owner, out);
        }
        "fc" => fibre_channel(at, out),
        "flexVolume" => flex(at, out),
        "azureFile" => {
            required(at, "secretName", out);
            required(at, "shareName", out);
            if at.has("secretNamespace") && at.text("secretNamespace").is_empty() {
                out.push(FieldError::required(&at.at("secretNamespace"), ""));
            }
        }
        "vsphereVolume" => required(at, "volumePath", out),
        "photonPersistentDisk" => required(at, "pdID", out),
        "portworxVolume" => required(at, "volumeID", out),
        "azureDisk" => azure_disk(at, out),
        "scaleIO" => ["gateway", "system", "volumeName"]
            .iter()
            .for_each(|name| required(at, name, out)),
        "local" => local(at, out),
        "storageos" => storage_os(at, owner, out),
        _ => csi(at, out),
    }
}

fn required_list(at: &Cursor<'_>, name: &str, out: &mut ErrorList) {
    if at.list(name).is_empty() {
        out.push(FieldError::required(&at.at(name), ""));
    }
}

fn partition(at: &Cursor<'_>, out: &mut ErrorList) {
    let partition = at.number("partition");
    if !(0..=255).contains(&partition) {
        // Zero is accepted and means none; the words are the reference's.
        out.push(FieldError::invalid(
            &at.at("partition"),
            partition,
            &text::inclusive_range(1, 255),
        ));
    }
}

/// A secret reference that has a name; that of a persistent volume a namespace too.
fn secret(at: &Cursor<'_>, owner: Owner<'_>, out: &mut ErrorList) {
    if let Some(secret) = at.get("secretRef") {
        required(&secret, "name", out);
        if matches!(owner, Owner::Volume(_)) {
            required(&secret, "namespace", out);
        }
    }
}

fn glusterfs(at: &Cursor<'_>, out: &mut ErrorList) {
    required(at, "endpoints", out);
    required(at, "path", out);
    if !at.has("endpointsNamespace") {
        return;
    }
    let (namespace, path) = (at.text("endpointsNamespace"), at.at("endpointsNamespace"));
    if namespace.is_empty() {
        out.push(FieldError::invalid(
            &path,
            namespace,
            "if the endpointnamespace is set, it must be a valid namespace name",
        ));
    } else {
        validation::dns_label(namespace, &path, out);
    }
}

fn flocker(at: &Cursor<'_>, out: &mut ErrorList) {
    let (name, uuid) = (at.text("datasetName"), at.text("datasetUUID"));
    if name.is_empty() && uuid.is_empty() {
        out.push(FieldError::required(
            &at.path,
            "one of datasetName and datasetUUID is required",
        ));
    }
    if !name.is_empty() && !uuid.is_empty() {
        out.push(FieldError::invalid(
            &at.path,
            "resource",
            "datasetName and datasetUUID can not be specified simultaneously",
        ));
    }
    if name.contains('/') {
        out.push(FieldError::invalid(
            &at.at("datasetName"),
            name,
            "must not contain '/'",
        ));
    }
}

fn quobyte(at: &Cursor<'_>, out: &mut ErrorList) {
    let registry = at.text("registry");
    if registry.is_empty() {
        out.push(FieldError::required(&at.at("registry"), HOST_AND_PORT));
    } else if at.text("tenant").len() > TENANT_MAX {
        out.push(FieldError::required(
            &at.at("tenant"),
            "must be a UUID and may not exceed a length of 64 characters",
        ));
    } else {
        for pair in registry.split(',') {
            let host = pair.rsplit_once(':').map(|(host, _)| host);
            let good = host.is_some_and(|host| {
                !host.contains(':') || (host.starts_with('[') && host.ends_with(']'))
            });
            if !good {
                out.push(FieldError::invalid(
                    &at.at("registry"),
                    registry,
                    HOST_AND_PORT,
                ));
            }
        }
    }
    required(at, "volume", out);
}

/// Checks a name in one of the three forms that such names have.
fn iscsi_name(name: &str, path: &Path, owner: Owner<'_>, out: &mut ErrorList) {
    let wrong = match (name.get(..3), owner) {
        (Some("iqn"), _) => !IQN.is_match(name),
        (Some("eui"), _) => !EUI.is_match(name),
        (Some("naa"), _) => !NAA.is_match(name),
        (_, Owner::Pod) => {
            let detail = "must be valid format starting with iqn, eui, or naa";
            out.push(FieldError::invalid(path, name, detail));
            false
        }
        (_, Owner::Volume(_)) => true,
    };
    if wrong {
        out.push(FieldError::invalid(path, name, "must be valid format"));
    }
}

fn iscsi(at: &Cursor<'_>, owner: Owner<'_>, out: &mut ErrorList) {
    let portal = at.text("targetPortal");
    required(at, "targetPortal", out);
    if let Owner::Volume(volume) = owner
        && at.has("initiatorName")
        && volume.len() + 1 + portal.len() > PORTAL_AND_NAME_MAX
    {
        out.push(FieldError::invalid(
            &at.at("targetportal"),
            portal,
            PORTAL_TOO_LONG,
        ));
    }
    let iqn = at.text("iqn");
    if iqn.is_empty() {
        out.push(FieldError::required(&at.at("iqn"), ""));
    } else {
        iscsi_name(iqn, &at.at("iqn"), owner, out);
    }
    let lun = at.number("lun");
    if !(0..=255).contains(&lun) {
        out.push(FieldError::invalid(
            &at.at("lun"),
            lun,
            &text::inclusive_range(0, 255),
        ));
    }
    let chap = at.is_true("chapAuthDiscovery") || at.is_true("chapAuthSession");
    match at.get("secretRef") {
        None if chap => out.push(FieldError::required(&at.at("secretRef"), "")),
        Some(secret) if matches!(owner, Owner::Volume(_)) => required(&secret, "name", out),
        _ => {}
    }
    if at.has("initiatorName") {
        let name = at.text("initiatorName");
        iscsi_name(name, &at.at("initiatorname"), owner, out);
    }
}

fn fibre_channel(at: &Cursor<'_>, out: &mut ErrorList) {
    let (targets, ids) = (at.list("targetWWNs"), at.list("wwids"));
    if targets.is_empty() && ids.is_empty() {
        out.push(FieldError::required(
            &at.at("targetWWNs"),
            "must specify either targetWWNs or wwids, but not both",
        ));
    }
    if !targets.is_empty() && !ids.is_empty() {
        out.push(FieldError::invalid(
            &at.at("targetWWNs"),
            at.raw("targetWWNs").clone(),
            "targetWWNs and wwids can not be specified simultaneously",
        ));
    }
    if targets.is_empty() {
        return;
    }
    match at.integer("lun") {
        None => out.push(FieldError::required(
            &at.at("lun"),
            "lun is required if targetWWNs is specified",
        )),
        Some(lun) if !(0..=255).contains(&lun) => out.push(FieldError::invalid(
            &at.at("lun"),
            lun,
            &text::inclusive_range(0, 255),
        )),
        Some(_) => {}
    }
}

fn flex(at: &Cursor<'_>, out: &mut ErrorList) {
    required(at, "driver", out);
    for (key, _) in at.entries("options") {
        let domain = key
            .split_once('/')
            .map_or(key.as_str(), |(domain, _)| domain);
        let domain = format!(".{}", domain.to_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            out.push(FieldError::invalid(
                &at.at("options").key(key),
                key.as_str(),
                "kubernetes.io and k8s.io namespaces are reserved",
            ));
        }
    }
}

fn azure_disk(at: &Cursor<'_>, out: &mut ErrorList) {
    required(at, "diskName", out);
    required(at, "diskURI", out);
    validation::one_of(at, "cachingMode", &["None", "ReadOnly", "ReadWrite"], out);
    validation::one_of(at, "kind", &["Dedicated", "Managed", "Shared"], out);
    let (uri, path) = (at.text("diskURI"), at.at("diskURI"));
    let managed = at.text("kind") == "Managed";
    if managed && !uri.starts_with("/subscriptions/") {
        out.push(FieldError::not_supported(
            &path,
            uri,
            &[
                "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
            ],
        ));
    } else if !managed && at.has("kind") && !uri.starts_with("https://") {
        out.push(FieldError::not_supported(
            &path,
            uri,
            &["https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"],
        ));
    }
}

fn local(at: &Cursor<'_>, out: &mut ErrorList) {
    let path = at.text("path");
    if path.is_empty() {
        out.push(FieldError::required(&at.at("path"), ""));
    } else if text::has_back_steps(path) {
        out.push(FieldError::invalid(
            &at.at("path"),
            path,
            "must not contain '..'",
        ));
    }
}

fn storage_os(at: &Cursor<'_>, owner: Owner<'_>, out: &mut ErrorList) {
    required(at, "volumeName", out);
    for name in ["volumeName", "volumeNamespace"] {
        if !at.text(name).is_empty() {
            validation::dns_label(at.text(name), &at.at(name), out);
        }
    }
    secret(at, owner, out);
}

fn csi(at: &Cursor<'_>, out: &mut ErrorList) {
    csi_driver(at.text("driver"), &at.at("driver"), out);
    required(at, "volumeHandle", out);
    for name in [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ] {
        let Some(secret) = at.get(name) else { continue };
        required(&secret, "name", out);
        required(&secret, "namespace", out);
        if !secret.text("name").is_empty() {
            validation::dns_subdomain(secret.text("name"), &secret.at("name"), out);
        }
        if !secret.text("namespace").is_empty() {
            validation::dns_label(secret.text("namespace"), &secret.at("namespace"), out);
        }
    }
}
