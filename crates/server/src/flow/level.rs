//! A priority level: its seats and queues under a lock of its own, and the seats that requests
//! hold.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Schema;
use super::demand::Wanted;
use super::queues::{Arrival, Nanos, QueueView, Queues, Refusal, Seats, Tally, Way, Width};
use super::retry::Dropped;
use super::shares::{Config, Limits};

/// Somebody who waits.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) schema: Arc<Schema>,
    /// Who and where it is by the schema's distinguisher.
    pub(super) flow: Box<str>,
    pub(super) arrived: Nanos,
    serve: oneshot::Sender<Seats>,
}

/// Somebody who is served.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) schema: Arc<Schema>,
    /// Who and where it is by the schema's distinguisher.
    pub(super) flow: Box<str>,
    pub(super) arrived: Nanos,
    pub(super) seats: Seats,
}

#[derive(Debug)]
struct State {
    queues: Queues<Token>,
    config: Config,
    limits: Limits,
    wanted: Wanted,
    target: f64,
    /// It is not wanted any more and goes when it is idle.
    quiescing: bool,
    /// A task waits for seats to come free by themselves.
    armed: bool,
}

/// What a level can be asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures {
    pub(super) limits: Limits,
    pub(super) wanted: Wanted,
    pub(super) target: f64,
    pub(super) current: u32,
    pub(super) meter: f64,
    pub(super) waiting: u32,
    pub(super) executing: u32,
    pub(super) quiescing: bool,
    pub(super) tally: Tally,
}

/// A priority level.
#[derive(Debug)]
pub(super) struct Level {
    pub(super) name: String,
    pub(super) exempt: bool,
    /// When the door opened.
    began: Instant,
    /// The seats that one request may be reckoned to need; 0: as many as any may have.
    most: AtomicU32,
    pub(super) dropped: Dropped,
    state: Mutex<State>,
    /// Those who are served, by the numbers of their seats. Only a page for people looks at it.
    running: Mutex<HashMap<u64, Running>>,
    numbers: AtomicU64,
}

impl Level {
    pub(super) fn new(name: &str, began: Instant) -> Self {
        let now = nanos(began);
        Self {
            name: name.to_owned(),
            exempt: name == super::EXEMPT,
            began,
            most: AtomicU32::new(0),
            dropped: Dropped::default(),
            running: Mutex::default(),
            numbers: AtomicU64::new(0),
            state: Mutex::new(State {
                queues: Queues::new(now),
                config: Config::default(),
                limits: Limits::default(),
                wanted: Wanted::default(),
                target: 0.0,
                quiescing: false,
                armed: false,
            }),
        }
    }

    pub(super) fn now(&self) -> Nanos {
        nanos(self.began)
    }

    pub(super) fn most(&self) -> u32 {
        self.most.load(Ordering::Relaxed)
    }

    pub(super) fn config(&self) -> Config {
        self.state.lock().config
    }

    /// Takes over what its object says. A level that is new begins with `current` seats.
    pub(super) fn configure(
        self: &Arc<Self>,
        way: Way,
        config: Config,
        limits: Limits,
        new: Option<u32>,
    ) {
        let most = match way {
            // 15 percent of its seats, and no more than a hand of equal parts.
            Way::Queue(shape) => {
                let hand = u32::try_from(shape.hand).unwrap_or(u32::MAX).max(1);
                let part = (u64::from(limits.nominal) * 15).div_ceil(100);
                u32::try_from(part)
                    .unwrap_or(u32::MAX)
                    .min(limits.nominal / hand)
                    .max(1)
            }
            _ => 0,
        };
        self.most.store(most, Ordering::Relaxed);
        let mut state = self.state.lock();
        state.config = config;
        state.limits = limits;
        let current = new.unwrap_or_else(|| state.queues.limit());
        state.queues.configure(self.now(), way, current);
        state.quiescing = false;
        self.serve(&mut state);
    }

    /// It is not wanted any more: no schema leads here, and its share goes when it is idle.
    pub(super) fn quiesce(&self, limits: Limits) {
        let mut state = self.state.lock();
        state.limits = limits;
        state.quiescing = true;
    }

    /// Looks at what has been wanted since the last look.
    pub(super) fn look(&self) -> (Limits, Wanted, u32) {
        let now = self.now();
        let mut state = self.state.lock();
        state.queues.sync(now);
        let before = state.wanted;
        state.wanted = state.queues.demand().take(now, before);
        (state.limits, state.wanted, state.queues.limit())
    }

