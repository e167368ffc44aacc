//! What the log keeps.

use bytes::Bytes;
use evenkeel_api::row::Rows;

use super::*;

fn cache() -> KindCache {
    let rows = Rows::builtin();
    KindCache::new(Arc::clone(rows.by_kind("", "v1", "ConfigMap").unwrap()))
}

fn put(cache: &KindCache, revision: u64) {
    let text = format!(r#"{{"metadata":{{"name":"m","namespace":"a","uid":"u{revision}"}}}}"#);
    let object = Object::read(cache.row(), Bytes::from(text), revision).unwrap();
    cache.put("a/m", object);
}

#[test]
fn events_that_were_written_are_let_go_of_and_written_again() {
    let cache = cache();
    // More than are let go of at once.
    let count = FORGET * 2 + 44;
    (1..=count).for_each(|revision| put(&cache, revision));
    let all = cache.changes(0, usize::MAX).unwrap();
    let written: Vec<Bytes> = all.iter().map(|change| change.line()).collect();

    cache.forget_lines();
    assert!(all.iter().all(|change| change.has_line()), "they are new");
    put(&cache, count + 1);
    let new = cache.changes(count, 1).unwrap().remove(0);
    let told = new.line();
    cache.forget_lines();
    assert!(!all.iter().any(|change| change.has_line()));
    assert!(new.has_line());
    cache.forget_lines();
    assert!(!new.has_line());
    assert_eq!(new.line(), told);
    let again: Vec<Bytes> = all.iter().map(|change| change.line()).collect();
    assert_eq!(again, written);
}

#[test]
fn a_log_that_has_moved_on_is_no_trouble() {
    let cache = cache();
    let count = LOG_LEAST as u64 * 9;
    for revision in 1..=count {
        put(&cache, revision);
        if revision % 1000 == 0 {
            cache.forget_lines();
        }
        if revision == count / 2 {
            // Older changes fall out from here on.
            cache.state.write().log_bytes += LOG_BYTES;
        }
    }
    cache.forget_lines();
    assert!(cache.changes(0, 1).is_none());
    assert!(cache.changes(count - 1, 1).is_some());
}
