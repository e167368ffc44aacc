//! Devices of which several claims have a part, devices that are parts of others, and devices that
//! are bound under conditions.

use std::sync::Arc;

use evenkeel_api::devices::claims::allocation;
use evenkeel_client::testing::{FakeApi, FakeClock};
use evenkeel_client::{ObjectKey, Recorder};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceRequestAllocationResult, ResourceClaim, ResourceClaimStatus,
    ResourceSlice,
};
use serde_json::{Value, json};

use super::devices::{claim, class, exactly, names, on_node, plain, read, slice, using};
use super::objects::node;
use crate::devices::allocate::allocate;
use crate::devices::request::{Selectors, Wanted};
use crate::devices::{Devices, Outstanding};
use crate::framework::{Binding, CycleState, Filter, PreBind, PreFilter, Reserve};
use crate::plugins::dynamic_resources::DynamicResources;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// A network card of which many have a part.
fn card(policy: &Value) -> Value {
    json!({"name": "nic", "allowMultipleAllocations": true,
        "capacity": {"bandwidth": {"value": "10G", "requestPolicy": policy}}})
}

fn steps() -> Value {
    json!({"default": "1G", "validRange": {"min": "1G", "max": "10G", "step": "1G"}})
}

fn bandwidth(amount: &str, count: i64) -> Value {
    exactly(&json!({"deviceClassName": "any", "count": count,
        "capacity": {"requests": {"bandwidth": amount}}}))
}

fn results(found: &AllocationResult) -> Vec<DeviceRequestAllocationResult> {
    let devices = found.devices.as_ref();
    let results = devices.and_then(|devices| devices.results.clone());
    results.unwrap_or_default()
}

fn consumed(found: &AllocationResult) -> Vec<String> {
    let results = results(found).into_iter();
    results
        .map(|result| {
            assert!(result.share_id.is_some());
            result.consumed_capacity.expect("amounts")["bandwidth"]
                .0
                .clone()
        })
        .collect()
}

#[test]
fn a_device_is_shared_as_far_as_it_goes() {
    let mut devices = Devices::default();
    let any = class("any", &json!({}));
    devices.classes.insert("any".to_owned(), Arc::new(any));
    let nic = slice("n", &json!([card(&steps())]));
    devices.set_slice("nic", Some(&Arc::new(nic)));
    let mut snapshot = Snapshot::default();
    snapshot.set_node(&Arc::new(node("n", 4000, 4096)));
    let at = snapshot.find("n").expect("a node");
    let ask = |devices: &Devices, outstanding: &Outstanding, spec: &Value| {
        let claim = Arc::new(claim("c", spec));
        let wanted = Wanted::read(&claim, &devices.classes, &Selectors::default());
        let wanted = [wanted.expect("a claim")];
        let found = allocate(devices, outstanding, &wanted, snapshot.node(at));
        found.expect("no error").map(|mut all| all.remove(0))
    };
    let mut outstanding = Outstanding::default();
    let first = ask(&devices, &outstanding, &bandwidth("5500M", 1)).expect("there");
    assert_eq!(consumed(&first), ["6G"]);
    // Set aside, it counts.
    outstanding.add(&first);
    assert!(ask(&devices, &outstanding, &bandwidth("5G", 1)).is_none());
    assert!(ask(&devices, &outstanding, &bandwidth("4G", 1)).is_some());
    outstanding.remove(&first);
    // Written, it counts as well, and gives it back when it goes.
    let mut held = claim("first", &bandwidth("5500M", 1));
    held.status = Some(ResourceClaimStatus {
        allocation: Some(first),
        ..ResourceClaimStatus::default()
    });
    let key = ObjectKey::of(&held);
    devices.set_claim(&key, Some(&Arc::new(held)));
    assert!(ask(&devices, &outstanding, &bandwidth("5G", 1)).is_none());
    // Two requests of a claim may have parts of one device; one request takes it once.
    let twice = |amount: &str| {
        let one = |name: &str| {
            json!({"name": name, "exactly": {"deviceClassName": "any",
                "capacity": {"requests": {"gpu.example.com/bandwidth": amount}}}})
        };
        json!({"requests": [one("a"), one("b")]})
    };
    let both = ask(&devices, &outstanding, &twice("2G")).expect("there");
    assert_eq!(consumed(&both), ["2G", "2G"]);
    assert!(ask(&devices, &outstanding, &twice("3G")).is_none());
    assert!(ask(&devices, &outstanding, &bandwidth("1G", 2)).is_none());
    // Who asks for nothing takes the default, and an administrator looks on.
    let plain = exactly(&json!({"deviceClassName": "any"}));
    let plain = ask(&devices, &outstanding, &plain).expect("there");
    assert_eq!(consumed(&plain), ["1G"]);
    let admin = exactly(&json!({"deviceClassName": "any", "adminAccess": true,
        "capacity": {"requests": {"bandwidth": "10G"}}}));
    assert!(ask(&devices, &outstanding, &admin).is_some());
    assert!(devices.set_claim(&key, None));
    assert!(ask(&devices, &outstanding, &bandwidth("10G", 1)).is_some());
}

