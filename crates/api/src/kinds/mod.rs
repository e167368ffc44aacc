//! The rows of built-in kinds, a module for each API group.
//!
//! Adding a kind is adding a row here; a strategy beside it says what the row can't.

pub mod config;
pub mod namespace;
pub mod node;
pub mod pod;
mod rows;
pub mod service;
pub mod workloads;

pub use rows::rows;
