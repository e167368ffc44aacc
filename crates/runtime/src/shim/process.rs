//! The last steps before a container's program: rights are given up, the program is executed.
//!
//! Shared by a container's first process and by exec, so that both end with the same rights.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::spec::Process;
use crate::seccomp;
use crate::sys::{self, BpfInstruction};
use crate::wire::{Failure, User};

/// Used when neither the image nor the pod sets PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const PR_SET_KEEPCAPS: i32 = 8;
const PR_CAPBSET_READ: i32 = 23;
const PR_CAPBSET_DROP: i32 = 24;
const PR_SET_NO_NEW_PRIVS: i32 = 38;
const PR_CAP_AMBIENT: i32 = 47;
const PR_CAP_AMBIENT_CLEAR_ALL: u64 = 4;

/// Reads the compiled filter while the host's files are still in reach.
pub(super) fn load_filter(process: &Process) -> Result<Option<Vec<BpfInstruction>>, Failure> {
    let Some(path) = &process.seccomp else {
        return Ok(None);
    };
    let bytes = fs::read(path)
        .map_err(|error| Failure::system(format!("read {}", path.display()), error))?;
    Ok(Some(seccomp::from_bytes(&bytes)))
}

/// Sets this process's own score, as far as it may.
pub(super) fn set_oom_score(process: &Process) {
    if let Some(score) = process.oom_score_adj {
        // Lowering it needs CAP_SYS_RESOURCE, which a machine may withhold; the pod runs all the
        // same, only the order in which the kernel kills differs.
        fs::write("/proc/self/oom_score_adj", score.to_string()).ok();
    }
}

/// /dev/null of wherever this process is.
pub(super) fn open_null() -> Result<fs::File, Failure> {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(|error| Failure::system("open /dev/null", error))
}

/// Puts stdio in place, `null` where an end is missing. With a terminal, `stdio` holds its one end
/// three times over.
pub(super) fn connect_stdio(
    stdio: &[Option<OwnedFd>; 3],
    tty: bool,
    null: &fs::File,
) -> Result<(), Failure> {
    let failed = |error| Failure::system("connect stdio", error);
    // First away from 0 to 2, then onto them: none may be overwritten before it is placed.
    let mut high = Vec::with_capacity(3);
    for end in stdio {
        let source = end.as_ref().map_or(null.as_fd(), |fd| fd.as_fd());
        high.push(sys::dup_high(source).map_err(failed)?);
    }
    for (number, end) in (0..).zip(&high) {
        sys::dup_to(end.as_fd(), number).map_err(failed)?;
    }
    if tty && let Some(end) = high.first() {
        sys::set_controlling_terminal(end.as_fd()).map_err(failed)?;
    }
    Ok(())
}

/// Lets the program's user open /dev/stdout and its like, which lead to the pipes' inodes.
pub(super) fn own_stdio(stdio: &[Option<OwnedFd>; 3], user: &User) {
    for end in stdio.iter().flatten() {
        // Where the file system refuses, only reopening by path is lost.
        rustix::fs::fchown(
            end,
            Some(rustix::fs::Uid::from_raw(user.uid)),
            Some(rustix::fs::Gid::from_raw(user.gid)),
        )
        .ok();
    }
}

/// Drops to the program's rights and executes it; returns only the reason why not.
pub(super) fn execute(
    process: &Process,
    user: &User,
    filter: Option<&[BpfInstruction]>,
) -> Failure {
    match prepare(process, user, filter) {
        Ok((program, args, env)) => {
            sys::reset_signals();
            match nix::unistd::execve(&program, &args, &env) {
                Ok(never) => match never {},
                Err(errno) => Failure::cannot_run(format!(
                    "exec {}: {}",
                    program.to_string_lossy(),
                    reason(errno)
                )),
            }
        }
        Err(failure) => failure,
    }
}

type Prepared = (CString, Vec<CString>, Vec<CString>);

fn prepare(
    process: &Process,
    user: &User,
    filter: Option<&[BpfInstruction]>,
) -> Result<Prepared, Failure> {
    sys::close_on_exec_from(3).map_err(|error| Failure::system("close descriptors", error))?;
    // Without no_new_privs a filter needs CAP_SYS_ADMIN, so it goes in while we have it.
    if !process.no_new_privs
        && let Some(filter) = filter
    {
        sys::seccomp_install(filter).map_err(|error| Failure::system("install seccomp", error))?;
    }
    let capabilities = drop_rights(process.capabilities, user)?;
    nix::unistd::chdir(process.cwd.as_str()).map_err(|errno| {
        Failure::cannot_run(format!(
            "chdir to cwd ({:?}) set in config.json failed: {}",
            process.cwd,
            reason(errno)
        ))
    })?;
    sys::capset(capabilities).map_err(|error| Failure::system("set capabilities", error))?;
    // An older kernel without ambient capabilities has none to clear.
    sys::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0).ok();
    let (program, args, env) = command(process, user)?;
    if process.no_new_privs {
        sys::prctl(PR_SET_NO_NEW_PRIVS, 1, 0)
            .map_err(|error| Failure::system("set no_new_privs", error))?;
        if let Some(filter) = filter {
            sys::seccomp_install(filter)
                .map_err(|error| Failure::system("install seccomp", error))?;
        }
    }
    Ok((program, args, env))
}

