//! All loops, killed at any moment and started again with nothing remembered, arrive at the
//! declared state: on simulated time, from seeds that are kept.
//!
//! The API is the small one of the client's tests: what it does happens at once, so that a seed
//! says what happens. Nodes are played by the test: they say that they live, run what is bound to
//! them, end what is deleted, and look after their volumes.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use evenkeel_api::local_volume;
use evenkeel_client::testing::{FakeApi, FakeClock};
use evenkeel_client::{CancellationToken, LoopContext, LoopRegistry, Recorder, SharedClock, Views};
use evenkeel_controllers::Composition;
use evenkeel_scheduler::Scheduler;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Client;
use kube::client::Body;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Seeds that run with every test; one that once failed stays here.
const SEEDS: [u64; 6] = [1, 2, 3, 5, 8, 13];
/// More of them: `EVENKEEL_SEEDS=100..200`.
const MORE: &str = "EVENKEEL_SEEDS";
/// How often the loops are killed in a run.
const CRASHES: u64 = 12;

/// Numbers from a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    }
}

fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A client of the fake that makes nothing in namespaces that go, as the real door does: without
/// that, loops and the deletion of a namespace would work against each other for ever.
fn client(fake: &FakeApi) -> Client {
    let fake = fake.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let fake = fake.clone();
        async move {
            let path = request.uri().path().to_owned();
            let namespace = path
                .split("/namespaces/")
                .nth(1)
                .and_then(|rest| rest.split('/').next());
            let goes = namespace
                .filter(|_| request.method() == http::Method::POST)
                .is_some_and(|it| {
                    let found = fake.get::<Namespace>("", it);
                    found.is_none_or(|found| found.metadata.deletion_timestamp.is_some())
                });
            // The fake keeps what it does not tell of; the scheduler asks what is served.
            let told = match path.as_str() {
                "/api/v1" => Some(("v1", "persistentvolumes", "PersistentVolume")),
                "/apis/storage.k8s.io/v1" => {
                    Some(("storage.k8s.io/v1", "storageclasses", "StorageClass"))
                }
                _ => None,
            };
            if let Some((group_version, plural, kind)) = told {
                let ours = http::Request::get(&path).body(Vec::new()).unwrap();
                let found = fake.client().request::<Value>(ours).await;
                let none = json!({"kind": "APIResourceList", "groupVersion": group_version,
                    "resources": []});
                let mut list = found.unwrap_or(none);
                list["resources"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!({"name": plural,
                    "singularName": "", "namespaced": false, "kind": kind,
                    "verbs": ["create", "delete", "get", "list", "update", "watch"]}));
                let answer = http::Response::builder().status(200);
                return Ok(answer
                    .body(Body::from(list.to_string().into_bytes()))
                    .unwrap());
            }
            if !goes {
                return fake.client().send(request).await;
            }
            let why = "because it is being terminated";
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {},
                "status": "Failure", "code": 403, "reason": "Forbidden", "message": why,
                "details": {"causes": [{"reason": "NamespaceTerminating", "message": why,
                    "field": "metadata.namespace"}]}});
            let answer = http::Response::builder().status(403);
            Ok(answer
                .body(Body::from(status.to_string().into_bytes()))
                .unwrap())
        }
    });
    Client::new(service, "default")
}

/// One life of all loops.
struct Life {
    tasks: JoinSet<()>,
    views: Views,
    shutdown: CancellationToken,
}

impl Life {
    fn begin(fake: &FakeApi, clock: &SharedClock) -> Self {
        let views = Views::new(fake.client(), Arc::clone(clock));
        let shutdown = CancellationToken::new();
        let composition = Composition {
            views: views.clone(),
            client_for: {
                let fake = fake.clone();
                Arc::new(move |_| client(&fake))
            },
            clock: Arc::clone(clock),
            shutdown: shutdown.clone(),
            metrics: LoopRegistry::default(),
            cluster_ca: "the authority".to_owned(),
            signer: None,
            secret_tokens: None,
            cluster_cidr: None,
        };
        let mut tasks = JoinSet::new();
        for each in evenkeel_controllers::all(&composition) {
            tasks.spawn(each.run);
        }
        let scheduler = Scheduler::new(LoopContext {
            views: views.clone(),
            client: client(fake),
            recorder: Recorder::new(client(fake), Arc::clone(clock), "default-scheduler", ""),
            clock: Arc::clone(clock),
            shutdown: shutdown.clone(),
            metrics: LoopRegistry::default(),
        });
        tasks.spawn(scheduler.run());
        Self {
            tasks,
            views,
            shutdown,
        }
    }

