//! Security contexts: the container's over the pod's, as the runtime takes them.

use std::path::Path;

use evenkeel_runtime::{ImageStatus, Seccomp, Security};
use k8s_openapi::api::core::v1::{Container, SeccompProfile};

use crate::pod::model::PodModel;

/// Why a container must not run; shown as `CreateContainerConfigError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecurityError {
    /// `runAsNonRoot` with uid 0.
    #[error(
        "container's runAsUser breaks non-root policy (pod: \"{pod}\", container: {container})"
    )]
    RunAsUserIsRoot {
        /// `name_namespace(uid)`.
        pod: String,
        /// Its name.
        container: String,
    },
    /// `runAsNonRoot` and the image names no user or root.
    #[error(
        "container has runAsNonRoot and image will run as root (pod: \"{pod}\", container: \
         {container})"
    )]
    ImageIsRoot {
        /// `name_namespace(uid)`.
        pod: String,
        /// Its name.
        container: String,
    },
    /// `runAsNonRoot` and the image names a user that is not a number.
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user \
         is non-root (pod: \"{pod}\", container: {container})"
    )]
    ImageUserIsName {
        /// As the image has it.
        user: String,
        /// `name_namespace(uid)`.
        pod: String,
        /// Its name.
        container: String,
    },
    /// Something this node does not have.
    #[error("{0} is not supported by this node")]
    Unsupported(String),
}

/// The security settings of a container.
///
/// # Errors
/// When it must not run as it would, or asks for what this node does not have.
pub fn security(
    model: &PodModel,
    container: &Container,
    image: &ImageStatus,
    seccomp_root: &Path,
) -> Result<Security, SecurityError> {
    let own = container.security_context.as_ref();
    let pod = model.spec().and_then(|spec| spec.security_context.as_ref());
    let privileged = own.and_then(|own| own.privileged).unwrap_or(false);
    let run_as_user = own
        .and_then(|own| own.run_as_user)
        .or(pod.and_then(|pod| pod.run_as_user));
    let run_as_group = own
        .and_then(|own| own.run_as_group)
        .or(pod.and_then(|pod| pod.run_as_group));
    let non_root = own
        .and_then(|own| own.run_as_non_root)
        .or(pod.and_then(|pod| pod.run_as_non_root))
        .unwrap_or(false);
    if non_root {
        verify_non_root(model, container, image, run_as_user)?;
    }
    let mut groups: Vec<i64> = pod
        .and_then(|pod| pod.supplemental_groups.clone())
        .unwrap_or_default();
    if let Some(group) = pod.and_then(|pod| pod.fs_group)
        && !groups.contains(&group)
    {
        groups.push(group);
    }
    if own
        .and_then(|own| own.app_armor_profile.as_ref())
        .is_some_and(|p| p.type_ == "Localhost")
    {
        return Err(SecurityError::Unsupported(
            "appArmorProfile Localhost".to_owned(),
        ));
    }
    let capabilities = own.and_then(|own| own.capabilities.as_ref());
    let names = |list: Option<&Vec<String>>| -> Vec<String> {
        list.into_iter()
            .flatten()
            .map(|name| name.trim_start_matches("CAP_").to_uppercase())
            .collect()
    };
    let profile = own
        .and_then(|own| own.seccomp_profile.as_ref())
        .or(pod.and_then(|pod| pod.seccomp_profile.as_ref()));
    Ok(Security {
        privileged,
        add_capabilities: names(capabilities.and_then(|c| c.add.as_ref())),
        drop_capabilities: names(capabilities.and_then(|c| c.drop.as_ref())),
        run_as_user,
        run_as_group,
        run_as_non_root: non_root,
        supplemental_groups: groups,
        strict_groups: pod.and_then(|pod| pod.supplemental_groups_policy.as_deref())
            == Some("Strict"),
        readonly_rootfs: own
            .and_then(|own| own.read_only_root_filesystem)
            .unwrap_or(false),
        no_new_privs: own.and_then(|own| own.allow_privilege_escalation) == Some(false),
        seccomp: if privileged {
            Seccomp::Unconfined
        } else {
            seccomp(profile, seccomp_root)
        },
        unmasked_proc: own.and_then(|own| own.proc_mount.as_deref()) == Some("Unmasked"),
    })
}

/// A pod that names no profile runs with the runtime's default one: stricter than kubelet's
/// default (`Unconfined`), as its `--seccomp-default` does.
fn seccomp(profile: Option<&SeccompProfile>, root: &Path) -> Seccomp {
    match profile.map(|profile| profile.type_.as_str()) {
        Some("Unconfined") => Seccomp::Unconfined,
        Some("Localhost") => {
            let file = profile
                .and_then(|p| p.localhost_profile.as_deref())
                .unwrap_or_default();
            Seccomp::Localhost(root.join(file))
        }
        _ => Seccomp::RuntimeDefault,
    }
}

fn verify_non_root(
    model: &PodModel,
    container: &Container,
    image: &ImageStatus,
    run_as_user: Option<i64>,
) -> Result<(), SecurityError> {
    let pod = model.full_name();
    let name = container.name.clone();
    match run_as_user {
        Some(0) => {
            return Err(SecurityError::RunAsUserIsRoot {
                pod,
                container: name,
            });
        }
        Some(_) => return Ok(()),
        None => {}
    }
    let user = image.user.split(':').next().unwrap_or_default();
    match user.parse::<i64>() {
        Ok(0) => Err(SecurityError::ImageIsRoot {
            pod,
            container: name,
        }),
        Ok(_) => Ok(()),
        Err(_) if user.is_empty() => Err(SecurityError::ImageIsRoot {
            pod,
            container: name,
        }),
        Err(_) => Err(SecurityError::ImageUserIsName {
            user: user.to_owned(),
            pod,
            container: name,
        }),
    }
}
