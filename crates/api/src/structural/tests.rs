use serde_json::{Value, json};

use super::*;
use crate::field::{ErrorList, Path};

fn schema(value: Value) -> Structural {
    Structural::read(&value).unwrap()
}

fn texts(errors: &ErrorList) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn wrong(of: Value, value: Value) -> Vec<String> {
    texts(&validate(&schema(of), &Path::root(), &value, None))
}

fn object(properties: Value) -> Value {
    json!({"type": "object", "properties": properties})
}

#[test]
fn types_are_named_as_the_reference_names_them() {
    for (property, value, text) in [
        (
            json!({"type": "string"}),
            json!(1),
            Some("string: \"integer\""),
        ),
        (
            json!({"type": "string"}),
            json!(1.5),
            Some("string: \"number\""),
        ),
        (
            json!({"type": "string"}),
            json!(null),
            Some("string: \"null\""),
        ),
        (
            json!({"type": "string", "nullable": true}),
            json!(null),
            None,
        ),
        (json!({"type": "integer"}), json!(1.0), None),
        (json!({"type": "number"}), json!(1), None),
        (
            json!({"type": "integer"}),
            json!("1"),
            Some("integer: \"string\""),
        ),
        (
            json!({"type": "integer", "format": "int32"}),
            json!({}),
            Some("int32: \"\""),
        ),
        (
            json!({"type": "boolean"}),
            json!("true"),
            Some("boolean: \"string\""),
        ),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            json!({}),
            Some("array: \"object\""),
        ),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!("5%"),
            None,
        ),
        (json!({"x-kubernetes-int-or-string": true}), json!(5), None),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!([]),
            Some("integer,string: \"array\""),
        ),
        (
            json!({"type": "string", "format": "date"}),
            json!(5),
            Some("date: \"int64\""),
        ),
        (
            json!({"type": "string", "format": "made-up"}),
            json!("x"),
            None,
        ),
    ] {
        let found = wrong(
            object(json!({"x": property.clone()})),
            json!({"x": value.clone()}),
        );
        let wanted: Vec<String> = text
            .map(|text| {
                let shown = text.split_once(": ").unwrap().1;
                format!("x: Invalid value: {shown}: x in body must be of type {text}")
            })
            .into_iter()
            .collect();
        assert_eq!(found, wanted, "{property} {value}");
    }
}

#[test]
fn bounds_are_shown_as_numbers_of_the_values_kind() {
    for (property, value, text) in [
        (
            json!({"type": "integer", "minimum": 1, "exclusiveMinimum": true}),
            json!(1),
            "x: Invalid value: 1: x in body should be greater than 1",
        ),
        (
            json!({"type": "number", "maximum": 2.5}),
            json!(2.75),
            "x: Invalid value: 2.75: x in body should be less than or equal to 2.5",
        ),
        (
            json!({"type": "integer", "multipleOf": 5}),
            json!(7),
            "x: Invalid value: 7: x in body should be a multiple of 5",
        ),
        (
            json!({"type": "integer", "format": "int32"}),
            json!(4_294_967_296_i64),
            "<nil>: Invalid value: \"\": Checked value must be of type integer with format int32 in x",
        ),
        (
            json!({"type": "array", "minItems": 1, "items": {"type": "string"}}),
            json!([]),
            "x: Invalid value: 0: x in body should have at least 1 items",
        ),
        (
            json!({"type": "object", "maxProperties": 1,
                "x-kubernetes-preserve-unknown-fields": true}),
            json!({"a": 1, "b": 2}),
            "x: Too many: 2: must have at most 1 item",
        ),
        (
            json!({"type": "object", "additionalProperties": false}),
            json!({"a": 1}),
            "x: Invalid value: \"a\": x.a in body is a forbidden property",
        ),
    ] {
        let found = wrong(object(json!({"x": property})), json!({"x": value}));
        assert_eq!(found, [text]);
    }
}

