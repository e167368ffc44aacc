//! Which service gets which addresses: pure.
//!
//! What a service has it keeps for as long as the pools and its own wishes admit it; then those
//! that name addresses are served, then the rest, the oldest first. An address is given once, or
//! shared by services that agreed on it: the same key (`metallb.io/allow-shared-ip`), other ports,
//! and with `externalTrafficPolicy: Local` the same pods.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use evenkeel_api::selector::LabelSelector;
use evenkeel_client::ObjectKey;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

use super::addresses::{Range, is_buggy};
use super::kinds::{AddressPool, Allocation};

type Labels = BTreeMap<String, String>;

/// What a service wants.
#[derive(Debug, Clone, PartialEq)]
pub struct Want {
    /// Which service.
    pub key: ObjectKey,
    /// Since when it is there.
    pub created: Option<Timestamp>,
    /// It has an IPv4 address in the cluster.
    pub v4: bool,
    /// It has an IPv6 address in the cluster, or names the family.
    pub v6: bool,
    /// One family will do (`PreferDualStack`).
    pub any_family: bool,
    /// Protocols and ports.
    pub ports: BTreeSet<(String, i32)>,
    /// Addresses it names.
    pub addresses: Vec<IpAddr>,
    /// The pool it names.
    pub pool: Option<String>,
    /// The key by which it shares; empty shares with nobody.
    pub sharing: String,
    /// Its pods, where sharing depends on them.
    pub backend: String,
    /// Its labels.
    pub labels: Labels,
    /// Its namespace's labels.
    pub namespace_labels: Labels,
    /// What it has.
    pub has: Vec<IpAddr>,
}

/// What it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// Addresses, and the pool that they are from.
    Addresses(Vec<IpAddr>, String),
    /// Nothing: the reason in one word, and a sentence.
    Nothing(&'static str, String),
}

/// No pool is declared.
pub const NO_POOL: &str = "NoAddressPool";
/// All addresses that it could have are taken.
pub const EXHAUSTED: &str = "AddressPoolExhausted";
/// What it names it can't have.
pub const REFUSED: &str = "AddressRefused";

/// Does any selector match? `otherwise` is the answer where there is none.
pub(super) fn any_matches(
    selectors: &[meta::LabelSelector],
    labels: &Labels,
    otherwise: bool,
) -> bool {
    if selectors.is_empty() {
        return otherwise;
    }
    let matches = |selector: &meta::LabelSelector| {
        LabelSelector::from_spec(Some(selector)).is_ok_and(|selector| selector.matches(labels))
    };
    selectors.iter().any(matches)
}

struct Pool<'a> {
    name: &'a str,
    ranges: Vec<Range>,
    object: &'a AddressPool,
}

impl<'a> Pool<'a> {
    fn of(object: &'a AddressPool) -> Self {
        Self {
            name: object.metadata.name.as_deref().unwrap_or_default(),
            ranges: object
                .spec
                .addresses
                .iter()
                .filter_map(|text| Range::parse(text))
                .collect(),
            object,
        }
    }

    fn holds(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
            && !(self.object.spec.avoid_buggy_ips && is_buggy(address))
    }

    fn allocation(&self) -> Option<&Allocation> {
        self.object.spec.service_allocation.as_ref()
    }

    /// Is the pool for this service?
    fn is_for(&self, want: &Want) -> bool {
        let Some(allocation) = self.allocation() else {
            return true;
        };
        let anywhere =
            allocation.namespaces.is_empty() && allocation.namespace_selectors.is_empty();
        let here = anywhere
            || allocation.namespaces.contains(&want.key.namespace)
            || any_matches(
                &allocation.namespace_selectors,
                &want.namespace_labels,
                false,
            );
        here && any_matches(&allocation.service_selectors, &want.labels, true)
    }

    /// Pools for certain services come first, by priority; then those for all.
    fn rank(&self) -> (bool, i64) {
        let Some(allocation) = self.allocation() else {
            return (true, i64::MAX);
        };
        let priority = allocation.priority.filter(|priority| *priority > 0);
        (false, priority.unwrap_or(i64::MAX))
    }

