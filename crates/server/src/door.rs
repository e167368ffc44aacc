//! The door itself: what all requests share, and who may borrow it.
//!
//! `open` reads what is stored and puts the parts together, `serve` takes a request from the
//! network or from a loop of this process, `call` has it pass everything that stands before its
//! verb, `expire` lets go of what has had its time. No verb and no kind is known here.

mod call;
mod expire;
mod open;
mod serve;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use evenkeel_api::clock::SharedClock;
use evenkeel_api::{Rows, Status};
use rustls::pki_types::CertificateDer;
use serde_json::Value;

use crate::admission::{Admission, Allocate};
use crate::aggregation::Aggregator;
use crate::audit::Audit;
use crate::auth::{
    Authenticator, Authorizer, Identity, PeerCertificate, SecretToken, TokenError, TokenKeys,
};
use crate::describe;
use crate::families::Families;
use crate::flow::FlowControl;
use crate::metrics::{Histogram, Metrics};
use crate::pki::Vouched;
use crate::registry::Registry;
use crate::verbs::NodeTunnel;

pub use call::BODY_LIMIT;
pub use open::{DoorError, DoorOptions, TokenOptions};
pub use serve::PeerAddress;

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
    pub(crate) port: u16,
    pub(crate) published: parking_lot::Mutex<Option<crate::bootstrap::Published>>,
    pub(crate) upkeep: parking_lot::Mutex<crate::bootstrap::Upkeep>,
    authorizer: Arc<dyn Authorizer>,
    aggregator: Aggregator,
    tokens: Arc<TokenKeys>,
    clock: SharedClock,
    metrics: Metrics,
    issuer: String,
    openapi: Arc<describe::OpenApiHashes>,
    debug_pages: describe::DebugPages,
    pages: describe::Pages,
    checked: describe::Checked,
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

/// A token that was issued.
pub(crate) struct Issued {
    pub(crate) token: String,
    pub(crate) expires: String,
    pub(crate) spec: Value,
}

impl Door {
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

    /// Says what this process was started with, which `/flagz` shows: name and value of each flag.
    pub fn tell_flags(&self, flags: std::collections::BTreeMap<String, String>) {
        self.pages.tell_flags(flags);
    }

    /// What came of the checks of health.
    pub(crate) fn checked(&self) -> &describe::Checked {
        &self.checked
    }

    pub(crate) fn pages(&self) -> &describe::Pages {
        &self.pages
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

    /// The token of a Secret of an account.
    ///
    /// # Errors
    /// It can't be signed.
    pub fn token_of_secret(&self, of: &SecretToken<'_>) -> Result<String, Status> {
        self.tokens.of_secret(of)
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
