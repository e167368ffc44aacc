//! Port-forward: connections to a pod's ports, each with a stream for data and one for errors.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::backend::{BackendError, PodTarget, PortForwardTarget};
use super::channel::{Inbound, Outbound, PIECE};
use super::netns;
use super::query::Query;
use super::spdy::connection::Streams;
use super::spdy::headers::Headers;
use super::websocket::Channels;

/// How long the client may go on sending after the pod closed its side.
const GRACE: Duration = Duration::from_secs(1);

/// The ports in the query, for clients whose channels are fixed by it.
pub(super) fn ports(query: &Query) -> Result<Vec<u16>, BackendError> {
    let bad = |message: String| BackendError::new(StatusCode::BAD_REQUEST, message);
    let mut ports = Vec::new();
    for values in query.all("ports").into_iter().chain(query.all("port")) {
        for text in values.split(',') {
            let port: u16 = text
                .parse()
                .map_err(|_| bad(format!("unable to parse {text:?} as a port")))?;
            if port == 0 {
                return Err(bad(format!("port {text:?} must be > 0")));
            }
            ports.push(port);
        }
    }
    if ports.is_empty() {
        return Err(bad("query parameter \"port\" is required".to_owned()));
    }
    if ports.len() > 100 {
        return Err(bad(
            "at most 100 ports can be forwarded over one WebSocket".to_owned()
        ));
    }
    Ok(ports)
}

/// Refuses SPDY streams without a port or with an unknown type.
pub(super) fn accept(headers: &Headers) -> Result<(), String> {
    let port = headers.get("port").ok_or("\"port\" header is required")?;
    match port.parse::<u16>() {
        Ok(0) => return Err(format!("port {port:?} must be > 0")),
        Ok(_) => {}
        Err(_) => return Err(format!("unable to parse {port:?} as a port")),
    }
    match headers.get("streamtype") {
        Some("data" | "error") => Ok(()),
        Some(other) => Err(format!("invalid stream type {other:?}")),
        None => Err("\"streamType\" header is required".to_owned()),
    }
}

/// Data and error stream of one connection, as far as they are open.
struct Pair {
    port: u16,
    data: Option<(Inbound, Outbound)>,
    error: Option<(Inbound, Outbound)>,
    deadline: Instant,
}

/// Serves the streams of a SPDY connection until it ends.
pub(super) async fn over_spdy(
    mut streams: Streams,
    pod: &PodTarget,
    target: &PortForwardTarget,
    creation_timeout: Duration,
) {
    let mut pairs: HashMap<String, Pair> = HashMap::new();
    let mut running = FuturesUnordered::new();
    loop {
        let deadline = pairs.values().map(|pair| pair.deadline).min();
        let expired = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let stream = tokio::select! {
            stream = streams.next() => match stream {
                Some(stream) => stream,
                None => return,
            },
            Some(()) = running.next() => continue,
            () = expired => {
                let now = Instant::now();
                let late: Vec<_> = pairs.extract_if(|_, pair| pair.deadline <= now).collect();
                for (id, pair) in late {
                    tell_timeout(&id, pair).await;
                }
                continue;
            }
        };
        // `accept` has checked both.
        let is_error = stream.headers.get("streamtype") == Some("error");
        let port = stream
            .headers
            .get("port")
            .and_then(|port| port.parse().ok())
            .unwrap_or(0);
        // Old clients send no request id: their error stream comes first, its data stream next.
        let id = stream.headers.get("requestid").map_or_else(
            || {
                (if is_error {
                    stream.id
                } else {
                    stream.id.saturating_sub(2)
                })
                .to_string()
            },
            str::to_owned,
        );
        let pair = pairs.entry(id.clone()).or_insert_with(|| Pair {
            port,
            data: None,
            error: None,
            deadline: Instant::now() + creation_timeout,
        });
        let slot = if is_error {
            &mut pair.error
        } else {
            &mut pair.data
        };
        *slot = Some((stream.inbound, stream.outbound));
        if let Some(Pair {
            port,
            data: Some((inbound, data)),
            error: Some((_, error)),
            ..
        }) = pairs
            .remove(&id)
            .and_then(|pair| put_back(&mut pairs, &id, pair))
        {
            let netns = target.netns.as_deref();
            running.push(forward(pod, netns, port, inbound, data, error));
        }
    }
}

