//! Custom resources: CustomResourceDefinitions, and the rows and types that they make.
//!
//! [`definition`] is what a definition itself is held to, [`names`] which of its names it gets,
//! [`Definition`] a definition read as rows, and [`CustomType`] the type of one of its versions.
//! Nothing here keeps anything: the door does.

mod conditions;
mod conversion;
pub mod definition;
mod kind;
pub mod names;
mod objects;
mod spec;

pub use conditions::{condition, is_true as condition_is_true, set as set_condition};
pub use conversion::{Conversion, settle as settle_converted};
pub use kind::{CustomType, Definition, Stopwatch};
pub use spec::{API_APPROVED, approval};

/// The finalizer that holds a definition until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
/// The group of definitions.
pub const GROUP: &str = "apiextensions.k8s.io";

#[cfg(test)]
mod tests;
