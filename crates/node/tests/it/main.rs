//! The agent against a runtime without processes and an API without a server, on paused time.

mod admission;
mod certificates;
mod cluster;
mod lifecycle;
mod pod_resources;
mod probes;
mod registration;
mod spec;
mod volumes;
