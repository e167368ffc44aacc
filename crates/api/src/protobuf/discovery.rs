//! The documents of discovery as messages: `APIVersions`, `APIGroup(List)` and `APIResourceList` of
//! `meta.k8s.io/v1`, and `APIGroupDiscoveryList` of `apidiscovery.k8s.io/v2`.
//!
//! They are no kinds, so they have no schema to walk: a few tables of numbers stand here instead.
//! Nothing reads them back but clients.

use serde_json::Value;

use super::encode_envelope;
use super::wire::{put_bytes, put_message, put_number};

/// How a field is written.
enum Form {
    /// One text or several.
    Text,
    Flag,
    /// One message or several.
    Message(Fields),
    /// Texts in a message of their own (`Verbs`).
    Wrapped,
}

/// The fields of a message: their numbers and names in JSON.
type Fields = &'static [(u32, &'static str, Form)];

const CIDR: Fields = &[
    (1, "clientCIDR", Form::Text),
    (2, "serverAddress", Form::Text),
];
const VERSIONS: Fields = &[
    (1, "versions", Form::Text),
    (2, "serverAddressByClientCIDRs", Form::Message(CIDR)),
];
const GROUP_VERSION: Fields = &[(1, "groupVersion", Form::Text), (2, "version", Form::Text)];
const GROUP: Fields = &[
    (1, "name", Form::Text),
    (2, "versions", Form::Message(GROUP_VERSION)),
    (3, "preferredVersion", Form::Message(GROUP_VERSION)),
    (4, "serverAddressByClientCIDRs", Form::Message(CIDR)),
];
const GROUPS: Fields = &[(1, "groups", Form::Message(GROUP))];
const RESOURCE: Fields = &[
    (1, "name", Form::Text),
    (2, "namespaced", Form::Flag),
    (3, "kind", Form::Text),
    (4, "verbs", Form::Wrapped),
    (5, "shortNames", Form::Text),
    (6, "singularName", Form::Text),
    (7, "categories", Form::Text),
    (8, "group", Form::Text),
    (9, "version", Form::Text),
    (10, "storageVersionHash", Form::Text),
];
const RESOURCES: Fields = &[
    (1, "groupVersion", Form::Text),
    (2, "resources", Form::Message(RESOURCE)),
];

const KIND: Fields = &[
    (1, "group", Form::Text),
    (2, "version", Form::Text),
    (3, "kind", Form::Text),
];
const SUBRESOURCE: Fields = &[
    (1, "subresource", Form::Text),
    (2, "responseKind", Form::Message(KIND)),
    (3, "acceptedTypes", Form::Message(KIND)),
    (4, "verbs", Form::Text),
];
const DISCOVERED: Fields = &[
    (1, "resource", Form::Text),
    (2, "responseKind", Form::Message(KIND)),
    (3, "scope", Form::Text),
    (4, "singularResource", Form::Text),
    (5, "verbs", Form::Text),
    (6, "shortNames", Form::Text),
    (7, "categories", Form::Text),
    (8, "subresources", Form::Message(SUBRESOURCE)),
];
const VERSION: Fields = &[
    (1, "version", Form::Text),
    (2, "resources", Form::Message(DISCOVERED)),
    (3, "freshness", Form::Text),
];
/// Groups are named, and have no other metadata.
const NAMED: Fields = &[(1, "name", Form::Text)];
const DISCOVERY: Fields = &[
    (1, "metadata", Form::Message(NAMED)),
    (2, "versions", Form::Message(VERSION)),
];
const DISCOVERY_LIST: Fields = &[
    (1, "metadata", Form::Message(&[])),
    (2, "items", Form::Message(DISCOVERY)),
];

/// Writes a document of discovery with its envelope; nothing for what is none.
#[must_use]
pub fn encode_discovery(document: &Value) -> Option<Vec<u8>> {
    let text = |name: &str| {
        document
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let fields = match text("kind") {
        "APIVersions" => VERSIONS,
        "APIGroup" => GROUP,
        "APIGroupList" => GROUPS,
        "APIResourceList" => RESOURCES,
        "APIGroupDiscoveryList" => DISCOVERY_LIST,
        _ => return None,
    };
    let mut raw = Vec::with_capacity(4096);
    message(&mut raw, fields, document);
    Some(encode_envelope(text("apiVersion"), text("kind"), &raw))
}

fn message(out: &mut Vec<u8>, fields: Fields, value: &Value) {
    for (number, name, form) in fields {
        let Some(found) = value.get(*name).filter(|found| !found.is_null()) else {
            continue;
        };
        if let Form::Wrapped = form {
            nested(out, *number, |out| each(out, 1, &Form::Text, found));
        } else {
            each(out, *number, form, found);
        }
    }
}

/// A value, or each of a list.
fn each(out: &mut Vec<u8>, number: u32, form: &Form, value: &Value) {
    if let Some(values) = value.as_array() {
        for value in values {
            each(out, number, form, value);
        }
        return;
    }
    match form {
        Form::Text | Form::Wrapped => {
            put_bytes(out, number, value.as_str().unwrap_or_default().as_bytes());
        }
        Form::Flag => put_number(out, number, u64::from(value.as_bool().unwrap_or_default())),
        Form::Message(fields) => nested(out, number, |out| message(out, fields, value)),
    }
}

fn nested(out: &mut Vec<u8>, number: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let written = put_message(out, number, |out| {
        write(out);
        Ok::<_, std::convert::Infallible>(())
    });
    match written {
        Ok(()) => {}
        Err(never) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::protobuf::decode_envelope;

    #[test]
    fn documents_have_the_numbers_of_their_types() {
        let list = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "g/v1",
            "resources": [{"name": "pods", "singularName": "pod", "namespaced": true,
                "kind": "Pod", "verbs": ["get"], "shortNames": ["po"]}]});
        let bytes = encode_discovery(&list).unwrap();
        let envelope = decode_envelope(&bytes).unwrap();
        assert_eq!(
            (envelope.api_version, envelope.kind),
            ("v1", "APIResourceList")
        );
        let mut expected = b"\x0a\x04g/v1\x12\x1d".to_vec();
        expected.extend_from_slice(b"\x0a\x04pods\x10\x01\x1a\x03Pod\x22\x05\x0a\x03get");
        expected.extend_from_slice(b"\x2a\x02po\x32\x03pod");
        assert_eq!(envelope.raw, expected);

        let all = json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2",
            "metadata": {}, "items": [{"metadata": {"name": "g"}, "versions": [
                {"version": "v1", "freshness": "Current", "resources": []}]}]});
        let bytes = encode_discovery(&all).unwrap();
        let raw = decode_envelope(&bytes).unwrap().raw;
        assert_eq!(
            raw,
            b"\x0a\x00\x12\x14\x0a\x03\x0a\x01g\x12\x0d\x0a\x02v1\x1a\x07Current"
        );
        assert!(encode_discovery(&json!({"kind": "Pod"})).is_none());
    }
}
