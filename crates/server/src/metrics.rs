//! Counters of the door in the Prometheus text format, under the reference's names and labels.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::http::Attributes;

/// Upper bounds of latency buckets, in seconds.
pub(crate) const LATENCIES: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];
/// And of those without what others took.
const OWN: &[f64] = &[
    0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0,
    30.0, 45.0, 60.0,
];
/// Upper bounds of sizes, in bytes.
const SIZES: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
/// A value of a histogram is handed in in billionths: seconds as nanoseconds.
const SCALE: f64 = 1e9;

/// Counts values by upper bounds.
#[derive(Debug)]
pub(crate) struct Histogram {
    bounds: &'static [f64],
    /// How many values fell between two bounds; the last is for those beyond all.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    pub(crate) fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            buckets: (0..=bounds.len()).map(|_| AtomicU64::default()).collect(),
            sum: AtomicU64::default(),
        }
    }

    /// Counts a value, given in billionths.
    #[expect(clippy::cast_precision_loss, reason = "buckets are far apart")]
    pub(crate) fn observe(&self, billionths: u64) {
        let value = billionths as f64 / SCALE;
        let place = self.bounds.iter().position(|bound| value <= *bound);
        let place = place.unwrap_or(self.bounds.len());
        self.buckets[place].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(billionths, Ordering::Relaxed);
    }

    /// Appends its series; one that has counted nothing has none.
    #[expect(clippy::cast_precision_loss, reason = "a sum for people")]
    pub(crate) fn write(&self, out: &mut String, name: &str, labels: &str) {
        let mut count = 0;
        let counts: Vec<u64> = self
            .buckets
            .iter()
            .map(|bucket| {
                count += bucket.load(Ordering::Relaxed);
                count
            })
            .collect();
        if count == 0 {
            return;
        }
        let comma = if labels.is_empty() { "" } else { "," };
        for (bound, below) in self.bounds.iter().zip(&counts) {
            line(
                out,
                format_args!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {below}"),
            );
        }
        line(
            out,
            format_args!("{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}"),
        );
        let sum = self.sum.load(Ordering::Relaxed) as f64 / SCALE;
        line(out, format_args!("{name}_sum{{{labels}}} {sum}"));
        line(out, format_args!("{name}_count{{{labels}}} {count}"));
    }
}

/// Appends what a series is.
pub(crate) fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    line(
        out,
        format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"),
    );
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing into a String can't fail.
    writeln!(out, "{text}").unwrap_or_default();
}

/// What a request is counted under.
#[derive(Debug, Clone, Copy, Hash)]
pub(crate) struct Labels<'r> {
    verb: &'static str,
    dry_run: bool,
    group: &'r str,
    version: &'r str,
    resource: &'r str,
    subresource: &'r str,
    scope: &'static str,
}

impl<'r> Labels<'r> {
    /// The labels of a request; `applies`: its body is a configuration to be applied.
    pub(crate) fn of(attributes: &'r Attributes, dry_run: bool, applies: bool) -> Self {
        let Attributes {
            group,
            version,
            resource,
            subresource,
            ..
        } = attributes;
        let connects = matches!(
            subresource.as_str(),
            "exec" | "attach" | "portforward" | "proxy"
        );
        let verb = match attributes.verb.as_str() {
            _ if attributes.resource_request && connects => "CONNECT",
            "get" => "GET",
            "head" => "HEAD",
            "list" => "LIST",
            "watch" => "WATCH",
            "create" | "post" => "POST",
            "update" | "put" => "PUT",
            "patch" if applies => "APPLY",
            "patch" => "PATCH",
            "delete" => "DELETE",
            "deletecollection" => "DELETECOLLECTION",
            _ => "other",
        };
        let scope = if !attributes.resource_request {
            ""
        } else if !attributes.name.is_empty() || attributes.verb == "create" {
            "resource"
        } else if !attributes.namespace.is_empty() {
            "namespace"
        } else {
            "cluster"
        };
        let subresource = if attributes.resource_request {
            subresource.as_str()
        } else {
            // Only paths that are few: anybody can ask for any other.
            match attributes.path.as_str() {
                path @ ("/healthz" | "/livez" | "/readyz" | "/metrics" | "/version") => path,
                _ => "",
            }
        };
        Self {
            verb,
            dry_run,
            group,
            version,
            resource,
            subresource,
            scope,
        }
    }

