//! Lists of kind set and map: nothing stands in them twice.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{ListKind, Structural};
use crate::field::{ErrorList, FieldError, Path};

impl Structural {
    /// What stands twice in sets and keyed lists of an object.
    #[must_use]
    pub fn duplicates(&self, path: &Path, value: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        self.walk_lists(path, value, &mut out);
        out
    }

    fn walk_lists(&self, path: &Path, value: &Value, out: &mut ErrorList) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    if let Some(property) = self.property(name) {
                        property.walk_lists(&path.child(name), value, out);
                    } else if let Some(schema) = self.additional.schema() {
                        schema.walk_lists(&path.key(name), value, out);
                    }
                }
            }
            Value::Array(items) => {
                match self.list {
                    ListKind::Atomic => {}
                    ListKind::Set => {
                        for index in twice(items) {
                            out.push(FieldError::duplicate(
                                &path.index(index),
                                items[index].clone(),
                            ));
                        }
                    }
                    ListKind::Map => self.keyed(path, items, out),
                }
                if let Some(schema) = &self.items {
                    for (index, item) in items.iter().enumerate() {
                        schema.walk_lists(&path.index(index), item, out);
                    }
                }
            }
            _ => {}
        }
    }

    fn keyed(&self, path: &Path, items: &[Value], out: &mut ErrorList) {
        for (index, item) in items.iter().enumerate() {
            if !item.is_object() && !item.is_null() {
                let wrong = "must be an object for an array of list-type map";
                out.push(FieldError::invalid(&path.index(index), item.clone(), wrong));
                return;
            }
        }
        let keys: Vec<Value> = items.iter().map(|item| self.key_of(item)).collect();
        for index in twice(&keys) {
            out.push(FieldError::duplicate(
                &path.index(index),
                keys[index].clone(),
            ));
        }
    }

    /// The keys of an item, as an object; keys that it lacks are left out.
    #[must_use]
    pub fn key_of(&self, item: &Value) -> Value {
        let mut key = Map::new();
        for name in &self.list_keys {
            if let Some(value) = item.get(&**name) {
                key.insert(name.to_string(), value.clone());
            }
        }
        Value::Object(key)
    }
}

/// Where values stand for the second time.
fn twice(items: &[Value]) -> Vec<usize> {
    let mut seen: HashMap<String, usize> = HashMap::with_capacity(items.len());
    let mut found = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let times = seen.entry(item.to_string()).or_insert(0);
        *times += 1;
        if *times == 2 {
            found.push(index);
        }
    }
    found
}
