//! Why a claim waits, and why a pod can't go where its volume is. Pure.

use evenkeel_api::placement::NodeTerm;
use k8s_openapi::api::core::v1::{Event, Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::chain::Chain;

const CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// What is known of a claim.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) class: Option<StorageClass>,
    pub(crate) volume: Option<PersistentVolume>,
    /// Names of the pods that use it.
    pub(crate) pods: Vec<String>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) events: Vec<Event>,
}

/// The class that a claim names; `None` for none.
pub(crate) fn class_of(claim: &PersistentVolumeClaim) -> Option<&str> {
    let noted = claim
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(CLASS));
    let spec = claim.spec.as_ref();
    let named = noted.or_else(|| spec?.storage_class_name.as_ref());
    named.map(String::as_str).filter(|name| !name.is_empty())
}

/// The newest event that says anything about binding.
fn newest(events: &[Event]) -> Option<&Event> {
    events
        .iter()
        .max_by_key(|event| event.last_timestamp.as_ref().map(|at| at.0))
}

/// Explains a claim.
pub(crate) fn claim(claim: &PersistentVolumeClaim, known: &Known) -> Chain {
    let mut chain = Chain::default();
    let meta = &claim.metadata;
    let (namespace, name) = (
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default(),
    );
    let this = format!("PersistentVolumeClaim {namespace}/{name}");
    let status = claim.status.as_ref();
    let phase = status
        .and_then(|it| it.phase.as_deref())
        .unwrap_or("Pending");
    if meta.deletion_timestamp.is_some() {
        chain.link(&this, "is being deleted");
        if known.pods.is_empty() {
            let held = meta.finalizers.clone().unwrap_or_default().join(", ");
            chain.link(&this, format!("waits for its finalizers: {held}"));
            chain.step("see whether the owners of these finalizers are running");
        } else {
            chain.link(
                &this,
                format!("is still used by pods {}", known.pods.join(", ")),
            );
            chain.step(format!(
                "kubectl delete pod {} -n {namespace}",
                known.pods.join(" ")
            ));
        }
        return chain;
    }
    match phase {
        "Bound" => {
            bound(&mut chain, &this, claim, known);
            return chain;
        }
        "Lost" => {
            let event = known
                .events
                .iter()
                .filter(|it| it.type_.as_deref() == Some("Warning"));
            let said = event.max_by_key(|it| it.last_timestamp.as_ref().map(|at| at.0));
            let said = said.and_then(|event| event.message.clone());
            let said = said.unwrap_or_else(|| "its volume is not there any more".to_owned());
            chain.link(&this, format!("is Lost: {said}"));
            chain.step("restore the data into a new claim; this one can only be deleted");
            return chain;
        }
        _ => {}
    }
    let said = newest(&known.events);
    let reason = said
        .and_then(|event| event.reason.as_deref())
        .unwrap_or_default();
    let message = said
        .and_then(|event| event.message.as_deref())
        .unwrap_or_default();
    chain.link(&this, format!("is {phase}: {reason}: {message}"));
    let class = class_of(claim);
    let wanted = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_name.as_deref());
    if let Some(wanted) = wanted.filter(|name| !name.is_empty()) {
        chain.step(match known.volume {
            None => format!("make the volume {wanted}, or delete the claim and name none"),
            Some(_) => format!(
                "compare size, class and access modes of the claim with those of the volume: \
                 kubectl describe pv {wanted}"
            ),
        });
        return chain;
    }
    let Some(class) = class else {
        chain.step(
            "name a storage class in the claim, make one the default (kubectl get storageclass), \
             or make a volume that fits",
        );
        return chain;
    };
    let Some(found) = &known.class else {
        chain.link(format!("StorageClass {class}"), "does not exist");
        chain.step(format!(
            "make the class {class}, or make the claim anew with one that exists (kubectl get \
             storageclass)"
        ));
        return chain;
    };
    let waits = found.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
    if waits && known.pods.is_empty() {
        chain.link(
            format!("StorageClass {class}"),
            "binds when the first pod uses the claim, and none does",
        );
        chain.step(format!("make a pod that uses claim {name}"));
        return chain;
    }
    if reason == "WaitForPodScheduled" {
        chain.link(
            "Pods",
            format!("{} use it and have no node", known.pods.join(", ")),
        );
        if let Some(pod) = known.pods.first() {
            chain.step(format!("evenkeel why pod/{pod} -n {namespace}"));
        }
        return chain;
    }
    if reason == "ExternalProvisioning" || reason == "Provisioning" {
        chain.link(
            format!("StorageClass {class}"),
            format!("leaves it to {} to make the volume", found.provisioner),
        );
        chain.step(format!(
            "see whether {} is running and what it logs",
            found.provisioner
        ));
        return chain;
    }
    if found.provisioner == "kubernetes.io/no-provisioner" {
        chain.link(
            format!("StorageClass {class}"),
            "makes no volumes: people do",
        );
        chain.step(format!(
            "make a volume of class {class} that fits the claim"
        ));
        return chain;
    }
    chain.step(format!("kubectl describe pvc {name} -n {namespace}"));
    chain
}

