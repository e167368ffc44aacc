//! The door without the socket: a tower service that carries requests of somebody known through
//! the same pipeline as HTTPS does. Loops of this process and tests build their clients on it.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::http::header::USER_AGENT;
use ::http::{HeaderValue, Request, Response};
use futures::future::BoxFuture;
use http_body::Body as HttpBody;

use crate::auth::Identity;
use crate::door::Door;
use crate::http::Body;

/// Carries requests to the door as somebody.
#[derive(Debug, Clone)]
pub struct Local {
    door: Arc<Door>,
    identity: Identity,
}

impl Local {
    /// Requests of `identity` to `door`.
    #[must_use]
    pub fn new(door: &Arc<Door>, identity: Identity) -> Self {
        Self {
            door: Arc::clone(door),
            identity,
        }
    }
}

/// The name of the reference's component that acts as this user.
fn component(user: &str) -> &'static str {
    if user.starts_with("system:node:") {
        return "kubelet";
    }
    match user {
        "system:kube-scheduler" => "kube-scheduler",
        "system:kube-proxy" => "kube-proxy",
        "system:kube-controller-manager" => "kube-controller-manager",
        _ if user.starts_with("system:serviceaccount:kube-system:") => "kube-controller-manager",
        _ => "evenkeel",
    }
}

impl<B> tower::Service<Request<B>> for Local
where
    B: HttpBody<Data = bytes::Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Self { door, identity } = self.clone();
        // Managed fields name the writer after this; tools look for the reference's names.
        request
            .headers_mut()
            .entry(USER_AGENT)
            .or_insert_with(|| HeaderValue::from_static(component(&identity.user)));
        Box::pin(async move { Ok(door.handle(request, identity).await) })
    }
}
