//! Pods go when a device of theirs is tainted with `NoExecute`, by its driver or by a rule, at once or
//! after `tolerationSeconds` of the claim (KEP-5055); and rules say what they have done.
//!
//! Who evicts for a node's taints is [`crate::nodes`]. Nothing is remembered but how many pods went
//! for a rule since the start, which its status tells.

pub mod plan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_api::devices::claims::{allocation, claim_names, is_reserved_for};
use evenkeel_api::devices::taints::applies;
use evenkeel_client::Api;
use evenkeel_client::{
    Change, EventType, LoopContext, ObjectKey, Outcome, View, WorkQueue, errors, run_loop,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{DeviceTaintRule, ResourceClaim, ResourceSlice};
use kube::api::{Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;

use crate::ending::{disruption, evict};
use crate::error::ReconcileError;
use crate::pods;
use plan::{Eviction, IN_PROGRESS, Tally, condition, pod_goes};

/// Pods by the claims they use, as `namespace/name`.
const BY_CLAIM: &str = "device-taint-claim";
/// Claims by the pools of their devices, as `driver/pool`.
const BY_POOL: &str = "device-taint-pool";
/// Slices likewise.
const SLICE_BY_POOL: &str = "device-taint-slice";
/// The shortest time between two texts of a rule's status.
const STATUS_PERIOD: Duration = Duration::from_secs(10);

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Work {
    Pod(ObjectKey),
    Rule(String),
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(key) => write!(f, "pod {key}"),
            Self::Rule(name) => write!(f, "rule {name}"),
        }
    }
}

fn by_claim(pod: &Pod) -> Vec<String> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let names = claim_names(pod);
    names
        .map(|name| ObjectKey::new(namespace.clone(), name).to_string())
        .collect()
}

fn by_pool(claim: &ResourceClaim) -> Vec<String> {
    let devices = allocation(claim).and_then(|found| found.devices.as_ref());
    let results = devices.and_then(|devices| devices.results.as_ref());
    let results = results.into_iter().flatten();
    let pools: BTreeSet<String> = results
        .map(|result| format!("{}/{}", result.driver, result.pool))
        .collect();
    pools.into_iter().collect()
}

fn slice_by_pool(slice: &ResourceSlice) -> Vec<String> {
    vec![format!("{}/{}", slice.spec.driver, slice.spec.pool.name)]
}

struct Reconciler {
    pods: Arc<View<Pod>>,
    claims: Arc<View<ResourceClaim>>,
    slices: Arc<View<ResourceSlice>>,
    rules: Arc<View<DeviceTaintRule>>,
    /// How many pods went for a rule, by its uid.
    evicted: Mutex<HashMap<String, u64>>,
    context: LoopContext,
    queue: Arc<WorkQueue<Work>>,
}

impl Reconciler {
    async fn reconcile(&self, work: Work) -> Result<Outcome, ReconcileError> {
        match work {
            Work::Pod(key) => self.pod(&key).await,
            Work::Rule(name) => self.rule(&name).await,
        }
    }

