//! A small API server in memory, for tests of loops.
//!
//! Right about what loops stand on: one growing revision, optimistic concurrency, uids, watches
//! that never skip, finalizers, graceful pod deletion, status and scale subresources, selectors.
//! It knows nothing of validation, defaults, authentication or strategic merge: the real door has
//! those. Unknown paths and verbs are refused by name.

mod api;
mod objects;
mod route;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use evenkeel_api::clock::{Clock, SharedClock};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::serde::Serialize;
use kube::Client;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;

use objects::Objects;

/// A wall clock that follows tokio's, so that it stands still and jumps with paused time.
#[derive(Debug)]
pub struct FakeClock {
    origin: tokio::time::Instant,
    epoch: Timestamp,
}

impl FakeClock {
    /// A clock that starts on 2026-01-01. Must be called within a tokio runtime.
    ///
    /// # Panics
    /// Never: the start is a valid time.
    #[must_use]
    pub fn shared() -> SharedClock {
        let epoch = Timestamp::from_second(1_767_225_600).expect("a valid time");
        Arc::new(Self {
            origin: tokio::time::Instant::now(),
            epoch,
        })
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.origin.elapsed()).unwrap_or_default();
        self.epoch + passed
    }
}

/// One request as the fake saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: &'static str,
    /// Plural of the resource, with its subresource: `pods`, `pods/status`.
    pub resource: String,
    /// Namespace, may be empty.
    pub namespace: String,
    /// Name, may be empty.
    pub name: String,
}

/// A failure to answer with instead of doing the work.
#[derive(Debug, Clone)]
struct Fault {
    verb: String,
    resource: String,
    code: u16,
    reason: String,
    message: String,
}

pub(crate) struct Shared {
    objects: Mutex<Objects>,
    revision: watch::Sender<u64>,
    hang_up: watch::Sender<u64>,
    seen: Mutex<Vec<Seen>>,
    faults: Mutex<VecDeque<Fault>>,
    clock: SharedClock,
}

/// The fake. Clones share their objects.
#[derive(Clone)]
pub struct FakeApi(Arc<Shared>);

impl std::fmt::Debug for FakeApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeApi").finish_non_exhaustive()
    }
}

impl FakeApi {
    /// An empty cluster.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        Self(Arc::new(Shared {
            objects: Mutex::new(Objects::new()),
            revision: watch::Sender::new(1),
            hang_up: watch::Sender::new(0),
            seen: Mutex::new(Vec::new()),
            faults: Mutex::new(VecDeque::new()),
            clock,
        }))
    }

    /// A client of the fake. Must be called within a tokio runtime.
    #[must_use]
    pub fn client(&self) -> Client {
        let shared = Arc::clone(&self.0);
        let service = tower::service_fn(move |request| api::serve(Arc::clone(&shared), request));
        Client::new(service, "default")
    }

    /// Puts an object in, status and all, as if it had been there: created or replaced whole.
    ///
    /// # Panics
    /// When the object is not one with metadata.
    pub fn put<K>(&self, object: &K) -> K
    where
        K: kube::Resource<DynamicType = ()> + Serialize + DeserializeOwned,
    {
        let value = serde_json::to_value(object).expect("an object is JSON");
        let group = K::group(&());
        let prefix = if group.is_empty() { "" } else { "/" };
        let collection = format!("{group}{prefix}{}/{}", K::version(&()), K::plural(&()));
        let put = self.change(|objects, now| objects.put(&collection, value, now));
        serde_json::from_value(put).expect("what was put can be read")
    }

    /// Removes an object at once, finalizers or not.
    pub fn remove<K: kube::Resource<DynamicType = ()>>(&self, namespace: &str, name: &str) {
        let collection = route::collection_of::<K>();
        self.change(|objects, _| {
            objects.remove(&(collection, namespace.to_owned(), name.to_owned()));
        });
    }

    /// One object as it is.
    ///
    /// # Panics
    /// When what is kept cannot be read as `K`.
    #[must_use]
    pub fn get<K>(&self, namespace: &str, name: &str) -> Option<K>
    where
        K: kube::Resource<DynamicType = ()> + DeserializeOwned,
    {
        let key = (
            route::collection_of::<K>(),
            namespace.to_owned(),
            name.to_owned(),
        );
        let found = self.0.objects.lock().get(&key).cloned()?;
        Some(serde_json::from_value(found).expect("what is kept can be read"))
    }

    /// All objects of a kind, ordered by namespace and name.
    ///
    /// # Panics
    /// When what is kept cannot be read as `K`.
    #[must_use]
    pub fn all<K>(&self) -> Vec<K>
    where
        K: kube::Resource<DynamicType = ()> + DeserializeOwned,
    {
        let objects = self.0.objects.lock();
        let of = route::collection_of::<K>();
        objects
            .collection(&of, "")
            .map(|value| serde_json::from_value(value.clone()).expect("what is kept can be read"))
            .collect()
    }

    /// Answers the next request of `verb` on `resource` with this failure.
    pub fn fail_next(&self, verb: &str, resource: &str, code: u16, reason: &str, message: &str) {
        self.0.faults.lock().push_back(Fault {
            verb: verb.to_owned(),
            resource: resource.to_owned(),
            code,
            reason: reason.to_owned(),
            message: message.to_owned(),
        });
    }

    /// Forgets all history: watches from before now are answered 410 Gone.
    pub fn compact(&self) {
        self.0.objects.lock().compact();
    }

    /// Ends all watches, as a restarting server does.
    pub fn hang_up(&self) {
        self.0.hang_up.send_modify(|count| *count += 1);
    }

    /// The requests so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.0.seen.lock().clone()
    }

    /// How many requests of `verb` on `resource` there were.
    #[must_use]
    pub fn count(&self, verb: &str, resource: &str) -> usize {
        let seen = self.0.seen.lock();
        let same = |item: &&Seen| item.verb == verb && item.resource == resource;
        seen.iter().filter(same).count()
    }

    /// Waits until `condition` gives a value, looking after every change.
    ///
    /// # Panics
    /// After 600 (simulated) seconds.
    pub async fn wait_for<T>(
        &self,
        what: &str,
        mut condition: impl FnMut(&Self) -> Option<T>,
    ) -> T {
        let mut revision = self.0.revision.subscribe();
        let waiting = async {
            loop {
                revision.borrow_and_update();
                if let Some(value) = condition(self) {
                    return value;
                }
                if revision.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        match tokio::time::timeout(std::time::Duration::from_secs(600), waiting).await {
            Ok(value) => value,
            Err(_) => panic!("waited in vain: {what}"),
        }
    }

    fn change<T>(&self, work: impl FnOnce(&mut Objects, Timestamp) -> T) -> T {
        self.0.change(work)
    }
}

impl Shared {
    fn change<T>(&self, work: impl FnOnce(&mut Objects, Timestamp) -> T) -> T {
        let now = self.clock.now();
        let mut objects = self.objects.lock();
        let done = work(&mut objects, now);
        let revision = objects.revision;
        drop(objects);
        self.revision.send_if_modified(|at| {
            let changed = *at != revision;
            *at = revision;
            changed
        });
        done
    }
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or("")
}
