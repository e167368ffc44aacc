//! Backup while serving, restore, check, and what damage is told.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "tests measure and wait")]

mod etcd_support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use evenkeel_store::embedded::{EmbeddedOptions, EmbeddedStore};
use evenkeel_store::etcd::{EtcdOptions, EtcdStore};
use evenkeel_store::snapshot::{self, Summary};
use evenkeel_store::{KeyValue, Op, Range, Store, StoreError, Txn};
use futures::{StreamExt as _, TryStreamExt as _};

async fn take(store: Arc<dyn Store>, file: &Path) -> Summary {
    let pieces: Vec<_> = snapshot::take(store, 1).try_collect().await.unwrap();
    std::fs::write(file, pieces.concat()).unwrap();
    snapshot::read(file, |_| Ok(())).unwrap()
}

fn open(dir: &Path) -> Arc<EmbeddedStore> {
    Arc::new(EmbeddedStore::open(dir, EmbeddedOptions::default()).unwrap())
}

async fn filled(dir: &Path, keys: usize) -> Arc<EmbeddedStore> {
    let store = open(dir);
    for number in 0..keys {
        let value = format!("{number}-{}", "x".repeat(number % 500));
        let put = |key: String| Op::Put {
            key: key.into(),
            value: value.clone().into(),
        };
        // Two keys of one revision.
        let txn = Txn {
            success: vec![put(format!("a/{number:05}")), put(format!("b/{number:05}"))],
            ..Txn::default()
        };
        store.txn(txn).await.unwrap();
    }
    store.txn(Txn::put("a/00001", "changed")).await.unwrap();
    store.txn(Txn::delete("a/00002")).await.unwrap();
    store
}

async fn all(store: &dyn Store) -> Vec<KeyValue> {
    store.range(Range::prefix("")).await.unwrap().kvs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_taken_while_serving_is_one_state() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(&dir.path().join("store"), 3000).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut number = 0_u64;
            while !stop.load(Ordering::SeqCst) {
                // Both or neither: a backup in between would show.
                let put = |key: &str| Op::Put {
                    key: key.to_owned().into(),
                    value: number.to_string().into(),
                };
                let txn = Txn {
                    success: vec![put("a/first"), put("z/last")],
                    ..Txn::default()
                };
                store.txn(txn).await.unwrap();
                number += 1;
            }
        })
    };
    let file = dir.path().join("backup");
    for round in 0..5 {
        let summary = take(Arc::clone(&store) as Arc<dyn Store>, &file).await;
        let mut pair = Vec::new();
        snapshot::read(&file, |kv| {
            if kv.key == "a/first" || kv.key == "z/last" {
                pair.push((kv.value, kv.mod_revision));
            }
            Ok(())
        })
        .unwrap();
        assert!(summary.keys >= 5999, "round {round}");
        assert!(
            pair.len() != 1 && pair.windows(2).all(|two| two[0] == two[1]),
            "{pair:?}"
        );
    }
    stop.store(true, Ordering::SeqCst);
    writer.await.unwrap();
}

#[tokio::test]
async fn a_restored_store_is_the_same_and_goes_on_beyond() {
    let root = tempfile::tempdir().unwrap();
    let store = filled(&root.path().join("store"), 300).await;
    let file = root.path().join("backup");
    let summary = take(Arc::clone(&store) as Arc<dyn Store>, &file).await;
    let before = all(&*store).await;
    let dir = root.path().join("restored");
    let early = EmbeddedStore::restore(&file, &dir, summary.revision);
    assert!(matches!(early, Err(StoreError::Invalid { .. })));
    let at = summary.revision + 1000;
    assert_eq!(EmbeddedStore::restore(&file, &dir, at).unwrap(), summary);
    let again = EmbeddedStore::restore(&file, &dir, at);
    assert!(matches!(again, Err(StoreError::Invalid { .. })));
    let found = EmbeddedStore::check(&dir).unwrap();
    assert_eq!((found.revision, found.keys), (at, before.len()));
    // Twice: what was restored is also what a later start finds.
    for round in 1..=2 {
        let restored = open(&dir);
        assert_eq!(
            all(&*restored).await[..before.len()],
            before,
            "keys, values, revisions"
        );
        let old = restored
            .watch("a/".into(), None, Some(summary.revision))
            .await;
        assert!(matches!(old.err(), Some(StoreError::Compacted { .. })));
        let put = restored.txn(Txn::put("z", "1")).await.unwrap();
        assert_eq!(put.revision, at + round);
        let mut watch = restored
            .watch("z".into(), None, Some(at + 1))
            .await
            .unwrap();
        assert_eq!(watch.next().await.unwrap().unwrap().revision, at + 1);
        if round == 2 {
            restored.compact(put.revision).await.unwrap();
        }
        drop(watch);
        restored.close();
    }
    assert_eq!(EmbeddedStore::check(&dir).unwrap().revision, at + 2);
}

