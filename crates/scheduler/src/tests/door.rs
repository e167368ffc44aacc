//! The scheduler against the fake door.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use evenkeel_client::testing::{FakeApi, FakeClock};
use evenkeel_client::{CancellationToken, LoopContext, LoopRegistry, Recorder, Views};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Event, Pod};
use parking_lot::Mutex;
use serde_json::json;

use super::objects::{node, node_with, pod, pod_with};
use crate::Scheduler;
use crate::framework::{
    BindError, Binding, ClusterEvent, CycleState, Permission, Permit, Plugin, PreBind,
};
use crate::plugins::{binder::DefaultBinder, default_placement};
use crate::pod::{PodInfo, node_name};

pub(crate) fn start(api: &FakeApi) -> (crate::Traces, CancellationToken) {
    start_with(api, &crate::config::defaults())
}

pub(crate) fn start_with(
    api: &FakeApi,
    configs: &[crate::config::ProfileConfig],
) -> (crate::Traces, CancellationToken) {
    let context = context(api);
    let shutdown = context.shutdown.clone();
    let scheduler = Scheduler::configured(context, configs);
    let traces = scheduler.traces();
    tokio_util::task::TaskTracker::new().spawn(scheduler.run());
    (traces, shutdown)
}

fn context(api: &FakeApi) -> LoopContext {
    let clock = FakeClock::shared();
    let client = api.client();
    LoopContext {
        views: Views::new(client.clone(), clock.clone()),
        recorder: Recorder::new(client.clone(), clock.clone(), "default-scheduler", ""),
        client,
        clock,
        shutdown: CancellationToken::new(),
        metrics: LoopRegistry::default(),
    }
}

fn fake() -> FakeApi {
    FakeApi::new(FakeClock::shared())
}

#[tokio::test(start_paused = true)]
async fn five_hundred_pods_on_fifty_nodes() {
    let api = fake();
    for at in 0..50 {
        api.put(&node(&format!("node-{at:02}"), 4000, 8192));
    }
    for at in 0..500 {
        api.put(&pod(&format!("pod-{at:03}"), 250));
    }
    let (_, shutdown) = start(&api);
    let pods = api
        .wait_for("all pods bound", |api| {
            let pods = api.all::<Pod>();
            pods.iter()
                .all(|pod| node_name(pod).is_some())
                .then_some(pods)
        })
        .await;
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in &pods {
        *count.entry(node_name(pod).expect("bound")).or_default() += 1;
    }
    // Least allocated first: even pods on even nodes end up even.
    assert_eq!(count.len(), 50);
    assert!(count.values().all(|count| *count == 10), "{count:?}");
    assert_eq!(api.count("create", "pods/binding"), 500);
    shutdown.cancel();
}

/// Counts what has been chosen; a binding notes how much that was when it began.
#[derive(Debug, Default)]
struct Order {
    chosen: AtomicUsize,
    begun_at: Mutex<Vec<usize>>,
}

#[derive(Debug)]
struct Orderly(Arc<Order>);

impl Plugin for Orderly {
    fn name(&self) -> &'static str {
        "Orderly"
    }

    fn hint(&self, _: &PodInfo, _: &ClusterEvent<'_>) -> bool {
        true
    }
}

impl Permit for Orderly {
    fn permit(&self, _: &CycleState, _: &PodInfo, _: &str) -> Permission {
        self.0.chosen.fetch_add(1, Ordering::Relaxed);
        Permission::Allow
    }
}

