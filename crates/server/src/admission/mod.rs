//! Admission: what the cluster says to a change before it is kept.
//!
//! Plugins run in a fixed order, in this process, against the caches: mutating ones before the
//! strategy prepares the object, validating ones after it. They are the reference's, by name.
//! What they say beside yes and no is left in the request's [`Notes`].

mod allocate;
mod certificates;
mod classes;
mod devices;
mod limits;
pub(crate) mod look_up;
mod namespace;
mod node;
mod notes;
mod pod;
mod pod_certificates;
mod policy;
mod priority;
mod quota;
mod restriction;
mod security;
mod storage;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use evenkeel_api::clock::SharedClock;
use evenkeel_api::row::{ResourceDef, Subresource};
use evenkeel_api::{Status, object};
use serde_json::Value;
use tokio::time::Instant;

pub(crate) use allocate::uses as service_uses;
pub use allocate::{Allocate, Hold};
pub use notes::Notes;

use crate::auth::{Authorizer, Identity};
use crate::families::{Families, nanoseconds};
use crate::metrics::Histogram;
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

const ADMIT: usize = 0;
const VALIDATE: usize = 1;

const CREATES: &[Operation] = &[Operation::Create];
const UPDATES: &[Operation] = &[Operation::Update];
const WRITES: &[Operation] = &[Operation::Create, Operation::Update];
const CHANGES: &[Operation] = &[Operation::Create, Operation::Update, Operation::Delete];

/// What the reference calls a plugin, and the operations at which each of its sides is measured there. All
/// are asked at all operations; to look at the clock for those that have nothing to say costs more than to
/// ask them.
#[derive(Clone, Copy)]
struct Named {
    name: &'static str,
    measured: [&'static [Operation]; 2],
}

const fn named(
    name: &'static str,
    admits: &'static [Operation],
    validates: &'static [Operation],
) -> Named {
    Named {
        name,
        measured: [admits, validates],
    }
}

impl Named {
    fn is_measured(&self, operation: Operation, side: usize) -> bool {
        self.measured[side].contains(&operation)
    }
}

/// How long something takes: by operation, outcome and side, without a look-up.
struct Timed([[[Arc<Histogram>; 2]; 2]; 4]);

impl Timed {
    fn new(of: impl Fn(&str, &str, &str) -> Arc<Histogram>) -> Self {
        const OPERATIONS: [Operation; 4] = [
            Operation::Create,
            Operation::Update,
            Operation::Delete,
            Operation::Connect,
        ];
        Self(OPERATIONS.map(|operation| {
            ["false", "true"].map(|rejected| {
                ["admit", "validate"].map(|side| of(operation.as_str(), rejected, side))
            })
        }))
    }

