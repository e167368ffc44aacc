//! Claims and volumes: tables from the reference's own tests, and whole lives against the fake.

use std::sync::Arc;

use evenkeel_api::local_volume;
use evenkeel_client::EventType;
use evenkeel_client::testing::{FakeApi, FakeClock};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{StorageClass, VolumeAttributesClass};
use serde_json::{Value, json};

use super::facts::{BIND_COMPLETED, BOUND_BY_CONTROLLER, SELECTED_NODE, claim_phase, volume_phase};
use super::plan::{ClaimStep, Reclaim, Seen, VolumeStep};
use super::{binding, class_protection, expand, local_path, matching, plan, protection};
use crate::testing::{World, start};

fn merge(into: &mut Value, more: &Value) {
    match (into.as_object_mut(), more.as_object()) {
        (Some(into), Some(more)) => {
            for (name, value) in more {
                merge(into.entry(name).or_insert_with(|| json!({})), value);
            }
        }
        _ => *into = more.clone(),
    }
}

fn claim(more: Value) -> PersistentVolumeClaim {
    let mut claim = json!({
        "metadata": {"name": "c", "namespace": "a", "uid": "claim-1"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "resources": {"requests": {"storage": "5Gi"}}},
        "status": {"phase": "Pending"},
    });
    merge(&mut claim, &more);
    serde_json::from_value(claim).unwrap()
}

fn volume(name: &str, size: &str, more: Value) -> PersistentVolume {
    let mut volume = json!({
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": size},
            "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "",
            "hostPath": {"path": "/tmp/x"}},
        "status": {"phase": "Available"},
    });
    merge(&mut volume, &more);
    serde_json::from_value(volume).unwrap()
}

fn class(name: &str, mode: &str, provisioner: &str) -> StorageClass {
    serde_json::from_value(
        json!({"metadata": {"name": name}, "provisioner": provisioner,
        "volumeBindingMode": mode, "reclaimPolicy": "Delete"}),
    )
    .unwrap()
}

fn held(uid: &str) -> Value {
    json!({"claimRef": {"namespace": "a", "name": "c", "uid": uid}})
}

fn best(claim: &PersistentVolumeClaim, volumes: &[PersistentVolume], delayed: bool) -> String {
    let volumes: Vec<_> = volumes.iter().cloned().map(Arc::new).collect();
    let found = matching::best(claim, &volumes, delayed);
    found.map_or_else(String::new, |it| {
        it.metadata.name.clone().unwrap_or_default()
    })
}

#[test]
fn the_smallest_volume_that_serves_is_taken() {
    let (small, fit) = (
        volume("small", "4Gi", json!({})),
        volume("fit", "5Gi", json!({})),
    );
    let large = volume("large", "9Gi", json!({}));
    let all = [large.clone(), small, fit.clone()];
    assert_eq!(best(&claim(json!({})), &all, false), "fit");
    // A class that waits leaves free volumes to the scheduler.
    assert_eq!(best(&claim(json!({})), &all, true), "");
    let cases: [(Value, &str); 8] = [
        (json!({"spec": {"storageClassName": "gold"}}), "gold"),
        (json!({"spec": {"volumeMode": "Block"}}), "block"),
        (
            json!({"spec": {"accessModes": ["ReadWriteMany"]}}),
            "shared",
        ),
        (
            json!({"spec": {"selector": {"matchLabels": {"disk": "fast"}}}}),
            "fast",
        ),
        (
            json!({"spec": {"volumeAttributesClassName": "v"}}),
            "attributes",
        ),
        (
            json!({"spec": {"selector": {"matchLabels": {"disk": "none"}}}}),
            "",
        ),
        (
            json!({"spec": {"resources": {"requests": {"storage": "6Gi"}}}}),
            "large",
        ),
        (
            json!({"spec": {"resources": {"requests": {"storage": "60Gi"}}}}),
            "",
        ),
    ];
    let volumes = [
        fit,
        large,
        volume(
            "gold",
            "20Gi",
            json!({"spec": {"storageClassName": "gold"}}),
        ),
        volume("block", "20Gi", json!({"spec": {"volumeMode": "Block"}})),
        volume(
            "shared",
            "20Gi",
            json!({"spec": {"accessModes": ["ReadWriteOnce", "ReadWriteMany"]}}),
        ),
        volume(
            "fast",
            "20Gi",
            json!({"metadata": {"labels": {"disk": "fast"}}}),
        ),
        volume(
            "attributes",
            "20Gi",
            json!({"spec": {"volumeAttributesClassName": "v"}}),
        ),
        volume(
            "going",
            "5Gi",
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
        ),
    ];
    for (more, wanted) in cases {
        assert_eq!(
            best(&claim(more.clone()), &volumes, false),
            wanted,
            "{more}"
        );
    }
}

