//! Which events are the same, similar, or too many. Pure.

use std::collections::{HashMap, VecDeque};

use jiff::{SignedDuration, Timestamp};

use super::Told;

/// Most entries remembered of each sort.
const REMEMBERED: usize = 4096;
/// Different messages of one reason before they are combined.
const SIMILAR: usize = 10;
/// Within this time.
const SIMILAR_WITHIN: SignedDuration = SignedDuration::from_secs(600);
/// Events an object may cause at once.
const BURST: f64 = 25.0;
/// Seconds until it may cause one more.
const REFILL: f64 = 300.0;

/// A map that forgets its oldest entries.
#[derive(Debug)]
struct Recent<V> {
    entries: HashMap<String, V>,
    order: VecDeque<String>,
}

impl<V> Recent<V> {
    fn new() -> Self {
        Self {
            entries: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    fn entry(&mut self, key: &str, make: impl FnOnce() -> V) -> &mut V {
        if !self.entries.contains_key(key) {
            if self.order.len() >= REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.entries.remove(&oldest);
            }
            self.order.push_back(key.to_owned());
        }
        self.entries.entry(key.to_owned()).or_insert_with(make)
    }
}

/// An event that exists in the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) name: String,
    pub(super) count: i32,
    pub(super) first: Timestamp,
}

/// What is to be done with something told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Say nothing: the object causes too many events.
    Drop,
    /// Write it as new.
    Create { message: String, slot: String },
    /// Count it on the event written before.
    Again {
        message: String,
        slot: String,
        written: Written,
    },
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Timestamp,
}

#[derive(Debug)]
struct Similar {
    messages: Vec<String>,
    last: Timestamp,
}

/// Remembers what was told.
#[derive(Debug)]
pub(super) struct Correlator {
    buckets: Recent<Bucket>,
    similar: Recent<Similar>,
    written: Recent<Option<Written>>,
}

impl Correlator {
    pub(super) fn new() -> Self {
        Self {
            buckets: Recent::new(),
            similar: Recent::new(),
            written: Recent::new(),
        }
    }

    pub(super) fn judge(&mut self, told: &Told, now: Timestamp) -> Verdict {
        let about = &told.about;
        let object = format!(
            "{}|{}|{}|{}",
            about.kind.as_deref().unwrap_or_default(),
            about.namespace.as_deref().unwrap_or_default(),
            about.name.as_deref().unwrap_or_default(),
            about.uid.as_deref().unwrap_or_default(),
        );
        let path = about.field_path.as_deref().unwrap_or_default();
        let reason = format!("{object}|{path}|{}|{}", told.kind.as_str(), told.reason);

        let similar = self.similar.entry(&reason, || Similar {
            messages: Vec::new(),
            last: now,
        });
        if now.duration_since(similar.last) > SIMILAR_WITHIN {
            similar.messages.clear();
        }
        similar.last = now;
        if !similar.messages.contains(&told.message) {
            similar.messages.push(told.message.clone());
        }
        let (message, slot) = if similar.messages.len() >= SIMILAR {
            similar.messages.truncate(SIMILAR);
            let message = format!("(combined from similar events): {}", told.message);
            (message, reason.clone())
        } else {
            let slot = format!("{reason}|{}", told.message);
            (told.message.clone(), slot)
        };

        let bucket = self.buckets.entry(&object, || Bucket {
            tokens: BURST,
            filled: now,
        });
        let passed = now.duration_since(bucket.filled).as_secs_f64().max(0.0);
        bucket.tokens = (bucket.tokens + passed / REFILL).min(BURST);
        bucket.filled = now;
        if bucket.tokens < 1.0 {
            return Verdict::Drop;
        }
        bucket.tokens -= 1.0;

        match self.written.entry(&slot, || None) {
            Some(written) => Verdict::Again {
                message,
                slot,
                written: written.clone(),
            },
            None => Verdict::Create { message, slot },
        }
    }

    /// Notes the outcome of a write; `None` forgets an event that has expired.
    pub(super) fn wrote(&mut self, slot: &str, written: Option<Written>) {
        *self.written.entry(slot, || None) = written;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::EventType;
    use k8s_openapi::api::core::v1::ObjectReference;

    fn told(message: &str) -> Told {
        Told {
            about: ObjectReference {
                name: Some("web".into()),
                ..ObjectReference::default()
            },
            kind: EventType::Normal,
            reason: "Pulled".into(),
            message: message.into(),
        }
    }

    #[test]
    fn the_same_message_counts_on_the_first_event() {
        let mut correlator = Correlator::new();
        let now = Timestamp::UNIX_EPOCH;
        let Verdict::Create { slot, .. } = correlator.judge(&told("a"), now) else {
            panic!("the first is new");
        };
        let written = Written {
            name: "web.1".into(),
            count: 1,
            first: now,
        };
        correlator.wrote(&slot, Some(written.clone()));
        let again = correlator.judge(&told("a"), now);
        let wanted = Verdict::Again {
            message: "a".into(),
            slot,
            written,
        };
        assert_eq!(again, wanted);
    }

    #[test]
    fn the_tenth_different_message_is_combined_and_the_26th_event_dropped() {
        let mut correlator = Correlator::new();
        let now = Timestamp::UNIX_EPOCH;
        let mut verdicts = (0..26).map(|n| correlator.judge(&told(&n.to_string()), now));
        for n in 0..9 {
            let Some(Verdict::Create { message, .. }) = verdicts.next() else {
                panic!("{n} is new");
            };
            assert_eq!(message, n.to_string());
        }
        let Some(Verdict::Create { message, .. }) = verdicts.next() else {
            panic!("the combined event is new");
        };
        assert_eq!(message, "(combined from similar events): 9");
        assert_eq!(verdicts.last(), Some(Verdict::Drop));
    }
}
