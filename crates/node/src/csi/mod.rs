//! Volumes of CSI drivers at the node: kubelet's `pkg/volume/csi`, without block devices.
//!
//! A driver registers over a socket ([`registration`]) and is shown in the API ([`objects`]). A
//! pod's volume waits until it is attached, is staged once for the node and published for each
//! pod ([`set_up`]); it is unpublished with its pod and unstaged with the last of them
//! ([`tear_down`]). Which volumes are here is read from the disk at start ([`uses`]), so that an
//! agent that was killed in between loses none. What never lives here: attaching, provisioning,
//! snapshots. Those are the controllers' and the drivers' own.

pub mod driver;
pub mod facts;
pub mod objects;
pub mod proto;
pub(crate) mod registration;
pub mod set_up;
mod tear_down;
pub mod uses;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use kube::Client;
use parking_lot::Mutex;
use tracing::warn;

use crate::events::Recorder;
use driver::Driver;
use uses::{Key, Uses};

/// The drivers of one node and the volumes that they serve.
pub struct Csi {
    /// The agent's directory, absolute: drivers are told paths below it.
    pub(crate) root: PathBuf,
    pub(crate) node: String,
    pub(crate) client: Client,
    pub(crate) drivers: Mutex<BTreeMap<String, Driver>>,
    recorder: Recorder,
    uses: Uses,
    /// Staged by this agent, and so not to be staged for each pod.
    staged: Mutex<BTreeSet<Key>>,
    /// One thing at a time is done about a volume.
    busy: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>,
    /// What the node's status says is in use; `None` when that is not known.
    reported: tokio::sync::Mutex<Option<Vec<String>>>,
}

impl std::fmt::Debug for Csi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Csi")
            .field("drivers", &self.drivers.lock().keys())
            .finish_non_exhaustive()
    }
}

impl Csi {
    /// Below an agent's directory, with the volumes that it finds there.
    #[must_use]
    pub fn new(root: &std::path::Path, node: String, client: Client, recorder: Recorder) -> Self {
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        Self {
            uses: Uses::on_disk(&root),
            root,
            node,
            client,
            drivers: Mutex::default(),
            recorder,
            staged: Mutex::default(),
            busy: Mutex::default(),
            reported: tokio::sync::Mutex::default(),
        }
    }

    /// A driver that has registered.
    ///
    /// # Errors
    /// None of that name has.
    pub fn driver(&self, name: &str) -> Result<Driver, String> {
        let found = self.drivers.lock().get(name).cloned();
        found.ok_or_else(|| {
            format!("driver name {name} not found in the list of registered CSI drivers")
        })
    }

    fn lock(&self, key: &Key) -> Arc<tokio::sync::Mutex<()>> {
        let mut all = self.busy.lock();
        if all.len() > 256 {
            all.retain(|_, lock| Arc::strong_count(lock) > 1);
        }
        Arc::clone(all.entry(key.clone()).or_default())
    }

    /// Brings the node's status in line with what is in use.
    ///
    /// # Errors
    /// The API's words.
    pub(crate) async fn report(&self) -> Result<(), String> {
        let mut reported = self.reported.lock().await;
        // Read under the lock: an older list must not overwrite a newer one.
        let now = self.uses.reported();
        let nothing_new = match reported.as_ref() {
            Some(said) => *said == now,
            // A node that never had a volume says nothing.
            None => now.is_empty() && !self.root.join("plugins/kubernetes.io/csi").exists(),
        };
        if nothing_new {
            return Ok(());
        }
        *reported = None;
        objects::report_in_use(&self.client, &self.node, &now).await?;
        *reported = Some(now);
        Ok(())
    }

    /// Tries again what could not be said.
    pub(crate) async fn report_again(&self) {
        if let Err(error) = self.report().await {
            warn!(error, "which volumes are in use is not said yet");
        }
    }
}
