//! Which flow schema a request belongs to: users, groups, service accounts, and what is asked for.

use evenkeel_api::object;
use serde_json::Value;

use crate::auth::Identity;
use crate::http::Attributes;

/// By what the requests of a schema are told apart into flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Distinguisher {
    User,
    Namespace,
}

/// What a schema matches.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) by: Option<Distinguisher>,
    rules: Vec<Rule>,
}

#[derive(Debug, PartialEq, Eq)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    others: Vec<OtherRule>,
}

#[derive(Debug, PartialEq, Eq)]
enum Subject {
    Anybody,
    User(String),
    Group(String),
    /// `system:serviceaccount:NAMESPACE:`, as all accounts of a namespace begin.
    Accounts(String),
}

/// Some texts, or all there are.
#[derive(Debug, PartialEq, Eq)]
enum Texts {
    All,
    Some(Vec<String>),
}

#[derive(Debug, PartialEq, Eq)]
struct ResourceRule {
    verbs: Texts,
    groups: Texts,
    resources: Texts,
    namespaces: Texts,
    cluster_scope: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct OtherRule {
    verbs: Texts,
    /// Paths, and the prefixes that end in a slash.
    paths: Option<Vec<(String, String)>>,
}

impl Texts {
    fn read(value: &Value, name: &str) -> Self {
        let texts: Vec<String> = object::list(value, &[name])
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        if texts == ["*"] {
            Self::All
        } else {
            Self::Some(texts)
        }
    }

    fn has(&self, is: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::All => true,
            Self::Some(texts) => texts.iter().any(|text| is(text)),
        }
    }
}

impl Rules {
    /// Reads the spec of a schema.
    pub(super) fn read(spec: &Value) -> Self {
        let by = match object::text(spec, &["distinguisherMethod", "type"]) {
            "ByUser" => Some(Distinguisher::User),
            "ByNamespace" => Some(Distinguisher::Namespace),
            _ => None,
        };
        let list = |value: &Value, name: &str| object::list(value, &[name]).to_vec();
        let rules = list(spec, "rules")
            .iter()
            .map(|rule| Rule {
                subjects: list(rule, "subjects").iter().filter_map(subject).collect(),
                resources: list(rule, "resourceRules").iter().map(resource).collect(),
                others: list(rule, "nonResourceRules").iter().map(other).collect(),
            })
            .collect();
        Self { by, rules }
    }

    /// Does a request belong to the schema?
    pub(super) fn matches(&self, identity: &Identity, attributes: &Attributes) -> bool {
        self.rules.iter().any(|rule| {
            rule.subjects.iter().any(|subject| subject.is(identity))
                && if attributes.resource_request {
                    rule.resources.iter().any(|rule| rule.matches(attributes))
                } else {
                    rule.others.iter().any(|rule| rule.matches(attributes))
                }
        })
    }
}

fn subject(value: &Value) -> Option<Subject> {
    let text = |path: &[&str]| object::text(value, path).to_owned();
    Some(match object::text(value, &["kind"]) {
        "User" => match object::text(value, &["user", "name"]) {
            "*" => Subject::Anybody,
            name => Subject::User(name.to_owned()),
        },
        "Group" => match object::text(value, &["group", "name"]) {
            "*" => Subject::Anybody,
            name => Subject::Group(name.to_owned()),
        },
        "ServiceAccount" => {
            let namespace = text(&["serviceAccount", "namespace"]);
            let all = format!("system:serviceaccount:{namespace}:");
            match object::text(value, &["serviceAccount", "name"]) {
                "*" => Subject::Accounts(all),
                name => Subject::User(all + name),
            }
        }
        _ => return None,
    })
}

impl Subject {
    fn is(&self, identity: &Identity) -> bool {
        match self {
            Self::Anybody => true,
            Self::User(name) => *name == identity.user,
            Self::Group(name) => identity.in_group(name),
            Self::Accounts(prefix) => identity.user.starts_with(prefix.as_str()),
        }
    }
}

fn resource(value: &Value) -> ResourceRule {
    ResourceRule {
        verbs: Texts::read(value, "verbs"),
        groups: Texts::read(value, "apiGroups"),
        resources: Texts::read(value, "resources"),
        namespaces: Texts::read(value, "namespaces"),
        cluster_scope: object::at(value, &["clusterScope"]) == Some(&Value::Bool(true)),
    }
}

impl ResourceRule {
    fn matches(&self, attributes: &Attributes) -> bool {
        let is_resource = |text: &str| match text.strip_prefix(attributes.resource.as_str()) {
            Some("") => attributes.subresource.is_empty(),
            Some(rest) => {
                !attributes.subresource.is_empty()
                    && rest.strip_prefix('/') == Some(attributes.subresource.as_str())
            }
            None => false,
        };
        self.verbs.has(|verb| verb == attributes.verb)
            && self.resources.has(is_resource)
            && self.groups.has(|group| group == attributes.group)
            && if attributes.namespace.is_empty() {
                self.cluster_scope
            } else {
                self.namespaces.has(|name| name == attributes.namespace)
            }
    }
}

