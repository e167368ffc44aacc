//! What a pod's volumes hold, for `/stats/summary`: read when somebody asks, and not again within a
//! minute, as looking through a large directory takes long.
//!
//! A volume of a driver is asked of the driver (`NodeGetVolumeStats`), as only it knows; one that is
//! a directory of the node is looked through, and what is left is its file system's. What can't be
//! told is left out: nothing is estimated.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Volume};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::debug;

use super::{blocking, claim, payload, pod_dir};
use crate::context::Context;
use crate::csi::proto;
use crate::csi::uses::Data;
use crate::eviction::disk;
use crate::machine::filesystem;
use crate::pod::model::PodModel;

/// What was read is told for so long.
const FRESH: Duration = Duration::from_secs(60);

/// What one volume holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// Its name in the pod.
    pub name: String,
    /// The claim that it is of.
    pub claim: Option<String>,
    /// Bytes: all, free, used.
    pub bytes: Option<(u64, u64, u64)>,
    /// Names: all, free, used.
    pub inodes: Option<(u64, u64, u64)>,
}

/// When something was read, by the clock that only goes forward and by the wall's, and what.
type Read = (Instant, Timestamp, Vec<Held>);

/// What was read last, by the pod's uid.
#[derive(Debug, Default)]
pub struct Usage(Mutex<HashMap<String, Read>>);

impl Usage {
    /// What the volumes of a pod hold, in the form of the summary.
    pub async fn of(&self, context: &Context, uid: &str) -> Vec<Value> {
        let known = self.0.lock().get(uid).cloned();
        if let Some((at, time, held)) = known
            && at.elapsed() < FRESH
        {
            return shown(context, uid, time, &held);
        }
        let Some(pod) = context.pods.lock().get(uid).cloned() else {
            self.0.lock().remove(uid);
            return Vec::new();
        };
        let held = read(context, uid, &pod).await;
        let time = context.config.clock.now();
        let out = shown(context, uid, time, &held);
        let mut all = self.0.lock();
        all.insert(uid.to_owned(), (Instant::now(), time, held));
        // Of pods that are gone nobody asks any more.
        all.retain(|_, (at, ..)| at.elapsed() < FRESH * 10);
        out
    }
}

fn shown(context: &Context, uid: &str, time: Timestamp, held: &[Held]) -> Vec<Value> {
    let namespace = {
        let pods = context.pods.lock();
        let pod = pods.get(uid);
        pod.and_then(|pod| pod.metadata.namespace.clone())
            .unwrap_or_default()
    };
    let time = evenkeel_api::clock::rfc3339(time);
    let one = |held: &Held| {
        let mut value = json!({"time": time, "name": held.name});
        if let Some((all, free, used)) = held.bytes {
            value["capacityBytes"] = json!(all);
            value["availableBytes"] = json!(free);
            value["usedBytes"] = json!(used);
        }
        if let Some((all, free, used)) = held.inodes {
            value["inodes"] = json!(all);
            value["inodesFree"] = json!(free);
            value["inodesUsed"] = json!(used);
        }
        if let Some(claim) = &held.claim {
            value["pvcRef"] = json!({"name": claim, "namespace": namespace});
        }
        value
    };
    held.iter().map(one).collect()
}

async fn read(context: &Context, uid: &str, pod: &Pod) -> Vec<Held> {
    let model = PodModel::new(std::sync::Arc::new(pod.clone()));
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.clone());
    let mut out = Vec::new();
    for volume in volumes.into_iter().flatten() {
        let claim = claim::named(&model, &volume).map(|(name, _)| name);
        let key = (uid.to_owned(), volume.name.clone());
        let made = context.gatherer.claims.lock().get(&key).cloned();
        let found = match made {
            Some(made) if made.driven => asked(context, &made.volume.path).await,
            Some(made) => looked(made.volume.path).await,
            None => match place(context, uid, &volume) {
                Some(path) => looked(path).await,
                None => None,
            },
        };
        if let Some(found) = found {
            out.push(Held {
                name: volume.name.clone(),
                claim,
                ..found
            });
        }
    }
    out
}

/// Where a volume lies that the agent makes in the pod's directory.
fn place(context: &Context, uid: &str, volume: &Volume) -> Option<PathBuf> {
    let plugin = if volume.empty_dir.is_some() {
        "empty-dir"
    } else {
        payload::plugin(volume)?.0
    };
    let dir = pod_dir(&context.gatherer.root, uid).join("volumes");
    let path = dir
        .join(format!("kubernetes.io~{plugin}"))
        .join(&volume.name);
    path.is_dir().then_some(path)
}

/// What a directory holds, and what its file system has left.
async fn looked(path: PathBuf) -> Option<Held> {
    blocking(move || Ok(measure(&path))).await.ok().flatten()
}

fn measure(path: &Path) -> Option<Held> {
    let (all, free, inodes, left) = filesystem(path)?;
    let number = |it: i64| u64::try_from(it).unwrap_or(0);
    let (used, names) = disk::usage_and_names(path);
    Some(Held {
        bytes: Some((number(all), number(free), used)),
        inodes: Some((inodes, left, names)),
        ..Held::default()
    })
}

/// What the driver of a volume says.
async fn asked(context: &Context, path: &Path) -> Option<Held> {
    let csi = &context.gatherer.csi;
    let data = Data::load(path.parent()?).ok().flatten()?;
    let driver = csi.driver(&data.driver_name).ok()?;
    if !driver.can(proto::GET_VOLUME_STATS) {
        return None;
    }
    let request = proto::NodeGetVolumeStatsRequest {
        volume_id: data.volume_handle,
        volume_path: path.to_string_lossy().into_owned(),
        staging_target_path: String::new(),
    };
    let answer = driver
        .call::<proto::NodeGetVolumeStatsResponse>("NodeGetVolumeStats", &request)
        .await;
    let answer = answer
        .map_err(|error| {
            debug!(
                error = error.rpc_text(),
                "a driver does not say what is used"
            )
        })
        .ok()?;
    let mut held = Held::default();
    for usage in answer.usage {
        let number = |it: i64| u64::try_from(it).unwrap_or(0);
        let numbers = (
            number(usage.total),
            number(usage.available),
            number(usage.used),
        );
        match usage.unit {
            proto::BYTES => held.bytes = Some(numbers),
            proto::INODES => held.inodes = Some(numbers),
            _ => {}
        }
    }
    Some(held)
}