    /// Its addresses of one family, in order.
    fn addresses(&self, v6: bool) -> impl Iterator<Item = IpAddr> {
        let buggy = self.object.spec.avoid_buggy_ips;
        self.ranges
            .iter()
            .filter(move |range| range.is_v6() == v6)
            .flat_map(|range| range.addresses())
            .filter(move |address| !(buggy && is_buggy(*address)))
    }
}

/// Whether a pool has this address to give.
#[must_use]
pub fn holds(pool: &AddressPool, address: IpAddr) -> bool {
    Pool::of(pool).holds(address)
}

/// Who has which address.
#[derive(Default)]
struct Ledger<'a> {
    users: HashMap<IpAddr, Vec<&'a Want>>,
}

impl<'a> Ledger<'a> {
    /// Who stands against giving this address, and why.
    fn objection(&self, want: &Want, address: IpAddr) -> Option<String> {
        self.users.get(&address)?.iter().find_map(|user| {
            let other = &user.key;
            if want.sharing.is_empty() || want.sharing != user.sharing {
                return Some(format!("address {address} is in use by {other}"));
            }
            if want.backend != user.backend {
                return Some(format!(
                    "address {address} can't be shared with {other}: with externalTrafficPolicy \
                     Local both must have the same pods"
                ));
            }
            let (protocol, port) = want.ports.intersection(&user.ports).next()?;
            Some(format!(
                "port {protocol}/{port} of address {address} is in use by {other}"
            ))
        })
    }

    fn take(&mut self, want: &'a Want, addresses: &[IpAddr]) {
        for address in addresses {
            self.users.entry(*address).or_default().push(want);
        }
    }

    /// An address of the pool that it shares with somebody, else the first that is free.
    fn find(&self, pool: &Pool<'_>, want: &Want, v6: bool) -> Option<IpAddr> {
        let shared = || {
            let mut all: Vec<IpAddr> = self
                .users
                .keys()
                .copied()
                .filter(|address| address.is_ipv6() == v6 && pool.holds(*address))
                .filter(|address| self.objection(want, *address).is_none())
                .collect();
            all.sort_unstable();
            all.first().copied()
        };
        let free = || {
            pool.addresses(v6)
                .find(|address| !self.users.contains_key(address))
        };
        if want.sharing.is_empty() {
            free()
        } else {
            shared().or_else(free)
        }
    }
}

/// Do these addresses have the families that the service has?
fn families_fit(want: &Want, addresses: &[IpAddr]) -> bool {
    let v4 = addresses.iter().filter(|address| address.is_ipv4()).count();
    let v6 = addresses.len() - v4;
    if v4 > 1 || v6 > 1 || addresses.is_empty() {
        return false;
    }
    let within = (v4 == 0 || want.v4) && (v6 == 0 || want.v6);
    within && (want.any_family || (v4 == usize::from(want.v4) && v6 == usize::from(want.v6)))
}

fn same(a: &[IpAddr], b: &[IpAddr]) -> bool {
    a.iter().collect::<BTreeSet<_>>() == b.iter().collect::<BTreeSet<_>>()
}

/// The pool that has all of these addresses and is for the service.
fn pool_of<'p, 'a>(
    pools: &'p [Pool<'a>],
    want: &Want,
    addresses: &[IpAddr],
) -> Option<&'p Pool<'a>> {
    pools.iter().find(|pool| {
        pool.is_for(want)
            && want.pool.as_deref().is_none_or(|name| name == pool.name)
            && addresses.iter().all(|address| pool.holds(*address))
    })
}

