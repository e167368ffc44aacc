//! What a pool says of itself: how many of its addresses are given and how many are left, and which
//! of its entries are no addresses at all.
//!
//! Pure. The four numbers are MetalLB's; the condition is ours, as nobody sees an entry that is
//! left out but the one who misses its addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use evenkeel_client::ObjectKey;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::addresses::{self, Range};
use super::assign::Given;
use super::kinds::{AddressPool, PoolStatus};

/// Condition of a pool: every entry of its list is one or more addresses.
pub const VALID: &str = "Valid";

/// A pool whose status is to change.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolWrite {
    /// Which one, and at which revision.
    pub pool: AddressPool,
    /// What it is to say.
    pub status: PoolStatus,
    /// What is to be told besides, when that is new.
    pub warning: Option<String>,
}

fn entries(pool: &AddressPool) -> (Vec<Range>, Vec<String>) {
    let mut wrong = Vec::new();
    let mut ranges = Vec::new();
    for text in &pool.spec.addresses {
        match Range::parse(text) {
            Some(range) => ranges.push(range),
            None => wrong.push(format!("{text:?}")),
        }
    }
    (ranges, wrong)
}

fn condition(wrong: &[String], before: Option<&Condition>, now: Timestamp) -> Condition {
    let (status, reason, message) = if wrong.is_empty() {
        ("True", "AllAddressesValid", String::new())
    } else {
        let text = format!(
            "left out, as it is neither a network nor a range from a lower to a higher address: {}",
            wrong.join(", ")
        );
        ("False", "InvalidAddresses", text)
    };
    let since = before
        .filter(|before| before.status == status)
        .map(|before| before.last_transition_time.clone());
    Condition {
        type_: VALID.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: since.unwrap_or(Time(now)),
        observed_generation: None,
    }
}

/// The pools that say something else than what is so.
#[must_use]
pub fn plan(
    pools: &[AddressPool],
    given: &BTreeMap<ObjectKey, Given>,
    now: Timestamp,
) -> Vec<PoolWrite> {
    let mut assigned: BTreeMap<&str, BTreeSet<IpAddr>> = BTreeMap::new();
    for answer in given.values() {
        if let Given::Addresses(addresses, pool) = answer {
            assigned.entry(pool).or_default().extend(addresses);
        }
    }
    let none = BTreeSet::new();
    let write = |pool: &AddressPool| {
        let name = pool.metadata.name.as_deref().unwrap_or_default();
        let (ranges, wrong) = entries(pool);
        let has = assigned.get(name).unwrap_or(&none);
        let used = |v6: bool| {
            let of = has.iter().filter(|address| {
                address.is_ipv6() == v6 && ranges.iter().any(|range| range.contains(**address))
            });
            i64::try_from(of.count()).unwrap_or(i64::MAX)
        };
        let left = |v6: bool| {
            let all = addresses::count(&ranges, v6, pool.spec.avoid_buggy_ips);
            let all = i64::try_from(all).unwrap_or(i64::MAX);
            all.saturating_sub(used(v6)).max(0)
        };
        let before = pool.status.clone().unwrap_or_default();
        let said = before.conditions.iter().find(|it| it.type_ == VALID);
        let valid = condition(&wrong, said, now);
        let is_new = said.is_none_or(|said| said.message != valid.message);
        let warning = (is_new && !wrong.is_empty()).then(|| valid.message.clone());
        let status = PoolStatus {
            assigned_ipv4: used(false),
            assigned_ipv6: used(true),
            available_ipv4: left(false),
            available_ipv6: left(true),
            conditions: vec![valid],
        };
        (pool.status.as_ref() != Some(&status)).then(|| PoolWrite {
            pool: pool.clone(),
            status,
            warning,
        })
    };
    pools.iter().filter_map(write).collect()
}