#[tokio::test]
async fn a_damaged_backup_is_named() {
    let root = tempfile::tempdir().unwrap();
    let store = filled(&root.path().join("store"), 50).await;
    let file = root.path().join("backup");
    take(Arc::clone(&store) as Arc<dyn Store>, &file).await;
    let whole = std::fs::read(&file).unwrap();
    let dir = root.path().join("restored");
    let refused = |bytes: &[u8]| {
        let damaged = root.path().join("damaged");
        std::fs::write(&damaged, bytes).unwrap();
        let error = EmbeddedStore::restore(&damaged, &dir, 1 << 30).unwrap_err();
        assert!(
            matches!(&error, StoreError::Corrupt { path, .. } if *path == damaged),
            "{error}"
        );
        assert!(!dir.exists(), "nothing is made of it");
    };
    for at in (0..whole.len()).step_by(37) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        refused(&bytes);
    }
    for length in [0, 7, 40, whole.len() / 2, whole.len() - 1] {
        refused(&whole[..length]);
    }
    refused(&[&whole[..], b"x"].concat());
}

#[tokio::test]
async fn a_damaged_store_is_named_by_check() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    let store = filled(&dir, 200).await;
    assert!(matches!(
        EmbeddedStore::check(&dir),
        Err(StoreError::Locked { .. })
    ));
    store.close();
    EmbeddedStore::check(&dir).unwrap();
    let file = dir.join("store.db");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0xAA);
    std::fs::write(&file, bytes).unwrap();
    let found = EmbeddedStore::check(&dir);
    assert!(
        matches!(found, Err(StoreError::Corrupt { .. })),
        "{found:?}"
    );
    let nothing = EmbeddedStore::check(&root.path().join("nowhere"));
    assert!(matches!(nothing, Err(StoreError::Io { .. })), "{nothing:?}");
}

/// Embedded to etcd and back: every key, and revisions that only grow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_moves_to_etcd_and_back() {
    let Some(etcd) = etcd_support::Etcd::start(1) else {
        return etcd_support::skipped();
    };
    let root = tempfile::tempdir().unwrap();
    let store = filled(&root.path().join("store"), 700).await;
    let before: Vec<_> = all(&*store)
        .await
        .into_iter()
        .map(|kv| (kv.key, kv.value))
        .collect();
    let file = root.path().join("backup");
    let first = take(Arc::clone(&store) as Arc<dyn Store>, &file).await;
    let options = EtcdOptions {
        endpoints: etcd.endpoints(),
        prefix: "/cluster".to_owned(),
        ..EtcdOptions::default()
    };
    EtcdStore::restore(&options, &file, 0).await.unwrap();
    let twice = EtcdStore::restore(&options, &file, 0).await;
    assert!(
        matches!(twice, Err(StoreError::Invalid { .. })),
        "{twice:?}"
    );
    let moved = Arc::new(EtcdStore::open(&options).await.unwrap());
    let there = all(&*moved).await;
    assert!(there.iter().all(|kv| kv.mod_revision > first.revision));
    let there: Vec<_> = there.into_iter().map(|kv| (kv.key, kv.value)).collect();
    assert_eq!(there, before);
    let put = moved.txn(Txn::put("a/new", "1")).await.unwrap();
    let second = take(Arc::clone(&moved) as Arc<dyn Store>, &file).await;
    assert!(put.revision > first.revision && second.revision >= put.revision);
    let dir = root.path().join("back");
    EmbeddedStore::restore(&file, &dir, second.revision + 1).unwrap();
    let back = open(&dir);
    assert_eq!(all(&*back).await.len(), before.len() + 1);
    let last = back.txn(Txn::put("a/newer", "1")).await.unwrap();
    assert!(last.revision > second.revision);
}
