//! A blocking netlink socket with acknowledgements, dumps and the kernel's error texts.
#![allow(
    unsafe_code,
    reason = "SOL_NETLINK options have no safe wrapper in nix"
)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

use super::wire::{Attributes, HEADER, Received, Writer, messages, u32_at};

pub(crate) const NLM_F_REQUEST: u16 = 1;
pub(crate) const NLM_F_ACK: u16 = 4;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
const SOL_NETLINK: i32 = 270;
const NETLINK_CAP_ACK: i32 = 10;
const NETLINK_EXT_ACK: i32 = 11;

/// The kernel answers within microseconds; when it takes this long, something is wrong.
const ANSWER_TIMEOUT_SECONDS: i64 = 10;

/// Why the kernel did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel refused; the source says which errno.
    #[error("{object}: {code}{detail}")]
    Refused {
        /// What was to be made, changed or removed.
        object: String,
        /// The errno.
        code: nix::errno::Errno,
        /// The kernel's own text, when it gave one.
        detail: String,
    },
    /// The socket failed.
    #[error("netlink: {0}")]
    Socket(#[from] io::Error),
}

impl NetlinkError {
    /// Whether the kernel answered with this errno.
    pub(crate) fn is(&self, wanted: nix::errno::Errno) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == wanted)
    }
}

impl From<nix::errno::Errno> for NetlinkError {
    fn from(code: nix::errno::Errno) -> Self {
        Self::Socket(code.into())
    }
}

/// A netlink socket. It acts in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    send_limit: usize,
}

/// One refused message of a batch.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) sequence: u32,
    pub(crate) code: nix::errno::Errno,
    pub(crate) detail: String,
}

impl Socket {
    /// Opens rtnetlink.
    pub(crate) fn route() -> Result<Self, NetlinkError> {
        Self::open(SockProtocol::NetlinkRoute)
    }

    /// Opens nfnetlink: nftables and conntrack.
    pub(crate) fn netfilter() -> Result<Self, NetlinkError> {
        Self::open(SockProtocol::NetlinkNetFilter)
    }

    fn open(protocol: SockProtocol) -> Result<Self, NetlinkError> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )?;
        setsockopt(
            &fd,
            sockopt::ReceiveTimeout,
            &TimeVal::new(ANSWER_TIMEOUT_SECONDS, 0),
        )?;
        for option in [NETLINK_CAP_ACK, NETLINK_EXT_ACK] {
            let on: i32 = 1;
            // SAFETY: the pointer and length describe `on`, which outlives the call. Failure is
            // harmless: error texts are then missing, and answers carry the request.
            unsafe {
                libc::setsockopt(
                    fd.as_raw_fd(),
                    SOL_NETLINK,
                    option,
                    (&raw const on).cast(),
                    4,
                );
            }
        }
        Ok(Self {
            fd,
            sequence: 1,
            send_limit: 200 * 1024,
        })
    }

    /// The next sequence number.
    pub(crate) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.sequence
    }

    /// Sends what was built, however long it is.
    pub(crate) fn send(&mut self, writer: &Writer) -> Result<(), NetlinkError> {
        let bytes = writer.bytes();
        if bytes.len() + 4096 > self.send_limit {
            self.send_limit = bytes.len() * 2;
            setsockopt(&self.fd, sockopt::SndBufForce, &self.send_limit)?;
            // Each message may be answered while the kernel still works on the batch.
            setsockopt(&self.fd, sockopt::RcvBufForce, &self.send_limit)?;
        }
        send(self.fd.as_raw_fd(), bytes, MsgFlags::empty())?;
        Ok(())
    }

    /// Reads messages until `each` says that it has seen enough (`true`).
    fn receive(
        &mut self,
        mut each: impl FnMut(Received<'_>) -> Result<bool, NetlinkError>,
    ) -> Result<(), NetlinkError> {
        let mut buffer = vec![0u8; 64 * 1024];
        loop {
            let length = match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(nix::errno::Errno::EINTR) => continue,
                other => other?,
            };
            for message in messages(&buffer[..length]) {
                if each(message)? {
                    return Ok(());
                }
            }
        }
    }

    /// Sends requests that each carry `NLM_F_ACK` and waits for every answer. The first refusal
    /// is returned with the label of its request, after all were answered.
    pub(crate) fn transact(&mut self, requests: Requests) -> Result<(), NetlinkError> {
        self.send(&requests.writer)?;
        let mut open = requests.labels.len();
        let mut failed = None;
        self.receive(|message| {
            let Some(at) = requests
                .labels
                .iter()
                .position(|(s, _)| *s == message.sequence)
            else {
                return Ok(false);
            };
            if let Some(answer) = acknowledgement(message) {
                open -= 1;
                if let Err(refusal) = answer {
                    failed.get_or_insert(NetlinkError::Refused {
                        object: requests.labels[at].1.clone(),
                        code: refusal.code,
                        detail: refusal.detail,
                    });
                }
            }
            Ok(open == 0)
        })?;
        failed.map_or(Ok(()), Err)
    }

    /// Sends a batch of which only message `last` asks for an answer; collects what was refused.
    /// `first` is the sequence number of the batch's opening, which is blamed when the batch as a
    /// whole is refused.
    pub(crate) fn commit(
        &mut self,
        writer: &Writer,
        first: u32,
        last: u32,
    ) -> Result<Vec<Refusal>, NetlinkError> {
        // Numbers start at 1 in each batch: answers left over from a failed one must not count.
        let mut rest = [0u8; 4096];
        while recv(self.fd.as_raw_fd(), &mut rest, MsgFlags::MSG_DONTWAIT).is_ok() {}
        self.send(writer)?;
        let mut refusals = Vec::new();
        self.receive(|message| {
            if message.sequence.wrapping_sub(first) > last.wrapping_sub(first) {
                return Ok(false);
            }
            let Some(answer) = acknowledgement(message) else {
                return Ok(false);
            };
            let refused = answer.is_err();
            refusals.extend(answer.err());
            Ok(message.sequence == last || (refused && message.sequence == first))
        })?;
        Ok(refusals)
    }

    /// Sends one request and hands each answer's (type, payload) to `each`, until the dump ends
    /// or the acknowledgement comes.
    pub(crate) fn query(
        &mut self,
        label: &str,
        writer: &Writer,
        sequence: u32,
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<(), NetlinkError> {
        self.send(writer)?;
        self.receive(|message| {
            if message.sequence != sequence {
                return Ok(false);
            }
            match acknowledgement(message) {
                Some(Err(refusal)) => Err(NetlinkError::Refused {
                    object: label.to_owned(),
                    code: refusal.code,
                    detail: refusal.detail,
                }),
                Some(Ok(())) => Ok(true),
                None if message.kind == NLMSG_DONE => Ok(true),
                None => {
                    each(message.kind, message.payload);
                    Ok(false)
                }
            }
        })
    }
}

