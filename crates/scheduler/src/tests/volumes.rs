//! Claims and volumes: where they let a pod go, what is set aside, what is written.

use std::sync::Arc;

use evenkeel_client::testing::{FakeApi, FakeClock};
use evenkeel_client::{Change, ObjectKey};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::objects::{node_with, pod_with};
use crate::core::{Action, Core};
use crate::framework::{Binding, PreBind};
use crate::plugins::default_placement;
use crate::plugins::volumes::VolumeBinding;
use crate::storage::SELECTED_NODE;

fn read<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object")
}

fn added<K: kube::Resource<DynamicType = ()>>(object: K) -> Change<K> {
    Change {
        key: ObjectKey::of(&object),
        old: None,
        new: Some(Arc::new(object)),
    }
}

fn zoned(name: &str, zone: &str) -> Node {
    let labels = json!({"metadata": {"labels": {"zone": zone}}});
    node_with(name, 4000, 4096, &labels)
}

fn claim(name: &str, more: &Value) -> PersistentVolumeClaim {
    let mut value = json!({
        "metadata": {"namespace": "default", "name": name, "uid": format!("uid-{name}")},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "local",
            "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Pending"},
    });
    super::objects::merge(&mut value, more);
    read(value)
}

fn bound(name: &str, volume: &str) -> PersistentVolumeClaim {
    let done = json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {"volumeName": volume}, "status": {"phase": "Bound"}});
    claim(name, &done)
}

fn volume(name: &str, zone: &str, size: &str) -> PersistentVolume {
    read(json!({
        "metadata": {"name": name, "uid": format!("uid-{name}")},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "local",
            "capacity": {"storage": size},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "zone", "operator": "In", "values": [zone]}]}]}}},
        "status": {"phase": "Available"},
    }))
}

fn class(provisioner: &str, mode: &str, more: &Value) -> StorageClass {
    let mut value = json!({"metadata": {"name": "local"}, "provisioner": provisioner,
        "volumeBindingMode": mode});
    super::objects::merge(&mut value, more);
    read(value)
}

fn using(name: &str, claim: &str) -> Pod {
    let volumes = json!({"spec": {"volumes": [
        {"name": "data", "persistentVolumeClaim": {"claimName": claim}}]}});
    pod_with(name, 100, &volumes)
}

fn core() -> Core {
    let mut core = Core::new(default_placement(), 7);
    core.node(&added(zoned("a", "za")), Instant::now());
    core.node(&added(zoned("b", "zb")), Instant::now());
    core
}

