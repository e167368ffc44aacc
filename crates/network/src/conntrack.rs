//! Forgetting UDP connections whose endpoint is gone (linux/netfilter/nfnetlink_conntrack.h).
//! UDP has no end that conntrack could see: as long as a client keeps sending, its packets would
//! follow the old translation into nowhere.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::Nfnetlink;
use crate::netlink::socket::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, attributes, nfgenmsg};
use crate::netlink::{Attributes, NetlinkError, Writer};
use crate::nft::Family;
use crate::service::{Target, UdpFlow};

const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const UDP: u8 = 17;
const IPS_DST_NAT: u32 = 0x20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tuple {
    source: IpAddr,
    destination: IpAddr,
    source_port: u16,
    destination_port: u16,
}

fn udp_tuple(data: &[u8]) -> Option<Tuple> {
    let all = Attributes(data);
    let ip = Attributes(all.find(CTA_TUPLE_IP)?);
    let proto = Attributes(all.find(CTA_TUPLE_PROTO)?);
    if proto.find(CTA_PROTO_NUM)?.first() != Some(&UDP) {
        return None;
    }
    let address = |four, six| match (ip.find(four), ip.find(six)) {
        (Some(value), _) => Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into()),
        (None, Some(value)) => Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
        (None, None) => None,
    };
    let port = |kind| Some(u16::from_be_bytes(proto.find(kind)?.try_into().ok()?));
    Some(Tuple {
        source: address(CTA_IP_V4_SRC, CTA_IP_V6_SRC)?,
        destination: address(CTA_IP_V4_DST, CTA_IP_V6_DST)?,
        source_port: port(CTA_PROTO_SRC_PORT)?,
        destination_port: port(CTA_PROTO_DST_PORT)?,
    })
}

/// What is known of UDP addresses now.
#[derive(Debug)]
pub(crate) struct Flows<'a> {
    by_address: HashMap<(Option<IpAddr>, u16), &'a BTreeSet<Target>>,
    /// Set when the flows are all there are: translated connections to other addresses of this
    /// network belong to services that are gone.
    complete: Option<IpNet>,
}

impl<'a> Flows<'a> {
    pub(crate) fn new(flows: &'a [UdpFlow], complete: Option<IpNet>) -> Self {
        let by_address = flows
            .iter()
            .map(|flow| ((flow.address, flow.port), &flow.targets))
            .collect();
        Self {
            by_address,
            complete,
        }
    }

    /// Whether this connection goes where nothing leads any more. `translated` tells a connection
    /// of ours to a node port from somebody's own UDP traffic on the same port number.
    fn stale(&self, original: Tuple, reply: Tuple, translated: bool) -> bool {
        let Tuple {
            destination,
            destination_port: port,
            ..
        } = original;
        let target = (reply.source, reply.source_port);
        if let Some(targets) = self.by_address.get(&(Some(destination), port)) {
            return !targets.contains(&target);
        }
        if translated && self.complete.is_some_and(|net| net.contains(&destination)) {
            return true;
        }
        let node_port = self.by_address.get(&(None, port));
        translated && node_port.is_some_and(|targets| !targets.contains(&target))
    }
}

/// Removes the connections to these addresses that lead to other than their targets; answers how
/// many there were.
///
/// # Errors
/// When the kernel refuses the listing or a removal.
pub(crate) fn forget_stale(
    socket: &mut Nfnetlink,
    family: Family,
    flows: &Flows<'_>,
) -> Result<usize, NetlinkError> {
    let socket = &mut socket.0;
    let sequence = socket.next_sequence();
    let mut writer = Writer::default();
    let kind = (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_GET;
    writer.begin(kind, NLM_F_REQUEST | NLM_F_DUMP, sequence);
    writer.raw(&nfgenmsg(family.number()));
    writer.finish();
    let mut found = Vec::new();
    socket.query("connections", &writer, sequence, |_, payload| {
        let all = attributes(payload, 4);
        let tuple = |kind| all.find(kind).and_then(udp_tuple);
        let (Some(original), Some(reply)) = (tuple(CTA_TUPLE_ORIG), tuple(CTA_TUPLE_REPLY)) else {
            return;
        };
        let status = all.find(CTA_STATUS).and_then(|value| value.try_into().ok());
        let translated = status.map(u32::from_be_bytes).unwrap_or(0) & IPS_DST_NAT != 0;
        if flows.stale(original, reply, translated) {
            found.push(original);
        }
    })?;
    for tuple in &found {
        match delete(socket, family, *tuple) {
            Err(error) if error.is(nix::errno::Errno::ENOENT) => {}
            other => other?,
        }
    }
    Ok(found.len())
}

fn delete(
    socket: &mut crate::netlink::Socket,
    family: Family,
    tuple: Tuple,
) -> Result<(), NetlinkError> {
    let sequence = socket.next_sequence();
    let mut writer = Writer::default();
    let kind = (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_DELETE;
    writer.begin(kind, NLM_F_REQUEST | NLM_F_ACK, sequence);
    writer.raw(&nfgenmsg(family.number()));
    writer.nest(CTA_TUPLE_ORIG, |w| {
        w.nest(CTA_TUPLE_IP, |w| {
            for (address, four, six) in [
                (tuple.source, CTA_IP_V4_SRC, CTA_IP_V6_SRC),
                (tuple.destination, CTA_IP_V4_DST, CTA_IP_V6_DST),
            ] {
                match address {
                    IpAddr::V4(address) => w.attribute(four, &address.octets()),
                    IpAddr::V6(address) => w.attribute(six, &address.octets()),
                }
            }
        });
        w.nest(CTA_TUPLE_PROTO, |w| {
            w.attribute(CTA_PROTO_NUM, &[UDP]);
            w.attribute(CTA_PROTO_SRC_PORT, &tuple.source_port.to_be_bytes());
            w.attribute(CTA_PROTO_DST_PORT, &tuple.destination_port.to_be_bytes());
        });
    });
    writer.finish();
    let label = format!(
        "connection {}:{}",
        tuple.destination, tuple.destination_port
    );
    socket.query(&label, &writer, sequence, |_, _| {})
}
