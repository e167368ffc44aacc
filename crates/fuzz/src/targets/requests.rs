//! Requests before they reach a verb: headers, queries, paths, tokens, pages that are passed on.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use evenkeel_server::fuzzing;
use evenkeel_server::http::{Attributes, Media, Offer, Query};
use evenkeel_server::pki::Pki;
use http::header::{ACCEPT, AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, Method};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::text;
use crate::{Scratch, Shape};

/// The first byte says what can be given; the rest is an `Accept` header.
pub(super) fn accept(input: &[u8]) -> Shape {
    let Some((first, header)) = input.split_first() else {
        return Shape(0);
    };
    let bit = |at: u8| first >> at & 1 == 1;
    let offer = || Offer {
        protobuf: bit(0),
        table: bit(1),
        metadata: bit(2),
        groups: bit(3),
        cbor: bit(4),
        watch: bit(5),
    };
    let negotiated = |header: &[u8]| {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_bytes(header).ok()?);
        Some(Media::negotiate(&headers, offer))
    };
    let Some(found) = negotiated(header) else {
        return Shape(1);
    };
    if header.is_ascii() {
        // Whatever stands before it: JSON can always be given.
        let with_json = [header, b",application/json;q=0.1"].concat();
        let given = negotiated(&with_json).map(|given| given.is_ok());
        assert_eq!(given, Some(true), "JSON can be given");
        let first = [b"application/json,", header].concat();
        assert_eq!(negotiated(&first).map(|given| given.is_ok()), Some(true));
    }
    match found {
        Ok(media) => {
            let has = match media.encoding {
                evenkeel_server::http::Encoding::Cbor => bit(4),
                evenkeel_server::http::Encoding::Yaml => !bit(5),
                _ => true,
            };
            assert!(has, "{media:?} can't be given");
            Shape::of(format!("{media:?}"))
        }
        Err(status) => Shape::of((status.code, bit(4), bit(5))),
    }
}

/// Percent-encoding as RFC 3986 has it, of every byte.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// What is left when every well-formed escape is read, byte by byte.
fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    loop {
        rest = match rest {
            [] => return String::from_utf8_lossy(&out).into_owned(),
            [b'%', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap_or(0);
                out.extend(u8::try_from(digit(high) << 4 | digit(low)));
                after
            }
            [b'+', after @ ..] => {
                out.push(b' ');
                after
            }
            [byte, after @ ..] => {
                out.push(*byte);
                after
            }
        };
    }
}

/// A path and its query.
pub(super) fn query(input: &[u8]) -> Shape {
    let Some(text) = text(input) else {
        return Shape(0);
    };
    let (path, asked) = text.split_once('?').unwrap_or((text, ""));
    let query = Query::parse(asked);
    if let Some((name, value)) = asked.split('&').find_map(|part| part.split_once('=')) {
        let (name, value) = (decoded(name), decoded(value));
        assert!(query.all(&name).any(|it| it == value), "{name} is {value}");
    }
    let whole = format!("v={}", encoded(text));
    assert_eq!(
        Query::parse(&whole).get("v"),
        text,
        "what is encoded is decoded"
    );
    let methods = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
    ];
    let all: Vec<Attributes> = methods
        .iter()
        .map(|method| Attributes::of(method, path, &query))
        .collect();
    for attributes in &all {
        assert_eq!(
            attributes.resource, all[0].resource,
            "a method changes the verb alone"
        );
    }
    let ports = evenkeel_node::fuzzing::ports(asked);
    if let Ok(ports) = &ports {
        assert!(ports.iter().all(|port| *port > 0));
    }
    let shown: Vec<_> = all
        .iter()
        .map(|it| {
            (
                &it.verb,
                it.name.is_empty(),
                it.namespace.is_empty(),
                it.rest.len().min(3),
            )
        })
        .collect();
    Shape::of((
        shown,
        ports.is_ok(),
        query.flag("watch"),
        query.number("limit").is_some(),
    ))
}

