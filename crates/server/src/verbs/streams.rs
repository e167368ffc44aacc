//! Logs, exec, attach, port-forward and proxies: the door authorizes, finds the node, and passes
//! the bytes on. The streaming protocols themselves are spoken by the node's agent, once.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_api::row::Subresource;
use evenkeel_api::{Status, object};
use futures::TryStreamExt as _;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderName, HeaderValue,
    LOCATION, UPGRADE,
};
use http::{Method, Request as HttpRequest, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::socket::Socket;
use super::subresource::{admit, current};
use super::{Request, links};
use crate::admission::Operation;
use crate::door::{Door, PeerAddress};
use crate::http::{Answer, LongRunning};

/// A node that does not answer in this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How the door reaches what runs on nodes.
#[derive(Clone)]
pub(crate) struct NodeTunnel {
    /// Agents: with the door's own client certificate, trusting the cluster's CA.
    pub(crate) agents: Arc<rustls::ClientConfig>,
    /// Pods behind a proxy's `https:`, whose certificates nobody vouches for: as in the reference,
    /// they are believed.
    pub(crate) pods: Arc<rustls::ClientConfig>,
}

/// Whether a connection is one of TLS, and to whom.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tls {
    No,
    Agent,
    Pod,
}

impl Tls {
    fn to_pod(tls: bool) -> Self {
        if tls { Self::Pod } else { Self::No }
    }
}

/// Where a request is passed on to.
struct Upstream {
    host: String,
    port: u16,
    tls: Tls,
    path: String,
}

pub(super) async fn serve(
    request: Request<'_>,
    subresource: Subresource,
) -> Result<Answer, Status> {
    let found = if subresource == Subresource::Proxy {
        named(&request).await?.value()
    } else {
        current(&request).await?.value()
    };
    if subresource != Subresource::Log {
        let mut options = connect_options(&request, subresource);
        admit(&request, Operation::Connect, subresource, &mut options).await?;
    }
    let upstream = match (subresource, request.row.gvk.kind.as_ref()) {
        (Subresource::Proxy, "Node") => node_proxy(&request, &found)?,
        (Subresource::Proxy, "Pod") => pod_proxy(&request, &found)?,
        (Subresource::Proxy, "Service") => service_proxy(&request, &found)?,
        _ => pod_stream(&request, subresource, &found).await?,
    };
    if subresource == Subresource::Proxy
        && let Some(answer) = with_slash(&request)
    {
        return Ok(answer);
    }
    pass(request, subresource, upstream).await
}

/// The object behind a proxy's name, which may carry a scheme and a port.
async fn named(request: &Request<'_>) -> Result<std::sync::Arc<crate::object::Object>, Status> {
    let name = base_name(request.name());
    request
        .door
        .registry
        .get(&request.row, request.namespace(), name)
        .await?
        .ok_or_else(|| Status::not_found(&request.row.gvk.group, &request.row.plural, name))
}

/// What a stream is asked for, as the kind that its options have.
fn connect_options(request: &Request<'_>, subresource: Subresource) -> Value {
    let kind = match subresource.own_kind() {
        Some((_, _, kind)) => kind.to_owned(),
        None => format!("{}ProxyOptions", request.row.gvk.kind),
    };
    let query = &request.call.query;
    let mut options = json!({"apiVersion": "v1", "kind": kind});
    for name in ["stdin", "stdout", "stderr", "tty"] {
        if query.flag(name) {
            options[name] = true.into();
        }
    }
    if query.has("container") {
        options["container"] = query.get("container").into();
    }
    let command: Vec<&str> = query.all("command").collect();
    if !command.is_empty() {
        options["command"] = json!(command);
    }
    let ports: Vec<i64> = query
        .all("ports")
        .flat_map(|ports| ports.split(','))
        .filter_map(|port| port.parse().ok())
        .collect();
    if !ports.is_empty() {
        options["ports"] = json!(ports);
    }
    if subresource == Subresource::Proxy {
        options["path"] = format!("/{}", request.call.attributes.rest.join("/")).into();
    }
    options
}

fn query_tail(request: &Request<'_>) -> String {
    request
        .call
        .parts
        .uri
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default()
}

