//! Prints the store's figures beside the bare floor of an append and an fdatasync, measured in the
//! same run: `cargo run --release -p evenkeel-store --example figures [DIR]`.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on stops")]

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_store::embedded::{EmbeddedOptions, EmbeddedStore};
use evenkeel_store::{Range, Store, Txn};
use futures::StreamExt;

const RECORD: usize = 1024;
const OBJECTS: usize = 150_000;

fn main() {
    let mut args = std::env::args().skip(1);
    let first = args.next().unwrap_or_else(|| {
        let dir = std::env::temp_dir().join("evenkeel-store-figures");
        dir.to_str().unwrap().to_owned()
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    if first == "open" {
        runtime.block_on(open(Path::new(&args.next().unwrap())));
        return;
    }
    let dir = Path::new(&first);
    if dir.exists() {
        std::fs::remove_dir_all(dir).unwrap();
    }
    std::fs::create_dir_all(dir).unwrap();
    runtime.block_on(measure(dir));
    std::fs::remove_dir_all(dir).unwrap();
}

async fn measure(dir: &Path) {
    let began = Instant::now();
    let rss_before = rss();
    let store =
        Arc::new(EmbeddedStore::open(&dir.join("one"), EmbeddedOptions::default()).unwrap());
    println!(
        "create: {:.1} ms, +{} KiB RSS",
        ms(began.elapsed()),
        rss() - rss_before
    );
    let switches_before = switches();
    tokio::time::sleep(Duration::from_secs(3)).await;
    println!(
        "idle: {} wake-ups of all threads in 3 s",
        switches() - switches_before
    );

    let value = bytes::Bytes::from(vec![7u8; RECORD]);
    let floor = std::fs::File::create(dir.join("floor")).unwrap();
    let (mut bare, mut lone) = (Vec::new(), Vec::new());
    for round in 0..40u64 {
        for i in 0..50 {
            let began = Instant::now();
            floor
                .write_all_at(&value, (round * 50 + i) * RECORD as u64)
                .unwrap();
            floor.sync_data().unwrap();
            bare.push(began.elapsed());
        }
        for i in 0..50 {
            let began = Instant::now();
            store
                .txn(Txn::put(format!("lone/{round}/{i}"), value.clone()))
                .await
                .unwrap();
            lone.push(began.elapsed());
        }
    }
    quantiles("bare append and fdatasync", bare);
    quantiles("lone put", lone);

    for writers in [64usize, 256] {
        let before = store.stats().await.unwrap();
        let (began, cpu_before) = (Instant::now(), cpu());
        let each = 20_000 / writers;
        let tasks = (0..writers).map(|writer| {
            let (store, value) = (Arc::clone(&store), value.clone());
            #[allow(clippy::disallowed_methods, reason = "a benchmark's own tasks")]
            tokio::spawn(async move {
                let mut took = Vec::new();
                for i in 0..each {
                    let began = Instant::now();
                    let put = Txn::put(format!("w{writers}/{writer}/{i}"), value.clone());
                    store.txn(put).await.unwrap();
                    took.push(began.elapsed());
                }
                took
            })
        });
        let all = futures::future::join_all(tasks).await;
        let (elapsed, cpu) = (began.elapsed(), cpu() - cpu_before);
        let all: Vec<Duration> = all.into_iter().flat_map(Result::unwrap).collect();
        let after = store.stats().await.unwrap();
        println!(
            "{writers} writers: {:.0} puts/s, {:.1} us CPU each, {:.1} puts per fsync",
            all.len() as f64 / elapsed.as_secs_f64(),
            cpu * 1e6 / all.len() as f64,
            (after.txns - before.txns) as f64 / (after.fsyncs - before.fsyncs) as f64
        );
        quantiles("  each", all);
    }
    drop(store);
    load(dir, &value).await;
}

async fn load(dir: &Path, value: &bytes::Bytes) {
    let big = dir.join("big");
    let store = EmbeddedStore::open(&big, EmbeddedOptions::default()).unwrap();
    for chunk in 0..OBJECTS / 500 {
        let puts =
            (0..500).map(|i| store.txn(Txn::put(format!("k/{}", chunk * 500 + i), value.clone())));
        futures::future::join_all(puts)
            .await
            .into_iter()
            .for_each(|r| drop(r.unwrap()));
    }
    let size = |stats: &evenkeel_store::StoreStats| stats.size_on_disk / 1_000_000;
    println!(
        "{OBJECTS} objects: {} MB on disk",
        size(&store.stats().await.unwrap())
    );
    drop(store);
    let again = || {
        let done = std::process::Command::new(std::env::current_exe().unwrap())
            .arg("open")
            .arg(&big)
            .status();
        assert!(done.unwrap().success());
    };
    again();
    let store = EmbeddedStore::open(&big, EmbeddedOptions::default()).unwrap();
    for round in 0..3 {
        for chunk in 0..OBJECTS / 1000 {
            let puts = (0..500)
                .map(|i| store.txn(Txn::put(format!("k/{}", chunk * 500 + i), value.clone())));
            futures::future::join_all(puts)
                .await
                .into_iter()
                .for_each(|r| drop(r.unwrap()));
        }
        let before = size(&store.stats().await.unwrap());
        let began = Instant::now();
        store
            .compact(store.revision().await.unwrap())
            .await
            .unwrap();
        let answered = began.elapsed();
        store.txn(Txn::put("after", "compaction")).await.unwrap();
        println!(
            "churn {round}: {before} MB before, compact answered in {:.1} ms, a put behind it {:.1} ms",
            ms(answered),
            ms(began.elapsed() - answered)
        );
        tokio::time::sleep(Duration::from_secs(2)).await;
        println!("  {} MB after", size(&store.stats().await.unwrap()));
    }
    let op = evenkeel_store::Op::DeleteRange {
        start: "k/".into(),
        end: "k0".into(),
    };
    store
        .txn(Txn {
            success: vec![op],
            ..Txn::default()
        })
        .await
        .unwrap();
    store.txn(Txn::put("after", "deletion")).await.unwrap();
    store
        .compact(store.revision().await.unwrap())
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    println!("all deleted: {} MB", size(&store.stats().await.unwrap()));
    drop(store);
    again();
}

/// In a process of its own: opening, listing and watching what is there.
async fn open(dir: &Path) {
    let (began, rss_before) = (Instant::now(), rss());
    let store = EmbeddedStore::open(dir, EmbeddedOptions::default()).unwrap();
    let opened = began.elapsed();
    let keys = store.stats().await.unwrap().keys;
    println!(
        "open with {keys} keys: {:.0} ms, +{} MiB RSS",
        ms(opened),
        (rss() - rss_before) / 1024
    );
    let began = Instant::now();
    let list = store.range(Range::prefix("k/").limit(5000)).await.unwrap();
    println!(
        "list of {} of {}: {:.2} ms",
        list.kvs.len(),
        list.count,
        ms(began.elapsed())
    );
    let stats = store.stats().await.unwrap();
    let from = stats.compacted.max(1) + 1;
    let began = Instant::now();
    let mut watch = store
        .watch("".into(), Some("".into()), Some(from))
        .await
        .unwrap();
    let mut told = 0;
    while let Some(Ok(batch)) = watch.next().await {
        if batch.is_progress() {
            break;
        }
        told += batch.events.len();
    }
    println!(
        "watch over {told} events of history: {:.0} ms",
        ms(began.elapsed())
    );
}

fn quantiles(name: &str, mut samples: Vec<Duration>) {
    samples.sort();
    let at = |per_mille: usize| ms(samples[(samples.len() - 1) * per_mille / 1000]);
    println!(
        "{name}: min {:.3} p50 {:.3} p99 {:.2} max {:.1} ms",
        at(0),
        at(500),
        at(990),
        at(1000)
    );
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn status(path: &str, field: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(field));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}

fn rss() -> u64 {
    status("/proc/self/status", "VmRSS:")
}

fn switches() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks
        .map(|task| {
            let path = task.path().join("status");
            status(path.to_str().unwrap(), "voluntary_ctxt_switches:")
        })
        .sum()
}

fn cpu() -> f64 {
    // Fields 14 and 15 of stat, in ticks of 10 ms.
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let words: Vec<&str> = text
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks = |i: usize| words[i].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}
