//! The checks of the Pod Security Standards.
//!
//! Each is named, belongs to a level, and may have changed from one release to the next: a policy
//! that is pinned to a release is judged as that release judged. Restricted means every check of
//! baseline, except those that a stricter one of restricted takes the place of. Names, order and
//! texts are those of `k8s.io/pod-security-admission/policy`.

use std::collections::BTreeSet;

use evenkeel_api::field::quoted;
use evenkeel_api::{object, sysctl};
use serde_json::Value;

use super::policy::{Level, LevelVersion, Version};

/// A pod, or the template of one.
#[derive(Debug, Clone, Copy)]
pub(super) struct PodLike<'p> {
    pub(super) metadata: &'p Value,
    pub(super) spec: &'p Value,
}

/// What a check has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    /// Short enough for lists over many pods.
    pub(super) reason: String,
    /// Which containers, volumes and values.
    pub(super) detail: String,
}

type CheckPod = fn(PodLike<'_>) -> Option<Violation>;

struct Check {
    /// Checks run in the order of their names, those of baseline first.
    name: &'static str,
    level: Level,
    /// From which minor release on which form holds, oldest first.
    since: &'static [(u32, CheckPod)],
    /// The check of baseline whose place it takes.
    replaces: &'static str,
}

const fn baseline(name: &'static str, since: &'static [(u32, CheckPod)]) -> Check {
    Check {
        name,
        level: Level::Baseline,
        since,
        replaces: "",
    }
}

const fn restricted(
    name: &'static str,
    since: &'static [(u32, CheckPod)],
    replaces: &'static str,
) -> Check {
    Check {
        name,
        level: Level::Restricted,
        since,
        replaces,
    }
}

const CHECKS: [Check; 19] = [
    baseline("appArmorProfile", &[(0, app_armor)]),
    baseline("capabilities_baseline", &[(0, capabilities_baseline)]),
    baseline("hostNamespaces", &[(0, host_namespaces)]),
    baseline("hostPathVolumes", &[(0, host_path_volumes)]),
    baseline("hostPorts", &[(0, host_ports)]),
    baseline("hostProbesAndHostLifecycle", &[(34, probe_hosts)]),
    baseline("privileged", &[(0, privileged)]),
    baseline(
        "procMount",
        &[
            (0, proc_mount),
            (35, |pod| not_in_user_namespace(pod, proc_mount)),
        ],
    ),
    baseline(
        "seLinuxOptions",
        &[(0, |pod| se_linux(pod, 3)), (31, |pod| se_linux(pod, 4))],
    ),
    baseline(
        "seccompProfile_baseline",
        &[(0, seccomp_annotations), (19, seccomp_fields)],
    ),
    baseline(
        "sysctls",
        &[
            (0, |pod| sysctls(pod, 0)),
            (27, |pod| sysctls(pod, 27)),
            (29, |pod| sysctls(pod, 29)),
            (32, |pod| sysctls(pod, 32)),
            (37, |pod| sysctls(pod, 37)),
        ],
    ),
    baseline("windowsHostProcess", &[(0, host_process)]),
    restricted(
        "allowPrivilegeEscalation",
        &[(8, escalation), (25, |pod| not_on_windows(pod, escalation))],
        "",
    ),
    restricted(
        "capabilities_restricted",
        &[
            (22, capabilities_restricted),
            (25, |pod| not_on_windows(pod, capabilities_restricted)),
        ],
        "capabilities_baseline",
    ),
    restricted("procMount_restricted", &[(35, proc_mount)], "procMount"),
    restricted(
        "restrictedVolumes",
        &[(0, restricted_volumes)],
        "hostPathVolumes",
    ),
    restricted(
        "runAsNonRoot",
        &[
            (0, non_root),
            (35, |pod| not_in_user_namespace(pod, non_root)),
        ],
        "",
    ),
    restricted(
        "runAsUser",
        &[
            (23, user_zero),
            (35, |pod| not_in_user_namespace(pod, user_zero)),
        ],
        "",
    ),
    restricted(
        "seccompProfile_restricted",
        &[
            (19, seccomp_restricted),
            (25, |pod| not_on_windows(pod, seccomp_restricted)),
        ],
        "seccompProfile_baseline",
    ),
];

impl Check {
    /// The form that held at a release.
    fn at(&self, minor: u32) -> Option<CheckPod> {
        let mut forms = self.since.iter().rev();
        forms
            .find(|(since, _)| *since <= minor)
            .map(|(_, check)| *check)
    }
}

/// Everything about a pod that a policy does not allow.
pub(super) fn violations(policy: LevelVersion, pod: PodLike<'_>) -> Vec<Violation> {
    let minor = match policy.version {
        Version::Minor(minor) => minor,
        Version::Latest => u32::MAX,
    };
    if policy.level == Level::Privileged {
        return Vec::new();
    }
    let replaced: Vec<&str> = CHECKS
        .iter()
        .filter(|check| check.level == Level::Restricted && policy.level == Level::Restricted)
        .filter(|check| check.at(minor).is_some())
        .map(|check| check.replaces)
        .collect();
    CHECKS
        .iter()
        .filter(|check| check.level <= policy.level && !replaced.contains(&check.name))
        .filter_map(|check| check.at(minor)?(pod))
        .collect()
}

fn violation(reason: &str, detail: String) -> Option<Violation> {
    Some(Violation {
        reason: reason.to_owned(),
        detail,
    })
}

fn not_on_windows(pod: PodLike<'_>, check: CheckPod) -> Option<Violation> {
    if object::text(pod.spec, &["os", "name"]) == "windows" {
        return None;
    }
    check(pod)
}

fn not_in_user_namespace(pod: PodLike<'_>, check: CheckPod) -> Option<Violation> {
    if flag(pod.spec, &["hostUsers"]) == Some(false) {
        return None;
    }
    check(pod)
}

fn containers<'p>(pod: PodLike<'p>) -> impl Iterator<Item = &'p Value> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(move |list| object::list(pod.spec, &[list]))
}

