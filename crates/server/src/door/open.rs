//! Opening the door: what it is made of, put together in the order in which one part needs the
//! other. The tasks that keep it up to date begin here and end with the one that follows the store.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use evenkeel_api::Rows;
use evenkeel_api::clock::SharedClock;
use evenkeel_store::Store;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use super::{Door, Filters};
use crate::admission::{Admission, Allocate};
use crate::aggregation::{self, Aggregator};
use crate::audit::Audit;
use crate::auth::{
    Authenticator, Authorizer, Chain, Outside, RbacAuthorizer, SigningKeys, TokenKeys,
};
use crate::cache::{Caches, FeedError};
use crate::definitions::{self, Kinds};
use crate::describe;
use crate::families::Families;
use crate::flow::{self, FlowControl};
use crate::metrics::Metrics;
use crate::outbound::{Trust, tls_config};
use crate::pki::{Pki, Vouched};
use crate::registry::Registry;
use crate::seal::Seal;
use crate::verbs::NodeTunnel;

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
    /// The port it listens on: behind the service `kubernetes`.
    pub port: u16,
    /// Where clients reach the door: `https://HOST:PORT`; the issuer of tokens.
    pub issuer: String,
    /// How the tokens of accounts are signed and known.
    pub tokens: TokenOptions,
    /// So many requests are served at once ([`crate::DEFAULT_SEATS`]); more wait.
    pub seats: u32,
    /// Records requests; `None`: nobody does.
    pub audit: Option<Arc<Audit>>,
    /// Who outside says who somebody is, and what he may do.
    pub outside: Outside,
    /// Feature gates that are open, by name: kinds behind closed ones are not served.
    pub gates: Vec<String>,
}

/// How the tokens of accounts are signed and known.
#[derive(Debug, Default)]
pub struct TokenOptions {
    /// Which keys; `None`: the one of the directory of certificates.
    pub keys: Option<SigningKeys>,
    /// Issuers beside the one that issues, whose tokens are good still.
    pub issuers: Vec<String>,
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
        let (serving, serve) = tokio::sync::oneshot::channel();
        let follower = {
            let (caches, seal) = (Arc::clone(&caches), Arc::clone(&options.seal));
            // Tasks of their own, which end with the one that follows the store.
            let own = [
                AbortOnDropHandle::new(tokio::spawn(definitions::run(open))),
                AbortOnDropHandle::new(tokio::spawn(flow::run(control))),
                AbortOnDropHandle::new(tokio::spawn(aggregation::run(aggregate))),
                AbortOnDropHandle::new(tokio::spawn(crate::bootstrap::keep(tell))),
                AbortOnDropHandle::new(tokio::spawn(crate::bootstrap::keep_service(serve))),
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
            clock: Arc::clone(&options.clock),
            converters: Arc::default(),
            counted,
        };
        let mut issuers = vec![options.issuer.clone()];
        issuers.extend(options.tokens.issuers);
        let keys = options.tokens.keys;
        let keys = keys.unwrap_or_else(|| options.pki.token_keys());
        let tokens = Arc::new(TokenKeys::new(keys, issuers));
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
        let pages = describe::Pages::new(options.clock.now());
        let door = Arc::new(Self {
            aggregator,
            pages,
            authenticator: Authenticator::new(
                Arc::clone(&tokens),
                registry.clone(),
                Arc::clone(&options.clock),
                outside,
            ),
            vouched,
            trust,
            place: parking_lot::Mutex::default(),
            port: options.port,
            published: parking_lot::Mutex::default(),
            upkeep: parking_lot::Mutex::default(),
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
            checked: describe::Checked::default(),
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
        serving.send(Arc::downgrade(&door)).ok();
        Ok((door, follower))
    }
}
