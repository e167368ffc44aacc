//! Who goes for which taint and when, what rules say of it, and the loop on a pretended door.

use std::sync::Arc;

use evenkeel_client::testing::{FakeApi, FakeClock};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{DeviceTaintRule, ResourceClaim, ResourceSlice};
use serde_json::{Value, json};

use super::plan::{Tally, claim_goes, condition, pod_goes};
use crate::testing::start;

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn slice(generation: i64, taints: &Value) -> Arc<ResourceSlice> {
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": format!("s{generation}")},
            "spec": {"driver": "gpu.example.com", "nodeName": "n",
                "pool": {"name": "p", "generation": generation, "resourceSliceCount": 1},
                "devices": [{"name": "gpu-0", "taints": taints}, {"name": "gpu-1"}]},
        }))
        .expect("a slice"),
    )
}

fn claim(device: &str, tolerations: &Value) -> Arc<ResourceClaim> {
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"namespace": "default", "name": "gpu", "uid": "c"},
            "spec": {},
            "status": {
                "allocation": {"devices": {"results": [{"request": "r",
                    "driver": "gpu.example.com", "pool": "p", "device": device,
                    "tolerations": tolerations}]}},
                "reservedFor": [{"resource": "pods", "name": "web", "uid": "u"}],
            },
        }))
        .expect("a claim"),
    )
}

fn rule(effect: &str, selector: &Value) -> Arc<DeviceTaintRule> {
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": "broken", "uid": "rule", "generation": 1},
            "spec": {"deviceSelector": selector, "taint": {"key": "example.com/broken",
                "effect": effect, "timeAdded": "2026-01-01T00:00:00Z"}},
        }))
        .expect("a rule"),
    )
}

fn taint(effect: &str) -> Value {
    json!([{"key": "example.com/hot", "value": "very", "effect": effect,
        "timeAdded": "2026-01-01T00:00:00Z"}])
}

#[test]
fn the_times_of_claims() {
    let none = json!([]);
    let since = Some("2026-01-01T00:00:00Z");
    let rows: Vec<(&str, Value, Value, &str, Option<&str>)> = vec![
        (
            "nothing is tainted",
            none.clone(),
            none.clone(),
            "gpu-0",
            None,
        ),
        (
            "another device is",
            taint("NoExecute"),
            none.clone(),
            "gpu-1",
            None,
        ),
        (
            "it only keeps others away",
            taint("NoSchedule"),
            none.clone(),
            "gpu-0",
            None,
        ),
        ("at once", taint("NoExecute"), none.clone(), "gpu-0", since),
        (
            "borne for ever",
            taint("NoExecute"),
            json!([{"operator": "Exists", "effect": "NoExecute"}]),
            "gpu-0",
            None,
        ),
        (
            "a toleration of every effect is none of this one",
            taint("NoExecute"),
            json!([{"operator": "Exists"}]),
            "gpu-0",
            since,
        ),
        (
            "the shortest of several",
            taint("NoExecute"),
            json!([
                {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60},
                {"key": "example.com/hot", "operator": "Equal", "value": "very",
                    "effect": "NoExecute", "tolerationSeconds": 30},
                {"key": "other", "operator": "Exists", "effect": "NoExecute",
                    "tolerationSeconds": 1}]),
            "gpu-0",
            Some("2026-01-01T00:00:30Z"),
        ),
    ];
    let now = at("2026-01-02T00:00:00Z");
    for (what, taints, tolerations, device, wanted) in rows {
        let slices = [slice(2, &taints), slice(1, &taint("NoExecute"))];
        let found = claim_goes(&claim(device, &tolerations), &slices, &[], now);
        assert_eq!(found.map(|found| found.at), wanted.map(at), "{what}");
    }
}

