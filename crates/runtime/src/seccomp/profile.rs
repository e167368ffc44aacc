//! Profiles: the default one, and reading those that users bring.
//!
//! The default follows what Docker and containerd ship, because images and charts are tested
//! against it: everything is allowed but what can change the machine or is reachable only with a
//! capability, and what a capability opens is opened with it.

use serde::Deserialize;

use super::compile::action;
use super::{Condition, Filter, Operator, table};
use crate::caps;

/// Calls that are refused, with the capabilities any of which opens them.
const GUARDED: &[(&str, &[&str])] = &[
    ("_sysctl", &[]),
    ("acct", &["SYS_PACCT"]),
    ("add_key", &[]),
    ("afs_syscall", &[]),
    ("bpf", &["SYS_ADMIN", "BPF"]),
    ("chroot", &["SYS_CHROOT"]),
    ("clock_settime", &["SYS_TIME"]),
    ("delete_module", &["SYS_MODULE"]),
    ("epoll_ctl_old", &[]),
    ("epoll_wait_old", &[]),
    ("fanotify_init", &["SYS_ADMIN"]),
    ("file_setattr", &[]),
    ("finit_module", &["SYS_MODULE"]),
    ("fsconfig", &["SYS_ADMIN"]),
    ("fsmount", &["SYS_ADMIN"]),
    ("fsopen", &["SYS_ADMIN"]),
    ("fspick", &["SYS_ADMIN"]),
    ("get_mempolicy", &["SYS_NICE"]),
    ("getpmsg", &[]),
    ("init_module", &["SYS_MODULE"]),
    ("io_uring_enter", &[]),
    ("io_uring_register", &[]),
    ("io_uring_setup", &[]),
    ("ioperm", &["SYS_RAWIO"]),
    ("iopl", &["SYS_RAWIO"]),
    ("kcmp", &["SYS_PTRACE"]),
    ("kexec_file_load", &[]),
    ("kexec_load", &[]),
    ("keyctl", &[]),
    ("listmount", &["SYS_ADMIN"]),
    ("lookup_dcookie", &["SYS_ADMIN"]),
    ("lsm_set_self_attr", &[]),
    ("mbind", &["SYS_NICE"]),
    ("migrate_pages", &[]),
    ("mount", &["SYS_ADMIN"]),
    ("mount_setattr", &["SYS_ADMIN"]),
    ("move_mount", &["SYS_ADMIN"]),
    ("move_pages", &[]),
    ("nfsservctl", &[]),
    ("open_by_handle_at", &["DAC_READ_SEARCH"]),
    ("open_tree", &["SYS_ADMIN"]),
    ("open_tree_attr", &["SYS_ADMIN"]),
    ("perf_event_open", &["SYS_ADMIN", "PERFMON"]),
    ("pivot_root", &[]),
    ("putpmsg", &[]),
    ("quotactl", &["SYS_ADMIN"]),
    ("quotactl_fd", &["SYS_ADMIN"]),
    ("reboot", &["SYS_BOOT"]),
    ("request_key", &[]),
    ("security", &[]),
    ("set_mempolicy", &["SYS_NICE"]),
    ("set_mempolicy_home_node", &["SYS_NICE"]),
    ("setdomainname", &["SYS_ADMIN"]),
    ("sethostname", &["SYS_ADMIN"]),
    ("setns", &["SYS_ADMIN"]),
    ("settimeofday", &["SYS_TIME"]),
    ("statmount", &["SYS_ADMIN"]),
    ("swapoff", &[]),
    ("swapon", &[]),
    ("sysfs", &[]),
    ("syslog", &["SYS_ADMIN", "SYSLOG"]),
    ("tuxcall", &[]),
    ("umount2", &["SYS_ADMIN"]),
    ("unshare", &["SYS_ADMIN"]),
    ("uselib", &[]),
    ("userfaultfd", &[]),
    ("ustat", &[]),
    ("vhangup", &["SYS_TTY_CONFIG"]),
    ("vserver", &[]),
];

/// Values of `personality` that change nothing about isolation.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Flags of `clone` that make namespaces.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// Sockets that lead out of the machine past its network namespaces.
const AF_VSOCK: u64 = 40;

