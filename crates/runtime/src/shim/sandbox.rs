//! Making a sandbox's namespaces and pinning them to files, so that no process needs to stay.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::spec::{SandboxMade, SandboxSpec};
use super::start::join_cgroups;
use crate::sys::{self, Cloned};
use crate::wire::{self, Failure, frame};

/// Size of /dev/shm, as containerd and Docker have it.
const SHM: &str = "mode=1777,size=65536k";

/// Makes what the specification asks for and answers on `reply`.
pub(super) fn run(spec: &SandboxSpec, reply: &mut UnixStream) -> Result<(), Failure> {
    let mut flags = CloneFlags::empty();
    flags.set(CloneFlags::CLONE_NEWNET, spec.net);
    flags.set(CloneFlags::CLONE_NEWIPC, spec.ipc);
    flags.set(CloneFlags::CLONE_NEWUTS, spec.hostname.is_some());
    let failed = |what: &'static str| move |errno: nix::Error| Failure::system(what, errno.desc());
    unshare(flags).map_err(failed("make namespaces"))?;
    if let Some(hostname) = &spec.hostname {
        nix::unistd::sethostname(hostname).map_err(failed("set the host name"))?;
    }
    if spec.net {
        sys::loopback_up().map_err(|error| Failure::system("bring lo up", error))?;
    }
    for (name, value) in &spec.sysctls {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        fs::write(&path, value)
            .map_err(|error| Failure::system(format!("set sysctl {name}={value}"), error))?;
    }
    let pins = spec.dir.join("ns");
    for (wanted, name) in [
        (spec.net, "net"),
        (spec.ipc, "ipc"),
        (spec.hostname.is_some(), "uts"),
    ] {
        if wanted {
            pin(
                Path::new("/proc/self/ns").join(name).as_path(),
                &pins.join(name),
            )?;
        }
    }
    if spec.ipc {
        let shm = spec.dir.join("shm");
        mount(
            Some("shm"),
            &shm,
            Some("tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV,
            Some(SHM),
        )
        .map_err(failed("mount the pod's /dev/shm"))?;
    }
    let pause = if spec.pid {
        Some(pause(spec, &pins)?)
    } else {
        None
    };
    wire::write(
        reply,
        &wire::encode_json(frame::DONE, &SandboxMade { pause }),
    )
    .ok();
    Ok(())
}

/// Bind-mounts a namespace onto a file, which keeps it alive.
fn pin(namespace: &Path, file: &Path) -> Result<(), Failure> {
    File::create(file)
        .map_err(|error| Failure::system(format!("create {}", file.display()), error))?;
    mount(
        Some(namespace),
        file,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .map_err(|errno| Failure::system(format!("pin {}", file.display()), errno.desc()))
}

/// Starts the first process of a shared PID namespace, which reaps and does nothing else.
fn pause(spec: &SandboxSpec, pins: &Path) -> Result<i32, Failure> {
    let placement = spec.placement.clone().unwrap_or_default();
    let cgroup =
        match &placement.into {
            Some(dir) => Some(File::open(dir).map_err(|error| {
                Failure::system(format!("open cgroup {}", dir.display()), error)
            })?),
            None => None,
        };
    let flags = (libc::CLONE_NEWPID | libc::CLONE_NEWNS) as u64;
    use std::os::fd::AsFd as _;
    let cloned = sys::clone3(flags, cgroup.as_ref().map(|file| file.as_fd()))
        .map_err(|error| Failure::system("clone the pause process", error))?;
    match cloned {
        Cloned::Parent(pid, _) => {
            pin(Path::new(&format!("/proc/{pid}/ns/pid")), &pins.join("pid"))?;
            Ok(pid)
        }
        Cloned::Child => {
            if join_cgroups(&placement).is_err() || hide_host(&spec.dir).is_err() {
                sys::exit_now(1);
            }
            sys::set_process_name(c"pause");
            sys::close_on_exec_from(3).ok();
            sys::ignore_signal(libc::SIGCHLD, true);
            // It needs no rights at all.
            sys::set_ids(65_534, 65_534, &[]).ok();
            sys::capset(0).ok();
            loop {
                nix::unistd::pause();
            }
        }
    }
}

/// The pod's containers see this process; through it they must not see the host's files.
fn hide_host(dir: &Path) -> Result<(), nix::Error> {
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )?;
    let root = dir.join("ns");
    mount(
        Some("tmpfs"),
        &root,
        Some("tmpfs"),
        MsFlags::MS_RDONLY,
        Some("size=0k"),
    )?;
    nix::unistd::chdir(&root)?;
    nix::unistd::pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    nix::unistd::chdir("/")
}
