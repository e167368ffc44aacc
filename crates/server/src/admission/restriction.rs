//! `NodeRestriction`: a node's agent touches its own node, its own lease, the pods bound to it and
//! tokens for them, and nothing that would bring foreign pods to it.

use std::sync::Arc;

use evenkeel_api::row::Subresource;
use evenkeel_api::{Status, local_volume, object};
use serde_json::Value;

use super::{Change, Operation, Plugin, look_up, pod_certificates};
use crate::auth::Authorizer;
use crate::registry::Registry;

pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";
/// Labels of the system that agents know about themselves.
const OWN_LABELS: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

pub(super) struct NodeRestriction(pub(super) Arc<dyn Authorizer>);

impl Plugin for NodeRestriction {
    fn validate(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &Value,
    ) -> Result<(), Status> {
        let identity = change.identity;
        if !identity.in_group("system:nodes") || change.operation == Operation::Connect {
            return Ok(());
        }
        let Some(node) = identity.user.strip_prefix("system:node:") else {
            return Ok(());
        };
        let gvk = &change.row.gvk;
        if gvk.group == pod_certificates::GROUP && gvk.kind == pod_certificates::KIND {
            return pod_certificates::validate(&*self.0, registry, change, node, object);
        }
        let agent = Agent {
            node,
            registry,
            change,
            object,
        };
        let judged = match (gvk.group.as_ref(), gvk.kind.as_ref()) {
            ("", "Pod") => agent.pod(),
            ("", "Node") => agent.itself(),
            ("", "ServiceAccount") => agent.token(),
            ("", "PersistentVolumeClaim") if change.subresource != Some(Subresource::Status) => {
                Err("may only update PVC status".to_owned())
            }
            ("", "PersistentVolume") => agent.volume(),
            (local_volume::SNAPSHOT_GROUP, "VolumeSnapshotContent")
                if change.subresource != Some(Subresource::Status) =>
            {
                agent.volume()
            }
            ("coordination.k8s.io", "Lease") => agent.lease(),
            ("storage.k8s.io", "CSINode") if change.name(object) != node => {
                Err("can only access CSINode with the same name as the requesting node".to_owned())
            }
            ("resource.k8s.io", "ResourceSlice")
                if change.operation == Operation::Create
                    && object::text(object, &["spec", "nodeName"]) != node =>
            {
                let why =
                    "can only create ResourceSlice with the same NodeName as the requesting node";
                Err(why.to_owned())
            }
            _ => Ok(()),
        };
        judged.map_err(|why| change.forbidden(object, &why))
    }
}

/// An agent that wants to change something.
struct Agent<'a> {
    node: &'a str,
    registry: &'a Registry,
    change: &'a Change<'a>,
    object: &'a Value,
}

type Judged = Result<(), String>;

