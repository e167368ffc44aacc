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

/// The v2 code against the v2 tree of a hybrid machine: it has no controllers, but it kills and
/// filters devices.
#[test]
fn v2_groups_kill_and_filter_devices() {
    use std::io::{Read as _, Write as _};
    use std::process::{Command, Stdio};
    assert!(
        rustix::process::geteuid().is_root(),
        "making cgroups needs root; run as root"
    );
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let Some(v2) = V2::from_mountinfo(&mounts) else {
        panic!("no v2 tree is mounted");
    };
    let group = format!("evenkeel-unit{}/pod/leaf", std::process::id());
    let top = group.split('/').next().expect("a first part");
    v2.create(&group, &Resources::default(), Some(&default_rules()))
        .expect("creates");
    let mut child = Command::new("sh")
        .args([
            "-c",
            "read go; cat /dev/null && echo null; head -c 1 /dev/fuse; \
                      head -c 1 /dev/zero | wc -c; sleep 1000",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spawns");
    let placement = v2.placement(&group);
    let procs = placement.into.expect("a directory").join("cgroup.procs");
    fs::write(procs, child.id().to_string()).expect("joins");
    child
        .stdin
        .take()
        .expect("stdin")
        .write_all(b"go\n")
        .expect("goes");
    let mut out = [0; 7];
    child
        .stdout
        .as_mut()
        .expect("stdout")
        .read_exact(&mut out)
        .expect("reads");
    let pids = v2.processes(top).expect("lists");
    v2.kill(top).expect("kills");
    let status = child.wait().expect("waits");
    let mut err = String::new();
    child
        .stderr
        .take()
        .expect("stderr")
        .read_to_string(&mut err)
        .expect("reads");
    let mut removed = v2.remove(top);
    for _ in 0..1000 {
        if removed.is_ok() {
            break;
        }
        std::thread::yield_now();
        removed = v2.remove(top);
    }
    removed.expect("removes");
    assert_eq!(&out, b"null\n1\n");
    assert!(err.contains("not permitted"), "{err}");
    assert!(pids.contains(&i32::try_from(child.id()).expect("a pid")));
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(9)
    );
}
