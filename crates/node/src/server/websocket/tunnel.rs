//! A byte stream inside binary WebSocket messages: what `SPDY/3.1+portforward.k8s.io` needs.
//!
//! The tunnel is a pair of a driver, which has to be polled, and a stream that reads and writes
//! like a socket. It is built on the channel connection with a protocol of its own kind, because a
//! tunnel is nothing but one channel without a number.

use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use super::frame::{Opcode, parse_header, put_header, unmask};
use crate::server::channel::PIECE;

/// Bytes in flight in each direction between the WebSocket and whoever uses the tunnel.
const BUFFER: usize = 256 * 1024;
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// Wraps an upgraded WebSocket connection. When the stream is dropped or shut down, the driver
/// closes with 1000; when the peer closes, the stream ends.
pub(crate) fn tunnel<I>(io: I) -> (impl Future<Output = ()> + Send, DuplexStream)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (near, far) = tokio::io::duplex(BUFFER);
    (drive(io, near), far)
}

async fn drive<I>(io: I, near: DuplexStream)
where
    I: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (from, mut to) = tokio::io::split(io);
    let (mut outgoing, incoming) = tokio::io::split(near);
    let (pong, mut pongs) = mpsc::channel::<BytesMut>(64);
    let read = read(from, incoming, pong);
    let write = async {
        let mut out = BytesMut::new();
        let mut data = BytesMut::new();
        loop {
            data.reserve(PIECE);
            tokio::select! {
                biased;
                Some(payload) = pongs.recv() => {
                    put_header(&mut out, Opcode::Pong, payload.len());
                    out.put_slice(&payload);
                }
                count = outgoing.read_buf(&mut data) => match count {
                    Ok(count) if count > 0 => {
                        put_header(&mut out, Opcode::Binary, data.len());
                        out.put_slice(&data);
                        data.clear();
                    }
                    _ => return true,
                },
            }
            if to.write_all(&out).await.is_err() || to.flush().await.is_err() {
                return false;
            }
            out.clear();
        }
    };
    let alive = tokio::select! {
        closed = read => closed,
        alive = write => alive,
    };
    if alive {
        let mut out = BytesMut::new();
        put_header(&mut out, Opcode::Close, 2);
        out.put_u16(1000);
        let close = async {
            to.write_all(&out).await?;
            to.flush().await?;
            to.shutdown().await
        };
        if tokio::time::timeout(CLOSE_WITHIN, close).await.is_err() {
            tracing::trace!("WebSocket client takes no close frame");
        }
    }
}

/// Feeds the payloads of binary messages to the stream; true when a close frame ended it.
async fn read(
    mut from: impl AsyncRead + Unpin,
    mut incoming: impl AsyncWrite + Unpin,
    pong: mpsc::Sender<BytesMut>,
) -> bool {
    let mut buffer = BytesMut::new();
    let mut open = false;
    loop {
        let header = match parse_header(&buffer) {
            Ok(Some((header, size))) => {
                buffer.advance(size);
                header
            }
            Ok(None) => {
                buffer.reserve(PIECE);
                match from.read_buf(&mut buffer).await {
                    Ok(count) if count > 0 => continue,
                    _ => return false,
                }
            }
            Err(error) => {
                tracing::debug!(%error, "WebSocket client broke the protocol");
                return true;
            }
        };
        let control = header.opcode.is_control();
        if !control {
            if (header.opcode == Opcode::Continuation) != open || header.opcode == Opcode::Text {
                return true;
            }
            open = !header.last;
        }
        let mut at = 0u64;
        let mut collected = BytesMut::new();
        while at < header.length {
            if buffer.is_empty() {
                buffer.reserve(PIECE);
                match from.read_buf(&mut buffer).await {
                    Ok(count) if count > 0 => {}
                    _ => return false,
                }
            }
            let left = usize::try_from(header.length - at).unwrap_or(usize::MAX);
            let mut piece = buffer.split_to(left.min(buffer.len()));
            unmask(&mut piece, header.mask, at);
            at += piece.len() as u64;
            if control {
                collected.put_slice(&piece);
            } else if incoming.write_all(&piece).await.is_err() {
                return true;
            }
        }
        match header.opcode {
            Opcode::Close => return true,
            Opcode::Ping => drop(pong.try_send(collected)),
            _ => {}
        }
    }
}
