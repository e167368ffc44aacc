//! What is fed, and what is expected of it beyond not to panic.

use std::sync::LazyLock;

use evenkeel_api::patch::apply::{ManagerRequest, OneVersion, apply, track_update};
use evenkeel_api::patch::{PatchError, json_patch, merge_patch, strategic_merge_patch};
use evenkeel_api::quantity::Quantity;
use evenkeel_api::schema::{Schema, Ty};
use evenkeel_api::selector::{FieldSelector, LabelSelector};
use evenkeel_api::{Rows, cbor, cron, json, jsonpath, object, protobuf};
use evenkeel_cel::{Budget, Env, Schema as CelSchema, Type, Value as CelValue};
use serde_json::Value;

use crate::Shape;

/// Something that reads what strangers send.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its directory of seeds.
    pub name: &'static str,
    /// Reads one input.
    pub run: fn(&[u8]) -> Shape,
}

/// Everything that is fed.
pub const TARGETS: &[Target] = &[
    Target {
        name: "json",
        run: of_json,
    },
    Target {
        name: "yaml",
        run: of_yaml,
    },
    Target {
        name: "protobuf",
        run: of_protobuf,
    },
    Target {
        name: "cbor",
        run: of_cbor,
    },
    Target {
        name: "admit",
        run: of_admit,
    },
    Target {
        name: "patch-json",
        run: of_json_patch,
    },
    Target {
        name: "patch-merge",
        run: of_merge_patch,
    },
    Target {
        name: "patch-strategic",
        run: of_strategic_patch,
    },
    Target {
        name: "patch-apply",
        run: of_apply,
    },
    Target {
        name: "labels",
        run: of_labels,
    },
    Target {
        name: "fields",
        run: of_fields,
    },
    Target {
        name: "quantity",
        run: of_quantity,
    },
    Target {
        name: "jsonpath",
        run: of_jsonpath,
    },
    Target {
        name: "cron",
        run: of_cron,
    },
    Target {
        name: "cel",
        run: of_cel,
    },
];

static ROWS: LazyLock<Rows> = LazyLock::new(Rows::builtin);

/// Stands between the two documents of an input that has two.
const BETWEEN: &[u8] = b"\n---\n";

fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}

fn two(input: &[u8]) -> Option<(Value, Value)> {
    let at = input
        .windows(BETWEEN.len())
        .position(|window| window == BETWEEN)?;
    let first = json::parse(&input[..at]).ok()?.value;
    let second = json::parse(&input[at + BETWEEN.len()..]).ok()?.value;
    Some((first, second))
}

/// The names of fields and the types of values, some levels deep.
fn outline(value: &Value, depth: u8) -> u64 {
    match value {
        Value::Null => 1,
        Value::Bool(_) => 2,
        Value::Number(number) => 3 + u64::from(number.is_f64()),
        Value::String(text) => 5 + u64::from(text.is_empty()),
        Value::Array(items) if depth == 0 => 7 + u64::from(items.is_empty()),
        Value::Object(fields) if depth == 0 => 9 + u64::from(fields.is_empty()),
        Value::Array(items) => {
            let all: std::collections::BTreeSet<u64> =
                items.iter().map(|item| outline(item, depth - 1)).collect();
            Shape::of((11, all)).0
        }
        Value::Object(fields) => {
            let all: Vec<(&String, u64)> = fields
                .iter()
                .take(8)
                .map(|(name, field)| (name, outline(field, depth - 1)))
                .collect();
            Shape::of((12, all)).0
        }
    }
}

fn good(value: &Value) -> Shape {
    Shape::of((0, outline(value, 3)))
}

fn failed(error: &PatchError) -> Shape {
    // The answer must be one that can be given.
    assert!(error.status().code >= 400);
    Shape::of_message(&error.to_string())
}

/// The type of an object by what it says of itself; pods otherwise.
fn type_of(value: &Value) -> (&'static Schema, Ty) {
    let schema = ROWS.schema();
    let kind = protobuf::kind_type(
        schema,
        object::text(value, &["apiVersion"]),
        object::text(value, &["kind"]),
    );
    let pod = || schema.named("io.k8s.api.core.v1.Pod").unwrap_or(Ty::Any);
    (schema, kind.unwrap_or_else(pod))
}

fn of_json(input: &[u8]) -> Shape {
    match json::parse(input) {
        Ok(parsed) => {
            let shape = good(&parsed.value);
            if parsed.value.is_object() {
                let stored = json::encode(&parsed.value);
                assert!(
                    json::splice_point(&stored.bytes).is_some(),
                    "where the revision goes is found again"
                );
                let mut out = Vec::new();
                json::write_with_revision(&mut out, &stored.bytes, stored.splice, 7);
                let back = json::parse(&out).expect("what was written is JSON").value;
                assert_eq!(object::resource_version(&back), "7");
            }
            Shape::of((shape, parsed.duplicates.len().min(3)))
        }
        Err(error) => Shape::of_message(&error.to_string()),
    }
}

