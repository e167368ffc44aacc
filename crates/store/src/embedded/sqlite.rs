//! The log on SQLite: one table of records, one row about the whole.
//!
//! SQLite was chosen by measurement (docs/design/0002-store-engine.md). It runs in WAL mode with
//! one connection that owns the files, so that a commit is one append and one fsync. Reads of
//! history share that connection: they are rare, short, and wait at most for one fsync.

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use super::log::{Append, Log, Record, RecordId, Visit};
use super::record::{self, Tally};
use super::wal;
use crate::error::StoreError;
use crate::model::Revision;

pub(crate) const DATABASE: &str = "store.db";
const LOCK: &str = "lock";
/// Marks the file as ours ("EVKN") for `file` and for us.
const APPLICATION: u32 = 0x4556_4b4e;
const FORMAT: u32 = 1;
const PAGE_BYTES: u64 = 8192;
/// The write-ahead log is folded into the database beyond this many pages: when there is nothing
/// else to do, and at the latest at four times as many.
const CHECKPOINT_PAGES: u64 = 512;
/// Free pages are given back to the file system when they are this many and a third of the file.
const FREE_PAGES: i64 = 256;
/// How many free pages one step gives back, so that a write that comes meanwhile waits little.
const VACUUM_PAGES: i64 = 256;

/// A log in one directory, locked against other processes.
pub(crate) struct SqliteLog {
    path: PathBuf,
    open: Mutex<Option<Open>>,
}

struct Open {
    db: Connection,
    tally: Tally,
    compacted: Revision,
    /// About how many pages the write-ahead log has.
    wal_pages: u64,
    /// Whether records were dropped since free pages were looked at last.
    dropped: bool,
    /// Whether free pages were given back and the files have not been cut off yet.
    vacuumed: bool,
    /// Whether something failed that may have left its frames at the end of the write-ahead log.
    abandoned: bool,
    /// Held for as long as the files are open.
    _lock: File,
}

impl SqliteLog {
    /// Opens the log in `dir`, or creates it.
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        // Secrets are in there: for nobody else to read.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|e| StoreError::io("create", dir, e))?;
        let lock = lock(dir)?;
        let path = dir.join(DATABASE);
        let exists = path
            .try_exists()
            .map_err(|e| StoreError::io("look for", &path, e))?;
        if !exists {
            create(dir, &path)?;
        }
        check_header(&path)?;
        let (wal_bytes, abandoned) = check_wal(&path)?;
        let db = connect(&path).map_err(|e| failure(&path, "open", e))?;
        let open = Open {
            db,
            tally: Tally::default(),
            compacted: 0,
            wal_pages: wal_bytes / PAGE_BYTES,
            dropped: true,
            vacuumed: false,
            abandoned,
            _lock: lock,
        };
        let log = Self {
            path,
            open: Mutex::new(Some(open)),
        };
        Ok(log)
    }

    /// Has SQLite look over its own pages.
    pub(crate) fn integrity(&self) -> Result<(), StoreError> {
        self.with("check", |open| {
            let found: String = open
                .db
                .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
            if found == "ok" {
                Ok(())
            } else {
                Err(Failure::Damaged(found))
            }
        })
    }

    fn with<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&mut Open) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let mut open = self.open.lock();
        let open = open.as_mut().ok_or(StoreError::Closed)?;
        work(open).map_err(|failed| {
            open.abandoned = true;
            match failed {
                Failure::Sqlite(error) => {
                    // On a full disk, folding the write-ahead log in lets its space be used again.
                    if error.sqlite_error_code() == Some(ErrorCode::DiskFull) {
                        open.wal_pages = u64::MAX / 2;
                    }
                    failure(&self.path, action, error)
                }
                Failure::Damaged(detail) => self.corrupt(detail),
                Failure::TooManyChanges(size) => {
                    let what = "the number of changes in one transaction";
                    StoreError::TooLarge {
                        what,
                        size,
                        limit: 1 << 24,
                    }
                }
            }
        })
    }
}

