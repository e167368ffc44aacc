//! What node agents may: what concerns their own node, and what the pods on it refer to.
//!
//! The rules and the words are those of the reference's node authorizer, and some more for what agents
//! of this program look after: volumes and snapshots that are directories of their node. Who may write
//! to an object that an agent may reach is said by the admission plugin `NodeRestriction`.

use evenkeel_api::{local_volume, object};
use serde_json::Value;

use super::rbac::RbacAuthorizer;
use super::{Decision, Identity};
use crate::http::Attributes;

const NODES: &str = "system:nodes";
const LEASES: &str = "kube-node-lease";
/// What a pod calls a claim.
const CLAIM: &str = "persistentVolumeClaim";
/// What it calls a claim of devices.
const DEVICES: &str = "resourceClaim";

/// What is said of a request that concerns a kind of which an agent may reach a part.
enum Said {
    Allowed,
    Refused(String),
    /// It is not among what the part is chosen from: the rules for all agents decide.
    Unsaid,
}

impl From<bool> for Said {
    fn from(related: bool) -> Self {
        if related {
            Self::Allowed
        } else {
            Self::Refused(String::new())
        }
    }
}

fn refused(why: &str) -> Said {
    Said::Refused(why.to_owned())
}

impl RbacAuthorizer {
    /// What a node agent may; `None` for others.
    pub(crate) fn node(&self, identity: &Identity, attributes: &Attributes) -> Option<Decision> {
        if !identity.in_group(NODES) {
            return None;
        }
        let node = identity.user.strip_prefix("system:node:")?;
        Some(match self.node_may(node, attributes) {
            Said::Allowed => Decision::Allow(String::new()),
            Said::Refused(why) if why.is_empty() => Decision::NoOpinion(format!(
                "node: no relationship found between node '{node}' and this object"
            )),
            Said::Refused(why) => Decision::NoOpinion(format!("node: {why}")),
            Said::Unsaid if self.of_nodes.iter().any(|rule| rule.allows(attributes)) => {
                Decision::Allow(String::new())
            }
            Said::Unsaid => Decision::NoOpinion(String::new()),
        })
    }

    fn node_may(&self, node: &str, attributes: &Attributes) -> Said {
        if !attributes.resource_request {
            return Said::Unsaid;
        }
        let field = match (attributes.resource.as_str(), attributes.group.as_str()) {
            ("secrets", "") => "secret",
            ("configmaps", "") => "configMap",
            ("serviceaccounts", "") => "serviceAccount",
            ("persistentvolumeclaims", "") => CLAIM,
            ("resourceclaims", "resource.k8s.io") => DEVICES,
            ("nodes", "") => return node_may_node(node, attributes),
            ("pods", "") => return self.node_may_pod(node, attributes),
            ("leases", "coordination.k8s.io") => return node_may_lease(node, attributes),
            ("csinodes", "storage.k8s.io") => return node_may_csi(node, attributes),
            ("resourceslices", "resource.k8s.io") => return self.node_may_slice(node, attributes),
            ("persistentvolumes", "") => return self.node_may_volume(node, attributes).into(),
            ("volumesnapshotcontents", local_volume::SNAPSHOT_GROUP) => {
                return self.node_may_snapshot(node, attributes).into();
            }
            ("volumeattachments", "storage.k8s.io") => {
                return self.node_may_attachment(node, attributes).into();
            }
            ("podcertificaterequests", "certificates.k8s.io") => {
                return self.node_may_request(node, attributes).into();
            }
            _ => return Said::Unsaid,
        };
        self.node_may_read(node, field, attributes)
    }

