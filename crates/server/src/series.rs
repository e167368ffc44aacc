//! Series of one name, told apart by their labels, as a scraper reads them: counters, histograms, and
//! marks that something is so.
//!
//! A series is made when it is first counted; who counts often keeps it and looks nothing up.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use crate::metrics::{Histogram, head};

/// What series of one name are told apart by, and what they are for.
#[derive(Debug)]
struct Named {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
}

impl Named {
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
}

fn of<T>(
    series: &RwLock<BTreeMap<String, Arc<T>>>,
    key: String,
    new: impl FnOnce() -> T,
) -> Arc<T> {
    if let Some(found) = series.read().get(&key) {
        return Arc::clone(found);
    }
    let mut series = series.write();
    Arc::clone(series.entry(key).or_insert_with(|| Arc::new(new())))
}

/// Histograms of one name.
#[derive(Debug)]
pub(crate) struct Histograms {
    named: Named,
    bounds: &'static [f64],
    series: RwLock<BTreeMap<String, Arc<Histogram>>>,
}

impl Histograms {
    pub(crate) fn new(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        bounds: &'static [f64],
    ) -> Self {
        Self {
            named: Named { name, help, labels },
            bounds,
            series: RwLock::default(),
        }
    }

    /// The series of some values.
    pub(crate) fn of(&self, values: &[&str]) -> Arc<Histogram> {
        let key = self.named.text(values);
        of(&self.series, key, || Histogram::new(self.bounds))
    }

    /// Counts how long something took.
    pub(crate) fn took(&self, values: &[&str], took: Duration) {
        self.of(values).observe(nanoseconds(took));
    }

    pub(crate) fn write(&self, out: &mut String) {
        let series = self.series.read();
        if series.is_empty() {
            return;
        }
        head(out, self.named.name, "histogram", self.named.help);
        for (labels, histogram) in series.iter() {
            histogram.write(out, self.named.name, labels);
        }
    }
}

/// Counters of one name.
#[derive(Debug)]
pub(crate) struct Counters {
    named: Named,
    series: RwLock<BTreeMap<String, Arc<AtomicU64>>>,
}

impl Counters {
    pub(crate) fn new(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Self {
        Self {
            named: Named { name, help, labels },
            series: RwLock::default(),
        }
    }

    /// The series of some values.
    pub(crate) fn of(&self, values: &[&str]) -> Arc<AtomicU64> {
        of(&self.series, self.named.text(values), AtomicU64::default)
    }

    /// Counts one.
    pub(crate) fn one(&self, values: &[&str]) {
        self.of(values).fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn write(&self, out: &mut String) {
        let series = self.series.read();
        if series.is_empty() {
            return;
        }
        let name = self.named.name;
        head(out, name, "counter", self.named.help);
        for (labels, count) in series.iter() {
            let count = count.load(Ordering::Relaxed);
            writeln!(out, "{name}{{{labels}}} {count}").unwrap_or_default();
        }
    }
}

/// Which series of one name there are: each is 1, and stays.
#[derive(Debug)]
pub(crate) struct Marks {
    named: Named,
    series: RwLock<BTreeMap<String, Arc<()>>>,
}

impl Marks {
    pub(crate) fn new(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Self {
        Self {
            named: Named { name, help, labels },
            series: RwLock::default(),
        }
    }

    /// There is a series of some values.
    pub(crate) fn mark(&self, values: &[&str]) {
        of(&self.series, self.named.text(values), || ());
    }

    pub(crate) fn write(&self, out: &mut String) {
        let series = self.series.read();
        if series.is_empty() {
            return;
        }
        let name = self.named.name;
        head(out, name, "gauge", self.named.help);
        for labels in series.keys() {
            writeln!(out, "{name}{{{labels}}} 1").unwrap_or_default();
        }
    }
}

/// As a histogram takes it.
pub(crate) fn nanoseconds(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}