    /// Sets the limit that holds from now on.
    pub(super) fn adjust(self: &Arc<Self>, limit: u32, target: f64) {
        let now = self.now();
        let mut state = self.state.lock();
        state.target = target;
        state.queues.set_limit(now, limit);
        self.serve(&mut state);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.state.lock().queues.is_idle()
    }

    pub(super) fn is_quiescing(&self) -> bool {
        self.state.lock().quiescing
    }

    pub(super) fn figures(&self, now: Nanos) -> Figures {
        let mut state = self.state.lock();
        let meter = state.queues.meter(now);
        Figures {
            limits: state.limits,
            wanted: state.wanted,
            target: state.target,
            current: state.queues.limit(),
            meter,
            waiting: state.queues.waiting(),
            executing: state.queues.executing(),
            quiescing: state.quiescing,
            tally: state.queues.tally(),
        }
    }

    pub(super) fn views(&self) -> Vec<QueueView> {
        self.state.lock().queues.views().collect()
    }

    /// Shows each that waits: queue, place, width, and who it is.
    pub(super) fn waiters(&self, mut show: impl FnMut(usize, usize, Width, &Token)) {
        let state = self.state.lock();
        for (queue, place, width, token) in state.queues.waiters() {
            show(queue, place, width, token);
        }
    }

    /// Shows each that is served, in the order in which they came to be.
    pub(super) fn runners(&self, mut show: impl FnMut(&Running)) {
        let running = self.running.lock();
        let mut numbers: Vec<&u64> = running.keys().collect();
        numbers.sort_unstable();
        numbers
            .into_iter()
            .filter_map(|number| running.get(number))
            .for_each(&mut show);
    }

    /// Lets a request in, or makes it wait, or refuses it.
    pub(super) fn enter(
        self: &Arc<Self>,
        schema: &Arc<Schema>,
        width: Width,
        hash: u64,
        flow: &str,
        watch: bool,
    ) -> Entry {
        let counts = &schema.counts;
        counts.seats.observe(u64::from(width.most()) * SCALE);
        let now = self.now();
        let mut state = self.state.lock();
        match state.queues.arrive(now, width, hash) {
            Arrival::Served(seats) => {
                drop(state);
                if !self.exempt {
                    counts.waited.observe(0);
                }
                Entry::Seat(Seat::new(schema, seats, watch, flow.into(), now))
            }
            Arrival::Refused(why) => {
                drop(state);
                counts.refuse(why);
                if !self.exempt {
                    counts.waited_in_vain.observe(0);
                }
                Entry::Refused
            }
            Arrival::Waits(queue) => {
                let (serve, served) = oneshot::channel();
                let token = Token {
                    schema: Arc::clone(schema),
                    flow: flow.into(),
                    arrived: now,
                    serve,
                };
                counts.waiting.fetch_add(1, Ordering::Relaxed);
                counts
                    .waiting_seats
                    .fetch_add(i64::from(width.most()), Ordering::Relaxed);
                let number = state.queues.enqueue(queue, width, token);
                counts
                    .lengths
                    .observe(state.queues.length(queue) as u64 * SCALE);
                // A narrow one may fit where the one that was next did not.
                self.serve(&mut state);
                Entry::Place(Place {
                    schema: Arc::clone(schema),
                    flow: flow.into(),
                    queue,
                    number,
                    width,
                    arrived: now,
                    served,
                    settled: false,
                    watch,
                })
            }
        }
    }

    /// Serves whom there are seats for, and sees to it that seats which come free by themselves
    /// are given out then.
    fn serve(self: &Arc<Self>, state: &mut State) {
        state.queues.dispatch(
            |token, seats| {
                let counts = &token.schema.counts;
                counts.waiting.fetch_sub(1, Ordering::Relaxed);
                let most = i64::from(seats.width().most());
                counts.waiting_seats.fetch_sub(most, Ordering::Relaxed);
                // Whoever does not wait any more has taken himself out under this lock.
                let taken = token.serve.send(seats).is_ok();
                debug_assert!(taken, "somebody who does not wait was served");
            },
            |next| {
                let counts = &next.schema.counts;
                counts.unaccommodated.fetch_add(1, Ordering::Relaxed);
            },
        );
        let Some(at) = state.queues.wakes_at().filter(|_| !state.armed) else {
            return;
        };
        // Without a runtime nobody waits who could be served.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        state.armed = true;
        let level = Arc::clone(self);
        runtime.spawn(async move {
            tokio::time::sleep_until(level.began + Duration::from_nanos(at)).await;
            let now = level.now().max(at);
            let mut state = level.state.lock();
            state.armed = false;
            state.queues.sync(now);
            level.serve(&mut state);
        });
    }