    /// What the pods on a node refer to, and nothing of that sort else.
    fn node_may_read(&self, node: &str, field: &str, attributes: &Attributes) -> Said {
        let claim_status = field == CLAIM && attributes.subresource == "status";
        let token = field == "serviceAccount" && attributes.subresource == "token";
        let verb_fits = if token {
            attributes.verb == "create"
        } else if claim_status {
            // What a driver has grown on this node.
            matches!(attributes.verb.as_str(), "get" | "update" | "patch")
        } else {
            attributes.subresource.is_empty()
                && matches!(attributes.verb.as_str(), "get" | "list" | "watch")
        };
        let listed = matches!(field, "secret" | "configMap");
        let account = field == "serviceAccount";
        if account && (!verb_fits || token && attributes.name.is_empty()) {
            return refused("can only create tokens for individual service accounts");
        }
        if !verb_fits {
            return refused(match (listed, attributes.subresource.is_empty()) {
                (true, true) => "can only read resources of this type",
                (true, false) => "cannot read subresource",
                (false, true) => "can only get individual resources of this type",
                (false, false) => "cannot get subresource",
            });
        }
        if listed && attributes.namespace.is_empty() {
            return refused("can only read namespaced object of this type");
        }
        if attributes.name.is_empty() {
            return refused("No Object name found");
        }
        let (namespace, name) = (&attributes.namespace, &attributes.name);
        let uses = self.node_uses(node, field, namespace, name) == Some(true);
        Said::from(uses || (field == "secret" && self.volumes_need(node, namespace, name)))
    }

