//! Simulated nodes: agents that run no containers.
//!
//! Each node is registered, renews its lease every ten seconds as the real agent does, reports the
//! pods given to it as Running, and lets them go when they are deleted; every request is made as
//! that node's identity. What is simulated is one watch for all of them: they read the view that
//! the loops of the process share, where five thousand real agents would hold a watch each.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_client::{Changes, Client, View};
use evenkeel_server::{Door, Identity, local::Local};
use futures::stream::{self, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// Requests of the agents under way at once.
const AT_ONCE: usize = 64;
/// As the real agent renews its lease.
const RENEW: Duration = Duration::from_secs(10);
const MERGE: &str = "application/merge-patch+json";

/// A request whose answer's content does not matter.
pub(super) async fn send(
    client: &Client,
    method: &str,
    path: &str,
    content: &str,
    body: &Value,
) -> anyhow::Result<()> {
    send_text(client, method, path, content, body.to_string()).await
}

async fn send_text(
    client: &Client,
    method: &str,
    path: &str,
    content: &str,
    body: String,
) -> anyhow::Result<()> {
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", content)
        .body(body.into_bytes())?;
    client.request_text(request).await?;
    Ok(())
}

/// The nodes of a part.
pub(super) struct Agents {
    clients: HashMap<String, Client>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

fn lease(name: &str) -> Value {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name, "namespace": "kube-node-lease"},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": micros()}})
}

/// Now, as leases write it.
fn micros() -> String {
    format!("{:.6}", jiff::Timestamp::now())
}

async fn register(client: &Client, name: &str, zone: usize) -> anyhow::Result<()> {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {
        "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("zone-{zone}"),
        "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}}});
    send(client, "POST", "/api/v1/nodes", "application/json", &node).await?;
    let now = format!("{:.0}", jiff::Timestamp::now());
    let condition = |kind: &str, status: &str| {
        json!({"type": kind, "status": status, "lastHeartbeatTime": now,
            "lastTransitionTime": now, "reason": "Simulated", "message": ""})
    };
    let status = json!({"status": {
        "capacity": {"cpu": "32", "memory": "64Gi", "pods": "110"},
        "allocatable": {"cpu": "32", "memory": "64Gi", "pods": "110"},
        "conditions": [condition("Ready", "True"), condition("MemoryPressure", "False"),
            condition("DiskPressure", "False"), condition("PIDPressure", "False")],
    }});
    let path = format!("/api/v1/nodes/{name}/status");
    send(client, "PATCH", &path, MERGE, &status).await?;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    send(client, "POST", leases, "application/json", &lease(name)).await
}

/// Renews all leases, spread evenly over the interval.
async fn heartbeats(clients: Vec<(String, Client)>) {
    let count = u32::try_from(clients.len()).unwrap_or(u32::MAX).max(1);
    let mut tick = tokio::time::interval(RENEW / count);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    loop {
        for (name, client) in &clients {
            tick.tick().await;
            let path =
                format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}");
            let body = json!({"spec": {"renewTime": micros()}});
            if let Err(error) = send(client, "PATCH", &path, MERGE, &body).await {
                eprintln!("lease of {name}: {error:#}");
            }
        }
    }
}

impl Agents {
    /// Registers `count` nodes in three zones and keeps them alive.
    pub(super) async fn start(
        door: &Arc<Door>,
        pods: &Arc<View<Pod>>,
        count: usize,
    ) -> anyhow::Result<Self> {
        let named: Vec<(String, Client)> = (0..count)
            .map(|at| {
                let name = format!("node-{at:04}");
                let identity = Identity::user(format!("system:node:{name}"), &["system:nodes"]);
                let client = Client::new(Local::new(door, identity), "default");
                (name, client)
            })
            .collect();
        stream::iter(named.iter().cloned().enumerate().map(Ok))
            .try_for_each_concurrent(AT_ONCE, |(at, (name, client))| async move {
                register(&client, &name, at % 3).await
            })
            .await?;
        let beats = tokio::spawn(heartbeats(named.clone()));
        let clients: HashMap<String, Client> = named.into_iter().collect();
        let reports = tokio::spawn(reports(clients.clone(), pods.subscribe()));
        Ok(Self {
            clients,
            _tasks: vec![
                AbortOnDropHandle::new(beats),
                AbortOnDropHandle::new(reports),
            ],
        })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.clients.len()
    }
}

/// Reports pods as Running, and lets them go.
async fn reports(clients: HashMap<String, Client>, mut changes: Changes<Pod>) {
    let limit = Arc::new(Semaphore::new(AT_ONCE));
    let mut requests = JoinSet::new();
    let mut reported: HashSet<String> = HashSet::new();
    let mut running = Running::default();
    loop {
        let change = changes.next().await;
        while requests.try_join_next().is_some() {}
        let uid = change.latest().metadata.uid.clone().unwrap_or_default();
        let Some(pod) = change.new else {
            reported.remove(&uid);
            continue;
        };
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
        let Some(client) = node.and_then(|node| clients.get(node)).cloned() else {
            continue;
        };
        let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
        let leaving = pod.metadata.deletion_timestamp.is_some();
        if !leaving && (phase.as_deref() == Some("Running") || !reported.insert(uid)) {
            continue;
        }
        let Ok(permit) = Arc::clone(&limit).acquire_owned().await else {
            return;
        };
        let meta = &pod.metadata;
        let path = format!(
            "/api/v1/namespaces/{}/pods/{}",
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default()
        );
        let (method, path, content, body) = if leaving {
            let now = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": meta.uid}});
            ("DELETE", path, "application/json", now.to_string())
        } else {
            let path = format!("{path}/status");
            ("PATCH", path, MERGE, running.text().to_owned())
        };
        requests.spawn(async move {
            let _permit = permit;
            let done = send_text(&client, method, &path, content, body).await;
            // A pod that has gone meanwhile is no failure.
            if let Err(error) = done
                && !format!("{error:#}").contains("not found")
            {
                eprintln!("{path}: {error:#}");
            }
        });
    }
}

/// What agents report of a pod. All of the same second say the same, and it is written out once for them:
/// what agents do is no work of the control plane, and is to cost it little of the processors they share.
#[derive(Default)]
struct Running {
    second: i64,
    text: String,
}

impl Running {
    fn text(&mut self) -> &str {
        let now = jiff::Timestamp::now();
        if self.text.is_empty() || self.second != now.as_second() {
            self.second = now.as_second();
            self.text = running(now).to_string();
        }
        &self.text
    }
}

fn running(now: jiff::Timestamp) -> Value {
    let now = format!("{now:.0}");
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
    json!({"status": {"phase": "Running", "startTime": now, "podIP": "10.244.0.9",
        "podIPs": [{"ip": "10.244.0.9"}], "hostIP": "192.0.2.1",
        "hostIPs": [{"ip": "192.0.2.1"}],
        "conditions": [condition("PodReadyToStartContainers"), condition("Initialized"),
            condition("Ready"), condition("ContainersReady"), condition("PodScheduled")],
        "containerStatuses": [{"name": "main", "image": "pause", "imageID": "pause",
            "containerID": "simulated://0", "ready": true, "started": true, "restartCount": 0,
            "state": {"running": {"startedAt": now}}}]}})
}
