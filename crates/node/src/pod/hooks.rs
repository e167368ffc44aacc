//! Lifecycle hooks: exec, httpGet, sleep.

use std::time::Duration;

use k8s_openapi::api::core::v1::LifecycleHandler;

use crate::context::Context;
use crate::probe::target::{http_target, resolve_port};

use super::model::{ContainerModel, PodModel};

/// Runs a hook to its end.
///
/// # Errors
/// What the event says of the failure.
pub async fn run(
    context: &Context,
    model: &PodModel,
    container: &ContainerModel,
    id: &str,
    handler: &LifecycleHandler,
    limit: Duration,
) -> Result<(), String> {
    if let Some(exec) = &handler.exec {
        let command = exec.command.clone().unwrap_or_default();
        let output = context
            .config
            .runtime
            .exec_sync(id, &command, limit)
            .await
            .map_err(|error| format!("command {command:?}: {error}"))?;
        if output.exit_code == 0 {
            return Ok(());
        }
        return Err(format!(
            "command '{}' exited with {}: {}",
            command.join(" "),
            output.exit_code,
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    if let Some(get) = &handler.http_get {
        let ip = context
            .pod_ips(model)
            .into_iter()
            .next()
            .unwrap_or_default();
        let port = resolve_port(&get.port, &container.spec)?;
        let target = http_target(get, &ip, port, "kube-lifecycle/1.37");
        let answer = tokio::time::timeout(limit, context.dialers.get(&target)).await;
        return match answer {
            Err(_) => Err(format!(
                "Get \"{}\": context deadline exceeded",
                target.url()
            )),
            Ok(Err(error)) => Err(error),
            Ok(Ok(_)) => Ok(()),
        };
    }
    if let Some(sleep) = &handler.sleep {
        let wanted = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
        tokio::time::sleep(wanted.min(limit)).await;
        return Ok(());
    }
    if handler.tcp_socket.is_some() {
        // Kept in the API for old objects only; kubelet does not run it either.
        return Err("tcpSocket is not a supported lifecycle hook".to_owned());
    }
    Ok(())
}
