//! The node's bridge and each pod's veth pair.
//!
//! A pod's eth0 has a /32 address and reaches everything, its neighbours on the bridge too, by
//! way of the gateway. So every packet passes the host's IP stack, where conntrack undoes service
//! translation and policy can act, whether or not the kernel has bridge netfilter or has it
//! switched on.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use ipnet::Ipv4Net;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use parking_lot::Mutex;

use crate::ipam::{Ipam, IpamError};
use crate::netlink::route::{self, Mac, Route, Veth};
use crate::netlink::{NetlinkError, Socket};

/// Name of a pod's link inside its namespace.
const POD_LINK: &str = "eth0";

/// Why a pod could not be connected or disconnected.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No address, or the lease can't be kept.
    #[error(transparent)]
    Ipam(#[from] IpamError),
    /// The kernel refused a link, address or route.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A namespace could not be opened or entered.
    #[error("network namespace {path}: {source}")]
    Netns {
        /// Where it is pinned.
        path: String,
        /// What happened.
        source: io::Error,
    },
    /// A kernel parameter could not be set.
    #[error("sysctl {name}: {source}")]
    Sysctl {
        /// Path under /proc/sys.
        name: String,
        /// What happened.
        source: io::Error,
    },
    /// The bridge's name belongs to a link of another kind.
    #[error("link {name} exists and is a {kind}, not a bridge; choose another bridge name")]
    NotABridge {
        /// The name.
        name: String,
        /// Its kind.
        kind: String,
    },
    /// The bridge belongs to another instance or another program.
    #[error("bridge {name} belongs to {alias:?}; choose another bridge name")]
    NotOurs {
        /// The name.
        name: String,
        /// Its interface alias.
        alias: String,
    },
}

/// What the bridge is to be.
#[derive(Debug, Clone)]
pub struct BridgeConfig {
    /// Interface name, at most 15 bytes.
    pub name: String,
    /// Marks our links (interface alias), so that people see whose they are.
    pub alias: String,
    /// Bytes.
    pub mtu: u32,
    /// Further addresses of the bridge: the cluster DNS address.
    pub addresses: Vec<Ipv4Addr>,
    /// Networks that the host reaches by way of the bridge: the service CIDR. Nothing answers
    /// there; the route only lets the kernel form a packet that nftables then translates.
    pub routes: Vec<Ipv4Net>,
}

/// Connects sandboxes to one bridge.
#[derive(Debug)]
pub struct PodLinks {
    socket: Mutex<Socket>,
    ipam: Ipam,
    config: BridgeConfig,
    bridge: u32,
}

impl PodLinks {
    /// Makes the bridge in the calling thread's network namespace, or adopts it.
    ///
    /// # Errors
    /// When the kernel refuses, or the name belongs to something else.
    pub fn open(config: BridgeConfig, ipam: Ipam) -> Result<Self, LinkError> {
        let mut socket = Socket::route()?;
        let gateway = ipam.gateway();
        match route::link(&mut socket, &config.name)? {
            Some(link) if link.kind != "bridge" => {
                return Err(LinkError::NotABridge {
                    name: link.name,
                    kind: link.kind,
                });
            }
            Some(link) if link.alias != config.alias => {
                return Err(LinkError::NotOurs {
                    name: link.name,
                    alias: link.alias,
                });
            }
            Some(_) => {}
            None => {
                let mac = mac(gateway.addr());
                route::add_bridge(&mut socket, &config.name, &config.alias, mac, config.mtu)?;
            }
        }
        let bridge = route::link(&mut socket, &config.name)?
            .ok_or_else(|| NetlinkError::Socket(io::ErrorKind::NotFound.into()))?
            .index;
        let mut addresses = vec![(bridge, gateway)];
        addresses.extend(
            config
                .addresses
                .iter()
                .map(|address| (bridge, (*address).into())),
        );
        let keep: Vec<_> = addresses.iter().map(|(_, address)| *address).collect();
        // The pod CIDR or the DNS address may have been another before.
        route::keep_addresses(&mut socket, bridge, &keep)?;
        let routes: Vec<_> = config
            .routes
            .iter()
            .map(|to| Route {
                to: *to,
                via: None,
                device: bridge,
                source: Some(gateway.addr()),
            })
            .collect();
        route::configure(&mut socket, &[bridge], &addresses, &routes)?;
        sysctl("net/ipv4/ip_forward", "1")?;
        // Answers to connections that the host made from 127.0.0.1 to a node port come back here;
        // nftables drops what pods themselves send to loopback addresses.
        sysctl(
            &format!("net/ipv4/conf/{}/route_localnet", config.name),
            "1",
        )?;
        // Pods always go by the gateway, which must not tell them of a shorter way: they would
        // pass by conntrack, and the message counts against the rate of ICMP errors. The value for
        // all links is or-ed with each one's own, so other links keep what they have.
        for link in ["all", &config.name] {
            sysctl(&format!("net/ipv4/conf/{link}/send_redirects"), "0")?;
        }
        Ok(Self {
            socket: Mutex::new(socket),
            ipam,
            config,
            bridge,
        })
    }

