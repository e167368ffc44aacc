//! Figures from the nodes' own `/stats/summary`, read through the door's node proxy.
//!
//! No metrics server is in between: an agent that measures is asked when somebody wants to know.
//! Nodes are asked at once, each within a bound; one that does not answer leaves its pods without
//! samples, and only if none answers there is an error.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_client::{Client, errors};
use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;

use crate::sample::{ContainerSample, PodMetrics, PodSample, SampleError};

/// The summary does not say over what time its CPU rate is averaged; agents take ten seconds.
const WINDOW: SignedDuration = SignedDuration::from_secs(10);
/// A node that takes longer has no figures.
const BOUND: Duration = Duration::from_secs(5);

/// Reads `/api/v1/nodes/NAME/proxy/stats/summary`; the client needs `get` on `nodes/proxy`.
#[derive(Clone)]
pub struct NodeSummaries {
    client: Client,
}

impl std::fmt::Debug for NodeSummaries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeSummaries").finish_non_exhaustive()
    }
}

#[derive(Debug, Deserialize)]
struct Summary {
    #[serde(default)]
    pods: Vec<PodStats>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodStats {
    pod_ref: PodReference,
    #[serde(default)]
    containers: Vec<ContainerStats>,
}

#[derive(Debug, Deserialize)]
struct PodReference {
    name: String,
    namespace: String,
}

#[derive(Debug, Deserialize)]
struct ContainerStats {
    name: String,
    cpu: Option<CpuStats>,
    memory: Option<MemoryStats>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CpuStats {
    time: Option<Timestamp>,
    usage_nano_cores: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MemoryStats {
    working_set_bytes: Option<i64>,
}

impl NodeSummaries {
    /// Reads as `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    async fn summary(&self, node: &str) -> Result<Summary, String> {
        let request = http::Request::get(format!("/api/v1/nodes/{node}/proxy/stats/summary"))
            .body(Vec::new())
            .map_err(|error| error.to_string())?;
        match tokio::time::timeout(BOUND, self.client.request(request)).await {
            Ok(Ok(summary)) => Ok(summary),
            Ok(Err(error)) => Err(format!("node {node}: {}", errors::message(&error))),
            Err(_) => Err(format!("node {node} did not answer within {BOUND:?}")),
        }
    }
}

/// The samples of the wanted pods. A pod of which any container lacks a figure has no sample, as
/// half of a sum would be made up.
fn samples(summary: Summary, namespace: &str, wanted: &[String]) -> Vec<PodSample> {
    let mut found = Vec::new();
    for pod in summary.pods {
        if pod.pod_ref.namespace != namespace || !wanted.contains(&pod.pod_ref.name) {
            continue;
        }
        let mut at: Option<Timestamp> = None;
        let containers: Option<Vec<ContainerSample>> = pod
            .containers
            .into_iter()
            .map(|container| {
                let cpu = container.cpu?;
                let time = cpu.time?;
                at = Some(at.map_or(time, |at| at.min(time)));
                Some(ContainerSample {
                    name: container.name,
                    // Rounded up: what runs uses something.
                    cpu_millicores: (cpu.usage_nano_cores?.max(0) + 999_999) / 1_000_000,
                    memory_bytes: container.memory?.working_set_bytes?,
                })
            })
            .collect();
        if let (Some(containers), Some(at)) = (containers, at) {
            found.push(PodSample {
                pod: pod.pod_ref.name,
                at,
                window: WINDOW,
                containers,
            });
        }
    }
    found
}

impl PodMetrics for NodeSummaries {
    fn samples<'a>(
        &'a self,
        namespace: &'a str,
        pods: &'a [Arc<Pod>],
    ) -> BoxFuture<'a, Result<Vec<PodSample>, SampleError>> {
        async move {
            let mut nodes: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for pod in pods {
                let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
                if let Some(node) = node.filter(|node| !node.is_empty()) {
                    let name = pod.metadata.name.clone().unwrap_or_default();
                    nodes.entry(node).or_default().push(name);
                }
            }
            let asked = nodes.keys().map(|node| self.summary(node));
            let answers = join_all(asked).await;
            let mut found = Vec::new();
            let mut failures = Vec::new();
            for (answer, wanted) in answers.into_iter().zip(nodes.values()) {
                match answer {
                    Ok(summary) => found.extend(samples(summary, namespace, wanted)),
                    Err(why) => failures.push(why),
                }
            }
            if !failures.is_empty() && failures.len() == nodes.len() {
                return Err(SampleError(failures.join("; ")));
            }
            for why in failures {
                tracing::warn!(why, "no figures from a node");
            }
            Ok(found)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_pods_of_the_namespace_have_samples() {
        let summary: Summary = serde_json::from_value(serde_json::json!({
            "node": {"nodeName": "n"},
            "pods": [
                {
                    "podRef": {"name": "web", "namespace": "a", "uid": "1"},
                    "containers": [{
                        "name": "main",
                        "cpu": {"time": "2026-01-01T00:00:00Z", "usageNanoCores": 1_500_000},
                        "memory": {"time": "2026-01-01T00:00:00Z", "workingSetBytes": 4096},
                    }],
                },
                {
                    "podRef": {"name": "new", "namespace": "a", "uid": "2"},
                    "containers": [{"name": "main", "cpu": {"time": "2026-01-01T00:00:00Z"}}],
                },
                {"podRef": {"name": "web", "namespace": "b", "uid": "3"}},
            ],
        }))
        .unwrap();
        let wanted = ["web".to_owned(), "new".to_owned()];
        let found = samples(summary, "a", &wanted);
        assert_eq!(found.len(), 1);
        let container = &found[0].containers[0];
        assert_eq!(
            (container.cpu_millicores, container.memory_bytes),
            (2, 4096)
        );
    }
}
