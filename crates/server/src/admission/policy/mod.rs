//! `ValidatingAdmissionPolicy` and `MutatingAdmissionPolicy`: rules in CEL, in this process.
//!
//! Policies are compiled when they change. A change pays for those that are bound and match it;
//! where there are none it pays for a comparison of two numbers. Policies and their bindings are
//! themselves subject to none: what locks everybody out must be possible to remove.

mod compiled;
mod inputs;
mod matching;
mod mutating;
mod params;
mod validating;

use std::sync::Arc;

use arc_swap::ArcSwap;
use evenkeel_api::Status;
use evenkeel_api::row::Storage;
use serde_json::Value;

use self::compiled::Policy;
pub(super) use self::mutating::Rounds;
use super::Change;
use crate::auth::Authorizer;
use crate::cache::Followed;
use crate::registry::Registry;

const GROUP: &str = "admissionregistration.k8s.io";
const KINDS: [&str; 4] = [
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];

/// All policies, read anew when one of them or of their bindings has changed.
pub(super) struct Policies {
    /// Expressions may ask it.
    authorizer: Arc<dyn Authorizer>,
    compiled: ArcSwap<Compiled>,
    followed: Followed<4>,
}

#[derive(Debug, Default)]
struct Compiled {
    revisions: [u64; 4],
    mutating: Vec<Policy>,
    validating: Vec<Policy>,
}

impl Policies {
    pub(super) fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        Self {
            authorizer,
            compiled: ArcSwap::default(),
            followed: Followed::new(GROUP, KINDS),
        }
    }

    fn compiled(&self, registry: &Registry) -> Arc<Compiled> {
        let revisions = self.followed.revisions(registry);
        let now = self.compiled.load_full();
        if now.revisions == revisions {
            return now;
        }
        let caches = self.followed.caches(registry);
        let [policies, bindings, validating, validating_bindings] = caches.map(|cache| {
            let mut found: Vec<Value> = cache
                .map(|cache| {
                    cache
                        .list("", None)
                        .iter()
                        .map(|object| object.value())
                        .collect()
                })
                .unwrap_or_default();
            found.sort_by(|a, b| evenkeel_api::object::name(a).cmp(evenkeel_api::object::name(b)));
            found
        });
        let read = |policies: &[Value], bindings: &[Value], mutating: bool| {
            policies
                .iter()
                .map(|policy| Policy::read(policy, bindings, mutating))
                .collect()
        };
        let fresh = Arc::new(Compiled {
            revisions,
            mutating: read(&policies, &bindings, true),
            validating: read(&validating, &validating_bindings, false),
        });
        self.compiled.store(Arc::clone(&fresh));
        fresh
    }

    /// Has parameters converted that a webhook has to convert: policies themselves wait for
    /// nobody. What can't be is shown as it is stored.
    pub(super) async fn prepare(&self, registry: &Registry) {
        let compiled = self.compiled(registry);
        let all = compiled.mutating.iter().chain(&compiled.validating);
        for policy in all.filter(|policy| policy.param_kind.is_object()) {
            let text = |name: &str| evenkeel_api::object::text(&policy.param_kind, &[name]);
            let api_version = text("apiVersion");
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            let rows = registry.caches.kinds().rows();
            let found = rows
                .by_kind(group, version, text("kind"))
                .and_then(|row| Some((row, registry.caches.of(row)?)));
            let Some((row, cache)) = found else { continue };
            if row
                .custom
                .as_ref()
                .is_none_or(|it| it.conversion().is_none())
            {
                continue;
            }
            let showing = registry.shown(row, cache.list("", None));
            if let Err(status) = Box::pin(showing).await {
                tracing::warn!(policy = policy.name, %status, "parameters can't be converted");
            }
        }
    }

    /// Lets mutating policies change an object.
    ///
    /// # Errors
    /// A failure of a policy that must not fail.
    pub(super) async fn mutate(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &mut Value,
        rounds: &mut Rounds,
    ) -> Result<(), Status> {
        let compiled = self.compiled(registry);
        let policies = &compiled.mutating;
        if policies.is_empty() || exempt(change) || !object.is_object() {
            return Ok(());
        }
        // Apart on the heap, so that other requests are not futures of this one's size.
        let asking = mutating::mutate(policies, registry, change, object, &self.authorizer, rounds);
        Box::pin(asking).await
    }

    /// Asks validating policies.
    ///
    /// # Errors
    /// The first refusal.
    pub(super) async fn validate(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &Value,
    ) -> Result<(), Status> {
        let compiled = self.compiled(registry);
        if compiled.validating.is_empty() || exempt(change) {
            return Ok(());
        }
        let policies = &compiled.validating;
        let asking = validating::validate(policies, registry, change, object, &self.authorizer);
        Box::pin(asking).await
    }
}

/// Policies and bindings are shown to no policy, and neither are reviews of identity and rights.
fn exempt(change: &Change<'_>) -> bool {
    let gvk = &change.row.gvk;
    let policies = gvk.group == GROUP && KINDS.contains(&&*gvk.kind);
    let reviews = change.row.storage == Storage::Answered
        && matches!(
            &*gvk.group,
            "authentication.k8s.io" | "authorization.k8s.io"
        );
    policies || reviews
}
