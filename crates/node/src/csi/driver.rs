//! A driver that has registered: where it is reached, what it can do, and the calls to it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use evenkeel_grpc::{Channel, GrpcError, Target};
use http::HeaderMap;
use prost::Message;

use super::proto;

/// How long a driver may take for a call, as kubelet allows.
const WITHIN: Duration = Duration::from_secs(120);

/// A driver on this node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Driver {
    /// Its name.
    pub name: String,
    /// What it calls this node.
    pub node_id: String,
    /// Volumes that may be attached to this node at a time; 0 for no limit.
    pub max_volumes: i64,
    /// Where this node is, as the driver sees it.
    pub topology: BTreeMap<String, String>,
    /// Numbers of `NodeServiceCapability.RPC.Type`.
    capabilities: BTreeSet<i32>,
    channel: Channel,
}

impl Driver {
    /// Asks the driver at a socket who it is.
    ///
    /// # Errors
    /// It does not answer, or has no name for the node.
    pub async fn connect(name: &str, endpoint: &str) -> Result<Self, String> {
        let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
        let target = Target::Unix {
            path: PathBuf::from(path),
        };
        let mut driver = Self {
            name: name.to_owned(),
            node_id: String::new(),
            max_volumes: 0,
            topology: BTreeMap::new(),
            capabilities: BTreeSet::new(),
            channel: Channel::new(target, HeaderMap::new()),
        };
        let said = |error: GrpcError| error.rpc_text();
        let info: proto::NodeGetInfoResponse = driver
            .call("NodeGetInfo", &proto::Empty {})
            .await
            .map_err(said)?;
        if info.node_id.is_empty() {
            return Err(
                "error adding CSI driver node info: driverNodeID must not be empty".to_owned(),
            );
        }
        let can: proto::NodeGetCapabilitiesResponse = driver
            .call("NodeGetCapabilities", &proto::Empty {})
            .await
            .map_err(said)?;
        driver.node_id = info.node_id;
        driver.max_volumes = info.max_volumes_per_node;
        driver.topology = info.accessible_topology.unwrap_or_default().segments;
        let all = can.capabilities.into_iter().filter_map(|each| each.rpc);
        driver.capabilities = all.map(|rpc| rpc.r#type).collect();
        Ok(driver)
    }

    /// Can it do this (a number of [`proto`])?
    #[must_use]
    pub fn can(&self, capability: i32) -> bool {
        self.capabilities.contains(&capability)
    }

    /// A call of its Node service.
    ///
    /// # Errors
    /// What the driver says, or that it can't be reached.
    pub async fn call<A: Message + Default>(
        &self,
        method: &str,
        message: &impl Message,
    ) -> Result<A, GrpcError> {
        let path = format!("/csi.v1.Node/{method}");
        self.channel.unary(&path, message, WITHIN).await
    }
}
