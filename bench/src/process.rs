//! What the kernel says about a process: processor time and memory.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// Resident pages, shared ones in full.
    pub(crate) rss: u64,
    /// Resident pages, shared ones by their share.
    pub(crate) pss: u64,
}

/// Processor time that a process has used in user and system mode, its ended threads included,
/// its children not. In steps of 10 ms.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).context(path)?;
    // The name in parentheses may hold anything; fields are counted from behind it.
    let rest = text.rsplit_once(')').context("no name in stat")?.1;
    let field = |number: usize| -> anyhow::Result<u64> {
        Ok(rest
            .split_whitespace()
            .nth(number - 3)
            .context("stat is short")?
            .parse()?)
    };
    let ticks = field(14)? + field(15)?;
    Ok(Duration::from_micros(
        ticks * 1_000_000 / rustix::param::clock_ticks_per_second(),
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

/// Other processes that run the same program: the helpers of containers.
pub(crate) fn others_of(pid: u32) -> anyhow::Result<Vec<u32>> {
    let program = fs::read_link(format!("/proc/{pid}/exe"))?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(other) = entry?.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let same = fs::read_link(format!("/proc/{other}/exe")).is_ok_and(|exe| exe == program);
        if same && other != pid {
            found.push(other);
        }
    }
    Ok(found)
}
