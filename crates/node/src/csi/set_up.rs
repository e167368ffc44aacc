//! Making a pod's volume: in use, attached, staged, published, given to its group, grown.

use std::collections::BTreeMap;
use std::path::PathBuf;

use evenkeel_client::Api;
use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, CSIVolumeSource, Node, ObjectReference, PersistentVolume,
    PersistentVolumeClaim, Secret, ServiceAccountTokenProjection,
};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use kube::Resource as _;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use evenkeel_api::quantity::Quantity;

use super::driver::Driver;
use super::uses::{Data, Key};
use super::{Csi, facts, proto};
use crate::events::Kind;
use crate::pod::model::PodModel;
use crate::volume::claim::Wishes;
use crate::volume::payload::api_text;
use crate::volume::token::Tokens;
use crate::volume::{MountedVolume, VolumeError, blocking, ownership, release};

/// What a volume is made from.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// A claim, its volume and what that is.
    Claim(
        &'a PersistentVolumeClaim,
        &'a PersistentVolume,
        &'a CSIPersistentVolumeSource,
    ),
    /// The pod itself.
    Inline(&'a CSIVolumeSource),
}

/// A pod's wish for a volume.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The pod.
    pub model: &'a PodModel,
    /// The volume's name in it.
    pub volume: &'a str,
    /// What it is made from.
    pub source: Source<'a>,
    /// How it is handed over.
    pub wishes: Wishes,
    /// To be read only.
    pub read_only: bool,
    /// Where tokens for the driver come from.
    pub tokens: &'a Tokens,
}

/// The parts of a volume that a driver is told, whatever it is made from.
struct Parts {
    /// Name that events and paths have for it.
    name: String,
    key: Key,
    fs_type: String,
    attributes: BTreeMap<String, String>,
    options: Vec<String>,
    mode: String,
    ephemeral: bool,
    /// Namespace and name.
    publish_secret: Option<(String, String)>,
    stage_secret: Option<(String, String)>,
    expand_secret: Option<(String, String)>,
}

fn parts(wanted: &Wanted<'_>) -> Parts {
    match wanted.source {
        Source::Claim(_, volume, source) => {
            let spec = volume.spec.as_ref();
            let modes = spec.and_then(|it| it.access_modes.as_ref());
            let secret = |of: &Option<k8s_openapi::api::core::v1::SecretReference>| {
                let of = of.as_ref()?;
                Some((of.namespace.clone()?, of.name.clone()?))
            };
            Parts {
                name: volume.metadata.name.clone().unwrap_or_default(),
                key: (source.driver.clone(), source.volume_handle.clone()),
                fs_type: source.fs_type.clone().unwrap_or_default(),
                attributes: source.volume_attributes.clone().unwrap_or_default(),
                options: spec
                    .and_then(|it| it.mount_options.clone())
                    .unwrap_or_default(),
                mode: modes
                    .and_then(|all| all.first().cloned())
                    .unwrap_or_else(|| "ReadWriteOnce".to_owned()),
                ephemeral: false,
                publish_secret: secret(&source.node_publish_secret_ref),
                stage_secret: secret(&source.node_stage_secret_ref),
                expand_secret: secret(&source.node_expand_secret_ref),
            }
        }
        Source::Inline(source) => {
            let model = wanted.model;
            let handle = facts::inline_handle(model.uid(), wanted.volume);
            let secret = source.node_publish_secret_ref.as_ref();
            Parts {
                name: wanted.volume.to_owned(),
                key: (source.driver.clone(), handle),
                fs_type: source.fs_type.clone().unwrap_or_default(),
                attributes: source.volume_attributes.clone().unwrap_or_default(),
                options: Vec::new(),
                mode: "ReadWriteOnce".to_owned(),
                ephemeral: true,
                publish_secret: secret.map(|it| (model.namespace().to_owned(), it.name.clone())),
                stage_secret: None,
                expand_secret: None,
            }
        }
    }
}

