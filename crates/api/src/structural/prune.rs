//! Pruning: fields that the schema does not have are taken away and named.

use serde_json::Value;

use super::{Additional, Structural};

const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

impl Structural {
    /// Removes unknown fields of a whole object; answers their paths, sorted. What belongs to
    /// `apiVersion`, `kind` and `metadata` is left alone.
    pub fn prune_object(&self, object: &mut Value) -> Vec<String> {
        let mut walk = Walk::default();
        walk.enter(object, Some(self), true);
        walk.unknown.sort();
        walk.unknown
    }

    /// Removes unknown fields of a value.
    pub fn prune(&self, value: &mut Value) -> Vec<String> {
        let mut walk = Walk::default();
        walk.enter(value, Some(self), self.embedded);
        walk.unknown.sort();
        walk.unknown
    }
}

#[derive(Default)]
struct Walk {
    path: String,
    unknown: Vec<String>,
}

impl Walk {
    fn at<R>(&mut self, name: &str, act: impl FnOnce(&mut Self) -> R) -> R {
        let mark = self.path.len();
        if mark > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        let done = act(self);
        self.path.truncate(mark);
        done
    }

    fn item<R>(&mut self, index: usize, act: impl FnOnce(&mut Self) -> R) -> R {
        let mark = self.path.len();
        self.path.push_str(&format!("[{index}]"));
        let done = act(self);
        self.path.truncate(mark);
        done
    }

    /// `embedded` says that the value's metadata is not the schema's business.
    fn enter(&mut self, value: &mut Value, schema: Option<&Structural>, embedded: bool) {
        if schema.is_some_and(|schema| schema.preserve) {
            self.preserved(value, schema, embedded);
            return;
        }
        match value {
            Value::Object(fields) => fields.retain(|name, value| {
                let Some(schema) = schema else {
                    self.at(name, |walk| walk.unknown.push(walk.path.clone()));
                    return false;
                };
                if embedded && META.contains(&name.as_str()) {
                    return true;
                }
                let inner = match (schema.property(name), &schema.additional) {
                    (Some(property), _) => Some(property),
                    (None, Additional::Schema(additional)) => Some(&**additional),
                    (None, Additional::Bool(_)) => None,
                    (None, Additional::None) => {
                        if !META.contains(&name.as_str()) || !self.path.is_empty() {
                            self.at(name, |walk| walk.unknown.push(walk.path.clone()));
                        }
                        return false;
                    }
                };
                let embedded = inner.is_some_and(|inner| inner.embedded);
                self.at(name, |walk| walk.enter(value, inner, embedded));
                true
            }),
            Value::Array(items) => {
                let inner = schema.and_then(|schema| schema.items.as_deref());
                let embedded = inner.is_some_and(|inner| inner.embedded);
                for (index, item) in items.iter_mut().enumerate() {
                    self.item(index, |walk| walk.enter(item, inner, embedded));
                }
            }
            _ => {}
        }
    }

    /// A value whose unknown fields are kept: known ones below are pruned again.
    fn preserved(&mut self, value: &mut Value, schema: Option<&Structural>, embedded: bool) {
        let Some(schema) = schema else { return };
        match value {
            Value::Object(fields) => {
                for (name, value) in fields.iter_mut() {
                    if embedded && META.contains(&name.as_str()) {
                        continue;
                    }
                    let inner = match (schema.property(name), &schema.additional) {
                        (Some(property), _) => Some(property),
                        (None, Additional::Schema(additional)) => Some(&**additional),
                        (None, Additional::Bool(_)) => None,
                        (None, Additional::None) => continue,
                    };
                    let embedded = inner.is_some_and(|inner| inner.embedded);
                    self.at(name, |walk| walk.enter(value, inner, embedded));
                }
            }
            Value::Array(items) => {
                let inner = schema.items.as_deref();
                let embedded = inner.is_some_and(|inner| inner.embedded);
                for (index, item) in items.iter_mut().enumerate() {
                    self.item(index, |walk| walk.preserved(item, inner, embedded));
                }
            }
            _ => {}
        }
    }
}
