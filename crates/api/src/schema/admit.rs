//! Decoding against a schema: wrong types are refused in the reference's words, unknown fields
//! are pruned and named, values take their canonical form.
//!
//! What Go does by decoding into a struct and encoding it again is done here on the JSON itself:
//! nulls vanish, empty values that Go would omit vanish, quantities and times are rewritten.

use serde_json::Value;

use super::{Field, Schema, Ty};
use crate::quantity::Quantity;

/// What to do with unknown and duplicate fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them and warn.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

impl FieldValidation {
    /// Reads the query parameter.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "Ignore" => Some(Self::Ignore),
            "" | "Warn" => Some(Self::Warn),
            "Strict" => Some(Self::Strict),
            _ => None,
        }
    }
}

/// What decoding found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Admission {
    /// Paths of fields that the schema does not have; they were removed.
    pub unknown: Vec<String>,
    /// The first value of a wrong type, in the words of Go's decoder. The object is unusable.
    pub mismatch: Option<String>,
}

struct Walk<'s> {
    schema: &'s Schema,
    /// Go's name of the outermost struct, for messages.
    root: String,
    found: Admission,
}

/// The way to a value, put into words only where something is wrong with it.
#[derive(Clone, Copy)]
enum Path<'p> {
    Root,
    Field(&'p Path<'p>, &'p str),
    Key(&'p Path<'p>, &'p str),
    Item(&'p Path<'p>, usize),
}

impl Path<'_> {
    fn is_root(&self) -> bool {
        matches!(self, Self::Root)
    }

    /// The object's own metadata, not that of a template in it.
    fn is_own_metadata(&self) -> bool {
        matches!(self, Self::Field(Self::Root, "metadata"))
    }

    /// With indices: `spec.containers[0].name`.
    fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, true);
        out
    }

    /// Without indices and keys of maps, as Go's decoder names it.
    fn fields(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, false);
        out
    }

    fn write(&self, out: &mut String, with_indices: bool) {
        match self {
            Self::Root => {}
            Self::Key(parent, _) if !with_indices => parent.write(out, false),
            Self::Field(parent, name) | Self::Key(parent, name) => {
                parent.write(out, with_indices);
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(name);
            }
            Self::Item(parent, index) => {
                parent.write(out, with_indices);
                if with_indices {
                    out.push_str(&format!("[{index}]"));
                }
            }
        }
    }
}

impl Schema {
    /// Checks an object against its type and brings it into canonical form.
    pub fn admit(&self, ty: &Ty, object: &mut Value) -> Admission {
        let root = self
            .definition(ty)
            .map(|d| d.short_name().to_owned())
            .unwrap_or_default();
        let mut walk = Walk {
            schema: self,
            root,
            found: Admission::default(),
        };
        walk.value_in("", ty, object, true, &Path::Root);
        walk.found
    }
}

