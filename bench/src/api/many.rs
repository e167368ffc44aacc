//! Very many objects: memory, a list by chunks beside other clients, and the next start.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;

use super::{Api, double, settled};
use crate::client::Protocol;
use crate::cluster::{Cluster, Place};
use crate::load;
use crate::measure::{Measure, percentile};

/// Objects of a chunk, as clients ask for them.
const CHUNK: usize = 500;
/// Spaces that the objects are in.
const SPACES: usize = 10;

impl Api<'_> {
    pub(super) async fn many(&mut self, place: &Place) -> anyhow::Result<()> {
        let (cluster, _) = place.start().await?;
        let outcome = self.many_on(&cluster).await;
        cluster.stop()?;
        outcome?;
        let nothing: Vec<f64> = (0..5)
            .map(|_| place.nothing().map(|took| took.as_secs_f64() * 1e3))
            .collect::<anyhow::Result<_>>()?;
        let mut ready = Vec::new();
        for _ in 0..self.rounds.min(3) {
            let (cluster, took) = place.start().await?;
            ready.push(took.as_secs_f64() * 1e3);
            cluster.stop()?;
        }
        let objects = self.args.objects;
        self.add(
            Measure::new(
                format!("start with {objects} objects to /readyz"),
                "ms",
                ready,
            )
            .floor(percentile(&nothing, 0.5), "`evenkeel version`")
            .below(3_000.0),
        )
    }

    async fn many_on(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        let objects = self.args.objects;
        let before = settled(cluster).await?;
        let mut users = load::users(&cluster.target, Protocol::Http1, 64).await?;
        for space in 0..SPACES {
            let space = format!("many-{space}");
            load::namespace(cluster, &space).await?;
            let requests = load::creates(&space, "m", objects / SPACES);
            load::drive(cluster.pid(), &mut users, requests).await?;
        }
        let mut user = cluster.connect().await?;
        let one = load::config_maps("many-0") + "/m-00000";
        let (_, bytes) = load::fetch(&mut user, &one).await?;
        let each = (settled(cluster).await? - before) / double(objects as u64);
        self.add(
            Measure::new(
                format!("memory of an object beyond its own {bytes} bytes, {objects} objects"),
                "bytes",
                vec![each - double(bytes as u64)],
            )
            .below(2.5 * 1024.0),
        )?;

        // Somebody else reads all the time.
        let listed = Arc::new(AtomicBool::new(false));
        let reader = {
            let (listed, mut user) = (Arc::clone(&listed), cluster.connect().await?);
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while !listed.load(Ordering::Relaxed) {
                    latencies.push(load::fetch(&mut user, &one).await?.0);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                Ok::<_, anyhow::Error>(latencies)
            })
        };
        let began = Instant::now();
        let (mut token, mut found) = (String::new(), 0);
        loop {
            let path = format!("/api/v1/configmaps?limit={CHUNK}&continue={token}");
            let (status, body) = user.read(Method::GET, &path, Bytes::new()).await?;
            anyhow::ensure!(status.is_success(), "list: {status}");
            let needle = b"\"kind\":\"ConfigMap\"";
            found += body
                .windows(needle.len())
                .filter(|window| window == needle)
                .count();
            // The metadata of a list stands in front.
            let head = String::from_utf8_lossy(&body[..body.len().min(512)]).into_owned();
            let next = head.split("\"continue\":\"").nth(1);
            match next.and_then(|rest| rest.split('"').next()) {
                Some(next) => next.clone_into(&mut token),
                None => break,
            }
        }
        let took = began.elapsed().as_secs_f64() * 1e3;
        listed.store(true, Ordering::Relaxed);
        anyhow::ensure!(found >= objects, "{found} of {objects} objects were listed");
        let others = reader.await??;
        self.add(Measure::new(
            format!("LIST of {found} objects by chunks of {CHUNK}"),
            "ms",
            vec![took],
        ))?;
        let longest = others.iter().copied().fold(0.0, f64::max);
        self.add(Measure::new(
            "  a GET of somebody else meanwhile",
            "ms",
            others,
        ))?;
        self.add(Measure::new("  the longest of them", "ms", vec![longest]).below(100.0))
    }
}
