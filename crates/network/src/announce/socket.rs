//! The sockets by which a node hears and says whose address is whose on its links.
#![allow(
    unsafe_code,
    reason = "nix neither makes a link-layer address out of an interface and a hardware address nor \
              attaches a packet filter"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv6Addr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, SockaddrLike,
    bind, recv, recvfrom, sendto, socket,
};
use tokio::io::unix::AsyncFd;

use crate::nft::Family;

use super::ndp::FILTER;
use super::wire::{Mac, Packet, Question};

/// What the kernel says of our own packets.
const OUTGOING: u8 = 4;
/// Bytes of what is read at most; questions are shorter than a frame of Ethernet.
const FRAME: usize = 1500;
/// News of links (RTMGRP_LINK).
const LINKS: u32 = 1;

/// Hears what is asked in the namespace about addresses of a family.
pub(super) struct Hearing {
    fd: AsyncFd<OwnedFd>,
    family: Family,
}

fn ether_type(family: Family) -> libc::c_int {
    match family {
        Family::V4 => libc::ETH_P_ARP,
        Family::V6 => libc::ETH_P_IPV6,
    }
}

fn link_address(family: Family, interface: u32, to: Mac) -> Option<LinkAddr> {
    let mut bytes = [0; 8];
    bytes[..6].copy_from_slice(&to);
    let raw = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).ok()?,
        sll_protocol: u16::try_from(ether_type(family)).ok()?.to_be(),
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

/// Waits for what an owned, open, non-blocking descriptor has to read.
fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned, open, and neither replaced nor closed while it is
    // registered.
    unsafe { AsyncFd::register(fd) }.map_err(|error| error.into_parts().1)
}

/// Leaves to the socket only packets with these bytes at these places (linux/filter.h): without it
/// all IPv6 of the machine would be copied to us.
fn filter(fd: &OwnedFd, wanted: &[(usize, u8)]) -> io::Result<()> {
    // BPF_LD | BPF_B | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K.
    const LOAD: u16 = 0x30;
    const UNLESS: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let step = |code, k, jf| libc::sock_filter { code, jt: 0, jf, k };
    let mut program = Vec::new();
    for (n, (at, value)) in wanted.iter().enumerate() {
        program.push(step(LOAD, u32::try_from(*at).map_err(too_long)?, 0));
        // To the last step: over what is left of the others, and over the one that takes it.
        let over = 2 * (wanted.len() - 1 - n) + 1;
        let over = u8::try_from(over).map_err(too_long)?;
        program.push(step(UNLESS, u32::from(*value), over));
    }
    program.push(step(RETURN, u32::MAX, 0));
    program.push(step(RETURN, 0, 0));
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(too_long)?,
        filter: program.as_mut_ptr(),
    };
    let length = libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).map_err(too_long)?;
    // SAFETY: the pointer and length describe a whole sock_fprog, and it a whole program; both
    // outlive the call, which copies them.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            length,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

impl Hearing {
    pub(super) fn open(family: Family) -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Packet,
            // Without the link's header: the kernel writes it.
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            None,
        )?;
        // Before it is bound it sees nothing.
        if family == Family::V6 {
            filter(&fd, &FILTER)?;
        }
        let all = link_address(family, 0, [0; 6]).ok_or(Errno::EINVAL)?;
        bind(fd.as_raw_fd(), &all)?;
        let fd = register(fd)?;
        Ok(Self { fd, family })
    }

    /// The next question of somebody else, and the interface it came by.
    pub(super) async fn next(&self) -> io::Result<(Question, u32)> {
        loop {
            let mut ready = self.fd.readable().await?;
            let received = ready.try_io(|fd| {
                let mut packet = [0; FRAME];
                let (length, from) = recvfrom::<LinkAddr>(fd.get_ref().as_raw_fd(), &mut packet)?;
                let from = from.filter(|from| from.pkttype() != OUTGOING);
                Ok(from.and_then(|from| {
                    let packet = &packet[..length.min(FRAME)];
                    let question = Question::parse(self.family, packet, from.addr()?)?;
                    Some((question, u32::try_from(from.ifindex()).ok()?))
                }))
            });
            match received {
                Ok(Ok(Some(question))) => return Ok(question),
                // An interface went down: its end is told as an error of the socket.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::ENETDOWN) => {}
                Ok(Err(error)) => return Err(error),
                Ok(Ok(None)) | Err(_) => {}
            }
        }
    }

    /// Sends a packet; a link that is down or full loses it as a wire would.
    pub(super) fn send(&self, interface: u32, packet: &Packet) {
        let Some(address) = link_address(self.family, interface, packet.to) else {
            return;
        };
        let fd = self.fd.get_ref().as_raw_fd();
        if let Err(error) = sendto(fd, &packet.bytes, &address, MsgFlags::empty()) {
            let family = self.family;
            tracing::debug!(interface, %family, %error, "whose an address is could not be told");
        }
    }
}

/// The groups in which addresses are asked for, as they are listened to on links. Interfaces pass
/// only those on, and switches too that look into group membership.
pub(super) struct Groups {
    socket: UdpSocket,
    /// Group and interface; whether it was joined.
    joined: BTreeMap<(Ipv6Addr, u32), bool>,
}

impl Groups {
    pub(super) fn open() -> io::Result<Self> {
        // Bound to no port: it only holds the memberships, which end with it.
        let fd = socket(
            AddressFamily::Inet6,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        Ok(Self {
            socket: fd.into(),
            joined: BTreeMap::new(),
        })
    }

    /// Listens in these groups and in no others. What was refused is tried again.
    pub(super) fn keep(&mut self, wanted: &BTreeSet<(Ipv6Addr, u32)>) {
        let Self { socket, joined } = self;
        joined.retain(|(group, interface), member| {
            let stays = wanted.contains(&(*group, *interface));
            if !stays
                && *member
                && let Err(error) = socket.leave_multicast_v6(group, *interface)
            {
                // The interface is gone, and the membership with it.
                tracing::debug!(%group, interface, %error, "a group was not left");
            }
            stays
        });
        for (group, interface) in wanted {
            let before = joined.get(&(*group, *interface)).copied();
            if before == Some(true) {
                continue;
            }
            let outcome = socket.join_multicast_v6(group, *interface);
            if let (Err(error), None) = (&outcome, before) {
                tracing::warn!(
                    %group, interface, %error,
                    "IPv6 addresses are not announced well on an interface: it does not hear who \
                     asks for them (is IPv6 off there?)"
                );
            }
            joined.insert((*group, *interface), outcome.is_ok());
        }
    }
}

/// News of links that come, go or change.
pub(super) struct LinkNews(AsyncFd<OwnedFd>);

impl LinkNews {
    pub(super) fn open() -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, LINKS))?;
        Ok(Self(register(fd)?))
    }

    /// Returns when something changed since the last call.
    pub(super) async fn next(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            // What it is does not matter, and how much of it was lost neither: all links are
            // looked at then.
            let read = ready.try_io(|fd| {
                let mut found = false;
                loop {
                    match recv(fd.get_ref().as_raw_fd(), &mut [0; 1], MsgFlags::empty()) {
                        Ok(_) | Err(Errno::ENOBUFS) => found = true,
                        Err(Errno::EAGAIN) if found => return Ok(()),
                        Err(error) => return Err(error.into()),
                    }
                }
            });
            if let Ok(outcome) = read {
                return outcome;
            }
        }
    }
}