impl Csi {
    /// Makes a pod's volume, or makes sure of it.
    ///
    /// # Errors
    /// In kubelet's words: what is missing, or what the driver says.
    pub async fn set_up(&self, wanted: Wanted<'_>) -> Result<MountedVolume, VolumeError> {
        let parts = parts(&wanted);
        let fail = |message: String| VolumeError::set_up(&parts.name, message);
        let object = self.object(&parts.key.0).await.map_err(fail)?;
        let object = object.as_ref();
        let lock = self.lock(&parts.key);
        let _one = lock.lock().await;
        let attaches = !parts.ephemeral && facts::attaches(object);
        let uid = wanted.model.uid();
        self.uses.add(&parts.key, uid, attaches);
        let context = if attaches {
            self.attached(&wanted, &parts).await?
        } else {
            BTreeMap::new()
        };
        let (driver, staged) = self.stage(&wanted, &parts, attaches, &context).await?;
        facts::supports_mode(object, &driver.name, parts.ephemeral).map_err(|why| {
            fail(format!(
                "kubernetes.io/csi: mounter.SetupAt failed to check volume lifecycle mode: {why}"
            ))
        })?;
        let target = self
            .publish(&wanted, &parts, &driver, object, attaches, context, &staged)
            .await
            .map_err(fail)?;
        let policy = object.and_then(|it| it.spec.fs_group_policy.as_deref());
        let spec = match wanted.source {
            Source::Claim(_, volume, _) => volume.spec.as_ref(),
            Source::Inline(_) => None,
        };
        let by_driver = driver.can(proto::VOLUME_MOUNT_GROUP);
        let gives = facts::gives_to_group(policy, &parts.fs_type, spec, wanted.read_only);
        if let Some(group) = wanted.wishes.fs_group.filter(|_| gives && !by_driver) {
            let (at, only) = (target.clone(), wanted.wishes.only_on_mismatch);
            blocking(move || ownership::give(&at, group, only))
                .await
                .map_err(|why| {
                    fail(format!(
                        "applyFSGroup failed for vol {}: {why}",
                        parts.key.1
                    ))
                })?;
        }
        if let Source::Claim(claim, volume, _) = wanted.source {
            self.expand(
                &wanted,
                &parts,
                &driver,
                (claim, volume),
                (staged.as_str(), target.as_path()),
            )
            .await
            .map_err(fail)?;
        }
        Ok(MountedVolume {
            path: target,
            read_only: wanted.read_only,
        })
    }

    /// What is to be done from time to time about a volume that is published: drivers may want
    /// to publish again, and claims grow.
    ///
    /// # Errors
    /// As [`Self::set_up`].
    pub async fn keep_up(&self, wanted: Wanted<'_>) -> Result<(), VolumeError> {
        let parts = parts(&wanted);
        let fail = |message: String| VolumeError::set_up(&parts.name, message);
        let object = self.object(&parts.key.0).await.map_err(fail)?;
        let again = object.and_then(|it| it.spec.requires_republish) == Some(true);
        let grows = match wanted.source {
            Source::Claim(claim, volume, _) => larger(claim, volume).is_some(),
            Source::Inline(_) => false,
        };
        if again || grows {
            self.set_up(wanted).await?;
        }
        Ok(())
    }

    async fn object(&self, driver: &str) -> Result<Option<CSIDriver>, String> {
        let api: Api<CSIDriver> = Api::all(self.client.clone());
        let found = api.get_opt(driver).await;
        found.map_err(|error| api_text(&error))
    }

