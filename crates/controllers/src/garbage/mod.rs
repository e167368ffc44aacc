//! Garbage collection: objects whose owners are gone go too.
//!
//! One graph of ownership over everything that can be listed, watched and deleted, holding
//! metadata only; kinds that other loops view anyway are taken from those views, without a
//! second watch. An owner that is not in the graph is looked for at the door before anything is
//! deleted for its absence.

mod apply;
mod feed;
pub mod graph;
pub mod plan;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_client::{CancellationToken, LoopContext, WorkQueue, errors, run_loop};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::discovered::{Resource, discover, stale};
use feed::Feed;
use graph::{Graph, Work};

/// Objects looked at at once.
const WORKERS: usize = 20;
/// Between two looks at what the door serves.
const DISCOVERY: Duration = Duration::from_secs(30);
/// A child may arrive before its owner: so long it waits before the door is asked.
const GRACE: Duration = Duration::from_millis(500);

/// A piece of work.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Item {
    /// Look whether this object must go, or may finish going.
    Delete(String),
    /// Take this owner out of its dependents, then let it go.
    Orphan(String),
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delete(uid) => write!(f, "delete {uid}"),
            Self::Orphan(uid) => write!(f, "orphan {uid}"),
        }
    }
}

/// The graph and the queue its changes fill.
pub(crate) struct Shared {
    pub(crate) graph: parking_lot::Mutex<Graph>,
    pub(crate) queue: Arc<WorkQueue<Item>>,
    /// What the door serves, for looking owners up.
    pub(crate) served: parking_lot::Mutex<Vec<Arc<Resource>>>,
}

impl Shared {
    /// The resource of an owner's kind, in whatever version it is served.
    pub(crate) fn resource_of(&self, owner: &OwnerReference) -> Option<Arc<Resource>> {
        let group = owner.api_version.split_once('/').map_or("", |pair| pair.0);
        let served = self.served.lock();
        let found = served
            .iter()
            .find(|it| it.group == group && it.kind == owner.kind);
        found.cloned()
    }

    pub(crate) fn enqueue(&self, work: Vec<Work>) {
        for item in work {
            match item {
                Work::Delete(uid) => self.queue.add(Item::Delete(uid)),
                Work::DeleteLater(uid) => self.queue.add_after(Item::Delete(uid), GRACE),
                Work::Orphan(uid) => self.queue.add(Item::Orphan(uid)),
            }
        }
    }
}

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let queue = WorkQueue::new(context.metrics.of("garbage-collector"));
    let shared = Arc::new(Shared {
        graph: parking_lot::Mutex::new(Graph::default()),
        queue: Arc::clone(&queue),
        served: parking_lot::Mutex::new(Vec::new()),
    });
    let feeding = feed_all(&context, &shared);
    let reconciler = apply::Reconciler {
        context: context.clone(),
        shared: Arc::clone(&shared),
    };
    let working = run_loop(
        "garbage-collector",
        WORKERS,
        queue,
        context.shutdown.clone(),
        |item| reconciler.reconcile(item),
    );
    tokio::join!(feeding, working);
}

/// Keeps the graph fed from every resource the door serves, as they come and go.
async fn feed_all(context: &LoopContext, shared: &Arc<Shared>) {
    let mut feeds: HashMap<Resource, Feed> = HashMap::new();
    loop {
        let found = match discover(&context.client).await {
            Ok(resources) => stale(&context.client).await.map(|stale| (resources, stale)),
            Err(error) => Err(error),
        };
        match found {
            Ok((mut resources, stale)) => {
                // Kinds of servers that do not answer are still there.
                let silent = |resource: &Resource| stale.contains(&resource.api_version());
                let before = shared.served.lock().clone();
                for resource in before.iter().filter(|it| silent(it)) {
                    if !resources.contains(resource) {
                        resources.push(Resource::clone(resource));
                    }
                }
                *shared.served.lock() = resources.iter().cloned().map(Arc::new).collect();
                let wanted: Vec<_> = resources.into_iter().filter(is_collected).collect();
                let gone: Vec<_> = feeds
                    .keys()
                    .filter(|it| !wanted.contains(it))
                    .cloned()
                    .collect();
                for resource in gone {
                    if let Some(feed) = feeds.remove(&resource) {
                        feed.stop(shared, &resource);
                    }
                }
                for resource in wanted {
                    feeds
                        .entry(resource.clone())
                        .or_insert_with(|| Feed::start(context, shared, &resource));
                }
                let all = async {
                    // Nobody waits for a server that does not answer.
                    for (_, feed) in feeds.iter().filter(|(resource, _)| !silent(resource)) {
                        feed.synced().await;
                    }
                };
                tokio::select! {
                    () = context.shutdown.cancelled() => return,
                    () = all => {
                        let work = shared.graph.lock().synced();
                        shared.enqueue(work);
                    }
                    // A custom kind may have gone since it was discovered: its feed never syncs.
                    () = tokio::time::sleep(DISCOVERY) => continue,
                }
            }
            Err(error) => {
                let error = errors::message(&error);
                tracing::warn!(
                    error,
                    "discovery failed, collecting in the kinds known so far"
                );
            }
        }
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            () = tokio::time::sleep(DISCOVERY) => {}
        }
    }
}

/// Events own nothing and are owned by nothing, and there are many.
fn is_collected(resource: &Resource) -> bool {
    resource.kind != "Event" && resource.can(&["delete", "list", "watch"])
}

/// Stops what a feed started when the process ends.
pub(crate) fn child_token(context: &LoopContext) -> CancellationToken {
    context.shutdown.child_token()
}
