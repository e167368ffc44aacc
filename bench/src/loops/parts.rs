//! What is measured, part by part. Runs in a process of its own.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use evenkeel_store::Store as _;
use k8s_openapi::api::apps::v1::ReplicaSet;
use serde_json::{Value, json};

use super::agents::send;
use super::world::{World, ms, pod, tell, until};
use super::{Part, PartArgs};
use crate::process;

const PODS: &str = "/api/v1/namespaces/load/pods";
const MEBIBYTE: f64 = 1_048_576.0;

/// Measures one part.
pub(crate) async fn part(args: PartArgs) -> anyhow::Result<()> {
    match args.part {
        Part::Bind => {
            backlog(
                "bind",
                "3,000 pods onto 1,000 nodes",
                3_000,
                1_000,
                &json!({}),
            )
            .await
        }
        Part::Constrained => constrained().await,
        Part::Large => {
            backlog(
                "large",
                "30,000 pods onto 5,000 nodes",
                30_000,
                5_000,
                &json!({}),
            )
            .await
        }
        Part::Deployment => deployment().await,
        Part::Reaction => reaction().await,
        Part::Rest => rest().await,
    }
}

fn cpu() -> anyhow::Result<Duration> {
    process::cpu(std::process::id())
}

/// The most memory that this process has had, in MiB.
fn peak() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes: f64 = line
        .and_then(|line| line.split_whitespace().next())
        .context("no VmHWM")?
        .parse()?;
    Ok(kibibytes / 1024.0)
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

/// Pods that are there when the scheduler starts: the rate from the first binding to the last.
async fn backlog(
    id: &str,
    what: &str,
    pods: usize,
    nodes: usize,
    spec: &Value,
) -> anyhow::Result<()> {
    let mut world = World::of(nodes).await?;
    let all = (0..pods).map(|at| pod(&format!("pod-{at:05}"), "web", spec));
    world.write(PODS, all).await?;
    let (used, before) = (cpu()?, world.cluster.store().stats().await?);
    world.cluster.run_scheduler();
    let bound = world.bound("load", pods).await?;
    let took = bound.last - bound.first;
    let after = world.cluster.store().stats().await?;
    let each = (cpu()? - used).as_secs_f64() * 1e6 / count(pods);
    tell(
        &format!("{id}.rate"),
        &format!("{what}, first to last binding"),
        "/s",
        &[count(pods) / took.as_secs_f64()],
    );
    tell(
        &format!("{id}.cpu"),
        "  processor time of the whole process for each",
        "µs",
        &[each],
    );
    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    let share = (after.txns - before.txns) as f64 / (after.fsyncs - before.fsyncs).max(1) as f64;
    tell(
        &format!("{id}.group"),
        "  writes that one fsync makes durable",
        "",
        &[share],
    );
    world.running(pods).await?;
    tell(
        &format!("{id}.running"),
        "  until all are reported Running",
        "ms",
        &[ms(bound.first.elapsed())],
    );
    tell(&format!("{id}.memory"), "  most memory", "MiB", &[peak()?]);
    anyhow::ensure!(world.agents.len() == nodes, "nodes were lost");
    Ok(())
}

