//! A node and its pods in network namespaces of their own, for tests. Nothing here touches the
//! machine's own links or tables: a namespace ends with the last thread, socket or file that holds
//! it, so that a test that panics leaves nothing behind.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ipnet::Ipv4Net;
use nix::sched::{CloneFlags, unshare};

use crate::netlink::Socket;
use crate::netlink::route::{self, Route, Veth};
use crate::netns::run_in;
use crate::node::{Change, NodeNetwork, NodeNetworkConfig};
use crate::service::{Endpoint, Protocol, Service, ServiceKey, ServicePort, Slice, SlicePort};

/// Runs a test as "the node": on a thread in a network namespace of its own, with loopback up.
/// Says on the terminal when it can't.
pub(crate) fn node(test: impl FnOnce() + Send) {
    if !nix::unistd::geteuid().is_root() {
        // Straight to the terminal: the test harness hides what is printed by tests that pass.
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        let line = format!("SKIPPED {name}: needs root to make network namespaces\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            route::configure(&mut Socket::route().unwrap(), &[1], &[], &[]).unwrap();
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// A network namespace that lives as long as this value.
#[derive(Debug)]
pub(crate) struct Netns(File);

impl Netns {
    pub(crate) fn new() -> Self {
        let open = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        };
        Self(std::thread::scope(|scope| {
            scope.spawn(open).join().unwrap()
        }))
    }

    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }

    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        run_in(&self.path(), work).unwrap()
    }
}

/// A connected pod.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) netns: Netns,
    pub(crate) ip: Ipv4Addr,
}

impl Pod {
    pub(crate) fn new(network: &NodeNetwork, name: &str) -> Self {
        let netns = Netns::new();
        let ip = network.attach(name, &netns.path(), &[]).unwrap();
        Self {
            name: name.to_owned(),
            netns,
            ip,
        }
    }

    /// Serves TCP and UDP on this port: answers the pod's name and the client's address.
    pub(crate) fn serve(&self, port: u16) -> Server {
        self.netns.run(|| Server::start(&self.name, port))
    }

    /// Like `ask`, from inside the pod.
    pub(crate) fn ask(&self, to: (Ipv4Addr, u16)) -> Result<Answer, ErrorKind> {
        self.netns.run(|| ask(to))
    }
}

/// What a server says: its name and who it believes to talk to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) server: String,
    pub(crate) client: IpAddr,
}

fn parse(text: &str) -> Answer {
    let (server, client) = text.split_once(' ').unwrap();
    Answer {
        server: server.to_owned(),
        client: client.parse::<SocketAddr>().unwrap().ip(),
    }
}

/// Echo servers on threads; they end when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    listener: TcpListener,
    stop: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn start(name: &str, port: u16) -> Self {
        Self::at(name, Ipv4Addr::UNSPECIFIED.into(), port)
    }

    /// At one address only.
    pub(crate) fn at(name: &str, address: IpAddr, port: u16) -> Self {
        let listener = TcpListener::bind((address, port)).unwrap();
        let datagrams = UdpSocket::bind((address, port)).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (accepting, own) = (listener.try_clone().unwrap(), name.to_owned());
        std::thread::spawn(move || {
            while let Ok((mut stream, peer)) = accepting.accept() {
                // A client that went away is no concern of the server's.
                drop(stream.write_all(format!("{own} {peer}").as_bytes()));
            }
        });
        datagrams
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let (stopped, own) = (Arc::clone(&stop), name.to_owned());
        std::thread::spawn(move || {
            let mut buffer = [0; 100];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((_, peer)) = datagrams.recv_from(&mut buffer) {
                    drop(datagrams.send_to(format!("{own} {peer}").as_bytes(), peer));
                }
            }
        });
        Self { listener, stop }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let fd = self.listener.as_raw_fd();
        nix::sys::socket::shutdown(fd, nix::sys::socket::Shutdown::Both).unwrap();
    }
}

/// Connects by TCP from the calling thread's namespace.
pub(crate) fn ask(to: impl Into<SocketAddr>) -> Result<Answer, ErrorKind> {
    let to = to.into();
    let mut stream =
        TcpStream::connect_timeout(&to, Duration::from_secs(2)).map_err(|e| e.kind())?;
    stream
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let mut text = String::new();
    stream
        .read_to_string(&mut text)
        .map_err(|error| error.kind())?;
    Ok(parse(&text))
}

