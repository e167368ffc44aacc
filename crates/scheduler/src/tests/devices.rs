//! Devices: which are chosen, which texts say why none is, that none is given twice, and what is
//! written. The cases are the ones that the documentation of dynamic resources speaks of.

use std::collections::BTreeSet;
use std::sync::Arc;

use evenkeel_api::devices::claims::{allocation, is_reserved_for, reserved_for};
use evenkeel_client::testing::{FakeApi, FakeClock};
use evenkeel_client::{Change, ObjectKey, Recorder};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceClass, ResourceClaim, ResourceClaimStatus, ResourceSlice,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::objects::{merge, node, pod_with};
use crate::core::{Action, Core};
use crate::cycle::Decision;
use crate::devices::allocate::allocate;
use crate::devices::request::{Selectors, Wanted};
use crate::devices::{DeviceId, Devices, Outstanding, taken};
use crate::framework::{Binding, CycleState, PreBind, PreFilter, Reserve};
use crate::plugins::default_placement;
use crate::plugins::dynamic_resources::DynamicResources;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

pub(super) fn read<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object")
}

pub(super) fn added<K: kube::Resource<DynamicType = ()>>(object: K) -> Change<K> {
    Change {
        key: ObjectKey::of(&object),
        old: None,
        new: Some(Arc::new(object)),
    }
}

pub(super) fn class(name: &str, spec: &Value) -> DeviceClass {
    read(json!({"metadata": {"name": name}, "spec": spec}))
}

fn gpus() -> DeviceClass {
    class(
        "gpu",
        &json!({"selectors": [{"cel": {"expression": "device.driver == 'gpu.example.com'"}}]}),
    )
}

/// A slice of one node's pool, the pool being named after the node.
pub(super) fn slice(node: &str, devices: &Value) -> ResourceSlice {
    read(json!({
        "metadata": {"name": format!("{node}-gpu")},
        "spec": {"driver": "gpu.example.com", "nodeName": node,
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
            "devices": devices},
    }))
}

pub(super) fn plain(count: usize) -> Value {
    (0..count)
        .map(|at| json!({"name": format!("gpu-{at}")}))
        .collect()
}

pub(super) fn claim(name: &str, devices: &Value) -> ResourceClaim {
    read(json!({
        "metadata": {"namespace": "default", "name": name, "uid": format!("uid-{name}"),
            "resourceVersion": "5"},
        "spec": {"devices": devices},
    }))
}

pub(super) fn exactly(more: &Value) -> Value {
    let mut value = json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1});
    merge(&mut value, more);
    json!({"requests": [{"name": "r", "exactly": value}]})
}

pub(super) fn using(name: &str, claim: &str) -> Pod {
    let claims = json!({"spec": {"resourceClaims": [
        {"name": "devices", "resourceClaimName": claim}]}});
    pod_with(name, 100, &claims)
}

fn core(devices: usize) -> Core {
    let mut core = Core::new(default_placement(), 7);
    let now = Instant::now();
    core.device_class(&added(gpus()), now);
    for name in ["a", "b"] {
        core.node(&added(node(name, 4000, 4096)), now);
        core.resource_slice(&added(slice(name, &plain(devices))), now);
    }
    core
}

pub(super) fn next(core: &mut Core) -> Result<String, Box<Decision>> {
    match core.cycle(Instant::now()).expect("a pod waits") {
        Action::Bind { node, .. } => Ok(node.to_string()),
        Action::Tell { decision, .. } => Err(Box::new(decision)),
        other => panic!("{other:?}"),
    }
}

fn said(core: &mut Core) -> String {
    next(core).expect_err("no node takes it").message()
}

