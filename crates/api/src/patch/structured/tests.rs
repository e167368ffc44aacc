use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::patch::test_values::any_json;
use crate::row::Rows;

fn pod<T>(run: impl FnOnce(Shape<'_>) -> T) -> T {
    let rows = Rows::builtin();
    let row = rows.by_kind("", "v1", "Pod").expect("there");
    let ty = rows.ty(row);
    run(Shape::root(rows.schema(), &ty))
}

fn ports(numbers: &[i64]) -> Value {
    let ports: Vec<Value> = numbers
        .iter()
        .map(|n| json!({"containerPort": n}))
        .collect();
    json!({"spec": {"containers": [{"name": "a", "ports": ports}]}})
}

#[test]
fn lists_are_merged_in_the_order_of_the_configuration() {
    let cases: &[(&[i64], &[i64], &[i64])] = &[
        (&[1, 2, 3], &[3, 1], &[2, 3, 1]),
        (&[1, 2, 3], &[4], &[1, 2, 3, 4]),
        (&[1, 2], &[2, 3], &[1, 2, 3]),
        (&[1, 2], &[3, 2], &[1, 3, 2]),
        (&[], &[2, 1], &[2, 1]),
        (&[1, 2, 3, 4], &[4, 3, 2, 1], &[4, 3, 2, 1]),
    ];
    for (live, config, expected) in cases {
        let merged = pod(|shape| merge(shape, &ports(live), &ports(config)));
        assert_eq!(merged, ports(expected), "{live:?} + {config:?}");
    }
}

#[test]
fn comparing_names_each_field_once() {
    let old = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"hostname": "x", "nodeSelector": {"a": "b"}}});
    let new = json!({"metadata": {"labels": {"a": "2", "c": "3"}}, "spec": {"nodeSelector": {"a": "c"}, "volumes": [{"name": "v"}]}});
    let found = pod(|shape| compare(shape, Some(&old), Some(&new), New::Object));
    assert_eq!(
        found.removed.paths(),
        [".metadata.labels.b", ".spec.hostname"]
    );
    assert_eq!(
        found.modified.paths(),
        [".metadata.labels.a", ".spec.nodeSelector"]
    );
    assert_eq!(
        found.added.paths(),
        [
            ".metadata.labels.c",
            ".spec.volumes",
            ".spec.volumes[name=\"v\"]",
            ".spec.volumes[name=\"v\"].name"
        ]
    );
}

#[test]
fn duplicates_count_as_one() {
    let twice = json!({"spec": {"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "X", "value": "2"}]}]}});
    let once =
        json!({"spec": {"containers": [{"name": "a", "env": [{"name": "X", "value": "2"}]}]}});
    let found = pod(|shape| compare(shape, Some(&twice), Some(&once), New::Configuration));
    let env = ".spec.containers[name=\"a\"].env[name=\"X\"]";
    assert_eq!(found.removed.paths(), [env]);
    assert_eq!(
        found.added.paths(),
        [
            env.to_owned(),
            format!("{env}.name"),
            format!("{env}.value")
        ]
    );
    assert!(
        pod(|shape| compare(shape, Some(&twice), Some(&twice), New::Object))
            == Comparison::default()
    );
}

#[test]
fn refusals_in_the_words_of_the_reference() {
    let cases = [
        (
            json!({"spec": {"bogus": 1}}),
            ".spec.bogus: field not declared in schema",
        ),
        (
            json!({"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}),
            ".spec.containers: duplicate entries for key [name=\"a\"]",
        ),
        (
            json!({"spec": {"containers": [{"image": "x"}]}}),
            ".spec.containers: element 0: associative list with keys has an element that omits all key fields [\"name\"] (and doesn't have default values for any key fields)",
        ),
        (
            json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80}, {"containerPort": 80, "protocol": "TCP"}]}]}}),
            ".spec.containers[name=\"a\"].ports: duplicate entries for key [containerPort=80,protocol=\"TCP\"]",
        ),
        (
            json!({"spec": {"priority": "x"}}),
            ".spec.priority: expected numeric (int or float), got string",
        ),
        (
            json!({"spec": {"hostname": 5}}),
            ".spec.hostname: expected string, got &value.valueUnstructured{Value:5}",
        ),
        (
            json!({"spec": {"hostNetwork": "true"}}),
            ".spec.hostNetwork: expected boolean, got &{true}",
        ),
        (json!({"spec": "x"}), ".spec: expected map, got &{x}"),
        (
            json!({"spec": {"containers": {}}}),
            ".spec.containers: expected list, got &{map[]}",
        ),
        (
            json!({"metadata": {"labels": 1}, "spec": 2}),
            "errors:\n  .metadata.labels: expected map, got &{1}\n  .spec: expected map, got &{2}",
        ),
    ];
    for (config, text) in cases {
        assert_eq!(pod(|shape| validate(shape, &config)), Err(text.to_owned()));
    }
    let good = json!({"metadata": null, "spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80, "protocol": "UDP"}, {"containerPort": 80}], "resources": {"limits": {"cpu": 1}}}]}});
    assert_eq!(pod(|shape| validate(shape, &good)), Ok(()));
}

#[test]
fn a_granular_set_of_what_became_atomic_is_repaired() {
    let mut set = crate::patch::FieldSet::from_fields_v1(
        &json!({"f:spec": {"f:nodeSelector": {"f:a": {}}, "f:containers": {"k:{\"name\":\"a\"}": {"f:image": {}}}}}),
    )
    .expect("reads");
    pod(|shape| reconcile(shape, &mut set));
    assert_eq!(
        set.to_fields_v1(),
        json!({"f:spec": {"f:nodeSelector": {}, "f:containers": {"k:{\"name\":\"a\"}": {"f:image": {}}}}})
    );
}

proptest! {
    #[test]
    fn walks_never_panic(left in any_json(), right in any_json()) {
        pod(|shape| {
            let merged = merge(shape, &left, &right);
            let set = fields_of(shape, &right);
            drop(remove(shape, &merged, &set, Emptied::Null));
            drop(remove(shape, &merged, &with_named_fields(shape, &set), Emptied::Gone));
            drop(compare(shape, Some(&left), Some(&merged), New::Object));
            drop(validate(shape, &left));
        });
    }

    #[test]
    fn nothing_differs_from_itself(value in any_json()) {
        prop_assert_eq!(pod(|shape| compare(shape, Some(&value), Some(&value.clone()), New::Object)), Comparison::default());
    }

    #[test]
    fn merging_again_changes_nothing(live in any_json(), config in any_json()) {
        pod(|shape| {
            if validate(shape, &live).is_ok() && validate(shape, &config).is_ok() && live.is_object() && config.is_object() {
                let once = merge(shape, &live, &config);
                assert_eq!(merge(shape, &once, &config), once);
            }
        });
    }
}
