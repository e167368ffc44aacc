//! Makes a store out of a snapshot, and looks a store over.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::log::{Append, Log, Record, RecordId};
use super::sqlite::SqliteLog;
use super::{EmbeddedOptions, EmbeddedStore, load};
use crate::error::StoreError;
use crate::model::{KeyValue, Revision};
use crate::snapshot::{self, Summary};

/// So many records are written with one fsync.
const CHUNK: usize = 1000;
/// The change that makes the revision of a restored store: the deletion of a key that never was.
const MARK: &[u8] = b"/evenkeel/restored";

/// What a store was found to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The current revision.
    pub revision: Revision,
    /// The oldest revision that can still be read.
    pub compacted: Revision,
    /// Live keys.
    pub keys: usize,
    /// Bytes of live keys and values.
    pub live_bytes: u64,
    /// Older versions that are kept.
    pub history: usize,
    /// Bytes on disk.
    pub size_on_disk: u64,
}

impl EmbeddedStore {
    /// Makes a store in `dir`, where none may be, out of a snapshot. The store stands at the
    /// revision `at`, which must lie beyond that of the snapshot, and knows no history before it:
    /// watches that go on from the time before are told so. It is read back and compared before it
    /// gets its name; a crash leaves no half of it.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for a damaged snapshot, [`StoreError::Invalid`] when a store is
    /// there already, and those of the system.
    pub fn restore(file: &Path, dir: &Path, at: Revision) -> Result<Summary, StoreError> {
        // The first reading verifies, and counts the keys of each revision.
        let mut counts: HashMap<Revision, u32> = HashMap::new();
        let summary = snapshot::read(file, |kv| {
            *counts.entry(kv.mod_revision).or_default() += 1;
            Ok(())
        })?;
        if at <= summary.revision {
            return Err(StoreError::Invalid {
                reason: "a restored store must stand beyond the revision of its snapshot",
            });
        }
        let exists = dir
            .try_exists()
            .map_err(|error| StoreError::io("look for", dir, error))?;
        if exists {
            return Err(StoreError::Invalid {
                reason: "there is a store already",
            });
        }
        let new = beside(dir, ".new");
        match std::fs::remove_dir_all(&new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io("remove", new, error));
            }
            _ => {}
        }
        write(file, &new, at, &counts)?;
        compare(file, &new, at)?;
        std::fs::rename(&new, dir).map_err(|error| StoreError::io("rename", &new, error))?;
        let parent = dir.parent().unwrap_or(Path::new("/"));
        std::fs::File::open(parent)
            .and_then(|parent| parent.sync_all())
            .map_err(|error| StoreError::io("sync", parent, error))?;
        Ok(summary)
    }

    /// Looks a store over that nobody has open: the write-ahead log, every record against its
    /// checksum, whether one is missing, and the pages of the database.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] names what is damaged, [`StoreError::Locked`] who has it open.
    pub fn check(dir: &Path) -> Result<Found, StoreError> {
        let database = dir.join(super::sqlite::DATABASE);
        if !database
            .try_exists()
            .map_err(|error| StoreError::io("look for", &database, error))?
        {
            return Err(StoreError::io(
                "open",
                database,
                std::io::ErrorKind::NotFound.into(),
            ));
        }
        let log = SqliteLog::open(dir)?;
        let (index, _) = load::load(&log)?;
        log.integrity()?;
        let found = Found {
            revision: index.revision,
            compacted: index.compacted,
            keys: index.live(),
            live_bytes: index.live_bytes(),
            history: index.history(),
            size_on_disk: log.size_on_disk()?,
        };
        log.close();
        Ok(found)
    }
}

fn beside(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn write(
    file: &Path,
    dir: &Path,
    at: Revision,
    counts: &HashMap<Revision, u32>,
) -> Result<(), StoreError> {
    let log = SqliteLog::open(dir)?;
    log.load(&mut |_| true)?;
    let mut seen: HashMap<Revision, u32> = HashMap::new();
    let mut append = Append::default();
    snapshot::read(file, |kv| {
        let count = counts.get(&kv.mod_revision).copied().unwrap_or(1);
        let sub = seen.entry(kv.mod_revision).or_default();
        append.put.push(Record {
            id: RecordId {
                revision: kv.mod_revision,
                sub: *sub,
            },
            last: *sub + 1 >= count,
            create_revision: kv.create_revision,
            version: kv.version,
            key: kv.key,
            value: kv.value,
        });
        *sub += 1;
        if append.put.len() >= CHUNK {
            log.append(&std::mem::take(&mut append))?;
            log.maintain(false)?;
        }
        Ok(())
    })?;
    append.put.push(Record {
        id: RecordId {
            revision: at,
            sub: 0,
        },
        last: true,
        create_revision: 0,
        version: 0,
        key: Bytes::from_static(MARK),
        value: Bytes::new(),
    });
    append.compacted = Some(at);
    log.append(&append)?;
    log.close();
    Ok(())
}

/// Opens what was written as a server would, and compares it with the snapshot key by key.
fn compare(file: &Path, dir: &Path, at: Revision) -> Result<(), StoreError> {
    let store = EmbeddedStore::open(dir, EmbeddedOptions::default())?;
    let index = store.core.index.read();
    let wrong = |detail: String| StoreError::Corrupt {
        path: dir.to_owned(),
        detail: format!("restored, and not what was backed up: {detail}"),
    };
    let mut keys = 0;
    snapshot::read(file, |kv: KeyValue| {
        keys += 1;
        match index.get(&kv.key) {
            Some(found) if found == kv => Ok(()),
            _ => Err(wrong(String::from_utf8_lossy(&kv.key).into_owned())),
        }
    })?;
    if index.live() != keys || index.revision != at {
        return Err(wrong(format!(
            "{} keys at revision {}",
            index.live(),
            index.revision
        )));
    }
    drop(index);
    store.close();
    Ok(())
}
