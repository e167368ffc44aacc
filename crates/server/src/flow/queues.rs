//! The queues and seats of one priority level: fair queuing in virtual time, as KEP-1040 has it.
//!
//! A request takes one of the few queues that its flow was dealt, and the queue that would finish
//! its oldest request first in virtual time is served next. All is plain state: time comes in as
//! nanoseconds since the door opened, and who is served goes out through a closure. What never
//! lives here: locks, timers, tasks, and anything that knows what a request is.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::deal::{HAND_MOST, deal};
use super::demand::Demand;

/// Nanoseconds since the door opened.
pub(super) type Nanos = u64;
/// Work, and the progress meter that it is measured against: seats times nanoseconds. 128 bits
/// never run over, so that the meter need not be turned back.
pub(super) type Work = i128;

/// How long a request is taken to be served before anything is known, as by the reference.
const SERVICE: Nanos = 3_000_000;

/// How much room a request takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Width {
    /// Seats while it is served.
    pub(super) initial: u32,
    /// Seats for what it causes afterwards (events for watchers).
    pub(super) last: u32,
    /// How long these are held when it has been answered.
    pub(super) lingers: Nanos,
}

impl Width {
    /// One seat, and nothing afterwards.
    pub(super) const ONE: Self = Self::of(1);

    /// So many seats, and nothing afterwards.
    pub(super) const fn of(seats: u32) -> Self {
        Self {
            initial: seats,
            last: 0,
            lingers: 0,
        }
    }

    /// The seats that it holds from its start to its end.
    pub(super) fn most(self) -> u32 {
        self.initial.max(self.last)
    }

    fn last_work(self) -> Work {
        Work::from(self.last) * Work::from(self.lingers)
    }

    fn work(self) -> Work {
        Work::from(self.initial) * Work::from(SERVICE) + self.last_work()
    }
}

/// The queues of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// How many there are.
    pub(super) queues: usize,
    /// How many of them a flow is dealt.
    pub(super) hand: usize,
    /// How many requests wait in one at most.
    pub(super) length: usize,
}

/// What becomes of requests for which there are no seats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// There always are.
    Exempt,
    /// They are refused.
    Reject,
    /// They wait.
    Queue(Shape),
}

/// Seats that a request holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seats {
    queue: Option<u32>,
    width: Width,
    since: Nanos,
}

impl Seats {
    /// How wide the request is.
    pub(super) fn width(&self) -> Width {
        self.width
    }

    /// The queue that it came from, or would have waited in.
    pub(super) fn queue(&self) -> Option<u32> {
        self.queue
    }

    /// When it began to be served.
    pub(super) fn since(&self) -> Nanos {
        self.since
    }
}

/// What becomes of a request that arrives.
#[derive(Debug)]
pub(super) enum Arrival {
    /// It is served now.
    Served(Seats),
    /// It is to wait in this queue: [`Queues::enqueue`].
    Waits(u32),
    /// Its queue is full, or there are no queues and no seats.
    Refused(Refusal),
}

/// Why a request is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its queue is full.
    QueueFull,
    /// There are no seats, and the level has no queues.
    ConcurrencyLimit,
    /// It has waited too long.
    TimeOut,
}

impl Refusal {
    /// As in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::ConcurrencyLimit => "concurrency-limit",
            Self::TimeOut => "time-out",
        }
    }
}

#[derive(Debug)]
struct Waiting<T> {
    number: u64,
    width: Width,
    /// The meter when it arrived.
    arrived: Work,
    token: T,
}

#[derive(Debug)]
struct Queue<T> {
    waiting: VecDeque<Waiting<T>>,
    /// Of those that wait.
    work: Work,
    /// The meter at which the next one is served in the virtual world.
    next: Work,
    executing: u32,
    seats: u32,
}

impl<T> Queue<T> {
    fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            work: 0,
            next: 0,
            executing: 0,
            seats: 0,
        }
    }

    fn is_active(&self) -> bool {
        self.executing > 0 || !self.waiting.is_empty()
    }

    /// Nobody is served in the virtual world before he has arrived: a queue that did not use its
    /// share does not save it up.
    fn bound(&mut self) {
        if let Some(oldest) = self.waiting.front() {
            self.next = self.next.max(oldest.arrived);
        }
    }
}

/// Seats that are held for a while after an answer.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Lingering {
    until: Nanos,
    queue: Option<u32>,
    seats: u32,
}

