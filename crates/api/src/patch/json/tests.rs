use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::patch::test_values::any_json;

fn patched(object: Value, patch: Value) -> Value {
    json_patch(&object, &patch).expect("applies")
}

#[test]
fn operations_of_rfc_6902() {
    let object = json!({"spec": {"list": ["a", "c"], "a/b": 1, "m~n": 2}});
    let cases = [
        (
            json!([{"op": "add", "path": "/spec/list/1", "value": "b"}]),
            json!(["a", "b", "c"]),
        ),
        (
            json!([{"op": "add", "path": "/spec/list/-", "value": "d"}]),
            json!(["a", "c", "d"]),
        ),
        (
            json!([{"op": "add", "path": "/spec/list/2", "value": "d"}]),
            json!(["a", "c", "d"]),
        ),
        (
            json!([{"op": "remove", "path": "/spec/list/0"}]),
            json!(["c"]),
        ),
        (
            json!([{"op": "remove", "path": "/spec/list/-1"}]),
            json!(["a"]),
        ),
        (
            json!([{"op": "replace", "path": "/spec/list/0", "value": "z"}]),
            json!(["z", "c"]),
        ),
        (
            json!([{"op": "move", "from": "/spec/list/0", "path": "/spec/list/1"}]),
            json!(["c", "a"]),
        ),
        (
            json!([{"op": "copy", "from": "/spec/a~1b", "path": "/spec/list/0"}]),
            json!([1, "a", "c"]),
        ),
        (
            json!([{"op": "copy", "from": "/spec/m~0n", "path": "/spec/list/0"}]),
            json!([2, "a", "c"]),
        ),
        (
            json!([{"op": "test", "path": "/spec/list/0", "value": "a"}, {"op": "remove", "path": "/spec/list/0"}]),
            json!(["c"]),
        ),
    ];
    for (patch, list) in cases {
        assert_eq!(
            patched(object.clone(), patch.clone())["spec"]["list"],
            list,
            "{patch}"
        );
    }
}

#[test]
fn habits_of_the_reference() {
    let object = json!({"metadata": {}});
    let added = patched(
        object.clone(),
        json!([{"op": "replace", "path": "/metadata/x", "value": 1}]),
    );
    assert_eq!(added["metadata"]["x"], 1);
    patched(
        object.clone(),
        json!([{"op": "test", "path": "/metadata/gone", "value": null}]),
    );
    patched(object.clone(), json!(null));
    let whole = patched(
        object,
        json!([{"op": "replace", "path": "", "value": {"a": 1}}]),
    );
    assert_eq!(whole, json!({"a": 1}));
}

#[test]
fn what_does_not_apply_is_unprocessable() {
    let object = json!({"spec": {"replicas": 1, "list": []}});
    for operation in [
        json!({"op": "test", "path": "/spec/replicas", "value": 2}),
        json!({"op": "remove", "path": "/spec/gone"}),
        json!({"op": "remove", "path": "/spec/list/0"}),
        json!({"op": "add", "path": "/gone/x", "value": 1}),
        json!({"op": "add", "path": "/spec/list/x", "value": 1}),
        json!({"op": "add", "path": "/spec/replicas/x", "value": 1}),
        json!({"op": "frobnicate", "path": "/spec"}),
        json!({"op": "move", "path": "/spec/x"}),
        json!({"path": "/spec/x"}),
        json!(null),
    ] {
        let error = json_patch(&object, &json!([operation])).expect_err("does not apply");
        assert!(
            matches!(error, PatchError::Unprocessable(_)),
            "{operation}: {error:?}"
        );
        let status = error.status();
        assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
        assert_eq!(
            status.message,
            "the server rejected our request due to an error in our request"
        );
    }
}

#[test]
fn what_is_no_patch_is_a_bad_request() {
    let cases = [
        (
            json!({"op": "add"}),
            "error decoding patch: json: cannot unmarshal object into Go value of type \
             []handlers.jsonPatchOp",
        ),
        (
            json!([{"op": 1}]),
            "error decoding patch: json: cannot unmarshal number into Go struct field \
             jsonPatchOp.op of type string",
        ),
    ];
    for (patch, text) in cases {
        let error = json_patch(&json!({}), &patch).expect_err("not a patch");
        assert_eq!(error, PatchError::Invalid(text.to_owned()));
        assert_eq!(error.status().code, 400);
    }
}

#[test]
fn limits_hold() {
    let many = Value::Array(vec![
        json!({"op": "add", "path": "/a", "value": 1});
        MAX_OPERATIONS + 1
    ]);
    let error = json_patch(&json!({}), &many).expect_err("too many");
    assert_eq!(error.status().code, 413);
    assert_eq!(
        error.status().message,
        "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001"
    );
    // Each copy doubles the list: without the limit this would need exabytes.
    let double: Vec<Value> =
        std::iter::repeat_n(json!({"op": "copy", "from": "/a", "path": "/a/-"}), 60).collect();
    let error =
        json_patch(&json!({"a": ["0123456789"]}), &Value::Array(double)).expect_err("grows");
    assert!(
        error.to_string().contains("exceeding the limit 3145728"),
        "{error}"
    );
}

#[test]
fn merge_patch_of_rfc_7386() {
    let cases = [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (
            json!({"a": "b"}),
            json!({"b": "c"}),
            json!({"a": "b", "b": "c"}),
        ),
        (json!({"a": "b"}), json!({"a": null}), json!({})),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (
            json!({"a": {"b": "c"}}),
            json!({"a": {"b": "d", "c": null}}),
            json!({"a": {"b": "d"}}),
        ),
        (json!({"a": [1, 2]}), json!({"a": [3]}), json!({"a": [3]})),
        (
            json!({}),
            json!({"a": {"bb": {"ccc": null}}}),
            json!({"a": {"bb": {}}}),
        ),
        (
            json!({}),
            json!({"a": [{"b": null, "c": 1}, null]}),
            json!({"a": [{"c": 1}, null]}),
        ),
    ];
    for (object, patch, expected) in cases {
        assert_eq!(
            merge_patch(&object, &patch).expect("merges"),
            expected,
            "{patch}"
        );
    }
    assert_eq!(
        merge_patch(&json!({}), &json!([]))
            .expect_err("no object")
            .to_string(),
        "error decoding patch: json: cannot unmarshal array into Go value of type \
         map[string]interface {}"
    );
}

fn has_null_in_list(value: &Value, in_list: bool) -> bool {
    match value {
        Value::Null => in_list,
        Value::Array(items) => items.iter().any(|item| has_null_in_list(item, true)),
        Value::Object(fields) => fields.values().any(|item| has_null_in_list(item, in_list)),
        _ => false,
    }
}

proptest! {
    /// Nulls within lists are taken out of them only where no object was, as the reference does.
    #[test]
    fn merging_twice_is_merging_once(object in any_json(), patch in any_json()) {
        prop_assume!(!has_null_in_list(&patch, false));
        if let Ok(once) = merge_patch(&object, &patch) {
            prop_assert_eq!(merge_patch(&once, &patch).expect("merges again"), once);
        }
    }

    #[test]
    fn json_patch_never_panics(object in any_json(), patch in any_json(), path in "(/[a-c0-2~-]{0,2}){0,3}") {
        for op in ["add", "remove", "replace", "move", "copy", "test"] {
            let patch = json!([{"op": op, "path": path, "from": path, "value": patch}]);
            drop(json_patch(&object, &patch));
        }
    }
}
