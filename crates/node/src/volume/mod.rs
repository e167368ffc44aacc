//! Volumes: made under the pod's directory before its containers, kept up to date while it runs,
//! taken down when it ends.
//!
//! The layout is kubelet's (`pods/UID/volumes/kubernetes.io~configmap/NAME`), which tools on the
//! node know. What a volume contains is gathered first ([`payload`]), then written
//! ([`atomic`]); a source that this agent does not have is refused by name.

pub mod atomic;
pub mod claim;
pub mod copy;
pub mod empty_dir;
pub mod host_path;
mod keys;
pub mod local;
pub mod ownership;
pub mod payload;
pub mod pod_certificate;
pub mod quota;
pub mod release;
pub mod snapshot;
pub mod subpath;
pub mod token;
pub mod trust;
pub mod usage;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use futures::future::try_join_all;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Volume;

use crate::csi::set_up::{Source, Wanted};
use crate::pod::model::PodModel;
use crate::spec::fields::NodeFacts;
pub use payload::Gatherer;

/// A volume that containers can mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountedVolume {
    /// Where it lies on the host.
    pub path: PathBuf,
    /// Never to be written to by containers.
    pub read_only: bool,
}

/// A pod's volumes by name.
pub type PodVolumes = BTreeMap<String, MountedVolume>;

/// Why a volume can't be made.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// As kubelet's `FailedMount` event says it.
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {message}")]
    SetUp {
        /// Its name.
        volume: String,
        /// What went wrong.
        message: String,
    },
    /// The volume can't be staged: as kubelet's `FailedMount` event says it.
    #[error("MountVolume.MountDevice failed for volume \"{volume}\" : {message}")]
    MountDevice {
        /// Its name.
        volume: String,
        /// What went wrong.
        message: String,
    },
    /// Somebody else has to act first. Told only when that has lasted: as kubelet's event says it.
    #[error(
        "Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached \
         volumes=[{volume}], failed to process volumes=[]: timed out waiting for the condition: \
         {why}"
    )]
    Waiting {
        /// Its name in the pod.
        volume: String,
        /// For what.
        why: String,
    },
    /// The volume can't be reached from here.
    #[error(
        "MountVolume.NodeAffinity check failed for volume \"{volume}\" : no matching \
         NodeSelectorTerms"
    )]
    Elsewhere {
        /// Its name.
        volume: String,
    },
    /// The source is none that this agent has.
    #[error(
        "MountVolume.SetUp failed for volume \"{volume}\" : volume source {source_name} is not \
         supported by this node"
    )]
    Unsupported {
        /// Its name.
        volume: String,
        /// Field of the source.
        source_name: String,
    },
}

impl VolumeError {
    pub(crate) fn set_up(volume: &str, message: impl ToString) -> Self {
        Self::SetUp {
            volume: volume.to_owned(),
            message: message.to_string(),
        }
    }
}

/// The directory of a pod's volumes and files.
#[must_use]
pub fn pod_dir(root: &Path, uid: &str) -> PathBuf {
    root.join("pods").join(uid)
}

/// Makes all volumes of a pod, or brings their content up to date. Objects may be `age` old. Those
/// that are images are not among them: who starts a container gets these with its own image.
///
/// # Errors
/// The first volume that can't be made.
pub async fn prepare(
    gatherer: &Gatherer,
    model: &PodModel,
    facts: &NodeFacts,
    age: SignedDuration,
) -> Result<PodVolumes, VolumeError> {
    let volumes = model.spec().and_then(|spec| spec.volumes.as_deref());
    let volumes: Vec<&Volume> = volumes
        .unwrap_or_default()
        .iter()
        .filter(|volume| volume.image.is_none())
        .collect();
    let made = try_join_all(
        volumes
            .iter()
            .map(|volume| prepare_one(gatherer, model, facts, volume, age)),
    )
    .await?;
    Ok(volumes
        .iter()
        .map(|volume| volume.name.clone())
        .zip(made)
        .collect())
}

