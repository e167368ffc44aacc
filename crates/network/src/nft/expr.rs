//! Expressions of rules. Registers are numbered 0 to 15, four bytes each.

use crate::netlink::Writer;

use super::types::{Data, Family, Kind, MapData};

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFT_REG_VERDICT: u32 = 0;
const NFT_REG32_00: u32 = 8;

/// Where a payload expression counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadBase {
    /// The IP header.
    Network,
    /// The TCP, UDP or SCTP header.
    Transport,
}

/// Facts about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaKey {
    /// Name of the link it came in by, 16 bytes.
    IifName,
    /// Name of the link it leaves by, 16 bytes.
    OifName,
    /// IP protocol, 1 byte.
    L4Proto,
}

/// Facts about a packet's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CtKey {
    /// Bits: 2 established, 4 related, 8 new.
    State,
    /// Bits: 0x20 destination was translated.
    Status,
    /// IPv4 destination, 4 bytes.
    DstIp,
    /// IPv6 destination, 16 bytes.
    DstIp6,
    /// Destination port, 2 bytes.
    ProtoDst,
}

/// Which of a connection's two tuples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CtDirection {
    /// As the client sent it.
    Original,
    /// As the server answers.
    Reply,
}

/// Comparisons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CmpOp {
    /// Equal.
    Eq,
    /// Not equal.
    Neq,
}

/// How a packet is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectKind {
    /// TCP reset.
    TcpReset,
    /// Destination unreachable with this code of the table's ICMP or ICMPv6.
    Icmp(u8),
}

/// A map that lives and dies with its rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnonymousMap {
    /// Types of the key's parts.
    pub key: &'static [Kind],
    /// What it maps to.
    pub data: MapData,
    /// Keys as they stand in registers, and what they lead to.
    pub elements: Vec<(Vec<u8>, Data)>,
}

/// One step of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// Loads bytes of the packet.
    Payload {
        /// Counted from here.
        base: PayloadBase,
        /// Bytes.
        offset: u32,
        /// Bytes.
        length: u32,
        /// Into this register.
        to: u32,
    },
    /// Loads a fact about the packet.
    Meta(MetaKey, u32),
    /// Loads a fact about the connection.
    Ct(CtKey, Option<CtDirection>, u32),
    /// Loads the type of the destination address (RTN_*, 2 is local) as the routing table has it.
    FibDaddrType(u32),
    /// Goes on only when the register compares so.
    Cmp(u32, CmpOp, Vec<u8>),
    /// Keeps only these bits of a register.
    And(u32, Vec<u8>),
    /// Looks up a named set or map; goes on when the key is there.
    Lookup {
        /// The set.
        set: String,
        /// Key register.
        from: u32,
        /// Where a map's value goes; verdict maps act at once.
        to: Option<u32>,
        /// The map gives verdicts.
        verdict: bool,
    },
    /// Looks up a map of this rule's own; values go into the second register, verdicts act.
    LookupIn(AnonymousMap, u32, u32),
    /// Loads a constant.
    Load(u32, Vec<u8>),
    /// Decides.
    Verdict(super::types::Verdict),
    /// A random number below the modulus.
    Random(u32, u32),
    /// Changes the destination to address and, if given, port.
    Dnat(Family, u32, Option<u32>),
    /// Changes the source to the outgoing link's address, with a random port.
    Masquerade,
    /// Remembers a register in a dynamic set, or prolongs its stay.
    Update(String, u32),
    /// Turns the packet away.
    Reject(RejectKind),
}

