//! What holds when many write and read at once.

use std::collections::BTreeSet;

use super::{Probe, declare_cases, put};
use crate::model::{Compare, Range, Txn};

declare_cases![
    concurrent_writes_each_get_their_revision,
    one_of_many_swaps_wins,
    a_write_is_seen_by_reads_after_it,
    a_read_and_a_watch_meet_without_gap,
];

async fn concurrent_writes_each_get_their_revision(p: Probe) {
    let base = p.revision().await;
    let puts = (0..200).map(|i| {
        let p = p.clone();
        async move { p.put(&format!("k/{i:03}"), "v").await }
    });
    let revisions: BTreeSet<_> = futures::future::join_all(puts).await.into_iter().collect();
    assert_eq!(revisions, (base + 1..=base + 200).collect());
    let all = p.range(Range::prefix("k/")).await;
    assert_eq!((all.count, all.revision), (200, base + 200));
}

async fn one_of_many_swaps_wins(p: Probe) {
    for round in 0..5 {
        let revision = p.get("lock").await.map_or(0, |kv| kv.mod_revision);
        let swaps = (0..32).map(|i| {
            let txn = Txn {
                compare: vec![Compare::ModRevision {
                    key: "lock".into(),
                    revision,
                }],
                success: vec![put("lock", &format!("{round} {i}"))],
                ..Txn::default()
            };
            p.txn(txn)
        });
        let won = futures::future::join_all(swaps)
            .await
            .iter()
            .filter(|r| r.succeeded)
            .count();
        assert_eq!(won, 1);
    }
}

async fn a_write_is_seen_by_reads_after_it(p: Probe) {
    let writers = (0..16).map(|i| {
        let p = p.clone();
        async move {
            for round in 0..10 {
                let (key, value) = (format!("k/{i}"), round.to_string());
                let revision = p.put(&key, &value).await;
                let seen = p.range(Range::key(key)).await;
                assert_eq!(&seen.kvs[0].value[..], value.as_bytes());
                assert!(seen.revision >= revision && p.revision().await >= revision);
            }
        }
    });
    futures::future::join_all(writers).await;
}

async fn a_read_and_a_watch_meet_without_gap(p: Probe) {
    let write = async {
        for number in 0..150 {
            p.put("k/a", &number.to_string()).await;
        }
    };
    let observe = async {
        for _ in 0..20 {
            let read = p.range(Range::prefix("k/")).await;
            let last = read.kvs.first().map_or(read.revision, |kv| kv.mod_revision);
            assert_eq!(
                last, read.revision,
                "the revision belongs to the state that was read"
            );
            let mut watch = p.watch("k/", Some(read.revision + 1)).await;
            let first = watch.any().await;
            let expected = if first.is_progress() {
                read.revision
            } else {
                read.revision + 1
            };
            assert!(
                first.revision >= expected,
                "{} after {}",
                first.revision,
                read.revision
            );
            if !first.is_progress() {
                assert_eq!(first.revision, expected);
            }
        }
    };
    tokio::join!(write, observe);
}
