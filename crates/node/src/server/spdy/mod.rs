//! SPDY/3.1, as far as Kubernetes clients use it: what `kubectl` speaks up to 1.29 for exec and
//! attach and up to 1.30 for port-forward, and what newer ones tunnel through WebSocket for
//! port-forward.
//!
//! Ours, because no usable crate exists. `frame` is the pure codec, `headers` the compressed name
//! and value blocks, `flow` the windows, `connection` the server's side of a connection. The
//! client opens all streams; the server never pushes.

pub(super) mod connection;
pub(super) mod dictionary;
pub(super) mod flow;
pub(super) mod frame;
pub(super) mod headers;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub(super) use connection::open;
