//! Role-based access control, and what node agents may see.
//!
//! The rules are `rbac.authorization.k8s.io/v1`, read from the caches and compiled into an index
//! by subject whenever a role or binding has changed.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use evenkeel_api::{local_volume, object};
use serde_json::{Value, json};

use super::{Authorizer, Decision, Identity, MASTERS};
use crate::cache::Followed;
use crate::http::Attributes;
use crate::registry::Registry;

const GROUP: &str = "rbac.authorization.k8s.io";
const KINDS: [&str; 4] = ["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];
const NODES: &str = "system:nodes";
/// What a pod calls a claim.
const CLAIM: &str = "persistentVolumeClaim";
/// What it calls a claim of devices.
const DEVICES: &str = "resourceClaim";

/// A policy rule.
#[derive(Debug, Default)]
struct Rule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    names: Vec<String>,
    urls: Vec<String>,
}

/// Rules that a binding grants.
#[derive(Debug)]
struct Grant {
    /// Empty for the whole cluster.
    namespace: String,
    /// For messages: `ClusterRoleBinding "x" of ClusterRole "y"`.
    origin: String,
    rules: Arc<Vec<Rule>>,
}

#[derive(Debug, Default)]
struct Compiled {
    /// Last revisions of the four kinds.
    revisions: [u64; 4],
    users: HashMap<String, Vec<Arc<Grant>>>,
    groups: HashMap<String, Vec<Arc<Grant>>>,
}

/// Authorizes by roles and bindings.
pub struct RbacAuthorizer {
    registry: Registry,
    compiled: ArcSwap<Compiled>,
    followed: Followed<4>,
}

impl std::fmt::Debug for RbacAuthorizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RbacAuthorizer")
    }
}