    /// The labels of what is not served, whatever it is called: names that anybody can make up
    /// don't become series.
    fn unknown(self) -> Self {
        Self {
            group: "",
            version: "",
            resource: "",
            subresource: "",
            ..self
        }
    }

    fn text(self, with_dry_run: bool) -> String {
        let Self {
            verb,
            group,
            version,
            resource,
            subresource,
            scope,
            ..
        } = self;
        let dry = if !with_dry_run {
            ""
        } else if self.dry_run {
            "dry_run=\"All\","
        } else {
            "dry_run=\"\","
        };
        format!(
            "verb=\"{verb}\",{dry}group=\"{group}\",version=\"{version}\",\
             resource=\"{resource}\",subresource=\"{subresource}\",scope=\"{scope}\",\
             component=\"apiserver\""
        )
    }
}

/// What came of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) code: u16,
    pub(crate) took: Duration,
    /// Of that, waiting for seats and for webhooks, which is not the server's own time.
    pub(crate) waited: Duration,
    /// Bytes of the answer, when they are known; only those of readers count.
    pub(crate) bytes: Option<u64>,
    /// It was not served because there were no seats.
    pub(crate) dropped: bool,
}

/// What is counted under the same labels.
#[derive(Debug)]
pub(crate) struct Series {
    labels: String,
    plain: String,
    codes: Mutex<Vec<(u16, u64)>>,
    dropped: AtomicU64,
    took: Histogram,
    own: Histogram,
    sizes: Option<Histogram>,
    long_running: AtomicI64,
}

