//! The log on SQLite: one table of records, one row about the whole.
//!
//! SQLite was chosen by measurement (docs/design/0002-store-engine.md). It runs in WAL mode with
//! one connection that owns the files, so that a commit is one append and one fsync. Reads of
//! history share that connection: they are rare, short, and wait at most for one fsync.
//!
//! A commit writes one page more for each row it touches in another table. So the row about the whole
//! is not brought up to date by every append, but only where records go, and before pages leave the
//! write-ahead log: what is behind it ([`State::through`]) has no gap, which [`super::load`] checks.

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
const FORMAT: u32 = 2;
/// Before it, the row about the whole covered every record.
const FORMAT_WITHOUT_THROUGH: u32 = 1;
const PAGE_BYTES: u64 = 8192;
/// The write-ahead log is folded into the database beyond this many pages: when there is nothing
/// else to do, and at the latest at four times as many.
const CHECKPOINT_PAGES: u64 = 512;
/// The write-ahead log is made as long as this before it is needed, in steps, where the disk has so
/// much room that nobody misses it: a commit that makes the file longer has its length written as
/// well, which takes as long as the commit itself.
const WAL_BYTES: u64 = 8 << 20;
const WAL_STEP: usize = 1 << 20;
const AMPLE: u64 = 1 << 30;
/// Modes of a checkpoint: what goes at once, and all, with the file cut off.
const PASSIVE: &str = "PASSIVE";
const TRUNCATE: &str = "TRUNCATE";
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
    /// Of all records.
    state: State,
    /// Whether the row in the database says the same.
    sealed: bool,
    /// About how many pages the write-ahead log has.
    wal_pages: u64,
    /// Whether the write-ahead log is as long as it should be, or can't be.
    extended: bool,
    /// Whether records were dropped since free pages were looked at last.
    dropped: bool,
    /// Whether free pages were given back and the files have not been cut off yet.
    vacuumed: bool,
    /// Whether something failed that may have left its frames at the end of the write-ahead log.
    abandoned: bool,
    /// Held for as long as the files are open.
    lock: File,
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
        upgrade(&db).map_err(|failed| match failed {
            Failure::Damaged(detail) => StoreError::Corrupt {
                path: path.clone(),
                detail,
            },
            Failure::Sqlite(error) => failure(&path, "bring up to date", error),
            Failure::TooManyChanges(_) => StoreError::Closed,
        })?;
        let open = Open {
            db,
            state: State::default(),
            sealed: true,
            wal_pages: wal_bytes / PAGE_BYTES,
            extended: false,
            dropped: true,
            vacuumed: false,
            abandoned,
            lock,
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
            self.checkpoint(TRUNCATE)?;
            self.abandoned = false;
        }
        Ok(())
    }

    /// Has the row in the database say what is there.
    fn seal(&mut self) -> rusqlite::Result<()> {
        if !self.sealed {
            self.state.write(&self.db)?;
            self.sealed = true;
            self.wal_pages += 1;
        }
        Ok(())
    }

    /// Folds the write-ahead log into the database, whose file shrinks by what was given back; the
    /// mode TRUNCATE cuts the log off as well.
    fn checkpoint(&mut self, mode: &str) -> rusqlite::Result<()> {
        // Not where something failed: that is what this is to clear away.
        if !self.abandoned
            && let Err(error) = self.seal()
        {
            self.abandoned = true;
            // A full disk has room again when the log is folded in.
            if error.sqlite_error_code() != Some(ErrorCode::DiskFull) {
                return Err(error);
            }
        }
        self.wal_pages = 0;
        self.extended &= mode != TRUNCATE;
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        self.db.query_row(&sql, [], |_| Ok(()))
    }
}

