//! Which sysctls a pod may set: those that are known to be safe, and what the node's owner allows.
//!
//! The rules and the words are kubelet's (`pkg/kubelet/sysctl`): whatever is not the pod's own would
//! be set for the whole machine, and of what is its own some can harm others still.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use evenkeel_api::sysctl;
use k8s_openapi::api::core::v1::PodSpec;

use crate::admission::Rejection;

/// What a sysctl is separate for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Namespace {
    Ipc,
    Net,
}

impl Namespace {
    fn of(name: &str) -> Option<Self> {
        let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."];
        if name == "kernel.sem" || ipc.iter().any(|prefix| name.starts_with(prefix)) {
            return Some(Self::Ipc);
        }
        name.starts_with("net.").then_some(Self::Net)
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipc => "IPC",
            Self::Net => "Net",
        })
    }
}

/// Sysctls that are allowed beside the safe ones: names, or beginnings of names with a `*` behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnsafeSysctls(Vec<String>);

impl FromStr for UnsafeSysctls {
    type Err = String;

    /// Reads a list with commas, as `--allowed-unsafe-sysctls` of kubelet has it.
    fn from_str(text: &str) -> Result<Self, String> {
        let patterns = text.split(',').map(str::trim);
        let patterns = patterns.filter(|it| !it.is_empty()).map(|pattern| {
            let known = dotted(pattern.strip_suffix('*').unwrap_or(pattern));
            let is_plain = !known.contains('*');
            if is_plain && Namespace::of(&known).is_some() {
                return Ok(dotted(pattern));
            }
            Err(format!(
                "the sysctls {pattern:?} are not known to be namespaced"
            ))
        });
        patterns.collect::<Result<_, _>>().map(Self)
    }
}

impl UnsafeSysctls {
    fn allow(&self, name: &str) -> bool {
        let matches = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == pattern,
        };
        sysctl::is_safe(name) || self.0.iter().any(matches)
    }

    /// Looks at what a pod sets.
    ///
    /// # Errors
    /// The first that it may not set.
    pub fn admit(&self, spec: &PodSpec) -> Result<(), Rejection> {
        let security = spec.security_context.as_ref();
        let sysctls = security.and_then(|security| security.sysctls.as_ref());
        for sysctl in sysctls.into_iter().flatten() {
            let name = dotted(&sysctl.name);
            let wrong = match Namespace::of(&name).filter(|_| self.allow(&name)) {
                None => format!("{name:?} not allowlisted"),
                Some(own) => {
                    let host = match own {
                        Namespace::Ipc => spec.host_ipc,
                        Namespace::Net => spec.host_network,
                    };
                    if host != Some(true) {
                        continue;
                    }
                    format!("{name:?} not allowed with host {own} enabled")
                }
            };
            return Err(Rejection {
                reason: "SysctlForbidden",
                message: format!("forbidden sysctl: {wrong}"),
            });
        }
        Ok(())
    }
}

/// What is set in every pod with a network of its own, as other runtimes do by now: ports below 1024
/// are for anybody in it, and so is ping.
const USUAL: [(&str, &str); 2] = [
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.ipv4.ping_group_range", "0 2147483647"),
];

/// What is set in a pod: the usual, and what it asks for, which counts before that.
#[must_use]
pub fn of_pod(spec: &PodSpec) -> BTreeMap<String, String> {
    let security = spec.security_context.as_ref();
    let asked = security.and_then(|security| security.sysctls.as_ref());
    let mut all: BTreeMap<String, String> = asked
        .into_iter()
        .flatten()
        .map(|sysctl| (sysctl.name.clone(), sysctl.value.clone()))
        .collect();
    if !spec.host_network.unwrap_or(false) {
        for (name, value) in USUAL {
            if !all.keys().any(|asked| dotted(asked) == name) {
                all.insert(name.to_owned(), value.to_owned());
            }
        }
    }
    all
}

/// The name with dots between its parts. Where slashes are, dots belong to a part.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(first) if name[first..].starts_with('/') => name
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn verdict(allowed: &str, spec: serde_json::Value) -> Option<String> {
        let spec = serde_json::from_value(spec).expect("a specification");
        let allowed: UnsafeSysctls = allowed.parse().expect("patterns");
        allowed.admit(&spec).err().map(|it| it.message)
    }

    fn sets(name: &str) -> serde_json::Value {
        json!({"containers": [], "securityContext": {"sysctls": [{"name": name, "value": "1"}]}})
    }

    #[test]
    fn what_is_not_safe_must_be_allowed() {
        assert_eq!(verdict("", json!({"containers": []})), None);
        assert_eq!(verdict("", sets("kernel.shm_rmid_forced")), None);
        assert_eq!(verdict("", sets("net/ipv4/tcp_syncookies")), None);
        for name in ["kernel.msgmax", "net.core.somaxconn", "vm.swappiness"] {
            let wanted = format!("forbidden sysctl: \"{name}\" not allowlisted");
            assert_eq!(verdict("", sets(name)), Some(wanted));
        }
        let allowed = "kernel.msg*, net.core.somaxconn";
        assert_eq!(verdict(allowed, sets("kernel.msgmax")), None);
        assert_eq!(verdict(allowed, sets("net.core.somaxconn")), None);
        assert!(verdict(allowed, sets("net.core.somaxconn2")).is_some());
    }

    #[test]
    fn anybody_in_a_pod_may_have_low_ports_and_ping() {
        let of = |spec: serde_json::Value| {
            let all = of_pod(&serde_json::from_value(spec).expect("a specification"));
            let lines = all.iter().map(|(name, value)| format!("{name}={value}"));
            lines.collect::<Vec<_>>()
        };
        let ping = "net.ipv4.ping_group_range=0 2147483647";
        assert_eq!(
            of(json!({"containers": []})),
            ["net.ipv4.ip_unprivileged_port_start=0", ping]
        );
        assert_eq!(of(json!({"containers": [], "hostNetwork": true})), [""; 0]);
        // What it asks for counts, however it is spelled.
        assert_eq!(
            of(sets("net/ipv4/ip_unprivileged_port_start")),
            [ping, "net/ipv4/ip_unprivileged_port_start=1"]
        );
    }

    #[test]
    fn what_is_shared_with_the_machine_is_not_set() {
        let mut spec = sets("net.ipv4.tcp_syncookies");
        spec["hostNetwork"] = json!(true);
        let wanted =
            "forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host Net enabled";
        assert_eq!(verdict("", spec).as_deref(), Some(wanted));
        let mut spec = sets("kernel.shm_rmid_forced");
        spec["hostIPC"] = json!(true);
        let wanted =
            "forbidden sysctl: \"kernel.shm_rmid_forced\" not allowed with host IPC enabled";
        assert_eq!(verdict("", spec).as_deref(), Some(wanted));
    }

    #[test]
    fn patterns_of_what_pods_share_are_refused() {
        for wrong in ["vm.swappiness", "kernel.*", "net.*.x*", "*"] {
            let error = wrong.parse::<UnsafeSysctls>().expect_err(wrong);
            assert!(
                error.contains(wrong) && error.contains("namespaced"),
                "{error}"
            );
        }
    }
}
