//! A snapshot of a store in one file: every live key as of one revision, with what it takes to be
//! sure of it.
//!
//! The file says nothing about the engine that it came from, so it also carries a store from one
//! engine to another. Each record carries a checksum over its bytes and its number, and the end
//! says how many there are and the sum of their checksums: a file that is cut short, changed,
//! or put together from two is refused, by name and with the place where it is wrong.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::error::StoreError;
use crate::model::{KeyValue, Range, Revision};
use crate::store::Store;

const MAGIC: &[u8; 8] = b"EVKNSNAP";
const FORMAT: u32 = 1;
const HEADER_BYTES: usize = 36;
const RECORD: u8 = 1;
const END: u8 = 2;
/// Kind, creation, revision, version, and the lengths of key and value.
const HEAD_BYTES: usize = 33;
/// Kind, count, sum, revision.
const END_BYTES: usize = 25;
const SUM_BYTES: usize = 8;
/// So many keys are read at once.
const PAGE: usize = 2000;
/// A record is never larger: transactions are bounded long before.
const MOST: usize = 64 << 20;

/// What a snapshot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// The revision it was taken at.
    pub revision: Revision,
    /// When, in seconds since 1970.
    pub taken: u64,
    /// How many keys.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

fn header(revision: Revision, taken: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES);
    out.extend(MAGIC);
    out.extend(FORMAT.to_le_bytes());
    out.extend(revision.to_le_bytes());
    out.extend(taken.to_le_bytes());
    let sum = xxh3_64_with_seed(&out, 0);
    out.extend(sum.to_le_bytes());
    out
}

/// Appends a record; answers its checksum.
fn record(out: &mut Vec<u8>, number: u64, kv: &KeyValue) -> u64 {
    let from = out.len();
    out.push(RECORD);
    out.extend(kv.create_revision.to_le_bytes());
    out.extend(kv.mod_revision.to_le_bytes());
    out.extend(kv.version.to_le_bytes());
    for part in [&kv.key, &kv.value] {
        let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
        out.extend(length.to_le_bytes());
    }
    out.extend_from_slice(&kv.key);
    out.extend_from_slice(&kv.value);
    let sum = xxh3_64_with_seed(&out[from..], number);
    out.extend(sum.to_le_bytes());
    sum
}

fn end(count: u64, sum: u64, revision: Revision) -> Vec<u8> {
    let mut out = vec![END];
    for word in [count, sum, revision] {
        out.extend(word.to_le_bytes());
    }
    let sum = xxh3_64_with_seed(&out, count);
    out.extend(sum.to_le_bytes());
    out
}

/// Takes a snapshot while the store serves: the file's bytes, in pieces. `taken` is the time in
/// seconds since 1970. All of it is as of one revision, the current one; compaction that overtakes
/// it ends it with an error.
pub fn take(
    store: Arc<dyn Store>,
    taken: u64,
) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + 'static {
    struct Taking {
        store: Arc<dyn Store>,
        revision: Revision,
        after: Option<Bytes>,
        count: u64,
        sum: u64,
        done: bool,
    }
    let first = futures::stream::once(async move {
        let revision = store.revision().await?;
        let taking = Taking {
            store,
            revision,
            after: None,
            count: 0,
            sum: 0,
            done: false,
        };
        Ok::<_, StoreError>((Bytes::from(header(revision, taken)), taking))
    });
    first.flat_map(|first| {
        let (head, taking) = match first {
            Ok(first) => first,
            Err(error) => return futures::stream::once(async { Err(error) }).boxed(),
        };
        let rest = futures::stream::try_unfold(taking, |mut taking| async move {
            if taking.done {
                return Ok(None);
            }
            let start = taking.after.take().unwrap_or_default();
            let page = Range::interval(start, Bytes::new())
                .at(taking.revision)
                .limit(PAGE);
            let page = taking.store.range(page).await?;
            let mut out = Vec::new();
            for kv in &page.kvs {
                let sum = record(&mut out, taking.count, kv);
                taking.count += 1;
                taking.sum = taking.sum.wrapping_add(sum);
            }
            match page.kvs.last().filter(|_| page.more) {
                Some(last) => taking.after = Some([&last.key[..], b"\0"].concat().into()),
                None => {
                    out.extend(end(taking.count, taking.sum, taking.revision));
                    taking.done = true;
                }
            }
            Ok(Some((Bytes::from(out), taking)))
        });
        futures::stream::once(async { Ok(head) })
            .chain(rest)
            .boxed()
    })
}

