//! A log that keeps nothing: for tests of what lies above the log.

use std::collections::BTreeMap;

use parking_lot::RwLock;

use super::log::{Append, Log, Record, RecordId, Visit};
use crate::error::StoreError;
use crate::model::Revision;

/// Records in a map.
#[derive(Debug, Default)]
pub(crate) struct MemoryLog {
    inner: RwLock<(BTreeMap<RecordId, Record>, Revision)>,
}

impl Log for MemoryLog {
    fn append(&self, append: &Append) -> Result<(), StoreError> {
        let mut inner = self.inner.write();
        for record in &append.put {
            inner.0.insert(record.id, record.clone());
        }
        for id in &append.drop {
            inner.0.remove(id);
        }
        if let Some(compacted) = append.compacted {
            inner.1 = compacted;
        }
        Ok(())
    }

    fn compacted(&self) -> Result<Revision, StoreError> {
        Ok(self.inner.read().1)
    }

    fn scan(&self, from: Revision, visit: Visit<'_>) -> Result<(), StoreError> {
        let inner = self.inner.read();
        for record in inner
            .0
            .range(
                RecordId {
                    revision: from,
                    sub: 0,
                }..,
            )
            .map(|(_, r)| r)
        {
            if !visit(record.clone()) {
                break;
            }
        }
        Ok(())
    }

    fn get(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        Ok(self.inner.read().0.get(&id).cloned())
    }

    fn corrupt(&self, detail: String) -> StoreError {
        StoreError::Corrupt {
            path: "memory".into(),
            detail,
        }
    }

    fn size_on_disk(&self) -> Result<u64, StoreError> {
        Ok(0)
    }
}