async fn prepare_one(
    gatherer: &Gatherer,
    model: &PodModel,
    facts: &NodeFacts,
    volume: &Volume,
    age: SignedDuration,
) -> Result<MountedVolume, VolumeError> {
    let name = &volume.name;
    let fail = |error: String| VolumeError::set_up(name, error);
    if let Some(source) = &volume.host_path {
        let path = PathBuf::from(&source.path);
        let type_ = source.type_.clone().unwrap_or_default();
        let checked = path.clone();
        blocking(move || host_path::check(&checked, &type_))
            .await
            .map_err(fail)?;
        return Ok(MountedVolume {
            path,
            read_only: false,
        });
    }
    if claim::named(model, volume).is_some() {
        return of_claim(gatherer, model, facts, volume, age).await;
    }
    let dir = pod_dir(&gatherer.root, model.uid()).join("volumes");
    let fs_group = fs_group(model);
    if let Some(source) = &volume.empty_dir {
        let path = dir.join("kubernetes.io~empty-dir").join(name);
        let settings = empty_dir::Settings::new(source, model, facts, fs_group);
        let at = path.clone();
        blocking(move || empty_dir::make(&at, &settings))
            .await
            .map_err(fail)?;
        return Ok(MountedVolume {
            path,
            read_only: false,
        });
    }
    if volume.csi.is_some() {
        return of_driver(gatherer, model, volume, age).await;
    }
    let Some((plugin, secret)) = payload::plugin(volume) else {
        return Err(VolumeError::Unsupported {
            volume: name.clone(),
            source_name: source_name(volume),
        });
    };
    let files = gatherer
        .gather(model, facts, volume, age)
        .await
        .map_err(fail)?;
    let path = dir.join(format!("kubernetes.io~{plugin}")).join(name);
    let at = path.clone();
    blocking(move || {
        if secret {
            empty_dir::mount_tmpfs(&at, None, 0o755)?;
        } else {
            release::make_dir(&at, 0o755)?;
        }
        atomic::write(&at, &files, fs_group)
    })
    .await
    .map_err(fail)?;
    Ok(MountedVolume {
        path,
        read_only: true,
    })
}

/// The volume of a claim; prepared once in a pod's life, as what is in it may be large.
async fn of_claim(
    gatherer: &Gatherer,
    model: &PodModel,
    facts: &NodeFacts,
    volume: &Volume,
    age: SignedDuration,
) -> Result<MountedVolume, VolumeError> {
    let key = (model.uid().to_owned(), volume.name.clone());
    let node = &facts.node_name;
    if !age.is_zero() {
        let known = gatherer.claims.lock().get(&key).cloned();
        if let Some(known) = known {
            if known.driven {
                claim::keep_up(gatherer, model, volume, wishes(model)).await?;
            }
            return Ok(known.volume);
        }
    }
    let made = claim::prepare(gatherer, model, volume, wishes(model), node).await?;
    let made = made.ok_or_else(|| VolumeError::Unsupported {
        volume: volume.name.clone(),
        source_name: source_name(volume),
    })?;
    gatherer.claims.lock().insert(key, made.clone());
    Ok(made.volume)
}

/// A volume that a driver makes for the pod alone.
async fn of_driver(
    gatherer: &Gatherer,
    model: &PodModel,
    volume: &Volume,
    age: SignedDuration,
) -> Result<MountedVolume, VolumeError> {
    let Some(source) = &volume.csi else {
        return Err(VolumeError::set_up(&volume.name, "it has no driver"));
    };
    let key = (model.uid().to_owned(), volume.name.clone());
    let wanted = Wanted {
        model,
        volume: &volume.name,
        source: Source::Inline(source),
        wishes: wishes(model),
        read_only: source.read_only.unwrap_or(false),
        tokens: &gatherer.tokens,
    };
    if !age.is_zero() {
        let known = gatherer.claims.lock().get(&key).cloned();
        if let Some(known) = known {
            gatherer.csi.keep_up(wanted).await?;
            return Ok(known.volume);
        }
    }
    let made = gatherer.csi.set_up(wanted).await?;
    let known = claim::Made {
        volume: made.clone(),
        driven: true,
    };
    gatherer.claims.lock().insert(key, known);
    Ok(made)
}

fn wishes(model: &PodModel) -> claim::Wishes {
    let context = model.spec().and_then(|spec| spec.security_context.as_ref());
    let policy = context.and_then(|context| context.fs_group_change_policy.as_deref());
    claim::Wishes {
        fs_group: fs_group(model),
        only_on_mismatch: policy == Some("OnRootMismatch"),
    }
}

fn fs_group(model: &PodModel) -> Option<u32> {
    let context = model.spec()?.security_context.as_ref()?;
    u32::try_from(context.fs_group?).ok()
}

/// File work away from the threads that serve requests.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T, String>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, String> + Send + 'static,
{
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(error.to_string()))
}

/// The field that names a volume's source.
fn source_name(volume: &Volume) -> String {
    let value = serde_json::to_value(volume).unwrap_or_default();
    value
        .as_object()
        .and_then(|fields| fields.keys().find(|key| *key != "name").cloned())
        .unwrap_or_else(|| "(none)".to_owned())
}