fn of_yaml(input: &[u8]) -> Shape {
    match json::parse_yaml(input) {
        Ok(parsed) => good(&parsed.value),
        Err(error) => Shape::of_message(&error.to_string()),
    }
}

fn of_protobuf(input: &[u8]) -> Shape {
    let envelope = match protobuf::decode_envelope(input) {
        Ok(envelope) => envelope,
        Err(error) => return Shape::of_message(&error.to_string()),
    };
    let schema = ROWS.schema();
    let ty = protobuf::kind_type(schema, envelope.api_version, envelope.kind)
        .or_else(|| schema.named("io.k8s.api.core.v1.Pod"))
        .unwrap_or(Ty::Any);
    match protobuf::decode(schema, &ty, envelope.raw) {
        Ok(value) => {
            let written = protobuf::encode(schema, &ty, &value).expect("what was read is written");
            let again = protobuf::decode(schema, &ty, &written).expect("and read");
            assert_eq!(again, value, "as it was");
            good(&value)
        }
        Err(error) => Shape::of_message(&error.to_string()),
    }
}

fn of_cbor(input: &[u8]) -> Shape {
    match cbor::decode(input) {
        Ok(value) => {
            assert_eq!(cbor::decode(&cbor::encode(&value)), Ok(value.clone()));
            good(&value)
        }
        Err(error) => Shape::of_message(&error.to_string()),
    }
}

/// What is admitted and filled stays as it is when it is admitted again.
fn of_admit(input: &[u8]) -> Shape {
    let Ok(parsed) = json::parse(input) else {
        return Shape(0);
    };
    let mut value = parsed.value;
    let (schema, ty) = type_of(&value);
    let found = schema.admit(&ty, &mut value);
    if let Some(mismatch) = found.mismatch {
        return Shape::of_message(&mismatch);
    }
    schema.fill(&ty, &mut value);
    let mut again = value.clone();
    let second = schema.admit(&ty, &mut again);
    assert_eq!(second.mismatch, None, "what was admitted is admitted");
    assert!(second.unknown.is_empty(), "and knows no more of strangers");
    schema.fill(&ty, &mut again);
    assert_eq!(again, value, "and stays as it is");
    Shape::of((good(&value), found.unknown.len().min(3)))
}

fn of_json_patch(input: &[u8]) -> Shape {
    let Some((document, patch)) = two(input) else {
        return Shape(0);
    };
    match json_patch(&document, &patch) {
        Ok(new) => good(&new),
        Err(error) => failed(&error),
    }
}

fn of_merge_patch(input: &[u8]) -> Shape {
    let Some((document, patch)) = two(input) else {
        return Shape(0);
    };
    match merge_patch(&document, &patch) {
        Ok(new) => {
            let again = merge_patch(&new, &patch).expect("a merge patch applies twice");
            assert_eq!(again, new, "the second time does nothing");
            good(&new)
        }
        Err(error) => failed(&error),
    }
}

fn of_strategic_patch(input: &[u8]) -> Shape {
    let Some((document, patch)) = two(input) else {
        return Shape(0);
    };
    let (schema, ty) = type_of(&document);
    match strategic_merge_patch(schema, &ty, &document, &patch) {
        Ok(new) => good(&new),
        Err(error) => failed(&error),
    }
}

/// One owner applies the first document, another the second, and the first again.
fn of_apply(input: &[u8]) -> Shape {
    let Some((first, second)) = two(input) else {
        return Shape(0);
    };
    let (schema, ty) = type_of(&first);
    let by = |manager| ManagerRequest {
        manager,
        subresource: "",
        api_version: "v1",
        now: jiff::Timestamp::UNIX_EPOCH,
        custom: None,
        versions: &OneVersion,
    };
    let made = match apply(schema, &ty, None, &first, false, &by("one")) {
        Ok(made) => made,
        Err(error) => return failed(&error),
    };
    let again = apply(schema, &ty, Some(&made), &first, false, &by("one"));
    // Who owns nothing is not recorded, so that what he applied counts as written by somebody before
    // him, as in the reference.
    let recorded = made.pointer("/metadata/managedFields").is_some();
    assert!(
        !recorded || again.as_ref().ok() == Some(&made),
        "what was applied applies again and changes nothing: {made} became {again:?}"
    );
    let mut updated = second.clone();
    let tracked = track_update(schema, &ty, Some(&made), &mut updated, &by("three"));
    assert_eq!(tracked, Ok(()), "nothing is to be converted");
    match apply(schema, &ty, Some(&made), &second, false, &by("two")) {
        Ok(both) => {
            let forced = apply(schema, &ty, Some(&both), &first, true, &by("one"));
            good(&forced.unwrap_or(both))
        }
        Err(error) => {
            let forced = apply(schema, &ty, Some(&made), &second, true, &by("two"));
            assert!(
                !matches!(forced, Err(PatchError::Conflict(_))),
                "force wins"
            );
            failed(&error)
        }
    }
}