    /// The leases.
    pub fn ipam(&self) -> &Ipam {
        &self.ipam
    }

    /// Gives the namespace pinned at `netns` its link and address and answers the address. Calling
    /// it again for the same sandbox answers the same and repairs what is missing. Blocks for
    /// about a millisecond.
    ///
    /// # Errors
    /// When no address is free or the kernel refuses; a new lease is then taken back.
    pub fn attach(&self, sandbox: &str, netns: &Path) -> Result<Ipv4Addr, LinkError> {
        let address = self.ipam.lease(sandbox)?;
        if let Err(error) = self.connect(sandbox, netns, address) {
            if let Err(release) = self.detach(sandbox) {
                tracing::warn!(sandbox, error = %release, "lease kept after a failed attach");
            }
            return Err(error);
        }
        Ok(address)
    }

    /// Takes the address back. The link goes with its namespace, which is a hundred times cheaper
    /// than removing it here. Succeeds when there is nothing left to take; answers the address
    /// that was taken back.
    ///
    /// # Errors
    /// When the lease can't be removed.
    pub fn detach(&self, sandbox: &str) -> Result<Option<Ipv4Addr>, LinkError> {
        Ok(self.ipam.release(sandbox)?)
    }

    /// Packets are dropped before the kernel's link watch has noticed that a link has its carrier,
    /// and a pod whose first ARP exchange fails tries again only after a second. Newer kernels run it when
    /// they are asked for the link; older ones within a millisecond or two.
    fn wait_until_operational(&self, name: &str) -> Result<(), LinkError> {
        for _ in 0..OPERATIONAL.as_millis() / POLL.as_millis() {
            match route::link(&mut self.socket.lock(), name)? {
                Some(link) if !link.operational => {}
                _ => return Ok(()),
            }
            std::thread::sleep(POLL);
        }
        tracing::warn!(
            link = name,
            "not operational yet; its first packets may be lost"
        );
        Ok(())
    }

