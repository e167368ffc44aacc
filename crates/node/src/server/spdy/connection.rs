//! The server's side of a SPDY/3.1 connection.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::flow::{Credit, DEFAULT_WINDOW, SESSION_WINDOW, STREAM_WINDOW, SendWindows};
use super::frame::{
    self, ControlFrame, FLAG_FIN, FrameError, FrameHead, RST_CANCEL, RST_PROTOCOL_ERROR,
    RST_REFUSED_STREAM, SETTINGS_INITIAL_WINDOW, parse_control, parse_head,
};
use super::headers::{HeaderDecoder, HeaderEncoder, Headers};
use crate::server::channel::{Activity, Inbound, Outbound, Outgoing, PIECE};

/// How long the client may take to close after all our streams have ended. kubectl closes at
/// once; closing first would race with the last frames in its queues.
const LINGER: Duration = Duration::from_secs(5);
/// Streams open at once on a connection; more are refused.
const MAX_STREAMS: usize = 1024;
/// Pieces that wait for a stream's reader: together a stream's window.
const QUEUED_PIECES: usize = STREAM_WINDOW as usize / PIECE;

/// A frame for the writer that goes before queued data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Control {
    Reply { stream: u32, block: Vec<u8> },
    Reset { stream: u32, status: u32 },
    Ping(u32),
    WindowUpdate { stream: u32, delta: u32 },
    GoAway { last: u32, status: u32 },
}

/// A stream that the client opened.
#[derive(Debug)]
pub(crate) struct SpdyStream {
    /// Odd, growing.
    pub(crate) id: u32,
    /// What it opened it with.
    pub(crate) headers: Headers,
    /// What the client sends.
    pub(crate) inbound: Inbound,
    /// What the client gets.
    pub(crate) outbound: Outbound,
}

/// New streams as they are opened. Dropping it and all streams ends the connection.
#[derive(Debug)]
pub(crate) struct Streams {
    opened: mpsc::Receiver<SpdyStream>,
    /// Keeps the writer's queue open between streams.
    _queue: mpsc::Sender<Outgoing>,
}

impl Streams {
    /// The next stream; `None` when the connection has ended.
    pub(crate) async fn next(&mut self) -> Option<SpdyStream> {
        self.opened.recv().await
    }
}

/// Serves SPDY on an upgraded connection. `accept` refuses streams by their headers. The future
/// carries the data and ends with the connection.
pub(crate) fn open<I>(
    io: I,
    accept: fn(&Headers) -> Result<(), String>,
    activity: Activity,
) -> (impl Future<Output = ()> + Send + use<I>, Streams)
where
    I: AsyncRead + AsyncWrite + Send + 'static,
{
    let (queue, outgoing) = mpsc::channel(4);
    let (control, controls) = mpsc::channel(256);
    let (opened, streams) = mpsc::channel(16);
    let (from, to) = tokio::io::split(io);
    let reader = Reader {
        from,
        buffer: BytesMut::new(),
        decoder: HeaderDecoder::new(),
        accept,
        opened,
        queue: queue.downgrade(),
        session: Credit::new(0, SESSION_WINDOW, control.clone()),
        control,
        windows: Arc::new(SendWindows::default()),
        writers: HashMap::new(),
        last: 0,
        activity: activity.clone(),
    };
    (
        drive(reader, to, outgoing, controls, activity),
        Streams {
            opened: streams,
            _queue: queue,
        },
    )
}

async fn drive<R, W>(
    mut reader: Reader<R>,
    to: W,
    outgoing: mpsc::Receiver<Outgoing>,
    controls: mpsc::Receiver<Control>,
    activity: Activity,
) where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin,
{
    let control = reader.control.clone();
    let idle = activity.clone();
    let write = write(to, outgoing, controls, activity);
    tokio::pin!(write);
    let goodbye = tokio::select! {
        read = reader.run() => match read {
            Ok(()) => None,
            Err(error) => {
                tracing::debug!(%error, "SPDY client broke the protocol");
                Some(1)
            }
        },
        written = &mut write => {
            if let Err(error) = written {
                tracing::debug!(%error, "SPDY connection lost");
            }
            return;
        }
        () = idle.idle() => {
            tracing::debug!("closing an idle SPDY connection");
            Some(0)
        }
    };
    if let Some(status) = goodbye {
        let last = reader.last;
        let said = async {
            if control.send(Control::GoAway { last, status }).await.is_ok()
                && let Err(error) = write.await
            {
                tracing::trace!(%error, "the closing SPDY connection is gone already");
            }
        };
        if tokio::time::timeout(Duration::from_secs(1), said)
            .await
            .is_err()
        {
            tracing::trace!("SPDY client takes no GOAWAY");
        }
    }
}

