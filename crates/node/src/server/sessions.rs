//! Upgrades: picks the protocol, answers 101, and runs the session on the connection.
//!
//! Everything that can be refused is refused before the 101, as plain text with a status; after
//! it, errors travel on the session's error stream.

use std::future::Future;

use evenkeel_runtime::contract::ExecRequest;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::NodeServer;
use super::backend::{BackendError, ContainerTarget, PodTarget, Result};
use super::channel::Activity;
use super::port_forward;
use super::query::Query;
use super::remote_command::{self, ClientStreams, Kind};
use super::respond::{self, Body};
use super::spdy;
use super::spdy::connection::Streams;
use super::websocket::protocol::{self, ChannelProtocol};
use super::websocket::{self, Channel, Channels};

const SPDY: &str = "SPDY/3.1";
const STREAM_PROTOCOL: &str = "x-stream-protocol-version";
const PORT_FORWARD_PROTOCOL: &str = "portforward.k8s.io";
const REMOTE_COMMAND_PROTOCOLS: &[&str] = &[
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
];

type Io = TokioIo<Upgraded>;

impl NodeServer {
    pub(super) async fn remote_command<B: Send>(
        &self,
        target: ContainerTarget,
        kind: Kind,
        mut request: Request<B>,
    ) -> Result<Response<Body>> {
        let wanted = remote_command::streams_wanted(&Query::of(request.uri()), kind)?;
        let container = self.backend.running_container(&target).await?;
        let server = self.clone();
        let activity = Activity::new(self.limits.idle);
        if protocol::is_websocket(request.headers()) {
            let asked = protocol::requested(request.headers());
            let Some(chosen) = protocol::choose(&asked, protocol::REMOTE_COMMAND) else {
                let served: Vec<_> = protocol::REMOTE_COMMAND.iter().map(|p| p.name).collect();
                return Ok(protocol::unacceptable(&asked, &served));
            };
            let response = protocol::accept(request.headers(), chosen.name);
            return Ok(self.upgrade(response, &mut request, move |io| async move {
                let kinds = channel_kinds(&wanted);
                let (driver, channels) = websocket::open(io, chosen, &kinds, activity);
                let streams = from_channels(channels, chosen, &wanted);
                beside(driver, async {
                    if let Some(streams) = streams.await {
                        server.run_session(&container, &wanted, kind, streams).await;
                    }
                })
                .await;
            }));
        }
        let (response, chosen) =
            match spdy_handshake(request.headers(), REMOTE_COMMAND_PROTOCOLS, true)? {
                Ok(accepted) => accepted,
                Err(refused) => return Ok(refused),
            };
        // Without a version header the client speaks the first one.
        let chosen = chosen.unwrap_or("channel.k8s.io");
        Ok(self.upgrade(response, &mut request, move |io| async move {
            let (driver, streams) = spdy::open(io, |_| Ok(()), activity);
            beside(driver, async {
                let deadline = Instant::now() + server.limits.stream_creation;
                let mut streams = streams;
                match from_spdy(&mut streams, chosen, &wanted, deadline).await {
                    Ok(client) => server.run_session(&container, &wanted, kind, client).await,
                    Err(error) => tracing::debug!(error, "session not begun"),
                }
            })
            .await;
        }))
    }

    async fn run_session(
        &self,
        container: &str,
        wanted: &ExecRequest,
        kind: Kind,
        client: ClientStreams,
    ) {
        let runtime = self.backend.runtime();
        let session = match kind {
            Kind::Exec => runtime.exec(container, wanted).await,
            Kind::Attach => runtime.attach(container, wanted).await,
        };
        remote_command::run(client, session, kind, &wanted.command).await;
    }