    fn goes(&self, pod: &Pod, rules: &[Arc<DeviceTaintRule>], now: Timestamp) -> Option<Eviction> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let names = claim_names(pod);
        let claims: Vec<Arc<ResourceClaim>> = names
            .filter_map(|name| self.claims.get(namespace, name))
            .collect();
        let pools: BTreeSet<String> = claims.iter().flat_map(|claim| by_pool(claim)).collect();
        let slices: Vec<Arc<ResourceSlice>> = pools
            .iter()
            .flat_map(|pool| self.slices.by_index(SLICE_BY_POOL, pool))
            .collect();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        pod_goes(uid, &claims, &slices, rules, now)
    }

    async fn pod(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(pod) = self.pods.get_key(key).filter(|pod| pods::is_active(pod)) else {
            return Ok(Outcome::Done);
        };
        let now = self.context.clock.now();
        let Some(eviction) = self.goes(&pod, &self.rules.list(), now) else {
            return Ok(Outcome::Done);
        };
        if eviction.at > now {
            let wait = Duration::try_from(eviction.at.duration_since(now)).unwrap_or_default();
            return Ok(Outcome::After(wait + Duration::from_millis(1)));
        }
        self.context.recorder.tell(
            pod.as_ref(),
            EventType::Normal,
            "DeviceTaintManagerEviction",
            "Marking for deletion",
        );
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), &key.namespace);
        let condition = disruption(
            "DeletionByDeviceTaintManager",
            "Device Taint manager: deleting due to NoExecute taint",
            now,
        );
        if !evict(&api, &self.pods, &pod, condition).await? {
            return Ok(Outcome::Done);
        }
        for uid in eviction.rules {
            *self.evicted.lock().entry(uid.clone()).or_default() += 1;
            let rules = self.rules.list();
            let rule = rules
                .iter()
                .find(|rule| rule.metadata.uid.as_deref() == Some(&uid));
            if let Some(name) = rule.and_then(|rule| rule.metadata.name.clone()) {
                self.queue.add_after(Work::Rule(name), STATUS_PERIOD);
            }
        }
        Ok(Outcome::Done)
    }

    async fn rule(&self, name: &str) -> Result<Outcome, ReconcileError> {
        let Some(rule) = self.rules.get("", name) else {
            return Ok(Outcome::Done);
        };
        let now = self.context.clock.now();
        let status = rule.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.clone());
        let mut conditions = conditions.unwrap_or_default();
        let known = conditions.iter().find(|known| known.type_ == IN_PROGRESS);
        if let Some(known) = known
            && known.observed_generation == rule.metadata.generation
        {
            if rule.spec.taint.effect == "None" {
                // Told once; it says so itself.
                return Ok(Outcome::Done);
            }
            let since = now.duration_since(known.last_transition_time.0);
            let left = STATUS_PERIOD.checked_sub(Duration::try_from(since).unwrap_or_default());
            if let Some(left) = left.filter(|left| !left.is_zero()) {
                return Ok(Outcome::After(left));
            }
        }
        let wanted = condition(&rule, &self.tally(&rule, now), now);
        let same = known.is_some_and(|known| {
            known.status == wanted.status
                && known.reason == wanted.reason
                && known.message == wanted.message
                && known.observed_generation == wanted.observed_generation
        });
        let pending = wanted.status == "True";
        if !same {
            conditions.retain(|known| known.type_ != IN_PROGRESS);
            conditions.push(wanted);
            let patch = json!({
                "metadata": {"uid": rule.metadata.uid,
                    "resourceVersion": rule.metadata.resource_version},
                "status": {"conditions": conditions},
            });
            let api: Api<DeviceTaintRule> = Api::all(self.context.client.clone());
            let params = PatchParams::default();
            match api.patch_status(name, &params, &Patch::Merge(&patch)).await {
                Ok(written) => {
                    self.rules.note_written(written);
                }
                Err(error) if errors::is_not_found(&error) => return Ok(Outcome::Done),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(if pending {
            Outcome::After(STATUS_PERIOD)
        } else {
            Outcome::Done
        })
    }

    fn tally(&self, rule: &Arc<DeviceTaintRule>, now: Timestamp) -> Tally {
        let uid = rule.metadata.uid.clone().unwrap_or_default();
        let mut tally = Tally {
            evicted: self.evicted.lock().get(&uid).copied().unwrap_or_default(),
            ..Tally::default()
        };
        // What would be if the effect was another one.
        let mut stands = (**rule).clone();
        if stands.spec.taint.effect == "None" {
            stands.spec.taint.effect = "NoExecute".to_owned();
            let of = |driver: &str, pool: &str, device: &str| applies(rule, driver, pool, device);
            for slice in self.slices.list() {
                let spec = &slice.spec;
                let devices = spec.devices.iter().flatten();
                tally.published += devices
                    .filter(|device| of(&spec.driver, &spec.pool.name, &device.name))
                    .count();
            }
            for claim in self.claims.list() {
                let devices = allocation(&claim).and_then(|found| found.devices.clone());
                let results = devices.and_then(|devices| devices.results);
                let results = results.into_iter().flatten();
                tally.allocated += results
                    .filter(|result| of(&result.driver, &result.pool, &result.device))
                    .count();
            }
        } else if stands.spec.taint.effect != "NoExecute" {
            return tally;
        }
        let rules = [Arc::new(stands)];
        let mut namespaces = BTreeSet::new();
        for pod in self.pods.list() {
            if !pods::is_active(&pod) || claim_names(&pod).next().is_none() {
                continue;
            }
            let goes = self.goes(&pod, &rules, now);
            if goes.is_some_and(|goes| goes.rules.contains(&uid)) {
                tally.pods += 1;
                namespaces.insert(pod.metadata.namespace.clone());
            }
        }
        tally.namespaces = namespaces.len();
        tally
    }
}

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let views = &context.views;
    let (pods, claims) = (views.of::<Pod>(), views.of::<ResourceClaim>());
    let (slices, rules) = (views.of::<ResourceSlice>(), views.of::<DeviceTaintRule>());
    pods.add_index(BY_CLAIM, by_claim);
    claims.add_index(BY_POOL, by_pool);
    slices.add_index(SLICE_BY_POOL, slice_by_pool);
    tokio::join!(
        pods.synced(),
        claims.synced(),
        slices.synced(),
        rules.synced()
    );
    let queue = WorkQueue::new(context.metrics.of("device-taint-eviction"));
    let users = {
        let (queue, pods) = (Arc::clone(&queue), Arc::clone(&pods));
        move |claim: &ResourceClaim| {
            for pod in pods.by_index(BY_CLAIM, &ObjectKey::of(claim).to_string()) {
                if is_reserved_for(claim, pod.metadata.uid.as_deref().unwrap_or_default()) {
                    queue.add(Work::Pod(ObjectKey::of(&*pod)));
                }
            }
        }
    };
    {
        let queue = Arc::clone(&queue);
        pods.on_change(move |change: &Change<Pod>| {
            let claims = |pod: &Arc<Pod>| (pods::node_name(pod).is_some(), by_claim(pod));
            let new = change.new.as_ref().filter(|pod| !by_claim(pod).is_empty());
            if new.is_some() && new.map(claims) != change.old.as_ref().map(claims) {
                queue.add(Work::Pod(change.key.clone()));
            }
        });
    }
    {
        let users = users.clone();
        claims.on_change(move |change| {
            if let Some(claim) = &change.new {
                users(claim);
            }
        });
    }
    {
        let (claims, users) = (Arc::clone(&claims), users.clone());
        slices.on_change(move |change| {
            for side in change.sides() {
                for pool in slice_by_pool(side) {
                    for claim in claims.by_index(BY_POOL, &pool) {
                        users(&claim);
                    }
                }
            }
        });
    }
    {
        let (queue, claims) = (Arc::clone(&queue), Arc::clone(&claims));
        rules.on_change(move |change| {
            let spec = |rule: &Arc<DeviceTaintRule>| rule.spec.clone();
            if change.new.as_ref().map(spec) == change.old.as_ref().map(spec) {
                return;
            }
            if change.new.is_some() {
                queue.add(Work::Rule(change.key.name.clone()));
            }
            for claim in claims.list() {
                users(&claim);
            }
        });
    }
    let reconciler = Reconciler {
        pods,
        claims,
        slices,
        rules,
        evicted: Mutex::default(),
        queue: Arc::clone(&queue),
        context: context.clone(),
    };
    run_loop(
        "device-taint-eviction",
        8,
        queue,
        context.shutdown,
        |work| reconciler.reconcile(work),
    )
    .await;
}