fn name(value: &Value) -> String {
    object::text(value, &["name"]).to_owned()
}

fn flag(value: &Value, path: &[&str]) -> Option<bool> {
    object::at(value, path).and_then(Value::as_bool)
}

/// The names of the containers for which something holds.
fn named(pod: PodLike<'_>, holds: impl FnMut(&&Value) -> bool) -> Vec<String> {
    containers(pod).filter(holds).map(name).collect()
}

fn security<'v>(value: &'v Value, path: &[&str]) -> Option<&'v Value> {
    let context = value.get("securityContext")?;
    object::at(context, path).filter(|value| !value.is_null())
}

fn plural(count: usize, one: &'static str, many: &'static str) -> &'static str {
    if count == 1 { one } else { many }
}

/// `"a", "b"`.
fn quote<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> String {
    let items: Vec<String> = items
        .into_iter()
        .map(|item| format!("\"{}\"", item.as_ref()))
        .collect();
    items.join(", ")
}

/// `container "a"` or `containers "a", "b"`.
fn these_containers(names: &[String]) -> String {
    let word = plural(names.len(), "container", "containers");
    format!("{word} {}", quote(names))
}

/// `pod`, `containers "a", "b"` or `pod and container "a"`; `None` when it is nobody.
fn setters(pod: bool, containers: &[String]) -> Option<String> {
    let mut setters = Vec::new();
    if pod {
        setters.push("pod".to_owned());
    }
    if !containers.is_empty() {
        setters.push(these_containers(containers));
    }
    (!setters.is_empty()).then(|| setters.join(" and "))
}

fn app_armor(pod: PodLike<'_>) -> Option<Violation> {
    const PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
    let mut values = BTreeSet::new();
    let mut bad = |value: &Value| {
        let kind = security(value, &["appArmorProfile", "type"]).and_then(Value::as_str);
        let kind = kind.filter(|kind| !matches!(*kind, "RuntimeDefault" | "Localhost"));
        values.extend(kind.map(str::to_owned));
        kind.is_some()
    };
    let of_pod = bad(pod.spec);
    let of_containers = named(pod, |container| bad(container));
    let mut who: Vec<String> = setters(of_pod, &of_containers).into_iter().collect();
    let mut values: Vec<String> = values.into_iter().collect();
    let mut annotations: Vec<String> = object::at(pod.metadata, &["annotations"])
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| (key, value.as_str().unwrap_or_default()))
        .filter(|(key, value)| {
            let allowed =
                value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/");
            key.starts_with(PREFIX) && !allowed
        })
        .map(|(key, value)| format!("{key}={}", quoted(value)))
        .collect();
    if !annotations.is_empty() {
        annotations.sort();
        who.push(plural(annotations.len(), "annotation", "annotations").to_owned());
        values.append(&mut annotations);
    }
    if who.is_empty() {
        return None;
    }
    let reason = plural(
        values.len(),
        "forbidden AppArmor profile",
        "forbidden AppArmor profiles",
    );
    let (who, values) = (who.join(" and "), quote(values));
    violation(
        reason,
        format!("{who} must not set AppArmor profile type to {values}"),
    )
}

