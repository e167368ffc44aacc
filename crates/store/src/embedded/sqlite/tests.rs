//! What the row about the whole covers, and stores that were written before it knew.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use bytes::Bytes;

use super::*;

fn record(revision: u64) -> Record {
    Record {
        id: RecordId { revision, sub: 0 },
        last: true,
        create_revision: revision,
        version: 1,
        key: Bytes::from(format!("k/{revision}")),
        value: Bytes::from_static(b"v"),
    }
}

fn put(log: &SqliteLog, revisions: std::ops::RangeInclusive<u64>) {
    for revision in revisions {
        let append = Append {
            put: vec![record(revision)],
            ..Append::default()
        };
        log.append(&append).unwrap();
    }
}

fn found(log: &SqliteLog) -> Vec<u64> {
    let mut found = Vec::new();
    log.load(&mut |record| {
        found.push(record.id.revision);
        true
    })
    .unwrap();
    found
}

fn row(log: &SqliteLog) -> State {
    let open = log.open.lock();
    State::read(&open.as_ref().unwrap().db).unwrap().unwrap()
}

#[test]
fn the_row_about_the_whole_is_written_where_records_go_and_before_pages_leave_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = SqliteLog::open(dir.path()).unwrap();
    assert!(found(&log).is_empty());
    put(&log, 2..=4);
    assert_eq!(row(&log), State::default(), "what only comes has no gap");
    let drop = Append {
        put: vec![record(5)],
        drop: vec![record(2).id],
        compacted: None,
    };
    log.append(&drop).unwrap();
    let covered = row(&log);
    assert_eq!((covered.tally.count, covered.through >> 24), (3, 5));
    put(&log, 6..=7);
    assert_eq!(row(&log), covered);
    log.with("test", |open| Ok(open.checkpoint(PASSIVE)?))
        .unwrap();
    assert_eq!((row(&log).tally.count, row(&log).through >> 24), (5, 7));
    put(&log, 8..=8);
    log.close();
    let again = SqliteLog::open(dir.path()).unwrap();
    assert_eq!(row(&again).through >> 24, 8, "closing covers all");
    assert_eq!(found(&again), [3, 4, 5, 6, 7, 8]);
}

#[test]
fn what_came_after_the_row_was_written_is_counted_by_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let log = SqliteLog::open(dir.path()).unwrap();
    put(&log, 2..=9);
    // As after kill -9: nobody closes it.
    let killed = tempfile::tempdir().unwrap();
    for name in ["store.db", "store.db-wal"] {
        std::fs::copy(dir.path().join(name), killed.path().join(name)).unwrap();
    }
    let again = SqliteLog::open(killed.path()).unwrap();
    assert_eq!(row(&again).tally.count, 0);
    assert_eq!(found(&again).len(), 8);
    again.close();
    let again = SqliteLog::open(killed.path()).unwrap();
    assert_eq!(row(&again).tally.count, 8);
    assert_eq!(found(&again).len(), 8);
}

/// Makes of a closed store one of the first format.
fn older(dir: &Path, seal: impl Fn(&[u64]) -> u64) {
    let db = Connection::open(dir.join(DATABASE)).unwrap();
    let state = State::read(&db).unwrap().unwrap();
    let Tally { count, sum } = state.tally;
    let seal = seal(&[count, sum, state.compacted]).cast_signed();
    db.execute_batch(&format!(
        "ALTER TABLE state DROP COLUMN through; UPDATE state SET seal = {seal};
         PRAGMA user_version = {FORMAT_WITHOUT_THROUGH};"
    ))
    .unwrap();
}

#[test]
fn a_store_of_the_first_format_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let log = SqliteLog::open(dir.path()).unwrap();
    put(&log, 2..=5);
    log.close();
    older(dir.path(), record::seal);
    let log = SqliteLog::open(dir.path()).unwrap();
    assert_eq!((row(&log).tally.count, row(&log).through >> 24), (4, 5));
    assert_eq!(found(&log), [2, 3, 4, 5]);
    put(&log, 6..=6);
    log.close();
    assert_eq!(found(&SqliteLog::open(dir.path()).unwrap()).len(), 5);
}

#[test]
fn a_store_of_the_first_format_whose_row_was_changed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = SqliteLog::open(dir.path()).unwrap();
    put(&log, 2..=5);
    log.close();
    older(dir.path(), |words| record::seal(words) ^ 1);
    let error = SqliteLog::open(dir.path()).map(drop).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
}

#[test]
fn what_comes_is_written_into_room_that_was_made_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let length = || std::fs::metadata(dir.path().join("store.db-wal")).map_or(0, |file| file.len());
    let log = SqliteLog::open(dir.path()).unwrap();
    put(&log, 2..=4);
    assert!(length() < WAL_STEP as u64);
    while log.wants_room() {
        log.make_room();
    }
    assert!(length() >= WAL_BYTES);
    let long = length();
    put(&log, 5..=300);
    assert_eq!(length(), long);
    log.with("test", |open| Ok(open.checkpoint(TRUNCATE)?))
        .unwrap();
    assert!(log.wants_room(), "it was cut off");
    put(&log, 301..=302);
    // As after kill -9.
    let killed = tempfile::tempdir().unwrap();
    for name in ["store.db", "store.db-wal"] {
        std::fs::copy(dir.path().join(name), killed.path().join(name)).unwrap();
    }
    assert_eq!(found(&SqliteLog::open(killed.path()).unwrap()).len(), 301);
}

#[test]
fn a_closed_log_is_free_while_a_child_still_has_its_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let log = SqliteLog::open(dir.path()).unwrap();
    let of_a_child = log.open.lock().as_ref().unwrap().lock.try_clone().unwrap();
    let refused = SqliteLog::open(dir.path()).map(drop);
    assert!(matches!(refused, Err(StoreError::Locked { .. })));
    log.close();
    SqliteLog::open(dir.path()).unwrap();
    drop(of_a_child);
}
