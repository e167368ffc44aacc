//! One adapter per library: the few operations that an MVCC log needs, each at its best setting
//! for many small durable appends. The key is the revision, the value one encoded change.

use std::path::Path;

use anyhow::Result;

/// What the store needs of a library.
pub trait Engine: Send {
    /// Makes puts and drops durable together.
    fn append(&mut self, puts: &[(u64, Vec<u8>)], drops: &[u64]) -> Result<()>;
    /// Visits all records in order.
    fn scan(&self, visit: &mut dyn FnMut(u64, &[u8])) -> Result<()>;
    /// Asks the library to give free space back to the system, where it can.
    fn shrink(&mut self) -> Result<()>;
}

pub const ENGINES: &[&str] = &[
    #[cfg(feature = "fjall")]
    "fjall",
    #[cfg(feature = "redb")]
    "redb",
    #[cfg(feature = "sqlite")]
    "sqlite",
    #[cfg(feature = "lmdb")]
    "lmdb",
];

pub fn open(name: &str, dir: &Path) -> Result<Box<dyn Engine>> {
    std::fs::create_dir_all(dir)?;
    Ok(match name {
        #[cfg(feature = "fjall")]
        "fjall" => Box::new(lsm::Fjall::open(dir)?),
        #[cfg(feature = "redb")]
        "redb" => Box::new(cow::Redb::open(dir, false)?),
        #[cfg(feature = "redb")]
        "redb-quick" => Box::new(cow::Redb::open(dir, true)?),
        #[cfg(feature = "sqlite")]
        "sqlite" => Box::new(wal::Sqlite::open(dir)?),
        #[cfg(feature = "lmdb")]
        "lmdb" => Box::new(mmap::Lmdb::open(dir)?),
        other => anyhow::bail!("no engine {other}"),
    })
}

#[cfg(feature = "fjall")]
mod lsm {
    use super::*;
    use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

    pub struct Fjall {
        db: Database,
        log: Keyspace,
    }

    impl Fjall {
        pub fn open(dir: &Path) -> Result<Self> {
            let db = Database::builder(dir)
                .worker_threads(1)
                .cache_size(1 << 20)
                .max_journaling_size(64 << 20)
                .open()?;
            let log = db.keyspace("log", || {
                KeyspaceCreateOptions::default().max_memtable_size(8 << 20)
            })?;
            Ok(Self { db, log })
        }
    }

    impl Engine for Fjall {
        fn append(&mut self, puts: &[(u64, Vec<u8>)], drops: &[u64]) -> Result<()> {
            let mut batch = self.db.batch().durability(Some(PersistMode::SyncData));
            for (id, value) in puts {
                batch.insert(&self.log, id.to_be_bytes(), value.as_slice());
            }
            for id in drops {
                batch.remove(&self.log, id.to_be_bytes());
            }
            Ok(batch.commit()?)
        }

        fn scan(&self, visit: &mut dyn FnMut(u64, &[u8])) -> Result<()> {
            for item in self.log.iter() {
                let (key, value) = item.into_inner()?;
                visit(u64::from_be_bytes(key.as_ref().try_into()?), &value);
            }
            Ok(())
        }

        fn shrink(&mut self) -> Result<()> {
            self.log.rotate_memtable_and_wait()?;
            Ok(self.log.major_compact()?)
        }
    }
}

#[cfg(feature = "redb")]
mod cow {
    use super::*;
    use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

    const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");

    pub struct Redb {
        db: Database,
        quick: bool,
    }

    impl Redb {
        pub fn open(dir: &Path, quick: bool) -> Result<Self> {
            let db = Database::builder().set_cache_size(4 << 20).create(dir.join("log.redb"))?;
            let txn = db.begin_write()?;
            txn.open_table(LOG)?;
            txn.commit()?;
            Ok(Self { db, quick })
        }
    }

    impl Engine for Redb {
        fn append(&mut self, puts: &[(u64, Vec<u8>)], drops: &[u64]) -> Result<()> {
            let mut txn = self.db.begin_write()?;
            txn.set_quick_repair(self.quick);
            {
                let mut log = txn.open_table(LOG)?;
                for (id, value) in puts {
                    log.insert(id, value.as_slice())?;
                }
                for id in drops {
                    log.remove(id)?;
                }
            }
            Ok(txn.commit()?)
        }

