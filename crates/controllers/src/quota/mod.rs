//! Quotas, recounted: what a namespace uses is what is there.
//!
//! Admission only ever adds to what is used. Here it is counted: when a quota changes, when
//! something that it counts has gone or ended, and every few minutes. A count that was written is
//! checked once more soon after, because a request that was charged meanwhile may not have been
//! kept yet.

mod plan;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_api::object;
use evenkeel_api::usage::{Around, Classes};
use evenkeel_client::Api;
use evenkeel_client::view::{Event, Sink, Target, reflect};
use evenkeel_client::{LoopContext, ObjectKey, Outcome, View, WorkQueue, errors, run_loop};
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use kube::api::{Patch, PatchParams};
use kube::core::params::ListParams;
use kube::core::{DynamicObject, PartialObjectMeta, Request};
use parking_lot::Mutex;
use serde_json::Value;

use crate::discovered::{self, Resource};
use crate::error::ReconcileError;

/// Everything is counted this often, changed or not.
const RESYNC: Duration = Duration::from_secs(300);
/// A count that changed is checked again after this time.
const AGAIN: Duration = Duration::from_secs(5);
/// Changes that come together are counted together.
const GATHER: Duration = Duration::from_millis(200);

type Meta = PartialObjectMeta<DynamicObject>;

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let queue = WorkQueue::new(context.metrics.of("resourcequota"));
    let quotas = context.views.of::<ResourceQuota>();
    {
        let queue = Arc::clone(&queue);
        quotas.on_change(move |change| {
            // Charges change only what is used; they are not counted after each.
            let spec = |quota: &Arc<ResourceQuota>| quota.spec.clone();
            let before = change.old.as_ref().map(spec);
            if change.new.is_some() && before != change.new.as_ref().map(spec) {
                queue.add(change.key.clone());
            }
        });
    }
    let reconciler = Arc::new(Reconciler {
        context: context.clone(),
        quotas: Arc::clone(&quotas),
        queue: Arc::clone(&queue),
        known: Mutex::default(),
        watched: Mutex::default(),
    });
    quotas.synced().await;
    run_loop("resourcequota", 4, queue, context.shutdown, |key| {
        let reconciler = Arc::clone(&reconciler);
        async move { reconciler.reconcile(key).await }
    })
    .await;
}

struct Reconciler {
    context: LoopContext,
    quotas: Arc<View<ResourceQuota>>,
    queue: Arc<WorkQueue<ObjectKey>>,
    /// What the door serves, as far as it was asked.
    known: Mutex<Vec<Resource>>,
    /// Resources whose going is noticed.
    watched: Mutex<HashSet<plan::Resource>>,
}