/// The containers that add other capabilities than these, and which.
fn added(pod: PodLike<'_>, allowed: &[&str]) -> (Vec<String>, BTreeSet<String>) {
    let mut added = BTreeSet::new();
    let who = named(pod, |container| {
        let wrong: Vec<String> =
            object::list(container, &["securityContext", "capabilities", "add"])
                .iter()
                .filter_map(Value::as_str)
                .filter(|name| !allowed.contains(name))
                .map(str::to_owned)
                .collect();
        let any = !wrong.is_empty();
        added.extend(wrong);
        any
    });
    (who, added)
}

fn capabilities_baseline(pod: PodLike<'_>) -> Option<Violation> {
    const USUAL: [&str; 13] = [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ];
    let (who, added) = added(pod, &USUAL);
    if who.is_empty() {
        return None;
    }
    let detail = format!(
        "{} must not include {} in securityContext.capabilities.add",
        these_containers(&who),
        quote(added)
    );
    violation("non-default capabilities", detail)
}

fn capabilities_restricted(pod: PodLike<'_>) -> Option<Violation> {
    let keeping = named(pod, |container| {
        !object::list(container, &["securityContext", "capabilities", "drop"])
            .iter()
            .any(|name| name == "ALL")
    });
    let (who, added) = added(pod, &["NET_BIND_SERVICE"]);
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!(
            "{} must set securityContext.capabilities.drop=[\"ALL\"]",
            these_containers(&keeping)
        ));
    }
    if !who.is_empty() {
        details.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            these_containers(&who),
            quote(added)
        ));
    }
    if details.is_empty() {
        return None;
    }
    violation("unrestricted capabilities", details.join("; "))
}

fn host_namespaces(pod: PodLike<'_>) -> Option<Violation> {
    let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|name| flag(pod.spec, &[name]) == Some(true))
        .map(|name| format!("{name}=true"))
        .collect();
    if shared.is_empty() {
        return None;
    }
    violation("host namespaces", shared.join(", "))
}

fn host_path_volumes(pod: PodLike<'_>) -> Option<Violation> {
    let names: Vec<String> = object::list(pod.spec, &["volumes"])
        .iter()
        .filter(|volume| volume.get("hostPath").is_some())
        .map(name)
        .collect();
    if names.is_empty() {
        return None;
    }
    let word = plural(names.len(), "volume", "volumes");
    violation("hostPath volumes", format!("{word} {}", quote(names)))
}

fn host_ports(pod: PodLike<'_>) -> Option<Violation> {
    let mut ports = BTreeSet::new();
    let who = named(pod, |container| {
        let before = ports.len();
        let own: Vec<String> = object::list(container, &["ports"])
            .iter()
            .filter_map(|port| object::integer(port, &["hostPort"]))
            .filter(|port| *port != 0)
            .map(|port| port.to_string())
            .collect();
        let any = !own.is_empty();
        ports.extend(own);
        any || ports.len() > before
    });
    if who.is_empty() {
        return None;
    }
    let detail = format!(
        "{} {} {} {}",
        these_containers(&who),
        plural(who.len(), "uses", "use"),
        plural(ports.len(), "hostPort", "hostPorts"),
        ports.into_iter().collect::<Vec<_>>().join(", ")
    );
    violation("hostPort", detail)
}

fn probe_hosts(pod: PodLike<'_>) -> Option<Violation> {
    const PLACES: [&[&str]; 5] = [
        &["livenessProbe"],
        &["readinessProbe"],
        &["startupProbe"],
        &["lifecycle", "postStart"],
        &["lifecycle", "preStop"],
    ];
    let (mut who, mut hosts) = (BTreeSet::new(), BTreeSet::new());
    for container in containers(pod) {
        for handler in PLACES.iter().filter_map(|path| object::at(container, path)) {
            for kind in ["httpGet", "tcpSocket"] {
                let host = object::text(handler, &[kind, "host"]);
                if !host.is_empty() {
                    who.insert(name(container));
                    hosts.insert(host.to_owned());
                }
            }
        }
    }
    if who.is_empty() {
        return None;
    }
    let who: Vec<String> = who.into_iter().collect();
    let detail = format!(
        "{} {} {} {}",
        these_containers(&who),
        plural(who.len(), "uses", "use"),
        plural(
            hosts.len(),
            "probe or lifecycle host",
            "probe or lifecycle hosts"
        ),
        quote(hosts)
    );
    violation("probe or lifecycle host", detail)
}

