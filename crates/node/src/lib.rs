//! The agent: pod lifecycle, probes, volumes, logs, streaming and status.
pub mod server;
