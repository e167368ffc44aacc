//! `kill -9` under write load, over and over: what was acknowledged is there, and no watch skips
//! or repeats an event. `EVENKEEL_CRASH_ROUNDS` says how often (5 when unset).

mod history;
mod image;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::instance::{Instance, LIMIT, evenkeel, free_port, is_root, until};
use futures::{StreamExt as _, TryStreamExt as _};
use history::{Done, Line, Seen, Write, compare};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use rand::Rng as _;
use serde_json::json;

const WRITERS: usize = 8;
const KEYS: usize = 6;
const WATCHERS: usize = 3;
const MARKER: &str = "marker";

fn rounds() -> usize {
    std::env::var("EVENKEEL_CRASH_ROUNDS")
        .ok()
        .map_or(5, |text| text.parse().unwrap())
}

fn map(name: &str, number: u64) -> ConfigMap {
    // Some are larger than a page of the store, so that a torn write would show.
    let filler = "x".repeat(usize::try_from(number % 7).unwrap() * 900);
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "data": {"number": number.to_string(), "filler": filler},
    }))
    .unwrap()
}

fn number(map: &ConfigMap) -> u64 {
    let data = map.data.as_ref().unwrap();
    let number: u64 = data["number"].parse().unwrap();
    let filler = usize::try_from(number % 7).unwrap() * 900;
    assert_eq!(data["filler"].len(), filler, "half an object: {map:?}");
    number
}

fn revision(map: &ConfigMap) -> u64 {
    map.metadata
        .resource_version
        .as_deref()
        .unwrap()
        .parse()
        .unwrap()
}

/// The server answered, and the answer is no: a fault of the test or of the server, not a crash.
fn refused(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(_))
}