impl PreBind for Orderly {
    fn pre_bind<'a>(&'a self, _: &'a Binding) -> BoxFuture<'a, Result<(), BindError>> {
        let chosen = self.0.chosen.load(Ordering::Relaxed);
        self.0.begun_at.lock().push(chosen);
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test(start_paused = true)]
async fn several_bindings_begin_at_once() {
    let api = fake();
    api.put(&node("one", 64_000, 65_536));
    for at in 0..40 {
        api.put(&pod(&format!("pod-{at:02}"), 100));
    }
    let order = Arc::new(Order::default());
    let context = context(&api);
    let mut profile = default_placement();
    let plugin = profile.plugin(Orderly(Arc::clone(&order)));
    let _ = plugin.permit().pre_bind();
    let binder = DefaultBinder::new(context.client.clone());
    let _ = profile.plugin(binder).bind();
    let shutdown = context.shutdown.clone();
    let scheduler = Scheduler::with_profile(context, profile);
    tokio_util::task::TaskTracker::new().spawn(scheduler.run());
    api.wait_for("all pods bound", |api| {
        let pods = api.all::<Pod>();
        let all = pods.iter().all(|pod| node_name(pod).is_some());
        all.then_some(())
    })
    .await;
    // Another thread can take a binding from the scheduler's only when several are there to be begun. Of
    // this test's one thread and its clock, which stands still, the runs are as long as they may be.
    let begun_at = order.begun_at.lock().clone();
    assert_eq!(begun_at.len(), 40);
    assert!(
        begun_at[..16].iter().all(|chosen| *chosen == 16),
        "{begun_at:?}"
    );
    assert!(
        begun_at[32..].iter().all(|chosen| *chosen == 40),
        "{begun_at:?}"
    );
    shutdown.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_scheduled_pod_is_told_of() {
    let api = fake();
    api.put(&node("one", 1000, 1024));
    let (traces, shutdown) = start(&api);
    api.put(&pod("web", 100));
    let event = api
        .wait_for("an event", |api| api.all::<Event>().into_iter().next())
        .await;
    assert_eq!(event.reason.as_deref(), Some("Scheduled"));
    assert_eq!(event.type_.as_deref(), Some("Normal"));
    assert_eq!(
        event.message.as_deref(),
        Some("Successfully assigned default/web to one")
    );
    let trace = traces.explain("uid-web").expect("a trace");
    assert_eq!(trace.decision.node.as_deref(), Some("one"));
    shutdown.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_room_says_why_and_is_placed_when_room_comes() {
    let api = fake();
    api.put(&node_with(
        "tainted",
        4000,
        1024,
        &json!({"spec": {"taints": [
        {"key": "k", "value": "v", "effect": "NoSchedule"}]}}),
    ));
    api.put(&node("small-1", 100, 1024));
    api.put(&node("small-2", 100, 1024));
    let (_, shutdown) = start(&api);
    api.put(&pod_with(
        "web",
        500,
        &json!({"metadata": {"generation": 1}}),
    ));
    let text = "0/3 nodes are available: 1 node(s) had untolerated taint(s), \
                2 Insufficient cpu. no new claims to deallocate, preemption: \
                0/3 nodes are available: 3 Preemption is not helpful for scheduling.";
    let event = api
        .wait_for("an event", |api| api.all::<Event>().into_iter().next())
        .await;
    assert_eq!(event.reason.as_deref(), Some("FailedScheduling"));
    assert_eq!(event.message.as_deref(), Some(text));
    let condition = api
        .wait_for("the condition", |api| {
            let pod = api.get::<Pod>("default", "web")?;
            pod.status?.conditions?.into_iter().next()
        })
        .await;
    assert_eq!(condition.type_, "PodScheduled");
    assert_eq!(condition.status, "False");
    assert_eq!(condition.reason.as_deref(), Some("Unschedulable"));
    assert_eq!(condition.message.as_deref(), Some(text));
    api.put(&node("large", 4000, 1024));
    let bound = api
        .wait_for("the binding", |api| {
            let pod = api.get::<Pod>("default", "web")?;
            node_name(&pod).map(str::to_owned)
        })
        .await;
    assert_eq!(bound, "large");
    shutdown.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_refused_binding_is_tried_again() {
    let api = fake();
    api.put(&node("one", 1000, 1024));
    api.fail_next("create", "pods/binding", 403, "Forbidden", "not today");
    let (_, shutdown) = start(&api);
    api.put(&pod("web", 1000));
    api.wait_for("the binding", |api| {
        node_name(&api.get::<Pod>("default", "web")?).map(str::to_owned)
    })
    .await;
    let told = api
        .wait_for("the failure's event", |api| {
            api.all::<Event>()
                .into_iter()
                .find(|event| event.reason.as_deref() == Some("FailedScheduling"))
        })
        .await;
    assert_eq!(
        told.message.as_deref(),
        Some("binding rejected: running Bind plugin \"DefaultBinder\": not today")
    );
    shutdown.cancel();
}

#[tokio::test(start_paused = true)]
async fn other_schedulers_pods_are_left_alone() {
    let api = fake();
    api.put(&node("one", 1000, 1024));
    let (_, shutdown) = start(&api);
    api.put(&pod_with(
        "theirs",
        100,
        &json!({"spec": {"schedulerName": "other"}}),
    ));
    api.put(&pod("ours", 100));
    api.wait_for("our binding", |api| {
        node_name(&api.get::<Pod>("default", "ours")?).map(str::to_owned)
    })
    .await;
    let theirs = api.get::<Pod>("default", "theirs").expect("it is there");
    assert_eq!(node_name(&theirs), None);
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures, asserts nothing"]
async fn figures_through_the_fake_door() {
    let api = fake();
    api.put(&node("one", 1_000_000, 1_000_000));
    let (_, shutdown) = start(&api);
    let mut took = Vec::new();
    for at in 0..100 {
        let name = format!("pod-{at}");
        let began = std::time::Instant::now();
        api.put(&pod(&name, 1));
        api.wait_for("the binding", |api| {
            node_name(&api.get::<Pod>("default", &name)?).map(str::to_owned)
        })
        .await;
        took.push(began.elapsed());
    }
    took.sort();
    println!(
        "pod written to binding taken: p50 {:?}, p99 {:?}",
        took[50], took[98]
    );
    shutdown.cancel();
}
