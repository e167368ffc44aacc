//! A pod as the agent reads it: one list of containers, whatever field they come from.
//!
//! Nothing here changes a pod; everything is derived once for each version of it.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerRestartRule, EphemeralContainer, Pod, PodSpec,
};

use crate::static_pods::{MIRROR_UID, SOURCE};

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
    /// The container that an ephemeral one looks into (`targetContainerName`).
    pub target: Option<String>,
}

impl ContainerModel {
    fn new(role: Role, spec: Container) -> Self {
        let hash = spec_hash(&spec);
        Self {
            role,
            spec,
            hash,
            target: None,
        }
    }

    /// Name within the pod.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Is it started again after an end with that exit code, in a pod with that policy?
    ///
    /// Its own rules come first (KEP-5307), then its own policy, then the pod's.
    #[must_use]
    pub fn restarts_after(&self, exit_code: i32, pod: RestartPolicy) -> bool {
        match self.role {
            Role::Sidecar => return true,
            Role::Ephemeral => return false,
            Role::Init | Role::App => {}
        }
        let own = self.spec.restart_policy.as_deref();
        let rules = self.spec.restart_policy_rules.as_deref();
        if own.is_some()
            && rules
                .unwrap_or_default()
                .iter()
                .any(|rule| applies(rule, exit_code))
        {
            return true;
        }
        let policy = match (own, self.role, pod) {
            (Some("Always"), ..) => RestartPolicy::Always,
            (Some("OnFailure"), ..) => RestartPolicy::OnFailure,
            (Some("Never"), ..) => RestartPolicy::Never,
            // An init container that succeeded is over in every pod.
            (_, Role::Init, RestartPolicy::Always) => RestartPolicy::OnFailure,
            (.., pod) => pod,
        };
        match policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => exit_code != 0,
            RestartPolicy::Never => false,
        }
    }

    /// A rule of its restart policy that this node can't follow.
    #[must_use]
    pub fn unsupported_rule(&self) -> Option<&str> {
        let rules = self
            .spec
            .restart_policy_rules
            .as_deref()
            .unwrap_or_default();
        let mut actions = rules.iter().map(|rule| rule.action.as_str());
        actions.find(|action| *action != "Restart")
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
                let target = ephemeral.target_container_name.clone();
                containers.push(ContainerModel {
                    target: target.filter(|name| !name.is_empty()),
                    ..ContainerModel::new(Role::Ephemeral, from_ephemeral(ephemeral))
                });
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

    fn annotation(&self, name: &str) -> Option<&str> {
        let annotations = self.pod.metadata.annotations.as_ref()?;
        annotations.get(name).map(String::as_str)
    }

    /// Made from a file on this node; the object in the API only mirrors it.
    #[must_use]
    pub fn is_static(&self) -> bool {
        self.annotation(SOURCE) == Some("file")
    }

    /// The UID of the pod's object in the API, which for a static pod is its mirror's, once there
    /// is one.
    #[must_use]
    pub fn api_uid(&self) -> Option<&str> {
        if self.is_static() {
            self.annotation(MIRROR_UID)
        } else {
            Some(self.uid())
        }
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

fn applies(rule: &ContainerRestartRule, exit_code: i32) -> bool {
    rule.exit_codes.as_ref().is_some_and(|codes| {
        let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
        match codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn restarts(role: Role, own: Value, pod: RestartPolicy) -> [bool; 3] {
        let mut spec = json!({ "name": "c" });
        if let (Some(fields), Value::Object(own)) = (spec.as_object_mut(), own) {
            fields.extend(own);
        }
        let model = ContainerModel::new(role, serde_json::from_value(spec).unwrap());
        [0, 1, 42].map(|code| model.restarts_after(code, pod))
    }

    #[test]
    fn rules_come_before_the_containers_policy_and_that_before_the_pods() {
        use RestartPolicy::{Always, Never, OnFailure};
        let none = json!({});
        assert_eq!(restarts(Role::App, none.clone(), Always), [true; 3]);
        assert_eq!(
            restarts(Role::App, none.clone(), OnFailure),
            [false, true, true]
        );
        assert_eq!(restarts(Role::App, none.clone(), Never), [false; 3]);
        assert_eq!(
            restarts(Role::Init, none.clone(), Always),
            [false, true, true]
        );
        assert_eq!(restarts(Role::Init, none.clone(), Never), [false; 3]);
        assert_eq!(restarts(Role::Sidecar, none.clone(), Never), [true; 3]);
        assert_eq!(restarts(Role::Ephemeral, none, Always), [false; 3]);
        let own = |policy: &str| json!({ "restartPolicy": policy });
        assert_eq!(restarts(Role::App, own("Never"), Always), [false; 3]);
        assert_eq!(
            restarts(Role::App, own("OnFailure"), Never),
            [false, true, true]
        );
        let rule = |operator: &str| {
            json!({ "restartPolicy": "Never", "restartPolicyRules": [
                { "action": "Restart", "exitCodes": { "operator": operator, "values": [42] } } ] })
        };
        assert_eq!(restarts(Role::App, rule("In"), Never), [false, false, true]);
        assert_eq!(
            restarts(Role::App, rule("NotIn"), Never),
            [true, true, false]
        );
    }
}
