//! Ending a container: preStop, the stop signal, and the kill when grace is over.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use super::hooks;
use super::model::{ContainerModel, PodModel};
use super::plan::KillReason;
use crate::context::Context;
use crate::events::Kind;

/// What a container gets after its preStop hook used all of the grace.
const AFTER_PRE_STOP: Duration = Duration::from_secs(2);

/// Which container is ended, and how.
#[derive(Debug)]
pub struct Kill {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Why.
    pub why: KillReason,
    /// How long it may take.
    pub grace: SignedDuration,
    /// The end of the pod's grace; when it moves to before the end of this one, it is kept.
    pub deadline: watch::Receiver<Option<Timestamp>>,
}

/// Ends a container. One that the specification does not name any more has no hooks.
///
/// # Errors
/// What the runtime said.
pub async fn kill(
    context: &Context,
    model: &PodModel,
    container: Option<&ContainerModel>,
    kill: Kill,
) -> Result<(), String> {
    let Kill {
        name,
        id,
        why,
        grace,
        mut deadline,
    } = kill;
    let id = id.as_str();
    let message = match why {
        KillReason::PodEnds => format!("Stopping container {name}"),
        KillReason::Liveness => {
            format!("Container {name} failed liveness probe, will be restarted")
        }
        KillReason::Startup => format!("Container {name} failed startup probe, will be restarted"),
        KillReason::Resized => format!("Container {name} resize requires restart"),
        KillReason::Changed => format!("Container {name} definition changed, will be restarted"),
    };
    if let Some(container) = container {
        context
            .recorder
            .container(model, container, Kind::Normal, "Killing", message);
    }
    let grace = Duration::try_from(grace).unwrap_or(Duration::ZERO);
    deadline.borrow_and_update();
    let stopped = tokio::select! {
        stopped = gently(context, model, container, id, grace) => stopped,
        () = cut_short(context, &mut deadline) => {
            context.config.runtime.stop_container(id, Duration::ZERO).await
                .map_err(|error| error.to_string())
        }
    };
    let refreshed = context
        .view
        .refresh_container(id)
        .await
        .map_err(|error| error.to_string());
    stopped.and(refreshed)
}

async fn gently(
    context: &Context,
    model: &PodModel,
    container: Option<&ContainerModel>,
    id: &str,
    grace: Duration,
) -> Result<(), String> {
    let begun = tokio::time::Instant::now();
    let mut left = grace;
    let handler = container
        .and_then(|container| container.spec.lifecycle.as_ref())
        .and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    if let (Some(container), Some(handler)) = (container, handler)
        && !grace.is_zero()
    {
        let run = hooks::run(context, model, container, id, handler, grace);
        match tokio::time::timeout(grace, run).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                // An event never says why: what the hook was told may be a secret.
                tracing::debug!(pod = model.full_name(), error, "preStop hook");
                context.recorder.container(
                    model,
                    container,
                    Kind::Warning,
                    "FailedPreStopHook",
                    "PreStopHook failed",
                );
            }
            Err(_) => context.recorder.container(
                model,
                container,
                Kind::Warning,
                "FailedPreStopHook",
                "PreStopHook did not complete in the grace period",
            ),
        }
        left = grace.saturating_sub(begun.elapsed()).max(AFTER_PRE_STOP);
    }
    context
        .config
        .runtime
        .stop_container(id, left)
        .await
        .map_err(|error| error.to_string())
}

/// Ends when the deadline was moved and has come.
async fn cut_short(context: &Context, deadline: &mut watch::Receiver<Option<Timestamp>>) {
    if deadline.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    loop {
        let Some(at) = *deadline.borrow_and_update() else {
            std::future::pending::<()>().await;
            return;
        };
        let left = at.duration_since(context.config.clock.now());
        let Ok(left) = Duration::try_from(left) else {
            return;
        };
        tokio::select! {
            () = tokio::time::sleep(left) => return,
            changed = deadline.changed() => {
                if changed.is_err() {
                    tokio::time::sleep(left).await;
                    return;
                }
            }
        }
    }
}
