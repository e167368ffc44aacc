//! Nodes: rules by table, and silence against the fake.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_client::testing::{FakeApi, FakeClock};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use serde_json::json;

use super::{cidr, evict, health, pod_gc};
use crate::testing;

fn node(name: &str, ready: &str) -> Node {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"taints": [{"key": "mine", "effect": "NoSchedule"}]},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }))
    .unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_second(1_767_225_600).unwrap()
}

fn keys(taints: &[Taint]) -> Vec<String> {
    taints
        .iter()
        .map(|taint| format!("{}:{}", taint.key, taint.effect))
        .collect()
}

#[test]
fn taints_follow_conditions_and_leave_those_of_others() {
    assert!(health::taints(&node("n", "True"), now()).is_none());
    let mut silent = node("n", "Unknown");
    let taints = health::taints(&silent, now()).unwrap();
    let wanted = [
        "mine:NoSchedule",
        "node.kubernetes.io/unreachable:NoSchedule",
        "node.kubernetes.io/unreachable:NoExecute",
    ];
    assert_eq!(keys(&taints), wanted);
    silent.spec.as_mut().unwrap().taints = Some(taints);
    assert!(health::taints(&silent, now()).is_none(), "they are there");
    silent.status = node("n", "True").status;
    silent.spec.as_mut().unwrap().unschedulable = Some(true);
    let taints = health::taints(&silent, now()).unwrap();
    let wanted = [
        "mine:NoSchedule",
        "node.kubernetes.io/unschedulable:NoSchedule",
    ];
    assert_eq!(keys(&taints), wanted);
}

#[test]
fn tolerations_say_when_a_pod_goes() {
    let taint: Taint = serde_json::from_value(json!({
        "key": health::NOT_READY, "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z",
    }))
    .unwrap();
    let at = |tolerations: serde_json::Value| {
        let mut pod = testing::pod("a", "p", &[]);
        pod.spec.as_mut().unwrap().tolerations = serde_json::from_value(tolerations).unwrap();
        let at = evict::evict_at(&pod, std::slice::from_ref(&taint), now());
        at.map(|at| at.duration_since(now()).as_secs())
    };
    assert_eq!(at(json!([])), Some(0));
    assert_eq!(at(json!([{"operator": "Exists"}])), None);
    let for_300 = json!({
        "key": health::NOT_READY, "operator": "Exists", "effect": "NoExecute",
        "tolerationSeconds": 300,
    });
    assert_eq!(at(json!([for_300])), Some(300));
    assert_eq!(
        at(json!([for_300, {"key": health::NOT_READY, "operator": "Exists"}])),
        Some(300)
    );
    assert_eq!(at(json!([{"key": "other", "operator": "Exists"}])), Some(0));
    assert_eq!(
        at(json!([{"key": health::NOT_READY, "value": "x"}])),
        Some(0)
    );
}

#[test]
fn ranges_are_given_once() {
    for (cluster, all) in [
        (
            "10.0.0.0/22",
            ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"],
        ),
        (
            "fd00::/62",
            [
                "fd00::/64",
                "fd00:0:0:1::/64",
                "fd00:0:0:2::/64",
                "fd00:0:0:3::/64",
            ],
        ),
    ] {
        let mut pool = cidr::Pool::new(cluster.parse().unwrap());
        for wanted in all {
            let next = pool.next_free().unwrap();
            assert_eq!(next.to_string(), wanted);
            // What is not taken is offered again.
            assert_eq!(pool.next_free(), Some(next));
            pool.take(next);
        }
        assert_eq!(pool.next_free(), None);
        // Two nodes have it by mistake: the last one who leaves gives it back.
        let second = all[1].parse().unwrap();
        pool.take(second);
        pool.give_back(second);
        assert_eq!(pool.next_free(), None);
        pool.give_back(second);
        assert_eq!(pool.next_free(), Some(second));
    }
}

#[test]
fn ranges_of_other_sizes_are_kept_free() {
    let mut pool = cidr::Pool::new("10.0.0.0/22".parse().unwrap());
    let wide = "10.0.0.0/23".parse().unwrap();
    let narrow = "10.0.2.128/25".parse().unwrap();
    pool.take(wide);
    pool.take(narrow);
    // Of somebody else's network: nobody minds.
    pool.take("192.168.0.0/24".parse().unwrap());
    let next = |pool: &mut cidr::Pool| pool.next_free().unwrap().to_string();
    assert_eq!(next(&mut pool), "10.0.3.0/24");
    pool.give_back(narrow);
    assert_eq!(next(&mut pool), "10.0.2.0/24");
    pool.give_back(wide);
    assert_eq!(next(&mut pool), "10.0.0.0/24");
}

