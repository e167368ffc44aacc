//! Defaults, and nulls where there may be none.

use serde_json::Value;

use super::Structural;

impl Structural {
    /// Removes nulls that are neither allowed nor have a default; answers whether there were any.
    pub fn drop_nulls(&self, value: &mut Value) -> bool {
        drop_nulls(Some(self), value)
    }

    /// Sets defaults; answers whether any was set.
    pub fn set_defaults(&self, value: &mut Value) -> bool {
        let mut changed = false;
        match value {
            Value::Object(fields) => {
                for (name, property) in &self.properties {
                    let Some(default) = &property.default else {
                        continue;
                    };
                    let missing = match fields.get(&**name) {
                        None => true,
                        Some(found) => found.is_null() && !property.nullable,
                    };
                    if missing {
                        fields.insert(name.to_string(), (**default).clone());
                        changed = true;
                    }
                }
                for (name, value) in fields.iter_mut() {
                    match (self.property(name), self.additional.schema()) {
                        (Some(property), _) => changed |= property.set_defaults(value),
                        (None, Some(schema)) => changed |= schema.set_entry(value),
                        (None, None) => {}
                    }
                }
            }
            Value::Array(items) => {
                if let Some(schema) = &self.items {
                    for item in items.iter_mut() {
                        changed |= schema.set_entry(item);
                    }
                }
            }
            _ => {}
        }
        changed
    }

    /// An entry of a map or list: a null becomes the default, if there is one.
    fn set_entry(&self, value: &mut Value) -> bool {
        let mut changed = false;
        if value.is_null()
            && !self.nullable
            && let Some(default) = &self.default
        {
            *value = (**default).clone();
            changed = true;
        }
        changed | self.set_defaults(value)
    }
}

fn drop_nulls(schema: Option<&Structural>, value: &mut Value) -> bool {
    let mut changed = false;
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| {
                let inner = schema.and_then(|schema| schema.field(name));
                let unwanted = value.is_null()
                    && inner.is_some_and(|inner| !inner.nullable && inner.default.is_none());
                if unwanted {
                    changed = true;
                    return false;
                }
                changed |= drop_nulls(inner, value);
                true
            });
        }
        Value::Array(items) => {
            let inner = schema.and_then(|schema| schema.items.as_deref());
            for item in items.iter_mut() {
                changed |= drop_nulls(inner, item);
            }
        }
        _ => {}
    }
    changed
}