    pub(super) async fn port_forward<B: Send>(
        &self,
        pod: PodTarget,
        mut request: Request<B>,
    ) -> Result<Response<Body>> {
        let network = self.backend.port_forward(&pod).await?;
        let activity = Activity::new(self.limits.idle);
        let creation = self.limits.stream_creation;
        if protocol::is_websocket(request.headers()) {
            let asked = protocol::requested(request.headers());
            if asked.iter().any(|name| name == protocol::SPDY_TUNNEL) {
                let response = protocol::accept(request.headers(), protocol::SPDY_TUNNEL);
                return Ok(self.upgrade(response, &mut request, move |io| async move {
                    let (tunnel, inner) = websocket::tunnel(io);
                    let (driver, streams) = spdy::open(inner, port_forward::accept, activity);
                    // The tunnel outlives SPDY by the close frame.
                    tokio::join!(
                        tunnel,
                        beside(
                            driver,
                            port_forward::over_spdy(streams, &pod, &network, creation)
                        )
                    );
                }));
            }
            let Some(chosen) = protocol::choose(&asked, protocol::PORT_FORWARD) else {
                let mut served: Vec<_> = protocol::PORT_FORWARD.iter().map(|p| p.name).collect();
                served.push(protocol::SPDY_TUNNEL);
                return Ok(protocol::unacceptable(&asked, &served));
            };
            let ports = port_forward::ports(&Query::of(request.uri()))?;
            // A channel's number is one digit there, and each port takes two.
            if chosen.base64 && ports.len() > 5 {
                return Err(BackendError::new(
                    StatusCode::BAD_REQUEST,
                    "at most 5 ports can be forwarded over a base64 protocol",
                ));
            }
            let response = protocol::accept(request.headers(), chosen.name);
            return Ok(self.upgrade(response, &mut request, move |io| async move {
                let kinds = [Channel::ReadWrite, Channel::Write].repeat(ports.len());
                let (driver, channels) = websocket::open(io, chosen, &kinds, activity);
                let session = port_forward::over_channels(channels, &ports, &pod, &network);
                beside(driver, session).await;
            }));
        }
        let (response, _) =
            match spdy_handshake(request.headers(), &[PORT_FORWARD_PROTOCOL], false)? {
                Ok(accepted) => accepted,
                Err(refused) => return Ok(refused),
            };
        Ok(self.upgrade(response, &mut request, move |io| async move {
            let (driver, streams) = spdy::open(io, port_forward::accept, activity);
            let session = port_forward::over_spdy(streams, &pod, &network, creation);
            beside(driver, session).await;
        }))
    }

    /// Runs `session` on the connection once a 101 has gone out. Other responses pass unchanged.
    fn upgrade<B, S, F>(
        &self,
        response: Response<Body>,
        request: &mut Request<B>,
        session: S,
    ) -> Response<Body>
    where
        S: FnOnce(Io) -> F + Send + 'static,
        F: Future<Output = ()> + Send,
    {
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return response;
        }
        let upgrade: OnUpgrade = hyper::upgrade::on(request);
        let shutdown = self.shutdown.clone();
        self.sessions.spawn(async move {
            let session = async {
                match upgrade.await {
                    Ok(connection) => session(TokioIo::new(connection)).await,
                    Err(error) => tracing::debug!(%error, "the upgrade did not happen"),
                }
            };
            tokio::select! {
                () = session => {}
                () = shutdown.cancelled() => {}
            }
        });
        response
    }
}

/// Polls a connection's driver and the session on it: the session's end leaves the connection to
/// be closed in order, the connection's end drops the session.
async fn beside(driver: impl Future<Output = ()>, session: impl Future<Output = ()>) {
    let session = async {
        session.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = driver => {}
        () = session => {}
    }
}

fn channel_kinds(wanted: &ExecRequest) -> [Channel; 5] {
    let read = |open| {
        if open {
            Channel::Read
        } else {
            Channel::Ignored
        }
    };
    let write = |open| {
        if open {
            Channel::Write
        } else {
            Channel::Ignored
        }
    };
    [
        read(wanted.stdin),
        write(wanted.stdout),
        write(wanted.stderr),
        Channel::Write,
        read(wanted.tty),
    ]
}

