//! Nobody grants what he does not have: who writes a role must hold its rules, or may `escalate`;
//! who writes a binding must hold the rules of its role, or may `bind` it.
//!
//! Source: Kubernetes documentation, "Using RBAC Authorization", privilege escalation prevention.

use evenkeel_api::row::ResourceDef;
use evenkeel_api::{Status, object};
use serde_json::Value;

use super::{Authorizer, Decision, Identity, MASTERS};
use crate::http::Attributes;
use crate::registry::{self, Registry};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Refuses a role or binding that would give more than its writer has.
///
/// # Errors
/// 403 that names the first rule that is not held; 404 when a bound role does not exist and the
/// writer may not bind it blindly.
pub(crate) fn check(
    authorizer: &dyn Authorizer,
    registry: &Registry,
    identity: &Identity,
    row: &ResourceDef,
    new: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    if row.gvk.group != GROUP || identity.in_group(MASTERS) {
        return Ok(());
    }
    let asker = Asker {
        authorizer,
        identity,
        row,
        namespace: object::namespace(new),
    };
    match row.gvk.kind.as_ref() {
        "Role" | "ClusterRole" => {
            if old.is_some_and(|old| old.get("rules") == new.get("rules"))
                || asker.may("escalate", &row.plural, object::name(new))
            {
                return Ok(());
            }
            asker.holds(object::list(new, &["rules"]), object::name(new))
        }
        _ => {
            if old.is_some_and(|old| {
                old.get("roleRef") == new.get("roleRef")
                    && old.get("subjects") == new.get("subjects")
            }) {
                return Ok(());
            }
            let kind = object::text(new, &["roleRef", "kind"]);
            let name = object::text(new, &["roleRef", "name"]);
            let plural = if kind == "Role" {
                "roles"
            } else {
                "clusterroles"
            };
            if asker.may("bind", plural, name) {
                return Ok(());
            }
            let place = if kind == "Role" { asker.namespace } else { "" };
            let role = registry
                .rows
                .by_kind(GROUP, "v1", kind)
                .and_then(|row| registry.caches.of(row))
                .and_then(|cache| cache.get(&registry::path(place, name)))
                .ok_or_else(|| Status::not_found(GROUP, plural, name))?;
            asker.holds(object::list(&role.value(), &["rules"]), object::name(new))
        }
    }
}

struct Asker<'a> {
    authorizer: &'a dyn Authorizer,
    identity: &'a Identity,
    row: &'a ResourceDef,
    /// Where the grant is to count; empty for everywhere.
    namespace: &'a str,
}

impl Asker<'_> {
    fn allows(&self, attributes: &Attributes) -> bool {
        matches!(
            self.authorizer.authorize(self.identity, attributes),
            Decision::Allow(_)
        )
    }

    fn may(&self, verb: &str, resource: &str, name: &str) -> bool {
        self.allows(&Attributes {
            verb: verb.to_owned(),
            resource_request: true,
            group: GROUP.to_owned(),
            version: "v1".to_owned(),
            resource: resource.to_owned(),
            namespace: self.namespace.to_owned(),
            name: name.to_owned(),
            ..Attributes::default()
        })
    }

    fn holds(&self, rules: &[Value], name: &str) -> Result<(), Status> {
        let Some(missing) = rules.iter().find(|rule| !self.holds_rule(rule)) else {
            return Ok(());
        };
        let groups: Vec<String> = self
            .identity
            .groups
            .iter()
            .map(|group| format!("{group:?}"))
            .collect();
        Err(Status::forbidden(
            GROUP,
            &self.row.plural,
            name,
            &format!(
                "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently \
                 held:\n{}",
                self.identity.user,
                groups.join(" "),
                shown(missing)
            ),
        ))
    }

    /// A wildcard in a rule is held only by somebody who has the wildcard.
    fn holds_rule(&self, rule: &Value) -> bool {
        let texts = |name: &str| -> Vec<&str> {
            object::list(rule, &[name])
                .iter()
                .filter_map(Value::as_str)
                .collect()
        };
        let verbs = texts("verbs");
        let urls = texts("nonResourceURLs");
        let paths_held = verbs.iter().all(|verb| {
            urls.iter().all(|url| {
                self.allows(&Attributes {
                    verb: (*verb).to_owned(),
                    path: (*url).to_owned(),
                    ..Attributes::default()
                })
            })
        });
        let (groups, resources) = (texts("apiGroups"), texts("resources"));
        let mut names = texts("resourceNames");
        if names.is_empty() {
            names.push("");
        }
        paths_held
            && verbs.iter().all(|verb| {
                groups.iter().all(|group| {
                    resources.iter().all(|resource| {
                        names
                            .iter()
                            .all(|name| self.holds_one(verb, group, resource, name))
                    })
                })
            })
    }

    fn holds_one(&self, verb: &str, group: &str, resource: &str, name: &str) -> bool {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        self.allows(&Attributes {
            verb: verb.to_owned(),
            resource_request: true,
            group: group.to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            namespace: self.namespace.to_owned(),
            name: name.to_owned(),
            ..Attributes::default()
        })
    }
}

/// A rule as the reference prints it.
fn shown(rule: &Value) -> String {
    let parts: Vec<String> = [
        ("APIGroups", "apiGroups"),
        ("Resources", "resources"),
        ("ResourceNames", "resourceNames"),
        ("NonResourceURLs", "nonResourceURLs"),
        ("Verbs", "verbs"),
    ]
    .iter()
    .filter_map(|(title, name)| {
        let items: Vec<String> = object::list(rule, &[name])
            .iter()
            .map(Value::to_string)
            .collect();
        (!items.is_empty()).then(|| format!("{title}:[{}]", items.join(" ")))
    })
    .collect();
    format!("{{{}}}", parts.join(", "))
}
