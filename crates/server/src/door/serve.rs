//! A request comes in, from the network or from a loop of this process: it gets a name, a record if
//! somebody keeps one, and an answer even when whoever serves it panics.

use std::any::Any;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use evenkeel_api::Status;
use futures::FutureExt as _;
use http::request::Parts;
use http::{Request, StatusCode};
use http_body::Body as HttpBody;

use super::Door;
use crate::audit::{self, Closing, Trail};
use crate::auth::{Identity, PeerCertificate};
use crate::families;
use crate::flow;
use crate::http::{
    Answer, Attributes, LongRunning, Query, accepts_gzip, compress, hold, is_compressible,
    status_answer, text,
};
use crate::pipeline::Call;
use crate::verbs;

impl Door {
    /// Serves a request that came over the network: finds out who asks, then as [`Self::handle`].
    pub async fn serve<B>(
        self: &Arc<Self>,
        mut request: Request<B>,
        peer: Option<&PeerCertificate>,
    ) -> Answer
    where
        B: HttpBody<Data = bytes::Bytes> + Send,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        verbs::token_of_protocol(request.headers_mut());
        let path = request.uri().path();
        let began = tokio::time::Instant::now();
        let found = self.authenticator.identify(path, request.headers(), peer);
        let found = found.await;
        let took = families::nanoseconds(began.elapsed());
        self.filters.authentication.observe(took);
        match found {
            Ok(identity) => self.handle(request, identity).await,
            Err(status) => Box::pin(self.refuse(request.into_parts().0, &status)).await,
        }
    }

    /// Answers somebody whose credential is no good.
    async fn refuse(&self, parts: Parts, status: &Status) -> Answer {
        let id = audit::id_of(&parts.headers);
        if let Some(audit) = &self.audit {
            let query = Query::parse(parts.uri.query().unwrap_or_default());
            let attributes = Attributes::of(&parts.method, parts.uri.path(), &query);
            let name = String::from_utf8_lossy(id.as_bytes()).into_owned();
            let peer = peer_of(&parts);
            if let Some(trail) = Trail::begin(audit, &name, &parts, &attributes, None, peer) {
                trail.unauthenticated(status).await;
            }
        }
        let mut answer = status_answer(status);
        answer.headers_mut().insert(audit::AUDIT_ID, id);
        answer
    }

    /// Serves a request of somebody known: loops in this process come in here.
    pub fn handle<B>(
        self: &Arc<Self>,
        request: Request<B>,
        identity: Identity,
    ) -> impl Future<Output = Answer> + Send
    where
        B: HttpBody<Data = bytes::Bytes> + Send,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let (parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let attributes = Attributes::of(&parts.method, parts.uri.path(), &query);
        let id = audit::id_of(&parts.headers);
        let trail = self.audit.as_ref().and_then(|audit| {
            let name = String::from_utf8_lossy(id.as_bytes());
            let peer = peer_of(&parts);
            Trail::begin(audit, &name, &parts, &attributes, Some(&identity), peer)
        });
        let call = Box::new(Call {
            parts,
            query,
            attributes,
            identity,
            body: Bytes::new(),
            notes: Arc::default(),
            trail,
        });
        // Nothing of the above is part of the future.
        async move {
            let mut answer = match &call.trail {
                Some(trail) if !trail.received().await => text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!(
                        "Internal Server Error: {:?}: failed to store audit event",
                        call.parts.uri.path()
                    ),
                ),
                _ => self.guard(call, body).await,
            };
            let headers = answer.headers_mut();
            // A node agent's own answer may carry one.
            headers.entry(audit::AUDIT_ID).or_insert(id);
            answer
        }
    }

    /// Answers a request, also when whoever serves it panics.
    async fn guard<B>(self: &Arc<Self>, call: Box<Call>, body: B) -> Answer
    where
        B: HttpBody<Data = bytes::Bytes> + Send,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let (notes, trail) = (Arc::clone(&call.notes), call.trail.clone());
        let long = flow::is_long_running(&call.attributes);
        let mut closing = trail.clone().map(Closing::new);
        let gzip = accepts_gzip(&call.parts.headers) && is_compressible(&call.attributes);
        let served = self.serve_call(call, body, &mut closing);
        let served = AssertUnwindSafe(served).catch_unwind().await;
        let mut answer = match served {
            Ok(answer) => answer,
            Err(panic) => {
                let why = panic_text(panic.as_ref());
                tracing::error!(why, "a request made its handler panic");
                if let Some(closing) = &mut closing {
                    closing.settle();
                }
                if let Some(trail) = &trail {
                    trail.panicked(&why).await;
                }
                return text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "This request caused apiserver to panic. Look in the logs for details.\n",
                );
            }
        };
        if let Some(trail) = &trail {
            match &mut closing {
                // It was refused before it began.
                Some(_) if long => answer = hold(answer, LongRunning::new(closing.take())),
                Some(closing) => closing.settle(),
                None => {}
            }
            answer = Box::pin(trail.answered(answer, notes.annotations(), long)).await;
        }
        if gzip {
            answer = Box::pin(compress(answer)).await;
        }
        answer
    }
}

/// The address that a connection comes from.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub IpAddr);

fn peer_of(parts: &Parts) -> Option<IpAddr> {
    parts.extensions.get::<PeerAddress>().map(|peer| peer.0)
}

/// What a panic said.
fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "it did not say why".to_owned())
}
