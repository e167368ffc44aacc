//! Facts about the machine, read from the kernel once or when asked for.

use std::fs;
use std::path::Path;

use evenkeel_runtime::DnsConfig;

use crate::spec::dns::parse_resolv_conf;

/// What does not change while the agent runs.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// CPU cores that this process may use.
    pub cpus: i64,
    /// Memory in bytes.
    pub memory: i64,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// DMI product UUID, or the machine id.
    pub system_uuid: String,
    /// Changes with every boot.
    pub boot_id: String,
    /// `uname -r`.
    pub kernel: String,
    /// `PRETTY_NAME` of the distribution.
    pub os_image: String,
    /// `amd64`, `arm64` …
    pub architecture: &'static str,
    /// The lowest `oom_score_adj` that this process may give.
    pub oom_floor: i32,
    /// The node's resolv.conf.
    pub resolv_conf: DnsConfig,
}

/// CAP_SYS_RESOURCE in the kernel's capability masks.
const CAP_SYS_RESOURCE: u64 = 1 << 24;

impl Machine {
    /// Reads the facts; what can't be read is left empty.
    #[must_use]
    pub fn read() -> Self {
        let line = |path: &str| {
            fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let machine_id = line("/etc/machine-id");
        let uuid = line("/sys/class/dmi/id/product_uuid").to_lowercase();
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            cpus: i64::try_from(cpus).unwrap_or(1),
            memory: meminfo("MemTotal").unwrap_or(0),
            system_uuid: if uuid.is_empty() {
                machine_id.clone()
            } else {
                uuid
            },
            machine_id,
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: os_image(),
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            },
            oom_floor: oom_floor(),
            resolv_conf: parse_resolv_conf(&line("/etc/resolv.conf")),
        }
    }
}

/// A line of /proc/meminfo in bytes.
#[must_use]
pub fn meminfo(name: &str) -> Option<i64> {
    let table = fs::read_to_string("/proc/meminfo").ok()?;
    let line = table
        .lines()
        .find(|line| line.split(':').next() == Some(name))?;
    let kib: i64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// Capacity, available bytes, inodes and free inodes of the file system that holds `path`. Blocks
/// kept for the administrator are no capacity, as with `df`: a share that must stay free would else
/// be short on an empty disk.
#[must_use]
pub fn filesystem(path: &Path) -> Option<(i64, i64, u64, u64)> {
    let stat = rustix::fs::statvfs(path).ok()?;
    let bytes =
        |blocks: u64| i64::try_from(blocks.saturating_mul(stat.f_frsize)).unwrap_or(i64::MAX);
    Some((
        bytes(
            stat.f_blocks
                .saturating_sub(stat.f_bfree)
                .saturating_add(stat.f_bavail),
        ),
        bytes(stat.f_bavail),
        stat.f_files,
        stat.f_ffree,
    ))
}

fn os_image() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .unwrap_or_else(|| "Linux".to_owned())
}

/// Without CAP_SYS_RESOURCE a process can only raise the value it has itself.
fn oom_floor() -> i32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    if effective & CAP_SYS_RESOURCE != 0 {
        return -1000;
    }
    fs::read_to_string("/proc/self/oom_score_adj")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}
