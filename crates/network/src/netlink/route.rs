//! rtnetlink: links, addresses and routes (linux/rtnetlink.h, linux/if_link.h).

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::Ipv4Net;
use nix::errno::Errno;

use super::socket::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkError,
    Requests, Socket, attributes, interface_index,
};
use super::wire::{Attributes, Writer, u32_at};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
const VETH_INFO_PEER: u16 = 1;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;

const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 8;
const IFF_NOARP: u32 = 0x80;
const IF_OPER_UP: u8 = 6;
/// `struct ifinfomsg`.
const IFINFO: usize = 16;

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// What is known of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Index of the bridge it is a port of.
    pub(crate) master: Option<u32>,
    /// `bridge`, `veth` …; empty for hardware.
    pub(crate) kind: String,
    /// A note that whoever made it left; empty for none.
    pub(crate) alias: String,
    /// Its hardware address, where it is up and speaks ARP.
    pub(crate) mac: Option<Mac>,
    /// It is up, its other end too, and the kernel has acted on that.
    pub(crate) operational: bool,
}

/// A veth pair to make.
#[derive(Debug)]
pub(crate) struct Veth<'a> {
    pub(crate) host_name: &'a str,
    pub(crate) alias: &'a str,
    /// Index of the bridge that gets the host's end.
    pub(crate) bridge: u32,
    pub(crate) mtu: u32,
    pub(crate) peer_name: &'a str,
    pub(crate) peer_mac: Mac,
    pub(crate) peer_netns: BorrowedFd<'a>,
}

fn ifinfo(index: u32, flags: u32, change: u32) -> [u8; IFINFO] {
    let mut out = [0; IFINFO];
    out[4..8].copy_from_slice(&index.to_ne_bytes());
    out[8..12].copy_from_slice(&flags.to_ne_bytes());
    out[12..].copy_from_slice(&change.to_ne_bytes());
    out
}

/// The link of this name, if there is one.
pub(crate) fn link(socket: &mut Socket, name: &str) -> Result<Option<Link>, NetlinkError> {
    let sequence = socket.next_sequence();
    let mut writer = Writer::default();
    writer.begin(RTM_GETLINK, NLM_F_REQUEST | NLM_F_ACK, sequence);
    writer.raw(&ifinfo(0, 0, 0));
    writer.string(IFLA_IFNAME, name);
    writer.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    writer.finish();
    let mut found = None;
    let label = format!("link {name}");
    match socket.query(&label, &writer, sequence, |_, payload| {
        found = parse_link(payload)
    }) {
        Err(error) if error.is(Errno::ENODEV) => Ok(None),
        Err(error) => Err(error),
        Ok(()) => Ok(found),
    }
}

/// All links of the namespace.
pub(crate) fn links(socket: &mut Socket) -> Result<Vec<Link>, NetlinkError> {
    let sequence = socket.next_sequence();
    let mut writer = Writer::default();
    writer.begin(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, sequence);
    writer.raw(&ifinfo(0, 0, 0));
    writer.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    writer.finish();
    let mut found = Vec::new();
    socket.query("links", &writer, sequence, |_, payload| {
        found.extend(parse_link(payload))
    })?;
    Ok(found)
}

fn parse_link(payload: &[u8]) -> Option<Link> {
    let text = |value: &[u8]| {
        String::from_utf8_lossy(value)
            .trim_end_matches('\0')
            .to_owned()
    };
    let all = attributes(payload, IFINFO);
    let flags = u32_at(payload, 8)?;
    Some(Link {
        index: interface_index(payload)?,
        name: text(all.find(IFLA_IFNAME)?),
        master: all.find(IFLA_MASTER).and_then(|value| u32_at(value, 0)),
        kind: all
            .find(IFLA_LINKINFO)
            .and_then(|info| Attributes(info).find(IFLA_INFO_KIND))
            .map(text)
            .unwrap_or_default(),
        alias: all.find(IFLA_IFALIAS).map(text).unwrap_or_default(),
        mac: all
            .find(IFLA_ADDRESS)
            .and_then(|value| Mac::try_from(value).ok())
            .filter(|_| flags & (IFF_UP | IFF_LOOPBACK | IFF_NOARP) == IFF_UP),
        operational: all.find(IFLA_OPERSTATE) == Some(&[IF_OPER_UP]),
    })
}