/// Sends a datagram and waits for the answer.
pub(crate) fn ask_udp(socket: &UdpSocket, to: impl Into<SocketAddr>) -> Result<Answer, ErrorKind> {
    socket
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    socket
        .send_to(b"?", to.into())
        .map_err(|error| error.kind())?;
    let mut buffer = [0; 100];
    let (length, _) = socket
        .recv_from(&mut buffer)
        .map_err(|error| error.kind())?;
    Ok(parse(std::str::from_utf8(&buffer[..length]).unwrap()))
}

/// A node with its network and a directory for its state.
pub(crate) struct World {
    pub(crate) network: Arc<NodeNetwork>,
    pub(crate) state: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let network = NodeNetwork::start(config(state.path())).unwrap();
        Self { network, state }
    }

    /// As if the process ended: its sockets close, everything else stays.
    pub(crate) fn stop(self) -> tempfile::TempDir {
        self.state
    }

    pub(crate) fn pod(&self, name: &str) -> Pod {
        Pod::new(&self.network, name)
    }

    pub(crate) fn apply(&self, changes: impl IntoIterator<Item = Change>) {
        self.network.note(changes);
        self.network.sync().unwrap();
    }
}

pub(crate) fn config(state: &std::path::Path) -> NodeNetworkConfig {
    NodeNetworkConfig::new("test", "node-1", state)
}

/// A machine beside the node: 192.0.2.2, with the node as its neighbour at 192.0.2.1.
pub(crate) fn outside() -> Netns {
    let mut socket = Socket::route().unwrap();
    // The veth needs a bridge to be a port of; the node's address is on that.
    route::add_bridge(&mut socket, "lan0", "test", [2, 0, 0, 0, 0, 1], 1500).unwrap();
    let bridge = route::link(&mut socket, "lan0").unwrap().unwrap().index;
    let net = Ipv4Net::new(Ipv4Addr::new(192, 0, 2, 1), 24).unwrap();
    route::configure(&mut socket, &[], &[(bridge, net)], &[]).unwrap();
    neighbour(2)
}

/// One more machine on the link that `outside` made, at 192.0.2.LAST.
pub(crate) fn neighbour(last: u8) -> Netns {
    let machine = Netns::new();
    let net = |n| Ipv4Net::new(Ipv4Addr::new(192, 0, 2, n), 24).unwrap();
    let mut socket = Socket::route().unwrap();
    let bridge = route::link(&mut socket, "lan0").unwrap().unwrap().index;
    let veth = Veth {
        host_name: &format!("lan{last}"),
        alias: "test",
        bridge,
        mtu: 1500,
        // The bridge of the first machine is lan0; on all machines the link has that name, so
        // that an announcement names it on each.
        peer_name: if last == 2 { "eth0" } else { "lan0" },
        peer_mac: [2, 0, 0, 0, 0, last],
        peer_netns: machine.0.as_fd(),
    };
    route::add_veth(&mut socket, &veth).unwrap();
    let name = veth.peer_name.to_owned();
    machine.run(|| {
        let mut socket = Socket::route().unwrap();
        let link = route::link(&mut socket, &name).unwrap().unwrap().index;
        let way = Route {
            to: Ipv4Net::default(),
            via: Some(Ipv4Addr::new(192, 0, 2, 1)),
            device: link,
            source: None,
        };
        route::configure(&mut socket, &[1, link], &[(link, net(last))], &[way]).unwrap();
    });
    machine
}

/// A ClusterIP service `default/NAME` with one port.
pub(crate) fn service(name: &str, ip: [u8; 4], protocol: Protocol, port: u16) -> Service {
    let mut service = Service::new(ServiceKey::new("default", name));
    service.cluster_ips = vec![IpAddr::from(ip)];
    service.ports = vec![ServicePort {
        name: "main".into(),
        protocol,
        port,
        node_port: None,
    }];
    service
}

/// A slice of that service with ready endpoints.
pub(crate) fn slice(
    name: &str,
    protocol: Protocol,
    port: u16,
    ips: impl IntoIterator<Item = impl Into<IpAddr>>,
) -> Slice {
    Slice {
        name: format!("{name}-1"),
        service: ServiceKey::new("default", name),
        ports: vec![SlicePort {
            name: "main".into(),
            protocol,
            port,
        }],
        endpoints: ips.into_iter().map(endpoint).collect(),
    }
}

/// A ready endpoint on this node.
pub(crate) fn endpoint(ip: impl Into<IpAddr>) -> Endpoint {
    Endpoint {
        address: ip.into(),
        ready: true,
        serving: true,
        terminating: false,
        hostname: None,
        node: Some("node-1".into()),
        for_nodes: Vec::new(),
        for_zones: Vec::new(),
    }
}
