//! The rows of built-in kinds, a module for each group of kinds that belong together.
//!
//! Adding a kind is adding a row in `rows`; a strategy beside it says what the row can't, and
//! `columns` how it is printed.

pub mod api_services;
pub mod autoscaling;
pub mod batch;
pub mod certificates;
mod columns;
pub mod config;
pub mod devices;
pub mod disruption;
pub mod endpoints;
pub mod event;
pub mod flow_control;
pub mod limit_range;
pub mod metrics;
pub mod migration;
pub mod namespace;
pub mod networking;
pub mod node;
pub mod pod;
pub mod policies;
pub mod quota;
pub mod rbac;
pub mod reviews;
mod rows;
pub mod runtime_class;
pub mod scheduling;
pub mod service;
pub mod storage;
pub mod table;
pub mod view;
pub mod webhooks;
pub mod workloads;

pub use pod::{compute_qos, is_extended_resource, pod_limits, pod_requests};
pub use rows::rows;
pub use table::{human_duration, table_cells, table_columns};
