//! Counters of the loops, for `/metrics`.
//!
//! Plain atomics: counting costs nothing and needs no registry of types. The names follow
//! client-go's `workqueue_*` metrics, so that existing dashboards find them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// What one loop has done since start.
#[derive(Debug, Default)]
pub struct LoopMetrics {
    /// Name of the loop, as in `name` labels.
    pub name: String,
    /// Keys put into the queue (after deduplication).
    pub adds: AtomicU64,
    /// Keys waiting now.
    pub depth: AtomicU64,
    /// Keys put back after a failure.
    pub retries: AtomicU64,
    /// Reconciliations begun.
    pub reconciles: AtomicU64,
    /// Reconciliations that ended in an error.
    pub errors: AtomicU64,
    /// Reconciliations running now.
    pub in_flight: AtomicU64,
    /// Time spent reconciling, in microseconds.
    pub work_micros: AtomicU64,
}

impl LoopMetrics {
    /// Adds one to a counter.
    pub fn bump(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a family of series counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FamilyKind {
    /// Goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts values by these upper bounds.
    Histogram(&'static [f64]),
}

/// Series of one name that a loop keeps beside what all loops keep, told apart by their labels. It is
/// for what happens a few times a second: every count takes a lock.
#[derive(Debug)]
pub struct Family {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    kind: FamilyKind,
    series: Mutex<BTreeMap<String, Series>>,
}

#[derive(Debug, Default)]
struct Series {
    value: f64,
    /// Of a histogram: how many values fell below each bound, and how many there were.
    below: Vec<u64>,
    count: u64,
}

impl Family {
    /// No series yet.
    #[must_use]
    pub fn new(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        kind: FamilyKind,
    ) -> Self {
        Self {
            name,
            help,
            labels,
            kind,
            series: Mutex::default(),
        }
    }

    fn text(&self, values: &[&str]) -> String {
        let escaped = |value: &str| {
            value
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n")
        };
        let pairs = self.labels.iter().zip(values);
        let pairs: Vec<String> = pairs
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        pairs.join(",")
    }

    /// Adds to a counter or gauge.
    pub fn add(&self, values: &[&str], more: f64) {
        self.series
            .lock()
            .entry(self.text(values))
            .or_default()
            .value += more;
    }

    /// Sets a gauge.
    pub fn set(&self, values: &[&str], value: f64) {
        self.series
            .lock()
            .entry(self.text(values))
            .or_default()
            .value = value;
    }

    /// A series is no more.
    pub fn remove(&self, values: &[&str]) {
        self.series.lock().remove(&self.text(values));
    }

    /// Counts a value of a histogram.
    pub fn observe(&self, values: &[&str], value: f64) {
        let FamilyKind::Histogram(bounds) = self.kind else {
            return;
        };
        let mut all = self.series.lock();
        let series = all.entry(self.text(values)).or_default();
        series.below.resize(bounds.len(), 0);
        for (below, bound) in series.below.iter_mut().zip(bounds) {
            *below += u64::from(value <= *bound);
        }
        series.count += 1;
        series.value += value;
    }

    fn render(&self, out: &mut String) {
        let all = self.series.lock();
        if all.is_empty() {
            return;
        }
        let name = self.name;
        let kind = match self.kind {
            FamilyKind::Counter => "counter",
            FamilyKind::Gauge => "gauge",
            FamilyKind::Histogram(_) => "histogram",
        };
        out.push_str(&format!(
            "# HELP {name} {}\n# TYPE {name} {kind}\n",
            self.help
        ));
        for (labels, series) in all.iter() {
            let value = series.value;
            let FamilyKind::Histogram(bounds) = self.kind else {
                out.push_str(&format!("{name}{{{labels}}} {value}\n"));
                continue;
            };
            let comma = if labels.is_empty() { "" } else { "," };
            for (bound, below) in bounds.iter().zip(&series.below) {
                out.push_str(&format!(
                    "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {below}\n"
                ));
            }
            let count = series.count;
            out.push_str(&format!(
                "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}\n\
                 {name}_sum{{{labels}}} {value}\n{name}_count{{{labels}}} {count}\n"
            ));
        }
    }
}

/// The metrics of all loops of a process.
#[derive(Debug, Clone, Default)]
pub struct LoopRegistry(Arc<Mutex<Vec<Arc<LoopMetrics>>>>, Families);

type Families = Arc<Mutex<Vec<Arc<Family>>>>;

impl LoopRegistry {
    /// The metrics of a loop, made on first use.
    #[must_use]
    pub fn of(&self, name: &str) -> Arc<LoopMetrics> {
        let mut all = self.0.lock();
        if let Some(found) = all.iter().find(|item| item.name == name) {
            return Arc::clone(found);
        }
        let made = Arc::new(LoopMetrics {
            name: name.to_owned(),
            ..LoopMetrics::default()
        });
        all.push(Arc::clone(&made));
        made
    }

    /// Has a family written with the rest.
    pub fn keep(&self, family: &Arc<Family>) {
        self.1.lock().push(Arc::clone(family));
    }

    /// The Prometheus text of all loops.
    #[must_use]
    pub fn render(&self) -> String {
        type Read = fn(&LoopMetrics) -> f64;
        const ROWS: [(&str, &str, &str, Read); 7] = [
            (
                "workqueue_adds_total",
                "counter",
                "Total number of adds handled by workqueue",
                |m| read(&m.adds),
            ),
            (
                "workqueue_depth",
                "gauge",
                "Current depth of workqueue",
                |m| read(&m.depth),
            ),
            (
                "workqueue_retries_total",
                "counter",
                "Total number of retries handled by workqueue",
                |m| read(&m.retries),
            ),
            (
                "evenkeel_loop_reconciles_total",
                "counter",
                "Reconciliations begun",
                |m| read(&m.reconciles),
            ),
            (
                "evenkeel_loop_errors_total",
                "counter",
                "Reconciliations that ended in an error",
                |m| read(&m.errors),
            ),
            (
                "evenkeel_loop_in_flight",
                "gauge",
                "Reconciliations running now",
                |m| read(&m.in_flight),
            ),
            (
                "evenkeel_loop_work_seconds_total",
                "counter",
                "Time spent reconciling",
                |m| read(&m.work_micros) / 1e6,
            ),
        ];
        let all = self.0.lock().clone();
        let mut out = String::new();
        for (name, kind, help, value) in ROWS {
            out.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
            for item in &all {
                // Writing to a String cannot fail.
                writeln!(out, "{name}{{name=\"{}\"}} {}", item.name, value(item)).ok();
            }
        }
        for family in self.1.lock().iter() {
            family.render(&mut out);
        }
        out
    }
}

fn read(counter: &AtomicU64) -> f64 {
    counter.load(Ordering::Relaxed) as f64
}