#[test]
fn what_is_asked_for_is_rounded_as_the_policy_says() {
    let fractions = json!({"default": "200m",
        "validRange": {"min": "200m", "max": "5", "step": "100m"}});
    let values = json!({"default": "1G", "validValues": ["1G", "4G"]});
    let rows: Vec<(&Value, &str, Option<&str>)> = vec![
        (&fractions, "250m", Some("300m")),
        (&fractions, "1950m", Some("2")),
        (&fractions, "100m", Some("200m")),
        (&fractions, "5100m", None),
        (&values, "2G", Some("4G")),
        (&values, "5G", None),
        (&Value::Null, "2500M", Some("2500M")),
        (&Value::Null, "11G", None),
    ];
    for (policy, asked, wanted) in rows {
        let slices = [slice("n", &json!([card(policy)]))];
        let found = on_node(&slices, &bandwidth(asked, 1)).expect("no error");
        let found = found.as_ref().map(|found| consumed(found).remove(0));
        assert_eq!(found.as_deref(), wanted, "{policy} {asked}");
    }
}

#[test]
fn a_device_of_one_must_have_what_is_asked_for() {
    let gpu =
        |name: &str, memory: &str| json!({"name": name, "capacity": {"memory": {"value": memory}}});
    let slices = [slice(
        "n",
        &json!([gpu("small", "10Gi"), gpu("large", "40Gi")]),
    )];
    let asked = |amount: &str, mode: &str| {
        exactly(&json!({"deviceClassName": "any", "allocationMode": mode,
            "capacity": {"requests": {"memory": amount}}}))
    };
    let found = on_node(&slices, &asked("20Gi", "ExactCount")).expect("no error");
    assert_eq!(names(found.as_ref()), ["r=large"]);
    let result = &results(&found.expect("one"))[0];
    assert!(result.share_id.is_none() && result.consumed_capacity.is_none());
    assert_eq!(on_node(&slices, &asked("80Gi", "ExactCount")), Ok(None));
    // All are all that have so much.
    let all = on_node(&slices, &asked("20Gi", "All")).expect("no error");
    assert_eq!(names(all.as_ref()), ["r=large"]);
}

#[test]
fn a_shared_device_takes_its_counters_once() {
    let mut sets: ResourceSlice = read(json!({
        "metadata": {"name": "sets"},
        "spec": {"driver": "gpu.example.com", "nodeName": "n",
            "pool": {"name": "n", "generation": 1, "resourceSliceCount": 2},
            "sharedCounters": [{"name": "card", "counters": {"ports": {"value": "1"}}}]},
    }));
    let mut port = card(&steps());
    port["consumesCounters"] =
        json!([{"counterSet": "card", "counters": {"ports": {"value": "1"}}}]);
    let mut other = port.clone();
    other["name"] = json!("other");
    let mut cards = slice("n", &json!([port, other]));
    cards.spec.pool.resource_slice_count = 2;
    let one = |name: &str| {
        json!({"name": name, "exactly": {"deviceClassName": "any",
            "capacity": {"requests": {"bandwidth": "4G"}}}})
    };
    let slices = [sets.clone(), cards.clone()];
    let two = on_node(&slices, &json!({"requests": [one("a"), one("b")]})).expect("no error");
    assert_eq!(names(two.as_ref()), ["a=nic", "b=nic"]);
    let three = json!({"requests": [one("a"), one("b"), one("c")]});
    assert_eq!(on_node(&slices, &three), Ok(None));
    // A pool that lacks the counter is no pool.
    let spec = bandwidth("1G", 1);
    sets.spec.shared_counters = Some(read(
        json!([{"name": "card", "counters": {"lanes": {"value": "1"}}}]),
    ));
    let invalid = "invalid resource pools were encountered";
    assert_eq!(on_node(&[sets, cards], &spec).unwrap_err(), invalid);
}

/// A slice of devices that all nodes reach and that are brought to the one that is chosen.
fn far() -> ResourceSlice {
    let mut far = slice(
        "far",
        &json!([{"name": "fabric", "bindsToNode": true, "bindingConditions": ["attached"],
            "bindingFailureConditions": ["broken"]}]),
    );
    far.spec.node_name = None;
    far.spec.all_nodes = Some(true);
    far
}

#[test]
fn what_is_bound_under_conditions_comes_last_and_says_so() {
    let mut near = slice("zz", &plain(1));
    near.spec.node_name = Some("n".to_owned());
    let slices = [far(), near];
    let found = on_node(&slices, &exactly(&json!({}))).expect("no error");
    assert_eq!(names(found.as_ref()), ["r=gpu-0"]);
    let found = on_node(&slices[..1], &exactly(&json!({}))).expect("no error");
    let written = serde_json::to_value(found).expect("JSON");
    assert_eq!(
        written,
        json!({
            "nodeSelector": {"nodeSelectorTerms": [{"matchFields": [
                {"key": "metadata.name", "operator": "In", "values": ["n"]}]}]},
            "devices": {"results": [{"request": "r", "driver": "gpu.example.com", "pool": "far",
                "device": "fabric", "bindingConditions": ["attached"],
                "bindingFailureConditions": ["broken"]}]},
        })
    );
}

