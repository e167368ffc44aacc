//! When a ServiceCIDR is ready, waits and goes; and the loop on a pretended door.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_client::testing::{FakeApi, FakeClock};
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use serde_json::json;

use super::plan::{FINALIZER, READY, Step, TERMINATING, condition, is_covered, plan};
use crate::testing::start;

const DELETED: &str = "2026-01-01T00:00:00Z";

fn cidr(name: &str, networks: &[&str], deleted: bool, finalizers: &[&str]) -> Arc<ServiceCIDR> {
    let mut metadata = json!({"name": name, "finalizers": finalizers});
    if deleted {
        metadata["deletionTimestamp"] = DELETED.into();
    }
    let cidr = json!({"metadata": metadata, "spec": {"cidrs": networks}});
    Arc::new(serde_json::from_value(cidr).expect("a ServiceCIDR"))
}

fn address(ip: &str, manager: &str) -> Arc<IPAddress> {
    let address = json!({
        "metadata": {"name": ip, "labels": {"ipaddress.kubernetes.io/managed-by": manager}},
        "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "web"}},
    });
    Arc::new(serde_json::from_value(address).expect("an IPAddress"))
}

fn of_service(ip: &str) -> Arc<IPAddress> {
    address(ip, "ipallocator.k8s.io")
}

fn after(seconds: i64) -> Timestamp {
    let deleted: Timestamp = DELETED.parse().expect("a time");
    deleted + jiff::SignedDuration::from_secs(seconds)
}

fn step(all: &[Arc<ServiceCIDR>], addresses: &[Arc<IPAddress>], seconds: i64) -> Step {
    let others = all.iter().map(AsRef::as_ref);
    plan(&all[0], others, addresses, after(seconds))
}

fn saying(cidr: &Arc<ServiceCIDR>, step: &Step) -> Arc<ServiceCIDR> {
    let mut cidr = (**cidr).clone();
    let said = condition(step, after(0)).expect("a condition");
    cidr.status.get_or_insert_default().conditions = Some(vec![said]);
    Arc::new(cidr)
}

#[test]
fn it_is_protected_and_then_ready() {
    let new = cidr("a", &["10.0.0.0/24"], false, &["x/y"]);
    let both = vec!["x/y".to_owned(), FINALIZER.to_owned()];
    assert_eq!(step(&[new], &[], 0), Step::Protect(both));
    let protected = cidr("a", &["10.0.0.0/24"], false, &[FINALIZER]);
    assert_eq!(step(&[Arc::clone(&protected)], &[], 0), Step::Ready);
    let ready = saying(&protected, &Step::Ready);
    assert_eq!(step(&[ready], &[], 0), Step::Stay);
    let said = condition(&Step::Block, after(0)).expect("a condition");
    assert_eq!(
        (said.type_.as_str(), said.reason.as_str()),
        (READY, TERMINATING)
    );
    // It was to go and is not.
    let blocked = saying(&protected, &Step::Block);
    assert_eq!(step(&[blocked], &[], 0), Step::Ready);
}

#[test]
fn it_goes_when_its_addresses_are_gone_or_others_have_them() {
    let going = |networks: &[&str]| cidr("a", networks, true, &[FINALIZER]);
    let one = going(&["10.0.0.0/24", "fd00::/112"]);
    let release = Step::Release(vec![]);
    for (ip, waits) in [
        ("10.0.0.7", true),
        ("fd00::7", true),
        ("fd00::ffff", true),
        ("10.0.0.0", false),
        ("10.0.0.255", false),
        ("10.0.1.7", false),
        ("fd00::", false),
    ] {
        let found = step(&[Arc::clone(&one)], &[of_service(ip)], 60);
        let wanted = if waits { Step::Block } else { release.clone() };
        assert_eq!(found, wanted, "{ip}");
    }
    let used = [of_service("10.0.0.7")];
    let blocked = saying(&one, &Step::Block);
    assert_eq!(step(&[blocked], &used, 60), Step::Stay);
    // Not a service's.
    let gateway = [address("10.0.0.7", "gateways.example.com")];
    assert_eq!(step(&[Arc::clone(&one)], &gateway, 60), release);
    for (other, goes) in [
        (cidr("b", &["10.0.0.0/29"], false, &[]), true),
        (cidr("b", &["10.0.0.0/30"], false, &[]), false),
        (cidr("b", &["10.0.0.0/16"], false, &[]), true),
        (cidr("b", &["10.1.0.0/16"], false, &[]), false),
    ] {
        let shown = format!("{:?}", other.spec);
        let found = step(&[Arc::clone(&one), other], &[of_service("10.0.0.6")], 60);
        let wanted = if goes { release.clone() } else { Step::Block };
        assert_eq!(found, wanted, "{shown}");
    }
}

#[test]
fn of_two_of_the_same_network_one_stays() {
    let one = cidr("a", &["10.0.0.0/24"], true, &[FINALIZER]);
    for (deleted, finalizers, covered) in [
        (false, &[][..], true),
        (true, &[FINALIZER][..], true),
        // It was let go of, and is only held by somebody else.
        (true, &["x/y"][..], false),
    ] {
        let other = cidr("b", &["10.0.0.0/24"], deleted, finalizers);
        let all = [Arc::clone(&one), other];
        assert_eq!(is_covered(&one, all.iter().map(AsRef::as_ref)), covered);
        let found = step(&all, &[of_service("10.0.0.7")], 60);
        assert_eq!(found == Step::Block, !covered);
    }
}

#[test]
fn servers_have_time_to_hear_of_it() {
    let one = [cidr("a", &["10.0.0.0/24"], true, &["x/y", FINALIZER])];
    assert_eq!(step(&one, &[], 4), Step::Wait(Duration::from_secs(6)));
    let rest = vec!["x/y".to_owned()];
    assert_eq!(step(&one, &[], 10), Step::Release(rest));
    let released = [cidr("a", &["10.0.0.0/24"], true, &["x/y"])];
    assert_eq!(step(&released, &[], 60), Step::Stay);
}

#[tokio::test(start_paused = true)]
async fn the_last_address_lets_it_go() {
    let fake = FakeApi::new(FakeClock::shared());
    fake.put(&*cidr("a", &["10.0.0.0/24"], true, &[FINALIZER]));
    fake.put(&*of_service("10.0.0.7"));
    let world = start(&fake, |context| Box::pin(super::run(context)));
    let condition = |fake: &FakeApi, name: &str| {
        let status = fake.get::<ServiceCIDR>("", name)?.status?;
        status.conditions?.pop()
    };
    fake.wait_for("it to say why it stays", |fake| {
        (condition(fake, "a")?.reason == TERMINATING).then_some(())
    })
    .await;
    fake.put(&*cidr("b", &["10.0.1.0/24"], false, &[]));
    fake.wait_for("the other to be ready", |fake| {
        (condition(fake, "b")?.status == "True").then_some(())
    })
    .await;
    assert!(fake.get::<ServiceCIDR>("", "a").is_some());
    fake.remove::<IPAddress>("", "10.0.0.7");
    fake.wait_for("it to go", |fake| {
        fake.get::<ServiceCIDR>("", "a").is_none().then_some(())
    })
    .await;
    world.end().await;
}
