//! Connections to a pod's own loopback, from outside its network namespace.
//!
//! A socket belongs to the namespace of the thread that made it, for good. So a thread of its own
//! enters the namespace, makes the socket and ends; the socket is connected from here. A thread of
//! the async runtime must never enter another namespace: later sockets would be made there.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use tokio::net::{TcpSocket, TcpStream};

/// Connects to `localhost:port` in the namespace (`None`: the host's), IPv4 first as kubelet's
/// runtimes do. The error names both attempts.
pub(super) async fn connect(netns: Option<&Path>, port: u16) -> io::Result<TcpStream> {
    let four = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let six = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    let first = match attempt(netns, four).await {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    attempt(netns, six).await.map_err(|second| {
        let place = netns.map_or_else(|| "host".to_owned(), |path| path.display().to_string());
        io::Error::new(
            first.kind(),
            format!(
                "failed to connect to localhost:{port} inside namespace {place:?}, \
                 IPv4: dial tcp4 {four}: connect: {first} IPv6: dial tcp6 {six}: connect: {second}"
            ),
        )
    })
}

async fn attempt(netns: Option<&Path>, address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let fd = match netns {
        None => make_socket(family)?,
        Some(path) => {
            let path = path.to_owned();
            let (done, made) = tokio::sync::oneshot::channel();
            std::thread::Builder::new()
                .name("netns-socket".to_owned())
                .spawn(move || {
                    // The receiver is only gone when the client is, and the socket goes with it.
                    drop(done.send(socket_inside(path, family)));
                })?;
            made.await
                .map_err(|_| io::Error::other("the thread that makes the socket died"))??
        }
    };
    TcpSocket::from_std_stream(fd.into()).connect(address).await
}

fn socket_inside(path: PathBuf, family: AddressFamily) -> io::Result<OwnedFd> {
    let namespace = File::open(path)?;
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    make_socket(family)
}

fn make_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    Ok(socket(family, SockType::Stream, flags, None)?)
}
