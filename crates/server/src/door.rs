//! The door itself: what all requests share, and the order in which they are served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use evenkeel_api::clock::SharedClock;
use evenkeel_api::{Rows, Status};
use evenkeel_store::{Store, StoreError};
use http::Request;
use http_body::Body as HttpBody;
use http_body_util::{BodyExt as _, Limited};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use crate::admission::{Admission, Allocate, Notes};
use crate::auth::{
    Authenticator, Authorizer, Identity, PeerCertificate, RbacAuthorizer, TokenError, TokenKeys,
};
use crate::cache::{Caches, FeedError};
use crate::definitions::{self, Kinds};
use crate::describe;
use crate::http::{
    Answer, Attributes, Encoding, Media, Query, Target, is_pretty, status_answer, status_answer_as,
    warn,
};
use crate::metrics::Metrics;
use crate::pipeline::{Call, authorize};
use crate::pki::Pki;
use crate::registry::Registry;
use crate::seal::Seal;
use crate::verbs::{self, NodeTunnel};

/// Larger bodies are refused with 413, as by the reference.
pub const BODY_LIMIT: usize = 3 << 20;

/// What a door is made of.
pub struct DoorOptions {
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// Certificates and keys.
    pub pki: Arc<Pki>,
    /// Seals Secrets.
    pub seal: Arc<Seal>,
    /// Wall-clock time.
    pub clock: SharedClock,
    /// Service addresses are taken from here.
    pub service_cidr: ipnet::Ipv4Net,
    /// Where clients reach the door: `https://HOST:PORT`; the issuer of tokens.
    pub issuer: String,
}

/// The one door.
pub struct Door {
    pub(crate) registry: Registry,
    pub(crate) admission: Admission,
    pub(crate) allocate: Allocate,
    pub(crate) tunnel: NodeTunnel,
    authenticator: Authenticator,
    authorizer: Arc<dyn Authorizer>,
    tokens: Arc<TokenKeys>,
    clock: SharedClock,
    metrics: Metrics,
    issuer: String,
    openapi: Arc<describe::OpenApiHashes>,
    debug_pages: describe::DebugPages,
    components: describe::Components,
    cbor: AtomicBool,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Door")
    }
}

/// Why a door can't open.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The caches can't be filled.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// The door can't reach nodes: its client certificate is unusable.
    #[error("the door's own certificate can't be used: {0}")]
    Certificate(String),
}

/// A token that was issued.
pub(crate) struct Issued {
    pub(crate) token: String,
    pub(crate) expires: String,
    pub(crate) spec: Value,
}

