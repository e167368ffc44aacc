//! The door itself: what all requests share, and the order in which they are served.

use std::any::Any;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use evenkeel_api::clock::SharedClock;
use evenkeel_api::{Rows, Status};
use evenkeel_store::{Store, StoreError};
use futures::FutureExt as _;
use http::request::Parts;
use http::{Request, StatusCode};
use http_body::Body as HttpBody;
use http_body_util::{BodyExt as _, Limited};
use rustls::pki_types::CertificateDer;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use crate::admission::{Admission, Allocate, Notes};
use crate::aggregation::{self, Aggregator};
use crate::audit::{self, Audit, Closing, Trail};
use crate::auth::{
    Authenticator, Authorizer, Chain, Identity, Impersonated, Outside, PeerCertificate,
    RbacAuthorizer, TokenError, TokenKeys, acts_as_another, bootstrap_token,
};
use crate::cache::{Caches, FeedError};
use crate::definitions::{self, Kinds};
use crate::describe;
use crate::families::{self, Families};
use crate::flow::{self, FlowControl};
use crate::http::{
    Answer, Attributes, Encoding, LongRunning, Media, Query, Target, accepts_gzip, compress,
    content_type, hold, is_compressible, is_pretty, status_answer, status_answer_as, text, warn,
};
use crate::metrics::{Histogram, Labels, Metrics, Outcome};
use crate::outbound::{Trust, tls_config};
use crate::pipeline::{Call, authorize};
use crate::pki::{Pki, Vouched};
use crate::registry::Registry;
use crate::seal::Seal;
use crate::verbs::{self, NodeTunnel};

/// Larger bodies are refused with 413, as by the reference.
pub const BODY_LIMIT: usize = 3 << 20;
/// A body that has not come in this time keeps no seat any longer.
const BODY_WAIT: Duration = Duration::from_secs(60);
/// The content type of configurations to be applied.
const APPLY_PATCH: &str = "application/apply-patch+yaml";

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
    /// So many requests are served at once ([`crate::DEFAULT_SEATS`]); more wait.
    pub seats: u32,
    /// Records requests; `None`: nobody does.
    pub audit: Option<Arc<Audit>>,
    /// Who outside says who somebody is, and what he may do.
    pub outside: Outside,
    /// Feature gates that are open, by name: kinds behind closed ones are not served.
    pub gates: Vec<String>,
}

/// The one door.
pub struct Door {
    pub(crate) registry: Registry,
    pub(crate) admission: Admission,
    pub(crate) allocate: Allocate,
    pub(crate) tunnel: NodeTunnel,
    authenticator: Authenticator,
    vouched: Vouched,
    trust: Value,
    pub(crate) place: parking_lot::Mutex<Option<crate::bootstrap::Place>>,
    authorizer: Arc<dyn Authorizer>,
    aggregator: Aggregator,
    tokens: Arc<TokenKeys>,
    clock: SharedClock,
    metrics: Metrics,
    issuer: String,
    openapi: Arc<describe::OpenApiHashes>,
    debug_pages: describe::DebugPages,
    flow: FlowControl,
    audit: Option<Arc<Audit>>,
    components: describe::Components,
    cbor: AtomicBool,
    filters: Filters,
}

/// How long the steps before a request is served take.
struct Filters {
    authentication: Arc<Histogram>,
    impersonation: Arc<Histogram>,
    fairness: Arc<Histogram>,
    authorization: Arc<Histogram>,
}

