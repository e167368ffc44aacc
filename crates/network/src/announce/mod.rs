//! Announcing addresses of load balancers on the link: this node answers ARP for those that the
//! cluster gave to it, and says so unasked when it gets one.
//!
//! The addresses are on no interface: nothing of the host's own becomes reachable at them, and the
//! answers end with this process, so that a node that is gone does not argue with the one that
//! took over. nftables leads the packets on; see `service`.
#![allow(
    unsafe_code,
    reason = "nix makes no link-layer address out of an interface and a hardware address"
)]

mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, bind, recvfrom, sendto,
    socket,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::netlink::route::{self, Link};
use crate::netlink::{NetlinkError, Socket};
use wire::{Arp, BROADCAST, Mac};

/// Addresses, each with the interfaces on which it is announced; none means all.
pub(crate) type Wanted = BTreeMap<Ipv4Addr, BTreeSet<String>>;

/// Announcements of a new address: neighbours may miss one.
const REPEATS: u8 = 5;
/// Between two of them.
const PERIOD: Duration = Duration::from_secs(1);
/// Before a socket that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// What the kernel says of our own packets.
const OUTGOING: u8 = 4;

/// Answers for addresses.
#[derive(Debug)]
pub(crate) struct Announcer {
    wanted: watch::Sender<Wanted>,
    /// The pods' bridge, on which nothing is announced: pods go by the gateway.
    bridge: String,
}

/// A socket that sees all ARP of the namespace, and the links it came by.
struct Wire {
    arp: AsyncFd<OwnedFd>,
    route: Socket,
}

fn link_address(interface: u32, to: Mac) -> Option<LinkAddr> {
    let mut bytes = [0; 8];
    bytes[..6].copy_from_slice(&to);
    let raw = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).ok()?,
        sll_protocol: u16::try_from(libc::ETH_P_ARP).ok()?.to_be(),
        sll_ifindex: i32::try_from(interface).ok()?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: bytes,
    };
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).ok()?;
    // SAFETY: the pointer and length describe `raw`, a whole sockaddr_ll that outlives the call;
    // the address is copied.
    unsafe { LinkAddr::from_raw((&raw const raw).cast(), Some(length)) }
}

impl Wire {
    fn open() -> Result<Self, NetlinkError> {
        let fd = socket(
            AddressFamily::Packet,
            // Without the link's header: the kernel writes it.
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            None,
        )?;
        let all = link_address(0, [0; 6]).ok_or(nix::errno::Errno::EINVAL)?;
        bind(fd.as_raw_fd(), &all)?;
        // SAFETY: the descriptor is owned, open, and neither replaced nor closed while it is
        // registered.
        let arp = unsafe { AsyncFd::register(fd) }.map_err(|error| error.into_parts().1)?;
        Ok(Self {
            arp,
            route: Socket::route()?,
        })
    }

    /// The next packet that came from somebody else, and its interface.
    async fn next(&self) -> io::Result<(Arp, u32)> {
        loop {
            let mut ready = self.arp.readable().await?;
            let received = ready.try_io(|fd| {
                let mut packet = [0; 64];
                let (length, from) = recvfrom::<LinkAddr>(fd.get_ref().as_raw_fd(), &mut packet)?;
                Ok((Arp::parse(&packet[..length.min(64)]), from))
            });
            match received {
                Ok(Ok((Some(arp), Some(from)))) if from.pkttype() != OUTGOING => {
                    if let Ok(interface) = u32::try_from(from.ifindex()) {
                        return Ok((arp, interface));
                    }
                }
                // An interface went down: its end is told as an error of the socket.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::ENETDOWN) => {}
                Ok(Err(error)) => return Err(error),
                Ok(Ok(_)) | Err(_) => {}
            }
        }
    }

    /// Sends a packet; a link that is down or full loses it as a wire would.
    fn send(&self, interface: u32, to: Mac, arp: Arp) {
        let Some(address) = link_address(interface, to) else {
            return;
        };
        let fd = self.arp.get_ref().as_raw_fd();
        if let Err(error) = sendto(fd, &arp.bytes(), &address, MsgFlags::empty()) {
            tracing::debug!(interface, %error, "an ARP packet could not be sent");
        }
    }
}

