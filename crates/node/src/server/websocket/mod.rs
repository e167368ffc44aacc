//! WebSocket connections that carry Kubernetes channels, and those that carry SPDY.
//!
//! The connection is driven by one future, [`Driver`], polled beside the session that uses its
//! channels: when the peer goes the driver ends and the session is dropped; when the session is
//! over and has dropped its channels, the driver sends what is queued, closes with 1000 and waits
//! a little for the peer, so that the last output is not lost to a TCP reset.

mod connection;
mod frame;
pub(super) mod protocol;
#[cfg(test)]
mod tests;
mod tunnel;

pub(super) use connection::{Channel, Channels, open};
pub(super) use tunnel::tunnel;
