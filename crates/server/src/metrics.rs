//! Counters of the door in the Prometheus text format, under the reference's names.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// Upper bounds of latency buckets, in seconds.
const BUCKETS: [f64; 8] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 10.0];

#[derive(Debug, Default)]
struct Series {
    count: u64,
    seconds: f64,
    buckets: [u64; BUCKETS.len()],
}

/// Text from somebody else in this process.
type More = Box<dyn Fn() -> String + Send + Sync>;

/// What the door counts.
#[derive(Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<(String, String, u16), Series>>,
    connections: AtomicU64,
    more: Mutex<Vec<More>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// A request was answered.
    pub fn observe(&self, verb: &str, resource: &str, code: u16, took: Duration) {
        let mut requests = self.requests.lock();
        let series = requests
            .entry((verb.to_owned(), resource.to_owned(), code))
            .or_default();
        let seconds = took.as_secs_f64();
        series.count += 1;
        series.seconds += seconds;
        for (bucket, bound) in series.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= bound);
        }
    }

    /// Adds what others in this process count to the text.
    pub fn also(&self, more: impl Fn() -> String + Send + Sync + 'static) {
        self.more.lock().push(Box::new(more));
    }

    /// A connection was accepted.
    pub fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// The text that a scraper reads.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::from(
            "# HELP apiserver_request_total Requests by verb, resource and HTTP status.\n\
             # TYPE apiserver_request_total counter\n",
        );
        let requests = self.requests.lock();
        for ((verb, resource, code), series) in requests.iter() {
            line(
                &mut out,
                "apiserver_request_total",
                verb,
                resource,
                &format!(",code=\"{code}\""),
                series.count,
            );
        }
        out.push_str(
            "# HELP apiserver_request_duration_seconds Time to answer.\n\
             # TYPE apiserver_request_duration_seconds histogram\n",
        );
        for ((verb, resource, code), series) in requests.iter() {
            let name = "apiserver_request_duration_seconds";
            for (bucket, bound) in series.buckets.iter().zip(BUCKETS) {
                let labels = format!(",code=\"{code}\",le=\"{bound}\"");
                line(
                    &mut out,
                    &format!("{name}_bucket"),
                    verb,
                    resource,
                    &labels,
                    *bucket,
                );
            }
            let labels = format!(",code=\"{code}\"");
            let all = format!("{labels},le=\"+Inf\"");
            line(
                &mut out,
                &format!("{name}_bucket"),
                verb,
                resource,
                &all,
                series.count,
            );
            line(
                &mut out,
                &format!("{name}_sum"),
                verb,
                resource,
                &labels,
                series.seconds,
            );
            line(
                &mut out,
                &format!("{name}_count"),
                verb,
                resource,
                &labels,
                series.count,
            );
        }
        out.push_str(
            "# HELP apiserver_connections_total Accepted connections.\n\
             # TYPE apiserver_connections_total counter\n",
        );
        let connections = self.connections.load(Ordering::Relaxed);
        // Writing into a String can't fail.
        out.write_fmt(format_args!("apiserver_connections_total {connections}\n"))
            .unwrap_or_default();
        for more in self.more.lock().iter() {
            out.push_str(&more());
        }
        out
    }
}

fn line(
    out: &mut String,
    name: &str,
    verb: &str,
    resource: &str,
    more: &str,
    value: impl std::fmt::Display,
) {
    let verb = verb.to_uppercase();
    out.write_fmt(format_args!(
        "{name}{{verb=\"{verb}\",resource=\"{resource}\"{more}}} {value}\n"
    ))
    .unwrap_or_default();
}