/// Makes a bridge, up. Fails with EEXIST when the name is taken.
pub(crate) fn add_bridge(
    socket: &mut Socket,
    name: &str,
    alias: &str,
    mac: Mac,
    mtu: u32,
) -> Result<(), NetlinkError> {
    let mut requests = Requests::default();
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    requests.add(socket, format!("bridge {name}"), RTM_NEWLINK, flags, |w| {
        w.raw(&ifinfo(0, IFF_UP, IFF_UP));
        w.string(IFLA_IFNAME, name);
        w.attribute(IFLA_ADDRESS, &mac);
        w.u32(IFLA_MTU, mtu);
        w.nest(IFLA_LINKINFO, |w| w.string(IFLA_INFO_KIND, "bridge"));
    });
    // The kernel ignores an alias while it makes a link.
    requests.add(socket, format!("alias of {name}"), RTM_NEWLINK, 0, |w| {
        w.raw(&ifinfo(0, 0, 0));
        w.string(IFLA_IFNAME, name);
        w.attribute(IFLA_IFALIAS, alias.as_bytes());
    });
    socket.transact(requests)
}

/// Makes a veth pair in one step: the host's end up, on the bridge and in hairpin mode, the other
/// end down in its namespace. Fails with EEXIST when either name is taken.
pub(crate) fn add_veth(socket: &mut Socket, veth: &Veth<'_>) -> Result<(), NetlinkError> {
    let mut requests = Requests::default();
    let label = format!("veth {} with {}", veth.host_name, veth.peer_name);
    requests.add(socket, label, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, |w| {
        w.raw(&ifinfo(0, IFF_UP, IFF_UP));
        w.string(IFLA_IFNAME, veth.host_name);
        w.u32(IFLA_MTU, veth.mtu);
        w.u32(IFLA_MASTER, veth.bridge);
        w.nest(IFLA_LINKINFO, |w| {
            w.string(IFLA_INFO_KIND, "veth");
            w.nest(IFLA_INFO_DATA, |w| {
                w.nest(VETH_INFO_PEER, |w| {
                    // Not up yet: the kernel makes this end first, and it has no peer then.
                    w.raw(&ifinfo(0, 0, 0));
                    w.string(IFLA_IFNAME, veth.peer_name);
                    w.attribute(IFLA_ADDRESS, &veth.peer_mac);
                    w.u32(IFLA_MTU, veth.mtu);
                    w.attribute(IFLA_NET_NS_FD, &veth.peer_netns.as_raw_fd().to_ne_bytes());
                });
            });
        });
    });
    requests.add(
        socket,
        format!("hairpin mode of {}", veth.host_name),
        RTM_NEWLINK,
        0,
        |w| {
            w.raw(&ifinfo(0, 0, 0));
            w.string(IFLA_IFNAME, veth.host_name);
            w.attribute(IFLA_IFALIAS, veth.alias.as_bytes());
            w.nest(IFLA_LINKINFO, |w| {
                w.string(IFLA_INFO_SLAVE_KIND, "bridge");
                w.nest(IFLA_INFO_SLAVE_DATA, |w| {
                    w.attribute(IFLA_BRPORT_MODE, &[1])
                });
            });
        },
    );
    socket.transact(requests)
}

/// Removes a link. Succeeds when it is already gone.
pub(crate) fn delete_link(socket: &mut Socket, name: &str) -> Result<(), NetlinkError> {
    let mut requests = Requests::default();
    requests.add(socket, format!("link {name}"), RTM_DELLINK, 0, |w| {
        w.raw(&ifinfo(0, 0, 0));
        w.string(IFLA_IFNAME, name);
    });
    match socket.transact(requests) {
        Err(error) if error.is(Errno::ENODEV) => Ok(()),
        other => other,
    }
}

