//! Sockets: TLS, HTTP/1.1 and HTTP/2, and a clean end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::door::{Door, PeerAddress};

/// A client that has not finished its TLS handshake in this time is cut off.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests under way at the end get this long.
const DRAIN: Duration = Duration::from_secs(5);
/// Streams that one HTTP/2 connection may have open at once.
const STREAMS: u32 = 1000;

/// TLS settings that can be exchanged while connections are served.
pub type SharedTls = Arc<ArcSwap<ServerConfig>>;

/// Makes TLS settings ready for the door: HTTP/2 first, then HTTP/1.1.
#[must_use]
pub fn shared_tls(mut config: ServerConfig) -> SharedTls {
    offer_http(&mut config);
    Arc::new(ArcSwap::from_pointee(config))
}

/// Sets the protocols that are offered.
pub fn offer_http(config: &mut ServerConfig) {
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
}

/// Serves connections until told to stop.
pub async fn serve(
    door: Arc<Door>,
    listener: TcpListener,
    tls: SharedTls,
    stop: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                door.metrics().connected();
                let (door, tls) = (Arc::clone(&door), tls.load_full());
                let watcher = graceful.watcher();
                tokio::spawn(async move {
                    let address = PeerAddress(peer.ip());
                    if let Err(error) = connection(door, stream, address, tls, watcher).await {
                        tracing::debug!(%peer, %error, "a connection ended");
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: wait for some to come back.
                tracing::warn!(%error, "can't accept connections");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::info!("ending with requests still under way");
    }
}

/// Binds the address.
///
/// # Errors
/// It is taken, or not ours.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

async fn connection(
    door: Arc<Door>,
    stream: TcpStream,
    address: PeerAddress,
    tls: Arc<ServerConfig>,
    watcher: hyper_util::server::graceful::Watcher,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let handshake = TlsAcceptor::from(tls).accept(stream);
    let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await;
    if !matches!(shaken, Ok(Ok(_))) {
        door.metrics().handshake_failed();
    }
    let stream = shaken??;
    let peer = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| door.peer(chain))
        .map(Arc::new);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        let (door, peer) = (Arc::clone(&door), peer.clone());
        request.extensions_mut().insert(address);
        // Serving is a state of many kilobytes, which is moved when it begins: better a pointer.
        Box::pin(async move {
            Ok::<_, std::convert::Infallible>(door.serve(request, peer.as_deref()).await)
        })
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .keep_alive_interval(Some(Duration::from_secs(30)));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    watcher.watch(connection.into_owned()).await
}
