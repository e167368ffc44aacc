//! Where events go: at once while the request waits, or in batches behind its back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::counts::Counts;
use super::log::Lines;
use super::webhook::Webhook;

/// Whether a request waits for its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They are sent in batches meanwhile; when too many wait, the newest are lost.
    Batch,
    /// It waits until they are there.
    Blocking,
    /// As [`Mode::Blocking`], and it is refused when it can't be recorded that it was received.
    BlockingStrict,
}

/// How events are sent in batches.
#[derive(Debug, Clone)]
pub struct Batch {
    /// So many events wait at most.
    pub buffer_size: usize,
    /// So many are sent together at most.
    pub max_size: usize,
    /// What has waited this long is sent.
    pub max_wait: Duration,
    /// Batches a second, and how many at once after a quiet time; `None`: any number.
    pub throttle: Option<(f64, u32)>,
}

/// What is at the end.
#[derive(Debug)]
pub(super) enum Target {
    Log(Lines),
    Webhook(Webhook),
}

impl Target {
    /// As in metrics.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Log(_) => "log",
            Self::Webhook(_) => "webhook",
        }
    }

    fn write(&self, lines: &Lines, events: &[Bytes], counts: &Counts) -> bool {
        let mut well = true;
        for event in events {
            if let Err(error) = lines.write(event) {
                counts.failed(self.name(), 1);
                tracing::error!(%error, "an audit event can't be written");
                well = false;
            }
        }
        well
    }

    async fn send(&self, events: &[Bytes], counts: &Counts) -> bool {
        match self {
            Self::Log(lines) => self.write(lines, events, counts),
            Self::Webhook(webhook) => match webhook.send(events).await {
                Ok(()) => true,
                Err(why) => {
                    counts.failed(self.name(), events.len());
                    let lost = events.len();
                    tracing::error!(lost, why, "audit events can't be sent");
                    false
                }
            },
        }
    }
}

/// A place that events go to.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) target: Arc<Target>,
    pub(super) mode: Mode,
    pub(super) truncates: bool,
    /// The lines are in the old form of text.
    pub(super) legacy: bool,
    counts: Arc<Counts>,
    queue: Option<mpsc::Sender<Bytes>>,
    worker: Mutex<Option<JoinHandle<()>>>,
    stop: CancellationToken,
}

/// What is still to be done for an event.
pub(super) enum Sent {
    Done(bool),
    Later(BoxFuture<'static, bool>),
}

impl Sink {
    /// Must be called within a runtime when it sends in batches.
    pub(super) fn new(
        target: Target,
        mode: Mode,
        batch: &Batch,
        truncates: bool,
        legacy: bool,
        counts: Arc<Counts>,
    ) -> Self {
        let target = Arc::new(target);
        let stop = CancellationToken::new();
        let (queue, worker) = if mode == Mode::Batch {
            let (queue, events) = mpsc::channel(batch.buffer_size.max(1));
            let run = run(
                Arc::clone(&target),
                events,
                batch.clone(),
                Arc::clone(&counts),
                stop.clone(),
            );
            (Some(queue), Some(tokio::spawn(run)))
        } else {
            (None, None)
        };
        Self {
            target,
            mode,
            truncates,
            legacy,
            counts,
            queue,
            worker: Mutex::new(worker),
            stop,
        }
    }

    /// Takes an event; answers whether it is where it should be.
    pub(super) fn take(&self, event: Bytes) -> Sent {
        let strict = self.mode == Mode::BlockingStrict;
        if let Some(queue) = &self.queue {
            if queue.try_send(event).is_err() {
                self.counts.failed("buffered", 1);
                tracing::error!("an audit event is lost: audit buffer queue blocked");
            }
            return Sent::Done(true);
        }
        match &*self.target {
            Target::Log(lines) => {
                let well = self.target.write(lines, &[event], &self.counts);
                Sent::Done(well || !strict)
            }
            Target::Webhook(_) => {
                let (target, counts) = (Arc::clone(&self.target), Arc::clone(&self.counts));
                Sent::Later(Box::pin(async move {
                    target.send(&[event], &counts).await || !strict
                }))
            }
        }
    }

    /// Sends what waits, and ends.
    pub(super) async fn close(&self) {
        self.stop.cancel();
        let worker = self.worker.lock().take();
        if let Some(worker) = worker
            && let Err(error) = worker.await
        {
            tracing::error!(%error, "the audit worker ended badly");
        }
    }
}

/// Sends events in batches until it is told to stop; then what is left.
async fn run(
    target: Arc<Target>,
    mut events: mpsc::Receiver<Bytes>,
    batch: Batch,
    counts: Arc<Counts>,
    stop: CancellationToken,
) {
    let mut sending = JoinSet::new();
    let mut throttle = batch.throttle.map(Throttle::new);
    loop {
        let stopping = stop.is_cancelled();
        if stopping {
            events.close();
        }
        let collected = collect(&mut events, &batch, &stop, stopping).await;
        if collected.is_empty() {
            if stopping || events.is_closed() && events.is_empty() {
                break;
            }
            continue;
        }
        if let Some(throttle) = &mut throttle {
            throttle.accept().await;
        }
        // One that is slow does not hold up the others.
        let (target, counts) = (Arc::clone(&target), Arc::clone(&counts));
        match &*target {
            Target::Log(_) => {
                target.send(&collected, &counts).await;
            }
            Target::Webhook(_) => {
                sending.spawn(async move { target.send(&collected, &counts).await });
            }
        }
        while sending.try_join_next().is_some() {}
    }
    sending.join_all().await;
}

async fn collect(
    events: &mut mpsc::Receiver<Bytes>,
    batch: &Batch,
    stop: &CancellationToken,
    stopping: bool,
) -> Vec<Bytes> {
    let until = Instant::now() + batch.max_wait;
    let most = batch.max_size.max(1);
    let mut collected = Vec::new();
    while collected.len() < most {
        let event = if stopping {
            events.recv().await
        } else {
            tokio::select! {
                // What waits goes along with the others, also when the server ends.
                biased;
                event = events.recv() => event,
                // A lone line need not wait for others.
                () = tokio::time::sleep_until(until), if most > 1 => None,
                () = stop.cancelled() => None,
            }
        };
        match event {
            Some(event) => collected.push(event),
            None => break,
        }
    }
    collected
}

/// A token bucket.
struct Throttle {
    per_second: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
}

impl Throttle {
    fn new((per_second, burst): (f64, u32)) -> Self {
        let burst = f64::from(burst.max(1));
        Self {
            per_second,
            burst,
            tokens: burst,
            at: Instant::now(),
        }
    }

    async fn accept(&mut self) {
        let now = Instant::now();
        let gained = now.duration_since(self.at).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + gained).min(self.burst) - 1.0;
        self.at = now;
        if self.tokens < 0.0 && self.per_second > 0.0 {
            let wait = -self.tokens / self.per_second;
            tokio::time::sleep(Duration::from_secs_f64(wait)).await;
        }
    }
}