fn bound(chain: &mut Chain, this: &str, claim: &PersistentVolumeClaim, known: &Known) {
    let spec = claim.spec.as_ref();
    let volume = spec
        .and_then(|spec| spec.volume_name.as_deref())
        .unwrap_or_default();
    chain.link(this, format!("is bound to volume {volume}"));
    let Some(found) = &known.volume else {
        chain.link(format!("PersistentVolume {volume}"), "does not exist");
        chain.step("restore the data into a new claim; this one will be Lost");
        return;
    };
    let conditions = claim
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    for condition in conditions.into_iter().flatten() {
        if condition.type_ != "Unused" && condition.status == "True" {
            let why = condition.message.clone().unwrap_or_default();
            chain.link(this, format!("{}: {why}", condition.type_));
            chain.step("wait for the node to make it larger; a pod that uses it has to run");
        }
    }
    let Some(place) = place(found) else { return };
    let reached: Vec<&str> = known
        .nodes
        .iter()
        .filter(|node| is_reached(found, node))
        .filter_map(|node| node.metadata.name.as_deref())
        .collect();
    if reached.is_empty() {
        chain.link(
            format!("PersistentVolume {volume}"),
            format!("can be reached from nodes with {place} only, and there is none"),
        );
        chain.step(format!(
            "bring back a node with {place}, or restore the data elsewhere"
        ));
    } else {
        chain.link(
            format!("PersistentVolume {volume}"),
            format!(
                "can be reached from nodes with {place} only: {}",
                reached.join(", ")
            ),
        );
    }
}

/// What a volume asks of nodes, in words.
fn place(volume: &PersistentVolume) -> Option<String> {
    let required = volume
        .spec
        .as_ref()?
        .node_affinity
        .as_ref()?
        .required
        .as_ref()?;
    let terms: Vec<String> = required
        .node_selector_terms
        .iter()
        .map(|term| {
            let expressions = term.match_expressions.iter().flatten();
            let wanted = expressions
                .chain(term.match_fields.iter().flatten())
                .map(|it| {
                    let values = it.values.clone().unwrap_or_default().join(", ");
                    match it.operator.as_str() {
                        "In" => format!("{} in ({values})", it.key),
                        other => format!("{} {other} {values}", it.key),
                    }
                });
            wanted.collect::<Vec<_>>().join(" and ")
        })
        .collect();
    Some(terms.join(" or "))
}

/// Can the node reach the volume?
fn is_reached(volume: &PersistentVolume, node: &Node) -> bool {
    let required = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.node_affinity.as_ref()?.required.as_ref());
    let Some(required) = required else {
        return true;
    };
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let mut terms = required
        .node_selector_terms
        .iter()
        .filter_map(NodeTerm::read);
    terms.any(|term| term.matches(&(name, &labels)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read<T: k8s_openapi::serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("an object")
    }

    fn waiting(class: &str) -> PersistentVolumeClaim {
        read(json!({"metadata": {"name": "c", "namespace": "d"},
            "spec": {"storageClassName": class}, "status": {"phase": "Pending"}}))
    }

    fn event(reason: &str, message: &str) -> Vec<Event> {
        vec![read(
            json!({"metadata": {}, "involvedObject": {}, "reason": reason,
            "message": message}),
        )]
    }

    #[test]
    fn a_claim_that_waits_forever_says_for_what() {
        let class = |mode: &str, by: &str| -> Option<StorageClass> {
            Some(read(json!({"metadata": {"name": "k"}, "provisioner": by,
                "volumeBindingMode": mode})))
        };
        let first = "WaitForFirstConsumer";
        for (known, wanted, step) in [
            (Known::default(), "does not exist", "make the class k"),
            (
                Known {
                    class: class(first, "x"),
                    ..Known::default()
                },
                "none does",
                "make a pod that uses claim c",
            ),
            (
                Known {
                    class: class(first, "x"),
                    pods: vec!["p".to_owned()],
                    events: event("WaitForPodScheduled", "waiting for pod p to be scheduled"),
                    ..Known::default()
                },
                "p use it and have no node",
                "evenkeel why pod/p -n d",
            ),
            (
                Known {
                    class: class("Immediate", "x.io/y"),
                    events: event("ExternalProvisioning", "Waiting for a volume"),
                    ..Known::default()
                },
                "leaves it to x.io/y",
                "see whether x.io/y is running",
            ),
        ] {
            let told = claim(&waiting("k"), &known).to_string();
            assert!(told.contains(wanted) && told.contains(step), "{told}");
        }
        let told = claim(&waiting(""), &Known::default()).to_string();
        assert!(told.contains("name a storage class"), "{told}");
    }

    #[test]
    fn a_volume_in_another_zone_names_the_zone_and_the_nodes_there() {
        let bound: PersistentVolumeClaim =
            read(json!({"metadata": {"name": "c", "namespace": "d"},
            "spec": {"volumeName": "v"}, "status": {"phase": "Bound"}}));
        let volume: PersistentVolume = read(json!({"metadata": {"name": "v"}, "spec":
            {"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions":
                [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["b"]}]}]}}}}));
        let node = |name: &str, zone: &str| -> Node {
            read(json!({"metadata": {"name": name,
                "labels": {"topology.kubernetes.io/zone": zone}}}))
        };
        let known = |nodes: Vec<Node>| Known {
            volume: Some(volume.clone()),
            nodes,
            ..Known::default()
        };
        let told = claim(&bound, &known(vec![node("n", "a"), node("m", "b")])).to_string();
        assert!(
            told.contains("topology.kubernetes.io/zone in (b) only: m"),
            "{told}"
        );
        let chain = claim(&bound, &known(vec![node("n", "a")]));
        assert!(
            !chain.is_healthy() && chain.to_string().contains("there is none"),
            "{chain}"
        );
    }
}
