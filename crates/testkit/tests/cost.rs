//! What a request weighs, and what each on a pod's way to its node costs the whole process: door, store,
//! feed, and one decoded view that follows. `cargo test --release -p evenkeel-testkit --test cost --
//! --ignored --nocapture`; without `--release` the figures say how they differ, not how large they are.

use std::time::Duration;

use bytes::Bytes;
use evenkeel_client::Client;
use evenkeel_server::Identity;
use evenkeel_store::Store as _;
use evenkeel_testkit::Cluster;
use futures::stream::{self, StreamExt as _};
use http_body_util::Full;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

const PODS: usize = 3_000;
const NODES: usize = 50;
const PODS_OF: &str = "/api/v1/namespaces/load/pods";

/// The process's processor time so far. The kernel counts it in hundredths of a second.
fn used() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().expect("ticks"))
        .sum();
    Duration::from_millis(ticks * 10)
}

async fn send(client: &Client, method: &str, content: &str, path: &str, body: &Value) {
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", content)
        .body(body.to_string().into_bytes())
        .expect("a request");
    if let Err(error) = client.request_text(request).await {
        panic!("{method} {path}: {error}");
    }
}

/// Does something for each pod, so many at once, and tells what it took.
async fn measure(
    cluster: &Cluster,
    what: &str,
    at_once: usize,
    act: impl AsyncFn(usize),
) -> Duration {
    let before = cluster.store().stats().await.expect("figures");
    let began = used();
    stream::iter(0..PODS)
        .for_each_concurrent(at_once, |at| act(at))
        .await;
    // What follows the answers counts too.
    let registry = cluster.the_door().registry();
    registry.fresh().await.expect("an open store");
    let row = registry.rows.by_kind("", "v1", "Pod").expect("a kind");
    let last = registry.cache(row).expect("a cache").last();
    cluster.views().of::<Pod>().reached(last).await;
    let took = used() - began;
    let after = cluster.store().stats().await.expect("figures");
    let each = took.as_micros() / PODS as u128;
    let groups = (after.fsyncs - before.fsyncs).max(1);
    let writes = after.txns - before.txns;
    println!("{what:20} {each:5} µs each, {writes} writes in {groups} groups");
    took
}

/// It is moved as a whole wherever it is boxed or handed on, and has twice grown to twenty kibibytes
/// unnoticed, by what is awaited in line and seldom needed (0028).
#[tokio::test]
async fn a_request_is_a_small_future() {
    let cluster = Cluster::door().await;
    let request = http::Request::get("/api/v1/pods").body(Full::<Bytes>::default());
    let request = request.expect("a request");
    let admin = Identity::user("admin", &["system:masters"]);
    let answering = cluster.the_door().handle(request, admin);
    let size = std::mem::size_of_val(&answering);
    assert!(size <= 4 << 10, "{size} bytes");
    assert_eq!(answering.await.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn cost_of_a_binding() {
    const JSON: &str = "application/json";
    let cluster = Cluster::door().await;
    let admin = cluster.admin();
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "load"}});
    send(&admin, "POST", JSON, "/api/v1/namespaces", &space).await;
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    let accounts = "/api/v1/namespaces/load/serviceaccounts";
    send(&admin, "POST", JSON, accounts, &account).await;
    let scheduler = cluster.client(Identity::user("system:kube-scheduler", &[]));
    let agents: Vec<Client> = (0..NODES)
        .map(|at| {
            let name = format!("system:node:node-{at}");
            cluster.client(Identity::user(name, &["system:nodes"]))
        })
        .collect();
    cluster.views().of::<Pod>().synced().await;

    let pod = |at: usize| {
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("pod-{at}"), "labels": {"app": "web"}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "main",
                "image": "pause",
                "resources": {"requests": {"cpu": "100m", "memory": "100Mi"}}}]}})
    };
    measure(&cluster, "create", 64, async |at| {
        send(&admin, "POST", JSON, PODS_OF, &pod(at)).await;
    })
    .await;
    let mut all = measure(&cluster, "binding", 96, async |at| {
        let binding = json!({"apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": format!("pod-{at}")},
            "target": {"kind": "Node", "name": format!("node-{}", at % NODES)}});
        let path = format!("{PODS_OF}/pod-{at}/binding");
        send(&scheduler, "POST", JSON, &path, &binding).await;
    })
    .await;
    all += measure(&cluster, "status", 64, async |at| {
        let merge = "application/merge-patch+json";
        let path = format!("{PODS_OF}/pod-{at}/status");
        send(&agents[at % NODES], "PATCH", merge, &path, &running()).await;
    })
    .await;
    all += measure(&cluster, "event, one at a time", 1, async |at| {
        let now = "2026-01-01T00:00:00Z";
        let event = json!({"apiVersion": "v1", "kind": "Event",
            "metadata": {"name": format!("pod-{at}.1"), "namespace": "load"},
            "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": "load",
                "name": format!("pod-{at}"), "uid": "5f0c8a52-8ad5-4ba1-8e34-0f6cd4b6a0d1"},
            "reason": "Scheduled", "type": "Normal", "count": 1,
            "message": format!("Successfully assigned load/pod-{at} to node-{}", at % NODES),
            "firstTimestamp": now, "lastTimestamp": now,
            "reportingComponent": "default-scheduler", "reportingInstance": "",
            "source": {"component": "default-scheduler"}});
        send(
            &scheduler,
            "POST",
            JSON,
            "/api/v1/namespaces/load/events",
            &event,
        )
        .await;
    })
    .await;
    println!(
        "{:20} {:5} µs",
        "bound to told",
        all.as_micros() / PODS as u128
    );
}

fn running() -> Value {
    let now = "2026-01-01T00:00:00Z";
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
