//! Addresses and announcers: the documentation's rules as tables, properties of every plan, and
//! the whole loop against the fake.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use evenkeel_client::ObjectKey;
use evenkeel_client::testing::{FakeApi, FakeClock};
use k8s_openapi::api::core::v1::{Event, Node, Service};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::addresses::Range;
use super::announce::{Candidate, choose};
use super::assign::{EXHAUSTED, Given, NO_POOL, REFUSED, Want, assign};
use super::kinds::{AddressPool, Advertisement};
use super::{ANNOUNCED, ANNOUNCED_BY, ASSIGNED, FROM_POOL, plan};
use crate::testing;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn pool(name: &str, spec: Value) -> AddressPool {
    serde_json::from_value(json!({"metadata": {"name": name, "namespace": "lb"}, "spec": spec}))
        .unwrap()
}

fn want(name: &str) -> Want {
    Want {
        key: ObjectKey::new("default", name),
        created: None,
        v4: true,
        v6: false,
        any_family: false,
        ports: BTreeSet::from([("TCP".to_owned(), 80)]),
        addresses: Vec::new(),
        pool: None,
        sharing: String::new(),
        backend: String::new(),
        labels: BTreeMap::new(),
        namespace_labels: BTreeMap::new(),
        has: Vec::new(),
    }
}

fn of<'a>(given: &'a BTreeMap<ObjectKey, Given>, name: &str) -> &'a Given {
    &given[&ObjectKey::new("default", name)]
}

fn addresses(given: &BTreeMap<ObjectKey, Given>, name: &str) -> Vec<String> {
    match of(given, name) {
        Given::Addresses(all, _) => all.iter().map(IpAddr::to_string).collect(),
        Given::Nothing(..) => Vec::new(),
    }
}

#[test]
fn pools_are_networks_and_ranges() {
    let all = |text: &str| -> Vec<String> {
        Range::parse(text)
            .unwrap()
            .addresses()
            .map(|ip| ip.to_string())
            .collect()
    };
    assert_eq!(
        all("192.0.2.8/30"),
        ["192.0.2.8", "192.0.2.9", "192.0.2.10", "192.0.2.11"]
    );
    assert_eq!(all("192.0.2.7 - 192.0.2.8"), ["192.0.2.7", "192.0.2.8"]);
    assert_eq!(all("192.0.2.7/32"), ["192.0.2.7"]);
    assert_eq!(all("2001:db8::fffe-2001:db8::1:0").len(), 3);
    for wrong in [
        "",
        "192.0.2.7",
        "192.0.2.9-192.0.2.7",
        "192.0.2.1-2001:db8::1",
        "x/y",
    ] {
        assert_eq!(Range::parse(wrong), None, "{wrong}");
    }
    assert!(
        Range::parse("2001:db8::/64")
            .unwrap()
            .contains(ip("2001:db8::5"))
    );
    assert!(!Range::parse("0.0.0.0/0").unwrap().contains(ip("::1")));
}

/// What MetalLB's documentation says of requests for addresses and pools.
#[test]
fn services_name_addresses_and_pools() {
    let pools = [
        pool("production", json!({"addresses": ["42.176.25.64/30"]})),
        pool(
            "expensive",
            json!({"addresses": ["42.175.26.64/30"], "autoAssign": false}),
        ),
    ];
    let mut named = want("named");
    named.addresses = vec![ip("42.176.25.65")];
    let mut chosen = want("chosen");
    chosen.pool = Some("expensive".to_owned());
    let mut unknown = want("unknown");
    unknown.pool = Some("cheap".to_owned());
    let mut elsewhere = want("elsewhere");
    elsewhere.addresses = vec![ip("10.0.0.1")];
    let mut taken = want("taken");
    taken.addresses = vec![ip("42.176.25.65")];
    let wants = [want("any"), named, chosen, unknown, elsewhere, taken];
    let given = assign(&pools, &wants);
    // "Any pool that gives by itself", and not what somebody names.
    assert_eq!(addresses(&given, "any"), ["42.176.25.64"]);
    assert_eq!(addresses(&given, "named"), ["42.176.25.65"]);
    assert_eq!(addresses(&given, "chosen"), ["42.175.26.64"]);
    for (name, text) in [
        ("unknown", "unknown pool \"cheap\""),
        (
            "elsewhere",
            "10.0.0.1 is of no pool that is for this service",
        ),
        ("taken", "address 42.176.25.65 is in use by default/named"),
    ] {
        assert_eq!(*of(&given, name), Given::Nothing(REFUSED, text.to_owned()));
    }
    let none = assign(&[], &[want("any")]);
    assert!(matches!(of(&none, "any"), Given::Nothing(NO_POOL, _)));
}

