//! Which changes a policy or a binding is about.

use std::sync::Arc;

use evenkeel_api::row::{ResourceDef, Storage, Subresource};
use evenkeel_api::validation::selects;
use evenkeel_api::{Status, object};
use serde_json::Value;

use super::super::webhook::Version;
use super::super::{Change, look_up};
use crate::registry::Registry;

/// `matchConstraints` of a policy or `matchResources` of a binding.
#[derive(Debug, Default)]
pub(super) struct Matcher {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    /// Rules about one version of a kind stand for all.
    equivalent: bool,
    namespaces: Value,
    objects: Value,
    /// Without rules, everything matches: so for bindings.
    open: bool,
}

#[derive(Debug)]
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    names: Vec<String>,
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

impl Rule {
    fn read(value: &Value) -> Self {
        Self {
            operations: texts(value, "operations"),
            groups: texts(value, "apiGroups"),
            versions: texts(value, "apiVersions"),
            resources: texts(value, "resources"),
            names: texts(value, "resourceNames"),
            scope: object::text(value, &["scope"]).to_owned(),
        }
    }

    fn matches(&self, change: &Change<'_>, row: &ResourceDef, name: &str) -> bool {
        let namespaced = row.namespaced();
        let scope = match self.scope.as_str() {
            "Namespaced" => namespaced,
            "Cluster" => !namespaced,
            _ => true,
        };
        scope
            && has(&self.operations, change.operation.as_str())
            && has(&self.groups, &row.gvk.group)
            && has(&self.versions, &row.gvk.version)
            && self.has_resource(change, row)
            && (self.names.is_empty() || self.names.iter().any(|wanted| wanted == name))
    }

    fn has_resource(&self, change: &Change<'_>, row: &ResourceDef) -> bool {
        let wanted = change.subresource.map_or("", |sub| sub.as_str());
        self.resources.iter().any(|resource| {
            let (plural, sub) = resource.split_once('/').unwrap_or((resource, ""));
            (plural == "*" || plural == row.plural) && (sub == "*" || sub == wanted)
        })
    }
}

impl Matcher {
    /// Reads one. `open` ones match everything when they have no rules.
    pub(super) fn read(value: &Value, open: bool) -> Self {
        let rules = |name: &str| {
            object::list(value, &[name])
                .iter()
                .map(Rule::read)
                .collect::<Vec<_>>()
        };
        Self {
            rules: rules("resourceRules"),
            excluded: rules("excludeResourceRules"),
            equivalent: object::text(value, &["matchPolicy"]) != "Exact",
            namespaces: value.get("namespaceSelector").cloned().unwrap_or_default(),
            objects: value.get("objectSelector").cloned().unwrap_or_default(),
            open,
        }
    }

    /// Whether it is about a change.
    ///
    /// # Errors
    /// 404 when the namespace, whose labels decide, is not there.
    pub(super) fn matches(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &Value,
    ) -> Result<bool, Status> {
        Ok(self.concerns(registry, change, object)?.is_some())
    }

    /// In which version of its kind it wants to see a change, if it is about it.
    ///
    /// # Errors
    /// 404 when the namespace, whose labels decide, is not there.
    pub(super) fn concerns(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &Value,
    ) -> Result<Option<Version>, Status> {
        if !self.object_matches(change, object) {
            return Ok(None);
        }
        let name = change.name(object);
        let of = |rules: &[Rule]| self.version(registry, change, rules, name);
        if of(&self.excluded).is_some() {
            return Ok(None);
        }
        let version = if self.open && self.rules.is_empty() {
            Some(Version::OfRequest)
        } else {
            of(&self.rules)
        };
        let Some(version) = version else {
            return Ok(None);
        };
        let matches = self.namespace_matches(registry, change, object)?;
        Ok(matches.then_some(version))
    }

    /// The version that some rules are about: that of the request, or another one.
    fn version(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        rules: &[Rule],
        name: &str,
    ) -> Option<Version> {
        let row = change.row;
        let any = |row: &ResourceDef| rules.iter().any(|rule| rule.matches(change, row, name));
        if any(row) {
            return Some(Version::OfRequest);
        }
        if !self.equivalent || rules.is_empty() {
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

    fn object_matches(&self, change: &Change<'_>, object: &Value) -> bool {
        let everything = self
            .objects
            .as_object()
            .is_none_or(serde_json::Map::is_empty);
        let labelled = |value: &Value| {
            let labels = &value["metadata"]["labels"];
            value.is_object() && selects(&self.objects, labels).unwrap_or(false)
        };
        everything || labelled(object) || change.old.is_some_and(labelled)
    }

    fn namespace_matches(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &Value,
    ) -> Result<bool, Status> {
        if self
            .namespaces
            .as_object()
            .is_none_or(serde_json::Map::is_empty)
        {
            return Ok(true);
        }
        let selected =
            |namespace: &Value| selects(&self.namespaces, &namespace["metadata"]["labels"]);
        if change.is_core("Namespace") {
            // A namespace is chosen by its own labels.
            let own = if object.is_object() {
                object
            } else {
                change.old.unwrap_or(object)
            };
            return Ok(selected(own).unwrap_or(false));
        }
        if change.namespace.is_empty() {
            return Ok(true);
        }
        let namespace = namespace(registry, change.namespace)
            .ok_or_else(|| Status::not_found("", "namespaces", change.namespace))?;
        Ok(selected(&namespace).unwrap_or(false))
    }
}

/// A namespace as the cache has it.
pub(super) fn namespace(registry: &Registry, name: &str) -> Option<Value> {
    look_up::object(registry, ("", "v1", "Namespace"), "", name)
}
