//! `grpc`: the standard health service (`grpc.health.v1.Health/Check`), spoken by hand: one
//! request of one field, one answer of one field.

use bytes::{BufMut, Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio_util::task::AbortOnDropHandle;

use super::Answer;
use super::dial::Dialers;
use super::target::authority;

impl Dialers {
    /// Probes.
    pub(super) async fn probe_grpc(&self, host: &str, port: u16, service: &str) -> Answer {
        let place = authority(host, port);
        let tcp = match self.tcp(host, port).await {
            Ok(tcp) => tcp,
            Err(error) => {
                let text = format!(
                    "timeout: failed to connect service \"{place}\" within its time: {}",
                    error.text
                );
                return if error.refused {
                    Answer::Refused(text)
                } else {
                    Answer::Failed(text)
                };
            }
        };
        match check(TokioIo::new(tcp), &place, service).await {
            Ok(1) => Answer::Passed,
            Ok(status) => {
                let name = match status {
                    0 => "UNKNOWN",
                    2 => "NOT_SERVING",
                    3 => "SERVICE_UNKNOWN",
                    _ => "(unknown status)",
                };
                Answer::Failed(format!("service unhealthy (responded with \"{name}\")"))
            }
            Err(error) => Answer::Failed(format!("error: health rpc probe failed: {error}")),
        }
    }
}

async fn check(
    io: TokioIo<tokio::net::TcpStream>,
    place: &str,
    service: &str,
) -> Result<u64, String> {
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .map_err(|error| error.to_string())?;
    let _guard = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::post(format!("http://{place}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.37")
        .body(Full::new(request(service)))
        .map_err(|error| error.to_string())?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| error.to_string())?;
    if response.status() != 200 {
        return Err(format!("HTTP status {}", response.status().as_u16()));
    }
    // Errors without a message come in the headers, with nothing else.
    refused(response.headers())?;
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(|error| error.to_string())?;
    if let Some(trailers) = body.trailers() {
        refused(trailers)?;
    }
    status(&body.to_bytes()).ok_or_else(|| "malformed answer".to_owned())
}

/// The frame and message of a `HealthCheckRequest`.
fn request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8(u8::try_from(length & 0x7f).unwrap_or(0) | 0x80);
            length >>= 7;
        }
        message.put_u8(u8::try_from(length).unwrap_or(0));
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(0));
    frame.put_slice(&message);
    frame.freeze()
}

fn refused(headers: &http::HeaderMap) -> Result<(), String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        None | Some("0") => Ok(()),
        Some("12") => Err(
            "this server does not implement the grpc health protocol (grpc.health.v1.Health)"
                .to_owned(),
        ),
        Some(code) => {
            let message = text("grpc-message").unwrap_or_default();
            Err(format!("rpc error: code = {code} desc = {message}"))
        }
    }
}

/// The `status` of a `HealthCheckResponse`, 0 when it is not there.
fn status(frame: &[u8]) -> Option<u64> {
    let message = frame.get(5..)?;
    if frame.first() != Some(&0) {
        return None;
    }
    let mut at = message.iter();
    let mut varint = || -> Option<Option<u64>> {
        let mut value = 0_u64;
        let mut shift = 0;
        loop {
            let Some(byte) = at.next() else {
                return if shift == 0 { Some(None) } else { None };
            };
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return Some(Some(value));
            }
            if shift > 63 {
                return None;
            }
        }
    };
    let mut found = 0;
    while let Some(tag) = varint()? {
        if tag & 7 != 0 {
            return None;
        }
        let value = varint()??;
        if tag >> 3 == 1 {
            found = value;
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_framed_and_read() {
        assert_eq!(request("").as_ref(), [0, 0, 0, 0, 0]);
        assert_eq!(request("db").as_ref(), [0, 0, 0, 0, 4, 0x0a, 2, b'd', b'b']);
        assert_eq!(status(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(status(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(status(&[0, 0, 0, 0, 1, 8]), None);
        assert_eq!(status(&[]), None);
    }
}
