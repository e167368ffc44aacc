//! One WebSocket connection: reads messages into channels, writes channels as messages.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};

use super::frame::{FrameError, FrameHeader, Opcode, parse_header, put_header, unmask};
use super::protocol::{CLOSE_CHANNEL, ChannelProtocol};
use crate::server::channel::{Activity, Inbound, Outbound, Outgoing, PIECE};

/// How long the peer may take to close after we did.
const LINGER: Duration = Duration::from_secs(5);
/// A client whose data we can't take yet gets a sign of life this often: kubectl gives up after a
/// minute without a pong, and while a full channel holds us up we don't see its pings.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// Nothing is written for this long after the upgrade, unless the client writes first. kubectl up
/// to 1.33 begins to read before it has made its streams and drops what comes for them until then;
/// a command that answers at once loses its first output.
const SETTLE: Duration = Duration::from_millis(30);

/// Who uses a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    /// What comes on it is dropped.
    Ignored,
    /// The client writes, the server reads.
    Read,
    /// The server writes.
    Write,
    /// Both.
    ReadWrite,
}

/// The ends of a connection's channels, by number.
#[derive(Debug)]
pub(crate) struct Channels {
    /// `Some` for channels that are read.
    pub(crate) inbound: Vec<Option<Inbound>>,
    /// `Some` for channels that are written.
    pub(crate) outbound: Vec<Option<Outbound>>,
}

/// A control frame for the writer.
#[derive(Debug, PartialEq, Eq)]
enum Control {
    Pong(Bytes),
    Close(u16),
}

/// Why reading ended.
enum End {
    /// The peer sent a close frame.
    Closed,
    /// The connection broke or ended without one.
    Broken,
    /// The peer broke the protocol.
    Violation(FrameError),
}

/// Opens the channels over an upgraded connection. The future carries the data: it has to be
/// polled while the channels are used and ends with the connection.
pub(crate) fn open<I>(
    io: I,
    protocol: &'static ChannelProtocol,
    kinds: &[Channel],
    activity: Activity,
) -> (impl Future<Output = ()> + Send + use<I>, Channels)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (queue, outgoing) = mpsc::channel(4);
    let (control, controls) = mpsc::channel(64);
    let mut senders = Vec::new();
    let mut channels = Channels {
        inbound: Vec::new(),
        outbound: Vec::new(),
    };
    for (id, kind) in (0u32..).zip(kinds) {
        let reads = matches!(kind, Channel::Read | Channel::ReadWrite);
        let writes = matches!(kind, Channel::Write | Channel::ReadWrite);
        let (sender, pieces) = mpsc::channel(8);
        senders.push(reads.then_some(sender));
        channels
            .inbound
            .push(reads.then(|| Inbound::new(pieces, None)));
        channels
            .outbound
            .push(writes.then(|| Outbound::new(id, queue.clone(), None)));
    }
    drop(queue);
    let (from, to) = tokio::io::split(io);
    let reader = Reader {
        from,
        buffer: BytesMut::new(),
        protocol,
        senders,
        control,
        settled: Arc::new(Notify::new()),
        activity: activity.clone(),
    };
    (
        drive(reader, to, protocol, outgoing, controls, activity),
        channels,
    )
}