    fn took(&self, operation: Operation, rejected: bool, side: usize, time: Duration) {
        let operation = match operation {
            Operation::Create => 0,
            Operation::Update => 1,
            Operation::Delete => 2,
            Operation::Connect => 3,
        };
        self.0[operation][usize::from(rejected)][side].observe(nanoseconds(time));
    }
}

/// All plugins, in order; policies and webhooks come after those that are built in, and quotas
/// last.
pub struct Admission {
    plugins: Vec<(Box<dyn Plugin>, Named, Timed)>,
    steps: Timed,
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
    pub(crate) fn standard(
        clock: SharedClock,
        authorizer: Arc<dyn Authorizer>,
        counted: &Families,
    ) -> Self {
        let signers = certificates::Signers(Arc::clone(&authorizer));
        let attest = certificates::Attest(Arc::clone(&authorizer));
        let nodes = restriction::NodeRestriction(Arc::clone(&authorizer));
        let plugins: Vec<(Box<dyn Plugin>, Named)> = vec![
            (
                Box::new(namespace::NamespaceLifecycle),
                named("NamespaceLifecycle", CHANGES, &[]),
            ),
            (
                Box::new(limits::LimitRanger),
                named("LimitRanger", WRITES, WRITES),
            ),
            (
                Box::new(pod::ServiceAccount),
                named("ServiceAccount", WRITES, WRITES),
            ),
            (Box::new(nodes), named("NodeRestriction", CHANGES, &[])),
            (
                Box::new(node::TaintNodesByCondition),
                named("TaintNodesByCondition", CREATES, &[]),
            ),
            (
                Box::new(security::PodSecurity),
                named("PodSecurity", &[], WRITES),
            ),
            (
                Box::new(priority::Priority),
                named("Priority", CHANGES, CHANGES),
            ),
            (
                Box::new(pod::DefaultTolerationSeconds),
                named("DefaultTolerationSeconds", WRITES, &[]),
            ),
            (
                Box::new(storage::DefaultStorageClass),
                named("DefaultStorageClass", CREATES, &[]),
            ),
            (
                Box::new(storage::StorageObjectInUseProtection),
                named("StorageObjectInUseProtection", CREATES, &[]),
            ),
            (
                Box::new(storage::PersistentVolumeClaimResize),
                named("PersistentVolumeClaimResize", &[], UPDATES),
            ),
            (
                Box::new(classes::RuntimeClass),
                named("RuntimeClass", CREATES, CREATES),
            ),
            // Approval and signing are one plugin here.
            (
                Box::new(signers),
                named("CertificateApproval", &[], UPDATES),
            ),
            (
                Box::new(attest),
                named("ClusterTrustBundleAttest", &[], WRITES),
            ),
            (
                Box::new(certificates::CertificateSubjectRestriction),
                named("CertificateSubjectRestriction", &[], CREATES),
            ),
            (
                Box::new(classes::DefaultIngressClass),
                named("DefaultIngressClass", CREATES, &[]),
            ),
            // Part of the claims' own kind there, and no plugin that is measured.
            (
                Box::new(devices::DeviceAdminAccess),
                named("DeviceAdminAccess", &[], &[]),
            ),
            // The same of the webhooks'.
            (
                Box::new(webhook::MatchConditions),
                named("MatchConditions", &[], &[]),
            ),
        ];
        let plugins = plugins.into_iter().map(|(plugin, named)| {
            let timed = Timed::new(|operation, rejected, side| {
                counted.plugins.of(&[named.name, operation, rejected, side])
            });
            (plugin, named, timed)
        });
        Self {
            plugins: plugins.collect(),
            steps: Timed::new(|operation, rejected, side| {
                counted.steps.of(&[operation, rejected, side])
            }),
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
        let began = Instant::now();
        let done = self.mutate_all(registry, change, object).await;
        self.steps
            .took(change.operation, done.is_err(), ADMIT, began.elapsed());
        done
    }

    async fn mutate_all(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &mut Value,
    ) -> Result<(), Status> {
        self.policies.prepare(registry).await;
        let mut rounds = webhook::Rounds::default();
        let mut policy_rounds = policy::Rounds::default();
        loop {
            let mut began = Instant::now();
            for (plugin, named, timed) in &self.plugins {
                let done = plugin.mutate(registry, change, object);
                if !named.is_measured(change.operation, ADMIT) {
                    done?;
                    continue;
                }
                let end = Instant::now();
                timed.took(change.operation, done.is_err(), ADMIT, end - began);
                began = end;
                done?;
            }
            self.policies
                .mutate(registry, change, object, &mut policy_rounds)
                .await?;
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
        let began = Instant::now();
        let done = self.validate_all(registry, change, object).await;
        self.steps
            .took(change.operation, done.is_err(), VALIDATE, began.elapsed());
        done
    }

    async fn validate_all(
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
        let mut began = Instant::now();
        for (plugin, named, timed) in &self.plugins {
            let done = plugin.validate(registry, change, object);
            if !named.is_measured(change.operation, VALIDATE) {
                done?;
                continue;
            }
            let end = Instant::now();
            timed.took(change.operation, done.is_err(), VALIDATE, end - began);
            began = end;
            done?;
        }
        self.policies.prepare(registry).await;
        self.policies.validate(registry, change, object).await?;
        self.webhooks.validate(registry, change, object).await?;
        self.quotas.charge(registry, change, object).await
    }
}