fn of_labels(input: &[u8]) -> Shape {
    let Some(text) = text(input) else {
        return Shape(0);
    };
    match LabelSelector::parse(text) {
        Ok(selector) => {
            let all = selector.matches_with(|_| Some("a"));
            let none = selector.matches_with(|_| None);
            Shape::of((
                0,
                all,
                none,
                selector.is_everything(),
                selector.is_nothing(),
            ))
        }
        Err(error) => Shape::of_message(&error.to_string()),
    }
}

fn of_fields(input: &[u8]) -> Shape {
    let Some(text) = text(input) else {
        return Shape(0);
    };
    match FieldSelector::parse(text) {
        Ok(selector) => {
            let matches = selector.matches_with(|_| "a");
            Shape::of((0, matches, selector.terms.len().min(4)))
        }
        Err(error) => Shape::of_message(&error.to_string()),
    }
}

fn of_quantity(input: &[u8]) -> Shape {
    let Some(text) = text(input) else {
        return Shape(0);
    };
    match text.parse::<Quantity>() {
        Ok(quantity) => {
            let written = quantity.to_string();
            let again: Quantity = written.parse().expect("what was written is read");
            assert_eq!(again, quantity, "and is the same amount");
            // A binary amount written in decimal is decimal from then on.
            let settled = again.to_string();
            let once_more: Quantity = settled.parse().expect("what was written is read");
            assert_eq!(once_more.to_string(), settled, "and written the same");
            assert_eq!(again.units(), quantity.units());
            assert_eq!(again.is_negative(), quantity.is_negative());
            let none = quantity.minus(&quantity);
            assert!(
                none.is_zero(),
                "nothing is left of {written} without itself"
            );
            let suffix: String = written.chars().filter(|c| !c.is_numeric()).collect();
            Shape::of((0, suffix))
        }
        Err(error) => Shape::of_message(&error.to_string()),
    }
}

fn of_jsonpath(input: &[u8]) -> Shape {
    let Some(text) = text(input) else {
        return Shape(0);
    };
    let value = serde_json::json!({"a": [{"b": 1, "c": "x"}, {"b": 2}], "d": {"e.f": true}});
    match jsonpath::JsonPath::parse(text) {
        Ok(path) => Shape::of((0, path.find(&value).len())),
        Err(error) => Shape::of_message(&error.to_string()),
    }
}

fn of_cron(input: &[u8]) -> Shape {
    let Some(text) = text(input) else {
        return Shape(0);
    };
    match text.parse::<cron::Schedule>() {
        Ok(schedule) => {
            let now = jiff::Timestamp::UNIX_EPOCH;
            let next = schedule.next_after(now, &jiff::tz::TimeZone::UTC);
            assert!(next.is_none_or(|next| next > now), "time goes on");
            Shape::of((0, next.is_some()))
        }
        Err(error) => Shape::of_message(&error.to_string()),
    }
}

static ENV: LazyLock<Env> = LazyLock::new(|| {
    let any = || CelSchema::simple(Type::Dyn);
    Env::kubernetes()
        .with_variable("object", any())
        .with_variable("self", any())
        .with_variable("x", CelSchema::simple(Type::Int))
        .with_variable("s", CelSchema::simple(Type::String))
});

fn of_cel(input: &[u8]) -> Shape {
    let Some(text) = text(input) else {
        return Shape(0);
    };
    let program = match ENV.compile(text) {
        Ok(program) => program,
        Err(errors) => return Shape::of_message(&errors.to_string()),
    };
    let estimate = program.estimated_cost();
    let values = [
        ("object", CelValue::Int(1)),
        ("self", CelValue::Int(2)),
        ("x", CelValue::Int(3)),
        ("s", CelValue::String("a-b".into())),
    ];
    // A small budget: what costs more ends with an error, and soon.
    let mut budget = Budget::new(20_000, 20_000);
    let output = match program.evaluate(&values, &mut budget) {
        Ok(_) => Shape(0),
        Err(error) => Shape::of_message(&error.to_string()),
    };
    let cost = format!("{estimate:?}").len() / 8;
    Shape::of((0, output, format!("{:?}", program.output()), cost))
}
