//! A cluster of one process for a part: door, store, loops, simulated nodes, and what is asked
//! of them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use evenkeel_client::{Client, View};
use evenkeel_testkit::Cluster;
use futures::stream::{self, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::agents::{Agents, send};

/// Nothing that is waited for may take longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(600);
/// Writers at once, where objects are made beforehand.
const WRITERS: usize = 64;

/// The cluster.
pub(super) struct World {
    pub(super) cluster: Cluster,
    pub(super) client: Client,
    pub(super) pods: Arc<View<Pod>>,
    pub(super) agents: Agents,
}

/// Pods as they are bound, by the view that loops share.
pub(super) struct Bound {
    pub(super) first: Instant,
    pub(super) last: Instant,
}

pub(super) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// One line for the parent.
pub(super) fn tell(id: &str, name: &str, unit: &str, samples: &[f64]) {
    println!(
        "{}",
        json!({"id": id, "name": name, "unit": unit, "samples": samples})
    );
}

/// A pod that asks for little.
pub(super) fn pod(name: &str, app: &str, more: &Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "load", "labels": {"app": app}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "main",
            "image": "pause",
            "resources": {"requests": {"cpu": "100m", "memory": "100Mi"}}}]}});
    if let (Some(spec), Some(more)) = (pod["spec"].as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    pod
}

impl World {
    /// A cluster with controllers and nodes, without a scheduler yet.
    pub(super) async fn of(nodes: usize) -> anyhow::Result<Self> {
        let mut cluster = Cluster::door().await;
        let client = cluster.admin();
        cluster.run_controllers();
        let pods = cluster.views().of::<Pod>();
        pods.synced().await;
        for name in ["load", "kube-node-lease"] {
            let space =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            let made = send(
                &client,
                "POST",
                "/api/v1/namespaces",
                "application/json",
                &space,
            );
            if let Err(error) = made.await
                && !format!("{error:#}").contains("already exists")
            {
                return Err(error);
            }
        }
        let account = "/api/v1/namespaces/load/serviceaccounts/default";
        until("the service account", || async {
            let got = client.request_text(http::Request::get(account).body(Vec::new())?);
            Ok(got.await.is_ok().then_some(()))
        })
        .await?;
        let agents = Agents::start(cluster.the_door(), &pods, nodes).await?;
        let view = cluster.views().of::<Node>();
        until("nodes that take pods", || async {
            let free = |node: &Arc<Node>| {
                let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
                taints.is_none_or(Vec::is_empty)
            };
            let ready = view.list().iter().filter(|node| free(node)).count();
            Ok((ready == nodes).then_some(()))
        })
        .await?;
        Ok(Self {
            cluster,
            client,
            pods,
            agents,
        })
    }

    /// Writes objects to a collection.
    pub(super) async fn write(
        &self,
        path: &str,
        objects: impl Iterator<Item = Value>,
    ) -> anyhow::Result<()> {
        // Made as they are written, so that the memory of the load is not the cluster's.
        stream::iter(objects.map(Ok))
            .try_for_each_concurrent(WRITERS, |object| async move {
                send(&self.client, "POST", path, "application/json", &object).await
            })
            .await
            .with_context(|| format!("writing objects to {path}"))
    }

    /// When the first and the last of `count` pods of a namespace were seen to be bound.
    pub(super) async fn bound(&self, namespace: &str, count: usize) -> anyhow::Result<Bound> {
        let mut changes = self.pods.subscribe();
        let mut seen = HashSet::new();
        let mut first = None;
        let waiting = async {
            loop {
                let change = changes.next().await;
                let Some(pod) = &change.new else {
                    continue;
                };
                let spec = pod.spec.as_ref();
                if pod.metadata.namespace.as_deref() == Some(namespace)
                    && spec.is_some_and(|spec| spec.node_name.is_some())
                    && seen.insert(pod.metadata.uid.clone())
                {
                    let now = Instant::now();
                    let first = *first.get_or_insert(now);
                    if seen.len() == count {
                        return Bound { first, last: now };
                    }
                }
            }
        };
        let bound = tokio::time::timeout(PATIENCE, waiting).await;
        bound.with_context(|| format!("{count} pods were not bound in time"))
    }

    /// Waits until all pods of a namespace are Running.
    pub(super) async fn running(&self, count: usize) -> anyhow::Result<()> {
        until("running pods", || async {
            let phase = |pod: &Arc<Pod>| {
                let status = pod.status.as_ref();
                status.and_then(|status| status.phase.as_deref()) == Some("Running")
            };
            let running = self.pods.list().iter().filter(|pod| phase(pod)).count();
            Ok((running == count).then_some(()))
        })
        .await
    }
}

/// Looks until there is something.
pub(super) async fn until<T, F>(what: &str, mut look: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let waiting = async {
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .with_context(|| format!("waited in vain for {what}"))?
}
