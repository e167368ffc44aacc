//! Pod links and addresses, service routing by nftables, DNS.

pub mod dns;
pub mod ipam;
pub mod link;
pub mod netns;
pub mod nft;
pub mod service;

mod adapter;
mod announce;
mod conntrack;
#[doc(hidden)]
pub mod fuzzing;
mod health;
mod hostports;
mod netlink;
mod node;
mod watch;
#[cfg(test)]
mod world;

pub use adapter::BuiltInNetwork;
pub use netlink::NetlinkError;
pub use node::{Change, NetworkError, NodeNetwork, NodeNetworkConfig, cleanup};
pub use watch::kubernetes;

/// A socket to nftables and conntrack. It acts in the network namespace of the thread that opened
/// it, wherever it is used.
#[derive(Debug)]
pub struct Nfnetlink(pub(crate) netlink::Socket);

impl Nfnetlink {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel has no nfnetlink.
    pub fn open() -> Result<Self, NetlinkError> {
        netlink::Socket::netfilter().map(Self)
    }
}
