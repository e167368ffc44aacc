//! Role-based access control.
//!
//! The rules are `rbac.authorization.k8s.io/v1`, read from the caches and compiled into an index
//! by subject whenever a role or binding has changed.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use evenkeel_api::object;
use serde_json::{Value, json};

use super::{Authorizer, Decision, Identity, MASTERS};
use crate::cache::Followed;
use crate::http::Attributes;
use crate::registry::Registry;

const GROUP: &str = "rbac.authorization.k8s.io";
const KINDS: [&str; 4] = ["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];

/// A policy rule.
#[derive(Debug, Default)]
pub(super) struct Rule {
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
    users: HashMap<String, Vec<Given>>,
    groups: HashMap<String, Vec<Given>>,
}

/// A grant, and whom the binding gives it to, for messages.
#[derive(Debug)]
struct Given {
    grant: Arc<Grant>,
    to: Box<str>,
}

/// Authorizes by roles and bindings.
pub struct RbacAuthorizer {
    pub(super) registry: Registry,
    /// What every node agent may.
    pub(super) of_nodes: Arc<Vec<Rule>>,
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
    pub(super) fn allows(&self, attributes: &Attributes) -> bool {
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
        let of_nodes = json!({"rules": crate::bootstrap::node_rules()});
        Self {
            registry,
            of_nodes: rules(&of_nodes),
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
                    placed(object::name(binding), &namespace),
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
}

/// A name with its namespace, as messages about rights show it.
fn placed(name: &str, namespace: &str) -> String {
    if namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{name}/{namespace}")
    }
}

impl Compiled {
    fn add(&mut self, subject: &Value, grant: &Arc<Grant>) {
        let name = object::text(subject, &["name"]).to_owned();
        let kind = object::text(subject, &["kind"]);
        let mut shown = name.clone();
        let (map, key) = match kind {
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
                shown = placed(&name, namespace);
                (
                    &mut self.users,
                    format!("system:serviceaccount:{namespace}:{name}"),
                )
            }
            _ => return,
        };
        let given = Given {
            grant: Arc::clone(grant),
            to: format!("{kind} \"{shown}\"").into(),
        };
        map.entry(key).or_default().push(given);
    }

    fn grants<'c>(&'c self, identity: &'c Identity) -> impl Iterator<Item = &'c Given> {
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
    /// What roles say.
    pub(crate) fn roles(&self, identity: &Identity, attributes: &Attributes) -> Decision {
        let compiled = self.compiled();
        for Given { grant, to } in compiled.grants(identity) {
            let in_place = grant.namespace.is_empty()
                || (attributes.resource_request && grant.namespace == attributes.namespace);
            if in_place && grant.rules.iter().any(|rule| rule.allows(attributes)) {
                return Decision::Allow(format!("{} to {to}", grant.origin));
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
        let why = match self.node(identity, attributes) {
            Some(Decision::NoOpinion(why)) => why,
            Some(decided) => return decided,
            None => String::new(),
        };
        match self.roles(identity, attributes) {
            Decision::NoOpinion(_) => Decision::NoOpinion(why),
            decided => decided,
        }
    }

    fn rules(&self, identity: &Identity, namespace: &str) -> (Vec<Value>, Vec<Value>) {
        let compiled = self.compiled();
        let (mut resources, mut others) = (Vec::new(), Vec::new());
        for Given { grant, .. } in compiled.grants(identity) {
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
}
