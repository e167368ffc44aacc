//! Admission: what the cluster says to a change before it is kept.
//!
//! Plugins run in a fixed order, in this process, against the caches: mutating ones before the
//! strategy prepares the object, validating ones after it. They are the reference's, by name.

mod allocate;
mod namespace;
mod node;
mod pod;

use evenkeel_api::Status;
use evenkeel_api::clock::SharedClock;
use evenkeel_api::row::{ResourceDef, Subresource};
use serde_json::Value;

pub(crate) use allocate::uses as service_uses;
pub use allocate::{Allocate, Hold};

use crate::auth::Identity;
use crate::registry::Registry;

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A changed one.
    Update,
    /// The end of one.
    Delete,
}

/// A change that asks to be admitted.
#[derive(Debug)]
pub struct Change<'c> {
    /// The kind.
    pub row: &'c ResourceDef,
    /// What is being done.
    pub operation: Operation,
    /// To which part.
    pub subresource: Option<Subresource>,
    /// By whom.
    pub identity: &'c Identity,
    /// Where.
    pub namespace: &'c str,
    /// What was there before.
    pub old: Option<&'c Value>,
    /// Nothing will be kept.
    pub dry_run: bool,
}

impl Change<'_> {
    /// Is it about a kind of the core group?
    #[must_use]
    pub fn is_core(&self, kind: &str) -> bool {
        self.row.gvk.group.is_empty() && self.row.gvk.kind == kind
    }
}

/// An admission plugin.
pub trait Plugin: Send + Sync + 'static {
    /// Changes the object, or refuses it.
    ///
    /// # Errors
    /// The refusal.
    fn mutate(&self, _: &Registry, _: &Change<'_>, _: &mut Value) -> Result<(), Status> {
        Ok(())
    }

    /// Refuses the object, or not. For a deletion the object is null and `old` is what goes.
    ///
    /// # Errors
    /// The refusal.
    fn validate(&self, _: &Registry, _: &Change<'_>, _: &Value) -> Result<(), Status> {
        Ok(())
    }
}

/// All plugins, in order.
pub struct Admission(Vec<Box<dyn Plugin>>);

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Admission")
    }
}

impl Admission {
    /// The plugins that are always on.
    #[must_use]
    pub fn standard(_clock: SharedClock) -> Self {
        Self(vec![
            Box::new(namespace::NamespaceLifecycle),
            Box::new(pod::ServiceAccount),
            Box::new(pod::DefaultTolerationSeconds),
            Box::new(pod::Priority),
            Box::new(node::TaintNodesByCondition),
            Box::new(node::NodeRestriction),
        ])
    }

    /// Runs the mutating side.
    ///
    /// # Errors
    /// The first refusal.
    pub fn mutate(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &mut Value,
    ) -> Result<(), Status> {
        self.0
            .iter()
            .try_for_each(|plugin| plugin.mutate(registry, change, object))
    }

    /// Runs the validating side.
    ///
    /// # Errors
    /// The first refusal.
    pub fn validate(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &Value,
    ) -> Result<(), Status> {
        self.0
            .iter()
            .try_for_each(|plugin| plugin.validate(registry, change, object))
    }
}
