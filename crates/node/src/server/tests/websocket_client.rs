//! A WebSocket client of another make (tungstenite) against exec, attach and port-forward.

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::fake::{FakeNode, echo, peak_memory, tcp_service};
use super::tls::TestNode;

type Socket = WebSocketStream<TlsStream<TcpStream>>;

async fn try_open(node: &TestNode, path: &str, protocol: &str) -> Result<Socket, Error> {
    let stream = node.connect_as_api_server().await;
    let mut request = format!("wss://localhost{path}")
        .into_client_request()
        .unwrap();
    if !protocol.is_empty() {
        request
            .headers_mut()
            .insert("sec-websocket-protocol", protocol.parse().unwrap());
    }
    let (socket, response) = tokio_tungstenite::client_async(request, stream).await?;
    let chosen = response.headers().get("sec-websocket-protocol");
    assert_eq!(
        chosen
            .map(|value| value.to_str().unwrap())
            .unwrap_or_default(),
        protocol
    );
    Ok(socket)
}

async fn open(node: &TestNode, path: &str, protocol: &str) -> Socket {
    try_open(node, path, protocol).await.unwrap()
}

async fn node() -> TestNode {
    TestNode::start(FakeNode::new("/nonexistent/0.log".as_ref())).await
}

/// Collects what comes on each channel until the server closes.
async fn collect(socket: &mut Socket) -> [Vec<u8>; 5] {
    let mut channels: [Vec<u8>; 5] = Default::default();
    loop {
        let message = tokio::time::timeout(Duration::from_secs(20), socket.next())
            .await
            .unwrap();
        match message {
            Some(Ok(Message::Binary(data))) => {
                channels[usize::from(data[0])].extend_from_slice(&data[1..]);
            }
            Some(Ok(Message::Close(frame))) => assert_eq!(u16::from(frame.unwrap().code), 1000),
            Some(Ok(other)) => panic!("unexpected {other:?}"),
            Some(Err(error)) => panic!("{error}"),
            None => return channels,
        }
    }
}

fn message(channel: u8, data: &[u8]) -> Message {
    Message::Binary([&[channel], data].concat().into())
}

fn command(words: &[&str]) -> String {
    let mut path = "/exec/default/p/c?".to_owned();
    for word in words {
        path += "command=";
        path.extend(word.bytes().map(|byte| format!("%{byte:02x}")));
        path.push('&');
    }
    path
}

#[tokio::test]
async fn output_and_exit_code_come_in_the_channels_of_v5_and_v4() {
    let node = node().await;
    let path =
        command(&["sh", "-c", "echo out; echo err >&2; exit 7"]) + "&stdout=true&stderr=true";
    for protocol in ["v5.channel.k8s.io", "v4.channel.k8s.io"] {
        let mut socket = open(&node, &path, protocol).await;
        let [_, out, err, status, _] = collect(&mut socket).await;
        assert_eq!(
            (out.as_slice(), err.as_slice()),
            (&b"out\n"[..], &b"err\n"[..])
        );
        let status: Value = serde_json::from_slice(&status).unwrap();
        assert_eq!(status["status"], "Failure");
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0]["reason"], "ExitCode");
        assert_eq!(status["details"]["causes"][0]["message"], "7");
    }
}

#[tokio::test]
async fn older_protocols_tell_failures_as_text_and_nothing_on_success() {
    let node = node().await;
    for protocol in [
        "v3.channel.k8s.io",
        "v2.channel.k8s.io",
        "channel.k8s.io",
        "",
    ] {
        let path = command(&["sh", "-c", "exit 7"]) + "&stdout=1";
        let [.., status, _] = collect(&mut open(&node, &path, protocol).await).await;
        assert!(
            String::from_utf8(status).unwrap().contains("exit code 7"),
            "{protocol}"
        );
        let path = command(&["echo", "fine"]) + "&stdout=1";
        let [_, out, _, status, _] = collect(&mut open(&node, &path, protocol).await).await;
        assert_eq!((out.as_slice(), status.len()), (&b"fine\n"[..], 0));
    }
}

#[tokio::test]
async fn base64_channels_carry_text() {
    use base64::Engine;
    let node = node().await;
    let path = command(&["head", "-c", "5"]) + "&stdin=1&stdout=1";
    let mut socket = open(&node, &path, "v4.base64.channel.k8s.io").await;
    let encode = |data: &[u8]| base64::engine::general_purpose::STANDARD.encode(data);
    socket
        .send(Message::text(format!("0{}", encode(b"hello"))))
        .await
        .unwrap();
    let mut texts = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Text(text) = message {
            texts.push(text.to_string());
        }
    }
    let out: String = texts
        .iter()
        .filter_map(|text| text.strip_prefix('1'))
        .collect();
    assert_eq!(out, encode(b"hello"));
    assert!(texts.last().unwrap().starts_with('3'), "{texts:?}");
}

#[tokio::test]
async fn channel_255_closes_stdin_and_pings_are_answered() {
    let node = node().await;
    let mut socket = open(
        &node,
        &(command(&["cat"]) + "&stdin=1&stdout=1"),
        "v5.channel.k8s.io",
    )
    .await;
    socket
        .send(Message::Ping(Bytes::from_static(b"alive")))
        .await
        .unwrap();
    assert_eq!(
        socket.next().await.unwrap().unwrap(),
        Message::Pong(Bytes::from_static(b"alive"))
    );
    socket.send(message(0, b"through")).await.unwrap();
    socket.send(message(255, &[0])).await.unwrap();
    let [_, out, _, status, _] = collect(&mut socket).await;
    assert_eq!(out, b"through");
    let status: Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["status"], "Success");
}

