//! The door as a client of others: webhooks of all kinds.
//!
//! What lives here is how somebody outside is reached and believed: by the address of a service's
//! endpoint or by a URL, over TLS that a CA bundle vouches for. What is said on these connections
//! belongs to whoever speaks; node agents are reached elsewhere.

mod client;
mod fetch;
mod link;
mod trust;

pub(crate) use client::Client;
pub(crate) use fetch::{Peer, Url};
pub(crate) use link::{connect, target};
pub(crate) use trust::{Trust, config as tls_config};
