//! The strategy of kinds that are another form of a stored kind: every question is asked of the
//! stored form, so that both forms have one set of rules and one set of messages.

use serde_json::Value;

use crate::field::ErrorList;
use crate::object::{fields, set_or_remove};
use crate::row::{Strategy, View};

/// The rules of a stored kind, for objects in another form.
#[derive(Debug, Clone, Copy)]
pub struct Viewed<S> {
    /// The rules of the stored kind.
    pub stored: S,
    /// The ways there and back.
    pub view: View,
}

impl<S> Viewed<S> {
    fn stored(&self, object: &Value) -> Value {
        let mut stored = object.clone();
        (self.view.to_stored)(&mut stored);
        stored
    }

    fn change(&self, object: &mut Value, change: impl FnOnce(&mut Value)) {
        (self.view.to_stored)(object);
        change(object);
        (self.view.from_stored)(object);
    }
}

impl<S: Strategy> Strategy for Viewed<S> {
    fn defaults(&self, object: &mut Value) {
        self.change(object, |object| self.stored.defaults(object));
    }

    fn prepare_create(&self, object: &mut Value) {
        self.change(object, |object| self.stored.prepare_create(object));
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        let old = self.stored(old);
        self.change(new, |new| self.stored.prepare_update(new, &old));
    }

    fn prepare_status_at(&self, new: &mut Value, old: &Value, now: &str) {
        let old = self.stored(old);
        self.change(new, |new| {
            // Part of a spec may be kept in annotations, which the caller has kept already or not.
            set_or_remove(fields(new), "spec", old.get("spec").cloned());
            self.stored.prepare_status_at(new, &old, now);
        });
    }

    fn validate(&self, object: &Value) -> ErrorList {
        self.stored.validate(&self.stored(object))
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        self.stored
            .validate_update(&self.stored(new), &self.stored(old))
    }

    fn validate_change(&self, new: &Value, old: &Value) -> ErrorList {
        self.stored
            .validate_change(&self.stored(new), &self.stored(old))
    }

    fn validate_status(&self, new: &Value, old: &Value) -> ErrorList {
        self.stored
            .validate_status(&self.stored(new), &self.stored(old))
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let old = old.map(|old| self.stored(old));
        self.stored.warnings(&self.stored(new), old.as_ref())
    }

    fn bumps_generation(&self, new: &Value, old: &Value) -> bool {
        self.stored
            .bumps_generation(&self.stored(new), &self.stored(old))
    }
}
