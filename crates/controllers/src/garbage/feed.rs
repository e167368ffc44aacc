//! Where the graph gets its objects from.

use std::collections::HashSet;
use std::sync::Arc;

use evenkeel_client::view::{Event, Sink, Target, reflect};
use evenkeel_client::{CancellationToken, Kind, LoopContext, View};
use k8s_openapi::api::{apps::v1 as apps, core::v1 as core, discovery::v1 as discovery};
use kube::core::{DynamicObject, PartialObjectMeta};
use tokio::sync::watch;

use super::graph::Node;
use super::{Shared, child_token};
use crate::discovered::Resource;

type Meta = PartialObjectMeta<DynamicObject>;

/// One resource that feeds the graph.
pub(super) struct Feed {
    synced: watch::Receiver<bool>,
    stop: CancellationToken,
}

impl Feed {
    pub(super) fn start(context: &LoopContext, shared: &Arc<Shared>, resource: &Resource) -> Self {
        let (ready, synced) = watch::channel(false);
        let stop = child_token(context);
        let resource = Arc::new(resource.clone());
        let tracker = tokio_util::task::TaskTracker::new();
        // These are viewed by other loops anyhow.
        let shared_view = match (resource.group.as_str(), resource.kind.as_str()) {
            ("", "Pod") => Some(feed_from::<core::Pod>(context, shared, &resource)),
            ("", "Service") => Some(feed_from::<core::Service>(context, shared, &resource)),
            ("", "Endpoints") => Some(feed_from::<core::Endpoints>(context, shared, &resource)),
            ("", "Node") => Some(feed_from::<core::Node>(context, shared, &resource)),
            ("", "Namespace") => Some(feed_from::<core::Namespace>(context, shared, &resource)),
            ("", "ServiceAccount") => Some(feed_from::<core::ServiceAccount>(
                context, shared, &resource,
            )),
            ("apps", "ReplicaSet") => {
                Some(feed_from::<apps::ReplicaSet>(context, shared, &resource))
            }
            ("apps", "Deployment") => {
                Some(feed_from::<apps::Deployment>(context, shared, &resource))
            }
            ("discovery.k8s.io", "EndpointSlice") => Some(feed_from::<discovery::EndpointSlice>(
                context, shared, &resource,
            )),
            _ => None,
        };
        match shared_view {
            Some(listed) => {
                tracker.spawn(async move {
                    listed.await;
                    ready.send_replace(true);
                });
            }
            None => {
                let target = Target {
                    path: resource.path(""),
                    metadata_only: true,
                    field_selector: None,
                    label_selector: None,
                };
                let sink = Arc::new(GraphSink {
                    shared: Arc::clone(shared),
                    resource,
                    ready,
                });
                tracker.spawn(reflect(context.client.clone(), target, sink, stop.clone()));
            }
        }
        Self { synced, stop }
    }

    pub(super) async fn synced(&self) {
        // The sender is gone only when the feed was stopped.
        self.synced.clone().wait_for(|synced| *synced).await.ok();
    }

    /// The resource is no longer served: its objects are gone.
    pub(super) fn stop(self, shared: &Shared, resource: &Resource) {
        self.stop.cancel();
        let mut graph = shared.graph.lock();
        let mut work = Vec::new();
        for uid in graph.of_resource(resource) {
            work.extend(graph.gone(&uid));
        }
        drop(graph);
        shared.enqueue(work);
    }
}

type Listed = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

fn feed_from<K: Kind>(
    context: &LoopContext,
    shared: &Arc<Shared>,
    resource: &Arc<Resource>,
) -> Listed {
    let view: Arc<View<K>> = context.views.of::<K>();
    let (shared, resource) = (Arc::clone(shared), Arc::clone(resource));
    view.on_change(move |change| {
        let uid = |object: &Arc<K>| object.meta().uid.clone().unwrap_or_default();
        let old = change.old.as_ref().map(uid);
        let new = change.new.as_ref().map(uid);
        let mut graph = shared.graph.lock();
        let mut work = Vec::new();
        if let Some(old) = old.filter(|old| Some(old) != new.as_ref()) {
            work.extend(graph.gone(&old));
        }
        if let (Some(uid), Some(object)) = (new, &change.new) {
            work.extend(graph.put(uid, Node::of(&resource, object.meta())));
        }
        drop(graph);
        shared.enqueue(work);
    });
    Box::pin(async move { view.synced().await })
}

struct GraphSink {
    shared: Arc<Shared>,
    resource: Arc<Resource>,
    ready: watch::Sender<bool>,
}

impl Sink<Meta> for GraphSink {
    fn replace(&self, items: Vec<Meta>, _: u64) {
        let mut graph = self.shared.graph.lock();
        let mut work = Vec::new();
        let mut listed = HashSet::with_capacity(items.len());
        for item in items {
            let uid = item.metadata.uid.clone().unwrap_or_default();
            listed.insert(uid.clone());
            work.extend(graph.put(uid, Node::of(&self.resource, &item.metadata)));
        }
        for uid in graph.of_resource(&self.resource) {
            if !listed.contains(&uid) {
                work.extend(graph.gone(&uid));
            }
        }
        drop(graph);
        self.shared.enqueue(work);
        self.ready.send_replace(true);
    }

    fn event(&self, event: Event<Meta>, _: u64) {
        let work = match event {
            Event::Put(item) => {
                let uid = item.metadata.uid.clone().unwrap_or_default();
                let node = Node::of(&self.resource, &item.metadata);
                self.shared.graph.lock().put(uid, node)
            }
            Event::Gone(item) => {
                let uid = item.metadata.uid.as_deref().unwrap_or_default();
                self.shared.graph.lock().gone(uid)
            }
        };
        self.shared.enqueue(work);
    }

    fn bookmark(&self, _: u64) {}
}