/// Takes away the link's IPv4 addresses other than these, and the routes that prefer them.
pub(crate) fn keep_addresses(
    socket: &mut Socket,
    index: u32,
    keep: &[Ipv4Net],
) -> Result<(), NetlinkError> {
    let sequence = socket.next_sequence();
    let mut writer = Writer::default();
    writer.begin(RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, sequence);
    writer.raw(&[AF_INET, 0, 0, 0, 0, 0, 0, 0]);
    writer.finish();
    let mut found = Vec::new();
    socket.query("addresses", &writer, sequence, |_, payload| {
        let local = attributes(payload, 8).find(IFA_LOCAL);
        let octets = local.and_then(|value| <[u8; 4]>::try_from(value).ok());
        let address = payload.get(1).zip(octets);
        let address =
            address.and_then(|(prefix, octets)| Ipv4Net::new(octets.into(), *prefix).ok());
        if interface_index(payload) == Some(index) {
            found.extend(address);
        }
    })?;
    found.retain(|address| !keep.contains(address));
    if found.is_empty() {
        return Ok(());
    }
    let mut requests = Requests::default();
    for address in found {
        requests.add(socket, format!("address {address}"), RTM_DELADDR, 0, |w| {
            w.raw(&[AF_INET, address.prefix_len(), 0, RT_SCOPE_UNIVERSE]);
            w.raw(&index.to_ne_bytes());
            w.attribute(IFA_LOCAL, &address.addr().octets());
        });
    }
    socket.transact(requests)
}

/// A route to add.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    pub(crate) to: Ipv4Net,
    pub(crate) via: Option<Ipv4Addr>,
    pub(crate) device: u32,
    pub(crate) source: Option<Ipv4Addr>,
}

/// Sets links up, adds addresses and routes, in this order and in one exchange. What is already
/// there is left as it is.
pub(crate) fn configure(
    socket: &mut Socket,
    up: &[u32],
    addresses: &[(u32, Ipv4Net)],
    routes: &[Route],
) -> Result<(), NetlinkError> {
    let mut requests = Requests::default();
    for index in up {
        requests.add(socket, format!("link {index} up"), RTM_NEWLINK, 0, |w| {
            w.raw(&ifinfo(*index, IFF_UP, IFF_UP));
        });
    }
    for (index, address) in addresses {
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        requests.add(
            socket,
            format!("address {address}"),
            RTM_NEWADDR,
            flags,
            |w| {
                w.raw(&[AF_INET, address.prefix_len(), 0, RT_SCOPE_UNIVERSE]);
                w.raw(&index.to_ne_bytes());
                w.attribute(IFA_LOCAL, &address.addr().octets());
                w.attribute(IFA_ADDRESS, &address.addr().octets());
            },
        );
    }
    for route in routes {
        let scope = if route.via.is_some() {
            RT_SCOPE_UNIVERSE
        } else {
            RT_SCOPE_LINK
        };
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        requests.add(
            socket,
            format!("route to {}", route.to),
            RTM_NEWROUTE,
            flags,
            |w| {
                let length = route.to.prefix_len();
                w.raw(&[
                    AF_INET,
                    length,
                    0,
                    0,
                    RT_TABLE_MAIN,
                    RTPROT_STATIC,
                    scope,
                    RTN_UNICAST,
                ]);
                w.raw(&[0; 4]);
                if length > 0 {
                    w.attribute(RTA_DST, &route.to.network().octets());
                }
                w.u32(RTA_OIF, route.device);
                if let Some(via) = route.via {
                    w.attribute(RTA_GATEWAY, &via.octets());
                }
                if let Some(source) = route.source {
                    w.attribute(RTA_PREFSRC, &source.octets());
                }
            },
        );
    }
    socket.transact(requests)
}
