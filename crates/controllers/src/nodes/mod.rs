//! Nodes: are they alive, what may run on them, and what becomes of pods when they are not.

pub mod cidr;
pub mod evict;
pub mod health;
pub mod pod_gc;
#[cfg(test)]
mod tests;
mod watchdog;
pub mod zones;

pub use cidr::run as run_cidr;
pub use evict::run as run_eviction;
pub use pod_gc::run as run_pod_gc;
pub use watchdog::run as run_health;