impl Open {
    /// Begins the write-ahead log anew when a commit may have failed there. A shorter one over it
    /// would leave the rest of it behind itself, which looks like a commit that follows a damaged
    /// one (see [`wal::check`]).
    fn forget_abandoned(&mut self) -> rusqlite::Result<()> {
        if self.abandoned {
            self.checkpoint("TRUNCATE")?;
            self.abandoned = false;
        }
        Ok(())
    }

    /// Folds the write-ahead log into the database, whose file shrinks by what was given back; the
    /// mode TRUNCATE cuts the log off as well.
    fn checkpoint(&mut self, mode: &str) -> rusqlite::Result<()> {
        self.wal_pages = 0;
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        self.db.query_row(&sql, [], |_| Ok(()))
    }
}

/// What goes wrong below, before it knows its file.
enum Failure {
    Sqlite(rusqlite::Error),
    Damaged(String),
    TooManyChanges(usize),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join(LOCK);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|e| StoreError::io("open", &path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::Locked { path: dir.into() }),
        Err(std::fs::TryLockError::Error(e)) => Err(StoreError::io("lock", path, e)),
    }
}

/// Creates the database under another name first: a crash in between leaves no half of one.
fn create(dir: &Path, path: &Path) -> Result<(), StoreError> {
    // The journal files of a database that is gone must not be played into the new one.
    for suffix in ["-wal", "-journal", ".new", ".new-wal", ".new-shm"] {
        let stale = with_suffix(path, suffix);
        match std::fs::remove_file(&stale) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io("remove", stale, e));
            }
            _ => {}
        }
    }
    let new = with_suffix(path, ".new");
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let made = Connection::open_with_flags(&new, flags).and_then(|db| {
        db.execute_batch(&format!(
            "PRAGMA page_size = {PAGE_BYTES}; PRAGMA auto_vacuum = INCREMENTAL;
             PRAGMA synchronous = OFF; PRAGMA journal_mode = WAL;
             PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FORMAT};
             BEGIN;
             CREATE TABLE log (number INTEGER PRIMARY KEY, record BLOB NOT NULL);
             CREATE TABLE state (
                 one INTEGER PRIMARY KEY CHECK (one = 1),
                 compacted INTEGER NOT NULL,
                 count INTEGER NOT NULL, sum INTEGER NOT NULL, seal INTEGER NOT NULL);
             INSERT INTO state VALUES (1, 0, 0, 0, {});
             COMMIT;",
            Tally::default().seal(0).cast_signed()
        ))?;
        db.close().map_err(|(_, error)| error)
    });
    made.map_err(|e| failure(&new, "create", e))?;
    let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
    sync(&new).map_err(|e| StoreError::io("sync", &new, e))?;
    std::fs::rename(&new, path).map_err(|e| StoreError::io("rename", &new, e))?;
    sync(dir).map_err(|e| StoreError::io("sync", dir, e))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Refuses a file that is not ours before SQLite touches it: it would make a database out of an
/// empty one. The fields are those of <https://www.sqlite.org/fileformat2.html#the_database_header>.
fn check_header(path: &Path) -> Result<(), StoreError> {
    let mut header = [0; 100];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut header, 0));
    let damaged = |detail: String| {
        Err(StoreError::Corrupt {
            path: path.to_owned(),
            detail,
        })
    };
    match read {
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            return damaged("it is cut short".to_owned());
        }
        read => read.map_err(|e| StoreError::io("read", path, e))?,
    }
    let word = |at: usize| {
        header[at..]
            .first_chunk::<4>()
            .map(|word| u32::from_be_bytes(*word))
    };
    if !header.starts_with(b"SQLite format 3\0") || word(68) != Some(APPLICATION) {
        return damaged("it is not a store of Evenkeel".to_owned());
    }
    match word(60) {
        Some(FORMAT) => Ok(()),
        format => {
            let format = format.unwrap_or(0);
            damaged(format!(
                "its format is {format}, and this version reads {FORMAT}"
            ))
        }
    }
}

