//! Services of type LoadBalancer on machines of one's own: an address from a declared pool, and a
//! node that announces it on the link.
//!
//! Pools are custom resources in MetalLB's shape ([`kinds`]); `assign` gives addresses, `announce`
//! chooses nodes, [`plan`] puts both into services: the address in `status.loadBalancer`, the node
//! in an annotation which the node's own network reads. There is no state but that: an address is
//! taken when a service has it, and free when no service has it, so that nothing has to be given
//! back. What never lives here: packets.

pub mod addresses;
pub mod announce;
mod apply;
pub mod assign;
pub mod kinds;
pub mod plan;
pub mod pools;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use evenkeel_client::{
    Backoff, LoopContext, ObjectKey, Outcome, View, WorkQueue, errors, run_loop,
};
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::claim;
use crate::endpoints::SERVICE_NAME;
use crate::error::ReconcileError;
use kinds::{AddressPool, Advertisement};

/// `spec.loadBalancerClass` of services that want this implementation by name; one without a
/// class gets it as well.
pub const CLASS: &str = "evenkeel.io/load-balancer";
/// Annotation of a service: the pool that its addresses are from.
pub const FROM_POOL: &str = "metallb.io/ip-allocated-from-pool";
/// Annotation of a service: who announces its addresses, `ADDRESS=NODE@INTERFACE…,…`.
pub const ANNOUNCED_BY: &str = "evenkeel.io/announced-by";
/// Condition of a service: it has addresses.
pub const ASSIGNED: &str = "evenkeel.io/AddressAssigned";
/// Condition of a service: a node announces them.
pub const ANNOUNCED: &str = "evenkeel.io/AddressAnnounced";

const NAME: &str = "service-load-balancer";
/// Index of the services that the loop has to do with.
const CONCERNS: &str = "load-balancer";
/// Index of slices by `namespace/service`, as the endpoints' loops keep it.
const BY_SERVICE: &str = "service";

fn concerns(service: &Service) -> Vec<String> {
    plan::concerns(service)
        .then(String::new)
        .into_iter()
        .collect()
}

fn by_service(slice: &EndpointSlice) -> Vec<String> {
    let name = claim::labels(&slice.metadata).get(SERVICE_NAME);
    let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
    name.iter()
        .map(|name| format!("{namespace}/{name}"))
        .collect()
}

struct Reconciler {
    services: Arc<View<Service>>,
    pools: Arc<View<AddressPool>>,
    advertisements: Arc<View<Advertisement>>,
    nodes: Arc<View<Node>>,
    namespaces: Arc<View<Namespace>>,
    slices: Arc<View<EndpointSlice>>,
    context: LoopContext,
}

impl Reconciler {
    /// Looks at everything at once: addresses are a common good.
    fn plan(&self) -> (Vec<plan::Write>, Vec<pools::PoolWrite>) {
        let services = self.services.by_index(CONCERNS, "");
        if services.is_empty() && self.pools.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let pools: Vec<AddressPool> = self
            .pools
            .list()
            .iter()
            .map(|found| AddressPool::clone(found))
            .collect();
        let advertisements: Vec<Advertisement> = self
            .advertisements
            .list()
            .iter()
            .map(|found| Advertisement::clone(found))
            .collect();
        let namespace = |name: &str| {
            let found = self.namespaces.get("", name);
            found.map_or_else(BTreeMap::new, |found| {
                claim::labels(&found.metadata).clone()
            })
        };
        plan::plan(&plan::Seen {
            services: &services,
            pools: &pools,
            advertisements: &advertisements,
            nodes: &self.nodes.list(),
            namespace: &namespace,
            serving: &|key| self.serving(key),
            now: self.context.clock.now(),
        })
    }