    fn connect(&self, sandbox: &str, netns: &Path, address: Ipv4Addr) -> Result<(), LinkError> {
        let at = |source| LinkError::Netns {
            path: netns.display().to_string(),
            source,
        };
        let file = File::open(netns).map_err(at)?;
        let gateway = self.ipam.gateway().addr();
        let host_name = host_link(sandbox);
        let veth = Veth {
            host_name: &host_name,
            alias: &self.config.alias,
            bridge: self.bridge,
            mtu: self.config.mtu,
            peer_name: POD_LINK,
            peer_mac: mac(address),
            peer_netns: file.as_fd(),
        };
        // The thread makes the pair in the host's namespace, which the socket remembers, then
        // enters the pod's.
        let work = || -> Result<(), LinkError> {
            let made = route::add_veth(&mut self.socket.lock(), &veth);
            setns(&file, CloneFlags::CLONE_NEWNET).map_err(|errno| at(errno.into()))?;
            let mut inside = Socket::route()?;
            match made {
                Ok(()) => {}
                Err(error) if error.is(Errno::EEXIST) => {
                    // Attached before; unless the pair belonged to a namespace that is gone.
                    if route::link(&mut inside, POD_LINK)?.is_none() {
                        let mut host = self.socket.lock();
                        route::delete_link(&mut host, &host_name)?;
                        route::add_veth(&mut host, &veth)?;
                    }
                }
                Err(error) => return Err(error.into()),
            }
            let link = nix::net::if_::if_nametoindex(POD_LINK).map_err(NetlinkError::from)?;
            let routes = [
                Route {
                    to: gateway.into(),
                    via: None,
                    device: link,
                    source: None,
                },
                Route {
                    to: Ipv4Net::default(),
                    via: Some(gateway),
                    device: link,
                    source: None,
                },
            ];
            let address = [(link, address.into())];
            route::configure(&mut inside, &[1, link], &address, &routes)?;
            self.wait_until_operational(&host_name)?;
            // The first port brings the bridge to life in the same way.
            self.wait_until_operational(&self.config.name)?;
            Ok(())
        };
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("pod-link".into())
                .spawn_scoped(scope, work)
                .map_err(at)?
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// Longest wait for the kernel to notice that a veth has both its ends.
const OPERATIONAL: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(1);

/// Removes the bridge, and every veth on it, from the calling thread's network namespace.
/// Addresses and routes of the bridge go with it.
///
/// # Errors
/// When the kernel refuses; what is already gone is no error.
pub fn remove_bridge(name: &str) -> Result<(), LinkError> {
    let mut socket = Socket::route()?;
    let Some(bridge) = route::link(&mut socket, name)? else {
        return Ok(());
    };
    if bridge.kind != "bridge" {
        return Err(LinkError::NotABridge {
            name: bridge.name,
            kind: bridge.kind,
        });
    }
    for port in route::links(&mut socket)? {
        if port.master == Some(bridge.index) && port.kind == "veth" {
            route::delete_link(&mut socket, &port.name)?;
        }
    }
    route::delete_link(&mut socket, name)?;
    Ok(())
}

/// Name of the host's end for a sandbox: `ekv` and 48 bits of FNV-1a over its id.
fn host_link(sandbox: &str) -> String {
    let hash = sandbox
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("ekv{:012x}", hash >> 16)
}

/// A hardware address that follows from the IP address, so that an address that is used again
/// meets no stale neighbour entry.
fn mac(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

/// Lets the kernel pass IPv6 packets on from link to link, as translated ones need it. Links that
/// learn of routers from their announcements go on doing so, which they would otherwise cease
/// (`accept_ra` 2 instead of 1; linux/Documentation/networking/ip-sysctl.rst).
///
/// What fails is told in the log: only translated IPv6 packets to other machines need it.
pub(crate) fn forward_ipv6() {
    const ALL: &str = "net/ipv6/conf/all/forwarding";
    let now = std::fs::read_to_string(format!("/proc/sys/{ALL}"));
    if now.is_ok_and(|now| now.trim() == "1") {
        return;
    }
    let links = std::fs::read_dir("/proc/sys/net/ipv6/conf");
    let names = links.into_iter().flatten().flatten();
    for name in names.filter_map(|entry| entry.file_name().into_string().ok()) {
        let setting = format!("net/ipv6/conf/{name}/accept_ra");
        let accepts = std::fs::read_to_string(format!("/proc/sys/{setting}"));
        if name != "all"
            && accepts.is_ok_and(|now| now.trim() == "1")
            && let Err(error) = sysctl(&setting, "2")
        {
            tracing::warn!(%error, "the link will not learn of IPv6 routers any more");
        }
    }
    match sysctl(ALL, "1") {
        Ok(()) => tracing::info!("IPv6 packets are passed on now: a service has IPv6 addresses"),
        Err(error) => {
            tracing::error!(%error, "services at IPv6 addresses reach no endpoint elsewhere");
        }
    }
}

fn sysctl(name: &str, value: &str) -> Result<(), LinkError> {
    let path = format!("/proc/sys/{name}");
    let error = |source| LinkError::Sysctl {
        name: name.to_owned(),
        source,
    };
    if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(error)
}
