//! The Kubernetes channel protocols inside WebSocket messages, and the handshake that picks one.
//!
//! Every message begins with a channel number: one byte in the binary protocols, one ASCII digit
//! before base64 text in the base64 ones. `v5` adds channel 255, whose payload names a channel
//! that the client closes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::server::respond::{self, Body};

/// The channel of `v5` on which a client closes another one.
pub(super) const CLOSE_CHANNEL: u32 = 255;

/// How messages look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChannelProtocol {
    /// The subprotocol's name; empty when the client asked for none.
    pub(crate) name: &'static str,
    /// Text messages with base64 payload instead of binary ones.
    pub(crate) base64: bool,
    /// The error channel carries a `v1` Status as JSON (v4 and later) instead of text.
    pub(crate) structured_status: bool,
    /// Channel 255 closes a channel (v5).
    pub(crate) half_close: bool,
}

const fn protocol(
    name: &'static str,
    base64: bool,
    structured_status: bool,
    half_close: bool,
) -> ChannelProtocol {
    ChannelProtocol {
        name,
        base64,
        structured_status,
        half_close,
    }
}

/// What exec and attach speak.
pub(crate) const REMOTE_COMMAND: &[ChannelProtocol] = &[
    protocol("v5.channel.k8s.io", false, true, true),
    protocol("v4.channel.k8s.io", false, true, false),
    protocol("v3.channel.k8s.io", false, false, false),
    protocol("v2.channel.k8s.io", false, false, false),
    protocol("channel.k8s.io", false, false, false),
    protocol("v5.base64.channel.k8s.io", true, true, true),
    protocol("v4.base64.channel.k8s.io", true, true, false),
    protocol("v3.base64.channel.k8s.io", true, false, false),
    protocol("v2.base64.channel.k8s.io", true, false, false),
    protocol("base64.channel.k8s.io", true, false, false),
    protocol("", false, false, false),
];

/// What port-forward speaks with a pair of channels for each port.
pub(crate) const PORT_FORWARD: &[ChannelProtocol] = &[
    protocol("v4.channel.k8s.io", false, false, false),
    protocol("v4.base64.channel.k8s.io", true, false, false),
    protocol("portforward.k8s.io", false, false, false),
    protocol("", false, false, false),
];

/// SPDY frames inside binary messages (KEP-4006); the messages have no channel number.
pub(crate) const SPDY_TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// True when the request asks for a WebSocket.
pub(crate) fn is_websocket(headers: &HeaderMap) -> bool {
    let has = |name: &str, token: &str| {
        headers.get_all(name).iter().any(|value| {
            value.to_str().is_ok_and(|value| {
                value
                    .split(',')
                    .any(|part| part.trim().eq_ignore_ascii_case(token))
            })
        })
    };
    has("connection", "upgrade") && has("upgrade", "websocket")
}

/// The subprotocols a client asks for, in its order.
pub(crate) fn requested(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all("sec-websocket-protocol")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

/// The first requested protocol that is served; with none requested, the nameless one.
pub(crate) fn choose(
    requested: &[String],
    served: &'static [ChannelProtocol],
) -> Option<&'static ChannelProtocol> {
    let find = |name: &str| served.iter().find(|protocol| protocol.name == name);
    if requested.is_empty() {
        return find("");
    }
    requested.iter().find_map(|name| find(name))
}

/// The refusal when nothing that the client asks for is served.
pub(crate) fn unacceptable(requested: &[String], served: &[&str]) -> Response<Body> {
    respond::text(
        StatusCode::FORBIDDEN,
        format!(
            "unable to upgrade: unable to negotiate protocol: client supports {requested:?}, \
             server accepts {served:?}"
        ),
    )
}

/// The 101 for a WebSocket request, or why it is none (RFC 6455, section 4.2).
pub(crate) fn accept(headers: &HeaderMap, protocol: &'static str) -> Response<Body> {
    let version = headers
        .get("sec-websocket-version")
        .and_then(|value| value.to_str().ok());
    if version != Some("13") {
        let mut response = respond::text(
            StatusCode::UPGRADE_REQUIRED,
            "unsupported Sec-WebSocket-Version",
        );
        response
            .headers_mut()
            .insert("sec-websocket-version", HeaderValue::from_static("13"));
        return response;
    }
    let key = headers
        .get("sec-websocket-key")
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    if STANDARD.decode(key).map(|key| key.len()) != Ok(16) {
        return respond::text(StatusCode::BAD_REQUEST, "missing or bad Sec-WebSocket-Key");
    }
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key);
    let mut response = respond::switching("websocket");
    let headers = response.headers_mut();
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert("sec-websocket-accept", accept);
    }
    if !protocol.is_empty() {
        headers.insert("sec-websocket-protocol", HeaderValue::from_static(protocol));
    }
    response
}
