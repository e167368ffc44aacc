//! Linux capabilities by name.
//!
//! The default set is the one that Docker and containerd give, because images are built for it.

/// Names in the order of their numbers (linux/capability.h), without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container has without being asked.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Every capability that this code knows.
pub(crate) const ALL: u64 = (1 << NAMES.len()) - 1;

/// The bit of a capability, by its name with or without `CAP_`, in any case.
pub(crate) fn bit(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES
        .iter()
        .position(|known| *known == short)
        .map(|number| 1 << number)
}

/// The set after additions and removals; the unknown name on failure.
///
/// As in the reference, `ALL` is applied first, then the single names, so that `drop: [ALL],
/// add: [CHOWN]` leaves CHOWN and `add: [ALL], drop: [CHOWN]` all but CHOWN.
pub(crate) fn resolve(add: &[String], drop: &[String]) -> Result<u64, String> {
    let is_all =
        |name: &String| name.eq_ignore_ascii_case("ALL") || name.eq_ignore_ascii_case("CAP_ALL");
    let mut set = 0;
    for name in DEFAULT {
        set |= bit(name).unwrap_or(0);
    }
    if add.iter().any(is_all) {
        set = ALL;
    }
    if drop.iter().any(is_all) {
        set = 0;
    }
    for name in add.iter().filter(|name| !is_all(name)) {
        set |= bit(name).ok_or_else(|| name.clone())?;
    }
    for name in drop.iter().filter(|name| !is_all(name)) {
        set &= !bit(name).ok_or_else(|| name.clone())?;
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::{ALL, bit, resolve};

    #[test]
    fn names_are_accepted_with_and_without_prefix() {
        assert_eq!(bit("CHOWN"), Some(1));
        assert_eq!(bit("cap_sys_admin"), Some(1 << 21));
        assert_eq!(bit("CHECKPOINT_RESTORE"), Some(1 << 40));
        assert_eq!(bit("NO_SUCH"), None);
    }

    #[test]
    fn all_goes_before_single_names() {
        let one = |name: &str| vec![name.to_owned()];
        assert_eq!(resolve(&[], &[]), Ok(0xa804_25fb));
        assert_eq!(resolve(&one("CHOWN"), &one("ALL")), Ok(1));
        assert_eq!(resolve(&one("ALL"), &one("CHOWN")), Ok(ALL & !1));
        assert_eq!(resolve(&one("WAT"), &[]), Err("WAT".to_owned()));
    }
}