/// Percent-encodes a path segment.
fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// A container's log or streams, or a pod's ports, at the node that runs it.
async fn pod_stream(
    request: &Request<'_>,
    subresource: Subresource,
    pod: &Value,
) -> Result<Upstream, Status> {
    let (namespace, name) = (object::namespace(pod), object::name(pod));
    let place = format!("{}/{}", segment(namespace), segment(name));
    let tail = query_tail(request);
    let path = match subresource {
        Subresource::PortForward => format!("/portForward/{place}{tail}"),
        Subresource::Log => {
            format!(
                "/containerLogs/{place}/{}{tail}",
                segment(&container(request, pod)?)
            )
        }
        Subresource::Exec => format!("/exec/{place}/{}{tail}", segment(&container(request, pod)?)),
        _ => format!(
            "/attach/{place}/{}{tail}",
            segment(&container(request, pod)?)
        ),
    };
    let node = object::text(pod, &["spec", "nodeName"]);
    if node.is_empty() {
        // The reference answers an empty log for a pod that is not scheduled, and refuses streams.
        return Err(Status::bad_request(format!(
            "pod {name} does not have a host assigned"
        )));
    }
    let row = request
        .door
        .rows()
        .by_kind("", "v1", "Node")
        .cloned()
        .ok_or_else(Status::no_such_path)?;
    let node = request
        .door
        .registry
        .cache(&row)?
        .get(node)
        .ok_or_else(|| Status::not_found("", "nodes", node))?
        .value();
    agent(&node, path)
}

/// The container that a request names, or the only one there is.
fn container(request: &Request<'_>, pod: &Value) -> Result<String, Status> {
    let names = |list: &str| -> Vec<String> {
        object::list(pod, &["spec", list])
            .iter()
            .map(|container| object::text(container, &["name"]).to_owned())
            .collect()
    };
    let (regular, init, ephemeral) = (
        names("containers"),
        names("initContainers"),
        names("ephemeralContainers"),
    );
    let asked = request.call.query.get("container");
    let pod_name = object::name(pod);
    if !asked.is_empty() {
        let known = [&regular, &init, &ephemeral]
            .iter()
            .any(|list| list.iter().any(|n| n == asked));
        return if known {
            Ok(asked.to_owned())
        } else {
            Err(Status::bad_request(format!(
                "container {asked} is not valid for pod {pod_name}"
            )))
        };
    }
    match regular.as_slice() {
        [only] => Ok(only.clone()),
        _ => {
            let mut text = format!(
                "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                regular.join(" ")
            );
            if !init.is_empty() {
                text.push_str(&format!(
                    " or one of the init containers: [{}]",
                    init.join(" ")
                ));
            }
            Err(Status::bad_request(text))
        }
    }
}

/// The agent of a node.
fn agent(node: &Value, path: String) -> Result<Upstream, Status> {
    let name = object::name(node);
    let address = |kind: &str| {
        object::list(node, &["status", "addresses"])
            .iter()
            .find(|address| object::text(address, &["type"]) == kind)
            .map(|address| object::text(address, &["address"]).to_owned())
    };
    let host = ["InternalIP", "ExternalIP", "Hostname"]
        .iter()
        .find_map(|kind| address(kind))
        .ok_or_else(|| Status::unavailable(format!("no address known for node {name:?}")))?;
    let port = object::integer(
        node,
        &["status", "daemonEndpoints", "kubeletEndpoint", "Port"],
    )
    .and_then(|port| u16::try_from(port).ok())
    .filter(|port| *port > 0)
    .ok_or_else(|| Status::unavailable(format!("no agent port known for node {name:?}")))?;
    Ok(Upstream {
        host,
        port,
        tls: Tls::Agent,
        path,
    })
}