    /// The pods that are bound to a node, and making and ending mirrors there.
    fn node_may_pod(&self, node: &str, attributes: &Attributes) -> Said {
        match (attributes.subresource.as_str(), attributes.verb.as_str()) {
            ("", "get") => {
                let (namespace, name) = (&attributes.namespace, &attributes.name);
                self.is_of_node("", "v1", "Pod", namespace, name, node)
                    .into()
            }
            ("", "list" | "watch") if selects(attributes, "spec.nodeName", node) => Said::Allowed,
            ("", "list" | "watch") => {
                refused("can only list/watch pods with spec.nodeName field selector")
            }
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                Said::Allowed
            }
            _ => Said::Unsaid,
        }
    }

    /// What drivers on a node say of its devices.
    fn node_may_slice(&self, node: &str, attributes: &Attributes) -> Said {
        if !attributes.subresource.is_empty() {
            return refused("cannot authorize ResourceSlice subresources");
        }
        match attributes.verb.as_str() {
            "create" => Said::Allowed,
            "get" | "update" | "patch" | "delete" => {
                let kind = "ResourceSlice";
                self.is_of_node("resource.k8s.io", "v1", kind, "", &attributes.name, node)
                    .into()
            }
            "watch" | "list" | "deletecollection" => {
                if selects(attributes, "spec.nodeName", node) {
                    return Said::Allowed;
                }
                refused(
                    "can only list/watch/deletecollection resourceslices with nodeName field selector",
                )
            }
            _ => refused(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
            ),
        }
    }

    /// Does an object say that it is of a node?
    fn is_of_node(
        &self,
        group: &str,
        version: &str,
        kind: &str,
        namespace: &str,
        name: &str,
        node: &str,
    ) -> bool {
        let row = self.registry.rows.by_kind(group, version, kind);
        let found = row
            .and_then(|row| self.registry.caches.of(row))
            .and_then(|cache| cache.get(&crate::registry::path(namespace, name)));
        found.is_some_and(|found| object::text(&found.value(), &["spec", "nodeName"]) == node)
    }

    /// Does a volume that a pod on the node is bound to need the secret for its driver?
    fn volumes_need(&self, node: &str, namespace: &str, name: &str) -> bool {
        const REFERENCES: [&str; 3] = [
            "nodePublishSecretRef",
            "nodeStageSecretRef",
            "nodeExpandSecretRef",
        ];
        let row = self.registry.rows.by_kind("", "v1", "PersistentVolume");
        let Some(cache) = row.and_then(|row| self.registry.caches.of(row)) else {
            return false;
        };
        cache.list("", None).iter().any(|volume| {
            let volume = volume.value();
            let Some(source) = object::at(&volume, &["spec", "csi"]) else {
                return false;
            };
            let names = REFERENCES.iter().any(|of| {
                object::text(source, &[*of, "namespace"]) == namespace
                    && object::text(source, &[*of, "name"]) == name
            });
            let held = |part| object::text(&volume, &["spec", "claimRef", part]);
            names && self.node_uses(node, CLAIM, held("namespace"), held("name")) == Some(true)
        })
    }

    /// A node agent may ask for certificates, which admission looks at, and see what became of it.
    fn node_may_request(&self, node: &str, attributes: &Attributes) -> bool {
        if !attributes.subresource.is_empty() {
            return false;
        }
        match attributes.verb.as_str() {
            "create" => true,
            "get" => {
                let kind = "PodCertificateRequest";
                let rows = &self.registry.rows;
                let path = crate::registry::path(&attributes.namespace, &attributes.name);
                let found = rows
                    .by_kind("certificates.k8s.io", "v1", kind)
                    .and_then(|row| self.registry.caches.of(row))
                    .and_then(|cache| cache.get(&path));
                found.is_some_and(|found| {
                    object::text(&found.value(), &["spec", "nodeName"]) == node
                })
            }
            "list" | "watch" => {
                let own = format!("spec.nodeName={node}");
                let mut terms = attributes.field_selector.split(',');
                terms.any(|term| term.replace("==", "=") == own)
            }
            _ => false,
        }
    }

    /// A node agent may read the attachments of volumes to its node.
    fn node_may_attachment(&self, node: &str, attributes: &Attributes) -> bool {
        if attributes.verb != "get" || !attributes.subresource.is_empty() {
            return false;
        }
        let row = self
            .registry
            .rows
            .by_kind("storage.k8s.io", "v1", "VolumeAttachment");
        let found = row
            .and_then(|row| self.registry.caches.of(row))
            .and_then(|cache| cache.get(&crate::registry::path("", &attributes.name)));
        found.is_some_and(|found| object::text(&found.value(), &["spec", "nodeName"]) == node)
    }

    /// A node agent looks after the snapshots that it has, by the label of the object that stands
    /// for one.
    fn node_may_snapshot(&self, node: &str, attributes: &Attributes) -> bool {
        let verb = attributes.verb.as_str();
        if attributes.name.is_empty() {
            let own = format!("{}={node}", local_volume::NODE_LABEL);
            return attributes.subresource.is_empty()
                && matches!(verb, "list" | "watch")
                && attributes.label_selector == own;
        }
        let verb_fits = match attributes.subresource.as_str() {
            "" => matches!(verb, "get" | "list" | "watch" | "patch" | "update"),
            "status" => matches!(verb, "get" | "patch" | "update"),
            _ => false,
        };
        let kind = "VolumeSnapshotContent";
        let group = local_volume::SNAPSHOT_GROUP;
        // A custom kind: it is among the rows that are served now.
        let rows = self.registry.caches.kinds().rows();
        let content = rows
            .by_kind(group, "v1", kind)
            .and_then(|row| self.registry.caches.of(row))
            .and_then(|cache| cache.get(&crate::registry::path("", &attributes.name)));
        verb_fits
            && content.is_some_and(|content| {
                let content = content.value();
                let label = object::at(&content, &["metadata", "labels", local_volume::NODE_LABEL]);
                label.and_then(Value::as_str) == Some(node)
            })
    }

    /// A node agent may read the volumes that its pods are bound to, and look after those that
    /// are directories of its own.
    fn node_may_volume(&self, node: &str, attributes: &Attributes) -> bool {
        let verb = attributes.verb.as_str();
        if !attributes.subresource.is_empty() {
            return false;
        }
        if attributes.name.is_empty() {
            let own = format!("{}={node}", local_volume::NODE_LABEL);
            return matches!(verb, "list" | "watch") && attributes.label_selector == own;
        }
        let Some(row) = self.registry.rows.by_kind("", "v1", "PersistentVolume") else {
            return false;
        };
        let volume = self
            .registry
            .caches
            .of(row)
            .and_then(|cache| cache.get(&crate::registry::path("", &attributes.name)));
        let Some(volume) = volume.map(|found| found.value()) else {
            return false;
        };
        let label = object::at(&volume, &["metadata", "labels", local_volume::NODE_LABEL]);
        if label.and_then(Value::as_str) == Some(node) {
            return matches!(verb, "get" | "list" | "watch" | "patch" | "update");
        }
        let held = |part| object::text(&volume, &["spec", "claimRef", part]);
        verb == "get"
            && !held("name").is_empty()
            && self.node_uses(node, CLAIM, held("namespace"), held("name")) == Some(true)
    }

    /// Does a pod on the node refer to an object of its namespace?
    fn node_uses(&self, node: &str, field: &str, namespace: &str, name: &str) -> Option<bool> {
        let row = self.registry.rows.by_kind("", "v1", "Pod")?;
        let cache = self.registry.caches.of(row)?;
        let place = row
            .selectable
            .iter()
            .position(|field| field.path == "spec.nodeName")?;
        Some(
            cache
                .list(namespace, None)
                .iter()
                .filter(|pod| {
                    pod.head
                        .fields
                        .get(place)
                        .is_some_and(|found| **found == *node)
                })
                .any(|pod| refers_to(&pod.value(), field, name)),
        )
    }
}

