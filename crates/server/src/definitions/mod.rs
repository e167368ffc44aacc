//! Custom kinds: which definitions there are, the rows they make, and the task that gives them
//! their conditions.
//!
//! [`Kinds`] is exchanged by the feed of the caches, so that the rows are never older than what
//! the caches show. [`run`] only talks to the door, as `system:apiserver`.

mod cleanup;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use evenkeel_api::Rows;
use evenkeel_api::custom::{Definition, GROUP, Stopwatch};
use evenkeel_api::row::ResourceDef;
use parking_lot::Mutex;

use crate::object::Object;

pub(crate) use status::{run, send};

/// Is it the kind of definitions?
pub(crate) fn is_definition(row: &ResourceDef) -> bool {
    row.gvk.kind == "CustomResourceDefinition" && row.gvk.group == GROUP
}

/// The rows that are served now.
#[derive(Debug)]
pub struct Kinds {
    current: ArcSwap<Rows>,
    definitions: Mutex<BTreeMap<String, Arc<Definition>>>,
    stopwatch: Option<Arc<dyn Stopwatch>>,
}

impl Kinds {
    /// The built-in rows, and no custom ones yet.
    #[must_use]
    pub fn new(builtin: &Rows) -> Self {
        Self {
            current: ArcSwap::from_pointee(builtin.clone()),
            definitions: Mutex::default(),
            stopwatch: None,
        }
    }

    /// With somebody who measures what rules take.
    #[must_use]
    pub fn timed_by(self, stopwatch: Arc<dyn Stopwatch>) -> Self {
        Self {
            stopwatch: Some(stopwatch),
            ..self
        }
    }

    fn put(&self, definitions: &mut BTreeMap<String, Arc<Definition>>, object: &Object) -> bool {
        put(definitions, object, self.stopwatch.as_ref())
    }

    /// The set of rows as it is now.
    #[must_use]
    pub fn rows(&self) -> Arc<Rows> {
        self.current.load_full()
    }

    /// Takes in all definitions at once: what was stored at start.
    pub fn load(&self, stored: &[Arc<Object>]) {
        let mut definitions = self.definitions.lock();
        for object in stored {
            self.put(&mut definitions, object);
        }
        self.exchange(&definitions);
    }

    /// Takes in a new or changed definition; answers whether the rows are others now.
    pub fn define(&self, object: &Object) -> bool {
        let mut definitions = self.definitions.lock();
        let changed = self.put(&mut definitions, object);
        if changed {
            self.exchange(&definitions);
        }
        changed
    }

    /// Forgets a definition; answers whether the rows are others now.
    pub fn forget(&self, name: &str) -> bool {
        let mut definitions = self.definitions.lock();
        let gone = definitions
            .remove(name)
            .is_some_and(|definition| !definition.rows().is_empty());
        if gone {
            self.exchange(&definitions);
        }
        gone
    }

    fn exchange(&self, definitions: &BTreeMap<String, Arc<Definition>>) {
        let custom: Vec<Arc<ResourceDef>> = definitions
            .values()
            .flat_map(|definition| definition.rows().iter().cloned())
            .collect();
        let next = self.current.load().with_custom(custom);
        self.current.store(Arc::new(next));
    }
}

fn put(
    definitions: &mut BTreeMap<String, Arc<Definition>>,
    object: &Object,
    stopwatch: Option<&Arc<dyn Stopwatch>>,
) -> bool {
    let name = object.head.name.to_string();
    let before = definitions.get(&name).cloned();
    let value = object.value();
    let definition = Definition::read(&value, object.bytes.clone(), before.as_deref());
    if let Some(stopwatch) = stopwatch {
        definition.timed_by(stopwatch);
    }
    let same = |before: &Definition| {
        before.rows().len() == definition.rows().len()
            && before
                .rows()
                .iter()
                .zip(definition.rows())
                .all(|(a, b)| Arc::ptr_eq(a, b))
    };
    let changed = before
        .as_deref()
        .map_or(!definition.rows().is_empty(), |it| !same(it));
    definitions.insert(name, Arc::new(definition));
    changed
}
