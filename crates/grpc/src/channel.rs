//! One server, reached over one connection that is made when it is needed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::Stream;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming as Body;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use tokio::sync::{Mutex, mpsc};

use crate::dial::Target;
use crate::error::{Code, GrpcError};
use crate::frame;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(3);
/// A silent connection is asked whether it is alive: servers in Go cut off who asks more often than
/// every 5 s.
const PING: Duration = Duration::from_secs(10);
/// And given up when it does not say so in time.
const PONG: Duration = Duration::from_secs(5);
/// Windows large enough that a list of some size is not sent in small pieces.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Messages of a stream that wait to be sent.
const OUTGOING: usize = 16;

type RequestBody = UnsyncBoxBody<Bytes, Infallible>;

/// A server. Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub struct Channel {
    target: Target,
    metadata: HeaderMap,
    sender: Arc<Mutex<Option<SendRequest<RequestBody>>>>,
}

impl Channel {
    /// A server that is not connected yet. `metadata` goes with every call.
    #[must_use]
    pub fn new(target: Target, metadata: HeaderMap) -> Self {
        Self {
            target,
            metadata,
            sender: Arc::default(),
        }
    }

    /// Where the server is.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Calls `path` (`/package.Service/Method`) with one message for one answer.
    ///
    /// # Errors
    /// See [`GrpcError`].
    pub async fn unary<A: Message + Default>(
        &self,
        path: &str,
        message: &impl Message,
        within: Duration,
    ) -> Result<A, GrpcError> {
        let body = Full::new(frame::encode(message)).boxed_unsync();
        let call = async {
            let response = self.send(path, body).await?;
            let mut incoming = self.incoming::<A>(response)?;
            let answer = incoming.next().await?.ok_or_else(|| GrpcError::Protocol {
                target: self.target.to_string(),
                detail: "an answer without a message".to_owned(),
            })?;
            // The status comes behind the message.
            match incoming.next().await? {
                None => Ok(answer),
                Some(_) => Err(GrpcError::Protocol {
                    target: self.target.to_string(),
                    detail: "two answers".to_owned(),
                }),
            }
        };
        tokio::time::timeout(within, call)
            .await
            .unwrap_or_else(|_| {
                Err(GrpcError::Deadline {
                    target: self.target.to_string(),
                })
            })
    }

    /// Calls `path` with one message for a stream of answers. The headers of the answer must come
    /// within `within`; after that the stream lasts as long as the server wants. The request ends
    /// with its message: a server may wait for that before it answers.
    ///
    /// # Errors
    /// See [`GrpcError`].
    pub async fn answers<A: Message + Default>(
        &self,
        path: &str,
        message: &impl Message,
        within: Duration,
    ) -> Result<Incoming<A>, GrpcError> {
        let body = Full::new(frame::encode(message)).boxed_unsync();
        let response = tokio::time::timeout(within, self.send(path, body))
            .await
            .unwrap_or_else(|_| {
                Err(GrpcError::Deadline {
                    target: self.target.to_string(),
                })
            })?;
        self.incoming(response)
    }

