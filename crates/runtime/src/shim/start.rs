//! Starting a container: the shim's side, and the new process's way to its program.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::log::Log;
use super::monitor::Monitor;
use super::spec::{ContainerSpec, StartRequest};
use super::{process, rootfs, start_ticks, user};
use crate::cgroup::Placement;
use crate::sys::{self, Cloned};
use crate::wire::{self, Exited, Failure, Started, User, frame};
use crate::{clock, files};

/// Name of the shim's socket in the container's directory.
pub(crate) const SOCKET: &str = "shim.sock";
/// Exit code of a container whose program never ran.
pub(crate) const START_FAILED: i32 = 128;

/// Message types from the new process to its shim.
mod note {
    /// The master side of its terminal, as descriptor.
    pub(super) const TERMINAL: u8 = b'T';
    /// The ids it will run with, JSON.
    pub(super) const USER: u8 = b'U';
    /// It can't go on: a failure, JSON.
    pub(super) const FAILED: u8 = b'F';
    /// Its root is built; it waits to be moved into its v1 groups.
    pub(super) const READY: u8 = b'R';
    /// To the new process: it is in its groups now.
    pub(super) const JOINED: u8 = b'J';
}

/// Starts the container and stays as its shim until it ends.
pub(super) fn run(request: &StartRequest, reply: &mut UnixStream) -> Result<(), Failure> {
    sys::set_process_name(c"evenkeel-shim");
    quiet_stderr();
    nix::unistd::chdir(&request.dir)
        .map_err(|errno| Failure::system("enter the container's directory", errno.desc()))?;
    let spec: ContainerSpec = files::read_json(&PathBuf::from("spec.json"))
        .map_err(|error| Failure::system("read spec.json", error))?
        .ok_or_else(|| Failure::system("read spec.json", "it is missing"))?;
    // Relative, because the directory's full path may not fit a socket address.
    files::absent_ok(std::fs::remove_file(SOCKET))
        .and_then(|()| UnixListener::bind(SOCKET))
        .map_err(|error| Failure::system("listen for the runtime", error))
        .map(|listener| {
            // Whoever hears that the container started may read its log. One that can't be opened
            // (a full disk) does not keep a container from running.
            let log = Log::open(spec.log.clone()).unwrap_or_else(|_| Log::discard());
            (listener, log)
        })
        .and_then(|(listener, log)| match launch(&spec) {
            Ok(running) => {
                announce(&running, reply)?;
                Monitor::new(spec, running, log, listener, reply)?.run()
            }
            Err(failure) => {
                // Whoever comes back later finds why it never ran.
                let exited = Exited {
                    code: START_FAILED,
                    finished_at: clock::now_ns(),
                    oom_killed: false,
                    reason: "StartError".to_owned(),
                    message: failure.message.clone(),
                };
                files::write_json(&PathBuf::from("exit.json"), &exited)
                    .map_err(|error| Failure::system("write exit.json", error))?;
                files::absent_ok(std::fs::remove_file(SOCKET)).ok();
                Err(failure)
            }
        })
}

/// The runtime's stderr ends with the runtime; a shim must not die of writing to it.
fn quiet_stderr() {
    if let Ok(null) = std::fs::OpenOptions::new().write(true).open("/dev/null") {
        sys::dup_to(null.as_fd(), 2).ok();
    }
}

/// A container's first process with the ends of its streams.
pub(super) struct Running {
    pub(super) started: Started,
    pub(super) pidfd: OwnedFd,
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
    pub(super) terminal: Option<OwnedFd>,
}

fn announce(running: &Running, reply: &mut UnixStream) -> Result<(), Failure> {
    files::write_json(&PathBuf::from("started.json"), &running.started)
        .map_err(|error| Failure::system("write started.json", error))?;
    // The runtime may be gone; the container runs on and is found by its record.
    wire::write(reply, &wire::encode_json(frame::STARTED, &running.started)).ok();
    Ok(())
}

type Pipe = (Option<OwnedFd>, Option<OwnedFd>);

/// A pipe as (read end, write end).
fn pipe() -> Result<Pipe, Failure> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)
        .map_err(|errno| Failure::system("make a pipe", errno.desc()))?;
    Ok((Some(read), Some(write)))
}