impl Walk<'_> {
    /// Go's decoder names the innermost struct and the path of fields without indices.
    fn mismatch(&mut self, owner: &str, found: &str, wanted: &str, path: &Path<'_>) {
        if self.found.mismatch.is_some() {
            return;
        }
        let fields = path.fields();
        let owner = if owner.is_empty() {
            self.root.as_str()
        } else {
            owner
        };
        self.found.mismatch = Some(if fields.is_empty() {
            format!("json: cannot unmarshal {found} into Go value of type {wanted}")
        } else {
            format!(
                "json: cannot unmarshal {found} into Go struct field {owner}.{fields} of type {wanted}"
            )
        });
    }

    fn plain(&mut self, text: String) {
        if self.found.mismatch.is_none() {
            self.found.mismatch = Some(text);
        }
    }

    /// Walks one value. `pointer` says whether an explicit zero would be kept. Answers whether
    /// the value is empty in Go's sense.
    fn value_in(
        &mut self,
        owner: &str,
        ty: &Ty,
        value: &mut Value,
        pointer: bool,
        path: &Path<'_>,
    ) -> bool {
        match ty {
            Ty::Any => value.is_null(),
            Ty::Bool => match value {
                Value::Bool(set) => !*set && !pointer,
                other => self.wrong(owner, other, "bool", path),
            },
            Ty::Int32 | Ty::Int64 => self.integer(owner, ty, value, pointer, path),
            Ty::Number => match value {
                Value::Number(number) => number.as_f64() == Some(0.0) && !pointer,
                other => self.wrong(owner, other, "float64", path),
            },
            Ty::String => match value {
                Value::String(text) => text.is_empty() && !pointer,
                other => self.wrong(owner, other, "string", path),
            },
            Ty::Bytes => self.base64(owner, value, path),
            Ty::Time | Ty::MicroTime => self.time(owner, ty, value, path),
            Ty::Quantity => self.quantity(value),
            Ty::IntOrString => match value {
                Value::String(_) => false,
                Value::Number(number)
                    if number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) =>
                {
                    false
                }
                other => self.wrong(owner, other, "intstr.IntOrString", path),
            },
            Ty::Struct(index) => self.object(*index, owner, value, path),
            Ty::List(item) => self.list(owner, item, value, path),
            Ty::Map(item) => self.map(owner, item, value, path),
        }
    }

    fn wrong(&mut self, owner: &str, value: &Value, wanted: &str, path: &Path<'_>) -> bool {
        let found = match value {
            Value::Null => return true,
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(number) if matches!(wanted, "int32" | "int64") => {
                format!("number {number}")
            }
            Value::Number(_) => "number".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        self.mismatch(owner, &found, wanted, path);
        false
    }

    fn integer(
        &mut self,
        owner: &str,
        ty: &Ty,
        value: &Value,
        pointer: bool,
        path: &Path<'_>,
    ) -> bool {
        let wanted = if *ty == Ty::Int32 { "int32" } else { "int64" };
        match value {
            Value::Number(number) => match number.as_i64() {
                Some(n) if *ty == Ty::Int64 || i32::try_from(n).is_ok() => n == 0 && !pointer,
                _ => self.wrong(owner, value, wanted, path),
            },
            other => self.wrong(owner, other, wanted, path),
        }
    }

    fn base64(&mut self, owner: &str, value: &mut Value, path: &Path<'_>) -> bool {
        let Value::String(text) = value else {
            return self.wrong(owner, value, "[]uint8", path);
        };
        match super::go_base64::canonical(text) {
            Ok(None) => {}
            Ok(Some(canonical)) => *text = canonical,
            Err(at) => self.plain(format!("illegal base64 data at input byte {at}")),
        }
        text.is_empty()
    }

    fn time(&mut self, owner: &str, ty: &Ty, value: &mut Value, path: &Path<'_>) -> bool {
        let Value::String(text) = value else {
            return self.wrong(owner, value, "string", path);
        };
        match text.parse::<jiff::Timestamp>() {
            Ok(at) if text.contains('T') => {
                *text = if *ty == Ty::Time {
                    crate::clock::rfc3339(at)
                } else {
                    crate::clock::rfc3339_micro(at)
                };
            }
            _ => {
                let layout = if *ty == Ty::Time {
                    "2006-01-02T15:04:05Z07:00"
                } else {
                    "2006-01-02T15:04:05.000000Z07:00"
                };
                let message = format!(
                    "parsing time {text:?} as \"{layout}\": cannot parse {text:?} as \"2006\""
                );
                self.plain(message);
            }
        }
        false
    }

    fn quantity(&mut self, value: &mut Value) -> bool {
        let text = match value {
            Value::Null => return true,
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => String::new(),
        };
        match text.parse::<Quantity>() {
            Ok(quantity) => *value = Value::String(quantity.to_string()),
            Err(error) => self.plain(error.to_string()),
        }
        false
    }

    fn object(&mut self, index: usize, outer: &str, value: &mut Value, path: &Path<'_>) -> bool {
        let schema = self.schema;
        let definition = schema.get(index);
        let owner = definition.short_name();
        let Value::Object(fields) = value else {
            let wanted = go_name(&definition.name);
            return self.wrong(outer, value, &wanted, path);
        };
        let depth_one = path.is_root();
        fields.retain(|name, value| {
            let here = Path::Field(path, name);
            let Some(field) = definition.fields.get(name.as_str()) else {
                self.found.unknown.push(here.text());
                return false;
            };
            if depth_one && matches!(name.as_str(), "apiVersion" | "kind") {
                return true;
            }
            let is_either = matches!(value, Value::Null | Value::Bool(_) | Value::Object(_));
            if field.schema_or_bool && !is_either {
                self.plain("boolean or JSON schema expected".to_owned());
            }
            let empty =
                value.is_null() || self.value_in(owner, &field.ty, value, field.pointer, &here);
            // An empty list of managed fields asks to forget all owners.
            let kept = keeps_empty(field) || name == "managedFields" && path.is_own_metadata();
            !(value.is_null() || (empty && !kept))
        });
        false
    }

    fn list(&mut self, owner: &str, item: &Ty, value: &mut Value, path: &Path<'_>) -> bool {
        let Value::Array(items) = value else {
            let wanted = format!("[]{}", self.go_type(item));
            return self.wrong(owner, value, &wanted, path);
        };
        for (index, value) in items.iter_mut().enumerate() {
            if value.is_null() {
                *value = zero_item(item);
            }
            self.value_in(owner, item, value, true, &Path::Item(path, index));
        }
        items.is_empty()
    }

    fn map(&mut self, owner: &str, item: &Ty, value: &mut Value, path: &Path<'_>) -> bool {
        let Value::Object(entries) = value else {
            let wanted = format!("map[string]{}", self.go_type(item));
            return self.wrong(owner, value, &wanted, path);
        };
        for (key, value) in entries.iter_mut() {
            if value.is_null() {
                *value = zero_item(item);
            }
            self.value_in(owner, item, value, true, &Path::Key(path, key));
        }
        entries.is_empty()
    }

    fn go_type(&self, ty: &Ty) -> String {
        match ty {
            Ty::Bool => "bool".to_owned(),
            Ty::Int32 => "int32".to_owned(),
            Ty::Int64 => "int64".to_owned(),
            Ty::Number => "float64".to_owned(),
            Ty::String => "string".to_owned(),
            Ty::Bytes => "[]uint8".to_owned(),
            Ty::Time => "v1.Time".to_owned(),
            Ty::MicroTime => "v1.MicroTime".to_owned(),
            Ty::Quantity => "resource.Quantity".to_owned(),
            Ty::IntOrString => "intstr.IntOrString".to_owned(),
            Ty::Any => "interface {}".to_owned(),
            Ty::Struct(index) => go_name(&self.schema.get(*index).name),
            Ty::List(item) => format!("[]{}", self.go_type(item)),
            Ty::Map(item) => format!("map[string]{}", self.go_type(item)),
        }
    }
}