/// The node that the next pod gets, or what is said.
fn next(core: &mut Core) -> Result<String, String> {
    match core.cycle(Instant::now()).expect("a pod waits") {
        Action::Bind { node, .. } => Ok(node.to_string()),
        Action::Tell { decision, .. } => Err(decision.filtered()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_texts_name_the_claim() {
    let no_class = StorageClass::default();
    let waits = || class("example.com/disks", "WaitForFirstConsumer", &json!({}));
    let none = "0/2 nodes are available: ";
    type Row = (Option<PersistentVolumeClaim>, StorageClass, &'static str);
    let rows: Vec<Row> = vec![
        (
            None,
            no_class.clone(),
            "persistentvolumeclaim \"data\" not found.",
        ),
        (
            Some(claim("data", &json!({}))),
            class("example.com/disks", "Immediate", &json!({})),
            "pod has unbound immediate PersistentVolumeClaims.",
        ),
        (
            Some(claim(
                "data",
                &json!({"status": {"phase": "Lost"}, "spec": {"volumeName": "pv"}}),
            )),
            no_class.clone(),
            "persistentvolumeclaim \"data\" bound to non-existent persistentvolume \"pv\".",
        ),
        (
            Some(claim(
                "data",
                &json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            )),
            no_class,
            "persistentvolumeclaim \"data\" is being deleted.",
        ),
        (
            Some(bound("data", "gone")),
            waits(),
            "2 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s).",
        ),
        (
            Some(claim("data", &json!({}))),
            class(
                "kubernetes.io/no-provisioner",
                "WaitForFirstConsumer",
                &json!({}),
            ),
            "2 node(s) didn't find available persistent volumes to bind.",
        ),
    ];
    for (claim, class, text) in rows {
        let mut core = core();
        if let Some(claim) = claim {
            core.claim(&added(claim), Instant::now());
        }
        if class.metadata.name.is_some() {
            core.storage_class(&added(class), Instant::now());
        }
        core.pod(&added(using("web", "data")), Instant::now());
        assert_eq!(next(&mut core), Err(format!("{none}{text}")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_bound_volume_says_where_and_a_claim_that_comes_wakes_its_pod() {
    let mut core = core();
    core.pod(&added(using("web", "data")), Instant::now());
    next(&mut core).expect_err("there is no claim");
    core.volume(&added(volume("pv", "zb", "1Gi")), Instant::now());
    core.claim(&added(bound("other", "pv")), Instant::now());
    core.claim(&added(bound("data", "pv")), Instant::now());
    // Once for the volume, which could have helped, and once for the claim.
    let placed = (0..2).find_map(|_| next(&mut core).ok());
    assert_eq!(placed.as_deref(), Some("b"));
}

#[tokio::test(start_paused = true)]
async fn the_smallest_volume_that_serves_is_set_aside_for_one_claim() {
    let mut core = core();
    core.storage_class(
        &added(class(
            "kubernetes.io/no-provisioner",
            "WaitForFirstConsumer",
            &json!({}),
        )),
        Instant::now(),
    );
    for volume in [volume("tiny", "za", "500Mi"), volume("fit", "zb", "1Gi")] {
        core.volume(&added(volume), Instant::now());
    }
    for name in ["one", "two"] {
        core.claim(&added(claim(name, &json!({}))), Instant::now());
        core.pod(&added(using(name, name)), Instant::now());
    }
    assert_eq!(next(&mut core), Ok("b".to_owned()));
    assert_eq!(
        next(&mut core),
        Err(
            "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind."
                .to_owned()
        )
    );
}

#[tokio::test(start_paused = true)]
async fn pods_that_share_a_claim_go_where_its_volume_is_made() {
    let mut core = core();
    let only_b = json!({"allowedTopologies": [{"matchLabelExpressions": [
        {"key": "zone", "values": ["zb"]}]}]});
    core.storage_class(
        &added(class("example.com/disks", "WaitForFirstConsumer", &only_b)),
        Instant::now(),
    );
    core.claim(&added(claim("data", &json!({}))), Instant::now());
    core.pod(&added(using("one", "data")), Instant::now());
    core.pod(&added(using("two", "data")), Instant::now());
    assert_eq!(next(&mut core), Ok("b".to_owned()));
    assert_eq!(next(&mut core), Ok("b".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_claim_for_one_pod_is_used_by_one_pod() {
    let mut core = core();
    core.volume(&added(volume("pv", "za", "1Gi")), Instant::now());
    let mut one = bound("data", "pv");
    one.spec.as_mut().expect("a spec").access_modes = Some(vec!["ReadWriteOncePod".to_owned()]);
    core.claim(&added(one), Instant::now());
    core.pod(&added(using("first", "data")), Instant::now());
    core.pod(&added(using("second", "data")), Instant::now());
    assert_eq!(next(&mut core), Ok("a".to_owned()));
    let said = next(&mut core).expect_err("it is in use");
    assert!(
        said.contains(
            "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod \
             access mode"
        ),
        "{said}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_node_is_written_before_the_binding_and_the_volume_waited_for() {
    let api = FakeApi::new(FakeClock::shared());
    let data = api.put(&claim("data", &json!({})));
    let volumes = VolumeBinding::new(Some(api.client()));
    // Set aside as a cycle would.
    let mut snapshot = crate::snapshot::Snapshot::default();
    snapshot.set_node(&Arc::new(zoned("a", "za")));
    let storage = &mut snapshot.storage;
    storage.claims.insert(ObjectKey::of(&data), Arc::new(data));
    let class = class("example.com/disks", "WaitForFirstConsumer", &json!({}));
    storage.classes.insert("local".to_owned(), Arc::new(class));
    let pod = Arc::new(using("web", "data"));
    let info = crate::pod::PodInfo::new(Arc::clone(&pod));
    let mut state = crate::framework::CycleState::default();
    crate::framework::PreFilter::pre_filter(&volumes, &mut state, &info, &snapshot);
    let at = snapshot.find("a").expect("a node");
    crate::framework::Reserve::reserve(&volumes, &mut state, &info, snapshot.node(at))
        .expect("it can be made there");
    let binding = Binding {
        pod,
        node: "a".into(),
    };
    let provisioner = async {
        let asked = api
            .wait_for("the node on the claim", |api| {
                let claim = api.get::<PersistentVolumeClaim>("default", "data")?;
                let annotations = claim.metadata.annotations.clone()?;
                (annotations.get(SELECTED_NODE).map(String::as_str) == Some("a")).then_some(claim)
            })
            .await;
        let mut done = bound("data", "pv");
        done.metadata.uid = asked.metadata.uid;
        api.put(&done);
    };
    let (written, ()) = tokio::join!(volumes.pre_bind(&binding), provisioner);
    written.expect("bound");
}

/// A volume of a driver, bound to a claim of the same name.
fn driven(name: &str, driver: &str) -> (PersistentVolumeClaim, PersistentVolume) {
    let volume = read(json!({
        "metadata": {"name": name, "uid": format!("uid-{name}")},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "csi": {"driver": driver, "volumeHandle": format!("handle-{name}")}},
    }));
    (bound(name, name), volume)
}

#[tokio::test(start_paused = true)]
async fn a_node_holds_as_many_volumes_of_a_driver_as_it_says() {
    let mut core = core();
    let now = Instant::now();
    for (node, count) in [("a", 1), ("b", 2)] {
        let csi: CSINode = read(json!({"metadata": {"name": node}, "spec": {"drivers": [
            {"name": "disks.example.com", "nodeID": node, "allocatable": {"count": count}}]}}));
        core.csi_node(&added(csi), now);
    }
    for name in ["one", "two", "three", "four"] {
        let (claim, volume) = driven(name, "disks.example.com");
        core.volume(&added(volume), now);
        core.claim(&added(claim), now);
        core.pod(&added(using(name, name)), now);
    }
    for _ in 0..3 {
        next(&mut core).expect("there is room");
    }
    assert_eq!(
        next(&mut core),
        Err("0/2 nodes are available: 2 node(s) exceed max volume count.".to_owned())
    );
    // A volume that is there already is not counted again, and another driver has its own limit.
    core.pod(&added(using("again", "one")), now);
    next(&mut core).expect("the volume is on a node");
    let (claim, volume) = driven("other", "files.example.com");
    core.volume(&added(volume), now);
    core.claim(&added(claim), now);
    core.pod(&added(using("other", "other")), now);
    let placed = (0..2).find_map(|_| next(&mut core).ok());
    assert!(placed.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_says_its_zone_by_labels_keeps_pods_there() {
    let mut core = Core::new(default_placement(), 7);
    let now = Instant::now();
    for (name, zone) in [("a", "za"), ("b", "zb"), ("c", "zc")] {
        let labels = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}});
        core.node(&added(node_with(name, 4000, 4096, &labels)), now);
    }
    let (claim, mut volume) = driven("data", "disks.example.com");
    let labels = [("failure-domain.beta.kubernetes.io/zone", "zb__zx")];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
    volume.metadata.labels = Some(labels.into());
    core.volume(&added(volume.clone()), now);
    core.claim(&added(claim), now);
    core.pod(&added(using("web", "data")), now);
    assert_eq!(next(&mut core), Ok("b".to_owned()));
    volume.metadata.labels =
        Some([("topology.kubernetes.io/zone".to_owned(), "zx".to_owned())].into());
    core.volume(&added(volume), now);
    core.pod(&added(using("next", "data")), now);
    assert_eq!(
        next(&mut core),
        Err("0/3 nodes are available: 3 node(s) had no available volume zone.".to_owned())
    );
}

#[tokio::test(start_paused = true)]
async fn a_volume_is_made_where_its_driver_has_room() {
    let mut core = core();
    let now = Instant::now();
    let class = class("disks.example.com", "WaitForFirstConsumer", &json!({}));
    core.storage_class(&added(class), now);
    let driver: CSIDriver =
        read(json!({"metadata": {"name": "disks.example.com"}, "spec": {"storageCapacity": true}}));
    core.csi_driver(&added(driver), now);
    let room = |name: &str, zone: &str, amounts: Value| -> CSIStorageCapacity {
        let mut value = json!({"metadata": {"namespace": "kube-system", "name": name},
            "storageClassName": "local", "nodeTopology": {"matchLabels": {"zone": zone}}});
        super::objects::merge(&mut value, &amounts);
        read(value)
    };
    core.claim(&added(claim("data", &json!({}))), now);
    core.pod(&added(using("web", "data")), now);
    let none = "0/2 nodes are available: 2 node(s) did not have enough free storage.";
    assert_eq!(next(&mut core), Err(none.to_owned()));
    // Enough in all, and no volume as large as that.
    let small = json!({"capacity": "10Gi", "maximumVolumeSize": "500Mi"});
    core.capacity(&added(room("za", "za", small)), now);
    assert_eq!(next(&mut core), Err(none.to_owned()));
    core.capacity(&added(room("zb", "zb", json!({"capacity": "2Gi"}))), now);
    assert_eq!(next(&mut core), Ok("b".to_owned()));
}