fn other(value: &Value) -> OtherRule {
    let paths = match Texts::read(value, "nonResourceURLs") {
        Texts::All => None,
        Texts::Some(paths) => Some(
            paths
                .into_iter()
                .map(|path| {
                    let mut prefix = path.strip_suffix('*').unwrap_or(&path).to_owned();
                    if !prefix.ends_with('/') {
                        prefix.push('/');
                    }
                    (path, prefix)
                })
                .collect(),
        ),
    };
    OtherRule {
        verbs: Texts::read(value, "verbs"),
        paths,
    }
}

impl OtherRule {
    fn matches(&self, attributes: &Attributes) -> bool {
        let at = attributes.path.as_str();
        self.verbs.has(|verb| verb == attributes.verb)
            && self.paths.as_ref().is_none_or(|paths| {
                paths
                    .iter()
                    .any(|(path, prefix)| path == at || at.starts_with(prefix.as_str()))
            })
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use super::*;
    use crate::http::Query;

    fn asks(method: &Method, url: &str) -> Attributes {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        Attributes::of(method, path, &Query::parse(query))
    }

    fn rules(subject: Value, resource: Value, other: Value) -> Rules {
        Rules::read(&json!({"rules": [{
            "subjects": [subject],
            "resourceRules": [resource],
            "nonResourceRules": [other],
        }]}))
    }

    fn everything() -> (Value, Value) {
        (
            json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true,
                "namespaces": ["*"]}),
            json!({"verbs": ["*"], "nonResourceURLs": ["*"]}),
        )
    }

    #[test]
    fn subjects_are_users_groups_and_service_accounts() {
        let (resource, other) = everything();
        let pods = asks(&Method::GET, "/api/v1/namespaces/a/pods");
        let matched = |subject: Value, identity: &Identity| {
            rules(subject, resource.clone(), other.clone()).matches(identity, &pods)
        };
        let ann = Identity::user("ann", &["dev"]);
        let account = Identity::service_account("ns", "one");
        let user = |name: &str| json!({"kind": "User", "user": {"name": name}});
        let group = |name: &str| json!({"kind": "Group", "group": {"name": name}});
        let service = |namespace: &str, name: &str| {
            json!({"kind": "ServiceAccount",
                "serviceAccount": {"namespace": namespace, "name": name}})
        };
        assert!(matched(user("ann"), &ann) && !matched(user("ann"), &account));
        assert!(matched(user("*"), &account));
        assert!(matched(group("dev"), &ann) && !matched(group("ops"), &ann));
        assert!(matched(group("*"), &Identity::anonymous()));
        assert!(matched(service("ns", "one"), &account));
        assert!(matched(service("ns", "*"), &account));
        assert!(!matched(service("ns", "two"), &account));
        // A namespace whose name begins like the other is another one.
        assert!(!matched(service("n", "*"), &account));
    }

    #[test]
    fn rules_are_about_resources_or_paths() {
        let anybody = json!({"kind": "Group", "group": {"name": "*"}});
        let rules = rules(
            anybody,
            json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "nodes/status"],
                "namespaces": ["a"]}),
            json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/logs/*"]}),
        );
        let ann = Identity::user("ann", &[]);
        let matched = |method: Method, url: &str| rules.matches(&ann, &asks(&method, url));
        assert!(matched(Method::GET, "/api/v1/namespaces/a/pods"));
        assert!(matched(Method::GET, "/api/v1/namespaces/a/pods/x"));
        assert!(!matched(Method::GET, "/api/v1/namespaces/a/pods/x/log"));
        assert!(!matched(Method::DELETE, "/api/v1/namespaces/a/pods/x"));
        assert!(!matched(Method::GET, "/api/v1/namespaces/b/pods"));
        assert!(!matched(Method::GET, "/api/v1/pods"), "cluster scope");
        assert!(!matched(Method::GET, "/apis/apps/v1/namespaces/a/pods"));
        assert!(
            !matched(Method::GET, "/api/v1/nodes/n/status"),
            "cluster scope"
        );
        assert!(matched(Method::GET, "/healthz"));
        assert!(matched(Method::GET, "/healthz/etcd"));
        assert!(!matched(Method::GET, "/healthzz"));
        assert!(matched(Method::GET, "/logs/a"));
        assert!(!matched(Method::GET, "/logs"));
        assert!(!matched(Method::POST, "/healthz"));
    }
}
