//! Devices that are bound under conditions (KEP-5007): a claim is ready when its driver has said
//! that each such device is there, and has failed when the driver says that it will not be. Pure.

use std::time::Duration;

use evenkeel_api::devices::claims::allocation;
use jiff::Timestamp;
use k8s_openapi::api::resource::v1::{
    AllocatedDeviceStatus, DeviceRequestAllocationResult, ResourceClaim,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// How long a driver has for it, unless configured otherwise.
pub const BINDING_TIMEOUT: Duration = Duration::from_secs(600);

fn results(claim: &ResourceClaim) -> impl Iterator<Item = &DeviceRequestAllocationResult> {
    let devices = allocation(claim).and_then(|found| found.devices.as_ref());
    let results = devices.and_then(|devices| devices.results.as_ref());
    results.into_iter().flatten()
}

/// Does a device of the claim have conditions that the binding waits for?
#[must_use]
pub fn is_conditional(claim: &ResourceClaim) -> bool {
    let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    results(claim).any(|result| some(&result.binding_conditions))
}

fn status_of<'c>(
    claim: &'c ResourceClaim,
    result: &DeviceRequestAllocationResult,
) -> Option<&'c AllocatedDeviceStatus> {
    let all = claim.status.as_ref()?.devices.as_ref()?;
    all.iter().find(|status| {
        status.device == result.device
            && status.driver == result.driver
            && status.pool == result.pool
            && status.share_id == result.share_id
    })
}

fn find<'s>(status: &'s AllocatedDeviceStatus, type_: &str) -> Option<&'s Condition> {
    let all = status.conditions.as_ref()?;
    let found = all.iter().find(|condition| condition.type_ == type_);
    found.filter(|condition| condition.status == "True")
}

/// Is every device of an allocated claim ready for its users?
///
/// # Errors
/// That one will not be, in the reference's words.
pub fn is_ready(claim: &ResourceClaim) -> Result<bool, String> {
    if allocation(claim).is_none() {
        return Ok(false);
    }
    for result in results(claim) {
        let wanted = result.binding_conditions.as_deref().unwrap_or_default();
        if wanted.is_empty() {
            continue;
        }
        let Some(status) = status_of(claim, result) else {
            return Ok(false);
        };
        let failures = result.binding_failure_conditions.iter().flatten();
        if let Some(failed) = failures.filter_map(|name| find(status, name)).next() {
            return Err(format!(
                "claim {} binding failed: reason={}, message={:?}",
                claim.metadata.name.as_deref().unwrap_or_default(),
                failed.reason,
                failed.message
            ));
        }
        if !wanted.iter().all(|name| find(status, name).is_some()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Has the driver had its time?
#[must_use]
pub fn is_late(claim: &ResourceClaim, now: Timestamp, timeout: Duration) -> bool {
    let since = allocation(claim).and_then(|found| found.allocation_timestamp.as_ref());
    is_conditional(claim)
        && since.is_some_and(|since| since.0.checked_add(timeout).is_ok_and(|end| end < now))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(conditions: &Value) -> ResourceClaim {
        serde_json::from_value(json!({
            "metadata": {"name": "c", "namespace": "default"},
            "status": {
                "allocation": {"allocationTimestamp": "2026-01-01T00:00:00Z", "devices": {"results": [
                    {"request": "a", "driver": "d", "pool": "p", "device": "plain"},
                    {"request": "b", "driver": "d", "pool": "p", "device": "far",
                        "bindingConditions": ["attached", "cooled"],
                        "bindingFailureConditions": ["broken"]}]}},
                "devices": [{"driver": "d", "pool": "p", "device": "far", "conditions": conditions}],
            },
        }))
        .expect("a claim")
    }

    fn condition(type_: &str, status: &str) -> Value {
        json!({"type": type_, "status": status, "reason": "Why", "message": "so it \"is\"",
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
    }

    #[test]
    fn a_claim_is_ready_when_all_conditions_hold() {
        let rows: Vec<(Vec<Value>, Result<bool, &str>)> = vec![
            (vec![], Ok(false)),
            (vec![condition("attached", "True")], Ok(false)),
            (
                vec![condition("attached", "True"), condition("cooled", "False")],
                Ok(false),
            ),
            (
                vec![
                    condition("attached", "True"),
                    condition("cooled", "True"),
                    condition("broken", "False"),
                ],
                Ok(true),
            ),
            (
                vec![condition("attached", "True"), condition("broken", "True")],
                Err("claim c binding failed: reason=Why, message=\"so it \\\"is\\\"\""),
            ),
        ];
        for (conditions, wanted) in rows {
            let found = is_ready(&claim(&json!(conditions)));
            assert_eq!(
                found.as_ref().map_err(String::as_str),
                wanted.as_ref().map_err(|it| *it)
            );
        }
        // Nothing to wait for.
        let mut plain = claim(&json!([]));
        let results = plain
            .status
            .as_mut()
            .and_then(|status| status.allocation.as_mut());
        let devices = results
            .and_then(|found| found.devices.as_mut())
            .expect("devices");
        devices.results.as_mut().expect("results").truncate(1);
        assert_eq!(is_ready(&plain), Ok(true));
        assert!(!is_conditional(&plain));
        plain.status = None;
        assert_eq!(is_ready(&plain), Ok(false));
    }

    #[test]
    fn a_driver_has_its_time() {
        let claim = claim(&json!([]));
        let at = |text: &str| text.parse().expect("a time");
        assert!(!is_late(
            &claim,
            at("2026-01-01T00:10:00Z"),
            BINDING_TIMEOUT
        ));
        assert!(is_late(&claim, at("2026-01-01T00:10:01Z"), BINDING_TIMEOUT));
    }
}