/// What a node's agent answers to a GET.
pub(super) async fn ask_agent(door: &Arc<Door>, node: &Value, path: &str) -> Result<Bytes, Status> {
    let upstream = agent(node, path.to_owned())?;
    let failed = |why: String| Status::unavailable(format!("{}: {why}", upstream.host));
    let io = connect(door, &upstream)
        .await
        .map_err(|error| failed(error.to_string()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
        .await
        .map_err(|error| failed(error.to_string()))?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = HttpRequest::get(path)
        .header(HOST, &upstream.host)
        .body(Full::new(Bytes::new()))
        .map_err(|error| failed(error.to_string()))?;
    let answer = sender
        .send_request(request)
        .await
        .map_err(|error| failed(error.to_string()))?;
    let code = answer.status();
    let body = answer
        .into_body()
        .collect()
        .await
        .map_err(|error| failed(error.to_string()))?
        .to_bytes();
    if code == StatusCode::OK {
        Ok(body)
    } else {
        Err(failed(code.to_string()))
    }
}

/// The path of a proxy request, parted behind `/api/v1/namespaces/NS/pods/NAME/proxy` or
/// `/api/v1/nodes/NAME/proxy`.
fn parted<'r>(request: &'r Request<'_>) -> (&'r str, &'r str) {
    let path = request.call.parts.uri.path();
    let before = if request.namespace().is_empty() { 6 } else { 8 };
    let end = path.match_indices('/').nth(before - 1);
    path.split_at(end.map_or(path.len(), |(at, _)| at))
}

/// Where everything that is reached through this proxy stands.
fn prefix(request: &Request<'_>) -> String {
    parted(request).0.to_owned()
}

/// A proxy's own address without a slash would break the links of the page behind it.
fn with_slash(request: &Request<'_>) -> Option<Answer> {
    let parts = &request.call.parts;
    let reading = matches!(parts.method, Method::GET | Method::HEAD);
    if !reading || parts.headers.contains_key(UPGRADE) || !parted(request).1.is_empty() {
        return None;
    }
    let to = format!("{}/{}", parts.uri.path(), query_tail(request));
    let mut answer = Answer::new(crate::http::full(Bytes::new()));
    *answer.status_mut() = StatusCode::MOVED_PERMANENTLY;
    answer
        .headers_mut()
        .insert(LOCATION, HeaderValue::try_from(to).ok()?);
    Some(answer)
}

fn rest(request: &Request<'_>) -> String {
    let (_, behind) = parted(request);
    let slash = if behind.starts_with('/') { "" } else { "/" };
    format!("{slash}{behind}{}", query_tail(request))
}

fn node_proxy(request: &Request<'_>, node: &Value) -> Result<Upstream, Status> {
    agent(node, rest(request))
}

/// The name in `NAME`, `NAME:PORT` and `SCHEME:NAME:PORT`.
fn base_name(name: &str) -> &str {
    match name.split(':').collect::<Vec<_>>().as_slice() {
        [_, name, _] | [name, _] => name,
        _ => name,
    }
}

/// Is it TLS, and which port, of a proxy's name.
fn scheme_and_port(name: &str) -> (bool, Option<&str>) {
    let parts: Vec<&str> = name.split(':').collect();
    match parts.as_slice() {
        [scheme, _, port] => (
            *scheme == "https",
            Some(port).filter(|port| !port.is_empty()).copied(),
        ),
        [_, port] => (false, Some(*port)),
        _ => (false, None),
    }
}

fn pod_proxy(request: &Request<'_>, pod: &Value) -> Result<Upstream, Status> {
    let (tls, port) = scheme_and_port(request.name());
    let host = object::text(pod, &["status", "podIP"]);
    if host.is_empty() {
        return Err(Status::unavailable(format!(
            "pod {} has no address yet",
            object::name(pod)
        )));
    }
    let first = || {
        object::list(pod, &["spec", "containers"])
            .iter()
            .flat_map(|container| object::list(container, &["ports"]))
            .find_map(|port| object::integer(port, &["containerPort"]))
    };
    let port = match port {
        Some(text) => text.parse().ok(),
        None => first()
            .and_then(|port| u16::try_from(port).ok())
            .or(Some(80)),
    };
    let port = port.ok_or_else(|| Status::bad_request("invalid pod port in request"))?;
    Ok(Upstream {
        host: host.to_owned(),
        port,
        tls: Tls::to_pod(tls),
        path: rest(request),
    })
}

/// A ready endpoint of a service.
fn service_proxy(request: &Request<'_>, service: &Value) -> Result<Upstream, Status> {
    let (tls, wanted) = scheme_and_port(request.name());
    let (namespace, name) = (object::namespace(service), object::name(service));
    let none = || Status::unavailable(format!("no endpoints available for service \"{name}\""));
    let row = request
        .door
        .rows()
        .by_kind("discovery.k8s.io", "v1", "EndpointSlice")
        .cloned()
        .ok_or_else(Status::no_such_path)?;
    let port_name = object::list(service, &["spec", "ports"])
        .iter()
        .find(|port| match wanted {
            None => true,
            Some(wanted) => {
                object::text(port, &["name"]) == wanted
                    || object::integer(port, &["port"]).is_some_and(|n| n.to_string() == wanted)
            }
        })
        .map(|port| object::text(port, &["name"]).to_owned())
        .ok_or_else(|| {
            Status::unavailable(format!(
                "no service port {wanted:?} found for service \"{name}\""
            ))
        })?;
    for slice in request.door.registry.cache(&row)?.list(namespace, None) {
        if slice.head.label("kubernetes.io/service-name") != Some(name) {
            continue;
        }
        let slice = slice.value();
        let port = object::list(&slice, &["ports"])
            .iter()
            .find(|port| object::text(port, &["name"]) == port_name)
            .and_then(|port| object::integer(port, &["port"]))
            .and_then(|port| u16::try_from(port).ok());
        let ready = object::list(&slice, &["endpoints"])
            .iter()
            .find(|endpoint| {
                object::at(endpoint, &["conditions", "ready"])
                    .and_then(Value::as_bool)
                    .unwrap_or(true)
            });
        let host = ready
            .and_then(|endpoint| object::list(endpoint, &["addresses"]).first())
            .and_then(Value::as_str);
        if let (Some(port), Some(host)) = (port, host) {
            return Ok(Upstream {
                host: host.to_owned(),
                port,
                tls: Tls::to_pod(tls),
                path: rest(request),
            });
        }
    }
    Err(none())
}

/// Passes the request on, upgraded connections included.
async fn pass(
    request: Request<'_>,
    subresource: Subresource,
    upstream: Upstream,
) -> Result<Answer, Status> {
    let refusals_become_status = subresource == Subresource::Log;
    let proxied = (subresource == Subresource::Proxy).then(|| prefix(&request));
    let Request { door, call, .. } = request;
    let unreachable = |why: String| {
        Status::failure(
            502,
            "BadGateway",
            format!(
                "error dialing backend: {}:{}: {why}",
                upstream.host, upstream.port
            ),
        )
    };
    let io = tokio::time::timeout(CONNECT_TIMEOUT, connect(door, &upstream))
        .await
        .map_err(|_| unreachable("timed out".to_owned()))?
        .map_err(|error| unreachable(error.to_string()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
        .await
        .map_err(|error| unreachable(error.to_string()))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to a node ended");
        }
    });
    let mut parts = call.parts;
    // The door itself speaks it for logs, which agents know as plain answers only.
    let socket = if refusals_become_status {
        Socket::asked(&mut parts)
    } else {
        None
    };
    let upgrades = socket.is_none() && parts.headers.contains_key(UPGRADE);
    let client = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
    let held = parts.extensions.remove::<LongRunning>();
    let method = if parts.method == Method::HEAD && proxied.is_none() {
        Method::GET
    } else {
        parts.method.clone()
    };
    let mut onward = HttpRequest::builder()
        .method(method)
        .uri(&upstream.path)
        .body(Full::new(call.body))
        .map_err(|error| Status::bad_request(error.to_string()))?;
    copy_headers(&parts.headers, onward.headers_mut(), upgrades);
    let host = format!("{}:{}", upstream.host, upstream.port);
    if let Ok(host) = HeaderValue::from_str(&host) {
        onward.headers_mut().insert(HOST, host);
    }
    if let Some(prefix) = &proxied {
        forwarded_for(&parts, onward.headers_mut());
        if !upgrades {
            forwarded_uri(&upstream.path, prefix, onward.headers_mut());
        }
        // Pages come as they are, since their links are rewritten.
        onward.headers_mut().remove(ACCEPT_ENCODING);
    }
    let mut response = sender
        .send_request(onward)
        .await
        .map_err(|error| unreachable(error.to_string()))?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let server = hyper::upgrade::on(&mut response);
        if let Some(client) = client {
            tokio::spawn(async move {
                join(client, server).await;
                drop(held);
            });
        }
        let (head, _) = response.into_parts();
        let mut answer = Answer::new(crate::http::full(Bytes::new()));
        *answer.status_mut() = head.status;
        *answer.headers_mut() = head.headers;
        return Ok(answer);
    }
    let (head, body) = response.into_parts();
    if refusals_become_status && head.status.as_u16() >= 400 {
        let text = body
            .collect()
            .await
            .map(|body| body.to_bytes())
            .unwrap_or_default();
        return Err(refusal(head.status, &String::from_utf8_lossy(&text)));
    }
    let mut head = head;
    if let Some(prefix) = &proxied {
        let location = head.headers.get(LOCATION).and_then(|it| it.to_str().ok());
        let moved = location.and_then(|location| links::behind(location, prefix, &host));
        if let Some(moved) = moved.and_then(|moved| HeaderValue::try_from(moved).ok()) {
            head.headers.insert(LOCATION, moved);
        }
        if is_page(&head.headers) {
            let page = body
                .collect()
                .await
                .map_err(|error| unreachable(error.to_string()))?
                .to_bytes();
            let page = links::rewrite(&page, prefix, &host);
            let mut answer = Answer::new(crate::http::full(Bytes::from(page)));
            *answer.status_mut() = head.status;
            copy_headers(&head.headers, answer.headers_mut(), false);
            return Ok(answer);
        }
    }
    let pieces = body.into_data_stream().map_err(std::io::Error::other);
    // The sender must live as long as the body is read.
    let held = futures::stream::unfold((pieces, sender), |(mut pieces, sender)| async move {
        let piece = futures::StreamExt::next(&mut pieces).await?;
        Some((piece, (pieces, sender)))
    });
    if let Some(socket) = socket {
        return Ok(socket.log(held));
    }
    let mut answer = Answer::new(crate::http::stream(held));
    *answer.status_mut() = head.status;
    copy_headers(&head.headers, answer.headers_mut(), false);
    Ok(answer)
}