#[test]
fn an_exhausted_pool_says_so_and_whoever_has_an_address_keeps_it() {
    let pools = [pool("small", json!({"addresses": ["192.0.2.1-192.0.2.1"]}))];
    let mut second = want("b");
    second.has = vec![ip("192.0.2.1")];
    let given = assign(&pools, &[want("a"), second]);
    assert_eq!(addresses(&given, "b"), ["192.0.2.1"]);
    let text = "no available IPs in pool \"small\"".to_owned();
    assert_eq!(*of(&given, "a"), Given::Nothing(EXHAUSTED, text));
    // It is gone: its address is free.
    assert_eq!(addresses(&assign(&pools, &[want("a")]), "a"), ["192.0.2.1"]);
}

#[test]
fn some_addresses_are_left_out_on_request() {
    let all = json!({"addresses": ["192.0.1.254-192.0.2.1"], "avoidBuggyIPs": true});
    let given = assign(&[pool("p", all)], &[want("a"), want("b"), want("c")]);
    assert_eq!(addresses(&given, "a"), ["192.0.1.254"]);
    assert_eq!(addresses(&given, "b"), ["192.0.2.1"]);
    assert!(matches!(of(&given, "c"), Given::Nothing(EXHAUSTED, _)));
}

/// The three conditions of MetalLB's "IP address sharing".
#[test]
fn an_address_is_shared_by_those_who_agree() {
    let pools = [pool("p", json!({"addresses": ["192.0.2.1-192.0.2.9"]}))];
    let sharer = |name: &str, key: &str, protocol: &str, port: i32, backend: &str| Want {
        sharing: key.to_owned(),
        ports: BTreeSet::from([(protocol.to_owned(), port)]),
        backend: backend.to_owned(),
        ..want(name)
    };
    let given = assign(
        &pools,
        &[
            sharer("a", "dns", "TCP", 53, ""),
            sharer("b", "dns", "UDP", 53, ""),
            sharer("c-other-key", "web", "TCP", 80, ""),
            sharer("d-same-port", "dns", "TCP", 53, ""),
            sharer("e-local", "dns", "TCP", 80, "default/{\"app\":\"x\"}"),
            sharer("f-local", "dns", "TCP", 81, "default/{\"app\":\"x\"}"),
        ],
    );
    let one = |name: &str| addresses(&given, name).remove(0);
    assert_eq!(one("a"), "192.0.2.1");
    assert_eq!(one("b"), "192.0.2.1");
    assert_eq!(one("c-other-key"), "192.0.2.2");
    assert_eq!(one("d-same-port"), "192.0.2.3");
    assert_eq!(one("e-local"), "192.0.2.4");
    assert_eq!(one("f-local"), "192.0.2.4");
}

#[test]
fn pools_are_for_namespaces_and_services_by_priority() {
    let pools = [
        pool("all", json!({"addresses": ["10.0.0.0/24"]})),
        pool(
            "late",
            json!({"addresses": ["10.0.1.0/24"],
            "serviceAllocation": {"priority": 50, "namespaces": ["default"]}}),
        ),
        pool(
            "early",
            json!({"addresses": ["10.0.2.0/24"],
            "serviceAllocation": {"priority": 10, "namespaceSelectors": [{"matchLabels": {"tier": "gold"}}],
                "serviceSelectors": [{"matchExpressions": [{"key": "app", "operator": "In", "values": ["bar"]}]}]}}),
        ),
    ];
    let mut gold = want("gold");
    gold.namespace_labels = BTreeMap::from([("tier".to_owned(), "gold".to_owned())]);
    gold.labels = BTreeMap::from([("app".to_owned(), "bar".to_owned())]);
    let mut plain = want("plain");
    plain.namespace_labels = gold.namespace_labels.clone();
    let mut other = want("other");
    other.key.namespace = "elsewhere".to_owned();
    let given = assign(&pools, &[gold, plain, other]);
    assert_eq!(addresses(&given, "gold"), ["10.0.2.0"]);
    assert_eq!(addresses(&given, "plain"), ["10.0.1.0"]);
    let other = &given[&ObjectKey::new("elsewhere", "other")];
    assert_eq!(
        *other,
        Given::Addresses(vec![ip("10.0.0.0")], "all".to_owned())
    );
}

