//! Addresses and networks in objects.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

use super::Cursor;
use crate::field::{ErrorList, FieldError, Path, quoted};

/// Reads an address as the reference's older fields do: IPv4 octets may have leading zeros, which
/// are ignored.
#[must_use]
pub fn parse_ip_sloppy(value: &str) -> Option<IpAddr> {
    if let Ok(address) = value.parse() {
        return Some(address);
    }
    let mut octets = [0_u8; 4];
    let mut parts = value.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let digits = part.trim_start_matches('0');
        *octet = if digits.is_empty() {
            0
        } else {
            digits.parse().ok()?
        };
    }
    parts
        .next()
        .is_none()
        .then(|| Ipv4Addr::from(octets).into())
}

fn strict(value: &str, path: &Path, out: &mut ErrorList) -> Option<IpAddr> {
    let Some(address) = parse_ip_sloppy(value) else {
        out.push(FieldError::invalid(
            path,
            value,
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ));
        return None;
    };
    if value.parse::<IpAddr>().is_err() {
        out.push(FieldError::invalid(path, value, "must not have leading 0s"));
        return None;
    }
    if let IpAddr::V6(six) = address
        && six.to_ipv4_mapped().is_some()
    {
        out.push(FieldError::invalid(
            path,
            value,
            "must not be an IPv4-mapped IPv6 address",
        ));
        return None;
    }
    Some(address)
}

/// Checks an address in a field that predates strict forms: any valid spelling.
pub fn legacy_ip(value: &str, path: &Path, out: &mut ErrorList) {
    strict(value, path, out);
}

/// What who writes an address into such a field is warned of: it should have been spelled otherwise.
/// Nothing where it is no address.
#[must_use]
pub fn ip_warning(value: &str, path: &Path) -> Option<String> {
    let address = parse_ip_sloppy(value)?;
    let mapped = match address {
        IpAddr::V6(six) => six.to_ipv4_mapped(),
        IpAddr::V4(_) => None,
    };
    let (shown, preferred) = (
        quoted(value),
        mapped.map_or(address, IpAddr::V4).to_string(),
    );
    if mapped.is_some() || value.parse::<IpAddr>().is_err() {
        let preferred = quoted(&preferred);
        return Some(format!(
            "{path}: non-standard IP address {shown} is invalid: use {preferred}"
        ));
    }
    (preferred != value).then(|| {
        let preferred = quoted(&preferred);
        format!("{path}: IPv6 address {shown} should be in RFC 5952 canonical format ({preferred})")
    })
}

/// As [`ip_warning`], for the addresses that a load balancer has for an object, by its status.
#[must_use]
pub fn balancer_warnings(object: &Value) -> Vec<String> {
    let balancer = Cursor::root(object).child("status").child("loadBalancer");
    balancer
        .items("ingress")
        .filter_map(|it| ip_warning(it.text("ip"), &it.path))
        .collect()
}

/// As [`ip_warning`], for a network in CIDR form.
#[must_use]
pub fn cidr_warning(value: &str, path: &Path) -> Option<String> {
    let network = value.parse::<ipnet::IpNet>().ok()?.to_string();
    (network != value).then(|| {
        let (shown, preferred) = (quoted(value), quoted(&network));
        format!(
            "{path}: IPv6 CIDR value {shown} should be in RFC 5952 canonical format ({preferred})"
        )
    })
}

/// Checks an address, which must be in canonical form.
pub fn ip(value: &str, path: &Path, out: &mut ErrorList) {
    if let Some(address) = strict(value, path, out) {
        let canonical = address.to_string();
        if canonical != value {
            out.push(FieldError::invalid(
                path,
                value,
                &format!("must be in canonical form ({})", quoted(&canonical)),
            ));
        }
    }
}

/// Refuses addresses that make no sense as an endpoint: unspecified, loopback and link-local.
pub fn non_special_ip(value: &str, path: &Path, out: &mut ErrorList) {
    let Some(address) = parse_ip_sloppy(value) else {
        out.push(FieldError::invalid(
            path,
            value,
            "must be a valid IP address",
        ));
        return;
    };
    let (link_local, link_multicast) = match address {
        IpAddr::V4(four) => (four.is_link_local(), four.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(six) => (
            six.segments()[0] & 0xffc0 == 0xfe80,
            six.segments()[0] & 0xff0f == 0xff02,
        ),
    };
    let mut push = |detail: &str| out.push(FieldError::invalid(path, value, detail));
    if address.is_unspecified() {
        push(&format!("may not be unspecified ({value})"));
    }
    if address.is_loopback() {
        push("may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if link_local {
        push("may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if link_multicast {
        push("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

/// Checks a network in CIDR form in a field that predates strict forms.
pub fn legacy_cidr(value: &str, path: &Path, out: &mut ErrorList) {
    parsed_cidr(value, path, out);
}

/// Checks a network in canonical CIDR form.
pub fn cidr(value: &str, path: &Path, out: &mut ErrorList) {
    if let Some(network) = parsed_cidr(value, path, out)
        && network.to_string() != value
    {
        out.push(FieldError::invalid(
            path,
            value,
            &format!(
                "must be in canonical form ({})",
                quoted(&network.to_string())
            ),
        ));
    }
}

fn parsed_cidr(value: &str, path: &Path, out: &mut ErrorList) -> Option<ipnet::IpNet> {
    let Ok(network) = value.parse::<ipnet::IpNet>() else {
        out.push(FieldError::invalid(
            path,
            value,
            "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ));
        return None;
    };
    if network.addr() != network.network() {
        out.push(FieldError::invalid(
            path,
            value,
            "must not have bits set beyond the prefix length",
        ));
        return None;
    }
    Some(network)
}
