//! Claims of devices: table tests of what is decided, and the loop against the fake door.

use std::sync::Arc;

use evenkeel_client::testing::{FakeApi, FakeClock};
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use serde_json::{Value, json};

use super::plan::{self, Cleaned, Consumer, Need};
use crate::testing::start;

fn read<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object")
}

fn pod(more: &Value) -> Pod {
    let mut value = json!({
        "metadata": {"namespace": "default", "name": "train", "uid": "uid-train"},
        "spec": {"containers": [{"name": "main", "image": "x"}],
            "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]},
        "status": {"phase": "Pending"},
    });
    merge(&mut value, more);
    read(value)
}

fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more.clone(),
    }
}

fn template() -> ResourceClaimTemplate {
    read(json!({
        "metadata": {"namespace": "default", "name": "one-gpu"},
        "spec": {"metadata": {"labels": {"team": "a"}, "annotations": {"note": "kept"}},
            "spec": {"devices": {"requests": [
                {"name": "gpu", "exactly": {"deviceClassName": "gpu"}}]}}},
    }))
}

fn claim(more: &Value) -> ResourceClaim {
    let mut value = json!({
        "metadata": {"namespace": "default", "name": "train-gpu-x", "uid": "uid-claim",
            "annotations": {"resource.kubernetes.io/pod-claim-name": "gpu"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "train",
                "uid": "uid-train", "controller": true}]},
        "spec": {},
    });
    merge(&mut value, more);
    read(value)
}

fn allocated(users: &[&str]) -> Value {
    let users: Vec<Value> = users
        .iter()
        .map(|name| json!({"resource": "pods", "name": name, "uid": format!("uid-{name}")}))
        .collect();
    json!({"metadata": {"finalizers": ["resource.kubernetes.io/delete-protection"]},
        "status": {"reservedFor": users, "allocation": {"devices": {"results": [
            {"request": "gpu", "driver": "d", "pool": "p", "device": "0"}]}}}})
}

#[test]
fn what_a_pods_claim_needs() {
    let wanted = |pod: &Pod| pod.spec.as_ref().expect("a spec").resource_claims.clone();
    let named = json!({"status": {"resourceClaimStatuses": [
        {"name": "gpu", "resourceClaimName": "train-gpu-x"}]}});
    let not_needed = json!({"status": {"resourceClaimStatuses": [{"name": "gpu"}]}});
    let by_name = json!({"spec": {"resourceClaims": [
        {"name": "gpu", "resourceClaimName": "shared"}]}});
    let foreign = json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod",
        "name": "train", "uid": "uid-of-yesterday", "controller": true}]}});
    let mine = || Some(claim(&json!({})));
    type Row = (
        Value,
        Option<ResourceClaim>,
        Vec<ResourceClaim>,
        Need<'static>,
    );
    let rows: Vec<Row> = vec![
        (json!({}), None, vec![], Need::Make("one-gpu")),
        // Made, and the status was not written before the crash.
        (
            json!({}),
            None,
            vec![claim(&json!({}))],
            Need::Name("train-gpu-x".to_owned()),
        ),
        (named.clone(), mine(), vec![], Need::Nothing),
        // Somebody deleted it: it is made again.
        (named.clone(), None, vec![], Need::Make("one-gpu")),
        (named, Some(claim(&foreign)), vec![], Need::Make("one-gpu")),
        (not_needed, None, vec![], Need::Nothing),
        (by_name, None, vec![], Need::Nothing),
    ];
    for (more, known, made, need) in rows {
        let pod = pod(&more);
        let claims = wanted(&pod).expect("claims");
        let made: Vec<Arc<ResourceClaim>> = made.into_iter().map(Arc::new).collect();
        let found = plan::need(&pod, &claims[0], known.as_ref(), &made);
        assert_eq!(found, need, "{more}");
    }
}

#[test]
fn long_names_are_cut_in_proportion() {
    let long = pod(&json!({"metadata": {"name": "p".repeat(60)}}));
    let mut wanted = long
        .spec
        .clone()
        .expect("a spec")
        .resource_claims
        .expect("claims");
    wanted[0].name = "c".repeat(40);
    let made = plan::from_template(&long, &wanted[0], &template());
    let base = made.metadata.generate_name.expect("a base");
    assert!(base.len() <= 57, "{base}");
    let wanted = format!(
        "{}-{}",
        "p".repeat(60 * 57 / 102),
        "c".repeat(40 * 57 / 102)
    );
    assert_eq!(base, wanted);
}