/// HTML that is not compressed.
fn is_page(headers: &http::HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    text(CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html"))
        && text(CONTENT_ENCODING).is_none_or(|coding| coding.eq_ignore_ascii_case("identity"))
}

/// A node agent refuses in plain text; clients of the door expect a status.
fn refusal(code: StatusCode, text: &str) -> Status {
    let reason = match code {
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::BAD_REQUEST => "BadRequest",
        _ => "InternalError",
    };
    Status::failure(code.as_u16(), reason, text.trim_end())
}

/// Connects two upgraded connections until either ends.
pub(crate) async fn join(client: hyper::upgrade::OnUpgrade, server: hyper::upgrade::OnUpgrade) {
    let (client, server) = match tokio::try_join!(client, server) {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!(%error, "an upgrade did not come about");
            return;
        }
    };
    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
    if let Err(error) =
        tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, 32 << 10, 32 << 10).await
    {
        tracing::debug!(%error, "a stream ended");
    }
}

/// Headers go on, but for those that belong to one connection, and credentials.
pub(crate) fn copy_headers(from: &http::HeaderMap, to: &mut http::HeaderMap, upgrade: bool) {
    const HOP: [&str; 7] = [
        "connection",
        "upgrade",
        "keep-alive",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
    ];
    for (name, value) in from {
        let hop = HOP.contains(&name.as_str());
        let kept_for_upgrade = upgrade && matches!(name.as_str(), "connection" | "upgrade");
        let dropped = name == AUTHORIZATION
            || name == HOST
            || name == HeaderName::from_static("content-length");
        if (!hop || kept_for_upgrade) && !dropped {
            to.append(name.clone(), value.clone());
        }
    }
}

