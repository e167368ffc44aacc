//! From a Deployment handed in to a pod that is Ready: through kubectl, and by the API alone.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::client::Connection;
use crate::cluster::{Cluster, PATIENCE, is_true};

/// The image of the Deployments that are measured; imported beforehand.
pub(crate) const IMAGE: &str = "evenkeel-bench/busybox:1";

/// What one application came to, in milliseconds.
pub(crate) struct Applied {
    /// From the start of the request (or of the kubectl process) to a Ready pod that the
    /// Deployment counts.
    pub(crate) ready: f64,
    /// From there to the Deployment's first sight in a watch: what kubectl takes for itself.
    pub(crate) written: f64,
}

fn manifest(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{
                        "name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent",
                        "command": ["sleep", "3600"],
                    }],
                },
            },
        },
    })
}

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// A watch as lines.
struct Watch {
    _user: Connection,
    body: Incoming,
    rest: Vec<u8>,
}

impl Watch {
    async fn open(cluster: &Cluster, path: &str, name: &str) -> anyhow::Result<Self> {
        let mut user = cluster.connect().await?;
        let path = format!("{path}?watch=1&fieldSelector=metadata.name%3D{name}");
        let (status, body) = user.send(Method::GET, &path, Bytes::new()).await?;
        anyhow::ensure!(status.is_success(), "watch {path}: {status}");
        Ok(Self {
            _user: user,
            body,
            rest: Vec::new(),
        })
    }

    /// The next event.
    async fn next(&mut self) -> anyhow::Result<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Ok(serde_json::from_slice(&line)?);
            }
            let frame = self.body.frame().await.context("the watch ended")??;
            if let Some(data) = frame.data_ref() {
                self.rest.extend_from_slice(data);
            }
        }
    }

    /// Waits for the Deployment to be seen, then for it to count a ready replica.
    async fn ready(mut self, began: Instant) -> anyhow::Result<Applied> {
        let mut written = None;
        loop {
            let event = tokio::time::timeout(PATIENCE, self.next())
                .await
                .context("the Deployment did not become ready")??;
            let now = began.elapsed().as_secs_f64() * 1e3;
            let first = *written.get_or_insert(now);
            if event["object"]["status"]["readyReplicas"] == 1 {
                return Ok(Applied {
                    ready: now,
                    written: first,
                });
            }
        }
    }
}

/// Creates a Deployment over an open connection and waits for it.
pub(crate) async fn by_api(cluster: &Cluster, name: &str) -> anyhow::Result<Applied> {
    let watch = Watch::open(cluster, DEPLOYMENTS, name).await?;
    let mut user = cluster.connect().await?;
    let body = Bytes::from(manifest(name).to_string());
    let began = Instant::now();
    let (sent, applied) = tokio::join!(
        user.count(Method::POST, DEPLOYMENTS, body),
        watch.ready(began)
    );
    let (status, _) = sent?;
    anyhow::ensure!(status.is_success(), "deployment {name}: {status}");
    applied
}

/// What `kubectl apply` needs to be told: it refuses to apply where the server publishes no
/// OpenAPI. Empty where nothing stands in the way.
pub(crate) async fn extra(cluster: &Cluster) -> anyhow::Result<&'static [&'static str]> {
    let mut user = cluster.connect().await?;
    let (status, _) = user
        .count(Method::GET, "/openapi/v3/api/v1", Bytes::new())
        .await?;
    Ok(if status.is_success() {
        &[]
    } else {
        &["--validate=false"]
    })
}

fn kubectl(kubeconfig: &Path) -> Command {
    let mut command = Command::new("kubectl");
    // A cache of its own, which the first call fills as it does for every user.
    let cache = kubeconfig.with_extension("cache");
    command
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .arg("--cache-dir")
        .arg(cache);
    command
}

/// Hands a Deployment to `kubectl apply -f -` and waits for it.
pub(crate) async fn by_kubectl(
    cluster: &Cluster,
    kubeconfig: &Path,
    name: &str,
    extra: &[&str],
) -> anyhow::Result<Applied> {
    let watch = Watch::open(cluster, DEPLOYMENTS, name).await?;
    let began = Instant::now();
    let mut child = kubectl(kubeconfig)
        .args(["apply", "-f", "-"])
        .args(extra)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("kubectl")?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    stdin.write_all(manifest(name).to_string().as_bytes())?;
    drop(stdin);
    let applied = watch.ready(began).await;
    let output = child.wait_with_output()?;
    anyhow::ensure!(
        output.status.success(),
        "kubectl apply: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    applied
}

/// How long a kubectl takes that asks nobody.
pub(crate) fn kubectl_start(kubeconfig: &Path) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let output = kubectl(kubeconfig)
        .args(["version", "--client"])
        .output()
        .context("kubectl")?;
    anyhow::ensure!(output.status.success(), "kubectl version --client failed");
    Ok(began.elapsed())
}

/// Applies a file of manifests.
pub(crate) fn apply_file(kubeconfig: &Path, file: &Path, extra: &[&str]) -> anyhow::Result<()> {
    let output = kubectl(kubeconfig)
        .args(["apply", "-f"])
        .arg(file)
        .args(extra)
        .output()
        .context("kubectl")?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "kubectl apply: {}", said.trim());
    Ok(())
}

/// Removes a Deployment and waits until its pods are gone.
pub(crate) async fn remove(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let mut user = cluster.connect().await?;
    let path = format!("{DEPLOYMENTS}/{name}");
    user.count(Method::DELETE, &path, Bytes::new()).await?;
    let pods = format!("/api/v1/namespaces/default/pods?labelSelector=app%3D{name}");
    settled(cluster, &pods, |pods| pods.is_empty()).await
}

/// Waits until all pods of the default namespace are Ready, and there are at least `least`.
pub(crate) async fn all_ready(cluster: &Cluster, least: usize) -> anyhow::Result<()> {
    settled(cluster, "/api/v1/namespaces/default/pods", |pods| {
        pods.len() >= least && pods.iter().all(|pod| is_true(pod, "Ready"))
    })
    .await
}

async fn settled(
    cluster: &Cluster,
    path: &str,
    wanted: impl Fn(&[Value]) -> bool,
) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let found = cluster.get(path).await?;
        let pods = found["items"].as_array().context("no items")?;
        if wanted(pods) {
            return Ok(());
        }
        anyhow::ensure!(began.elapsed() < PATIENCE, "pods did not settle: {path}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
