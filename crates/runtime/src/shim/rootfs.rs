//! A container's view of the file system, built inside its own mount namespace.
//!
//! Order is the point here. Host paths are opened as detached mount trees first, while the host
//! is in reach and mounts are shared with it; then nothing that is mounted shows there any more, and
//! images that are volumes are opened; then the overlay is mounted and pivoted into, and the host is
//! detached. Only then are mount points made and trees attached, so that every path resolves inside
//! the container's root and no link in an image or a volume can lead out of it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod, umask};
use rustix::fs::{OFlags, ResolveFlags, openat2};

use super::process::reason;
use super::spec::{Bind, ContainerSpec, Device, Layers, Root};
use crate::contract::Propagation;
use crate::sys;
use crate::wire::Failure;

/// Hidden from unprivileged containers, as Docker and containerd do.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Read-only in unprivileged containers.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Where control groups are shown.
const CGROUPS: &str = "/sys/fs/cgroup";

/// `f_type` of proc.
const PROC_MAGIC: i64 = 0x9fa0;

/// A bind whose source has been opened.
pub(super) struct OpenBind {
    target: PathBuf,
    tree: OwnedFd,
    directory: bool,
}

/// Opens every host path and image of the specification, the standard ones first. What is mounted
/// from then on does not show on the host.
pub(super) fn open_binds(spec: &ContainerSpec) -> Result<Vec<OpenBind>, Failure> {
    let shm = Bind {
        source: spec.shm.clone(),
        layers: None,
        target: PathBuf::from("/dev/shm"),
        readonly: false,
        propagation: Propagation::None,
    };
    let mut opened = vec![open_bind(&shm)?];
    if spec.privileged {
        let cgroups = Bind {
            source: PathBuf::from("/sys/fs/cgroup"),
            layers: None,
            target: PathBuf::from("/sys/fs/cgroup"),
            readonly: false,
            propagation: Propagation::HostToContainer,
        };
        opened.push(open_bind(&cgroups)?);
    }
    let (images, paths): (Vec<_>, Vec<_>) = spec
        .binds
        .iter()
        .enumerate()
        .partition(|(_, bind)| bind.layers.is_some());
    let mut rest = Vec::with_capacity(spec.binds.len());
    for (place, bind) in paths {
        rest.push((place, open_bind(bind)?));
    }
    leave_the_hosts_mounts()?;
    for (place, bind) in images {
        if let Some(layers) = &bind.layers {
            rest.push((place, open_image(bind, layers)?));
        }
    }
    rest.sort_by_key(|(place, _)| *place);
    opened.extend(rest.into_iter().map(|(_, bind)| bind));
    Ok(opened)
}

/// Why a source is not mounted, in runc's words.
fn not_mounted(source: &Path, target: &Path, error: &io::Error) -> Failure {
    let errno = error
        .raw_os_error()
        .map_or(nix::Error::EIO, nix::Error::from_raw);
    Failure::invalid(format!(
        "error mounting {:?} to rootfs at {:?}: {}",
        source.display().to_string(),
        target.display().to_string(),
        reason(errno)
    ))
}

/// Mounts an image's layers, takes what is wanted of them as a tree, and unmounts them again.
fn open_image(bind: &Bind, layers: &Layers) -> Result<OpenBind, Failure> {
    let failed = |what: &'static str| move |errno: nix::Error| Failure::system(what, errno.desc());
    nix::unistd::chdir(&layers.dir).map_err(failed("enter the layers' directory"))?;
    // An overlay that nobody writes to has at least two layers; the lowest one here is empty.
    let data = format!(
        "lowerdir={}:{}",
        layers.lower.join(":"),
        layers.at.display()
    );
    let empty = layers.lower.is_empty();
    if !empty {
        mount(
            Some("overlay"),
            &layers.at,
            Some("overlay"),
            MsFlags::MS_RDONLY,
            Some(data.as_str()),
        )
        .map_err(failed("mount an image volume"))?;
    }
    let opened = open_below(&layers.at, &layers.sub_path)
        .map_err(|error| not_mounted(&layers.sub_path, &bind.target, &error));
    if !empty {
        umount2(&layers.at, MntFlags::MNT_DETACH).map_err(failed("unmount an image volume"))?;
    }
    let (tree, directory) = opened?;
    let attributes = sys::MOUNT_ATTR_RDONLY | sys::MOUNT_ATTR_NOEXEC;
    sys::mount_setattr(tree.as_fd(), true, attributes, libc::MS_PRIVATE)
        .map_err(|error| not_mounted(&layers.at, &bind.target, &error))?;
    Ok(OpenBind {
        target: bind.target.clone(),
        tree,
        directory,
    })
}