    fn leave(self: &Arc<Self>, seats: Seats) -> Nanos {
        let now = self.now();
        let mut state = self.state.lock();
        state.queues.finish(now, seats);
        if state.queues.waiting() > 0 {
            self.serve(&mut state);
        }
        now
    }

    fn give_up(self: &Arc<Self>, queue: u32, number: u64, cancelled: bool) -> bool {
        let now = self.now();
        let mut state = self.state.lock();
        let was_there = state.queues.give_up(now, queue, number, cancelled);
        if was_there {
            // It may have been the one that did not fit.
            self.serve(&mut state);
        }
        was_there
    }
}

/// Histograms count in billionths.
pub(super) const SCALE: u64 = 1_000_000_000;

fn nanos(began: Instant) -> Nanos {
    Nanos::try_from(began.elapsed().as_nanos()).unwrap_or(Nanos::MAX)
}

/// What becomes of a request at its level.
#[derive(Debug)]
pub(super) enum Entry {
    /// It is served now.
    Seat(Seat),
    /// It waits.
    Place(Place),
    /// It is not served.
    Refused,
}

/// A seat in a level, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    schema: Arc<Schema>,
    seats: Seats,
    watch: bool,
    number: u64,
}

impl Seat {
    fn new(
        schema: &Arc<Schema>,
        seats: Seats,
        watch: bool,
        flow: Box<str>,
        arrived: Nanos,
    ) -> Self {
        let level = &schema.level;
        let number = level.numbers.fetch_add(1, Ordering::Relaxed);
        let running = Running {
            schema: Arc::clone(schema),
            flow,
            arrived,
            seats,
        };
        level.running.lock().insert(number, running);
        let counts = &schema.counts;
        counts.dispatched.fetch_add(1, Ordering::Relaxed);
        counts.executing.fetch_add(1, Ordering::Relaxed);
        let most = i64::from(seats.width().most());
        counts.executing_seats.fetch_add(most, Ordering::Relaxed);
        Self {
            schema: Arc::clone(schema),
            seats,
            watch,
            number,
        }
    }

    pub(crate) fn schema(&self) -> &Schema {
        &self.schema
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let level = &self.schema.level;
        level.running.lock().remove(&self.number);
        let ended = level.leave(self.seats);
        let counts = &self.schema.counts;
        counts.executing.fetch_sub(1, Ordering::Relaxed);
        let most = i64::from(self.seats.width().most());
        counts.executing_seats.fetch_sub(most, Ordering::Relaxed);
        let took = ended.saturating_sub(self.seats.since());
        if self.watch {
            counts.watches.observe(took);
        } else {
            counts.regular.observe(took);
        }
    }
}

/// A place in a queue, left when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    schema: Arc<Schema>,
    flow: Box<str>,
    queue: u32,
    number: u64,
    width: Width,
    arrived: Nanos,
    served: oneshot::Receiver<Seats>,
    settled: bool,
    watch: bool,
}

impl Place {
    /// Waits for a seat; `None`: not any longer than that.
    pub(super) async fn wait(mut self, most: Duration) -> Option<Seat> {
        let served = tokio::time::timeout(most, &mut self.served).await;
        let seats = match served {
            Ok(seats) => seats.ok(),
            Err(_) => self.leave(false),
        };
        self.settled = true;
        let level = &self.schema.level;
        let waited = level.now().saturating_sub(self.arrived);
        let counts = &self.schema.counts;
        match seats {
            Some(seats) => {
                counts.waited.observe(waited);
                let flow = std::mem::take(&mut self.flow);
                Some(Seat::new(
                    &self.schema,
                    seats,
                    self.watch,
                    flow,
                    self.arrived,
                ))
            }
            None => {
                counts.waited_in_vain.observe(waited);
                None
            }
        }
    }

    /// Goes out of the queue; answers the seats that were given meanwhile.
    fn leave(&mut self, cancelled: bool) -> Option<Seats> {
        let level = &self.schema.level;
        if !level.give_up(self.queue, self.number, cancelled) {
            return self.served.try_recv().ok();
        }
        let counts = &self.schema.counts;
        counts.waiting.fetch_sub(1, Ordering::Relaxed);
        let most = i64::from(self.width.most());
        counts.waiting_seats.fetch_sub(most, Ordering::Relaxed);
        counts.refuse(Refusal::TimeOut);
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        // The client has gone away.
        if let Some(seats) = self.leave(true) {
            self.schema.level.leave(seats);
        }
    }
}
