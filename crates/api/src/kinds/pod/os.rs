//! What pods that name their operating system can't have, because the other one has it.

use crate::field::{ErrorList, FieldError};
use crate::validation::Cursor;

/// Fields of a pod's security context.
const OF_POD: [&str; 3] = ["appArmorProfile", "seLinuxOptions", "seccompProfile"];
/// And those after the fields of the spec.
const OF_POD_MORE: [&str; 8] = [
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "seLinuxChangePolicy",
];
/// Fields of a container's.
const OF_CONTAINER: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

/// Checks a pod of Linux.
pub(super) fn linux(spec: &Cursor<'_>, out: &mut ErrorList) {
    let contexts = std::iter::once(spec.child("securityContext"));
    for context in contexts.chain(containers(spec).map(|it| it.child("securityContext"))) {
        if context.has("windowsOptions") {
            out.push(FieldError::forbidden(
                &context.at("windowsOptions"),
                "windows options cannot be set for a linux pod",
            ));
        }
    }
}

/// Checks a pod of Windows.
pub(super) fn windows(spec: &Cursor<'_>, out: &mut ErrorList) {
    let mut forbid = |at: &Cursor<'_>, name: &str| {
        out.push(FieldError::forbidden(
            &at.at(name),
            "cannot be set for a windows pod",
        ));
    };
    let mut all = |at: &Cursor<'_>, names: &[&str]| {
        for name in names.iter().filter(|name| at.has(name)) {
            forbid(at, name);
        }
    };
    let context = spec.child("securityContext");
    all(&context, &OF_POD);
    all(spec, &["hostUsers"]);
    for name in ["hostPID", "hostIPC"] {
        if spec.is_true(name) {
            all(spec, &[name]);
        }
    }
    all(spec, &["shareProcessNamespace"]);
    all(&context, &OF_POD_MORE);
    for container in containers(spec) {
        all(&container.child("securityContext"), &OF_CONTAINER);
    }
}

fn containers<'v>(spec: &Cursor<'v>) -> impl Iterator<Item = Cursor<'v>> {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    lists.into_iter().flat_map(|list| spec.items(list))
}
