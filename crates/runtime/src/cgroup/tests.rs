//! Pure parts: detection, conversions, the device program's shape.

use super::*;

const HYBRID: &str = "\
30 27 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
32 30 0:28 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
33 30 0:30 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
34 30 0:35 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

#[test]
fn a_hybrid_layout_is_v1() {
    assert!(V1::from_mountinfo(HYBRID).is_some());
}

#[test]
fn a_v2_only_layout_is_not_v1() {
    let pure = "30 27 0:26 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    assert!(V1::from_mountinfo(pure).is_none());
    assert!(V2::from_mountinfo(pure).is_some());
}

#[test]
fn shares_become_weights_over_the_whole_range() {
    assert_eq!(v2::weight(0), 1);
    assert_eq!(v2::weight(2), 1);
    assert_eq!(v2::weight(1024), 39);
    assert_eq!(v2::weight(262_144), 10_000);
}

#[test]
fn counters_are_found_by_their_whole_name() {
    assert_eq!(keyed("oom 3\noom_kill 7\n", "oom_kill"), Some(7));
    assert_eq!(
        keyed("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", "oom_kill"),
        Some(2)
    );
    assert_eq!(keyed("low 0\n", "oom_kill"), None);
}
