//! The addresses of a pool: ranges of one family, read from networks and `FROM-TO`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Addresses from the first to the last, of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    first: u128,
    last: u128,
    v6: bool,
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

impl Range {
    /// Reads a network or a range; `None` for what is neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (first, last): (IpAddr, IpAddr) = match text.split_once('-') {
            Some((first, last)) => (first.trim().parse().ok()?, last.trim().parse().ok()?),
            None => {
                let net: IpNet = text.trim().parse().ok()?;
                (net.network(), net.broadcast())
            }
        };
        (first.is_ipv4() == last.is_ipv4() && first <= last).then(|| Self {
            first: number(first),
            last: number(last),
            v6: first.is_ipv6(),
        })
    }

    /// Whether it holds this address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.v6 == address.is_ipv6() && (self.first..=self.last).contains(&number(address))
    }

    /// Whether its addresses are IPv6.
    #[must_use]
    pub fn is_v6(&self) -> bool {
        self.v6
    }

    /// All of its addresses, in order.
    pub fn addresses(self) -> impl Iterator<Item = IpAddr> {
        (self.first..=self.last).map(move |number| match u32::try_from(number) {
            Ok(number) if !self.v6 => IpAddr::V4(Ipv4Addr::from(number)),
            _ => IpAddr::V6(Ipv6Addr::from(number)),
        })
    }
}

/// Addresses that some old clients take for a network's own or its broadcast.
#[must_use]
pub fn is_buggy(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if matches!(address.octets()[3], 0 | 255))
}

/// How many addresses of a family these ranges hold together, each counted once; without those that
/// [`is_buggy`], if they are not to be used.
#[must_use]
pub fn count(ranges: &[Range], v6: bool, avoid_buggy: bool) -> u128 {
    let mut sorted: Vec<Range> = ranges
        .iter()
        .copied()
        .filter(|range| range.v6 == v6)
        .collect();
    sorted.sort_by_key(|range| range.first);
    let mut all: u128 = 0;
    // The first number that has not been counted.
    let mut next = 0;
    for range in sorted {
        let first = range.first.max(next);
        if first > range.last {
            continue;
        }
        let mut held = (range.last - first).saturating_add(1);
        if avoid_buggy && !v6 {
            held -= buggy_below(range.last + 1) - buggy_below(first);
        }
        all = all.saturating_add(held);
        next = range.last.saturating_add(1);
    }
    all
}

/// How many of the IPv4 addresses below this number end in .0 or .255.
fn buggy_below(number: u128) -> u128 {
    (number / 256) * 2 + u128::from(!number.is_multiple_of(256))
}
