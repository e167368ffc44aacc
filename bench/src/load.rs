//! Requests under load: creates, updates, gets, a long list, many watchers.
//!
//! The floor of each is the same client asking the echo server for the same bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt as _;

use crate::client::{Connection, Protocol, Target};
use crate::cluster::{Cluster, PATIENCE};
use crate::process;

/// A request made beforehand.
pub(crate) type Prepared = (Method, String, Bytes);

/// What a round of requests came to.
pub(crate) struct Round {
    /// Microseconds of the server's processor time for each request.
    pub(crate) cpu: f64,
    /// Requests answered in a second.
    pub(crate) rate: f64,
    /// Milliseconds to each answer.
    pub(crate) latencies: Vec<f64>,
}

/// A ConfigMap with 1 KiB of data.
pub(crate) fn config_map(name: &str) -> Bytes {
    let data = "0123456789abcdef".repeat(64);
    Bytes::from(format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{{"value":"{data}"}}}}"#
    ))
}

/// Where the ConfigMaps of a namespace are.
pub(crate) fn config_maps(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps")
}

/// Creates of `count` ConfigMaps whose names begin with `prefix`.
pub(crate) fn creates(namespace: &str, prefix: &str, count: usize) -> Vec<Prepared> {
    let path = config_maps(namespace);
    (0..count)
        .map(|n| {
            (
                Method::POST,
                path.clone(),
                config_map(&format!("{prefix}-{n:05}")),
            )
        })
        .collect()
}

/// Makes a namespace.
pub(crate) async fn namespace(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let body =
        format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{name}"}}}}"#);
    let mut connection = cluster.connect().await?;
    let (status, answer) = connection
        .read(Method::POST, "/api/v1/namespaces", Bytes::from(body))
        .await?;
    anyhow::ensure!(
        status.is_success(),
        "namespace {name}: {}",
        String::from_utf8_lossy(&answer)
    );
    Ok(())
}

/// Opens `count` users of a server: connections of their own with HTTP/1.1, streams of one
/// connection with HTTP/2.
pub(crate) async fn users(
    target: &Target,
    protocol: Protocol,
    count: usize,
) -> anyhow::Result<Vec<Connection>> {
    let first = target.connect(protocol).await?;
    let mut users = Vec::with_capacity(count);
    while users.len() + 1 < count {
        users.push(match first.share() {
            Some(shared) => shared,
            None => target.connect(protocol).await?,
        });
    }
    users.push(first);
    Ok(users)
}

/// Lets the users carry out all requests, each taking the next one when it has its answer.
pub(crate) async fn drive(
    pid: u32,
    users: &mut [Connection],
    requests: Vec<Prepared>,
) -> anyhow::Result<Round> {
    let requests = Arc::new(requests);
    let next = Arc::new(AtomicUsize::new(0));
    let before = process::cpu(pid)?;
    let began = Instant::now();
    let all = users.iter_mut().map(|user| {
        let (requests, next) = (Arc::clone(&requests), Arc::clone(&next));
        async move {
            let mut latencies = Vec::new();
            while let Some((method, path, body)) =
                requests.get(next.fetch_add(1, Ordering::Relaxed))
            {
                let began = Instant::now();
                let (status, _) = user.count(method.clone(), path, body.clone()).await?;
                latencies.push(began.elapsed().as_secs_f64() * 1e3);
                anyhow::ensure!(status.is_success(), "{method} {path}: {status}");
            }
            Ok(latencies)
        }
    });
    let latencies = futures::future::try_join_all(all).await?.concat();
    let took = began.elapsed();
    let used = process::cpu(pid)? - before;
    let count = u32::try_from(requests.len())?;
    Ok(Round {
        cpu: used.as_secs_f64() * 1e6 / f64::from(count),
        rate: f64::from(count) / took.as_secs_f64(),
        latencies,
    })
}

/// Milliseconds to the last byte of an answer, and its length in bytes.
pub(crate) async fn fetch(user: &mut Connection, path: &str) -> anyhow::Result<(f64, usize)> {
    let began = Instant::now();
    let (status, length) = user.count(Method::GET, path, Bytes::new()).await?;
    anyhow::ensure!(status.is_success(), "GET {path}: {status}");
    Ok((began.elapsed().as_secs_f64() * 1e3, length))
}

/// A figure of `/metrics`.
pub(crate) async fn metric(cluster: &Cluster, name: &str) -> anyhow::Result<f64> {
    let mut connection = cluster.connect().await?;
    let (_, body) = connection
        .read(Method::GET, "/metrics", Bytes::new())
        .await?;
    let text = String::from_utf8_lossy(&body);
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line
        .with_context(|| format!("/metrics has no {name}"))?
        .parse()?)
}

/// Events that reach `count` watchers of a namespace while somebody writes: events in a second,
/// and microseconds of the server's processor time for each.
pub(crate) async fn watchers(
    cluster: &Cluster,
    namespace: &str,
    count: usize,
    writes: usize,
) -> anyhow::Result<(f64, f64)> {
    let list = cluster
        .get(&format!("{}?limit=1", config_maps(namespace)))
        .await?;
    let revision = list["metadata"]["resourceVersion"]
        .as_str()
        .context("no revision")?;
    let path = format!(
        "{}?watch=1&resourceVersion={revision}",
        config_maps(namespace)
    );
    let seen = Arc::new(AtomicUsize::new(0));
    let mut watching = Vec::new();
    for mut user in users(&cluster.target, Protocol::Http1, count).await? {
        let (status, mut body) = user.send(Method::GET, &path, Bytes::new()).await?;
        anyhow::ensure!(status.is_success(), "watch: {status}");
        let seen = Arc::clone(&seen);
        watching.push(tokio::spawn(async move {
            // The connection lives as long as its user.
            let _user = user;
            while let Some(Ok(frame)) = body.frame().await {
                let data = frame.data_ref().map_or(&[][..], |data| data);
                let lines = memchr::memchr_iter(b'\n', data).count();
                seen.fetch_add(lines, Ordering::Relaxed);
            }
        }));
    }
    let mut writers = users(&cluster.target, Protocol::Http1, 16).await?;
    let before = process::cpu(cluster.pid())?;
    let began = Instant::now();
    drive(
        cluster.pid(),
        &mut writers,
        creates(namespace, "seen", writes),
    )
    .await?;
    while seen.load(Ordering::Relaxed) < count * writes {
        anyhow::ensure!(
            began.elapsed() < PATIENCE,
            "{count} watchers saw {} of {} events",
            seen.load(Ordering::Relaxed),
            count * writes
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = began.elapsed();
    let used = process::cpu(cluster.pid())? - before;
    for each in watching {
        each.abort();
    }
    let events = f64::from(u32::try_from(count * writes)?);
    Ok((
        events / took.as_secs_f64(),
        used.as_secs_f64() * 1e6 / events,
    ))
}
