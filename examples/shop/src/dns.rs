//! Names to addresses: A queries (RFC 1035) to the servers of /etc/resolv.conf.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(2);
const HEADER: usize = 12;

/// The first address of a name.
pub(crate) fn resolve(name: &str) -> io::Result<IpAddr> {
    if let Ok(address) = name.parse() {
        return Ok(address);
    }
    if name == "localhost" {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    let settings = fs::read_to_string("/etc/resolv.conf")?;
    let (mut servers, mut searches) = (Vec::new(), Vec::new());
    for line in settings.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => servers.extend(words.next()),
            Some("search") => searches = words.collect(),
            _ => {}
        }
    }
    // The name as it is last, unless it ends with a dot or has many parts already.
    let mut names: Vec<String> = vec![name.trim_end_matches('.').to_owned()];
    if !name.ends_with('.') && name.matches('.').count() < 4 {
        names = searches
            .iter()
            .map(|search| format!("{name}.{search}"))
            .chain(names)
            .collect();
    }
    for server in servers {
        for name in &names {
            if let Some(address) = ask(server, name)? {
                return Ok(address.into());
            }
        }
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        format!("no address for {name}"),
    ))
}

fn ask(server: &str, name: &str) -> io::Result<Option<Ipv4Addr>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect((server, 53))?;
    let mut query = vec![0x2a, 0x2a, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).map_err(io::Error::other)?);
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    socket.send(&query)?;
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer)?;
    Ok(first_address(answer.get(..length).unwrap_or_default()))
}

/// The first A record of an answer.
fn first_address(answer: &[u8]) -> Option<Ipv4Addr> {
    let number = |at: usize| Some(u16::from_be_bytes([*answer.get(at)?, *answer.get(at + 1)?]));
    let count = number(6)?;
    let mut at = skip_name(answer, HEADER)? + 4;
    for _ in 0..count {
        at = skip_name(answer, at)?;
        let (kind, length) = (number(at)?, usize::from(number(at + 8)?));
        let data = answer.get(at + 10..at + 10 + length)?;
        if kind == 1 {
            return <[u8; 4]>::try_from(data).ok().map(Ipv4Addr::from);
        }
        at += 10 + length;
    }
    None
}

fn skip_name(answer: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *answer.get(at)? {
            0 => return Some(at + 1),
            length if length >= 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}