fn launch(spec: &ContainerSpec) -> Result<Running, Failure> {
    let (notes, notes_child) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .map_err(|errno| Failure::system("make a socket pair", errno.desc()))?;
    let tty = spec.process.tty;
    let (stdin_child, stdin) = if spec.stdin && !tty {
        pipe()?
    } else {
        (None, None)
    };
    let (stdout, stdout_child) = if tty { (None, None) } else { pipe()? };
    let (stderr, stderr_child) = if tty { (None, None) } else { pipe()? };
    // The files of the host that the new process needs are opened before it loses sight of them.
    let cgroup =
        match &spec.placement.into {
            Some(dir) => Some(File::open(dir).map_err(|error| {
                Failure::system(format!("open cgroup {}", dir.display()), error)
            })?),
            None => None,
        };
    if let Some(path) = &spec.namespaces.pid {
        let namespace = open_namespace(path)?;
        sys::setns(namespace.as_fd(), libc::CLONE_NEWPID)
            .map_err(|error| Failure::system("join the pod's PID namespace", error))?;
    }
    let mut flags = libc::CLONE_NEWNS as u64;
    if spec.namespaces.own_pid {
        flags |= libc::CLONE_NEWPID as u64;
    }
    let cloned = sys::clone3(flags, cgroup.as_ref().map(AsFd::as_fd))
        .map_err(|error| Failure::system("clone the container's process", error))?;
    let (pid, pidfd) = match cloned {
        Cloned::Parent(pid, pidfd) => (pid, pidfd),
        Cloned::Child => {
            drop(notes);
            let stdio = [stdin_child, stdout_child, stderr_child];
            let failure = match child(spec, stdio, notes_child.as_fd()) {
                Ok(never) => match never {},
                Err(failure) => failure,
            };
            send_note(notes_child.as_fd(), note::FAILED, &failure);
            sys::exit_now(START_FAILED)
        }
    };
    drop((notes_child, stdin_child, stdout_child, stderr_child));
    let mut started = Started {
        pid,
        start_ticks: start_ticks(pid).unwrap_or(0),
        shim: i32::try_from(std::process::id()).unwrap_or(0),
        started_at: 0,
        user: User::default(),
    };
    let terminal =
        follow(notes.as_fd(), &spec.placement, &mut started).inspect_err(|_| end(pid, &pidfd))?;
    started.started_at = clock::now_ns();
    Ok(Running {
        started,
        pidfd,
        stdin,
        stdout,
        stderr,
        terminal,
    })
}

/// Ends a process that failed on its way; usually it has exited by itself.
fn end(pid: i32, pidfd: &OwnedFd) {
    sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).ok();
    nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).ok();
}

/// Moves a process into its v1 groups and tells it so.
pub(super) fn admit(notes: BorrowedFd<'_>, placement: &Placement, pid: i32) -> Result<(), Failure> {
    for file in &placement.join {
        std::fs::write(file, pid.to_string())
            .map_err(|error| Failure::system(format!("join {}", file.display()), error))?;
    }
    sys::send_fds(notes, &[note::JOINED], &[])
        .map_err(|error| Failure::system("reach the new process", error))
}

/// Asks to be moved into the v1 groups and waits for it. As late as can be: in a busy machine a
/// pod's small share of the processor would stretch all work that follows.
pub(super) fn be_admitted(notes: BorrowedFd<'_>) -> Result<(), Failure> {
    let failed = |error| Failure::system("wait for the cgroups", error);
    sys::send_fds(notes, &[note::READY], &[]).map_err(failed)?;
    let mut answer = [0];
    match sys::recv_fds(notes, &mut answer).map_err(failed)? {
        (1, _) if answer[0] == note::JOINED => Ok(()),
        _ => Err(Failure::system("wait for the cgroups", "the shim is gone")),
    }
}

/// Reads the new process's notes until its program is executed, which closes its end.
fn follow(
    notes: BorrowedFd<'_>,
    placement: &Placement,
    started: &mut Started,
) -> Result<Option<OwnedFd>, Failure> {
    let mut buffer = vec![0; 64 << 10];
    let mut terminal = None;
    loop {
        let (length, mut fds) = sys::recv_fds(notes, &mut buffer)
            .map_err(|error| Failure::system("hear from the new process", error))?;
        let Some((kind, body)) = buffer.get(..length).and_then(|bytes| bytes.split_first()) else {
            return Ok(terminal);
        };
        match *kind {
            note::TERMINAL => terminal = fds.pop(),
            note::USER => {
                started.user = serde_json::from_slice(body)
                    .map_err(|error| Failure::system("read the new process's user", error))?;
            }
            note::READY => admit(notes, placement, started.pid)?,
            _ => {
                return Err(serde_json::from_slice(body).unwrap_or_else(|error| {
                    Failure::system("read the new process's failure", error)
                }));
            }
        }
    }
}