#[test]
fn branches_say_which_failed() {
    let one = json!({"type": "object", "properties": {"a": {"type": "string"},
        "b": {"type": "string"}}, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
    assert!(wrong(one.clone(), json!({"a": "x"})).is_empty());
    assert_eq!(
        wrong(one.clone(), json!({"a": "x", "b": "y"})),
        [
            "<nil>: Invalid value: \"\": \"\" must validate one and only one schema (oneOf). Found 2 \
          valid alternatives"
        ]
    );
    assert_eq!(
        wrong(one, json!({})),
        [
            "<nil>: Invalid value: \"\": \"\" must validate one and only one schema (oneOf). Found \
             none valid",
            "a: Required value",
        ]
    );
    let any = object(json!({"x": {"type": "string",
        "anyOf": [{"enum": ["a"]}, {"pattern": "^b"}]}}));
    assert!(wrong(any.clone(), json!({"x": "bc"})).is_empty());
    assert_eq!(
        wrong(any, json!({"x": "c"})),
        [
            "<nil>: Invalid value: \"\": \"x\" must validate at least one schema (anyOf)",
            "x: Unsupported value: \"c\": supported values: \"a\"",
        ]
    );
    let not = object(json!({"x": {"type": "string", "not": {"enum": ["a"]}}}));
    assert_eq!(
        wrong(not, json!({"x": "a"})),
        ["<nil>: Invalid value: \"\": \"x\" must not validate the schema (not)"]
    );
}

#[test]
fn errors_of_what_has_not_changed_are_forgiven() {
    let of = schema(json!({"type": "object", "properties": {
        "n": {"type": "integer", "maximum": 1},
        "list": {"type": "array", "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"},
                "n": {"type": "integer", "maximum": 1}}}},
        "plain": {"type": "array", "items": {"type": "integer", "maximum": 1}},
    }}));
    let update = |old: Value, new: Value| texts(&validate(&of, &Path::root(), &new, Some(&old)));
    assert!(update(json!({"n": 5}), json!({"n": 5, "list": []})).is_empty());
    assert_eq!(update(json!({"n": 5}), json!({"n": 6})).len(), 1);
    let old = json!({"list": [{"k": "a", "n": 9}]});
    assert!(
        update(
            old.clone(),
            json!({"list": [{"k": "b", "n": 1}, {"k": "a", "n": 9}]})
        )
        .is_empty()
    );
    assert_eq!(update(old, json!({"list": [{"k": "b", "n": 9}]})).len(), 1);
    // Items of plain lists can't be told apart, the whole list can.
    assert_eq!(
        update(json!({"plain": [9]}), json!({"plain": [9, 1]})).len(),
        1
    );
    assert!(update(json!({"plain": [9]}), json!({"plain": [9], "n": 1})).is_empty());
}

#[test]
fn nulls_go_stay_or_become_defaults() {
    let of = schema(object(json!({
        "plain": {"type": "string"},
        "nullable": {"type": "string", "nullable": true},
        "default": {"type": "string", "default": "d"},
        "both": {"type": "string", "nullable": true, "default": "d"},
        "inner": {"type": "object", "default": {}, "properties": {
            "a": {"type": "integer", "default": 1}}},
    })));
    let mut value = json!({"plain": null, "nullable": null, "default": null, "both": null});
    assert!(of.drop_nulls(&mut value));
    assert!(of.set_defaults(&mut value));
    assert_eq!(
        value,
        json!({"nullable": null, "default": "d", "both": null, "inner": {"a": 1}})
    );
    assert!(!of.set_defaults(&mut value));
}

#[test]
fn formats_hold_as_go_openapi_holds_them() {
    for (format, good, bad) in [
        ("date-time", "2014-12-15T19:30:20.000Z", "2014-12-15"),
        ("date", "2006-01-02", "2006-1-2"),
        ("duration", "1h30m", "soon"),
        ("duration", "2 days", ""),
        ("ipv4", "10.0.0.1", "10.0.0"),
        ("ipv6", "fe80::1", "10.0.0.1"),
        ("cidr", "10.0.0.0/8", "10.0.0.0"),
        ("uuid", "123e4567-E89b-12d3-a456-426614174000", "123"),
        ("uri", "https://example.com/a", "example"),
        ("email", "a@example.com", "a"),
        ("hostname", "a.example.com", "-a"),
        ("mac", "01:02:03:04:05:06", "01"),
        ("byte", "aGk=", "a"),
        ("hexcolor", "#FFFFFF", "#FF"),
        ("rgbcolor", "rgb(1,2,3)", "rgb(1,2)"),
        ("isbn", "978-0321751041", "978"),
        ("creditcard", "4111-1111-1111-1111", "4111"),
        ("k8s-short-name", "a-b", "A"),
    ] {
        assert!(formats::holds(format, good), "{format} {good}");
        assert!(!formats::holds(format, bad), "{format} {bad}");
    }
    assert!(formats::holds("password", ""));
    assert!(!is_known_format(Type::Integer, "date"));
}

