//! What writers did, what watchers saw, and whether the two agree.
//!
//! Each key has one writer, which writes one thing at a time, so a key's history is a line. A
//! write whose answer never came is settled by the next list after the restart: it happened or it
//! did not, and from then on everybody must agree.

use std::collections::BTreeMap;

/// A change of one key. Contents are numbered: no two writes of a test have the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    Put(u64),
    Delete,
}

/// A change and, where it is known, its revision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    pub(crate) write: Write,
    pub(crate) revision: Option<u64>,
}

/// The history of one key by its writer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Line {
    pub(crate) done: Vec<Done>,
    /// Sent, and the answer never came.
    pub(crate) open: Option<Write>,
}

impl Line {
    /// What is stored when nothing is open: content and revision.
    pub(crate) fn now(&self) -> Option<(u64, u64)> {
        match self.done.last()? {
            Done {
                write: Write::Put(number),
                revision: Some(revision),
            } => Some((*number, *revision)),
            _ => None,
        }
    }

    /// Compares with what a list shows after a restart, and settles the open write.
    pub(crate) fn settle(&mut self, key: &str, shown: Option<(u64, u64)>) {
        let before = self.now();
        let Some(open) = self.open.take() else {
            assert_eq!(
                shown, before,
                "{key}: an acknowledged write is lost or changed: {self:?}"
            );
            return;
        };
        if shown == before {
            return;
        }
        match (open, shown) {
            (Write::Put(number), Some((content, revision))) if number == content => {
                if let Some((_, old)) = before {
                    assert!(revision > old, "{key}: revision {revision} after {old}");
                }
                self.done.push(Done {
                    write: open,
                    revision: Some(revision),
                });
            }
            (Write::Delete, None) => self.done.push(Done {
                write: open,
                revision: None,
            }),
            _ => panic!("{key}: shown {shown:?}, written {before:?}, perhaps {open:?}"),
        }
    }
}

/// What a watcher saw of one key: content (`None`: deleted) and revision.
pub(crate) type Seen = BTreeMap<String, Vec<(Write, u64)>>;

/// Every watcher must have seen exactly what was written, in order.
pub(crate) fn compare(written: &BTreeMap<String, Line>, seen: &Seen) {
    for (key, line) in written {
        let saw = seen.get(key).map(Vec::as_slice).unwrap_or_default();
        let wrote: Vec<Write> = line.done.iter().map(|done| done.write).collect();
        let what: Vec<Write> = saw.iter().map(|(write, _)| *write).collect();
        assert_eq!(what, wrote, "{key}: seen, and written");
        for (done, (_, revision)) in line.done.iter().zip(saw) {
            if let Some(known) = done.revision {
                assert_eq!(*revision, known, "{key}: revision of {:?}", done.write);
            }
        }
    }
    for key in seen.keys() {
        assert!(
            written.contains_key(key),
            "{key} was seen and never written"
        );
    }
}
