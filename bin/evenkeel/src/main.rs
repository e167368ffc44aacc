//! The one binary: composition and flags, nothing else.

mod accounts;
mod ask;
mod audit;
mod config;
mod enrol;
mod image;
mod join;
mod keep;
mod kubeconfig;
mod local;
mod node;
mod open;
mod outside;
mod rest;
mod running;
mod token;
mod up;

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The cloud native platform in one program.
#[derive(Debug, Parser)]
#[command(name = "evenkeel", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run server, loops and node in this process, in the foreground
    Up(Box<config::UpArgs>),
    /// Run the node agent alone, on a machine that joins a cluster
    Node(Box<join::NodeArgs>),
    /// Write kubeconfigs
    Kubeconfig(join::KubeconfigArgs),
    /// Make, list and delete tokens with which machines join
    Token(token::TokenArgs),
    /// Import, pull, list and remove images
    Image(image::ImageArgs),
    /// Say whether the cluster answers, which nodes it has, and what is not healthy
    Status(ask::Place),
    /// Explain anything that is not healthy: the cause chain and the next step
    Why(ask::WhyArgs),
    /// Keep a consistent copy of the whole state in a file, while the server runs or not
    Backup(keep::BackupArgs),
    /// Make a store out of a backup; no server may run
    Restore(keep::RestoreArgs),
    /// Look over the store of a stopped server, or a backup, for damage
    Check(keep::CheckArgs),
    /// Move the state to another engine, or tidy it up
    #[command(subcommand)]
    Store(keep::StoreCommand),
    /// Look after Secrets
    #[command(subcommand)]
    Secrets(keep::SecretsCommand),
    /// Remove what a stopped node left in the kernel: containers, mounts, links, tables
    Clean(Box<config::UpArgs>),
    /// Print the version
    Version,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Name and value of each flag of a command, as this process was started or by default.
fn flags(command: &str) -> BTreeMap<String, String> {
    let all = Cli::command();
    let (Some(known), Ok(found)) = (all.find_subcommand(command).cloned(), all.try_get_matches())
    else {
        return BTreeMap::new();
    };
    let Some(given) = found.subcommand_matches(command) else {
        return BTreeMap::new();
    };
    let value = |id: &str| {
        let raw = given.try_get_raw(id).ok().flatten();
        let texts = raw.into_iter().flatten().map(|it| it.to_string_lossy());
        texts.collect::<Vec<_>>().join(",")
    };
    known
        .get_arguments()
        .filter_map(|flag| Some((flag.get_long()?.to_owned(), value(flag.get_id().as_str()))))
        .collect()
}

/// What is wrong with the arguments, without the usage below it.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let lines: Vec<&str> = text
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
        .collect();
    let words: Vec<&str> = lines
        .iter()
        .flat_map(|line| line.split_whitespace())
        .collect();
    format!("{}; --help shows what there is", words.join(" "))
}

fn main() -> ExitCode {
    // The helper must run before any thread exists, and its arguments are not for people.
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(node::HELPER) {
        evenkeel_runtime::helper_main(arguments.collect());
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error)
            if error.use_stderr()
                && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand =>
        {
            eprintln!("evenkeel: {}", one_line(&error));
            return ExitCode::FAILURE;
        }
        // Help and version are answers, not faults.
        Err(answer) => answer.exit(),
    };
    let outcome = match cli.command {
        Command::Up(args) => up::main(*args),
        Command::Node(args) => join::main(*args),
        Command::Kubeconfig(args) => join::print(args),
        Command::Token(args) => token::main(args),
        Command::Image(args) => image::main(args),
        Command::Status(place) => ask::status(&place),
        Command::Why(args) => ask::why(&args),
        Command::Backup(args) => keep::backup(args),
        Command::Restore(args) => keep::restore(args),
        Command::Check(args) => keep::check(args),
        Command::Store(command) => keep::store(command),
        Command::Secrets(command) => keep::secrets(command),
        Command::Clean(args) => args.settle().and_then(|settings| node::clean(&settings)),
        Command::Version => {
            println!(
                "evenkeel {} (Kubernetes API {})",
                env!("CARGO_PKG_VERSION"),
                evenkeel_server::describe::KUBERNETES_VERSION
            );
            Ok(())
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "evenkeel", &mut script);
            print(&script)
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line: what failed, and why, down to the cause.
            eprintln!("evenkeel: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Writes to standard output, for as long as anybody reads it.
fn print(text: &[u8]) -> anyhow::Result<()> {
    match io::stdout().write_all(text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("write to standard output"),
    }
}
