//! What is counted for each schema in its level, and for each level; as Prometheus text under the
//! reference's names (`apiserver_flowcontrol_…`).

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::queues::Refusal;
use super::{FlowControl, Level};
use crate::metrics::{Histogram, head};

const LENGTHS: &[f64] = &[0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
const DURATIONS: &[f64] = &[
    0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0,
];
const SEATS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];

/// Counters of the requests of one schema in one level.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) schema: String,
    pub(super) level: String,
    pub(super) dispatched: AtomicU64,
    pub(super) unaccommodated: AtomicU64,
    queue_full: AtomicU64,
    concurrency_limit: AtomicU64,
    timed_out: AtomicU64,
    pub(super) waiting: AtomicI64,
    pub(super) waiting_seats: AtomicI64,
    pub(super) executing: AtomicI64,
    pub(super) executing_seats: AtomicI64,
    pub(super) lengths: Histogram,
    pub(super) waited: Histogram,
    pub(super) waited_in_vain: Histogram,
    pub(super) regular: Histogram,
    pub(super) watches: Histogram,
    pub(super) seats: Histogram,
}

impl Counts {
    pub(super) fn new(schema: &str, level: &str) -> Self {
        Self {
            schema: schema.to_owned(),
            level: level.to_owned(),
            dispatched: AtomicU64::default(),
            unaccommodated: AtomicU64::default(),
            queue_full: AtomicU64::default(),
            concurrency_limit: AtomicU64::default(),
            timed_out: AtomicU64::default(),
            waiting: AtomicI64::default(),
            waiting_seats: AtomicI64::default(),
            executing: AtomicI64::default(),
            executing_seats: AtomicI64::default(),
            lengths: Histogram::new(LENGTHS),
            waited: Histogram::new(DURATIONS),
            waited_in_vain: Histogram::new(DURATIONS),
            regular: Histogram::new(DURATIONS),
            watches: Histogram::new(DURATIONS),
            seats: Histogram::new(SEATS),
        }
    }

    fn refusals(&self, why: Refusal) -> &AtomicU64 {
        match why {
            Refusal::QueueFull => &self.queue_full,
            Refusal::ConcurrencyLimit => &self.concurrency_limit,
            Refusal::TimeOut => &self.timed_out,
        }
    }

    pub(super) fn refuse(&self, why: Refusal) {
        self.refusals(why).fetch_add(1, Ordering::Relaxed);
    }

    /// Labels of this schema and level, with a comma behind them for more.
    fn labels(&self) -> String {
        format!(
            "priority_level=\"{}\",flow_schema=\"{}\"",
            self.level, self.schema
        )
    }
}

/// The series of all schemas and levels.
pub(super) fn text(flow: &FlowControl) -> String {
    let mut out = String::new();
    let counts = flow.all_counts();
    schemas(&mut out, &counts);
    let now = flow.now();
    let mut levels = flow.levels();
    levels.sort_by(|a, b| a.name.cmp(&b.name));
    self::levels(&mut out, &levels, now);
    out.push_str(
        "# HELP apiserver_flowcontrol_seat_fair_frac Fair fraction of server's concurrency to \
         allocate to each priority level that can use it\n\
         # TYPE apiserver_flowcontrol_seat_fair_frac gauge\n",
    );
    // Writing into a String can't fail.
    writeln!(
        out,
        "apiserver_flowcontrol_seat_fair_frac {}",
        flow.fraction()
    )
    .unwrap_or_default();
    out
}

