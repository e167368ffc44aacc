//! What a watch tells.

use super::{Probe, declare_cases, delete, put, text, told};
use crate::error::StoreError;
use crate::model::{EventKind, Range, Txn};

declare_cases![
    new_events_are_told_as_they_happen,
    the_past_is_told_first,
    a_transaction_is_told_in_one_batch,
    only_what_is_covered_is_told,
    events_carry_what_was_there,
    a_watch_may_begin_in_the_future,
    progress_is_told_when_caught_up_and_when_asked,
    a_slow_reader_misses_nothing,
    a_reader_that_compaction_overtakes_is_told,
    an_idle_watch_outlives_compaction,
];

async fn new_events_are_told_as_they_happen(p: Probe) {
    p.put("k/before", "").await;
    let mut watch = p.watch("k/", None).await;
    let first = p.put("k/a", "1").await;
    let batch = watch.next().await;
    assert_eq!(
        (batch.revision, told(&batch)),
        (first, vec!["k/a=1".to_owned()])
    );
    p.put("k/a", "2").await;
    assert_eq!(told(&*watch.next().await), ["k/a=2"]);
    let deleted = p.delete("k/a").await;
    let batch = watch.next().await;
    let event = &batch.events[0];
    assert_eq!(event.kind, EventKind::Delete);
    assert_eq!((event.kv.mod_revision, batch.revision), (deleted, deleted));
    assert!(event.kv.value.is_empty());
}

async fn the_past_is_told_first(p: Probe) {
    p.put("k/a", "1").await;
    let from = p.put("k/a", "2").await;
    p.delete("k/a").await;
    p.put("k/b", "1").await;
    let mut watch = p.watch("k/", Some(from)).await;
    for expected in ["k/a=2", "-k/a", "k/b=1"] {
        assert_eq!(told(&*watch.next().await), [expected]);
    }
    p.put("k/c", "1").await;
    assert_eq!(told(&*watch.next().await), ["k/c=1"]);
}

async fn a_transaction_is_told_in_one_batch(p: Probe) {
    p.put("k/b", "1").await;
    let from = p.revision().await + 1;
    let mut watch = p.watch("", None).await;
    let txn = Txn {
        success: vec![put("k/c", "1"), delete("k/b"), put("k/a", "1")],
        ..Txn::default()
    };
    let done = p.txn(txn).await;
    let live = watch.next().await;
    assert_eq!(live.revision, done.revision);
    assert_eq!(told(&live).len(), 3);
    let replayed = p.watch("", Some(from)).await.next().await;
    assert_eq!(replayed, live, "history tells what was told live");
}

async fn only_what_is_covered_is_told(p: Probe) {
    let from = p.revision().await + 1;
    let mut prefix = p.watch("k/", None).await;
    let mut single = p.watch_interval("k/b".into(), None, None).await;
    let mut all = p.watch("", None).await;
    p.put("j", "1").await;
    p.txn(Txn {
        success: vec![put("j", "2"), put("k/a", "1")],
        ..Txn::default()
    })
    .await;
    p.put("k0", "1").await;
    p.put("k/b", "1").await;
    p.put("k/bb", "1").await;
    let mut again = p.watch("k/", Some(from)).await;
    for watch in [&mut prefix, &mut again] {
        for expected in ["k/a=1", "k/b=1", "k/bb=1"] {
            assert_eq!(told(&*watch.next().await), [expected]);
        }
    }
    assert_eq!(told(&*single.next().await), ["k/b=1"]);
    let mut told_all = Vec::new();
    while told_all.len() < 6 {
        told_all.extend(told(&*all.next().await));
    }
    assert_eq!(told_all, ["j=1", "j=2", "k/a=1", "k0=1", "k/b=1", "k/bb=1"]);
}

