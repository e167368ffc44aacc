//! The two ends of one logical stream, whatever protocol carries it.
//!
//! A WebSocket channel and a SPDY stream look the same to exec, attach and port-forward: bytes
//! come out of an [`Inbound`] and go into an [`Outbound`]. Both are bounded, so a slow reader
//! slows its writer and memory does not grow with the transfer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::spdy::flow::{Credit, SendWindows};

/// The largest piece handed on at once, bytes.
pub(super) const PIECE: usize = 32 * 1024;

/// The connection that carried the stream is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection is closed")]
pub(super) struct GoneError;

/// What a client sends on one stream.
#[derive(Debug)]
pub(super) struct Inbound {
    pieces: mpsc::Receiver<Bytes>,
    credit: Option<Credit>,
}

impl Inbound {
    pub(super) fn new(pieces: mpsc::Receiver<Bytes>, credit: Option<Credit>) -> Self {
        Self { pieces, credit }
    }

    /// The next piece; `None` once the client has closed its side.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        let piece = self.pieces.recv().await?;
        if let Some(credit) = &mut self.credit {
            credit.consumed(piece.len());
        }
        Some(piece)
    }
}

/// Something for a connection's writer to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// Bytes on a channel or stream.
    Data(u32, Bytes),
    /// This side of the stream is done.
    Finish(u32),
}

/// What the client gets on one stream.
#[derive(Debug)]
pub(super) struct Outbound {
    id: u32,
    queue: mpsc::Sender<Outgoing>,
    windows: Option<Arc<SendWindows>>,
}

impl Outbound {
    pub(super) fn new(
        id: u32,
        queue: mpsc::Sender<Outgoing>,
        windows: Option<Arc<SendWindows>>,
    ) -> Self {
        Self { id, queue, windows }
    }

    /// Queues bytes in order; waits while the client reads slower than they come.
    pub(super) async fn send(&self, mut data: Bytes) -> Result<(), GoneError> {
        let Some(windows) = &self.windows else {
            return self.push(Outgoing::Data(self.id, data)).await;
        };
        while !data.is_empty() {
            let granted = windows.take(self.id, data.len()).await.ok_or(GoneError)?;
            self.push(Outgoing::Data(self.id, data.split_to(granted)))
                .await?;
        }
        Ok(())
    }

    /// Tells the client that nothing more comes on this stream, after all that was sent.
    pub(super) async fn finish(&self) -> Result<(), GoneError> {
        self.push(Outgoing::Finish(self.id)).await
    }

    /// Returns once the client has reset the stream; never for channels, which can't be.
    pub(super) async fn reset(&self) {
        match &self.windows {
            Some(windows) => windows.was_reset(self.id).await,
            None => std::future::pending().await,
        }
    }

    async fn push(&self, item: Outgoing) -> Result<(), GoneError> {
        self.queue.send(item).await.map_err(|_| GoneError)
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        if let Some(windows) = &self.windows {
            windows.forget(self.id);
        }
    }
}

/// Copies a program's output to the client until its end.
///
/// `quiet` tells when output has to end although nobody closed it: once it returns (the program
/// has exited), a pause of `pause` counts as the end, so that a child left in the background with
/// the program's stdout does not hold the session.
pub(super) async fn copy_out(
    mut from: impl AsyncRead + Unpin,
    to: &Outbound,
    quiet: &tokio_util::sync::CancellationToken,
    pause: Duration,
) -> Result<(), GoneError> {
    let mut buffer = bytes::BytesMut::new();
    loop {
        buffer.reserve(PIECE);
        let ended = async {
            quiet.cancelled().await;
            tokio::time::sleep(pause).await;
        };
        let read = tokio::select! {
            biased;
            read = from.read_buf(&mut buffer) => read,
            () = ended => return Ok(()),
        };
        match read {
            // A terminal whose other side closed answers EIO, which is its end of file.
            Ok(0) | Err(_) => return Ok(()),
            Ok(_) => to.send(buffer.split().freeze()).await?,
        }
    }
}

/// When a connection last carried anything.
#[derive(Debug, Clone)]
pub(super) struct Activity {
    last: Arc<Mutex<Instant>>,
    limit: Duration,
}

impl Activity {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            last: Arc::new(Mutex::new(Instant::now())),
            limit,
        }
    }

    /// Something was read or written.
    pub(super) fn touch(&self) {
        *self.last.lock() = Instant::now();
    }

    /// Returns once nothing was carried for the whole limit.
    pub(super) async fn idle(&self) {
        loop {
            let end = *self.last.lock() + self.limit;
            if end <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}