impl Reconciler {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(quota) = self.quotas.get_key(&key) else {
            return Ok(Outcome::Done);
        };
        let unreadable = |error: serde_json::Error| ReconcileError::State(error.to_string());
        let quota = serde_json::to_value(quota.as_ref()).map_err(unreadable)?;
        let mut objects = BTreeMap::new();
        let classes = self.classes(&quota).await?;
        for resource in plan::resources(&quota, &classes) {
            let Some(served) = self.served(&resource).await? else {
                continue;
            };
            self.watch(&resource, &served);
            let listed = self.list(&served, &key.namespace).await?;
            objects.insert(resource, listed);
        }
        let devices = (plan::DEVICES.0.to_owned(), plan::DEVICES.1.to_owned());
        let claims: &[Value] = objects.get(&devices).map_or(&[], Vec::as_slice);
        let pods: Vec<Value> = if Classes::need_pods(claims) {
            self.listed(("", "pods"), &key.namespace).await?
        } else {
            Vec::new()
        };
        // Not held over what comes next, which waits.
        let status = {
            let around = Around {
                now: self.context.clock.now(),
                classes: &classes,
                pod: &|_, name| {
                    let mut pods = pods.iter();
                    pods.find(|pod| object::name(pod) == name).cloned()
                },
                claims: &|_| claims.to_vec(),
            };
            plan::status(&quota, &objects, &around)
        };
        let Some(status) = status else {
            return Ok(Outcome::After(RESYNC));
        };
        let api: Api<ResourceQuota> = Api::namespaced(self.context.client.clone(), &key.namespace);
        let patch = Patch::Merge(plan::patch(&quota, &status));
        match api
            .patch_status(&key.name, &PatchParams::default(), &patch)
            .await
        {
            Ok(written) => {
                self.quotas.note_written(written);
                Ok(Outcome::After(AGAIN))
            }
            Err(error) if errors::is_not_found(&error) => Ok(Outcome::Done),
            // It was charged meanwhile: the view brings it, and it is counted anew.
            Err(error) if errors::is_conflict(&error) => Ok(Outcome::After(GATHER)),
            Err(error) => Err(error.into()),
        }
    }

    /// What classes of devices say, where the quota may ask for that.
    async fn classes(&self, quota: &Value) -> Result<Classes, ReconcileError> {
        if !plan::asks_for_classes(quota) {
            return Ok(Classes::default());
        }
        let classes = self
            .listed(("resource.k8s.io", "deviceclasses"), "")
            .await?;
        Ok(Classes::read(classes.iter()))
    }

    /// All objects of a resource; none where it is not served.
    async fn listed(
        &self,
        (group, plural): (&str, &str),
        namespace: &str,
    ) -> Result<Vec<Value>, ReconcileError> {
        let wanted = (group.to_owned(), plural.to_owned());
        match self.any(&wanted).await? {
            Some(served) => self.list(&served, namespace).await,
            None => Ok(Vec::new()),
        }
    }

    /// How the door serves a resource of namespaces; `None` when it does not.
    async fn served(&self, wanted: &plan::Resource) -> Result<Option<Resource>, ReconcileError> {
        let found = self.any(wanted).await?;
        Ok(found.filter(|known| known.namespaced))
    }

    async fn any(&self, wanted: &plan::Resource) -> Result<Option<Resource>, ReconcileError> {
        let find = |known: &[Resource]| {
            known
                .iter()
                .find(|known| known.group == wanted.0 && known.plural == wanted.1)
                .filter(|known| known.can(&["list", "watch"]))
                .cloned()
        };
        if let Some(found) = find(&self.known.lock()) {
            return Ok(Some(found));
        }
        let fresh = discovered::discover(&self.context.client).await?;
        let found = find(&fresh);
        *self.known.lock() = fresh;
        Ok(found)
    }

    async fn list(
        &self,
        resource: &Resource,
        namespace: &str,
    ) -> Result<Vec<Value>, ReconcileError> {
        let request = Request::new(resource.path(namespace))
            .list(&ListParams::default())
            .map_err(|error| ReconcileError::State(error.to_string()))?;
        let mut list: Value = self.context.client.request(request).await?;
        Ok(match list.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        })
    }

    /// From now on the quotas of a namespace are counted when an object of this resource goes.
    fn watch(&self, resource: &plan::Resource, served: &Resource) {
        if !self.watched.lock().insert(resource.clone()) {
            return;
        }
        let told = Told {
            quotas: Arc::clone(&self.quotas),
            queue: Arc::clone(&self.queue),
            // Services change what they use when their type changes.
            also_changes: resource.1 == "services",
        };
        if resource.0.is_empty() && resource.1 == "pods" {
            let pods = self.context.views.of::<Pod>();
            pods.on_change(move |change| {
                let ended = |pod: &Arc<Pod>| {
                    let phase = pod
                        .status
                        .as_ref()
                        .and_then(|status| status.phase.as_deref());
                    matches!(phase, Some("Failed" | "Succeeded"))
                };
                let now = change.new.as_ref().is_none_or(ended);
                let before = change.old.as_ref().is_some_and(ended);
                if now && (change.new.is_none() || !before) {
                    told.namespace(&change.key.namespace);
                }
            });
            return;
        }
        let target = Target {
            path: served.path(""),
            metadata_only: true,
            field_selector: None,
            label_selector: None,
        };
        let shutdown = self.context.shutdown.clone();
        let following = reflect(
            self.context.client.clone(),
            target,
            Arc::new(told),
            shutdown,
        );
        tokio_util::task::TaskTracker::new().spawn(following);
    }
}

/// Hears of objects that go.
struct Told {
    quotas: Arc<View<ResourceQuota>>,
    queue: Arc<WorkQueue<ObjectKey>>,
    also_changes: bool,
}

impl Told {
    fn namespace(&self, namespace: &str) {
        for quota in self.quotas.in_namespace(namespace) {
            self.queue.add_after(ObjectKey::of(quota.as_ref()), GATHER);
        }
    }
}

impl Sink<Meta> for Told {
    fn replace(&self, _: Vec<Meta>, _: u64) {
        // Something may have gone unseen.
        for quota in self.quotas.list() {
            self.queue.add_after(ObjectKey::of(quota.as_ref()), GATHER);
        }
    }

    fn event(&self, event: Event<Meta>, _: u64) {
        match event {
            Event::Gone(item) => {
                self.namespace(item.metadata.namespace.as_deref().unwrap_or_default());
            }
            Event::Put(item) if self.also_changes => {
                self.namespace(item.metadata.namespace.as_deref().unwrap_or_default());
            }
            Event::Put(_) => {}
        }
    }

    fn bookmark(&self, _: u64) {}
}
