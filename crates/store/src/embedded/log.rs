//! What the engine needs of the storage library underneath: append records in order, drop some,
//! read some back. Everything that knows about keys, versions and watches lives above this line;
//! everything that knows about files lives below it.

use bytes::Bytes;

use crate::error::StoreError;
use crate::model::Revision;

/// Where a change is in the log: its revision, and its place among the changes of that revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RecordId {
    pub(crate) revision: Revision,
    pub(crate) sub: u32,
}

/// One change as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) id: RecordId,
    /// Whether it is the last change of its revision.
    pub(crate) last: bool,
    /// The revision that created the key; 0 for a deletion.
    pub(crate) create_revision: Revision,
    /// Puts since the creation; 0 for a deletion.
    pub(crate) version: u64,
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
}

/// Changes to the log that become durable together or not at all.
#[derive(Debug, Default)]
pub(crate) struct Append {
    pub(crate) put: Vec<Record>,
    pub(crate) drop: Vec<RecordId>,
    pub(crate) compacted: Option<Revision>,
}

/// Receives records in order; `false` ends the scan.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(Record) -> bool;

/// The log. One writer appends; any number of readers scan and get meanwhile.
pub(crate) trait Log: Send + Sync + 'static {
    /// Makes `append` durable: when it returns, a power cut loses nothing of it. On an error
    /// nothing of it is kept.
    fn append(&self, append: &Append) -> Result<(), StoreError>;

    /// Visits all records in order, checks that none is missing or damaged, and returns the
    /// revision of the last compaction. To be called once, before anything else.
    fn load(&self, visit: Visit<'_>) -> Result<Revision, StoreError>;

    /// Visits all records from the revision `from` on in order.
    fn scan(&self, from: Revision, visit: Visit<'_>) -> Result<(), StoreError>;

    /// One record; `None` when it was dropped.
    fn get(&self, id: RecordId) -> Result<Option<Record>, StoreError>;

    /// Tidies up after appends, in small steps; `idle` says that nobody waits for the writer.
    /// Returns whether there is more to do when idle.
    fn maintain(&self, idle: bool) -> Result<bool, StoreError>;

    /// Whether [`Self::maintain`] would have something to do when idle. Quick.
    fn wants_tidying(&self) -> bool;

    /// Whether appends would be faster after [`Self::make_room`].
    fn wants_room(&self) -> bool;

    /// Makes room for what will be appended, a step of some milliseconds.
    fn make_room(&self);

    /// The error for finding something in the log that cannot have been written.
    fn corrupt(&self, detail: String) -> StoreError;

    /// Bytes on disk.
    fn size_on_disk(&self) -> Result<u64, StoreError>;

    /// Gives the files free; everything after it fails with [`StoreError::Closed`].
    fn close(&self);
}
