//! What all pod workers of one agent share.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::admission::{Capacity, Ledger};
use crate::config::NodeConfig;
use crate::devices::Devices;
use crate::dra::Dra;
use crate::events::Recorder;
use crate::eviction::{Evictions, SharedPressure};
use crate::images_gc::LastUsed;
use crate::machine::Machine;
use crate::objects::Objects;
use crate::pod::model::PodModel;
use crate::probe::Dialers;
use crate::services::Services;
use crate::spec::dns::DnsFacts;
use crate::spec::fields::NodeFacts;
use crate::view::{RuntimeView, Wakers};
use crate::volume::Gatherer;
use crate::volume::usage::Usage;

/// Shared by all workers.
#[derive(Debug)]
pub struct Context {
    /// Settings.
    pub config: NodeConfig,
    /// The runtime by pod.
    pub view: RuntimeView,
    /// Bells of the workers.
    pub wakers: Arc<Wakers>,
    /// Events.
    pub recorder: Recorder,
    /// Service addresses.
    pub services: Arc<Services>,
    /// Config maps and secrets.
    pub objects: Arc<Objects>,
    /// Contents of volumes.
    pub gatherer: Gatherer,
    /// The machine.
    pub machine: Machine,
    /// Name resolution.
    pub dns: DnsFacts,
    /// Connections that probes and hooks make.
    pub dialers: Dialers,
    /// One pull of an image at a time.
    pub pulls: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// What the pods that were admitted hold.
    pub admitted: Ledger,
    /// What device plugins have, and who holds it.
    pub devices: Devices,
    /// What pods' volumes hold, for whoever asks.
    pub volumes: Usage,
    /// What drivers of dynamic resources have prepared.
    pub dra: Dra,
    /// The node's labels as the API had them last.
    pub node_labels: Mutex<BTreeMap<String, String>>,
    /// Evictions that pods' workers have not begun yet.
    pub evictions: Evictions,
    /// What the node is short of.
    pub pressure: SharedPressure,
    /// When images were last in use.
    pub images_used: LastUsed,
    /// The pods of this node as they are now, for the node's API.
    pub pods: Mutex<HashMap<String, Arc<k8s_openapi::api::core::v1::Pod>>>,
}

impl Context {
    /// What downward references can ask for.
    #[must_use]
    pub fn facts(&self, pod_ips: Vec<String>) -> NodeFacts {
        let storage = crate::machine::filesystem(&self.config.root).map_or(0, |(size, ..)| size);
        NodeFacts {
            node_name: self.config.name.clone(),
            host_ips: vec![self.config.node_ip.to_string()],
            pod_ips,
            allocatable_cpu_milli: self.machine.cpus * 1000,
            allocatable_memory: self.machine.memory,
            allocatable_storage: storage,
        }
    }

    /// What a pod held is free.
    pub fn release(&self, uid: &str) {
        self.admitted.release(uid);
        self.devices.release(uid);
        self.dra.release(uid);
    }

    /// What there is to share out.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        let facts = self.facts(Vec::new());
        Capacity {
            pods: i64::from(self.config.max_pods),
            milli_cpu: facts.allocatable_cpu_milli,
            memory: facts.allocatable_memory,
            storage: facts.allocatable_storage,
        }
    }

    /// Addresses of a pod as far as they are known.
    #[must_use]
    pub fn pod_ips(&self, model: &PodModel) -> Vec<String> {
        if model.host_network() {
            return vec![self.config.node_ip.to_string()];
        }
        let observed = self.view.observed(model.uid());
        observed
            .ready_sandbox()
            .map(|sandbox| sandbox.ips.iter().map(ToString::to_string).collect())
            .unwrap_or_default()
    }

    /// Directory of a pod's logs.
    #[must_use]
    pub fn log_dir(&self, namespace: &str, name: &str, uid: &str) -> std::path::PathBuf {
        self.config
            .log_root
            .join(format!("{namespace}_{name}_{uid}"))
    }
}