impl Series {
    /// A request was answered.
    pub(crate) fn observe(&self, outcome: Outcome) {
        {
            let mut codes = self.codes.lock();
            match codes.iter_mut().find(|(known, _)| *known == outcome.code) {
                Some((_, count)) => *count += 1,
                None => codes.push((outcome.code, 1)),
            }
        }
        if outcome.dropped {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        let nanos = u64::try_from(outcome.took.as_nanos()).unwrap_or(u64::MAX);
        self.took.observe(nanos);
        let own = outcome.took.saturating_sub(outcome.waited);
        self.own
            .observe(u64::try_from(own.as_nanos()).unwrap_or(u64::MAX));
        if let (Some(sizes), Some(bytes)) = (&self.sizes, outcome.bytes) {
            sizes.observe(bytes.saturating_mul(1_000_000_000));
        }
    }

    /// Counts a long-running request until what is answered is dropped.
    pub(crate) fn long_running(self: &Arc<Self>) -> LongRunning {
        self.long_running.fetch_add(1, Ordering::Relaxed);
        LongRunning(Arc::clone(self))
    }
}

/// A long-running request that is counted until it is dropped.
#[derive(Debug)]
pub(crate) struct LongRunning(Arc<Series>);

impl Drop for LongRunning {
    fn drop(&mut self) {
        self.0.long_running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Requests of one kind at one moment, and their peak since somebody looked.
#[derive(Debug, Default)]
struct Level {
    now: AtomicI64,
    peak: AtomicI64,
}

impl Level {
    fn enter(&self) {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.peak.fetch_max(now, Ordering::Relaxed);
    }

    fn leave(&self) {
        self.now.fetch_sub(1, Ordering::Relaxed);
    }

    fn look(&self) -> i64 {
        let now = self.now.load(Ordering::Relaxed);
        self.peak.swap(now, Ordering::Relaxed).max(now)
    }
}

/// Requests that wait and that are served, readers and writers apart.
#[derive(Debug, Default)]
struct Inflight {
    waiting: [Level; 2],
    executing: [Level; 2],
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct UnderWay {
    inflight: Arc<Inflight>,
    mutating: usize,
    executing: bool,
}

impl UnderWay {
    /// It has its seats.
    pub(crate) fn begin(&mut self) {
        if !self.executing {
            self.inflight.waiting[self.mutating].leave();
            self.inflight.executing[self.mutating].enter();
            self.executing = true;
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if self.executing {
            self.inflight.executing[self.mutating].leave();
        } else {
            self.inflight.waiting[self.mutating].leave();
        }
    }
}

/// Text from somebody else in this process.
type More = Box<dyn Fn() -> String + Send + Sync>;

/// What the door counts.
#[derive(Default)]
pub struct Metrics {
    hash: RandomState,
    /// By the hash of their labels, so that nothing is allocated to find one.
    requests: Mutex<HashMap<u64, Arc<Series>>>,
    inflight: Arc<Inflight>,
    connections: AtomicU64,
    handshakes_failed: AtomicU64,
    more: Mutex<Vec<More>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// What a request is counted in. `is_known` is asked once for each new set of labels: is it
    /// about something that is served?
    pub(crate) fn series(
        &self,
        labels: Labels<'_>,
        is_known: impl FnOnce() -> bool,
    ) -> Arc<Series> {
        let mut requests = self.requests.lock();
        let key = self.hash.hash_one(labels);
        if let Some(series) = requests.get(&key) {
            return Arc::clone(series);
        }
        let (key, labels) = if is_known() {
            (key, labels)
        } else {
            let labels = labels.unknown();
            (self.hash.hash_one(labels), labels)
        };
        let reads = matches!(labels.verb, "GET" | "LIST");
        let series = requests.entry(key).or_insert_with(|| {
            Arc::new(Series {
                labels: labels.text(true),
                plain: labels.text(false),
                codes: Mutex::default(),
                dropped: AtomicU64::default(),
                took: Histogram::new(LATENCIES),
                own: Histogram::new(OWN),
                sizes: reads.then(|| Histogram::new(SIZES)),
                long_running: AtomicI64::default(),
            })
        });
        Arc::clone(series)
    }

    /// A request that has to be given seats.
    pub(crate) fn under_way(&self, mutating: bool) -> UnderWay {
        let inflight = Arc::clone(&self.inflight);
        let mutating = usize::from(mutating);
        inflight.waiting[mutating].enter();
        UnderWay {
            inflight,
            mutating,
            executing: false,
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

    /// A client did not get through the TLS handshake.
    pub fn handshake_failed(&self) {
        self.handshakes_failed.fetch_add(1, Ordering::Relaxed);
    }

    /// The text that a scraper reads.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.requests(&mut out);
        let kinds = ["readOnly", "mutating"];
        for (name, help, levels) in [
            (
                "apiserver_current_inflight_requests",
                "Maximal number of currently used inflight request limit of this apiserver per \
                 request kind since the last scrape.",
                &self.inflight.executing,
            ),
            (
                "apiserver_current_inqueue_requests",
                "Maximal number of queued requests in this apiserver per request kind since the \
                 last scrape.",
                &self.inflight.waiting,
            ),
        ] {
            head(&mut out, name, "gauge", help);
            for (kind, level) in kinds.iter().zip(levels) {
                let now = level.look();
                line(
                    &mut out,
                    format_args!("{name}{{request_kind=\"{kind}\"}} {now}"),
                );
            }
        }
        for (name, help, counter) in [
            (
                "apiserver_connections_total",
                "Accepted connections",
                &self.connections,
            ),
            (
                "apiserver_tls_handshake_errors_total",
                "Number of requests dropped with 'TLS handshake error from' error",
                &self.handshakes_failed,
            ),
        ] {
            head(&mut out, name, "counter", help);
            let count = counter.load(Ordering::Relaxed);
            line(&mut out, format_args!("{name} {count}"));
        }
        for more in self.more.lock().iter() {
            out.push_str(&more());
        }
        out
    }

    fn requests(&self, out: &mut String) {
        let mut series: Vec<Arc<Series>> = self.requests.lock().values().cloned().collect();
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        let name = "apiserver_request_total";
        let help = "Counter of apiserver requests broken out for each verb, dry run value, group, \
                    version, resource, scope, component, and HTTP response code.";
        head(out, name, "counter", help);
        for one in &series {
            for (code, count) in one.codes.lock().iter() {
                let labels = &one.labels;
                line(
                    out,
                    format_args!("{name}{{{labels},code=\"{code}\"}} {count}"),
                );
            }
        }
        let name = "apiserver_request_duration_seconds";
        let help = "Response latency distribution in seconds for each verb, dry run value, group, \
                    version, resource, subresource, scope and component.";
        head(out, name, "histogram", help);
        for one in &series {
            one.took.write(out, name, &one.labels);
        }
        let name = "apiserver_request_sli_duration_seconds";
        let help = "Response latency distribution (not counting webhook duration and priority & \
                    fairness queue wait times) in seconds for each verb, group, version, \
                    resource, subresource, scope and component.";
        head(out, name, "histogram", help);
        for one in &series {
            one.own.write(out, name, &one.plain);
        }
        let name = "apiserver_response_sizes";
        let help = "Response size distribution in bytes for each group, version, verb, resource, \
                    subresource, scope and component.";
        head(out, name, "histogram", help);
        for one in &series {
            if let Some(sizes) = &one.sizes {
                sizes.write(out, name, &one.plain);
            }
        }
        let name = "apiserver_longrunning_requests";
        let help = "Gauge of all active long-running apiserver requests broken out by verb, \
                    group, version, resource, scope and component. Not all requests are tracked \
                    this way.";
        head(out, name, "gauge", help);
        for one in &series {
            let now = one.long_running.load(Ordering::Relaxed);
            if now > 0 {
                line(out, format_args!("{name}{{{}}} {now}", one.plain));
            }
        }
        let name = "apiserver_request_terminations_total";
        let help = "Number of requests which apiserver terminated in self-defense.";
        head(out, name, "counter", help);
        for one in &series {
            let (labels, count) = (&one.plain, one.dropped.load(Ordering::Relaxed));
            if count == 0 {
                continue;
            }
            line(out, format_args!("{name}{{{labels},code=\"429\"}} {count}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::http::Query;

    #[test]
    fn series_have_the_references_labels_and_unknown_names_make_none() {
        let metrics = Metrics::default();
        let done = |code| Outcome {
            code,
            took: Duration::from_millis(130),
            waited: Duration::from_millis(100),
            bytes: Some(2000),
            dropped: code == 429,
        };
        let ask = |method: &Method, url: &str, code, known| {
            let (path, query) = url.split_once('?').unwrap_or((url, ""));
            let query = Query::parse(query);
            let attributes = Attributes::of(method, path, &query);
            let labels = Labels::of(&attributes, query.has("dryRun"), false);
            metrics.series(labels, || known).observe(done(code));
        };
        ask(&Method::GET, "/api/v1/namespaces/a/pods", 200, true);
        ask(&Method::GET, "/api/v1/namespaces/a/pods", 429, true);
        ask(
            &Method::POST,
            "/api/v1/namespaces/a/pods?dryRun=All",
            201,
            true,
        );
        for name in ["x", "y", "z"] {
            ask(&Method::GET, &format!("/apis/{name}/v1/{name}"), 404, false);
        }
        ask(&Method::GET, "/healthz", 200, true);
        let text = metrics.text();
        let list = "verb=\"LIST\",dry_run=\"\",group=\"\",version=\"v1\",resource=\"pods\",\
                    subresource=\"\",scope=\"namespace\",component=\"apiserver\"";
        for expected in [
            format!("apiserver_request_total{{{list},code=\"200\"}} 1"),
            format!("apiserver_request_duration_seconds_bucket{{{list},le=\"0.2\"}} 2"),
            format!("apiserver_request_duration_seconds_sum{{{list}}} 0.26"),
            format!(
                "apiserver_request_sli_duration_seconds_sum{{{}}} 0.06",
                list.replace("dry_run=\"\",", "")
            ),
            "verb=\"POST\",dry_run=\"All\"".to_owned(),
            "subresource=\"/healthz\"".to_owned(),
        ] {
            assert!(text.contains(&expected), "{expected} in\n{text}");
        }
        assert!(!text.contains("resource=\"x\""), "{text}");
        assert!(text.contains("scope=\"cluster\",component=\"apiserver\",code=\"404\"} 3"));
    }

    #[test]
    fn peaks_are_told_once() {
        let metrics = Metrics::default();
        let mut one = metrics.under_way(true);
        one.begin();
        drop(metrics.under_way(true));
        drop(one);
        let told = |text: &str| metrics.text().contains(text);
        assert!(told(
            "apiserver_current_inflight_requests{request_kind=\"mutating\"} 1"
        ));
        assert!(told(
            "apiserver_current_inflight_requests{request_kind=\"mutating\"} 0"
        ));
    }
}
