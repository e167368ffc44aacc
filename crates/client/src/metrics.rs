//! Counters of the loops, for `/metrics`.
//!
//! Plain atomics: counting costs nothing and needs no registry of types. The names follow
//! client-go's `workqueue_*` metrics, so that existing dashboards find them.

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

/// The metrics of all loops of a process.
#[derive(Debug, Clone, Default)]
pub struct LoopRegistry(Arc<Mutex<Vec<Arc<LoopMetrics>>>>);

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
        out
    }
}

fn read(counter: &AtomicU64) -> f64 {
    counter.load(Ordering::Relaxed) as f64
}