/// The channels by their meaning; `None` when the client has gone.
async fn from_channels(
    mut channels: Channels,
    protocol: &ChannelProtocol,
    wanted: &ExecRequest,
) -> Option<ClientStreams> {
    let mut read = |at: usize| channels.inbound.get_mut(at).and_then(Option::take);
    let (stdin, resize) = (read(0), read(4));
    let mut write = |at: usize| channels.outbound.get_mut(at).and_then(Option::take);
    let (stdout, stderr, error) = (write(1), write(2), write(3)?);
    if !protocol.half_close {
        // Older clients learn from an empty message that the connection stands.
        let first = match (wanted.stdout, wanted.stderr) {
            (true, _) => stdout.as_ref(),
            (false, true) => stderr.as_ref(),
            _ => Some(&error),
        };
        first?.send(bytes::Bytes::new()).await.ok()?;
    }
    Some(ClientStreams {
        stdin,
        stdout,
        stderr,
        error,
        resize,
        structured_status: protocol.structured_status,
        unused: Vec::new(),
    })
}

/// Waits for all streams that the client has to open.
async fn from_spdy(
    streams: &mut Streams,
    protocol: &str,
    wanted: &ExecRequest,
    deadline: Instant,
) -> std::result::Result<ClientStreams, &'static str> {
    let resizes = !matches!(protocol, "channel.k8s.io" | "v2.channel.k8s.io");
    let expected = [
        true,
        wanted.stdin,
        wanted.stdout,
        wanted.stderr,
        wanted.tty && resizes,
    ]
    .iter()
    .filter(|open| **open)
    .count();
    let (mut stdin, mut stdout, mut stderr, mut error, mut resize) = (None, None, None, None, None);
    let mut unused = Vec::new();
    let mut received = 0;
    while received < expected {
        let Ok(stream) = tokio::time::timeout_at(deadline, streams.next()).await else {
            return Err("timed out waiting for client to create streams");
        };
        let stream = stream.ok_or("the client went before it had opened its streams")?;
        match stream.headers.get("streamtype") {
            Some("stdin") => {
                stdin = Some(stream.inbound);
                unused.push(stream.outbound);
            }
            Some("resize") => {
                resize = Some(stream.inbound);
                unused.push(stream.outbound);
            }
            Some("stdout") => stdout = Some(stream.outbound),
            Some("stderr") => stderr = Some(stream.outbound),
            Some("error") => error = Some(stream.outbound),
            other => {
                tracing::debug!(?other, "unexpected stream type");
                continue;
            }
        }
        received += 1;
    }
    Ok(ClientStreams {
        stdin,
        stdout,
        stderr,
        error: error.ok_or("the client opened no error stream")?,
        resize,
        structured_status: matches!(protocol, "v4.channel.k8s.io" | "v5.channel.k8s.io"),
        unused,
    })
}

type Handshake = std::result::Result<(Response<Body>, Option<&'static str>), Response<Body>>;

/// The 101 for a SPDY request with the stream protocol both sides know, or a refusal.
fn spdy_handshake(
    headers: &HeaderMap,
    served: &'static [&'static str],
    versionless: bool,
) -> Result<Handshake> {
    let has = |name: http::HeaderName, token: &str| {
        headers.get_all(name).iter().any(|value| {
            value
                .to_str()
                .is_ok_and(|value| value.to_ascii_lowercase().contains(token))
        })
    };
    if !has(CONNECTION, "upgrade") || !has(UPGRADE, "spdy/3.1") {
        return Err(BackendError::new(
            StatusCode::BAD_REQUEST,
            "unable to upgrade: missing upgrade headers in request (WebSocket or SPDY/3.1)",
        ));
    }
    let asked: Vec<String> = headers
        .get_all(STREAM_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    let chosen = asked
        .iter()
        .find_map(|name| served.iter().find(|known| *known == name).copied());
    if chosen.is_none() && !(asked.is_empty() && versionless) {
        let mut refused = protocol::unacceptable(&asked, served);
        for name in served {
            refused.headers_mut().append(
                "x-accepted-stream-protocol-versions",
                HeaderValue::from_static(name),
            );
        }
        return Ok(Err(refused));
    }
    let mut response = respond::switching(SPDY);
    if let Some(chosen) = chosen {
        response
            .headers_mut()
            .insert(STREAM_PROTOCOL, HeaderValue::from_static(chosen));
    }
    Ok(Ok((response, chosen)))
}
