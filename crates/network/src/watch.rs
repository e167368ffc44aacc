//! The loop that keeps the node's routing and DNS what Services and EndpointSlices say.
//!
//! It takes a stream of changes, so that shared views can feed it as well as the watch below. A
//! single change is carried out at once; what arrives while the kernel works is taken together.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_client::{Client, Decode, Target, Update};
use futures::{FutureExt, Stream, StreamExt};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;

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
        client.clone(),
        Target::of::<core::Service>(),
        |object: &core::Service| match service(object) {
            Some(service) => Change::Service(service),
            None => Change::ServiceGone(key(&object.metadata)),
        },
        |object| Change::ServiceGone(key(&object.metadata)),
        |objects| Change::Services(objects.iter().filter_map(service).collect()),
    );
    let slices = follow_kind(
        client.clone(),
        Target::of::<discovery::EndpointSlice>(),
        |object: &discovery::EndpointSlice| match slice(object) {
            Some(slice) => Change::Slice(slice),
            None => Change::SliceGone(key(&object.metadata)),
        },
        |object| Change::SliceGone(key(&object.metadata)),
        |objects| Change::Slices(objects.iter().filter_map(slice).collect()),
    );
    let node = follow_kind(
        client,
        Target {
            field_selector: Some(format!("metadata.name={node}")),
            ..Target::of::<core::Node>()
        },
        |object: &core::Node| Change::Zone(zone(object)),
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
    client: Client,
    target: Target,
    applied: fn(&K) -> Change,
    deleted: fn(&K) -> Change,
    listed: fn(&[K]) -> Change,
) -> impl Stream<Item = Change>
where
    K: kube::Resource + Decode + Send + 'static,
{
    evenkeel_client::follow(client, target).map(move |update| match update {
        Update::All(all) => listed(&all),
        Update::Put(object) => applied(&object),
        Update::Gone(object) => deleted(&object),
    })
}

#[cfg(test)]
mod tests;
