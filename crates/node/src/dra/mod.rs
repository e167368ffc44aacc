//! Drivers of dynamic resources (KEP-4381): they register where storage drivers do, prepare the
//! devices of a claim before a pod that uses it starts, and take them back when the last such pod
//! has stopped.
//!
//! What is prepared, and for whom, is in a file that is written before a driver is called: an agent
//! that was killed in between takes back what nobody needs. What never lives here: who gets which
//! device. The scheduler has said so in the claim's status.

pub mod proto;
#[cfg(test)]
mod tests;
mod used;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_api::devices::claims::{
    PodClaimName, allocation, claim_name, extended_claim, is_reserved_for,
};
use evenkeel_client::Api;
use evenkeel_grpc::{Channel, Target};
use http::HeaderMap;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::Client;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tracing::{info, warn};

pub use used::Used;

use crate::context::Context;
use crate::devices::{read, write};

/// How long a driver may take, as kubelet allows.
const WITHIN: Duration = Duration::from_secs(45);
/// What could not be taken back is tried again so often.
const RETRY: Duration = Duration::from_secs(5);
/// Versions of the service, the best first.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];
/// What is prepared, in the agent's directory.
const CHECKPOINT: &str = "dra.json";

/// A driver on this node.
#[derive(Debug, Clone)]
struct Driver {
    channel: Channel,
    /// `/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin`.
    service: String,
}

/// A device as its driver has prepared it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Device {
    /// The requests it is for; none means all.
    requests: Vec<String>,
    pool: String,
    device: String,
    cdi: Vec<String>,
    /// Which share of it, where several have one.
    share: Option<String>,
}

/// A claim that is prepared, or is about to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Held {
    namespace: String,
    name: String,
    /// By driver; `None` before it has answered.
    drivers: BTreeMap<String, Option<Vec<Device>>>,
    /// Pods that use it.
    pods: BTreeSet<String>,
    /// Pods that have stopped and wait until it is taken back.
    leaving: BTreeSet<String>,
}

/// By the claim's uid.
type Kept = BTreeMap<String, Held>;

/// The drivers of one node and what they have prepared.
pub struct Dra {
    file: PathBuf,
    client: Client,
    drivers: Mutex<BTreeMap<String, Driver>>,
    kept: Mutex<Kept>,
    /// One claim at a time: a driver is asked in between.
    one: tokio::sync::Mutex<()>,
    left: Notify,
}

impl std::fmt::Debug for Dra {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dra")
            .field("drivers", &self.drivers.lock().keys())
            .finish_non_exhaustive()
    }
}

/// The version of the service that a driver has and this agent speaks.
fn version(versions: &[String]) -> Option<&'static str> {
    let has = |version: &&str| {
        let name = format!("{version}.DRAPlugin");
        versions.contains(&name)
    };
    VERSIONS.into_iter().find(has)
}

impl Dra {
    /// Below an agent's directory, with what it finds there.
    #[must_use]
    pub fn new(root: &Path, client: Client) -> Self {
        let file = root.join(CHECKPOINT);
        Self {
            kept: Mutex::new(read(&file)),
            file,
            client,
            drivers: Mutex::default(),
            one: tokio::sync::Mutex::default(),
            left: Notify::new(),
        }
    }

    /// A driver says that it is at this socket.
    ///
    /// # Errors
    /// Nothing it speaks is spoken here.
    pub fn register(&self, name: &str, versions: &[String], endpoint: &str) -> Result<(), String> {
        let version = version(versions).ok_or_else(|| {
            format!(
                "DRA driver {name:?}: none of the versions {versions:?} are supported; this node \
                 speaks v1.DRAPlugin and v1beta1.DRAPlugin"
            )
        })?;
        let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
        let target = Target::Unix {
            path: PathBuf::from(path),
        };
        let driver = Driver {
            channel: Channel::new(target, HeaderMap::new()),
            service: format!("/k8s.io.kubelet.pkg.apis.dra.{version}.DRAPlugin"),
        };
        self.drivers.lock().insert(name.to_owned(), driver);
        self.left.notify_one();
        Ok(())
    }

    /// A driver is gone. What it has prepared stays until it comes again.
    pub fn unregister(&self, name: &str) {
        self.drivers.lock().remove(name);
    }

    fn driver(&self, name: &str) -> Result<Driver, String> {
        let found = self.drivers.lock().get(name).cloned();
        found.ok_or_else(|| format!("DRA driver {name} is not registered"))
    }

