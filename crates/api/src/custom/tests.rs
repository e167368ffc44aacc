use serde_json::{Value, json};

use super::*;

fn now() -> jiff::Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

fn definition(plural: &str, kind: &str) -> Value {
    json!({
        "metadata": {"name": format!("{plural}.example.com")},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind,
                "listKind": format!("{kind}List"), "shortNames": ["th"]},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}]},
    })
}

#[test]
fn free_names_are_accepted_at_once() {
    let planned = names::plan(
        &definition("things", "Thing"),
        &names::Claimed::default(),
        now(),
    );
    let planned = planned.unwrap();
    assert!(condition_is_true(&planned, "NamesAccepted"));
    assert!(condition_is_true(&planned, "Established"));
    assert_eq!(planned["status"]["acceptedNames"], planned["spec"]["names"]);
    // A plan that is carried out leaves nothing to do.
    assert_eq!(
        names::plan(&planned, &names::Claimed::default(), now()),
        None
    );
}

#[test]
fn taken_names_are_told_and_the_others_kept() {
    let mut claimed = names::Claimed::default();
    let first = names::plan(&definition("things", "Thing"), &claimed, now()).unwrap();
    claimed.add(&first);
    let second = names::plan(&definition("others", "Other"), &claimed, now()).unwrap();
    let accepted = condition(&second, "NamesAccepted").unwrap();
    assert_eq!(accepted["reason"], "ShortNamesConflict");
    assert_eq!(accepted["message"], "\"th\" is already in use");
    assert_eq!(accepted["lastTransitionTime"], "2026-01-02T03:04:05Z");
    assert!(!condition_is_true(&second, "Established"));
    assert_eq!(second["status"]["acceptedNames"]["kind"], "Other");
    assert!(
        second["status"]["acceptedNames"]
            .get("shortNames")
            .is_none()
    );
    // Free again.
    let free = names::plan(&second, &names::Claimed::default(), now()).unwrap();
    assert!(condition_is_true(&free, "Established"));
}

#[test]
fn rows_come_with_establishment_and_types_outlive_other_changes() {
    let value = definition("things", "Thing");
    let stored = bytes::Bytes::from(value.to_string());
    let before = Definition::read(&value, stored.clone(), None);
    assert!(before.rows().is_empty());
    let value = names::plan(&value, &names::Claimed::default(), now()).unwrap();
    let stored = bytes::Bytes::from(value.to_string());
    let after = Definition::read(&value, stored.clone(), Some(&before));
    assert_eq!(after.rows().len(), 1);
    let row = &after.rows()[0];
    assert_eq!(row.type_name, "com.example.v1.Thing");
    let mut labelled = value.clone();
    labelled["metadata"]["labels"] = json!({"a": "b"});
    let same = Definition::read(&labelled, stored.clone(), Some(&after));
    assert!(std::sync::Arc::ptr_eq(&same.rows()[0], row));
    let mut changed = value;
    changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] = "x".into();
    let other = Definition::read(&changed, stored, Some(&after));
    let (other, row) = (&other.rows()[0], row);
    assert!(
        !other
            .custom
            .as_ref()
            .unwrap()
            .is_same(row.custom.as_ref().unwrap())
    );
}
