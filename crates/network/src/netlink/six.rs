//! What tests ask and say about IPv6: addresses of links, and what is remembered of neighbours.

use std::net::Ipv6Addr;

use super::route::Mac;
use super::socket::{
    NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkError, Requests, Socket,
    attributes,
};
use super::wire::{Writer, u32_at};

const RTM_NEWADDR: u16 = 20;
const RTM_GETNEIGH: u16 = 30;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// Nobody is asked whether it is taken, so that it is usable at once.
const IFA_F_NODAD: u8 = 2;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const AF_INET6: u8 = 10;
/// `struct ndmsg`.
const NEIGHBOUR: usize = 12;

/// Gives a link an address of a /64.
pub(crate) fn add_address(
    socket: &mut Socket,
    index: u32,
    address: Ipv6Addr,
) -> Result<(), NetlinkError> {
    let mut requests = Requests::default();
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    let label = format!("address {address}");
    requests.add(socket, label, RTM_NEWADDR, flags, |w| {
        w.raw(&[AF_INET6, 64, IFA_F_NODAD, 0]);
        w.raw(&index.to_ne_bytes());
        w.attribute(IFA_LOCAL, &address.octets());
        w.attribute(IFA_ADDRESS, &address.octets());
    });
    socket.transact(requests)
}

/// The hardware address that a link remembers of a neighbour.
pub(crate) fn neighbour(
    socket: &mut Socket,
    index: u32,
    of: Ipv6Addr,
) -> Result<Option<Mac>, NetlinkError> {
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
            found = all.find(NDA_LLADDR).and_then(|mac| mac.try_into().ok());
        }
    })?;
    Ok(found)
}
