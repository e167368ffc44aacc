//! IP addresses and networks.

use std::any::Any;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Library, Outcome};
use crate::errors::EvalError;
use crate::value::{Opaque, Value};

const DECLARATIONS: &str = "
ip string_to_ip (string)->net.IP
ip cidr_ip net.CIDR.()->net.IP
family ip_family net.IP.()->int
ip.isCanonical ip_is_canonical (string)->bool
isUnspecified ip_is_unspecified net.IP.()->bool
isLoopback ip_is_loopback net.IP.()->bool
isLinkLocalMulticast ip_is_link_local_multicast net.IP.()->bool
isLinkLocalUnicast ip_is_link_local_unicast net.IP.()->bool
isGlobalUnicast ip_is_global_unicast net.IP.()->bool
isIP is_ip (string)->bool
string ip_to_string (net.IP)->string
cidr string_to_cidr (string)->net.CIDR
containsIP cidr_contains_ip_string net.CIDR.(string)->bool
containsIP cidr_contains_ip_ip net.CIDR.(net.IP)->bool
containsCIDR cidr_contains_cidr_string net.CIDR.(string)->bool
containsCIDR cidr_contains_cidr net.CIDR.(net.CIDR)->bool
prefixLength cidr_prefix_length net.CIDR.()->int
masked cidr_masked net.CIDR.()->net.CIDR
isCIDR is_cidr (string)->bool
string cidr_to_string (net.CIDR)->string
";

const FUNCTIONS: &[(&str, super::Function)] = &[
    ("ip", ip),
    ("family", |a| {
        address(a, |ip| Value::Int(if ip.is_ipv4() { 4 } else { 6 }))
    }),
    ("ip.isCanonical", canonical),
    ("isUnspecified", |a| {
        address(a, |ip| Value::Bool(ip.is_unspecified()))
    }),
    ("isLoopback", |a| {
        address(a, |ip| Value::Bool(ip.is_loopback()))
    }),
    ("isLinkLocalMulticast", |a| {
        address(a, |ip| Value::Bool(link_local_multicast(ip)))
    }),
    ("isLinkLocalUnicast", |a| {
        address(a, |ip| Value::Bool(link_local_unicast(ip)))
    }),
    ("isGlobalUnicast", |a| {
        address(a, |ip| Value::Bool(global_unicast(ip)))
    }),
    ("isIP", |a| text(a, |s| Value::Bool(parse_ip(s).is_ok()))),
    ("cidr", cidr),
    ("containsIP", contains_ip),
    ("containsCIDR", contains_cidr),
    ("prefixLength", |a| {
        network(a, |n| Value::Int(i64::from(n.bits)))
    }),
    ("masked", |a| {
        network(a, |n| {
            Value::opaque(Cidr {
                address: n.base(n.bits),
                bits: n.bits,
            })
        })
    }),
    ("isCIDR", |a| {
        text(a, |s| Value::Bool(parse_cidr(s).is_ok()))
    }),
];

pub(crate) const LIBRARY: Library = Library {
    declarations: DECLARATIONS,
    functions: FUNCTIONS,
};

/// The same for the general environment.
pub(crate) const GENERAL: Library = LIBRARY;

/// `net.IP`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ip(IpAddr);

/// `net.CIDR`. Bits beyond the prefix are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cidr {
    address: IpAddr,
    bits: u8,
}

impl Ip {
    /// Four octets or sixteen.
    pub(crate) fn octets(self) -> usize {
        if self.0.is_ipv4() { 4 } else { 16 }
    }
}

impl Cidr {
    /// Octets that the prefix touches.
    pub(crate) fn octets(self) -> usize {
        usize::from(self.bits).div_ceil(8)
    }

    /// The address with only the first bits kept.
    fn base(self, bits: u8) -> IpAddr {
        first_bits(self.address, bits)
    }
}

fn first_bits(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & mask))
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask))
        }
    }
}

impl Opaque for Ip {
    fn type_name(&self) -> &str {
        "net.IP"
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref() == Some(self)
    }
    fn to_json(&self) -> Option<serde_json::Value> {
        Some(self.0.to_string().into())
    }
}

impl Opaque for Cidr {
    fn type_name(&self) -> &str {
        "net.CIDR"
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref() == Some(self)
    }
    fn to_json(&self) -> Option<serde_json::Value> {
        Some(format!("{}/{}", self.address, self.bits).into())
    }
}