    /// Everything ends where it stands.
    async fn killed(mut self) {
        // Nothing runs between the two: whatever a loop may have spawned ends as well.
        self.shutdown.cancel();
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        self.views.shutdown().await;
    }
}

const NODES: [&str; 2] = ["one", "two"];

fn node(name: &str) -> Node {
    read(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name},
            "annotations": {local_volume::DIRECTORY: "/volumes"}},
        "spec": {},
        "status": {
            "allocatable": {"cpu": "64", "memory": "256Gi", "pods": "110"},
            "capacity": {"cpu": "64", "memory": "256Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        },
    }))
}

/// What the machines do, again and again.
async fn machines(fake: FakeApi, clock: SharedClock) {
    let mut beat = 0_u64;
    loop {
        if beat.is_multiple_of(20) {
            for name in NODES {
                heartbeat(&fake, name, &clock);
            }
        }
        beat += 1;
        for pod in fake.all::<Pod>() {
            run(&fake, pod);
        }
        for volume in fake.all::<PersistentVolume>() {
            look_after(&fake, volume);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn heartbeat(fake: &FakeApi, name: &str, clock: &SharedClock) {
    let now = evenkeel_api::clock::rfc3339_micro(clock.now());
    fake.put::<Lease>(&read(json!({
        "metadata": {"name": name, "namespace": "kube-node-lease"},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now},
    })));
    let mut found = fake.get::<Node>("", name).unwrap();
    let status = found.status.get_or_insert_default();
    let ready = status
        .conditions
        .iter()
        .flatten()
        .any(|it| it.type_ == "Ready" && it.status == "True");
    if !ready {
        status.conditions = node(name).status.unwrap().conditions;
        fake.put(&found);
    }
}

/// An address of its own for each pod: the fake counts uids up.
fn address(pod: &Pod) -> String {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let number = uid
        .rsplit('-')
        .next()
        .and_then(|it| u64::from_str_radix(it, 16).ok());
    let number = number.unwrap_or(0);
    format!("10.1.{}.{}", number / 250 % 250, number % 250 + 1)
}

fn run(fake: &FakeApi, mut pod: Pod) {
    let bound = pod
        .spec
        .as_ref()
        .is_some_and(|spec| spec.node_name.is_some());
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let name = pod.metadata.name.clone().unwrap_or_default();
    let held = pod.metadata.finalizers.iter().flatten().next().is_some();
    let phase = pod
        .status
        .as_ref()
        .and_then(|it| it.phase.clone())
        .unwrap_or_default();
    let ended = matches!(phase.as_str(), "Succeeded" | "Failed");
    if !bound {
        return;
    }
    if pod.metadata.deletion_timestamp.is_some() {
        if !held {
            fake.remove::<Pod>(&namespace, &name);
        } else if !ended || pod.metadata.deletion_grace_period_seconds != Some(0) {
            pod.metadata.deletion_grace_period_seconds = Some(0);
            if !ended {
                pod.status = Some(read(json!({"phase": "Failed"})));
            }
            fake.put(&pod);
        }
        return;
    }
    let finishes = pod
        .spec
        .as_ref()
        .and_then(|it| it.restart_policy.as_deref())
        == Some("Never");
    let next = match phase.as_str() {
        "Running" if finishes => json!({"phase": "Succeeded"}),
        "" | "Pending" => {
            let ip = address(&pod);
            json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                "startTime": "2026-01-01T00:00:00Z",
                "conditions": [{"type": "Ready", "status": "True",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
        }
        _ => return,
    };
    pod.status = Some(read(next));
    fake.put(&pod);
}

fn look_after(fake: &FakeApi, mut volume: PersistentVolume) {
    let finalizers = volume.metadata.finalizers.clone().unwrap_or_default();
    let annotations = volume.metadata.annotations.get_or_insert_default();
    let name = volume.metadata.name.clone().unwrap_or_default();
    if volume.metadata.deletion_timestamp.is_none() {
        if annotations
            .insert(local_volume::MADE.to_owned(), "1Gi".to_owned())
            .is_none()
        {
            fake.put(&volume);
        }
    } else if finalizers == [local_volume::FINALIZER] {
        fake.remove::<PersistentVolume>("", &name);
    }
}

fn template(app: &str, image: &str, more: &Value) -> Value {
    let mut spec = json!({"containers": [{"name": "main", "image": image}],
        "schedulerName": "default-scheduler", "terminationGracePeriodSeconds": 1,
        "restartPolicy": "Always"});
    for (name, value) in more.as_object().unwrap() {
        spec[name] = value.clone();
    }
    json!({"metadata": {"labels": {"app": app}}, "spec": spec})
}

fn deployment(replicas: i32, image: &str) -> Deployment {
    read(json!({
        "metadata": {"name": "web", "namespace": "a", "generation": 1},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": template("web", image, &json!({})),
        },
    }))
}

fn stateful_set(replicas: i32) -> StatefulSet {
    read(json!({
        "metadata": {"name": "db", "namespace": "a", "generation": 1},
        "spec": {
            "replicas": replicas, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
            "podManagementPolicy": "OrderedReady", "revisionHistoryLimit": 10,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "persistentVolumeClaimRetentionPolicy":
                {"whenDeleted": "Retain", "whenScaled": "Delete"},
            "template": template("db", "db:1", &json!({})),
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": local_volume::CLASS,
                "resources": {"requests": {"storage": "1Gi"}}}}],
        },
    }))
}

