//! Validation of what a pod shares with its host: users, processes, network and name.

use super::containers;
use crate::field::{ErrorList, FieldError};
use crate::validation::{self, Cursor};

/// The kernel takes no longer host names (in bytes).
const HOSTNAME_MAX: usize = 64;

/// On the host's network a host port is the container port; a template may leave it open.
pub(super) fn network(spec: &Cursor<'_>, is_pod: bool, out: &mut ErrorList) {
    if !spec.is_true("hostNetwork") {
        return;
    }
    for container in spec.items("containers") {
        for port in container.items("ports") {
            let host = port.number("hostPort");
            if (is_pod || host != 0) && host != port.number("containerPort") {
                out.push(FieldError::invalid(
                    &port.at("hostPort"),
                    host,
                    "must match `containerPort` when `hostNetwork` is true",
                ));
            }
        }
    }
}

/// Users of its own go with neither the host's other namespaces nor raw devices.
pub(super) fn users(spec: &Cursor<'_>, out: &mut ErrorList) {
    const DETAIL: &str = "when `hostUsers` is false";
    if spec.flag("hostUsers") != Some(false) {
        return;
    }
    for (name, named_as) in [
        ("hostNetwork", "hostNetwork"),
        ("hostPID", "HostPID"),
        ("hostIPC", "HostIPC"),
    ] {
        if spec.is_true(name) {
            out.push(FieldError::forbidden(&spec.at(named_as), DETAIL));
        }
    }
    for container in containers::all(spec) {
        if !container.list("volumeDevices").is_empty() {
            out.push(FieldError::forbidden(
                &container.at("volumeDevices"),
                DETAIL,
            ));
        }
    }
}

/// Checks the name that the pod has instead of its own.
pub(super) fn name(spec: &Cursor<'_>, out: &mut ErrorList) {
    let Some(name) = spec.get("hostnameOverride") else {
        return;
    };
    for other in ["setHostnameAsFQDN", "hostNetwork"] {
        if spec.is_true(other) {
            out.push(FieldError::forbidden(
                &name.path,
                &format!("may not be specified when {other} is true"),
            ));
        }
    }
    let text = spec.text("hostnameOverride");
    if text.len() > HOSTNAME_MAX {
        out.push(FieldError::too_long(&name.path, HOSTNAME_MAX));
    }
    validation::dns_subdomain(text, &name.path, out);
}

/// Either all containers of a Windows pod are processes of the host, or none is.
pub(super) fn processes(spec: &Cursor<'_>, out: &mut ErrorList) {
    let options = |at: &Cursor<'_>| {
        let options = at.child("securityContext").child("windowsOptions");
        (options.flag("hostProcess"), options.at("hostProcess"))
    };
    let (of_pod, _) = options(spec);
    let (mut all, mut some) = (true, false);
    for container in containers::all(spec) {
        let (own, path) = options(&container);
        if let (Some(of_pod), Some(own)) = (of_pod, own)
            && of_pod != own
        {
            out.push(FieldError::invalid(
                &path,
                own,
                &format!(
                    "pod hostProcess value must be identical if both are specified, was {of_pod}"
                ),
            ));
        }
        let on_host = own.or(of_pod) == Some(true);
        all &= on_host;
        some |= on_host;
    }
    if some && !all {
        out.push(FieldError::invalid(
            &spec.path,
            "",
            "If pod contains any hostProcess containers then all containers must be HostProcess \
             containers",
        ));
    }
    if some && !spec.is_true("hostNetwork") {
        out.push(FieldError::invalid(
            &spec.at("hostNetwork"),
            false,
            "hostNetwork must be true if pod contains any hostProcess containers",
        ));
    }
}
