//! A SPDY client for tests: one half sends, the other reads.

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use super::frame::{
    ControlFrame, FLAG_FIN, FrameHead, parse_control, parse_head, put_data, put_ping,
    put_rst_stream, put_syn_stream, put_window_update,
};
use super::headers::{HeaderDecoder, HeaderEncoder, Headers};

/// What the server sends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Data { stream: u32, data: Bytes, fin: bool },
    Control(ControlFrame),
}

pub(crate) struct Sender<I> {
    to: WriteHalf<I>,
    encoder: HeaderEncoder,
    next: u32,
}

pub(crate) struct Receiver<I> {
    from: ReadHalf<I>,
    buffer: BytesMut,
    decoder: HeaderDecoder,
}

pub(crate) fn client<I: AsyncRead + AsyncWrite>(io: I, read: Bytes) -> (Sender<I>, Receiver<I>) {
    let (from, to) = tokio::io::split(io);
    (
        Sender {
            to,
            encoder: HeaderEncoder::new().unwrap(),
            next: 1,
        },
        Receiver {
            from,
            buffer: read.into(),
            decoder: HeaderDecoder::new(),
        },
    )
}

impl<I: AsyncRead + AsyncWrite> Sender<I> {
    async fn write(&mut self, out: BytesMut) {
        self.to.write_all(&out).await.unwrap();
        self.to.flush().await.unwrap();
    }

    pub(crate) async fn open(&mut self, headers: &[(&str, &str)]) -> u32 {
        let id = self.next;
        self.next += 2;
        let headers = headers
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let block = self.encoder.encode(&Headers(headers)).unwrap();
        let mut out = BytesMut::new();
        put_syn_stream(&mut out, id, 0, &block);
        self.write(out).await;
        id
    }

    pub(crate) async fn data(&mut self, stream: u32, data: &[u8], fin: bool) {
        let mut out = BytesMut::new();
        put_data(&mut out, stream, if fin { FLAG_FIN } else { 0 }, data);
        self.write(out).await;
    }

    pub(crate) async fn reset(&mut self, stream: u32) {
        let mut out = BytesMut::new();
        put_rst_stream(&mut out, stream, 5);
        self.write(out).await;
    }

    pub(crate) async fn ping(&mut self, id: u32) {
        let mut out = BytesMut::new();
        put_ping(&mut out, id);
        self.write(out).await;
    }

    pub(crate) async fn window(&mut self, stream: u32, delta: u32) {
        let mut out = BytesMut::new();
        put_window_update(&mut out, stream, delta);
        self.write(out).await;
    }
}

impl<I: AsyncRead + AsyncWrite> Receiver<I> {
    async fn have(&mut self, count: usize) -> bool {
        while self.buffer.len() < count {
            match self.from.read_buf(&mut self.buffer).await {
                Ok(read) if read > 0 => {}
                _ => return false,
            }
        }
        true
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        if !self.have(8).await {
            return None;
        }
        let mut head = [0u8; 8];
        self.buffer.copy_to_slice(&mut head);
        match parse_head(head).unwrap() {
            FrameHead::Data {
                stream,
                flags,
                length,
            } => {
                assert!(self.have(length).await);
                let data = self.buffer.split_to(length).freeze();
                Some(Event::Data {
                    stream,
                    data,
                    fin: flags & FLAG_FIN != 0,
                })
            }
            FrameHead::Control {
                kind,
                flags,
                length,
            } => {
                assert!(self.have(length).await);
                let payload = self.buffer.split_to(length);
                Some(Event::Control(
                    parse_control(kind, flags, &payload, &mut self.decoder).unwrap(),
                ))
            }
        }
    }
}
