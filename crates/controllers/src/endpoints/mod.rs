//! Endpoints: which pods a Service reaches, as EndpointSlices and as Endpoints.
//!
//! Three loops over one set of rules: slices for services with a selector, Endpoints for the
//! same, and slices mirrored from the Endpoints that users write for services without one.
//! `kubernetes.io/service-name` ties a slice to its service, `managed-by` to its loop: what
//! another hand wrote is never touched.

mod apply;
pub mod legacy;
pub mod members;
pub mod slices;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use evenkeel_client::{Change, LoopContext, ObjectKey, View, WorkQueue, run_loop};
use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::claim;

/// Services reconciled at once.
const WORKERS: usize = 8;
/// Label that names the service of a slice.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label that names the writer of a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The slice loop's value of [`MANAGED_BY`].
pub const SLICE_LOOP: &str = "endpointslice-controller.k8s.io";
/// The mirroring loop's value of [`MANAGED_BY`].
pub const MIRROR_LOOP: &str = "endpointslicemirroring-controller.k8s.io";
/// Name of the index of slices by `namespace/service`.
const BY_SERVICE: &str = "service";

fn by_service(slice: &EndpointSlice) -> Vec<String> {
    let name = claim::labels(&slice.metadata).get(SERVICE_NAME);
    let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
    name.iter()
        .map(|name| format!("{namespace}/{name}"))
        .collect()
}

/// Enqueues the services that select a pod, before or after the change, if the change is one
/// that endpoints show.
fn pod_changed(change: &Change<Pod>, services: &View<Service>, queue: &WorkQueue<ObjectKey>) {
    if let (Some(old), Some(new)) = (&change.old, &change.new)
        && members::is_same(old, new)
    {
        return;
    }
    for service in services.in_namespace(&change.key.namespace) {
        let selected = |pod: &Arc<Pod>| members::selects(&service, pod);
        if change.sides().any(selected) {
            queue.add(ObjectKey::of(service.as_ref()));
        }
    }
}

fn queue_of(context: &LoopContext, name: &str) -> Arc<WorkQueue<ObjectKey>> {
    WorkQueue::new(context.metrics.of(name))
}

fn services_and_pods(
    context: &LoopContext,
    queue: &Arc<WorkQueue<ObjectKey>>,
) -> (Arc<View<Service>>, Arc<View<Pod>>) {
    let services = context.views.of::<Service>();
    let pods = context.views.of::<Pod>();
    {
        let queue = Arc::clone(queue);
        services.on_change(move |change| queue.add(change.key.clone()));
    }
    {
        let queue = Arc::clone(queue);
        let services = Arc::clone(&services);
        pods.on_change(move |change| pod_changed(change, &services, &queue));
    }
    (services, pods)
}

/// The slice loop. Runs until the context's shutdown.
pub async fn run_slices(context: LoopContext) {
    let queue = queue_of(&context, "endpointslice");
    let slices = context.views.of::<EndpointSlice>();
    let nodes = context.views.of::<Node>();
    slices.add_index(BY_SERVICE, by_service);
    context.views.of::<Service>().synced().await;
    context.views.of::<Pod>().synced().await;
    slices.synced().await;
    nodes.synced().await;
    let (services, pods) = services_and_pods(&context, &queue);
    follow_slices(&slices, SLICE_LOOP, &queue);
    let reconciler = apply::Slices {
        services,
        pods,
        slices,
        nodes,
        context: context.clone(),
    };
    run_loop("endpointslice", WORKERS, queue, context.shutdown, |key| {
        reconciler.reconcile(key)
    })
    .await;
}

fn follow_slices(
    slices: &View<EndpointSlice>,
    writer: &'static str,
    queue: &Arc<WorkQueue<ObjectKey>>,
) {
    let queue = Arc::clone(queue);
    slices.on_change(move |change| {
        for slice in change.sides() {
            let labels = claim::labels(&slice.metadata);
            let ours = labels.get(MANAGED_BY).map(String::as_str) == Some(writer);
            if let Some(name) = labels.get(SERVICE_NAME).filter(|_| ours) {
                queue.add(ObjectKey::new(change.key.namespace.clone(), name.clone()));
            }
        }
    });
}

/// The Endpoints loop. Runs until the context's shutdown.
pub async fn run_endpoints(context: LoopContext) {
    let queue = queue_of(&context, "endpoint");
    let endpoints = context.views.of::<Endpoints>();
    context.views.of::<Service>().synced().await;
    context.views.of::<Pod>().synced().await;
    endpoints.synced().await;
    let (services, pods) = services_and_pods(&context, &queue);
    {
        let queue = Arc::clone(&queue);
        endpoints.on_change(move |change| queue.add(change.key.clone()));
    }
    let reconciler = apply::Legacy {
        services,
        pods,
        endpoints,
        context: context.clone(),
    };
    run_loop("endpoint", WORKERS, queue, context.shutdown, |key| {
        reconciler.reconcile(key)
    })
    .await;
}

/// The mirroring loop. Runs until the context's shutdown.
pub async fn run_mirror(context: LoopContext) {
    let queue = queue_of(&context, "endpointslicemirroring");
    let services = context.views.of::<Service>();
    let endpoints = context.views.of::<Endpoints>();
    let slices = context.views.of::<EndpointSlice>();
    slices.add_index(BY_SERVICE, by_service);
    services.synced().await;
    endpoints.synced().await;
    slices.synced().await;
    {
        let queue = Arc::clone(&queue);
        services.on_change(move |change| queue.add(change.key.clone()));
    }
    {
        let queue = Arc::clone(&queue);
        endpoints.on_change(move |change| queue.add(change.key.clone()));
    }
    follow_slices(&slices, MIRROR_LOOP, &queue);
    let reconciler = apply::Mirror {
        services,
        endpoints,
        slices,
        context: context.clone(),
    };
    run_loop(
        "endpointslicemirroring",
        WORKERS,
        queue,
        context.shutdown,
        |key| reconciler.reconcile(key),
    )
    .await;
}
