//! A key management service on a Unix socket whose keys are numbers.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use prost::Message;
use tokio::net::UnixListener;
use tokio_util::task::AbortOnDropHandle;

/// Every message of the service has some of these fields, under these numbers: bytes and texts
/// look the same on the wire.
#[derive(Clone, PartialEq, Message)]
struct Fields {
    #[prost(bytes = "vec", tag = "1")]
    one: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    two: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    three: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Encrypted {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    key_id: String,
    #[prost(btree_map = "string, bytes", tag = "3")]
    annotations: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct ToDecrypt {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "3")]
    key_id: String,
    #[prost(btree_map = "string, bytes", tag = "4")]
    annotations: BTreeMap<String, Vec<u8>>,
}

/// What the service says and was asked.
#[derive(Debug, Clone)]
pub(crate) struct Says {
    pub(crate) key: u8,
    pub(crate) healthz: String,
    pub(crate) encrypted: usize,
    pub(crate) decrypted: usize,
}

/// A running service; it ends when it is dropped.
pub(crate) struct FakeKms {
    pub(crate) says: Arc<Mutex<Says>>,
    _serving: AbortOnDropHandle<()>,
}

fn shifted(bytes: &[u8], key: u8) -> Vec<u8> {
    bytes.iter().map(|byte| byte ^ key).collect()
}

fn answer(says: &Mutex<Says>, method: &str, body: &[u8]) -> Result<Vec<u8>, String> {
    let mut says = says.lock();
    let key = says.key;
    match method {
        "Status" => Ok(Fields {
            one: b"v2".to_vec(),
            two: says.healthz.clone().into_bytes(),
            three: key.to_string().into_bytes(),
        }
        .encode_to_vec()),
        "Encrypt" => {
            says.encrypted += 1;
            let asked = Fields::decode(body).unwrap();
            let note = ("kms.example.com".to_owned(), b"note".to_vec());
            Ok(Encrypted {
                ciphertext: shifted(&asked.one, key),
                key_id: key.to_string(),
                annotations: BTreeMap::from([note]),
            }
            .encode_to_vec())
        }
        "Decrypt" => {
            says.decrypted += 1;
            let asked = ToDecrypt::decode(body).unwrap();
            assert_eq!(asked.annotations["kms.example.com"], b"note");
            let key = asked.key_id.parse().map_err(|_| "no such key".to_owned())?;
            let plain = Fields {
                one: shifted(&asked.ciphertext, key),
                ..Fields::default()
            };
            Ok(plain.encode_to_vec())
        }
        other => Err(format!("unknown method {other}")),
    }
}

impl FakeKms {
    /// Listens on a socket.
    pub(crate) fn start(socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let says = Arc::new(Mutex::new(Says {
            key: 1,
            healthz: "ok".to_owned(),
            encrypted: 0,
            decrypted: 0,
        }));
        let shared = Arc::clone(&says);
        let serving = async move {
            // Connections end with the service.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let says = Arc::clone(&shared);
                let service = service_fn(move |request: Request<Incoming>| {
                    let says = Arc::clone(&says);
                    async move {
                        let path = request.uri().path().to_owned();
                        let (_, method) = path.rsplit_once('/').unwrap();
                        assert_eq!(path, format!("/v2.KeyManagementService/{method}"));
                        let body = request.into_body().collect().await?.to_bytes();
                        let mut trailers = HeaderMap::new();
                        let mut frames = Vec::new();
                        match answer(&says, method, &body[5..]) {
                            Ok(message) => {
                                let mut framed = BytesMut::new();
                                framed.put_u8(0);
                                framed.put_u32(u32::try_from(message.len()).unwrap());
                                framed.extend_from_slice(&message);
                                frames.push(Ok::<_, Infallible>(Frame::data(framed.freeze())));
                                trailers.insert("grpc-status", "0".parse().unwrap());
                            }
                            Err(why) => {
                                trailers.insert("grpc-status", "2".parse().unwrap());
                                trailers.insert("grpc-message", why.parse().unwrap());
                            }
                        }
                        frames.push(Ok(Frame::<Bytes>::trailers(trailers)));
                        let body = StreamBody::new(futures::stream::iter(frames));
                        let answer = Response::builder()
                            .header("content-type", "application/grpc")
                            .body(body);
                        Ok::<_, hyper::Error>(answer.unwrap())
                    }
                });
                connections.spawn(async move {
                    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    // A client that goes away is no failure.
                    drop(server.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        };
        Self {
            says,
            _serving: AbortOnDropHandle::new(tokio::spawn(serving)),
        }
    }
}
