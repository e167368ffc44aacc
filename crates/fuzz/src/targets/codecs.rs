//! Objects as they are written.

use evenkeel_api::schema::Ty;
use evenkeel_api::{cbor, json, object, protobuf};

use super::{ROWS, good};
use crate::Shape;

pub(super) fn json(input: &[u8]) -> Shape {
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

/// What is read of YAML is written as YAML and read again as it was, and so is JSON.
pub(super) fn yaml(input: &[u8]) -> Shape {
    match json::parse_yaml(input) {
        Ok(parsed) => {
            if let Ok(written) = serde_saphyr::to_string(&parsed.value) {
                let again = json::parse_yaml(written.as_bytes());
                let again = again
                    .map(|again| again.value)
                    .map_err(|error| error.to_string());
                assert_eq!(again, Ok(parsed.value.clone()), "{written}");
            }
            good(&parsed.value)
        }
        Err(error) => Shape::of_message(&error.to_string()),
    }
}

pub(super) fn protobuf(input: &[u8]) -> Shape {
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

pub(super) fn cbor(input: &[u8]) -> Shape {
    match cbor::decode(input) {
        Ok(value) => {
            assert_eq!(cbor::decode(&cbor::encode(&value)), Ok(value.clone()));
            good(&value)
        }
        Err(error) => Shape::of_message(&error.to_string()),
    }
}
