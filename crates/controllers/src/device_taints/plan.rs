//! When a pod has to go for the taints of its devices, and what a rule's status says. Pure.

use evenkeel_api::devices::claims::{allocation, is_reserved_for};
use evenkeel_api::devices::taints::{applies, tolerates};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::resource::v1::{
    DeviceRequestAllocationResult, DeviceTaint, DeviceTaintRule, ResourceClaim, ResourceSlice,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The condition of rules.
pub const IN_PROGRESS: &str = "EvictionInProgress";

/// When somebody has to go, and which rules say so.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Eviction {
    /// From then on.
    pub at: Timestamp,
    /// The uids of the rules among the reasons.
    pub rules: Vec<String>,
}

/// The taints of a device as its driver publishes them: those of slices of an older generation are
/// as if they were not there.
fn published<'s>(
    slices: &'s [std::sync::Arc<ResourceSlice>],
    result: &'s DeviceRequestAllocationResult,
) -> impl Iterator<Item = &'s DeviceTaint> {
    let of_pool = move |slice: &&std::sync::Arc<ResourceSlice>| {
        slice.spec.driver == result.driver && slice.spec.pool.name == result.pool
    };
    let newest = slices.iter().filter(of_pool);
    let newest = newest.map(|slice| slice.spec.pool.generation).max();
    slices
        .iter()
        .filter(of_pool)
        .filter(move |slice| Some(slice.spec.pool.generation) == newest)
        .flat_map(|slice| slice.spec.devices.iter().flatten())
        .filter(|device| device.name == result.device)
        .flat_map(|device| device.taints.iter().flatten())
}

/// So long the result's request bears the taint from its beginning; `None`: for ever.
fn borne(result: &DeviceRequestAllocationResult, taint: &DeviceTaint) -> Option<i64> {
    let mut least: Option<i64> = None;
    for toleration in result.tolerations.iter().flatten() {
        if toleration.effect.as_deref() != Some("NoExecute") || !tolerates(toleration, taint) {
            continue;
        }
        let seconds = toleration.toleration_seconds?.max(0);
        least = Some(least.map_or(seconds, |least| least.min(seconds)));
    }
    Some(least.unwrap_or(0))
}

/// When users of a claim have to go; `None`: they may stay.
#[must_use]
pub fn claim_goes(
    claim: &ResourceClaim,
    slices: &[std::sync::Arc<ResourceSlice>],
    rules: &[std::sync::Arc<DeviceTaintRule>],
    now: Timestamp,
) -> Option<Eviction> {
    let devices = allocation(claim)?.devices.as_ref()?;
    let mut found: Option<Eviction> = None;
    for result in devices.results.iter().flatten() {
        let own = published(slices, result).map(|taint| (taint, None));
        let ruled = rules
            .iter()
            .filter(|rule| applies(rule, &result.driver, &result.pool, &result.device))
            .map(|rule| (&rule.spec.taint, rule.metadata.uid.clone()));
        for (taint, rule) in own.chain(ruled) {
            if taint.effect != "NoExecute" {
                continue;
            }
            let Some(seconds) = borne(result, taint) else {
                continue;
            };
            let added = taint.time_added.as_ref().map_or(now, |time| time.0);
            let at = added
                .checked_add(SignedDuration::from_secs(seconds))
                .unwrap_or(Timestamp::MAX);
            let eviction = found.get_or_insert_with(|| Eviction {
                at,
                rules: Vec::new(),
            });
            eviction.at = eviction.at.min(at);
            eviction.rules.extend(rule);
        }
    }
    if let Some(found) = &mut found {
        found.rules.sort();
        found.rules.dedup();
    }
    found
}

/// When a pod has to go for any of its claims.
#[must_use]
pub fn pod_goes(
    uid: &str,
    claims: &[std::sync::Arc<ResourceClaim>],
    slices: &[std::sync::Arc<ResourceSlice>],
    rules: &[std::sync::Arc<DeviceTaintRule>],
    now: Timestamp,
) -> Option<Eviction> {
    let mut found: Option<Eviction> = None;
    for claim in claims.iter().filter(|claim| is_reserved_for(claim, uid)) {
        let Some(next) = claim_goes(claim, slices, rules, now) else {
            continue;
        };
        let known = found.get_or_insert_with(|| next.clone());
        known.at = known.at.min(next.at);
        known.rules.extend(next.rules);
        known.rules.sort();
        known.rules.dedup();
    }
    found
}

/// What a rule has done and would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Pods that have to go, or would have to.
    pub pods: usize,
    /// In so many namespaces.
    pub namespaces: usize,
    /// Published devices that it selects.
    pub published: usize,
    /// Devices of claims that it selects.
    pub allocated: usize,
    /// Pods that went for it since the start.
    pub evicted: u64,
}

fn counted(count: usize, one: &str, many: &str) -> String {
    if count == 1 {
        format!("1 {one}")
    } else {
        format!("{count} {many}")
    }
}

/// The condition of a rule, in the reference's words.
#[must_use]
pub fn condition(rule: &DeviceTaintRule, tally: &Tally, now: Timestamp) -> Condition {
    let (mut status, mut message) = ("False", String::new());
    let reason = match rule.spec.taint.effect.as_str() {
        "NoExecute" if tally.pods > 0 => {
            status = "True";
            let pods = counted(tally.pods, "pod needs", "pods need");
            let places = counted(tally.namespaces, "namespace", "different namespaces");
            message = format!("{pods} to be evicted in {places}.");
            "PodsPendingEviction"
        }
        "NoExecute" if tally.evicted > 0 => "Completed",
        "NoExecute" => "NotStarted",
        "None" => {
            let device = |count, what: &str| {
                let (one, many) = (format!("{what} device"), format!("{what} devices"));
                counted(count, &one, &many)
            };
            message = format!(
                "{} selected. {} selected. {} would be evicted in {} if the effect was NoExecute. \
                 This information will not be updated again. Recreate the DeviceTaintRule to \
                 trigger an update.",
                device(tally.published, "published"),
                device(tally.allocated, "allocated"),
                counted(tally.pods, "pod", "pods"),
                counted(tally.namespaces, "namespace", "different namespaces"),
            );
            "NoEffect"
        }
        _ => {
            message = "Eviction only happens for the NoExecute effect.".to_owned();
            "OtherEffect"
        }
    };
    if tally.evicted > 0 {
        let count = usize::try_from(tally.evicted).unwrap_or(usize::MAX);
        let gap = if message.is_empty() { "" } else { " " };
        let pods = counted(count, "pod", "pods");
        message = format!("{message}{gap}{pods} evicted since starting the controller.");
    }
    Condition {
        type_: IN_PROGRESS.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: rule.metadata.generation,
        last_transition_time: Time(now),
    }
}
