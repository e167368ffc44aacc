//! Roles and their bindings. What they grant is decided by the authorizer; here is only their
//! form. Nobody may grant what they lack: that is checked where the caller is known.

use serde_json::{Value, json};

use crate::field::{ErrorList, FieldError};
use crate::names;
use crate::object::{child, fields, text};
use crate::row::Strategy;
use crate::validation::{self, Cursor};

const GROUP: &str = "rbac.authorization.k8s.io";

/// What roles do beyond their row.
#[derive(Debug, Clone, Copy)]
pub struct Roles {
    /// `Role` rather than `ClusterRole`.
    pub namespaced: bool,
}

/// What bindings do beyond their row.
#[derive(Debug, Clone, Copy)]
pub struct Bindings {
    /// `RoleBinding` rather than `ClusterRoleBinding`.
    pub namespaced: bool,
}

impl Strategy for Roles {
    fn defaults(&self, object: &mut Value) {
        // The reference always writes the rules, as null when there are none.
        fields(object).entry("rules").or_insert_with(|| json!([]));
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let root = Cursor::root(object);
        for rule in root.items("rules") {
            policy_rule(&rule, self.namespaced, &mut out);
        }
        if let Some(aggregation) = root.get("aggregationRule") {
            if aggregation.list("clusterRoleSelectors").is_empty() {
                out.push(FieldError::required(
                    &aggregation.at("clusterRoleSelectors"),
                    "at least one clusterRoleSelector required if aggregationRule is non-nil",
                ));
            }
            for selector in aggregation.items("clusterRoleSelectors") {
                let before = out.len();
                validation::label_selector(&selector, &mut out);
                if out.len() > before {
                    let wrong = "invalid label selector.";
                    out.push(FieldError::invalid(&selector.path, Value::Null, wrong));
                }
            }
        }
        out
    }
}

fn policy_rule(rule: &Cursor<'_>, namespaced: bool, out: &mut ErrorList) {
    let empty = |name: &str| rule.list(name).is_empty();
    if empty("verbs") {
        out.push(FieldError::required(&rule.at("verbs"), "").declared());
    }
    let mut need = |name: &str, detail: &str| {
        if rule.list(name).is_empty() {
            out.push(FieldError::required(&rule.at(name), detail));
        }
    };
    if empty("nonResourceURLs") {
        need(
            "apiGroups",
            "resource rules must supply at least one api group",
        );
        need(
            "resources",
            "resource rules must supply at least one resource",
        );
        return;
    }
    let mut wrong = |detail: &str| {
        out.push(FieldError::invalid(
            &rule.at("nonResourceURLs"),
            rule.raw("nonResourceURLs").clone(),
            detail,
        ));
    };
    if namespaced {
        wrong("namespaced rules cannot apply to non-resource URLs");
    }
    if !empty("apiGroups") || !empty("resources") || !empty("resourceNames") {
        wrong("rules cannot apply to both regular resources and non-resource URLs");
    }
}

impl Strategy for Bindings {
    fn defaults(&self, object: &mut Value) {
        let role = child(object, "roleRef");
        if text(role, &["apiGroup"]).is_empty() {
            fields(role).insert("apiGroup".to_owned(), GROUP.into());
        }
        let subjects = object.get_mut("subjects").and_then(Value::as_array_mut);
        for subject in subjects.into_iter().flatten() {
            let named = matches!(text(subject, &["kind"]), "User" | "Group");
            if named && text(subject, &["apiGroup"]).is_empty() {
                fields(subject).insert("apiGroup".to_owned(), GROUP.into());
            }
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let root = Cursor::root(object);
        let role = root.child("roleRef");
        if role.text("apiGroup") != GROUP {
            out.push(FieldError::not_supported(
                &role.at("apiGroup"),
                role.text("apiGroup"),
                &[GROUP],
            ));
        }
        let kinds: &[&str] = if self.namespaced {
            &["Role", "ClusterRole"]
        } else {
            &["ClusterRole"]
        };
        if !kinds.contains(&role.text("kind")) {
            out.push(FieldError::not_supported(
                &role.at("kind"),
                role.text("kind"),
                kinds,
            ));
        }
        if role.text("name").is_empty() {
            out.push(FieldError::required(&role.at("name"), ""));
        } else {
            validation::named(
                names::path_segment,
                role.text("name"),
                &role.at("name"),
                &mut out,
            );
        }
        for subject in root.items("subjects") {
            self::subject(&subject, self.namespaced, &mut out);
        }
        out
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let role = Cursor::root(new).child("roleRef");
        if role.value != Cursor::root(old).raw("roleRef") {
            // The reference shows its internal form.
            let shown = format!(
                "{{\"APIGroup\":{},\"Kind\":{},\"Name\":{}}}",
                Value::from(role.text("apiGroup")),
                Value::from(role.text("kind")),
                Value::from(role.text("name"))
            );
            out.push(FieldError::invalid_shown(
                &role.path,
                &shown,
                validation::IMMUTABLE,
            ));
        }
        out
    }
}

fn subject(at: &Cursor<'_>, namespaced: bool, out: &mut ErrorList) {
    let name = at.text("name");
    if name.is_empty() {
        out.push(FieldError::required(&at.at("name"), "").declared());
    }
    let group = at.text("apiGroup");
    match at.text("kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                validation::dns_subdomain(name, &at.at("name"), out);
            }
            if !group.is_empty() {
                out.push(FieldError::not_supported(&at.at("apiGroup"), group, &[""]));
            }
            if !namespaced && at.text("namespace").is_empty() {
                out.push(FieldError::required(&at.at("namespace"), ""));
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                out.push(FieldError::not_supported(
                    &at.at("apiGroup"),
                    group,
                    &[GROUP],
                ));
            }
        }
        other => out.push(FieldError::not_supported(
            &at.at("kind"),
            other,
            &["ServiceAccount", "User", "Group"],
        )),
    }
}
