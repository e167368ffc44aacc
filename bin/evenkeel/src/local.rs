//! Clients of the door in this process: the same pipeline as over HTTPS, without the socket.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use evenkeel_server::http::Body;
use evenkeel_server::{Door, Identity};
use futures::future::BoxFuture;
use http::{Request, Response};
use tower::Service;

/// Carries requests to the door as somebody.
#[derive(Clone)]
struct Local {
    door: Arc<Door>,
    identity: Identity,
}

impl Service<Request<kube::client::Body>> for Local {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        let Self { door, identity } = self.clone();
        Box::pin(async move { Ok(door.handle(request, identity).await) })
    }
}

/// A client that acts as somebody.
pub(crate) fn client(door: &Arc<Door>, identity: Identity) -> kube::Client {
    kube::Client::new(Local { door: Arc::clone(door), identity }, "default")
}

/// A client that acts as a service account of `kube-system`.
pub(crate) fn loop_client(door: &Arc<Door>, account: &str) -> kube::Client {
    client(door, Identity::service_account("kube-system", account))
}
