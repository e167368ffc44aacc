//! Histories that can be, and some that can not.

use super::*;

fn put(id: u64, key: &str) -> Entry {
    Entry::Call(id, Asked::Put(key.to_owned(), format!("0-{id}-")))
}

fn done(id: u64, revision: Revision) -> Entry {
    Entry::Return(id, Told::Done(true, revision))
}

fn event(revision: Revision, key: &str, id: u64, created: Revision, version: u64) -> Entry {
    let value = Some(format!("0-{id}-"));
    Entry::Event(OBSERVER, revision, key.to_owned(), value, created, version)
}

#[test]
fn a_sound_history_passes() {
    let entries = [
        put(1, "a"),
        put(2, "a"),
        done(2, 2),
        done(1, 3),
        put(3, "b"),
        event(2, "a", 2, 2, 1),
        event(3, "a", 1, 2, 2),
    ];
    let figures = check(&entries, true).expect("sound");
    assert_eq!((figures.writes, figures.unknown), (2, 1));
}

#[test]
fn lines_are_read_back() {
    let entries = [
        Entry::Call(1, Asked::Put("k".to_owned(), "v".to_owned())),
        Entry::Call(
            2,
            Asked::Pair("k".to_owned(), "l".to_owned(), "v".to_owned()),
        ),
        Entry::Call(3, Asked::Swap("k".to_owned(), 7, "v".to_owned())),
        Entry::Call(4, Asked::Delete("k".to_owned())),
        Entry::Call(5, Asked::Read),
        done(1, 9),
        Entry::Return(2, Told::Unknown),
        Entry::Return(3, Told::Refused),
        Entry::Return(4, Told::State(3, Vec::new())),
        Entry::Return(5, Told::State(4, vec![("k".to_owned(), "v".to_owned(), 2)])),
        Entry::Watch(6, String::new(), 3),
        Entry::Event(6, 4, "k".to_owned(), None, 0, 0),
        event(5, "k", 1, 4, 2),
    ];
    for entry in entries {
        assert_eq!(Entry::from_line(&entry.to_line()), Some(entry));
    }
    assert_eq!(Entry::from_line("running 1 test"), None);
}

#[test]
fn what_cannot_be_is_found() {
    let lost = [put(1, "a"), done(1, 2)];
    assert!(check(&lost, true).is_err(), "an acknowledged write is lost");
    let gap = [
        put(1, "a"),
        put(2, "b"),
        event(2, "a", 1, 2, 1),
        event(4, "b", 2, 4, 1),
    ];
    assert!(check(&gap, true).is_err(), "a revision was left out");
    let backwards = [
        put(1, "a"),
        done(1, 3),
        put(2, "b"),
        done(2, 2),
        event(2, "b", 2, 2, 1),
        event(3, "a", 1, 3, 1),
    ];
    assert!(check(&backwards, true).is_err(), "revisions against time");
    let state = Told::State(2, Vec::new());
    let stale = [
        put(1, "a"),
        done(1, 2),
        event(2, "a", 1, 2, 1),
        Entry::Call(2, Asked::Read),
        Entry::Return(2, state),
    ];
    assert!(check(&stale, true).is_err(), "a read without the write");
    let twice = [put(1, "a"), event(2, "a", 1, 2, 1), event(3, "a", 1, 2, 2)];
    assert!(check(&twice, true).is_err(), "a write that happened twice");
    let skipping = [
        put(1, "a"),
        put(2, "a"),
        event(2, "a", 1, 2, 1),
        event(3, "a", 2, 2, 2),
        Entry::Watch(7, "a".to_owned(), 2),
        Entry::Event(7, 3, "a".to_owned(), Some("0-2-".to_owned()), 2, 2),
    ];
    assert!(
        check(&skipping, true).is_err(),
        "a watch left something out"
    );
}