#[tokio::test(start_paused = true)]
async fn devices_are_given_once_and_what_is_missing_is_told() {
    let mut core = core(2);
    let now = Instant::now();
    for at in 0..5 {
        let name = format!("c{at}");
        core.resource_claim(&added(claim(&name, &exactly(&json!({})))), now);
        core.pod(&added(using(&format!("p{at}"), &name)), now);
    }
    for _ in 0..4 {
        next(&mut core).expect("a device is free");
    }
    assert_eq!(
        said(&mut core),
        "0/2 nodes are available: 2 cannot allocate all claims. still not schedulable, preemption: \
         0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    );
}

#[tokio::test(start_paused = true)]
async fn the_texts_name_what_is_missing() {
    let none = "0/2 nodes are available: ";
    let deleting = {
        let mut claim = claim("c", &exactly(&json!({})));
        claim.metadata.deletion_timestamp = Some(read(json!("2026-01-01T00:00:00Z")));
        claim
    };
    let rows: Vec<(Option<ResourceClaim>, &str)> = vec![
        (None, "resourceclaim.resource.k8s.io \"c\" not found."),
        (Some(deleting), "resourceclaim \"c\" is being deleted."),
        (
            Some(claim("c", &exactly(&json!({"deviceClassName": "tpu"})))),
            "request r: device class tpu does not exist.",
        ),
        (
            Some(claim("c", &exactly(&json!({"count": 33})))),
            "claim default/c: number of requested devices 33 exceeds the claim limit of 32.",
        ),
        (
            Some(claim(
                "c",
                &exactly(&json!({"selectors": [{"cel": {"expression":
                    "device.attributes['gpu.example.com'].model == 'x'"}}]})),
            )),
            "1 claim default/c: selector #0 on device gpu.example.com/a/gpu-0: CEL runtime error: \
             no such key: model, 1 claim default/c: selector #0 on device gpu.example.com/b/gpu-0: \
             CEL runtime error: no such key: model.",
        ),
        (
            Some(claim(
                "c",
                &exactly(&json!({"capacity": {"requests": {"memory": "1Gi"}}})),
            )),
            "2 cannot allocate all claims.",
        ),
    ];
    for (claim, text) in rows {
        let mut core = core(1);
        if let Some(claim) = claim {
            core.resource_claim(&added(claim), Instant::now());
        }
        core.pod(&added(using("p", "c")), Instant::now());
        let decision = next(&mut core).expect_err(text);
        assert_eq!(decision.filtered(), format!("{none}{text}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_from_a_template_is_waited_for_before_the_queue() {
    let mut core = core(1);
    let now = Instant::now();
    let template = json!({"spec": {"resourceClaims": [
        {"name": "devices", "resourceClaimTemplateName": "t"}]}});
    core.pod(&added(pod_with("p", 100, &template)), now);
    assert!(core.cycle(now).is_none());
    let mut named = template;
    merge(
        &mut named,
        &json!({"status": {"resourceClaimStatuses": [
            {"name": "devices", "resourceClaimName": "p-devices-x"}]}}),
    );
    core.pod(&added(pod_with("p", 100, &named)), now);
    // The pod says so before the claim is seen here.
    assert!(core.cycle(now).is_none());
    let mut made = claim("p-devices-x", &exactly(&json!({})));
    made.metadata.owner_references = Some(read(json!([{"apiVersion": "v1", "kind": "Pod",
        "name": "p", "uid": "uid-p", "controller": true}])));
    core.resource_claim(&added(made), now);
    next(&mut core).expect("it is placed at the first try");
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_given_back_wakes_who_waits() {
    let mut core = core(1);
    let now = Instant::now();
    for name in ["held", "held-too"] {
        let at = if name == "held" { "a" } else { "b" };
        let mut held = claim(name, &exactly(&json!({})));
        held.status = Some(read(json!({"allocation": {"devices": {"results": [
            {"request": "r", "driver": "gpu.example.com", "pool": at, "device": "gpu-0"}]}}})));
        core.resource_claim(&added(held), now);
    }
    core.resource_claim(&added(claim("c", &exactly(&json!({})))), now);
    core.pod(&added(using("p", "c")), now);
    said(&mut core);
    assert!(core.cycle(now).is_none());
    core.resource_claim(&added(claim("held-too", &exactly(&json!({})))), now);
    assert_eq!(next(&mut core).ok().as_deref(), Some("b"));
}

#[tokio::test(start_paused = true)]
async fn an_allocation_confines_its_users_and_is_given_up_when_it_keeps_them_out() {
    let mut core = core(1);
    let now = Instant::now();
    let on_a = json!({"reservedFor": [{"resource": "pods", "name": "p", "uid": "uid-p"}],
        "allocation": {"nodeSelector": {"nodeSelectorTerms": [{"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": ["a"]}]}]},
        "devices": {"results": [
            {"request": "r", "driver": "gpu.example.com", "pool": "a", "device": "gpu-0"}]}}});
    let mut held = claim("c", &exactly(&json!({})));
    held.status = Some(read(on_a));
    core.resource_claim(&added(held.clone()), now);
    core.pod(&added(using("p", "c")), now);
    assert_eq!(next(&mut core).ok().as_deref(), Some("a"));
    // Another pod of the same claim goes there too, and can't go elsewhere.
    let only_b = json!({"spec": {"nodeSelector": {"kubernetes.io/hostname": "b"},
        "resourceClaims": [{"name": "devices", "resourceClaimName": "c"}]}});
    core.pod(&added(pod_with("q", 100, &only_b)), now);
    let text = said(&mut core);
    assert!(
        text.contains("1 resourceclaim not available on the node"),
        "{text}"
    );
    assert!(text.contains("still not schedulable"), "{text}");
    // One that nobody else uses is given up.
    held.metadata.name = Some("d".to_owned());
    held.metadata.uid = Some("uid-d".to_owned());
    held.status.as_mut().expect("a status").reserved_for = None;
    core.resource_claim(&added(held), now);
    let only_b = json!({"spec": {"nodeSelector": {"kubernetes.io/hostname": "b"},
        "resourceClaims": [{"name": "devices", "resourceClaimName": "d"}]}});
    core.pod(&added(pod_with("r", 100, &only_b)), now);
    let decision = next(&mut core).expect_err("the claim is elsewhere");
    let given_up = decision.deallocate.as_ref().expect("a claim to give up");
    assert_eq!(given_up.metadata.name.as_deref(), Some("d"));
    assert!(
        decision
            .message()
            .contains("deallocation of ResourceClaim completed")
    );
}

/// Allocates one claim on node `n` with the devices given.
pub(super) fn on_node(
    slices: &[ResourceSlice],
    spec: &Value,
) -> Result<Option<AllocationResult>, String> {
    let mut devices = Devices::default();
    let classes = [gpus(), class("any", &json!({}))];
    for class in classes {
        let name = class.metadata.name.clone().unwrap_or_default();
        devices.classes.insert(name, Arc::new(class));
    }
    for slice in slices {
        let name = slice.metadata.name.clone().unwrap_or_default();
        devices.set_slice(&name, Some(&Arc::new(slice.clone())));
    }
    let mut snapshot = Snapshot::default();
    snapshot.set_node(&Arc::new(node("n", 4000, 4096)));
    let at = snapshot.find("n").expect("a node");
    let claim = Arc::new(claim("c", spec));
    let wanted = Wanted::read(&claim, &devices.classes, &Selectors::default())?;
    let found = allocate(
        &devices,
        &Outstanding::default(),
        &[wanted],
        snapshot.node(at),
    )?;
    Ok(found.map(|mut all| all.remove(0)))
}

pub(super) fn names(found: Option<&AllocationResult>) -> Vec<String> {
    let results = found.and_then(|found| found.devices.as_ref()?.results.clone());
    let results = results.unwrap_or_default().into_iter();
    results
        .map(|result| format!("{}={}", result.request, result.device))
        .collect()
}

fn typed() -> Value {
    json!([
        {"name": "g0", "attributes": {"model": {"string": "a"}, "numa": {"int": 0}}},
        {"name": "g1", "attributes": {"model": {"string": "a"}, "numa": {"int": 1}}},
        {"name": "g2", "attributes": {"model": {"string": "b"}, "numa": {"int": 1}}},
        {"name": "g3", "attributes": {"model": {"string": "b"}, "numa": {"int": 1}},
            "taints": [{"key": "broken", "effect": "NoSchedule"}]},
    ])
}

#[test]
fn requests_constraints_and_taints_as_documented() {
    let of = |model: &str| {
        json!([{"cel": {"expression":
            format!("device.attributes['gpu.example.com'].model == '{model}'")}}])
    };
    let numa = "gpu.example.com/numa";
    let rows: Vec<(&str, Value, Vec<&str>)> = vec![
        ("one", exactly(&json!({})), vec!["r=g0"]),
        (
            "by selector",
            exactly(&json!({"selectors": of("b")})),
            vec!["r=g2"],
        ),
        (
            "two of one kind",
            exactly(&json!({"count": 2, "selectors": of("a")})),
            vec!["r=g0", "r=g1"],
        ),
        ("more than there are", exactly(&json!({"count": 4})), vec![]),
        (
            "a taint that is borne",
            exactly(&json!({"count": 2, "selectors": of("b"),
                "tolerations": [{"key": "broken", "operator": "Exists"}]})),
            vec!["r=g2", "r=g3"],
        ),
        (
            "all, and one is tainted",
            exactly(&json!({"allocationMode": "All"})),
            vec![],
        ),
        (
            "all of a kind",
            exactly(&json!({"allocationMode": "All", "selectors": of("a")})),
            vec!["r=g0", "r=g1"],
        ),
        (
            "the same attribute",
            json!({"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu", "count": 2}}],
                "constraints": [{"matchAttribute": numa}]}),
            vec!["r=g1", "r=g2"],
        ),
        (
            "different ones",
            json!({"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu", "count": 2}}],
                "constraints": [{"distinctAttribute": numa}]}),
            vec!["r=g0", "r=g1"],
        ),
        (
            "of some requests only",
            json!({"requests": [
                    {"name": "r", "exactly": {"deviceClassName": "gpu"}},
                    {"name": "s", "exactly": {"deviceClassName": "gpu", "selectors": of("b")}},
                    {"name": "t", "exactly": {"deviceClassName": "gpu"}}],
                "constraints": [{"requests": ["r", "s"], "matchAttribute": numa}]}),
            vec!["r=g1", "s=g2", "t=g0"],
        ),
        (
            "an attribute that nobody has",
            json!({"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}],
                "constraints": [{"matchAttribute": "gpu.example.com/nothing"}]}),
            vec![],
        ),
        (
            "the first that is available",
            json!({"requests": [{"name": "r", "firstAvailable": [
                {"name": "four", "deviceClassName": "gpu", "count": 4},
                {"name": "two", "deviceClassName": "gpu", "count": 2, "selectors": of("a")}]}]}),
            vec!["r/two=g0", "r/two=g1"],
        ),
    ];
    for (what, spec, wanted) in rows {
        let found = on_node(&[slice("n", &typed())], &spec).expect(what);
        assert_eq!(names(found.as_ref()), wanted, "{what}");
    }
}

