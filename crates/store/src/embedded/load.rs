//! Rebuilds the state from the log when a store opens, and checks that the log has no gap.

use super::index::{Index, Version};
use super::log::{Log, Record, RecordId};
use crate::error::StoreError;

/// Reads the whole log. Returns the state, and the records that a compaction had given up but not
/// dropped yet when the store was last closed.
pub(crate) fn load(log: &dyn Log) -> Result<(Index, Vec<RecordId>), StoreError> {
    let compacted = log.compacted()?;
    let mut index = Index::new();
    let mut expected: Option<RecordId> = None;
    let mut broken = None;
    log.scan(0, &mut |record: Record| {
        let id = record.id;
        // Before the last compaction single records are missing by right, after it none may.
        let first = RecordId {
            revision: compacted.max(1) + 1,
            sub: 0,
        };
        if id >= first && id != expected.filter(|e| *e >= first).unwrap_or(first) {
            broken = Some(id);
            return false;
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
    if let Some(found) = broken {
        let missing = expected.map_or(compacted + 1, |e| e.revision);
        let detail = format!(
            "revision {missing} is missing or not whole before {}",
            found.revision
        );
        return Err(log.corrupt(detail));
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
