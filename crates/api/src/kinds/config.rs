//! ConfigMaps, secrets and service accounts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::field::{ErrorList, FieldError, Path};
use crate::object::{self, child, fields, list_mut};
use crate::row::Strategy;
use crate::validation::{self, Cursor, text};

/// All values of a ConfigMap or secret together: 1 MiB.
const SIZE_MAX: usize = 1024 * 1024;
const SET_IMMUTABLE: &str = "field is immutable when `immutable` is set";

/// What ConfigMaps do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct ConfigMaps;

/// What secrets do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Secrets;

/// What service accounts do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServiceAccounts;

/// An annotation that is to be given up.
const ENFORCE_MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";

impl Strategy for ServiceAccounts {
    fn prepare_create(&self, object: &mut Value) {
        name_secrets_alone(object);
    }

    fn prepare_update(&self, new: &mut Value, _old: &Value) {
        name_secrets_alone(new);
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let enforced = |object: &Value| {
            let path = ["metadata", "annotations", ENFORCE_MOUNTABLE];
            object::at(object, &path).is_some()
        };
        if !enforced(new) || old.is_some_and(enforced) {
            return Vec::new();
        }
        vec![format!(
            "metadata.annotations[{ENFORCE_MOUNTABLE}]: deprecated in v1.32+; prefer separate \
             namespaces to isolate access to mounted secrets"
        )]
    }
}

/// Secrets of a service account are told by name: they are in its namespace, and nothing else counts.
fn name_secrets_alone(object: &mut Value) {
    for secret in list_mut(object, "secrets") {
        if let Value::Object(fields) = secret {
            fields.retain(|name, _| name == "name");
        }
    }
}

/// The size of base64 text when decoded.
fn decoded_len(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

fn bag(at: &Cursor<'_>, name: &str, base64: bool, out: &mut ErrorList) -> usize {
    let mut size = 0;
    for (key, value) in at.entries(name) {
        let wrong = text::config_key(key);
        if !wrong.is_empty() {
            validation::named(text::config_key, key, &at.at(name).key(key), out);
        }
        let value = value.as_str().unwrap_or_default();
        size += if base64 {
            decoded_len(value)
        } else {
            value.len()
        };
    }
    size
}

fn unchanged(new: &Cursor<'_>, old: &Cursor<'_>, bags: &[&str], out: &mut ErrorList) {
    if !old.is_true("immutable") {
        return;
    }
    if !new.is_true("immutable") {
        out.push(FieldError::forbidden(&new.at("immutable"), SET_IMMUTABLE));
    }
    for bag in bags {
        if new.raw(bag) != old.raw(bag) {
            out.push(FieldError::forbidden(&new.at(bag), SET_IMMUTABLE));
        }
    }
}

impl Strategy for ConfigMaps {
    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let at = Cursor::root(object);
        let mut size = bag(&at, "data", false, &mut out);
        for (key, _) in at.entries("data") {
            if at.raw("binaryData").get(key).is_some() {
                out.push(FieldError::invalid(
                    &at.at("data").key(key),
                    key.as_str(),
                    "duplicate of key present in binaryData",
                ));
            }
        }
        size += bag(&at, "binaryData", true, &mut out);
        if size > SIZE_MAX {
            // The reference's path for the whole object is an empty name, which prints like this.
            out.push(FieldError::too_long(&Path::new("[]"), SIZE_MAX));
        }
        out
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        unchanged(
            &Cursor::root(new),
            &Cursor::root(old),
            &["data", "binaryData"],
            &mut out,
        );
        out
    }
}

impl Strategy for Secrets {
    fn defaults(&self, object: &mut Value) {
        if let Some(Value::Object(plain)) = fields(object).remove("stringData")
            && !plain.is_empty()
        {
            let data = fields(child(object, "data"));
            for (key, value) in plain {
                let value = value.as_str().unwrap_or_default();
                data.insert(key, STANDARD.encode(value).into());
            }
        }
        let kind = object.get("type").and_then(Value::as_str).unwrap_or("");
        if kind.is_empty() {
            fields(object).insert("type".to_owned(), "Opaque".into());
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        // Clients that leave the type out mean the one that is there.
        let given = new.get("type").and_then(Value::as_str).unwrap_or("");
        if given.is_empty() {
            crate::object::set_or_remove(fields(new), "type", old.get("type").cloned());
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let at = Cursor::root(object);
        if bag(&at, "data", true, &mut out) > SIZE_MAX {
            out.push(FieldError::too_long(&at.at("data"), SIZE_MAX));
        }
        keys_of_type(&at, &mut out);
        out
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let (at, before) = (Cursor::root(new), Cursor::root(old));
        validation::immutable(at.raw("type"), before.raw("type"), &at.at("type"), &mut out);
        unchanged(&at, &before, &["data"], &mut out);
        out
    }
}

fn keys_of_type(at: &Cursor<'_>, out: &mut ErrorList) {
    let data = at.child("data");
    let mut need = |key: &str| {
        if !data.has(key) {
            out.push(FieldError::required(&data.path.key(key), ""));
        }
    };
    match at.text("type") {
        "kubernetes.io/service-account-token" => {
            let key = "kubernetes.io/service-account.name";
            let annotations = at.child("metadata").child("annotations");
            if annotations.text(key).is_empty() {
                out.push(FieldError::required(&annotations.path.key(key), ""));
            }
        }
        "kubernetes.io/dockercfg" => json_key(&data, ".dockercfg", out),
        "kubernetes.io/dockerconfigjson" => json_key(&data, ".dockerconfigjson", out),
        "kubernetes.io/basic-auth" if !data.has("username") && !data.has("password") => {
            need("username");
            need("password");
        }
        "kubernetes.io/ssh-auth" if data.text("ssh-privatekey").is_empty() => {
            out.push(FieldError::required(&data.path.key("ssh-privatekey"), ""));
        }
        "kubernetes.io/tls" => {
            need("tls.crt");
            need("tls.key");
        }
        _ => {}
    }
}

fn json_key(data: &Cursor<'_>, key: &str, out: &mut ErrorList) {
    let path = data.path.key(key);
    if !data.has(key) {
        out.push(FieldError::required(&path, ""));
        return;
    }
    let bytes = STANDARD.decode(data.text(key)).unwrap_or_default();
    let wrong = match serde_json::from_slice::<Value>(&bytes) {
        Ok(Value::Object(_)) => return,
        Ok(other) => {
            let found = match other {
                Value::Array(_) => "array",
                Value::String(_) => "string",
                Value::Bool(_) => "bool",
                Value::Null => return,
                _ => "number",
            };
            format!(
                "json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"
            )
        }
        Err(_) if bytes.is_empty() => "unexpected end of JSON input".to_owned(),
        Err(error) if error.is_eof() => "unexpected end of JSON input".to_owned(),
        Err(_) => match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(byte) if *byte != b'{' => format!(
                "invalid character {:?} looking for beginning of value",
                char::from(*byte)
            ),
            _ => "invalid character in JSON".to_owned(),
        },
    };
    out.push(FieldError::invalid(
        &path,
        "<secret contents redacted>",
        &wrong,
    ));
}
