//! One shared, decoded, indexed view of a kind per process.
//!
//! All loops of a process read the same `Arc`s; a view starts its list and watch when the first
//! loop asks for the kind and costs nothing before. The same code runs in process and over HTTPS.
//!
//! **A loop never acts on a view older than its own last write.** Whoever writes hands the answer
//! to [`View::note_written`] (or [`View::note_deleted`]); the view takes it in at once, and the
//! watch, when it arrives at that revision, finds it there. This takes the place of client-go's
//! expectations and rules out the classic double create. It rests on resource versions of a kind
//! being one growing number, which Kubernetes promises since 1.35 (KEP-5504).

mod follow;
mod lean;
mod reflect;
mod state;
mod subscribe;
#[cfg(test)]
mod tests;

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use evenkeel_api::clock::SharedClock;
use evenkeel_api::selector::LabelSelector;
use kube::Resource;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::key::ObjectKey;
use crate::kind::Kind;
use state::State;

pub use follow::{Update, follow};
pub(crate) use lean::without_managed_fields;
pub(crate) use reflect::RawList;
pub use reflect::{Event, Sink, Target, reflect};
pub use state::IndexFn;
pub use subscribe::Changes;

/// What happened to one object.
#[derive(Debug, Clone)]
pub struct Change<K> {
    /// Its name.
    pub key: ObjectKey,
    /// As it was before; `None` when it is new.
    pub old: Option<Arc<K>>,
    /// As it is now; `None` when it is gone.
    pub new: Option<Arc<K>>,
}

impl<K> Change<K> {
    /// The object as it is, or as it last was.
    ///
    /// # Panics
    /// Never: a change has at least one side.
    pub fn latest(&self) -> &Arc<K> {
        self.new
            .as_ref()
            .or(self.old.as_ref())
            .expect("a change has an old or a new object")
    }

    /// Old and new, whichever exist: for handlers that enqueue the owners of both.
    pub fn sides(&self) -> impl Iterator<Item = &Arc<K>> {
        self.old.iter().chain(self.new.iter())
    }
}

type Handler<K> = Arc<dyn Fn(&Change<K>) + Send + Sync>;

/// The view of one kind.
pub struct View<K> {
    state: RwLock<State<K>>,
    /// Held while changes are handed on, so that handlers see them in order.
    delivery: Mutex<Vec<Handler<K>>>,
    /// The revision reached; `None` before the first list.
    reached: watch::Sender<Option<u64>>,
}

impl<K> Debug for View<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

impl<K: Kind> View<K> {
    fn new() -> Self {
        Self {
            state: RwLock::new(State::default()),
            delivery: Mutex::new(Vec::new()),
            reached: watch::Sender::new(None),
        }
    }

    /// One object. `namespace` is empty for cluster-scoped kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.get_key(&ObjectKey::new(namespace, name))
    }

    /// One object by its key.
    pub fn get_key(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.state.read().objects.get(key).cloned()
    }

    /// All objects, ordered by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.state.read().objects.values().cloned().collect()
    }

    /// The objects of a namespace, ordered by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.state.read().in_namespace(namespace).cloned().collect()
    }

    /// The objects of a namespace whose labels a selector matches.
    pub fn matching(&self, namespace: &str, selector: &LabelSelector) -> Vec<Arc<K>> {
        let empty = std::collections::BTreeMap::new();
        self.state
            .read()
            .in_namespace(namespace)
            .filter(|object| selector.matches(object.meta().labels.as_ref().unwrap_or(&empty)))
            .cloned()
            .collect()
    }

    /// Keeps an index under `name` from now on. Calling it again with the same name is free; the
    /// first function stays.
    pub fn add_index(&self, name: &'static str, values: IndexFn<K>) {
        self.state.write().add_index(name, values);
    }

    /// The objects for which the index function of `name` gave `value`.
    ///
    /// # Panics
    /// When no such index was added: a mistake of the program, not of the data.
    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        self.state.read().by_index(name, value)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first list is in.
    pub fn is_synced(&self) -> bool {
        self.reached.borrow().is_some()
    }

    /// Waits for the first list.
    pub async fn synced(&self) {
        // The sender lives as long as the view, so waiting cannot fail.
        self.reached
            .subscribe()
            .wait_for(Option::is_some)
            .await
            .ok();
    }

    /// The newest revision the watch has delivered; 0 before the first list.
    pub fn revision(&self) -> u64 {
        self.reached.borrow().unwrap_or(0)
    }

    /// Waits until the watch has delivered everything up to `revision`.
    pub async fn reached(&self, revision: u64) {
        self.reached
            .subscribe()
            .wait_for(|at| at.is_some_and(|at| at >= revision))
            .await
            .ok();
    }

    /// Calls `handler` for every change from now on, first for each object that is there. It runs
    /// on the task that brings the change and must only note what to do, such as adding a key to
    /// a queue; it must not write to the view.
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        let mut handlers = self.delivery.lock();
        let present: Vec<_> = {
            let state = self.state.read();
            let pair = |(key, object): (&ObjectKey, &Arc<K>)| (key.clone(), Arc::clone(object));
            state.objects.iter().map(pair).collect()
        };
        for (key, object) in present {
            handler(&Change {
                key,
                old: None,
                new: Some(object),
            });
        }
        handlers.push(Arc::new(handler));
    }

    /// Changes as a queue: those of one object are merged while nobody reads, so that its memory
    /// is bounded by the number of objects.
    pub fn subscribe(&self) -> Changes<K> {
        let (changes, sender) = Changes::new();
        self.on_change(move |change| sender.push(change));
        changes
    }

    /// Takes in the answer to a create, update or patch before the watch brings it. Returns the
    /// object as kept.
    pub fn note_written(&self, object: K) -> Arc<K> {
        let mut object = object;
        object.trim();
        let handlers = self.delivery.lock();
        let (kept, change) = self.state.write().note_written(object);
        hand_on(&handlers, change.as_ref());
        kept
    }

    /// Takes in that an object was removed before the watch says so. Only for objects that are
    /// really gone: one that waits for finalizers or its grace period goes to
    /// [`View::note_written`].
    pub fn note_deleted(&self, object: &K) {
        let handlers = self.delivery.lock();
        let change = self.state.write().note_deleted(object);
        hand_on(&handlers, change.as_ref());
    }

    /// Takes in the answer to a delete of `object`: gone, or marked and waiting for its grace
    /// period or finalizers. `answer` is the object in the answer, if there was one
    /// (`.left()` of what `Api::delete` gives).
    pub fn note_delete_answer(&self, object: &K, answer: Option<K>) {
        match answer {
            Some(left) if is_waiting(&left) => {
                self.note_written(left);
            }
            _ => self.note_deleted(object),
        }
    }

    fn at(&self, revision: u64) {
        self.reached.send_if_modified(|at| {
            let grows = at.is_none_or(|at| revision > at);
            if grows {
                *at = Some(revision);
            }
            grows
        });
    }
}

