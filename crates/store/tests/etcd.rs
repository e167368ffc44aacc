//! The engine on a real etcd: the conformance suite on one member and on three, TLS, and what
//! members that die or hang cost.
//!
//! Runs where an `etcd` is found or named by `EVENKEEL_ETCD`, and says that it was skipped
//! elsewhere; `EVENKEEL_NEEDS_ETCD` makes that a failure.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "tests measure and wait")]

mod etcd_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use etcd_support::Etcd;
use evenkeel_grpc::TlsFiles;
use evenkeel_store::etcd::{EtcdOptions, EtcdStore};
use evenkeel_store::suite::{self, history};
use evenkeel_store::{Op, Range, Store, StoreError, Txn};
use futures::StreamExt as _;

const BOUND: Duration = Duration::from_secs(90);

async fn open(etcd: &Etcd, prefix: &str) -> Arc<EtcdStore> {
    let files = etcd.certificates();
    let tls = if etcd.endpoints()[0].starts_with("https") {
        TlsFiles {
            ca: Some(files.ca),
            cert: Some(files.cert),
            key: Some(files.key),
        }
    } else {
        TlsFiles::default()
    };
    let options = EtcdOptions {
        endpoints: etcd.endpoints(),
        tls,
        prefix: prefix.to_owned(),
    };
    Arc::new(EtcdStore::open(&options).await.unwrap())
}

async fn conforms(etcd: &Etcd) {
    for (number, (name, case)) in suite::cases().into_iter().enumerate() {
        eprintln!("{name}");
        // Empty for the case; revisions go on, and no case depends on where they begin.
        case(open(etcd, &format!("/{number}/")).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_conforms() {
    let Some(etcd) = Etcd::start(1) else {
        return etcd_support::skipped();
    };
    conforms(&etcd).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_conform() {
    let Some(etcd) = Etcd::start(3) else {
        return etcd_support::skipped();
    };
    conforms(&etcd).await;
}

#[tokio::test]
async fn both_sides_show_certificates() {
    let Some(etcd) = Etcd::start_with(1, true) else {
        return etcd_support::skipped();
    };
    let store = open(&etcd, "/tls").await;
    let put = store.txn(Txn::put("k", "v")).await.unwrap();
    let mut watch = store
        .watch("k".into(), None, Some(put.revision))
        .await
        .unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, put.revision);
    // Without a certificate of ours it does not answer.
    let files = TlsFiles {
        ca: Some(etcd.certificates().ca),
        ..TlsFiles::default()
    };
    let options = EtcdOptions {
        endpoints: etcd.endpoints(),
        tls: files,
        prefix: String::new(),
    };
    let refused = EtcdStore::open(&options).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })));
}

/// Revisions go on where another store had come to, also for who opens it later.
#[tokio::test]
async fn revisions_go_on_where_another_store_had_come_to() {
    let Some(etcd) = Etcd::start(1) else {
        return etcd_support::skipped();
    };
    let options = EtcdOptions {
        endpoints: etcd.endpoints(),
        prefix: "/moved".to_owned(),
        ..EtcdOptions::default()
    };
    let store = EtcdStore::open(&options).await.unwrap();
    let store = store.raise(70_000).await.unwrap();
    let put = store.txn(Txn::put("k", "v")).await.unwrap();
    assert!(put.revision > 70_000);
    let again = EtcdStore::open(&options).await.unwrap();
    assert_eq!(again.revision().await.unwrap(), put.revision);
    let read = again.range(Range::key("k").at(put.revision)).await.unwrap();
    assert_eq!(read.kvs[0].mod_revision, put.revision);
    let before = again.range(Range::key("k").at(69_000)).await;
    assert!(matches!(before, Err(StoreError::Compacted { .. })));
    let watch = again.watch("k".into(), None, Some(5)).await;
    assert!(matches!(watch.err(), Some(StoreError::Compacted { .. })));
    assert!(
        again.raise(1).await.is_err(),
        "only an empty store is raised"
    );
}

/// A list of more than a page is one state, in order, whole.
#[tokio::test]
async fn long_lists_are_one_state() {
    let Some(etcd) = Etcd::start(1) else {
        return etcd_support::skipped();
    };
    let store = open(&etcd, "/long").await;
    for chunk in 0..50 {
        let ops = (0..100).map(|n| Op::Put {
            key: Bytes::from(format!("k/{:05}", chunk * 100 + n)),
            value: Bytes::from_static(b"v"),
        });
        let txn = Txn {
            success: ops.collect(),
            ..Txn::default()
        };
        store.txn(txn).await.unwrap();
    }
    let all = store.range(Range::prefix("k/")).await.unwrap();
    assert_eq!((all.kvs.len(), all.count, all.more), (5000, 5000, false));
    assert!(all.kvs.is_sorted_by(|a, b| a.key < b.key));
    let some = store.range(Range::prefix("k/").limit(3000)).await.unwrap();
    assert_eq!((some.kvs.len(), some.count, some.more), (3000, 5000, true));
    assert_eq!(some.kvs[..], all.kvs[..3000]);
}

