//! Properties that hold for any object of the schema, not only for good ones.

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::rows;

/// JSON that often has the names of pod and service fields.
fn json() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(vec![
        "metadata",
        "spec",
        "status",
        "template",
        "containers",
        "initContainers",
        "volumes",
        "name",
        "image",
        "ports",
        "port",
        "protocol",
        "env",
        "valueFrom",
        "resources",
        "limits",
        "requests",
        "cpu",
        "securityContext",
        "strategy",
        "rollingUpdate",
        "selector",
        "type",
        "metrics",
        "behavior",
        "scaleUp",
        "subjects",
        "roleRef",
        "livenessProbe",
        "httpGet",
        "hostNetwork",
        "tolerations",
        "affinity",
        "clusterIP",
        "clusterIPs",
        "subsets",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i64..70_000).prop_map(Value::from),
        "[a-zA-Z./:-]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(names.clone(), inner, 0..6).prop_map(|fields| {
                Value::Object(
                    fields
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value))
                        .collect::<Map<String, Value>>(),
                )
            }),
        ]
    })
}

/// A good object with one place replaced by anything.
fn spoiled() -> impl Strategy<Value = Value> {
    let bases = prop::sample::select(vec![super::pod(), super::deployment(), super::service()]);
    (bases, prop::collection::vec(0_usize..8, 1..7), json()).prop_map(|(mut base, turns, with)| {
        spoil(&mut base, &turns, with);
        base
    })
}

/// Walks down by the turns, then replaces what is there.
fn spoil(at: &mut Value, turns: &[usize], with: Value) {
    let Some((turn, rest)) = turns.split_first() else {
        *at = with;
        return;
    };
    let next = match at {
        Value::Object(fields) => {
            let index = turn % fields.len().max(1);
            fields.values_mut().nth(index)
        }
        Value::Array(items) => {
            let index = turn % items.len().max(1);
            items.get_mut(index)
        }
        _ => None,
    };
    if let Some(next) = next {
        spoil(next, rest, with);
    } else {
        *at = with;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Nothing panics, and defaulting what the schema admits is idempotent.
    #[test]
    fn strategies_take_whatever_the_schema_admits(object in prop_oneof![json(), spoiled()]) {
        for row in rows().iter() {
            let mut object = object.clone();
            if !object.is_object() {
                continue;
            }
            let found = rows().schema().admit(&rows().ty(row), &mut object);
            if found.mismatch.is_some() {
                continue;
            }
            row.strategy.defaults(&mut object);
            let once = object.clone();
            row.strategy.defaults(&mut object);
            prop_assert_eq!(&once, &object, "{:?}", row.gvk);
            row.strategy.prepare_create(&mut object);
            let errors = row.strategy.validate(&object);
            prop_assert!(errors.iter().all(|error| !error.field.is_empty()));
            let mut new = once;
            row.strategy.prepare_update(&mut new, &object);
            prop_assert!(row.strategy.validate_update(&new, &object).iter().all(|e| !e.body.is_empty()));
            row.strategy.prepare_status(&mut new, &object);
            prop_assert!(row.strategy.validate_status(&new, &object).iter().all(|e| !e.body.is_empty()));
            prop_assert!(row.strategy.grace_period(&new, None).unwrap_or_default() >= 0);
            let cells = evenkeel_api::kinds::table_cells(row, &new, jiff::Timestamp::UNIX_EPOCH);
            prop_assert!(!cells.is_empty());
        }
    }
}