/// Narrows the bounding set and becomes the user, keeping the permitted set for the caller to
/// narrow. Answers what remains of `wanted` on this machine.
fn drop_rights(wanted: u64, user: &User) -> Result<u64, Failure> {
    let failed = |error| Failure::system("give up capabilities", error);
    // A capability that this process lacks can't be given; the container does without.
    let capabilities = wanted & sys::cap_permitted().map_err(failed)?;
    for number in 0..64 {
        match sys::prctl(PR_CAPBSET_READ, number, 0) {
            Ok(1) if capabilities & (1 << number) == 0 => {
                sys::prctl(PR_CAPBSET_DROP, number, 0).map_err(failed)?;
            }
            Ok(_) => {}
            // Past the last one that the kernel knows.
            Err(_) => break,
        }
    }
    sys::prctl(PR_SET_KEEPCAPS, 1, 0).map_err(failed)?;
    sys::set_ids(user.uid, user.gid, &user.groups).map_err(|error| {
        Failure::system(format!("become user {}:{}", user.uid, user.gid), error)
    })?;
    sys::prctl(PR_SET_KEEPCAPS, 0, 0).map_err(failed)?;
    Ok(capabilities)
}

/// Program, arguments and environment in the kernel's form.
fn command(process: &Process, user: &User) -> Result<Prepared, Failure> {
    let mut env = process.env.clone();
    let path = match env.iter().find_map(|entry| entry.strip_prefix("PATH=")) {
        Some(path) => path.to_owned(),
        None => {
            env.push(format!("PATH={DEFAULT_PATH}"));
            DEFAULT_PATH.to_owned()
        }
    };
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(format!("HOME={}", user.home));
    }
    let name = process.args.first().map(String::as_str).unwrap_or_default();
    let program = look_up(name, &path).map_err(Failure::cannot_run)?;
    let c = |text: &str| {
        CString::new(text).map_err(|_| Failure::cannot_run(format!("{text:?} contains a NUL byte")))
    };
    let program = c(&program.to_string_lossy())?;
    let args = process
        .args
        .iter()
        .map(|arg| c(arg))
        .collect::<Result<_, _>>()?;
    let env = env.iter().map(|entry| c(entry)).collect::<Result<_, _>>()?;
    Ok((program, args, env))
}

/// Finds the program as a shell does. The messages are the ones that Go's `exec.LookPath` gives,
/// since that is what kubectl users have learnt to read.
fn look_up(name: &str, path: &str) -> Result<PathBuf, String> {
    if name.contains('/') {
        return match check(Path::new(name)) {
            Ok(()) => Ok(PathBuf::from(name)),
            Err(problem) => Err(format!("exec: {name:?}: {problem}")),
        };
    }
    if !name.is_empty() {
        for dir in path.split(':') {
            let dir = if dir.is_empty() { "." } else { dir };
            let candidate = Path::new(dir).join(name);
            if check(&candidate).is_ok() {
                return Ok(candidate);
            }
        }
    }
    Err(format!(
        "exec: {name:?}: executable file not found in $PATH"
    ))
}

fn check(path: &Path) -> Result<(), String> {
    let metadata = fs::metadata(path).map_err(|error| {
        let errno = error
            .raw_os_error()
            .map_or(nix::Error::EIO, nix::Error::from_raw);
        format!("stat {}: {}", path.display(), reason(errno))
    })?;
    if metadata.is_dir() {
        return Err("is a directory".to_owned());
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err("permission denied".to_owned());
    }
    Ok(())
}

/// An error number in the lower-case words of the C library's table.
pub(super) fn reason(errno: nix::Error) -> String {
    errno.desc().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::look_up;

    #[test]
    fn missing_programs_are_named_as_users_know_them() {
        assert_eq!(
            look_up("no-such-program", "/bin:/usr/bin"),
            Err("exec: \"no-such-program\": executable file not found in $PATH".to_owned())
        );
        assert_eq!(
            look_up("/no/such", "/bin"),
            Err("exec: \"/no/such\": stat /no/such: no such file or directory".to_owned())
        );
        assert_eq!(
            look_up("/etc/passwd", ""),
            Err("exec: \"/etc/passwd\": permission denied".to_owned())
        );
        assert_eq!(
            look_up("/etc", ""),
            Err("exec: \"/etc\": is a directory".to_owned())
        );
    }
}
