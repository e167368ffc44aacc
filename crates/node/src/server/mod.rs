//! The node's HTTPS API, as kubelet serves it on port 10250: logs, exec, attach, port-forward,
//! the pods and their figures.
//!
//! The API server tunnels the upgrade requests of kubectl and other clients to these paths
//! unchanged, so what is spoken here is what clients speak: WebSocket channels and SPDY/3.1.
//! Nothing here knows how pods are run: the agent answers through [`NodeBackend`], containers are
//! reached through [`evenkeel_runtime::Runtime`]. Nothing here trusts a caller: TLS proves client
//! certificates, and a [`Judge`] (in a cluster the API server, by [`Reviews`]) knows tokens and
//! decides about each request.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")
)]

mod authorize;
mod backend;
mod channel;
pub(crate) mod fuzzing;
pub(crate) mod logs;
mod netns;
mod port_forward;
mod query;
mod remote_command;
mod respond;
mod reviews;
mod routes;
mod sessions;
mod spdy;
#[cfg(test)]
mod tests;
mod websocket;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use authorize::{Access, Caller, Judge, MastersOnly};
pub use backend::{
    BackendError, ContainerTarget, LogSource, NodeBackend, PodTarget, PortForwardTarget, Result,
};
pub use logs::rotate;
pub use respond::Body;
pub use reviews::Reviews;

/// A client has this long to finish its TLS handshake.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// A client has this long to send the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// At shutdown, sessions have this long to end before they are dropped.
const END_WITHIN: Duration = Duration::from_secs(3);

/// Limits of streaming sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamingLimits {
    /// A connection that carries nothing for so long is closed (kubelet's
    /// `streamingConnectionIdleTimeout`).
    pub idle: Duration,
    /// A SPDY client has so long to open its streams.
    pub stream_creation: Duration,
}

impl Default for StreamingLimits {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(4 * 3600),
            stream_creation: Duration::from_secs(30),
        }
    }
}

/// The node's API. Cheap to clone; all clones share their sessions.
#[derive(Clone)]
pub struct NodeServer {
    backend: Arc<dyn NodeBackend>,
    judge: Arc<dyn Judge>,
    limits: StreamingLimits,
    sessions: TaskTracker,
    shutdown: CancellationToken,
}

impl std::fmt::Debug for NodeServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeServer")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl NodeServer {
    /// A server for a node. `shutdown` ends [`Self::serve`] and all sessions.
    pub fn new(
        backend: Arc<dyn NodeBackend>,
        judge: Arc<dyn Judge>,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            backend,
            judge,
            limits: StreamingLimits::default(),
            sessions: TaskTracker::new(),
            shutdown,
        }
    }

    /// With other limits than kubelet's.
    #[must_use]
    pub fn with_limits(mut self, limits: StreamingLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Serves HTTP/1.1 and HTTP/2 over TLS until shutdown; returns when the sessions have ended.
    ///
    /// `tls` should ask for client certificates and verify them against the cluster's CA, and let
    /// clients in without one: they may have tokens.
    pub async fn serve(&self, listener: TcpListener, tls: Arc<rustls::ServerConfig>) {
        let acceptor = TlsAcceptor::from(tls);
        loop {
            let accepted = tokio::select! {
                () = self.shutdown.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let server = self.clone();
                    let acceptor = acceptor.clone();
                    self.sessions
                        .spawn(async move { server.connection(stream, acceptor).await });
                }
                Err(error) => {
                    // Out of files, most likely: accepting again at once would spin.
                    tracing::warn!(%error, "can't accept a connection to the node's API");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        self.sessions.close();
        if tokio::time::timeout(END_WITHIN, self.sessions.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                sessions = self.sessions.len(),
                "dropping sessions that do not end"
            );
        }
    }

    async fn connection(&self, stream: TcpStream, acceptor: TlsAcceptor) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "can't set TCP_NODELAY");
        }
        let handshake = tokio::time::timeout(HANDSHAKE_WITHIN, acceptor.accept(stream));
        let stream = match handshake.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%error, "TLS handshake failed");
                return;
            }
            Err(_) => {
                tracing::debug!("TLS handshake took too long");
                return;
            }
        };
        let peer = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|chain| chain.first())
            .and_then(|certificate| Caller::from_certificate(certificate));
        let service = service_fn(|request| {
            let (server, peer) = (self.clone(), peer.clone());
            async move {
                let is_head = *request.method() == Method::HEAD;
                let response = server.handle(peer.as_ref(), request).await;
                Ok::<_, Infallible>(if is_head {
                    respond::without_body(response)
                } else {
                    response
                })
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN);
        builder.http2().timer(TokioTimer::new());
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let result = tokio::select! {
            result = &mut connection => result,
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, "a connection to the node's API ended badly");
        }
    }
}
