//! Which watches the hub wakes, and where it sends them to read.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::*;
use crate::model::{EventKind, KeyValue};

fn batch(revision: Revision, keys: &[&'static str]) -> Arc<EventBatch> {
    let event = |key: &&'static str| Event {
        kind: EventKind::Put,
        kv: KeyValue {
            key: Bytes::from_static(key.as_bytes()),
            value: Bytes::from_static(b"value"),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
        },
        prev: None,
    };
    Arc::new(EventBatch {
        revision,
        events: keys.iter().map(event).collect(),
    })
}

fn prefix(prefix: &'static str) -> Interest {
    let start = Bytes::from_static(prefix.as_bytes());
    let end = Some(crate::model::prefix_end(&start));
    Interest { start, end }
}

fn woken(notify: &Notify) -> bool {
    use futures::FutureExt;
    notify.notified().now_or_never().is_some()
}

/// A hub at revision 1 with a watch that has been told so.
fn watched(hub: &mut Hub, interest: Interest) -> (u64, Arc<Notify>) {
    let (id, notify) = hub.register(interest, None);
    assert!(matches!(hub.next(id), Next::Progress(1)));
    (id, notify)
}

#[test]
fn only_the_watches_that_an_event_concerns_are_woken() {
    let mut hub = Hub::new(1, 1 << 20, 100);
    let (a, woken_a) = watched(&mut hub, prefix("a/"));
    let (b, woken_b) = watched(&mut hub, prefix("b/"));
    hub.publish(batch(2, &["a/1"]));
    assert!(woken(&woken_a) && !woken(&woken_b));
    assert!(matches!(hub.next(b), Next::Wait));
    assert!(matches!(hub.next(a), Next::Batches(told) if told.len() == 1));
    assert!(matches!(hub.next(a), Next::Wait));
}

#[test]
fn what_a_watch_covers_whole_is_shared_and_not_copied() {
    let mut hub = Hub::new(1, 1 << 20, 100);
    let (all, _) = watched(&mut hub, prefix(""));
    let (some, _) = watched(&mut hub, prefix("a/"));
    let published = batch(2, &["a/1", "b/1"]);
    hub.publish(Arc::clone(&published));
    let Next::Batches(told) = hub.next(all) else {
        panic!("nothing told")
    };
    assert!(Arc::ptr_eq(&told[0], &published));
    let Next::Batches(told) = hub.next(some) else {
        panic!("nothing told")
    };
    assert_eq!(told[0].events.len(), 1);
}

#[test]
fn a_watch_that_fell_behind_the_tail_is_sent_to_the_history() {
    let mut hub = Hub::new(1, 1 << 20, 3);
    let (id, _) = watched(&mut hub, prefix("a/"));
    for revision in 2..=10 {
        hub.publish(batch(revision, &["a/1"]));
    }
    assert!(matches!(hub.next(id), Next::History(2, 7)));
    hub.read_until(id, 5);
    assert!(matches!(hub.next(id), Next::History(6, 7)));
    hub.read_until(id, 7);
    let Next::Batches(told) = hub.next(id) else {
        panic!("nothing told")
    };
    assert_eq!(
        told.iter().map(|b| b.revision).collect::<Vec<_>>(),
        [8, 9, 10]
    );
    assert!(matches!(hub.next(id), Next::Wait));
}

#[test]
fn a_quiet_watch_keeps_its_place_however_much_is_written() {
    let mut hub = Hub::new(1, 1 << 20, 3);
    let (id, notify) = watched(&mut hub, prefix("quiet/"));
    for revision in 2..=100 {
        hub.publish(batch(revision, &["a/1"]));
    }
    assert!(!woken(&notify) && matches!(hub.next(id), Next::Wait));
    hub.publish(batch(101, &["quiet/1"]));
    assert!(matches!(hub.next(id), Next::Batches(told) if told[0].revision == 101));
}

#[test]
fn the_tail_is_bounded_in_bytes() {
    let one = weight(&batch(2, &["a/1"]));
    let mut hub = Hub::new(1, 3 * one, 100);
    for revision in 2..=50 {
        hub.publish(batch(revision, &["a/1"]));
        assert!(hub.tail_bytes <= 3 * one);
    }
    assert_eq!(hub.tail.len(), 3);
}

#[test]
fn a_closed_hub_lets_watches_finish() {
    let mut hub = Hub::new(1, 1 << 20, 100);
    let (id, notify) = watched(&mut hub, prefix("a/"));
    hub.publish(batch(2, &["a/1"]));
    hub.close();
    assert!(woken(&notify));
    assert!(matches!(hub.next(id), Next::Batches(_)));
    assert!(matches!(hub.next(id), Next::Closed));
}
