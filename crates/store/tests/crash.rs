//! Kills a process that writes, at random moments, again and again: every acknowledged write must
//! be there, in order and whole, and a watch over the whole history has no gap.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use evenkeel_store::embedded::{EmbeddedOptions, EmbeddedStore};
use evenkeel_store::{Op, Range, Store, Txn};
use futures::StreamExt;

const DIR: &str = "EVENKEEL_STORE_CRASH_DIR";
const KILLS: u64 = 50;

fn open(dir: &Path) -> Arc<EmbeddedStore> {
    let options = EmbeddedOptions {
        tail_batches: 8,
        ..EmbeddedOptions::default()
    };
    Arc::new(EmbeddedStore::open(dir, options).expect("open"))
}

/// The writing process: not a test of its own, it runs when the test below starts it.
#[test]
fn writer() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let store = open(Path::new(&dir));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    runtime.block_on(async {
        let writers = (0..8u64).map(|writer| {
            let store = Arc::clone(&store);
            // Each task writes a pair in one transaction, and acknowledges it when it is durable.
            #[allow(
                clippy::disallowed_methods,
                reason = "the process ends by being killed"
            )]
            tokio::spawn(async move {
                let key = format!("w/{writer}");
                let read = store.range(Range::key(key.clone())).await.expect("range");
                let done = read.kvs.first().map_or(0, |kv| number(&kv.value));
                for count in done + 1.. {
                    let value = format!(
                        "{count} {}",
                        "x".repeat(usize::try_from(count).unwrap() % 3000)
                    );
                    let put = |key: String| Op::Put {
                        key: key.into(),
                        value: value.clone().into(),
                    };
                    // A key that lives for one revision, so that kills also hit what compaction
                    // does with deleted keys.
                    let brief = |count: u64| format!("brief/{writer}/{count}");
                    let last = Op::Delete {
                        key: brief(count - 1).into(),
                    };
                    let ops = vec![
                        put(key.clone()),
                        put(format!("{key}/twin")),
                        put(brief(count)),
                        last,
                    ];
                    let txn = Txn {
                        success: ops,
                        ..Txn::default()
                    };
                    let done = store.txn(txn).await.expect("write");
                    let line = format!("{writer} {count} {}\n", done.revision);
                    std::io::stderr()
                        .lock()
                        .write_all(line.as_bytes())
                        .expect("acknowledge");
                    if writer == 0 && count % 64 == 0 {
                        store.compact(done.revision).await.expect("compact");
                    }
                }
            })
        });
        futures::future::join_all(writers).await;
    });
}

fn number(value: &Bytes) -> u64 {
    let text = std::str::from_utf8(value).expect("text");
    text.split(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .expect("a number")
}

#[test]
fn every_acknowledged_write_survives_a_kill() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    let mut random = 0x9E37_79B9_7F4A_7C15u64 ^ u64::from(std::process::id());
    let mut acked = [0u64; 8];
    let mut last_revision = 1;
    let mut slowest = Duration::ZERO;
    for kill in 0..KILLS {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(kill + 1);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--nocapture"])
            .env(DIR, &dir)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut acks = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut note = |line: String| {
            let mut words = line.split(' ').map(|word| word.parse::<u64>());
            if let (Some(Ok(writer)), Some(Ok(count)), Some(Ok(revision))) =
                (words.next(), words.next(), words.next())
            {
                acked[usize::try_from(writer).unwrap()] = count;
                last_revision = last_revision.max(revision);
            } else {
                panic!("the writer said: {line}");
            }
        };
        // The moment is random in writes, and within a write random in time.
        for line in acks
            .by_ref()
            .take(usize::try_from(random >> 33).unwrap() % 400)
        {
            note(line.unwrap());
        }
        let until = Instant::now() + Duration::from_micros(random % 700);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        acks.map_while(Result::ok)
            .filter(|l| l.split(' ').count() == 3)
            .for_each(&mut note);
        child.wait().unwrap();
        let began = Instant::now();
        let store = open(&dir);
        slowest = slowest.max(began.elapsed());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        // What is there now stays, whether it was acknowledged or only on its way.
        (acked, last_revision) = runtime.block_on(verify(&*store, acked, last_revision));
    }
    assert!(last_revision > 100, "the writer hardly wrote");
    println!("{KILLS} kills, revision {last_revision}, slowest open {slowest:?}");
}

async fn verify(store: &dyn Store, mut acked: [u64; 8], last_revision: u64) -> ([u64; 8], u64) {
    let all = store.range(Range::prefix("w/")).await.expect("range");
    assert!(
        all.revision >= last_revision,
        "{} of {last_revision}",
        all.revision
    );
    for (writer, acked) in acked.iter_mut().enumerate() {
        let get = |key: String| all.kvs.iter().find(|kv| kv.key == key.as_bytes());
        let one = get(format!("w/{writer}"));
        let twin = get(format!("w/{writer}/twin"));
        let count = one.map_or(0, |kv| number(&kv.value));
        assert!(
            count >= *acked,
            "writer {writer}: {count} is there, {acked} was acknowledged"
        );
        assert!(
            count <= *acked + 1,
            "writer {writer}: {count} after {acked}"
        );
        assert_eq!(
            one.map(|kv| &kv.value),
            twin.map(|kv| &kv.value),
            "half a transaction"
        );
        assert_eq!(
            one.map_or(0, |kv| kv.version),
            count,
            "a write is missing or repeated"
        );
        let brief = Range::prefix(format!("brief/{writer}/"));
        let brief = store.range(brief).await.expect("range").kvs;
        let brief: Vec<_> = brief.into_iter().map(|kv| kv.key).collect();
        let expected = (count > 0).then(|| Bytes::from(format!("brief/{writer}/{count}")));
        assert_eq!(brief, Vec::from_iter(expected), "a deleted key is back");
        *acked = count;
    }
    let compacted = store.stats().await.expect("stats").compacted;
    let from = compacted.max(1) + 1;
    let watch = store
        .watch(Bytes::new(), Some(Bytes::new()), Some(from))
        .await;
    let mut watch = watch.expect("watch");
    for revision in from..=all.revision {
        let item = tokio::time::timeout(Duration::from_secs(10), watch.next()).await;
        let batch = item.expect("in time").expect("open").expect("history");
        assert_eq!(batch.revision, revision);
        // The first write of each writer has nothing to delete.
        let first = batch
            .events
            .iter()
            .any(|event| event.kv.version == 1 && event.kv.key.starts_with(b"w/"));
        assert_eq!(batch.events.len(), if first { 3 } else { 4 });
    }
    (acked, all.revision)
}
