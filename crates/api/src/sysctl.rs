//! Sysctls that a pod may set without harm to others: the pod's own, and of no use against its
//! neighbours. The node sets them, and the pod security standards know each since some version.

/// Each with the minor version of the pod security standards that found it to be safe.
const SAFE: [(&str, u32); 14] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
    ("net.ipv4.tcp_slow_start_after_idle", 37),
    ("net.ipv4.tcp_notsent_lowat", 37),
];

/// Is a sysctl, written with dots, known to be safe?
#[must_use]
pub fn is_safe(name: &str) -> bool {
    is_safe_in(name, u32::MAX)
}

/// Was it known to be safe in this minor version of the pod security standards?
#[must_use]
pub fn is_safe_in(name: &str, minor: u32) -> bool {
    SAFE.iter()
        .any(|(safe, since)| *safe == name && *since <= minor)
}

#[cfg(test)]
mod tests {
    use super::{is_safe, is_safe_in};

    #[test]
    fn what_is_safe_was_found_so_in_some_version() {
        assert!(is_safe_in("net.ipv4.tcp_syncookies", 0));
        assert!(!is_safe_in("net.ipv4.tcp_rmem", 31));
        assert!(is_safe_in("net.ipv4.tcp_rmem", 32));
        assert!(is_safe("net.ipv4.tcp_notsent_lowat"));
        assert!(!is_safe("kernel.msgmax"));
    }
}