impl Filters {
    fn new(counted: &Families) -> Self {
        let of = |name| counted.filters.of(&[name]);
        Self {
            authentication: of("authentication"),
            impersonation: of("impersonation"),
            fairness: of("priorityandfairness"),
            authorization: of("authorization"),
        }
    }
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
        let rows = Arc::new(Rows::with_gates(&options.gates));
        let counted = Families::shared();
        let kinds = Kinds::new(&rows).timed_by(Arc::clone(&counted) as _);
        let caches = Arc::new(Caches::new(&rows, Arc::new(kinds)));
        options.seal.prepare().await;
        let changes = caches.fill(options.store.as_ref(), &options.seal).await?;
        let (opened, open) = tokio::sync::oneshot::channel();
        let (controlled, control) = tokio::sync::oneshot::channel();
        let (aggregating, aggregate) = tokio::sync::oneshot::channel();
        let (telling, tell) = tokio::sync::oneshot::channel();
        let follower = {
            let (caches, seal) = (Arc::clone(&caches), Arc::clone(&options.seal));
            // Tasks of their own, which end with the one that follows the store.
            let own = [
                AbortOnDropHandle::new(tokio::spawn(definitions::run(open))),
                AbortOnDropHandle::new(tokio::spawn(flow::run(control))),
                AbortOnDropHandle::new(tokio::spawn(aggregation::run(aggregate))),
                AbortOnDropHandle::new(tokio::spawn(crate::bootstrap::keep(tell))),
                AbortOnDropHandle::new(tokio::spawn(Arc::clone(&seal).keep())),
            ];
            tokio::spawn(async move {
                let error = caches.follow(changes, seal).await;
                drop(own);
                error
            })
        };
        let registry = Registry {
            rows,
            store: options.store,
            caches,
            seal: options.seal,
            converters: Arc::default(),
            counted,
        };
        let tokens = Arc::new(options.pki.token_keys(&options.issuer));
        let tls = options
            .pki
            .node_client(options.clock.now())
            .map_err(|error| DoorError::Certificate(error.to_string()))?;
        let pods = tls_config(&Trust::Anybody, None).map_err(DoorError::Certificate)?;
        let mut outside = options.outside;
        let headers = &outside.request_headers;
        let front_ca = headers.client_ca.as_deref();
        let front_ca = front_ca.unwrap_or_else(|| options.pki.front_proxy_ca());
        let vouched = Vouched::new(options.pki.ca(), front_ca)
            .map_err(|error| DoorError::Certificate(error.to_string()))?;
        let trust = headers.told(options.pki.ca(), options.pki.front_proxy_ca());
        let roles = RbacAuthorizer::new(registry.clone());
        let authorizer: Arc<dyn Authorizer> = match std::mem::take(&mut outside.authorizers) {
            kinds if kinds.is_empty() => Arc::new(roles),
            kinds => Arc::new(Chain::new(roles, kinds, &registry.counted)),
        };
        let front_proxy = options
            .pki
            .front_proxy_client(options.clock.now())
            .map_err(|error| DoorError::Certificate(error.to_string()))?;
        let aggregator = Aggregator::new(&registry, front_proxy)
            .ok_or_else(|| DoorError::Certificate("no APIServices".to_owned()))?;
        let door = Arc::new(Self {
            aggregator,
            authenticator: Authenticator::new(
                Arc::clone(&tokens),
                registry.clone(),
                Arc::clone(&options.clock),
                outside,
            ),
            vouched,
            trust,
            place: parking_lot::Mutex::default(),
            admission: Admission::standard(
                Arc::clone(&options.clock),
                Arc::clone(&authorizer),
                &registry.counted,
            ),
            filters: Filters::new(&registry.counted),
            authorizer,
            allocate: Allocate::new(options.service_cidr),
            tunnel: NodeTunnel { agents: tls, pods },
            registry,
            tokens,
            clock: options.clock,
            metrics: Metrics::default(),
            issuer: options.issuer,
            openapi: Arc::default(),
            debug_pages: describe::DebugPages::default(),
            flow: FlowControl::new(options.seats),
            audit: options.audit,
            components: describe::Components::default(),
            cbor: AtomicBool::new(false),
        });
        crate::bootstrap::run(&door).await.map_err(|status| {
            DoorError::Certificate(format!("bootstrap objects: {}", status.message))
        })?;
        flow::open(&door).await;
        // The receivers are gone only when the follower is, and then the door closes anyhow.
        opened.send(Arc::downgrade(&door)).ok();
        controlled.send(Arc::downgrade(&door)).ok();
        aggregating.send(Arc::downgrade(&door)).ok();
        telling.send(Arc::downgrade(&door)).ok();
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