impl Agent<'_> {
    fn pod(&self) -> Judged {
        let node = self.node;
        let bound = |pod: Option<&Value>| {
            pod.is_some_and(|pod| object::text(pod, &["spec", "nodeName"]) == node)
        };
        let operation = self.change.operation;
        match (self.change.subresource, operation) {
            (None, Operation::Create) => self.mirror(),
            (None, Operation::Delete) if bound(self.change.old) => Ok(()),
            (None, Operation::Delete) => Err(format!(
                "node \"{node}\" can only delete pods with spec.nodeName set to itself"
            )),
            (None, other) => Err(format!(
                "unexpected operation \"{}\", node \"{node}\" can only create and delete mirror \
                 pods",
                other.as_str()
            )),
            (Some(Subresource::Status), Operation::Update) => {
                let labels = |pod: &'_ Value| object::at(pod, &["metadata", "labels"]).cloned();
                let old = self.change.old;
                if !bound(old) {
                    Err(format!(
                        "node \"{node}\" can only update pod status for pods with spec.nodeName \
                         set to itself"
                    ))
                } else if old.and_then(labels) != labels(self.object) {
                    Err(format!(
                        "node \"{node}\" cannot update labels through pod status"
                    ))
                } else {
                    Ok(())
                }
            }
            (Some(Subresource::Eviction), _) => {
                let (namespace, name) = (self.change.namespace, self.change.name(self.object));
                let pod = look_up::object(self.registry, ("", "v1", "Pod"), namespace, name);
                if bound(pod.as_ref()) {
                    Ok(())
                } else {
                    Err(format!(
                        "node {node} can only evict pods with spec.nodeName set to itself"
                    ))
                }
            }
            (Some(other), _) => Err(format!(
                "unexpected pod subresource \"{}\", only 'status' and 'eviction' are allowed",
                other.as_str()
            )),
        }
    }

    /// A pod that shows what the agent runs by itself: its own, and in need of nothing.
    fn mirror(&self) -> Judged {
        let (node, pod) = (self.node, self.object);
        if object::annotation(pod, MIRROR).is_none() {
            return Err(format!(
                "pod does not have \"{MIRROR}\" annotation, node \"{node}\" can only create \
                 mirror pods"
            ));
        }
        let only = |what: &str| Err(format!("node \"{node}\" can only create pods with {what}"));
        if object::text(pod, &["spec", "nodeName"]) != node {
            return only("spec.nodeName set to itself");
        }
        let owner = match object::list(pod, &["metadata", "ownerReferences"]) {
            [owner] => owner,
            [] => return only("an owner reference set to itself"),
            _ => return only("a single owner reference set to itself"),
        };
        let text = |name: &str| object::text(owner, &[name]);
        let flag = |name: &str| owner.get(name).and_then(Value::as_bool) == Some(true);
        if (text("apiVersion"), text("kind"), text("name")) != ("v1", "Node", node) {
            return only("an owner reference set to itself");
        }
        if !flag("controller") {
            return only("a controller owner reference set to itself");
        }
        if flag("blockOwnerDeletion") {
            return Err(format!(
                "node \"{node}\" must not set blockOwnerDeletion on an owner reference"
            ));
        }
        let itself = look_up::object(self.registry, ("", "v1", "Node"), "", node)
            .ok_or_else(|| format!("error looking up node {node} to verify uid: not found"))?;
        if text("uid") != object::uid(&itself) {
            return Err(format!(
                "node {node} UID mismatch: expected {} got {}",
                text("uid"),
                object::uid(&itself)
            ));
        }
        match reference(pod) {
            Some(what) => Err(format!(
                "node \"{node}\" can not create pods that reference {what}"
            )),
            None => Ok(()),
        }
    }

    fn itself(&self) -> Judged {
        let (node, change) = (self.node, self.change);
        let name = change.name(self.object);
        if name != node {
            return Err(format!(
                "node \"{node}\" is not allowed to modify node \"{name}\""
            ));
        }
        let nothing = Value::Null;
        let old = change.old.unwrap_or(&nothing);
        match change.operation {
            Operation::Create => {
                let labels = forbidden_labels(self.object, old);
                if !labels.is_empty() {
                    return Err(format!(
                        "node \"{node}\" is not allowed to set the following labels: {}",
                        labels.join(", ")
                    ));
                }
            }
            Operation::Update => {
                for (what, path) in [
                    ("taints", ["spec", "taints"]),
                    ("ownerReferences", ["metadata", "ownerReferences"]),
                ] {
                    if object::list(self.object, &path) != object::list(old, &path) {
                        return Err(format!("node \"{node}\" is not allowed to modify {what}"));
                    }
                }
                let labels = forbidden_labels(self.object, old);
                if !labels.is_empty() {
                    return Err(format!(
                        "is not allowed to modify labels: {}",
                        labels.join(", ")
                    ));
                }
            }
            Operation::Delete | Operation::Connect => {}
        }
        Ok(())
    }

    /// Tokens are for pods that are bound here.
    fn token(&self) -> Judged {
        if self.change.subresource != Some(Subresource::Token) {
            return Ok(());
        }
        let text = |name: &str| object::text(self.object, &["spec", "boundObjectRef", name]);
        if (text("apiVersion"), text("kind")) != ("v1", "Pod") || text("name").is_empty() {
            return Err("node requested token not bound to a pod".to_owned());
        }
        let uid = text("uid");
        if uid.is_empty() {
            return Err("node requested token with a pod binding without a uid".to_owned());
        }
        let namespace = self.change.namespace;
        let pod = look_up::object(self.registry, ("", "v1", "Pod"), namespace, text("name"))
            .ok_or_else(|| format!("pods \"{}\" not found", text("name")))?;
        if object::uid(&pod) != uid {
            return Err(format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. \
                 The object might have been deleted and then recreated"
            ));
        }
        if object::text(&pod, &["spec", "nodeName"]) != self.node {
            return Err(
                "node requested token bound to a pod scheduled on a different node".to_owned(),
            );
        }
        Ok(())
    }

    /// Of the volumes and snapshots that are its directories an agent says how they are, and when
    /// they are gone.
    fn volume(&self) -> Judged {
        let Some(old) = self
            .change
            .old
            .filter(|_| self.change.operation == Operation::Update)
        else {
            return Err("can only update volumes that are on the node".to_owned());
        };
        let told = |volume: &Value| {
            let mut volume = volume.clone();
            let metadata = object::metadata(&mut volume);
            for field in ["resourceVersion", "managedFields", "generation"] {
                metadata.remove(field);
            }
            if let Some(annotations) = metadata
                .get_mut("annotations")
                .and_then(Value::as_object_mut)
            {
                for name in [local_volume::MADE, local_volume::QUOTA] {
                    annotations.remove(name);
                }
            }
            if let Some(Value::Array(finalizers)) = metadata.get_mut("finalizers") {
                finalizers.retain(|it| it.as_str() != Some(local_volume::FINALIZER));
            }
            for field in ["annotations", "finalizers"] {
                let empty = metadata.get(field).is_some_and(|it| {
                    it.as_array().is_some_and(Vec::is_empty)
                        || it.as_object().is_some_and(serde_json::Map::is_empty)
                });
                if empty {
                    metadata.remove(field);
                }
            }
            volume
        };
        let added = |volume: &Value| object::finalizers(volume).contains(&local_volume::FINALIZER);
        if told(old) != told(self.object) || (added(self.object) && !added(old)) {
            return Err(
                "may only say how the directory of a volume is, and that it is gone".to_owned(),
            );
        }
        Ok(())
    }

    fn lease(&self) -> Judged {
        if self.change.namespace != "kube-node-lease" {
            return Err(
                "can only access leases in the \"kube-node-lease\" system namespace".to_owned(),
            );
        }
        if self.change.name(self.object) != self.node {
            return Err(
                "can only access node lease with the same name as the requesting node".to_owned(),
            );
        }
        Ok(())
    }
}

