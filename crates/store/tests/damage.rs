//! Files that are locked, missing, foreign, torn or changed behind the store's back.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use evenkeel_store::embedded::{EmbeddedOptions, EmbeddedStore};
use evenkeel_store::{Range, Store, StoreError, Txn};

fn open(dir: &Path) -> Result<EmbeddedStore, StoreError> {
    EmbeddedStore::open(dir, EmbeddedOptions::default())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

/// A copy of the files as a kill would leave them, with `count` writes that were acknowledged one
/// after the other; the first `folded` of them in the database itself.
fn written(root: &Path, count: u32, folded: u32) -> PathBuf {
    let live = root.join("live");
    let write = |store: &EmbeddedStore, range: std::ops::Range<u32>| {
        block_on(async {
            for i in range {
                let value = format!("{i} {}", "v".repeat(900));
                store
                    .txn(Txn::put(format!("k/{i:05}"), value))
                    .await
                    .unwrap();
            }
        });
    };
    let store = open(&live).unwrap();
    write(&store, 0..folded);
    drop(store);
    let store = open(&live).unwrap();
    write(&store, folded..count);
    let killed = root.join("killed");
    copy(&live, &killed);
    killed
}

fn copy(from: &Path, to: &Path) {
    if to.exists() {
        std::fs::remove_dir_all(to).unwrap();
    }
    std::fs::create_dir(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// How far a file has been written: room behind it is zero.
fn used(file: &Path) -> u64 {
    let content = std::fs::read(file).unwrap();
    let last = content.iter().rposition(|byte| *byte != 0).unwrap();
    let frames = (last as u64 + 1 - 32).div_ceil(8216);
    32 + frames * 8216
}

fn flip(file: &Path, at: u64) {
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(file)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x41], at).unwrap();
}

/// Whether everything is there as it was written.
fn whole(store: &EmbeddedStore, count: u32) -> bool {
    let all = block_on(store.range(Range::prefix("k/"))).unwrap();
    all.count == count as usize
        && all.kvs.iter().enumerate().all(|(i, kv)| {
            kv.key == format!("k/{i:05}").as_bytes()
                && kv.value == format!("{i} {}", "v".repeat(900)).as_bytes()
        })
}

#[test]
fn a_second_opener_is_refused_until_the_first_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    let refused = open(dir.path()).unwrap_err();
    assert!(
        matches!(&refused, StoreError::Locked { path } if path == dir.path()),
        "{refused}"
    );
    let watch = block_on(first.watch("a".into(), None, None)).unwrap();
    first.close();
    assert!(matches!(
        block_on(first.txn(Txn::put("a", "1"))),
        Err(StoreError::Closed)
    ));
    open(dir.path()).expect("closed, although a watch is left");
    drop(watch);
}

#[test]
fn a_closed_store_ends_its_watches() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()).unwrap());
    block_on(async {
        use futures::StreamExt;
        let mut watch = store.watch("a".into(), None, None).await.unwrap();
        store.txn(Txn::put("a", "1")).await.unwrap();
        store.close();
        let mut told = 0;
        while let Some(item) = watch.next().await {
            match item {
                Ok(batch) => told += batch.events.len(),
                Err(error) => assert!(matches!(error, StoreError::Closed)),
            }
        }
        assert_eq!(told, 1, "what happened before is told");
    });
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    for place in [
        file.as_path(),
        &file.join("below"),
        Path::new("/proc/evenkeel-store"),
    ] {
        let error = open(place).unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
        assert!(
            error.to_string().contains(place.to_str().unwrap()),
            "{error}"
        );
    }
}

#[test]
fn a_foreign_or_empty_file_is_refused_by_name() {
    for content in [&b""[..], b"something else entirely", &[0u8; 100_000]] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        std::fs::write(&path, content).unwrap();
        let error = open(dir.path()).unwrap_err();
        assert!(
            matches!(&error, StoreError::Corrupt { path: p, .. } if *p == path),
            "{error:?}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), content, "and left as it was");
    }
}