    async fn secret(
        &self,
        what: &str,
        of: Option<&(String, String)>,
    ) -> Result<BTreeMap<String, String>, String> {
        let Some((namespace, name)) = of else {
            return Ok(BTreeMap::new());
        };
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let found = api.get(name).await.map_err(|error| {
            format!(
                "fetching {what} {namespace}/{name} failed: {}",
                api_text(&error)
            )
        })?;
        let data = found.data.unwrap_or_default().into_iter();
        Ok(data
            .map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned()))
            .collect())
    }

    /// What the attachment gives to those who use it, once the volume is attached.
    async fn attached(
        &self,
        wanted: &Wanted<'_>,
        parts: &Parts,
    ) -> Result<BTreeMap<String, String>, VolumeError> {
        let wait = |why: String| VolumeError::Waiting {
            volume: wanted.volume.to_owned(),
            why,
        };
        self.report().await.map_err(wait)?;
        let (driver, handle) = &parts.key;
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = nodes.get(&self.node).await;
        let node = node.map_err(|error| wait(api_text(&error)))?;
        let name = facts::unique_name(driver, handle);
        let status = node.status.unwrap_or_default();
        let attached = status.volumes_attached.unwrap_or_default();
        if !attached.iter().any(|volume| volume.name == name) {
            return Err(wait(format!(
                "volume not attached according to node status for volume {:?}",
                parts.name
            )));
        }
        let id = facts::attachment_name(handle, driver, &self.node);
        let api: Api<VolumeAttachment> = Api::all(self.client.clone());
        let attachment = api.get(&id).await.map_err(|error| {
            wait(format!(
                "volume {handle} has GET error for volume attachment {id}: {}",
                api_text(&error)
            ))
        })?;
        let status = attachment.status.unwrap_or_default();
        if attachment.metadata.deletion_timestamp.is_some() || !status.attached {
            return Err(wait(format!("volume attachment {id} is not attached")));
        }
        Ok(status.attachment_metadata.unwrap_or_default())
    }

    fn capability(
        &self,
        wanted: &Wanted<'_>,
        parts: &Parts,
        driver: &Driver,
    ) -> Result<proto::VolumeCapability, String> {
        let group = wanted.wishes.fs_group;
        let group = group.filter(|_| driver.can(proto::VOLUME_MOUNT_GROUP));
        Ok(proto::VolumeCapability {
            mount: Some(proto::MountVolume {
                fs_type: parts.fs_type.clone(),
                mount_flags: parts.options.clone(),
                volume_mount_group: group.map(|it| it.to_string()).unwrap_or_default(),
            }),
            access_mode: Some(proto::AccessMode {
                mode: facts::access_mode(&parts.mode, driver)?,
            }),
        })
    }

    /// Stages the volume, where the driver does that; the path is empty where it does not.
    async fn stage(
        &self,
        wanted: &Wanted<'_>,
        parts: &Parts,
        attaches: bool,
        context: &BTreeMap<String, String>,
    ) -> Result<(Driver, String), VolumeError> {
        let fail = |message: String| VolumeError::MountDevice {
            volume: parts.name.clone(),
            message,
        };
        let (name, handle) = &parts.key;
        let driver = self.driver(name).map_err(|why| {
            if parts.ephemeral {
                let why =
                    format!("kubernetes.io/csi: mounter.SetUpAt failed to get CSI client: {why}");
                return VolumeError::set_up(&parts.name, why);
            }
            fail(format!(
                "kubernetes.io/csi: attacher.MountDevice failed to create newCsiDriverClient: {why}"
            ))
        })?;
        if parts.ephemeral || !driver.can(proto::STAGE_UNSTAGE_VOLUME) {
            return Ok((driver, String::new()));
        }
        let secrets = self
            .secret("NodeStageSecretRef", parts.stage_secret.as_ref())
            .await
            .map_err(fail)?;
        let directory = facts::staging_dir(&self.root, name, handle);
        let path = directory.join("globalmount");
        let data = Data {
            driver_name: name.clone(),
            volume_handle: handle.clone(),
            attach_required: attaches.to_string(),
            ..Data::default()
        };
        let (at, beside) = (path.clone(), directory);
        blocking(move || {
            if !release::is_mount(&at)? {
                release::make_dir(&at, 0o750)?;
            }
            data.save(&beside)
        })
        .await
        .map_err(fail)?;
        let staged = path.to_string_lossy().into_owned();
        if self.staged.lock().contains(&parts.key) {
            return Ok((driver, staged));
        }
        let request = proto::NodeStageVolumeRequest {
            volume_id: handle.clone(),
            publish_context: context.clone(),
            staging_target_path: staged.clone(),
            volume_capability: Some(self.capability(wanted, parts, &driver).map_err(fail)?),
            secrets,
            volume_context: parts.attributes.clone(),
        };
        driver
            .call::<proto::Empty>("NodeStageVolume", &request)
            .await
            .map_err(|error| fail(error.rpc_text()))?;
        self.staged.lock().insert(parts.key.clone());
        Ok((driver, staged))
    }

    #[allow(clippy::too_many_arguments, reason = "what the call's message has")]
    async fn publish(
        &self,
        wanted: &Wanted<'_>,
        parts: &Parts,
        driver: &Driver,
        object: Option<&CSIDriver>,
        attaches: bool,
        context: BTreeMap<String, String>,
        staged: &str,
    ) -> Result<PathBuf, String> {
        let (name, handle) = &parts.key;
        let model = wanted.model;
        let mut secrets = self
            .secret("NodePublishSecretRef", parts.publish_secret.as_ref())
            .await?;
        let mut attributes = parts.attributes.clone();
        if object.and_then(|it| it.spec.pod_info_on_mount) == Some(true) {
            attributes.extend(facts::pod_info(model, parts.ephemeral));
        }
        if let Some(object) = object
            && let Some(tokens) = tokens(wanted, object).await?
        {
            let key = "csi.storage.k8s.io/serviceAccount.tokens".to_owned();
            let secret = object.spec.service_account_token_in_secrets == Some(true);
            let into = if secret {
                &mut secrets
            } else {
                &mut attributes
            };
            into.insert(key, tokens);
        }
        let mode = if parts.ephemeral {
            "Ephemeral"
        } else {
            "Persistent"
        };
        let data = Data {
            driver_name: name.clone(),
            volume_handle: handle.clone(),
            spec_vol_id: parts.name.clone(),
            node_name: self.node.clone(),
            volume_lifecycle_mode: mode.to_owned(),
            attachment_id: facts::attachment_name(handle, name, &self.node),
            attach_required: attaches.to_string(),
        };
        let directory = facts::published_dir(&self.root, model.uid(), &parts.name);
        let beside = directory.clone();
        blocking(move || {
            release::make_dir(&beside, 0o750)?;
            data.save(&beside)
        })
        .await?;
        let target = directory.join("mount");
        let request = proto::NodePublishVolumeRequest {
            volume_id: handle.clone(),
            publish_context: context,
            staging_target_path: staged.to_owned(),
            target_path: target.to_string_lossy().into_owned(),
            volume_capability: Some(self.capability(wanted, parts, driver)?),
            readonly: wanted.read_only,
            secrets,
            volume_context: attributes,
        };
        driver
            .call::<proto::Empty>("NodePublishVolume", &request)
            .await
            .map_err(|error| error.rpc_text())?;
        let at = target.clone();
        blocking(move || match std::fs::metadata(&at) {
            Ok(meta) if meta.is_dir() => Ok(()),
            Ok(_) => Err(format!("{} is no directory", at.display())),
            Err(error) => Err(format!(
                "the driver published nothing: {}: {error}",
                at.display()
            )),
        })
        .await?;
        Ok(target)
    }

    /// Grows the file system of a claim that its volume is ahead of, and says so.
    async fn expand(
        &self,
        wanted: &Wanted<'_>,
        parts: &Parts,
        driver: &Driver,
        (claim, volume): (&PersistentVolumeClaim, &PersistentVolume),
        (staged, target): (&str, &std::path::Path),
    ) -> Result<(), String> {
        let Some(size) = larger(claim, volume) else {
            return Ok(());
        };
        if driver.can(proto::EXPAND_VOLUME) {
            let bytes = size.parse::<Quantity>().map_or(0, |size| size.units());
            let request = proto::NodeExpandVolumeRequest {
                volume_id: parts.key.1.clone(),
                volume_path: target.to_string_lossy().into_owned(),
                capacity_range: Some(proto::CapacityRange {
                    required_bytes: bytes,
                    limit_bytes: 0,
                }),
                staging_target_path: staged.to_owned(),
                volume_capability: Some(self.capability(wanted, parts, driver)?),
                secrets: self
                    .secret("NodeExpandSecretRef", parts.expand_secret.as_ref())
                    .await?,
            };
            driver
                .call::<proto::NodeExpandVolumeResponse>("NodeExpandVolume", &request)
                .await
                .map_err(|error| format!("NodeExpandVolume failed: {}", error.rpc_text()))?;
        }
        let conditions = claim.status.as_ref().and_then(|it| it.conditions.clone());
        let mut conditions = conditions.unwrap_or_default();
        conditions
            .retain(|it| !matches!(it.type_.as_str(), "FileSystemResizePending" | "Resizing"));
        let mut patch = json!({
            "metadata": {
                "uid": claim.metadata.uid,
                "resourceVersion": claim.metadata.resource_version,
            },
            "status": {
                "capacity": {"storage": size},
                "conditions": conditions,
            },
        });
        let status = claim.status.as_ref();
        if status.is_some_and(|it| it.allocated_resource_statuses.is_some()) {
            patch["status"]["allocatedResourceStatuses"] = json!({"storage": null});
        }
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .map_err(|error| {
                format!("the claim's capacity is not written: {}", api_text(&error))
            })?;
        let text = format!(
            "MountVolume.NodeExpandVolume succeeded for volume {:?} {}",
            parts.name, self.node
        );
        let reason = "FileSystemResizeSuccessful";
        let recorder = &self.recorder;
        recorder.pod(wanted.model, Kind::Normal, reason, text.clone());
        let about: ObjectReference = claim.object_ref(&());
        recorder.record(about, Kind::Normal, reason, text);
        Ok(())
    }
}

