//! Objects as the door takes them: by their schema, and by what their kind wants.

use std::sync::Arc;

use evenkeel_api::custom::Definition;
use evenkeel_api::row::ResourceDef;
use evenkeel_api::{Rows, json, kinds as api, object, protobuf, validation};
use evenkeel_server::object::{Head, Object};
use serde_json::{Value, json as literal};

use super::{ROWS, good, two, type_of};
use crate::Shape;

const NOW: &str = "2026-01-02T03:04:05Z";

/// What is admitted and filled stays as it is when it is admitted again.
pub(super) fn admit(input: &[u8]) -> Shape {
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

/// The row of what an object says to be.
fn row_of<'r>(rows: &'r Rows, value: &Value) -> Option<&'r Arc<ResourceDef>> {
    let api_version = object::text(value, &["apiVersion"]);
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    rows.by_kind(group, version, object::text(value, &["kind"]))
}

/// An object goes the way of a create, as far as it leads without a store.
pub(super) fn kinds(input: &[u8]) -> Shape {
    let Ok(parsed) = json::parse(input) else {
        return Shape(0);
    };
    let Some(row) = row_of(&ROWS, &parsed.value) else {
        return Shape(1);
    };
    created(&ROWS, row, parsed.value)
}

fn created(rows: &Rows, row: &ResourceDef, mut value: Value) -> Shape {
    let found = rows.admit(row, &mut value);
    if let Some(mismatch) = found.mismatch {
        return Shape::of_message(&mismatch);
    }
    if !value.is_object() {
        return Shape(2);
    }
    // Everything has metadata when it gets here; a place and a name are the door's.
    object::metadata(&mut value);
    let strategy = &row.strategy;
    strategy.defaults(&mut value);
    let mut again = value.clone();
    strategy.defaults(&mut again);
    assert_eq!(again, value, "defaults are set once");
    strategy.prepare_create(&mut value);
    strategy.prepare_creator(&mut value, &literal!({"username": "u", "groups": ["g"]}));
    strategy.prepare_at(&mut value, None, NOW);
    rows.fill(row, &mut value);
    let mut errors = validation::validate_metadata(row, &value);
    errors.extend(strategy.validate(&value));
    let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let warnings = strategy.warnings(&value, None).len().min(3);
    shown(rows, row, &value);
    if told.is_empty() {
        kept(row, &value);
        return Shape::of((3, good(&value), warnings));
    }
    Shape::of((4, Shape::of_message(&told.join(" ")), warnings))
}

/// An object that was taken may be updated as it is, and nothing happens.
fn kept(row: &ResourceDef, value: &Value) {
    let mut new = value.clone();
    row.strategy.prepare_update(&mut new, value);
    row.strategy.prepare_at(&mut new, Some(value), NOW);
    let told: Vec<String> = row
        .strategy
        .validate_change(&new, value)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(
        told.is_empty(),
        "{value} was taken and may not stay: {told:?}"
    );
    assert!(
        !row.strategy.bumps_generation(&new, value),
        "{value} became {new}"
    );
}

/// Everything that shows an object takes whatever there is.
fn shown(rows: &Rows, row: &ResourceDef, value: &Value) {
    let cells = api::table_cells(row, value, jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(
        cells.len(),
        api::table_columns(row).len(),
        "a cell for each column"
    );
    if row.custom.is_none() && row.view.is_none() {
        let mut plain = value.clone();
        object::metadata(&mut plain).remove("resourceVersion");
        let written = json::encode(&plain);
        let object = Object::read(row, written.bytes, 7).expect("what was written is read");
        let head = format!("{:?}", object.head);
        assert_eq!(
            head,
            format!("{:?}", Head::of(row, &plain)),
            "of the bytes and of the tree"
        );
    }
    let (schema, ty) = rows.shape(row);
    if row.custom.is_none() && protobuf::has_form(&row.type_name) {
        // What is no value of its type may be refused: a time that is none, a number too large.
        if let Ok(message) = protobuf::encode(schema, &ty, value) {
            let read = protobuf::decode(schema, &ty, &message).expect("what was written is read");
            let second = protobuf::encode(schema, &ty, &read).expect("and written");
            // What is empty may be written or left out.
            let again = protobuf::decode(schema, &ty, &second);
            assert_eq!(again, Ok(read), "and read as it was");
        }
    }
}

/// A definition, and an object of the kind that it defines.
pub(super) fn custom(input: &[u8]) -> Shape {
    let Some((mut definition, mut value)) = two(input) else {
        return Shape(0);
    };
    let Some(row) = ROWS.by_kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition") else {
        return Shape(1);
    };
    if let Some(mismatch) = ROWS.admit(row, &mut definition).mismatch {
        return Shape::of_message(&mismatch);
    }
    if !definition.is_object() || !value.is_object() {
        return Shape(2);
    }
    row.strategy.defaults(&mut definition);
    row.strategy.prepare_create(&mut definition);
    let errors = row.strategy.validate(&definition);
    if !errors.is_empty() {
        let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
        return Shape::of((3, Shape::of_message(&told.join(" "))));
    }
    definition["status"] = literal!({
        "acceptedNames": definition["spec"]["names"],
        "conditions": [{"type": "Established", "status": "True"}],
    });
    let stored = json::encode(&definition).bytes;
    let read = Definition::read(&definition, stored, None);
    let mut shapes = Vec::new();
    for row in read.rows() {
        let rows = ROWS.with_custom(vec![Arc::clone(row)]);
        value["apiVersion"] = row.gvk.api_version().into();
        value["kind"] = row.gvk.kind.to_string().into();
        shapes.push(created(&rows, row, value.clone()));
    }
    Shape::of((4, shapes))
}
