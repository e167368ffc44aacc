//! The helper processes: everything that must not happen in a process with threads.
//!
//! One *zygote* is the re-executed binary, single-threaded and small. The runtime hands it
//! requests over a socket, each with a reply socket attached; for each it forks a child that
//! carries the request out: the *shim* of a container (which stays until the container ends and
//! outlives the runtime), an exec, or the making of a sandbox's namespaces. Forking from a warm
//! small process costs a fraction of executing the binary, and all shims share its pages.
//!
//! What never lives here: threads, an async runtime, decisions about what should run.

mod exec;
mod log;
mod monitor;
mod process;
mod rootfs;
mod sandbox;
pub(crate) mod spec;
mod start;
pub(crate) mod user;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::sys;
use crate::wire::{self, Failure, frame};

/// Request kinds on the zygote's socket.
pub(crate) mod op {
    /// Become a container's shim and start it.
    pub(crate) const START: u8 = b'C';
    /// Run a program in a container.
    pub(crate) const EXEC: u8 = b'E';
    /// Make a sandbox's namespaces.
    pub(crate) const SANDBOX: u8 = b'S';
}

/// First argument of a zygote that still runs from the writable file.
const MODE: &str = "zygote";
/// First argument once it runs from a read-only view of its own file.
const SEALED: &str = "zygote-sealed";

/// The program's other life: called by the binary's hidden subcommand, before any thread or async
/// runtime exists, with the arguments that follow the subcommand. Never returns.
pub fn helper_main(args: Vec<String>) -> ! {
    let code = match args.first().map(String::as_str) {
        Some(MODE) => {
            let error = seal();
            // A kernel or file system that refuses the read-only view still runs containers.
            eprintln!("evenkeel runtime helper: running from the writable binary: {error}");
            zygote()
        }
        Some(SEALED) => zygote(),
        _ => {
            eprintln!("evenkeel runtime helper: this is not for calling by hand");
            2
        }
    };
    sys::exit_now(code)
}

/// Executes this very program again from a detached read-only bind mount of its file.
///
/// A process of a container can reach the file behind a helper that is about to enter it
/// (`/proc/PID/exe`, CVE-2019-5736); through this mount it can't write to it.
fn seal() -> io::Error {
    let attempt = || -> io::Result<io::Error> {
        let view = sys::open_tree(Path::new("/proc/self/exe"), false)?;
        sys::mount_setattr(view.as_fd(), false, sys::MOUNT_ATTR_RDONLY, 0)?;
        let args: Result<Vec<CString>, _> = std::env::args()
            .map(|arg| CString::new(if arg == MODE { SEALED.to_owned() } else { arg }))
            .collect();
        let env: Result<Vec<CString>, _> = std::env::vars()
            .map(|(name, value)| CString::new(format!("{name}={value}")))
            .collect();
        Ok(sys::execve_fd(view.as_fd(), &args?, &env?))
    };
    attempt().unwrap_or_else(|error| error)
}

/// Serves requests from descriptor 0 until the runtime is gone.
fn zygote() -> i32 {
    // Descriptors that leaked into this process would stay open as long as the last container.
    if let Err(error) = sys::close_from(3) {
        eprintln!("evenkeel runtime helper: closing inherited descriptors: {error}");
    }
    let Ok(control) = sys::inherited(0) else {
        return 1;
    };
    prepare_zygote();
    let mut kind = [0u8; 1];
    loop {
        match sys::recv_fds(control.as_fd(), &mut kind) {
            Ok((0, _)) => return 0,
            Ok((_, fds)) => match sys::fork() {
                Ok(None) => {
                    drop(control);
                    serve(kind[0], fds);
                    return 0;
                }
                // The reply socket closes with `fds`, which tells the runtime.
                Ok(Some(_)) => {}
                Err(error) => refuse(fds, &Failure::system("fork a helper", error)),
            },
            Err(error) => {
                eprintln!("evenkeel runtime helper: reading a request: {error}");
                return 1;
            }
        }
    }
}

fn prepare_zygote() {
    sys::set_process_name(c"evenkeel-zygote");
    // Its own session: a Ctrl-C at the runtime's terminal must not reach the containers' shims.
    // It fails only where it is a session leader already.
    nix::unistd::setsid().ok();
    // Nobody below CAP_SYS_PTRACE may look into a helper, not even from inside a container.
    const PR_SET_DUMPABLE: i32 = 4;
    sys::prctl(PR_SET_DUMPABLE, 0, 0).ok();
    // Finished children vanish by themselves; nobody asks for their exit codes.
    sys::ignore_signal(libc::SIGCHLD, true);
    sys::ignore_signal(libc::SIGPIPE, true);
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    // Not a reason to fail: "/" is always there.
    nix::unistd::chdir("/").ok();
    if let Ok(null) = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
    {
        for number in 0..2 {
            sys::dup_to(null.as_fd(), number).ok();
        }
    }
}

/// Carries one request out in a forked child.
fn serve(kind: u8, mut fds: Vec<OwnedFd>) {
    sys::ignore_signal(libc::SIGCHLD, false);
    nix::unistd::setsid().ok();
    if fds.is_empty() {
        return;
    }
    let rest = fds.split_off(1);
    let Some(reply) = fds.pop() else { return };
    let mut reply = UnixStream::from(reply);
    let result = match kind {
        op::START => request(&mut reply).and_then(|request| start::run(&request, &mut reply)),
        op::EXEC => request(&mut reply).and_then(|request| exec::run(request, rest, &mut reply)),
        op::SANDBOX => request(&mut reply).and_then(|request| sandbox::run(&request, &mut reply)),
        _ => Err(Failure::invalid(format!("unknown helper request {kind}"))),
    };
    if let Err(failure) = result {
        // When the runtime is gone there is nobody to tell.
        wire::write(&mut reply, &wire::encode_json(frame::FAILED, &failure)).ok();
    }
}

/// Reads the request's body.
fn request<T: DeserializeOwned>(reply: &mut UnixStream) -> Result<T, Failure> {
    match wire::read(reply) {
        Ok(Some((frame::REQUEST, body))) => serde_json::from_slice(&body)
            .map_err(|error| Failure::system("read a helper request", error)),
        Ok(_) => Err(Failure::invalid("the request ended early")),
        Err(error) => Err(Failure::system("read a helper request", error)),
    }
}

fn refuse(mut fds: Vec<OwnedFd>, failure: &Failure) {
    if !fds.is_empty() {
        let mut reply = UnixStream::from(fds.swap_remove(0));
        wire::write(&mut reply, &wire::encode_json(frame::FAILED, failure)).ok();
    }
}

/// Start time of a process in clock ticks since boot; `None` when it is gone.
pub(crate) fn start_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain anything, so count from its closing parenthesis.
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()
}