/// Reads a snapshot from a file, and hands each key to `visit`. What was visited counts only when
/// this returns without an error: the end says whether all of it was right.
///
/// # Errors
/// [`StoreError::Corrupt`] names what is wrong and where; [`StoreError::Io`]; what `visit` fails
/// with.
pub fn read(
    path: &Path,
    mut visit: impl FnMut(KeyValue) -> Result<(), StoreError>,
) -> Result<Summary, StoreError> {
    let file = File::open(path).map_err(|error| StoreError::io("open", path, error))?;
    let mut input = Input {
        path,
        reader: BufReader::with_capacity(1 << 20, file),
        at: 0,
    };
    let mut head = [0; HEADER_BYTES];
    input.fill(&mut head)?;
    let word = |bytes: &[u8], at: usize| {
        bytes[at..]
            .first_chunk::<8>()
            .map_or(0, |word| u64::from_le_bytes(*word))
    };
    if !head.starts_with(MAGIC) {
        return Err(input.wrong("it is not a backup of Evenkeel"));
    }
    let format = head[8..]
        .first_chunk::<4>()
        .map_or(0, |word| u32::from_le_bytes(*word));
    if format != FORMAT {
        return Err(input.wrong(&format!(
            "its format is {format}, and this version reads {FORMAT}"
        )));
    }
    if xxh3_64_with_seed(&head[..HEADER_BYTES - SUM_BYTES], 0) != word(&head, 28) {
        return Err(input.wrong("its header is damaged"));
    }
    let mut summary = Summary {
        revision: word(&head, 12),
        taken: word(&head, 20),
        keys: 0,
        bytes: 0,
    };
    let mut total = 0_u64;
    let mut buffer = Vec::new();
    let mut last: Option<Bytes> = None;
    loop {
        let mut kind = [0];
        input.fill(&mut kind)?;
        match kind[0] {
            RECORD => {
                buffer.resize(HEAD_BYTES, 0);
                buffer[0] = RECORD;
                input.fill(&mut buffer[1..])?;
                let length = |at: usize| {
                    buffer[at..]
                        .first_chunk::<4>()
                        .map_or(0, |word| u32::from_le_bytes(*word) as usize)
                };
                let (key, value) = (length(25), length(29));
                if key + value > MOST {
                    return Err(input.wrong("a record is damaged"));
                }
                buffer.resize(HEAD_BYTES + key + value + SUM_BYTES, 0);
                input.fill(&mut buffer[HEAD_BYTES..])?;
                let body = &buffer[..HEAD_BYTES + key + value];
                let sum = xxh3_64_with_seed(body, summary.keys);
                if sum != word(&buffer, body.len()) {
                    return Err(input.wrong("a record is damaged"));
                }
                total = total.wrapping_add(sum);
                summary.keys += 1;
                summary.bytes += (key + value) as u64;
                let mut both = Bytes::copy_from_slice(&body[HEAD_BYTES..]);
                let value = both.split_off(key);
                let kv = KeyValue {
                    key: both,
                    value,
                    create_revision: word(body, 1),
                    mod_revision: word(body, 9),
                    version: word(body, 17),
                };
                if last.as_ref().is_some_and(|last| *last >= kv.key)
                    || kv.mod_revision > summary.revision
                    || kv.create_revision > kv.mod_revision
                    || kv.version == 0
                {
                    return Err(input.wrong("a record can't have been written there"));
                }
                last = Some(kv.key.clone());
                visit(kv)?;
            }
            END => {
                let mut tail = [END; END_BYTES + SUM_BYTES];
                input.fill(&mut tail[1..])?;
                let sum = xxh3_64_with_seed(&tail[..END_BYTES], summary.keys);
                let said = [word(&tail, 1), word(&tail, 9), word(&tail, 17)];
                if said != [summary.keys, total, summary.revision] || sum != word(&tail, END_BYTES)
                {
                    return Err(input.wrong("its end does not fit what is before it"));
                }
                let mut more = [0];
                return match input.reader.read(&mut more) {
                    Ok(0) => Ok(summary),
                    Ok(_) => Err(input.wrong("something follows its end")),
                    Err(error) => Err(StoreError::io("read", path, error)),
                };
            }
            _ => return Err(input.wrong("a record is damaged")),
        }
    }
}

/// A file that is read from front to back.
struct Input<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    at: u64,
}

impl Input<'_> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), StoreError> {
        self.reader.read_exact(buffer).map_err(|error| {
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                self.wrong("it is cut short")
            } else {
                StoreError::io("read", self.path, error)
            }
        })?;
        self.at += buffer.len() as u64;
        Ok(())
    }

    fn wrong(&self, detail: &str) -> StoreError {
        StoreError::Corrupt {
            path: PathBuf::from(self.path),
            detail: format!("{detail} (near byte {})", self.at),
        }
    }
}