fn privileged(pod: PodLike<'_>) -> Option<Violation> {
    let who = named(pod, |container| {
        flag(container, &["securityContext", "privileged"]) == Some(true)
    });
    if who.is_empty() {
        return None;
    }
    let who = these_containers(&who);
    violation(
        "privileged",
        format!("{who} must not set securityContext.privileged=true"),
    )
}

fn proc_mount(pod: PodLike<'_>) -> Option<Violation> {
    let mut kinds = BTreeSet::new();
    let who = named(pod, |container| {
        let kind = security(container, &["procMount"]).and_then(Value::as_str);
        let kind = kind.filter(|kind| *kind != "Default");
        kinds.extend(kind.map(str::to_owned));
        kind.is_some()
    });
    if who.is_empty() {
        return None;
    }
    let (who, kinds) = (these_containers(&who), quote(kinds));
    violation(
        "procMount",
        format!("{who} must not set securityContext.procMount to {kinds}"),
    )
}

fn se_linux(pod: PodLike<'_>, known: usize) -> Option<Violation> {
    const TYPES: [&str; 4] = [
        "container_t",
        "container_init_t",
        "container_kvm_t",
        "container_engine_t",
    ];
    let (mut types, mut user, mut role) = (BTreeSet::new(), false, false);
    let mut bad = |value: &Value| {
        let Some(options) = security(value, &["seLinuxOptions"]) else {
            return false;
        };
        let kind = object::text(options, &["type"]);
        let wrong = !kind.is_empty() && !TYPES[..known].contains(&kind);
        if wrong {
            types.insert(kind.to_owned());
        }
        let sets_user = !object::text(options, &["user"]).is_empty();
        let sets_role = !object::text(options, &["role"]).is_empty();
        user |= sets_user;
        role |= sets_role;
        wrong || sets_user || sets_role
    };
    let of_pod = bad(pod.spec);
    let of_containers = named(pod, |container| bad(container));
    let who = setters(of_pod, &of_containers)?;
    let mut what = Vec::new();
    if !types.is_empty() {
        let word = plural(types.len(), "type", "types");
        what.push(format!("{word} {}", quote(types)));
    }
    if user {
        what.push("user may not be set".to_owned());
    }
    if role {
        what.push("role may not be set".to_owned());
    }
    let what = what.join("; ");
    violation(
        "seLinuxOptions",
        format!("{who} set forbidden securityContext.seLinuxOptions: {what}"),
    )
}

fn seccomp_annotations(pod: PodLike<'_>) -> Option<Violation> {
    const OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
    const OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
    let keys = std::iter::once(OF_POD.to_owned())
        .chain(containers(pod).map(|container| format!("{OF_CONTAINER}{}", name(container))));
    let wrong: BTreeSet<String> = keys
        .filter_map(|key| {
            let value = object::at(pod.metadata, &["annotations", &key])?.as_str()?;
            let allowed = matches!(value, "runtime/default" | "docker/default")
                || value.starts_with("localhost/");
            (!allowed).then(|| format!("{key}={}", quoted(value)))
        })
        .collect();
    if wrong.is_empty() {
        return None;
    }
    let word = plural(wrong.len(), "annotation", "annotations");
    let wrong = wrong.into_iter().collect::<Vec<_>>().join(", ");
    violation("seccompProfile", format!("forbidden {word} {wrong}"))
}

/// A seccomp profile's type, and whether it is one that confines.
fn seccomp_type(value: &Value) -> Option<(&str, bool)> {
    let profile = security(value, &["seccompProfile"])?;
    let kind = object::text(profile, &["type"]);
    Some((kind, matches!(kind, "RuntimeDefault" | "Localhost")))
}

