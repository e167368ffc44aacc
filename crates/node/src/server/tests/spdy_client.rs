//! A SPDY client against exec and port-forward, as older kubectls speak.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::fake::{FakeNode, echo, peak_memory, tcp_service};
use super::tls::TestNode;
use crate::server::spdy::frame::ControlFrame;
use crate::server::spdy::testing::{Event, Receiver, Sender, client};

type Io = TokioIo<hyper::upgrade::Upgraded>;

async fn node() -> TestNode {
    TestNode::start(FakeNode::new("/nonexistent/0.log".as_ref())).await
}

async fn ask(node: &TestNode, path: &str, protocols: &str) -> Response<Incoming> {
    let stream = node.connect_as_api_server().await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection.with_upgrades());
    let request = Request::post(path)
        .header("host", "localhost")
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1")
        .header("x-stream-protocol-version", protocols)
        .body(Empty::<Bytes>::new())
        .unwrap();
    sender.send_request(request).await.unwrap()
}

async fn open(node: &TestNode, path: &str, protocol: &str) -> (Sender<Io>, Receiver<Io>) {
    let response = ask(node, path, protocol).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let first = protocol.split(',').next().unwrap();
    assert_eq!(response.headers()["x-stream-protocol-version"], first);
    client(
        TokioIo::new(hyper::upgrade::on(response).await.unwrap()),
        Bytes::new(),
    )
}

/// Collects data until all `streams` have ended.
async fn collect<I: AsyncRead + AsyncWrite>(
    receiver: &mut Receiver<I>,
    streams: &[u32],
) -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new(); streams.len()];
    let mut open = streams.len();
    while open > 0 {
        match receiver.next().await.expect("the connection ended early") {
            Event::Data { stream, data, fin } => {
                let Some(at) = streams.iter().position(|id| *id == stream) else {
                    continue;
                };
                all[at].extend_from_slice(&data);
                open -= usize::from(fin);
            }
            Event::Control(ControlFrame::RstStream { stream, .. }) => panic!("{stream} was reset"),
            Event::Control(_) => {}
        }
    }
    all
}

const SHELL: &str = "/exec/default/p/c?command=sh&command=-c&command=";

#[tokio::test]
async fn streams_carry_output_and_status() {
    let node = node().await;
    let path = format!("{SHELL}cat%3B+echo+err+%3E%262%3B+exit+7&input=1&output=1&error=1");
    let protocols = "v4.channel.k8s.io,v3.channel.k8s.io";
    let (mut sender, mut receiver) = open(&node, &path, protocols).await;
    let error = sender.open(&[("streamtype", "error")]).await;
    let stdin = sender.open(&[("streamtype", "stdin")]).await;
    let stdout = sender.open(&[("streamtype", "stdout")]).await;
    let stderr = sender.open(&[("streamtype", "stderr")]).await;
    sender.data(stdin, b"through ", false).await;
    sender.data(stdin, b"cat", true).await;
    let all = collect(&mut receiver, &[stdout, stderr, error]).await;
    assert_eq!(
        (all[0].as_slice(), all[1].as_slice()),
        (&b"through cat"[..], &b"err\n"[..])
    );
    let status: Value = serde_json::from_slice(&all[2]).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "7");
}

#[tokio::test]
async fn older_stream_protocols_tell_failures_as_text() {
    let node = node().await;
    for protocol in ["v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"] {
        let (mut sender, mut receiver) =
            open(&node, &format!("{SHELL}exit+7&stdout=true"), protocol).await;
        let stdout = sender.open(&[("streamtype", "stdout")]).await;
        let error = sender.open(&[("streamtype", "error")]).await;
        let all = collect(&mut receiver, &[stdout, error]).await;
        assert!(
            String::from_utf8_lossy(&all[1]).contains("exit code 7"),
            "{protocol}"
        );
    }
}

#[tokio::test]
async fn unknown_stream_protocols_are_refused() {
    let node = node().await;
    let response = ask(&node, &format!("{SHELL}true&stdout=1"), "v9.channel.k8s.io").await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let accepted = response
        .headers()
        .get_all("x-accepted-stream-protocol-versions");
    assert_eq!(accepted.iter().count(), 5);
}

#[tokio::test]
async fn pings_are_answered_and_even_streams_reset() {
    let node = node().await;
    let (mut sender, mut receiver) =
        open(&node, "/portForward/default/p", "portforward.k8s.io").await;
    sender.ping(1).await;
    let bad = sender.open(&[("streamtype", "data"), ("port", "0")]).await;
    let (mut pong, mut reset) = (false, false);
    while !(pong && reset) {
        match receiver.next().await.unwrap() {
            Event::Control(ControlFrame::Ping(1)) => pong = true,
            Event::Control(ControlFrame::RstStream { stream, .. }) => reset = stream == bad,
            _ => {}
        }
    }
}