/// Concurrent random clients, and the record of what they were told.
struct Clients {
    store: Arc<dyn Store>,
    recorder: history::Recorder,
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    watching: [tokio::task::JoinHandle<()>; 2],
}

impl Clients {
    async fn start(etcd: &Etcd) -> Self {
        let store: Arc<dyn Store> = open(etcd, "/h").await;
        let recorder = history::Recorder::new(Arc::clone(&store));
        let stop = Arc::new(AtomicBool::new(false));
        // From before the first write, whenever the task comes to it.
        let from = store.revision().await.unwrap() + 1;
        let observer = recorder.observe(Some(from));
        let watcher = recorder.watch_some("k/1", Arc::clone(&stop));
        let tasks = (0..6)
            .map(|client| {
                let (recorder, stop) = (recorder.clone(), Arc::clone(&stop));
                tokio::spawn(async move { recorder.client(client, 1 + client, &stop).await })
            })
            .collect();
        Self {
            store,
            recorder,
            stop,
            tasks,
            watching: [observer, watcher],
        }
    }

    /// Waits until so many more writes are acknowledged.
    async fn written(&self, more: u64) {
        let least = self.recorder.acknowledged() + more;
        let until = Instant::now() + BOUND;
        while self.recorder.acknowledged() < least {
            assert!(Instant::now() < until, "writes do not go on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends the clients and checks what they were told.
    async fn check(self) -> history::Figures {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.tasks {
            tokio::time::timeout(BOUND, client).await.unwrap().unwrap();
        }
        let last = self.store.revision().await.unwrap();
        // What the observer has not seen yet is still on its way.
        let until = Instant::now() + BOUND;
        self.store.request_progress().await.unwrap();
        while self.recorder.observed() < last {
            assert!(
                Instant::now() < until,
                "the observer stands at {}",
                self.recorder.observed()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for watching in self.watching {
            watching.abort();
        }
        let figures = history::check(&self.recorder.entries(), false).unwrap();
        eprintln!("{figures:?}");
        figures
    }
}

fn leader(etcd: &Etcd) -> usize {
    tokio::task::block_in_place(|| etcd.leader()).unwrap_or(1)
}

/// Concurrent random clients while members are killed, while the leader is killed, and while the
/// leader hangs: the recorded history must be linearizable and watches without a gap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_while_members_fail() {
    let Some(mut etcd) = Etcd::start(3) else {
        return etcd_support::skipped();
    };
    let clients = Clients::start(&etcd).await;
    clients.written(100).await;
    // The member that is asked first.
    etcd.kill(0);
    clients.written(100).await;
    etcd.start_member(0);
    etcd.wait_for(0);
    clients.written(100).await;
    let first = leader(&etcd);
    etcd.kill(first);
    clients.written(100).await;
    etcd.start_member(first);
    etcd.wait_for(first);
    clients.written(50).await;
    let hangs = leader(&etcd);
    etcd.freeze(hangs, true);
    clients.written(50).await;
    etcd.freeze(hangs, false);
    clients.written(50).await;
    assert!(clients.check().await.writes > 400);
}

/// The same while members are cut off from each other and clients reach all of them: a leader that
/// leads nobody may not answer from what it once knew. `EVENKEEL_PARTITIONS` says how often.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_while_the_cluster_is_parted() {
    let Some(etcd) = Etcd::start_partible(3) else {
        return etcd_support::skipped();
    };
    let often = std::env::var("EVENKEEL_PARTITIONS").ok();
    let often: u64 = often.map_or(4, |often| often.parse().unwrap());
    let clients = Clients::start(&etcd).await;
    clients.written(50).await;
    for round in 0..often {
        let cut = leader(&etcd);
        let [one, other] = [(cut + 1) % 3, (cut + 2) % 3];
        match round % 4 {
            // The leader alone, and the others together.
            0 => {
                etcd.part(cut, one);
                etcd.part(cut, other);
            }
            // One follower alone.
            1 => {
                etcd.part(one, cut);
                etcd.part(one, other);
            }
            // Leader and follower do not see each other; the third sees both.
            2 => etcd.part(cut, one),
            // The followers do not.
            _ => etcd.part(one, other),
        }
        clients.written(50).await;
        etcd.heal();
        clients.written(50).await;
    }
    assert!(clients.check().await.writes > 200);
}