#[test]
fn pods_nobody_ends_are_collected() {
    let mut lost = testing::pod("a", "lost", &[]);
    lost.spec.as_mut().unwrap().node_name = Some("gone".to_owned());
    let mut fine = lost.clone();
    fine.spec.as_mut().unwrap().node_name = Some("there".to_owned());
    let mut never = testing::pod("a", "never", &[]);
    never.metadata.deletion_timestamp =
        Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
    let mut ended = testing::pod("a", "ended", &[]);
    ended.status.as_mut().unwrap().phase = Some("Succeeded".to_owned());
    let mut stuck = fine.clone();
    stuck.spec.as_mut().unwrap().node_name = Some("out".to_owned());
    stuck.metadata.deletion_timestamp = never.metadata.deletion_timestamp.clone();
    let mut evicted = ended.clone();
    evicted.metadata.name = Some("zz-evicted".to_owned());
    evicted.status.as_mut().unwrap().phase = Some("Failed".to_owned());
    evicted.status.as_mut().unwrap().reason = Some("Evicted".to_owned());
    let all = [lost, fine, never, stuck, ended, evicted].map(Arc::new);
    let found = pod_gc::plan(&all, |node| node == "gone", |node| node == "out", 1);
    let last = found.last().unwrap().0.metadata.name.clone();
    assert_eq!(
        last.as_deref(),
        Some("zz-evicted"),
        "of no use to anybody, so first"
    );
    let why: Vec<_> = found.iter().map(|pair| pair.1).collect();
    assert_eq!(
        why,
        [
            pod_gc::Why::NodeGone,
            pod_gc::Why::Unscheduled,
            pod_gc::Why::OutOfService,
            pod_gc::Why::Ended
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_tainted_its_pods_evicted_and_it_may_come_back() {
    let fake = FakeApi::new(FakeClock::shared());
    let mut world = testing::World::new(&fake);
    let clock = Arc::clone(&world.context.clock);
    fake.put(&node("n", "True"));
    let lease = |at: Timestamp| -> Lease {
        serde_json::from_value(json!({
            "metadata": {"name": "n", "namespace": "kube-node-lease"},
            "spec": {"renewTime": at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()},
        }))
        .unwrap()
    };
    fake.put(&lease(clock.now()));
    let mut pod = testing::pod("a", "p", &[]);
    let spec = pod.spec.as_mut().unwrap();
    spec.node_name = Some("n".to_owned());
    spec.tolerations = serde_json::from_value(json!([
        {"key": health::UNREACHABLE, "operator": "Exists", "tolerationSeconds": 300},
    ]))
    .unwrap();
    fake.put(&pod);
    testing::make_ready(&fake);
    world.spawn(|context| Box::pin(super::run_health(context)));
    world.spawn(|context| Box::pin(super::run_eviction(context)));
    world.spawn(|context| Box::pin(super::run_cidr(context, "10.8.0.0/16".parse().unwrap())));
    fake.wait_for("a range", |fake| fake.get::<Node>("", "n")?.spec?.pod_cidr)
        .await;
    // A minute of renewals keeps it alive.
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        fake.put(&lease(clock.now()));
    }
    let ready = |fake: &FakeApi| {
        let node = fake.get::<Node>("", "n").unwrap();
        health::state(&node, "Ready").unwrap().to_owned()
    };
    assert_eq!(ready(&fake), "True");
    let last = clock.now();
    fake.wait_for("silence", |fake| (ready(fake) == "Unknown").then_some(()))
        .await;
    let silence = clock.now().duration_since(last);
    assert!(silence >= SignedDuration::from_secs(40), "{silence:?}");
    assert!(silence <= SignedDuration::from_secs(60), "{silence:?}");
    fake.wait_for("a pod that is not ready", |fake| {
        (!crate::pods::is_ready(&fake.get::<Pod>("a", "p")?)).then_some(())
    })
    .await;
    fake.wait_for("eviction", |fake| {
        fake.get::<Pod>("a", "p")?
            .metadata
            .deletion_timestamp
            .map(|_| ())
    })
    .await;
    let evicted = clock.now().duration_since(last);
    assert!(evicted >= SignedDuration::from_secs(340), "{evicted:?}");
    let mut back = fake.get::<Node>("", "n").unwrap();
    back.status = node("n", "True").status;
    fake.put(&back);
    fake.put(&lease(clock.now()));
    fake.wait_for("taints taken off", |fake| {
        let taints = fake.get::<Node>("", "n")?.spec?.taints?;
        (taints.len() == 1).then_some(())
    })
    .await;
    world.end().await;
}
