//! Connections to others: which endpoint of a service, the TCP connection and the TLS on it. What
//! fails is told in the words of the reference's libraries.

use std::net::SocketAddr;
use std::sync::Arc;

use evenkeel_api::object;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::trust;
use crate::admission::look_up;
use crate::registry::Registry;

/// A connection that is ready to be spoken on.
pub(crate) type Link = TlsStream<TcpStream>;

/// Connects to the first of some addresses that answers, whose certificate must be about `server`.
///
/// # Errors
/// What went wrong.
pub(crate) async fn connect(
    addresses: &[SocketAddr],
    tls: Arc<ClientConfig>,
    server: &str,
) -> Result<Link, String> {
    let stream = dial(addresses).await?;
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "small packets may wait");
    }
    let name = match server.parse::<std::net::IpAddr>() {
        Ok(address) => ServerName::from(address),
        Err(_) => ServerName::try_from(server.to_owned())
            .map_err(|_| format!("tls: invalid server name \"{server}\""))?,
    };
    TlsConnector::from(tls)
        .connect(name, stream)
        .await
        .map_err(|error| trust::handshake_error(&error, server))
}

/// Connects to the first address that answers; the failure of the first is told.
async fn dial(addresses: &[SocketAddr]) -> Result<TcpStream, String> {
    let mut first = None;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                let told = || format!("dial tcp {address}: {}", dial_error(&error));
                first.get_or_insert_with(told);
            }
        }
    }
    Err(first.unwrap_or_else(|| "dial tcp: no addresses".to_owned()))
}

/// A connection that does not come about, in the words of the reference's system calls.
fn dial_error(error: &std::io::Error) -> String {
    use std::io::ErrorKind as Kind;
    match error.kind() {
        Kind::ConnectionRefused => "connect: connection refused".to_owned(),
        Kind::ConnectionReset => "connect: connection reset by peer".to_owned(),
        Kind::HostUnreachable => "connect: no route to host".to_owned(),
        Kind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        Kind::TimedOut => "i/o timeout".to_owned(),
        _ => error.to_string(),
    }
}

/// Where a service leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// A ready endpoint of its port.
    Endpoint(SocketAddr),
    /// The name that it stands for (`ExternalName`), and the port that was asked for.
    Name(String, u16),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Endpoint(address) => write!(f, "{address}"),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

impl Target {
    /// The addresses that can be dialled; a name has those that the machine's resolver knows.
    ///
    /// # Errors
    /// When nobody knows the name.
    pub(crate) async fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        match self {
            Self::Endpoint(address) => Ok(vec![*address]),
            Self::Name(host, port) => look_up_host(host, *port).await,
        }
    }
}

/// The addresses of a host.
///
/// # Errors
/// When nobody knows the name.
pub(crate) async fn look_up_host(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    tokio::net::lookup_host((host, port))
        .await
        .map(Iterator::collect)
        .map_err(|_| format!("dial tcp: lookup {host}: no such host"))
}

/// Where a service's port leads.
///
/// # Errors
/// What is missing, in the reference's words.
pub(crate) fn target(
    registry: &Registry,
    namespace: &str,
    name: &str,
    port: i64,
) -> Result<Target, String> {
    let service = look_up::object(registry, ("", "v1", "Service"), namespace, name)
        .ok_or_else(|| format!("service \"{name}\" not found"))?;
    if object::text(&service, &["spec", "type"]) == "ExternalName" {
        // Its ports mean nothing: the one that was asked for is that of the other side.
        let port = u16::try_from(port)
            .map_err(|_| format!("no service port {port} found for service \"{name}\""))?;
        let host = object::text(&service, &["spec", "externalName"]);
        return Ok(Target::Name(host.to_owned(), port));
    }
    endpoint(registry, &service, port).map(Target::Endpoint)
}

/// A ready endpoint of a service's port.
fn endpoint(registry: &Registry, service: &Value, port: i64) -> Result<SocketAddr, String> {
    let (namespace, name) = (object::namespace(service), object::name(service));
    let port_name = object::list(service, &["spec", "ports"])
        .iter()
        .find(|found| object::integer(found, &["port"]) == Some(port))
        .map(|found| object::text(found, &["name"]).to_owned())
        .ok_or_else(|| format!("no service port {port} found for service \"{name}\""))?;
    let slices = look_up::objects(
        registry,
        ("discovery.k8s.io", "v1", "EndpointSlice"),
        namespace,
    );
    let mut addresses = Vec::new();
    for slice in &slices {
        if object::label(slice, "kubernetes.io/service-name") != Some(name) {
            continue;
        }
        let port = object::list(slice, &["ports"])
            .iter()
            .find(|port| object::text(port, &["name"]) == port_name)
            .and_then(|port| object::integer(port, &["port"]))
            .and_then(|port| u16::try_from(port).ok());
        let Some(port) = port else { continue };
        let ready = object::list(slice, &["endpoints"])
            .iter()
            .filter(|endpoint| {
                object::at(endpoint, &["conditions", "ready"])
                    .and_then(Value::as_bool)
                    .unwrap_or(true)
            });
        addresses.extend(
            ready
                .filter_map(|endpoint| object::list(endpoint, &["addresses"]).first()?.as_str())
                .filter_map(|address| Some(SocketAddr::new(address.parse().ok()?, port))),
        );
    }
    if addresses.is_empty() {
        return Err(format!("no endpoints available for service \"{name}\""));
    }
    Ok(addresses[rand::random_range(0..addresses.len())])
}