/// Keeps an incomplete pair in the map, hands a complete one out.
fn put_back(pairs: &mut HashMap<String, Pair>, id: &str, pair: Pair) -> Option<Pair> {
    if pair.data.is_some() && pair.error.is_some() {
        return Some(pair);
    }
    pairs.insert(id.to_owned(), pair);
    None
}

async fn tell_timeout(id: &str, pair: Pair) {
    let Some((_, error)) = pair.error else { return };
    let message = format!("(request={id}) timed out waiting for streams");
    if error.send(message.into()).await.is_ok() && error.finish().await.is_ok() {
        tracing::debug!(id, "port-forward streams did not come in pairs");
    }
}

/// Serves the channel pairs of a WebSocket until all their connections have ended.
pub(super) async fn over_channels(
    channels: Channels,
    ports: &[u16],
    pod: &PodTarget,
    target: &PortForwardTarget,
) {
    let mut inbound = channels.inbound.into_iter();
    let mut outbound = channels.outbound.into_iter();
    let mut running = FuturesUnordered::new();
    for &port in ports {
        let input = inbound.next().flatten();
        // The error channel is never read.
        inbound.next();
        let (Some(input), Some(Some(data)), Some(Some(error))) =
            (input, outbound.next(), outbound.next())
        else {
            continue;
        };
        running.push(async move {
            let number = Bytes::copy_from_slice(&port.to_le_bytes());
            if data.send(number.clone()).await.is_ok() && error.send(number).await.is_ok() {
                forward(pod, target.netns.as_deref(), port, input, data, error).await;
            }
        });
    }
    while running.next().await.is_some() {}
}

/// One connection from begin to end; what goes wrong is told on its error stream.
async fn forward(
    pod: &PodTarget,
    netns: Option<&Path>,
    port: u16,
    inbound: Inbound,
    data: Outbound,
    error: Outbound,
) {
    let result = match netns::connect(netns, port).await {
        Ok(connection) => pump(connection, inbound, data).await,
        Err(failure) => {
            // The data stream has to end too, or the client waits for it.
            if data.finish().await.is_err() {
                tracing::debug!(port, "the client went while its connection was opened");
            }
            Err(failure)
        }
    };
    let told = async {
        match result {
            Ok(()) => {}
            // The pod's program cut this one connection. A message here makes kubectl end all of
            // them, so there is none.
            Err(cut) if is_cut(&cut) => tracing::debug!(port, error = %cut, "connection cut"),
            Err(failure) => {
                let message = format!(
                    "error forwarding port {port} to pod {}, uid {}: {failure}",
                    pod.pod,
                    pod.uid.as_deref().unwrap_or_default()
                );
                tracing::debug!(message, "port-forward failed");
                error.send(message.into()).await?;
            }
        }
        error.finish().await
    };
    if told.await.is_err() {
        tracing::debug!(port, "the client of a port-forward has gone");
    }
}

fn is_cut(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

async fn pump(connection: TcpStream, mut inbound: Inbound, data: Outbound) -> io::Result<()> {
    let (mut from_pod, mut to_pod) = connection.into_split();
    let upload = async {
        while let Some(piece) = inbound.next().await {
            to_pod.write_all(&piece).await?;
        }
        to_pod.shutdown().await
    };
    let download = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(PIECE);
            if from_pod.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            if data.send(buffer.split().freeze()).await.is_err() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
    };
    tokio::pin!(upload, download);
    let mut uploaded = None;
    let downloaded = loop {
        tokio::select! {
            result = &mut download => break result,
            result = &mut upload, if uploaded.is_none() => uploaded = Some(result),
            // The client wants no more of this connection.
            () = data.reset() => return Ok(()),
        }
    };
    if data.finish().await.is_err() {
        return Ok(());
    }
    if uploaded.is_none() && downloaded.is_ok() {
        uploaded = tokio::time::timeout(GRACE, upload).await.ok();
    }
    match uploaded {
        Some(Err(error)) if downloaded.is_ok() => Err(error),
        _ => downloaded,
    }
}
