//! What an object is: metadata, selectors, quantities, schema, patch, apply, validation and the
//! rows of built-in kinds.
//!
//! Everything here is pure. No tokio, no sockets, no files, no clock: the door and the loops hand
//! in what they know and get back what should be.

pub mod cbor;
pub mod clock;
pub mod cron;
pub mod custom;
pub mod devices;
pub mod expressions;
pub mod field;
pub mod json;
pub mod jsonpath;
pub mod kinds;
pub mod local_volume;
pub mod names;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod placement;
pub mod protobuf;
pub mod quantity;
pub mod row;
pub mod schema;
pub mod selector;
pub mod status;
pub mod structural;
pub mod sysctl;
pub mod usage;
pub mod validation;
mod yaml;

pub use clock::Clock;
pub use field::{ErrorList, FieldError, Path};
pub use row::{GroupVersionKind, ResourceDef, Rows, Scope, Strategy, Verb};
pub use status::Status;