#[test]
fn a_half_created_store_is_created_anew() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("store.db.new"), "half").unwrap();
    std::fs::write(dir.path().join("store.db-wal"), "of another one").unwrap();
    let store = open(dir.path()).unwrap();
    assert_eq!(block_on(store.revision()).unwrap(), 1);
}

#[test]
fn no_flipped_byte_is_accepted() {
    let root = tempfile::tempdir().unwrap();
    let (count, rounds) = (120, 60);
    let killed = written(root.path(), count, 60);
    let (mut refused, mut harmless) = (0, 0);
    for name in ["store.db", "store.db-wal"] {
        // The last two commits of a write-ahead log cannot be told from torn ones: leave them out.
        let len = if name.ends_with("wal") {
            used(&killed.join(name)) - 4 * 8216
        } else {
            std::fs::metadata(killed.join(name)).unwrap().len()
        };
        for round in 0..rounds {
            let victim = root.path().join("victim");
            copy(&killed, &victim);
            flip(&victim.join(name), len * (2 * round + 1) / (2 * rounds));
            match open(&victim) {
                Ok(store) => {
                    assert!(
                        whole(&store, count),
                        "{name} round {round}: damage was accepted"
                    );
                    harmless += 1;
                }
                Err(StoreError::Corrupt { path, .. }) => {
                    assert!(path.starts_with(&victim), "{path:?}");
                    refused += 1;
                }
                Err(error) => panic!("{name} round {round}: {error:?}"),
            }
        }
    }
    assert!(
        refused > harmless,
        "{refused} refused, {harmless} without effect"
    );
}

#[test]
fn records_that_vanish_are_missed() {
    let root = tempfile::tempdir().unwrap();
    let store = open(&root.path().join("live")).unwrap();
    block_on(async {
        for i in 0..20 {
            store.txn(Txn::put(format!("k/{i}"), "v")).await.unwrap();
        }
        // After compaction gaps are ordinary, so that only the tally can tell.
        store.compact(21).await.unwrap();
        store.txn(Txn::put("k/3", "w")).await.unwrap();
    });
    drop(store);
    for sql in [
        "DELETE FROM log WHERE number = (SELECT number FROM log LIMIT 1 OFFSET 5)",
        "DELETE FROM log WHERE number = (SELECT max(number) FROM log)",
        "DELETE FROM log",
        "UPDATE state SET compacted = 1",
        "DELETE FROM state",
        "DROP TABLE log",
    ] {
        let victim = root.path().join("victim");
        copy(&root.path().join("live"), &victim);
        let db = rusqlite::Connection::open(victim.join("store.db")).unwrap();
        db.execute_batch(sql).unwrap();
        drop(db);
        let error = open(&victim).expect_err(sql);
        assert!(
            matches!(error, StoreError::Corrupt { .. }),
            "{sql}: {error:?}"
        );
    }
}

#[test]
fn a_torn_tail_costs_only_what_was_not_acknowledged() {
    let root = tempfile::tempdir().unwrap();
    let killed = written(root.path(), 60, 20);
    let wal = used(&killed.join("store.db-wal"));
    for cut in [1, 100, 4000, 8215] {
        // As when the sectors of the last write are partly on disk: cut short, and zeroed.
        for zero in [false, true] {
            let victim = root.path().join("victim");
            copy(&killed, &victim);
            let path = victim.join("store.db-wal");
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            if zero {
                file.write_all_at(&vec![0; cut], wal - cut as u64).unwrap();
            } else {
                file.set_len(wal - cut as u64).unwrap();
            }
            let store = open(&victim).unwrap();
            assert!(
                whole(&store, 59) || whole(&store, 60),
                "cut {cut}, zero {zero}"
            );
            block_on(store.txn(Txn::put("k/00059", "again"))).expect("it can be written again");
        }
    }
}