/// What null is among the items of a list or map: the zero of their type, where that is no pointer.
fn zero_item(item: &Ty) -> Value {
    match item {
        Ty::String | Ty::Bytes => Value::String(String::new()),
        Ty::Quantity => Value::String("0".to_owned()),
        Ty::Bool => Value::Bool(false),
        Ty::Int32 | Ty::Int64 | Ty::Number | Ty::IntOrString => Value::from(0),
        Ty::Struct(_) => Value::Object(serde_json::Map::new()),
        Ty::Time | Ty::MicroTime | Ty::Any | Ty::List(_) | Ty::Map(_) => Value::Null,
    }
}

/// `io.k8s.api.core.v1.Container` is `v1.Container` in Go.
fn go_name(name: &str) -> String {
    let mut parts = name.rsplit('.');
    let (kind, version) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    format!("{version}.{kind}")
}

/// Structs are kept even when empty: Go's `omitempty` never drops them, and whether the field is
/// a pointer does not change what a client sees. Lists and maps go when empty: the reference stores
/// no difference between an empty one and none, and writes null where it always writes something.
fn keeps_empty(field: &Field) -> bool {
    match field.ty {
        Ty::Struct(_) => true,
        // A time that is not set is written as null.
        Ty::Time | Ty::MicroTime | Ty::List(_) | Ty::Map(_) | Ty::Bytes => false,
        _ => field.always,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::Rows;

    /// The object as it is read, or why it can't be.
    fn read(mut object: Value) -> Result<Value, String> {
        let rows = Rows::builtin();
        let part = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
        let (api_version, kind) = (part("apiVersion"), part("kind"));
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let row = rows.by_kind(group, version, &kind).expect("a row").clone();
        let found = rows.admit(&row, &mut object);
        rows.fill(&row, &mut object);
        found.mismatch.map_or(Ok(object), Err)
    }

    #[test]
    fn keys_of_maps_are_not_named_where_go_names_fields() {
        let wrong = read(json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"labels": {"a": 1}}}));
        let said = "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string";
        assert_eq!(wrong, Err(said.to_owned()));
    }

    #[test]
    fn nulls_among_items_are_the_zeros_of_their_types() {
        let pod = read(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {},
            "spec": {"containers": [null], "securityContext": {"supplementalGroups": [1, null]},
                "overhead": {"cpu": null}, "nodeSelector": {"a": null}}}));
        let spec = pod.expect("good")["spec"].take();
        assert_eq!(spec["containers"][0]["name"], "");
        assert_eq!(spec["securityContext"]["supplementalGroups"], json!([1, 0]));
        assert_eq!(spec["overhead"], json!({"cpu": "0"}));
        assert_eq!(spec["nodeSelector"], json!({"a": ""}));
    }

    #[test]
    fn empty_lists_that_are_always_written_are_null() {
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"managedFields": []}, "rules": []});
        let role = read(role).expect("good");
        assert!(role["rules"].is_null());
        // An empty list of managed fields says something, but not in a template.
        assert_eq!(role["metadata"]["managedFields"], json!([]));
        let template = json!({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {},
            "template": {"metadata": {"managedFields": []}}});
        let template = read(template).expect("good");
        assert!(
            template["template"]["metadata"]
                .get("managedFields")
                .is_none()
        );
    }

    #[test]
    fn what_may_be_a_schema_or_a_boolean_is_nothing_else() {
        let of = |more: Value| {
            read(
                json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": {}, "spec": {"versions": [{"schema": {"openAPIV3Schema":
                    {"additionalProperties": more}}}]}}),
            )
        };
        let wrong = Err("boolean or JSON schema expected".to_owned());
        assert_eq!(of(json!("x")).map(drop), wrong);
        assert_eq!(of(json!([])).map(drop), wrong);
        assert!(of(json!(true)).is_ok() && of(json!({"type": "string"})).is_ok());
    }
}