#[test]
fn a_volume_that_is_held_for_the_claim_is_taken_and_one_of_another_claim_never() {
    let mine = volume("mine", "9Gi", json!({"spec": held("")}));
    let exact = volume("exact", "5Gi", json!({}));
    assert_eq!(
        best(&claim(json!({})), &[exact.clone(), mine.clone()], false),
        "mine"
    );
    assert_eq!(
        best(&claim(json!({})), &[mine], true),
        "mine",
        "also where the class waits"
    );
    let older = volume("older", "5Gi", json!({"spec": held("claim-0")}));
    assert_eq!(best(&claim(json!({})), &[older], false), "");
    let released = volume("released", "5Gi", json!({"status": {"phase": "Released"}}));
    assert_eq!(best(&claim(json!({})), &[released, exact], false), "exact");
}

fn told(step: &ClaimStep) -> String {
    match step {
        ClaimStep::Wait(Some(told)) | ClaimStep::Lose(told) | ClaimStep::Misbound(told) => {
            format!("{}: {}", told.reason, told.message)
        }
        ClaimStep::Provision(who, told) => format!("{who} {}", told.reason),
        ClaimStep::Bind(volume) => format!("bind {}", volume.metadata.name.as_deref().unwrap()),
        ClaimStep::Class(class) => format!("class {class}"),
        ClaimStep::Wait(None) => String::new(),
    }
}

#[test]
fn a_claim_says_what_it_waits_for() {
    let waits = Arc::new(class("slow", "WaitForFirstConsumer", "x.io/y"));
    let now = Arc::new(class("now", "Immediate", "x.io/y"));
    let tree = Arc::new(class("tree", "Immediate", "kubernetes.io/no-provisioner"));
    let seen = |class: Option<&Arc<StorageClass>>| Seen {
        class: class.cloned(),
        ..Seen::default()
    };
    let of = |class: &str| claim(json!({"spec": {"storageClassName": class}}));
    let mut no_class = of("");
    no_class.spec.as_mut().unwrap().storage_class_name = None;
    let with_default = Seen {
        default: Some(Arc::clone(&now)),
        ..Seen::default()
    };
    let with_pods = |pods: &[&str]| Seen {
        class: Some(Arc::clone(&waits)),
        waiting_pods: pods.iter().map(|pod| (*pod).to_owned()).collect(),
        ..Seen::default()
    };
    let chosen = claim(json!({"metadata": {"annotations": {SELECTED_NODE: "n"}},
        "spec": {"storageClassName": "slow"}}));
    let cases = [
        (
            of(""),
            seen(None),
            "FailedBinding: no persistent volumes available for this claim and no storage class \
             is set",
        ),
        // The empty class is an answer; no class is a question.
        (
            of(""),
            with_default,
            "FailedBinding: no persistent volumes available for this claim and no storage class is set",
        ),
        (
            no_class,
            Seen {
                default: Some(Arc::clone(&now)),
                ..Seen::default()
            },
            "class now",
        ),
        (
            of("none"),
            seen(None),
            "ProvisioningFailed: storageclass.storage.k8s.io \"none\" not found",
        ),
        (
            of("tree"),
            seen(Some(&tree)),
            "ProvisioningFailed: no volume plugin matched",
        ),
        (of("now"), seen(Some(&now)), "x.io/y ExternalProvisioning"),
        (
            of("slow"),
            with_pods(&[]),
            "WaitForFirstConsumer: waiting for first consumer to be created before binding",
        ),
        (
            of("slow"),
            with_pods(&["p"]),
            "WaitForPodScheduled: waiting for pod p to be scheduled",
        ),
        (
            of("slow"),
            with_pods(&["p", "q"]),
            "WaitForPodScheduled: waiting for pods p,q to be scheduled",
        ),
        (chosen, with_pods(&[]), "x.io/y ExternalProvisioning"),
    ];
    for (claim, seen, wanted) in cases {
        assert_eq!(told(&plan::claim(&claim, &seen)), wanted);
    }
}