#[test]
fn two_families_come_from_one_pool() {
    let pools = [
        pool("v4", json!({"addresses": ["10.0.0.0/24"]})),
        pool("v6", json!({"addresses": ["2001:db8::1/128"]})),
    ];
    let dual = |name: &str, any_family: bool| Want {
        v6: true,
        any_family,
        ..want(name)
    };
    let given = assign(&pools, &[dual("prefer", true), dual("require", false)]);
    assert_eq!(addresses(&given, "prefer"), ["10.0.0.0"]);
    assert!(matches!(
        of(&given, "require"),
        Given::Nothing(EXHAUSTED, _)
    ));
    let both = [pool(
        "both",
        json!({"addresses": ["10.0.0.0/24", "2001:db8::1/128"]}),
    )];
    let given = assign(&both, &[dual("require", false)]);
    assert_eq!(addresses(&given, "require"), ["10.0.0.0", "2001:db8::1"]);
}

fn a_want() -> impl Strategy<Value = Want> {
    let has = prop::option::of(0u8..12);
    let asks = prop::option::of(0u8..12);
    let parts = (0u8..20, 0u8..3, 80i32..83, asks, has, any::<bool>());
    parts.prop_map(|(number, key, port, asks, has, local)| {
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        Want {
            sharing: ["", "x", "y"][usize::from(key)].to_owned(),
            backend: if local {
                format!("pods-{}", number % 2)
            } else {
                String::new()
            },
            ports: BTreeSet::from([("TCP".to_owned(), port)]),
            addresses: asks.map(address).into_iter().collect(),
            has: has.map(address).into_iter().collect(),
            ..want(&format!("s{number}"))
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_address_is_given_twice_and_nothing_moves_without_need(
        all in prop::collection::vec(a_want(), 0..16),
    ) {
        let mut wants: Vec<Want> = Vec::new();
        for one in all {
            if !wants.iter().any(|found| found.key == one.key) {
                wants.push(one);
            }
        }
        let pools = [pool("p", json!({"addresses": ["192.0.2.2-192.0.2.9"]}))];
        let given = assign(&pools, &wants);
        prop_assert_eq!(given.len(), wants.len());
        let find = |key: &ObjectKey| wants.iter().find(|want| want.key == *key).unwrap();
        for (key, answer) in &given {
            let Given::Addresses(mine, _) = answer else { continue };
            let me = find(key);
            prop_assert!(me.addresses.is_empty() || me.addresses == *mine);
            prop_assert!(mine.iter().all(|ip| Range::parse("192.0.2.2-192.0.2.9").unwrap().contains(*ip)));
            for (other_key, other) in given.iter().filter(|(other, _)| *other != key) {
                let Given::Addresses(theirs, _) = other else { continue };
                if mine.iter().any(|ip| theirs.contains(ip)) {
                    let other = find(other_key);
                    prop_assert!(!me.sharing.is_empty() && me.sharing == other.sharing);
                    prop_assert!(me.backend == other.backend && me.ports.is_disjoint(&other.ports));
                }
            }
        }
        // Nobody waits while an address is free that he would take.
        for (key, answer) in &given {
            if let Given::Nothing(reason, _) = answer {
                let used: BTreeSet<IpAddr> = given.values().flat_map(|other| match other {
                    Given::Addresses(all, _) => all.clone(),
                    Given::Nothing(..) => Vec::new(),
                }).collect();
                prop_assert!(*reason == REFUSED || (used.len() == 8 && find(key).addresses.is_empty()));
            }
        }
        // Once given, it stays: also when everything is thought through again.
        let again: Vec<Want> = wants.iter().cloned().map(|mut want| {
            want.has = match &given[&want.key] {
                Given::Addresses(all, _) => all.clone(),
                Given::Nothing(..) => Vec::new(),
            };
            want
        }).collect();
        // The words may differ: whoever is first in the way is named.
        let kept = |given: BTreeMap<ObjectKey, Given>| -> BTreeMap<ObjectKey, Option<Vec<IpAddr>>> {
            let one = |answer| match answer {
                Given::Addresses(all, _) => Some(all),
                Given::Nothing(..) => None,
            };
            given.into_iter().map(|(key, answer)| (key, one(answer))).collect()
        };
        prop_assert_eq!(kept(assign(&pools, &again)), kept(given));
    }

    #[test]
    fn an_announcer_stays_until_it_may_no_more(nodes in prop::collection::btree_set("[a-e]", 0..5), current in "[a-e]") {
        let candidates: Vec<Candidate> = nodes
            .iter()
            .map(|node| Candidate { node: node.clone(), interfaces: BTreeSet::new() })
            .collect();
        let chosen = choose(ip("192.0.2.1"), &candidates, Some(&current)).map(|found| &found.node);
        prop_assert_eq!(chosen.is_none(), nodes.is_empty());
        if nodes.contains(&current) {
            prop_assert_eq!(chosen, Some(&current));
        }
        if let Some(chosen) = chosen {
            prop_assert!(nodes.contains(chosen));
        }
    }
}

fn service(name: &str, more: Value) -> Service {
    let mut object = json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
            "selector": {"app": name}, "ports": [{"port": 80, "protocol": "TCP"}],
        },
    });
    for (key, value) in more.as_object().unwrap() {
        for (field, value) in value.as_object().unwrap() {
            object[key][field] = value.clone();
        }
    }
    serde_json::from_value(object).unwrap()
}