    pub(crate) fn audit(&self) -> Option<&Arc<Audit>> {
        self.audit.as_ref()
    }

    pub(crate) fn flow(&self) -> &FlowControl {
        &self.flow
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

    /// Who shows a chain of certificates.
    pub(crate) fn peer(&self, chain: &[CertificateDer<'_>]) -> Option<PeerCertificate> {
        PeerCertificate::read(chain, &self.vouched, self.clock.now())
    }

    /// What servers behind the door must know to believe it.
    pub(crate) fn trust_told(&self) -> Value {
        self.trust.clone()
    }

    pub(crate) fn aggregator(&self) -> &Aggregator {
        &self.aggregator
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

    /// Removes the Secrets of bootstrap tokens whose time is up. Runs for ever.
    pub async fn expire_bootstrap_tokens(self: Arc<Self>) {
        let Some(row) = self.registry.rows.by_kind("", "v1", "Secret") else {
            return;
        };
        let Some(cache) = self.registry.caches.of(row) else {
            return;
        };
        let mut changes = cache.subscribe();
        loop {
            changes.mark_unchanged();
            let now = self.clock.now();
            let mut wait = Duration::from_secs(3600);
            for secret in cache.list("kube-system", None) {
                let Some(until) = bootstrap_token::expiration(&secret.value()) else {
                    continue;
                };
                let left = Duration::try_from(until.duration_since(now)).unwrap_or_default();
                if !left.is_zero() {
                    wait = wait.min(left);
                } else if let Err(status) = self.registry.remove(row, &secret).await {
                    tracing::warn!(%status, "an expired bootstrap token can't be removed");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = changes.changed() => if changed.is_err() { return },
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
        let path = request.uri().path();
        let began = tokio::time::Instant::now();
        let found = self.authenticator.identify(path, request.headers(), peer);
        let found = found.await;
        let took = families::nanoseconds(began.elapsed());
        self.filters.authentication.observe(took);
        match found {
            Ok(identity) => self.handle(request, identity).await,
            Err(status) => self.refuse(request.into_parts().0, &status).await,
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
    pub async fn handle<B>(self: &Arc<Self>, request: Request<B>, identity: Identity) -> Answer
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
        let mut answer = match &trail {
            Some(trail) if !trail.received().await => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!(
                    "Internal Server Error: {:?}: failed to store audit event",
                    parts.uri.path()
                ),
            ),
            _ => {
                let asked = Asked {
                    parts,
                    query,
                    attributes,
                    identity,
                };
                self.guard(asked, body, trail.as_ref()).await
            }
        };
        let headers = answer.headers_mut();
        // A node agent's own answer may carry one.
        headers.entry(audit::AUDIT_ID).or_insert(id);
        answer
    }

    /// Answers a request, also when whoever serves it panics.
    async fn guard<B>(self: &Arc<Self>, asked: Asked, body: B, trail: Option<&Arc<Trail>>) -> Answer
    where
        B: HttpBody<Data = bytes::Bytes> + Send,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let notes = Arc::<Notes>::default();
        let long = flow::is_long_running(&asked.attributes);
        let mut closing = trail.map(|trail| Closing::new(Arc::clone(trail)));
        let gzip = accepts_gzip(&asked.parts.headers) && is_compressible(&asked.attributes);
        let served = self.serve_call(asked, body, trail, &notes, &mut closing);
        let served = AssertUnwindSafe(served).catch_unwind().await;
        let mut answer = match served {
            Ok(answer) => answer,
            Err(panic) => {
                let why = panic_text(panic.as_ref());
                tracing::error!(why, "a request made its handler panic");
                if let Some(closing) = &mut closing {
                    closing.settle();
                }
                if let Some(trail) = trail {
                    trail.panicked(&why).await;
                }
                return text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "This request caused apiserver to panic. Look in the logs for details.\n",
                );
            }
        };
        if let Some(trail) = trail {
            match &mut closing {
                // It was refused before it began.
                Some(_) if long => answer = hold(answer, LongRunning::new(closing.take())),
                Some(closing) => closing.settle(),
                None => {}
            }
            answer = trail.answered(answer, notes.annotations(), long).await;
        }
        if gzip {
            answer = compress(answer).await;
        }
        answer
    }

    async fn serve_call<B>(
        self: &Arc<Self>,
        asked: Asked,
        body: B,
        trail: Option<&Arc<Trail>>,
        notes: &Arc<Notes>,
        closing: &mut Option<Closing>,
    ) -> Answer
    where
        B: HttpBody<Data = bytes::Bytes> + Send,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let Asked {
            mut parts,
            query,
            attributes,
            identity,
        } = asked;
        let asked_at = tokio::time::Instant::now();
        let asking = self.impersonate(&parts.headers, identity, &attributes);
        let Impersonated {
            identity,
            constraint,
        } = match asking.await {
            Ok(taken) => taken,
            Err(status) => {
                if let Some(trail) = trail {
                    trail.refused(&status);
                }
                return status_answer(&status);
            }
        };
        if let Some(trail) = trail
            && acts_as_another(&parts.headers)
        {
            trail.impersonated(&identity, &constraint);
        }
        let took = families::nanoseconds(asked_at.elapsed());
        self.filters.impersonation.observe(took);
        let patches = attributes.verb == "patch";
        let applies = patches && content_type(&parts.headers) == APPLY_PATCH;
        let labels = Labels::of(&attributes, query.has("dryRun"), applies);
        let series = self.metrics.series(labels, || self.serves(&attributes));
        let began = tokio::time::Instant::now();
        let writes = !matches!(attributes.verb.as_str(), "get" | "list" | "watch");
        let mut under_way = self.metrics.under_way(writes);
        let admitted = self
            .flow
            .admit(&self.registry, &identity, &attributes, &query)
            .await;
        let waited = began.elapsed();
        self.filters.fairness.observe(families::nanoseconds(waited));
        let seat = match admitted {
            Ok(seat) => seat,
            Err(too_many) => {
                series.observe(Outcome {
                    code: 429,
                    took: began.elapsed(),
                    waited,
                    bytes: None,
                    dropped: true,
                });
                return too_many.answer();
            }
        };
        under_way.begin();
        let long = flow::is_long_running(&attributes).then(|| {
            let watched = if attributes.verb == "watch" {
                self.flow.watched(&attributes, &query)
            } else {
                None
            };
            // What tells of the end goes with whatever ends last.
            LongRunning::new((series.long_running(), watched, closing.take()))
        });
        if let Some(long) = &long {
            // A connection that is upgraded outlives its answer.
            parts.extensions.insert(long.clone());
        }
        let accept = parts.headers.get(http::header::ACCEPT).cloned();
        let pretty = is_pretty(&parts.headers, &query);
        let refuse = |status: &Status| {
            let encoding = match Media::of_status(accept.as_ref(), self.speaks_cbor()) {
                Encoding::Json if pretty => Encoding::Pretty,
                encoding => encoding,
            };
            status_answer_as(encoding, status)
        };
        let call = async {
            let body = tokio::time::timeout(BODY_WAIT, Limited::new(body, BODY_LIMIT).collect());
            let body = match body.await {
                Ok(Ok(body)) => body.to_bytes(),
                Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                    return Err(Status::too_large(format!(
                        "Request entity too large: limit is {BODY_LIMIT}"
                    )));
                }
                Ok(Err(error)) => return Err(Status::bad_request(error.to_string())),
                Err(_) => {
                    let text = "Timeout: request did not complete within requested timeout";
                    return Err(Status::timeout(text, 0));
                }
            };
            let call = Call {
                parts,
                query,
                attributes,
                identity,
                body,
                notes: Arc::clone(notes),
                trail: trail.cloned(),
            };
            self.dispatch(call).await
        };
        let mut answer = call.await.unwrap_or_else(|status| {
            if let Some(trail) = trail {
                trail.refused(&status);
            }
            refuse(&status)
        });
        // Refusals too come with what there was to warn of.
        warn(&mut answer, &notes.warnings());
        if let Some(seat) = &seat {
            seat.schema().mark(answer.headers_mut());
        }
        // A watch holds its seats no longer than it takes to begin.
        drop(seat);
        series.observe(Outcome {
            code: answer.status().as_u16(),
            took: began.elapsed(),
            waited: waited + notes.waited(),
            bytes: answer.body().size_hint().exact(),
            dropped: false,
        });
        match long {
            Some(long) => hold(answer, long),
            None => answer,
        }
    }

    /// Is a request about something that is served? What is not does not get series of its own.
    fn serves(&self, asked: &Attributes) -> bool {
        let Attributes {
            group,
            version,
            resource,
            subresource,
            ..
        } = asked;
        if !asked.resource_request {
            return true;
        }
        let rows = self.rows();
        rows.by_path(group, version, resource).is_some_and(|row| {
            let mut known = row.subresources.iter();
            subresource.is_empty() || known.any(|sub| sub.as_str() == subresource)
        })
    }

    /// Who the caller acts as. What is refused is asked again when the caches have all that is
    /// acknowledged: the right may have been given just now.
    async fn impersonate(
        &self,
        headers: &http::HeaderMap,
        identity: Identity,
        attributes: &Attributes,
    ) -> Result<Impersonated, Status> {
        if !acts_as_another(headers) {
            return Ok(Impersonated::himself(identity));
        }
        let take = |identity: Identity| {
            self.authenticator
                .impersonate(headers, identity, attributes, self.authorizer())
        };
        let began = tokio::time::Instant::now();
        let taken = match take(identity.clone()) {
            Err(status) if status.code == 403 => {
                self.registry.fresh().await?;
                take(identity)
            }
            taken => taken,
        };
        let mode = match &taken {
            Ok(taken) if taken.constraint.is_empty() => Some("legacy"),
            Ok(taken) => taken.constraint.strip_prefix("impersonate:"),
            Err(_) => None,
        };
        self.registry
            .counted
            .impersonation_tried(mode, began.elapsed());
        taken
    }

    async fn dispatch(self: &Arc<Self>, call: Call) -> Result<Answer, Status> {
        let began = tokio::time::Instant::now();
        if let Some(preparing) = self.authorizer().prepare(&call.identity, &call.attributes) {
            preparing.await;
        }
        let call = match authorize(self.authorizer(), call) {
            Ok(call) => call,
            Err(refused) => {
                // The right may have been given by a write that is acknowledged and not yet in the
                // caches: only what is still refused after that is refused.
                self.registry.fresh().await?;
                authorize(self.authorizer(), refused.call).map_err(|refused| refused.status)?
            }
        };
        let took = families::nanoseconds(began.elapsed());
        self.filters.authorization.observe(took);
        if let Some(remote) = self.aggregator.by_path(&call.attributes.path) {
            return Box::pin(remote.pass(&self.registry, call.into_inner())).await;
        }
        match call.attributes.target() {
            Target::Resource => verbs::serve(self, call).await,
            Target::Other => Box::pin(describe::serve(self, call)).await,
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
    pub(crate) async fn review_token(
        &self,
        token: &str,
        audiences: &[&str],
    ) -> Result<(Identity, Vec<String>), TokenError> {
        self.authenticator.review(token, audiences).await
    }
}

/// A request that has been read but for its body, and who makes it.
struct Asked {
    parts: Parts,
    query: Query,
    attributes: Attributes,
    identity: Identity,
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