#[test]
fn a_claim_for_a_certain_volume_gets_that_or_says_why_not() {
    let wants = claim(json!({"spec": {"volumeName": "pv"}}));
    let with = |volume: Option<PersistentVolume>| Seen {
        named: volume.map(Arc::new),
        ..Seen::default()
    };
    let cases = [
        (None, "FailedBinding: volume \"pv\" does not exist"),
        (Some(volume("pv", "5Gi", json!({}))), "bind pv"),
        (
            Some(volume("pv", "5Gi", json!({"spec": held("")}))),
            "bind pv",
        ),
        (
            Some(volume("pv", "1Gi", json!({}))),
            "VolumeMismatch: Cannot bind to requested volume \"pv\": requested PV is too small",
        ),
        (
            Some(volume(
                "pv",
                "5Gi",
                json!({"spec": {"storageClassName": "x"}}),
            )),
            "VolumeMismatch: Cannot bind to requested volume \"pv\": storageClassName does not match",
        ),
        (
            Some(volume("pv", "5Gi", json!({"spec": held("other")}))),
            "FailedBinding: volume \"pv\" already bound to a different claim.",
        ),
    ];
    for (found, wanted) in cases {
        assert_eq!(told(&plan::claim(&wants, &with(found))), wanted);
    }
}