    async fn reconcile(&self) -> Result<Outcome, ReconcileError> {
        let (writes, pools) = self.plan();
        let mut failed = None;
        for write in &writes {
            match apply::write(&self.context, &self.services, write).await {
                Ok(()) => {}
                Err(error) if errors::is_not_found(&error) => {}
                // The others are not to wait for one that is refused.
                Err(error) => failed = Some(error),
            }
        }
        for write in &pools {
            match apply::pool(&self.context, &self.pools, write).await {
                // A definition that somebody else wrote may have no status.
                Err(error) if !errors::is_not_found(&error) => failed = Some(error),
                _ => {}
            }
        }
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(Outcome::Done),
        }
    }

    /// The nodes that have a ready endpoint of this service.
    fn serving(&self, key: &ObjectKey) -> BTreeSet<String> {
        let mut nodes = BTreeSet::new();
        for slice in self.slices.by_index(BY_SERVICE, &key.to_string()) {
            for endpoint in slice.endpoints.iter().flatten() {
                let conditions = endpoint.conditions.as_ref();
                let ready = conditions.and_then(|found| found.ready).unwrap_or(true);
                if let Some(node) = endpoint.node_name.clone().filter(|_| ready) {
                    nodes.insert(node);
                }
            }
        }
        nodes
    }
}

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let mut backoff = Backoff::new(
        std::time::Duration::from_millis(200),
        std::time::Duration::from_secs(30),
        1,
    );
    while let Err(error) = apply::define(&context).await {
        let error = errors::message(&error);
        tracing::debug!(error, "the definitions of address pools can't be made yet");
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            () = tokio::time::sleep(backoff.next_wait()) => {}
        }
    }
    // There is one question, about all services together.
    let everything = || ObjectKey::new("", "all");
    let queue = WorkQueue::new(context.metrics.of(NAME));
    let services = context.views.of::<Service>();
    let pools = context.views.of::<AddressPool>();
    let advertisements = context.views.of::<Advertisement>();
    let nodes = context.views.of::<Node>();
    let namespaces = context.views.of::<Namespace>();
    let slices = context.views.of::<EndpointSlice>();
    services.add_index(CONCERNS, concerns);
    slices.add_index(BY_SERVICE, by_service);
    let synced = async {
        services.synced().await;
        pools.synced().await;
        advertisements.synced().await;
        nodes.synced().await;
        namespaces.synced().await;
        slices.synced().await;
    };
    tokio::select! {
        () = context.shutdown.cancelled() => return,
        () = synced => {}
    }
    {
        let queue = Arc::clone(&queue);
        services.on_change(move |change| {
            if change.sides().any(|service| plan::concerns(service)) {
                queue.add(everything());
            }
        });
    }
    {
        let queue = Arc::clone(&queue);
        pools.on_change(move |_| queue.add(everything()));
    }
    {
        let queue = Arc::clone(&queue);
        advertisements.on_change(move |_| queue.add(everything()));
    }
    {
        let queue = Arc::clone(&queue);
        namespaces.on_change(move |change| {
            let labels = |side: &Option<Arc<Namespace>>| {
                side.as_ref()
                    .map(|found| claim::labels(&found.metadata).clone())
            };
            if labels(&change.old) != labels(&change.new) {
                queue.add(everything());
            }
        });
    }
    {
        let queue = Arc::clone(&queue);
        nodes.on_change(move |change| {
            // Heartbeats change nothing here.
            let state = |side: &Option<Arc<Node>>| {
                side.as_ref().map(|node| {
                    (
                        announce::is_fit(node),
                        claim::labels(&node.metadata).clone(),
                    )
                })
            };
            if state(&change.old) != state(&change.new) {
                queue.add(everything());
            }
        });
    }
    {
        let (queue, services) = (Arc::clone(&queue), Arc::clone(&services));
        slices.on_change(move |change| {
            let name = claim::labels(&change.latest().metadata).get(SERVICE_NAME);
            let service = name.and_then(|name| services.get(&change.key.namespace, name));
            if service.is_some_and(|service| plan::concerns(&service)) {
                queue.add(everything());
            }
        });
    }
    let reconciler = Reconciler {
        services,
        pools,
        advertisements,
        nodes,
        namespaces,
        slices,
        context: context.clone(),
    };
    run_loop(NAME, 1, queue, context.shutdown, |_| reconciler.reconcile()).await;
}
