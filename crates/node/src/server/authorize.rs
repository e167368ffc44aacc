//! Who calls, and whether they may.
//!
//! The node's API keeps no rules of its own, as kubelet does not. Who calls is said by a client
//! certificate that TLS has proven or, for a bearer token, by [`Judge::who`]; [`Judge::may`] decides
//! what they may. A request of nobody is 401, one that is refused 403, in kubelet's words.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use http::{HeaderMap, Method, StatusCode, header};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Who calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// The user: a certificate's CN, or what the token's review says.
    pub name: String,
    /// The groups: a certificate's O values, or those of the review.
    pub groups: Vec<String>,
    /// Of a token only.
    pub uid: String,
    /// Of a token only.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Caller {
    /// Reads the subject of a DER certificate. `None` when it can't be parsed or has no CN.
    pub fn from_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups = subject
            .iter_organization()
            .filter_map(|name| name.as_str().ok().map(str::to_owned))
            .collect();
        Some(Self {
            name,
            groups,
            ..Self::default()
        })
    }

    /// The API server and `system:masters`, who may everything; nobody is asked about them, so that
    /// they get in while the API server is busy.
    #[must_use]
    pub fn is_master(&self) -> bool {
        self.name == "system:kube-apiserver"
            || self
                .groups
                .iter()
                .any(|group| group == "system:masters" || group == "system:kube-apiserver")
    }
}

/// What is asked for, in the attributes kubelet gives its authorizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access<'a> {
    /// `get`, `create`, `update`, `patch` or `delete`, by HTTP method.
    pub verb: &'static str,
    /// Subresources of `nodes`, any of which is enough: `stats`, `metrics`, `log`, or `proxy`, which
    /// for the pods, the health and the configuration is the second after one of their own.
    pub subresources: &'static [&'static str],
    /// The path as requested, without its query.
    pub path: &'a str,
}

impl<'a> Access<'a> {
    /// The attributes of a request.
    pub fn of(method: &Method, path: &'a str) -> Self {
        let under = |prefix: &str| {
            path.strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        // Who may look may not run commands: a WebSocket begins with GET.
        let acts = ["/exec", "/attach", "/portForward", "/run"]
            .iter()
            .any(|prefix| under(prefix));
        let verb = match *method {
            Method::GET if acts => "create",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "get",
        };
        let subresources: &[&str] = if under("/stats") {
            &["stats"]
        } else if under("/metrics") {
            &["metrics"]
        } else if under("/logs") {
            &["log"]
        } else if under("/pods") {
            &["pods", "proxy"]
        } else if under("/healthz") {
            &["healthz", "proxy"]
        } else if under("/configz") {
            &["configz", "proxy"]
        } else {
            &["proxy"]
        };
        Self {
            verb,
            subresources,
            path,
        }
    }
}

/// Knows tokens and decides about requests. What can't be found out is an `Err` with the reason.
pub trait Judge: Send + Sync + 'static {
    /// Whose token it is; `None` for one that is not valid.
    fn who<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<Caller>, String>>;

    /// Whether somebody may. [`Caller::is_master`] are not asked about.
    fn may<'a>(
        &'a self,
        caller: &'a Caller,
        access: Access<'a>,
    ) -> BoxFuture<'a, Result<bool, String>>;
}

/// Knows no tokens, and lets nobody else in than masters.
#[derive(Debug, Clone, Copy)]
pub struct MastersOnly;

impl Judge for MastersOnly {
    fn who<'a>(&'a self, _token: &'a str) -> BoxFuture<'a, Result<Option<Caller>, String>> {
        Box::pin(async { Ok(None) })
    }

    fn may<'a>(
        &'a self,
        _caller: &'a Caller,
        _access: Access<'a>,
    ) -> BoxFuture<'a, Result<bool, String>> {
        Box::pin(async { Ok(false) })
    }
}

/// The token of a request, as RFC 6750 has it.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// `Err` with status and text unless the request may pass. `peer` is whom TLS has proven.
pub(super) async fn check(
    judge: &dyn Judge,
    peer: Option<&Caller>,
    (method, path, headers): (&Method, &str, &HeaderMap),
) -> Result<(), (StatusCode, String)> {
    let unauthorized = || (StatusCode::UNAUTHORIZED, "Unauthorized".to_owned());
    let of_token;
    let caller = match (peer, bearer(headers)) {
        (Some(peer), _) => peer,
        (None, Some(token)) => {
            of_token = judge.who(token).await.map_err(|error| {
                tracing::warn!(%error, "a token can't be reviewed");
                unauthorized()
            })?;
            of_token.as_ref().ok_or_else(unauthorized)?
        }
        (None, None) => return Err(unauthorized()),
    };
    if caller.is_master() {
        return Ok(());
    }
    let access = Access::of(method, path);
    let told = |what: &str| {
        format!(
            "{what} (user={}, verb={}, resource=nodes, subresource(s)=[{}])",
            caller.name,
            access.verb,
            access.subresources.join(" ")
        )
    };
    match judge.may(caller, access).await {
        Ok(true) => Ok(()),
        Ok(false) => Err((StatusCode::FORBIDDEN, told("Forbidden"))),
        Err(error) => {
            tracing::warn!(%error, user = caller.name, path, "a request can't be reviewed");
            let text = told("Authorization error");
            Err((StatusCode::INTERNAL_SERVER_ERROR, text))
        }
    }
}
