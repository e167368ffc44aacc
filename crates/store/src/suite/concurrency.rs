//! What holds when many write and read at once.

use std::collections::BTreeSet;

use super::{Probe, declare_cases, pairs, put};
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

fn number(value: &[u8]) -> u32 {
    let text = std::str::from_utf8(value).expect("text");
    text.parse().expect("a number")
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
            // Other keys may be written meanwhile: an engine makes revisions of its own to learn
            // how far its watches are.
            let again = p.list("k/", Some(read.revision)).await;
            assert_eq!(
                again,
                pairs(&read.kvs),
                "the revision belongs to the state that was read"
            );
            let mut watch = p.watch("k/", Some(read.revision + 1)).await;
            let first = watch.any().await;
            if first.is_progress() {
                assert!(
                    first.revision >= read.revision,
                    "{first:?} after {}",
                    read.revision
                );
                continue;
            }
            assert!(
                first.revision > read.revision,
                "{first:?} after {}",
                read.revision
            );
            let seen = read.kvs.first().map(|kv| number(&kv.value));
            let next = seen.map_or(0, |seen| seen + 1);
            assert_eq!(number(&first.events[0].kv.value), next, "nothing between");
        }
    };
    tokio::join!(write, observe);
}
