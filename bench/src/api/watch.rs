//! Watchers: how many events reach them, how soon, and what one costs in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::{Api, double, settled};
use crate::client::{Connection, Protocol};
use crate::cluster::{Cluster, PATIENCE};
use crate::floors::Echo;
use crate::load;
use crate::measure::{Measure, percentile};

/// Watches that share an HTTP/2 connection.
const SHARED: usize = 100;
/// Events in a second to 100 watchers of the reference, where it was measured.
const REFERENCE: f64 = 33_000.0;
const KIBIBYTE: f64 = 1024.0;

/// Opens watches from now on; their connections live as long as they.
async fn open(
    cluster: &Cluster,
    protocol: Protocol,
    space: &str,
    count: usize,
) -> anyhow::Result<Vec<(Connection, Incoming)>> {
    let maps = load::config_maps(space);
    let list = cluster.get(&format!("{maps}?limit=1")).await?;
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap_or("0");
    let path = format!("{maps}?watch=1&timeoutSeconds=3600&resourceVersion={revision}");
    let mut watches = Vec::with_capacity(count);
    while watches.len() < count {
        let some = match protocol {
            Protocol::Http1 => 1,
            Protocol::Http2 => SHARED.min(count - watches.len()),
        };
        for mut user in load::users(&cluster.target, protocol, some).await? {
            let (status, body) = user.send(Method::GET, &path, Bytes::new()).await?;
            anyhow::ensure!(status.is_success(), "watch: {status}");
            watches.push((user, body));
        }
    }
    Ok(watches)
}

impl Api<'_> {
    pub(super) async fn events(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        let (mut rate, mut cpu) = (Vec::new(), Vec::new());
        for round in 0..self.rounds {
            let space = format!("watch-{round}");
            load::namespace(cluster, &space).await?;
            let (events, each) = load::watchers(cluster, &space, 100, 500).await?;
            rate.push(events);
            cpu.push(each);
        }
        self.add(Measure::new("events to 100 watchers", "/s", rate).at_least(REFERENCE * 10.0))?;
        self.add(Measure::new(
            "  server CPU of one, the write included",
            "µs",
            cpu,
        ))
    }

    pub(super) async fn memory_of_watchers(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        let count = self.args.watchers;
        load::namespace(cluster, "idle-watch").await?;
        for (protocol, name) in [
            (Protocol::Http2, "a watcher, 100 on a connection (HTTP/2)"),
            (Protocol::Http1, "a watcher on a connection of its own"),
        ] {
            let before = settled(cluster).await?;
            let watches = open(cluster, protocol, "idle-watch", count).await?;
            let each = (settled(cluster).await? - before) / double(count as u64) / KIBIBYTE;
            drop(watches);
            let name = format!("memory of {name}");
            self.add(Measure::new(name, "KiB", vec![each]).below(20.0))?;
        }
        Ok(())
    }

    /// Changes come at a fixed pace, one after the other; each watcher sees them in that order, so
    /// that the number of an event says which change it is.
    pub(super) async fn delivery(&mut self, cluster: &Cluster, echo: &Echo) -> anyhow::Result<()> {
        let (count, changes) = (self.args.watchers, self.args.changes);
        load::namespace(cluster, "delivery").await?;
        let answered: Arc<Vec<AtomicU64>> =
            Arc::new((0..changes).map(|_| AtomicU64::new(u64::MAX)).collect());
        let seen = Arc::new(AtomicUsize::new(0));
        let began = Instant::now();
        let mut watching = Vec::new();
        for (user, mut body) in open(cluster, Protocol::Http2, "delivery", count).await? {
            let (answered, seen) = (Arc::clone(&answered), Arc::clone(&seen));
            watching.push(tokio::spawn(async move {
                let _user = user;
                let (mut next, mut late) = (0, Vec::with_capacity(answered.len()));
                while next < answered.len() {
                    let Some(Ok(frame)) = body.frame().await else {
                        break;
                    };
                    let now = nanoseconds(began);
                    let data = frame.data_ref().map_or(&[][..], |data| data);
                    for _ in data.iter().filter(|byte| **byte == b'\n') {
                        if let Some(then) = answered.get(next) {
                            // An event before its answer is not late.
                            let then = then.load(Ordering::Relaxed).min(now);
                            late.push(double(now - then) / 1e6);
                        }
                        next += 1;
                    }
                }
                seen.fetch_add(1, Ordering::Relaxed);
                late
            }));
        }
        let mut writer = cluster.connect().await?;
        let mut echoed = echo.target.connect(Protocol::Http1).await?;
        let mut floor = Vec::new();
        for _ in 0..200 {
            let before = Instant::now();
            echoed.count(Method::GET, "/600", Bytes::new()).await?;
            floor.push(before.elapsed().as_secs_f64() * 1e3);
        }
        let (path, start) = (load::config_maps("delivery"), Instant::now());
        for number in 0..changes {
            let due = start + Duration::from_secs(1) / self.args.pace * u32::try_from(number)?;
            tokio::time::sleep_until(due.into()).await;
            let body = format!(
                r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"d-{number:05}"}}}}"#
            );
            let (status, _) = writer.count(Method::POST, &path, Bytes::from(body)).await?;
            anyhow::ensure!(status.is_success(), "create: {status}");
            answered[number].store(nanoseconds(began), Ordering::Relaxed);
        }
        let wrote = Instant::now();
        while seen.load(Ordering::Relaxed) < count {
            anyhow::ensure!(
                wrote.elapsed() < PATIENCE,
                "{} of {count} watchers saw all changes",
                seen.load(Ordering::Relaxed)
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut late = Vec::with_capacity(count * changes);
        for each in watching {
            late.extend(each.await?);
        }
        let name = format!("{count} watchers, {changes} changes: event behind the answer");
        self.add(
            Measure::new(name, "ms", late)
                .floor(
                    percentile(&floor, 0.5),
                    "a TLS round trip of the same client",
                )
                .below_both(50.0, 50.0),
        )
    }
}

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