    /// Opens a stream in both directions; `first` is sent at once. The headers of the answer must
    /// come within `within`; after that the stream lasts as long as both sides want.
    ///
    /// # Errors
    /// See [`GrpcError`].
    pub async fn stream<Q: Message, A: Message + Default>(
        &self,
        path: &str,
        first: &Q,
        within: Duration,
    ) -> Result<(Outgoing<Q>, Incoming<A>), GrpcError> {
        let (sender, mut receiver) = mpsc::channel::<Bytes>(OUTGOING);
        let mut first = Some(frame::encode(first));
        let frames = futures::stream::poll_fn(move |cx| {
            let next = match first.take() {
                Some(first) => std::task::Poll::Ready(Some(first)),
                None => receiver.poll_recv(cx),
            };
            next.map(|bytes| bytes.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes))))
        });
        let body = StreamBody::new(frames).boxed_unsync();
        let response = tokio::time::timeout(within, self.send(path, body))
            .await
            .unwrap_or_else(|_| {
                Err(GrpcError::Deadline {
                    target: self.target.to_string(),
                })
            })?;
        let outgoing = Outgoing {
            sender,
            kind: std::marker::PhantomData,
        };
        Ok((outgoing, self.incoming(response)?))
    }

    /// Gives the connection up; the next call makes another.
    pub async fn disconnect(&self) {
        self.sender.lock().await.take();
    }

    fn incoming<A>(&self, response: Response<Body>) -> Result<Incoming<A>, GrpcError> {
        let target = self.target.to_string();
        if response.status() != StatusCode::OK {
            let detail = format!("HTTP status {}", response.status());
            return Err(GrpcError::Protocol { target, detail });
        }
        // An answer without messages may say how it went in its headers.
        if let Some(status) = frame::status(response.headers()) {
            status?;
        }
        Ok(Incoming {
            target,
            body: response.into_body(),
            received: BytesMut::new(),
            ended: None,
            kind: std::marker::PhantomData,
        })
    }

    async fn send(&self, path: &str, body: RequestBody) -> Result<Response<Body>, GrpcError> {
        let target = || self.target.to_string();
        let scheme = match self.target {
            Target::Tls { .. } => "https",
            _ => "http",
        };
        let uri = format!("{scheme}://{}{path}", self.target.authority());
        let mut request = Request::post(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header(
                "user-agent",
                concat!("evenkeel/", env!("CARGO_PKG_VERSION")),
            )
            .body(body)
            .map_err(|error| GrpcError::Protocol {
                target: target(),
                detail: error.to_string(),
            })?;
        request.headers_mut().extend(self.metadata.clone());
        let mut sender = self.sender().await?;
        sender
            .try_send_request(request)
            .await
            .map_err(|mut failed| match failed.take_message() {
                // It came back: it was never sent.
                Some(_) => GrpcError::Closed { target: target() },
                None => broken(target(), failed.into_error()),
            })
    }

    async fn sender(&self) -> Result<SendRequest<RequestBody>, GrpcError> {
        let mut held = self.sender.lock().await;
        if let Some(sender) = held.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let failed = |source: std::io::Error| GrpcError::Connect {
            target: self.target.to_string(),
            source: Arc::new(source),
        };
        let connect = async {
            let io = TokioIo::new(self.target.dial().await?);
            // The end of a local socket is told by the kernel; and servers in Go that are not told
            // otherwise cut off who asks them more often than every five minutes.
            let ping = match self.target {
                Target::Unix { .. } => None,
                _ => Some(PING),
            };
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(ping)
                .keep_alive_timeout(PONG)
                .keep_alive_while_idle(true)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_header_list_size(1 << 20)
                .handshake(io)
                .await
                .map_err(std::io::Error::other)?;
            Ok((sender, connection))
        };
        let (sender, connection) = tokio::time::timeout(CONNECT, connect)
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            .map_err(failed)?;
        let driver: BoxFuture<'static, ()> = Box::pin(async move {
            // Whoever waits for an answer on it is told by hyper.
            drop(connection.await);
        });
        tokio::spawn(driver);
        *held = Some(sender.clone());
        Ok(sender)
    }
}

fn broken(target: String, source: impl std::error::Error + Send + Sync + 'static) -> GrpcError {
    GrpcError::Broken {
        target,
        source: Arc::new(source),
    }
}

/// The sending half of a stream. Dropping it says that nothing more comes.
#[derive(Debug)]
pub struct Outgoing<Q> {
    sender: mpsc::Sender<Bytes>,
    kind: std::marker::PhantomData<fn(Q)>,
}

impl<Q: Message> Outgoing<Q> {
    /// Sends a message; `false` when the stream is gone.
    pub async fn send(&self, message: &Q) -> bool {
        self.sender.send(frame::encode(message)).await.is_ok()
    }
}

/// The receiving half of a stream. Dropping it cancels the call.
#[derive(Debug)]
pub struct Incoming<A> {
    target: String,
    body: Body,
    received: BytesMut,
    ended: Option<Result<(), GrpcError>>,
    kind: std::marker::PhantomData<fn() -> A>,
}

impl<A: Message + Default> Incoming<A> {
    /// The next message; `None` at a good end. Dropping the future loses nothing.
    ///
    /// # Errors
    /// See [`GrpcError`].
    pub async fn next(&mut self) -> Result<Option<A>, GrpcError> {
        loop {
            if let Some(message) = frame::decode(&self.target, &mut self.received)? {
                return Ok(Some(message));
            }
            if let Some(ended) = &self.ended {
                return ended.clone().map(|()| None);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.received.extend_from_slice(&data),
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        self.ended = Some(frame::status(&trailers).unwrap_or_else(|| {
                            Err(GrpcError::Protocol {
                                target: self.target.clone(),
                                detail: "trailers without a status".to_owned(),
                            })
                        }));
                    }
                },
                Some(Err(error)) => return Err(broken(self.target.clone(), error)),
                None => {
                    self.ended = Some(Err(GrpcError::Status {
                        code: Code::UNAVAILABLE,
                        message: format!("{} ended the call without a status", self.target),
                    }));
                }
            }
        }
    }

    /// The messages as a stream that ends after its first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<A, GrpcError>> {
        futures::stream::unfold(Some(self), |held| async move {
            let mut incoming = held?;
            match incoming.next().await {
                Ok(Some(message)) => Some((Ok(message), Some(incoming))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}
