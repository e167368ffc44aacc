//! Nodes: rules by table, and silence against the fake.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_client::testing::{FakeApi, FakeClock};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::zones::{Count, Pacer, State, Verdict, Zones};
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
    assert!(health::taints(&node("n", "True"), Verdict::GiveUp, now()).is_none());
    let mut silent = node("n", "Unknown");
    let taints = health::taints(&silent, Verdict::GiveUp, now()).unwrap();
    let wanted = [
        "mine:NoSchedule",
        "node.kubernetes.io/unreachable:NoSchedule",
        "node.kubernetes.io/unreachable:NoExecute",
    ];
    assert_eq!(keys(&taints), wanted);
    silent.spec.as_mut().unwrap().taints = Some(taints);
    assert!(
        health::taints(&silent, Verdict::GiveUp, now()).is_none(),
        "they are there"
    );
    assert!(
        health::taints(&silent, Verdict::Wait, now()).is_none(),
        "it waits with what it has"
    );
    let spared = health::taints(&silent, Verdict::Spare, now()).unwrap();
    assert_eq!(keys(&spared), wanted[..2]);
    let fresh = health::taints(&node("n", "Unknown"), Verdict::Wait, now()).unwrap();
    assert_eq!(keys(&fresh), wanted[..2]);
    silent.status = node("n", "True").status;
    silent.spec.as_mut().unwrap().unschedulable = Some(true);
    let taints = health::taints(&silent, Verdict::GiveUp, now()).unwrap();
    let wanted = [
        "mine:NoSchedule",
        "node.kubernetes.io/unschedulable:NoSchedule",
    ];
    assert_eq!(keys(&taints), wanted);
}

/// The reference's documentation of nodes, "Rate limits on eviction", with its defaults.
#[test]
fn the_more_of_a_zone_is_silent_the_slower_nodes_are_given_up() {
    for (ready, not_ready, expected) in [
        (0, 0, State::Normal),
        (1, 0, State::Normal),
        (0, 1, State::Full),
        (0, 9, State::Full),
        (1, 2, State::Normal),
        (1, 3, State::Partial),
        (3, 3, State::Normal),
        (45, 55, State::Partial),
        (46, 54, State::Normal),
    ] {
        assert_eq!(
            Count { ready, not_ready }.state(),
            expected,
            "{ready} {not_ready}"
        );
    }
    let zone = |zone: &str, ready: usize, not_ready: usize| -> Vec<Node> {
        let of = |state: &str, count: usize| -> Vec<Node> {
            let mut node = node("n", state);
            let labels = [("topology.kubernetes.io/zone".to_owned(), zone.to_owned())];
            node.metadata.labels = Some(labels.into());
            vec![node; count]
        };
        [of("True", ready), of("Unknown", not_ready)].concat()
    };
    let seconds = |zones: &[Vec<Node>]| {
        let zones = Zones::of(zones.iter().flatten());
        zones.pace("/a").map(|pace| pace.as_secs())
    };
    assert_eq!(seconds(&[zone("a", 9, 1)]), Some(10));
    // Most of a zone: slowly in a large one, not at all in a small one.
    assert_eq!(seconds(&[zone("a", 20, 40)]), Some(100));
    assert_eq!(seconds(&[zone("a", 4, 6), zone("b", 9, 0)]), None);
    // A whole zone: as usual, where others answer.
    assert_eq!(seconds(&[zone("a", 0, 6), zone("b", 9, 0)]), Some(10));
    assert_eq!(seconds(&[zone("a", 0, 6), zone("b", 0, 9)]), None);
    assert_eq!(seconds(&[zone("a", 0, 1)]), None);

    let all = [zone("a", 9, 3), zone("b", 9, 3)].concat();
    let zones = Zones::of(&all);
    let mut pacer = Pacer::default();
    let mut may =
        |zone: &str, after: i64| pacer.may(&zones, zone, now() + SignedDuration::from_secs(after));
    assert!(may("/a", 0) && !may("/a", 9) && may("/b", 9));
    assert!(may("/a", 10) && !may("/b", 18) && may("/b", 19));
}