/// Does a list or watch ask for what a field says is of a node, and for nothing else?
fn selects(attributes: &Attributes, field: &str, node: &str) -> bool {
    let own = format!("{field}={node}");
    let mut terms = attributes.field_selector.split(',');
    terms.any(|term| term.replace("==", "=") == own)
}

fn node_may_node(node: &str, attributes: &Attributes) -> Said {
    match (attributes.subresource.as_str(), attributes.verb.as_str()) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Said::Allowed,
        ("", "get" | "list" | "watch") => match attributes.name.as_str() {
            name if name == node => Said::Allowed,
            "" => Said::Refused(format!(
                "node '{node}' cannot read all nodes, only its own Node object"
            )),
            name => Said::Refused(format!(
                "node '{node}' cannot read '{name}', only its own Node object"
            )),
        },
        _ => Said::Unsaid,
    }
}

fn node_may_lease(node: &str, attributes: &Attributes) -> Said {
    let verb = attributes.verb.as_str();
    if !matches!(verb, "get" | "create" | "update" | "patch" | "delete") {
        return refused("can only get, create, update, patch, or delete a node lease");
    }
    if attributes.namespace != LEASES {
        return Said::Refused(format!(
            "can only access leases in the {LEASES:?} system namespace"
        ));
    }
    if verb != "create" && attributes.name != node {
        return refused("can only access node lease with the same name as the requesting node");
    }
    Said::Allowed
}

fn node_may_csi(node: &str, attributes: &Attributes) -> Said {
    let verb = attributes.verb.as_str();
    if !matches!(verb, "get" | "create" | "update" | "patch" | "delete") {
        return refused("can only get, create, update, patch, or delete a CSINode");
    }
    if !attributes.subresource.is_empty() {
        return refused("cannot authorize CSINode subresources");
    }
    if verb != "create" && attributes.name != node {
        return refused("can only access CSINode with the same name as the requesting node");
    }
    Said::Allowed
}

/// Does a pod refer to a Secret, ConfigMap or ServiceAccount of its namespace?
fn refers_to(pod: &Value, what: &str, name: &str) -> bool {
    if what == "serviceAccount" {
        return object::text(pod, &["spec", "serviceAccountName"]) == name;
    }
    if what == DEVICES {
        let named = |at: &[&str]| {
            let all = object::list(pod, at);
            all.iter()
                .any(|one| object::text(one, &["resourceClaimName"]) == name)
        };
        let extended = ["status", "extendedResourceClaimStatus", "resourceClaimName"];
        return named(&["spec", "resourceClaims"])
            || named(&["status", "resourceClaimStatuses"])
            || object::text(pod, &extended) == name;
    }
    if what == CLAIM {
        let of = object::name(pod);
        return object::list(pod, &["spec", "volumes"])
            .iter()
            .any(|volume| {
                object::text(volume, &["persistentVolumeClaim", "claimName"]) == name
                    || (volume.get("ephemeral").is_some_and(Value::is_object)
                        && name == format!("{of}-{}", object::text(volume, &["name"])))
            });
    }
    if what == "secret"
        && object::list(pod, &["spec", "imagePullSecrets"])
            .iter()
            .any(|secret| object::text(secret, &["name"]) == name)
    {
        return true;
    }
    let spec = pod.get("spec").cloned().unwrap_or_default();
    mentions(&spec, what, name)
}

