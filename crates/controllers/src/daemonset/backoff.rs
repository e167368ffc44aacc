//! How soon a daemon's pod that failed is replaced: a pod that its node refuses would otherwise be
//! made again without end.
//!
//! Kept in memory only, as the reference does: after a restart the first replacement comes at once.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

const FIRST: SignedDuration = SignedDuration::from_secs(1);
const LAST: SignedDuration = SignedDuration::from_mins(15);

/// What is remembered of one set's nodes.
#[derive(Debug, Clone, Default)]
pub struct Backoff(HashMap<String, (SignedDuration, Timestamp)>);

impl Backoff {
    /// When a failed pod of this node may be replaced; `None`: now.
    #[must_use]
    pub fn blocked_until(&self, node: &str, now: Timestamp) -> Option<Timestamp> {
        let (wait, since) = self.0.get(node)?;
        let until = since.checked_add(*wait).ok()?;
        (until > now && now.duration_since(*since) <= LAST * 2).then_some(until)
    }

    /// One is replaced: the next wait is twice as long, unless the last is long ago.
    pub fn note(&mut self, node: &str, now: Timestamp) {
        let entry = self.0.entry(node.to_owned()).or_insert((FIRST, now));
        if entry.1 != now {
            let expired = now.duration_since(entry.1) > LAST * 2;
            let wait = if expired {
                FIRST
            } else {
                (entry.0 * 2).min(LAST)
            };
            *entry = (wait, now);
        }
    }

    /// Forgets nodes whose last failure is long ago.
    pub fn forget_old(&mut self, now: Timestamp) {
        self.0
            .retain(|_, (_, since)| now.duration_since(*since) <= LAST * 2);
    }

    /// Nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_are_forgotten() {
        let mut at = Timestamp::from_second(1_767_225_600).unwrap();
        let mut backoff = Backoff::default();
        for wanted in [1, 2, 4, 8] {
            assert_eq!(backoff.blocked_until("a", at), None);
            backoff.note("a", at);
            let until = backoff.blocked_until("a", at).unwrap();
            assert_eq!(until.duration_since(at), SignedDuration::from_secs(wanted));
            assert_eq!(backoff.blocked_until("b", at), None);
            at = until;
        }
        at += SignedDuration::from_hours(2);
        backoff.note("a", at);
        let until = backoff.blocked_until("a", at).unwrap();
        assert_eq!(until.duration_since(at), FIRST);
        backoff.forget_old(at + SignedDuration::from_hours(1));
        assert!(backoff.is_empty());
    }
}
