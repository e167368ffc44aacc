//! What admission says beside yes and no: warnings for the client, annotations for the audit log.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// All warnings of an answer together are at most this long; beyond it each is cut.
const ALL_MOST: usize = 4 * 1024;
/// A cut warning is at most this long.
const ONE_MOST: usize = 256;

/// Collects what is said while a request is admitted.
#[derive(Debug, Default)]
pub struct Notes {
    said: Mutex<Said>,
    waited: AtomicU64,
}

#[derive(Debug, Default)]
struct Said {
    warnings: Vec<String>,
    annotations: BTreeMap<String, String>,
}

impl Notes {
    /// Others have been waited for.
    pub(crate) fn waited_for(&self, time: Duration) {
        let nanoseconds = crate::families::nanoseconds(time);
        self.waited.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// How long others have been waited for.
    pub(crate) fn waited(&self) -> Duration {
        Duration::from_nanos(self.waited.load(Ordering::Relaxed))
    }

    /// Warns the client. The same words are said once.
    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let mut said = self.said.lock();
        if !text.is_empty() && !said.warnings.contains(&text) {
            said.warnings.push(text);
        }
    }

    /// Notes something for the audit log. What was noted first under a name stays.
    pub fn annotate(&self, name: impl Into<String>, text: impl Into<String>) {
        let mut said = self.said.lock();
        said.annotations
            .entry(name.into())
            .or_insert_with(|| text.into());
    }

    /// The warnings, in the order in which they came. When all of them are too long, each is cut,
    /// and what is still too much is left out, as by the reference.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let said = self.said.lock();
        let whole: usize = said.warnings.iter().map(String::len).sum();
        if whole <= ALL_MOST {
            return said.warnings.clone();
        }
        let mut room = ALL_MOST;
        said.warnings
            .iter()
            .map(|text| text.chars().take(ONE_MOST).collect::<String>())
            .take_while(|text| {
                let fits = text.len() <= room;
                room = room.saturating_sub(text.len());
                fits
            })
            .collect()
    }

    /// The annotations.
    #[must_use]
    pub fn annotations(&self) -> BTreeMap<String, String> {
        self.said.lock().annotations.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_said_once_and_many_long_ones_are_cut() {
        let notes = Notes::default();
        notes.warn("a");
        notes.warn("a");
        notes.warn("");
        notes.annotate("k", "first");
        notes.annotate("k", "second");
        assert_eq!(notes.warnings(), ["a"]);
        assert_eq!(notes.annotations()["k"], "first");
        for number in 0..20 {
            notes.warn(format!("{number:02}{}", "x".repeat(400)));
        }
        let warnings = notes.warnings();
        assert_eq!(warnings.len(), 16, "as many as fit");
        assert!(warnings[1..].iter().all(|text| text.len() == ONE_MOST));
    }
}