/// The plugin at a door that has a pod and its claim, and what the plugin sees of them.
struct World {
    api: FakeApi,
    plugin: DynamicResources,
    snapshot: Snapshot,
    pod: Pod,
}

impl World {
    fn new(spec: &Value, slices: &[ResourceSlice]) -> Self {
        let api = FakeApi::new(FakeClock::shared());
        let made = api.put(&claim("c", spec));
        let pod = api.put(&using("p", "c"));
        let plugin =
            DynamicResources::writing(api.client(), Recorder::silent(), FakeClock::shared());
        let mut snapshot = Snapshot::default();
        snapshot.set_node(&Arc::new(node("n", 4000, 4096)));
        let devices = Arc::make_mut(&mut snapshot.devices);
        for name in ["gpu", "any"] {
            let class = class(name, &json!({}));
            devices.classes.insert(name.to_owned(), Arc::new(class));
        }
        for slice in slices {
            devices.set_slice(&slice.spec.pool.name, Some(&Arc::new(slice.clone())));
        }
        devices.set_claim(&ObjectKey::of(&made), Some(&Arc::new(made)));
        Self {
            api,
            plugin,
            snapshot,
            pod,
        }
    }

    fn claim(&self) -> ResourceClaim {
        self.api.get("default", "c").expect("the claim")
    }

    /// The view catches up.
    fn see(&mut self) {
        let claim = self.claim();
        let devices = Arc::make_mut(&mut self.snapshot.devices);
        devices.set_claim(&ObjectKey::of(&claim), Some(&Arc::new(claim)));
    }

    fn state(&self) -> (PodInfo, CycleState) {
        let info = PodInfo::new(Arc::new(self.pod.clone()));
        let mut state = CycleState::default();
        self.plugin.pre_filter(&mut state, &info, &self.snapshot);
        (info, state)
    }

    fn reserve(&self) {
        let (info, mut state) = self.state();
        let at = self.snapshot.find("n").expect("a node");
        let node = self.snapshot.node(at);
        let reserved = self.plugin.reserve(&mut state, &info, node);
        reserved.expect("a device is free");
    }

    fn binding(&self) -> Binding {
        Binding {
            pod: Arc::new(self.pod.clone()),
            node: "n".into(),
        }
    }

    /// The driver says something of the device.
    fn says(&self, type_: &str) {
        let mut claim = self.claim();
        let status = claim.status.as_mut().expect("a status");
        status.devices = Some(read(json!([{"driver": "gpu.example.com", "pool": "far",
            "device": "fabric", "conditions": [{"type": type_, "status": "True",
                "reason": "Driver", "message": "it is", "lastTransitionTime":
                "2026-01-01T00:00:00Z"}]}])));
        self.api.put(&claim);
    }
}

#[tokio::test(start_paused = true)]
async fn a_share_has_a_name_and_its_time() {
    let world = World::new(&bandwidth("2G", 1), &[slice("n", &json!([card(&steps())]))]);
    world.reserve();
    let written = world.plugin.pre_bind(&world.binding()).await;
    written.expect("nothing to wait for");
    let claim = world.claim();
    let found = allocation(&claim).expect("an allocation");
    let share = results(found)[0].share_id.clone().expect("a name");
    assert!(uuid::Uuid::parse_str(&share).is_ok(), "{share}");
    assert!(found.allocation_timestamp.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_bound_when_its_device_is_there() {
    let world = World::new(&exactly(&json!({})), &[far()]);
    world.reserve();
    let binding = world.binding();
    let mut bound = world.plugin.pre_bind(&binding);
    let waits = tokio::time::timeout(std::time::Duration::from_secs(60), &mut bound).await;
    waits.expect_err("the device is not attached");
    world.says("attached");
    bound.await.expect("it is now");
}

#[tokio::test(start_paused = true)]
async fn a_device_that_fails_is_given_up() {
    let mut world = World::new(&exactly(&json!({})), &[far()]);
    world.reserve();
    let binding = world.binding();
    let mut bound = world.plugin.pre_bind(&binding);
    let waits = tokio::time::timeout(std::time::Duration::from_secs(60), &mut bound).await;
    waits.expect_err("the device is not attached");
    world.says("broken");
    let failed = bound.await.expect_err("it never will be").to_string();
    assert_eq!(
        failed,
        "claim c binding failed: reason=Driver, message=\"it is\""
    );
    world.see();
    let (info, state) = world.state();
    let at = world.snapshot.find("n").expect("a node");
    let rejected = world.plugin.filter(&state, &info, world.snapshot.node(at));
    assert_eq!(
        rejected.expect("no node").reasons,
        ["resourceclaim not available on the node"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_says_nothing_has_ten_minutes() {
    let world = World::new(&exactly(&json!({})), &[far()]);
    world.reserve();
    let failed = world.plugin.pre_bind(&world.binding()).await;
    let failed = failed.expect_err("nobody says anything").to_string();
    assert!(
        failed == "claim c binding timeout" || failed == "device binding timeout",
        "{failed}"
    );
}