impl Door {
    /// Reads all that is stored, and opens. The handle ends only when the store does.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn open(
        options: DoorOptions,
    ) -> Result<(Arc<Self>, JoinHandle<FeedError>), DoorError> {
        let rows = Arc::new(Rows::builtin());
        let caches = Arc::new(Caches::new(&rows, Arc::new(Kinds::new(&rows))));
        let changes = caches.fill(options.store.as_ref(), &options.seal).await?;
        let (opened, open) = tokio::sync::oneshot::channel();
        let follower = {
            let (caches, seal) = (Arc::clone(&caches), Arc::clone(&options.seal));
            // A task of its own, which ends with the one that follows the store.
            let definitions = AbortOnDropHandle::new(tokio::spawn(definitions::run(open)));
            tokio::spawn(async move {
                let error = caches.follow(changes, seal).await;
                drop(definitions);
                error
            })
        };
        let registry = Registry {
            rows,
            store: options.store,
            caches,
            seal: options.seal,
        };
        let tokens = Arc::new(options.pki.token_keys(&options.issuer));
        let tls = options
            .pki
            .node_client(options.clock.now())
            .map_err(|error| DoorError::Certificate(error.to_string()))?;
        let authorizer: Arc<dyn Authorizer> = Arc::new(RbacAuthorizer::new(registry.clone()));
        let door = Arc::new(Self {
            authenticator: Authenticator::new(
                Arc::clone(&tokens),
                registry.clone(),
                Arc::clone(&options.clock),
            ),
            admission: Admission::standard(Arc::clone(&options.clock), Arc::clone(&authorizer)),
            authorizer,
            allocate: Allocate::new(options.service_cidr),
            tunnel: NodeTunnel { tls },
            registry,
            tokens,
            clock: options.clock,
            metrics: Metrics::default(),
            issuer: options.issuer,
            openapi: Arc::default(),
            debug_pages: describe::DebugPages::default(),
            components: describe::Components::default(),
            cbor: AtomicBool::new(false),
        });
        crate::bootstrap::run(&door).await.map_err(|status| {
            DoorError::Certificate(format!("bootstrap objects: {}", status.message))
        })?;
        // The receiver is gone only when the follower is, and then the door closes anyhow.
        opened.send(Arc::downgrade(&door)).ok();
        Ok((door, follower))
    }

    /// The kinds that are served now. The set changes when definitions come and go; what was
    /// taken stays as it is.
    #[must_use]
    pub fn rows(&self) -> Arc<Rows> {
        self.registry.caches.kinds().rows()
    }

    /// Wall-clock time.
    #[must_use]
    pub fn clock(&self) -> &SharedClock {
        &self.clock
    }

    /// The stored objects.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Counters.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What parts of this process show under `/debug/`.
    #[must_use]
    pub fn debug_pages(&self) -> &describe::DebugPages {
        &self.debug_pages
    }

    /// The parts of the control plane that run in this process.
    #[must_use]
    pub fn components(&self) -> &describe::Components {
        &self.components
    }

    /// Speaks CBOR, or stops to: it is off by default, as in the reference (its feature gate
    /// `CBORServingAndStorage`).
    pub fn speak_cbor(&self, on: bool) {
        self.cbor.store(on, Ordering::Relaxed);
    }

    pub(crate) fn speaks_cbor(&self) -> bool {
        self.cbor.load(Ordering::Relaxed)
    }

    pub(crate) fn authorizer(&self) -> &dyn Authorizer {
        self.authorizer.as_ref()
    }

    pub(crate) fn tokens(&self) -> &TokenKeys {
        &self.tokens
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    pub(crate) fn openapi(&self) -> &Arc<describe::OpenApiHashes> {
        &self.openapi
    }

    /// Removes history older than `age`, by the revision that was current then. Runs for ever.
    pub async fn compact_by_age(self: Arc<Self>, age: Duration) {
        let store = Arc::clone(&self.registry.store);
        let mut then = self.registry.caches.revision();
        loop {
            tokio::time::sleep(age).await;
            let now = self.registry.caches.revision();
            match store.compact(then).await {
                Ok(()) | Err(StoreError::Compacted { .. }) => {}
                Err(error) => tracing::warn!(%error, "history can't be compacted"),
            }
            then = now;
        }
    }

    /// Removes events whose time is up. Runs for ever.
    pub async fn expire_events(self: Arc<Self>, keep: Duration) {
        let keep =
            jiff::SignedDuration::try_from(keep).unwrap_or(jiff::SignedDuration::from_hours(1));
        loop {
            tokio::time::sleep(Duration::from_secs(60)).await;
            let Some(row) = self.registry.rows.by_kind("", "v1", "Event") else {
                return;
            };
            let Some(cache) = self.registry.caches.of(row) else {
                return;
            };
            let now = self.clock.now();
            for event in cache.list("", None) {
                let value = event.value();
                let last = ["lastTimestamp", "eventTime"]
                    .iter()
                    .map(|name| evenkeel_api::object::text(&value, &[name]))
                    .chain([evenkeel_api::object::text(
                        &value,
                        &["metadata", "creationTimestamp"],
                    )])
                    .find_map(|text| text.parse::<jiff::Timestamp>().ok());
                if last.is_some_and(|last| now.duration_since(last) > keep) {
                    if let Err(status) = self.registry.remove(row, &event).await {
                        tracing::warn!(%status, "an old event can't be removed");
                    }
                }
            }
        }
    }

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
        let identity = match self.authenticator.identify(request.headers(), peer) {
            Ok(identity) => identity,
            Err(status) => return status_answer(&status),
        };
        self.handle(request, identity).await
    }

    /// Serves a request of somebody known: loops in this process come in here.
    pub async fn handle<B>(self: &Arc<Self>, request: Request<B>, identity: Identity) -> Answer
    where
        B: HttpBody<Data = bytes::Bytes> + Send,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let (parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let attributes = Attributes::of(&parts.method, parts.uri.path(), &query);
        let identity = match self.impersonate(&parts.headers, identity).await {
            Ok(identity) => identity,
            Err(status) => return status_answer(&status),
        };
        let (verb, resource) = (attributes.verb.clone(), attributes.resource.clone());
        let accept = parts.headers.get(http::header::ACCEPT).cloned();
        let pretty = is_pretty(&parts.headers, &query);
        let refuse = |status: &Status| {
            let encoding = match Media::of_status(accept.as_ref(), self.speaks_cbor()) {
                Encoding::Json if pretty => Encoding::Pretty,
                encoding => encoding,
            };
            status_answer_as(encoding, status)
        };
        let began = tokio::time::Instant::now();
        let notes = Arc::<Notes>::default();
        let mut answer = match Limited::new(body, BODY_LIMIT).collect().await {
            Ok(body) => {
                let call = Call {
                    parts,
                    query,
                    attributes,
                    identity,
                    body: body.to_bytes(),
                    notes: Arc::clone(&notes),
                };
                self.dispatch(call)
                    .await
                    .unwrap_or_else(|status| refuse(&status))
            }
            Err(error) if error.is::<http_body_util::LengthLimitError>() => refuse(
                &Status::too_large(format!("Request entity too large: limit is {BODY_LIMIT}")),
            ),
            Err(error) => refuse(&Status::bad_request(error.to_string())),
        };
        // Refusals too come with what there was to warn of.
        warn(&mut answer, &notes.warnings());
        self.metrics
            .observe(&verb, &resource, answer.status().as_u16(), began.elapsed());
        answer
    }

    /// Who the caller acts as. What is refused is asked again when the caches have all that is
    /// acknowledged: the right may have been given just now.
    async fn impersonate(
        &self,
        headers: &http::HeaderMap,
        identity: Identity,
    ) -> Result<Identity, Status> {
        if !headers
            .keys()
            .any(|name| name.as_str().starts_with("impersonate-"))
        {
            return Ok(identity);
        }
        let take = |identity: Identity| {
            self.authenticator
                .impersonate(headers, identity, self.authorizer())
        };
        match take(identity.clone()) {
            Err(status) if status.code == 403 => {
                self.registry.fresh().await?;
                take(identity)
            }
            taken => taken,
        }
    }

    async fn dispatch(self: &Arc<Self>, call: Call) -> Result<Answer, Status> {
        let call = match authorize(self.authorizer(), call) {
            Ok(call) => call,
            Err(refused) => {
                // The right may have been given by a write that is acknowledged and not yet in the
                // caches: only what is still refused after that is refused.
                self.registry.fresh().await?;
                authorize(self.authorizer(), refused.call).map_err(|refused| refused.status)?
            }
        };
        match call.attributes.target() {
            Target::Resource => verbs::serve(self, call).await,
            Target::Other => describe::serve(self, call).await,
        }
    }

    /// Signs a token for a service account.
    pub(crate) fn issue_token(
        &self,
        _by: &Identity,
        namespace: &str,
        account: &Value,
        request: &Value,
    ) -> Result<Issued, Status> {
        self.tokens.issue(
            &self.registry,
            self.clock.now(),
            namespace,
            account,
            request,
        )
    }

    /// Who a token belongs to, and for which of the audiences it is good.
    pub(crate) fn review_token(
        &self,
        token: &str,
        audiences: &[&str],
    ) -> Result<(Identity, Vec<String>), TokenError> {
        self.authenticator.review(token, audiences)
    }
}
