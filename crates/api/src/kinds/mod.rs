//! The rows of built-in kinds, a module for each API group.
//!
//! Adding a kind is adding a row here; a strategy beside it says what the row can't.

mod rows;

pub use rows::rows;
