//! A watch over WebSocket: what a page in a browser can read.
//!
//! Every event is a message: text when it is JSON, binary otherwise. Clients have nothing to say;
//! what they send is read and thrown away, so that pings are answered and their end is noticed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::StatusCode;
use http::header::{
    AUTHORIZATION, CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::watch::Watch;
use crate::http::{Answer, LongRunning, full};

/// Clients have nothing to say: more than this in one message ends the watch.
const MOST: usize = 64 << 10;

/// What stands in front of a token that is given as a protocol.
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// A client that asks for WebSocket.
pub(super) struct Socket {
    client: OnUpgrade,
    /// Counted and recorded as going on until the watch ends, not until it is answered.
    held: Option<LongRunning>,
    accept: HeaderValue,
    protocol: Option<HeaderValue>,
}

impl Socket {
    /// Whether the request is one for WebSocket, and its connection can become one.
    pub(super) fn asked(parts: &mut http::request::Parts) -> Option<Self> {
        let headers = &parts.headers;
        if !names(headers, &UPGRADE, "websocket") || !names(headers, &CONNECTION, "upgrade") {
            return None;
        }
        let key = headers.get(SEC_WEBSOCKET_KEY)?;
        let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()?;
        // One protocol is agreed to, whatever it is; among several there is nothing to choose.
        let protocol = headers
            .get(SEC_WEBSOCKET_PROTOCOL)
            .filter(|offered| !offered.as_bytes().contains(&b','))
            .cloned();
        Some(Self {
            client: parts.extensions.remove::<OnUpgrade>()?,
            held: parts.extensions.remove::<LongRunning>(),
            accept,
            protocol,
        })
    }

    /// Switches protocols, and sends the watch to its end.
    pub(super) fn serve(self, watch: Watch, as_text: bool) -> Answer {
        let (client, held) = (self.client, self.held);
        tokio::spawn(async move {
            let _until_it_ends = held;
            match client.await {
                Ok(client) => {
                    if let Err(error) = run(TokioIo::new(client), watch, as_text).await {
                        tracing::debug!(%error, "a watch over WebSocket ended");
                    }
                }
                Err(error) => tracing::debug!(%error, "an upgrade did not come about"),
            }
        });
        let mut answer = Answer::new(full(Bytes::new()));
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept);
        if let Some(protocol) = self.protocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        answer
    }
}

/// Pages can't set headers of a WebSocket, so that they give their token as a protocol:
/// `base64url.bearer.authorization.k8s.io.TOKEN` beside the one that is to be spoken. It becomes
/// what it stands for.
pub(crate) fn token_of_protocol(headers: &mut HeaderMap) {
    if headers.contains_key(AUTHORIZATION)
        || !headers.contains_key(SEC_WEBSOCKET_PROTOCOL)
        || !names(headers, &UPGRADE, "websocket")
    {
        return;
    }
    let offered: Vec<String> = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|protocol| protocol.trim().to_owned())
        .collect();
    let (tokens, others): (Vec<&str>, Vec<&str>) = offered
        .iter()
        .map(String::as_str)
        .partition(|protocol| protocol.starts_with(TOKEN_PROTOCOL));
    // One token, and something to speak: anything else is not meant so.
    let ([token], false) = (tokens.as_slice(), others.is_empty()) else {
        return;
    };
    let token = token.strip_prefix(TOKEN_PROTOCOL).unwrap_or_default();
    let Some(token) = URL_SAFE_NO_PAD
        .decode(token.trim_end_matches('='))
        .ok()
        .and_then(|token| String::from_utf8(token).ok())
    else {
        return;
    };
    let bearer = HeaderValue::from_str(&format!("Bearer {token}"));
    let spoken = HeaderValue::from_str(&others.join(", "));
    if let (Ok(bearer), Ok(spoken)) = (bearer, spoken) {
        headers.insert(AUTHORIZATION, bearer);
        headers.insert(SEC_WEBSOCKET_PROTOCOL, spoken);
    }
}

fn names(headers: &HeaderMap, header: &HeaderName, wanted: &str) -> bool {
    headers
        .get_all(header)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().eq_ignore_ascii_case(wanted))
}

async fn run(
    io: TokioIo<hyper::upgrade::Upgraded>,
    mut watch: Watch,
    as_text: bool,
) -> Result<(), Error> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MOST))
        .max_frame_size(Some(MOST));
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    loop {
        let event = tokio::select! {
            event = watch.next() => event,
            said = socket.next() => match said {
                None | Some(Ok(Message::Close(_))) => return Ok(()),
                Some(Ok(_)) => continue,
                Some(Err(error)) => return Err(error),
            },
        };
        let Some(event) = event else {
            return socket.close(None).await;
        };
        let message = if as_text {
            // JSON is UTF-8.
            Message::Text(
                Utf8Bytes::try_from(event).map_err(|error| Error::Utf8(error.to_string()))?,
            )
        } else if watch.is_protobuf() {
            // A message has its length: the one in front of an event is for streams.
            Message::Binary(event.slice(4.min(event.len())..))
        } else {
            Message::Binary(event)
        };
        socket.send(message).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(protocols: &str) -> (Option<String>, String) {
        let mut headers = HeaderMap::new();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        let protocols = HeaderValue::from_str(protocols).expect("a header");
        headers.insert(SEC_WEBSOCKET_PROTOCOL, protocols);
        token_of_protocol(&mut headers);
        let text = |value: &HeaderValue| value.to_str().expect("text").to_owned();
        (
            headers.get(AUTHORIZATION).map(text),
            text(&headers[SEC_WEBSOCKET_PROTOCOL]),
        )
    }

    #[test]
    fn a_token_among_the_protocols_is_a_credential() {
        let token = format!("{TOKEN_PROTOCOL}dG9rZW4");
        assert_eq!(
            given(&format!("{token}, v5.channel.k8s.io")),
            (
                Some("Bearer token".to_owned()),
                "v5.channel.k8s.io".to_owned()
            )
        );
        assert_eq!(given(&token), (None, token.clone()), "nothing to speak");
        assert_eq!(given("a, b"), (None, "a, b".to_owned()));
        let odd = format!("{TOKEN_PROTOCOL}%%, a");
        assert_eq!(given(&odd), (None, odd.clone()));
    }
}
