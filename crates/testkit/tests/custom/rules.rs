//! Rules in CEL: when a definition is made, and when objects are.

use super::*;

fn limits(rules: Value) -> Value {
    let grows = json!([{"rule": "self >= oldSelf", "reason": "FieldValueForbidden",
        "message": "port may not go down"}]);
    let ports = json!({"type": "array", "maxItems": 5,
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["key"],
        "items": {"type": "object", "required": ["key"], "properties": {
            "key": {"type": "string", "maxLength": 10},
            "port": {"type": "integer", "x-kubernetes-validations": grows}}}});
    json!({
        "metadata": {"name": "limits.rules.example.com"},
        "spec": {"group": "rules.example.com", "scope": "Cluster",
            "names": {"plural": "limits", "kind": "Limit"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "x-kubernetes-validations": rules,
                        "properties": {
                            "min": {"type": "integer"},
                            "max": {"type": "integer"},
                            "name": {"type": "string", "maxLength": 20,
                                "x-kubernetes-validations": [{"rule": "self == oldSelf",
                                    "messageExpression": "'the name is ' + oldSelf"}]},
                            "ports": ports,
                        }},
                    "status": {"type": "object", "properties": {"n": {"type": "integer",
                        "x-kubernetes-validations": [{"rule": "self < 10"}]}}},
                }}}}]},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_hold_for_objects_and_their_changes() {
    let (_cluster, admin) = open().await;
    let rules = json!([
        {"rule": "!has(self.min) || !has(self.max) || self.min <= self.max",
            "message": "min must not be above max", "fieldPath": ".min"},
        {"rule": "!oldSelf.hasValue() || self.?max.orValue(0) >= oldSelf.value().?max.orValue(0)",
            "optionalOldSelf": true, "message": "max only grows"},
    ]);
    establish(&admin, &limits(rules)).await;
    let all = "/apis/rules.example.com/v1/limits";
    let limit = |spec: Value| {
        json!({"apiVersion": "rules.example.com/v1", "kind": "Limit",
            "metadata": {"name": "l"}, "spec": spec})
    };
    let wrong = admin
        .post(all, &limit(json!({"min": 5, "max": 3})))
        .await
        .expect(422);
    assert_eq!(
        wrong.message(),
        "Limit.rules.example.com \"l\" is invalid: spec.min: Invalid value: min must not be \
         above max"
    );
    let spec = json!({"min": 1, "max": 3, "name": "a", "ports": [{"key": "x", "port": 80}]});
    admin.post(all, &limit(spec)).await.expect(201);
    let one = format!("{all}/l");
    for (patch, text) in [
        (
            json!({"name": "b"}),
            "spec.name: Invalid value: \"b\": the name is a",
        ),
        (json!({"max": 2}), "spec: Invalid value: max only grows"),
        (
            json!({"ports": [{"key": "y", "port": 1}, {"key": "x", "port": 79}]}),
            "spec.ports[1].port: Forbidden: port may not go down",
        ),
    ] {
        let refused = admin
            .patch(&one, MERGE_PATCH, &json!({"spec": patch}))
            .await
            .expect(422);
        assert!(refused.message().ends_with(text), "{}", refused.message());
    }
    let text = admin.get("/metrics").await.expect(200).body;
    for step in ["compilation", "evaluation"] {
        let count = format!("apiserver_cel_{step}_duration_seconds_count{{}} ");
        assert!(text.as_str().unwrap().contains(&count), "{count}");
    }
    let good = json!({"spec": {"max": 4, "ports": [{"key": "y", "port": 1},
        {"key": "x", "port": 81}]}});
    admin.patch(&one, MERGE_PATCH, &good).await.expect(200);
    let status = admin
        .patch(
            &format!("{one}/status"),
            MERGE_PATCH,
            &json!({"status": {"n": 10}}),
        )
        .await
        .expect(422);
    assert!(
        status
            .message()
            .contains("status.n: Invalid value: 10: failed rule: self < 10"),
        "{}",
        status.message()
    );
    // Odd objects are not shown to rules.
    let odd = admin
        .patch(&one, MERGE_PATCH, &json!({"spec": {"min": "x"}}))
        .await
        .expect(422);
    assert!(
        odd.message()
            .contains("some validation rules were not checked because the object was invalid"),
        "{}",
        odd.message()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_that_can_not_run_are_refused_with_their_definition() {
    let (_cluster, admin) = open().await;
    for (rules, text) in [
        (
            json!([{"rule": "self.nope > 1"}]),
            "compilation failed: ERROR: <input>:1:5: undefined field 'nope'",
        ),
        (
            json!([{"rule": "self.min"}]),
            "cel expression must evaluate to a bool",
        ),
        (json!([{"rule": ""}]), "rule is not specified"),
        (
            json!([{"rule": "true", "messageExpression": "1"}]),
            "messageExpression must evaluate to a string",
        ),
        (
            json!([{"rule": "true", "optionalOldSelf": true}]),
            "may not be set if oldSelf is not used in rule",
        ),
        (
            json!([{"rule": "true", "reason": "Because"}]),
            "reason: Unsupported value: \"Because\"",
        ),
    ] {
        let refused = admin.post(DEFINITIONS, &limits(rules)).await.expect(422);
        assert!(
            refused.message().contains(text),
            "{text}\n{}",
            refused.message()
        );
    }
    let mut expensive = limits(json!([]));
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    expensive.pointer_mut(spec).unwrap()["names"] = json!({"type": "array",
        "items": {"type": "string"},
        "x-kubernetes-validations": [{"rule": "self.all(a, self.all(b, a != b))"}]});
    let refused = admin.post(DEFINITIONS, &expensive).await.expect(422);
    assert!(
        refused
            .message()
            .contains("estimated rule cost exceeds budget by factor of more than 100x"),
        "{}",
        refused.message()
    );
}
