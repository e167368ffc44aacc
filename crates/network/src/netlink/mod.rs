//! Netlink as this crate needs it: messages are laid out here, sent and answered in `socket`, and
//! `route` speaks rtnetlink. nftables and conntrack use the same two layers.
//!
//! Blocking on purpose: an answer comes from the kernel within microseconds, a socket belongs to
//! the network namespace it was opened in, and one that is opened by a thread inside a pod's
//! namespace can be used from anywhere. Nothing here knows what a pod or a service is.

pub(crate) mod route;
#[cfg(test)]
pub(crate) mod six;
pub(crate) mod socket;
pub(crate) mod wire;

pub use socket::NetlinkError;
pub(crate) use socket::Socket;
pub(crate) use wire::{Attributes, Writer};
