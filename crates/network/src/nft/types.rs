//! The values of nftables: data types, verdicts, sets.

use std::net::IpAddr;
use std::time::Duration;

use crate::netlink::Writer;

const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;

/// The family of a table and of the addresses in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4: tables of family `ip`.
    V4,
    /// IPv6: tables of family `ip6`.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Its number in netfilter (NFPROTO_*), the same as that of sockets (AF_*).
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// How many registers of four bytes an address fills.
    pub fn registers(self) -> u32 {
        match self {
            Self::V4 => 1,
            Self::V6 => 4,
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Type of one part of a key. The kernel only looks at lengths; the numbers are nft's own, so
/// that `nft list ruleset` prints addresses as addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number in host order, 4 bytes.
    Integer,
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// An IP protocol number, 1 byte.
    Protocol,
    /// A transport port in network order, 2 bytes.
    Port,
}

impl Kind {
    fn number(self) -> u32 {
        match self {
            Self::Integer => 4,
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Protocol => 12,
            Self::Port => 13,
        }
    }

    fn registers(self) -> u32 {
        match self {
            Self::Ipv6 => Family::V6.registers(),
            _ => 1,
        }
    }

    /// Type number and byte length of a key; parts of a concatenation fill whole registers.
    pub(super) fn of(parts: &[Kind]) -> (u32, u32) {
        let number = parts.iter().fold(0, |sum, part| (sum << 6) | part.number());
        let length = match parts {
            [Self::Protocol] => 1,
            [Self::Port] => 2,
            _ => parts.iter().map(|part| part.registers() * 4).sum(),
        };
        (number, length)
    }
}

/// Where a packet goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Dropped.
    Drop,
    /// Accepted by this base chain.
    Accept,
    /// Back to the calling chain.
    Return,
    /// Into another chain, and back.
    Jump(String),
    /// Into another chain, for good.
    Goto(String),
}

/// A value, or a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Bytes as they stand in registers.
    Value(Vec<u8>),
    /// A verdict.
    Verdict(Verdict),
}

impl Data {
    /// As a nested `nft_data` attribute.
    pub(super) fn write(&self, writer: &mut Writer, attribute: u16) {
        writer.nest(attribute, |w| match self {
            Self::Value(bytes) => w.attribute(NFTA_DATA_VALUE, bytes),
            Self::Verdict(verdict) => w.nest(NFTA_DATA_VERDICT, |w| {
                let (code, chain) = match verdict {
                    Verdict::Drop => (0, None),
                    Verdict::Accept => (1, None),
                    Verdict::Return => (-5_i32, None),
                    Verdict::Jump(chain) => (-3, Some(chain)),
                    Verdict::Goto(chain) => (-4, Some(chain)),
                };
                w.be32(NFTA_VERDICT_CODE, code.cast_unsigned());
                if let Some(chain) = chain {
                    w.string(NFTA_VERDICT_CHAIN, chain);
                }
            }),
        });
    }
}

/// What a set's elements lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapData {
    /// Nothing: a plain set.
    None,
    /// Verdicts.
    Verdict,
    /// Values of these types.
    Value(&'static [Kind]),
}

/// A named set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name, unique in the table.
    pub name: String,
    /// Types of the key's parts.
    pub key: &'static [Kind],
    /// What it maps to.
    pub data: MapData,
    /// Elements are added by packets and leave after this time.
    pub dynamic: Option<Duration>,
}

/// Where and when a base chain sees packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hook {
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// NF_INET_*: 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting.
    pub number: u32,
    /// Lower comes first.
    pub priority: i32,
}
