//! Validation of security contexts.

use std::collections::BTreeSet;

use serde_json::Value;

use super::volumes::descending_path;
use crate::field::{ErrorList, FieldError};
use crate::validation::{self, Cursor, text};

const SYSCTL_MAX: usize = 253;
const SYSCTL_PATTERN: &str =
    "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

fn ids(at: &Cursor<'_>, names: &[&str], out: &mut ErrorList) {
    for name in names {
        if let Some(value) = at.integer(name)
            && let Some(wrong) = text::user_id(value)
        {
            out.push(FieldError::invalid(&at.at(name), value, &wrong));
        }
    }
}

/// Checks the security context of a container.
pub(super) fn of_container(container: &Cursor<'_>, host_users: bool, out: &mut ErrorList) {
    let Some(at) = container.get("securityContext") else {
        return;
    };
    ids(&at, &["runAsUser", "runAsGroup"], out);
    if at.has("procMount") {
        validation::one_of(&at, "procMount", &["Default", "Unmasked"], out);
        if host_users && at.text("procMount") == "Unmasked" {
            out.push(FieldError::invalid(
                &at.at("procMount"),
                "Unmasked",
                "`hostUsers` must be false to use `Unmasked`",
            ));
        }
    }
    seccomp(&at, out);
    if at.flag("allowPrivilegeEscalation") == Some(false) {
        if at.is_true("privileged") {
            out.push(FieldError::invalid(
                &at.path,
                at.value.clone(),
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            ));
        }
        let capabilities = at.child("capabilities");
        if capabilities
            .texts("add")
            .any(|name| name == "CAP_SYS_ADMIN")
        {
            out.push(FieldError::invalid(
                &at.path,
                at.value.clone(),
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` \
                 CAP_SYS_ADMIN",
            ));
        }
    }
    app_armor(&at, out);
}

/// Checks the security context of a pod spec.
pub(super) fn of_pod(spec: &Cursor<'_>, out: &mut ErrorList) {
    let Some(at) = spec.get("securityContext") else {
        return;
    };
    ids(&at, &["fsGroup", "runAsUser", "runAsGroup"], out);
    for group in at.items("supplementalGroups") {
        let value = group.value.as_i64().unwrap_or_default();
        if let Some(wrong) = text::user_id(value) {
            out.push(FieldError::invalid(&group.path, value, &wrong));
        }
    }
    if spec.is_true("shareProcessNamespace") && spec.is_true("hostPID") {
        out.push(FieldError::invalid(
            &spec.at("shareProcessNamespace"),
            true,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        ));
    }
    sysctls(spec, &at, out);
    validation::one_of(
        &at,
        "fsGroupChangePolicy",
        &["Always", "OnRootMismatch"],
        out,
    );
    seccomp(&at, out);
    app_armor(&at, out);
    validation::one_of(&at, "supplementalGroupsPolicy", &["Merge", "Strict"], out);
    validation::one_of(
        &at,
        "seLinuxChangePolicy",
        &["MountOption", "Recursive"],
        out,
    );
}

fn seccomp(context: &Cursor<'_>, out: &mut ErrorList) {
    let Some(at) = context.get("seccompProfile") else {
        return;
    };
    let profile = at.text("type");
    match profile {
        "" => out.push(FieldError::required(
            &at.at("type"),
            "type is required when seccompProfile is set",
        )),
        _ => validation::one_of(
            &at,
            "type",
            &["Localhost", "RuntimeDefault", "Unconfined"],
            out,
        ),
    }
    let path = at.at("localhostProfile");
    match (profile, at.has("localhostProfile")) {
        ("Localhost", false) => out.push(FieldError::required(
            &path,
            "must be set when seccomp type is Localhost",
        )),
        ("Localhost", true) => descending_path(at.text("localhostProfile"), &path, out),
        (_, true) => {
            // The reference shows Go's names of the fields.
            let shown = format!(
                "{{\"Type\":{},\"LocalhostProfile\":{}}}",
                Value::from(profile),
                at.raw("localhostProfile")
            );
            out.push(FieldError::invalid_shown(
                &path,
                &shown,
                "can only be set when seccomp type is Localhost",
            ));
        }
        _ => {}
    }
}

fn app_armor(context: &Cursor<'_>, out: &mut ErrorList) {
    let Some(at) = context.get("appArmorProfile") else {
        return;
    };
    let path = at.at("localhostProfile");
    let local = at.text("localhostProfile");
    match at.text("type") {
        "Localhost" => {
            if local.trim().is_empty() && local.trim() == local {
                out.push(FieldError::required(
                    &path,
                    "must be set when AppArmor type is Localhost",
                ));
            } else if local.trim() != local {
                out.push(FieldError::invalid(
                    &path,
                    local,
                    "must not be padded with whitespace",
                ));
            }
            if local.len() > 4095 {
                out.push(FieldError::too_long(&path, 4095));
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if at.has("localhostProfile") {
                out.push(FieldError::invalid(
                    &path,
                    local,
                    "can only be set when AppArmor type is Localhost",
                ));
            }
        }
        "" => out.push(FieldError::required(
            &at.at("type"),
            "type is required when appArmorProfile is set",
        )),
        other => out.push(FieldError::not_supported(
            &at.at("type"),
            other,
            &["Localhost", "RuntimeDefault", "Unconfined"],
        )),
    }
}

fn is_sysctl(name: &str) -> bool {
    let segment = |text: &str| {
        let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        text.starts_with(edge)
            && text.ends_with(edge)
            && text.chars().all(|c| edge(c) || c == '-' || c == '_')
    };
    name.len() <= SYSCTL_MAX && name.split(['.', '/']).all(segment)
}

fn sysctls(spec: &Cursor<'_>, at: &Cursor<'_>, out: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for sysctl in at.items("sysctls") {
        let (name, path) = (sysctl.text("name"), sysctl.at("name"));
        if name.is_empty() {
            out.push(FieldError::required(&path, ""));
        } else if !is_sysctl(name) {
            out.push(FieldError::invalid(
                &path,
                name,
                &format!(
                    "must have at most {SYSCTL_MAX} characters and match regex {SYSCTL_PATTERN}"
                ),
            ));
        } else if !seen.insert(name) {
            out.push(FieldError::duplicate(&path, name));
        }
        let dotted = name.replace('/', ".");
        let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."]
            .iter()
            .any(|prefix| dotted.starts_with(prefix))
            || dotted == "kernel.sem";
        if spec.is_true("hostNetwork") && dotted.starts_with("net.") {
            out.push(FieldError::invalid(
                &path,
                name,
                "may not be specified when 'hostNetwork' is true",
            ));
        } else if spec.is_true("hostIPC") && ipc {
            out.push(FieldError::invalid(
                &path,
                name,
                "may not be specified when 'hostIPC' is true",
            ));
        }
    }
}
