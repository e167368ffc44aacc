//! Creates, gets, updates, lists, and all of them together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;

use super::{Api, settled};
use crate::client::{Connection, Protocol};
use crate::cluster::{Cluster, Place};
use crate::floors::{self, Echo};
use crate::measure::{Measure, percentile};
use crate::{load, process};

const KIBIBYTE: f64 = 1024.0;
/// Requests in a second of the mixed load.
const MIXED: u32 = 2_000;
const ECHO: &str = "TLS echo of the same body by the same client";

/// Rates of the reference where it was measured (creates by connections, get, update).
const REFERENCE: [(usize, f64); 3] = [(1, 338.0), (16, 1_076.0), (64, 1_238.0)];
const REFERENCE_GET: f64 = 3_474.0;
const REFERENCE_UPDATE: f64 = 913.0;

impl Api<'_> {
    pub(super) async fn creates(
        &mut self,
        place: &Place,
        cluster: &Cluster,
        echo: &Echo,
    ) -> anyhow::Result<()> {
        for (connections, reference) in REFERENCE {
            let mut users = load::users(&cluster.target, Protocol::Http1, connections).await?;
            let mut echoes = load::users(&echo.target, Protocol::Http1, connections).await?;
            let (mut cpu, mut rate, mut latency) = (Vec::new(), Vec::new(), Vec::new());
            let (mut floor, mut echoed, mut sync) = (Vec::new(), Vec::new(), Vec::new());
            let count = self.args.creates.min(connections * 250);
            for round in 0..=self.rounds {
                let requests = load::creates("bench", &format!("c{connections}-{round}"), count);
                let floored = load::drive(echo.pid(), &mut echoes, requests.clone()).await?;
                sync.extend(floors::sync(place.directory(), false, 50)?);
                let done = load::drive(cluster.pid(), &mut users, requests).await?;
                // The first round warms up both.
                if round > 0 {
                    floor.push(floored.cpu);
                    echoed.push(floored.rate);
                    cpu.push(done.cpu);
                    rate.push(done.rate);
                    latency.extend(done.latencies);
                }
            }
            let s = if connections == 1 { "" } else { "s" };
            let name = format!("create 1 KiB, {connections} connection{s}");
            let rate = Measure::new(format!("{name}: rate"), "/s", rate);
            self.add(
                rate.floor(percentile(&echoed, 0.5), ECHO)
                    .at_least(match connections {
                        64 => reference * 8.0,
                        _ => reference,
                    }),
            )?;
            let mut times = Measure::new("  time to answer", "ms", latency)
                .floor(percentile(&sync, 0.5), "one bare write and fdatasync");
            if connections == 1 {
                times = times.below(percentile(&sync, 0.5) + 0.3);
            } else if connections == 64 {
                times = times.below_both(20.0, 20.0);
            }
            self.add(times)?;
            self.add(
                Measure::new("  server CPU", "µs", cpu)
                    .floor(percentile(&floor, 0.5), ECHO)
                    .below(120.0),
            )?;
        }
        Ok(())
    }

    /// The objects that are listed, read and changed.
    pub(super) async fn fill(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        let mut users = load::users(&cluster.target, Protocol::Http1, 64).await?;
        let requests = load::creates("list", "o", self.args.listed);
        load::drive(cluster.pid(), &mut users, requests).await?;
        Ok(())
    }

    fn name(&self, number: usize) -> String {
        format!("o-{:05}", number % self.args.listed)
    }

    fn get(&self, number: usize) -> load::Prepared {
        let path = format!("{}/{}", load::config_maps("list"), self.name(number));
        (Method::GET, path, Bytes::new())
    }

    /// A change of an object, another one each time.
    fn update(&self, number: usize, round: usize) -> load::Prepared {
        let name = self.name(number);
        let body = String::from_utf8_lossy(&load::config_map(&name)).replacen(
            "0123456789abcdef",
            &format!("{round:016x}"),
            1,
        );
        let path = format!("{}/{name}", load::config_maps("list"));
        (Method::PUT, path, Bytes::from(body))
    }

    pub(super) async fn single(&mut self, cluster: &Cluster, echo: &Echo) -> anyhow::Result<()> {
        let mut users = load::users(&cluster.target, Protocol::Http1, 64).await?;
        let mut echoes = load::users(&echo.target, Protocol::Http1, 64).await?;
        let gets: Vec<_> = (0..self.args.creates).map(|n| self.get(n)).collect();
        let echoed: Vec<_> = gets
            .iter()
            .map(|_| (Method::GET, "/1400".to_owned(), Bytes::new()))
            .collect();
        let mut figures: [Vec<f64>; 6] = Default::default();
        for round in 0..self.rounds {
            let updates = (0..self.args.creates)
                .map(|n| self.update(n, round))
                .collect();
            let floor = load::drive(echo.pid(), &mut echoes, echoed.clone()).await?;
            let get = load::drive(cluster.pid(), &mut users, gets.clone()).await?;
            let update = load::drive(cluster.pid(), &mut users, updates).await?;
            let round = [
                floor.cpu,
                floor.rate,
                get.cpu,
                get.rate,
                update.cpu,
                update.rate,
            ];
            for (all, one) in figures.iter_mut().zip(round) {
                all.push(one);
            }
        }
        let [floor, echo_rate, get_cpu, get_rate, update_cpu, update_rate] = figures;
        let (floor, most) = (percentile(&floor, 0.5), percentile(&echo_rate, 0.5));
        let rate = |name, samples| Measure::new(name, "/s", samples).floor(most, ECHO);
        self.add(rate("GET: rate", get_rate).at_least(REFERENCE_GET * 8.0))?;
        self.add(Measure::new("  server CPU", "µs", get_cpu).floor(floor, ECHO))?;
        self.add(rate("update: rate", update_rate).at_least(REFERENCE_UPDATE * 8.0))?;
        self.add(Measure::new("  server CPU", "µs", update_cpu).floor(floor, ECHO))
    }

    pub(super) async fn list(&mut self, cluster: &Cluster, echo: &Echo) -> anyhow::Result<()> {
        let path = load::config_maps("list");
        let mut user = cluster.connect().await?;
        let mut copy = echo.target.connect(Protocol::Http1).await?;
        let (mut took, mut floor, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
        // The first of each warms up.
        let (_, length) = load::fetch(&mut user, &path).await?;
        load::fetch(&mut copy, &format!("/{length}")).await?;
        let before = settled(cluster).await?;
        for _ in 0..self.rounds * 10 {
            let used = process::cpu(cluster.pid())?;
            took.push(load::fetch(&mut user, &path).await?.0);
            let used = process::cpu(cluster.pid())?.saturating_sub(used);
            cpu.push(used.as_secs_f64() * 1e3);
            floor.push(load::fetch(&mut copy, &format!("/{length}")).await?.0);
        }
        let stays = settled(cluster).await? - before;
        let objects = self.args.listed;
        self.add(
            Measure::new(format!("LIST of {objects} objects, consistent"), "ms", took)
                .floor(
                    percentile(&floor, 0.5),
                    "the same bytes from memory over TLS",
                )
                .below(15.0),
        )?;
        self.add(Measure::new("  server CPU", "ms", cpu))?;
        // A megabyte may be anybody's; the list is seven of them.
        self.add(Measure::new("  memory that stays", "KiB", vec![stays / KIBIBYTE]).below(1024.0))
    }

    /// Half reads, half writes, at a rate that does not follow the answers.
    pub(super) async fn mixed(&mut self, cluster: &Cluster, echo: &Echo) -> anyhow::Result<()> {
        let count = usize::try_from(u64::from(MIXED) * self.args.mixed)?;
        let path = load::config_maps("bench");
        let requests: Vec<load::Prepared> = (0..count)
            .map(|n| match n % 4 {
                0 => {
                    let body = load::config_map(&format!("mixed-{n}"));
                    (Method::POST, path.clone(), body)
                }
                1 => self.update(n, n),
                _ => self.get(n),
            })
            .collect();
        let echoed = requests
            .iter()
            .map(|(_, _, body)| (Method::POST, "/".to_owned(), body.clone()))
            .collect();
        let mut echoes = load::users(&echo.target, Protocol::Http1, 64).await?;
        let (floor, _) = paced(&mut echoes, echoed).await?;
        let mut users = load::users(&cluster.target, Protocol::Http1, 64).await?;
        let (mutating, reading) = paced(&mut users, requests).await?;
        let name = format!("mixed load of {MIXED}/s: time to answer a write");
        self.add(
            Measure::new(name, "ms", mutating)
                .floor(percentile(&floor, 0.5), ECHO)
                .below_both(50.0, 50.0),
        )?;
        self.add(Measure::new("  a read", "ms", reading))
    }
}

/// Sends requests when they are due, whoever is free: milliseconds from when each was due to its
/// answer, of those that write and those that read.
async fn paced(
    users: &mut [Connection],
    requests: Vec<load::Prepared>,
) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let requests = Arc::new(requests);
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let all = users.iter_mut().map(|user| {
        let (requests, next) = (Arc::clone(&requests), Arc::clone(&next));
        async move {
            let (mut writes, mut reads) = (Vec::new(), Vec::new());
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some((method, path, body)) = requests.get(number) else {
                    return Ok::<_, anyhow::Error>((writes, reads));
                };
                let due = began + Duration::from_secs(1) / MIXED * u32::try_from(number)?;
                tokio::time::sleep_until(due.into()).await;
                let (status, _) = user.count(method.clone(), path, body.clone()).await?;
                anyhow::ensure!(status.is_success(), "{method} {path}: {status}");
                let took = due.elapsed().as_secs_f64() * 1e3;
                if *method == Method::GET {
                    reads.push(took);
                } else {
                    writes.push(took);
                }
            }
        }
    });
    let all = futures::future::try_join_all(all).await?;
    let (writes, reads): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    Ok((writes.concat(), reads.concat()))
}