impl Expr {
    fn name(&self) -> &'static str {
        match self {
            Self::Payload { .. } => "payload",
            Self::Meta(..) => "meta",
            Self::Ct(..) => "ct",
            Self::FibDaddrType(_) => "fib",
            Self::Cmp(..) => "cmp",
            Self::And(..) => "bitwise",
            Self::Lookup { .. } | Self::LookupIn(..) => "lookup",
            Self::Load(..) | Self::Verdict(_) => "immediate",
            Self::Random(..) => "numgen",
            Self::Dnat(..) => "nat",
            Self::Masquerade => "masq",
            Self::Update(..) => "dynset",
            Self::Reject(_) => "reject",
        }
    }

    /// As a list element. `anonymous` is the id of the set that stands for a `LookupIn`.
    pub(super) fn write(&self, writer: &mut Writer, anonymous: Option<(u32, &str)>) {
        writer.nest(NFTA_LIST_ELEM, |w| {
            w.string(NFTA_EXPR_NAME, self.name());
            w.nest(NFTA_EXPR_DATA, |w| self.body(w, anonymous));
        });
    }

    fn body(&self, w: &mut Writer, anonymous: Option<(u32, &str)>) {
        let reg = |register: u32| NFT_REG32_00 + register;
        match self {
            Self::Payload {
                base,
                offset,
                length,
                to,
            } => {
                let base = match base {
                    PayloadBase::Network => 1,
                    PayloadBase::Transport => 2,
                };
                w.be32(1, reg(*to));
                w.be32(2, base);
                w.be32(3, *offset);
                w.be32(4, *length);
            }
            Self::Meta(key, to) => {
                let key = match key {
                    MetaKey::IifName => 6,
                    MetaKey::OifName => 7,
                    MetaKey::L4Proto => 16,
                };
                w.be32(1, reg(*to));
                w.be32(2, key);
            }
            Self::Ct(key, direction, to) => {
                let key = match key {
                    CtKey::State => 0,
                    CtKey::Status => 2,
                    CtKey::DstIp => 20,
                    CtKey::DstIp6 => 22,
                    CtKey::ProtoDst => 12,
                };
                w.be32(1, reg(*to));
                w.be32(2, key);
                if let Some(direction) = direction {
                    w.attribute(3, &[u8::from(*direction == CtDirection::Reply)]);
                }
            }
            Self::FibDaddrType(to) => {
                w.be32(1, reg(*to));
                w.be32(2, 3);
                w.be32(3, 2);
            }
            Self::Cmp(from, op, value) => {
                w.be32(1, reg(*from));
                w.be32(2, u32::from(*op == CmpOp::Neq));
                Data::Value(value.clone()).write(w, 3);
            }
            Self::And(register, mask) => {
                w.be32(1, reg(*register));
                w.be32(2, reg(*register));
                w.be32(3, u32::try_from(mask.len()).expect("at most 16 bytes"));
                Data::Value(mask.clone()).write(w, 4);
                Data::Value(vec![0; mask.len()]).write(w, 5);
            }
            Self::Lookup {
                set,
                from,
                to,
                verdict,
            } => {
                w.string(1, set);
                w.be32(2, reg(*from));
                if *verdict {
                    w.be32(3, NFT_REG_VERDICT);
                } else if let Some(to) = to {
                    w.be32(3, reg(*to));
                }
            }
            Self::LookupIn(map, from, to) => {
                let (id, name) = anonymous.expect("the batch numbers the maps of its rules");
                let verdict = map.data == MapData::Verdict;
                w.string(1, name);
                w.be32(2, reg(*from));
                w.be32(3, if verdict { NFT_REG_VERDICT } else { reg(*to) });
                w.be32(4, id);
            }
            Self::Load(to, value) => {
                w.be32(1, reg(*to));
                Data::Value(value.clone()).write(w, 2);
            }
            Self::Verdict(verdict) => {
                w.be32(1, NFT_REG_VERDICT);
                Data::Verdict(verdict.clone()).write(w, 2);
            }
            Self::Random(to, modulus) => {
                w.be32(1, reg(*to));
                w.be32(2, *modulus);
                w.be32(3, 1);
                w.be32(4, 0);
            }
            Self::Dnat(family, address, port) => {
                w.be32(1, 1);
                w.be32(2, u32::from(family.number()));
                w.be32(3, reg(*address));
                if let Some(port) = port {
                    w.be32(5, reg(*port));
                }
            }
            // NF_NAT_RANGE_PROTO_RANDOM_FULLY
            Self::Masquerade => w.be32(1, 1 << 4),
            Self::Update(set, key) => {
                w.string(1, set);
                w.be32(3, 1);
                w.be32(4, reg(*key));
            }
            Self::Reject(kind) => match kind {
                RejectKind::TcpReset => w.be32(1, 1),
                RejectKind::Icmp(code) => {
                    w.be32(1, 0);
                    w.attribute(2, &[*code]);
                }
            },
        }
    }
}