        fn scan(&self, visit: &mut dyn FnMut(u64, &[u8])) -> Result<()> {
            for item in self.db.begin_read()?.open_table(LOG)?.iter()? {
                let (key, value) = item?;
                visit(key.value(), value.value());
            }
            Ok(())
        }

        fn shrink(&mut self) -> Result<()> {
            self.db.compact()?;
            Ok(())
        }
    }
}

#[cfg(feature = "sqlite")]
mod wal {
    use super::*;
    use rusqlite::Connection;

    pub struct Sqlite {
        db: Connection,
    }

    impl Sqlite {
        pub fn open(dir: &Path) -> Result<Self> {
            let db = Connection::open(dir.join("log.sqlite"))?;
            db.execute_batch(
                "PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL;
                 PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;
                 PRAGMA synchronous = FULL; PRAGMA cache_size = -2048;
                 PRAGMA wal_autocheckpoint = 1000;
                 CREATE TABLE IF NOT EXISTS log (id INTEGER PRIMARY KEY, record BLOB NOT NULL);",
            )?;
            Ok(Self { db })
        }
    }

    impl Engine for Sqlite {
        fn append(&mut self, puts: &[(u64, Vec<u8>)], drops: &[u64]) -> Result<()> {
            let txn = self.db.transaction()?;
            {
                let mut put = txn.prepare_cached("INSERT INTO log VALUES (?1, ?2)")?;
                for (id, value) in puts {
                    put.execute((*id as i64, value))?;
                }
                let mut drop = txn.prepare_cached("DELETE FROM log WHERE id = ?1")?;
                for id in drops {
                    drop.execute([*id as i64])?;
                }
            }
            Ok(txn.commit()?)
        }

        fn scan(&self, visit: &mut dyn FnMut(u64, &[u8])) -> Result<()> {
            let mut all = self.db.prepare("SELECT id, record FROM log ORDER BY id")?;
            let mut rows = all.query([])?;
            while let Some(row) = rows.next()? {
                visit(row.get::<_, i64>(0)? as u64, row.get_ref(1)?.as_blob()?);
            }
            Ok(())
        }

        fn shrink(&mut self) -> Result<()> {
            // Each step of this pragma frees one page.
            let mut vacuum = self.db.prepare("PRAGMA incremental_vacuum")?;
            let mut rows = vacuum.query([])?;
            while rows.next()?.is_some() {}
            self.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE);")?;
            Ok(())
        }
    }
}

#[cfg(feature = "lmdb")]
mod mmap {
    use super::*;
    use heed::types::{Bytes, U64};
    use heed::{Database, Env, EnvOpenOptions, byteorder::BE};

    pub struct Lmdb {
        env: Env,
        log: Database<U64<BE>, Bytes>,
    }

    impl Lmdb {
        pub fn open(dir: &Path) -> Result<Self> {
            // SAFETY: the benchmark opens each environment once and nobody else touches its files.
            let env = unsafe { EnvOpenOptions::new().map_size(16 << 30).open(dir)? };
            let mut txn = env.write_txn()?;
            let log = env.create_database(&mut txn, None)?;
            txn.commit()?;
            Ok(Self { env, log })
        }
    }

    impl Engine for Lmdb {
        fn append(&mut self, puts: &[(u64, Vec<u8>)], drops: &[u64]) -> Result<()> {
            let mut txn = self.env.write_txn()?;
            for (id, value) in puts {
                self.log.put(&mut txn, id, value)?;
            }
            for id in drops {
                self.log.delete(&mut txn, id)?;
            }
            Ok(txn.commit()?)
        }

        fn scan(&self, visit: &mut dyn FnMut(u64, &[u8])) -> Result<()> {
            let txn = self.env.read_txn()?;
            for item in self.log.iter(&txn)? {
                let (id, value) = item?;
                visit(id, value);
            }
            Ok(())
        }

        fn shrink(&mut self) -> Result<()> {
            Ok(())
        }
    }
}
