//! A change of an object, and how watches are told of it.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::object::Object;

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was not there before.
    Added,
    /// It changed.
    Modified,
    /// It is gone.
    Deleted,
}

impl ChangeKind {
    /// As in watch events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// A change of an object.
#[derive(Debug)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// The object; of a deleted one the last state, with the revision of its deletion.
    pub object: Arc<Object>,
    /// What it was before.
    pub previous: Option<Arc<Object>>,
    /// Its place in the kind's log.
    sequence: u64,
    /// The watch event as JSON, written once for all watchers that come for it soon.
    line: Mutex<Option<Bytes>>,
}

impl Change {
    /// A change outside a log, as watches of older history make them.
    #[must_use]
    pub fn new(kind: ChangeKind, object: Arc<Object>, previous: Option<Arc<Object>>) -> Self {
        Self {
            kind,
            object,
            previous,
            sequence: 0,
            line: Mutex::default(),
        }
    }

    /// The change at its place in a log.
    pub(super) fn at(mut self, sequence: u64) -> Self {
        self.sequence = sequence;
        self
    }

    /// Its place in the kind's log.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The JSON watch event, shared by all watchers that see the change as what it is.
    pub fn line(&self) -> Bytes {
        let mut line = self.line.lock();
        line.get_or_insert_with(|| event_line(self.kind, &self.object))
            .clone()
    }

    /// Lets go of the event that was written: whoever comes late has it written again.
    pub(super) fn forget_line(&self) {
        self.line.lock().take();
    }

    #[cfg(test)]
    pub(super) fn has_line(&self) -> bool {
        self.line.lock().is_some()
    }
}

/// Writes a JSON watch event.
#[must_use]
pub fn event_line(kind: ChangeKind, object: &Object) -> Bytes {
    let mut out = Vec::with_capacity(object.bytes.len() + 96);
    frame(&mut out, kind, |out| object.write(out));
    Bytes::from(out)
}

/// Writes a JSON watch event that shows metadata alone, in a version of `meta.k8s.io`.
#[must_use]
pub fn metadata_line(kind: ChangeKind, object: &Object, api_version: &str) -> Bytes {
    let mut out = Vec::with_capacity(1024);
    frame(&mut out, kind, |out| {
        object.write_metadata(out, api_version)
    });
    Bytes::from(out)
}

fn frame(out: &mut Vec<u8>, kind: ChangeKind, write: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_str().as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    write(out);
    out.extend_from_slice(b"}\n");
}
