//! Metadata of objects inside objects (`x-kubernetes-embedded-resource`).

use serde_json::Value;

use super::Structural;
use crate::field::{ErrorList, FieldError, Path};
use crate::names;
use crate::schema::{Admission, Schema};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Brings metadata into canonical form and prunes it. The first value of a wrong type is the
/// error.
pub(super) fn settle_metadata(builtin: &Schema, metadata: &mut Value) -> Admission {
    match builtin.named(OBJECT_META) {
        Some(ty) => builtin.admit(&ty, metadata),
        None => Admission::default(),
    }
}

impl Structural {
    /// Checks types of embedded objects' identity and prunes their metadata; answers the unknown
    /// fields.
    ///
    /// # Errors
    /// The first part of a wrong type.
    pub fn settle_embedded(
        &self,
        builtin: &Schema,
        path: &Path,
        value: &mut Value,
    ) -> Result<Vec<String>, FieldError> {
        let mut unknown = Vec::new();
        self.settle_at(builtin, path, value, &mut unknown)?;
        Ok(unknown)
    }

    fn settle_at(
        &self,
        builtin: &Schema,
        path: &Path,
        value: &mut Value,
        unknown: &mut Vec<String>,
    ) -> Result<(), FieldError> {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields.iter_mut() {
                    let at = path.child(name);
                    if self.embedded
                        && matches!(name.as_str(), "apiVersion" | "kind")
                        && !value.is_string()
                    {
                        return Err(FieldError::invalid(&at, value.clone(), "must be a string"));
                    }
                    if self.embedded && name == "metadata" {
                        let found = settle_metadata(builtin, value);
                        if let Some(wrong) = found.mismatch {
                            return Err(FieldError::invalid(&at, value.clone(), &wrong));
                        }
                        unknown.extend(found.unknown.iter().map(|inner| format!("{at}.{inner}")));
                    }
                    if let Some(property) = self.property(name) {
                        property.settle_at(builtin, &at, value, unknown)?;
                    } else if let Some(schema) = self.additional.schema() {
                        schema.settle_at(builtin, &path.key(name), value, unknown)?;
                    }
                }
            }
            Value::Array(items) => {
                if let Some(schema) = &self.items {
                    for (index, item) in items.iter_mut().enumerate() {
                        schema.settle_at(builtin, &path.index(index), item, unknown)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What is wrong with the identity of embedded objects.
    #[must_use]
    pub fn check_embedded(&self, path: &Path, value: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        self.check_at(path, value, &mut out);
        out
    }

    fn check_at(&self, path: &Path, value: &Value, out: &mut ErrorList) {
        match value {
            Value::Object(fields) => {
                if self.embedded {
                    identity(path, value, out);
                }
                for (name, value) in fields {
                    if let Some(property) = self.property(name) {
                        property.check_at(&path.child(name), value, out);
                    } else if let Some(schema) = self.additional.schema() {
                        schema.check_at(&path.key(name), value, out);
                    }
                }
            }
            Value::Array(items) => {
                if let Some(schema) = &self.items {
                    for (index, item) in items.iter().enumerate() {
                        schema.check_at(&path.index(index), item, out);
                    }
                }
            }
            _ => {}
        }
    }
}

fn identity(path: &Path, value: &Value, out: &mut ErrorList) {
    let part = |name: &str, wrong: &dyn Fn(&str) -> Option<String>, out: &mut ErrorList| {
        let at = path.child(name);
        match value.get(name) {
            None => out.push(FieldError::required(&at, "")),
            Some(Value::String(text)) if text.is_empty() => {
                out.push(FieldError::invalid(&at, "", "must not be empty"));
            }
            Some(Value::String(text)) => {
                if let Some(wrong) = wrong(text) {
                    out.push(FieldError::invalid(&at, text.as_str(), &wrong));
                }
            }
            Some(other) => {
                out.push(FieldError::invalid(&at, other.clone(), "must be a string"));
            }
        }
    };
    part(
        "apiVersion",
        &|text| {
            (text.matches('/').count() > 1)
                .then(|| format!("unexpected GroupVersion string: {text}"))
        },
        out,
    );
    part(
        "kind",
        &|text| {
            let wrong = names::dns1035_label(&text.to_lowercase());
            (!wrong.is_empty()).then(|| {
                format!(
                    "may have mixed case, but should otherwise match: {}",
                    wrong.join(",")
                )
            })
        },
        out,
    );
    let name = crate::object::name(value);
    if !name.is_empty() {
        for wrong in names::path_segment(name) {
            let at = path.child("metadata").child("name");
            out.push(FieldError::invalid(&at, name, &wrong));
        }
    }
}
