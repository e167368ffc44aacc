//! Answers that are kept for a while.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// So many are kept.
const MOST: usize = 4096;

/// Answers by a digest of the question, so that no question (a token, for one) is kept.
#[derive(Debug)]
pub(super) struct Cached<T>(Mutex<HashMap<[u8; 32], (Instant, T)>>);

impl<T> Default for Cached<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// The digest of a question.
pub(super) fn digest(question: &str) -> [u8; 32] {
    let mut out = [0; 32];
    let digest = ring::digest::digest(&ring::digest::SHA256, question.as_bytes());
    out.copy_from_slice(digest.as_ref());
    out
}

impl<T: Clone> Cached<T> {
    pub(super) fn get(&self, key: &[u8; 32]) -> Option<T> {
        let all = self.0.lock();
        let (until, answer) = all.get(key)?;
        (*until > Instant::now()).then(|| answer.clone())
    }

    pub(super) fn put(&self, key: [u8; 32], answer: T, keep: Duration) {
        if keep.is_zero() {
            return;
        }
        let now = Instant::now();
        let mut all = self.0.lock();
        if all.len() >= MOST {
            all.retain(|_, (until, _)| *until > now);
        }
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(key, (now + keep, answer));
    }
}