/// Writes keys of its own until the server is gone.
async fn write(
    api: Api<ConfigMap>,
    mut lines: BTreeMap<String, Line>,
    numbers: Arc<AtomicU64>,
    acknowledged: Arc<AtomicU64>,
) -> BTreeMap<String, Line> {
    let names: Vec<String> = lines.keys().cloned().collect();
    loop {
        let name = &names[rand::rng().random_range(0..names.len())];
        let line = lines.get_mut(name).unwrap();
        let next = numbers.fetch_add(1, Ordering::Relaxed);
        let now = line.now();
        let choice = rand::rng().random_range(0..4);
        let (write, answer) = match (now, choice) {
            (None, _) => (
                Write::Put(next),
                api.create(&PostParams::default(), &map(name, next))
                    .await
                    .map(Some),
            ),
            (Some(_), 0) => {
                let answer = api.delete(name, &DeleteParams::default()).await;
                (Write::Delete, answer.map(|_| None))
            }
            (Some(_), 1) => {
                let patch = Patch::Merge(map(name, next));
                let answer = api.patch(name, &PatchParams::default(), &patch).await;
                (Write::Put(next), answer.map(Some))
            }
            (Some((_, seen)), _) => {
                let mut new = map(name, next);
                new.metadata.resource_version = Some(seen.to_string());
                (
                    Write::Put(next),
                    api.replace(name, &PostParams::default(), &new)
                        .await
                        .map(Some),
                )
            }
        };
        match answer {
            Ok(stored) => {
                let revision = stored.as_ref().map(revision);
                line.done.push(Done { write, revision });
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if refused(&error) => panic!("{name}: {write:?} is refused: {error}"),
            Err(_) => {
                line.open = Some(write);
                return lines;
            }
        }
    }
}

/// Watches through all crashes, going on from the last revision it saw, until it sees the marker.
async fn watch(api: Api<ConfigMap>, mut last: u64, stop: Arc<AtomicBool>) -> (Seen, u64) {
    let mut seen = Seen::new();
    let mut reconnects = 0;
    loop {
        let params = WatchParams::default().timeout(60);
        let events = match api.watch(&params, &last.to_string()).await {
            Ok(events) => events,
            Err(error) if refused(&error) => panic!("a watch from {last} is refused: {error}"),
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(10)).await;
                if stop.load(Ordering::Relaxed) {
                    return (seen, reconnects);
                }
                continue;
            }
        };
        reconnects += 1;
        let mut events = events.boxed();
        // An error here is the crash; the connection is gone.
        while let Ok(Some(event)) = events.try_next().await {
            let (write, object) = match event {
                WatchEvent::Added(object) => {
                    let known = seen.get(object.metadata.name.as_ref().unwrap());
                    let gone = known.and_then(|seen: &Vec<_>| seen.last());
                    assert!(
                        !matches!(gone, Some((Write::Put(_), _))),
                        "ADDED twice: {object:?}"
                    );
                    (Write::Put(number(&object)), object)
                }
                WatchEvent::Modified(object) => (Write::Put(number(&object)), object),
                WatchEvent::Deleted(object) => (Write::Delete, object),
                WatchEvent::Bookmark(_) => continue,
                WatchEvent::Error(status) => panic!("a watch from {last} failed: {status:?}"),
            };
            let at = revision(&object);
            assert!(at > last, "revision {at} after {last}: {object:?}");
            last = at;
            let name = object.metadata.name.unwrap();
            if name == MARKER {
                return (seen, reconnects);
            }
            seen.entry(name).or_default().push((write, at));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_and_watches_survive_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let port = free_port();
    let mut instance = Instance::start(&data, port, &["--no-node"]);
    let first = instance.ready().await;
    let client = instance.client().await;
    let namespace = json!({"metadata": {"name": "crash"}});
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
    namespaces
        .create(
            &PostParams::default(),
            &serde_json::from_value(namespace).unwrap(),
        )
        .await
        .unwrap();
    let api: Api<ConfigMap> = Api::namespaced(client, "crash");
    // The loop that publishes the root certificate writes here too; wait, then leave it out.
    until("the root certificate", LIMIT, async || {
        api.get_opt("kube-root-ca.crt").await.ok()?
    })
    .await;
    let start = api
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    let start: u64 = start.parse().unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let mut watchers = Vec::new();
    for _ in 0..WATCHERS {
        let api = Api::namespaced(instance.client().await, "crash");
        watchers.push(tokio::spawn(watch(api, start, Arc::clone(&stop))));
    }
    let (numbers, acknowledged) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicU64::new(0)));
    let mut written: Vec<BTreeMap<String, Line>> = (0..WRITERS)
        .map(|writer| {
            (0..KEYS)
                .map(|key| (format!("w{writer}-{key}"), Line::default()))
                .collect()
        })
        .collect();
    let mut highest = start;
    let mut times = Vec::new();
    let rounds = rounds();
    for round in 0..rounds {
        let mut writers = Vec::new();
        for lines in written.drain(..) {
            let api = Api::namespaced(instance.client().await, "crash");
            let (numbers, acknowledged) = (Arc::clone(&numbers), Arc::clone(&acknowledged));
            writers.push(tokio::spawn(write(api, lines, numbers, acknowledged)));
        }
        let load = Duration::from_millis(rand::rng().random_range(20..600));
        tokio::time::sleep(load).await;
        instance.kill();
        for writer in writers {
            written.push(writer.await.unwrap());
        }
        // Every third time it is killed again while it starts.
        if round % 3 == 2 {
            instance = Instance::start(&data, port, &["--no-node"]);
            let during = Duration::from_millis(rand::rng().random_range(0..250));
            tokio::time::sleep(during).await;
            instance.kill();
        }
        instance = Instance::start(&data, port, &["--no-node"]);
        times.push(instance.ready().await);

        let api: Api<ConfigMap> = Api::namespaced(instance.client().await, "crash");
        let list = api.list(&ListParams::default()).await.unwrap();
        let now: u64 = list
            .metadata
            .resource_version
            .as_ref()
            .unwrap()
            .parse()
            .unwrap();
        let known = written
            .iter()
            .flat_map(BTreeMap::values)
            .flat_map(|line| &line.done);
        let most = known
            .filter_map(|done| done.revision)
            .max()
            .unwrap_or(0)
            .max(highest);
        assert!(
            now >= most,
            "the revision fell from {most} to {now} in round {round}"
        );
        highest = now;
        let shown: BTreeMap<String, (u64, u64)> = list
            .items
            .iter()
            .filter(|map| map.metadata.name.as_deref().unwrap().starts_with('w'))
            .map(|map| {
                (
                    map.metadata.name.clone().unwrap(),
                    (number(map), revision(map)),
                )
            })
            .collect();
        for (key, line) in written.iter_mut().flatten() {
            line.settle(key, shown.get(key).copied());
        }
    }

    let api: Api<ConfigMap> = Api::namespaced(instance.client().await, "crash");
    api.create(&PostParams::default(), &map(MARKER, 0))
        .await
        .unwrap();
    let written: BTreeMap<String, Line> = written.into_iter().flatten().collect();
    let mut reconnects = 0;
    for watcher in watchers {
        let (seen, count) = tokio::time::timeout(LIMIT, watcher)
            .await
            .unwrap_or_else(|_| panic!("a watcher missed the marker:\n{}", instance.log()))
            .unwrap();
        compare(&written, &seen);
        reconnects += count;
    }
    stop.store(true, Ordering::Relaxed);
    assert!(instance.stop().success(), "{}", instance.log());
    times.sort();
    println!(
        "crash: {rounds} kills under load, {} writes acknowledged, {WATCHERS} watchers with \
         {reconnects} connections; ready first in {first:?}, again in {:?} (median), {:?} (worst)",
        acknowledged.load(Ordering::Relaxed),
        times.get(times.len() / 2).copied().unwrap_or_default(),
        times.last().copied().unwrap_or_default(),
    );
}

