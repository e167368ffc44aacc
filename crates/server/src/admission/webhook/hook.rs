//! Webhooks as their configurations say them, and which requests they are asked about.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_api::row::{ResourceDef, Storage, Subresource};
use evenkeel_api::validation::selects;
use evenkeel_api::{Status, object};
use serde_json::Value;
use tokio::time::Instant;

use super::super::{Change, Operation, look_up};
use super::conditions::{self, Condition};
use super::review;
use crate::auth::Authorizer;
use crate::families::Families;
use crate::outbound::Client;
use crate::registry::Registry;

/// A webhook of a configuration.
#[derive(Debug)]
pub(super) struct Hook {
    /// `CONFIGURATION/NAME/INDEX`.
    pub(super) id: String,
    pub(super) configuration: String,
    pub(super) name: String,
    rules: Vec<Rule>,
    /// Rules about one version of a kind stand for all.
    equivalent: bool,
    namespaces: Value,
    objects: Value,
    conditions: Vec<Condition>,
    /// Failures to ask it are let pass.
    pub(super) ignores_failure: bool,
    /// It wants to see what others have changed after it.
    pub(super) reinvocable: bool,
    /// It may be asked when nothing is to be kept.
    pub(super) dry_runs: bool,
    pub(super) timeout: Duration,
    /// The version of reviews that it speaks: `v1` or `v1beta1`.
    pub(super) review_version: &'static str,
    pub(super) client: Arc<Client>,
}

/// How a webhook is shown a change: the version that its rules are about.
pub(in crate::admission) enum Version {
    /// As the request has it.
    OfRequest,
    /// As this row has it.
    Of(Arc<ResourceDef>),
}

#[derive(Debug)]
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    scope: String,
}

