//! The cluster's DNS on each node, after the specification of DNS-based service discovery
//! (kubernetes/dns, docs/specification.md).
//!
//! `index` holds what is known, changed service by service; `answer` turns a question into a
//! message; `forward` asks the host's resolvers for everything outside the cluster; `server` owns
//! the sockets. Nothing here watches the API.

mod answer;
mod forward;
mod index;
mod server;

pub use answer::{Resolver, ResolverConfig};
pub use forward::{Forwarder, Upstreams};
pub use index::{Found, Index};
pub use server::DnsSockets;

#[cfg(test)]
mod tests;
