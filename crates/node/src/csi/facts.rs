//! Names, paths and decisions about volumes of drivers, as kubelet has them (`pkg/volume/csi`).
//! Nothing here calls a driver or touches a disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::PersistentVolumeSpec;
use k8s_openapi::api::storage::v1::CSIDriver;
use sha2::{Digest as _, Sha256};

use super::driver::Driver;
use super::proto;
use crate::pod::model::PodModel;
use crate::volume::pod_dir;

/// The file beside a mount that says whose it is.
pub const DATA_FILE: &str = "vol_data.json";
/// Directory of the plugin below a pod's volumes.
pub const PLUGIN_DIR: &str = "kubernetes.io~csi";

fn hex(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name of the attachment of a volume to a node.
#[must_use]
pub fn attachment_name(handle: &str, driver: &str, node: &str) -> String {
    format!("csi-{}", hex(&format!("{handle}{driver}{node}")))
}

/// What node statuses call a volume.
#[must_use]
pub fn unique_name(driver: &str, handle: &str) -> String {
    format!("kubernetes.io/csi/{driver}^{handle}")
}

/// The handle of a volume that is made for a pod.
#[must_use]
pub fn inline_handle(uid: &str, volume: &str) -> String {
    format!("csi-{}", hex(&format!("{uid}{volume}")))
}

/// Where staged volumes of all drivers are.
#[must_use]
pub fn staging_root(root: &Path) -> PathBuf {
    root.join("plugins").join("kubernetes.io").join("csi")
}

/// The directory with the data of a staged volume; it is staged at `globalmount` in it.
#[must_use]
pub fn staging_dir(root: &Path, driver: &str, handle: &str) -> PathBuf {
    staging_root(root).join(driver).join(hex(handle))
}

/// The directory of a pod's volume; it is published at `mount` in it.
#[must_use]
pub fn published_dir(root: &Path, uid: &str, volume: &str) -> PathBuf {
    let volume = volume.replace('/', "~");
    pod_dir(root, uid)
        .join("volumes")
        .join(PLUGIN_DIR)
        .join(volume)
}

/// What a driver is told about the pod, when it wants to know.
#[must_use]
pub fn pod_info(model: &PodModel, ephemeral: bool) -> BTreeMap<String, String> {
    let account = model.spec().and_then(|it| it.service_account_name.clone());
    let facts = [
        ("pod.name", model.name().to_owned()),
        ("pod.namespace", model.namespace().to_owned()),
        ("pod.uid", model.uid().to_owned()),
        ("serviceAccount.name", account.unwrap_or_default()),
        ("ephemeral", ephemeral.to_string()),
    ];
    let named = facts.map(|(name, value)| (format!("csi.storage.k8s.io/{name}"), value));
    named.into_iter().collect()
}

/// The number of an access mode.
///
/// # Errors
/// The mode is none.
pub fn access_mode(mode: &str, driver: &Driver) -> Result<i32, String> {
    let tells = driver.can(proto::TELLS_SINGLE_WRITER);
    Ok(match mode {
        "ReadWriteOnce" if tells => proto::SINGLE_NODE_MULTI_WRITER,
        "ReadWriteOncePod" if tells => proto::SINGLE_NODE_SINGLE_WRITER,
        "ReadWriteOnce" | "ReadWriteOncePod" => proto::SINGLE_NODE_WRITER,
        "ReadOnlyMany" => proto::MULTI_NODE_READER_ONLY,
        "ReadWriteMany" => proto::MULTI_NODE_MULTI_WRITER,
        other => return Err(format!("unsupported access mode {other:?}")),
    })
}

/// Does the node give the files to the pod's group?
#[must_use]
pub fn gives_to_group(
    policy: Option<&str>,
    fs_type: &str,
    spec: Option<&PersistentVolumeSpec>,
    read_only: bool,
) -> bool {
    match policy {
        Some("None") => false,
        _ if read_only => false,
        Some("File") => true,
        // `ReadWriteOnceWithFSType`.
        _ if fs_type.is_empty() => false,
        _ => spec.is_none_or(|spec| {
            let mut modes = spec.access_modes.iter().flatten();
            modes.any(|mode| matches!(mode.as_str(), "ReadWriteOnce" | "ReadWriteOncePod"))
        }),
    }
}

/// May volumes of the driver be of this mode?
///
/// # Errors
/// Kubelet's words for that they may not.
pub fn supports_mode(
    object: Option<&CSIDriver>,
    name: &str,
    ephemeral: bool,
) -> Result<(), String> {
    let wanted = if ephemeral { "Ephemeral" } else { "Persistent" };
    let Some(object) = object else {
        if ephemeral {
            return Err(format!(
                "volume mode {wanted:?} not supported by driver {name} (no CSIDriver object)"
            ));
        }
        return Ok(());
    };
    let modes = object.spec.volume_lifecycle_modes.clone();
    let modes = modes.unwrap_or_else(|| vec!["Persistent".to_owned()]);
    if modes.iter().any(|mode| mode == wanted) {
        return Ok(());
    }
    let shown: Vec<String> = modes.iter().map(|mode| format!("{mode:?}")).collect();
    Err(format!(
        "volume mode {wanted:?} not supported by driver {name} (only supports [{}])",
        shown.join(" ")
    ))
}

/// Must a volume be attached before a node can use it? So, unless the driver says otherwise.
#[must_use]
pub fn attaches(object: Option<&CSIDriver>) -> bool {
    object.and_then(|object| object.spec.attach_required) != Some(false)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_those_that_others_compute() {
        assert_eq!(
            attachment_name("vol", "d.example", "n1"),
            format!("csi-{:x}", Sha256::digest(b"vold.examplen1"))
        );
        assert_eq!(
            unique_name("d.example", "vol"),
            "kubernetes.io/csi/d.example^vol"
        );
        let root = Path::new("/r");
        assert_eq!(
            staging_dir(root, "d", "h").parent(),
            Some(Path::new("/r/plugins/kubernetes.io/csi/d"))
        );
        assert_eq!(
            published_dir(root, "u", "a/b"),
            Path::new("/r/pods/u/volumes/kubernetes.io~csi/a~b")
        );
    }

    #[test]
    fn groups_get_files_as_the_policy_says() {
        let spec = |mode: &str| -> PersistentVolumeSpec {
            serde_json::from_value(json!({"accessModes": [mode]})).expect("a spec")
        };
        let (once, many) = (spec("ReadWriteOnce"), spec("ReadWriteMany"));
        for (policy, fs_type, spec, read_only, wanted) in [
            (Some("None"), "ext4", Some(&once), false, false),
            (Some("File"), "", Some(&many), false, true),
            (Some("File"), "", Some(&many), true, false),
            (None, "", Some(&once), false, false),
            (None, "ext4", Some(&once), false, true),
            (None, "ext4", Some(&many), false, false),
            (Some("ReadWriteOnceWithFSType"), "xfs", None, false, true),
        ] {
            let told = format!("{policy:?} {fs_type:?} {read_only}");
            assert_eq!(
                gives_to_group(policy, fs_type, spec, read_only),
                wanted,
                "{told}"
            );
        }
    }

    #[test]
    fn drivers_say_which_volumes_they_have() {
        let driver = |modes: serde_json::Value| -> CSIDriver {
            let spec = json!({"volumeLifecycleModes": modes});
            serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": spec})).expect("one")
        };
        assert!(supports_mode(None, "d", false).is_ok());
        assert_eq!(
            supports_mode(None, "d", true).unwrap_err(),
            "volume mode \"Ephemeral\" not supported by driver d (no CSIDriver object)"
        );
        let persistent = driver(json!(["Persistent"]));
        assert_eq!(
            supports_mode(Some(&persistent), "d", true).unwrap_err(),
            "volume mode \"Ephemeral\" not supported by driver d (only supports [\"Persistent\"])"
        );
        assert!(supports_mode(Some(&driver(json!(["Ephemeral"]))), "d", true).is_ok());
        assert!(attaches(None) && attaches(Some(&persistent)));
    }
}
