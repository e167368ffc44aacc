//! The order of a run: starts, deployments, idling, requests.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use clap::ValueEnum;
use http::Method;
use serde_json::json;

use crate::Cli;
use crate::client::Protocol;
use crate::cluster::{Cluster, Place};
use crate::measure::{Measure, Report, percentile};
use crate::{deploy, floors, load, process};

/// Users that write at the same time.
const USERS: usize = 64;
/// Creates of one round.
const CREATES: usize = 4_000;
/// Objects of the list.
const LISTED: usize = 5_000;
/// Milliseconds in a second.
const MS: f64 = 1e3;
const MEBIBYTE: f64 = 1_048_576.0;

/// Parts of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Process start to ready
    Start,
    /// Deployment to Ready
    Deploy,
    /// Memory and processor time with nothing to do
    Idle,
    /// Creates, gets, updates, lists, watches
    Requests,
}

/// Where things are in this run.
struct Bench<'a> {
    cli: &'a Cli,
    out: PathBuf,
    report: Report,
}

/// Measures everything, prints the table.
pub(crate) async fn all(cli: &Cli) -> anyhow::Result<()> {
    let out = cli.out();
    let uname = rustix::system::uname();
    let about = json!({
        "time": jiff::Timestamp::now().to_string(),
        "kernel": uname.release().to_string_lossy(),
        "processors": std::thread::available_parallelism()?.get(),
        "rounds": cli.rounds,
    });
    let report = Report::open(&out, &about)?;
    let mut bench = Bench { cli, out, report };
    let outcome = bench.parts().await;
    println!("{}", bench.report.table());
    println!("raw figures: {}", bench.report.path().display());
    match bench.report.missed() {
        0 => {}
        missed => println!("{missed} aims are missed"),
    }
    outcome
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * MS
}

