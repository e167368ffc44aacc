//! A container's configuration for the runtime.

use std::collections::BTreeMap;
use std::path::PathBuf;

use evenkeel_runtime::{ContainerConfig, ImageStatus, Mount, Propagation, Security};
use k8s_openapi::api::core::v1::VolumeMount;

use super::expand::expand;
use super::resources::container_resources;
use crate::pod::model::{ContainerModel, PodModel};
use crate::pod::plan::HASH_ANNOTATION;
use crate::pod::status::{IMAGE_ID_ANNOTATION, IMAGE_NAME_ANNOTATION};

/// Label with the pod's name.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Label with the pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Label with the pod's UID.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Label with the container's name.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Annotation with the restart count.
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Annotation with the pod's grace in seconds, for pods whose object is gone.
pub const POD_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
/// Annotation with the host's path of the termination message.
pub const MESSAGE_FILE: &str = "evenkeel.dev/termination-message";

/// The labels that lead from the runtime back to a pod.
#[must_use]
pub fn pod_labels(model: &PodModel) -> BTreeMap<String, String> {
    BTreeMap::from([
        (POD_NAME.to_owned(), model.name().to_owned()),
        (POD_NAMESPACE.to_owned(), model.namespace().to_owned()),
        (POD_UID.to_owned(), model.uid().to_owned()),
    ])
}

/// What was prepared for a container.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Its image.
    pub image: ImageStatus,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// Its mounts: volumes, hosts file, termination log.
    pub mounts: Vec<Mount>,
    /// What it may do.
    pub security: Security,
    /// Where its termination message appears on the host.
    pub message_file: Option<PathBuf>,
    /// Memory of the machine, bytes.
    pub memory_capacity: i64,
    /// The lowest `oom_score_adj` that this process may set.
    pub oom_floor: i32,
    /// The container whose processes it sees (`targetContainerName`).
    pub pid_of: Option<String>,
}

/// Puts a container's configuration together.
#[must_use]
pub fn config(
    model: &PodModel,
    container: &ContainerModel,
    attempt: u32,
    prepared: Prepared,
) -> ContainerConfig {
    let spec = &container.spec;
    let lookup = |name: &str| {
        prepared
            .env
            .iter()
            .find(|(have, _)| have == name)
            .map(|(_, value)| value.clone())
    };
    let texts = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter()
            .flatten()
            .map(|text| expand(text, lookup))
            .collect()
    };
    let mut labels = pod_labels(model);
    labels.insert(CONTAINER_NAME.to_owned(), spec.name.clone());
    let image_name = spec.image.clone().unwrap_or_default();
    let mut annotations = BTreeMap::from([
        (HASH_ANNOTATION.to_owned(), container.hash.clone()),
        (RESTART_COUNT.to_owned(), attempt.to_string()),
        (POD_GRACE.to_owned(), model.grace_seconds().to_string()),
        (
            IMAGE_NAME_ANNOTATION.to_owned(),
            shown_name(&image_name, &prepared.image),
        ),
        (
            IMAGE_ID_ANNOTATION.to_owned(),
            shown_id(&image_name, &prepared.image),
        ),
    ]);
    if let Some(file) = &prepared.message_file {
        annotations.insert(MESSAGE_FILE.to_owned(), file.to_string_lossy().into_owned());
    }
    let mut resources = container_resources(model, spec, prepared.memory_capacity);
    resources.oom_score_adj = resources
        .oom_score_adj
        .map(|adj| adj.max(prepared.oom_floor));
    let command = texts(&spec.command);
    let args = texts(&spec.args);
    ContainerConfig {
        name: spec.name.clone(),
        attempt,
        image: prepared.image.id.clone(),
        command,
        args,
        working_dir: spec.working_dir.clone().unwrap_or_default(),
        env: prepared.env,
        mounts: prepared.mounts,
        devices: Vec::new(),
        labels,
        annotations,
        log_path: PathBuf::from(&spec.name).join(format!("{attempt}.log")),
        stdin: spec.stdin.unwrap_or(false),
        stdin_once: spec.stdin_once.unwrap_or(false),
        tty: spec.tty.unwrap_or(false),
        resources,
        security: prepared.security,
        stop_signal: spec
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.stop_signal.as_deref())
            .and_then(signal_number),
        pid_of: prepared.pid_of,
    }
}

/// The name among the image's tags that the reference means, else the reference.
fn shown_name(reference: &str, image: &ImageStatus) -> String {
    let tagged = if reference
        .rsplit('/')
        .next()
        .is_some_and(|last| last.contains([':', '@']))
    {
        reference.to_owned()
    } else {
        format!("{reference}:latest")
    };
    image
        .tags
        .iter()
        .find(|tag| **tag == tagged || tag.ends_with(&format!("/{tagged}")))
        .cloned()
        .unwrap_or_else(|| reference.to_owned())
}

/// The digest the image was fetched by, else the digest of its configuration.
fn shown_id(reference: &str, image: &ImageStatus) -> String {
    let repository = reference.split(['@']).next().unwrap_or_default();
    let repository = match repository.rsplit_once(':') {
        Some((before, after)) if !after.contains('/') => before,
        _ => repository,
    };
    let of_repository = image.digests.iter().find(|digest| {
        let named = digest.split('@').next().unwrap_or_default();
        named == repository || named.ends_with(&format!("/{repository}"))
    });
    of_repository
        .or(image.digests.first())
        .unwrap_or(&image.id)
        .clone()
}

/// Mount propagation of a volume mount.
#[must_use]
pub fn propagation(mount: &VolumeMount) -> Propagation {
    match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => Propagation::HostToContainer,
        Some("Bidirectional") => Propagation::Bidirectional,
        _ => Propagation::None,
    }
}

fn signal_number(name: &str) -> Option<i32> {
    let name = if name.starts_with("SIG") {
        name.to_owned()
    } else {
        format!("SIG{name}")
    };
    if let Some(rest) = name.strip_prefix("SIGRTMIN") {
        let offset: i32 = if rest.is_empty() {
            0
        } else {
            rest.trim_start_matches('+').parse().ok()?
        };
        return Some(34 + offset);
    }
    name.parse::<nix::sys::signal::Signal>()
        .ok()
        .map(|signal| signal as i32)
}
