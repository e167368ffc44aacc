use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::patch::test_values::any_json;
use crate::row::Rows;

fn patch_kind(
    group: &str,
    version: &str,
    kind: &str,
    object: &Value,
    patch: &Value,
) -> Result<Value, PatchError> {
    let rows = Rows::builtin();
    let row = rows.by_kind(group, version, kind).expect("a built-in kind");
    strategic_merge_patch(rows.schema(), &rows.ty(row), object, patch)
}

fn pod(object: Value, patch: Value) -> Result<Value, PatchError> {
    patch_kind("", "v1", "Pod", &object, &patch)
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array()
        .expect("a list")
        .iter()
        .map(|item| item["name"].as_str().expect("a name"))
        .collect()
}

fn three() -> Value {
    json!({"spec": {"containers": [
        {"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}]},
        {"name": "b", "image": "b:1"},
        {"name": "c", "image": "c:1"},
    ]}})
}

#[test]
fn lists_merge_by_their_key() {
    let out = pod(
        three(),
        json!({"spec": {"containers": [
            {"name": "a", "image": "a:2", "env": [{"name": "Y", "value": "2"}]},
            {"name": "d", "image": "d:1"},
        ]}}),
    )
    .expect("merges");
    let containers = &out["spec"]["containers"];
    assert_eq!(names(containers), ["a", "d", "b", "c"]);
    assert_eq!(containers[0]["image"], "a:2");
    assert_eq!(names(&containers[0]["env"]), ["Y", "X"]);
    assert_eq!(containers[2]["image"], "b:1");
}

#[test]
fn lists_without_a_strategy_are_replaced() {
    let out = pod(
        json!({"spec": {"tolerations": [{"key": "a"}], "containers": [{"name": "a", "command": ["x", "y"]}]}}),
        json!({"spec": {"tolerations": [{"key": "b"}], "containers": [{"name": "a", "command": ["z"]}]}}),
    )
    .expect("merges");
    assert_eq!(out["spec"]["tolerations"], json!([{"key": "b"}]));
    assert_eq!(out["spec"]["containers"][0]["command"], json!(["z"]));
}

#[test]
fn directives_in_lists() {
    let out = pod(
        three(),
        json!({"spec": {"containers": [{"name": "b", "$patch": "delete"}]}}),
    )
    .expect("merges");
    assert_eq!(names(&out["spec"]["containers"]), ["a", "c"]);

    let out = pod(
        three(),
        json!({"spec": {"containers": [{"name": "gone", "$patch": "delete"}]}}),
    )
    .expect("merges");
    assert_eq!(names(&out["spec"]["containers"]), ["a", "b", "c"]);

    let out = pod(
        three(),
        json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "z"}]}}),
    )
    .expect("merges");
    assert_eq!(out["spec"]["containers"], json!([{"name": "z"}]));
}

#[test]
fn directives_in_maps() {
    let object = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"securityContext": {"runAsUser": 1}}});
    let out = pod(
        object.clone(),
        json!({"metadata": {"labels": {"$patch": "replace", "c": "3"}}}),
    )
    .expect("merges");
    assert_eq!(out["metadata"]["labels"], json!({"c": "3"}));
    let out = pod(
        object.clone(),
        json!({"spec": {"securityContext": {"$patch": "delete"}}}),
    )
    .expect("merges");
    assert_eq!(out["spec"]["securityContext"], json!({}));
    let out = pod(
        object.clone(),
        json!({"metadata": {"labels": {"a": null, "b": "3"}}}),
    )
    .expect("merges");
    assert_eq!(out["metadata"]["labels"], json!({"b": "3"}));
    let out = pod(
        object,
        json!({"metadata": {"annotations": {"x": null, "y": "1"}}}),
    )
    .expect("merges");
    assert_eq!(out["metadata"]["annotations"], json!({"y": "1"}));
}

#[test]
fn lists_of_primitives_merge_and_lose_items() {
    let object = json!({"metadata": {"finalizers": ["a", "b", "c"]}});
    let out = pod(
        object.clone(),
        json!({"metadata": {"finalizers": ["b", "d"]}}),
    )
    .expect("merges");
    assert_eq!(out["metadata"]["finalizers"], json!(["a", "b", "d", "c"]));
    let out = pod(
        object.clone(),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a", "x"]}}),
    )
    .expect("merges");
    assert_eq!(out["metadata"]["finalizers"], json!(["b", "c"]));
    let out = pod(
        object,
        json!({"metadata": {
            "$deleteFromPrimitiveList/finalizers": ["b"],
            "$setElementOrder/finalizers": ["d", "c", "a"],
            "finalizers": ["d"],
        }}),
    )
    .expect("merges");
    assert_eq!(out["metadata"]["finalizers"], json!(["d", "c", "a"]));
}