async fn constrained() -> anyhow::Result<()> {
    let selector = json!({"matchLabels": {"app": "web"}});
    let spec = json!({
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": selector, "topologyKey": "kubernetes.io/hostname"}]}},
        "topologySpreadConstraints": [{"maxSkew": 1, "labelSelector": selector,
            "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}],
    });
    let what = "1,000 pods, required anti-affinity and spread, onto 1,000 nodes";
    backlog("constrained", what, 1_000, 1_000, &spec).await
}

async fn deployment() -> anyhow::Result<()> {
    const REPLICAS: usize = 1_000;
    let mut world = World::of(1_000).await?;
    world.cluster.run_scheduler();
    let container = pod("web", "web", &json!({}))["spec"].clone();
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "load"},
        "spec": {"replicas": REPLICAS, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": container}}});
    let path = "/apis/apps/v1/namespaces/load/deployments";
    let began = Instant::now();
    let created = async {
        until("created pods", || async {
            Ok((world.pods.in_namespace("load").len() == REPLICAS).then(|| began.elapsed()))
        })
        .await
    };
    let write = async { send(&world.client, "POST", path, "application/json", &deployment).await };
    let (created, bound, written) = tokio::join!(created, world.bound("load", REPLICAS), write);
    written?;
    let what = "Deployment of 1,000 replicas";
    let took = |end: Duration| [ms(end)];
    tell(
        "deployment.created",
        &format!("{what}: all pods created"),
        "ms",
        &took(created?),
    );
    tell(
        "deployment.bound",
        "  all bound",
        "ms",
        &took(bound?.last - began),
    );
    world.running(REPLICAS).await?;
    tell(
        "deployment.running",
        "  all reported Running",
        "ms",
        &took(began.elapsed()),
    );
    let began = Instant::now();
    let space = "/api/v1/namespaces/load";
    send(
        &world.client,
        "DELETE",
        space,
        "application/json",
        &json!({}),
    )
    .await?;
    until("the end of the namespace", || async {
        let got = world
            .client
            .request_text(http::Request::get(space).body(Vec::new())?);
        Ok(got.await.is_err().then_some(()))
    })
    .await?;
    tell(
        "deployment.namespace",
        "  its namespace deleted with everything in it",
        "ms",
        &took(began.elapsed()),
    );
    Ok(())
}

/// From the answer to a write to what a loop does about it.
async fn reaction() -> anyhow::Result<()> {
    const SAMPLES: usize = 200;
    let mut world = World::of(100).await?;
    world.cluster.run_scheduler();
    let sets = world.cluster.views().of::<ReplicaSet>();
    sets.synced().await;
    let (mut bindings, mut replica_sets) = (Vec::new(), Vec::new());
    for at in 0..SAMPLES {
        let name = format!("one-{at}");
        let mut changes = world.pods.subscribe();
        let object = pod(&name, "one", &json!({}));
        send(&world.client, "POST", PODS, "application/json", &object).await?;
        let answered = Instant::now();
        loop {
            let change = changes.next().await;
            let latest = change.latest();
            let spec = latest.spec.as_ref();
            if latest.metadata.name.as_deref() == Some(&name)
                && spec.is_some_and(|spec| spec.node_name.is_some())
            {
                break;
            }
        }
        bindings.push(ms(answered.elapsed()));
        let mut changes = sets.subscribe();
        let object = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "namespace": "load"},
            "spec": {"replicas": 0, "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}},
                    "spec": {"containers": [{"name": "main", "image": "pause"}]}}}});
        let path = "/apis/apps/v1/namespaces/load/deployments";
        send(&world.client, "POST", path, "application/json", &object).await?;
        let answered = Instant::now();
        loop {
            let change = changes.next().await;
            let owners = change.latest().metadata.owner_references.iter().flatten();
            if owners.into_iter().any(|owner| owner.name == name) {
                break;
            }
        }
        replica_sets.push(ms(answered.elapsed()));
    }
    tell(
        "reaction.binding",
        "pod written to binding seen",
        "ms",
        &bindings,
    );
    tell(
        "reaction.replicaset",
        "Deployment written to its ReplicaSet seen",
        "ms",
        &replica_sets,
    );
    Ok(())
}

/// Everything is there and nothing happens but heartbeats.
async fn rest() -> anyhow::Result<()> {
    const PODS_AT_REST: usize = 150_000;
    const WATCHED: Duration = Duration::from_secs(30);
    let mut world = World::of(5_000).await?;
    world.cluster.run_scheduler();
    let all = (0..PODS_AT_REST).map(|at| pod(&format!("pod-{at:06}"), "web", &json!({})));
    let began = Instant::now();
    world.write(PODS, all).await?;
    world.running(PODS_AT_REST).await?;
    tell(
        "rest.filled",
        "150,000 pods onto 5,000 nodes, written to Running",
        "s",
        &[began.elapsed().as_secs_f64()],
    );
    // What the filling has left to do, such as events and compaction, is not rest.
    tokio::time::sleep(WATCHED).await;
    let (used, since) = (cpu()?, Instant::now());
    tokio::time::sleep(WATCHED).await;
    let share = (cpu()? - used).as_secs_f64() / since.elapsed().as_secs_f64();
    tell(
        "rest.cpu",
        "  at rest, heartbeats going on",
        "% of a core",
        &[share * 100.0],
    );
    let memory = process::memory(std::process::id())?.rss;
    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    let memory = memory as f64 / MEBIBYTE;
    tell("rest.memory", "  memory", "MiB", &[memory]);
    Ok(())
}