/// The default profile for a container with these capabilities.
pub(super) fn runtime_default(capabilities: u64) -> Filter {
    let has = |name: &&str| caps::bit(name).is_some_and(|bit| capabilities & bit != 0);
    let administrator = has(&"SYS_ADMIN");
    let mut filter = Filter::new(action::errno(libc::EPERM));
    let condition = |operator, value| {
        vec![Condition {
            argument: 0,
            operator,
            value,
        }]
    };
    for (name, _) in table::all() {
        let guarded = GUARDED.iter().find(|(guarded, _)| *guarded == name);
        if guarded.is_some_and(|(_, openers)| !openers.iter().any(has)) {
            continue;
        }
        match name {
            "personality" => {
                for value in PERSONALITIES {
                    filter.rule(name, condition(Operator::Equal, value), action::ALLOW);
                }
            }
            "socket" => {
                filter.rule(name, condition(Operator::NotEqual, AF_VSOCK), action::ALLOW);
            }
            "clone" if !administrator => filter.rule(
                name,
                condition(Operator::MaskedEqual(CLONE_NAMESPACES), 0),
                action::ALLOW,
            ),
            // Its flags lie in memory where a filter can't look; without it the C library uses
            // clone.
            "clone3" if !administrator => {
                filter.rule(name, Vec::new(), action::errno(libc::ENOSYS));
            }
            _ => filter.rule(name, Vec::new(), action::ALLOW),
        }
    }
    filter
}

/// `linux.seccomp` of the OCI runtime specification.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    #[serde(default)]
    default_errno_ret: Option<i32>,
    #[serde(default)]
    listener_path: Option<String>,
    #[serde(default)]
    syscalls: Vec<Calls>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Calls {
    names: Vec<String>,
    action: String,
    #[serde(default)]
    errno_ret: Option<i32>,
    #[serde(default)]
    args: Vec<Argument>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// Reads a profile; names of calls that this machine lacks are skipped, as the specification has
/// it, everything else unknown is refused.
pub(super) fn from_oci(text: &[u8]) -> Result<Filter, String> {
    let profile: Profile = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if profile.listener_path.is_some_and(|path| !path.is_empty()) {
        return Err("listenerPath (user notification) is not supported".to_owned());
    }
    let mut filter = Filter::new(action(&profile.default_action, profile.default_errno_ret)?);
    for calls in &profile.syscalls {
        let action = action(&calls.action, calls.errno_ret)?;
        let conditions = calls
            .args
            .iter()
            .map(condition)
            .collect::<Result<Vec<_>, _>>()?;
        for name in &calls.names {
            filter.rule(name, conditions.clone(), action);
        }
    }
    for rules in filter.rules.values_mut() {
        // A rule without conditions decides whatever others say, wherever it stands.
        if let Some(sure) = rules.iter().position(|rule| rule.conditions.is_empty()) {
            rules.truncate(sure + 1);
        }
    }
    Ok(filter)
}

fn action(name: &str, errno: Option<i32>) -> Result<u32, String> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => action::ALLOW,
        "SCMP_ACT_ERRNO" => action::errno(errno.unwrap_or(libc::EPERM)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => action::KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => action::KILL_PROCESS,
        "SCMP_ACT_TRAP" => action::TRAP,
        "SCMP_ACT_LOG" => action::LOG,
        "SCMP_ACT_TRACE" => action::TRACE | (errno.unwrap_or(libc::EPERM).unsigned_abs() & 0xffff),
        other => return Err(format!("action {other:?} is not supported")),
    })
}

fn condition(argument: &Argument) -> Result<Condition, String> {
    if argument.index > 5 {
        return Err(format!(
            "argument index {} is past the last, 5",
            argument.index
        ));
    }
    let (operator, value) = match argument.op.as_str() {
        "SCMP_CMP_EQ" => (Operator::Equal, argument.value),
        "SCMP_CMP_NE" => (Operator::NotEqual, argument.value),
        "SCMP_CMP_LT" => (Operator::Less, argument.value),
        "SCMP_CMP_LE" => (Operator::LessOrEqual, argument.value),
        "SCMP_CMP_GT" => (Operator::Greater, argument.value),
        "SCMP_CMP_GE" => (Operator::GreaterOrEqual, argument.value),
        // The mask comes first, then what must remain.
        "SCMP_CMP_MASKED_EQ" => (Operator::MaskedEqual(argument.value), argument.value_two),
        other => return Err(format!("operator {other:?} is not supported")),
    };
    Ok(Condition {
        argument: argument.index,
        operator,
        value,
    })
}
