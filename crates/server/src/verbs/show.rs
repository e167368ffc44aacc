//! Objects in the shape and encoding that the client asked for.

use std::sync::Arc;

use evenkeel_api::clock::SharedClock;
use evenkeel_api::kinds::{table_cells, table_columns};
use evenkeel_api::row::ResourceDef;
use evenkeel_api::{Status, cbor, object, protobuf};
use http::StatusCode;
use serde_json::{Value, json};

use super::Request;
use crate::http::{Answer, Encoding, Media, Shape, answer, full, json_bytes};
use crate::object::Object;

/// Answers one object.
pub(crate) fn show(
    request: &Request<'_>,
    code: StatusCode,
    found: &Object,
) -> Result<Answer, Status> {
    if request.media == Media::JSON {
        let mut out = Vec::with_capacity(found.bytes.len() + 48);
        found.write(&mut out);
        return Ok(json_bytes(code, out));
    }
    show_value(request, code, found.value())
}

/// Answers one object that is not in the store.
pub(crate) fn show_value(
    request: &Request<'_>,
    code: StatusCode,
    value: Value,
) -> Result<Answer, Status> {
    let shaped = match request.media.shape {
        Shape::Object | Shape::Groups => value,
        Shape::Metadata => metadata_only(&value, request.media.meta_version()),
        Shape::Table => TableStyle::new(request)?.event(&value),
    };
    encode(request, code, &shaped)
}

/// Writes a value as the client asked for it.
pub(crate) fn encode(
    request: &Request<'_>,
    code: StatusCode,
    value: &Value,
) -> Result<Answer, Status> {
    if request.media.encoding != Encoding::Json
        && let Some(trail) = &request.call.trail
    {
        trail.response_object(value);
    }
    match request.media.encoding {
        Encoding::Json => Ok(json_bytes(code, value.to_string())),
        Encoding::Pretty => {
            let bytes = serde_json::to_vec_pretty(value)
                .map_err(|error| Status::internal(format!("can't write JSON: {error}")))?;
            Ok(json_bytes(code, bytes))
        }
        Encoding::Cbor => Ok(answer(code, cbor::MEDIA_TYPE, full(cbor::encode(value)))),
        Encoding::Yaml => {
            let text = serde_saphyr::to_string(value)
                .map_err(|error| Status::internal(format!("can't write YAML: {error}")))?;
            Ok(answer(code, "application/yaml", full(text)))
        }
        Encoding::Protobuf => {
            let bytes = protobuf::encode_object(request.door.rows().schema(), value)
                .map_err(|error| Status::internal(format!("can't write protobuf: {error}")))?;
            Ok(answer(code, protobuf::MEDIA_TYPE, full(bytes)))
        }
    }
}

/// `PartialObjectMetadata` of an object, of some version.
pub(crate) fn metadata_only(value: &Value, api_version: &str) -> Value {
    json!({
        "apiVersion": api_version,
        "kind": "PartialObjectMetadata",
        "metadata": value.get("metadata").cloned().unwrap_or_default(),
    })
}

/// How much of an object a table row carries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Include {
    None,
    Metadata,
    Object,
}

/// How a kind is shown as a table.
pub(crate) struct TableStyle {
    row: Arc<ResourceDef>,
    include: Include,
    api_version: &'static str,
    clock: SharedClock,
    /// Definitions are sent once: with the first event of a watch, or with the whole table.
    definitions: Value,
}

impl TableStyle {
    pub(crate) fn new(request: &Request<'_>) -> Result<Self, Status> {
        let include = match request.call.query.get("includeObject") {
            "" | "Metadata" => Include::Metadata,
            "None" => Include::None,
            "Object" => Include::Object,
            other => {
                return Err(Status::bad_request(format!(
                    "unrecognized includeObject value: {other:?}"
                )));
            }
        };
        Ok(Self {
            row: Arc::clone(&request.row),
            include,
            api_version: request.media.meta_version(),
            clock: Arc::clone(request.door.clock()),
            definitions: definitions(&request.row),
        })
    }

    /// A table of some objects.
    pub(crate) fn table<'v>(
        &mut self,
        objects: impl IntoIterator<Item = &'v Value>,
        metadata: Value,
    ) -> Value {
        let now = self.clock.now();
        let rows: Vec<Value> = objects
            .into_iter()
            .map(|value| {
                let object = match self.include {
                    Include::None => Value::Null,
                    Include::Metadata => metadata_only(value, self.api_version),
                    Include::Object => value.clone(),
                };
                json!({"cells": table_cells(&self.row, value, now), "object": object})
            })
            .collect();
        json!({
            "kind": "Table",
            "apiVersion": self.api_version,
            "metadata": metadata,
            "columnDefinitions": std::mem::take(&mut self.definitions),
            "rows": rows,
        })
    }

    /// The table of one object, with its revision.
    pub(crate) fn event(&mut self, value: &Value) -> Value {
        let revision = object::resource_version(value).to_owned();
        self.table([value], json!({"resourceVersion": revision}))
    }
}

fn definitions(row: &ResourceDef) -> Value {
    table_columns(row)
        .iter()
        .map(|column| {
            json!({
                "name": column.name, "type": column.kind, "format": column.format,
                "priority": column.priority, "description": column.description,
            })
        })
        .collect()
}
