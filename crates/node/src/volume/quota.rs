//! Limits of directories by project quota, where the file system has them (XFS and ext4 mounted
//! with `prjquota`).
//!
//! A directory gets a project number of its own that everything made in it inherits; the limit is
//! the project's. Where the file system or the kernel has none of this, that is told and nothing
//! else is tried: a limit that only counts now and then would be a promise not kept.
#![allow(
    unsafe_code,
    reason = "project numbers and quotas are an ioctl and a system call without safe wrappers"
)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use super::atomic::text;

const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801c_581f;
const FS_IOC_FSSETXATTR: libc::c_ulong = 0x401c_5820;
/// What is made in the directory belongs to its project.
const FS_XFLAG_PROJINHERIT: u32 = 0x200;
const SYS_QUOTACTL_FD: libc::c_long = 443;
const PRJQUOTA: u32 = 2;
const Q_SETQUOTA: u32 = 0x80_0008;
const Q_GETQUOTA: u32 = 0x80_0007;
const QIF_BLIMITS: u32 = 1;
/// Limits are counted in blocks of this size.
const BLOCK: u64 = 1024;
/// Projects below are people's.
const FIRST_PROJECT: u32 = 1 << 24;

/// `struct fsxattr` of `linux/fs.h`.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    pad: [u8; 8],
}

/// `struct if_dqblk` of `linux/quota.h`.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
struct Limits {
    hard_blocks: u64,
    soft_blocks: u64,
    used_bytes: u64,
    hard_inodes: u64,
    soft_inodes: u64,
    used_inodes: u64,
    block_time: u64,
    inode_time: u64,
    valid: u32,
}