/// Looks for `secret: {secretName|name}`, `secretRef`, `secretKeyRef` and their ConfigMap forms
/// anywhere in a pod's spec.
fn mentions(value: &Value, what: &str, name: &str) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| mentions(item, what, name)),
        Value::Object(fields) => fields.iter().any(|(field, value)| {
            let names_one = field == what
                || field
                    .strip_prefix(what)
                    .is_some_and(|rest| matches!(rest, "Ref" | "KeyRef"))
                || (what == "secret" && field == "nodePublishSecretRef");
            let named = ["name", "secretName"]
                .iter()
                .any(|key| value.get(*key).and_then(Value::as_str) == Some(name));
            (names_one && named) || mentions(value, what, name)
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ask(verb: &str, resource: &str, name: &str) -> Attributes {
        Attributes {
            verb: verb.to_owned(),
            resource_request: true,
            resource: resource.to_owned(),
            name: name.to_owned(),
            ..Attributes::default()
        }
    }

    fn why(said: Said) -> String {
        match said {
            Said::Allowed => "allowed".to_owned(),
            Said::Refused(why) => why,
            Said::Unsaid => "unsaid".to_owned(),
        }
    }

    #[test]
    fn a_node_sees_itself_alone() {
        let may = |verb, name| why(node_may_node("n", &ask(verb, "nodes", name)));
        assert_eq!(may("get", "n"), "allowed");
        assert_eq!(may("watch", "n"), "allowed");
        let other = "node 'n' cannot read 'm', only its own Node object";
        assert_eq!(may("get", "m"), other);
        let all = "node 'n' cannot read all nodes, only its own Node object";
        assert_eq!(may("list", ""), all);
        // Which one it writes to is looked at by admission.
        assert_eq!(may("patch", "m"), "allowed");
        assert_eq!(may("delete", "n"), "unsaid");
    }

    #[test]
    fn a_node_keeps_its_own_lease() {
        let may = |verb, name, namespace: &str| {
            let asked = Attributes {
                namespace: namespace.to_owned(),
                ..ask(verb, "leases", name)
            };
            why(node_may_lease("n", &asked))
        };
        assert_eq!(may("create", "", LEASES), "allowed");
        assert_eq!(may("update", "n", LEASES), "allowed");
        assert!(may("update", "m", LEASES).contains("the same name"));
        assert!(may("update", "n", "default").contains("\"kube-node-lease\""));
        assert!(may("list", "", LEASES).contains("can only get, create"));
    }

    #[test]
    fn a_selector_must_name_the_node() {
        let with = |selector: &str| Attributes {
            field_selector: selector.to_owned(),
            ..ask("list", "pods", "")
        };
        assert!(selects(&with("spec.nodeName=n"), "spec.nodeName", "n"));
        assert!(selects(&with("a=b,spec.nodeName==n"), "spec.nodeName", "n"));
        for other in [
            "",
            "spec.nodeName=m",
            "spec.nodeName!=n",
            "x.spec.nodeName=n",
        ] {
            assert!(!selects(&with(other), "spec.nodeName", "n"), "{other}");
        }
    }

    #[test]
    fn references_of_pods_are_found() {
        let pod = json!({"spec": {
            "serviceAccountName": "sa",
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [{"name": "v", "secret": {"secretName": "vol"}},
                {"name": "w", "projected": {"sources": [{"configMap": {"name": "projected"}}]}}],
            "containers": [{"name": "c", "env": [{"name": "e", "valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}}],
                "envFrom": [{"configMapRef": {"name": "from"}}]}],
        }});
        for (what, name) in [
            ("serviceAccount", "sa"),
            ("secret", "pull"),
            ("secret", "vol"),
            ("secret", "key"),
            ("configMap", "projected"),
            ("configMap", "from"),
        ] {
            assert!(refers_to(&pod, what, name), "{what} {name}");
        }
        assert!(!refers_to(&pod, "secret", "from"));
        assert!(!refers_to(&pod, "configMap", "vol"));
    }
}
