//! Custom resources: schemas become types, JSON becomes values.

use evenkeel_cel::{Budget, Env, Schema, Value, escape};
use serde_json::json;

fn holds(schema: &serde_json::Value, object: &serde_json::Value, rules: &[&str]) {
    let schema = Schema::from_openapi(schema, "selfType", true).unwrap();
    let env = Env::kubernetes().with_variable("self", schema.clone());
    let value = schema.value(object).unwrap();
    for rule in rules {
        let program = env.compile(rule).unwrap_or_else(|e| panic!("{rule}: {e}"));
        let result = program.evaluate(&[("self", value.clone())], &mut Budget::default());
        assert_eq!(result, Ok(Value::Bool(true)), "{rule}");
    }
}

#[test]
fn values_are_what_their_schemas_say() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "when": {"type": "string", "format": "date-time"},
        "wait": {"type": "string", "format": "duration"},
        "data": {"type": "string", "format": "byte"},
        "ratio": {"type": "number"},
        "port": {"x-kubernetes-int-or-string": true},
        "in": {"type": "string"},
        "a-b.c": {"type": "integer"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "byName": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "properties": {"name": {"type": "string"}, "n": {"type": "integer"}}}},
        "absent": {"type": "string"},
    }}}});
    let object = json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "n"}, "spec": {
        "when": "2024-01-01T00:00:00Z", "wait": "90s", "data": "aGk=", "ratio": 2, "port": "80%",
        "in": "here", "a-b.c": 5, "labels": {"app": "web"}, "set": ["a", "b"],
        "byName": [{"name": "x", "n": 1}, {"name": "y", "n": 2}], "unknown": 1,
    }});
    holds(
        &schema,
        &object,
        &[
            "self.metadata.name == 'n' && self.kind == 'X'",
            "self.spec.when > timestamp('2023-01-01T00:00:00Z') && self.spec.wait == duration('1m30s')",
            "self.spec.data == b'hi' && self.spec.ratio == 2.0",
            "type(self.spec.port) == string && self.spec.port.endsWith('%')",
            "self.spec.__in__ == 'here' && self.spec.a__dash__b__dot__c == 5",
            "self.spec.labels.app == 'web' && self.spec.labels['app'] == 'web' && !has(self.spec.absent)",
            "self.spec.set == ['b', 'a'] || self.spec.set.all(s, s in ['a', 'b'])",
            "self.spec.set + ['b', 'c'] == ['a', 'b', 'c']",
            "self.spec.byName.exists(e, e.name == 'y' && e.n == 2)",
        ],
    );
}

#[test]
fn what_has_no_schema_is_not_seen() {
    let schema = json!({"type": "object", "properties": {
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "untyped": {"x-kubernetes-preserve-unknown-fields": true},
        "list": {"type": "array"},
    }});
    let env = Env::kubernetes().with_variable(
        "self",
        Schema::from_openapi(&schema, "selfType", false).unwrap(),
    );
    assert!(env.compile("has(self.free)").is_ok());
    for hidden in ["has(self.untyped)", "has(self.list)", "self.free.x == 1"] {
        assert!(
            env.compile(hidden)
                .unwrap_err()
                .to_string()
                .contains("undefined field"),
            "{hidden}"
        );
    }
}

#[test]
fn names_become_identifiers() {
    for (name, identifier) in [
        ("foo", Some("foo")),
        ("namespace", Some("__namespace__")),
        ("a__b", Some("a__underscores__b")),
        ("x/y", Some("x__slash__y")),
        ("1a", None),
        ("$ref", None),
    ] {
        assert_eq!(escape(name).as_deref(), identifier, "{name}");
    }
}