/// `None` when the message is no acknowledgement.
fn acknowledgement(message: Received<'_>) -> Option<Result<(), Refusal>> {
    if message.kind != NLMSG_ERROR {
        return None;
    }
    let code = u32_at(message.payload, 0)?.cast_signed();
    if code == 0 {
        return Some(Ok(()));
    }
    let mut at = 4 + HEADER;
    if message.flags & NLM_F_CAPPED == 0 {
        // The whole request is quoted.
        at = 4 + usize::try_from(u32_at(message.payload, 4)?)
            .ok()?
            .next_multiple_of(4);
    }
    let detail = (message.flags & NLM_F_ACK_TLVS != 0)
        .then(|| Attributes(message.payload.get(at..)?).find(NLMSGERR_ATTR_MSG))
        .flatten()
        .map(|text| {
            format!(
                " ({})",
                String::from_utf8_lossy(text).trim_end_matches('\0')
            )
        })
        .unwrap_or_default();
    Some(Err(Refusal {
        sequence: message.sequence,
        code: nix::errno::Errno::from_raw(-code),
        detail,
    }))
}

/// Several acknowledged requests in one datagram, each with a label for errors.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    writer: Writer,
    labels: Vec<(u32, String)>,
}

impl Requests {
    /// Adds a request; `fill` writes its payload.
    pub(crate) fn add(
        &mut self,
        socket: &mut Socket,
        label: String,
        kind: u16,
        flags: u16,
        fill: impl FnOnce(&mut Writer),
    ) {
        let sequence = socket.next_sequence();
        self.writer
            .begin(kind, flags | NLM_F_REQUEST | NLM_F_ACK, sequence);
        fill(&mut self.writer);
        self.writer.finish();
        self.labels.push((sequence, label));
    }
}

/// `struct nfgenmsg` for this family; resource id 0.
pub(crate) fn nfgenmsg(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

/// The attributes after a fixed header of `fixed` bytes.
pub(crate) fn attributes(payload: &[u8], fixed: usize) -> Attributes<'_> {
    Attributes(payload.get(fixed..).unwrap_or_default())
}

/// Index, as in `struct ifinfomsg`.
pub(crate) fn interface_index(payload: &[u8]) -> Option<u32> {
    u32_at(payload, 4)
}