fn texts(value: &Value, name: &str) -> Vec<String> {
    object::list(value, &[name])
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

impl Hook {
    /// Reads one webhook. `client` makes the way to where it says that it is.
    pub(super) fn read(
        configuration: &str,
        index: usize,
        value: &Value,
        client: impl FnOnce(&Value) -> Arc<Client>,
    ) -> Self {
        let text = |name: &str| object::text(value, &[name]);
        let seconds = object::integer(value, &["timeoutSeconds"])
            .and_then(|seconds| u64::try_from(seconds).ok())
            .unwrap_or(10);
        let name = text("name").to_owned();
        let speaks =
            texts(value, "admissionReviewVersions")
                .iter()
                .find_map(|version| match version.as_str() {
                    "v1" => Some("v1"),
                    "v1beta1" => Some("v1beta1"),
                    _ => None,
                });
        Self {
            id: format!("{configuration}/{name}/{index}"),
            configuration: configuration.to_owned(),
            name,
            rules: object::list(value, &["rules"])
                .iter()
                .map(|rule| Rule {
                    operations: texts(rule, "operations"),
                    groups: texts(rule, "apiGroups"),
                    versions: texts(rule, "apiVersions"),
                    resources: texts(rule, "resources"),
                    scope: object::text(rule, &["scope"]).to_owned(),
                })
                .collect(),
            equivalent: text("matchPolicy") != "Exact",
            namespaces: value.get("namespaceSelector").cloned().unwrap_or_default(),
            objects: value.get("objectSelector").cloned().unwrap_or_default(),
            conditions: conditions::read(value),
            ignores_failure: text("failurePolicy") == "Ignore",
            reinvocable: text("reinvocationPolicy") == "IfNeeded",
            dry_runs: matches!(text("sideEffects"), "None" | "NoneOnDryRun"),
            timeout: Duration::from_secs(seconds),
            review_version: speaks.unwrap_or("v1"),
            client: client(value.get("clientConfig").unwrap_or(&Value::Null)),
        }
    }

    /// Is this webhook about a change, but for its conditions? Then how it is to be shown.
    ///
    /// # Errors
    /// 404 when the namespace, whose labels decide, is not there.
    pub(super) fn concerns(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &Value,
    ) -> Result<Option<Version>, Status> {
        let namespace = self.namespace_matches(registry, change, object);
        if matches!(namespace, Ok(false)) || !self.object_matches(change, object) {
            return Ok(None);
        }
        let version = self.rule_matches(registry, change);
        if version.is_some() {
            namespace?;
        }
        Ok(version)
    }

    /// Do its conditions hold? `change` and `object` are as it is shown them; `kind` is `admit` or
    /// `validate`.
    ///
    /// # Errors
    /// 403 when a condition can't be decided and the webhook fails closed.
    pub(super) fn holds(
        &self,
        authorizer: &Arc<dyn Authorizer>,
        change: &Change<'_>,
        object: &Value,
        requested: &ResourceDef,
        (counted, kind): (&Families, &str),
    ) -> Result<bool, Status> {
        if self.conditions.is_empty() {
            return Ok(true);
        }
        let mut request = review::attributes(change, "", object);
        review::requested(&mut request, change, requested);
        let began = Instant::now();
        let said = conditions::hold(&self.conditions, authorizer, change, object, &request);
        let told = ["webhook", &self.name, change.operation.as_str(), kind];
        counted.decided(told, began, &said);
        match said {
            Ok(holds) => Ok(holds),
            Err(_) if self.ignores_failure => Ok(false),
            Err(why) => Err(change.forbidden(object, &why)),
        }
    }

    fn rule_matches(&self, registry: &Registry, change: &Change<'_>) -> Option<Version> {
        let row = change.row;
        let any = |row: &ResourceDef| self.rules.iter().any(|rule| rule.matches(change, row));
        if any(row) {
            return Some(Version::OfRequest);
        }
        if !self.equivalent {
            return None;
        }
        let rows = registry.caches.kinds().rows();
        let other = rows.iter().find(|other| {
            let same_group = other.gvk.group == row.gvk.group && other.plural == row.plural;
            (same_group || other.store_prefix() == row.store_prefix())
                && other.gvk != row.gvk
                && any(other)
        })?;
        // What has a kind of its own, and what is only answered, is the same in every version.
        let alike = change.subresource.and_then(Subresource::own_kind).is_some()
            || row.storage != Storage::Stored;
        Some(if alike {
            Version::OfRequest
        } else {
            Version::Of(Arc::clone(other))
        })
    }

    /// An empty selector is everything, and so is a missing one.
    fn namespace_matches(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &Value,
    ) -> Result<bool, Status> {
        let is_namespace = change.is_core("Namespace");
        if is_everything(&self.namespaces) || (change.namespace.is_empty() && !is_namespace) {
            return Ok(true);
        }
        let new = matches!(change.operation, Operation::Create | Operation::Update);
        let stored;
        let labels = if is_namespace && change.subresource.is_none() && new {
            object
        } else {
            let name = if is_namespace {
                change.name(object)
            } else {
                change.namespace
            };
            stored = look_up::object(registry, ("", "v1", "Namespace"), "", name)
                .ok_or_else(|| Status::not_found("", "namespaces", name))?;
            &stored
        };
        Ok(selected(&self.namespaces, labels))
    }

    fn object_matches(&self, change: &Change<'_>, object: &Value) -> bool {
        let matches = |object: &Value| !object.is_null() && selected(&self.objects, object);
        is_everything(&self.objects) || matches(object) || change.old.is_some_and(matches)
    }
}

fn is_everything(selector: &Value) -> bool {
    let empty = |name: &str| match selector.get(name) {
        None | Some(Value::Null) => true,
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(fields)) => fields.is_empty(),
        Some(_) => false,
    };
    empty("matchLabels") && empty("matchExpressions")
}

fn selected(selector: &Value, object: &Value) -> bool {
    let labels = object::at(object, &["metadata", "labels"]).unwrap_or(&Value::Null);
    selects(selector, labels).unwrap_or(false)
}

impl Rule {
    fn matches(&self, change: &Change<'_>, row: &ResourceDef) -> bool {
        let subresource = change.subresource.map_or("", |sub| sub.as_str());
        // A namespace is not in itself.
        let scope = match self.scope.as_str() {
            "Namespaced" => row.namespaced(),
            "Cluster" => !row.namespaced(),
            _ => true,
        };
        let resource = self.resources.iter().any(|item| {
            let (resource, sub) = item.split_once('/').unwrap_or((item, ""));
            (resource == "*" || resource == row.plural) && (sub == "*" || sub == subresource)
        });
        scope
            && resource
            && has(&self.operations, change.operation.as_str())
            && has(&self.groups, &row.gvk.group)
            && has(&self.versions, &row.gvk.version)
    }
}