async fn drive<R, W>(
    mut reader: Reader<R>,
    to: W,
    protocol: &'static ChannelProtocol,
    outgoing: mpsc::Receiver<Outgoing>,
    controls: mpsc::Receiver<Control>,
    activity: Activity,
) where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin,
{
    let control = reader.control.clone();
    let idle = activity.clone();
    let settled = reader.settled.clone();
    let read = reader.run();
    let settled = async move {
        tokio::select! {
            () = settled.notified() => {}
            () = tokio::time::sleep(SETTLE) => {}
        }
    };
    let write = write(to, protocol, settled, outgoing, controls, activity);
    tokio::pin!(read, write);
    let closing = tokio::select! {
        end = &mut read => match end {
            End::Closed => Some(1000),
            End::Violation(error) => {
                tracing::debug!(%error, "WebSocket client broke the protocol");
                Some(1002)
            }
            End::Broken => None,
        },
        written = &mut write => {
            // All channels are done and the close frame is out. What still comes is dropped, but
            // has to be read: closing a socket with unread data resets it and may take the
            // output with it that the client has not read yet.
            if written.is_ok() && tokio::time::timeout(LINGER, &mut read).await.is_err() {
                tracing::debug!("WebSocket client did not answer the close");
            }
            None
        }
        () = idle.idle() => {
            tracing::debug!("closing an idle WebSocket connection");
            Some(1000)
        }
    };
    if let Some(code) = closing {
        let answered = async {
            if control.send(Control::Close(code)).await.is_ok()
                && let Err(error) = write.await
            {
                tracing::trace!(%error, "the closing WebSocket connection is gone already");
            }
        };
        if tokio::time::timeout(Duration::from_secs(1), answered)
            .await
            .is_err()
        {
            tracing::trace!("WebSocket client takes no close frame");
        }
    }
}

struct Reader<R> {
    from: R,
    buffer: BytesMut,
    protocol: &'static ChannelProtocol,
    senders: Vec<Option<mpsc::Sender<Bytes>>>,
    control: mpsc::Sender<Control>,
    /// Told when the client writes: then it reads its channels too.
    settled: Arc<Notify>,
    activity: Activity,
}

/// Where in a message reading is.
#[derive(Default)]
struct Message {
    /// Data frames of this message may still come.
    open: bool,
    /// Known after its first byte.
    channel: Option<u32>,
    /// Base64 digits that do not make a whole group yet.
    carry: Vec<u8>,
}