    fn save(&self) -> Result<(), String> {
        let kept = self.kept.lock().clone();
        write(&self.file, &kept).map_err(|error| format!("{}: {error}", self.file.display()))
    }

    /// Has the claims of a pod prepared, all of them. Costs nothing when they are.
    ///
    /// # Errors
    /// Why one is not, in kubelet's words.
    pub async fn prepare(&self, uid: &str, pod: &Pod) -> Result<(), String> {
        let wanted = pod
            .spec
            .iter()
            .flat_map(|spec| spec.resource_claims.iter().flatten());
        for entry in wanted {
            let name = match claim_name(pod, entry) {
                PodClaimName::Named(name) | PodClaimName::Generated(name) => name,
                PodClaimName::NotNeeded => continue,
                PodClaimName::NotYet => {
                    return Err(format!(
                        "prepare dynamic resources: podResourceClaims {}: the claim is not made yet",
                        entry.name
                    ));
                }
            };
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            if self.is_prepared(uid, namespace, name) {
                continue;
            }
            self.prepare_one(uid, pod, namespace, name).await?;
        }
        // The scheduler has made one for extended resources that are devices of a class.
        if let Some(made) = extended_claim(pod) {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let name = &made.resource_claim_name;
            if !self.is_prepared(uid, namespace, name) {
                self.prepare_one(uid, pod, namespace, name).await?;
            }
        }
        Ok(())
    }

    fn is_prepared(&self, uid: &str, namespace: &str, name: &str) -> bool {
        self.kept.lock().values().any(|held| {
            held.namespace == namespace
                && held.name == name
                && held.pods.contains(uid)
                && held.drivers.values().all(Option::is_some)
        })
    }

    async fn prepare_one(
        &self,
        uid: &str,
        pod: &Pod,
        namespace: &str,
        name: &str,
    ) -> Result<(), String> {
        let _one = self.one.lock().await;
        let api: Api<ResourceClaim> = Api::namespaced(self.client.clone(), namespace);
        let claim = api
            .get(name)
            .await
            .map_err(|error| format!("fetch ResourceClaim {namespace}/{name}: {error}"))?;
        let Some(given) = allocation(&claim) else {
            return Err(format!(
                "resource claim {namespace}/{name}: it is not allocated"
            ));
        };
        if !is_reserved_for(&claim, uid) {
            let own = pod.metadata.name.as_deref().unwrap_or_default();
            return Err(format!(
                "resource claim {namespace}/{name}: it is not reserved for pod {own} ({uid})"
            ));
        }
        let claim_uid = claim.metadata.uid.clone().unwrap_or_default();
        let results = given
            .devices
            .iter()
            .flat_map(|all| all.results.iter().flatten());
        let drivers: BTreeSet<String> = results.map(|result| result.driver.clone()).collect();
        for driver in &drivers {
            // What nobody has been asked for need not be taken back.
            self.driver(driver)?;
        }
        {
            let mut kept = self.kept.lock();
            let held = kept.entry(claim_uid.clone()).or_default();
            namespace.clone_into(&mut held.namespace);
            name.clone_into(&mut held.name);
            held.pods.insert(uid.to_owned());
            for driver in &drivers {
                held.drivers.entry(driver.clone()).or_default();
            }
        }
        self.save()?;
        let message = proto::Claims {
            claims: vec![proto::Claim {
                namespace: namespace.to_owned(),
                uid: claim_uid.clone(),
                name: name.to_owned(),
            }],
        };
        for driver in drivers {
            let done = {
                let kept = self.kept.lock();
                let held = kept.get(&claim_uid);
                held.is_some_and(|held| held.drivers.get(&driver).is_some_and(Option::is_some))
            };
            if done {
                continue;
            }
            let devices = self.ask(&driver, &claim_uid, &message).await?;
            if let Some(held) = self.kept.lock().get_mut(&claim_uid) {
                held.drivers.insert(driver, Some(devices));
            }
        }
        self.save()
    }