/// A part of a directory as a tree, and whether it is a directory. No link leads out of there.
fn open_below(root: &Path, part: &Path) -> io::Result<(OwnedFd, bool)> {
    if part.as_os_str().is_empty() {
        return Ok((sys::open_tree(root, true)?, true));
    }
    let root = File::open(root)?;
    let part = openat2(
        &root,
        part,
        OFlags::PATH | OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )?;
    let part = File::from(part);
    let directory = part.metadata()?.is_dir();
    let path = format!("/proc/self/fd/{}", part.as_raw_fd());
    Ok((sys::open_tree(Path::new(&path), true)?, directory))
}

fn open_bind(bind: &Bind) -> Result<OpenBind, Failure> {
    let named = |error: io::Error| not_mounted(&bind.source, &bind.target, &error);
    let directory = fs::metadata(&bind.source).map_err(named)?.is_dir();
    let tree = sys::open_tree(&bind.source, true).map_err(named)?;
    let propagation = match bind.propagation {
        Propagation::None => libc::MS_PRIVATE,
        Propagation::HostToContainer => libc::MS_SLAVE,
        Propagation::Bidirectional => libc::MS_SHARED,
    };
    let readonly = if bind.readonly {
        sys::MOUNT_ATTR_RDONLY
    } else {
        0
    };
    sys::mount_setattr(tree.as_fd(), true, readonly, propagation).map_err(named)?;
    Ok(OpenBind {
        target: bind.target.clone(),
        tree,
        directory,
    })
}

fn leave_the_hosts_mounts() -> Result<(), Failure> {
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .map_err(|errno| Failure::system("make mounts private", errno.desc()))
}

/// Mounts the overlay and makes it the root; the host's tree is gone afterwards.
pub(super) fn enter_root(root: &Root) -> Result<(), Failure> {
    let failed = |what: &'static str| move |errno: nix::Error| Failure::system(what, errno.desc());
    nix::unistd::chdir(&root.layers).map_err(failed("enter the layers' directory"))?;
    let data = |extra: &str| {
        format!(
            "lowerdir={},upperdir={},workdir={}{extra}",
            root.lower.join(":"),
            root.upper.display(),
            root.work.display()
        )
    };
    let overlay = |data: String| {
        mount(
            Some("overlay"),
            &root.target,
            Some("overlay"),
            MsFlags::empty(),
            Some(data.as_str()),
        )
    };
    // A container's writable layer does not survive a power failure (its container does not
    // either), so it need not be synced; kernels before 5.10 don't know the option.
    if overlay(data(",volatile")).is_err() {
        overlay(data("")).map_err(failed("mount the overlay root"))?;
    }
    nix::unistd::chdir(&root.target).map_err(failed("enter the root"))?;
    nix::unistd::pivot_root(".", ".").map_err(failed("pivot into the root"))?;
    // The old root lies over the new one now; taking it away uncovers the new.
    umount2(".", MntFlags::MNT_DETACH).map_err(failed("detach the host's root"))?;
    nix::unistd::chdir("/").map_err(failed("enter the new root"))
}

/// Mounts and nodes that every container has.
pub(super) fn standard_mounts(spec: &ContainerSpec) -> Result<(), Failure> {
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    for dir in ["/proc", "/sys", "/dev"] {
        // A link here would send the masks elsewhere (CVE-2019-19921).
        if fs::symlink_metadata(dir).is_ok_and(|metadata| metadata.is_symlink()) {
            return Err(Failure::invalid(format!(
                "{dir} of the image is a symbolic link"
            )));
        }
    }
    fresh("proc", "/proc", "proc", quiet, None)?;
    fresh(
        "tmpfs",
        "/dev",
        "tmpfs",
        MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME,
        Some("mode=755,size=65536k"),
    )?;
    fresh(
        "devpts",
        "/dev/pts",
        "devpts",
        MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
        Some("newinstance,ptmxmode=0666,mode=0620,gid=5"),
    )?;
    fresh("mqueue", "/dev/mqueue", "mqueue", quiet, None)?;
    let access = if spec.privileged {
        MsFlags::empty()
    } else {
        MsFlags::MS_RDONLY
    };
    fresh("sysfs", "/sys", "sysfs", quiet | access, None)?;
    device_nodes(&spec.devices)
}