/// Makes the write-ahead log longer by a step; answers whether that was the last one. SQLite writes
/// from its beginning on, and takes what lies behind its last frame for leftovers.
fn extend(path: &Path) -> std::io::Result<bool> {
    let wal = with_suffix(path, "-wal");
    let free = rustix::fs::statvfs(&wal)?;
    if free.f_bavail.saturating_mul(free.f_frsize) < AMPLE {
        return Ok(true);
    }
    let file = File::options().write(true).open(&wal)?;
    let length = file.metadata()?.len();
    if length >= WAL_BYTES {
        return Ok(true);
    }
    // Room that is only set aside is written down as used when it is, which costs the same again.
    file.write_all_at(&vec![0; WAL_STEP], length)?;
    file.sync_all()?;
    Ok(false)
}

/// What the row about the whole says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct State {
    compacted: Revision,
    tally: Tally,
    /// The number of the last record that the tally counts. Those behind it have no gap.
    through: u64,
}

impl State {
    /// Reads the row; `None` when it is not as it was written, or not there.
    fn read(db: &Connection) -> rusqlite::Result<Option<Self>> {
        let sql = "SELECT compacted, count, sum, through, seal FROM state";
        let read = |row: &rusqlite::Row<'_>| -> rusqlite::Result<[i64; 5]> {
            Ok([
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
            ])
        };
        let Some(words) = db.query_row(sql, [], read).optional()? else {
            return Ok(None);
        };
        let [compacted, count, sum, through, seal] = words.map(i64::cast_unsigned);
        let state = Self {
            compacted,
            tally: Tally { count, sum },
            through,
        };
        Ok((state.seal() == seal).then_some(state))
    }

    fn write(self, db: &Connection) -> rusqlite::Result<()> {
        let mut row = db.prepare_cached(
            "UPDATE state SET compacted = ?1, count = ?2, sum = ?3, through = ?4, seal = ?5",
        )?;
        let Tally { count, sum } = self.tally;
        let words = [self.compacted, count, sum, self.through, self.seal()];
        row.execute(words.map(u64::cast_signed)).map(drop)
    }

    fn seal(self) -> u64 {
        let Tally { count, sum } = self.tally;
        record::seal(&[count, sum, self.compacted, self.through])
    }

    /// Counts a record at the end.
    fn add(&mut self, number: i64, checksum: u64) {
        self.tally.add(checksum);
        self.through = number.cast_unsigned();
    }
}

/// Brings a store of an older format up to date.
fn upgrade(db: &Connection) -> Result<(), Failure> {
    let format: u32 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if format != FORMAT_WITHOUT_THROUGH {
        return Ok(());
    }
    let sql = "SELECT compacted, count, sum, seal FROM state";
    let read = |row: &rusqlite::Row<'_>| -> rusqlite::Result<[i64; 4]> {
        Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?])
    };
    let words = db.query_row(sql, [], read).optional()?.unwrap_or_default();
    let [compacted, count, sum, seal] = words.map(i64::cast_unsigned);
    if record::seal(&[count, sum, compacted]) != seal {
        return Err(Failure::Damaged(NOT_AS_WRITTEN.to_owned()));
    }
    let last: i64 = db.query_row("SELECT coalesce(max(number), 0) FROM log", [], |row| {
        row.get(0)
    })?;
    let state = State {
        compacted,
        tally: Tally { count, sum },
        through: last.cast_unsigned(),
    };
    let txn = db.unchecked_transaction()?;
    txn.execute_batch(&format!(
        "ALTER TABLE state ADD COLUMN through INTEGER NOT NULL DEFAULT 0;
         PRAGMA user_version = {FORMAT};"
    ))?;
    state.write(&txn)?;
    Ok(txn.commit()?)
}