impl Announcer {
    pub(crate) fn new(bridge: &str) -> Self {
        Self {
            wanted: watch::Sender::new(Wanted::new()),
            bridge: bridge.to_owned(),
        }
    }

    /// These addresses are this node's to announce from now on, and no others.
    pub(crate) fn set(&self, wanted: Wanted) {
        self.wanted.send_if_modified(|current| {
            let differs = *current != wanted;
            if differs {
                *current = wanted;
            }
            differs
        });
    }

    /// The hardware address with which a link speaks of an address, if it does.
    fn speaks(&self, link: &Link, interfaces: &BTreeSet<String>) -> Option<Mac> {
        let named = interfaces.is_empty() || interfaces.contains(&link.name);
        let ours = link.name == self.bridge || link.master.is_some();
        link.mac.filter(|_| named && !ours)
    }

    /// Answers for as long as it is polled. Costs nothing while there is nothing to announce.
    pub(crate) async fn run(&self) {
        let mut wanted = self.wanted.subscribe();
        loop {
            // The sender is this very object, so that waiting ends only with a change.
            if wanted.wait_for(|wanted| !wanted.is_empty()).await.is_err() {
                return;
            }
            let ended = match Wire::open() {
                Ok(link) => self.serve(link).await,
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                tracing::error!(%error, "addresses can't be announced on the link; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Returns when nothing is wanted any more.
    async fn serve(&self, mut link: Wire) -> Result<(), NetlinkError> {
        let mut changed = self.wanted.subscribe();
        let mut known = BTreeSet::new();
        let mut left: BTreeMap<Ipv4Addr, u8> = BTreeMap::new();
        let mut tick = tokio::time::interval(PERIOD);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let wanted = changed.borrow_and_update().clone();
            if wanted.is_empty() {
                return Ok(());
            }
            let fresh: Vec<Ipv4Addr> = wanted
                .keys()
                .filter(|address| !known.contains(*address))
                .copied()
                .collect();
            if !fresh.is_empty() {
                tracing::info!(addresses = ?fresh, "announcing on the link");
                left.extend(fresh.into_iter().map(|address| (address, REPEATS)));
                tick.reset_immediately();
            }
            left.retain(|address, _| wanted.contains_key(address));
            known = wanted.keys().copied().collect();
            let mut same = true;
            while same {
                tokio::select! {
                    ended = changed.changed() => {
                        if ended.is_err() {
                            return Ok(());
                        }
                        same = false;
                    }
                    received = link.next() => {
                        let (arp, interface) = received?;
                        if let Some(interfaces) = wanted.get(&arp.target.1) {
                            self.answer(&mut link, &arp, interface, interfaces)?;
                        }
                    }
                    _ = tick.tick(), if !left.is_empty() => {
                        self.announce(&mut link, &wanted, &mut left)?;
                    }
                }
            }
        }
    }

    fn answer(
        &self,
        link: &mut Wire,
        arp: &Arp,
        interface: u32,
        interfaces: &BTreeSet<String>,
    ) -> Result<(), NetlinkError> {
        let links = route::links(&mut link.route)?;
        let found = links.iter().find(|found| found.index == interface);
        let mac = found.and_then(|found| self.speaks(found, interfaces));
        if let Some(answer) = mac.and_then(|mac| arp.answer(mac)) {
            link.send(interface, arp.sender.0, answer);
        }
        Ok(())
    }

    fn announce(
        &self,
        link: &mut Wire,
        wanted: &Wanted,
        left: &mut BTreeMap<Ipv4Addr, u8>,
    ) -> Result<(), NetlinkError> {
        let links = route::links(&mut link.route)?;
        for (address, times) in left.iter_mut() {
            let Some(interfaces) = wanted.get(address) else {
                continue;
            };
            for found in &links {
                let Some(mac) = self.speaks(found, interfaces) else {
                    continue;
                };
                for arp in Arp::announcements(mac, *address) {
                    link.send(found.index, BROADCAST, arp);
                }
            }
            *times -= 1;
        }
        left.retain(|_, times| *times > 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