/// How it looks in one queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueView {
    pub(super) waiting: usize,
    pub(super) executing: u32,
    pub(super) seats: u32,
    pub(super) next: Work,
    pub(super) initial_seats: u64,
    pub(super) most_seats: u64,
    pub(super) work: Work,
}

/// Counters of a level since it is there.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) dispatched: u64,
    pub(super) rejected: u64,
    pub(super) timed_out: u64,
    pub(super) cancelled: u64,
}

/// The seats of a level and the queues before them. `T` is whoever waits.
#[derive(Debug)]
pub(super) struct Queues<T> {
    way: Way,
    limit: u32,
    queues: Vec<Queue<T>>,
    meter: Work,
    now: Nanos,
    /// The queue that was served last.
    robin: usize,
    arrivals: usize,
    numbers: u64,
    waiting: u32,
    seats_waiting: u32,
    executing: u32,
    seats: u32,
    /// Queues in which somebody waits or is served.
    active: u32,
    lingering: BinaryHeap<Reverse<Lingering>>,
    demand: Demand,
    tally: Tally,
}

impl<T> Queues<T> {
    pub(super) fn new(now: Nanos) -> Self {
        Self {
            way: Way::Reject,
            limit: 0,
            queues: Vec::new(),
            meter: 0,
            now,
            robin: 0,
            arrivals: 0,
            numbers: 0,
            waiting: 0,
            seats_waiting: 0,
            executing: 0,
            seats: 0,
            active: 0,
            lingering: BinaryHeap::new(),
            demand: Demand::new(now),
            tally: Tally::default(),
        }
    }

    /// Takes over settings. Queues that are too many go when they are empty; whoever waits in them
    /// is still served.
    pub(super) fn configure(&mut self, now: Nanos, way: Way, limit: u32) {
        self.sync(now);
        self.way = way;
        self.limit = limit;
        if let Way::Queue(shape) = way {
            while self.queues.len() < shape.queues {
                self.queues.push(Queue::new());
            }
        }
        self.trim();
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    pub(super) fn set_limit(&mut self, now: Nanos, limit: u32) {
        self.sync(now);
        self.limit = limit;
    }

    /// Nobody waits and nobody is served.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting == 0 && self.executing == 0
    }

    pub(super) fn waiting(&self) -> u32 {
        self.waiting
    }

    pub(super) fn executing(&self) -> u32 {
        self.executing
    }

    #[cfg(test)]
    pub(super) fn seats(&self) -> u32 {
        self.seats
    }

    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    /// The progress meter in seat-seconds.
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    pub(super) fn meter(&mut self, now: Nanos) -> f64 {
        self.sync(now);
        self.meter as f64 / 1e9
    }

    pub(super) fn demand(&mut self) -> &mut Demand {
        &mut self.demand
    }

    pub(super) fn views(&self) -> impl Iterator<Item = QueueView> {
        self.queues.iter().map(|queue| QueueView {
            waiting: queue.waiting.len(),
            executing: queue.executing,
            seats: queue.seats,
            next: queue.next,
            initial_seats: sum(&queue.waiting, |width| width.initial),
            most_seats: sum(&queue.waiting, Width::most),
            work: queue.work,
        })
    }

    /// Whoever waits: the index of the queue, the place in it, how wide he is.
    pub(super) fn waiters(&self) -> impl Iterator<Item = (usize, usize, Width, &T)> {
        self.queues.iter().enumerate().flat_map(|(index, queue)| {
            let waiting = queue.waiting.iter().enumerate();
            waiting.map(move |(place, one)| (index, place, one.width, &one.token))
        })
    }

    /// When seats come free by themselves while somebody waits for them.
    pub(super) fn wakes_at(&self) -> Option<Nanos> {
        let first = self.lingering.peek().filter(|_| self.waiting > 0);
        first.map(|Reverse(first)| first.until)
    }

    /// Lets time pass: the meter moves on, and seats that were held for a while come free.
    pub(super) fn sync(&mut self, now: Nanos) {
        while let Some(Reverse(first)) = self.lingering.peek()
            && first.until <= now
        {
            let Some(Reverse(first)) = self.lingering.pop() else {
                break;
            };
            self.advance(first.until);
            self.release(first.queue, first.seats);
        }
        self.advance(now);
    }