/// Deleted, but still held by a grace period or finalizers.
fn is_waiting<K: Resource>(object: &K) -> bool {
    let meta = object.meta();
    meta.deletion_timestamp.is_some()
        && (meta.deletion_grace_period_seconds.unwrap_or(0) > 0
            || meta.finalizers.iter().flatten().next().is_some())
}

fn hand_on<K>(handlers: &[Handler<K>], change: Option<&Change<K>>) {
    if let Some(change) = change {
        for handler in handlers {
            handler(change);
        }
    }
}

impl<K: Kind> Sink<K> for View<K> {
    fn replace(&self, items: Vec<K>, revision: u64) {
        let handlers = self.delivery.lock();
        let changes = self.state.write().replace(items, revision);
        for change in &changes {
            hand_on(&handlers, Some(change));
        }
        drop(handlers);
        self.at(revision);
    }

    fn event(&self, event: Event<K>, revision: u64) {
        let handlers = self.delivery.lock();
        let change = self.state.write().event(event, revision);
        hand_on(&handlers, change.as_ref());
        drop(handlers);
        self.at(revision);
    }

    fn bookmark(&self, revision: u64) {
        self.state.write().revision = revision;
        self.at(revision);
    }
}

/// All views of a process.
#[derive(Clone)]
pub struct Views(Arc<Shared>);

struct Shared {
    client: kube::Client,
    clock: SharedClock,
    views: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Debug for Views {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Views").finish_non_exhaustive()
    }
}

impl Views {
    /// Views that read through `client`, which needs list and watch on every kind asked for.
    #[must_use]
    pub fn new(client: kube::Client, clock: SharedClock) -> Self {
        Self(Arc::new(Shared {
            client,
            clock,
            views: Mutex::new(HashMap::new()),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        }))
    }

    /// The view of a kind, started on first use. Must be called within a tokio runtime.
    ///
    /// # Panics
    /// Never: a view is kept under its own type.
    #[must_use]
    pub fn of<K: Kind>(&self) -> Arc<View<K>> {
        let mut views = self.0.views.lock();
        let kept = views.entry(TypeId::of::<K>()).or_insert_with(|| {
            let view = Arc::new(View::<K>::new());
            reflect::reflect_in(
                &self.0.tasks,
                self.0.client.clone(),
                Arc::clone(&view),
                self.0.shutdown.clone(),
            );
            view
        });
        Arc::clone(kept)
            .downcast::<View<K>>()
            .expect("a view is kept under its own type")
    }

    /// The client the views read with: for loops that follow something a view does not hold.
    #[must_use]
    pub fn client(&self) -> &kube::Client {
        &self.0.client
    }

    /// The clock of the process.
    #[must_use]
    pub fn clock(&self) -> &SharedClock {
        &self.0.clock
    }

    /// Ends all watches and waits for them.
    pub async fn shutdown(&self) {
        self.0.shutdown.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

/// Index names and functions that several loops share.
pub mod index {
    use super::Kind;

    /// By the uid of the controlling owner: `metadata.ownerReferences[controller=true].uid`.
    pub const CONTROLLER: &str = "controller";

    /// The index function of [`CONTROLLER`].
    #[must_use]
    pub fn controller<K: Kind>(object: &K) -> Vec<String> {
        object
            .meta()
            .owner_references
            .iter()
            .flatten()
            .filter(|owner| owner.controller == Some(true))
            .map(|owner| owner.uid.clone())
            .collect()
    }
}