/// Adds whom a request that is passed on came from to those it has come through.
pub(crate) fn forwarded_for(parts: &http::request::Parts, to: &mut http::HeaderMap) {
    const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
    // Requests of this process come from no address.
    let Some(PeerAddress(peer)) = parts.extensions.get::<PeerAddress>() else {
        return;
    };
    let before = to.get_all(&FORWARDED_FOR).iter();
    let mut hops: Vec<String> = before
        .filter_map(|value| Some(value.to_str().ok()?.to_owned()))
        .collect();
    hops.push(peer.to_string());
    if let Ok(value) = HeaderValue::try_from(hops.join(", ")) {
        to.insert(FORWARDED_FOR, value);
    }
}

/// Tells a page under which path the client knows it.
fn forwarded_uri(path: &str, prefix: &str, to: &mut http::HeaderMap) {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    if let Ok(uri) = HeaderValue::try_from(format!("{prefix}{path}")) {
        to.insert(HeaderName::from_static("x-forwarded-uri"), uri);
    }
}

trait Duplex: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Duplex for T {}

async fn connect(
    door: &Arc<Door>,
    upstream: &Upstream,
) -> std::io::Result<TokioIo<Box<dyn Duplex>>> {
    let stream = TcpStream::connect((upstream.host.as_str(), upstream.port)).await?;
    stream.set_nodelay(true)?;
    let config = match upstream.tls {
        Tls::No => return Ok(TokioIo::new(Box::new(stream))),
        Tls::Agent => &door.tunnel.agents,
        Tls::Pod => &door.tunnel.pods,
    };
    let name = match upstream.host.parse::<IpAddr>() {
        Ok(address) => ServerName::from(address),
        Err(_) => ServerName::try_from(upstream.host.clone()).map_err(std::io::Error::other)?,
    };
    let connector = TlsConnector::from(Arc::clone(config));
    let stream = connector.connect(name, stream).await?;
    Ok(TokioIo::new(Box::new(stream)))
}
