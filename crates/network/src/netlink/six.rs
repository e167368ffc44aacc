//! What tests ask and say about IPv6: addresses of links, and what is remembered of neighbours.

use std::net::Ipv6Addr;

use super::route::Mac;
use super::socket::{
    NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkError, Requests, Socket,
    attributes,
};
use super::wire::{Writer, u32_at};

const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// Nobody is asked whether it is taken, so that it is usable at once.
const IFA_F_NODAD: u8 = 2;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const AF_INET6: u8 = 10;
/// Somebody else has the address.
const IFA_F_DADFAILED: u8 = 8;
const NUD_REACHABLE: u16 = 2;
const NUD_PROBE: u16 = 0x10;
/// `struct ndmsg`.
const NEIGHBOUR: usize = 12;

/// Gives a link an address of a /64; asks first whether it is taken if that is wished.
pub(crate) fn add_address(
    socket: &mut Socket,
    index: u32,
    address: Ipv6Addr,
    ask: bool,
) -> Result<(), NetlinkError> {
    let how = if ask { 0 } else { IFA_F_NODAD };
    let mut requests = Requests::default();
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    let label = format!("address {address}");
    requests.add(socket, label, RTM_NEWADDR, flags, |w| {
        w.raw(&[AF_INET6, 64, how, 0]);
        w.raw(&index.to_ne_bytes());
        w.attribute(IFA_LOCAL, &address.octets());
        w.attribute(IFA_ADDRESS, &address.octets());
    });
    socket.transact(requests)
}

/// Whether a link found that somebody else has the address.
pub(crate) fn is_taken(
    socket: &mut Socket,
    index: u32,
    address: Ipv6Addr,
) -> Result<bool, NetlinkError> {
    let sequence = socket.next_sequence();
    let mut writer = Writer::default();
    writer.begin(RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, sequence);
    writer.raw(&[AF_INET6, 0, 0, 0, 0, 0, 0, 0]);
    writer.finish();
    let mut taken = false;
    socket.query("addresses", &writer, sequence, |_, payload| {
        let found = attributes(payload, 8).find(IFA_ADDRESS);
        if u32_at(payload, 4) == Some(index) && found == Some(&address.octets()) {
            taken |= payload[2] & IFA_F_DADFAILED != 0;
        }
    })?;
    Ok(taken)
}

/// What a link remembers of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pub(crate) mac: Mac,
    /// It was heard of lately.
    pub(crate) reachable: bool,
}

/// Has a link ask a neighbour that it remembers whether he is still there.
pub(crate) fn probe(
    socket: &mut Socket,
    index: u32,
    of: Ipv6Addr,
    mac: Mac,
) -> Result<(), NetlinkError> {
    let mut requests = Requests::default();
    let label = format!("neighbour {of}");
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    requests.add(socket, label, RTM_NEWNEIGH, flags, |w| {
        w.raw(&[AF_INET6, 0, 0, 0]);
        w.raw(&index.to_ne_bytes());
        w.raw(&NUD_PROBE.to_ne_bytes());
        w.raw(&[0, 0]);
        w.attribute(NDA_DST, &of.octets());
        w.attribute(NDA_LLADDR, &mac);
    });
    socket.transact(requests)
}

/// What a link remembers of the one that has this address.
pub(crate) fn neighbour(
    socket: &mut Socket,
    index: u32,
    of: Ipv6Addr,
) -> Result<Option<Neighbour>, NetlinkError> {
    let sequence = socket.next_sequence();
    let mut writer = Writer::default();
    writer.begin(RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP, sequence);
    let mut head = [0; NEIGHBOUR];
    head[0] = AF_INET6;
    writer.raw(&head);
    writer.finish();
    let mut found = None;
    socket.query("neighbours", &writer, sequence, |_, payload| {
        let all = attributes(payload, NEIGHBOUR);
        if u32_at(payload, 4) == Some(index) && all.find(NDA_DST) == Some(&of.octets()) {
            let state = payload.get(8..10).and_then(|state| state.try_into().ok());
            let reachable = state.map(u16::from_ne_bytes) == Some(NUD_REACHABLE);
            let mac = all.find(NDA_LLADDR).and_then(|mac| mac.try_into().ok());
            found = mac.map(|mac| Neighbour { mac, reachable });
        }
    })?;
    Ok(found)
}
