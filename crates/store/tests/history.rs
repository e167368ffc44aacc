//! Concurrent random clients under `kill -9` and faults of the disk: the recorded history must be
//! linearizable, and every watch ordered and without a gap.
//!
//! A run is one store. A child process opens it and lets clients loose; it is killed at a random
//! moment, and another goes on where it was. Of three children one has a disk that is well, one a
//! disk whose syncs fail from some moment on, and one a disk that cuts writes short now and then. `EVENKEEL_HISTORY_RUNS` says how many runs
//! (`make check-history` makes thousands); a run is named by its seed, and
//! `EVENKEEL_HISTORY_SEED` makes its calls again, though not the moments of the kills.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "tests measure and wait")]

mod history_support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use evenkeel_store::Store;
use evenkeel_store::embedded::{EmbeddedOptions, EmbeddedStore};
use evenkeel_store::suite::history::{Entry, Figures, Random, Recorder, check};

const DIR: &str = "EVENKEEL_HISTORY_DIR";
const FIRST: &str = "EVENKEEL_HISTORY_FIRST";
const FROM: &str = "EVENKEEL_HISTORY_FROM";
const FAULT: &str = "EVENKEEL_HISTORY_FAULT";
const SEED: &str = "EVENKEEL_HISTORY_SEED";
const RUNS: &str = "EVENKEEL_HISTORY_RUNS";
/// What is wrong with the disk of a child.
const SYNCS_FAIL: u64 = 1;
const WRITES_FAIL: u64 = 2;
const FAULTS: u64 = 3;
const KILLS: u64 = 3;
const CLIENTS: u64 = 6;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The child: does nothing unless it is told where.
#[test]
fn clients() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let (first, from) = (number(FIRST).unwrap(), number(FROM).unwrap());
    let (seed, fault) = (number(SEED).unwrap(), number(FAULT).unwrap_or(0));
    history_support::prepare();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        // A short tail, so that watches also read the log.
        let options = EmbeddedOptions {
            tail_batches: 16,
            ..EmbeddedOptions::default()
        };
        let store = Arc::new(EmbeddedStore::open(Path::new(&dir), options).expect("open"));
        let store: Arc<dyn Store> = store;
        let sink = Box::new(|entry: &Entry| {
            let line = entry.to_line() + "\n";
            std::io::stderr()
                .write_all(line.as_bytes())
                .expect("a line");
        });
        let recorder = Recorder::with(Arc::clone(&store), first, Some(sink));
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = vec![recorder.observe(Some(from))];
        for prefix in ["k/1", "k/", ""] {
            tasks.push(recorder.watch_some(prefix, Arc::clone(&stop)));
        }
        for client in 0..CLIENTS {
            let (recorder, stop) = (recorder.clone(), Arc::clone(&stop));
            tasks.push(tokio::spawn(async move {
                recorder
                    .client(client, seed * 100 + first + client, &stop)
                    .await;
            }));
        }
        let mut random = Random::new(seed + first);
        let mut rounds = 1 + random.below(8);
        let wal = Path::new(&dir).join("store.db-wal");
        loop {
            rounds = rounds.saturating_sub(1);
            match fault {
                SYNCS_FAIL if rounds == 0 => {
                    history_support::syncs_fail();
                    rounds = u64::MAX;
                }
                WRITES_FAIL if random.below(2) == 0 => {
                    // Somewhere in what is written next, or in what a checkpoint writes.
                    let size = written(&wal);
                    let end = (size + random.below(20_000)).saturating_sub(random.below(200_000));
                    history_support::files_end_at(Some(end));
                }
                WRITES_FAIL => history_support::files_end_at(None),
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(30 + random.below(60))).await;
            // Only what the observer has told is given up: the truth must stay whole.
            let until = recorder.observed().saturating_sub(random.below(40));
            if until > 1 {
                store.compact(until).await.ok();
            }
        }
    });
}

/// How far a file has been written: room that was made for more is zero.
fn written(file: &Path) -> u64 {
    let content = std::fs::read(file).unwrap_or_default();
    let last = content.iter().rposition(|byte| *byte != 0);
    last.map_or(0, |last| last as u64 + 1)
}

fn run(seed: u64) -> Result<Figures, String> {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    let mut random = Random::new(seed);
    let mut entries: Vec<Entry> = Vec::new();
    let (mut first, mut from) = (1, 2);
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "clients", "--nocapture"])
            .env(DIR, &dir)
            .env(FIRST, first.to_string())
            .env(FROM, from.to_string())
            .env(SEED, seed.to_string())
            .env(FAULT, ((seed + kill) % FAULTS).to_string())
            .env_remove("RUST_LOG")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut line = Vec::new();
        let mut left = 50 + random.below(1500);
        loop {
            line.clear();
            let read = lines.read_until(b'\n', &mut line).unwrap();
            if read == 0 || line.last() != Some(&b'\n') {
                // Cut off in the middle, or at the end: killed.
                break;
            }
            let text = String::from_utf8_lossy(&line[..read - 1]);
            match Entry::from_line(&text) {
                Some(entry) => entries.push(entry),
                None => {
                    child.kill().ok();
                    child.wait().unwrap();
                    return Err(format!("the child said: {text}"));
                }
            }
            left = left.saturating_sub(1);
            if left == 0 {
                child.kill().unwrap();
            }
        }
        child.kill().ok();
        child.wait().unwrap();
        for entry in &entries {
            if let Entry::Call(id, _) | Entry::Watch(id, ..) = entry {
                first = first.max(id + 1);
            }
            if let Entry::Event(0, revision, ..) = entry {
                from = from.max(*revision);
            }
        }
        // The last revision may have been told in part: it is told again.
        entries.retain(|entry| !matches!(entry, Entry::Event(0, at, ..) if *at == from));
        first += 1000;
    }
    // What became of the last calls is told by one more watch.
    let store = EmbeddedStore::open(&dir, EmbeddedOptions::default()).map_err(|e| e.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store: Arc<dyn Store> = Arc::new(store);
        let last = store.revision().await.unwrap();
        let recorder = Recorder::new(Arc::clone(&store));
        let observer = recorder.observe(Some(from));
        let seen = async {
            while recorder.observed() < last {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), seen)
            .await
            .is_err()
        {
            return Err(format!("the last watch ends at {}", recorder.observed()));
        }
        observer.abort();
        entries.extend(recorder.entries());
        Ok(())
    })?;
    check(&entries, true)
}

#[test]
fn every_history_is_linearizable_and_watches_have_no_gap() {
    let runs = number(RUNS).unwrap_or(4);
    let base = number(SEED).unwrap_or_else(|| u64::from(std::process::id()) << 16);
    let mut all = Figures::default();
    for seed in base..base + runs {
        match run(seed) {
            Ok(found) => {
                all.writes += found.writes;
                all.lost_swaps += found.lost_swaps;
                all.reads += found.reads;
                all.unknown += found.unknown;
                all.unknown_happened += found.unknown_happened;
                all.revisions += found.revisions;
            }
            Err(wrong) => panic!("{SEED}={seed}: {wrong}"),
        }
        if runs > 100 && (seed - base) % 100 == 99 {
            println!("{} runs: {all:?}", seed - base + 1);
        }
    }
    println!("{runs} runs of {KILLS} kills: {all:?}");
    assert!(all.writes > 0 && all.reads > 0);
}
