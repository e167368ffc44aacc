//! `make fuzz`: feeds every target for so many seconds and writes down what broke one.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Parser;
use evenkeel_fuzz::{Crash, Driver, TARGETS, Target};

/// Feeds mutated inputs to decoders, patches, selectors and expressions.
#[derive(Debug, Parser)]
struct Cli {
    /// Seconds for each target
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    seconds: u64,

    /// Only these targets
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    only: Vec<String>,

    /// Choices follow from this [default: the time]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,

    /// Where seeds are
    #[arg(long, default_value = "crates/fuzz/seeds", value_name = "DIR")]
    seeds: PathBuf,

    /// Where inputs that broke a target go
    #[arg(long, default_value = "target/fuzz", value_name = "DIR")]
    out: PathBuf,
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    std::fs::create_dir_all(&cli.out)?;
    // A panic is a finding, told below with its input: not twice.
    std::panic::set_hook(Box::new(|_| {}));
    let mut broken = 0;
    for target in TARGETS {
        if cli.only.is_empty() || cli.only.iter().any(|name| name == target.name) {
            broken += u32::from(!run(&cli, *target)?);
        }
    }
    evenkeel_fuzz::tidy();
    Ok(if broken == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Answers whether the target held.
fn run(cli: &Cli, target: Target) -> anyhow::Result<bool> {
    let seed = cli.seed.unwrap_or_else(seed);
    let mut driver = Driver::new(target, seed);
    let seeds = cli.seeds.join(target.name);
    driver
        .load(&seeds)
        .with_context(|| format!("seeds in {}", seeds.display()))?;
    let last = cli.out.join(format!("{}.last", target.name));
    driver.note_in(std::fs::File::create(last)?);
    let began = clock();
    let limit = Duration::from_secs(cli.seconds);
    let mut slowest = Duration::ZERO;
    let mut outcome = driver.replay();
    while outcome.is_ok() && began.elapsed() < limit {
        let before = clock();
        outcome = driver.step();
        slowest = slowest.max(before.elapsed());
    }
    let found = driver.outcome();
    println!(
        "{:<16} {:>10} inputs, {:>6} shapes, slowest {:>6.1} ms, seed {seed}",
        target.name,
        found.tried,
        found.shapes,
        slowest.as_secs_f64() * 1e3
    );
    let Err(Crash { input, message }) = outcome else {
        return Ok(true);
    };
    let file = cli.out.join(format!("{}-{seed}", target.name));
    std::fs::write(&file, &input)?;
    println!("{} BROKE: {message}", target.name);
    println!(
        "  the input is in {}: {:?}",
        file.display(),
        String::from_utf8_lossy(&input)
    );
    Ok(false)
}

#[allow(
    clippy::disallowed_methods,
    reason = "the edge: choices differ from run to run"
)]
fn seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(1, |since| since.as_secs())
}

#[allow(clippy::disallowed_methods, reason = "the edge: a run takes so long")]
fn clock() -> Instant {
    Instant::now()
}
