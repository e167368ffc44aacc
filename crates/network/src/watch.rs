//! The loop that keeps the node's routing and DNS what Services and EndpointSlices say.
//!
//! It takes a stream of changes, so that shared views can feed it as well as the watch below. A
//! single change is carried out at once; what arrives while the kernel works is taken together.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};

use crate::node::{Change, NetworkError, NodeNetwork};
use crate::service::{key, service, slice};

/// Wait before a refused transaction is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Most changes that are taken together.
const BURST: usize = 10_000;

impl NodeNetwork {
    /// Carries changes out until the stream ends. Nothing is done before both the services and
    /// the slices are known, so that a table of an earlier run is replaced by a whole one.
    pub async fn follow(self: &Arc<Self>, changes: impl Stream<Item = Change>) {
        let mut changes = pin!(changes);
        let (mut services, mut slices) = (false, false);
        let mut failed = false;
        loop {
            let first = if failed {
                tokio::time::timeout(RETRY, changes.next()).await.ok()
            } else {
                Some(changes.next().await)
            };
            let mut burst = Vec::new();
            match first {
                Some(Some(change)) => burst.push(change),
                Some(None) => return,
                // Time to try again.
                None => {}
            }
            while burst.len() < BURST
                && let Some(Some(change)) = changes.next().now_or_never()
            {
                burst.push(change);
            }
            services |= burst
                .iter()
                .any(|change| matches!(change, Change::Services(_)));
            slices |= burst
                .iter()
                .any(|change| matches!(change, Change::Slices(_)));
            self.note(burst);
            if services && slices {
                let network = Arc::clone(self);
                let outcome = tokio::task::spawn_blocking(move || network.sync()).await;
                failed = !matches!(outcome, Ok(Ok(_)));
                match outcome {
                    Ok(Ok(applied)) => tracing::debug!(?applied, "service routing"),
                    Ok(Err(error)) => tracing::error!(%error, "service routing; trying again"),
                    Err(error) => tracing::error!(%error, "service routing; trying again"),
                }
            }
        }
    }

    /// Watches the API, follows it and answers DNS questions, for ever.
    ///
    /// # Errors
    /// When the DNS sockets fail for good.
    pub async fn run(self: &Arc<Self>, client: Client) -> Result<(), NetworkError> {
        let follow = async {
            let node = self.config().node_name.clone();
            self.follow(kubernetes(client, &node)).await;
            Ok(())
        };
        let balancers = async {
            self.serve_balancers().await;
            Ok(())
        };
        futures::future::try_join3(follow, self.serve_dns(), balancers)
            .await
            .map(|_| ())
    }
}

/// The cluster's services and slices, and the zone of this node, as a stream of changes that never ends; a broken watch is
/// begun again with growing waits.
pub fn kubernetes(client: Client, node: &str) -> impl Stream<Item = Change> {
    let services = follow_kind(
        Api::<core::Service>::all(client.clone()),
        watcher::Config::default(),
        "services",
        |object| match service(object) {
            Some(service) => Change::Service(service),
            None => Change::ServiceGone(key(&object.metadata)),
        },
        |object| Change::ServiceGone(key(&object.metadata)),
        |objects| Change::Services(objects.iter().filter_map(service).collect()),
    );
    let slices = follow_kind(
        Api::<discovery::EndpointSlice>::all(client.clone()),
        watcher::Config::default(),
        "endpoint slices",
        |object| match slice(object) {
            Some(slice) => Change::Slice(slice),
            None => Change::SliceGone(key(&object.metadata)),
        },
        |object| Change::SliceGone(key(&object.metadata)),
        |objects| Change::Slices(objects.iter().filter_map(slice).collect()),
    );
    let node = follow_kind(
        Api::<core::Node>::all(client),
        watcher::Config::default().fields(&format!("metadata.name={node}")),
        "this node",
        |object| Change::Zone(zone(object)),
        |_| Change::Zone(None),
        |objects| Change::Zone(objects.first().and_then(zone)),
    );
    futures::stream::select(services, futures::stream::select(slices, node))
}

fn zone(node: &core::Node) -> Option<String> {
    let labels = node.metadata.labels.as_ref()?;
    let zone = labels.get("topology.kubernetes.io/zone");
    zone.filter(|zone| !zone.is_empty()).cloned()
}

fn follow_kind<K>(
    api: Api<K>,
    config: watcher::Config,
    what: &'static str,
    applied: fn(&K) -> Change,
    deleted: fn(&K) -> Change,
    listed: fn(&[K]) -> Change,
) -> impl Stream<Item = Change>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    use kube::runtime::WatchStreamExt;
    let events = watcher::watcher(api, config).default_backoff();
    let mut list: Vec<K> = Vec::new();
    events.filter_map(move |event| {
        let change = match event {
            Ok(Event::Apply(object)) => Some(applied(&object)),
            Ok(Event::Delete(object)) => Some(deleted(&object)),
            Ok(Event::Init) => {
                list.clear();
                None
            }
            Ok(Event::InitApply(object)) => {
                list.push(object);
                None
            }
            Ok(Event::InitDone) => Some(listed(&std::mem::take(&mut list))),
            Err(error) => {
                tracing::warn!(%error, "watching {what}");
                None
            }
        };
        std::future::ready(change)
    })
}

#[cfg(test)]
mod tests;