async fn events_carry_what_was_there(p: Probe) {
    let first = p.put("a", "1").await;
    p.put("a", "2").await;
    p.delete("a").await;
    p.put("a", "3").await;
    let mut watch = p.watch("a", Some(first)).await;
    let mut before = Vec::new();
    for _ in 0..4 {
        let batch = watch.next().await;
        let prev = batch.events[0].prev.as_ref();
        before.push(prev.map(|kv| (text(&kv.value), kv.version, kv.create_revision)));
    }
    let kv = |value: &str, version| Some((value.to_owned(), version, first));
    assert_eq!(before, [None, kv("1", 1), kv("2", 2), None]);
}

async fn a_watch_may_begin_in_the_future(p: Probe) {
    let base = p.revision().await;
    let mut watch = p.watch("", Some(base + 3)).await;
    p.put("a", "1").await;
    p.put("a", "2").await;
    let third = p.put("a", "3").await;
    let batch = watch.next().await;
    assert_eq!(
        (batch.revision, told(&batch)),
        (third, vec!["a=3".to_owned()])
    );
}

async fn progress_is_told_when_caught_up_and_when_asked(p: Probe) {
    let first = p.put("k/a", "1").await;
    let current = p.put("other", "1").await;
    let mut watch = p.watch("k/", Some(first)).await;
    assert_eq!(watch.any().await.revision, first);
    assert_eq!(
        watch.progress().await,
        current,
        "caught up, beyond what concerns the watch"
    );
    let later = p.put("other", "2").await;
    let asked = Probe::must(p.store.request_progress().await, "request progress");
    assert_eq!(asked, later);
    assert!(watch.progress().await >= later);
    let event = p.put("k/a", "2").await;
    assert_eq!(watch.any().await.revision, event);
}

async fn a_slow_reader_misses_nothing(p: Probe) {
    let from = p.revision().await + 1;
    let mut slow = p.watch("k/", None).await;
    let count = 3000u64;
    let value = "v".repeat(2000);
    for chunk in 0..count / 100 {
        let puts = (0..100).map(|i| p.put_later(format!("k/{}", i % 7), &value, chunk * 100 + i));
        futures::future::join_all(puts).await;
    }
    let mut late = p.watch("k/", Some(from)).await;
    for watch in [&mut slow, &mut late] {
        for revision in from..from + count {
            assert_eq!(watch.next().await.revision, revision);
        }
    }
}

impl Probe {
    async fn put_later(&self, key: String, value: &str, number: u64) {
        self.put(&key, &format!("{number} {value}")).await;
    }
}

async fn a_reader_that_compaction_overtakes_is_told(p: Probe) {
    let from = p.revision().await + 1;
    let mut slow = p.watch("k/", None).await;
    let value = "v".repeat(20_000);
    for chunk in 0..20u64 {
        let puts = (0..50).map(|i| p.put_later("k/a".to_owned(), &value, chunk * 50 + i));
        futures::future::join_all(puts).await;
    }
    let last = p.revision().await;
    p.compact(last).await;
    // An engine may have kept some of it for the reader; what it tells has no gap, and either the
    // reader gets everything or it is told that it cannot.
    let mut next = from;
    loop {
        match slow.item().await {
            Some(Ok(batch)) if batch.is_progress() => {}
            Some(Ok(batch)) => {
                assert_eq!(batch.revision, next);
                next += 1;
                if next > last {
                    break;
                }
            }
            Some(Err(StoreError::Compacted {
                requested,
                compacted,
            })) => {
                assert!(
                    requested <= next && compacted == last,
                    "{requested} {next} {compacted}"
                );
                assert!(slow.item().await.is_none());
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    let fresh = p.range(Range::prefix("k/")).await;
    assert_eq!((fresh.count, fresh.revision), (1, last));
}

async fn an_idle_watch_outlives_compaction(p: Probe) {
    let mut watch = p.watch("quiet/", None).await;
    for number in 0..50 {
        p.put_later("k/a".to_owned(), "v", number).await;
    }
    p.compact(p.revision().await).await;
    let event = p.put("quiet/a", "1").await;
    assert_eq!(watch.next().await.revision, event);
}