#[test]
fn pools_that_are_not_whole_give_nothing() {
    let mut half = slice("n", &plain(2));
    half.spec.pool.resource_slice_count = 2;
    assert_eq!(on_node(&[half.clone()], &exactly(&json!({}))), Ok(None));
    let all = exactly(&json!({"allocationMode": "All"}));
    assert_eq!(
        on_node(&[half], &all).unwrap_err(),
        "claim default/c, request r: asks for all devices, but resource pool gpu.example.com/n is \
         currently being updated"
    );
    let twice = slice("n", &json!([{"name": "g"}, {"name": "g"}]));
    assert_eq!(
        on_node(&[twice], &exactly(&json!({}))).unwrap_err(),
        "invalid resource pools were encountered"
    );
    // An older generation is as if it were not there.
    let (old, mut new) = (
        slice("n", &plain(4)),
        slice("n", &json!([{"name": "newer"}])),
    );
    new.metadata.name = Some("another".to_owned());
    new.spec.pool.generation = 2;
    let found = on_node(&[old, new], &exactly(&json!({}))).expect("a device");
    assert_eq!(names(found.as_ref()), ["r=newer"]);
}

#[test]
fn counters_are_shared_by_the_devices_of_a_pool() {
    let sets: ResourceSlice = read(json!({
        "metadata": {"name": "sets"},
        "spec": {"driver": "gpu.example.com", "nodeName": "n",
            "pool": {"name": "n", "generation": 1, "resourceSliceCount": 2},
            "sharedCounters": [{"name": "card", "counters": {"memory": {"value": "40Gi"}}}]},
    }));
    let part = |name: &str, memory: &str| {
        json!({"name": name, "consumesCounters": [
            {"counterSet": "card", "counters": {"memory": {"value": memory}}}]})
    };
    let mut parts = slice(
        "n",
        &json!([
            part("half-0", "20Gi"),
            part("half-1", "20Gi"),
            part("small", "5Gi")
        ]),
    );
    parts.spec.pool.resource_slice_count = 2;
    let slices = [sets, parts];
    let two = on_node(&slices, &exactly(&json!({"count": 2}))).expect("no error");
    assert_eq!(names(two.as_ref()), ["r=half-0", "r=half-1"]);
    assert_eq!(on_node(&slices, &exactly(&json!({"count": 3}))), Ok(None));
}