fn fresh(
    source: &str,
    target: &str,
    kind: &str,
    flags: MsFlags,
    data: Option<&str>,
) -> Result<(), Failure> {
    fs::create_dir_all(target)
        .map_err(|error| Failure::system(format!("create {target}"), error))?;
    mount(Some(source), target, Some(kind), flags, data)
        .map_err(|errno| Failure::system(format!("mount {kind} at {target}"), errno.desc()))
}

/// The container's own groups, read-only. The cgroup namespace makes them look like the root.
pub(super) fn cgroup_mounts(spec: &ContainerSpec) -> Result<(), Failure> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV | MsFlags::MS_RDONLY;
    let base = CGROUPS;
    if spec.placement.controllers.is_empty() {
        return fresh("cgroup", base, "cgroup2", flags, None);
    }
    let writable = flags.difference(MsFlags::MS_RDONLY);
    fresh("tmpfs", base, "tmpfs", writable, Some("mode=755"))?;
    for (name, data) in &spec.placement.controllers {
        fresh(
            "cgroup",
            &format!("{base}/{name}"),
            "cgroup",
            flags,
            Some(data),
        )?;
    }
    if spec.placement.unified {
        fresh("cgroup", &format!("{base}/unified"), "cgroup2", flags, None)?;
    }
    mount(
        None::<&str>,
        base,
        None::<&str>,
        flags | MsFlags::MS_REMOUNT,
        Some("mode=755"),
    )
    .map_err(|errno| Failure::system(format!("make {base} read-only"), errno.desc()))
}

fn device_nodes(extra: &[Device]) -> Result<(), Failure> {
    let old = umask(Mode::empty());
    let made = make_nodes(extra);
    umask(old);
    made.map_err(|error| Failure::system("make device nodes", error))
}

fn make_nodes(extra: &[Device]) -> io::Result<()> {
    let all = Mode::from_bits_truncate(0o666);
    for (path, major, minor) in [
        ("/dev/null", 1, 3),
        ("/dev/zero", 1, 5),
        ("/dev/full", 1, 7),
        ("/dev/random", 1, 8),
        ("/dev/urandom", 1, 9),
        ("/dev/tty", 5, 0),
    ] {
        mknod(path, SFlag::S_IFCHR, all, makedev(major, minor))?;
    }
    for (path, target) in [
        ("/dev/ptmx", "pts/ptmx"),
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        symlink(target, path)?;
    }
    if Path::new("/proc/kcore").exists() {
        symlink("/proc/kcore", "/dev/core")?;
    }
    for device in extra {
        if fs::symlink_metadata(&device.path).is_ok_and(|there| {
            there.file_type().is_char_device() || there.file_type().is_block_device()
        }) {
            continue;
        }
        if let Some(parent) = device.path.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(parent)?;
        }
        let kind = if device.block {
            SFlag::S_IFBLK
        } else {
            SFlag::S_IFCHR
        };
        mknod(
            &device.path,
            kind,
            Mode::from_bits_truncate(device.mode & 0o7777),
            makedev(device.major.into(), device.minor.into()),
        )?;
        std::os::unix::fs::chown(&device.path, Some(device.uid), Some(device.gid))?;
    }
    Ok(())
}

/// Attaches the opened host paths, making their mount points.
pub(super) fn attach_binds(binds: &[OpenBind]) -> Result<(), Failure> {
    for bind in binds {
        let target = mount_point(&bind.target, bind.directory).map_err(|error| {
            Failure::invalid(format!(
                "create mount point {}: {error}",
                bind.target.display()
            ))
        })?;
        sys::move_mount(bind.tree.as_fd(), &target).map_err(|error| {
            let mismatch = error.raw_os_error() == Some(libc::ENOTDIR);
            let hint = if mismatch {
                ": Are you trying to mount a directory onto a file (or vice-versa)?"
            } else {
                ""
            };
            Failure::invalid(format!("mount at {}: {error}{hint}", bind.target.display()))
        })?;
    }
    Ok(())
}

