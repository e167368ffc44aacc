//! Endpoints: rules by table and property, and whole services against the fake.

use std::sync::Arc;

use evenkeel_client::testing::{FakeApi, FakeClock};
use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;
use serde_json::json;

use super::{MIRROR_LOOP, legacy, slices};
use crate::testing;

fn service(name: &str, target: serde_json::Value) -> Service {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "a", "uid": "s", "labels": {"team": "x"}},
        "spec": {
            "selector": {"app": "web"}, "clusterIP": "10.96.0.5", "ipFamilies": ["IPv4"],
            "ports": [{"name": "http", "port": 80, "targetPort": target, "protocol": "TCP"}],
        },
    }))
    .unwrap()
}

fn pod(number: usize, ready: bool) -> Arc<Pod> {
    let ready = if ready { "True" } else { "False" };
    let pod = json!({
        "metadata": {
            "name": format!("p{number}"), "namespace": "a", "uid": format!("u{number}"),
            "labels": {"app": "web"},
        },
        "spec": {
            "nodeName": "n",
            "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}],
        },
        "status": {
            "phase": "Running", "podIP": format!("10.1.{}.{}", number / 250, number % 250),
            "conditions": [{"type": "Ready", "status": ready}],
        },
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

/// Applies a plan to slices as the server would.
fn apply(
    existing: Vec<Arc<EndpointSlice>>,
    plan: slices::Plan,
    counter: &mut u32,
) -> Vec<Arc<EndpointSlice>> {
    let mut left = existing;
    let name = |slice: &EndpointSlice| slice.metadata.name.clone();
    left.retain(|slice| !plan.delete.iter().any(|gone| name(gone) == name(slice)));
    for slice in plan.update {
        let found = left
            .iter_mut()
            .find(|item| name(item) == name(&slice))
            .unwrap();
        *found = Arc::new(slice);
    }
    for mut slice in plan.create {
        *counter += 1;
        slice.metadata.name = Some(format!("web-{counter}"));
        left.push(Arc::new(slice));
    }
    left
}

fn sorted_addresses(slices: &[Arc<EndpointSlice>]) -> Vec<String> {
    let endpoints = slices
        .iter()
        .flat_map(|slice| slice.endpoints.iter().flatten());
    let mut all: Vec<_> = endpoints
        .flat_map(|endpoint| endpoint.addresses.clone())
        .collect();
    all.sort();
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn slices_hold_exactly_the_pods_whatever_comes_and_goes(
        rounds in prop::collection::vec(prop::collection::btree_set(0usize..400, 0..400), 1..6),
    ) {
        let service = service("web", json!("web"));
        let frame = slices::frame(&service, "IPv4");
        let (mut existing, mut counter) = (Vec::new(), 0);
        for round in rounds {
            let pods: Vec<_> = round.iter().map(|number| pod(*number, true)).collect();
            let groups = || slices::of_pods(&service, &pods, "IPv4", |_| None);
            let plan = slices::plan(&frame, groups(), &existing, true);
            existing = apply(existing, plan, &mut counter);
            let mut wanted: Vec<_> = pods
                .iter()
                .map(|pod| pod.status.as_ref().unwrap().pod_ip.clone().unwrap())
                .collect();
            wanted.sort();
            prop_assert_eq!(sorted_addresses(&existing), wanted);
            for slice in &existing {
                prop_assert!(slice.endpoints.as_ref().unwrap().len() <= slices::SLICE_SIZE);
            }
            let again = slices::plan(&frame, groups(), &existing, true);
            prop_assert!(again.create.is_empty() && again.update.is_empty() && again.delete.is_empty());
        }
    }
}

#[test]
fn one_readiness_change_touches_one_slice() {
    let service = service("web", json!("web"));
    let frame = slices::frame(&service, "IPv4");
    let mut pods: Vec<_> = (0..250).map(|number| pod(number, true)).collect();
    let groups = slices::of_pods(&service, &pods, "IPv4", |_| None);
    let plan = slices::plan(&frame, groups, &[], true);
    assert_eq!(plan.create.len(), 3);
    let existing = apply(Vec::new(), plan, &mut 0);
    pods[120] = pod(120, false);
    let groups = slices::of_pods(&service, &pods, "IPv4", |_| None);
    let plan = slices::plan(&frame, groups, &existing, true);
    assert_eq!(
        (plan.create.len(), plan.update.len(), plan.delete.len()),
        (0, 1, 0)
    );
    let changed = plan.update[0].endpoints.as_ref().unwrap();
    let unready = changed
        .iter()
        .filter(|endpoint| endpoint.conditions.as_ref().unwrap().ready == Some(false));
    assert_eq!(unready.count(), 1);
    let ports = plan.update[0].ports.as_ref().unwrap();
    assert_eq!(
        (ports[0].name.as_deref(), ports[0].port),
        (Some("http"), Some(8080))
    );
}

#[test]
fn a_pod_on_its_way_out_serves_but_is_not_ready() {
    let mut going = pod(1, true).as_ref().clone();
    going.metadata.deletion_timestamp =
        Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
    let going = [Arc::new(going)];
    let mut service = service("web", json!(8080));
    let condition = |service: &Service| {
        let groups = slices::of_pods(service, &going, "IPv4", |_| None);
        let plan = slices::plan(&slices::frame(service, "IPv4"), groups, &[], true);
        let all = plan.create[0].endpoints.clone().unwrap();
        let found = all[0].conditions.clone().unwrap();
        (found.ready, found.serving, found.terminating)
    };
    assert_eq!(condition(&service), (Some(false), Some(true), Some(true)));
    assert!(legacy::wanted(&service, &going, None).subsets.is_none());
    service.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
    assert_eq!(condition(&service), (Some(true), Some(true), Some(true)));
    assert!(legacy::wanted(&service, &going, None).subsets.is_some());
}

/// The documentation's "EndpointSlice mirroring": one slice for each subset and family, and no
/// more than a thousand addresses of a subset.
#[test]
fn subsets_are_mirrored_one_to_one_up_to_a_limit() {
    let addresses = |count: usize, third: u8| -> Vec<serde_json::Value> {
        let ip = |n: usize| json!({"ip": format!("10.{}.{}.{}", third, n / 250, n % 250)});
        (0..count).map(ip).collect()
    };
    let endpoints = |subsets: serde_json::Value| -> Endpoints {
        let metadata = json!({"name": "db", "namespace": "a", "uid": "e", "labels": {"x": "y"}});
        serde_json::from_value(json!({"metadata": metadata, "subsets": subsets})).unwrap()
    };
    let sizes = |endpoints: &Endpoints, family: &'static str| {
        let groups = slices::of_endpoints(endpoints, family);
        let frame = slices::mirror_frame(endpoints, family);
        let plan = slices::plan(&frame, groups, &[], false);
        let mut sizes: Vec<usize> = plan
            .create
            .iter()
            .map(|slice| slice.endpoints.as_ref().unwrap().len())
            .collect();
        sizes.sort_unstable();
        sizes
    };
    let two = endpoints(json!([
        {"addresses": addresses(400, 1), "notReadyAddresses": [{"ip": "2001:db8::1"}], "ports": [{"port": 1}]},
        {"addresses": addresses(3, 2), "ports": [{"port": 2}]},
    ]));
    assert_eq!(sizes(&two, "IPv4"), [3, 400]);
    assert_eq!(sizes(&two, "IPv6"), [1]);
    assert_eq!(slices::skipped(&two), (0, 0));
    let mut many = addresses(1001, 3);
    many.insert(0, json!({"ip": "not-an-address"}));
    let many = endpoints(json!([{"addresses": many, "notReadyAddresses": [{"ip": "10.9.9.9"}]}]));
    assert_eq!(sizes(&many, "IPv4"), [1000]);
    assert_eq!(slices::skipped(&many), (1, 3));
}

/// What KEP-4444 and KEP-3015 say of `spec.trafficDistribution`.
#[test]
fn endpoints_are_meant_for_their_zone_or_node() {
    let node = |name: &str, zone: Option<&str>| -> Arc<Node> {
        let labels = zone.map(|zone| json!({"topology.kubernetes.io/zone": zone}));
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap(),
        )
    };
    let hints = |distribution: Option<&str>, zone: Option<&'static str>, ready: bool| {
        let mut service = service("web", json!(8080));
        service.spec.as_mut().unwrap().traffic_distribution = distribution.map(str::to_owned);
        let groups = slices::of_pods(&service, &[pod(1, ready)], "IPv4", |name| {
            Some(node(name, zone))
        });
        let plan = slices::plan(&slices::frame(&service, "IPv4"), groups, &[], true);
        let endpoint = plan.create[0].endpoints.clone().unwrap().remove(0);
        let names = endpoint.hints.map(|hints| {
            let zones: Vec<String> = hints
                .for_zones
                .into_iter()
                .flatten()
                .map(|it| it.name)
                .collect();
            let nodes: Vec<String> = hints
                .for_nodes
                .into_iter()
                .flatten()
                .map(|it| it.name)
                .collect();
            (zones.join(","), nodes.join(","))
        });
        names.map(|(zones, nodes)| format!("zones {zones} nodes {nodes}"))
    };
    let text = |text: &str| Some(text.to_owned());
    for (distribution, zone, ready, expected) in [
        (None, Some("a"), true, None),
        (Some("PreferClose"), Some("a"), true, text("zones a nodes ")),
        (
            Some("PreferSameZone"),
            Some("a"),
            true,
            text("zones a nodes "),
        ),
        (
            Some("PreferSameNode"),
            Some("a"),
            true,
            text("zones a nodes n"),
        ),
        (Some("PreferSameNode"), None, true, text("zones  nodes n")),
        (Some("PreferSameZone"), None, true, None),
        (Some("PreferSameZone"), Some("a"), false, None),
    ] {
        assert_eq!(
            hints(distribution, zone, ready),
            expected,
            "{distribution:?} {zone:?} {ready}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_follows_its_pods_and_hand_written_endpoints_are_mirrored() {
    let fake = FakeApi::new(FakeClock::shared());
    let mut world = testing::World::new(&fake);
    world.spawn(|context| Box::pin(super::run_slices(context)));
    world.spawn(|context| Box::pin(super::run_endpoints(context)));
    world.spawn(|context| Box::pin(super::run_mirror(context)));
    fake.put(&service("web", json!("web")));
    fake.wait_for("an empty slice", |fake| {
        let all = fake.all::<EndpointSlice>();
        (all.len() == 1 && fake.get::<Endpoints>("a", "web").is_some()).then_some(())
    })
    .await;
    fake.put(pod(1, true).as_ref());
    fake.put(pod(2, false).as_ref());
    fake.wait_for("one ready, one not", |fake| {
        let subsets = fake.get::<Endpoints>("a", "web")?.subsets?;
        let count = |list: &Option<Vec<_>>| list.as_ref().map_or(0, Vec::len);
        let slice = fake.all::<EndpointSlice>().pop()?;
        (count(&subsets[0].addresses) == 1
            && count(&subsets[0].not_ready_addresses) == 1
            && slice.endpoints?.len() == 2)
            .then_some(())
    })
    .await;
    assert_eq!(fake.all::<EndpointSlice>().len(), 1);
    let endpoints = fake.get::<Endpoints>("a", "web").unwrap();
    assert_eq!(endpoints.metadata.labels.unwrap()["team"], "x");

    let mut bare = service("outside", json!(1));
    bare.spec.as_mut().unwrap().selector = None;
    bare.metadata.uid = Some("o".to_owned());
    fake.put(&bare);
    let written: Endpoints = serde_json::from_value(json!({
        "metadata": {"name": "outside", "namespace": "a"},
        "subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 5432}]}],
    }))
    .unwrap();
    fake.put(&written);
    fake.wait_for("a mirrored slice", |fake| {
        let mut all = fake.all::<EndpointSlice>();
        all.retain(|slice| {
            slice.metadata.labels.as_ref().unwrap()[super::MANAGED_BY] == MIRROR_LOOP
        });
        (all.pop()?.endpoints?[0].addresses == ["192.0.2.1"]).then_some(())
    })
    .await;

    fake.remove::<Service>("a", "web");
    fake.wait_for("its Endpoints gone", |fake| {
        fake.get::<Endpoints>("a", "web").is_none().then_some(())
    })
    .await;
    assert!(fake.get::<Endpoints>("a", "outside").is_some());
    world.end().await;
}
