//! A small gRPC client over HTTP/2: one call with one answer, and streams in both directions; and
//! a smaller server ([`serve`]) for calls on Unix sockets.
//!
//! What lives here: framing, metadata, statuses, connections over TCP, TLS and Unix sockets. What
//! never does: a service's messages or what its errors mean, load balancing, retries. A caller
//! that has several servers must know, of each failure, whether the server may have acted on the
//! request: that is what [`GrpcError::unsent`] answers, and why this is not hidden in layers.

mod channel;
mod dial;
mod error;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
pub mod serve;

pub use channel::{Channel, Incoming, Outgoing};
pub use dial::{Target, TlsFiles, tls_config};
pub use error::{Code, GrpcError};
