//! What a range returns.

use super::{Probe, declare_cases, pairs};
use crate::error::StoreError;
use crate::model::Range;

declare_cases![
    an_empty_store_has_nothing_and_a_revision,
    a_put_key_is_read_with_its_revisions,
    a_prefix_and_an_interval_are_ordered_and_bounded,
    a_limit_cuts_and_the_count_does_not,
    keys_only_and_count_only_leave_the_rest_out,
    the_past_stays_as_it_was,
    the_future_is_refused,
    keys_are_any_bytes,
];

async fn an_empty_store_has_nothing_and_a_revision(p: Probe) {
    let all = p.range(Range::prefix("")).await;
    assert!(all.kvs.is_empty() && !all.more && all.count == 0);
    assert!(all.revision >= 1);
    assert_eq!(all.revision, p.revision().await);
    assert_eq!(p.get("nothing").await, None);
}

async fn a_put_key_is_read_with_its_revisions(p: Probe) {
    let base = p.revision().await;
    let first = p.put("a", "1").await;
    assert_eq!(first, base + 1, "one write is one revision");
    let second = p.put("a", "2").await;
    let kv = p.get("a").await.expect("the key that was put");
    assert_eq!(
        (kv.create_revision, kv.mod_revision, kv.version),
        (first, second, 2)
    );
    assert_eq!(&kv.value[..], b"2");
    let empty = p.put("empty", "").await;
    let kv = p.get("empty").await.expect("an empty value is a value");
    assert_eq!((kv.value.len(), kv.mod_revision), (0, empty));
}

async fn a_prefix_and_an_interval_are_ordered_and_bounded(p: Probe) {
    for key in ["b/2", "a", "b", "b/1", "b0", "c", "b/"] {
        p.put(key, "").await;
    }
    let keys = async |range: Range| -> Vec<String> {
        pairs(&p.range(range).await.kvs)
            .into_iter()
            .map(|(key, _)| key)
            .collect()
    };
    assert_eq!(keys(Range::prefix("b/")).await, ["b/", "b/1", "b/2"]);
    assert_eq!(
        keys(Range::prefix("b")).await,
        ["b", "b/", "b/1", "b/2", "b0"]
    );
    assert_eq!(keys(Range::prefix("")).await.len(), 7);
    assert_eq!(keys(Range::interval("b/1", "b0")).await, ["b/1", "b/2"]);
    assert_eq!(
        keys(Range::interval("b0", "")).await,
        ["b0", "c"],
        "an empty end is no end"
    );
    assert!(
        keys(Range::interval("c", "b")).await.is_empty(),
        "an interval may be empty"
    );
    assert!(keys(Range::interval("c", "c")).await.is_empty());
    assert_eq!(
        keys(Range::key("b")).await,
        ["b"],
        "a single key is not a prefix"
    );
}

async fn a_limit_cuts_and_the_count_does_not(p: Probe) {
    for key in ["k/1", "k/2", "k/3", "l"] {
        p.put(key, "v").await;
    }
    let cut = p.range(Range::prefix("k/").limit(2)).await;
    assert_eq!((cut.kvs.len(), cut.more, cut.count), (2, true, 3));
    let exact = p.range(Range::prefix("k/").limit(3)).await;
    assert_eq!((exact.kvs.len(), exact.more, exact.count), (3, false, 3));
    let one = p.range(Range::prefix("k/").limit(1)).await;
    assert_eq!(&one.kvs[0].key[..], b"k/1", "a limit keeps the first keys");
}

async fn keys_only_and_count_only_leave_the_rest_out(p: Probe) {
    p.put("k/1", "v").await;
    let revision = p.put("k/2", "v").await;
    p.put("k/2", "w").await;
    for range in [Range::prefix("k/"), Range::prefix("k/").at(revision)] {
        let keys = p.range(range.clone().keys_only()).await;
        assert_eq!(keys.kvs.len(), 2);
        assert!(
            keys.kvs
                .iter()
                .all(|kv| kv.value.is_empty() && kv.mod_revision > 0)
        );
        let count = p.range(range.count_only()).await;
        assert_eq!((count.kvs.len(), count.count, count.more), (0, 2, false));
    }
}

async fn the_past_stays_as_it_was(p: Probe) {
    let base = p.revision().await;
    let created = p.put("a", "1").await;
    let changed = p.put("a", "2").await;
    let other = p.put("b", "1").await;
    let deleted = p.delete("a").await;
    let again = p.put("a", "3").await;
    let at = async |revision| p.list("", Some(revision)).await;
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(at(base).await, []);
    assert_eq!(at(created).await, [pair("a", "1")]);
    assert_eq!(at(changed).await, [pair("a", "2")]);
    assert_eq!(at(other).await, [pair("a", "2"), pair("b", "1")]);
    assert_eq!(at(deleted).await, [pair("b", "1")]);
    assert_eq!(at(again).await, [pair("a", "3"), pair("b", "1")]);
    let past = p.range(Range::key("a").at(changed)).await;
    assert_eq!(
        past.revision, again,
        "the answer carries the current revision"
    );
    let kv = &past.kvs[0];
    assert_eq!(
        (kv.create_revision, kv.mod_revision, kv.version),
        (created, changed, 2)
    );
}

async fn the_future_is_refused(p: Probe) {
    let revision = p.put("a", "1").await;
    match p.store.range(Range::key("a").at(revision + 1)).await {
        Err(StoreError::FutureRevision { requested, current }) => {
            assert_eq!((requested, current), (revision + 1, revision));
        }
        other => panic!("{other:?}"),
    }
}

async fn keys_are_any_bytes(p: Probe) {
    let keys: [&'static [u8]; 4] = [b"\0", b"\xff", b"\xff\xff\x01", b"a\0b"];
    for key in keys {
        p.txn(crate::model::Txn::put(key, key)).await;
    }
    for key in keys {
        assert_eq!(&p.range(Range::key(key)).await.kvs[0].value[..], key);
    }
    assert_eq!(
        p.range(Range::prefix(&b"\xff"[..])).await.count,
        2,
        "no key follows this prefix"
    );
    assert_eq!(p.range(Range::prefix("")).await.count, 4);
}
