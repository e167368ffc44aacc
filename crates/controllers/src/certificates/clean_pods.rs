//! Removes requests for pods' certificates some minutes after they were made: what came of one is
//! with the node by then, or never comes.

use std::time::Duration;

use evenkeel_client::Api;
use evenkeel_client::{LoopContext, errors};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::PodCertificateRequest;
use kube::api::{DeleteParams, ListParams, Preconditions};

/// Between two looks.
const PASS: Duration = Duration::from_secs(5 * 60);
/// Every flow is expected to be through sooner than this.
const AGE: SignedDuration = SignedDuration::from_mins(15);

/// Is it of no use to anybody?
#[must_use]
pub fn is_old(request: &PodCertificateRequest, now: Timestamp) -> bool {
    let made = request.metadata.creation_timestamp.as_ref();
    made.is_none_or(|made| now.duration_since(made.0) >= AGE)
}

/// Runs until the context's shutdown. It looks seldom and at all of them, so it keeps no view.
pub async fn run(context: LoopContext) {
    let all: Api<PodCertificateRequest> = Api::all(context.client.clone());
    loop {
        match all.list(&ListParams::default().match_any()).await {
            Ok(requests) => {
                let now = context.clock.now();
                for request in requests.items.iter().filter(|request| is_old(request, now)) {
                    remove(&context, request).await;
                }
            }
            Err(error) => {
                let error = errors::message(&error);
                tracing::warn!(error, "requests for pods not listed");
            }
        }
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            () = tokio::time::sleep(PASS) => {}
        }
    }
}

async fn remove(context: &LoopContext, request: &PodCertificateRequest) {
    let namespace = request.metadata.namespace.as_deref().unwrap_or_default();
    let name = request.metadata.name.as_deref().unwrap_or_default();
    let api: Api<PodCertificateRequest> = Api::namespaced(context.client.clone(), namespace);
    let params = DeleteParams::default().preconditions(Preconditions {
        uid: request.metadata.uid.clone(),
        resource_version: None,
    });
    match api.delete(name, &params).await {
        Ok(_) => {}
        Err(error) if errors::is_not_found(&error) => {}
        Err(error) => {
            let error = errors::message(&error);
            tracing::warn!(namespace, name, error, "request for a pod not removed");
        }
    }
}
