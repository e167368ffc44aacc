//! Extended resources that are devices of a class (KEP-5004): which class stands behind a name, and the
//! claim that a pod's containers come to. Pure.
//!
//! Requests and mappings are named and ordered as the reference does it, since nodes and people read
//! them: containers that end before others begin take devices that those get later.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_api::devices::claims::{BY_CLASS, FOR_EXTENDED_RESOURCES, may_be_devices};
use evenkeel_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, ContainerExtendedResourceRequest, Pod};
use k8s_openapi::api::resource::v1::{
    DeviceClaim, DeviceClass, DeviceRequest, ExactDeviceRequest, ResourceClaim, ResourceClaimSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::Devices;
use crate::resources::Resources;

/// The class whose devices an extended resource is. Of several that say so the newest is taken, and
/// among those the first by name.
#[must_use]
pub fn class_of<'d>(devices: &'d Devices, resource: &str) -> Option<&'d Arc<DeviceClass>> {
    if let Some(class) = resource.strip_prefix(BY_CLASS) {
        return devices.classes.get(class);
    }
    let says = |class: &&Arc<DeviceClass>| {
        let spec = class.spec.as_ref();
        spec.and_then(|spec| spec.extended_resource_name.as_deref()) == Some(resource)
    };
    let made = |class: &&Arc<DeviceClass>| {
        let meta = &class.metadata;
        let age = meta.creation_timestamp.as_ref().map(|time| time.0);
        (std::cmp::Reverse(age), meta.name.clone())
    };
    devices.classes.values().filter(says).min_by_key(made)
}

/// An extended resource that a pod asks for and that devices of a class are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backed {
    /// Its name.
    pub resource: String,
    /// The class.
    pub class: String,
}

/// Those of a pod, by name.
#[must_use]
pub fn backed(requests: &Resources, devices: &Devices) -> Vec<Backed> {
    let asked = requests.scalar.iter().filter(|(_, amount)| *amount > 0);
    asked
        .filter(|(name, _)| may_be_devices(name))
        .filter_map(|(name, _)| {
            let class = class_of(devices, name)?;
            Some(Backed {
                resource: name.to_string(),
                class: class.metadata.name.clone().unwrap_or_default(),
            })
        })
        .collect()
}

/// Which request serves which resource of which container.
pub type Mappings = Vec<ContainerExtendedResourceRequest>;

/// What one container needs of a resource beyond devices that are there for others later.
fn of_container(
    at: usize,
    container: &Container,
    backed: &Backed,
    later: &[Option<DeviceRequest>],
) -> (Option<DeviceRequest>, Mappings) {
    let resources = container.resources.as_ref();
    let requests: Option<&BTreeMap<String, _>> = resources.and_then(|all| all.requests.as_ref());
    let Some(requests) = requests else {
        return (None, Vec::new());
    };
    let wanted = requests.get(&backed.resource);
    let wanted = wanted.and_then(|text| text.0.parse::<Quantity>().ok());
    let Some(wanted) = wanted.filter(|wanted| wanted.is_integer() && !wanted.is_zero()) else {
        return (None, Vec::new());
    };
    let wanted = wanted.units();
    let mapping = |request: &str| ContainerExtendedResourceRequest {
        container_name: container.name.clone(),
        resource_name: backed.resource.clone(),
        request_name: request.to_owned(),
    };
    let mut mappings = Vec::new();
    let mut sum = 0;
    for request in later.iter().flatten() {
        sum += count(request);
        mappings.push(mapping(&request.name));
        if sum >= wanted {
            return (None, mappings);
        }
    }
    let place = requests.keys().position(|name| *name == backed.resource);
    let name = format!("container-{at}-request-{}", place.unwrap_or(0));
    mappings.push(mapping(&name));
    let request = DeviceRequest {
        name,
        exactly: Some(ExactDeviceRequest {
            device_class_name: backed.class.clone(),
            allocation_mode: Some("ExactCount".to_owned()),
            count: Some(wanted - sum),
            ..ExactDeviceRequest::default()
        }),
        ..DeviceRequest::default()
    };
    (Some(request), mappings)
}

fn count(request: &DeviceRequest) -> i64 {
    let exactly = request.exactly.as_ref();
    exactly.and_then(|exactly| exactly.count).unwrap_or(0)
}

