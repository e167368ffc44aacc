//! What the runtime and the disk still hold of pods that the API does not know any more.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_runtime::ContainerState;
use futures::future::join_all;
use tracing::{info, warn};

use crate::context::Context;
use crate::pod::ops;
use crate::spec::container::POD_GRACE;

/// Wait before what is left of a pod is removed again.
const AGAIN: Duration = Duration::from_secs(10);

/// Ends and removes everything of pods that are not `known`. Called once, after the first list.
pub(crate) fn clean_up_all(context: &Arc<Context>, known: &HashSet<String>) {
    let mut uids: HashSet<String> = context.view.uids().into_iter().collect();
    let dirs = std::fs::read_dir(context.config.root.join("pods"));
    for entry in dirs.into_iter().flatten().flatten() {
        uids.insert(entry.file_name().to_string_lossy().into_owned());
    }
    uids.retain(|uid| !known.contains(uid));
    for uid in uids {
        let context = Arc::clone(context);
        tokio::spawn(async move { clean_up(&context, &uid).await });
    }
}

async fn clean_up(context: &Context, uid: &str) {
    let observed = context.view.observed(uid);
    let pod = observed
        .sandbox()
        .map(|sandbox| sandbox.pod.clone())
        .unwrap_or_default();
    info!(
        pod = pod.name,
        namespace = pod.namespace,
        uid,
        "ending a pod that the API does not know"
    );
    let running = observed
        .containers
        .iter()
        .filter(|c| c.state == ContainerState::Running);
    join_all(running.map(|container| async move {
        let grace = container
            .annotations
            .get(POD_GRACE)
            .and_then(|text| text.parse().ok());
        let grace = Duration::from_secs(grace.unwrap_or(30));
        if let Err(error) = context
            .config
            .runtime
            .stop_container(&container.id, grace)
            .await
        {
            warn!(%error, container = container.id, "container not stopped");
        }
    }))
    .await;
    for sandbox in &observed.sandboxes {
        if let Err(error) = ops::stop_sandbox(context, &sandbox.id).await {
            warn!(%error, sandbox = sandbox.id, "sandbox not stopped");
        }
    }
    // The driver of one of its volumes may have to register first.
    while let Err(error) = ops::clean_up(context, &pod.namespace, &pod.name, uid).await {
        warn!(error, uid, "pod not cleaned up; tried again");
        tokio::time::sleep(AGAIN).await;
    }
}