#[test]
fn a_bound_claim_that_loses_its_volume_is_lost() {
    let bound = json!({"metadata": {"annotations": {BIND_COMPLETED: "yes"}},
        "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}});
    let with = |volume: Option<PersistentVolume>| Seen {
        named: volume.map(Arc::new),
        ..Seen::default()
    };
    let found = claim(bound.clone());
    let cases = [
        (
            None,
            "ClaimLost: Bound claim has lost its PersistentVolume. Data on the volume is lost!",
        ),
        (
            Some(volume("pv", "5Gi", json!({"spec": held("other")}))),
            "ClaimMisbound: Two claims are bound to the same volume, this one is bound incorrectly",
        ),
        // Half a binding is finished.
        (Some(volume("pv", "5Gi", json!({}))), "bind pv"),
        (
            Some(volume("pv", "5Gi", json!({"spec": held("claim-1")}))),
            "bind pv",
        ),
    ];
    for (volume, wanted) in cases {
        assert_eq!(told(&plan::claim(&found, &with(volume))), wanted);
    }
    let mut nameless = claim(bound);
    nameless.spec.as_mut().unwrap().volume_name = None;
    let wanted = "ClaimLost: Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
    assert_eq!(told(&plan::claim(&nameless, &with(None))), wanted);
}

#[test]
fn released_volumes_are_treated_as_their_policy_says() {
    let by = |maker: &str, policy: &str| {
        let mut volume = volume("pv", "5Gi", json!({"spec": held("claim-1")}));
        volume
            .spec
            .as_mut()
            .unwrap()
            .persistent_volume_reclaim_policy = Some(policy.to_owned());
        if !maker.is_empty() {
            super::facts::annotate(&mut volume.metadata, super::facts::PROVISIONED_BY, maker);
        }
        volume
    };
    let policy = |volume: &PersistentVolume| match plan::volume(volume, None) {
        VolumeStep::Reclaim(Reclaim::Failed(told)) => told.reason.to_owned(),
        VolumeStep::Reclaim(how) => format!("{how:?}"),
        other => format!("{other:?}"),
    };
    for (maker, kept, wanted) in [
        ("", "Retain", "Retain"),
        ("x.io/y", "Retain", "Retain"),
        ("x.io/y", "Delete", "Elsewhere"),
        ("", "Delete", "VolumeFailedDelete"),
        ("", "Recycle", "VolumeFailedRecycle"),
        ("", "Burn", "VolumeUnknownReclaimPolicy"),
    ] {
        assert_eq!(policy(&by(maker, kept)), wanted, "{maker} {kept}");
    }
    // Held by name only: waits for its claim.
    let waits = volume("pv", "5Gi", json!({"spec": held("")}));
    assert_eq!(plan::volume(&waits, None), VolumeStep::Phase("Available"));
    // Its claim went elsewhere.
    let elsewhere = claim(json!({"spec": {"volumeName": "other"}}));
    let mine = volume("pv", "5Gi", json!({"spec": held("claim-1")}));
    assert_eq!(plan::volume(&mine, Some(&elsewhere)), VolumeStep::Unbind);
    assert_eq!(
        plan::volume(&mine, Some(&claim(json!({})))),
        VolumeStep::WakeClaim
    );
    let bound = claim(json!({"spec": {"volumeName": "pv"}}));
    assert_eq!(
        plan::volume(&mine, Some(&bound)),
        VolumeStep::Phase("Bound")
    );
}

#[test]
fn what_a_person_held_stays_held_by_name() {
    let by_person = volume("pv", "5Gi", json!({"spec": held("claim-1")}));
    let freed = binding::release(&by_person).unwrap();
    let kept = freed.spec.unwrap().claim_ref.unwrap();
    assert_eq!((kept.name.as_deref(), kept.uid), (Some("c"), None));
    let by_loop = volume(
        "pv",
        "5Gi",
        json!({"spec": held("claim-1"),
        "metadata": {"annotations": {BOUND_BY_CONTROLLER: "yes"}}}),
    );
    assert!(
        binding::release(&by_loop)
            .unwrap()
            .spec
            .unwrap()
            .claim_ref
            .is_none()
    );
}

#[test]
fn a_claim_is_kept_while_an_agent_may_have_it() {
    let mut pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "a"},
        "spec": {"containers": [], "volumes": [
            {"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}}))
    .unwrap();
    let held = claim(json!({}));
    assert!(!protection::mounts(&pod, &held), "no agent has it yet");
    assert!(protection::refers(&pod, &held));
    pod.spec.as_mut().unwrap().node_name = Some("n".to_owned());
    assert!(protection::mounts(&pod, &held));
    pod.status = serde_json::from_value(json!({"phase": "Succeeded"})).unwrap();
    assert!(
        protection::mounts(&pod, &held),
        "ended, and maybe not taken down"
    );
    assert!(!protection::refers(&pod, &held));
    let now = Timestamp::UNIX_EPOCH;
    let unused = protection::with_unused(&held, false, now).unwrap();
    assert!(protection::with_unused(&unused, false, now).is_none());
    assert!(protection::with_unused(&unused, true, now).is_some());
}

fn node(name: &str, directory: Option<&str>) -> Node {
    let annotations = directory.map(|path| json!({local_volume::DIRECTORY: path}));
    serde_json::from_value(
        json!({"metadata": {"name": name, "annotations": annotations,
        "labels": {"kubernetes.io/hostname": name}}}),
    )
    .unwrap()
}

#[test]
fn the_provisioner_refuses_by_name_what_a_directory_is_not() {
    let class = local_path::class(true);
    let there = node("n", Some("/v"));
    let made = |more: Value| local_path::volume(&claim(more), &class, "n", Some(&there), None);
    let volume = made(json!({})).unwrap();
    let spec = volume.spec.clone().unwrap();
    assert_eq!(spec.local.unwrap().path, "/v/pvc-claim-1");
    assert_eq!(spec.capacity.unwrap()["storage"].0, "5Gi");
    for (more, wanted) in [
        (json!({"spec": {"volumeMode": "Block"}}), "Block"),
        (
            json!({"spec": {"accessModes": ["ReadWriteMany"]}}),
            "ReadWriteMany",
        ),
        (
            json!({"spec": {"dataSource": {"kind": "Backup", "apiGroup": "a.b", "name": "s"}}}),
            "dataSource of kind Backup",
        ),
    ] {
        match made(more) {
            Err(local_path::Refusal::Never(why)) => assert!(why.contains(wanted), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    for absent in [None, Some(&node("n", None))] {
        let found = local_path::volume(&claim(json!({})), &class, "n", absent, None);
        assert!(
            matches!(found, Err(local_path::Refusal::Elsewhere(_))),
            "{found:?}"
        );
    }
}

#[test]
fn a_volume_made_here_goes_only_when_it_is_released_and_to_be_deleted() {
    let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
    let ours = |more: Value| {
        let mut all = json!({"metadata": {"finalizers": [local_volume::FINALIZER],
            "annotations": {super::facts::PROVISIONED_BY: local_volume::PROVISIONER}},
            "spec": {"persistentVolumeReclaimPolicy": "Delete"}});
        merge(&mut all["spec"], &held("claim-1"));
        merge(&mut all, &more);
        volume("pv", "5Gi", all)
    };
    let released = json!({"status": {"phase": "Released"}});
    let mut kept = released.clone();
    kept["spec"] = json!({"persistentVolumeReclaimPolicy": "Retain"});
    let going = |since: &str| json!({"metadata": {"deletionTimestamp": since}});
    for (more, exists, wanted) in [
        (
            json!({"status": {"phase": "Bound"}}),
            true,
            local_path::Step::Stay,
        ),
        (released, true, local_path::Step::Delete),
        (kept, true, local_path::Step::Stay),
        (going("2026-01-01T00:59:00Z"), true, local_path::Step::Await),
        (
            going("2026-01-01T00:59:00Z"),
            false,
            local_path::Step::Await,
        ),
        (
            going("2026-01-01T00:50:00Z"),
            false,
            local_path::Step::LetGo,
        ),
    ] {
        assert_eq!(
            local_path::step(&ours(more.clone()), exists, now),
            wanted,
            "{more}"
        );
    }
}

#[test]
fn growth_goes_step_by_step_from_any_of_them() {
    let now = Timestamp::UNIX_EPOCH;
    let mut claim = claim(json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}));
    let mut pv = volume(
        "pv",
        "1Gi",
        json!({"spec": held("claim-1"), "metadata": {
        "annotations": {super::facts::PROVISIONED_BY: local_volume::PROVISIONER,
            local_volume::MADE: "1Gi"}}}),
    );
    let expand::Step::Begin(begun) = expand::plan(&claim, &pv, now) else {
        panic!("it begins");
    };
    claim = *begun;
    let expand::Step::Grow(larger) = expand::plan(&claim, &pv, now) else {
        panic!("the volume grows");
    };
    pv = *larger;
    assert_eq!(expand::plan(&claim, &pv, now), expand::Step::Await);
    super::facts::annotate(&mut pv.metadata, local_volume::MADE, "5Gi");
    let expand::Step::Finish(done) = expand::plan(&claim, &pv, now) else {
        panic!("it ends");
    };
    assert_eq!(expand::plan(&done, &pv, now), expand::Step::Stay);
    let status = done.status.unwrap();
    assert_eq!(status.capacity.unwrap()["storage"].0, "5Gi");
    assert!(status.conditions.unwrap().is_empty());
    let foreign = volume("pv", "1Gi", json!({"spec": held("claim-1")}));
    let step = expand::plan(&claim, &foreign, now);
    assert_eq!(step, expand::Step::Elsewhere(EventType::Warning));
}

fn fake() -> FakeApi {
    FakeApi::new(FakeClock::shared())
}

fn phase(fake: &FakeApi, name: &str) -> String {
    let found = fake.get::<PersistentVolumeClaim>("a", name);
    found.map_or_else(String::new, |it| claim_phase(&it).to_owned())
}

fn pv_phase(fake: &FakeApi, name: &str) -> String {
    let found = fake.get::<PersistentVolume>("", name);
    found.map_or_else(|| "gone".to_owned(), |it| volume_phase(&it).to_owned())
}

async fn until(fake: &FakeApi, what: &str, mut good: impl FnMut(&FakeApi) -> bool) {
    fake.wait_for(what, |fake| good(fake).then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn a_volume_serves_a_claim_is_released_and_kept() {
    let fake = fake();
    fake.put(&volume("pv", "5Gi", json!({})));
    fake.put(&claim(json!({})));
    let world = start(&fake, |context| Box::pin(super::run_binder(context)));
    until(&fake, "both are bound", |fake| {
        phase(fake, "c") == "Bound" && pv_phase(fake, "pv") == "Bound"
    })
    .await;
    let bound = fake.get::<PersistentVolumeClaim>("a", "c").unwrap();
    let notes = bound.metadata.annotations.clone().unwrap();
    assert_eq!(notes[BIND_COMPLETED], "yes");
    assert_eq!(notes[BOUND_BY_CONTROLLER], "yes");
    let status = bound.status.unwrap();
    assert_eq!(status.capacity.unwrap()["storage"].0, "5Gi");
    assert_eq!(status.access_modes.unwrap(), ["ReadWriteOnce"]);
    fake.remove::<PersistentVolumeClaim>("a", "c");
    until(&fake, "it is released", |fake| {
        pv_phase(fake, "pv") == "Released"
    })
    .await;
    // A claim of the same name is another one.
    fake.put(&claim(json!({"metadata": {"uid": "claim-2"}})));
    until(&fake, "it waits", |fake| {
        fake.all::<Event>()
            .iter()
            .any(|it| it.reason.as_deref() == Some("FailedBinding"))
    })
    .await;
    assert_eq!(pv_phase(&fake, "pv"), "Released");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_without_a_class_gets_the_default_one_when_it_comes() {
    let fake = fake();
    let mut plain = claim(json!({}));
    plain.spec.as_mut().unwrap().storage_class_name = None;
    fake.put(&plain);
    let world = start(&fake, |context| Box::pin(super::run_binder(context)));
    until(&fake, "it says that it waits", |fake| {
        !fake.all::<Event>().is_empty()
    })
    .await;
    fake.put(&local_path::class(true));
    until(&fake, "it has the class", |fake| {
        let found = fake.get::<PersistentVolumeClaim>("a", "c").unwrap();
        found.spec.unwrap().storage_class_name.as_deref() == Some("local-path")
    })
    .await;
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_volume_is_told_and_a_claim_waits_for_the_one_it_names() {
    let fake = fake();
    fake.put(&claim(json!({"spec": {"volumeName": "pv"}})));
    let world = start(&fake, |context| Box::pin(super::run_binder(context)));
    until(&fake, "it says so", |fake| !fake.all::<Event>().is_empty()).await;
    fake.put(&volume("pv", "5Gi", json!({})));
    until(&fake, "it is bound", |fake| phase(fake, "c") == "Bound").await;
    fake.remove::<PersistentVolume>("", "pv");
    until(&fake, "it is lost", |fake| phase(fake, "c") == "Lost").await;
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_served_by_a_directory_of_the_chosen_node_and_gives_it_back() {
    let fake = fake();
    fake.put(&node("n", Some("/v")));
    let mut world = World::new(&fake);
    world.spawn(|context| Box::pin(super::run_binder(context)));
    world.spawn(|context| Box::pin(super::protection::run_claims(context)));
    world.spawn(|context| Box::pin(super::protection::run_volumes(context)));
    world.spawn(|context| Box::pin(super::expand::run(context)));
    world.spawn(|context| Box::pin(local_path::run(context)));
    until(&fake, "the class is there", |fake| {
        fake.get::<StorageClass>("", "local-path").is_some()
    })
    .await;
    let wanted = claim(json!({"metadata": {"finalizers": [protection::CLAIM]},
        "spec": {"storageClassName": "local-path"}}));
    fake.put(&wanted);
    until(&fake, "it waits for its consumer", |fake| {
        !fake.all::<Event>().is_empty()
    })
    .await;
    // What a scheduler does.
    let mut chosen = fake.get::<PersistentVolumeClaim>("a", "c").unwrap();
    super::facts::annotate(&mut chosen.metadata, SELECTED_NODE, "n");
    fake.put(&chosen);
    until(&fake, "it is bound", |fake| phase(fake, "c") == "Bound").await;
    let pv = fake.get::<PersistentVolume>("", "pvc-claim-1").unwrap();
    assert_eq!(pv.metadata.labels.unwrap()[local_volume::NODE_LABEL], "n");
    // It grows once its node has said so.
    let mut larger = fake.get::<PersistentVolumeClaim>("a", "c").unwrap();
    let requests = larger.spec.as_mut().unwrap().resources.as_mut().unwrap();
    requests
        .requests
        .as_mut()
        .unwrap()
        .get_mut("storage")
        .unwrap()
        .0 = "8Gi".to_owned();
    fake.put(&larger);
    until(&fake, "the volume is larger", |fake| {
        let found = fake.get::<PersistentVolume>("", "pvc-claim-1").unwrap();
        super::facts::capacity(&found).to_string() == "8Gi"
    })
    .await;
    let mut made = fake.get::<PersistentVolume>("", "pvc-claim-1").unwrap();
    super::facts::annotate(&mut made.metadata, local_volume::MADE, "8Gi");
    fake.put(&made);
    until(&fake, "the claim has it", |fake| {
        let found = fake.get::<PersistentVolumeClaim>("a", "c").unwrap();
        let capacity = found.status.unwrap().capacity.unwrap();
        capacity["storage"].0 == "8Gi"
    })
    .await;
    // Deleted: the node removes the directory, and then its finalizer.
    let api: evenkeel_client::Api<PersistentVolumeClaim> =
        evenkeel_client::Api::namespaced(fake.client(), "a");
    api.delete("c", &kube::api::DeleteParams::default())
        .await
        .unwrap();
    until(&fake, "the volume waits for its node alone", |fake| {
        let found = fake.get::<PersistentVolume>("", "pvc-claim-1");
        found.is_some_and(|it| {
            it.metadata.deletion_timestamp.is_some()
                && it.metadata.finalizers.unwrap_or_default() == [local_volume::FINALIZER]
        })
    })
    .await;
    assert_eq!(phase(&fake, "c"), "");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_attributes_class_stays_while_a_claim_or_a_volume_names_it() {
    let fake = fake();
    let class = |name: &str| -> VolumeAttributesClass {
        serde_json::from_value(json!({"metadata": {"name": name,
            "finalizers": [class_protection::CLASS]}, "driverName": "d"}))
        .unwrap()
    };
    for name in ["free", "asked", "had", "becomes", "of-volume"] {
        fake.put(&class(name));
    }
    fake.put(&claim(
        json!({"spec": {"volumeAttributesClassName": "asked"}, "status": {
        "currentVolumeAttributesClassName": "had", "modifyVolumeStatus": {
            "status": "Pending", "targetVolumeAttributesClassName": "becomes"}}}),
    ));
    let held = json!({"spec": {"volumeAttributesClassName": "of-volume"}});
    fake.put(&volume("pv", "1Gi", held));
    let world = start(&fake, |context| Box::pin(class_protection::run(context)));
    let api: evenkeel_client::Api<VolumeAttributesClass> = evenkeel_client::Api::all(fake.client());
    for name in ["asked", "had", "becomes", "of-volume", "free"] {
        let params = kube::api::DeleteParams::default();
        api.delete(name, &params).await.unwrap();
    }
    let left = |fake: &FakeApi| {
        let all = fake.all::<VolumeAttributesClass>().into_iter();
        let mut names: Vec<String> = all.filter_map(|it| it.metadata.name).collect();
        names.sort();
        names.join(" ")
    };
    until(&fake, "the one that nobody names is gone", |fake| {
        left(fake) == "asked becomes had of-volume"
    })
    .await;
    fake.put(&volume("pv", "1Gi", json!({})));
    let changed = json!({"spec": {"volumeAttributesClassName": "asked"}, "status": {
        "currentVolumeAttributesClassName": "asked"}});
    fake.put(&claim(changed));
    until(&fake, "those that were let go are gone", |fake| {
        left(fake) == "asked"
    })
    .await;
    fake.remove::<PersistentVolumeClaim>("a", "c");
    until(&fake, "the last is gone", |fake| left(fake).is_empty()).await;
    // One that was made while the door gave none gets it.
    let mut bare = class("bare");
    bare.metadata.finalizers = None;
    fake.put(&bare);
    until(&fake, "it is protected", |fake| {
        let found = fake.get::<VolumeAttributesClass>("", "bare").unwrap();
        found.metadata.finalizers.unwrap_or_default() == [class_protection::CLASS]
    })
    .await;
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_gets_the_claim_of_its_template_and_no_other() {
    let fake = fake();
    let pod = |name: &str| -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "a"},
            "spec": {"containers": [], "volumes": [{"name": "v", "ephemeral":
                {"volumeClaimTemplate": {"metadata": {"labels": {"x": "y"}}, "spec":
                    {"accessModes": ["ReadWriteOnce"]}}}}]}}))
        .unwrap()
    };
    let made = fake.put(&pod("p"));
    fake.put(&claim(json!({"metadata": {"name": "q-v"}})));
    fake.put(&pod("q"));
    let world = start(&fake, |context| Box::pin(super::ephemeral::run(context)));
    let found = fake
        .wait_for("the claim", |fake| {
            fake.get::<PersistentVolumeClaim>("a", "p-v")
        })
        .await;
    let owner = &found.metadata.owner_references.unwrap()[0];
    assert_eq!(
        (Some(&owner.uid), owner.controller),
        (made.metadata.uid.as_ref(), Some(true))
    );
    until(&fake, "the other one says why not", |fake| {
        let why = "ephemeral volume v: PVC a/q-v was not created for pod a/q (pod is not owner)";
        fake.all::<Event>()
            .iter()
            .any(|it| it.message.as_deref() == Some(why))
    })
    .await;
    world.end().await;
}
