//! Clients of the door in this process: the same pipeline as over HTTPS, without the socket.

use std::sync::Arc;

use evenkeel_server::local::Local;
use evenkeel_server::{Door, Identity};

/// A client that acts as somebody.
pub(crate) fn client(door: &Arc<Door>, identity: Identity) -> kube::Client {
    kube::Client::new(Local::new(door, identity), "default")
}

/// A client that acts as a service account of `kube-system`.
pub(crate) fn loop_client(door: &Arc<Door>, account: &str) -> kube::Client {
    client(door, Identity::service_account("kube-system", account))
}
