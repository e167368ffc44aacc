//! What a thread gives back when it has nothing to do.
//!
//! The allocator keeps for each thread what it has freed, and looks it over only while the thread
//! goes on allocating. A burst of work that has passed is thus still held hours later, and what one
//! thread made and another dropped is not even known to be free. So a worker that is about to
//! sleep looks through its own part now and then (0040).
#![allow(unsafe_code, reason = "the allocator is asked in its own language")]

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// A worker looks this often at most: it takes about as long as some requests.
const EVERY: Duration = Duration::from_secs(5);

unsafe extern "C" {
    fn mi_collect(force: bool);
}

thread_local! {
    static NEXT: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Runs a future to its end on workers that give back what they do not need.
pub(crate) fn run<T: Send + 'static>(
    future: impl Future<Output = anyhow::Result<T>> + Send + 'static,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .on_thread_park(before_sleep)
        .build()
        .context("can't start threads")?;
    // The thread that starts all is no worker: it only waits.
    let running = runtime.spawn(future);
    match runtime.block_on(running) {
        Ok(ended) => ended,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// To be called by a thread that is about to sleep.
fn before_sleep() {
    let now = Instant::now();
    match NEXT.get() {
        Some(next) if now < next => return,
        // SAFETY: it takes and gives no memory of ours, and may be called by any thread at any time;
        // it works on what the calling thread has freed.
        Some(_) => unsafe { mi_collect(true) },
        None => {}
    }
    NEXT.set(Some(now + EVERY));
}