#[test]
fn what_a_claim_does_not_need_any_more() {
    use Consumer::{Alive, Done, Gone};
    type Row = (
        &'static str,
        ResourceClaim,
        Vec<Consumer>,
        Option<Consumer>,
        (bool, bool, bool, usize),
    );
    let deleting = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let mut going = allocated(&[]);
    merge(&mut going, &deleting);
    // Is still allocated, loses its finalizer, is deleted, users that stay.
    let rows: Vec<Row> = vec![
        (
            "in use",
            claim(&allocated(&["train"])),
            vec![Alive],
            Some(Alive),
            (true, false, false, 1),
        ),
        (
            "one of two left",
            claim(&allocated(&["train", "other"])),
            vec![Alive, Gone],
            Some(Alive),
            (true, false, false, 1),
        ),
        (
            "all have ended",
            claim(&allocated(&["train"])),
            vec![Done],
            Some(Done),
            (false, true, true, 0),
        ),
        (
            "nobody has begun",
            claim(&allocated(&[])),
            vec![],
            Some(Alive),
            (true, false, false, 0),
        ),
        (
            "owner ended before it began",
            claim(&allocated(&[])),
            vec![],
            Some(Gone),
            (false, true, true, 0),
        ),
        (
            "deleted and unused",
            claim(&going),
            vec![],
            Some(Alive),
            (false, true, false, 0),
        ),
        (
            "a person's, all have ended",
            claim(&allocated(&["train"])),
            vec![Gone],
            None,
            (false, true, false, 0),
        ),
    ];
    for (what, claim, consumers, owner, (allocated, unprotect, remove, users)) in rows {
        let Cleaned {
            status,
            unprotect: off,
            remove: gone,
        } = plan::clean(&claim, &consumers, owner);
        let after = status.or(claim.status).unwrap_or_default();
        assert_eq!(after.allocation.is_some(), allocated, "{what}");
        assert_eq!(
            after.reserved_for.unwrap_or_default().len(),
            users,
            "{what}"
        );
        assert_eq!((off, gone), (unprotect, remove), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_made_named_and_goes_with_its_pod() {
    let fake = FakeApi::new(FakeClock::shared());
    fake.put(&template());
    let world = start(&fake, |context| Box::pin(super::run(context)));
    fake.put(&pod(&json!({})));
    let made = fake
        .wait_for("a claim and its name in the pod", |fake| {
            let pod = fake.get::<Pod>("default", "train")?;
            let status = pod.status?.resource_claim_statuses?;
            fake.get::<ResourceClaim>("default", status[0].resource_claim_name.as_deref()?)
        })
        .await;
    assert_eq!(fake.all::<ResourceClaim>().len(), 1);
    let annotations = made.metadata.annotations.clone().unwrap_or_default();
    assert_eq!(annotations["note"], "kept");
    assert_eq!(annotations["resource.kubernetes.io/pod-claim-name"], "gpu");
    assert_eq!(
        made.metadata.labels.clone().unwrap_or_default()["team"],
        "a"
    );
    // The scheduler allocates it.
    let mut held = made.clone();
    let told: ResourceClaim = claim(&allocated(&["train"]));
    held.status = told.status;
    held.metadata.finalizers = told.metadata.finalizers;
    fake.put(&held);
    // The pod ends: devices are given back, and the claim goes.
    let mut ended = fake.get::<Pod>("default", "train").expect("the pod");
    ended.status.get_or_insert_default().phase = Some("Succeeded".to_owned());
    fake.put(&ended);
    fake.wait_for("no claim", |fake| {
        fake.all::<ResourceClaim>().is_empty().then_some(())
    })
    .await;
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_template_that_is_missing_is_told_and_waited_for() {
    let fake = FakeApi::new(FakeClock::shared());
    let world = start(&fake, |context| {
        let mut context = context;
        context.recorder = evenkeel_client::Recorder::new(
            context.client.clone(),
            Arc::clone(&context.clock),
            "resource_claim",
            "",
        );
        Box::pin(super::run(context))
    });
    fake.put(&pod(&json!({})));
    let event = fake
        .wait_for("an event", |fake| fake.all::<Event>().into_iter().next())
        .await;
    assert_eq!(event.reason.as_deref(), Some("FailedResourceClaimCreation"));
    assert_eq!(
        event.message.as_deref(),
        Some(
            "PodResourceClaim gpu: resource claim template \"one-gpu\": \
             resourceclaimtemplate.resource.k8s.io \"one-gpu\" not found"
        )
    );
    fake.put(&template());
    fake.wait_for("a claim", |fake| {
        fake.all::<ResourceClaim>().into_iter().next()
    })
    .await;
    world.end().await;
}