    fn advance(&mut self, now: Nanos) {
        let past = now.saturating_sub(self.now);
        self.now = self.now.max(now);
        if self.active > 0 {
            let wanted = self
                .seats
                .saturating_add(self.seats_waiting)
                .min(self.limit);
            let work = past.saturating_mul(u64::from(wanted)) / u64::from(self.active);
            self.meter += Work::from(work);
        }
    }

    /// A request is there. One that is to wait must be enqueued before anything else happens.
    pub(super) fn arrive(&mut self, now: Nanos, width: Width, hash: u64) -> Arrival {
        self.sync(now);
        let Way::Queue(shape) = self.way else {
            if self.fits(width.most()) {
                return Arrival::Served(self.start(None, width));
            }
            self.tally.rejected += 1;
            return Arrival::Refused(Refusal::ConcurrencyLimit);
        };
        let index = self.choose(shape, hash);
        let is_full = self.seats >= self.limit;
        let free = self.waiting == 0 && !is_full && self.fits(width.most());
        let meter = self.meter;
        let Some(queue) = usize::try_from(index)
            .ok()
            .and_then(|index| self.queues.get_mut(index))
        else {
            self.tally.rejected += 1;
            return Arrival::Refused(Refusal::ConcurrencyLimit);
        };
        if is_full && queue.waiting.len() >= shape.length {
            self.tally.rejected += 1;
            return Arrival::Refused(Refusal::QueueFull);
        }
        if !queue.is_active() {
            queue.next = meter;
        }
        if free {
            // It would be the only one that waits, and be served at once.
            queue.next = queue.next.max(meter);
            return Arrival::Served(self.start(Some(index), width));
        }
        Arrival::Waits(index)
    }

    /// Puts a request that arrived now behind those that wait in a queue; answers its number.
    pub(super) fn enqueue(&mut self, index: u32, width: Width, token: T) -> u64 {
        let (number, arrived) = (self.numbers, self.meter);
        self.numbers += 1;
        let Some(queue) = self.queues.get_mut(index as usize) else {
            return number;
        };
        self.active += u32::from(!queue.is_active());
        queue.work += width.work();
        queue.waiting.push_back(Waiting {
            number,
            width,
            arrived,
            token,
        });
        queue.bound();
        self.waiting += 1;
        self.seats_waiting += width.most();
        self.note_demand();
        number
    }

    /// How many wait in a queue.
    pub(super) fn length(&self, index: u32) -> usize {
        self.queues
            .get(index as usize)
            .map_or(0, |queue| queue.waiting.len())
    }

    /// A request does not wait any longer. `false`: it does not, it has been served already.
    pub(super) fn give_up(&mut self, now: Nanos, index: u32, number: u64, cancelled: bool) -> bool {
        self.sync(now);
        let Some(queue) = self.queues.get_mut(index as usize) else {
            return false;
        };
        let Some(gone) = queue
            .waiting
            .iter()
            .position(|one| one.number == number)
            .and_then(|place| queue.waiting.remove(place))
        else {
            return false;
        };
        queue.work -= gone.width.work();
        queue.bound();
        self.active -= u32::from(!queue.is_active());
        self.waiting -= 1;
        self.seats_waiting -= gone.width.most();
        self.tally.rejected += 1;
        if cancelled {
            self.tally.cancelled += 1;
        } else {
            self.tally.timed_out += 1;
        }
        self.note_demand();
        self.trim();
        true
    }

    /// A request has been answered.
    pub(super) fn finish(&mut self, now: Nanos, seats: Seats) {
        self.sync(now);
        self.executing -= 1;
        let width = seats.width;
        if let Some(queue) = seats.queue.and_then(|at| self.queues.get_mut(at as usize)) {
            queue.executing -= 1;
            // What it really took takes the place of what it was taken to take.
            let took = Work::from(now.saturating_sub(seats.since));
            queue.next -= Work::from(width.initial) * (Work::from(SERVICE) - took);
            queue.bound();
            self.active -= u32::from(!queue.is_active());
        }
        if width.lingers == 0 {
            self.release(seats.queue, width.most());
        } else {
            self.lingering.push(Reverse(Lingering {
                until: self.now.saturating_add(width.lingers),
                queue: seats.queue,
                seats: width.most(),
            }));
        }
    }