fn node(name: &str, ready: &str) -> Node {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }))
    .unwrap()
}

#[test]
fn services_of_others_are_left_alone() {
    for (spec, ours, concerned) in [
        (json!({}), true, true),
        (
            json!({"loadBalancerClass": "evenkeel.io/load-balancer"}),
            true,
            true,
        ),
        (
            json!({"loadBalancerClass": "example.com/internal"}),
            false,
            false,
        ),
        (json!({"type": "ClusterIP"}), false, false),
    ] {
        let service = service("a", json!({"spec": spec}));
        assert_eq!(plan::is_ours(&service), ours, "{spec}");
        assert_eq!(plan::concerns(&service), concerned, "{spec}");
    }
    // What has traces of ours is cleaned.
    let traces =
        json!({"spec": {"type": "ClusterIP"}, "metadata": {"annotations": {FROM_POOL: "p"}}});
    assert!(plan::concerns(&service("a", traces)));
}

#[tokio::test(start_paused = true)]
async fn who_names_ipv6_gets_such_an_address_though_the_cluster_has_none() {
    let fake = FakeApi::new(FakeClock::shared());
    fake.put(&node("n1", "True"));
    fake.put(&pool(
        "p",
        json!({"addresses": ["192.0.2.0/24", "2001:db8::/64"]}),
    ));
    let advertisement: Advertisement =
        serde_json::from_value(json!({"metadata": {"name": "all", "namespace": "lb"}, "spec": {}}))
            .unwrap();
    fake.put(&advertisement);
    fake.put(&service("four", json!({})));
    let families = json!({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack"});
    fake.put(&service("dual", json!({"spec": families})));
    let world = testing::start(&fake, |context| Box::pin(super::run(context)));
    let announced = |name: &'static str, wanted: &'static str| {
        fake.wait_for("an announcer", move |fake| {
            (announcer(fake, name)? == wanted).then_some(())
        })
    };
    announced("dual", "192.0.2.0=n1,2001:db8::=n1").await;
    announced("four", "192.0.2.1=n1").await;
    let told = |name: &'static str, wanted: fn(&str) -> bool| {
        fake.wait_for("a condition", move |fake| {
            let service = fake.get::<Service>("default", name)?;
            let all = service.status?.conditions?;
            let found = all.into_iter().find(|found| found.type_ == ANNOUNCED)?;
            wanted(&found.message).then_some(())
        })
    };
    told("dual", |text| text.contains("addressType IPv6 only")).await;
    told("four", |text| text == "announced on the link by n1").await;
    world.end().await;
}

fn state(fake: &FakeApi, name: &str, kind: &str) -> Option<(String, String)> {
    let service = fake.get::<Service>("default", name)?;
    let all = service.status?.conditions?;
    let found = all.into_iter().find(|found| found.type_ == kind)?;
    Some((found.status, found.reason))
}

fn address(fake: &FakeApi, name: &str) -> Option<String> {
    let status = fake.get::<Service>("default", name)?.status?;
    status.load_balancer?.ingress?.first()?.ip.clone()
}

fn announcer(fake: &FakeApi, name: &str) -> Option<String> {
    let annotations = fake.get::<Service>("default", name)?.metadata.annotations?;
    annotations.get(ANNOUNCED_BY).cloned()
}

#[tokio::test(start_paused = true)]
async fn an_address_is_given_announced_moved_and_taken_back() {
    let fake = FakeApi::new(FakeClock::shared());
    fake.put(&node("n1", "True"));
    fake.put(&service("web", json!({})));
    let world = testing::start(&fake, |context| Box::pin(super::run(context)));
    fake.wait_for("a reason", |fake| {
        (state(fake, "web", ASSIGNED)? == ("False".to_owned(), NO_POOL.to_owned())).then_some(())
    })
    .await;

    let addresses = pool("p", json!({"addresses": ["192.0.2.1-192.0.2.1"]}));
    fake.put(&addresses);
    fake.wait_for("the pool says so", |fake| {
        let status = fake.get::<AddressPool>("lb", "p")?.status?;
        (status.assigned_ipv4 == 1 && status.available_ipv4 == 0).then_some(())
    })
    .await;
    fake.wait_for("an address that nobody announces", |fake| {
        let announced = state(fake, "web", ANNOUNCED)?;
        (address(fake, "web")? == "192.0.2.1" && announced.0 == "False").then_some(())
    })
    .await;
    let advertisement: Advertisement = serde_json::from_value(json!({
        "metadata": {"name": "all", "namespace": "lb"}, "spec": {"interfaces": ["eth0"]},
    }))
    .unwrap();
    fake.put(&advertisement);
    fake.wait_for("an announcer", |fake| {
        (announcer(fake, "web")? == "192.0.2.1=n1@eth0").then_some(())
    })
    .await;

    // The next one finds nothing, until the first is gone.
    fake.put(&service("late", json!({})));
    fake.wait_for("no address", |fake| {
        (state(fake, "late", ASSIGNED)?.1 == EXHAUSTED).then_some(())
    })
    .await;
    fake.wait_for("an event", |fake| {
        let text = "Failed to allocate IP for \"default/late\": no available IPs in pool \"p\"";
        let events = fake.all::<Event>();
        events
            .iter()
            .find(|event| event.message.as_deref() == Some(text))
            .map(drop)
    })
    .await;

    // The node fails; another takes over.
    fake.put(&node("n2", "True"));
    fake.put(&node("n1", "Unknown"));
    fake.wait_for("the other announcer", |fake| {
        (announcer(fake, "web")? == "192.0.2.1=n2@eth0").then_some(())
    })
    .await;
    fake.put(&node("n1", "True"));

    fake.remove::<Service>("default", "web");
    fake.wait_for("the address for the next", |fake| {
        (address(fake, "late")? == "192.0.2.1").then_some(())
    })
    .await;

    // No longer of that type: nothing is left of it.
    let mut plain = fake.get::<Service>("default", "late").unwrap();
    plain.spec.as_mut().unwrap().type_ = Some("ClusterIP".to_owned());
    plain.status.as_mut().unwrap().load_balancer = None;
    fake.put(&plain);
    fake.wait_for("a clean service", |fake| {
        let service = fake.get::<Service>("default", "late")?;
        let traces = service
            .metadata
            .annotations
            .is_some_and(|all| !all.is_empty());
        let conditions = service.status.and_then(|status| status.conditions);
        (!traces && conditions.is_none_or(|all| all.is_empty())).then_some(())
    })
    .await;
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn with_policy_local_a_node_with_a_pod_announces() {
    let fake = FakeApi::new(FakeClock::shared());
    for name in ["n1", "n2", "n3"] {
        fake.put(&node(name, "True"));
    }
    fake.put(&pool("p", json!({"addresses": ["192.0.2.0/28"]})));
    let advertisement: Advertisement = serde_json::from_value(json!({
        "metadata": {"name": "all", "namespace": "lb"}, "spec": {},
    }))
    .unwrap();
    fake.put(&advertisement);
    let slice = |node: &str| -> k8s_openapi::api::discovery::v1::EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": [],
            "endpoints": [{"addresses": ["10.244.1.1"], "nodeName": node, "conditions": {"ready": true}}],
        }))
        .unwrap()
    };
    fake.put(&slice("n3"));
    fake.put(&service(
        "web",
        json!({"spec": {"externalTrafficPolicy": "Local"}}),
    ));
    let world = testing::start(&fake, |context| Box::pin(super::run(context)));
    for name in ["n3", "n1"] {
        fake.put(&slice(name));
        fake.wait_for("the node with the pod", |fake| {
            (announcer(fake, "web")? == format!("192.0.2.0={name}")).then_some(())
        })
        .await;
    }
    world.end().await;
}