/// The requests for the resources of a pod, and what they are for.
#[must_use]
pub fn requests(pod: &Pod, backed: &[&Backed]) -> (Vec<DeviceRequest>, Mappings) {
    let Some(spec) = &pod.spec else {
        return (Vec::new(), Vec::new());
    };
    let init = spec.init_containers.iter().flatten();
    let init = init.map(|one| (one, one.restart_policy.as_deref() == Some("Always")));
    let main = spec.containers.iter().map(|one| (one, true));
    let containers: Vec<(&Container, bool)> = init.chain(main).collect();
    let (mut all, mut mappings) = (Vec::new(), Vec::new());
    for backed in backed {
        let mut stays: Vec<Option<DeviceRequest>> = vec![None; containers.len()];
        for (at, (container, stay)) in containers.iter().enumerate() {
            if *stay {
                let (request, found) = of_container(at, container, backed, &[]);
                stays[at] = request;
                mappings.extend(found);
            }
        }
        // Those that end one after the other share the largest request.
        let mut largest: Option<DeviceRequest> = None;
        let (mut names, mut passing) = (Vec::new(), Vec::new());
        for (at, (container, stay)) in containers.iter().enumerate() {
            if *stay {
                continue;
            }
            let (request, found) = of_container(at, container, backed, &stays[at..]);
            passing.extend(found);
            if let Some(request) = request {
                names.push(request.name.clone());
                if largest
                    .as_ref()
                    .is_none_or(|most| count(most) < count(&request))
                {
                    largest = Some(request);
                }
            }
        }
        if let Some(largest) = &largest {
            for mapping in &mut passing {
                if names.contains(&mapping.request_name) {
                    mapping.request_name.clone_from(&largest.name);
                }
            }
        }
        mappings.extend(passing);
        all.extend(largest);
        all.extend(stays.into_iter().flatten());
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    (all, mappings)
}

/// The claim of a pod with these requests, as it is to be made.
#[must_use]
pub fn claim(pod: &Pod, requests: Vec<DeviceRequest>) -> ResourceClaim {
    let meta = &pod.metadata;
    let name = meta.name.clone().unwrap_or_default();
    ResourceClaim {
        metadata: ObjectMeta {
            namespace: meta.namespace.clone(),
            generate_name: Some(format!("{name}-extended-resources-")),
            annotations: Some(BTreeMap::from([(
                FOR_EXTENDED_RESOURCES.to_owned(),
                "true".to_owned(),
            )])),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                name,
                uid: meta.uid.clone().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: None,
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(ResourceClaimSpec {
            devices: Some(DeviceClaim {
                requests: Some(requests),
                ..DeviceClaim::default()
            }),
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(init: &Value, containers: &Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "default", "uid": "u"},
            "spec": {"initContainers": init, "containers": containers},
        }))
        .expect("a pod")
    }

    fn asks(name: &str, amount: &str) -> Value {
        json!({"name": name, "resources": {"requests": {
            "cpu": "1", "example.com/gpu": amount, "memory": "1Gi"}}})
    }

    /// `NAME=COUNT` of requests, and `CONTAINER=REQUEST` of mappings.
    fn shown(pod: &Pod) -> (Vec<String>, Vec<String>) {
        let backed = Backed {
            resource: "example.com/gpu".to_owned(),
            class: "gpu".to_owned(),
        };
        let (requests, mappings) = requests(pod, &[&backed]);
        let requests = requests.iter();
        let mappings = mappings.iter();
        (
            requests
                .map(|it| format!("{}={}", it.name, count(it)))
                .collect(),
            mappings
                .map(|it| format!("{}={}", it.container_name, it.request_name))
                .collect(),
        )
    }

    #[test]
    fn each_container_that_stays_has_its_own_request() {
        let pod = pod(
            &json!([]),
            &json!([asks("a", "1"), {"name": "b"}, asks("c", "2")]),
        );
        let (requests, mappings) = shown(&pod);
        assert_eq!(
            requests,
            ["container-0-request-1=1", "container-2-request-1=2"]
        );
        assert_eq!(
            mappings,
            ["a=container-0-request-1", "c=container-2-request-1"]
        );
    }

    #[test]
    fn containers_that_end_take_what_others_get_later() {
        let mut sidecar = asks("sidecar", "1");
        sidecar["restartPolicy"] = json!("Always");
        let init = json!([
            asks("small", "1"),
            asks("large", "5"),
            asks("larger", "6"),
            sidecar
        ]);
        let pod = pod(&init, &json!([asks("main", "2")]));
        let (requests, mappings) = shown(&pod);
        // The sidecar has one and the main container two; the largest needs three more.
        assert_eq!(
            requests,
            [
                "container-2-request-1=3",
                "container-3-request-1=1",
                "container-4-request-1=2"
            ]
        );
        assert_eq!(
            mappings,
            [
                "sidecar=container-3-request-1",
                "main=container-4-request-1",
                "small=container-3-request-1",
                "large=container-3-request-1",
                "large=container-4-request-1",
                "large=container-2-request-1",
                "larger=container-3-request-1",
                "larger=container-4-request-1",
                "larger=container-2-request-1",
            ]
        );
    }

    #[test]
    fn the_newest_class_of_a_name_is_taken() {
        let mut devices = Devices::default();
        for (name, day, resource) in [
            ("old", "2026-01-01", Some("example.com/gpu")),
            ("newer-b", "2026-01-02", Some("example.com/gpu")),
            ("newer-a", "2026-01-02", Some("example.com/gpu")),
            ("newest", "2026-01-03", None),
        ] {
            let class: DeviceClass = serde_json::from_value(json!({
                "metadata": {"name": name, "creationTimestamp": format!("{day}T00:00:00Z")},
                "spec": {"extendedResourceName": resource},
            }))
            .expect("a class");
            devices.classes.insert(name.to_owned(), Arc::new(class));
        }
        let name = |resource: &str| {
            let class = class_of(&devices, resource);
            class.and_then(|class| class.metadata.name.clone())
        };
        assert_eq!(name("example.com/gpu").as_deref(), Some("newer-a"));
        let implicit = name("deviceclass.resource.kubernetes.io/newest");
        assert_eq!(implicit.as_deref(), Some("newest"));
        assert_eq!(name("example.com/other"), None);
    }
}
