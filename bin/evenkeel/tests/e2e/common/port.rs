//! A port for a server under test.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the ports that a kernel gives to clients, and below node ports: a server that is down for
/// a moment finds its port free again, because no connection of somebody else can have taken it.
const FIRST: u16 = 20_000;
const COUNT: u16 = 9_000;

/// A port of an address that nobody has now.
pub(crate) fn free(address: Ipv4Addr) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Tests run in processes of their own: each begins somewhere else.
    let begin = std::process::id().wrapping_mul(17) % u32::from(COUNT);
    let begin = u16::try_from(begin).expect("less than COUNT");
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (begin + step) % COUNT;
        if TcpListener::bind((address, port)).is_ok() {
            return port;
        }
        assert!(step < COUNT, "no port of {address} is free");
    }
}
