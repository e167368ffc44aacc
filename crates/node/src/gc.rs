//! Log rotation, while anything runs. Dead containers are the pod workers' business.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_runtime::ContainerState;
use tracing::warn;

use crate::context::Context;
use crate::server::rotate::{RotationPolicy, rotate};

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
                let runtime = &*context.config.runtime;
                let now = context.config.clock.now();
                let policy = RotationPolicy::default();
                let log = &container.log_path;
                if let Err(error) = rotate(runtime, &container.id, log, now, policy).await {
                    warn!(%error, container = container.id, "log not rotated");
                }
            }
        }
    }
}
