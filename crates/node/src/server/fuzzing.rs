//! What the node's server reads of its clients and of logs, for `crates/fuzz` alone: whole
//! connections over bytes that come in pieces of a given size.

use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use evenkeel_runtime::TerminalSize;
use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

use super::channel::{Activity, Inbound};
use super::logs::LogOptions;
use super::logs::line::{self, LogStream};
use super::logs::reader::{LogReader, Step};
use super::query::Query;
use super::websocket::protocol::{PORT_FORWARD, REMOTE_COMMAND};
use super::websocket::{self, Channel};
use super::{port_forward, remote_command, spdy as frames};

/// Longer than any input takes.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// A client whose bytes come in pieces; what it is sent is dropped.
struct Client {
    bytes: Vec<u8>,
    at: usize,
    piece: usize,
}

impl Client {
    fn new(input: &[u8], piece: usize) -> Self {
        Self {
            bytes: input.to_vec(),
            at: 0,
            piece: piece.max(1),
        }
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = self.piece.min(buffer.remaining());
        let end = (self.at + room).min(self.bytes.len());
        buffer.put_slice(&self.bytes[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

async fn all_of(mut inbound: Inbound) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(piece) = inbound.next().await {
        out.extend_from_slice(&piece);
    }
    out
}

/// What a WebSocket client sent on each of five channels that are read, in a channel protocol by
/// its number; and whether that protocol writes text. Needs a runtime with time.
pub async fn websocket(input: &[u8], piece: usize, protocol: usize) -> (Vec<Vec<u8>>, bool) {
    let all = || REMOTE_COMMAND.iter().chain(PORT_FORWARD);
    let protocol = all().nth(protocol % all().count());
    let Some(protocol) = protocol else {
        return (Vec::new(), false);
    };
    let kinds = [Channel::ReadWrite; 5];
    let client = Client::new(input, piece);
    let (driven, channels) = websocket::open(client, protocol, &kinds, Activity::new(FOR_EVER));
    let read = join_all(channels.inbound.into_iter().flatten().map(all_of));
    let ((), read) = tokio::join!(driven, read);
    drop(channels.outbound);
    (read, protocol.base64)
}

/// A stream that a SPDY client opened: its number, the names and values of its headers, and what
/// came on it.
pub type Stream = (u32, Vec<(String, String)>, Vec<u8>);

/// The streams that a SPDY client opened. Needs a runtime with time.
pub async fn spdy(input: &[u8], piece: usize) -> Vec<Stream> {
    let client = Client::new(input, piece);
    let (driven, mut streams) = frames::open(client, port_forward::accept, Activity::new(FOR_EVER));
    let collected = async {
        let mut reading = FuturesUnordered::new();
        let mut out = Vec::new();
        let mut open = true;
        // Nothing is closed from this side while the client has something to say.
        let mut kept = Vec::new();
        while open || !reading.is_empty() {
            tokio::select! {
                opened = streams.next(), if open => match opened {
                    Some(stream) => {
                        let head = (stream.id, stream.headers.0);
                        kept.push(stream.outbound);
                        reading.push(async move { (head.0, head.1, all_of(stream.inbound).await) });
                    }
                    None => open = false,
                },
                Some(done) = reading.next() => out.push(done),
            }
        }
        drop(kept);
        out.sort();
        out
    };
    let ((), out) = tokio::join!(driven, collected);
    out
}

/// The terminal sizes that a client sends as JSON, in pieces.
pub async fn terminal_sizes(input: &[u8], piece: usize) -> Vec<(u16, u16)> {
    let (pieces, inbound) = mpsc::channel(1);
    let (to, mut sizes) = mpsc::channel::<TerminalSize>(1);
    let inbound = Inbound::new(inbound, None);
    let sent = async {
        for piece in input.chunks(piece.max(1)) {
            if pieces.send(piece.to_vec().into()).await.is_err() {
                break;
            }
        }
        drop(pieces);
    };
    let collected = async {
        let mut out = Vec::new();
        while let Some(size) = sizes.recv().await {
            out.push((size.width, size.height));
        }
        out
    };
    let ((), (), out) = tokio::join!(sent, remote_command::sizes(Some(inbound), to), collected);
    out
}

/// The ports that a query asks to forward.
///
/// # Errors
/// What is wrong with it.
pub fn ports(query: &str) -> Result<Vec<u16>, String> {
    port_forward::ports(&Query::parse(query)).map_err(|error| error.message)
}

/// What a client sees of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The bytes.
    pub text: Vec<u8>,
    /// The options that were asked for, without the number of last lines.
    pub without_tail: Vec<u8>,
    /// So many last lines were asked for.
    pub tail: Option<u64>,
    /// At most so many bytes were asked for.
    pub limit: Option<u64>,
}

/// A log as a query asks for it.
///
/// # Errors
/// What is wrong with the query.
pub fn log(query: &str, lines: &[u8]) -> Result<Log, String> {
    let mut options = LogOptions::parse(&Query::parse(query), Timestamp::UNIX_EPOCH)
        .map_err(|error| error.message)?;
    let text = rendered(&options, lines).map_err(|error| error.to_string())?;
    let (tail, limit) = (options.tail.take(), options.limit.take());
    let without_tail = rendered(&options, lines).map_err(|error| error.to_string())?;
    Ok(Log {
        text,
        without_tail,
        tail,
        limit,
    })
}

fn rendered(options: &LogOptions, lines: &[u8]) -> io::Result<Vec<u8>> {
    let file = rustix::fs::memfd_create("log", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(file);
    file.write_all(lines)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let mut reader = LogReader::open(&path, options)?;
    let mut out = Vec::new();
    while reader.step(&mut out)? == Step::More {}
    Ok(out)
}

/// Whether the last entry of each stream of a log is the last piece of its line.
#[must_use]
pub fn is_finished(log: &[u8]) -> bool {
    let mut open = [false; 2];
    let entries = log.split_inclusive(|byte| *byte == b'\n');
    let ended = entries.filter_map(|entry| entry.strip_suffix(b"\n"));
    for entry in ended.filter_map(line::parse) {
        open[usize::from(entry.stream == LogStream::Stderr)] = entry.partial;
    }
    open == [false; 2]
}
