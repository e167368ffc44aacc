//! `make bench-api`: the figures that the API server is held to, each beside a floor of the same
//! run.
//!
//! The aims are those of the issue; the client shares the processors with the server, as it did
//! where the reference was measured. A part that fails is said, and the others go on.

mod many;
mod requests;
mod watch;

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::cluster::{Cluster, Place};
use crate::floors::Echo;
use crate::measure::{Measure, Report};
use crate::{Cli, load, process};

const MEBIBYTE: f64 = 1_048_576.0;

/// What is measured, and how much of it.
#[derive(Debug, Args)]
pub(crate) struct ApiArgs {
    /// Measure only these parts
    #[arg(long = "parts", value_enum, value_delimiter = ',')]
    parts: Vec<Part>,

    /// Creates of one round
    #[arg(long, default_value_t = 4_000, value_name = "N")]
    creates: usize,

    /// Objects of the list
    #[arg(long, default_value_t = 5_000, value_name = "N")]
    listed: usize,

    /// Watchers of the widest watch
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    watchers: usize,

    /// Changes that they see
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    changes: usize,

    /// Changes in a second while delivery is timed
    #[arg(long, default_value_t = 50, value_name = "N")]
    pace: u32,

    /// Seconds of the mixed load
    #[arg(long, default_value_t = 15, value_name = "SECONDS")]
    mixed: u64,

    /// Objects of the largest cluster
    #[arg(long, default_value_t = 150_000, value_name = "N")]
    objects: usize,
}

/// Parts of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Memory before anybody has asked for anything
    Idle,
    /// Creates with 1, 16 and 64 connections
    Create,
    /// GET and update
    Single,
    /// LIST
    List,
    /// Events to 100 watchers
    Watch,
    /// Delivery to and memory of many watchers
    Delivery,
    /// Reads and writes together at a given rate
    Mixed,
    /// Start, memory and chunked lists with very many objects
    Many,
}

/// Where things are in this run.
struct Api<'a> {
    args: &'a ApiArgs,
    rounds: usize,
    report: Report,
}

/// Measures everything, prints the table.
pub(crate) async fn all(cli: &Cli, args: &ApiArgs) -> anyhow::Result<()> {
    let out = cli.out();
    let uname = rustix::system::uname();
    let about = json!({
        "time": jiff::Timestamp::now().to_string(),
        "kernel": uname.release().to_string_lossy(),
        "processors": std::thread::available_parallelism()?.get(),
        "rounds": cli.rounds,
        "what": "api",
        "load": load_average(),
    });
    println!("load average before it: {}", load_average());
    let mut api = Api {
        args,
        rounds: cli.rounds,
        report: Report::open(&out, &about)?,
    };
    let place = Place::new(&cli.evenkeel, &out, "api")?;
    let outcome = api.run(&place).await;
    // Whatever happened, nothing is left behind.
    let cleaned = place.clean();
    println!("{}", api.report.table());
    println!("raw figures: {}", api.report.path().display());
    match api.report.missed() {
        0 => {}
        missed => println!("{missed} aims are missed"),
    }
    outcome.and(cleaned)
}

impl Api<'_> {
    fn wants(&self, part: Part) -> bool {
        self.args.parts.is_empty() || self.args.parts.contains(&part)
    }

    async fn run(&mut self, place: &Place) -> anyhow::Result<()> {
        let (cluster, _) = place.start().await?;
        let echo = Echo::start()?;
        let mut failed = Vec::new();
        if self.wants(Part::Idle) {
            cluster.schedulable().await?;
            let idle = settled(&cluster).await? / MEBIBYTE;
            self.add(Measure::new("idle memory, node and all", "MiB", vec![idle]).below(80.0))?;
        }
        for space in ["bench", "list"] {
            load::namespace(&cluster, space).await?;
        }
        if self.wants(Part::Create) {
            failed.extend(self.creates(place, &cluster, &echo).await.err());
        }
        let needs_list = [Part::Single, Part::List, Part::Mixed];
        if needs_list.iter().any(|part| self.wants(*part)) {
            failed.extend(self.fill(&cluster).await.err());
        }
        if self.wants(Part::Single) {
            failed.extend(self.single(&cluster, &echo).await.err());
        }
        if self.wants(Part::List) {
            failed.extend(self.list(&cluster, &echo).await.err());
        }
        if self.wants(Part::Watch) {
            failed.extend(self.events(&cluster).await.err());
        }
        if self.wants(Part::Delivery) {
            failed.extend(self.memory_of_watchers(&cluster).await.err());
            failed.extend(self.delivery(&cluster, &echo).await.err());
        }
        if self.wants(Part::Mixed) {
            failed.extend(self.mixed(&cluster, &echo).await.err());
        }
        cluster.stop()?;
        if self.wants(Part::Many) {
            failed.extend(self.many(place).await.err());
        }
        for error in &failed {
            eprintln!("evenkeel-bench: {error:#}");
        }
        anyhow::ensure!(
            failed.is_empty(),
            "{} parts could not be measured",
            failed.len()
        );
        Ok(())
    }

    fn add(&mut self, measure: Measure) -> anyhow::Result<()> {
        self.report.add(measure)
    }
}

/// Resident memory in bytes, when it has stopped to change.
async fn settled(cluster: &Cluster) -> anyhow::Result<f64> {
    let mut last = process::memory(cluster.pid())?.rss;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let now = process::memory(cluster.pid())?.rss;
        if now.abs_diff(last) < 256 << 10 {
            return Ok(double(now));
        }
        last = now;
    }
    Ok(double(last))
}

/// What else the machine does: figures of a busy one are upper bounds.
fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// A count as a double.
fn double(count: u64) -> f64 {
    // Bytes and counts of a process are far below what a double counts exactly.
    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    let count = count as f64;
    count
}
