//! The codec against the specification's figures and against arbitrary bytes.

use bytes::BytesMut;
use proptest::prelude::*;

use super::dictionary::DICTIONARY;
use super::flow::SendWindows;
use super::frame::{
    ControlFrame, FrameError, FrameHead, parse_control, parse_head, put_syn_stream,
};
use super::headers::{HeaderDecoder, HeaderEncoder, HeaderError, Headers};

fn headers(pairs: &[(&str, &str)]) -> Headers {
    Headers(
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
    )
}

#[test]
fn the_dictionary_is_the_published_one() {
    assert_eq!(DICTIONARY.len(), 1423);
    let (mut a, mut b) = (1u32, 0u32);
    for byte in DICTIONARY.iter() {
        a = (a + u32::from(*byte)) % 65521;
        b = (b + a) % 65521;
    }
    // Every SPDY/3 header stream names its dictionary by this Adler-32.
    assert_eq!((b << 16) | a, 0xE3C6_A7C2);
}

#[test]
fn blocks_continue_each_other() {
    let mut encoder = HeaderEncoder::new().unwrap();
    let mut decoder = HeaderDecoder::new();
    let long = "x".repeat(10_000);
    for block in [
        headers(&[("streamtype", "stdin")]),
        headers(&[]),
        headers(&[("port", "80"), ("requestid", "0")]),
        headers(&[("long", &long)]),
        headers(&[("streamtype", "stdin")]),
    ] {
        let bytes = encoder.encode(&block).unwrap();
        assert_eq!(decoder.decode(&bytes), Ok(block));
    }
}

#[test]
fn a_bomb_is_refused() {
    let mut encoder = HeaderEncoder::new().unwrap();
    let bomb = headers(&[("a", &"x".repeat(1 << 20))]);
    let bytes = encoder.encode(&bomb).unwrap();
    assert!(bytes.len() < 16 * 1024);
    assert_eq!(
        HeaderDecoder::new().decode(&bytes),
        Err(HeaderError::TooLarge)
    );
}

#[test]
fn a_stream_frame_is_read_back() {
    let block = HeaderEncoder::new()
        .unwrap()
        .encode(&headers(&[("Port", "80")]))
        .unwrap();
    let mut out = BytesMut::new();
    put_syn_stream(&mut out, 5, 1, &block);
    let head = parse_head(*out.first_chunk().unwrap()).unwrap();
    assert_eq!(
        head,
        FrameHead::Control {
            kind: 1,
            flags: 1,
            length: 10 + block.len()
        }
    );
    let frame = parse_control(1, 1, &out[8..], &mut HeaderDecoder::new()).unwrap();
    let headers = headers(&[("port", "80")]);
    assert_eq!(
        frame,
        ControlFrame::SynStream {
            stream: 5,
            fin: true,
            headers
        }
    );
}

#[test]
fn another_version_is_refused() {
    assert_eq!(
        parse_head([0x80, 2, 0, 1, 0, 0, 0, 0]),
        Err(FrameError::Version(2))
    );
}

#[tokio::test]
async fn windows_bind_only_once_the_client_keeps_them() {
    let windows = SendWindows::default();
    windows.begin(1);
    // A client that never speaks of windows is sent to without end.
    assert_eq!(windows.take(1, 1_000_000).await, Some(1_000_000));
    windows.begin(3);
    windows.update(3, 10);
    assert_eq!(windows.take(3, 1_000_000).await, Some(64 * 1024 + 10));
    let mut blocked = Box::pin(windows.take(3, 5));
    assert!(futures::poll!(&mut blocked).is_pending());
    windows.update(3, 2);
    assert_eq!(blocked.await, Some(2));
    let mut blocked = Box::pin(windows.take(3, 5));
    assert!(futures::poll!(&mut blocked).is_pending());
    windows.reset(3);
    assert_eq!(blocked.await, None);
}

proptest! {
    #[test]
    fn arbitrary_heads_do_not_panic(bytes: [u8; 8]) {
        let _head = parse_head(bytes);
    }

    #[test]
    fn arbitrary_control_frames_do_not_panic(
        kind in 0u16..12,
        flags: u8,
        payload in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let _frame = parse_control(kind, flags, &payload, &mut HeaderDecoder::new());
    }

    #[test]
    fn damaged_header_blocks_do_not_panic(
        at in 0usize..40,
        value: u8,
        cut in 0usize..60,
    ) {
        let mut encoder = HeaderEncoder::new().unwrap();
        let mut block = encoder.encode(&headers(&[("streamtype", "data"), ("port", "1")])).unwrap();
        if let Some(byte) = block.get_mut(at) {
            *byte = value;
        }
        block.truncate(cut);
        let _headers = HeaderDecoder::new().decode(&block);
    }

    #[test]
    fn any_headers_are_read_back(
        pairs in prop::collection::vec(("[a-z]{1,20}", "[ -~]{0,200}"), 0..20),
    ) {
        let headers = Headers(pairs);
        let block = HeaderEncoder::new().unwrap().encode(&headers).unwrap();
        prop_assert_eq!(HeaderDecoder::new().decode(&block), Ok(headers));
    }
}
