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
use serde_json::Value;

use self::compiled::Policy;
use super::Change;
use crate::auth::Authorizer;
use crate::registry::Registry;

const GROUP: &str = "admissionregistration.k8s.io";
const KINDS: [&str; 4] = [
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];

/// All policies, read anew when one of them or of their bindings has changed.
#[derive(Default)]
pub(super) struct Policies(ArcSwap<Compiled>);

#[derive(Debug, Default)]
struct Compiled {
    revisions: [u64; 4],
    mutating: Vec<Policy>,
    validating: Vec<Policy>,
}

/// What policies say beside yes and no.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// For the client.
    pub(super) warnings: Vec<String>,
    /// For the audit log.
    pub(super) annotations: Vec<(String, String)>,
}

impl Said {
    fn warn(&mut self, text: String) {
        self.warnings.push(text);
    }

    fn annotate(&mut self, name: String, text: String) {
        self.annotations.push((name, text));
    }
}

impl Policies {
    fn compiled(&self, registry: &Registry) -> Arc<Compiled> {
        let caches = KINDS.map(|kind| {
            let row = registry.rows.by_kind(GROUP, "v1", kind)?;
            registry.caches.of(row)
        });
        let revisions =
            caches.each_ref().map(|cache| cache.as_ref().map_or(0, |cache| cache.last()));
        let now = self.0.load_full();
        if now.revisions == revisions {
            return now;
        }
        let [policies, bindings, validating, validating_bindings] = caches.map(|cache| {
            let mut found: Vec<Value> = cache
                .map(|cache| cache.list("", None).iter().map(|object| object.value()).collect())
                .unwrap_or_default();
            found.sort_by(|a, b| {
                evenkeel_api::object::name(a).cmp(evenkeel_api::object::name(b))
            });
            found
        });
        let read = |policies: &[Value], bindings: &[Value], mutating: bool| {
            policies.iter().map(|policy| Policy::read(policy, bindings, mutating)).collect()
        };
        let fresh = Arc::new(Compiled {
            revisions,
            mutating: read(&policies, &bindings, true),
            validating: read(&validating, &validating_bindings, false),
        });
        self.0.store(Arc::clone(&fresh));
        fresh
    }

    /// Lets mutating policies change an object, twice where one wants to see what another did.
    ///
    /// # Errors
    /// A failure of a policy that must not fail.
    pub(super) fn mutate(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &mut Value,
        authorizer: &Arc<dyn Authorizer>,
    ) -> Result<(), Status> {
        let compiled = self.compiled(registry);
        let policies = &compiled.mutating;
        if policies.is_empty() || exempt(change) || !object.is_object() {
            return Ok(());
        }
        let mut rounds = mutating::Rounds::default();
        mutating::mutate(policies, registry, change, object, authorizer, &mut rounds)?;
        if rounds.second() {
            mutating::mutate(policies, registry, change, object, authorizer, &mut rounds)?;
        }
        Ok(())
    }

    /// Asks validating policies.
    ///
    /// # Errors
    /// The first refusal.
    pub(super) fn validate(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &Value,
        authorizer: &Arc<dyn Authorizer>,
        said: &mut Said,
    ) -> Result<(), Status> {
        let compiled = self.compiled(registry);
        if compiled.validating.is_empty() || exempt(change) {
            return Ok(());
        }
        validating::validate(&compiled.validating, registry, change, object, authorizer, said)
    }
}

/// Policies and bindings are shown to no policy.
fn exempt(change: &Change<'_>) -> bool {
    change.row.gvk.group == GROUP && KINDS.contains(&&*change.row.gvk.kind)
}
