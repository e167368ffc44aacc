//! ARP for Ethernet and IPv4 (RFC 826, announcements as in RFC 5227): pure.

use std::net::Ipv4Addr;

use super::wire::Mac;

/// Everybody on the link.
pub(crate) const BROADCAST: Mac = [0xff; 6];
/// Hardware type Ethernet, protocol type IPv4, their address lengths.
const HEADER: [u8; 6] = [0, 1, 8, 0, 6, 4];
/// Bytes of a packet.
pub(crate) const LENGTH: usize = 28;

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Who has the target's address?
    Request,
    /// The sender has it.
    Reply,
}

/// A packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arp {
    pub(crate) operation: Operation,
    pub(crate) sender: (Mac, Ipv4Addr),
    pub(crate) target: (Mac, Ipv4Addr),
}

impl Arp {
    /// Reads a packet; trailing padding is ignored. `None` for what is not ARP of Ethernet and
    /// IPv4, or is neither request nor reply.
    pub(crate) fn parse(packet: &[u8]) -> Option<Self> {
        let packet = packet.get(..LENGTH)?;
        if packet[..6] != HEADER {
            return None;
        }
        let operation = match packet[6..8] {
            [0, 1] => Operation::Request,
            [0, 2] => Operation::Reply,
            _ => return None,
        };
        let end = |at: usize| -> Option<(Mac, Ipv4Addr)> {
            let mac = packet[at..at + 6].try_into().ok()?;
            let address: [u8; 4] = packet[at + 6..at + 10].try_into().ok()?;
            Some((mac, address.into()))
        };
        Some(Self {
            operation,
            sender: end(8)?,
            target: end(18)?,
        })
    }

    /// The packet's bytes.
    pub(crate) fn bytes(&self) -> [u8; LENGTH] {
        let mut out = [0; LENGTH];
        out[..6].copy_from_slice(&HEADER);
        out[7] = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        for (at, (mac, address)) in [(8, self.sender), (18, self.target)] {
            out[at..at + 6].copy_from_slice(&mac);
            out[at + 6..at + 10].copy_from_slice(&address.octets());
        }
        out
    }

    /// The answer of who has the address; `None` when nothing is asked, or by the owner itself.
    pub(crate) fn answer(&self, mac: Mac) -> Option<Self> {
        let asks = self.operation == Operation::Request && self.sender.0 != mac;
        asks.then_some(Self {
            operation: Operation::Reply,
            sender: (mac, self.target.1),
            target: self.sender,
        })
    }

    /// What tells everybody that the address is here now: some neighbours heed only requests,
    /// some only replies.
    pub(crate) fn announcements(mac: Mac, address: Ipv4Addr) -> [Self; 2] {
        [
            Self {
                operation: Operation::Request,
                sender: (mac, address),
                target: ([0; 6], address),
            },
            Self {
                operation: Operation::Reply,
                sender: (mac, address),
                target: (BROADCAST, address),
            },
        ]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HERE: Mac = [2, 0, 0, 0, 0, 1];
    const THERE: Mac = [2, 0, 0, 0, 0, 2];

    #[test]
    fn a_request_as_it_is_on_the_wire_and_its_answer() {
        let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1];
        packet.extend(THERE);
        packet.extend([192, 0, 2, 2, 0, 0, 0, 0, 0, 0, 192, 0, 2, 100]);
        packet.extend([0; 18]);
        let request = Arp::parse(&packet).unwrap();
        assert_eq!(request.sender, (THERE, Ipv4Addr::new(192, 0, 2, 2)));
        let answer = request.answer(HERE).unwrap();
        let mut expected = vec![0, 1, 8, 0, 6, 4, 0, 2];
        expected.extend(HERE);
        expected.extend([192, 0, 2, 100]);
        expected.extend(THERE);
        expected.extend([192, 0, 2, 2]);
        assert_eq!(answer.bytes().to_vec(), expected);
        assert_eq!(request.answer(THERE), None, "one's own question");
        assert_eq!(answer.answer(HERE), None, "an answer asks nothing");
    }

    #[test]
    fn what_is_not_arp_of_ethernet_is_nothing() {
        let good = Arp::announcements(HERE, Ipv4Addr::new(192, 0, 2, 1))[0].bytes();
        for at in [0, 1, 2, 3, 4, 5, 6, 7] {
            let mut packet = good;
            packet[at] ^= 0x40;
            assert_eq!(Arp::parse(&packet), None, "byte {at}");
        }
        assert_eq!(Arp::parse(&good[..27]), None);
    }

    proptest! {
        #[test]
        fn packets_survive_the_wire(bytes in prop::collection::vec(any::<u8>(), 0..64), reply in any::<bool>(), ends in any::<[([u8; 6], [u8; 4]); 2]>()) {
            // Whatever comes from the link is survived.
            prop_assert!(Arp::parse(&bytes).is_none() || bytes.len() >= LENGTH);
            let end = |(mac, address): ([u8; 6], [u8; 4])| (mac, Ipv4Addr::from(address));
            let arp = Arp {
                operation: if reply { Operation::Reply } else { Operation::Request },
                sender: end(ends[0]),
                target: end(ends[1]),
            };
            prop_assert_eq!(Arp::parse(&arp.bytes()), Some(arp));
        }
    }
}