/// Networks that no other test takes.
const NETWORKS: [&str; 4] = [
    "--cluster-cidr",
    "10.200.0.0/16",
    "--service-cidr",
    "10.230.0.0/16",
];

/// Takes everything of a node out of the kernel, also when the test fails.
struct Clean(std::path::PathBuf);

impl Drop for Clean {
    fn drop(&mut self) {
        let mut command = evenkeel();
        command
            .arg("clean")
            .arg("--data-dir")
            .arg(&self.0)
            .args(NETWORKS);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() && !std::thread::panicking() {
            panic!("clean: {text}");
        }
    }
}

/// Process and start time (clock ticks since boot) of the one that runs a program of this name.
fn process(program: &str) -> Option<(u32, String)> {
    let found = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .find_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let exe = std::fs::read_link(entry.path().join("exe")).ok()?;
            (exe.file_name()? == program).then_some(pid)
        })?;
    let stat = std::fs::read_to_string(format!("/proc/{found}/stat")).ok()?;
    // The name in parentheses may hold spaces; fields are counted after it.
    let start = stat.rsplit(") ").next()?.split(' ').nth(19)?.to_owned();
    Some((found, start))
}

#[cfg(target_arch = "x86_64")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_containers_are_not_touched() {
    if !is_root() {
        println!("skipped: containers need root");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let program = format!("hold-{}", std::process::id());
    let file = directory.path().join("hold.tar");
    image::write(&file, &program);
    std::fs::create_dir(&data).unwrap();
    let mut import = evenkeel();
    import
        .args(["image", "import"])
        .arg(&file)
        .args(["--as", "example.com/hold:1", "--data-dir"]);
    let output = import.arg(&data).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let _clean = Clean(data.clone());
    let port = free_port();
    let more = [
        &["--node-name", "crash-node", "--node-port", "0"],
        &NETWORKS[..],
    ]
    .concat();
    let mut instance = Instance::start(&data, port, &more);
    instance.ready().await;
    let api: Api<Pod> = Api::default_namespaced(instance.client().await);
    let pod = json!({
        "metadata": {"name": "hold"},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "hold", "image": "example.com/hold:1", "imagePullPolicy": "Never"}],
        },
    });
    let pod: Pod = serde_json::from_value(pod).unwrap();
    // The service account comes with the namespace's loop.
    until("a pod", LIMIT, async || {
        api.create(&PostParams::default(), &pod).await.ok()
    })
    .await;
    let running = async |api: &Api<Pod>| {
        until("a running pod", LIMIT, async || {
            let status = api.get("hold").await.ok()?.status?;
            let container = status.container_statuses?.into_iter().next()?;
            container
                .ready
                .then_some((container.container_id, container.restart_count))
        })
        .await
    };
    let before = running(&api).await;
    let found = process(&program).unwrap();
    for _ in 0..3 {
        instance.kill();
        assert_eq!(
            process(&program).as_ref(),
            Some(&found),
            "it goes on without us"
        );
        instance = Instance::start(&data, port, &more);
        instance.ready().await;
        let api: Api<Pod> = Api::default_namespaced(instance.client().await);
        assert_eq!(running(&api).await, before);
        assert_eq!(
            process(&program).as_ref(),
            Some(&found),
            "it was started again"
        );
    }
    // A stop leaves it alone too, and the next start still has it in hand.
    assert!(instance.stop().success(), "{}", instance.log());
    assert_eq!(process(&program).as_ref(), Some(&found));
    instance = Instance::start(&data, port, &more);
    instance.ready().await;
    let api: Api<Pod> = Api::default_namespaced(instance.client().await);
    api.delete("hold", &DeleteParams::default()).await.unwrap();
    until("the end of the pod", LIMIT, async || {
        api.get_opt("hold").await.ok()?.is_none().then_some(())
    })
    .await;
    assert_eq!(process(&program), None, "deleted and still running");
    assert!(instance.stop().success(), "{}", instance.log());
}
