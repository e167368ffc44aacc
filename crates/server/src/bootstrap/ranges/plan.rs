//! What is wrong between a service and an IPAddress: the rules of the reference's repair loop, without
//! a clock and without the store.

use std::net::IpAddr;

use evenkeel_api::object;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::ranges;

/// An IPAddress may be there so long before its service, as in a restored backup.
const GRACE: SignedDuration = SignedDuration::from_secs(60);

/// What is wrong with the IPAddress of a service's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// There is none.
    Missing,
    /// It names something else, or a service that does not have the address.
    OfAnother,
    /// It names another service that has the address too.
    Shared,
    /// Its labels are not those of a service's.
    Labels,
}

/// Judges the IPAddress of the name of an address that a service has. `has` says whether a service
/// has that address, and `None` of one that is not there.
pub(super) fn fault(
    address: Option<&Value>,
    ip: IpAddr,
    service: (&str, &str),
    has: impl Fn(&str, &str) -> Option<bool>,
) -> Option<Fault> {
    let Some(address) = address else {
        return Some(Fault::Missing);
    };
    match ranges::service_of(address) {
        Some(named) if named == service => {}
        Some((namespace, name)) if has(namespace, name) == Some(true) => {
            return Some(Fault::Shared);
        }
        _ => return Some(Fault::OfAnother),
    }
    let family = object::label(address, ranges::FAMILY);
    let is_right = is_managed(address) && family == Some(ranges::family(ip));
    (!is_right).then_some(Fault::Labels)
}

/// What becomes of an IPAddress that no service has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lone {
    /// Somebody else's, or right by now.
    Stays,
    /// Its service may still come.
    Young,
    /// It was a service's and names something else.
    Changed,
    /// Its service is gone.
    Leaked,
    /// Its service has another address.
    NotIts,
}

/// Judges an IPAddress that no service has.
pub(super) fn lone(
    address: &Value,
    now: Timestamp,
    has: impl Fn(&str, &str) -> Option<bool>,
) -> Lone {
    if !is_managed(address) || object::deletion_timestamp(address).is_some() {
        return Lone::Stays;
    }
    let Some((namespace, name)) = ranges::service_of(address) else {
        return Lone::Changed;
    };
    match has(namespace, name) {
        Some(true) => Lone::Stays,
        Some(false) => Lone::NotIts,
        None => {
            let made = object::text(address, &["metadata", "creationTimestamp"]);
            let made: Timestamp = made.parse().unwrap_or(Timestamp::UNIX_EPOCH);
            if now.duration_since(made) > GRACE {
                Lone::Leaked
            } else {
                Lone::Young
            }
        }
    }
}

fn is_managed(address: &Value) -> bool {
    object::label(address, ranges::MANAGED_BY) == Some(ranges::ALLOCATOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Services `a/one` and `a/two` have the address, `a/other` has another one.
    fn has(_: &str, name: &str) -> Option<bool> {
        match name {
            "one" | "two" => Some(true),
            "other" => Some(false),
            _ => None,
        }
    }

    fn address(name: &str) -> Value {
        let mut address = ranges::address_of("10.0.0.7".parse().unwrap(), "a", name);
        address["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        address
    }

    #[test]
    fn a_service_has_the_address_that_names_it() {
        let ip = "10.0.0.7".parse().unwrap();
        let judge = |address: Option<&Value>| fault(address, ip, ("a", "one"), has);
        assert_eq!(judge(None), Some(Fault::Missing));
        for (named, wrong) in [
            ("one", None),
            ("two", Some(Fault::Shared)),
            ("other", Some(Fault::OfAnother)),
            ("gone", Some(Fault::OfAnother)),
        ] {
            assert_eq!(judge(Some(&address(named))), wrong, "{named}");
        }
        let mut gateway = address("one");
        gateway["spec"]["parentRef"]["resource"] = "gateways".into();
        assert_eq!(judge(Some(&gateway)), Some(Fault::OfAnother));
        for label in [ranges::FAMILY, ranges::MANAGED_BY] {
            let mut other = address("one");
            other["metadata"]["labels"][label] = "x".into();
            assert_eq!(judge(Some(&other)), Some(Fault::Labels), "{label}");
        }
    }

    #[test]
    fn an_address_without_a_service_goes_when_it_was_one() {
        let at = |seconds: i64| {
            let made: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
            made + SignedDuration::from_secs(seconds)
        };
        for (named, seconds, verdict) in [
            ("one", 0, Lone::Stays),
            ("other", 0, Lone::NotIts),
            ("gone", 60, Lone::Young),
            ("gone", 61, Lone::Leaked),
        ] {
            assert_eq!(lone(&address(named), at(seconds), has), verdict, "{named}");
        }
        let mut changed = address("one");
        changed["spec"]["parentRef"]["group"] = "apps".into();
        assert_eq!(lone(&changed, at(0), has), Lone::Changed);
        changed["metadata"]["labels"] = Value::Null;
        assert_eq!(lone(&changed, at(0), has), Lone::Stays);
        let mut going = address("gone");
        going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert_eq!(lone(&going, at(600), has), Lone::Stays);
    }
}
