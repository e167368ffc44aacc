//! The language's own conformance vectors, read from where `CEL_SPEC` points (a checkout of
//! google/cel-spec); without it there is nothing to run. Vectors about protobuf messages, which
//! Kubernetes' environments do not have, are counted and left out.

#![allow(clippy::unwrap_used, reason = "tests")]

mod textproto;

use std::collections::BTreeMap;

use evenkeel_cel::{Budget, Duration, Env, Key, Schema, Timestamp, Type, Value};
use textproto::Message;

/// What becomes of one vector.
enum Verdict {
    Passed,
    Skipped(&'static str),
    Failed(String),
}

#[test]
fn vectors_of_the_specification() {
    let Ok(root) = std::env::var("CEL_SPEC") else {
        return;
    };
    let mut files: Vec<_> = std::fs::read_dir(format!("{root}/tests/simple/testdata"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "textproto"))
        .collect();
    files.sort();
    let (mut passed, mut failed) = (0, 0);
    let mut skipped: BTreeMap<&str, usize> = BTreeMap::new();
    for path in files {
        let file = textproto::parse(&std::fs::read_to_string(&path).unwrap());
        let (mut here, mut bad) = (0, 0);
        for section in file.messages("section") {
            for test in section.messages("test") {
                match run(test) {
                    Verdict::Passed => here += 1,
                    Verdict::Skipped(why) => *skipped.entry(why).or_default() += 1,
                    Verdict::Failed(why) => {
                        bad += 1;
                        println!(
                            "FAILED {} {} {}: {}\n    {why}",
                            path.file_stem().unwrap().to_string_lossy(),
                            section.text("name"),
                            test.text("name"),
                            test.text("expr").replace('\n', " "),
                        );
                    }
                }
            }
        }
        println!(
            "{:30} {here} passed, {bad} failed",
            path.file_name().unwrap().to_string_lossy()
        );
        passed += here;
        failed += bad;
    }
    println!("{passed} passed, {failed} failed, skipped {skipped:?}");
    assert_eq!(failed, 0, "vectors failed");
}

const MESSAGES: [&str; 12] = [
    "TestAllTypes",
    "NestedTestAllTypes",
    "google.protobuf.Any",
    "Value{",
    "Value {",
    "google.protobuf.Struct",
    "google.protobuf.ListValue",
    "GlobalEnum",
    "proto.hasExt",
    "proto.getExt",
    "TestRequired",
    "google.protobuf.Field",
];

/// Where the reference's Go implementation, as Kubernetes sets it up, goes another way.
const DIFFERENT: [&str; 7] = [
    // Addresses that map IPv4 into IPv6 are refused.
    "ipv4_equals_ipv6",
    "ipv4_not_equals_ipv6",
    // A field of what has no fields is missing rather than wrong.
    "map_null_entry_no_such_key",
    "map_present_key_invalid_field",
    // A search that begins beyond the end finds nothing.
    "indexof_out_of_range",
    "lastindexof_out_of_range",
    // The later of two types that fit each other wins.
    "null_assignable_to_abstract_parameter_candidate",
];

fn run(test: &Message) -> Verdict {
    let expr = test.text("expr");
    if DIFFERENT.contains(&test.text("name").as_str()) {
        return Verdict::Skipped("where Kubernetes differs");
    }
    if MESSAGES.iter().any(|m| expr.contains(m))
        || test.mentions("TestAllTypes")
        || test.mentions("GlobalEnum")
    {
        return Verdict::Skipped("protobuf messages and enums");
    }
    if !test.text("container").is_empty() {
        return Verdict::Skipped("containers");
    }
    if test.text("disable_macros") == "true" {
        return Verdict::Skipped("macros off");
    }
    if expr.contains("cel.block") || expr.contains("cel.iterVar") {
        return Verdict::Skipped("cel.block");
    }
    if test.text("check_only") == "true" {
        return check_only(test);
    }
    let mut env = Env::general();
    let mut declared = Vec::new();
    for variable in test.messages("type_env") {
        if let Some(t) = variable
            .message("ident")
            .and_then(|i| i.message("type"))
            .and_then(type_of)
        {
            env = env.with_variable(variable.text("name"), Schema::simple(t));
            declared.push(variable.text("name"));
        } else {
            return Verdict::Skipped("declared functions and messages");
        }
    }
    let mut activation = BTreeMap::new();
    for binding in test.messages("bindings") {
        let key = binding.text("key");
        let value = binding
            .message("value")
            .and_then(|v| v.message("value"))
            .and_then(value_of);
        let Some(value) = value else {
            return Verdict::Skipped("protobuf messages and enums");
        };
        if !declared.contains(&key) {
            env = env.with_variable(key.clone(), Schema::dynamic());
        }
        activation.insert(key, value);
    }
    let wants_error =
        test.message("eval_error").is_some() || test.message("any_eval_errors").is_some();
    let program = match env.compile(&expr) {
        Ok(program) => program,
        Err(_) if wants_error => return Verdict::Passed,
        Err(_) if test.text("disable_check") == "true" => {
            return Verdict::Skipped("the checker off");
        }
        Err(errors) => return Verdict::Failed(errors.to_string().replace('\n', " ")),
    };
    let result = program.evaluate(&activation, &mut Budget::default());
    if wants_error {
        return match result {
            Err(_) => Verdict::Passed,
            Ok(value) => Verdict::Failed(format!("wanted an error, got {value}")),
        };
    }
    let wanted = test.message("value").or_else(|| {
        test.message("typed_result")
            .and_then(|t| t.message("result"))
    });
    let wanted = match wanted {
        Some(message) => match value_of(message) {
            Some(value) => value,
            None => return Verdict::Skipped("protobuf messages and enums"),
        },
        None => Value::Bool(true),
    };
    match result {
        Ok(value) if same(&value, &wanted) => Verdict::Passed,
        Ok(value) => Verdict::Failed(format!(
            "wanted {wanted} ({}), got {value} ({})",
            wanted.type_name(),
            value.type_name()
        )),
        Err(error) => Verdict::Failed(format!("wanted {wanted}, got the error {error}")),
    }
}

fn check_only(test: &Message) -> Verdict {
    let mut env = Env::general();
    for variable in test.messages("type_env") {
        match variable
            .message("ident")
            .and_then(|i| i.message("type"))
            .and_then(type_of)
        {
            Some(t) => env = env.with_variable(variable.text("name"), Schema::simple(t)),
            None => return Verdict::Skipped("declared functions and messages"),
        }
    }
    let wanted = test
        .message("typed_result")
        .and_then(|t| t.message("deduced_type"));
    let Some(wanted) = wanted.and_then(type_of) else {
        return Verdict::Skipped("protobuf messages and enums");
    };
    match env.compile(&test.text("expr")) {
        Ok(program) if program.output().to_string() == wanted.to_string() => Verdict::Passed,
        Ok(program) => Verdict::Failed(format!(
            "wanted the type {wanted}, got {}",
            program.output()
        )),
        Err(errors) => Verdict::Failed(errors.to_string().replace('\n', " ")),
    }
}

/// Equal, of the same type, and NaN is NaN.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Double(a), Value::Double(b)) => a == b || (a.is_nan() && b.is_nan()),
        (Value::Type(a), Value::Type(b)) => a == b,
        (a, b) => a.type_name() == b.type_name() && a == b,
    }
}