fn schemas(out: &mut String, counts: &[Arc<Counts>]) {
    type Read<N> = fn(&Counts) -> N;
    let counters: [(&str, &str, Read<u64>); 2] = [
        (
            "dispatched_requests_total",
            "Number of requests executed by API Priority and Fairness subsystem",
            |one| one.dispatched.load(Ordering::Relaxed),
        ),
        (
            "request_dispatch_no_accommodation_total",
            "Number of times a dispatch attempt resulted in a non accommodation due to lack of \
             available seats",
            |one| one.unaccommodated.load(Ordering::Relaxed),
        ),
    ];
    for (name, help, read) in counters {
        let name = format!("apiserver_flowcontrol_{name}");
        head(out, &name, "counter", help);
        for one in counts {
            writeln!(out, "{name}{{{}}} {}", one.labels(), read(one)).unwrap_or_default();
        }
    }
    let name = "apiserver_flowcontrol_rejected_requests_total";
    let help = "Number of requests rejected by API Priority and Fairness subsystem";
    head(out, name, "counter", help);
    for one in counts {
        for why in [
            Refusal::QueueFull,
            Refusal::ConcurrencyLimit,
            Refusal::TimeOut,
        ] {
            let count = one.refusals(why).load(Ordering::Relaxed);
            if count > 0 {
                let labels = one.labels();
                let why = why.as_str();
                writeln!(out, "{name}{{{labels},reason=\"{why}\"}} {count}").unwrap_or_default();
            }
        }
    }
    let gauges: [(&str, &str, Read<i64>); 4] = [
        (
            "current_inqueue_requests",
            "Number of requests currently pending in queues of the API Priority and Fairness \
             subsystem",
            |one| one.waiting.load(Ordering::Relaxed),
        ),
        (
            "current_inqueue_seats",
            "Number of seats currently pending in queues of the API Priority and Fairness \
             subsystem",
            |one| one.waiting_seats.load(Ordering::Relaxed),
        ),
        (
            "current_executing_requests",
            "Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage \
             in the API Priority and Fairness subsystem",
            |one| one.executing.load(Ordering::Relaxed),
        ),
        (
            "current_executing_seats",
            "Concurrency (number of seats) occupied by the currently executing (initial stage for \
             a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem",
            |one| one.executing_seats.load(Ordering::Relaxed),
        ),
    ];
    for (name, help, read) in gauges {
        let name = format!("apiserver_flowcontrol_{name}");
        head(out, &name, "gauge", help);
        for one in counts {
            writeln!(out, "{name}{{{}}} {}", one.labels(), read(one)).unwrap_or_default();
        }
    }
    type Series = (&'static str, fn(&Counts) -> &Histogram);
    let histograms: [(&str, &str, &[Series]); 4] = [
        (
            "request_queue_length_after_enqueue",
            "Length of queue in the API Priority and Fairness subsystem, as seen by each request \
             after it is enqueued",
            &[("", |one| &one.lengths)],
        ),
        (
            "request_wait_duration_seconds",
            "Length of time a request spent waiting in its queue",
            &[
                (",execute=\"true\"", |one| &one.waited),
                (",execute=\"false\"", |one| &one.waited_in_vain),
            ],
        ),
        (
            "request_execution_seconds",
            "Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request \
             execution in the API Priority and Fairness subsystem",
            &[
                (",type=\"regular\"", |one| &one.regular),
                (",type=\"watch\"", |one| &one.watches),
            ],
        ),
        (
            "work_estimated_seats",
            "Number of estimated seats (maximum of initial and final seats) associated with \
             requests in API Priority and Fairness",
            &[("", |one| &one.seats)],
        ),
    ];
    for (name, help, series) in histograms {
        let name = format!("apiserver_flowcontrol_{name}");
        head(out, &name, "histogram", help);
        for one in counts {
            for (more, read) in series {
                read(one).write(out, &name, &format!("{}{more}", one.labels()));
            }
        }
    }
}

fn levels(out: &mut String, levels: &[Arc<Level>], now: u64) {
    type Read = fn(&super::level::Figures) -> f64;
    let gauges: [(&str, &str, Read); 10] = [
        (
            "nominal_limit_seats",
            "Nominal number of execution seats configured for each priority level",
            |it| f64::from(it.limits.nominal),
        ),
        (
            "lower_limit_seats",
            "Configured lower bound on number of execution seats available to each priority level",
            |it| f64::from(it.limits.least),
        ),
        (
            "upper_limit_seats",
            "Configured upper bound on number of execution seats available to each priority level",
            |it| f64::from(it.limits.most),
        ),
        (
            "current_limit_seats",
            "current derived number of execution seats available to each priority level",
            |it| f64::from(it.current),
        ),
        (
            "demand_seats_high_watermark",
            "High watermark, over last adjustment period, of demand_seats",
            |it| f64::from(it.wanted.peak),
        ),
        (
            "demand_seats_average",
            "Time-weighted average, over last adjustment period, of demand_seats",
            |it| it.wanted.mean,
        ),
        (
            "demand_seats_stdev",
            "Time-weighted standard deviation, over last adjustment period, of demand_seats",
            |it| it.wanted.deviation,
        ),
        ("demand_seats_smoothed", "Smoothed seat demands", |it| {
            it.wanted.smoothed
        }),
        ("target_seats", "Seat allocation targets", |it| it.target),
        ("current_r", "R(time of last change)", |it| it.meter),
    ];
    let figures: Vec<_> = levels.iter().map(|level| level.figures(now)).collect();
    for (name, help, read) in gauges {
        let name = format!("apiserver_flowcontrol_{name}");
        head(out, &name, "gauge", help);
        for (level, figures) in levels.iter().zip(&figures) {
            writeln!(
                out,
                "{name}{{priority_level=\"{}\"}} {}",
                level.name,
                read(figures)
            )
            .unwrap_or_default();
        }
    }
}
