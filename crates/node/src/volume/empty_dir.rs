//! `emptyDir`: a directory of the pod, on the node's disk or in memory.

use std::fs;
use std::path::Path;

use k8s_openapi::api::core::v1::EmptyDirVolumeSource;
use rustix::mount::{MountFlags, mount};

use super::atomic::{set_mode, text};
use super::release::{is_mount, make_dir};
use crate::pod::model::PodModel;
use crate::spec::fields::NodeFacts;

/// What an `emptyDir` is made with.
#[derive(Debug, Clone)]
pub struct Settings {
    medium: String,
    size: Option<i64>,
    mode: u32,
    group: Option<u32>,
}

impl Settings {
    /// Reads the source. In memory it is never larger than the pod's memory limit.
    #[must_use]
    pub fn new(
        source: &EmptyDirVolumeSource,
        model: &PodModel,
        facts: &NodeFacts,
        group: Option<u32>,
    ) -> Self {
        let asked = source
            .size_limit
            .as_ref()
            .and_then(|limit| limit.0.parse::<evenkeel_api::quantity::Quantity>().ok())
            .map(|limit| limit.units())
            .filter(|bytes| *bytes > 0);
        let pod_limit = crate::spec::resources::pod_resources(model).memory_limit;
        let most = pod_limit.unwrap_or(facts.allocatable_memory);
        let size = Some(asked.map_or(most, |asked| asked.min(most))).filter(|bytes| *bytes > 0);
        Self {
            medium: source.medium.clone().unwrap_or_default(),
            size,
            mode: source
                .mode
                .and_then(|mode| u32::try_from(mode).ok())
                .unwrap_or(0o777),
            group,
        }
    }
}

/// Makes the directory; what is in it already stays.
///
/// # Errors
/// What failed, or the name of a medium that this node does not have.
pub fn make(path: &Path, settings: &Settings) -> Result<(), String> {
    match settings.medium.as_str() {
        "" => make_dir(path, settings.mode)?,
        "Memory" => mount_tmpfs(path, settings.size, settings.mode)?,
        other => {
            return Err(format!(
                "emptyDir medium {other:?} is not supported by this node"
            ));
        }
    }
    match settings.group {
        Some(group) => {
            std::os::unix::fs::chown(path, None, Some(group))
                .map_err(|error| text(path, &error))?;
            set_mode(path, settings.mode | 0o2770)
        }
        None => set_mode(path, settings.mode),
    }
}

/// Mounts a tmpfs, once. Where mounting is not allowed (an agent without privileges, as in
/// tests), the directory itself serves.
///
/// # Errors
/// What failed.
pub fn mount_tmpfs(path: &Path, size: Option<i64>, mode: u32) -> Result<(), String> {
    let fresh = fs::symlink_metadata(path).is_err();
    make_dir(path, mode)?;
    if !fresh && is_mount(path)? {
        return Ok(());
    }
    let size = size
        .map(|bytes| format!(",size={bytes}"))
        .unwrap_or_default();
    let options = std::ffi::CString::new(format!("mode={mode:o}{size}"))
        .map_err(|error| error.to_string())?;
    match mount(
        "tmpfs",
        path,
        "tmpfs",
        MountFlags::empty(),
        Some(options.as_c_str()),
    ) {
        Ok(()) | Err(rustix::io::Errno::PERM) => Ok(()),
        Err(error) => Err(format!("mount tmpfs at {}: {error}", path.display())),
    }
}
