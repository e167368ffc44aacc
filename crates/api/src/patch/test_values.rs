//! Arbitrary JSON for property tests.

use proptest::prelude::*;
use serde_json::Value;

/// Small JSON documents with few, colliding names, some of them directives.
pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2i64..100).prop_map(Value::from),
        Just(Value::from(1.5)),
        "[a-c]{0,2}".prop_map(Value::from),
        prop_oneof!["delete", "replace", "merge"].prop_map(Value::from),
    ];
    let name = prop_oneof![
        4 => "[a-c]{1,2}",
        2 => prop_oneof!["name", "spec", "containers", "ports", "env", "metadata", "labels", "finalizers", "template", "strategy", "volumes"],
        1 => prop_oneof!["\\$patch", "\\$retainKeys", "\\$setElementOrder/containers", "\\$setElementOrder/finalizers", "\\$deleteFromPrimitiveList/finalizers"],
    ];
    leaf.prop_recursive(5, 48, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}
