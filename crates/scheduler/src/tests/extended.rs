//! Extended resources that are devices of a class: who counts them, which claim comes of them, and
//! that nothing is left of a try that failed.

use std::sync::Arc;

use evenkeel_api::devices::claims::{allocation, is_for_extended_resources, is_reserved_for};
use evenkeel_client::testing::{FakeApi, FakeClock};
use evenkeel_client::{ObjectKey, Recorder};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::devices::{added, class, names, next, plain, slice};
use super::objects::{merge, node, pod_with};
use crate::core::Core;
use crate::devices::extended::claim;
use crate::framework::{Binding, CycleState, PreBind, PreFilter, Reserve};
use crate::plugins::default_placement;
use crate::plugins::dynamic_resources::DynamicResources;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

const GPU: &str = "example.com/gpu";

fn gpus() -> DeviceClass {
    class("gpu", &json!({"extendedResourceName": GPU}))
}

fn asking(name: &str, resource: &str, count: &str) -> Pod {
    let mut pod = pod_with(name, 100, &json!({}));
    let container = &mut pod.spec.as_mut().expect("a spec").containers[0];
    let mut resources = serde_json::to_value(&container.resources).expect("JSON");
    merge(&mut resources, &json!({"requests": {resource: count}}));
    container.resources = serde_json::from_value(resources).expect("resources");
    pod
}

/// A node with so many of them by a device plugin.
fn having(name: &str, count: &str) -> Node {
    let mut object = serde_json::to_value(node(name, 4000, 4096)).expect("JSON");
    merge(
        &mut object,
        &json!({"status": {"allocatable": {GPU: count}, "capacity": {GPU: count}}}),
    );
    serde_json::from_value(object).expect("a node")
}

#[tokio::test(start_paused = true)]
async fn devices_serve_where_the_node_has_none_itself() {
    let mut core = Core::new(default_placement(), 7);
    let now = Instant::now();
    core.node(&added(having("plugin", "1")), now);
    core.node(&added(node("dra", 4000, 4096)), now);
    core.resource_slice(&added(slice("dra", &plain(1))), now);
    core.pod(&added(asking("first", GPU, "1")), now);
    core.pod(&added(asking("early", GPU, "1")), now);
    assert_eq!(next(&mut core).ok().as_deref(), Some("plugin"));
    // Nobody has said yet what the devices are.
    let said = next(&mut core).expect_err("there is one node").message();
    assert!(said.contains("2 Insufficient example.com/gpu"), "{said}");
    // A class that says so wakes who waits.
    core.device_class(&added(gpus()), now);
    assert_eq!(next(&mut core).ok().as_deref(), Some("dra"));
    // By the class's own name no node has any itself; the one device is taken.
    let implicit = "deviceclass.resource.kubernetes.io/gpu";
    core.pod(&added(asking("second", implicit, "1")), now);
    let said = next(&mut core).expect_err("the device is taken").message();
    assert!(said.contains("2 cannot allocate all claims"), "{said}");
    // A name that no class says is counted as ever.
    core.pod(&added(asking("third", "example.com/other", "1")), now);
    let said = next(&mut core).expect_err("nobody has it").message();
    assert!(said.contains("2 Insufficient example.com/other"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_try_has_left_is_taken_away_first() {
    let mut core = Core::new(default_placement(), 7);
    let now = Instant::now();
    core.node(&added(node("dra", 4000, 4096)), now);
    core.resource_slice(&added(slice("dra", &plain(1))), now);
    core.device_class(&added(gpus()), now);
    let pod = asking("p", GPU, "1");
    let mut left = claim(&pod, Vec::new());
    left.metadata.name = Some("p-extended-resources-x".to_owned());
    left.metadata.uid = Some("uid-left".to_owned());
    left.metadata.resource_version = Some("5".to_owned());
    core.resource_claim(&added(left.clone()), now);
    core.pod(&added(pod), now);
    let decision = next(&mut core).expect_err("it is in the way");
    let said = decision.message();
    assert!(
        said.contains("1 cannot schedule extended resource claim"),
        "{said}"
    );
    assert!(
        said.contains("deletion of ResourceClaim completed"),
        "{said}"
    );
    let gone = decision.deallocate.as_ref().expect("a claim");
    assert!(is_for_extended_resources(gone));
    core.resource_claim(
        &evenkeel_client::Change {
            key: ObjectKey::of(&left),
            old: Some(Arc::new(left)),
            new: None,
        },
        now,
    );
    assert_eq!(next(&mut core).ok().as_deref(), Some("dra"));
}

/// Everything up to the binding of a pod that asks for two devices.
fn reserved(api: &FakeApi) -> (DynamicResources, Binding) {
    let pod = api.put(&asking("p", GPU, "2"));
    let plugin = DynamicResources::writing(api.client(), Recorder::silent(), FakeClock::shared());
    let mut snapshot = Snapshot::default();
    snapshot.set_node(&Arc::new(node("n", 4000, 4096)));
    let devices = Arc::make_mut(&mut snapshot.devices);
    devices.classes.insert("gpu".to_owned(), Arc::new(gpus()));
    devices.set_slice("n", Some(&Arc::new(slice("n", &plain(2)))));
    let info = PodInfo::new(Arc::new(pod.clone()));
    let mut state = CycleState::default();
    plugin.pre_filter(&mut state, &info, &snapshot);
    let at = snapshot.find("n").expect("a node");
    let reserved = plugin.reserve(&mut state, &info, snapshot.node(at));
    reserved.expect("two are free");
    let binding = Binding {
        pod: Arc::new(pod),
        node: "n".into(),
    };
    (plugin, binding)
}

#[tokio::test(start_paused = true)]
async fn the_claim_is_made_allocated_and_told() {
    let api = FakeApi::new(FakeClock::shared());
    let (plugin, binding) = reserved(&api);
    plugin.pre_bind(&binding).await.expect("written");
    // Again, as after a lost answer: nothing is doubled.
    plugin.pre_bind(&binding).await.expect("written already");
    let claims = api.all::<ResourceClaim>();
    let [claim] = claims.as_slice() else {
        panic!("{claims:?}");
    };
    let request = "container-0-request-1";
    assert_eq!(
        names(allocation(claim)),
        [format!("{request}=gpu-0"), format!("{request}=gpu-1")]
    );
    assert!(is_reserved_for(claim, "uid-p"));
    let pod = api.get::<Pod>("default", "p").expect("the pod");
    let status = pod.status.and_then(|it| it.extended_resource_claim_status);
    let told: Value = serde_json::to_value(status).expect("JSON");
    assert_eq!(
        told,
        json!({"resourceClaimName": claim.metadata.name, "requestMappings": [
            {"containerName": "main", "resourceName": GPU, "requestName": request}]})
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_a_try_that_fails() {
    let api = FakeApi::new(FakeClock::shared());
    let (plugin, binding) = reserved(&api);
    api.fail_next("patch", "pods/status", 403, "Forbidden", "not you");
    let failed = plugin.pre_bind(&binding).await.expect_err("refused");
    let failed = failed.to_string();
    assert!(
        failed.starts_with("update pod default/p ExtendedResourceClaimStatus: "),
        "{failed}"
    );
    assert!(api.all::<ResourceClaim>().is_empty());
}