fn attributes(directory: &File) -> io::Result<Attributes> {
    let mut found = Attributes::default();
    // SAFETY: the descriptor is open, and the kernel writes one `struct fsxattr`, which
    // `Attributes` restates field by field.
    let answer = unsafe { libc::ioctl(directory.as_raw_fd(), FS_IOC_FSGETXATTR, &raw mut found) };
    if answer == 0 {
        Ok(found)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn set_attributes(directory: &File, wanted: &Attributes) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the kernel only reads one `struct fsxattr`.
    let answer = unsafe {
        libc::ioctl(
            directory.as_raw_fd(),
            FS_IOC_FSSETXATTR,
            std::ptr::from_ref(wanted),
        )
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn quotactl(directory: &File, command: u32, project: u32, limits: &mut Limits) -> io::Result<()> {
    let command = (command << 8) | PRJQUOTA;
    // SAFETY: the descriptor is open; both commands read or write one `struct if_dqblk`, which
    // `Limits` restates field by field.
    let answer = unsafe {
        libc::syscall(
            SYS_QUOTACTL_FD,
            directory.as_raw_fd(),
            command,
            project,
            std::ptr::from_mut(limits),
        )
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The file system or the kernel has no project quota, or it is switched off.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EOPNOTSUPP
                | libc::ENOTTY
                | libc::EINVAL
                | libc::ESRCH
                | libc::ENOSYS
                | libc::EPERM
        )
    )
}

/// A project number that no directory beside this one has: the same each time for one name, unless
/// that is taken.
fn free_project(directory: &Path) -> u32 {
    let name = directory.file_name().unwrap_or_default();
    let hash = name
        .as_encoded_bytes()
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
    let mut wanted = FIRST_PROJECT | (hash >> 1);
    let siblings = directory
        .parent()
        .and_then(|parent| std::fs::read_dir(parent).ok());
    let taken: Vec<u32> = siblings
        .into_iter()
        .flatten()
        .filter_map(|entry| File::open(entry.ok()?.path()).ok())
        .filter_map(|sibling| attributes(&sibling).ok())
        .map(|found| found.project)
        .collect();
    while taken.contains(&wanted) {
        wanted = FIRST_PROJECT | wanted.wrapping_add(1);
    }
    wanted
}

/// Lets a directory have so many bytes and no more. `false`: the file system can't.
///
/// # Errors
/// What failed although the file system can.
pub fn limit(directory: &Path, bytes: u64) -> Result<bool, String> {
    let failed = |error: &io::Error| text(directory, error);
    let open = File::open(directory).map_err(|error| failed(&error))?;
    let mut found = match attributes(&open) {
        Ok(found) => found,
        Err(error) if is_absent(&error) => return Ok(false),
        Err(error) => return Err(failed(&error)),
    };
    if found.project < FIRST_PROJECT {
        let project = free_project(directory);
        // Without quota for projects a number would be of no use, and would stay.
        match quotactl(&open, Q_GETQUOTA, project, &mut Limits::default()) {
            // XFS knows no limits of a project that has none yet.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) if is_absent(&error) => return Ok(false),
            Err(error) => return Err(failed(&error)),
            Ok(()) => {}
        }
        found.project = project;
        found.flags |= FS_XFLAG_PROJINHERIT;
        match set_attributes(&open, &found) {
            Ok(()) => {}
            Err(error) if is_absent(&error) => return Ok(false),
            Err(error) => return Err(failed(&error)),
        }
    }
    let mut limits = Limits {
        hard_blocks: bytes.div_ceil(BLOCK).max(1),
        valid: QIF_BLIMITS,
        ..Limits::default()
    };
    match quotactl(&open, Q_SETQUOTA, found.project, &mut limits) {
        Ok(()) => Ok(true),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(failed(&error)),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A file system in a file, mounted; gone when dropped.
    struct Mounted(tempfile::TempDir);

    impl Mounted {
        /// Makes one with `mkfs` and its arguments and mounts it with project quota switched on.
        fn new(mkfs: &[&str]) -> Option<Self> {
            let home = tempfile::tempdir().expect("a directory");
            let image = home.path().join("image");
            // XFS is not made any smaller; only what is written takes space.
            File::create(&image)
                .and_then(|file| file.set_len(320 << 20))
                .expect("a file");
            let at = home.path().join("at");
            std::fs::create_dir(&at).expect("a directory");
            let ran = |command: &mut Command| match command.output() {
                Ok(output) => {
                    eprint!("{}", String::from_utf8_lossy(&output.stderr));
                    output.status.success()
                }
                Err(error) => {
                    eprintln!("{command:?}: {error}");
                    false
                }
            };
            let made = ran(Command::new(mkfs[0]).args(&mkfs[1..]).arg(&image))
                && ran(Command::new("mount")
                    .args(["-o", "loop,prjquota"])
                    .arg(&image)
                    .arg(&at));
            made.then_some(Self(home))
        }
    }

    impl Drop for Mounted {
        fn drop(&mut self) {
            let at = self.0.path().join("at");
            if !Command::new("umount")
                .arg(&at)
                .status()
                .is_ok_and(|it| it.success())
            {
                eprintln!("{} stays mounted", at.display());
            }
        }
    }

    #[test]
    fn a_directory_of_ext4_can_not_hold_more_than_its_limit_and_can_grow() {
        let options = ["-q", "-O", "quota,project", "-E", "quotatype=prjquota"];
        holds_and_grows(&[&["mkfs.ext4"], &options[..]].concat());
    }

    #[test]
    fn a_directory_of_xfs_can_not_hold_more_than_its_limit_and_can_grow() {
        holds_and_grows(&["mkfs.xfs", "-q"]);
    }

    fn holds_and_grows(mkfs: &[&str]) {
        let Some(mounted) = Mounted::new(mkfs) else {
            assert!(
                std::env::var_os("EVENKEEL_TEST_QUOTA").is_none_or(|it| it != "required"),
                "no file system of {} with project quota can be mounted",
                mkfs[0]
            );
            eprintln!("SKIPPED: {} with project quota can't be had here", mkfs[0]);
            return;
        };
        let at = mounted.0.path().join("at");
        let (one, two) = (at.join("one"), at.join("two"));
        for directory in [&one, &two] {
            std::fs::create_dir(directory).expect("a directory");
            assert!(limit(directory, 1 << 20).expect("a limit"));
        }
        let project = |path: &Path| {
            attributes(&File::open(path).expect("it is there"))
                .expect("attributes")
                .project
        };
        assert_ne!(project(&one), project(&two));
        // Root is held to it like anybody only without CAP_SYS_RESOURCE: others are asked.
        let fill = |path: &Path, kib: u32| {
            let file = path.join("data");
            let script = format!(
                "dd if=/dev/zero of={} bs=1024 count={kib} conv=fsync",
                file.display()
            );
            Command::new("setpriv")
                .args([
                    "--reuid=65534",
                    "--regid=65534",
                    "--clear-groups",
                    "sh",
                    "-c",
                    &script,
                ])
                .output()
                .is_ok_and(|it| it.status.success())
        };
        for path in [mounted.0.path(), &at, &one, &two] {
            super::super::atomic::set_mode(path, 0o777).expect("a mode");
        }
        assert!(fill(&one, 512), "half of it fits");
        assert!(!fill(&one, 4096), "four times as much does not");
        assert!(limit(&one, 8 << 20).expect("a larger limit"));
        assert!(fill(&one, 4096), "now it does");
        assert!(fill(&two, 512), "the other one is not concerned");
    }

    #[test]
    fn a_file_system_without_says_so() {
        let home = tempfile::Builder::new()
            .tempdir_in("/dev/shm")
            .expect("a directory");
        assert!(!limit(home.path(), 1 << 20).expect("an answer"));
    }
}
