//! Who calls, and whether the caller lets them.
//!
//! The node's API has no tokens and no rules of its own: TLS proves a client certificate, the
//! peer's names are read from it here, and a closure given by the agent decides. A request without
//! a certificate is 401, one that is refused 403, in kubelet's words.

use http::{Method, StatusCode};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The names in a client certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// CN: the user.
    pub common_name: String,
    /// All O values: the groups.
    pub organizations: Vec<String>,
}

impl Peer {
    /// Reads the subject of a DER certificate. `None` when it can't be parsed or has no CN.
    pub fn from_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let subject = certificate.subject();
        let common_name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let organizations = subject
            .iter_organization()
            .filter_map(|name| name.as_str().ok().map(str::to_owned))
            .collect();
        Some(Self {
            common_name,
            organizations,
        })
    }
}

/// What is asked for, in the attributes kubelet gives its authorizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access<'a> {
    /// `get`, `create`, `update`, `patch` or `delete`, by HTTP method.
    pub verb: &'static str,
    /// Subresource of `nodes`: `proxy`, `stats`, `metrics`, `log`, `pods`, `healthz` or `configz`.
    pub subresource: &'static str,
    /// The path as requested, without its query.
    pub path: &'a str,
}

impl<'a> Access<'a> {
    /// The attributes of a request.
    pub fn of(method: &Method, path: &'a str) -> Self {
        let verb = match *method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "get",
        };
        let under = |prefix: &str| {
            path.strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let subresource = if under("/stats") {
            "stats"
        } else if under("/metrics") {
            "metrics"
        } else if under("/logs") {
            "log"
        } else if under("/pods") {
            "pods"
        } else if under("/healthz") {
            "healthz"
        } else if under("/configz") {
            "configz"
        } else {
            "proxy"
        };
        Self {
            verb,
            subresource,
            path,
        }
    }
}

/// Decides about every request that carries a verified client certificate.
pub trait Authorizer: Send + Sync + 'static {
    /// True lets the request through.
    fn authorize(&self, peer: &Peer, access: &Access<'_>) -> bool;
}

impl<F: Fn(&Peer, &Access<'_>) -> bool + Send + Sync + 'static> Authorizer for F {
    fn authorize(&self, peer: &Peer, access: &Access<'_>) -> bool {
        self(peer, access)
    }
}

/// Lets `system:masters` and the API server's own identity in, nobody else.
pub fn masters_and_api_server(peer: &Peer, _access: &Access<'_>) -> bool {
    peer.common_name == "system:kube-apiserver"
        || peer
            .organizations
            .iter()
            .any(|group| group == "system:masters" || group == "system:kube-apiserver")
}

/// `Err` with status and text unless the request may pass.
pub(super) fn check(
    authorizer: &dyn Authorizer,
    peer: Option<&Peer>,
    method: &Method,
    path: &str,
) -> Result<(), (StatusCode, String)> {
    let Some(peer) = peer else {
        return Err((StatusCode::UNAUTHORIZED, "Unauthorized".to_owned()));
    };
    let access = Access::of(method, path);
    if authorizer.authorize(peer, &access) {
        return Ok(());
    }
    Err((
        StatusCode::FORBIDDEN,
        format!(
            "Forbidden (user={}, verb={}, resource=nodes, subresource(s)=[{}])",
            peer.common_name, access.verb, access.subresource
        ),
    ))
}
