//! Rebuilds the state from the log when a store opens, and checks that the log has no gap.

use super::index::{Index, Version};
use super::log::{Log, Record, RecordId};
use crate::error::StoreError;

/// Reads the whole log. Returns the state, and the records that a compaction had given up but not
/// dropped yet when the store was last closed.
pub(crate) fn load(log: &dyn Log) -> Result<(Index, Vec<RecordId>), StoreError> {
    let mut index = Index::new();
    let mut expected: Option<RecordId> = None;
    let mut gap = None;
    let compacted = log.load(&mut |record: Record| {
        let id = record.id;
        let first = RecordId {
            revision: 2,
            sub: 0,
        };
        if id != expected.unwrap_or(first) {
            gap = Some(id);
        }
        expected = Some(record.successor());
        index.revision = id.revision;
        let Record {
            create_revision,
            version,
            key,
            value,
            ..
        } = record;
        index.insert(
            key,
            value,
            Version {
                id,
                create_revision,
                version,
            },
        );
        true
    })?;
    // Up to the last compaction single records are missing by right, after it none may. The
    // first record after it has a gap before it that is allowed, and must begin a revision.
    if let Some(found) = gap.filter(|id| {
        *id > RecordId {
            revision: compacted + 1,
            sub: 0,
        }
    }) {
        return Err(log.corrupt(format!(
            "a record before revision {} is missing",
            found.revision
        )));
    }
    if expected.is_some_and(|e| e.sub != 0) || index.revision < compacted {
        return Err(log.corrupt("its last revision is not whole".to_owned()));
    }
    let garbage = if compacted > 0 {
        index.compact(compacted)
    } else {
        Vec::new()
    };
    Ok((index, garbage))
}