fn value_of(message: &Message) -> Option<Value> {
    let (name, field) = message.fields.first()?;
    Some(match name.as_str() {
        "null_value" => Value::Null,
        "bool_value" => Value::Bool(field.text() == "true"),
        "int64_value" => Value::Int(field.number()?),
        "uint64_value" => Value::Uint(field.text().parse().ok()?),
        "double_value" => Value::Double(match field.text().as_str() {
            "inf" | "infinity" | "Infinity" => f64::INFINITY,
            "-inf" | "-infinity" | "-Infinity" => f64::NEG_INFINITY,
            "nan" | "NaN" => f64::NAN,
            text => text.parse().ok()?,
        }),
        "string_value" => Value::from(field.text()),
        "bytes_value" => Value::Bytes(field.octets().into()),
        "type_value" => Value::Type(field.text().as_str().into()),
        "list_value" => Value::list(
            field
                .message()?
                .messages("values")
                .map(value_of)
                .collect::<Option<Vec<_>>>()?,
        ),
        "map_value" => {
            let mut map = BTreeMap::new();
            for entry in field.message()?.messages("entries") {
                let key = match value_of(entry.message("key")?)? {
                    Value::Bool(b) => Key::Bool(b),
                    Value::Int(n) => Key::Int(n),
                    Value::Uint(n) => Key::Uint(n),
                    Value::String(s) => Key::String(s),
                    _ => return None,
                };
                map.insert(key, value_of(entry.message("value")?)?);
            }
            Value::Map(map.into())
        }
        "object_value" => {
            let (name, any) = field.message()?.fields.first()?;
            let any = any.message()?;
            let seconds: i64 = any.text("seconds").parse().unwrap_or(0);
            let nanos: i64 = any.text("nanos").parse().unwrap_or(0);
            if name.ends_with("google.protobuf.Duration]") {
                Value::Duration(Duration(seconds * 1_000_000_000 + nanos))
            } else if name.ends_with("google.protobuf.Timestamp]") {
                Value::Timestamp(Timestamp::new(seconds, u32::try_from(nanos).ok()?)?)
            } else {
                return None;
            }
        }
        _ => return None,
    })
}

fn type_of(message: &Message) -> Option<Type> {
    let (name, field) = message.fields.first()?;
    Some(match (name.as_str(), field.text().as_str()) {
        ("primitive", "BOOL") => Type::Bool,
        ("primitive", "INT64") => Type::Int,
        ("primitive", "UINT64") => Type::Uint,
        ("primitive", "DOUBLE") => Type::Double,
        ("primitive", "STRING") => Type::String,
        ("primitive", "BYTES") => Type::Bytes,
        ("well_known", "TIMESTAMP") => Type::Timestamp,
        ("well_known", "DURATION") => Type::Duration,
        ("dyn", _) => Type::Dyn,
        ("null", _) => Type::Null,
        ("list_type", _) => Type::list(type_of(field.message()?.message("elem_type")?)?),
        ("map_type", _) => {
            let map = field.message()?;
            Type::map(
                type_of(map.message("key_type")?)?,
                type_of(map.message("value_type")?)?,
            )
        }
        ("abstract_type", _) => {
            let t = field.message()?;
            let params = t
                .messages("parameter_types")
                .map(type_of)
                .collect::<Option<Vec<_>>>()?;
            Type::Opaque(t.text("name").as_str().into(), params)
        }
        ("type", _) => Type::Type(type_of(field.message()?)?.into()),
        _ => return None,
    })
}
