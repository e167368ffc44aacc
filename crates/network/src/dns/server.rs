//! Sockets of the DNS server. They are bound by the thread that starts the network, in its
//! network namespace, and served by tokio.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::answer::Resolver;

/// Questions that wait for other servers at the same time; further ones are dropped, and asked
/// again by their clients.
const WAITING: usize = 1000;
/// Open connections; further ones wait.
const CONNECTIONS: usize = 200;
/// A connection that asks nothing is closed after this.
const IDLE: Duration = Duration::from_secs(10);

/// A process that was just killed, or a child between fork and exec, may hold the port a moment.
const BIND_TRIES: u32 = 30;
const BIND_WAIT: Duration = Duration::from_millis(10);

/// Bound sockets, not yet served.
#[derive(Debug)]
pub struct DnsSockets {
    bound: Vec<(std::net::UdpSocket, std::net::TcpListener)>,
}

impl DnsSockets {
    /// Binds UDP and TCP on each address, in the calling thread's network namespace.
    ///
    /// # Errors
    /// When an address is not the host's, or its port is taken.
    pub fn bind(addresses: &[SocketAddr]) -> io::Result<Self> {
        let mut bound = Vec::new();
        for address in addresses {
            let mut tries = BIND_TRIES;
            bound.push(loop {
                match bind_one(*address) {
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {
                        tries -= 1;
                        std::thread::sleep(BIND_WAIT);
                    }
                    other => break other?,
                }
            });
        }
        Ok(Self { bound })
    }

    /// The bound addresses.
    ///
    /// # Errors
    /// When the kernel can't tell.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.bound
            .iter()
            .map(|(datagrams, _)| datagrams.local_addr())
            .collect()
    }

    /// Answers for as long as it is polled.
    ///
    /// # Errors
    /// When a socket can't be given to tokio or fails for good.
    pub async fn serve(self, resolver: Arc<Resolver>) -> io::Result<()> {
        let mut servers = JoinSet::new();
        for (datagrams, listener) in self.bound {
            let datagrams = UdpSocket::from_std(datagrams)?;
            let listener = TcpListener::from_std(listener)?;
            servers.spawn(serve_datagrams(Arc::new(datagrams), Arc::clone(&resolver)));
            servers.spawn(serve_streams(listener, Arc::clone(&resolver)));
        }
        while let Some(ended) = servers.join_next().await {
            ended.map_err(io::Error::other)??;
        }
        Ok(())
    }
}

fn bind_one(address: SocketAddr) -> io::Result<(std::net::UdpSocket, std::net::TcpListener)> {
    let datagrams = std::net::UdpSocket::bind(address)?;
    let listener = std::net::TcpListener::bind(datagrams.local_addr()?)?;
    datagrams.set_nonblocking(true)?;
    listener.set_nonblocking(true)?;
    Ok((datagrams, listener))
}

async fn serve_datagrams(socket: Arc<UdpSocket>, resolver: Arc<Resolver>) -> io::Result<()> {
    let mut waiting = JoinSet::new();
    let mut buffer = vec![0; 4096];
    loop {
        let (length, client) = tokio::select! {
            received = socket.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                // An earlier answer met a closed port; that is no fault of the socket.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error),
            },
            Some(done) = waiting.join_next() => {
                if let Err(error) = done {
                    tracing::error!(%error, "answering a DNS question");
                }
                continue;
            }
        };
        let request = &buffer[..length];
        if let Some(answer) = resolver.answer_now(request, true) {
            send(&socket, &answer, client).await;
        } else if waiting.len() < WAITING {
            let (socket, resolver) = (Arc::clone(&socket), Arc::clone(&resolver));
            let request = request.to_vec();
            waiting.spawn(async move {
                if let Some(answer) = resolver.answer(&request, true).await {
                    send(&socket, &answer, client).await;
                }
            });
        }
    }
}

async fn send(socket: &UdpSocket, answer: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(answer, client).await {
        tracing::debug!(%client, %error, "DNS answer not sent");
    }
}

async fn serve_streams(listener: TcpListener, resolver: Arc<Resolver>) -> io::Result<()> {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let slot = Arc::clone(&slots)
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, or a client that left early: others still want answers.
                tracing::debug!(%error, "DNS connection not accepted");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let resolver = Arc::clone(&resolver);
        connections.spawn(async move {
            if let Err(error) = serve_stream(stream, &resolver).await {
                tracing::debug!(%error, "DNS connection");
            }
            drop(slot);
        });
    }
}

async fn serve_stream(mut stream: TcpStream, resolver: &Resolver) -> io::Result<()> {
    loop {
        let request = timeout(IDLE, async {
            let length = stream.read_u16().await?;
            let mut buffer = vec![0; length.into()];
            stream.read_exact(&mut buffer).await?;
            Ok::<_, io::Error>(buffer)
        });
        let request = match request.await {
            Ok(Ok(request)) => request,
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(()),
        };
        let Some(answer) = resolver.answer(&request, false).await else {
            return Ok(());
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream
            .write_all(&[&length.to_be_bytes()[..], &answer].concat())
            .await?;
    }
}
