//! The agent against a runtime without processes and an API without a server, on paused time.

mod cluster;
mod lifecycle;
mod probes;
mod spec;
mod volumes;