    /// Serves whom there are seats for. `blocked` is told who is next and does not fit.
    pub(super) fn dispatch(&mut self, mut serve: impl FnMut(T, Seats), blocked: impl FnOnce(&T)) {
        while self.waiting > 0 && self.seats < self.limit {
            let Some(index) = self.next_queue() else {
                return;
            };
            let Some(head) = self.queues[index].waiting.front() else {
                return;
            };
            if !self.fits(head.width.most()) {
                blocked(&head.token);
                return;
            }
            let Some(head) = self.queues[index].waiting.pop_front() else {
                return;
            };
            self.robin = index;
            let queue = &mut self.queues[index];
            queue.work -= head.width.work();
            // Between here and the start nobody looks at what is active.
            self.active -= u32::from(!queue.is_active());
            self.waiting -= 1;
            self.seats_waiting -= head.width.most();
            let mut width = head.width;
            if width.last > self.limit && self.limit > 0 {
                // As much work, on fewer seats for longer.
                let per_seat = width.last_work() / Work::from(self.limit);
                width.last = self.limit;
                width.lingers = Nanos::try_from(per_seat).unwrap_or(Nanos::MAX);
            }
            let seats = self.start(u32::try_from(index).ok(), width);
            self.queues[index].bound();
            serve(head.token, seats);
        }
    }

    fn start(&mut self, index: Option<u32>, width: Width) -> Seats {
        if let Some(queue) = index.and_then(|index| self.queues.get_mut(index as usize)) {
            self.active += u32::from(!queue.is_active());
            queue.executing += 1;
            queue.seats += width.most();
            queue.next += width.work();
        }
        self.executing += 1;
        self.seats += width.most();
        self.tally.dispatched += 1;
        self.note_demand();
        Seats {
            queue: index,
            width,
            since: self.now,
        }
    }

    fn release(&mut self, index: Option<u32>, seats: u32) {
        self.seats -= seats;
        if let Some(queue) = index.and_then(|index| self.queues.get_mut(index as usize)) {
            queue.seats -= seats;
        }
        self.note_demand();
        self.trim();
    }

    fn note_demand(&mut self) {
        self.demand
            .set(self.now, self.seats.saturating_add(self.seats_waiting));
    }

    /// Takes away queues beyond those that are wanted, from the end, when they are empty.
    fn trim(&mut self) {
        let wanted = match self.way {
            Way::Queue(shape) => shape.queues,
            _ => 0,
        };
        while self.queues.len() > wanted
            && self
                .queues
                .last()
                .is_some_and(|queue| !queue.is_active() && queue.seats == 0)
        {
            self.queues.pop();
        }
        if self.robin >= self.queues.len() {
            self.robin = 0;
        }
    }

    fn fits(&self, seats: u32) -> bool {
        if self.way == Way::Exempt {
            return true;
        }
        if seats > self.limit {
            // Wider than the whole level: it is served alone.
            return self.executing == 0;
        }
        self.seats.saturating_add(seats) <= self.limit
    }

    /// The queue of a flow's hand in which the least work waits. The hand is looked through from
    /// another card each time, so that hands that overlap do not favour one.
    fn choose(&mut self, shape: Shape, hash: u64) -> u32 {
        let mut hand = [0; HAND_MOST];
        let hand = deal(shape.queues, shape.hand, hash, &mut hand);
        let offset = self.arrivals % hand.len().max(1);
        self.arrivals = self.arrivals.wrapping_add(1);
        let (before, after) = hand.split_at(offset);
        let mut best = (Work::MAX, 0);
        for &index in after.iter().chain(before) {
            let work = self
                .queues
                .get(index as usize)
                .map_or(0, |queue| queue.work);
            if work < best.0 {
                best = (work, index);
            }
        }
        best.1
    }

    /// The queue whose oldest request would be done first in the virtual world; round robin among
    /// equals.
    fn next_queue(&self) -> Option<usize> {
        let count = self.queues.len();
        let mut best: Option<(Work, usize)> = None;
        for step in 1..=count {
            let index = (self.robin + step) % count;
            let queue = &self.queues[index];
            let Some(oldest) = queue.waiting.front() else {
                continue;
            };
            let done = queue.next + oldest.width.work();
            if best.is_none_or(|(least, _)| done < least) {
                best = Some((done, index));
            }
        }
        best.map(|(_, index)| index)
    }
}

fn sum<T>(waiting: &VecDeque<Waiting<T>>, seats: impl Fn(Width) -> u32) -> u64 {
    waiting.iter().map(|one| u64::from(seats(one.width))).sum()
}

#[cfg(test)]
#[path = "queues_tests.rs"]
mod tests;
