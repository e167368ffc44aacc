//! Running one more program in a running container.
//!
//! The program's streams are descriptors that the runtime made and keeps the other ends of, so
//! nothing is copied on the way. When the runtime closes the reply socket, the program is killed.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::{WaitStatus, waitpid};

use super::spec::ExecSpec;
use super::{process, start, start_ticks};
use crate::clock;
use crate::sys::{self, Cloned};
use crate::wire::{self, Exited, Failure, frame};

/// Runs the program to its end and answers its exit code on `reply`.
pub(super) fn run(
    spec: ExecSpec,
    fds: Vec<OwnedFd>,
    reply: &mut UnixStream,
) -> Result<(), Failure> {
    sys::set_process_name(c"evenkeel-exec");
    let mut fds = fds.into_iter();
    let mut stdio: [Option<OwnedFd>; 3] = [None, None, None];
    for (slot, wanted) in stdio.iter_mut().zip(spec.stdio) {
        if wanted {
            *slot = fds.next();
        }
    }
    let filter = process::load_filter(&spec.process)?;
    let gone = || Failure::cannot_run("container not running");
    let target = sys::pidfd_open(spec.container.pid).map_err(|_| gone())?;
    // The handle is taken, so the number can't be reused any more: compare whom it names.
    if start_ticks(spec.container.pid) != Some(spec.container.start_ticks) {
        return Err(gone());
    }
    let cgroup = match &spec.placement.into {
        Some(dir) => Some(File::open(dir).map_err(|_| gone())?),
        None => None,
    };
    let (notes, notes_child) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .map_err(|errno| Failure::system("make a socket pair", errno.desc()))?;
    // The PID namespace counts for the next clone; the rest is joined by the new process.
    sys::setns(target.as_fd(), libc::CLONE_NEWPID).map_err(|_| gone())?;
    let cloned = sys::clone3(0, cgroup.as_ref().map(AsFd::as_fd))
        .map_err(|error| Failure::system("clone a process", error))?;
    let (pid, pidfd) = match cloned {
        Cloned::Parent(pid, pidfd) => (pid, pidfd),
        Cloned::Child => {
            drop(notes);
            let failure = match child(&spec, stdio, filter.as_deref(), target, notes_child.as_fd())
            {
                Ok(never) => match never {},
                Err(failure) => failure,
            };
            if let Ok(bytes) = serde_json::to_vec(&failure) {
                // Nobody to tell means that the shim is gone, and this process ends anyway.
                sys::send_fds(notes_child.as_fd(), &bytes, &[]).ok();
            }
            sys::exit_now(126)
        }
    };
    drop((notes_child, stdio, target));
    let mut buffer = vec![0; 16 << 10];
    loop {
        let (length, fds) = sys::recv_fds(notes.as_fd(), &mut buffer)
            .map_err(|error| Failure::system("hear from the new process", error))?;
        if length == 0 {
            break;
        }
        if let Some(terminal) = fds.first() {
            // One byte, so that the descriptor arrives with exactly this read.
            sys::send_fds(
                reply.as_fd(),
                &wire::encode(frame::DONE, &[]),
                &[terminal.as_fd()],
            )
            .map_err(|error| Failure::system("hand over the terminal", error))?;
            continue;
        }
        if length == 1 {
            start::admit(notes.as_fd(), &spec.placement, pid)?;
            continue;
        }
        waitpid(nix::unistd::Pid::from_raw(pid), None).ok();
        return Err(serde_json::from_slice(&buffer[..length])
            .unwrap_or_else(|error| Failure::system("read the new process's failure", error)));
    }
    wire::write(reply, &wire::encode(frame::STARTED, &[])).ok();
    let code = wait(pid, &pidfd, reply)?;
    let exited = Exited {
        code,
        finished_at: clock::now_ns(),
        ..Exited::default()
    };
    wire::write(reply, &wire::encode_json(frame::EXITED, &exited)).ok();
    Ok(())
}

/// Waits for the program; kills it once the other end of `reply` is closed.
fn wait(pid: i32, pidfd: &OwnedFd, reply: &UnixStream) -> Result<i32, Failure> {
    let mut watching = true;
    loop {
        let mut fds = vec![PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        if watching {
            fds.push(PollFd::new(reply.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(Failure::system("wait for the program", errno.desc())),
        }
        let ready = |index: usize| fds.get(index).and_then(PollFd::any).unwrap_or(false);
        let closed = ready(1);
        if ready(0) {
            return exit_code(pid);
        }
        if closed {
            // Nothing is ever sent this way, so readiness means the end.
            watching = false;
            sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).ok();
        }
    }
}

/// Reaps a child: its exit code, or 128 + signal.
pub(super) fn exit_code(pid: i32) -> Result<i32, Failure> {
    loop {
        match waitpid(nix::unistd::Pid::from_raw(pid), None) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(128 + signal as i32),
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(Failure::system("reap the program", errno.desc())),
        }
    }
}

/// The new process: from clone to the program.
fn child(
    spec: &ExecSpec,
    mut stdio: [Option<OwnedFd>; 3],
    filter: Option<&[sys::BpfInstruction]>,
    target: OwnedFd,
    notes: std::os::fd::BorrowedFd<'_>,
) -> Result<std::convert::Infallible, Failure> {
    nix::unistd::setsid().map_err(|errno| Failure::system("start a session", errno.desc()))?;
    process::set_oom_score(&spec.process);
    // The host's: what stands at that name inside is the container's to choose.
    let null = process::open_null()?;
    // To join a mount namespace leads to its root, which is not the container's where all of this
    // was started in a chroot: a pivot moves the root of the chroot then.
    let root = File::open(format!("/proc/{}/root", spec.container.pid))
        .map_err(|_| Failure::cannot_run("container not running"))?;
    sys::setns(
        target.as_fd(),
        libc::CLONE_NEWNET
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWCGROUP
            | libc::CLONE_NEWNS,
    )
    .map_err(|_| Failure::cannot_run("container not running"))?;
    nix::unistd::fchdir(&root)
        .and_then(|()| nix::unistd::chroot("."))
        .map_err(|errno| Failure::system("enter the container's root", errno.desc()))?;
    drop(root);
    if spec.process.tty {
        let (master, ends) = start::terminal()?;
        sys::send_fds(notes, b"T", &[master.as_fd()])
            .map_err(|error| Failure::system("hand over the terminal", error))?;
        stdio = ends;
    }
    let user = &spec.container.user;
    process::own_stdio(&stdio, user);
    process::connect_stdio(&stdio, spec.process.tty, &null)?;
    drop((stdio, target));
    start::be_admitted(notes)?;
    Err(process::execute(&spec.process, user, filter))
}
