//! How one change is written: its bytes, and the checksum that makes damage visible.
//!
//! SQLite does not checksum its pages, so each record carries a checksum of its own that covers
//! its id as well: a record at a wrong place is as damaged as a changed one. Records that are
//! missing altogether are found by the [`Tally`], or by the gap that they leave.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::log::{Record, RecordId};

const LAST: u8 = 1;
const DELETION: u8 = 2;
const KNOWN: u8 = LAST | DELETION;
const SUM_BYTES: usize = 8;
/// Bits of a record's number that count the changes of one revision.
const SUB_BITS: u32 = 24;

/// What a log holds: how many records, and the sum of their checksums.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) count: u64,
    pub(crate) sum: u64,
}

impl Tally {
    /// Adds a record with this checksum.
    pub(crate) fn add(&mut self, checksum: u64) {
        self.count = self.count.wrapping_add(1);
        self.sum = self.sum.wrapping_add(checksum);
    }

    /// Takes a record with this checksum away.
    pub(crate) fn take(&mut self, checksum: u64) {
        self.count = self.count.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(checksum);
    }
}

/// The checksum of the row that keeps a tally and what else is known of the whole.
pub(crate) fn seal(words: &[u64]) -> u64 {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    xxh3_64_with_seed(&bytes, 0)
}

impl RecordId {
    /// The record's number in the log, in the order of the ids; `None` when a revision has too
    /// many changes, or when the revisions are used up.
    pub(crate) fn number(self) -> Option<i64> {
        let fits = self.sub < 1 << SUB_BITS && self.revision < 1 << (63 - SUB_BITS);
        fits.then_some((self.revision << SUB_BITS | u64::from(self.sub)).cast_signed())
    }

    /// The id with this number; `None` for a number that no id has.
    pub(crate) fn from_number(number: i64) -> Option<Self> {
        let number = u64::try_from(number).ok()?;
        let sub = u32::try_from(number & ((1 << SUB_BITS) - 1)).ok()?;
        Some(Self {
            revision: number >> SUB_BITS,
            sub,
        })
    }
}

/// A record read back, with what only the log looks at.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) record: Record,
    pub(crate) checksum: u64,
}

/// Writes `record` down; returns it with its checksum.
pub(crate) fn encode(number: i64, record: &Record) -> (Vec<u8>, u64) {
    let mut out = Vec::with_capacity(32 + record.key.len() + record.value.len());
    let flag = |set, flag| if set { flag } else { 0 };
    out.push(flag(record.last, LAST) | flag(record.version == 0, DELETION));
    if record.version > 0 {
        out.extend(record.create_revision.to_le_bytes());
        out.extend(record.version.to_le_bytes());
    }
    // A key is far shorter than 4 GiB: transactions are bounded long before.
    let key_len = u32::try_from(record.key.len()).unwrap_or(u32::MAX);
    out.extend(key_len.to_le_bytes());
    out.extend_from_slice(&record.key);
    out.extend_from_slice(&record.value);
    let checksum = xxh3_64_with_seed(&out, number.cast_unsigned());
    out.extend(checksum.to_le_bytes());
    (out, checksum)
}

/// The checksum that a written record ends with.
pub(crate) fn checksum(written: &[u8]) -> Option<u64> {
    written
        .last_chunk::<SUM_BYTES>()
        .map(|sum| u64::from_le_bytes(*sum))
}

/// Reads a record back; `None` if it is not what was written there.
pub(crate) fn decode(number: i64, written: &[u8]) -> Option<Decoded> {
    let id = RecordId::from_number(number)?;
    let checksum = checksum(written)?;
    let body = &written[..written.len() - SUM_BYTES];
    if xxh3_64_with_seed(body, number.cast_unsigned()) != checksum {
        return None;
    }
    let (&flags, mut rest) = body.split_first()?;
    if flags & !KNOWN != 0 {
        return None;
    }
    let mut word = || {
        let (word, after) = rest.split_first_chunk::<8>()?;
        rest = after;
        Some(u64::from_le_bytes(*word))
    };
    let (create_revision, version) = match flags & DELETION {
        0 => (word()?, word()?),
        _ => (0, 0),
    };
    let (key_len, rest) = rest.split_first_chunk::<4>()?;
    let key_len = usize::try_from(u32::from_le_bytes(*key_len)).ok()?;
    if key_len > rest.len() {
        return None;
    }
    // Key and value share one allocation.
    let mut key = Bytes::copy_from_slice(rest);
    let value = key.split_off(key_len);
    let last = flags & LAST != 0;
    let record = Record {
        id,
        last,
        create_revision,
        version,
        key,
        value,
    };
    Some(Decoded { record, checksum })
}