#[test]
fn what_is_written_names_nodes_and_configuration() {
    let mut devices = slice("n", &plain(1));
    devices.spec.node_name = None;
    devices.spec.node_selector = Some(read(json!({"nodeSelectorTerms": [{"matchExpressions": [
        {"key": "kubernetes.io/hostname", "operator": "In", "values": ["n"]}]}]})));
    let spec = json!({
        "requests": [{"name": "r", "exactly": {"deviceClassName": "gpu", "tolerations": [
            {"key": "k", "operator": "Exists"}]}}],
        "config": [{"requests": ["r"], "opaque": {"driver": "gpu.example.com",
            "parameters": {"share": true}}}],
    });
    let found = on_node(&[devices.clone()], &spec)
        .expect("no error")
        .expect("a device");
    let written = serde_json::to_value(&found).expect("JSON");
    assert_eq!(
        written,
        json!({
            "nodeSelector": devices.spec.node_selector,
            "devices": {
                "results": [{"request": "r", "driver": "gpu.example.com", "pool": "n",
                    "device": "gpu-0", "tolerations": [{"key": "k", "operator": "Exists"}]}],
                // It is about all requests, and says so by naming none.
                "config": [{"source": "FromClaim", "opaque": {"driver": "gpu.example.com",
                    "parameters": {"share": true}}}],
            },
        })
    );
    let local = on_node(&[slice("n", &plain(1))], &exactly(&json!({})));
    let selector = local.expect("no error").expect("a device").node_selector;
    assert_eq!(
        serde_json::to_value(selector).expect("JSON"),
        json!({"nodeSelectorTerms": [{"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": ["n"]}]}]})
    );
}

