//! What the kernel says about a process: processor time and memory.

#![allow(unsafe_code, reason = "the clock of another process has no safe form")]

use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use nix::libc;

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// Resident pages, shared ones in full.
    pub(crate) rss: u64,
    /// Resident pages, shared ones by their share.
    pub(crate) pss: u64,
}

/// Processor time that a process has used in user and system mode, its ended threads included,
/// its children not. From the process's own clock: `/proc/PID/stat` counts the same in steps of
/// 10 ms.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let mut clock = 0;
    // SAFETY: both calls only write to the variable that they are given, which lives as long.
    let time = unsafe {
        let found = libc::clock_getcpuclockid(i32::try_from(pid)?, &raw mut clock);
        anyhow::ensure!(found == 0, "process {pid} has no clock");
        let mut time = std::mem::zeroed::<libc::timespec>();
        let read = libc::clock_gettime(clock, &raw mut time);
        anyhow::ensure!(read == 0, "the clock of process {pid} can't be read");
        time
    };
    Ok(Duration::new(
        u64::try_from(time.tv_sec)?,
        u32::try_from(time.tv_nsec)?,
    ))
}

/// Memory of a process.
pub(crate) fn memory(pid: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).context(path)?;
    let kibibytes = |name: &str| -> anyhow::Result<u64> {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .context("no such line")?;
        Ok(line
            .split_whitespace()
            .next()
            .context("no figure")?
            .parse::<u64>()?
            * 1024)
    };
    Ok(Memory {
        rss: kibibytes("Rss:")?,
        pss: kibibytes("Pss:")?,
    })
}

/// When a process was started, in clock ticks since boot.
fn started(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).context(path)?;
    // The name in parentheses may hold anything; fields are counted from behind it.
    let rest = text.rsplit_once(')').context("no name in stat")?.1;
    Ok(rest
        .split_whitespace()
        .nth(19)
        .context("stat is short")?
        .parse()?)
}

/// The containers' helpers that were started after a server was. They belong to nobody (init is
/// their parent), so those of another cluster started in the meantime would be among them.
pub(crate) fn helpers_since(pid: u32) -> anyhow::Result<Vec<u32>> {
    let since = started(pid)?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(other) = entry?.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let helper = fs::read(format!("/proc/{other}/cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).nth(1) == Some(b"runtime-helper"));
        // One that has ended since is none.
        if helper && started(other).is_ok_and(|at| at >= since) {
            found.push(other);
        }
    }
    Ok(found)
}