/// Refuses a damaged write-ahead log; returns the length in bytes of one that is in order, and
/// whether anything was left behind its last commit.
fn check_wal(path: &Path) -> Result<(u64, bool), StoreError> {
    let path = with_suffix(path, "-wal");
    match std::fs::read(&path) {
        Ok(wal) => match wal::check(&wal) {
            Ok(abandoned) => Ok((wal.len() as u64, abandoned)),
            Err(detail) => Err(StoreError::Corrupt { path, detail }),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok((0, false)),
        Err(e) => Err(StoreError::io("read", path, e)),
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    // Without the flag to create: a database that vanishes is an error, not an empty store.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL; PRAGMA cache_size = -2048;
         PRAGMA wal_autocheckpoint = 8192; PRAGMA journal_size_limit = 16777216;
         PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY;",
    )?;
    Ok(db)
}

/// Gives SQLite's error the meaning that the store's callers know.
fn failure(path: &Path, action: &'static str, error: rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full { path },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt {
            path,
            detail: error.to_string(),
        },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Locked { path },
        // A missing table or a value of a wrong type: not what was written.
        None | Some(ErrorCode::Unknown | ErrorCode::TypeMismatch) => StoreError::Corrupt {
            path,
            detail: error.to_string(),
        },
        Some(_) => {
            let source = Arc::new(std::io::Error::other(error));
            StoreError::Io {
                action,
                path,
                source,
            }
        }
    }
}

fn scan(
    open: &Open,
    from: i64,
    mut visit: impl FnMut(record::Decoded) -> bool,
) -> Result<(), Failure> {
    let mut all = open
        .db
        .prepare_cached("SELECT number, record FROM log WHERE number >= ?1 ORDER BY number")?;
    let mut rows = all.query([from])?;
    while let Some(row) = rows.next()? {
        let number: i64 = row.get(0)?;
        let written = row.get_ref(1)?.as_blob().unwrap_or_default();
        if !visit(decode(number, written)?) {
            break;
        }
    }
    Ok(())
}

fn decode(number: i64, written: &[u8]) -> Result<record::Decoded, Failure> {
    record::decode(number, written).ok_or_else(|| {
        let revision = RecordId::from_number(number).map_or(0, |id| id.revision);
        Failure::Damaged(format!(
            "a record of revision {revision} is not as it was written"
        ))
    })
}

fn number(id: RecordId) -> Result<i64, Failure> {
    id.number()
        .ok_or(Failure::TooManyChanges(id.sub as usize + 1))
}

