//! Changes of a view as a queue that merges what nobody has read yet.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Change;
use crate::key::ObjectKey;

#[derive(Debug)]
struct Pending<K> {
    order: VecDeque<ObjectKey>,
    changes: HashMap<ObjectKey, Change<K>>,
}

#[derive(Debug)]
struct Shared<K> {
    pending: Mutex<Pending<K>>,
    notify: Notify,
}

/// The reading end: each change once, those of one object merged into one from the oldest unread
/// side to the newest.
#[derive(Debug)]
pub struct Changes<K>(Arc<Shared<K>>);

#[derive(Debug)]
pub(super) struct Sender<K>(Weak<Shared<K>>);

impl<K> Changes<K> {
    pub(super) fn new() -> (Self, Sender<K>) {
        let shared = Arc::new(Shared {
            pending: Mutex::new(Pending {
                order: VecDeque::new(),
                changes: HashMap::new(),
            }),
            notify: Notify::new(),
        });
        let sender = Sender(Arc::downgrade(&shared));
        (Self(shared), sender)
    }

    /// The next change, waiting for one. Safe to cancel.
    pub async fn next(&mut self) -> Change<K> {
        loop {
            if let Some(change) = self.try_next() {
                return change;
            }
            self.0.notify.notified().await;
        }
    }

    /// The next change if there is one now.
    pub fn try_next(&mut self) -> Option<Change<K>> {
        let mut pending = self.0.pending.lock();
        while let Some(key) = pending.order.pop_front() {
            if let Some(change) = pending.changes.remove(&key) {
                return Some(change);
            }
        }
        None
    }
}

impl<K> Sender<K> {
    pub(super) fn push(&self, change: &Change<K>) {
        // The reader may have left; the handler then does nothing.
        let Some(shared) = self.0.upgrade() else {
            return;
        };
        let mut pending = shared.pending.lock();
        if let Some(waiting) = pending.changes.get_mut(&change.key) {
            waiting.new = change.new.clone();
            // Came and went unread: nobody needs to know.
            if waiting.old.is_none() && waiting.new.is_none() {
                pending.changes.remove(&change.key);
                pending.order.retain(|key| key != &change.key);
            }
        } else {
            let copy = Change {
                key: change.key.clone(),
                old: change.old.clone(),
                new: change.new.clone(),
            };
            pending.order.push_back(copy.key.clone());
            pending.changes.insert(copy.key.clone(), copy);
        }
        drop(pending);
        shared.notify.notify_one();
    }
}