#[tokio::test]
async fn sizes_reach_a_terminal() {
    let node = node().await;
    let path = command(&["fake-terminal"]) + "&stdin=1&stdout=1&stderr=1&tty=1";
    let mut socket = open(&node, &path, "v5.channel.k8s.io").await;
    socket
        .send(message(4, b"{\"Width\":80,\"Hei"))
        .await
        .unwrap();
    socket.send(message(4, b"ght\":24}\n")).await.unwrap();
    assert_eq!(
        socket.next().await.unwrap().unwrap(),
        message(1, b"80x24\r\n")
    );
    socket
        .send(message(4, b"{\"Width\":132,\"Height\":50}\n"))
        .await
        .unwrap();
    assert_eq!(
        socket.next().await.unwrap().unwrap(),
        message(1, b"132x50\r\n")
    );
    socket.send(message(0, b"q")).await.unwrap();
    collect(&mut socket).await;
}

#[tokio::test]
async fn a_program_that_is_missing_is_an_internal_error_on_the_error_channel() {
    let node = node().await;
    let path = command(&["/nonexistent/program"]) + "&stdout=1";
    let [.., status, _] = collect(&mut open(&node, &path, "v4.channel.k8s.io").await).await;
    let status: Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["reason"], "InternalError");
    let text = status["message"].as_str().unwrap();
    assert!(text.starts_with("Internal error occurred: error executing command in container: "));
}

#[tokio::test]
async fn attach_ends_with_success_whatever_the_container_ended_with() {
    let node = node().await;
    let mut socket = open(
        &node,
        "/attach/default/p/uid-p/c?stdout=1",
        "v5.channel.k8s.io",
    )
    .await;
    let [_, out, _, status, _] = collect(&mut socket).await;
    let status: Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(
        (out.as_slice(), &status["status"]),
        (&b"attached\n"[..], &"Success".into())
    );
}

#[tokio::test]
async fn unknown_protocols_are_refused_with_those_that_are_served() {
    let node = node().await;
    let path = command(&["true"]) + "&stdout=1";
    let Err(Error::Http(response)) = try_open(&node, &path, "v9.channel.k8s.io").await else {
        panic!("v9 is not served");
    };
    assert_eq!(response.status(), 403);
}

#[tokio::test]
async fn a_program_ends_when_its_client_goes() {
    let node = node().await;
    let directory = tempfile::tempdir().unwrap();
    let pid = directory.path().join("pid");
    let script = format!("echo $$ > {}; echo up; exec sleep 1000", pid.display());
    let path = command(&["sh", "-c", &script]) + "&stdout=1";
    let mut socket = open(&node, &path, "v5.channel.k8s.io").await;
    socket.next().await.unwrap().unwrap();
    let pid: i32 = std::fs::read_to_string(pid)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    drop(socket);
    tokio::time::timeout(Duration::from_secs(10), async {
        while std::path::Path::new(&format!("/proc/{pid}/root"))
            .symlink_metadata()
            .is_ok()
        {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the program was ended");
}

#[tokio::test]
async fn a_child_in_the_background_does_not_hold_the_session() {
    let node = node().await;
    let path = command(&["sh", "-c", "sleep 8 & echo done"]) + "&stdout=1";
    let [_, out, ..] = collect(&mut open(&node, &path, "v5.channel.k8s.io").await).await;
    assert_eq!(out, b"done\n");
}

#[tokio::test]
async fn fifty_megabytes_go_through_both_ways_in_bounded_memory() {
    const SIZE: usize = 50 * 1024 * 1024;
    let node = node().await;
    let socket = open(
        &node,
        &(command(&["cat"]) + "&stdin=1&stdout=1"),
        "v5.channel.k8s.io",
    )
    .await;
    let before = peak_memory();
    let (mut to, mut from) = socket.split();
    let send = async {
        let piece = message(0, &[42; 60_000]);
        let mut sent = 0;
        while sent < SIZE {
            to.send(piece.clone()).await.unwrap();
            sent += 60_000;
        }
        to.send(message(255, &[0])).await.unwrap();
        sent
    };
    let receive = async {
        let mut received = 0;
        while let Some(message) = from.next().await {
            match message.unwrap() {
                Message::Binary(data) if data[0] == 1 => {
                    assert!(data[1..].iter().all(|byte| *byte == 42));
                    received += data.len() - 1;
                }
                Message::Binary(data) => assert_eq!(data[0], 3),
                _ => {}
            }
        }
        received
    };
    let (sent, received) = tokio::join!(send, receive);
    assert_eq!(sent, received);
    let grown = peak_memory() - before;
    assert!(grown < 40 * 1024, "{grown} KiB more");
}

#[tokio::test]
async fn ports_are_forwarded_in_pairs_of_channels() {
    let node = node().await;
    let port = tcp_service(echo).await;
    let path = format!("/portForward/default/p?ports={port}");
    let mut socket = open(&node, &path, "v4.channel.k8s.io").await;
    let number = port.to_le_bytes();
    assert_eq!(socket.next().await.unwrap().unwrap(), message(0, &number));
    assert_eq!(socket.next().await.unwrap().unwrap(), message(1, &number));
    socket.send(message(0, b"ping")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), message(0, b"ping"));
}

#[tokio::test]
async fn a_port_without_a_listener_is_told_on_its_error_channel() {
    let node = node().await;
    let mut socket = open(&node, "/portForward/default/p?ports=1", "v4.channel.k8s.io").await;
    let [_, error, ..] = collect(&mut socket).await;
    let text = String::from_utf8(error[2..].to_vec()).unwrap();
    assert!(
        text.starts_with("error forwarding port 1 to pod p"),
        "{text}"
    );
    assert!(text.contains("Connection refused"), "{text}");
}
