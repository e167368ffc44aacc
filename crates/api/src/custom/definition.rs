//! What definitions are held to, as objects of their own kind.

use std::sync::LazyLock;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::{CLEANUP, conditions, spec};
use crate::field::ErrorList;
use crate::kinds::table::{column, name, wide};
use crate::object::{self, child, default_field, fields};
use crate::row::{Cell, Column, Strategy};
use crate::schema::Schema;

/// The type of metadata, which every custom kind borrows.
pub(crate) fn metadata_types() -> &'static Schema {
    static TYPES: LazyLock<Schema> = LazyLock::new(|| {
        Schema::from_sources(&[|generator| {
            generator.subschema_for::<ObjectMeta>();
        }])
    });
    &TYPES
}

/// What definitions do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Definitions;

impl Strategy for Definitions {
    fn defaults(&self, object: &mut Value) {
        let spec = child(object, "spec");
        let names = child(spec, "names");
        let kind = object::text(names, &["kind"]).to_owned();
        if object::text(names, &["singular"]).is_empty() {
            fields(names).insert("singular".to_owned(), kind.to_lowercase().into());
        }
        if object::text(names, &["listKind"]).is_empty() && !kind.is_empty() {
            fields(names).insert("listKind".to_owned(), format!("{kind}List").into());
        }
        default_field(spec, "conversion", json!({"strategy": "None"}));
        if let Some(service) = spec
            .pointer_mut("/conversion/webhook/clientConfig/service")
            .filter(|service| service.is_object())
        {
            default_field(service, "port", 443);
        }
        let unset = |object: &Value| object::list(object, &["status", "storedVersions"]).is_empty();
        if unset(object) {
            store_version(object);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        fields(object).insert(
            "status".to_owned(),
            json!({"acceptedNames": {"plural": "", "kind": ""}, "storedVersions": []}),
        );
        store_version(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        object::keep_status(new, old);
        store_version(new);
    }

    fn prepare_delete(&self, object: &mut Value, now: Timestamp) {
        let metadata = object::metadata(object);
        let finalizers = metadata.entry("finalizers").or_insert_with(|| json!([]));
        if let Value::Array(all) = finalizers
            && !all.iter().any(|name| name == CLEANUP)
        {
            all.push(CLEANUP.into());
        }
        conditions::set(
            object,
            "Terminating",
            "True",
            "InstanceDeletionPending",
            "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
            now,
        );
    }

    fn validate(&self, object: &Value) -> ErrorList {
        spec::validate(object, None)
    }

    fn validate_change(&self, new: &Value, old: &Value) -> ErrorList {
        spec::validate(new, Some(old))
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> ErrorList {
        spec::validate_names(new, &["status", "acceptedNames"])
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let known = old.map(spec::odd_parts).unwrap_or_default();
        spec::odd_parts(new)
            .into_iter()
            .filter(|warning| !known.contains(warning))
            .collect()
    }
}

/// The version that is stored from now on is one that has been stored.
fn store_version(object: &mut Value) {
    let version = object::list(object, &["spec", "versions"])
        .iter()
        .find(|version| version.get("storage") == Some(&Value::Bool(true)))
        .map(|version| object::text(version, &["name"]).to_owned());
    let Some(version) = version else { return };
    let stored = fields(child(object, "status"))
        .entry("storedVersions")
        .or_insert_with(|| json!([]));
    if !stored.is_array() {
        *stored = json!([]);
    }
    if let Value::Array(all) = stored
        && !all.iter().any(|name| *name == *version)
    {
        all.push(version.into());
    }
}

/// The columns of definitions.
#[must_use]
pub fn columns() -> Vec<Column> {
    vec![
        name(),
        column(
            "Scope",
            "string",
            Cell::Of(|it| object::text(it, &["spec", "scope"]).into()),
            "Cluster/Namespaced",
        ),
        column("Versions", "string", Cell::Of(versions), "Served versions"),
        column(
            "Created At",
            "date",
            Cell::Of(|it| object::text(it, &["metadata", "creationTimestamp"]).into()),
            "CreationTimestamp is a timestamp representing the server time when this object was \
             created. It is not guaranteed to be set in happens-before order across separate \
             operations. Clients may not set this value. It is represented in RFC3339 form and is \
             in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: \
             https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
        ),
        wide(
            "Group",
            "string",
            Cell::Of(|it| object::text(it, &["spec", "group"]).into()),
            "API group",
        ),
        wide(
            "Kind",
            "string",
            Cell::Of(|it| object::text(it, &["spec", "names", "kind"]).into()),
            "CustomResource kind",
        ),
        wide("ShortNames", "string", Cell::Of(short_names), "Short names"),
        wide(
            "Established",
            "boolean",
            Cell::Of(|it| conditions::is_true(it, "Established").into()),
            "Established status",
        ),
    ]
}

fn versions(object: &Value) -> Value {
    let mut shown: Vec<String> = object::list(object, &["spec", "versions"])
        .iter()
        .filter(|version| version.get("served") == Some(&Value::Bool(true)))
        .map(|version| {
            let stored = version.get("storage") == Some(&Value::Bool(true));
            let name = object::text(version, &["name"]);
            format!("{name}{}", if stored { "(storage)" } else { "" })
        })
        .collect();
    shown.sort();
    shown.join(",").into()
}

fn short_names(object: &Value) -> Value {
    let names: Vec<&str> = object::list(object, &["spec", "names", "shortNames"])
        .iter()
        .filter_map(Value::as_str)
        .collect();
    names.join(",").into()
}
