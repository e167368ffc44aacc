//! What a ServiceCIDR needs: pure.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Keeps a ServiceCIDR while services have its addresses.
pub const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// The condition.
pub const READY: &str = "Ready";
/// Why it is false.
pub const TERMINATING: &str = "Terminating";
const IS_READY: &str = "Kubernetes Service CIDR is ready";
const IS_USED: &str = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new \
     ServiceCIDR";
/// Servers hear of a deletion within this time, and give out none of its addresses any more.
const GRACE: Duration = Duration::from_secs(10);

const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";

/// What is to be done about a ServiceCIDR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Stay,
    /// It gets these finalizers.
    Protect(Vec<String>),
    /// It says that it is ready.
    Ready,
    /// It says that it waits for its addresses.
    Block,
    /// It is looked at again.
    Wait(Duration),
    /// It keeps these finalizers and goes.
    Release(Vec<String>),
}

fn name(cidr: &ServiceCIDR) -> &str {
    cidr.metadata.name.as_deref().unwrap_or_default()
}

fn networks(cidr: &ServiceCIDR) -> impl Iterator<Item = IpNet> + '_ {
    let texts = cidr.spec.iter().filter_map(|spec| spec.cidrs.as_ref());
    let texts = texts.flatten();
    texts.filter_map(|text| text.parse().ok())
}

/// Can a service have this address of a network? Not its first one, nor the last one of IPv4.
fn has(network: IpNet, ip: IpAddr) -> bool {
    let last = ip.is_ipv4().then(|| network.broadcast());
    network.contains(&ip) && ip != network.network() && Some(ip) != last
}

/// Whether a ServiceCIDR is there as long as addresses depend on it: one that goes and was let go of
/// may be held by others yet, and is none to count on.
fn lasts(cidr: &ServiceCIDR) -> bool {
    cidr.metadata.deletion_timestamp.is_none() || is_protected(cidr)
}

fn is_protected(cidr: &ServiceCIDR) -> bool {
    let mut finalizers = cidr.metadata.finalizers.iter().flatten();
    finalizers.any(|found| found == FINALIZER)
}

/// Whether other ServiceCIDRs have all the networks of one: then nobody loses an address with it. Of
/// two that go and have the same, one is let go of, and the other one is then alone.
#[must_use]
pub fn is_covered<'c>(
    cidr: &ServiceCIDR,
    all: impl IntoIterator<Item = &'c ServiceCIDR> + Clone,
) -> bool {
    let covers = |other: &ServiceCIDR, network: IpNet| {
        lasts(other)
            && name(other) != name(cidr)
            && networks(other).any(|its| its.contains(&network))
    };
    networks(cidr).all(|network| all.clone().into_iter().any(|other| covers(other, network)))
}

/// Whether a service's address is of this ServiceCIDR and of no other one.
fn uses<'c>(
    address: &IPAddress,
    cidr: &ServiceCIDR,
    all: impl IntoIterator<Item = &'c ServiceCIDR>,
) -> bool {
    let labels = address.metadata.labels.as_ref();
    if labels
        .and_then(|labels| labels.get(MANAGED_BY))
        .map(String::as_str)
        != Some(ALLOCATOR)
    {
        return false;
    }
    let ip = address.metadata.name.as_deref().unwrap_or_default();
    let Ok(ip) = ip.parse::<IpAddr>() else {
        return false;
    };
    let has_it = |cidr: &ServiceCIDR| networks(cidr).any(|network| has(network, ip));
    let mut others = all
        .into_iter()
        .filter(|other| lasts(other) && name(other) != name(cidr));
    has_it(cidr) && !others.any(has_it)
}

fn says(cidr: &ServiceCIDR, status: &str, message: &str) -> bool {
    let conditions = cidr.status.as_ref().and_then(|it| it.conditions.as_ref());
    let mut found = conditions.into_iter().flatten();
    found.any(|it| it.type_ == READY && it.status == status && it.message == message)
}

/// The condition that a step writes.
#[must_use]
pub fn condition(step: &Step, now: Timestamp) -> Option<Condition> {
    let (status, reason, message) = match step {
        Step::Ready => ("True", "", IS_READY),
        Step::Block => ("False", TERMINATING, IS_USED),
        _ => return None,
    };
    Some(Condition {
        type_: READY.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: Time(now),
        observed_generation: None,
    })
}

/// The next step of a ServiceCIDR among all of them. The addresses are asked for only when one that
/// goes depends on them.
pub fn plan<'c>(
    cidr: &ServiceCIDR,
    all: impl IntoIterator<Item = &'c ServiceCIDR> + Clone,
    addresses: impl IntoIterator<Item = impl AsRef<IPAddress>>,
    now: Timestamp,
) -> Step {
    let mut finalizers = cidr.metadata.finalizers.clone().unwrap_or_default();
    let protected = is_protected(cidr);
    let Some(deleted) = &cidr.metadata.deletion_timestamp else {
        if !protected {
            finalizers.push(FINALIZER.to_owned());
            return Step::Protect(finalizers);
        }
        return if says(cidr, "True", IS_READY) {
            Step::Stay
        } else {
            Step::Ready
        };
    };
    if !protected {
        return Step::Stay;
    }
    if !is_covered(cidr, all.clone()) {
        let mut addresses = addresses.into_iter();
        if addresses.any(|address| uses(address.as_ref(), cidr, all.clone())) {
            return if says(cidr, "False", IS_USED) {
                Step::Stay
            } else {
                Step::Block
            };
        }
    }
    let since = Duration::try_from(now.duration_since(deleted.0)).unwrap_or_default();
    match GRACE.checked_sub(since) {
        Some(left) if !left.is_zero() => Step::Wait(left),
        _ => {
            finalizers.retain(|found| found != FINALIZER);
            Step::Release(finalizers)
        }
    }
}
