//! Series of one name, told apart by their labels, as a scraper reads them: counters, gauges,
//! histograms, and marks that something is so.
//!
//! A series is made when it is first counted; who counts often keeps it and looks nothing up.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use crate::metrics::{Histogram, head};

/// Series of one name, whatever it is that each of them counts with.
#[derive(Debug)]
struct Series<T> {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    made: RwLock<BTreeMap<String, Arc<T>>>,
}

impl<T> Series<T> {
    fn new(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self {
            name,
            help,
            labels,
            made: RwLock::default(),
        }
    }

    /// The labels as they are written. Values that come from users are escaped.
    fn text(&self, values: &[&str]) -> String {
        debug_assert_eq!(self.labels.len(), values.len());
        let mut out = String::new();
        for (name, value) in self.labels.iter().zip(values) {
            let comma = if out.is_empty() { "" } else { "," };
            let value = value
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            // Writing into a String can't fail.
            write!(out, "{comma}{name}=\"{value}\"").unwrap_or_default();
        }
        out
    }

    /// The series of some values, made where there is none yet.
    fn of(&self, values: &[&str], new: impl FnOnce() -> T) -> Arc<T> {
        let key = self.text(values);
        if let Some(found) = self.made.read().get(&key) {
            return Arc::clone(found);
        }
        let mut made = self.made.write();
        Arc::clone(made.entry(key).or_insert_with(|| Arc::new(new())))
    }

    /// Writes every series by `each`, which is given its labels; nothing where there is none.
    fn write(&self, out: &mut String, kind: &str, each: impl Fn(&mut String, &str, &T)) {
        let made = self.made.read();
        if made.is_empty() {
            return;
        }
        head(out, self.name, kind, self.help);
        for (labels, one) in made.iter() {
            each(out, labels, one);
        }
    }
}

/// Histograms of one name.
#[derive(Debug)]
pub(crate) struct Histograms {
    series: Series<Histogram>,
    bounds: &'static [f64],
}

impl Histograms {
    pub(crate) fn new(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        bounds: &'static [f64],
    ) -> Self {
        Self {
            series: Series::new(name, help, labels),
            bounds,
        }
    }

    /// The series of some values.
    pub(crate) fn of(&self, values: &[&str]) -> Arc<Histogram> {
        self.series.of(values, || Histogram::new(self.bounds))
    }

    /// Counts how long something took.
    pub(crate) fn took(&self, values: &[&str], took: Duration) {
        self.of(values).observe(nanoseconds(took));
    }

    pub(crate) fn write(&self, out: &mut String) {
        self.series.write(out, "histogram", |out, labels, one| {
            one.write(out, self.series.name, labels);
        });
    }
}

/// Counters of one name.
#[derive(Debug)]
pub(crate) struct Counters(Series<AtomicU64>);

impl Counters {
    pub(crate) fn new(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Self {
        Self(Series::new(name, help, labels))
    }

    /// The series of some values.
    pub(crate) fn of(&self, values: &[&str]) -> Arc<AtomicU64> {
        self.0.of(values, AtomicU64::default)
    }

    /// Counts one.
    pub(crate) fn one(&self, values: &[&str]) {
        self.of(values).fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn write(&self, out: &mut String) {
        let name = self.0.name;
        self.0.write(out, "counter", |out, labels, count| {
            let count = count.load(Ordering::Relaxed);
            writeln!(out, "{name}{{{labels}}} {count}").unwrap_or_default();
        });
    }
}

/// Gauges of one name.
#[derive(Debug)]
pub(crate) struct Gauges(Series<AtomicU64>);

impl Gauges {
    pub(crate) fn new(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Self {
        Self(Series::new(name, help, labels))
    }

    /// What it is now.
    pub(crate) fn set(&self, values: &[&str], now: u64) {
        let gauge = self.0.of(values, AtomicU64::default);
        gauge.store(now, Ordering::Relaxed);
    }

    pub(crate) fn write(&self, out: &mut String) {
        let name = self.0.name;
        self.0.write(out, "gauge", |out, labels, value| {
            let value = value.load(Ordering::Relaxed);
            writeln!(out, "{name}{{{labels}}} {value}").unwrap_or_default();
        });
    }
}

/// Which series of one name there are: each is 1, and stays.
#[derive(Debug)]
pub(crate) struct Marks(Series<()>);

impl Marks {
    pub(crate) fn new(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Self {
        Self(Series::new(name, help, labels))
    }

    /// There is a series of some values.
    pub(crate) fn mark(&self, values: &[&str]) {
        self.0.of(values, || ());
    }

    pub(crate) fn write(&self, out: &mut String) {
        let name = self.0.name;
        self.0.write(out, "gauge", |out, labels, ()| {
            writeln!(out, "{name}{{{labels}}} 1").unwrap_or_default();
        });
    }
}

/// As a histogram takes it.
pub(crate) fn nanoseconds(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}