#[tokio::test(start_paused = true)]
async fn the_claim_is_written_before_the_binding_and_no_device_is_given_meanwhile() {
    let api = FakeApi::new(FakeClock::shared());
    let made = api.put(&claim("c", &exactly(&json!({}))));
    let plugin = DynamicResources::writing(api.client(), Recorder::silent(), FakeClock::shared());
    let mut snapshot = Snapshot::default();
    snapshot.set_node(&Arc::new(node("n", 4000, 4096)));
    let devices = Arc::make_mut(&mut snapshot.devices);
    devices.classes.insert("gpu".to_owned(), Arc::new(gpus()));
    devices.set_slice("n", Some(&Arc::new(slice("n", &plain(1)))));
    devices.set_claim(&ObjectKey::of(&made), Some(&Arc::new(made.clone())));
    let other = claim("other", &exactly(&json!({})));
    devices.set_claim(&ObjectKey::of(&other), Some(&Arc::new(other)));
    let at = snapshot.find("n").expect("a node");
    let reserve = |plugin: &DynamicResources, snapshot: &Snapshot, pod: &Pod| {
        let info = PodInfo::new(Arc::new(pod.clone()));
        let mut state = CycleState::default();
        plugin.pre_filter(&mut state, &info, snapshot);
        plugin.reserve(&mut state, &info, snapshot.node(at))
    };
    let (first, second) = (using("first", "c"), using("second", "other"));
    reserve(&plugin, &snapshot, &first).expect("a device is free");
    reserve(&plugin, &snapshot, &second).expect_err("it is set aside");
    let binding = Binding {
        pod: Arc::new(first),
        node: "n".into(),
    };
    plugin.pre_bind(&binding).await.expect("written");
    let written = api.get::<ResourceClaim>("default", "c").expect("the claim");
    assert_eq!(names(allocation(&written)), ["r=gpu-0"]);
    assert!(is_reserved_for(&written, "uid-first"));
    assert_eq!(
        written.metadata.finalizers.as_deref(),
        Some(["resource.kubernetes.io/delete-protection".to_owned()].as_slice())
    );
    // Again, as after a crash: nothing is doubled.
    plugin.pre_bind(&binding).await.expect("written already");
    let again = api.get::<ResourceClaim>("default", "c").expect("the claim");
    assert_eq!(reserved_for(&again).len(), 1);
    // The view has not caught up, then it has, then the claim is given back.
    reserve(&plugin, &snapshot, &second).expect_err("it is written");
    let key = ObjectKey::of(&written);
    let devices = Arc::make_mut(&mut snapshot.devices);
    devices.set_claim(&key, Some(&Arc::new(written.clone())));
    reserve(&plugin, &snapshot, &second).expect_err("it is seen");
    let mut freed = written;
    freed.status = None;
    let devices = Arc::make_mut(&mut snapshot.devices);
    devices.set_claim(&key, Some(&Arc::new(freed)));
    reserve(&plugin, &snapshot, &second).expect("it is free again");
}