impl<R: AsyncRead + Send + Unpin> Reader<R> {
    async fn run(&mut self) -> End {
        let mut message = Message::default();
        loop {
            let header = loop {
                match parse_header(&self.buffer) {
                    Ok(Some((header, size))) => {
                        self.buffer.advance(size);
                        break header;
                    }
                    Ok(None) => {}
                    Err(error) => return End::Violation(error),
                }
                if !self.fill().await {
                    return End::Broken;
                }
            };
            let end = if header.opcode.is_control() {
                self.control_frame(header).await
            } else {
                self.data_frame(header, &mut message).await
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// Reads more; false at the end of the connection.
    async fn fill(&mut self) -> bool {
        self.buffer.reserve(PIECE);
        let read = self.from.read_buf(&mut self.buffer).await;
        self.activity.touch();
        matches!(read, Ok(read) if read > 0)
    }

    async fn control_frame(&mut self, header: FrameHeader) -> Option<End> {
        let length = usize::try_from(header.length).ok()?;
        while self.buffer.len() < length {
            if !self.fill().await {
                return Some(End::Broken);
            }
        }
        let mut payload = self.buffer.split_to(length);
        unmask(&mut payload, header.mask, 0);
        match header.opcode {
            Opcode::Close => return Some(End::Closed),
            // With 64 pongs unsent the client does not read; it will not miss one more.
            Opcode::Ping => drop(self.control.try_send(Control::Pong(payload.freeze()))),
            _ => {}
        }
        None
    }

    async fn data_frame(&mut self, header: FrameHeader, message: &mut Message) -> Option<End> {
        if (header.opcode == Opcode::Continuation) != message.open {
            return Some(End::Violation(FrameError::BadFragment));
        }
        if !message.open {
            *message = Message {
                open: true,
                ..Message::default()
            };
        }
        let mut at = 0u64;
        while at < header.length {
            if self.buffer.is_empty() && !self.fill().await {
                return Some(End::Broken);
            }
            let left = usize::try_from(header.length - at).unwrap_or(usize::MAX);
            let mut piece = self.buffer.split_to(left.min(self.buffer.len()).min(PIECE));
            unmask(&mut piece, header.mask, at);
            at += piece.len() as u64;
            self.settled.notify_one();
            self.piece(message, piece.freeze()).await;
        }
        if header.last {
            message.open = false;
        }
        None
    }

    async fn piece(&mut self, message: &mut Message, mut piece: Bytes) {
        let channel = match message.channel {
            Some(channel) => channel,
            None => {
                let Some(&first) = piece.first() else { return };
                piece.advance(1);
                let channel = match (self.protocol.base64, first) {
                    (true, b'0'..=b'9') => u32::from(first - b'0'),
                    (true, _) => u32::MAX,
                    (false, _) => u32::from(first),
                };
                message.channel = Some(channel);
                channel
            }
        };
        if self.protocol.base64 {
            piece = decode(&mut message.carry, &piece);
        }
        if piece.is_empty() {
            return;
        }
        if channel == CLOSE_CHANNEL && self.protocol.half_close {
            for closed in piece {
                if let Some(sender) = self.senders.get_mut(usize::from(closed)) {
                    *sender = None;
                }
            }
            return;
        }
        let sender = usize::try_from(channel)
            .ok()
            .and_then(|at| self.senders.get(at));
        let Some(Some(sender)) = sender else { return };
        loop {
            match tokio::time::timeout(SIGN_OF_LIFE, sender.reserve()).await {
                Ok(Ok(permit)) => return permit.send(piece),
                // Nobody reads this channel any more.
                Ok(Err(_)) => return,
                Err(_) => drop(self.control.try_send(Control::Pong(Bytes::new()))),
            }
        }
    }
}

/// Decodes whole groups of four digits; the rest waits for the next piece. Bytes that are not
/// base64 are dropped with their group, as is all that follows in the piece.
fn decode(carry: &mut Vec<u8>, piece: &[u8]) -> Bytes {
    carry.extend_from_slice(piece);
    let whole = carry.len() / 4 * 4;
    let rest = carry.split_off(whole);
    let groups = std::mem::replace(carry, rest);
    STANDARD.decode(groups).map(Bytes::from).unwrap_or_default()
}

async fn write<W: AsyncWrite + Send + Unpin>(
    mut to: W,
    protocol: &'static ChannelProtocol,
    settled: impl Future<Output = ()> + Send,
    mut outgoing: mpsc::Receiver<Outgoing>,
    mut controls: mpsc::Receiver<Control>,
    activity: Activity,
) -> io::Result<()> {
    let mut out = BytesMut::new();
    let mut open = false;
    tokio::pin!(settled);
    loop {
        let close = tokio::select! {
            biased;
            Some(control) = controls.recv() => match control {
                Control::Pong(payload) => {
                    put_header(&mut out, Opcode::Pong, payload.len());
                    out.put_slice(&payload);
                    None
                }
                Control::Close(code) => Some(code),
            },
            () = &mut settled, if !open => {
                open = true;
                None
            }
            item = outgoing.recv(), if open => match item {
                Some(Outgoing::Data(channel, data)) => {
                    put_message(&mut out, protocol, channel, &data);
                    None
                }
                // A channel has no end of its own in these protocols.
                Some(Outgoing::Finish(_)) => None,
                None => Some(1000),
            },
        };
        if let Some(code) = close {
            put_header(&mut out, Opcode::Close, 2);
            out.put_u16(code);
        }
        if !out.is_empty() {
            to.write_all(&out).await?;
            to.flush().await?;
            out.clear();
            activity.touch();
        }
        if close.is_some() {
            // The server closes first (RFC 6455, section 7.1.1), TLS included.
            return to.shutdown().await;
        }
    }
}

fn put_message(out: &mut BytesMut, protocol: &ChannelProtocol, channel: u32, data: &[u8]) {
    if protocol.base64 {
        let text = STANDARD.encode(data);
        put_header(out, Opcode::Text, 1 + text.len());
        out.put_u8(b'0' + u8::try_from(channel % 10).unwrap_or(0));
        out.put_slice(text.as_bytes());
    } else {
        put_header(out, Opcode::Binary, 1 + data.len());
        out.put_u8(u8::try_from(channel).unwrap_or(u8::MAX));
        out.put_slice(data);
    }
}
