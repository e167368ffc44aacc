//! Snapshots: tables of the plans, refusals in the field's words, and whole lives against the fake.

use std::sync::Arc;

use evenkeel_api::local_volume::{
    BEING_DELETED, CONTENT_FINALIZER, FINALIZER, MADE, NODE_LABEL, PROVISIONER, SNAPSHOTS, SOURCE,
};
use evenkeel_client::Api;
use evenkeel_client::testing::{FakeApi, FakeClock};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Node, PersistentVolume, PersistentVolumeClaim};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::kinds::{Class, Content, Snapshot};
use super::plan::{self, ContentStep, Seen, Step};
use crate::testing::World;
use crate::volumes::facts::{PROVISIONED_BY, SELECTED_NODE};
use crate::volumes::{local_path, source};

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

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

fn claim(name: &str, more: Value) -> PersistentVolumeClaim {
    let mut claim = json!({
        "metadata": {"name": name, "namespace": "a", "uid": format!("claim-{name}")},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "local-path",
            "resources": {"requests": {"storage": "1Gi"}}, "volumeName": format!("pv-{name}")},
        "status": {"phase": "Bound"},
    });
    merge(&mut claim, &more);
    from(claim)
}

fn volume(of: &str, more: Value) -> PersistentVolume {
    let mut volume = json!({
        "metadata": {"name": format!("pv-{of}"), "labels": {NODE_LABEL: "n"},
            "annotations": {PROVISIONED_BY: PROVISIONER, MADE: "1Gi"}},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "claimRef": {"namespace": "a", "name": of, "uid": format!("claim-{of}")},
            "local": {"path": format!("/v/pv-{of}")}},
        "status": {"phase": "Bound"},
    });
    merge(&mut volume, &more);
    from(volume)
}

fn snapshot(more: Value) -> Snapshot {
    let mut snapshot = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
        "metadata": {"name": "s", "namespace": "a", "uid": "snap"},
        "spec": {"source": {"persistentVolumeClaimName": "c"},
            "volumeSnapshotClassName": "local-path"},
    });
    merge(&mut snapshot, &more);
    from(snapshot)
}

fn seen() -> Seen {
    Seen {
        claim: Some(claim("c", json!({}))),
        volume: Some(volume("c", json!({}))),
        classes: vec![super::class()],
        ..Seen::default()
    }
}

