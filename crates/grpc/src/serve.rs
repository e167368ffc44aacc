//! The other side, as small: calls with one message and one answer, over Unix sockets.
//!
//! It is what plugins of a node speak with the agent, and what tests stand in for such plugins
//! with. No streams, no compression, no reflection.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Limited, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixListener;
use tokio::task::JoinSet;

use crate::error::{Code, GrpcError};
use crate::frame;

/// The largest request that is read, in bytes.
const LARGEST: usize = 4 << 20;

/// What a call answers: a framed message ([`answer`]), or a code with words.
pub type Answer = Result<Bytes, (Code, String)>;

/// Answers calls.
pub trait Service: Send + Sync + 'static {
    /// Answers the call of `path` (`/package.Service/Method`) with a message, which
    /// [`message`] reads.
    fn call(&self, path: String, message: Bytes) -> BoxFuture<'static, Answer>;
}

/// Reads the message of a call.
///
/// # Errors
/// `INVALID_ARGUMENT` when it is none.
pub fn message<M: Message + Default>(bytes: Bytes) -> Result<M, (Code, String)> {
    M::decode(bytes).map_err(|error| (Code::INVALID_ARGUMENT, error.to_string()))
}

/// Frames an answer.
///
/// # Errors
/// None; it has the form that a service gives back.
pub fn answer(message: &impl Message) -> Answer {
    Ok(frame::encode(message))
}

/// Serves a socket until the future is dropped, which ends its connections too.
pub async fn serve(listener: UnixListener, service: Arc<dyn Service>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // Out of descriptors, or gone before it was taken: the next may do better.
                let Ok((stream, _)) = accepted else {
                    tokio::task::yield_now().await;
                    continue;
                };
                let service = Arc::clone(&service);
                connections.spawn(async move {
                    let each = service_fn(move |request| {
                        let service = Arc::clone(&service);
                        async move { Ok::<_, Infallible>(one(&*service, request).await) }
                    });
                    let connection = http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), each);
                    // Whoever called sees the break himself.
                    drop(connection.await);
                });
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

type ResponseBody = UnsyncBoxBody<Bytes, Infallible>;

async fn one(service: &dyn Service, request: Request<Incoming>) -> Response<ResponseBody> {
    let path = request.uri().path().to_owned();
    let answer = match read(request).await {
        Ok(message) => service.call(path, message).await,
        Err(error) => Err(error),
    };
    let (data, code, words) = match answer {
        Ok(data) => (Some(data), 0, String::new()),
        Err((code, words)) => (None, code.0, words),
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(code));
    if let Ok(words) = HeaderValue::from_str(&frame::escape(&words))
        && !words.is_empty()
    {
        trailers.insert("grpc-message", words);
    }
    let frames = data.map(Frame::data).into_iter();
    let frames = frames.chain([Frame::trailers(trailers)]);
    let body = StreamBody::new(futures::stream::iter(frames.map(Ok::<_, Infallible>)));
    let mut response = Response::new(body.boxed_unsync());
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

async fn read(request: Request<Incoming>) -> Result<Bytes, (Code, String)> {
    let body = Limited::new(request.into_body(), LARGEST);
    let whole = body
        .collect()
        .await
        .map_err(|error| (Code::RESOURCE_EXHAUSTED, error.to_string()))?;
    let mut received = BytesMut::from(&*whole.to_bytes());
    let found = frame::take("the caller", &mut received);
    found
        .map_err(|error: GrpcError| (Code::INVALID_ARGUMENT, error.to_string()))?
        .ok_or_else(|| (Code::INVALID_ARGUMENT, "no whole message".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Channel, Target};

    #[derive(Clone, PartialEq, Message)]
    struct Words {
        #[prost(string, tag = "1")]
        text: String,
    }

    struct Echo;

    impl Service for Echo {
        fn call(&self, path: String, bytes: Bytes) -> BoxFuture<'static, Answer> {
            Box::pin(async move {
                let said: Words = message(bytes)?;
                if path == "/a.B/Echo" {
                    return answer(&said);
                }
                Err((Code::UNIMPLEMENTED, format!("100% ä {}", said.text)))
            })
        }
    }

    #[tokio::test]
    async fn a_call_is_answered_or_refused_in_the_services_words() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("s.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        let serving = tokio::spawn(serve(listener, Arc::new(Echo)));
        let channel = Channel::new(Target::Unix { path }, HeaderMap::new());
        let within = Duration::from_secs(60);
        let said = Words {
            text: "x".repeat(70_000),
        };
        let heard: Words = channel
            .unary("/a.B/Echo", &said, within)
            .await
            .expect("an answer");
        assert_eq!(heard, said);
        let said = Words { text: "y".into() };
        let refused = channel.unary::<Words>("/a.B/Other", &said, within).await;
        let Err(GrpcError::Status { code, message }) = refused else {
            panic!("it is refused: {refused:?}");
        };
        assert_eq!((code, message.as_str()), (Code::UNIMPLEMENTED, "100% ä y"));
        serving.abort();
    }
}