/// Model and place of each node's devices; size and constraints of each claim.
type World = (Vec<Vec<(u8, u8)>>, Vec<(u8, bool, Option<bool>)>);

/// Claims of random sizes and constraints, over nodes with random devices.
fn worlds() -> impl Strategy<Value = World> {
    let devices = prop::collection::vec((0u8..2, 0u8..3), 0..5);
    let claim = (1u8..4, any::<bool>(), prop::option::of(any::<bool>()));
    (
        prop::collection::vec(devices, 1..4),
        prop::collection::vec(claim, 1..8),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Whatever is asked for in whatever order: no device has two owners, every allocation has
    /// what was asked for, and where one claim alone is asked for something is found exactly when
    /// trying all sets of devices finds it.
    #[test]
    fn no_device_has_two_owners((nodes, claims) in worlds()) {
        let mut devices = Devices::default();
        devices.classes.insert("gpu".to_owned(), Arc::new(gpus()));
        let mut snapshot = Snapshot::default();
        for (at, here) in nodes.iter().enumerate() {
            let name = format!("n{at}");
            snapshot.set_node(&Arc::new(node(&name, 1000, 1024)));
            let list: Value = here
                .iter()
                .enumerate()
                .map(|(at, (model, numa))| json!({"name": format!("g{at}"), "attributes": {
                    "model": {"int": model}, "numa": {"int": numa}}}))
                .collect();
            let slice = slice(&name, &list);
            devices.set_slice(&name, Some(&Arc::new(slice)));
        }
        let mut owned: BTreeSet<DeviceId> = BTreeSet::new();
        for (at, (count, typed, same)) in claims.iter().enumerate() {
            let mut request = json!({"deviceClassName": "gpu", "count": count});
            if *typed {
                request["selectors"] = json!([{"cel": {"expression":
                    "device.attributes['gpu.example.com'].model == 1"}}]);
            }
            let mut spec = json!({"requests": [{"name": "r", "exactly": request}]});
            if let Some(same) = same {
                let name = if *same { "matchAttribute" } else { "distinctAttribute" };
                spec["constraints"] = json!([{ name: "gpu.example.com/numa" }]);
            }
            let name = format!("c{at}");
            let mut claim = claim(&name, &spec);
            let shared = Arc::new(claim.clone());
            let wanted = [Wanted::read(&shared, &devices.classes, &Selectors::default())
                .expect("readable")];
            for (node_at, here) in nodes.iter().enumerate() {
                let index = snapshot.find(&format!("n{node_at}")).expect("a node");
                let found = allocate(&devices, &Outstanding::default(), &wanted, snapshot.node(index))
                    .expect("no error");
                // All sets of free devices of that size.
                let free: Vec<(u8, u8)> = here
                    .iter()
                    .enumerate()
                    .filter(|(at, (model, _))| {
                        let taken = owned.iter().any(|id| {
                            *id.pool == format!("n{node_at}") && *id.device == format!("g{at}")
                        });
                        !taken && (!typed || *model == 1)
                    })
                    .map(|(_, device)| *device)
                    .collect();
                let fits = (0u32..1 << free.len()).any(|set| {
                    let chosen: Vec<u8> = free
                        .iter()
                        .enumerate()
                        .filter(|(at, _)| set >> at & 1 == 1)
                        .map(|(_, (_, numa))| *numa)
                        .collect();
                    let different: BTreeSet<u8> = chosen.iter().copied().collect();
                    chosen.len() == usize::from(*count)
                        && match same {
                            None => true,
                            Some(true) => different.len() == 1,
                            Some(false) => different.len() == chosen.len(),
                        }
                });
                prop_assert_eq!(found.is_some(), fits);
                let Some(mut found) = found else { continue };
                let allocation = found.remove(0);
                for id in taken(&allocation) {
                    prop_assert!(owned.insert(id));
                }
                claim.status = Some(ResourceClaimStatus {
                    allocation: Some(allocation),
                    ..ResourceClaimStatus::default()
                });
                devices.set_claim(&ObjectKey::of(&claim), Some(&Arc::new(claim.clone())));
                break;
            }
        }
    }
}