fn told(step: Step) -> String {
    match step {
        Step::Fail(told) => format!("{}: {}", told.reason, told.message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_can_not_be_taken_is_told_in_the_fields_words() {
    let plain = snapshot(json!({}));
    let mut absent = seen();
    absent.claim = None;
    absent.volume = None;
    assert_eq!(
        told(plan::snapshot(&plain, &absent)),
        "SnapshotContentCreationFailed: Failed to create snapshot content with error snapshot \
         controller failed to update s on API server: cannot get claim from snapshot"
    );
    let mut unbound = seen();
    unbound.claim = Some(claim("c", json!({"status": {"phase": "Pending"}})));
    assert!(
        told(plan::snapshot(&plain, &unbound))
            .ends_with("the PVC c is not yet bound to a PV, will not attempt to take a snapshot\"")
    );
    let no_class = snapshot(json!({"spec": {"volumeSnapshotClassName": null}}));
    assert_eq!(
        plan::snapshot(&no_class, &seen()),
        Step::Class("local-path".to_owned())
    );
    let mut none = seen();
    none.classes.clear();
    assert_eq!(
        told(plan::snapshot(&no_class, &none)),
        "SetDefaultSnapshotClassFailed: Failed to set default snapshot class with error cannot \
         find default snapshot class"
    );
    let mut two = seen();
    two.classes.push(super::class());
    assert!(
        told(plan::snapshot(&no_class, &two)).ends_with("2 default snapshot classes were found")
    );
    let wrong = snapshot(json!({"spec": {"volumeSnapshotClassName": "gone"}}));
    assert!(told(plan::snapshot(&wrong, &seen())).starts_with("GetSnapshotClassFailed"));
    let foreign = snapshot(json!({"spec": {"volumeSnapshotClassName": "fast"}}));
    let mut of_another = seen();
    of_another.classes.push(from::<Class>(
        json!({"metadata": {"name": "fast"}, "driver": "x.y", "deletionPolicy": "Delete"}),
    ));
    assert!(told(plan::snapshot(&foreign, &of_another)).contains("driver x.y"));
    // Another driver's volume and class are its own controller's.
    of_another.volume = Some(volume(
        "c",
        json!({"metadata": {"annotations": {PROVISIONED_BY: "x.y"}}}),
    ));
    assert_eq!(plan::snapshot(&foreign, &of_another), Step::Stay);
    let missing =
        snapshot(json!({"status": {"boundVolumeSnapshotContentName": "snapcontent-snap"}}));
    assert_eq!(
        told(plan::snapshot(&missing, &seen())),
        "SnapshotContentMissing: VolumeSnapshotContent is missing"
    );
}

fn content(more: Value) -> Content {
    let mut content = json!({
        "metadata": {"name": "snapcontent-snap", "finalizers": [CONTENT_FINALIZER, FINALIZER],
            "labels": {NODE_LABEL: "n"}},
        "spec": {"driver": PROVISIONER, "deletionPolicy": "Delete",
            "source": {"volumeHandle": "pv-c"},
            "volumeSnapshotRef": {"namespace": "a", "name": "s", "uid": "snap"}},
    });
    merge(&mut content, &more);
    from(content)
}

#[test]
fn a_snapshot_that_goes_takes_its_content_along_or_leaves_it() {
    let finalizers = json!([plan::AS_SOURCE, plan::BOUND]);
    let going = snapshot(
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z",
        "finalizers": finalizers}}),
    );
    let mut here = seen();
    here.content = Some(content(json!({})));
    here.restoring = true;
    assert!(matches!(plan::snapshot(&going, &here), Step::Await(_)));
    here.restoring = false;
    let marked = json!({"metadata": {"annotations": {BEING_DELETED: "yes"}}});
    assert_eq!(plan::snapshot(&going, &here), Step::Content(marked.clone()));
    here.content = Some(content(marked.clone()));
    assert_eq!(plan::snapshot(&going, &here), Step::Delete);
    let mut kept = marked.clone();
    kept["spec"] = json!({"deletionPolicy": "Retain"});
    here.content = Some(content(kept));
    assert_eq!(plan::snapshot(&going, &here), Step::Finalizers(Vec::new()));
    here.content = None;
    assert_eq!(plan::snapshot(&going, &here), Step::Finalizers(Vec::new()));
    // The content waits for the snapshot, then for its node, and not for a node that is gone.
    let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
    let there = snapshot(json!({}));
    let mut gone = marked;
    gone["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:50:00Z");
    let both = content(gone.clone());
    let step =
        |content: &Content, of: Option<&Snapshot>, node| plan::content_step(content, of, node, now);
    assert_eq!(step(&both, Some(&there), true), ContentStep::Stay);
    let left = ContentStep::Finalizers(vec![FINALIZER.to_owned()]);
    assert_eq!(step(&both, Some(&going), true), left);
    assert_eq!(step(&both, None, true), left);
    gone["metadata"]["finalizers"] = json!([FINALIZER]);
    let waits = content(gone);
    assert_eq!(step(&waits, None, true), ContentStep::Await);
    assert_eq!(step(&waits, None, false), ContentStep::LetGo(Vec::new()));
}

#[test]
fn a_source_is_refused_in_the_fields_words() {
    let wants = |size: &str| {
        claim(
            "new",
            json!({"spec": {"resources": {"requests": {"storage": size}}}}),
        )
    };
    let ready = |more: Value| {
        let mut all = json!({"status": {"boundVolumeSnapshotContentName": "snapcontent-snap",
            "readyToUse": true, "restoreSize": "1Gi"}});
        merge(&mut all, &more);
        snapshot(all)
    };
    let has = content(json!({"status": {"snapshotHandle": "n/snapcontent-snap"}}));
    let found = source::snapshot(&wants("1Gi"), "s", Some(&ready(json!({}))), Some(&has));
    let found = found.unwrap();
    assert_eq!(
        (found.source.as_str(), found.node.as_str()),
        ("snapshot/snapcontent-snap", "n")
    );
    let foreign = content(json!({"spec": {"driver": "x.y"}}));
    for (of, has, size, wanted) in [
        (
            None,
            None,
            "1Gi",
            "error getting snapshot s from api server",
        ),
        (
            Some(snapshot(json!({}))),
            None,
            "1Gi",
            "snapshot s not bound",
        ),
        (
            Some(ready(json!({}))),
            Some(&foreign),
            "1Gi",
            "snapshot s not bound",
        ),
        (
            Some(ready(json!({"status": {"readyToUse": false}}))),
            Some(&has),
            "1Gi",
            "snapshot s is not Ready",
        ),
        (
            Some(ready(
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            )),
            Some(&has),
            "1Gi",
            "snapshot s is currently being deleted",
        ),
        (
            Some(ready(json!({}))),
            Some(&has),
            "1Mi",
            "requested volume size 1048576 is less than the size 1073741824 for the source \
             snapshot s",
        ),
    ] {
        let why = source::snapshot(&wants(size), "s", of.as_ref(), has).unwrap_err();
        assert!(why.starts_with(wanted), "{why}");
    }
    let clone = |size: &str, of: Value, pv: Value| {
        let of = Arc::new(claim("c", of));
        let pv = Arc::new(volume("c", pv));
        source::clone(&wants(size), "c", Some(&of), Some(&pv))
    };
    let found = clone("1Gi", json!({}), json!({})).unwrap();
    assert_eq!(found.source, "volume/pv-c");
    for (size, of, pv, wanted) in [
        (
            "1Gi",
            json!({"status": {"phase": "Pending"}}),
            json!({}),
            "the PVC DataSource c must have a status of Bound.  Got Pending",
        ),
        (
            "1Mi",
            json!({}),
            json!({}),
            "error, new PVC request must be greater than or equal in size to the specified PVC \
             data source, requested 1048576 but source is 1073741824",
        ),
        (
            "1Gi",
            json!({"spec": {"storageClassName": ""}}),
            json!({}),
            "the source PVC (c) storageclass cannot be empty",
        ),
        (
            "1Gi",
            json!({}),
            json!({"metadata": {"annotations": {PROVISIONED_BY: "x.y"}}}),
            "claim in dataSource not bound or invalid",
        ),
    ] {
        assert_eq!(clone(size, of, pv).unwrap_err(), wanted);
    }
    let none = source::clone(&wants("1Gi"), "c", None, None).unwrap_err();
    assert!(none.starts_with("error getting PVC c (namespace \"a\") from api server"));
}