fn seccomp_fields(pod: PodLike<'_>) -> Option<Violation> {
    let mut values = BTreeSet::new();
    let mut bad = |value: &Value| match seccomp_type(value) {
        Some((kind, false)) => {
            values.insert(kind.to_owned());
            true
        }
        _ => false,
    };
    let of_pod = bad(pod.spec);
    let of_containers = named(pod, |container| bad(container));
    let who = setters(of_pod, &of_containers)?;
    let values = quote(values);
    violation(
        "seccompProfile",
        format!("{who} must not set securityContext.seccompProfile.type to {values}"),
    )
}

fn seccomp_restricted(pod: PodLike<'_>) -> Option<Violation> {
    if let Some(found) = seccomp_fields(pod) {
        return Some(found);
    }
    if matches!(seccomp_type(pod.spec), Some((_, true))) {
        return None;
    }
    let open = named(pod, |container| seccomp_type(container).is_none());
    if open.is_empty() {
        return None;
    }
    violation(
        "seccompProfile",
        format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \
             \"Localhost\"",
            these_containers(&open)
        ),
    )
}

fn sysctls(pod: PodLike<'_>, minor: u32) -> Option<Violation> {
    let wrong: Vec<&str> = object::list(pod.spec, &["securityContext", "sysctls"])
        .iter()
        .map(|sysctl| object::text(sysctl, &["name"]))
        .filter(|name| !sysctl::is_safe_in(name, minor))
        .collect();
    if wrong.is_empty() {
        return None;
    }
    violation("forbidden sysctls", wrong.join(", "))
}

fn host_process(pod: PodLike<'_>) -> Option<Violation> {
    let bad = |value: &Value| {
        flag(value, &["securityContext", "windowsOptions", "hostProcess"]) == Some(true)
    };
    let who = setters(bad(pod.spec), &named(pod, |container| bad(container)))?;
    violation(
        "hostProcess",
        format!("{who} must not set securityContext.windowsOptions.hostProcess=true"),
    )
}

fn escalation(pod: PodLike<'_>) -> Option<Violation> {
    let who = named(pod, |container| {
        flag(container, &["securityContext", "allowPrivilegeEscalation"]) != Some(false)
    });
    if who.is_empty() {
        return None;
    }
    let who = these_containers(&who);
    violation(
        "allowPrivilegeEscalation != false",
        format!("{who} must set securityContext.allowPrivilegeEscalation=false"),
    )
}

fn restricted_volumes(pod: PodLike<'_>) -> Option<Violation> {
    const ALLOWED: [&str; 9] = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    let (mut names, mut kinds) = (Vec::new(), BTreeSet::new());
    for volume in object::list(pod.spec, &["volumes"]) {
        if ALLOWED.iter().any(|kind| volume.get(*kind).is_some()) {
            continue;
        }
        names.push(name(volume));
        let kind = volume
            .as_object()
            .and_then(|fields| fields.keys().find(|field| *field != "name"));
        kinds.insert(kind.map_or("unknown", String::as_str));
    }
    if names.is_empty() {
        return None;
    }
    let detail = format!(
        "{} {} {} {} {}",
        plural(names.len(), "volume", "volumes"),
        quote(&names),
        plural(names.len(), "uses", "use"),
        plural(
            kinds.len(),
            "restricted volume type",
            "restricted volume types"
        ),
        quote(kinds)
    );
    violation("restricted volume types", detail)
}

fn non_root(pod: PodLike<'_>) -> Option<Violation> {
    let wanted = |value: &Value| flag(value, &["securityContext", "runAsNonRoot"]);
    let of_pod = wanted(pod.spec);
    let as_root = named(pod, |container| wanted(container) == Some(false));
    if let Some(who) = setters(of_pod == Some(false), &as_root) {
        return violation(
            "runAsNonRoot != true",
            format!("{who} must not set securityContext.runAsNonRoot=false"),
        );
    }
    let open = named(pod, |container| wanted(container).is_none());
    if of_pod == Some(true) || open.is_empty() {
        return None;
    }
    violation(
        "runAsNonRoot != true",
        format!(
            "pod or {} must set securityContext.runAsNonRoot=true",
            these_containers(&open)
        ),
    )
}

fn user_zero(pod: PodLike<'_>) -> Option<Violation> {
    let zero = |value: &Value| security(value, &["runAsUser"]).and_then(Value::as_i64) == Some(0);
    let who = setters(zero(pod.spec), &named(pod, |container| zero(container)))?;
    violation("runAsUser=0", format!("{who} must not set runAsUser=0"))
}