impl Log for SqliteLog {
    fn load(&self, visit: Visit<'_>) -> Result<Revision, StoreError> {
        self.with("read", |open| {
            let read = |row: &rusqlite::Row<'_>| -> rusqlite::Result<[i64; 4]> {
                Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?])
            };
            let sql = "SELECT compacted, count, sum, seal FROM state";
            let state = open.db.query_row(sql, [], read).optional()?;
            let [compacted, count, sum, seal] = state.unwrap_or_default().map(i64::cast_unsigned);
            let written = Tally { count, sum };
            if written.seal(compacted) != seal {
                return Err(Failure::Damaged(
                    "its state is not as it was written".to_owned(),
                ));
            }
            let mut found = Tally::default();
            scan(open, 0, |decoded| {
                found.add(decoded.checksum);
                visit(decoded.record)
            })?;
            if found != written {
                let (found, written) = (found.count, written.count);
                let detail =
                    format!("of {written} records {found} are there, or others than those");
                return Err(Failure::Damaged(detail));
            }
            open.tally = found;
            open.compacted = compacted;
            Ok(compacted)
        })
    }

    fn append(&self, append: &Append) -> Result<(), StoreError> {
        self.with("write", |open| {
            let mut tally = open.tally;
            let compacted = append.compacted.unwrap_or(open.compacted);
            open.forget_abandoned()?;
            let txn = open.db.transaction()?;
            let mut bytes = 0;
            {
                let mut drop =
                    txn.prepare_cached("DELETE FROM log WHERE number = ?1 RETURNING record")?;
                for id in &append.drop {
                    let mut rows = drop.query([number(*id)?])?;
                    while let Some(row) = rows.next()? {
                        let written = row.get_ref(0)?.as_blob().unwrap_or_default();
                        tally.take(record::checksum(written).unwrap_or(0));
                    }
                }
                let mut put = txn.prepare_cached("INSERT INTO log VALUES (?1, ?2)")?;
                for record in &append.put {
                    let number = number(record.id)?;
                    let (written, checksum) = record::encode(number, record);
                    put.execute((number, &written))?;
                    tally.add(checksum);
                    bytes += written.len() as u64;
                }
            }
            {
                let mut state = txn.prepare_cached(
                    "UPDATE state SET compacted = ?1, count = ?2, sum = ?3, seal = ?4",
                )?;
                let words = [compacted, tally.count, tally.sum, tally.seal(compacted)];
                state.execute(words.map(u64::cast_signed))?;
            }
            txn.commit()?;
            (open.tally, open.compacted) = (tally, compacted);
            open.wal_pages += 2 + bytes / PAGE_BYTES + append.drop.len() as u64 / 4;
            open.dropped |= !append.drop.is_empty();
            Ok(())
        })
    }

    fn scan(&self, from: Revision, visit: Visit<'_>) -> Result<(), StoreError> {
        self.with("read", |open| {
            let first = number(RecordId {
                revision: from,
                sub: 0,
            })?;
            scan(open, first, |decoded| visit(decoded.record))
        })
    }

    fn get(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        self.with("read", |open| {
            let number = number(id)?;
            let mut one = open
                .db
                .prepare_cached("SELECT record FROM log WHERE number = ?1")?;
            let mut rows = one.query([number])?;
            let Some(row) = rows.next()? else {
                return Ok(None);
            };
            let written = row.get_ref(0)?.as_blob().unwrap_or_default();
            Ok(Some(decode(number, written)?.record))
        })
    }

    fn maintain(&self, idle: bool) -> Result<bool, StoreError> {
        self.with("tidy up", |open| {
            let limit = if idle {
                CHECKPOINT_PAGES
            } else {
                4 * CHECKPOINT_PAGES
            };
            if open.wal_pages > limit {
                open.checkpoint("PASSIVE")?;
                return Ok(open.dropped);
            }
            if !idle || !open.dropped {
                return Ok(false);
            }
            let pragma = |name: &str| {
                open.db
                    .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
            };
            let (free, all) = (pragma("freelist_count")?, pragma("page_count")?);
            if free < FREE_PAGES || free * 3 < all {
                open.dropped = false;
                // The files shrink when the write-ahead log is folded in and cut off.
                if std::mem::take(&mut open.vacuumed) {
                    open.checkpoint("TRUNCATE")?;
                }
                return Ok(false);
            }
            open.forget_abandoned()?;
            open.vacuumed = true;
            // Each step of this statement gives one page back.
            let mut vacuum = open
                .db
                .prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
            let mut rows = vacuum.query([])?;
            while rows.next()?.is_some() {}
            open.wal_pages += VACUUM_PAGES.cast_unsigned();
            Ok(true)
        })
    }

    fn corrupt(&self, detail: String) -> StoreError {
        StoreError::Corrupt {
            path: self.path.clone(),
            detail,
        }
    }

    fn size_on_disk(&self) -> Result<u64, StoreError> {
        let mut size = 0;
        for suffix in ["", "-wal"] {
            let path = with_suffix(&self.path, suffix);
            match std::fs::metadata(&path) {
                Ok(found) => size += found.blocks() * 512,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(StoreError::io("look at", path, e)),
            }
        }
        Ok(size)
    }

    fn close(&self) {
        let open: MutexGuard<'_, Option<Open>> = self.open.lock();
        let Some(Open {
            db, _lock: lock, ..
        }) = { open }.take()
        else {
            return;
        };
        // Closing folds the write-ahead log in. When that fails, the next open does it.
        if let Err((_, error)) = db.close() {
            tracing::warn!(%error, path = %self.path.display(), "cannot tidy up at close");
        }
        drop(lock);
    }
}
