//! What objects of custom kinds do beyond their row: defaults and validation by their schema.

use std::sync::Arc;

use serde_json::Value;

use super::CustomType;
use crate::field::{ErrorList, FieldError, Path};
use crate::names;
use crate::object;
use crate::row::{ResourceDef, ScalePaths, Strategy};
use crate::structural::{blocks_rules, validate};

/// The largest number of replicas.
const MOST_REPLICAS: i64 = i32::MAX as i64;

pub(super) struct Objects {
    custom: Arc<CustomType>,
    scale: Option<ScalePaths>,
}

impl Objects {
    pub(super) fn new(custom: Arc<CustomType>, row: &ResourceDef) -> Self {
        Self {
            custom,
            scale: row.scale.clone(),
        }
    }

    fn replicas(&self, object: &Value, spec: bool, out: &mut ErrorList) {
        let Some(paths) = &self.scale else { return };
        let mut all = vec![&paths.status_replicas];
        if spec {
            all.insert(0, &paths.spec_replicas);
        }
        for path in all {
            let found = path
                .split('.')
                .try_fold(object, |value, name| value.get(name));
            let at = Path::new(&format!(".{path}"));
            match found.map(|value| (value, value.as_i64())) {
                None => {}
                Some((_, Some(replicas))) if replicas < 0 => out.push(FieldError::invalid(
                    &at,
                    replicas,
                    "should be a non-negative integer",
                )),
                Some((_, Some(replicas))) if replicas > MOST_REPLICAS => {
                    let wrong = format!("should be less than or equal to {MOST_REPLICAS}");
                    out.push(FieldError::invalid(&at, replicas, &wrong));
                }
                Some((_, Some(_))) => {}
                Some((value, None)) => {
                    let wrong = format!(".{path} accessor error: {value} is not an int64");
                    out.push(FieldError::invalid(&at, 0, &wrong));
                }
            }
        }
    }

    fn all(&self, new: &Value, old: Option<&Value>) -> ErrorList {
        let schema = self.custom.structural();
        let root = Path::root();
        let mut out = validate(schema, &root, new, old);
        self.replicas(new, true, &mut out);
        out.extend(schema.check_embedded(&root, new));
        out.extend(self.duplicates(new, old));
        self.rules(new, old, &mut out);
        out
    }

    /// What rules in CEL say, unless the object is too odd for them.
    fn rules(&self, new: &Value, old: Option<&Value>, out: &mut ErrorList) {
        let Some(rules) = self.custom.rules() else {
            return;
        };
        if blocks_rules(out) {
            out.push(FieldError::invalid(
                &Path::root(),
                Value::Null,
                "some validation rules were not checked because the object was invalid; correct \
                 the existing errors to complete validation",
            ));
            return;
        }
        self.custom
            .timed(|| out.extend(rules.check(self.custom.structural(), &Path::root(), new, old)));
    }

    /// What stood twice before may go on doing so.
    fn duplicates(&self, new: &Value, old: Option<&Value>) -> ErrorList {
        let schema = self.custom.structural();
        let root = Path::root();
        if old.is_some_and(|old| !schema.duplicates(&root, old).is_empty()) {
            return ErrorList::new();
        }
        schema.duplicates(&root, new)
    }
}

impl Strategy for Objects {
    fn defaults(&self, object: &mut Value) {
        let schema = self.custom.structural();
        schema.drop_nulls(object);
        schema.set_defaults(object);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        self.all(object, None)
    }

    fn validate_change(&self, new: &Value, old: &Value) -> ErrorList {
        self.all(new, Some(old))
    }

    fn validate_status(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let status = new.get("status");
        if let (Some(status), Some(schema)) = (status, self.custom.structural().field("status")) {
            let path = Path::new("status");
            out.extend(validate(schema, &path, status, old.get("status")));
        }
        self.replicas(new, false, &mut out);
        out.extend(self.duplicates(new, Some(old)));
        self.rules(new, Some(old), &mut out);
        out
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let known = old.map(object::finalizers).unwrap_or_default();
        object::finalizers(new)
            .into_iter()
            .filter(|name| !known.contains(name))
            .flat_map(finalizer)
            .collect()
    }

    fn bumps_generation(&self, new: &Value, old: &Value) -> bool {
        let other = |value: &Value| {
            let mut value = value.clone();
            object::fields(&mut value).remove("metadata");
            value
        };
        other(new) != other(old)
    }
}

/// Finalizers without a domain may meet those of others.
fn finalizer(name: &str) -> Vec<String> {
    let at = format!("metadata.finalizers: {name:?}");
    let mut out: Vec<String> = names::qualified_name(name)
        .into_iter()
        .map(|wrong| format!("{at}: {wrong}"))
        .collect();
    let standard = matches!(name, "orphan" | "foregroundDeletion" | "kubernetes");
    if !name.contains('/') && !standard {
        let more = if name.contains('.') {
            " including a path (/)"
        } else {
            ""
        };
        out.push(format!(
            "{at}: prefer a domain-qualified finalizer name{more} to avoid accidental conflicts \
             with other finalizer writers"
        ));
    }
    out
}
