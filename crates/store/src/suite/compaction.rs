//! What compaction forgets, and what it must keep.

use super::{Probe, declare_cases, told};
use crate::error::StoreError;
use crate::model::Range;

declare_cases![
    the_newest_version_of_each_key_is_kept,
    the_past_before_it_is_refused,
    senseless_compactions_are_refused,
    the_revision_never_falls,
    deleted_keys_stay_deleted,
];

async fn the_newest_version_of_each_key_is_kept(p: Probe) {
    p.put("a", "1").await;
    let old = p.put("b", "1").await;
    let a = p.put("a", "2").await;
    p.put("b", "2").await;
    p.compact(a).await;
    let b = p.get("b").await.expect("the current value");
    assert_eq!(
        (&b.value[..], b.create_revision, b.version),
        (&b"2"[..], old, 2)
    );
    let listed = p.list("", Some(a)).await;
    let expected = [
        ("a".to_owned(), "2".to_owned()),
        ("b".to_owned(), "1".to_owned()),
    ];
    assert_eq!(
        listed, expected,
        "the compacted revision itself can be read"
    );
}

async fn the_past_before_it_is_refused(p: Probe) {
    let first = p.put("a", "1").await;
    let second = p.put("a", "2").await;
    p.compact(second).await;
    match p.store.range(Range::key("a").at(first)).await {
        Err(StoreError::Compacted {
            requested,
            compacted,
        }) => {
            assert_eq!((requested, compacted), (first, second));
        }
        other => panic!("{other:?}"),
    }
    let watch = p.store.watch("a".into(), None, Some(first)).await;
    assert!(matches!(watch.err(), Some(StoreError::Compacted { .. })));
    assert_eq!(p.list("", Some(second)).await.len(), 1);
}

async fn senseless_compactions_are_refused(p: Probe) {
    p.put("a", "1").await;
    let last = p.put("a", "2").await;
    let future = p.store.compact(last + 1).await;
    assert!(
        matches!(future, Err(StoreError::FutureRevision { .. })),
        "{future:?}"
    );
    p.compact(last).await;
    for revision in [last, last - 1] {
        let again = p.store.compact(revision).await;
        assert!(
            matches!(again, Err(StoreError::Compacted { .. })),
            "{again:?}"
        );
    }
}

async fn the_revision_never_falls(p: Probe) {
    p.put("a", "1").await;
    let last = p.delete("a").await;
    p.compact(last).await;
    assert_eq!(p.revision().await, last);
    assert_eq!(p.range(Range::prefix("")).await.count, 0);
    assert_eq!(p.put("a", "2").await, last + 1);
}

async fn deleted_keys_stay_deleted(p: Probe) {
    p.put("a", "1").await;
    p.put("a", "2").await;
    let deleted = p.delete("a").await;
    let after = p.put("b", "1").await;
    p.compact(deleted).await;
    let mut watch = p.watch("", Some(deleted)).await;
    assert_eq!(
        told(&*watch.next().await),
        ["-a"],
        "a watch from the compacted revision on"
    );
    p.compact(after).await;
    assert_eq!(p.get("a").await, None);
    let again = p.put("a", "3").await;
    let kv = p.get("a").await.expect("the key came back");
    assert_eq!((kv.create_revision, kv.version), (again, 1));
    p.compact(again).await;
    assert_eq!(p.get("a").await, Some(kv));
}