impl Bench<'_> {
    fn wants(&self, part: Part) -> bool {
        self.cli.only.is_empty() || self.cli.only.contains(&part)
    }

    async fn parts(&mut self) -> anyhow::Result<()> {
        if self.wants(Part::Start) {
            self.starts().await?;
        }
        if ![Part::Deploy, Part::Idle, Part::Requests]
            .iter()
            .any(|part| self.wants(*part))
        {
            return Ok(());
        }
        let place = Place::new(&self.cli.evenkeel, &self.out, "cluster")?;
        let outcome = self.on_a_cluster(&place).await;
        // Whatever happened, nothing is left behind.
        let cleaned = place.clean();
        outcome.and(cleaned)
    }

    async fn on_a_cluster(&mut self, place: &Place) -> anyhow::Result<()> {
        self.import(place)?;
        let (cluster, _) = place.start().await?;
        cluster.schedulable().await?;
        // A part that fails does not take the others with it.
        let mut failed = Vec::new();
        if self.wants(Part::Deploy) {
            failed.extend(self.deployments(place, &cluster).await.err());
        }
        if self.wants(Part::Idle) {
            failed.extend(self.idle(place, &cluster).await.err());
        }
        if self.wants(Part::Requests) {
            failed.extend(self.requests(&cluster).await.err());
        }
        for error in &failed {
            eprintln!("evenkeel-bench: {error:#}");
        }
        cluster.stop()?;
        anyhow::ensure!(
            failed.is_empty(),
            "{} parts could not be measured",
            failed.len()
        );
        Ok(())
    }

    /// Process start to `/readyz` and to a node that takes pods.
    async fn starts(&mut self) -> anyhow::Result<()> {
        let (mut nothing, mut empty, mut existing) = (Vec::new(), Vec::new(), Vec::new());
        let (mut empty_node, mut existing_node) = (Vec::new(), Vec::new());
        for round in 0..self.cli.rounds * 2 {
            let place = Place::new(&self.cli.evenkeel, &self.out, &format!("start-{round}"))?;
            let outcome = async {
                nothing.push(ms(place.nothing()?));
                let (cluster, ready) = place.start().await?;
                empty.push(ms(ready));
                empty_node.push(ms(cluster.schedulable().await?));
                cluster.stop()?;
                let (cluster, ready) = place.start().await?;
                existing.push(ms(ready));
                existing_node.push(ms(cluster.schedulable().await?));
                cluster.stop()
            };
            let outcome: anyhow::Result<()> = outcome.await;
            outcome.and(place.clean())?;
        }
        let floor = (percentile(&nothing, 0.5), "`evenkeel version` for starts");
        let add = |report: &mut Report, name: &str, samples, aim| {
            report.add(
                Measure::new(name, "ms", samples)
                    .floor(floor.0, floor.1)
                    .below(aim),
            )
        };
        add(
            &mut self.report,
            "start to /readyz, empty directory",
            empty,
            1000.0,
        )?;
        add(
            &mut self.report,
            "start to /readyz, existing data",
            existing,
            300.0,
        )?;
        add(
            &mut self.report,
            "start to schedulable node, empty",
            empty_node,
            2000.0,
        )?;
        add(
            &mut self.report,
            "start to schedulable node, existing",
            existing_node,
            2000.0,
        )
    }

    fn images(&self) -> PathBuf {
        self.cli.images.clone().unwrap_or_else(|| {
            self.out
                .parent()
                .map_or_else(|| PathBuf::from("images"), |target| target.join("images"))
        })
    }

    fn import(&self, place: &Place) -> anyhow::Result<()> {
        let busybox = evenkeel_runtime::testing::busybox_image(deploy::IMAGE)?;
        let imported = place.import(&busybox);
        fs::remove_file(&busybox)?;
        imported?;
        for name in ["shop.tar", "redis.tar"] {
            let file = self.images().join(name);
            if file.exists() {
                place.import(&file)?;
            }
        }
        Ok(())
    }

    /// A Deployment handed in to its pod Ready.
    async fn deployments(&mut self, place: &Place, cluster: &Cluster) -> anyhow::Result<()> {
        let floor = percentile(&floors::clone_exec(100)?, 0.5);
        let what = "clone with namespaces and exec of a static program for containers";
        let mut ready = Vec::new();
        for round in 0..self.cli.rounds * 8 {
            let name = format!("api-{round}");
            let applied = deploy::by_api(cluster, &name).await;
            ready.push(applied.with_context(|| place.why(&name))?.ready);
            deploy::remove(cluster, &name).await?;
        }
        self.report.add(
            Measure::new("Deployment to Ready, by the API", "ms", ready)
                .floor(floor, what)
                .below_both(300.0, 1000.0),
        )?;
        let kubeconfig = place.kubeconfig();
        let extra = deploy::extra(cluster).await?;
        let how = ["kubectl apply"]
            .iter()
            .chain(extra)
            .copied()
            .collect::<Vec<_>>()
            .join(" ");
        let (mut alone, mut ready, mut written) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..self.cli.rounds * 4 {
            alone.push(ms(deploy::kubectl_start(&kubeconfig)?));
            let name = format!("kubectl-{round}");
            let applied = deploy::by_kubectl(cluster, &kubeconfig, &name, extra).await;
            let applied = applied.with_context(|| place.why(&name))?;
            ready.push(applied.ready);
            written.push(applied.written);
            deploy::remove(cluster, &name).await?;
        }
        let alone = percentile(&alone, 0.5);
        let after = ready
            .iter()
            .zip(&written)
            .map(|(ready, written)| ready - written)
            .collect();
        let kubectl = "`kubectl version --client` for kubectl";
        self.report.add(
            Measure::new(format!("{how} to Ready"), "ms", ready)
                .floor(alone + floor, kubectl)
                .below_both(300.0, 1000.0),
        )?;
        self.report.add(
            Measure::new("  of it until the Deployment is written", "ms", written)
                .floor(alone, kubectl),
        )?;
        self.report
            .add(Measure::new("  of it from there to Ready", "ms", after).floor(floor, what))
    }

    /// Memory and processor time with the shop running and nobody asking.
    async fn idle(&mut self, place: &Place, cluster: &Cluster) -> anyhow::Result<()> {
        let (shop, kubeconfig) = (Path::new("examples/shop/shop.yaml"), place.kubeconfig());
        let there = self.images().join("shop.tar").exists() && shop.exists();
        let with = if there {
            deploy::apply_file(&kubeconfig, shop, deploy::extra(cluster).await?)?;
            let ready = deploy::all_ready(cluster, 2).await;
            ready.with_context(|| place.why("shop"))?;
            "the shop running"
        } else {
            // Not the shop, and the table says so.
            for name in ["idle-1", "idle-2", "idle-3"] {
                deploy::by_api(cluster, name).await?;
            }
            "3 sleeping pods (no shop image)"
        };
        let pid = cluster.pid();
        // What starting has left to do must not count as idling.
        tokio::time::sleep(Duration::from_secs(10)).await;
        let mut shares = Vec::new();
        for _ in 0..2 {
            let (before, began) = (process::cpu(pid)?, Instant::now());
            tokio::time::sleep(Duration::from_secs(self.cli.idle) / 2).await;
            let used = process::cpu(pid)? - before;
            shares.push(used.as_secs_f64() / began.elapsed().as_secs_f64() * 100.0);
        }
        let memory = process::memory(pid)?;
        let mut helpers = 0.0;
        for other in process::helpers_since(pid)? {
            helpers += mebibytes(process::memory(other)?.pss);
        }
        let report = &mut self.report;
        let both = vec![mebibytes(memory.rss)];
        report.add(Measure::new(format!("idle memory (RSS), {with}"), "MiB", both).below(80.0))?;
        let pss = vec![mebibytes(memory.pss)];
        report.add(Measure::new("idle memory (PSS)", "MiB", pss).below(80.0))?;
        report.add(Measure::new(
            "  of the containers' helpers (PSS)",
            "MiB",
            vec![helpers],
        ))?;
        report.add(Measure::new(format!("idle CPU, {with}"), "%", shares).below(1.0))
    }

    /// Requests over HTTPS.
    async fn requests(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        let echo = floors::Echo::start()?;
        load::namespace(cluster, "bench").await?;
        self.creates(cluster, &echo, Protocol::Http1).await?;
        self.creates(cluster, &echo, Protocol::Http2).await?;
        self.alone(cluster).await?;
        self.list(cluster, &echo).await?;
        self.others(cluster, &echo).await
    }

    async fn creates(
        &mut self,
        cluster: &Cluster,
        echo: &floors::Echo,
        protocol: Protocol,
    ) -> anyhow::Result<()> {
        let name = if protocol == Protocol::Http1 {
            "64 connections"
        } else {
            "64 streams, HTTP/2"
        };
        let mut users = load::users(&cluster.target, protocol, USERS).await?;
        let mut echoes = load::users(&echo.target, protocol, USERS).await?;
        let (mut cpu, mut rate, mut latency) = (Vec::new(), Vec::new(), Vec::new());
        let (mut floor, mut shared) = (Vec::new(), Vec::new());
        for round in 0..=self.cli.rounds {
            let prefix = format!(
                "{}-{round}",
                if protocol == Protocol::Http1 {
                    "h1"
                } else {
                    "h2"
                }
            );
            let requests = load::creates("bench", &prefix, CREATES);
            let before = load::metric(cluster, "evenkeel_store_fsyncs_total").await?;
            let floored = load::drive(echo.pid(), &mut echoes, requests.clone()).await?;
            let done = load::drive(cluster.pid(), &mut users, requests).await?;
            let after = load::metric(cluster, "evenkeel_store_fsyncs_total").await?;
            // The first round warms up both.
            if round > 0 {
                floor.push(floored.cpu);
                cpu.push(done.cpu);
                rate.push(done.rate);
                latency.extend(done.latencies);
                shared.push(f64::from(u32::try_from(CREATES)?) / (after - before));
            }
        }
        let floor = percentile(&floor, 0.5);
        let report = &mut self.report;
        let what = "TLS echo of the same body by the same client for requests";
        report.add(
            Measure::new(format!("create 1 KiB, {name}: server CPU"), "µs", cpu)
                .floor(floor, what)
                .below(200.0),
        )?;
        report.add(Measure::new("  rate", "/s", rate))?;
        report.add(Measure::new("  time to answer", "ms", latency))?;
        report.add(Measure::new("  creates sharing an fsync", "", shared))
    }

    /// One user: the price of one durable write.
    async fn alone(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        let mut users = load::users(&cluster.target, Protocol::Http1, 1).await?;
        let (mut latency, mut over, mut append) = (Vec::new(), Vec::new(), Vec::new());
        // In turns, so that what else the disk has to do burdens all alike.
        for round in 0..self.cli.rounds * 4 {
            append.extend(floors::sync(&self.out, true, 25)?);
            over.extend(floors::sync(&self.out, false, 25)?);
            let requests = load::creates("bench", &format!("alone-{round}"), 50);
            latency.extend(
                load::drive(cluster.pid(), &mut users, requests)
                    .await?
                    .latencies,
            );
        }
        let report = &mut self.report;
        report.add(
            Measure::new("create 1 KiB, 1 connection: time to answer", "ms", latency).floor(
                percentile(&over, 0.5),
                "write of 4 KiB in one place and fdatasync for one write",
            ),
        )?;
        report.add(Measure::new(
            "  such a write and fdatasync alone",
            "ms",
            over,
        ))?;
        report.add(Measure::new(
            "  append of 4 KiB and fdatasync alone",
            "ms",
            append,
        ))
    }

    async fn list(&mut self, cluster: &Cluster, echo: &floors::Echo) -> anyhow::Result<()> {
        load::namespace(cluster, "list").await?;
        let mut users = load::users(&cluster.target, Protocol::Http1, USERS).await?;
        load::drive(
            cluster.pid(),
            &mut users,
            load::creates("list", "o", LISTED),
        )
        .await?;
        let path = load::config_maps("list");
        let mut user = cluster.connect().await?;
        let mut copy = echo.target.connect(Protocol::Http1).await?;
        let (mut took, mut floor, mut size) = (Vec::new(), Vec::new(), 0);
        for _ in 0..self.cli.rounds * 10 {
            let (latency, length) = load::fetch(&mut user, &path).await?;
            took.push(latency);
            size = length;
            floor.push(load::fetch(&mut copy, &format!("/{length}")).await?.0);
        }
        let megabytes = f64::from(u32::try_from(size)?) / 1e6;
        self.report.add(
            Measure::new(
                format!("LIST of {LISTED} objects ({megabytes:.1} MB)"),
                "ms",
                took,
            )
            .floor(
                percentile(&floor, 0.5),
                "the same bytes copied from memory over TLS for LIST",
            )
            .below(30.0),
        )
    }

    /// For orientation.
    async fn others(&mut self, cluster: &Cluster, echo: &floors::Echo) -> anyhow::Result<()> {
        let mut users = load::users(&cluster.target, Protocol::Http1, USERS).await?;
        let mut echoes = load::users(&echo.target, Protocol::Http1, USERS).await?;
        let path = load::config_maps("list");
        let name = |n: usize| format!("o-{:05}", n % LISTED);
        let gets: Vec<load::Prepared> = (0..CREATES)
            .map(|n| (Method::GET, format!("{path}/{}", name(n)), Bytes::new()))
            .collect();
        let updates: Vec<load::Prepared> = (0..CREATES)
            .map(|n| {
                let body = String::from_utf8_lossy(&load::config_map(&name(n)))
                    .replace("0123456789abcdef", "fedcba9876543210");
                (
                    Method::PUT,
                    format!("{path}/{}", name(n)),
                    Bytes::from(body),
                )
            })
            .collect();
        let echoed: Vec<load::Prepared> = gets
            .iter()
            .map(|_| (Method::GET, "/1400".to_owned(), Bytes::new()))
            .collect();
        let mut figures: [Vec<f64>; 5] = Default::default();
        for _ in 0..self.cli.rounds {
            let floor = load::drive(echo.pid(), &mut echoes, echoed.clone()).await?;
            let get = load::drive(cluster.pid(), &mut users, gets.clone()).await?;
            let update = load::drive(cluster.pid(), &mut users, updates.clone()).await?;
            for (all, one) in
                figures
                    .iter_mut()
                    .zip([floor.cpu, get.cpu, get.rate, update.cpu, update.rate])
            {
                all.push(one);
            }
        }
        let [floor, get_cpu, get_rate, update_cpu, update_rate] = figures;
        let floor = percentile(&floor, 0.5);
        let what = "TLS echo of the same body by the same client for requests";
        let report = &mut self.report;
        report.add(Measure::new("GET: server CPU", "µs", get_cpu).floor(floor, what))?;
        report.add(Measure::new("  rate", "/s", get_rate))?;
        report.add(Measure::new("update: server CPU", "µs", update_cpu).floor(floor, what))?;
        report.add(Measure::new("  rate", "/s", update_rate))?;
        let (mut rate, mut cpu) = (Vec::new(), Vec::new());
        for round in 0..self.cli.rounds.min(3) {
            let space = format!("watch-{round}");
            load::namespace(cluster, &space).await?;
            let (events, each) = load::watchers(cluster, &space, 100, 500).await?;
            rate.push(events);
            cpu.push(each);
        }
        report.add(Measure::new("events to 100 watchers", "/s", rate))?;
        report
            .add(Measure::new(
                "  server CPU for each, the write included",
                "µs",
                cpu,
            ))
            .context("the last figure")
    }
}

fn mebibytes(bytes: u64) -> f64 {
    // Memory of a process is far below what a double counts exactly.
    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    let bytes = bytes as f64;
    bytes / MEBIBYTE
}