struct Reader<R> {
    from: R,
    buffer: BytesMut,
    decoder: HeaderDecoder,
    accept: fn(&Headers) -> Result<(), String>,
    opened: mpsc::Sender<SpdyStream>,
    queue: mpsc::WeakSender<Outgoing>,
    session: Credit,
    control: mpsc::Sender<Control>,
    windows: Arc<SendWindows>,
    writers: HashMap<u32, mpsc::Sender<Bytes>>,
    last: u32,
    activity: Activity,
}

impl<R: AsyncRead + Send + Unpin> Reader<R> {
    /// Reads until the client closes (`Ok`) or breaks the protocol.
    async fn run(&mut self) -> Result<(), FrameError> {
        let mut encoder = HeaderEncoder::new()?;
        loop {
            if !self.have(8).await {
                return Ok(());
            }
            let mut head = [0u8; 8];
            self.buffer.copy_to_slice(&mut head);
            match parse_head(head)? {
                FrameHead::Data {
                    stream,
                    flags,
                    length,
                } => {
                    if !self.data(stream, length).await {
                        return Ok(());
                    }
                    if flags & FLAG_FIN != 0 {
                        self.writers.remove(&stream);
                    }
                }
                FrameHead::Control {
                    kind,
                    flags,
                    length,
                } => {
                    if !self.have(length).await {
                        return Ok(());
                    }
                    let payload = self.buffer.split_to(length);
                    let frame = parse_control(kind, flags, &payload, &mut self.decoder)?;
                    if !self.control_frame(frame, &mut encoder).await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Reads until `count` bytes are there; false when the connection ends before.
    async fn have(&mut self, count: usize) -> bool {
        while self.buffer.len() < count {
            self.buffer.reserve(PIECE.max(count - self.buffer.len()));
            match self.from.read_buf(&mut self.buffer).await {
                Ok(read) if read > 0 => self.activity.touch(),
                _ => return false,
            }
        }
        true
    }

    async fn data(&mut self, stream: u32, length: usize) -> bool {
        let mut left = length;
        while left > 0 {
            if !self.have(1).await {
                return false;
            }
            let piece = self
                .buffer
                .split_to(left.min(self.buffer.len()).min(PIECE))
                .freeze();
            left -= piece.len();
            self.session.consumed(piece.len());
            let Some(writer) = self.writers.get(&stream) else {
                continue;
            };
            if writer.send(piece).await.is_err() {
                self.writers.remove(&stream);
            }
        }
        true
    }

    /// Handles a control frame; false when the client says good-bye.
    async fn control_frame(
        &mut self,
        frame: ControlFrame,
        encoder: &mut HeaderEncoder,
    ) -> Result<bool, FrameError> {
        match frame {
            ControlFrame::SynStream {
                stream,
                fin,
                headers,
            } => {
                self.syn_stream(stream, fin, headers, encoder).await?;
            }
            ControlFrame::RstStream { stream, .. } => {
                self.writers.remove(&stream);
                self.windows.reset(stream);
            }
            ControlFrame::Headers { stream, fin } if fin => {
                self.writers.remove(&stream);
            }
            // Odd pings are the client's; we send none of our own.
            ControlFrame::Ping(id) if id % 2 == 1 => self.say(Control::Ping(id)).await,
            ControlFrame::WindowUpdate { stream, delta } => self.windows.update(stream, delta),
            ControlFrame::Settings(settings) => {
                for (id, value) in settings {
                    if id == SETTINGS_INITIAL_WINDOW {
                        self.windows.set_initial(value);
                    }
                }
            }
            ControlFrame::GoAway { .. } => return Ok(false),
            ControlFrame::SynReply { .. }
            | ControlFrame::Headers { .. }
            | ControlFrame::Ping(_)
            | ControlFrame::Unknown(_) => {}
        }
        Ok(true)
    }

    async fn syn_stream(
        &mut self,
        stream: u32,
        fin: bool,
        headers: Headers,
        encoder: &mut HeaderEncoder,
    ) -> Result<(), FrameError> {
        if stream.is_multiple_of(2) || stream <= self.last {
            self.say(Control::Reset {
                stream,
                status: RST_PROTOCOL_ERROR,
            })
            .await;
            return Ok(());
        }
        self.last = stream;
        self.writers.retain(|_, writer| !writer.is_closed());
        if self.windows.open() >= MAX_STREAMS {
            self.say(Control::Reset {
                stream,
                status: RST_REFUSED_STREAM,
            })
            .await;
            return Ok(());
        }
        if let Err(reason) = (self.accept)(&headers) {
            tracing::debug!(stream, reason, "SPDY stream refused");
            self.say(Control::Reset {
                stream,
                status: RST_CANCEL,
            })
            .await;
            return Ok(());
        }
        // The session is over: what comes now is not answered.
        let Some(queue) = self.queue.upgrade() else {
            return Ok(());
        };
        let block = encoder.encode(&Headers::default())?;
        self.say(Control::Reply { stream, block }).await;
        let (writer, pieces) = mpsc::channel(QUEUED_PIECES);
        if !fin {
            self.writers.insert(stream, writer);
        }
        self.windows.begin(stream);
        let credit = Credit::new(stream, STREAM_WINDOW, self.control.clone());
        let opened = SpdyStream {
            id: stream,
            headers,
            inbound: Inbound::new(pieces, Some(credit)),
            outbound: Outbound::new(stream, queue, Some(self.windows.clone())),
        };
        if self.opened.send(opened).await.is_err() {
            self.say(Control::Reset {
                stream,
                status: RST_REFUSED_STREAM,
            })
            .await;
        }
        Ok(())
    }

    /// Queues a control frame. When the writer has gone, so has the connection, which reading
    /// finds out by itself.
    async fn say(&mut self, control: Control) {
        if self.control.send(control).await.is_err() {
            tracing::trace!("SPDY connection no longer writes");
        }
    }
}

async fn write<W: AsyncWrite + Send + Unpin>(
    mut to: W,
    mut outgoing: mpsc::Receiver<Outgoing>,
    mut controls: mpsc::Receiver<Control>,
    activity: Activity,
) -> io::Result<()> {
    let mut out = BytesMut::new();
    frame::put_setting(&mut out, SETTINGS_INITIAL_WINDOW, STREAM_WINDOW);
    frame::put_window_update(&mut out, 0, SESSION_WINDOW - DEFAULT_WINDOW);
    let mut ended = false;
    let linger = tokio::time::sleep(Duration::MAX);
    tokio::pin!(linger);
    loop {
        let mut bye = false;
        if out.is_empty() {
            tokio::select! {
                biased;
                Some(control) = controls.recv() => bye = put(&mut out, control),
                item = outgoing.recv(), if !ended => match item {
                    Some(Outgoing::Data(stream, data)) => frame::put_data(&mut out, stream, 0, &data),
                    Some(Outgoing::Finish(stream)) => {
                        frame::put_data(&mut out, stream, FLAG_FIN, &[]);
                    }
                    None => {
                        ended = true;
                        linger.as_mut().reset(tokio::time::Instant::now() + LINGER);
                    }
                },
                () = &mut linger, if ended => {
                    bye = put(&mut out, Control::GoAway { last: 0, status: 0 });
                }
            }
        }
        if !out.is_empty() {
            to.write_all(&out).await?;
            to.flush().await?;
            out.clear();
            activity.touch();
        }
        if bye {
            return to.shutdown().await;
        }
    }
}

/// Appends a control frame; true for the last one of a connection.
fn put(out: &mut BytesMut, control: Control) -> bool {
    match control {
        Control::Reply { stream, block } => frame::put_syn_reply(out, stream, &block),
        Control::Reset { stream, status } => frame::put_rst_stream(out, stream, status),
        Control::Ping(id) => frame::put_ping(out, id),
        Control::WindowUpdate { stream, delta } => frame::put_window_update(out, stream, delta),
        Control::GoAway { last, status } => {
            frame::put_go_away(out, last, status);
            return true;
        }
    }
    false
}
