//! The built-in kinds from outside: manifests as users write them, what is refused and with which
//! words, what may change, and how tables look.

mod certificates;
mod changes;
mod defaults;
mod groups;
mod metadata;
mod migrations;
mod properties;
mod refused;
mod refused_batch;
mod refused_cluster;
mod refused_devices;
mod refused_others;
mod refused_storage;
mod refused_workloads;
mod samples;
mod tables;
mod tables_others;

use evenkeel_api::field::ErrorList;
use evenkeel_api::row::{ResourceDef, Rows};
use evenkeel_api::validation::{validate_metadata, validate_metadata_update};
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};

/// The rows, built once.
fn rows() -> &'static Rows {
    static ROWS: OnceLock<Rows> = OnceLock::new();
    ROWS.get_or_init(Rows::builtin)
}

/// The row of an object.
fn row_of(object: &Value) -> &'static Arc<ResourceDef> {
    let api_version = object["apiVersion"].as_str().expect("apiVersion");
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let kind = object["kind"].as_str().expect("kind");
    rows().by_kind(group, version, kind).expect("a known kind")
}

/// An object as the door has it before validation of a create.
fn prepared(mut object: Value) -> Value {
    let row = row_of(&object);
    let found = rows().schema().admit(&rows().ty(row), &mut object);
    assert_eq!(found.mismatch, None);
    assert!(found.unknown.is_empty(), "{:?}", found.unknown);
    if row.namespaced() && object["metadata"]["namespace"].is_null() {
        object["metadata"]["namespace"] = json!("default");
    }
    row.strategy.defaults(&mut object);
    let mut again = object.clone();
    row.strategy.defaults(&mut again);
    assert_eq!(again, object, "defaults twice are defaults once");
    row.strategy.prepare_create(&mut object);
    object
}

fn texts(errors: &ErrorList) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// What is wrong with a new object.
fn create_errors(object: Value) -> Vec<String> {
    let object = prepared(object);
    let row = row_of(&object);
    let mut errors = validate_metadata(row, &object);
    errors.extend(row.strategy.validate(&object));
    texts(&errors)
}

/// What is wrong with a change of a stored object by a merge patch.
fn update_errors(old: Value, patch: &Value) -> Vec<String> {
    let mut old = prepared(old);
    old["metadata"]["resourceVersion"] = json!("7");
    let row = row_of(&old);
    let mut new = old.clone();
    json_patch::merge(&mut new, patch);
    row.strategy.defaults(&mut new);
    row.strategy.prepare_update(&mut new, &old);
    let mut errors = validate_metadata_update(row, &new, &old);
    errors.extend(row.strategy.validate_change(&new, &old));
    texts(&errors)
}

/// A good object changed by a merge patch.
fn with(mut object: Value, patch: &Value) -> Value {
    json_patch::merge(&mut object, patch);
    object
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "web", "image": "nginx:1.24"}]},
    })
}

/// The pod with its one container changed by a merge patch.
fn pod_with_container(patch: &Value) -> Value {
    let mut object = pod();
    json_patch::merge(&mut object["spec"]["containers"][0], patch);
    object
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "nginx:1.24"}]},
            },
        },
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    })
}

/// Checks cases of (what it is made of, the errors in order) and counts them.
fn check(cases: Vec<(Value, Vec<&str>)>, make: impl Fn(&Value) -> Value) {
    for (patch, wanted) in cases {
        assert_eq!(create_errors(make(&patch)), wanted, "{patch}");
    }
}

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const NAME_PART: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
