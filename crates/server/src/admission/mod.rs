//! Admission: what the cluster says to a change before it is kept.
//!
//! Plugins run in a fixed order, in this process, against the caches: mutating ones before the
//! strategy prepares the object, validating ones after it. They are the reference's, by name.
//! What they say beside yes and no is left in the request's [`Notes`].

mod allocate;
mod certificates;
mod classes;
mod limits;
pub(crate) mod look_up;
mod namespace;
mod node;
mod notes;
mod pod;
mod policy;
mod priority;
mod quota;
mod restriction;
mod security;
mod storage;
mod webhook;

use std::sync::Arc;

use evenkeel_api::clock::SharedClock;
use evenkeel_api::row::{ResourceDef, Subresource};
use evenkeel_api::{Status, object};
use serde_json::Value;

pub(crate) use allocate::uses as service_uses;
pub use allocate::{Allocate, Hold};
pub use notes::Notes;

use crate::auth::{Authorizer, Identity};
use crate::pipeline::Call;
use crate::registry::Registry;

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A changed one.
    Update,
    /// The end of one.
    Delete,
    /// A stream to one: exec, attach, port-forward, proxy.
    Connect,
}

impl Operation {
    /// As in rules of webhooks and policies.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// A change that asks to be admitted.
#[derive(Debug)]
pub struct Change<'c> {
    /// The kind.
    pub row: &'c ResourceDef,
    /// What is being done.
    pub operation: Operation,
    /// To which part.
    pub subresource: Option<Subresource>,
    /// By whom.
    pub identity: &'c Identity,
    /// Where.
    pub namespace: &'c str,
    /// What was there before.
    pub old: Option<&'c Value>,
    /// Nothing will be kept.
    pub dry_run: bool,
    /// The request that asks for it.
    pub call: &'c Call,
}

impl Change<'_> {
    /// Where plugins leave warnings and audit annotations.
    #[must_use]
    pub fn notes(&self) -> &Notes {
        &self.call.notes
    }

    /// The name of the object: that of the path, or of what was there, or of what is there now. A
    /// new object whose name is still to be generated has none.
    #[must_use]
    pub fn name<'o>(&'o self, object: &'o Value) -> &'o str {
        match (self.call.attributes.name.as_str(), self.old) {
            (_, Some(old)) => object::name(old),
            ("", None) => object::name(object),
            (name, None) => name,
        }
    }

    /// 403 about the object of this change.
    #[must_use]
    pub fn forbidden(&self, object: &Value, why: &str) -> Status {
        let name = match self.name(object) {
            "" => object::text(object, &["metadata", "generateName"]),
            name => name,
        };
        let name = if name.is_empty() { "Unknown" } else { name };
        Status::forbidden(&self.row.gvk.group, &self.row.plural, name, why)
    }

    /// Is it about a kind of the core group?
    #[must_use]
    pub fn is_core(&self, kind: &str) -> bool {
        self.row.gvk.group.is_empty() && self.row.gvk.kind == kind
    }
}

/// An admission plugin.
pub trait Plugin: Send + Sync + 'static {
    /// Changes the object, or refuses it.
    ///
    /// # Errors
    /// The refusal.
    fn mutate(&self, _: &Registry, _: &Change<'_>, _: &mut Value) -> Result<(), Status> {
        Ok(())
    }

    /// Refuses the object, or not. For a deletion the object is null and `old` is what goes.
    ///
    /// # Errors
    /// The refusal.
    fn validate(&self, _: &Registry, _: &Change<'_>, _: &Value) -> Result<(), Status> {
        Ok(())
    }
}

/// All plugins, in order; policies and webhooks come after those that are built in, and quotas
/// last.
pub struct Admission {
    plugins: Vec<Box<dyn Plugin>>,
    policies: policy::Policies,
    webhooks: webhook::Webhooks,
    quotas: quota::Quotas,
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Admission")
    }
}

impl Admission {
    /// The plugins that are always on.
    #[must_use]
    pub fn standard(clock: SharedClock, authorizer: Arc<dyn Authorizer>) -> Self {
        let plugins: Vec<Box<dyn Plugin>> = vec![
            Box::new(namespace::NamespaceLifecycle),
            Box::new(limits::LimitRanger),
            Box::new(pod::ServiceAccount),
            Box::new(restriction::NodeRestriction),
            Box::new(node::TaintNodesByCondition),
            Box::new(security::PodSecurity),
            Box::new(priority::Priority),
            Box::new(pod::DefaultTolerationSeconds),
            Box::new(storage::DefaultStorageClass),
            Box::new(storage::StorageObjectInUseProtection),
            Box::new(storage::PersistentVolumeClaimResize),
            Box::new(classes::RuntimeClass),
            Box::new(certificates::Signers(Arc::clone(&authorizer))),
            Box::new(certificates::CertificateSubjectRestriction),
            Box::new(classes::DefaultIngressClass),
            Box::new(webhook::MatchConditions),
        ];
        Self {
            plugins,
            policies: policy::Policies::new(Arc::clone(&authorizer)),
            webhooks: webhook::Webhooks::new(authorizer),
            quotas: quota::Quotas::new(clock),
        }
    }

    /// Runs the mutating side; a second time when a policy or a webhook has changed what others had
    /// seen.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn mutate(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &mut Value,
    ) -> Result<(), Status> {
        self.policies.prepare(registry).await;
        let mut rounds = webhook::Rounds::default();
        let mut policy_rounds = policy::Rounds::default();
        loop {
            for plugin in &self.plugins {
                plugin.mutate(registry, change, object)?;
            }
            self.policies
                .mutate(registry, change, object, &mut policy_rounds)?;
            let webhooks = &self.webhooks;
            webhooks
                .mutate(registry, change, object, &mut rounds)
                .await?;
            if rounds.is_second() || !rounds.begin_second(policy_rounds.begin_second()) {
                return Ok(());
            }
        }
    }

    /// Runs the validating side. A deletion, which has no object to change, is shown here to those
    /// who could change it.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn validate(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &Value,
    ) -> Result<(), Status> {
        if change.operation == Operation::Delete {
            let mut rounds = webhook::Rounds::default();
            self.webhooks
                .mutate(registry, change, &mut Value::Null, &mut rounds)
                .await?;
        }
        for plugin in &self.plugins {
            plugin.validate(registry, change, object)?;
        }
        self.policies.prepare(registry).await;
        self.policies.validate(registry, change, object)?;
        self.webhooks.validate(registry, change, object).await?;
        self.quotas.charge(registry, change, object).await
    }
}
