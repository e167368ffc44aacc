//! Entering a network namespace. A thread's namespace is part of the thread, so this is always a
//! thread of its own that ends afterwards, never a worker of tokio that others would then run on.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::sched::{CloneFlags, setns};

/// Runs `work` on a new thread inside the namespace pinned at `path`.
///
/// # Errors
/// When the namespace can't be opened or entered, or the thread can't be made.
pub fn run_in<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let netns = File::open(path)?;
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, || {
                setns(&netns, CloneFlags::CLONE_NEWNET)?;
                Ok(work())
            })?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