#[test]
fn set_element_order_rules_and_keeps_what_the_server_added() {
    let out = pod(
        three(),
        json!({"spec": {
            "$setElementOrder/containers": [{"name": "d"}, {"name": "c"}, {"name": "a"}],
            "containers": [{"name": "d"}, {"name": "a", "image": "a:2"}],
        }}),
    )
    .expect("merges");
    assert_eq!(names(&out["spec"]["containers"]), ["d", "b", "c", "a"]);

    let out = pod(
        three(),
        json!({"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}]}}),
    )
    .expect("merges");
    assert_eq!(names(&out["spec"]["containers"]), ["b", "c", "a"]);
}

#[test]
fn retain_keys_clears_the_rest() {
    let object =
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    let out = patch_kind("apps", "v1", "Deployment", &object, &patch).expect("merges");
    assert_eq!(out["spec"]["strategy"], json!({"type": "Recreate"}));
    let out = pod(
        json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
        json!({"spec": {"volumes": [{"name": "v", "configMap": {"name": "c"}, "$retainKeys": ["name", "configMap"]}]}}),
    )
    .expect("merges");
    assert_eq!(
        out["spec"]["volumes"],
        json!([{"name": "v", "configMap": {"name": "c"}}])
    );
}

/// What `kubectl apply` sends when a port's number changes: ports merge by `containerPort`.
#[test]
fn a_changed_key_is_a_new_item() {
    let out = pod(
        json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80, "protocol": "TCP"}]}]}}),
        json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "a",
            "$setElementOrder/ports": [{"containerPort": 81}],
            "ports": [{"containerPort": 81}, {"$patch": "delete", "containerPort": 80}]}]}}),
    )
    .expect("merges");
    assert_eq!(
        out["spec"]["containers"][0]["ports"],
        json!([{"containerPort": 81}])
    );
}

#[test]
fn refusals_in_the_words_of_the_reference() {
    let cases = [
        (
            json!({"spec": {"$patch": "frob"}}),
            500,
            "unknown patch type: frob in map: map[$patch:frob]",
        ),
        (
            json!({"spec": {"containers": [{"name": "a", "$patch": "frob"}]}}),
            500,
            "unknown patch type: frob in map: map[$patch:frob name:a]",
        ),
        (
            json!({"spec": {"containers": [{"name": "a", "$patch": "merge"}]}}),
            500,
            "merging lists cannot yet be specified in the patch",
        ),
        (
            json!({"spec": {"containers": [{"image": "x"}]}}),
            500,
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (
            json!({"spec": {"containers": ["x"]}}),
            500,
            "list element types are not identical: [[map[env:[map[name:X value:1]] image:a:1 name:a] map[image:b:1 name:b] map[image:c:1 name:c]] [x]]",
        ),
        (
            json!({"spec": {"$retainKeys": ["a"], "hostname": "x"}}),
            400,
            "invalid patch format of retainKeys",
        ),
        (
            json!({"spec": {"$deleteFromPrimitiveList": []}}),
            400,
            "invalid patch format of primitive list",
        ),
        (
            json!({"spec": {"$setElementOrder": []}}),
            400,
            "invalid patch format of setElementOrder list",
        ),
        (
            json!({"spec": {"$setElementOrder/containers": {}}}),
            500,
            "expected a []interface {}, but received a map[string]interface {}",
        ),
        (
            json!({"spec": {"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "a"}]}}),
            500,
            "The order in patch list:\n[map[name:a]]\n doesn't match $setElementOrder list:\n[map[name:b]]\n",
        ),
        (
            json!({"spec": {"$setElementOrder/bogus": []}}),
            500,
            "unable to find api field in struct PodSpec for the json field \"bogus\"",
        ),
        (
            json!([]),
            400,
            "json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
    ];
    for (patch, code, text) in cases {
        let error = pod(three(), patch).expect_err(text);
        assert_eq!(error.to_string(), text);
        assert_eq!(error.status().code, code, "{text}");
    }
}

#[test]
fn free_form_parts_merge_as_maps() {
    let out = strategic_merge_patch(
        &Schema::default(),
        &Ty::Any,
        &json!({"spec": {"a": {"b": 1}, "l": [1]}}),
        &json!({"spec": {"a": {"c": 2}, "l": [2]}}),
    )
    .expect("merges");
    assert_eq!(out, json!({"spec": {"a": {"b": 1, "c": 2}, "l": [2]}}));
}

proptest! {
    #[test]
    fn never_panics(object in any_json(), patch in any_json()) {
        for kind in ["Pod", "ConfigMap"] {
            drop(patch_kind("", "v1", kind, &object, &patch));
        }
        drop(patch_kind("apps", "v1", "Deployment", &object, &patch));
    }

    /// Without lists and directives it is a merge patch.
    #[test]
    fn labels_merge(left in prop::collection::btree_map("[a-c]", "[a-z]{0,2}", 0..4), right in prop::collection::btree_map("[a-c]", "[a-z]{0,2}", 0..4)) {
        let object = json!({"metadata": {"labels": left}});
        let patch = json!({"metadata": {"labels": right}});
        let out = pod(object.clone(), patch.clone()).expect("merges");
        prop_assert_eq!(&out, &crate::patch::merge_patch(&object, &patch).expect("merges"));
        prop_assert_eq!(pod(out.clone(), patch).expect("merges"), out);
    }
}