fn texts(value: &Value, name: &str) -> Vec<String> {
    object::list(value, &[name])
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

fn rules(role: &Value) -> Arc<Vec<Rule>> {
    Arc::new(
        object::list(role, &["rules"])
            .iter()
            .map(|rule| Rule {
                verbs: texts(rule, "verbs"),
                groups: texts(rule, "apiGroups"),
                resources: texts(rule, "resources"),
                names: texts(rule, "resourceNames"),
                urls: texts(rule, "nonResourceURLs"),
            })
            .collect(),
    )
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

impl Rule {
    fn allows(&self, attributes: &Attributes) -> bool {
        if !has(&self.verbs, &attributes.verb) {
            return false;
        }
        if !attributes.resource_request {
            return self.urls.iter().any(|url| match url.strip_suffix('*') {
                Some(prefix) => attributes.path.starts_with(prefix),
                None => *url == attributes.path,
            });
        }
        has(&self.groups, &attributes.group)
            && self.covers(&attributes.resource, &attributes.subresource)
            && (self.names.is_empty() || self.names.contains(&attributes.name))
    }

    fn covers(&self, resource: &str, subresource: &str) -> bool {
        self.resources.iter().any(|item| {
            if item == "*" {
                return true;
            }
            match item.split_once('/') {
                None => subresource.is_empty() && item == resource,
                Some(("*", sub)) => sub == subresource,
                Some((name, sub)) => name == resource && sub == subresource,
            }
        })
    }

    fn shown(&self) -> Value {
        if self.urls.is_empty() {
            let mut rule =
                json!({"verbs": self.verbs, "apiGroups": self.groups, "resources": self.resources});
            if !self.names.is_empty() {
                rule["resourceNames"] = json!(self.names);
            }
            rule
        } else {
            json!({"verbs": self.verbs, "nonResourceURLs": self.urls})
        }
    }
}

impl RbacAuthorizer {
    /// An authorizer over stored roles.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        Self {
            registry,
            compiled: ArcSwap::default(),
            followed: Followed::new(GROUP, KINDS),
        }
    }

    fn compiled(&self) -> Arc<Compiled> {
        let now = self.compiled.load_full();
        let revisions = self.followed.revisions(&self.registry);
        if now.revisions == revisions {
            return now;
        }
        let fresh = Arc::new(self.compile(revisions));
        self.compiled.store(Arc::clone(&fresh));
        fresh
    }

    fn all(&self, kind: &str) -> Vec<Value> {
        self.registry
            .rows
            .by_kind(GROUP, "v1", kind)
            .and_then(|row| self.registry.caches.of(row))
            .map(|cache| {
                cache
                    .list("", None)
                    .iter()
                    .map(|object| object.value())
                    .collect()
            })
            .unwrap_or_default()
    }

    fn compile(&self, revisions: [u64; 4]) -> Compiled {
        let mut roles: HashMap<(String, String), Arc<Vec<Rule>>> = HashMap::new();
        for role in self.all("ClusterRole").iter().chain(&self.all("Role")) {
            let key = (
                object::namespace(role).to_owned(),
                object::name(role).to_owned(),
            );
            roles.insert(key, rules(role));
        }
        let mut compiled = Compiled {
            revisions,
            ..Compiled::default()
        };
        for binding in self
            .all("ClusterRoleBinding")
            .iter()
            .chain(&self.all("RoleBinding"))
        {
            let namespace = object::namespace(binding).to_owned();
            let role_kind = object::text(binding, &["roleRef", "kind"]);
            let role_name = object::text(binding, &["roleRef", "name"]);
            let role_place = if role_kind == "Role" {
                namespace.clone()
            } else {
                String::new()
            };
            let Some(rules) = roles.get(&(role_place, role_name.to_owned())) else {
                continue;
            };
            let grant = Arc::new(Grant {
                origin: format!(
                    "RBAC: allowed by {} \"{}\" of {role_kind} \"{role_name}\"",
                    object::text(binding, &["kind"]),
                    crate::registry::path(&namespace, object::name(binding)),
                ),
                namespace,
                rules: Arc::clone(rules),
            });
            for subject in object::list(binding, &["subjects"]) {
                compiled.add(subject, &grant);
            }
        }
        compiled
    }

    /// A node agent may read what the pods on its node refer to, and nothing of that sort else.
    fn node_may(&self, node: &str, attributes: &Attributes) -> Option<bool> {
        let field = match (attributes.resource.as_str(), attributes.group.as_str()) {
            ("secrets", "") => "secret",
            ("configmaps", "") => "configMap",
            ("serviceaccounts", "") => "serviceAccount",
            ("persistentvolumeclaims", "") => CLAIM,
            ("resourceclaims", "resource.k8s.io") => DEVICES,
            ("persistentvolumes", "") => return Some(self.node_may_volume(node, attributes)),
            ("volumesnapshotcontents", local_volume::SNAPSHOT_GROUP) => {
                return Some(self.node_may_snapshot(node, attributes));
            }
            ("volumeattachments", "storage.k8s.io") => {
                return Some(self.node_may_attachment(node, attributes));
            }
            ("podcertificaterequests", "certificates.k8s.io") => {
                return Some(self.node_may_request(node, attributes));
            }
            _ => return None,
        };
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
        if !verb_fits || attributes.name.is_empty() || attributes.namespace.is_empty() {
            return Some(false);
        }
        let (namespace, name) = (&attributes.namespace, &attributes.name);
        let uses = self.node_uses(node, field, namespace, name)?;
        Some(uses || (field == "secret" && self.volumes_need(node, namespace, name)))
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

impl Compiled {
    fn add(&mut self, subject: &Value, grant: &Arc<Grant>) {
        let name = object::text(subject, &["name"]).to_owned();
        let (map, key) = match object::text(subject, &["kind"]) {
            "User" => (&mut self.users, name),
            "Group" => (&mut self.groups, name),
            "ServiceAccount" => {
                // A subject without a namespace means the binding's own.
                let given = object::text(subject, &["namespace"]);
                let namespace = if given.is_empty() {
                    grant.namespace.as_str()
                } else {
                    given
                };
                (
                    &mut self.users,
                    format!("system:serviceaccount:{namespace}:{name}"),
                )
            }
            _ => return,
        };
        map.entry(key).or_default().push(Arc::clone(grant));
    }

    fn grants<'c>(&'c self, identity: &'c Identity) -> impl Iterator<Item = &'c Arc<Grant>> {
        let user = self.users.get(&identity.user).into_iter().flatten();
        let groups = identity
            .groups
            .iter()
            .filter_map(|group| self.groups.get(group))
            .flatten();
        user.chain(groups)
    }
}

impl RbacAuthorizer {
    /// What a node may, by what runs on it; `None` for others, and for what roles say.
    pub(crate) fn node(&self, identity: &Identity, attributes: &Attributes) -> Option<Decision> {
        if !identity.in_group(NODES) {
            return None;
        }
        let node = identity.user.strip_prefix("system:node:")?;
        Some(match self.node_may(node, attributes)? {
            true => Decision::Allow(String::new()),
            false => Decision::NoOpinion(format!(
                "no relationship found between node '{node}' and this object"
            )),
        })
    }

    /// What roles say.
    pub(crate) fn roles(&self, identity: &Identity, attributes: &Attributes) -> Decision {
        let compiled = self.compiled();
        for grant in compiled.grants(identity) {
            let in_place = grant.namespace.is_empty()
                || (attributes.resource_request && grant.namespace == attributes.namespace);
            if in_place && grant.rules.iter().any(|rule| rule.allows(attributes)) {
                return Decision::Allow(grant.origin.clone());
            }
        }
        Decision::NoOpinion(String::new())
    }
}

impl Authorizer for RbacAuthorizer {
    fn authorize(&self, identity: &Identity, attributes: &Attributes) -> Decision {
        if identity.in_group(MASTERS) {
            return Decision::Allow(String::new());
        }
        self.node(identity, attributes)
            .unwrap_or_else(|| self.roles(identity, attributes))
    }

    fn rules(&self, identity: &Identity, namespace: &str) -> (Vec<Value>, Vec<Value>) {
        if identity.in_group(MASTERS) {
            return (
                vec![json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})],
                vec![json!({"verbs": ["*"], "nonResourceURLs": ["*"]})],
            );
        }
        let compiled = self.compiled();
        let (mut resources, mut others) = (Vec::new(), Vec::new());
        for grant in compiled.grants(identity) {
            if !grant.namespace.is_empty() && grant.namespace != namespace {
                continue;
            }
            for rule in grant.rules.iter() {
                if rule.urls.is_empty() {
                    resources.push(rule.shown());
                } else if grant.namespace.is_empty() {
                    others.push(rule.shown());
                }
            }
        }
        (resources, others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> Rule {
        let own = |list: &[&str]| list.iter().map(|item| (*item).to_owned()).collect();
        Rule {
            verbs: own(verbs),
            groups: own(groups),
            resources: own(resources),
            names: own(names),
            urls: Vec::new(),
        }
    }

    fn ask(verb: &str, group: &str, resource: &str, sub: &str, name: &str) -> Attributes {
        Attributes {
            verb: verb.to_owned(),
            resource_request: true,
            group: group.to_owned(),
            resource: resource.to_owned(),
            subresource: sub.to_owned(),
            name: name.to_owned(),
            ..Attributes::default()
        }
    }

    #[test]
    fn rules_follow_the_specification() {
        let pods = rule(&["get"], &[""], &["pods"], &[]);
        assert!(pods.allows(&ask("get", "", "pods", "", "a")));
        assert!(
            !pods.allows(&ask("get", "", "pods", "log", "a")),
            "subresources are apart"
        );
        assert!(
            !pods.allows(&ask("get", "apps", "pods", "", "a")),
            "groups are apart"
        );
        assert!(!pods.allows(&ask("list", "", "pods", "", "")));
        let logs = rule(&["get"], &[""], &["pods/log"], &[]);
        assert!(logs.allows(&ask("get", "", "pods", "log", "a")));
        assert!(!logs.allows(&ask("get", "", "pods", "", "a")));
        let scales = rule(&["update"], &["*"], &["*/scale"], &[]);
        assert!(scales.allows(&ask("update", "apps", "deployments", "scale", "a")));
        assert!(!scales.allows(&ask("update", "apps", "deployments", "", "a")));
        let named = rule(&["get", "create"], &[""], &["secrets"], &["a"]);
        assert!(named.allows(&ask("get", "", "secrets", "", "a")));
        assert!(!named.allows(&ask("get", "", "secrets", "", "b")));
        assert!(
            !named.allows(&ask("create", "", "secrets", "", "")),
            "create has no name"
        );
        let all = rule(&["*"], &["*"], &["*"], &[]);
        assert!(all.allows(&ask("deletecollection", "x", "ys", "z", "")));
        let path = Attributes {
            verb: "get".to_owned(),
            path: "/healthz".to_owned(),
            ..Attributes::default()
        };
        assert!(!all.allows(&path), "resource rules grant no paths");
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
