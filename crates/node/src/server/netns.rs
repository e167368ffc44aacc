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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use nix::sched::unshare;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A namespace with a service on its loopback, held by the thread that serves; its path and
    /// port. `None` where namespaces can't be made.
    fn namespace() -> Option<(PathBuf, u16)> {
        let (found, answer) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let made = unshare(CloneFlags::CLONE_NEWNET).is_ok()
                && std::process::Command::new("ip")
                    .args(["link", "set", "lo", "up"])
                    .status()
                    .is_ok_and(|status| status.success());
            if !made {
                return found.send(None).unwrap();
            }
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let path = format!("/proc/self/task/{}/ns/net", nix::unistd::gettid());
            found
                .send(Some((path.into(), listener.local_addr().unwrap().port())))
                .unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = [0; 4];
            stream.read_exact(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
        });
        answer.recv().unwrap()
    }

    #[tokio::test]
    async fn a_connection_reaches_the_loopback_inside_and_stays_out_elsewhere() {
        let Some((path, port)) = namespace() else {
            return eprintln!("no network namespaces without root: nothing was tested");
        };
        let before = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let error = connect(None, port)
            .await
            .expect_err("the host has no such service");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let mut stream = connect(Some(&path), port).await.unwrap();
        stream.write_all(b"ping").await.unwrap();
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"ping");
        assert_eq!(
            std::fs::read_link("/proc/thread-self/ns/net").unwrap(),
            before
        );
        let gone = connect(Some(Path::new("/nonexistent/netns")), port).await;
        assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
