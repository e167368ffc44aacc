//! `evenkeel-bench loops`: scheduler and loops with simulated nodes.
//!
//! Each part runs in a process of its own, a whole cluster with its store on disk, so that the
//! memory and processor time of one say nothing about another. The parts print their measures as
//! JSON lines; this process reads them into the table. What is simulated is only the nodes
//! ([`agents`]): their leases and statuses go through the door as everybody's do, and are counted.

mod agents;
mod parts;
mod world;

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::measure::{Measure, Report};

pub(crate) use parts::part;

/// `evenkeel-bench loops`.
#[derive(Debug, Args)]
pub(crate) struct LoopsArgs {
    /// Where raw figures go [default: bench/ beside this program's directory]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// How often each part is repeated
    #[arg(long, default_value_t = 3, value_name = "N")]
    rounds: usize,

    /// Measure only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
}

/// `evenkeel-bench loops-part`.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct PartArgs {
    /// Which one
    #[arg(value_enum)]
    part: Part,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// 3,000 pods onto 1,000 nodes
    Bind,
    /// 1,000 pods with required anti-affinity and spread onto 1,000 nodes
    Constrained,
    /// 30,000 pods onto 5,000 nodes
    Large,
    /// A Deployment of 1,000 replicas, and the deletion of its namespace
    Deployment,
    /// From a write's answer to a loop's first action
    Reaction,
    /// 5,000 nodes with heartbeats and 150,000 running pods at rest
    Rest,
}

impl Part {
    /// One round of it takes minutes.
    fn is_long(self) -> bool {
        matches!(self, Self::Large | Self::Rest)
    }
}

/// What a part is held to: measures are named here, so that the table has one order.
const AIMS: &[(&str, &str, f64)] = &[
    ("bind.rate", "at least", 4000.0),
    ("constrained.rate", "at least", 1000.0),
    ("large.memory", "below", 1024.0),
    ("deployment.created", "below", 1000.0),
    ("deployment.bound", "below", 1500.0),
    ("deployment.namespace", "below", 3000.0),
    ("reaction.replicaset", "p99 below", 50.0),
    ("reaction.binding", "p99 below", 50.0),
    ("rest.cpu", "below", 50.0),
];

/// Units are part of a measure's type as fixed words.
fn unit(name: &str) -> &'static str {
    match name {
        "/s" => "/s",
        "ms" => "ms",
        "MiB" => "MiB",
        "s" => "s",
        "µs" => "µs",
        "% of a core" => "% of a core",
        _ => "",
    }
}

/// Runs the parts, prints the table.
pub(crate) fn all(args: &LoopsArgs) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("this program's own path")?;
    let beside = program.parent().and_then(std::path::Path::parent);
    let out = args
        .out
        .clone()
        .or_else(|| Some(beside?.join("bench")))
        .context("no place for raw figures; give one with --out")?;
    let uname = rustix::system::uname();
    let about = json!({
        "time": jiff::Timestamp::now().to_string(),
        "kernel": uname.release().to_string_lossy(),
        "processors": std::thread::available_parallelism()?.get(),
        "rounds": args.rounds,
        "what": "loops",
    });
    let mut report = Report::open(&out, &about)?;
    let mut failed = 0;
    for part in Part::value_variants() {
        if !args.only.is_empty() && !args.only.contains(part) {
            continue;
        }
        let rounds = if part.is_long() { 1 } else { args.rounds };
        let mut measures: Vec<(String, Measure)> = Vec::new();
        for _ in 0..rounds {
            if let Err(error) = round(&program, *part, &mut measures) {
                eprintln!("evenkeel-bench: {error:#}");
                failed += 1;
            }
        }
        for (id, measure) in measures {
            report.add(held(&id, measure))?;
        }
    }
    println!("{}", report.table());
    println!("raw figures: {}", report.path().display());
    match report.missed() {
        0 => {}
        missed => println!("{missed} aims are missed"),
    }
    anyhow::ensure!(failed == 0, "{failed} rounds could not be measured");
    Ok(())
}

fn held(id: &str, measure: Measure) -> Measure {
    match AIMS.iter().find(|(known, _, _)| *known == id) {
        Some((_, "at least", aim)) => measure.at_least(*aim),
        Some((_, "p99 below", aim)) => measure.below_both(*aim, *aim),
        Some((_, _, aim)) => measure.below(*aim),
        None => measure,
    }
}

/// One process: its lines are `{"id", "name", "unit", "samples"}`.
fn round(
    program: &std::path::Path,
    part: Part,
    measures: &mut Vec<(String, Measure)>,
) -> anyhow::Result<()> {
    let name = part
        .to_possible_value()
        .context("a part without a name")?
        .get_name()
        .to_owned();
    let mut child = Command::new(program)
        .args(["loops-part", &name])
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| program.display().to_string())?;
    let lines = BufReader::new(child.stdout.take().context("its output")?).lines();
    for line in lines {
        let line: Value = serde_json::from_str(&line?).context("a part's line")?;
        let id = line["id"].as_str().unwrap_or_default().to_owned();
        let samples = line["samples"].as_array().into_iter().flatten();
        let samples: Vec<f64> = samples.filter_map(Value::as_f64).collect();
        match measures.iter_mut().find(|(known, _)| *known == id) {
            Some((_, measure)) => measure.samples.extend(samples),
            None => {
                let text = line["name"].as_str().unwrap_or_default();
                let unit = unit(line["unit"].as_str().unwrap_or_default());
                measures.push((id, Measure::new(text, unit, samples)));
            }
        }
    }
    let status = child.wait()?;
    anyhow::ensure!(status.success(), "part {name} ended with {status}");
    Ok(())
}