#[tokio::test(start_paused = true)]
async fn when_nobody_answers_nobody_is_evicted() {
    let fake = FakeApi::new(FakeClock::shared());
    let mut world = testing::World::new(&fake);
    for name in ["n1", "n2"] {
        fake.put(&node(name, "Unknown"));
    }
    world.spawn(|context| Box::pin(super::run_health(context)));
    let given_up =
        |fake: &FakeApi, name: &str| health::is_given_up(&fake.get::<Node>("", name).unwrap());
    let tainted = |fake: &FakeApi, name: &str| {
        let node = fake.get::<Node>("", name).unwrap();
        keys(&node.spec.unwrap().taints.unwrap()).len() == 2
    };
    fake.wait_for("taints that keep new pods away", |fake| {
        (tainted(fake, "n1") && tainted(fake, "n2")).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(!given_up(&fake, "n1") && !given_up(&fake, "n2"));
    // Somebody answers: the others are given up, one after the other.
    fake.put(&node("n3", "True"));
    fake.wait_for("the first", |fake| {
        (given_up(fake, "n1") || given_up(fake, "n2")).then_some(())
    })
    .await;
    assert!(
        given_up(&fake, "n1") != given_up(&fake, "n2"),
        "one at a time"
    );
    world.end().await;
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

/// A pod that tolerates what has the key `drain` for so long, made now.
fn patient(seconds: i64) -> Pod {
    let mut pod = testing::pod("a", "p", &[]);
    let tolerations = json!([{"key": "drain", "operator": "Exists", "tolerationSeconds": seconds},
        {"key": "old", "operator": "Exists"}]);
    pod.spec.as_mut().unwrap().tolerations = serde_json::from_value(tolerations).unwrap();
    pod.metadata.creation_timestamp = Some(Time(now()));
    pod
}

fn no_execute(key: &str, added: Option<Timestamp>) -> Taint {
    Taint {
        key: key.to_owned(),
        effect: "NoExecute".to_owned(),
        time_added: added.map(Time),
        ..Taint::default()
    }
}

#[test]
fn a_taint_counts_from_when_it_met_the_pod() {
    let at = |taints: &[Taint]| {
        let at = evict::evict_at(&patient(60), taints, now());
        at.map(|at| at.duration_since(now()).as_secs())
    };
    let ago = |seconds| Some(now() - SignedDuration::from_secs(seconds));
    // As `kubectl taint` writes it.
    assert_eq!(at(&[no_execute("drain", None)]), Some(60));
    // The pod came later than the taint.
    assert_eq!(at(&[no_execute("drain", ago(600))]), Some(60));
    // What is tolerated without end does not shorten it.
    let both = [no_execute("old", ago(600)), no_execute("drain", None)];
    assert_eq!(at(&both), Some(60));
    assert_eq!(at(&both[..1]), None);
}

#[tokio::test(start_paused = true)]
async fn a_pod_goes_when_its_time_is_over_and_stays_when_the_taint_goes() {
    let fake = FakeApi::new(FakeClock::shared());
    let mut node: Node = node("n1", "True");
    node.spec.get_or_insert_default().taints = Some(vec![no_execute("drain", None)]);
    fake.put(&node);
    for (name, seconds) in [("short", 5), ("long", 50)] {
        let mut pod = patient(seconds);
        pod.metadata.name = Some(name.to_owned());
        pod.metadata.uid = Some(format!("uid-{name}"));
        pod.spec.as_mut().unwrap().node_name = Some("n1".to_owned());
        fake.put(&pod);
    }
    let world = testing::start(&fake, |context| Box::pin(evict::run(context)));
    let is_there = |name: &str| {
        let pod = fake.get::<Pod>("a", name);
        pod.is_some_and(|pod| pod.metadata.deletion_timestamp.is_none())
    };
    // It is looked at again and again, which does not put the end off.
    for label in 0..4 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut pod: Pod = fake.get("a", "short").unwrap();
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert("seen".to_owned(), label.to_string());
        fake.put(&pod);
    }
    assert!(is_there("short"));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!is_there("short") && is_there("long"));
    node.spec.get_or_insert_default().taints = None;
    fake.put(&node);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(is_there("long"));
    world.end().await;
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
    let lease_of = |name: &str, at: Timestamp| -> Lease {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "kube-node-lease"},
            "spec": {"renewTime": at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()},
        }))
        .unwrap()
    };
    let lease = |at: Timestamp| lease_of("n", at);
    fake.put(&lease(clock.now()));
    // Somebody who goes on answering, so that it is the node that is silent.
    fake.put(&node("other", "True"));
    let alive = {
        let (fake, clock) = (fake.clone(), Arc::clone(&clock));
        async move {
            loop {
                fake.put(&lease_of("other", clock.now()));
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
        }
    };
    let alive = tokio::spawn(alive);
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
    assert!(silence >= SignedDuration::from_secs(50), "{silence:?}");
    assert!(silence <= SignedDuration::from_secs(70), "{silence:?}");
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
    alive.abort();
    world.end().await;
}
