//! The node's API against a fake agent whose containers are processes of this machine, spoken to
//! by WebSocket and SPDY clients over TLS, and by real kubectls.

pub(crate) mod fake;
mod front;
mod http_api;
mod kubectl;
mod spdy_client;
mod tls;
mod websocket_client;
