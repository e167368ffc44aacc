//! Neighbour discovery for Ethernet and IPv6 (RFC 4861), as far as one who has an address needs it:
//! solicitations are read, advertisements written. Pure.

use std::net::Ipv6Addr;

use super::wire::{Mac, Packet};

/// Bytes of the IPv6 header (RFC 8200, section 3).
const IP: usize = 40;
/// Bytes of a solicitation or an advertisement before its options.
const BODY: usize = 24;
const ICMPV6: u8 = 58;
/// Whoever is further away than the link can't send it: each router takes one off.
const HOP_LIMIT: u8 = 255;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
/// It answers a solicitation.
const SOLICITED: u8 = 0x40;
/// It replaces the hardware address that a neighbour remembers.
const OVERRIDE: u8 = 0x20;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Which packets a socket is to see, for the kernel (linux/filter.h): of what `Solicitation::parse`
/// asks for, the bytes at these places. All else on the machine is none of our business.
pub(crate) const FILTER: [(usize, u8); 3] = [(6, ICMPV6), (7, HOP_LIMIT), (IP, SOLICITATION)];

/// Somebody asks for the hardware address of `target`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Solicitation {
    pub(crate) target: Ipv6Addr,
    /// Unspecified when the asker wants the address itself (RFC 4862, section 5.4).
    source: Ipv6Addr,
    /// The asker's hardware address.
    mac: Mac,
}

/// Sum of 16-bit words with the carries folded in (RFC 1071) over the pseudo-header and the payload
/// (RFC 8200, section 8.1). 0xffff when the payload holds its right checksum.
fn sum(source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8]) -> u16 {
    let mut total: u64 = 0;
    let mut add = |bytes: &[u8]| {
        for pair in bytes.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            total += u64::from(u16::from_be_bytes([pair[0], low]));
        }
    };
    add(&source.octets());
    add(&destination.octets());
    add(&(payload.len() as u64).to_be_bytes());
    add(&[0, ICMPV6]);
    add(payload);
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    u16::try_from(total).unwrap_or(u16::MAX)
}

fn address(bytes: &[u8]) -> Option<Ipv6Addr> {
    <[u8; 16]>::try_from(bytes).ok().map(Ipv6Addr::from)
}

/// The group in which whoever has this address is asked for it (RFC 4291, section 2.7.1).
pub(crate) fn solicited_node(of: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = of.octets();
    Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | u16::from(a),
        u16::from_be_bytes([b, c]),
    )
}

/// The hardware address of a group (RFC 2464, section 7).
fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

impl Solicitation {
    /// Reads an IPv6 packet that came in a frame from `frame`; what follows it is ignored. `None`
    /// for what is no valid solicitation (RFC 4861, section 7.1.1).
    pub(crate) fn parse(packet: &[u8], frame: Mac) -> Option<Self> {
        let header = packet.get(..IP)?;
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let payload = packet.get(IP..IP + length)?;
        let source = address(&header[8..24])?;
        let destination = address(&header[24..])?;
        let body = payload.get(..BODY)?;
        let target = address(&body[8..])?;
        let is_solicitation = header[0] >> 4 == 6
            && header[6] == ICMPV6
            && header[7] == HOP_LIMIT
            && body[0] == SOLICITATION
            && body[1] == 0;
        if !is_solicitation
            || sum(source, destination, payload) != u16::MAX
            || target.is_multicast()
            || source.is_multicast()
        {
            return None;
        }
        let mut told = None;
        let mut options = &payload[BODY..];
        while !options.is_empty() {
            let length = usize::from(*options.get(1)?) * 8;
            let option = options.get(..length).filter(|option| !option.is_empty())?;
            if option[0] == SOURCE_LINK_LAYER {
                told = Some(Mac::try_from(option.get(2..8)?).ok()?);
            }
            options = &options[length..];
        }
        // Who has no address yet asks in the group, and does not say where he is.
        if source.is_unspecified() && (told.is_some() || destination != solicited_node(target)) {
            return None;
        }
        Some(Self {
            target,
            source,
            mac: told.unwrap_or(frame),
        })
    }

    /// The answer of who has the address; `None` when the owner itself asks.
    pub(crate) fn answer(&self, mac: Mac) -> Option<Packet> {
        if self.mac == mac {
            return None;
        }
        // Who wants to have the address can't be reached by one, so all are told (section 7.2.4).
        let packet = if self.source.is_unspecified() {
            Packet {
                to: group_mac(ALL_NODES),
                bytes: advertisement(mac, self.target, ALL_NODES, OVERRIDE),
            }
        } else {
            Packet {
                to: self.mac,
                bytes: advertisement(mac, self.target, self.source, SOLICITED | OVERRIDE),
            }
        };
        Some(packet)
    }
}

/// What tells everybody on the link that the address is here now (RFC 4861, section 7.2.6).
pub(crate) fn announcement(mac: Mac, of: Ipv6Addr) -> Packet {
    Packet {
        to: group_mac(ALL_NODES),
        bytes: advertisement(mac, of, ALL_NODES, OVERRIDE),
    }
}

/// An advertisement of `target` by itself: its owner on the link may have no other address.
fn advertisement(mac: Mac, target: Ipv6Addr, to: Ipv6Addr, flags: u8) -> Vec<u8> {
    let mut payload = vec![ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
    payload.extend(target.octets());
    // In units of eight bytes.
    payload.extend([TARGET_LINK_LAYER, 1]);
    payload.extend(mac);
    packet(target, to, payload)
}

/// An IPv6 packet of an ICMPv6 message whose checksum is not yet written.
fn packet(source: Ipv6Addr, to: Ipv6Addr, mut payload: Vec<u8>) -> Vec<u8> {
    let checksum = !sum(source, to, &payload);
    payload[2..4].copy_from_slice(&checksum.to_be_bytes());
    let length = u16::try_from(payload.len()).expect("a few dozen bytes");
    let [high, low] = length.to_be_bytes();
    let mut out = vec![0x60, 0, 0, 0, high, low, ICMPV6, HOP_LIMIT];
    out.extend(source.octets());
    out.extend(to.octets());
    out.extend(payload);
    out
}

#[cfg(test)]
mod tests;
