//! A pod as the agent reads it: one list of containers, whatever field they come from.
//!
//! Nothing here changes a pod; everything is derived once for each version of it.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};

/// What part a container plays in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: runs beside the others until they end.
    Sidecar,
    /// One of `spec.containers`.
    App,
    /// Added to a running pod to look at it.
    Ephemeral,
}

/// When containers are started again (`spec.restartPolicy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Whatever the exit code.
    Always,
    /// After an exit code other than 0.
    OnFailure,
    /// Never.
    Never,
}

/// A container with its role.
#[derive(Debug, Clone)]
pub struct ContainerModel {
    /// Its role.
    pub role: Role,
    /// Its specification; ephemeral containers are converted.
    pub spec: Container,
    /// Hash of what a change of makes the container start again (name and image).
    pub hash: String,
}

impl ContainerModel {
    fn new(role: Role, spec: Container) -> Self {
        let hash = spec_hash(&spec);
        Self { role, spec, hash }
    }

    /// Name within the pod.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// `spec.containers{web}`, the field path that events carry.
    #[must_use]
    pub fn field_path(&self) -> String {
        let list = match self.role {
            Role::Init | Role::Sidecar => "initContainers",
            Role::App => "containers",
            Role::Ephemeral => "ephemeralContainers",
        };
        format!("spec.{list}{{{}}}", self.spec.name)
    }
}

/// A pod with its containers in one list: init and sidecar, app, ephemeral.
#[derive(Debug, Clone)]
pub struct PodModel {
    /// The object.
    pub pod: Arc<Pod>,
    /// All its containers.
    pub containers: Vec<ContainerModel>,
    /// Its restart policy.
    pub restart: RestartPolicy,
}

impl PodModel {
    /// Reads a pod.
    #[must_use]
    pub fn new(pod: Arc<Pod>) -> Self {
        let mut containers = Vec::new();
        let mut restart = RestartPolicy::Always;
        if let Some(spec) = &pod.spec {
            restart = match spec.restart_policy.as_deref() {
                Some("Never") => RestartPolicy::Never,
                Some("OnFailure") => RestartPolicy::OnFailure,
                _ => RestartPolicy::Always,
            };
            for init in spec.init_containers.iter().flatten() {
                let role = match init.restart_policy.as_deref() {
                    Some("Always") => Role::Sidecar,
                    _ => Role::Init,
                };
                containers.push(ContainerModel::new(role, init.clone()));
            }
            for app in &spec.containers {
                containers.push(ContainerModel::new(Role::App, app.clone()));
            }
            for ephemeral in spec.ephemeral_containers.iter().flatten() {
                containers.push(ContainerModel::new(
                    Role::Ephemeral,
                    from_ephemeral(ephemeral),
                ));
            }
        }
        Self {
            pod,
            containers,
            restart,
        }
    }

    /// `metadata.uid`.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    /// `metadata.name`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    /// `metadata.namespace`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// `name_namespace(uid)`, the form that kubelet's messages use.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}_{}({})", self.name(), self.namespace(), self.uid())
    }

    /// The specification, if there is one (the API never gives a pod without).
    #[must_use]
    pub fn spec(&self) -> Option<&PodSpec> {
        self.pod.spec.as_ref()
    }

    /// The container of that name.
    #[must_use]
    pub fn container(&self, name: &str) -> Option<&ContainerModel> {
        self.containers
            .iter()
            .find(|container| container.spec.name == name)
    }

    /// Containers of some roles, in order.
    pub fn with_role(&self, roles: &'static [Role]) -> impl Iterator<Item = &ContainerModel> {
        self.containers
            .iter()
            .filter(move |container| roles.contains(&container.role))
    }

    /// Shares the host's network?
    #[must_use]
    pub fn host_network(&self) -> bool {
        self.spec()
            .and_then(|spec| spec.host_network)
            .unwrap_or(false)
    }

    /// When deletion was asked for.
    #[must_use]
    pub fn deletion(&self) -> Option<Timestamp> {
        self.pod
            .metadata
            .deletion_timestamp
            .as_ref()
            .map(|time| time.0)
    }

    /// Seconds a graceful end may take: what the deletion asked for, or the specification.
    #[must_use]
    pub fn grace_seconds(&self) -> i64 {
        self.pod
            .metadata
            .deletion_grace_period_seconds
            .or_else(|| {
                self.spec()
                    .and_then(|spec| spec.termination_grace_period_seconds)
            })
            .unwrap_or(30)
            .max(0)
    }

    /// The phase that the API shows is final (`Succeeded` or `Failed`).
    #[must_use]
    pub fn phase_is_final(&self) -> bool {
        matches!(
            self.pod
                .status
                .as_ref()
                .and_then(|status| status.phase.as_deref()),
            Some("Succeeded" | "Failed")
        )
    }
}

fn from_ephemeral(given: &EphemeralContainer) -> Container {
    let given = given.clone();
    Container {
        args: given.args,
        command: given.command,
        env: given.env,
        env_from: given.env_from,
        image: given.image,
        image_pull_policy: given.image_pull_policy,
        name: given.name,
        resources: given.resources,
        security_context: given.security_context,
        stdin: given.stdin,
        stdin_once: given.stdin_once,
        termination_message_path: given.termination_message_path,
        termination_message_policy: given.termination_message_policy,
        tty: given.tty,
        volume_devices: given.volume_devices,
        volume_mounts: given.volume_mounts,
        working_dir: given.working_dir,
        ..Container::default()
    }
}

/// FNV-1a over what makes a container a different one; kubelet hashes name and image too, so that
/// changes to mutable fields other than the image restart nothing.
fn spec_hash(spec: &Container) -> String {
    let mut hash: u32 = 0x811c_9dc5;
    let image = spec.image.as_deref().unwrap_or_default();
    for byte in spec.name.bytes().chain([0]).chain(image.bytes()) {
        hash ^= u32::from(byte);
        hash = hash.wrapping_mul(0x0100_0193);
    }
    format!("{hash:08x}")
}