fn send_note<T: serde::Serialize>(notes: BorrowedFd<'_>, kind: u8, value: &T) {
    let mut bytes = vec![kind];
    if serde_json::to_writer(&mut bytes, value).is_ok() {
        // A shim that is gone can't be told, and the process ends in either case.
        sys::send_fds(notes, &bytes, &[]).ok();
    }
}

fn open_namespace(path: &std::path::Path) -> Result<File, Failure> {
    File::open(path)
        .map_err(|error| Failure::system(format!("open namespace {}", path.display()), error))
}

/// Moves this very process into its v1 groups.
pub(super) fn join_cgroups(placement: &Placement) -> Result<(), Failure> {
    for file in &placement.join {
        std::fs::write(file, "0")
            .map_err(|error| Failure::system(format!("join {}", file.display()), error))?;
    }
    Ok(())
}

/// The new process: from clone to its program.
fn child(
    spec: &ContainerSpec,
    mut stdio: [Option<OwnedFd>; 3],
    notes: BorrowedFd<'_>,
) -> Result<std::convert::Infallible, Failure> {
    nix::unistd::setsid().map_err(|errno| Failure::system("start a session", errno.desc()))?;
    process::set_oom_score(&spec.process);
    let joins = [
        (&spec.namespaces.net, libc::CLONE_NEWNET),
        (&spec.namespaces.ipc, libc::CLONE_NEWIPC),
        (&spec.namespaces.uts, libc::CLONE_NEWUTS),
    ];
    for (path, flag) in joins {
        if let Some(path) = path {
            let namespace = open_namespace(path)?;
            sys::setns(namespace.as_fd(), flag).map_err(|error| {
                Failure::system(format!("join namespace {}", path.display()), error)
            })?;
        }
    }
    let filter = process::load_filter(&spec.process)?;
    let binds = rootfs::open_binds(spec)?;
    rootfs::enter_root(&spec.root)?;
    let user = user::resolve(&spec.user)?;
    rootfs::standard_mounts(spec)?;
    // A volume over the cgroups wants them below it; else they come last.
    let early = rootfs::covers_cgroups(spec);
    if early {
        enter_cgroups(spec, notes)?;
    }
    rootfs::attach_binds(&binds)?;
    drop(binds);
    if spec.process.tty {
        let (master, ends) = terminal()?;
        sys::send_fds(notes, &[note::TERMINAL], &[master.as_fd()])
            .map_err(|error| Failure::system("hand over the terminal", error))?;
        rootfs::console(sys::terminal_number(master.as_fd()).unwrap_or(0))?;
        stdio = ends;
    }
    std::fs::create_dir_all(&spec.process.cwd).map_err(|error| {
        Failure::cannot_run(format!(
            "create working directory {}: {error}",
            spec.process.cwd
        ))
    })?;
    send_note(notes, note::USER, &user);
    process::own_stdio(&stdio, &user);
    process::connect_stdio(&stdio, spec.process.tty, &process::open_null()?)?;
    drop(stdio);
    rootfs::protect(spec)?;
    if !early {
        enter_cgroups(spec, notes)?;
    }
    rootfs::seal_root(spec)?;
    Err(process::execute(&spec.process, &user, filter.as_deref()))
}

/// Joins the groups and shows them.
fn enter_cgroups(spec: &ContainerSpec, notes: BorrowedFd<'_>) -> Result<(), Failure> {
    be_admitted(notes)?;
    if spec.privileged {
        return Ok(());
    }
    // The namespace's root is the group that its maker is in.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWCGROUP)
        .map_err(|errno| Failure::system("make a cgroup namespace", errno.desc()))?;
    rootfs::cgroup_mounts(spec)
}

/// A new terminal of the container's own devpts: the master, and its other side three times.
pub(super) fn terminal() -> Result<(OwnedFd, [Option<OwnedFd>; 3]), Failure> {
    let failed = |error: io::Error| Failure::system("open a terminal", error);
    let master: OwnedFd = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/pts/ptmx")
        .map_err(failed)?
        .into();
    let end = sys::open_terminal_peer(master.as_fd()).map_err(failed)?;
    let ends = [
        Some(end.try_clone().map_err(failed)?),
        Some(end.try_clone().map_err(failed)?),
        Some(end),
    ];
    Ok((master, ends))
}