async fn patch<K>(api: &Api<K>, name: &str, status: bool, patch: Value)
where
    K: evenkeel_client::Kind,
{
    let params = PatchParams::default();
    let patch = Patch::Merge(&patch);
    let done = if status {
        api.patch_status(name, &params, &patch).await
    } else {
        api.patch(name, &params, &patch).await
    };
    done.unwrap();
}

fn finalizers(fake: &FakeApi, claim: &str) -> Vec<String> {
    let found = fake.get::<PersistentVolumeClaim>("a", claim).unwrap();
    found.metadata.finalizers.unwrap_or_default()
}

async fn until(fake: &FakeApi, what: &str, mut good: impl FnMut(&FakeApi) -> bool) {
    fake.wait_for(what, |fake| good(fake).then_some(())).await;
}

fn ready(fake: &FakeApi) -> bool {
    let found = fake.get::<Snapshot>("a", "s");
    found.is_some_and(|it| it.status.is_some_and(|it| it.ready_to_use == Some(true)))
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_asked_for_shown_restored_and_given_up() {
    let fake = FakeApi::new(FakeClock::shared());
    fake.put(&from::<Node>(json!({"metadata": {"name": "n",
        "annotations": {evenkeel_api::local_volume::DIRECTORY: "/v"}}})));
    fake.put(&claim("c", json!({})));
    fake.put(&volume("c", json!({})));
    let mut world = World::new(&fake);
    world.spawn(|context| Box::pin(super::run(context)));
    world.spawn(|context| Box::pin(local_path::run(context)));
    until(&fake, "the class", |fake| {
        fake.get::<Class>("", "local-path").is_some()
    })
    .await;
    fake.put(&snapshot(
        json!({"spec": {"volumeSnapshotClassName": null}}),
    ));
    // The node is asked.
    let asked = fake
        .wait_for("the content", |fake| {
            fake.get::<Content>("", "snapcontent-snap")
        })
        .await;
    assert_eq!(asked.metadata.labels.unwrap()[NODE_LABEL], "n");
    assert_eq!(asked.spec.source.volume_handle.as_deref(), Some("pv-c"));
    let pv = fake.get::<PersistentVolume>("", "pv-c").unwrap();
    assert!(pv.metadata.annotations.unwrap().contains_key(SNAPSHOTS));
    assert!(finalizers(&fake, "c").contains(&plan::CLAIM.to_owned()));
    // A claim made from it waits, and says for what.
    let restore =
        json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"});
    fake.put(&claim(
        "new",
        json!({"spec": {"dataSource": restore, "dataSourceRef": restore,
        "volumeName": null}, "status": {"phase": "Pending"}}),
    ));
    fake.put(&local_path::class(true));
    until(&fake, "it is told why not", |fake| {
        fake.all::<Event>().iter().any(|event| {
            let text = event.message.clone().unwrap_or_default();
            text.contains("snapshot s is not Ready") || text.contains("snapshot s not bound")
        })
    })
    .await;
    // The node has made it.
    let contents: Api<Content> = Api::all(fake.client());
    let status = json!({"status": {"snapshotHandle": "n/snapcontent-snap", "readyToUse": true,
        "creationTime": 1_767_225_600_000_000_000_i64, "restoreSize": 1 << 30}});
    patch(&contents, "snapcontent-snap", true, status).await;
    until(&fake, "it is ready", ready).await;
    let shown = fake.get::<Snapshot>("a", "s").unwrap().status.unwrap();
    assert_eq!(shown.restore_size.unwrap().0, "1Gi");
    assert_eq!(
        shown.creation_time.unwrap().0.to_string(),
        "2026-01-01T00:00:00Z"
    );
    until(&fake, "the claim is let go", |fake| {
        !finalizers(fake, "c").contains(&plan::CLAIM.to_owned())
    })
    .await;
    // The waiting claim goes to the node that has the data, without a pod.
    until(&fake, "its node is chosen", |fake| {
        let found = fake.get::<PersistentVolumeClaim>("a", "new").unwrap();
        let annotations = found.metadata.annotations.unwrap_or_default();
        annotations.get(SELECTED_NODE).map(String::as_str) == Some("n")
    })
    .await;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(fake.client(), "a");
    let asks = json!({"metadata": {"annotations": {
        crate::volumes::facts::PROVISIONER: PROVISIONER}}});
    patch(&claims, "new", false, asks).await;
    let made = fake
        .wait_for("its volume", |fake| {
            fake.get::<PersistentVolume>("", "pvc-claim-new")
        })
        .await;
    assert_eq!(
        made.metadata.annotations.unwrap()[SOURCE],
        "snapshot/snapcontent-snap"
    );
    // While that is made, the snapshot stays.
    let snapshots: Api<Snapshot> = Api::namespaced(fake.client(), "a");
    snapshots
        .delete("s", &DeleteParams::default())
        .await
        .unwrap();
    until(&fake, "it says that it waits", |fake| {
        fake.all::<Event>()
            .iter()
            .any(|event| event.reason.as_deref() == Some("SnapshotDeletePending"))
    })
    .await;
    patch(
        &claims,
        "new",
        false,
        json!({"spec": {"volumeName": "pvc-claim-new"}}),
    )
    .await;
    let volumes: Api<PersistentVolume> = Api::all(fake.client());
    let whole = json!({"metadata": {"annotations": {MADE: "1Gi"}}});
    patch(&volumes, "pvc-claim-new", false, whole).await;
    until(&fake, "the content waits for its node alone", |fake| {
        fake.get::<Content>("", "snapcontent-snap")
            .is_some_and(|it| {
                it.metadata.deletion_timestamp.is_some()
                    && it.metadata.finalizers.unwrap_or_default() == [FINALIZER]
            })
    })
    .await;
    assert!(fake.get::<Snapshot>("a", "s").is_some());
    patch(
        &contents,
        "snapcontent-snap",
        false,
        json!({"metadata": {"finalizers": null}}),
    )
    .await;
    until(&fake, "both are gone", |fake| {
        fake.get::<Snapshot>("a", "s").is_none()
    })
    .await;
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_kept_while_it_is_cloned() {
    let fake = FakeApi::new(FakeClock::shared());
    fake.put(&from::<Node>(json!({"metadata": {"name": "n",
        "annotations": {evenkeel_api::local_volume::DIRECTORY: "/v"}}})));
    fake.put(&claim("c", json!({})));
    fake.put(&volume("c", json!({})));
    fake.put(&local_path::class(true));
    let mut world = World::new(&fake);
    world.spawn(|context| Box::pin(local_path::run(context)));
    let of = json!({"kind": "PersistentVolumeClaim", "name": "c"});
    fake.put(&claim(
        "new",
        json!({
        "metadata": {"annotations": {crate::volumes::facts::PROVISIONER: PROVISIONER}},
        "spec": {"dataSource": of, "dataSourceRef": of, "volumeName": null},
        "status": {"phase": "Pending"}}),
    ));
    let made = fake
        .wait_for("its volume", |fake| {
            fake.get::<PersistentVolume>("", "pvc-claim-new")
        })
        .await;
    assert_eq!(made.metadata.annotations.unwrap()[SOURCE], "volume/pv-c");
    assert_eq!(finalizers(&fake, "c"), [source::CLONING]);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(fake.client(), "a");
    patch(
        &claims,
        "new",
        false,
        json!({"spec": {"volumeName": "pvc-claim-new"}}),
    )
    .await;
    let volumes: Api<PersistentVolume> = Api::all(fake.client());
    let whole = json!({"metadata": {"annotations": {MADE: "1Gi"}}});
    patch(&volumes, "pvc-claim-new", false, whole).await;
    until(&fake, "it is let go", |fake| {
        finalizers(fake, "c").is_empty()
    })
    .await;
    world.end().await;
}

/// The door asks for them, and the types of custom kinds do not carry them.
#[test]
fn what_is_written_says_its_version_and_kind() {
    let sent = evenkeel_client::Kind::encode(&super::class()).unwrap();
    let sent: serde_json::Value = serde_json::from_slice(&sent).unwrap();
    assert_eq!(sent["apiVersion"], "snapshot.storage.k8s.io/v1");
    assert_eq!(sent["kind"], "VolumeSnapshotClass");
    assert_eq!(sent["driver"], "evenkeel.io/local-path");
}