/// Makes an empty file or directory to mount on, following links as the kernel will, also those
/// that lead to nothing yet. Answers where they led. The current root is the container's, so they
/// lead nowhere else.
fn mount_point(target: &Path, directory: bool) -> io::Result<PathBuf> {
    let mut todo: Vec<OsString> = target
        .components()
        .rev()
        .map(|part| part.as_os_str().to_owned())
        .collect();
    let mut done = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = todo.pop() {
        if part == "/" || part == "." {
            continue;
        }
        if part == ".." {
            done.pop();
            continue;
        }
        let place = done.join(&part);
        match fs::symlink_metadata(&place) {
            Ok(metadata) if metadata.is_symlink() => {
                links += 1;
                if links > 40 {
                    return Err(io::Error::from_raw_os_error(libc::ELOOP));
                }
                let link = fs::read_link(&place)?;
                if link.is_absolute() {
                    done = PathBuf::from("/");
                }
                todo.extend(
                    link.components()
                        .rev()
                        .map(|part| part.as_os_str().to_owned()),
                );
                continue;
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if todo.is_empty() && !directory {
                    File::create(&place)?;
                } else {
                    fs::create_dir(&place)?;
                }
            }
            Err(error) => return Err(error),
        }
        done = place;
    }
    Ok(done)
}

/// Shows the terminal as /dev/console.
pub(super) fn console(terminal: u32) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::system("set up /dev/console", error);
    File::create("/dev/console").map_err(failed)?;
    let tree = sys::open_tree(Path::new(&format!("/dev/pts/{terminal}")), false).map_err(failed)?;
    sys::move_mount(tree.as_fd(), Path::new("/dev/console")).map_err(failed)
}

/// Masks and read-only paths.
pub(super) fn protect(spec: &ContainerSpec) -> Result<(), Failure> {
    if !spec.privileged && !spec.unmasked {
        let failed = |path: &str| {
            let context = format!("protect {path}");
            move |error: io::Error| Failure::system(context, error)
        };
        let proc = File::open("/proc").map_err(failed("/proc"))?;
        if !sys::is_filesystem(&proc, PROC_MAGIC).map_err(failed("/proc"))? {
            return Err(Failure::invalid("something else is mounted over /proc"));
        }
        for path in READ_ONLY {
            read_only(Path::new(path)).map_err(failed(path))?;
        }
        for path in MASKED {
            mask(Path::new(path)).map_err(failed(path))?;
        }
    }
    Ok(())
}

/// Whether a volume lies over /sys/fs/cgroup, above or below it.
pub(super) fn covers_cgroups(spec: &ContainerSpec) -> bool {
    let base = Path::new(CGROUPS);
    spec.binds.iter().any(|bind| {
        bind.target != Path::new("/")
            && (base.starts_with(&bind.target) || bind.target.starts_with(base))
    })
}

/// Makes the root read-only where that is asked for; nothing can be made in it afterwards.
pub(super) fn seal_root(spec: &ContainerSpec) -> Result<(), Failure> {
    if spec.root.readonly {
        let root = File::open("/").map_err(|error| Failure::system("open the root", error))?;
        sys::mount_setattr(root.as_fd(), false, sys::MOUNT_ATTR_RDONLY, 0)
            .map_err(|error| Failure::system("make the root read-only", error))?;
    }
    Ok(())
}

fn read_only(path: &Path) -> io::Result<()> {
    let tree = match sys::open_tree(path, true) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    sys::mount_setattr(tree.as_fd(), true, sys::MOUNT_ATTR_RDONLY, 0)?;
    sys::move_mount(tree.as_fd(), path)
}

fn mask(path: &Path) -> io::Result<()> {
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if metadata.is_dir() {
        mount(
            Some("tmpfs"),
            path,
            Some("tmpfs"),
            MsFlags::MS_RDONLY,
            Some("size=0k"),
        )?;
        return Ok(());
    }
    let null = sys::open_tree(Path::new("/dev/null"), false)?;
    // A volume over /dev may have put something else there (CVE-2025-31133).
    if rustix::fs::fstat(&null)?.st_rdev != makedev(1, 3) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "/dev/null is something else",
        ));
    }
    sys::move_mount(null.as_fd(), path)
}
