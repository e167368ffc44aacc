//! Load generators and the floors they are measured against: `make bench`, `make bench-api`,
//! `make bench-loops`.
//!
//! Starts the given `evenkeel` in a data directory of its own, measures what issue and README
//! promise, each beside a physical floor of the same run, prints a table and keeps every sample
//! as JSON lines. Nothing of it is left behind. Comparisons of storage engines are a workspace of
//! their own, in `engines`.

mod api;
mod client;
mod cluster;
mod deploy;
mod floors;
mod load;
mod loops;
mod measure;
mod process;
mod run;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures Evenkeel against its aims and the machine's floors.
#[derive(Debug, Parser)]
#[command(name = "evenkeel-bench", version)]
pub(crate) struct Cli {
    /// The program to measure
    #[arg(long, default_value = "target/release/evenkeel", value_name = "PATH")]
    evenkeel: PathBuf,

    /// How often the repeated parts are repeated
    #[arg(long, default_value_t = 5, value_name = "N")]
    rounds: usize,

    /// Where raw figures and data go [default: bench/ in the target directory of the program]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Example images, as `make images` writes them [default: images/ in the target directory]
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,

    /// Seconds over which idle processor time is taken
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    idle: u64,

    /// Measure only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<run::Part>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The echo server that floors are measured with
    #[command(hide = true)]
    Echo,

    /// Measures the API server: requests, watches, very many objects
    Api(api::ApiArgs),

    /// Measures scheduler and loops with simulated nodes, in a cluster of one process
    Loops(loops::LoopsArgs),

    /// One part of `loops`, in a process of its own
    #[command(hide = true)]
    LoopsPart(loops::PartArgs),
}

/// As the product's own: the loops are measured with the allocator that they run with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

impl Cli {
    /// Where figures and data go.
    fn out(&self) -> PathBuf {
        let target = self.evenkeel.parent().and_then(Path::parent);
        let beside = target.unwrap_or(Path::new("target")).join("bench");
        self.out.clone().unwrap_or(beside)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.command {
        // As many threads as the server that it is the floor of.
        Some(Command::Echo) => tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(anyhow::Error::from)
            .and_then(|runtime| runtime.block_on(floors::echo())),
        Some(Command::Loops(args)) => loops::all(args),
        // As many threads as the product has. The one that starts all only waits, as there: what is
        // measured would be woken for each change on a thread of its own otherwise.
        Some(Command::LoopsPart(args)) => tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(anyhow::Error::from)
            .and_then(|runtime| runtime.block_on(runtime.spawn(loops::part(*args)))?),
        // One thread: the client must leave the other processors to the server.
        Some(Command::Api(args)) => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(anyhow::Error::from)
            .and_then(|runtime| runtime.block_on(api::all(&cli, args))),
        None => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(anyhow::Error::from)
            .and_then(|runtime| runtime.block_on(run::all(&cli))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("evenkeel-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