fn parse_ip(text: &str) -> Result<IpAddr, String> {
    if text.contains('%') && text.contains(':') {
        return Err(format!(
            "IP address {text:?} with zone value is not allowed"
        ));
    }
    let ip: IpAddr = text.parse().map_err(|_| {
        format!("IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): unable to parse IP")
    })?;
    match ip {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"))
        }
        ip => Ok(ip),
    }
}

fn parse_cidr(text: &str) -> Result<Cidr, String> {
    let failed = |why: &str| {
        format!(
            "network address parse error during conversion from string: network address parse error during conversion \
             from string: netip.ParsePrefix({text:?}): {why}"
        )
    };
    let (ip, bits) = text.rsplit_once('/').ok_or_else(|| failed("no '/'"))?;
    let address: IpAddr = ip
        .parse()
        .map_err(|_| failed(&format!("ParseAddr({ip:?}): unable to parse IP")))?;
    let plain = !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit());
    if !plain || (bits.len() > 1 && bits.starts_with('0')) {
        return Err(failed(&format!("bad bits after slash: {bits:?}")));
    }
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits
        .parse()
        .ok()
        .filter(|b| *b <= most)
        .ok_or_else(|| failed("prefix length out of range"))?;
    if matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
        return Err(format!(
            "network address parse error during conversion from string: IPv4-mapped IPv6 address {text:?} is not allowed"
        ));
    }
    Ok(Cidr { address, bits })
}

fn ip(args: &[Value]) -> Outcome {
    match args {
        [Value::String(s)] => Some(
            parse_ip(s)
                .map(|ip| Value::opaque(Ip(ip)))
                .map_err(EvalError::new),
        ),
        [value] => value
            .downcast::<Cidr>()
            .map(|n| Ok(Value::opaque(Ip(n.address)))),
        _ => None,
    }
}

fn cidr(args: &[Value]) -> Outcome {
    let [Value::String(s)] = args else {
        return None;
    };
    Some(parse_cidr(s).map(Value::opaque).map_err(EvalError::new))
}

fn text(args: &[Value], of: fn(&str) -> Value) -> Outcome {
    let [Value::String(s)] = args else {
        return None;
    };
    Some(Ok(of(s)))
}

fn address(args: &[Value], of: fn(IpAddr) -> Value) -> Outcome {
    let [value] = args else { return None };
    value.downcast::<Ip>().map(|ip| Ok(of(ip.0)))
}

fn network(args: &[Value], of: fn(Cidr) -> Value) -> Outcome {
    let [value] = args else { return None };
    value.downcast::<Cidr>().map(|n| Ok(of(*n)))
}

fn canonical(args: &[Value]) -> Outcome {
    let [Value::String(s)] = args else {
        return None;
    };
    Some(
        parse_ip(s)
            .map(|ip| Value::Bool(ip.to_string() == **s))
            .map_err(EvalError::new),
    )
}

fn link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    }
}

fn link_local_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn global_unicast(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(broadcast
        || ip.is_unspecified()
        || ip.is_loopback()
        || ip.is_multicast()
        || link_local_unicast(ip))
}

fn contains_ip(args: &[Value]) -> Outcome {
    let [range, ip] = args else { return None };
    let range = range.downcast::<Cidr>()?;
    let ip = match ip {
        Value::String(s) => match parse_ip(s) {
            Ok(ip) => ip,
            Err(error) => return Some(Err(EvalError::new(error))),
        },
        other => other.downcast::<Ip>()?.0,
    };
    let same = ip.is_ipv4() == range.address.is_ipv4();
    Some(Ok(Value::Bool(
        same && first_bits(ip, range.bits) == range.base(range.bits),
    )))
}

fn contains_cidr(args: &[Value]) -> Outcome {
    let [range, other] = args else { return None };
    let range = range.downcast::<Cidr>()?;
    let other = match other {
        Value::String(s) => match parse_cidr(s) {
            Ok(other) => other,
            Err(error) => return Some(Err(EvalError::new(error))),
        },
        other => *other.downcast::<Cidr>()?,
    };
    let same = other.address.is_ipv4() == range.address.is_ipv4();
    let within =
        same && range.bits <= other.bits && other.base(range.bits) == range.base(range.bits);
    Some(Ok(Value::Bool(within)))
}
