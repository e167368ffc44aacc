//! A ServiceCIDR is ready as soon as it is protected, and goes when no service has an address of it
//! alone: the reference's `service-cidr-controller`.
//!
//! Who gives out its addresses is the door. IPAddresses are as many as services, and nobody needs to
//! know them until a ServiceCIDR is to go: they are followed from then on.

pub mod plan;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use evenkeel_client::Api;
use evenkeel_client::{
    EventType, LoopContext, ObjectKey, Outcome, View, WorkQueue, errors, run_loop,
};
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::error::ReconcileError;
use plan::{Step, condition, is_covered, plan};

/// Who owns the condition.
const MANAGER: &str = "service-cidr-controller";

struct Reconciler {
    cidrs: Arc<View<ServiceCIDR>>,
    addresses: OnceLock<Arc<View<IPAddress>>>,
    queue: Arc<WorkQueue<ObjectKey>>,
    context: LoopContext,
}

impl Reconciler {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(cidr) = self.cidrs.get_key(&key) else {
            return Ok(Outcome::Done);
        };
        let all = self.cidrs.list();
        let others = || all.iter().map(AsRef::as_ref);
        let goes = cidr.metadata.deletion_timestamp.is_some();
        let addresses = if goes && !is_covered(&cidr, others()) {
            self.addresses().await
        } else {
            Vec::new()
        };
        let step = plan(&cidr, others(), &addresses, self.context.clock.now());
        match &step {
            Step::Stay => {}
            Step::Wait(left) => return Ok(Outcome::After(*left)),
            Step::Protect(finalizers) | Step::Release(finalizers) => {
                self.write(&cidr, finalizers.clone()).await?;
            }
            Step::Ready | Step::Block => self.tell(&cidr, &step).await?,
        }
        Ok(Outcome::Done)
    }

    /// The IPAddresses, followed from now on: whichever goes may have been the last.
    async fn addresses(&self) -> Vec<Arc<IPAddress>> {
        let view = self.addresses.get_or_init(|| {
            let view = self.context.views.of::<IPAddress>();
            let (queue, cidrs) = (Arc::clone(&self.queue), Arc::clone(&self.cidrs));
            view.on_change(move |change| {
                if change.old.is_none() || change.new.is_none() {
                    add_going(&cidrs, &queue);
                }
            });
            view
        });
        view.synced().await;
        view.list()
    }

    async fn write(
        &self,
        cidr: &ServiceCIDR,
        finalizers: Vec<String>,
    ) -> Result<(), ReconcileError> {
        let api: Api<ServiceCIDR> = Api::all(self.context.client.clone());
        let gone = finalizers.is_empty();
        let mut wanted = cidr.clone();
        wanted.metadata.finalizers = Some(finalizers);
        let name = cidr.metadata.name.as_deref().unwrap_or_default();
        match api.replace(name, &PostParams::default(), &wanted).await {
            Ok(_) if gone => self.cidrs.note_deleted(cidr),
            Ok(written) => drop(self.cidrs.note_written(written)),
            Err(error) if errors::is_not_found(&error) => self.cidrs.note_deleted(cidr),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn tell(&self, cidr: &ServiceCIDR, step: &Step) -> Result<(), ReconcileError> {
        let Some(condition) = condition(step, self.context.clock.now()) else {
            return Ok(());
        };
        let api: Api<ServiceCIDR> = Api::all(self.context.client.clone());
        let name = cidr.metadata.name.as_deref().unwrap_or_default();
        let status = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": {"name": name}, "status": {"conditions": [condition]},
        });
        let params = PatchParams::apply(MANAGER).force();
        match api
            .patch_status(name, &params, &Patch::Apply(&status))
            .await
        {
            Ok(written) => drop(self.cidrs.note_written(written)),
            Err(error) if errors::is_not_found(&error) => self.cidrs.note_deleted(cidr),
            Err(error) => {
                if *step == Step::Ready {
                    let said = "The ServiceCIDR Status can not be set to Ready=True";
                    let reason = "KubernetesServiceCIDRError";
                    let recorder = &self.context.recorder;
                    recorder.tell(cidr, EventType::Warning, reason, said);
                }
                return Err(error.into());
            }
        }
        Ok(())
    }
}

/// Has those that are to go looked at.
fn add_going(cidrs: &View<ServiceCIDR>, queue: &WorkQueue<ObjectKey>) {
    for cidr in cidrs.list() {
        if cidr.metadata.deletion_timestamp.is_some() {
            queue.add(ObjectKey::of(&*cidr));
        }
    }
}

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let cidrs = context.views.of::<ServiceCIDR>();
    cidrs.synced().await;
    let queue = WorkQueue::new(context.metrics.of("service-cidr"));
    {
        let (queue, all) = (Arc::clone(&queue), Arc::downgrade(&cidrs));
        cidrs.on_change(move |change| {
            if change.new.is_some() {
                queue.add(change.key.clone());
            }
            // One that comes may cover one that goes; one that goes may have been counted on.
            if let Some(all) = all.upgrade() {
                add_going(&all, &queue);
            }
        });
    }
    let reconciler = Reconciler {
        cidrs,
        addresses: OnceLock::new(),
        queue: Arc::clone(&queue),
        context: context.clone(),
    };
    // One at a time: of two that cover each other's addresses one stays.
    run_loop("service-cidr", 1, queue, context.shutdown, |key| {
        reconciler.reconcile(key)
    })
    .await;
}