#[test]
fn a_pool_says_how_much_of_it_is_used_and_what_is_no_address() {
    let now = jiff::Timestamp::UNIX_EPOCH;
    let pools = [
        pool(
            "p",
            json!({"addresses": ["192.0.2.0/24", "192.0.2.128-192.0.2.255", "2001:db8::/126"]}),
        ),
        pool(
            "careful",
            json!({"addresses": ["10.0.0.254-10.0.2.1"], "avoidBuggyIPs": true}),
        ),
        pool(
            "wrong",
            json!({"addresses": ["10.9.0.1-10.9.0.0", "10.9.1.0-::1"]}),
        ),
        pool("huge", json!({"addresses": ["2001:db8::/32"]})),
    ];
    let mut dual = want("dual");
    dual.v6 = true;
    let given = assign(&pools[..1], &[want("a"), dual]);
    let writes = super::pools::plan(&pools, &given, now);
    let of = |name: &str| {
        let found = writes
            .iter()
            .find(|write| write.pool.metadata.name.as_deref() == Some(name));
        found.unwrap_or_else(|| panic!("nothing of {name}"))
    };
    let numbers = |name: &str| {
        let status = &of(name).status;
        [
            status.assigned_ipv4,
            status.available_ipv4,
            status.assigned_ipv6,
            status.available_ipv6,
        ]
    };
    // What two entries name is one address.
    assert_eq!(numbers("p"), [2, 254, 1, 3]);
    // .254 of the first, 1 to 254 of the second, .1 of the third.
    assert_eq!(numbers("careful"), [0, 256, 0, 0]);
    assert_eq!(numbers("huge"), [0, 0, 0, i64::MAX]);
    assert_eq!(numbers("wrong"), [0, 0, 0, 0]);
    let said = of("wrong").warning.clone().unwrap();
    assert!(
        said.contains("\"10.9.0.1-10.9.0.0\"") && said.contains("\"10.9.1.0-::1\""),
        "{said}"
    );
    assert_eq!(of("wrong").status.conditions[0].status, "False");
    assert_eq!(of("p").status.conditions[0].status, "True");
    // Said once, it is not said again.
    let told: Vec<AddressPool> = writes
        .iter()
        .map(|write| AddressPool {
            status: Some(write.status.clone()),
            ..write.pool.clone()
        })
        .collect();
    assert_eq!(super::pools::plan(&told, &given, now), []);
}

#[test]
fn the_definitions_are_of_the_kinds_that_are_read() {
    let all = super::kinds::definitions();
    let named = |definition: &Value| {
        let names = &definition["spec"]["names"];
        (names["kind"].clone(), names["plural"].clone())
    };
    assert_eq!(
        named(&all[0]),
        (json!("IPAddressPool"), json!("ipaddresspools"))
    );
    assert_eq!(
        named(&all[1]),
        (json!("L2Advertisement"), json!("l2advertisements"))
    );
    let read: Arc<AddressPool> = Arc::new(pool(
        "p",
        json!({"addresses": ["10.0.0.0/8"], "avoidBuggyIPs": true}),
    ));
    assert!(read.spec.avoid_buggy_ips);
}
