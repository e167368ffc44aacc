//! Taking a pod's volumes down: unpublished by their drivers, unstaged with the last pod, and
//! only then no longer in use. No file of a volume is ever removed here: directories go when
//! they are empty, and nothing goes that something is mounted at.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use tracing::{info, warn};

use super::uses::{Data, Key};
use super::{Csi, facts, proto};
use crate::volume::atomic::text;
use crate::volume::{blocking, pod_dir, release};

impl Csi {
    /// Takes down all volumes of a pod. Succeeds when there are none.
    ///
    /// # Errors
    /// Which volume is left, and why.
    pub async fn tear_down(&self, uid: &str) -> Result<(), String> {
        let volumes = pod_dir(&self.root, uid)
            .join("volumes")
            .join(facts::PLUGIN_DIR);
        let published: Vec<_> = fs::read_dir(&volumes)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        for directory in published {
            self.unpublish(&directory).await.map_err(|why| {
                format!(
                    "UnmountVolume.TearDown failed for volume {:?} : {why}",
                    directory.file_name().unwrap_or_default()
                )
            })?;
        }
        for key in self.uses.of(uid) {
            self.leave(&key, uid).await?;
        }
        self.report().await
    }

    /// Unstages what an agent before this one left staged.
    pub(crate) async fn sweep(&self, driver: &str) {
        for key in self.uses.idle(driver) {
            info!(
                driver,
                volume = key.1,
                "unstaging a volume that no pod uses"
            );
            let left = match self.leave(&key, "").await {
                Ok(()) => self.report().await,
                Err(error) => Err(error),
            };
            if let Err(error) = left {
                warn!(
                    driver,
                    volume = key.1,
                    error,
                    "a volume that no pod uses stays"
                );
            }
        }
    }

    async fn unpublish(&self, directory: &Path) -> Result<(), String> {
        let at = directory.to_owned();
        let data = blocking(move || Data::load(&at)).await?;
        if let Some(data) = data {
            let lock = self.lock(&data.key());
            let _one = lock.lock().await;
            let driver = self.driver(&data.driver_name)?;
            let request = proto::NodeUnpublishVolumeRequest {
                volume_id: data.volume_handle,
                target_path: directory.join("mount").to_string_lossy().into_owned(),
            };
            driver
                .call::<proto::Empty>("NodeUnpublishVolume", &request)
                .await
                .map_err(|error| error.rpc_text())?;
            remove(directory, "mount").await?;
        }
        Ok(())
    }

    /// A pod has done with a volume; the last one has it unstaged.
    async fn leave(&self, key: &Key, uid: &str) -> Result<(), String> {
        let lock = self.lock(key);
        let _one = lock.lock().await;
        let (name, handle) = key;
        let directory = facts::staging_dir(&self.root, name, handle);
        if !self.uses.by_others(key, uid) && directory.exists() {
            let driver = self.driver(name)?;
            self.staged.lock().remove(key);
            let request = proto::NodeUnstageVolumeRequest {
                volume_id: handle.clone(),
                staging_target_path: directory.join("globalmount").to_string_lossy().into_owned(),
            };
            driver
                .call::<proto::Empty>("NodeUnstageVolume", &request)
                .await
                .map_err(|error| {
                    format!(
                        "UnmountDevice failed for volume {handle:?} : {}",
                        error.rpc_text()
                    )
                })?;
            remove(&directory, "globalmount").await?;
        }
        self.uses.remove(key, uid);
        Ok(())
    }
}

/// Removes the directory of a volume with what kubelet and driver made in it; the data last, so
/// that what is left after a crash is still known.
async fn remove(directory: &Path, mount: &'static str) -> Result<(), String> {
    let directory = directory.to_owned();
    blocking(move || {
        let at = directory.join(mount);
        if let Some(left) = release::mounts_below(&directory)?.first() {
            return Err(format!("{} is still mounted", left.display()));
        }
        let gone = |path: &Path, done: std::io::Result<()>| match done {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(text(path, &error)),
            _ => Ok(()),
        };
        gone(&at, fs::remove_dir(&at))?;
        let data = directory.join(facts::DATA_FILE);
        gone(&data, fs::remove_file(&data))?;
        gone(&directory, fs::remove_dir(&directory))
    })
    .await
}
