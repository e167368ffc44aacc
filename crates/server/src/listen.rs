//! Sockets: TLS, HTTP/1.1 and HTTP/2, and a clean end.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::door::{Door, PeerAddress};
use crate::http::without_body;

/// A client that has not finished its TLS handshake in this time is cut off.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests under way at the end get this long.
const DRAIN: Duration = Duration::from_secs(5);
/// Streams that one HTTP/2 connection may have open at once.
const STREAMS: u32 = 1000;

/// HTTP/2 as TLS names it (RFC 7301).
const HTTP_2: &[u8] = b"h2";

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
    config.alpn_protocols = vec![HTTP_2.to_vec(), b"http/1.1".to_vec()];
}

/// Serves connections until told to stop.
pub async fn serve(
    door: Arc<Door>,
    listener: TcpListener,
    tls: SharedTls,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                door.metrics().connected();
                let (door, tls) = (Arc::clone(&door), tls.load_full());
                // One of its own: a token that all share is a lock that all share.
                let stop = stop.child_token();
                connections.spawn(async move {
                    let address = PeerAddress(peer.ip());
                    if let Err(error) = connection(door, stream, address, tls, stop).await {
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
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait())
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

type Error = Box<dyn std::error::Error + Send + Sync>;

async fn connection(
    door: Arc<Door>,
    stream: TcpStream,
    address: PeerAddress,
    tls: Arc<ServerConfig>,
    stop: CancellationToken,
) -> Result<(), Error> {
    // A watcher's connection lives for hours: what was needed to shake hands should not.
    let stream = Box::pin(shake_hands(&door, stream, tls)).await?;
    converse(door, stream, address, stop).await
}

async fn shake_hands(
    door: &Door,
    stream: TcpStream,
    tls: Arc<ServerConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    let handshake = TlsAcceptor::from(tls).accept(stream);
    let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await;
    if !matches!(shaken, Ok(Ok(_))) {
        door.metrics().handshake_failed();
    }
    shaken?
}

/// Serves requests over a connection, in the protocol that was agreed on. No `async fn`: such a one
/// keeps room for each of its steps.
fn converse(
    door: Arc<Door>,
    stream: TlsStream<TcpStream>,
    address: PeerAddress,
    stop: CancellationToken,
) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> {
    let session = stream.get_ref().1;
    let peer = session.peer_certificates();
    let peer = peer.and_then(|chain| door.peer(chain)).map(Arc::new);
    let is_http2 = session.alpn_protocol() == Some(HTTP_2);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        let (door, peer) = (Arc::clone(&door), peer.clone());
        request.extensions_mut().insert(address);
        // Serving is a state of many kilobytes, which is moved when it begins: better a pointer.
        Box::pin(async move {
            let is_head = *request.method() == http::Method::HEAD;
            let answer = door.serve(request, peer.as_deref()).await;
            Ok::<_, std::convert::Infallible>(if is_head {
                without_body(answer)
            } else {
                answer
            })
        })
    });
    let stream = TokioIo::new(stream);
    if is_http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .keep_alive_interval(Some(Duration::from_secs(30)));
        let connection = Box::pin(builder.serve_connection(stream, service));
        Box::pin(to_its_end(
            connection,
            stop,
            http2::Connection::graceful_shutdown,
        ))
    } else {
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new());
        let connection = builder.serve_connection(stream, service);
        let connection = Box::pin(connection.with_upgrades());
        let last = http1::UpgradeableConnection::graceful_shutdown;
        Box::pin(to_its_end(connection, stop, last))
    }
}

/// Serves a connection until the client ends it. When we are to stop it is told so, and serves what is
/// under way.
async fn to_its_end<C: Future<Output = hyper::Result<()>>>(
    mut connection: Pin<Box<C>>,
    stop: CancellationToken,
    last: impl FnOnce(Pin<&mut C>),
) -> Result<(), Error> {
    tokio::select! {
        biased;
        ended = connection.as_mut() => return Ok(ended?),
        () = stop.cancelled() => last(connection.as_mut()),
    }
    Ok(connection.await?)
}
