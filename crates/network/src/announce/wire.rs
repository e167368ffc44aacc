//! What is asked and said about an address on the link, whatever its family: pure.

use std::net::IpAddr;

use crate::nft::Family;

use super::arp::{Arp, BROADCAST};
use super::ndp::{self, Solicitation};

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// A packet to send, without the link's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    /// Whom it is for.
    pub(crate) to: Mac,
    pub(crate) bytes: Vec<u8>,
}

/// Somebody on the link asks for the hardware address of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// An ARP packet, which may also be an answer.
    Arp(Arp),
    /// A neighbour solicitation.
    Solicitation(Solicitation),
}

impl Question {
    /// Reads a packet that came in a frame from this hardware address.
    pub(crate) fn parse(family: Family, packet: &[u8], from: Mac) -> Option<Self> {
        match family {
            Family::V4 => Arp::parse(packet).map(Self::Arp),
            Family::V6 => Solicitation::parse(packet, from).map(Self::Solicitation),
        }
    }

    /// The address in question.
    pub(crate) fn target(&self) -> IpAddr {
        match self {
            Self::Arp(arp) => arp.target.1.into(),
            Self::Solicitation(asked) => asked.target.into(),
        }
    }

    /// The answer of who has the address; `None` when nothing is asked, or by the owner itself.
    pub(crate) fn answer(&self, mac: Mac) -> Option<Packet> {
        match self {
            Self::Arp(arp) => arp.answer(mac).map(|answer| Packet {
                to: arp.sender.0,
                bytes: answer.bytes().to_vec(),
            }),
            Self::Solicitation(asked) => asked.answer(mac),
        }
    }
}

/// What tells everybody on the link that the address is here now.
pub(crate) fn announcements(mac: Mac, address: IpAddr) -> Vec<Packet> {
    match address {
        IpAddr::V4(address) => Arp::announcements(mac, address)
            .into_iter()
            .map(|arp| Packet {
                to: BROADCAST,
                bytes: arp.bytes().to_vec(),
            })
            .collect(),
        IpAddr::V6(address) => vec![ndp::announcement(mac, address)],
    }
}

/// How often a new address is announced: neighbours may miss one.
pub(crate) fn repeats(family: Family) -> u8 {
    match family {
        Family::V4 => 5,
        // MAX_NEIGHBOR_ADVERTISEMENT (RFC 4861, section 10).
        Family::V6 => 3,
    }
}