/// Labels of the system that differ and are not the agent's to say.
fn forbidden_labels(new: &Value, old: &Value) -> Vec<String> {
    let labels = |node: &'_ Value| -> object::Fields {
        object::at(node, &["metadata", "labels"])
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default()
    };
    let (new, old) = (labels(new), labels(old));
    let mut keys: Vec<String> = new
        .keys()
        .chain(old.keys())
        .filter(|key| new.get(*key) != old.get(*key) && !is_own(key))
        .cloned()
        .collect();
    keys.sort();
    keys.dedup();
    keys
}

fn is_own(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let within = |of: &str| domain == of || domain.ends_with(&format!(".{of}"));
    if within("node-restriction.kubernetes.io") {
        return false;
    }
    let system = within("kubernetes.io") || within("k8s.io");
    !system
        || OWN_LABELS.contains(&key)
        || within("kubelet.kubernetes.io")
        || within("node.kubernetes.io")
}

/// The kind of object that a pod refers to, if any.
fn reference(pod: &Value) -> Option<&'static str> {
    let spec = pod.get("spec")?;
    if !object::text(spec, &["serviceAccountName"]).is_empty() {
        return Some("serviceaccounts");
    }
    if !object::list(spec, &["imagePullSecrets"]).is_empty() {
        return Some("secrets");
    }
    if !object::list(spec, &["resourceClaims"]).is_empty() {
        return Some("resourceclaims");
    }
    let names = [
        ("secret", "secrets"),
        ("configMap", "configmaps"),
        ("persistentVolumeClaim", "persistentvolumeclaims"),
        ("secretRef", "secrets"),
        ("configMapRef", "configmaps"),
        ("secretKeyRef", "secrets"),
        ("configMapKeyRef", "configmaps"),
        ("serviceAccountToken", "serviceaccounts"),
        ("clusterTrustBundle", "clustertrustbundles"),
        ("podCertificate", "podcertificates"),
        ("nodePublishSecretRef", "secrets"),
    ];
    names
        .into_iter()
        .find(|(field, _)| has_field(spec, field))
        .map(|(_, what)| what)
}

fn has_field(value: &Value, wanted: &str) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| has_field(item, wanted)),
        Value::Object(fields) => fields
            .iter()
            .any(|(field, value)| field == wanted || has_field(value, wanted)),
        _ => false,
    }
}
