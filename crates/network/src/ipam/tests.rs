//! Addresses are never handed out twice, survive restarts and come back last.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

fn cidr(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

#[test]
fn the_same_sandbox_keeps_its_address_over_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let ipam = Ipam::open(cidr("10.1.2.0/24"), directory.path()).unwrap();
    let first = ipam.lease("a").unwrap();
    assert_eq!(first, Ipv4Addr::new(10, 1, 2, 2));
    assert_eq!(ipam.gateway(), cidr("10.1.2.1/24"));
    assert_eq!(ipam.lease("a").unwrap(), first);
    drop(ipam);
    let ipam = Ipam::open(cidr("10.1.2.0/24"), directory.path()).unwrap();
    assert_eq!(ipam.lease("a").unwrap(), first);
    assert_ne!(ipam.lease("b").unwrap(), first);
}

#[test]
fn released_addresses_come_back_last_even_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let ipam = Ipam::open(cidr("10.1.2.0/24"), directory.path()).unwrap();
    let first = ipam.lease("a").unwrap();
    assert_eq!(ipam.release("a").unwrap(), Some(first));
    assert_eq!(ipam.release("a").unwrap(), None);
    drop(ipam);
    let ipam = Ipam::open(cidr("10.1.2.0/24"), directory.path()).unwrap();
    let mut seen = HashSet::new();
    for n in 0..253 {
        let address = ipam.lease(&format!("p{n}")).unwrap();
        assert!(seen.insert(address));
        assert_eq!(address == first, n == 252);
    }
    assert!(matches!(ipam.lease("more"), Err(IpamError::Exhausted(_))));
}

#[test]
fn a_draft_left_by_a_crash_is_no_lease_and_a_damaged_one_is_named() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(".draft"), "10.1").unwrap();
    assert!(
        Ipam::open(cidr("10.1.2.0/24"), directory.path())
            .unwrap()
            .leases()
            .is_empty()
    );
    fs::write(directory.path().join("abc"), "nonsense").unwrap();
    let error = Ipam::open(cidr("10.1.2.0/24"), directory.path()).unwrap_err();
    assert!(error.to_string().ends_with("abc"), "{error}");
}

#[test]
fn names_that_leave_the_directory_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let ipam = Ipam::open(cidr("10.1.2.0/24"), directory.path()).unwrap();
    for id in ["", "..", ".last", "a/b"] {
        assert!(matches!(ipam.lease(id), Err(IpamError::BadId(_))), "{id:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any sequence of leases, releases and restarts: the model and the directory agree, no two
    /// sandboxes share an address, all addresses are usable ones.
    #[test]
    fn never_twice(steps in proptest::collection::vec((0u8..10, 0u8..12), 1..120)) {
        let directory = tempfile::tempdir().unwrap();
        let net = cidr("10.9.0.0/28");
        let mut ipam = Ipam::open(net, directory.path()).unwrap();
        let mut model: HashMap<String, Ipv4Addr> = HashMap::new();
        for (what, who) in steps {
            let id = format!("s{who}");
            match what {
                0 => ipam = Ipam::open(net, directory.path()).unwrap(),
                1..=3 => prop_assert_eq!(ipam.release(&id).unwrap(), model.remove(&id)),
                _ => {
                    let address = ipam.lease(&id).unwrap();
                    prop_assert!(net.contains(&address));
                    prop_assert!(address != net.network() && address != net.broadcast());
                    prop_assert!(address != ipam.gateway().addr());
                    if let Some(old) = model.insert(id.clone(), address) {
                        prop_assert_eq!(old, address);
                    }
                    let distinct: HashSet<_> = model.values().collect();
                    prop_assert_eq!(distinct.len(), model.len());
                }
            }
        }
    }
}
