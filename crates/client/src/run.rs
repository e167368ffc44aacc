//! Running a loop: keys from a queue, reconciled concurrently, until told to stop.

use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use evenkeel_api::clock::SharedClock;
use futures::FutureExt as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::metrics::{LoopMetrics, LoopRegistry};
use crate::queue::WorkQueue;
use crate::recorder::Recorder;
use crate::view::Views;

/// What the composition hands to a loop.
#[derive(Clone)]
pub struct LoopContext {
    /// The shared views of the process.
    pub views: Views,
    /// Acts as the loop's own service account or user.
    pub client: kube::Client,
    /// Writes events in the loop's name.
    pub recorder: Recorder,
    /// Wall clock, for time stamps.
    pub clock: SharedClock,
    /// Cancelled when the process ends or leadership is lost.
    pub shutdown: CancellationToken,
    /// Where the loop counts.
    pub metrics: LoopRegistry,
}

impl Debug for LoopContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoopContext").finish_non_exhaustive()
    }
}

/// A key rests for this many times the time that the look at it kept a thread busy: one that
/// changes all the time takes a fifth of a core.
const REST: u32 = 4;
/// The longest rest.
const LONGEST_REST: Duration = Duration::from_millis(100);

/// How a reconciliation ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to do until something changes.
    Done,
    /// Look again after this time, changed or not.
    After(Duration),
}

/// Reconciles keys until `shutdown`, at most `workers` at a time, never one key twice at once.
///
/// An error puts the key back with its growing wait and is logged with the key's name; a panic
/// counts as an error, so that one broken object does not end the loop. On shutdown running
/// reconciliations are dropped at their next await: loops are written to be killed anywhere.
pub async fn run_loop<K, F, Fut, E>(
    name: &'static str,
    workers: usize,
    queue: Arc<WorkQueue<K>>,
    shutdown: CancellationToken,
    reconcile: F,
) where
    K: Clone + Eq + Hash + Debug + Display,
    F: Fn(K) -> Fut,
    Fut: Future<Output = Result<Outcome, E>>,
    E: Display,
{
    let metrics = Arc::clone(queue.metrics());
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(()) = running.next(), if !running.is_empty() => {}
            key = queue.next(), if running.len() < workers.max(1) => {
                let Some(key) = key else { break };
                let span = tracing::debug_span!("reconcile", r#loop = name, %key);
                running.push(
                    work(name, key, &queue, &metrics, &reconcile).instrument(span),
                );
            }
        }
    }
    queue.close();
    tracing::debug!(r#loop = name, dropped = running.len(), "loop ended");
}

async fn work<K, F, Fut, E>(
    name: &'static str,
    key: K,
    queue: &WorkQueue<K>,
    metrics: &LoopMetrics,
    reconcile: &F,
) where
    K: Clone + Eq + Hash + Debug + Display,
    F: Fn(K) -> Fut,
    Fut: Future<Output = Result<Outcome, E>>,
    E: Display,
{
    LoopMetrics::bump(&metrics.reconciles);
    metrics.in_flight.fetch_add(1, Ordering::Relaxed);
    let began = Instant::now();
    let mut busy = Duration::ZERO;
    let mut reconciling = std::pin::pin!(AssertUnwindSafe(reconcile(key.clone())).catch_unwind());
    let ended = std::future::poll_fn(|cx| {
        let began = Instant::now();
        let polled = reconciling.as_mut().poll(cx);
        busy += began.elapsed();
        polled
    })
    .await;
    let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    metrics.work_micros.fetch_add(micros, Ordering::Relaxed);
    metrics.in_flight.fetch_sub(1, Ordering::Relaxed);
    match ended {
        Ok(Ok(Outcome::Done)) => queue.forget(&key),
        Ok(Ok(Outcome::After(wait))) => {
            queue.forget(&key);
            queue.add_after(key.clone(), wait);
        }
        Ok(Err(error)) => {
            LoopMetrics::bump(&metrics.errors);
            // The first failures are mostly conflicts that the next look resolves.
            if queue.failures(&key) < 3 {
                tracing::debug!(r#loop = name, %key, %error, "reconciliation failed, trying again");
            } else {
                tracing::warn!(r#loop = name, %key, %error, "reconciliation keeps failing");
            }
            queue.add_rate_limited(key.clone());
        }
        Err(_) => {
            LoopMetrics::bump(&metrics.errors);
            tracing::error!(r#loop = name, %key, "reconciliation panicked, trying again");
            queue.add_rate_limited(key.clone());
        }
    }
    queue.done(&key, (busy * REST).min(LONGEST_REST));
}