#[tokio::test]
async fn fifty_megabytes_go_through_both_ways_in_bounded_memory() {
    const SIZE: usize = 50 * 1024 * 1024;
    let node = node().await;
    for counting in [false, true] {
        let path = format!("{SHELL}cat&stdin=1&stdout=1");
        let (mut sender, mut receiver) = open(&node, &path, "v4.channel.k8s.io").await;
        let before = peak_memory();
        let error = sender.open(&[("streamtype", "error")]).await;
        let stdin = sender.open(&[("streamtype", "stdin")]).await;
        let stdout = sender.open(&[("streamtype", "stdout")]).await;
        if counting {
            // From now on the server has to keep to the windows; give it all the room it needs.
            sender.window(stdout, u32::try_from(SIZE).unwrap()).await;
            sender.window(0, u32::try_from(2 * SIZE).unwrap()).await;
        }
        let send = async {
            let piece = [42u8; 40_000];
            let mut sent = 0;
            while sent < SIZE {
                sender.data(stdin, &piece, false).await;
                sent += piece.len();
            }
            sender.data(stdin, &[], true).await;
            sent
        };
        let receive = async {
            let (mut received, mut updates) = (0, 0u64);
            loop {
                match receiver.next().await.expect("the connection ended early") {
                    Event::Data { stream, data, .. } if stream == stdout => received += data.len(),
                    Event::Data {
                        stream, fin: true, ..
                    } if stream == error => break,
                    Event::Control(ControlFrame::WindowUpdate { delta, .. }) => {
                        updates += u64::from(delta);
                    }
                    _ => {}
                }
            }
            assert!(
                updates > 90 * 1024 * 1024,
                "{updates} bytes of window were given"
            );
            received
        };
        let (sent, received) = tokio::join!(send, receive);
        assert_eq!(sent, received);
        let grown = peak_memory() - before;
        assert!(grown < 40 * 1024, "{grown} KiB more");
    }
}

async fn forwards<I: AsyncRead + AsyncWrite>(mut sender: Sender<I>, mut receiver: Receiver<I>) {
    let port = tcp_service(echo).await.to_string();
    for round in ["0", "1"] {
        let headers = |kind| {
            [
                ("streamtype", kind),
                ("port", port.as_str()),
                ("requestid", round),
            ]
        };
        let error = sender.open(&headers("error")).await;
        sender.data(error, &[], true).await;
        let data = sender.open(&headers("data")).await;
        sender.data(data, b"ping", true).await;
        let all = collect(&mut receiver, &[data, error]).await;
        assert_eq!((all[0].as_slice(), all[1].len()), (&b"ping"[..], 0));
    }
    // A connection that is refused is told, and a reset one ends alone.
    let headers = |kind| [("streamtype", kind), ("port", "1"), ("requestid", "2")];
    let data = sender.open(&headers("data")).await;
    let error = sender.open(&headers("error")).await;
    let all = collect(&mut receiver, &[data, error]).await;
    let text = String::from_utf8_lossy(&all[1]);
    assert!(
        text.starts_with("error forwarding port 1 to pod p, uid : failed to connect"),
        "{text}"
    );
    let headers = |kind| {
        [
            ("streamtype", kind),
            ("port", port.as_str()),
            ("requestid", "3"),
        ]
    };
    let error = sender.open(&headers("error")).await;
    let data = sender.open(&headers("data")).await;
    sender.reset(data).await;
    let all = collect(&mut receiver, &[error]).await;
    assert!(all[0].is_empty(), "{:?}", String::from_utf8_lossy(&all[0]));
}

#[tokio::test]
async fn ports_are_forwarded_over_spdy() {
    let node = node().await;
    let (sender, receiver) = open(&node, "/portForward/default/p", "portforward.k8s.io").await;
    forwards(sender, receiver).await;
}

#[tokio::test]
async fn ports_are_forwarded_over_spdy_in_a_websocket() {
    let node = node().await;
    let stream = node.connect_as_api_server().await;
    let mut request = "wss://localhost/portForward/default/p"
        .into_client_request()
        .unwrap();
    let protocol = "SPDY/3.1+portforward.k8s.io";
    request
        .headers_mut()
        .insert("sec-websocket-protocol", protocol.parse().unwrap());
    let (socket, response) = tokio_tungstenite::client_async(request, stream)
        .await
        .unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
    let (near, far): (DuplexStream, DuplexStream) = tokio::io::duplex(64 * 1024);
    let (mut to, mut from) = socket.split();
    let (mut near_from, mut near_to) = tokio::io::split(near);
    tokio::spawn(async move {
        while let Some(Ok(message)) = from.next().await {
            if let Message::Binary(data) = message {
                near_to.write_all(&data).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        let mut buffer = [0u8; 1000];
        while let Ok(count @ 1..) = near_from.read(&mut buffer).await {
            to.send(Message::Binary(buffer[..count].to_vec().into()))
                .await
                .unwrap();
        }
    });
    let (sender, receiver) = client(far, Bytes::new());
    forwards(sender, receiver).await;
}