/// What people do, one after the other, whenever the loops happen to be.
fn intent(fake: &FakeApi, number: u64) {
    let bump = |value: &mut Value| {
        let generation = value["metadata"]["generation"].as_i64().unwrap_or(1);
        value["metadata"]["generation"] = json!(generation + 1);
    };
    match number {
        0 => {
            fake.put(&deployment(3, "web:1"));
            fake.put::<Service>(&read(json!({"metadata": {"name": "web", "namespace": "a"},
                "spec": {"selector": {"app": "web"}, "clusterIP": "10.96.0.5",
                    "clusterIPs": ["10.96.0.5"], "ipFamilies": ["IPv4"],
                    "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}]}})));
        }
        1 => {
            fake.put(&stateful_set(3));
        }
        2 => {
            fake.put::<DaemonSet>(&read(json!({
                "metadata": {"name": "each", "namespace": "a", "generation": 1},
                "spec": {"selector": {"matchLabels": {"app": "each"}}, "revisionHistoryLimit": 10,
                    "updateStrategy": {"type": "RollingUpdate",
                        "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
                    "template": template("each", "each:1", &json!({}))},
            })));
        }
        3 => {
            fake.put::<Job>(&read(json!({
                "metadata": {"name": "once", "namespace": "a", "generation": 1},
                "spec": {"completions": 4, "parallelism": 2, "backoffLimit": 6,
                    "completionMode": "NonIndexed", "suspend": false,
                    "selector": {"matchLabels": {"app": "once"}},
                    "template": template("once", "once:1", &json!({"restartPolicy": "Never"}))},
            })));
        }
        // A rollout in the middle of whatever else.
        4 => {
            let found = fake.get::<Deployment>("a", "web").unwrap();
            let mut value = serde_json::to_value(found).unwrap();
            bump(&mut value);
            value["spec"]["template"] = template("web", "web:2", &json!({}));
            value["spec"]["replicas"] = 4.into();
            fake.put::<Deployment>(&read(value));
        }
        // Claims of the members that go are deleted, as the set says.
        5 => {
            let found = fake.get::<StatefulSet>("a", "db").unwrap();
            let mut value = serde_json::to_value(found).unwrap();
            bump(&mut value);
            value["spec"]["replicas"] = 2.into();
            fake.put::<StatefulSet>(&read(value));
        }
        // A namespace with things in it goes.
        6 => {
            let mut other = deployment(2, "web:1");
            other.metadata.namespace = Some("gone".to_owned());
            fake.put(&other);
        }
        7 => {
            let mut going = fake.get::<Namespace>("", "gone").unwrap();
            going.metadata.deletion_timestamp = Some(read(json!("2026-01-01T00:00:00Z")));
            going.status = Some(read(json!({"phase": "Terminating"})));
            fake.put(&going);
        }
        // Somebody deletes pods by hand.
        8 => {
            let pods = fake.all::<Pod>();
            let of_web = |pod: &Pod| {
                pod.metadata
                    .labels
                    .as_ref()
                    .and_then(|all| all.get("app"))
                    .map(String::as_str)
                    == Some("web")
            };
            for pod in pods.into_iter().filter(of_web).take(2) {
                let namespace = pod.metadata.namespace.unwrap_or_default();
                fake.remove::<Pod>(&namespace, &pod.metadata.name.unwrap_or_default());
            }
        }
        _ => {}
    }
}

/// What is not as declared yet; empty when all is.
fn differs(fake: &FakeApi) -> Vec<String> {
    let mut out = Vec::new();
    let mut wants = |holds: bool, what: String| {
        if !holds {
            out.push(what);
        }
    };
    let pods = fake.all::<Pod>();
    let of = |app: &str| -> Vec<&Pod> {
        let labelled = pods.iter().filter(|pod| {
            let labels = pod.metadata.labels.as_ref();
            labels
                .and_then(|all| all.get("app"))
                .is_some_and(|found| found == app)
        });
        labelled.collect()
    };
    let ready = |pod: &&&Pod| {
        let status = pod.status.as_ref();
        pod.metadata.deletion_timestamp.is_none()
            && status.and_then(|it| it.phase.as_deref()) == Some("Running")
    };
    let web = of("web");
    let image = |pod: &&&Pod| {
        pod.spec
            .as_ref()
            .is_some_and(|it| it.containers[0].image.as_deref() == Some("web:2"))
    };
    wants(
        web.len() == 4 && web.iter().filter(ready).filter(image).count() == 4,
        format!("{} pods of web", web.len()),
    );
    let deployment = fake.get::<Deployment>("a", "web").and_then(|it| it.status);
    let counts = deployment.map(|it| (it.replicas, it.ready_replicas, it.updated_replicas));
    wants(
        counts == Some((Some(4), Some(4), Some(4))),
        format!("web says {counts:?}"),
    );
    let sets = fake.all::<ReplicaSet>();
    let alive = sets
        .iter()
        .filter(|set| set.spec.replicas.unwrap_or(0) > 0)
        .count();
    wants(
        sets.len() <= 2 && alive == 1,
        format!("{alive} of {} replica sets", sets.len()),
    );
    let addresses: usize = fake
        .all::<EndpointSlice>()
        .iter()
        .map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len))
        .sum();
    wants(addresses == 4, format!("{addresses} endpoints"));

    let names = |pods: &[&Pod]| -> Vec<String> {
        let mut names: Vec<String> = pods
            .iter()
            .filter_map(|it| it.metadata.name.clone())
            .collect();
        names.sort();
        names
    };
    let db = of("db");
    wants(
        names(&db) == ["db-0", "db-1"] && db.iter().filter(ready).count() == 2,
        format!("members {:?}", names(&db)),
    );
    let claims = fake.all::<PersistentVolumeClaim>();
    let bound: Vec<String> = claims
        .iter()
        .filter(|it| it.status.as_ref().and_then(|it| it.phase.as_deref()) == Some("Bound"))
        .filter_map(|it| it.metadata.name.clone())
        .collect();
    wants(
        bound == ["data-db-0", "data-db-1"] && claims.len() == 2,
        format!("{} claims, bound {bound:?}", claims.len()),
    );
    // Each volume is some claim's, and none was made twice.
    let volumes = fake.all::<PersistentVolume>();
    let held = volumes.iter().filter(|volume| {
        let held = volume
            .spec
            .as_ref()
            .and_then(|spec| spec.claim_ref.as_ref());
        claims
            .iter()
            .any(|claim| held.is_some_and(|held| held.uid == claim.metadata.uid))
    });
    let held = held.count();
    wants(
        held == 2 && volumes.len() == 2,
        format!("{held} of {} volumes", volumes.len()),
    );

    let each = of("each");
    wants(
        each.len() == 2 && each.iter().filter(ready).count() == 2,
        format!("{} daemons", each.len()),
    );
    let job = fake
        .get::<Job>("a", "once")
        .and_then(|it| it.status)
        .unwrap_or_default();
    let complete = job
        .conditions
        .iter()
        .flatten()
        .any(|it| it.type_ == "Complete" && it.status == "True");
    wants(
        complete && job.succeeded == Some(4) && job.failed.unwrap_or(0) == 0,
        format!("the job counts {:?}", job.succeeded),
    );
    wants(
        of("once").len() == 4,
        format!("{} pods of the job", of("once").len()),
    );
    wants(
        fake.get::<Namespace>("", "gone").is_none(),
        "the namespace stays".to_owned(),
    );
    let left = pods
        .iter()
        .filter(|pod| pod.metadata.namespace.as_deref() == Some("gone"))
        .count();
    wants(
        left == 0,
        format!("{left} pods in the namespace that is gone"),
    );
    out
}

async fn converges(seed: u64) {
    let clock = FakeClock::shared();
    let fake = FakeApi::new(Arc::clone(&clock));
    for name in ["a", "gone", "kube-node-lease"] {
        fake.put::<Namespace>(&read(json!({"metadata": {"name": name},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}})));
    }
    for name in NODES {
        fake.put(&node(name));
    }
    let machines = tokio::spawn(machines(fake.clone(), Arc::clone(&clock)));
    let mut dice = Dice(seed);
    let mut next_intent = 0;
    for _ in 0..CRASHES {
        let life = Life::begin(&fake, &clock);
        // So long it lives: often not even until its views are filled.
        let lives = match dice.roll(3) {
            0 => dice.roll(20),
            1 => dice.roll(500),
            _ => dice.roll(4000),
        };
        for _ in 0..dice.roll(3) {
            tokio::time::sleep(Duration::from_millis(lives / 3)).await;
            intent(&fake, next_intent);
            next_intent += 1;
            let (verb, resource) = [
                ("create", "pods"),
                ("update", "persistentvolumes"),
                ("update", "persistentvolumeclaims/status"),
                ("update", "deployments/status"),
                ("create", "persistentvolumes"),
                ("delete", "pods"),
            ][usize::try_from(dice.roll(6)).unwrap()];
            fake.fail_next(verb, resource, 500, "InternalError", "a fault of the test");
        }
        tokio::time::sleep(Duration::from_millis(lives)).await;
        life.killed().await;
        if dice.roll(4) == 0 {
            fake.compact();
        }
    }
    while next_intent < 9 {
        intent(&fake, next_intent);
        next_intent += 1;
    }
    let life = Life::begin(&fake, &clock);
    let arrives = async {
        while !differs(&fake).is_empty() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    // Simulated: what waited longest before a crash is looked at anew after it.
    if tokio::time::timeout(Duration::from_secs(3600), arrives)
        .await
        .is_err()
    {
        panic!("seed {seed} does not arrive: {:?}", differs(&fake));
    }
    // And stays there.
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(
        differs(&fake),
        Vec::<String>::new(),
        "seed {seed} does not stay"
    );
    assert!(fake.get::<StorageClass>("", local_volume::CLASS).is_some());
    life.killed().await;
    machines.abort();
}

fn seeds() -> Vec<u64> {
    let asked = std::env::var(MORE).ok();
    let range = asked.as_deref().and_then(|text| {
        let (from, to) = text.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    });
    range.map_or_else(|| SEEDS.to_vec(), Iterator::collect)
}

#[test]
fn all_loops_converge_whenever_they_are_killed() {
    for seed in seeds() {
        // A runtime of its own: nothing of one run is left in the next.
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(converges(seed));
    }
}