#[test]
fn paths_lead_into_schemas() {
    let of = schema(object(json!({"spec": {"type": "object", "properties": {
        "a.b": {"type": "string"}, "m": {"type": "object",
            "additionalProperties": {"type": "integer"}}}}})));
    let at = |path: &str, brackets| field_at(&of, path, brackets).map(|(names, it)| (names, it.ty));
    assert_eq!(at(".spec.m.x", false).unwrap().1, Type::Integer);
    assert_eq!(at(".spec['a.b']", true).unwrap().1, Type::String);
    assert_eq!(
        at(".spec['a.b']", false),
        Err("array notation is not allowed".into())
    );
    assert_eq!(
        at(".spec.nope", false),
        Err("does not refer to a valid field".into())
    );
}

#[test]
fn schemas_that_are_not_structural_say_why() {
    let at = Path::new("s");
    let builtin = crate::custom::definition::metadata_types();
    let check = |of: Value| texts(&check::check(&at, &of, false, false, builtin));
    assert!(check(object(json!({"spec": {"type": "object"}}))).is_empty());
    for (of, text) in [
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            "s.additionalProperties: Forbidden: must not be used at the root",
        ),
        (
            object(json!({"a": {"type": "array"}})),
            "s.properties[a].items: Required value: must be specified",
        ),
        (
            object(json!({"a": {"type": "string", "anyOf": [{"type": "string"}]}})),
            "s.properties[a].anyOf[0].type: Forbidden: must be empty to be structural",
        ),
        (
            json!({"type": "object", "allOf": [{"properties": {"a": {"minimum": 1}}}]}),
            "s.properties[a]: Required value: because it is defined in s.allOf[0].properties[a]",
        ),
        (
            object(json!({"metadata": {"type": "object", "properties": {
                "labels": {"type": "object"}}}})),
            "s.properties[metadata]: Forbidden: must not specify anything other than name and \
             generateName, but metadata is implicitly specified",
        ),
        (
            object(
                json!({"a": {"type": "object", "properties": {"b": {"type": "string"}},
                "additionalProperties": {"type": "string"}}}),
            ),
            "s.properties[a].additionalProperties: Forbidden: additionalProperties and properties \
             are mutual exclusive",
        ),
        (
            object(json!({"a": {"type": "object", "default": {"x": 1}}})),
            "s.properties[a].default: Invalid value: {\"x\":1}: must not have unknown fields",
        ),
        (
            object(json!({"a": {"type": "string", "pattern": "("}})),
            "s.properties[a].pattern: Invalid value: \"(\": must be a valid regular expression",
        ),
        (
            object(json!({"a": {"type": "string", "uniqueItems": true}})),
            "s.properties[a].uniqueItems: Forbidden: uniqueItems cannot be set to true since the \
             runtime complexity becomes quadratic",
        ),
        (
            object(json!({"a": {"$ref": "#/x"}})),
            "s.properties[a].$ref: Forbidden: $ref is not supported",
        ),
        (
            object(
                json!({"a": {"type": "array", "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object",
                    "properties": {"k": {"type": "string"}}}}}),
            ),
            "s.properties[a].items.properties[k].default: Required value: this property is in \
             x-kubernetes-list-map-keys, so it must have a default or be a required property",
        ),
    ] {
        let found = check(of.clone());
        assert!(
            found.iter().any(|found| found.starts_with(text)),
            "{text}\n is not in\n{found:#?}"
        );
    }
    let good = object(json!({"a": {"x-kubernetes-int-or-string": true,
        "anyOf": [{"type": "integer"}, {"type": "string"}]}}));
    assert!(check(good).is_empty());
}