/// Gives addresses to all who want some.
#[must_use]
pub fn assign(pools: &[AddressPool], wants: &[Want]) -> BTreeMap<ObjectKey, Given> {
    let mut pools: Vec<Pool<'_>> = pools.iter().map(Pool::of).collect();
    pools.sort_by(|a, b| {
        let namespace = |pool: &Pool<'_>| pool.object.metadata.namespace.clone();
        (a.rank(), a.name, namespace(a)).cmp(&(b.rank(), b.name, namespace(b)))
    });
    let mut order: Vec<&Want> = wants.iter().collect();
    order.sort_by(|a, b| (a.created, &a.key).cmp(&(b.created, &b.key)));
    let mut ledger = Ledger::default();
    let mut given = BTreeMap::new();
    let mut waiting = Vec::new();
    for want in order {
        let keeps = families_fit(want, &want.has)
            && (want.addresses.is_empty() || same(&want.addresses, &want.has));
        let pool = pool_of(&pools, want, &want.has).filter(|_| keeps);
        let free = want
            .has
            .iter()
            .all(|address| ledger.objection(want, *address).is_none());
        match pool {
            Some(pool) if free => {
                ledger.take(want, &want.has);
                let answer = Given::Addresses(want.has.clone(), pool.name.to_owned());
                given.insert(want.key.clone(), answer);
            }
            _ => waiting.push(want),
        }
    }
    // Who names an address must not lose it to one who takes any.
    waiting.sort_by_key(|want| want.addresses.is_empty());
    for want in waiting {
        let answer = if want.addresses.is_empty() {
            any_address(&pools, want, &ledger)
        } else {
            named(&pools, want, &ledger)
        };
        if let Given::Addresses(addresses, _) = &answer {
            ledger.take(want, addresses);
        }
        given.insert(want.key.clone(), answer);
    }
    given
}

fn named(pools: &[Pool<'_>], want: &Want, ledger: &Ledger<'_>) -> Given {
    let list: Vec<String> = want.addresses.iter().map(IpAddr::to_string).collect();
    let list = list.join(", ");
    if !families_fit(want, &want.addresses) {
        let text = format!("{list} has not the address families of the service");
        return Given::Nothing(REFUSED, text);
    }
    let Some(pool) = pool_of(pools, want, &want.addresses) else {
        let text = match &want.pool {
            Some(pool) => {
                format!("{list} is not of pool {pool:?}, or that is not for this service")
            }
            None if pools.is_empty() => return no_pool(),
            None => format!("{list} is of no pool that is for this service"),
        };
        return Given::Nothing(REFUSED, text);
    };
    for address in &want.addresses {
        if let Some(why) = ledger.objection(want, *address) {
            return Given::Nothing(REFUSED, why);
        }
    }
    Given::Addresses(want.addresses.clone(), pool.name.to_owned())
}

fn no_pool() -> Given {
    let text = "no IPAddressPool is declared";
    Given::Nothing(NO_POOL, text.to_owned())
}

fn any_address(pools: &[Pool<'_>], want: &Want, ledger: &Ledger<'_>) -> Given {
    if pools.is_empty() {
        return no_pool();
    }
    let candidates: Vec<&Pool<'_>> = match &want.pool {
        Some(name) => pools.iter().filter(|pool| pool.name == name).collect(),
        None => pools
            .iter()
            .filter(|pool| pool.object.spec.auto_assign != Some(false))
            .collect(),
    };
    if let (Some(name), true) = (&want.pool, candidates.is_empty()) {
        return Given::Nothing(REFUSED, format!("unknown pool {name:?}"));
    }
    let fitting: Vec<&&Pool<'_>> = candidates.iter().filter(|pool| pool.is_for(want)).collect();
    if fitting.is_empty() {
        let text = match &want.pool {
            Some(name) => format!("pool {name:?} is not for this service"),
            None => {
                "no IPAddressPool that gives addresses by itself is for this service".to_owned()
            }
        };
        return Given::Nothing(REFUSED, text);
    }
    // A pool with both families before one with a single one, where one will do.
    let mut partial = None;
    for pool in &fitting {
        let v4 = want.v4.then(|| ledger.find(pool, want, false)).flatten();
        let v6 = want.v6.then(|| ledger.find(pool, want, true)).flatten();
        let found: Vec<IpAddr> = v4.into_iter().chain(v6).collect();
        if v4.is_some() == want.v4 && v6.is_some() == want.v6 && !found.is_empty() {
            return Given::Addresses(found, pool.name.to_owned());
        }
        if want.any_family && !found.is_empty() && partial.is_none() {
            partial = Some(Given::Addresses(found, pool.name.to_owned()));
        }
    }
    partial.unwrap_or_else(|| {
        let names: Vec<String> = fitting
            .iter()
            .map(|pool| format!("{:?}", pool.name))
            .collect();
        let text = format!("no available IPs in pool {}", names.join(", "));
        Given::Nothing(EXHAUSTED, text)
    })
}