pub(super) fn continue_token(input: &[u8]) -> Shape {
    let Some(text) = text(input) else {
        return Shape(0);
    };
    // What a token says, and a token itself.
    let made = URL_SAFE_NO_PAD.encode(text);
    let shape = |token: &str| {
        let (revision, start, again) = fuzzing::continue_token(token)?;
        let told = (revision.checked_ilog2(), start.len().min(16));
        let read = fuzzing::continue_token(&again);
        assert_eq!(read, Some((revision, start, again)), "it says the same");
        Some(told)
    };
    Shape::of((shape(&made), shape(text)))
}

/// Tokens as issuers make them, and as pages give them to a WebSocket.
pub(super) fn web_token(input: &[u8]) -> Shape {
    let Some(text) = text(input) else {
        return Shape(0);
    };
    let issuer = fuzzing::web_token(text);
    // Header and claims in plain text, one in each line.
    let parts: Vec<String> = text
        .lines()
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .collect();
    let made = fuzzing::web_token(&parts.join("."));
    let mut headers = HeaderMap::new();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let bearer = format!(
        "base64url.bearer.authorization.k8s.io.{}",
        URL_SAFE_NO_PAD.encode(text)
    );
    let mut found = 0;
    for protocols in [format!("{bearer}, v5.channel.k8s.io"), text.to_owned()] {
        let Ok(protocols) = HeaderValue::from_str(&protocols) else {
            continue;
        };
        headers.insert(SEC_WEBSOCKET_PROTOCOL, protocols);
        headers.remove(AUTHORIZATION);
        fuzzing::websocket_token(&mut headers);
        found = found * 2 + u8::from(headers.contains_key(AUTHORIZATION));
    }
    Shape::of((issuer.is_some(), made.is_some(), parts.len().min(5), found))
}

/// A key of an issuer, as JSON.
pub(super) fn web_key(input: &[u8]) -> Shape {
    let Ok(key) = serde_json::from_slice::<Value>(input) else {
        return Shape(0);
    };
    let forged = fuzzing::web_key(&key, b"message", input);
    assert_ne!(forged, Some(true), "nothing is signed by chance");
    Shape::of((forged.is_some(), key["kty"].as_str(), key["crv"].as_str()))
}

/// A page behind the proxy; what is behind it stays where it is.
pub(super) fn page(input: &[u8]) -> Shape {
    const PREFIX: &str = "/api/v1/namespaces/n/pods/p/proxy";
    let once = fuzzing::page(input, PREFIX, "10.0.0.1:80");
    let twice = fuzzing::page(&once, PREFIX, "10.0.0.1:80");
    assert_eq!(twice, once, "what is behind the proxy stays");
    assert!(once.len() >= input.len() || input.windows(2).any(|two| two == b"//"));
    let moved = once
        .windows(PREFIX.len())
        .filter(|it| *it == PREFIX.as_bytes())
        .count();
    let elements = input.iter().filter(|byte| **byte == b'<').count();
    Shape::of((moved.min(8), once.len() == input.len(), elements.min(16)))
}

static AUTHORITY: LazyLock<(Pki, Scratch)> = LazyLock::new(|| {
    let scratch = Scratch::new("pki");
    let pki = Pki::open(scratch.path(), Timestamp::UNIX_EPOCH).expect("an authority");
    (pki, scratch)
});

/// A request for a certificate: DER, or PEM with its own armour.
pub(super) fn certificate_request(input: &[u8]) -> Shape {
    let armoured = input.starts_with(b"-----").then(|| input.to_vec());
    let pem = armoured.unwrap_or_else(|| {
        let label = "CERTIFICATE REQUEST";
        let body = STANDARD.encode(input);
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n").into_bytes()
    });
    let usages = ["client auth".to_owned()];
    let life = SignedDuration::from_hours(1);
    match AUTHORITY
        .0
        .sign_request(&pem, &usages, life, Timestamp::UNIX_EPOCH)
    {
        Ok(certificate) => {
            assert!(certificate.starts_with("-----BEGIN CERTIFICATE-----"));
            Shape(1)
        }
        Err(error) => Shape::of_message(&error.to_string()),
    }
}