    async fn ask(
        &self,
        name: &str,
        uid: &str,
        message: &proto::Claims,
    ) -> Result<Vec<Device>, String> {
        let driver = self.driver(name)?;
        let path = format!("{}/NodePrepareResources", driver.service);
        let answer: proto::PrepareResponse = driver
            .channel
            .unary(&path, message, WITHIN)
            .await
            .map_err(|error| format!("NodePrepareResources: {}", error.rpc_text()))?;
        let Some(prepared) = answer.claims.get(uid) else {
            return Err("NodePrepareResources skipped 1 ResourceClaims".to_owned());
        };
        if !prepared.error.is_empty() {
            return Err(format!(
                "NodePrepareResources failed for ResourceClaim {}: {}",
                message.claims.first().map_or("", |claim| &claim.name),
                prepared.error
            ));
        }
        let devices = prepared.devices.iter();
        Ok(devices
            .map(|one| Device {
                requests: one.request_names.clone(),
                pool: one.pool_name.clone(),
                device: one.device_name.clone(),
                cdi: one.cdi_device_ids.clone(),
                share: one.share_id.clone(),
            })
            .collect())
    }

    /// A pod has stopped: what nobody else uses is taken back.
    pub fn release(&self, uid: &str) {
        let mut changed = false;
        for held in self.kept.lock().values_mut() {
            if held.pods.remove(uid) {
                held.leaving.insert(uid.to_owned());
                changed = true;
            }
        }
        if changed {
            if let Err(error) = self.save() {
                warn!(error, "who uses which claim is not kept");
            }
            self.left.notify_one();
        }
    }

    /// Is something of a pod that has stopped still to be taken back?
    #[must_use]
    pub fn holds(&self, uid: &str) -> bool {
        let kept = self.kept.lock();
        kept.values()
            .any(|held| held.pods.is_empty() && held.leaving.contains(uid))
    }

    /// Only these pods use claims: others have gone while no agent ran.
    pub fn keep(&self, known: &dyn Fn(&str) -> bool) {
        let gone: BTreeSet<String> = {
            let kept = self.kept.lock();
            let all = kept.values().flat_map(|held| held.pods.iter());
            all.filter(|uid| !known(uid)).cloned().collect()
        };
        for uid in gone {
            self.release(&uid);
        }
        self.left.notify_one();
    }

    /// Takes back what nobody uses; says whether all of it is.
    async fn take_back(&self) -> bool {
        let unused: Vec<(String, Held)> = {
            let kept = self.kept.lock();
            let all = kept.iter().filter(|(_, held)| held.pods.is_empty());
            all.map(|(uid, held)| (uid.clone(), held.clone())).collect()
        };
        let mut all = true;
        for (uid, held) in unused {
            let _one = self.one.lock().await;
            // A pod may have come to use it in between.
            let still = self
                .kept
                .lock()
                .get(&uid)
                .is_some_and(|it| it.pods.is_empty());
            if !still {
                continue;
            }
            match self.unprepare(&uid, &held).await {
                Ok(()) => {
                    info!(
                        claim = held.name,
                        namespace = held.namespace,
                        "devices taken back"
                    );
                    self.kept.lock().remove(&uid);
                    if let Err(error) = self.save() {
                        warn!(error, "who uses which claim is not kept");
                    }
                }
                Err(error) => {
                    warn!(
                        claim = held.name,
                        error, "devices are not taken back; tried again"
                    );
                    all = false;
                }
            }
        }
        all
    }

    async fn unprepare(&self, uid: &str, held: &Held) -> Result<(), String> {
        let message = proto::Claims {
            claims: vec![proto::Claim {
                namespace: held.namespace.clone(),
                uid: uid.to_owned(),
                name: held.name.clone(),
            }],
        };
        for name in held.drivers.keys() {
            let driver = self.driver(name)?;
            let path = format!("{}/NodeUnprepareResources", driver.service);
            let answer: proto::UnprepareResponse = driver
                .channel
                .unary(&path, &message, WITHIN)
                .await
                .map_err(|error| format!("NodeUnprepareResources: {}", error.rpc_text()))?;
            match answer.claims.get(uid) {
                None => return Err("NodeUnprepareResources skipped 1 ResourceClaims".to_owned()),
                Some(said) if !said.error.is_empty() => {
                    return Err(format!(
                        "NodeUnprepareResources failed for ResourceClaim {}: {}",
                        held.name, said.error
                    ));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// Takes back what pods have left until the future is dropped.
pub(crate) async fn run(context: Arc<Context>) {
    let dra = &context.dra;
    loop {
        let done = dra.take_back().await;
        context.wakers.wake_all();
        if done {
            dra.left.notified().await;
        } else {
            tokio::select! {
                () = dra.left.notified() => {}
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }
}