const NOT_AS_WRITTEN: &str = "its state is not as it was written";

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
                 count INTEGER NOT NULL, sum INTEGER NOT NULL, seal INTEGER NOT NULL,
                 through INTEGER NOT NULL);
             INSERT INTO state VALUES (1, 0, 0, 0, {}, 0);
             COMMIT;",
            State::default().seal().cast_signed()
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
        Some(FORMAT | FORMAT_WITHOUT_THROUGH) => Ok(()),
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
            let Some(written) = State::read(&open.db)? else {
                return Err(Failure::Damaged(NOT_AS_WRITTEN.to_owned()));
            };
            let mut covered = Tally::default();
            let mut found = State {
                through: written.through,
                ..written
            };
            found.tally = Tally::default();
            scan(open, 0, |decoded| {
                let number = number(decoded.record.id).unwrap_or(i64::MAX);
                if number.cast_unsigned() <= written.through {
                    covered.add(decoded.checksum);
                    found.tally.add(decoded.checksum);
                } else {
                    found.add(number, decoded.checksum);
                }
                visit(decoded.record)
            })?;
            if covered != written.tally {
                let (found, written) = (covered.count, written.tally.count);
                let detail =
                    format!("of {written} records {found} are there, or others than those");
                return Err(Failure::Damaged(detail));
            }
            open.sealed = found == written;
            open.state = found;
            Ok(found.compacted)
        })
    }

    fn append(&self, append: &Append) -> Result<(), StoreError> {
        self.with("write", |open| {
            let mut state = open.state;
            open.forget_abandoned()?;
            let txn = open.db.transaction()?;
            let mut bytes = 0;
            if !append.drop.is_empty() {
                let mut drop =
                    txn.prepare_cached("DELETE FROM log WHERE number = ?1 RETURNING record")?;
                for id in &append.drop {
                    let mut rows = drop.query([number(*id)?])?;
                    while let Some(row) = rows.next()? {
                        let written = row.get_ref(0)?.as_blob().unwrap_or_default();
                        state.tally.take(record::checksum(written).unwrap_or(0));
                    }
                }
            }
            {
                let mut put = txn.prepare_cached("INSERT INTO log VALUES (?1, ?2)")?;
                for record in &append.put {
                    let number = number(record.id)?;
                    let (written, checksum) = record::encode(number, record);
                    put.execute((number, &written))?;
                    state.add(number, checksum);
                    bytes += written.len() as u64;
                }
            }
            state.compacted = append.compacted.unwrap_or(state.compacted);
            // What goes leaves gaps; what comes leaves none.
            let seal = !append.drop.is_empty() || append.compacted.is_some();
            if seal {
                state.write(&txn)?;
            }
            txn.commit()?;
            open.state = state;
            open.sealed = seal;
            open.wal_pages += 1 + bytes / PAGE_BYTES + append.drop.len() as u64 / 4;
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
                open.checkpoint(PASSIVE)?;
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
                    open.checkpoint(TRUNCATE)?;
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

    fn wants_room(&self) -> bool {
        let open = self.open.lock();
        open.as_ref().is_some_and(|open| !open.extended)
    }

    fn make_room(&self) {
        if let Some(open) = self.open.lock().as_mut() {
            // Without it everything works, and commits take longer.
            open.extended = extend(&self.path).unwrap_or(true);
        }
    }

    fn wants_tidying(&self) -> bool {
        let open = self.open.lock();
        let wants = |open: &Open| open.wal_pages > CHECKPOINT_PAGES || open.dropped;
        open.as_ref().is_some_and(wants)
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
        let Some(mut open) = { open }.take() else {
            return;
        };
        if !open.abandoned
            && let Err(error) = open.seal()
        {
            tracing::warn!(%error, path = %self.path.display(), "cannot seal the store");
        }
        let Open { db, lock, .. } = open;
        // Closing folds the write-ahead log in. When that fails, the next open does it.
        if let Err((_, error)) = db.close() {
            tracing::warn!(%error, path = %self.path.display(), "cannot tidy up at close");
        }
        // Said, not left to the descriptor: a child that another thread is just starting has a copy
        // of it until it runs its program, and would keep the lock as long.
        if let Err(error) = lock.unlock() {
            tracing::warn!(%error, path = %self.path.display(), "cannot give the store free");
        }
    }
}

#[cfg(test)]
mod tests;
