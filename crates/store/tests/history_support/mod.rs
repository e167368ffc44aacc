//! Faults of a disk, made inside the process that writes to it: syncs that fail for good, and
//! writes that are cut short for a while.
//!
//! What is not made here: a loss of power. What the kernel has been given stays there when a
//! process dies; `crash.rs` and `damage.rs` cut files as a loss of power would.

#![allow(
    unsafe_code,
    reason = "system calls that no safe wrapper in the tree has"
)]
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails"
)]

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// From now on every sync of a file fails with EIO, in every thread. There is no way back.
pub fn syncs_fail() {
    // struct sock_filter: load the number of the call; the two calls jump to the error.
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let jump = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let give = libc::BPF_RET | libc::BPF_K;
    let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt,
        jf,
        k,
    };
    let number = |call: libc::c_long| u32::try_from(call).unwrap();
    let mut filter = [
        step(load, 0, 0, 0),
        step(jump, 2, 0, number(libc::SYS_fdatasync)),
        step(jump, 1, 0, number(libc::SYS_fsync)),
        step(give, 0, 0, libc::SECCOMP_RET_ALLOW),
        step(
            give,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EIO).unwrap(),
        ),
    ];
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).unwrap(),
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the call takes numbers alone.
    let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the program and its filter live until the call has copied them.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            &raw const program,
        )
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// Writes beyond a size of a file fail instead of ending the process.
pub fn prepare() {
    // SAFETY: nothing is called when the signal comes.
    let before = unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    assert_ne!(before, libc::SIG_ERR);
}

/// Files end at `bytes`: a write across that is cut short, one behind it fails. `None`: they do
/// not.
pub fn files_end_at(bytes: Option<u64>) {
    let now = getrlimit(Resource::Fsize);
    let limit = Rlimit {
        current: bytes,
        maximum: now.maximum,
    };
    setrlimit(Resource::Fsize, limit).unwrap();
}
