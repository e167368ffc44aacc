//! Storage-version migrations: what is refused, what stays, and how they are printed.

use evenkeel_api::validation::Cursor;
use serde_json::{Value, json};

use super::tables::{cells, headings};
use super::{check, prepared, row_of, texts, update_errors, with};

fn migration() -> Value {
    json!({
        "apiVersion": "storagemigration.k8s.io/v1", "kind": "StorageVersionMigration",
        "metadata": {"name": "again"},
        "spec": {"resource": {"group": "apps", "resource": "deployments"}},
    })
}

#[test]
fn what_is_refused() {
    let label = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
    let wrong = format!("spec.resource.resource: Invalid value: \"a.b\": {label}");
    check(
        vec![
            (json!({}), vec![]),
            (json!({"group": null}), vec![]),
            (
                json!({"resource": null}),
                vec!["spec.resource.resource: Required value: resource is required to be set"],
            ),
            (json!({"resource": "a.b"}), vec![wrong.as_str()]),
        ],
        |patch| with(migration(), &json!({"spec": {"resource": patch}})),
    );
    let changed = update_errors(
        migration(),
        &json!({"spec": {"resource": {"resource": "pods"}}}),
    );
    assert_eq!(changed.len(), 1);
    assert!(changed[0].ends_with("field is immutable"), "{changed:?}");
}

#[test]
fn an_end_is_an_end() {
    let of = |status: Value| with(prepared(migration()), &json!({"status": status}));
    let condition = |name: &str, status: &str| {
        json!({"type": name, "status": status, "reason": "Tested", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let wrong = |old: Value, new: Value| {
        let (old, new) = (of(old), of(new));
        assert!(Cursor::root(&new).has("status"));
        texts(&row_of(&new).strategy.validate_status(&new, &old))
    };
    assert_eq!(
        wrong(json!({}), json!({"resourceVersion": "7"})),
        Vec::<String>::new()
    );
    assert_eq!(
        wrong(
            json!({"resourceVersion": "7"}),
            json!({"resourceVersion": "8"})
        ),
        ["status.resourceVersion: Invalid value: \"8\": field is immutable"]
    );
    assert_eq!(wrong(json!({}), json!({"resourceVersion": "x"})).len(), 1);
    let done = json!({"conditions": [condition("Succeeded", "True")]});
    let both = json!({"conditions": [condition("Succeeded", "True"), condition("Failed", "True")]});
    assert_eq!(wrong(done.clone(), done.clone()), Vec::<String>::new());
    assert!(wrong(json!({}), both)[0].ends_with("cannot be true at the same time"));
    assert!(
        wrong(done, json!({}))[0]
            .ends_with("Success condition cannot be set to false once it is true")
    );
}

#[test]
fn tables() {
    let object = prepared(migration());
    assert_eq!(headings(&object, true), ["Name", "Resource", "Status"]);
    assert_eq!(
        cells(&object, true),
        ["again", "deployments.apps", "Unknown"]
    );
}