/// The size of a volume that has more than its claim says.
fn larger(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<String> {
    let size = volume.spec.as_ref()?.capacity.as_ref()?.get("storage")?;
    let has = claim.status.as_ref()?.capacity.as_ref()?.get("storage")?;
    let (more, less): (Quantity, Quantity) = (size.0.parse().ok()?, has.0.parse().ok()?);
    // A volume that was larger than asked for from the start is not one that has grown.
    let asked = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    let asked: Quantity = asked.get("storage")?.0.parse().ok()?;
    (more > less && asked > less).then(|| size.0.clone())
}

/// The tokens that a driver wants of the pod's account, as JSON by audience.
async fn tokens(wanted: &Wanted<'_>, object: &CSIDriver) -> Result<Option<String>, String> {
    let requests = object.spec.token_requests.as_deref().unwrap_or_default();
    if requests.is_empty() {
        return Ok(None);
    }
    let mut all = serde_json::Map::new();
    for request in requests {
        let projection = ServiceAccountTokenProjection {
            audience: Some(request.audience.clone()).filter(|it| !it.is_empty()),
            expiration_seconds: request.expiration_seconds,
            path: format!("csi {}", request.audience),
            user: None,
        };
        let (token, until) = wanted
            .tokens
            .token_until(wanted.model, wanted.volume, &projection)
            .await?;
        let until = until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let told = json!({"token": token, "expirationTimestamp": until});
        all.insert(request.audience.clone(), told);
    }
    Ok(Some(serde_json::Value::Object(all).to_string()))
}
