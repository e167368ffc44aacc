//! A disk that is full, and that has space again. Needs root for a small tmpfs of its own; without
//! it the test says so and passes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use evenkeel_store::embedded::{EmbeddedOptions, EmbeddedStore};
use evenkeel_store::{Range, Store, StoreError, Txn};

/// A mounted file system that is taken away also when the test fails.
struct Mounted {
    at: PathBuf,
    _dir: tempfile::TempDir,
}

impl Mounted {
    fn new(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().to_owned();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "evenkeel-store-full"])
            .arg(&at)
            .output()
            .ok()?;
        mount.status.success().then_some(Self { at, _dir: dir })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A child that another test is just starting has copies of our descriptors until it runs
        // its program; as long the file system is busy.
        let bound = Instant::now() + Duration::from_secs(5);
        let unmounted = || {
            let done = Command::new("umount").arg(&self.at).output();
            done.is_ok_and(|it| it.status.success())
        };
        while !unmounted() {
            assert!(
                Instant::now() < bound,
                "{} stays mounted",
                self.at.display()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Opens a copy of the files as a kill at this moment would leave them.
async fn opens_as_killed(data: &Path, copy: &Path, keys: usize) {
    std::fs::create_dir(copy).unwrap();
    for file in std::fs::read_dir(data).unwrap().flatten() {
        std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    let store = EmbeddedStore::open(copy, EmbeddedOptions::default()).unwrap();
    let all = store.range(Range::prefix("k/")).await.unwrap();
    assert_eq!((all.count, all.revision), (keys, keys as u64 + 1));
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_nothing_else() {
    let Some(disk) = Mounted::new("size=12m") else {
        eprintln!("skipped: no right to mount a tmpfs");
        return;
    };
    let ballast = disk.at.join("ballast");
    std::fs::write(&ballast, vec![1; 4 << 20]).unwrap();
    let data = disk.at.join("data");
    let store = EmbeddedStore::open(&data, EmbeddedOptions::default()).unwrap();
    let value = "v".repeat(10_000);
    let mut written = 0;
    let error = loop {
        match store
            .txn(Txn::put(format!("k/{written:05}"), value.clone()))
            .await
        {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 2000, "the disk does not fill");
    };
    assert!(
        matches!(&error, StoreError::Full { path } if path.starts_with(&data)),
        "{error:?}"
    );
    let all = store.range(Range::prefix("k/")).await.unwrap();
    assert_eq!(
        (all.count, all.revision),
        (written, written as u64 + 1),
        "reads go on"
    );
    let past = store.range(Range::prefix("k/").at(3)).await.unwrap();
    assert_eq!(past.count, 2);
    let group = (0..20).map(|i| store.txn(Txn::put(format!("g/{i}"), value.clone())));
    for refused in futures::future::join_all(group).await {
        assert!(
            matches!(refused, Err(StoreError::Full { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(
        store.range(Range::prefix("g/")).await.unwrap().count,
        0,
        "nothing half"
    );
    assert_eq!(store.revision().await.unwrap(), written as u64 + 1);

    let killed = tempfile::tempdir().unwrap();
    opens_as_killed(&data, &killed.path().join("full"), written).await;

    std::fs::remove_file(&ballast).unwrap();
    let again = store
        .txn(Txn::put("k/again", "v"))
        .await
        .expect("there is space again");
    assert_eq!(again.revision, written as u64 + 2);
    // What the refused writes left behind in the files must not be taken for damage.
    opens_as_killed(&data, &killed.path().join("again"), written + 1).await;
    drop(store);
    let store = EmbeddedStore::open(&data, EmbeddedOptions::default()).unwrap();
    let all = store.range(Range::prefix("k/")).await.unwrap();
    assert_eq!((all.count, all.revision), (written + 1, written as u64 + 2));
}

#[tokio::test]
async fn a_disk_without_any_space_cannot_hold_a_store() {
    let Some(disk) = Mounted::new("size=64k") else {
        return;
    };
    std::fs::write(disk.at.join("ballast"), vec![1; 60 << 10]).unwrap();
    let error = EmbeddedStore::open(&disk.at.join("data"), EmbeddedOptions::default()).unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
}

#[tokio::test]
async fn a_disk_that_is_read_only_is_named() {
    let Some(disk) = Mounted::new("ro,size=64k") else {
        return;
    };
    let data = disk.at.join("data");
    for place in [&disk.at, &data] {
        let error = EmbeddedStore::open(place, EmbeddedOptions::default()).unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
        assert!(
            error.to_string().contains(place.to_str().unwrap()),
            "{error}"
        );
    }
}

/// What compaction gave up while the disk was full goes when there is space again.
#[tokio::test]
async fn old_records_go_once_there_is_space() {
    let Some(disk) = Mounted::new("size=24m") else {
        return;
    };
    let ballast = disk.at.join("ballast");
    std::fs::write(&ballast, vec![1; 8 << 20]).unwrap();
    let store = EmbeddedStore::open(&disk.at.join("data"), EmbeddedOptions::default()).unwrap();
    let value = "v".repeat(10_000);
    while store.txn(Txn::put("k", value.clone())).await.is_ok() {}
    let full = store.stats().await.unwrap();
    assert!(full.history > 200, "{full:?}");
    // It may or may not work on a full disk; if not, it says so.
    let early = store.compact(full.revision).await;
    assert!(
        matches!(early, Ok(()) | Err(StoreError::Full { .. })),
        "{early:?}"
    );
    std::fs::remove_file(&ballast).unwrap();
    let last = store
        .txn(Txn::put("k", value.clone()))
        .await
        .expect("there is space again");
    store
        .compact(last.revision)
        .await
        .expect("there is space again");
    let bound = Instant::now() + Duration::from_secs(20);
    loop {
        let stats = store.stats().await.unwrap();
        if stats.history == 0 && stats.size_on_disk + (4 << 20) < full.size_on_disk {
            break;
        }
        assert!(
            Instant::now() < bound,
            "the space does not come back: {stats:?}"
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(
        store.range(Range::key("k")).await.unwrap().kvs[0]
            .value
            .len(),
        value.len()
    );
}

/// Before the disk is full: writes that add are refused while reads and deletions go on, and it is
/// over as soon as there is room.
#[tokio::test]
async fn an_alarm_comes_before_the_disk_is_full() {
    let Some(disk) = Mounted::new("size=32m") else {
        return;
    };
    let ballast = disk.at.join("ballast");
    std::fs::write(&ballast, vec![1; 16 << 20]).unwrap();
    let options = EmbeddedOptions {
        reserve_bytes: 8 << 20,
        ..EmbeddedOptions::default()
    };
    let store = EmbeddedStore::open(&disk.at.join("data"), options).unwrap();
    store.writable().await.expect("there is room");
    let value = "v".repeat(10_000);
    let mut written = 0;
    let error = loop {
        let key = format!("k/{written:05}");
        match store.txn(Txn::put(key, value.clone())).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 2000, "no alarm");
    };
    assert!(
        matches!(error, StoreError::AlmostFull { free, reserve, .. } if free < reserve),
        "{error:?}"
    );
    assert!(store.writable().await.is_err());
    assert_eq!(
        store.range(Range::prefix("k/")).await.unwrap().count,
        written
    );
    store.txn(Txn::delete("k/00000")).await.expect("a deletion");
    let last = store.revision().await.unwrap();
    store.compact(last).await.expect("a compaction");
    std::fs::remove_file(&ballast).unwrap();
    store.writable().await.expect("there is room again");
    store.txn(Txn::put("k/again", "v")).await.expect("a write");
}
