//! The runtime's view of this network: what `SandboxNetwork` asks for, in its words.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use evenkeel_runtime::{PortMapping, RuntimeError, SandboxConfig, SandboxNetwork};
use futures::future::BoxFuture;

use crate::node::{NetworkError, NodeNetwork};
use crate::service::{HostPort, Protocol};

/// A node's network as the runtime takes it.
#[derive(Debug, Clone)]
pub struct BuiltInNetwork(pub Arc<NodeNetwork>);

impl SandboxNetwork for BuiltInNetwork {
    fn attach<'a>(
        &'a self,
        sandbox_id: &'a str,
        config: &'a SandboxConfig,
        netns: &'a Path,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>, RuntimeError>> {
        Box::pin(async move {
            let ports = host_ports(&config.port_mappings)?;
            let (id, netns) = (sandbox_id.to_owned(), netns.to_owned());
            let address = self
                .blocking(sandbox_id, move |n| n.attach(&id, &netns, &ports))
                .await?;
            Ok(vec![IpAddr::V4(address)])
        })
    }

    fn detach<'a>(
        &'a self,
        sandbox_id: &'a str,
        _config: &'a SandboxConfig,
        _netns: &'a Path,
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(async move {
            let id = sandbox_id.to_owned();
            self.blocking(sandbox_id, move |network| network.detach(&id))
                .await
        })
    }
}

impl BuiltInNetwork {
    async fn blocking<T: Send + 'static>(
        &self,
        sandbox: &str,
        work: impl FnOnce(&NodeNetwork) -> Result<T, NetworkError> + Send + 'static,
    ) -> Result<T, RuntimeError> {
        let network = Arc::clone(&self.0);
        let outcome = tokio::task::spawn_blocking(move || work(&network)).await;
        outcome
            .map_err(std::io::Error::other)
            .and_then(|done| done.map_err(std::io::Error::other))
            .map_err(|source| RuntimeError::Io {
                context: format!("network of sandbox {sandbox}"),
                source,
            })
    }
}

fn host_ports(mappings: &[PortMapping]) -> Result<Vec<HostPort>, RuntimeError> {
    let published = mappings.iter().filter(|mapping| mapping.host_port != 0);
    published
        .map(|mapping| {
            let protocol = Protocol::parse(&mapping.protocol).ok_or_else(|| {
                RuntimeError::Invalid(format!("host port protocol {:?}", mapping.protocol))
            })?;
            let host_ip = match mapping.host_ip.as_str() {
                "" | "0.0.0.0" => None,
                text => Some(text.parse().map_err(|_| {
                    RuntimeError::Unsupported(format!("host port on address {text:?}: only IPv4"))
                })?),
            };
            Ok(HostPort {
                protocol,
                host_port: mapping.host_port,
                host_ip,
                container_port: mapping.container_port,
            })
        })
        .collect()
}
