//! The frame codec against the specification's examples and against arbitrary bytes; the channel
//! connection against arbitrary clients.

use std::time::Duration;

use bytes::BytesMut;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::frame::{FrameError, Opcode, parse_header, put_header, unmask};
use super::protocol::REMOTE_COMMAND;
use super::{Channel, open, tunnel};
use crate::server::channel::Activity;

#[test]
fn a_masked_frame_of_the_rfc_is_read() {
    // RFC 6455, section 5.7: "Hello", masked.
    let mut frame = [
        0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58,
    ];
    let (header, size) = parse_header(&frame).unwrap().unwrap();
    assert_eq!(
        (header.opcode, header.last, header.length, size),
        (Opcode::Text, true, 5, 6)
    );
    unmask(&mut frame[6..], header.mask, 0);
    assert_eq!(&frame[6..], b"Hello");
}

#[test]
fn what_clients_must_not_send_is_refused() {
    for (bytes, error) in [
        ([0xC1, 0x80], FrameError::ReservedBits),
        ([0x83, 0x80], FrameError::UnknownOpcode(3)),
        ([0x82, 0x05], FrameError::NotMasked),
        ([0x09, 0x80], FrameError::BadControl),
        ([0x89, 0xFE], FrameError::BadControl),
    ] {
        assert_eq!(parse_header(&bytes), Err(error));
    }
}

#[test]
fn headers_have_the_shortest_length() {
    for (length, size) in [(0, 2), (125, 2), (126, 4), (65535, 4), (65536, 10)] {
        let mut out = BytesMut::new();
        put_header(&mut out, Opcode::Binary, length);
        assert_eq!(out.len(), size, "{length}");
    }
}

fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![
        opcode,
        0x80 | u8::try_from(payload.len()).unwrap(),
        1,
        2,
        3,
        4,
    ];
    let start = frame.len();
    frame.extend_from_slice(payload);
    unmask(&mut frame[start..], [1, 2, 3, 4], 0);
    frame
}

#[tokio::test]
async fn fragments_and_controls_between_them_make_one_message() {
    let (mut client, server) = tokio::io::duplex(4096);
    let activity = Activity::new(Duration::from_secs(60));
    let (driver, mut channels) = open(server, &REMOTE_COMMAND[0], &[Channel::Read], activity);
    let driver = tokio::spawn(driver);
    let mut stdin = channels.inbound[0].take().unwrap();
    for frame in [
        masked(0x02, &[0, b'a']),
        masked(0x89, b"p"),
        masked(0x80, b"b"),
    ] {
        client.write_all(&frame).await.unwrap();
    }
    assert_eq!(stdin.next().await.unwrap(), "a");
    assert_eq!(stdin.next().await.unwrap(), "b");
    drop(channels);
    let mut answer = [0u8; 3];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [0x8A, 1, b'p']);
    client.write_all(&masked(0x88, &[])).await.unwrap();
    driver.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed() {
    let (mut client, server) = tokio::io::duplex(4096);
    let activity = Activity::new(Duration::from_secs(4 * 3600));
    let (driver, channels) = open(
        server,
        &REMOTE_COMMAND[0],
        &[Channel::Read, Channel::Write],
        activity,
    );
    tokio::time::timeout(Duration::from_secs(4 * 3600 + 10), driver)
        .await
        .unwrap();
    drop(channels);
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, [0x88, 2, 0x03, 0xE8]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_to_wait_gets_signs_of_life() {
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let activity = Activity::new(Duration::from_secs(4 * 3600));
    let (driver, channels) = open(server, &REMOTE_COMMAND[0], &[Channel::Read], activity);
    let driver = tokio::spawn(driver);
    for _ in 0..20 {
        client.write_all(&masked(0x82, &[0, b'x'])).await.unwrap();
    }
    let mut pong = [0u8; 2];
    // kubectl gives up after 61 s without one.
    tokio::time::timeout(Duration::from_secs(30), client.read_exact(&mut pong))
        .await
        .unwrap()
        .ok();
    driver.abort();
    drop(channels);
}

#[tokio::test(start_paused = true)]
async fn output_waits_until_the_client_reads_its_channels() {
    for (client_writes, silence) in [(false, 30), (true, 0)] {
        let (mut client, server) = tokio::io::duplex(4096);
        let activity = Activity::new(Duration::from_secs(60));
        let kinds = [Channel::Read, Channel::Write];
        let (driver, mut channels) = open(server, &REMOTE_COMMAND[0], &kinds, activity);
        let driver = tokio::spawn(driver);
        let stdout = channels.outbound[1].take().unwrap();
        let begin = tokio::time::Instant::now();
        stdout.send("early".into()).await.unwrap();
        if client_writes {
            client.write_all(&masked(0x82, &[0, b'x'])).await.unwrap();
        }
        let mut message = [0u8; 8];
        client.read_exact(&mut message).await.unwrap();
        assert_eq!(&message, b"\x82\x06\x01early");
        assert_eq!(
            begin.elapsed().as_millis() / 10 * 10,
            silence,
            "{client_writes}"
        );
        driver.abort();
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let _header = parse_header(&bytes);
    }

    #[test]
    fn masks_are_undone_at_any_offset(
        data in prop::collection::vec(any::<u8>(), 0..100),
        mask: [u8; 4],
        cut in 0usize..100,
    ) {
        let mut masked = data.clone();
        unmask(&mut masked, mask, 0);
        let cut = cut.min(masked.len());
        let (first, second) = masked.split_at_mut(cut);
        unmask(first, mask, 0);
        unmask(second, mask, cut as u64);
        prop_assert_eq!(masked, data);
    }

    #[test]
    fn arbitrary_clients_end_the_connection_and_nothing_else(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        protocol in 0..REMOTE_COMMAND.len(),
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(async {
            for in_tunnel in [false, true] {
                let (mut client, server) = tokio::io::duplex(4096);
                client.write_all(&bytes).await.unwrap();
                client.shutdown().await.unwrap();
                let drain = async { client.read_to_end(&mut Vec::new()).await };
                if in_tunnel {
                    let (driver, mut stream) = tunnel(server);
                    let read = async { stream.read_to_end(&mut Vec::new()).await };
                    let (_, _, drained) = tokio::join!(driver, read, drain);
                    drained.unwrap();
                } else {
                    let activity = Activity::new(Duration::from_secs(60));
                    let kinds = [Channel::ReadWrite, Channel::Ignored];
                    let (driver, mut channels) =
                        open(server, &REMOTE_COMMAND[protocol], &kinds, activity);
                    let mut inbound = channels.inbound[0].take().unwrap();
                    let read = async { while inbound.next().await.is_some() {} };
                    let driver = async { driver.await; drop(channels) };
                    let ((), (), drained) = tokio::join!(driver, read, drain);
                    drained.unwrap();
                }
            }
        });
    }
}