#[test]
fn rules_taint_what_they_select() {
    let now = at("2026-01-02T00:00:00Z");
    let claim = claim("gpu-0", &json!([]));
    for (selector, matches) in [
        (json!({}), true),
        (Value::Null, false),
        (
            json!({"driver": "gpu.example.com", "pool": "p", "device": "gpu-0"}),
            true,
        ),
        (
            json!({"driver": "gpu.example.com", "device": "gpu-1"}),
            false,
        ),
        (json!({"pool": "q"}), false),
    ] {
        // A driver may have taken the device away: the rule still holds for who has it.
        let found = claim_goes(&claim, &[], &[rule("NoExecute", &selector)], now);
        assert_eq!(found.is_some(), matches, "{selector}");
    }
    let found = pod_goes("u", &[claim], &[], &[rule("NoExecute", &json!({}))], now);
    assert_eq!(found.expect("it goes").rules, ["rule"]);
}

#[test]
fn only_who_has_it_reserved_goes() {
    let now = at("2026-01-02T00:00:00Z");
    let claims = [claim("gpu-0", &json!([]))];
    let slices = [slice(1, &taint("NoExecute"))];
    assert!(pod_goes("u", &claims, &slices, &[], now).is_some());
    assert!(pod_goes("somebody else", &claims, &slices, &[], now).is_none());
}

#[test]
fn what_a_rule_says() {
    let now = at("2026-01-02T00:00:00Z");
    let said = |effect: &str, tally: Tally| {
        let told = condition(&rule(effect, &json!({})), &tally, now);
        (told.status, told.reason, told.message)
    };
    let of = |status: &str, reason: &str, message: &str| {
        (status.to_owned(), reason.to_owned(), message.to_owned())
    };
    let none = Tally::default();
    assert_eq!(said("NoExecute", none), of("False", "NotStarted", ""));
    let two = Tally {
        pods: 2,
        namespaces: 1,
        evicted: 1,
        ..none
    };
    assert_eq!(
        said("NoExecute", two),
        of(
            "True",
            "PodsPendingEviction",
            "2 pods need to be evicted in 1 namespace. 1 pod evicted since starting the controller."
        )
    );
    let done = Tally { evicted: 3, ..none };
    assert_eq!(
        said("NoExecute", done),
        of(
            "False",
            "Completed",
            "3 pods evicted since starting the controller."
        )
    );
    assert_eq!(
        said("NoSchedule", none),
        of(
            "False",
            "OtherEffect",
            "Eviction only happens for the NoExecute effect."
        )
    );
    let would = Tally {
        pods: 1,
        namespaces: 1,
        published: 2,
        allocated: 1,
        evicted: 0,
    };
    assert_eq!(
        said("None", would).2,
        "2 published devices selected. 1 allocated device selected. 1 pod would be evicted in \
         1 namespace if the effect was NoExecute. This information will not be updated again. \
         Recreate the DeviceTaintRule to trigger an update."
    );
}

fn pod() -> Pod {
    serde_json::from_value(json!({
        "metadata": {"namespace": "default", "name": "web", "uid": "u"},
        // No agent ends it here.
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}],
            "terminationGracePeriodSeconds": 0,
            "resourceClaims": [{"name": "gpu", "resourceClaimName": "gpu"}]},
        "status": {"phase": "Running"},
    }))
    .expect("a pod")
}

#[tokio::test(start_paused = true)]
async fn a_rule_makes_pods_go_and_tells_it() {
    let fake = FakeApi::new(FakeClock::shared());
    fake.put(&pod());
    fake.put(&*claim("gpu-0", &json!([])));
    fake.put(&*slice(1, &json!([])));
    let world = start(&fake, |context| Box::pin(super::run(context)));
    fake.put(&*rule("NoExecute", &json!({"device": "gpu-0"})));
    fake.wait_for("the pod to go", |fake| {
        fake.get::<Pod>("default", "web").is_none().then_some(())
    })
    .await;
    fake.wait_for("the rule to say so", |fake| {
        let rule = fake.get::<DeviceTaintRule>("", "broken")?;
        let known = rule.status?.conditions?;
        (known.first()?.reason == "Completed").then_some(())
    })
    .await;
    world.end().await;
}
