//! Log rotation, while anything runs. Dead containers are the pod workers' business.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_runtime::ContainerState;
use tracing::warn;

use crate::context::Context;
use crate::logs;
use crate::volume::blocking;

/// Time between looks at log sizes.
const PERIOD: Duration = Duration::from_secs(10);

/// Rotates logs until the future is dropped.
pub(crate) async fn run(context: Arc<Context>) {
    loop {
        tokio::time::sleep(PERIOD).await;
        for uid in context.view.uids() {
            for container in &context.view.observed(&uid).containers {
                if container.state != ContainerState::Running {
                    continue;
                }
                if let Err(error) = rotate(&context, container).await {
                    warn!(error, container = container.id, "log not rotated");
                }
            }
        }
    }
}

async fn rotate(
    context: &Context,
    container: &evenkeel_runtime::ContainerStatus,
) -> Result<(), String> {
    let log = container.log_path.clone();
    // One look at the size, without leaving this thread; only a rotation is handed on.
    if std::fs::metadata(&log).map_or(0, |meta| meta.len()) < logs::MAX_SIZE {
        return Ok(());
    }
    let stamp = context
        .config
        .clock
        .now()
        .strftime("%Y%m%d-%H%M%S")
        .to_string();
    if blocking(move || logs::rotate(&log, &stamp)).await? {
        let reopened = context.config.runtime.reopen_log(&container.id).await;
        reopened.map_err(|error| error.to_string())?;
    }
    Ok(())
}
