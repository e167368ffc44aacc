//! What config map, secret, downward API and projected volumes contain.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Volume, VolumeProjection};

use super::atomic::FileEntry;
use super::claim::Made;
use super::local::LocalVolumes;
use super::pod_certificate::PodCertificates;
use super::token::Tokens;
use super::trust::Bundles;
use crate::csi::Csi;
use crate::objects::Objects;
use crate::pod::model::PodModel;
use crate::spec::fields::{NodeFacts, field, resource};

/// Mode of files when neither the volume nor the item says another.
const DEFAULT_MODE: i32 = 0o644;

/// Gathers contents through the API.
#[derive(Debug)]
pub struct Gatherer {
    /// The agent's directory.
    pub root: PathBuf,
    /// Where config maps and secrets come from.
    pub objects: Arc<Objects>,
    /// Where service account tokens come from.
    pub tokens: Tokens,
    /// Where pods' own certificates come from.
    pub certificates: PodCertificates,
    /// Where the certificates come from that others are trusted by.
    pub bundles: Bundles,
    /// Volumes that are directories of this node.
    pub local: LocalVolumes,
    /// Volumes that drivers make.
    pub csi: Csi,
    /// Volumes of claims and drivers that are prepared, by pod and name.
    pub claims: parking_lot::Mutex<HashMap<(String, String), Made>>,
}

/// Directory name of the plugin that kubelet has for a volume's source, and whether its content
/// must not reach a disk. `None` for sources that are not made of API objects.
#[must_use]
pub fn plugin(volume: &Volume) -> Option<(&'static str, bool)> {
    if volume.config_map.is_some() {
        Some(("configmap", false))
    } else if volume.secret.is_some() {
        Some(("secret", true))
    } else if volume.projected.is_some() {
        Some(("projected", true))
    } else if volume.downward_api.is_some() {
        Some(("downward-api", false))
    } else {
        None
    }
}

/// Does the volume change with other objects, its driver's wishes or its claim's size?
#[must_use]
pub fn refreshable(volume: &Volume) -> bool {
    plugin(volume).is_some()
        || volume.csi.is_some()
        || volume.persistent_volume_claim.is_some()
        || volume.ephemeral.is_some()
}

type Files = Vec<FileEntry>;

impl Gatherer {
    /// Forgets what was prepared for a pod.
    pub fn forget(&self, uid: &str) {
        self.tokens.forget(uid);
        self.certificates.forget(uid);
        self.claims.lock().retain(|(pod, _), _| pod != uid);
    }

    /// When something in a pod's volumes is to be replaced.
    #[must_use]
    pub fn renew_at(&self, uid: &str) -> Option<Timestamp> {
        let times = [self.tokens.renew_at(uid), self.certificates.renew_at(uid)];
        times.into_iter().flatten().min()
    }

    /// The files of a volume.
    ///
    /// # Errors
    /// In kubelet's words: what is missing.
    pub async fn gather(
        &self,
        model: &PodModel,
        facts: &NodeFacts,
        volume: &Volume,
        age: SignedDuration,
    ) -> Result<Files, String> {
        if let Some(source) = &volume.config_map {
            let style = Style::new(source.default_mode, source.default_user)?;
            let keyed = Keyed::new(
                KeyedKind::ConfigMap,
                &source.name,
                &source.items,
                source.optional,
            );
            return self.keyed(model, keyed, style, age).await;
        }
        if let Some(source) = &volume.secret {
            let style = Style::new(source.default_mode, source.default_user)?;
            let name = source.secret_name.as_deref().unwrap_or_default();
            let keyed = Keyed::new(KeyedKind::Secret, name, &source.items, source.optional);
            return self.keyed(model, keyed, style, age).await;
        }
        if let Some(source) = &volume.downward_api {
            let style = Style::new(source.default_mode, source.default_user)?;
            return downward(
                model,
                facts,
                source.items.as_deref().unwrap_or_default(),
                style,
            );
        }
        if let Some(source) = &volume.projected {
            let style = Style::new(source.default_mode, source.default_user)?;
            let sources = source.sources.as_deref().unwrap_or_default();
            let sources = sources.iter().enumerate();
            let parts = futures::future::join_all(sources.map(|(index, projection)| {
                let at = (volume.name.as_str(), index);
                self.projection(model, facts, at, projection, style, age)
            }))
            .await;
            let (mut files, mut errors) = (Vec::new(), Vec::new());
            for part in parts {
                match part {
                    Ok(more) => files.extend(more),
                    Err(error) => errors.push(error),
                }
            }
            return match errors.as_slice() {
                [] => Ok(files),
                [one] => Err(one.clone()),
                many => Err(format!("[{}]", many.join(", "))),
            };
        }
        Err("no source".to_owned())
    }

    async fn projection(
        &self,
        model: &PodModel,
        facts: &NodeFacts,
        (volume, index): (&str, usize),
        projection: &VolumeProjection,
        style: Style,
        age: SignedDuration,
    ) -> Result<Files, String> {
        if let Some(source) = &projection.config_map {
            let keyed = Keyed::new(
                KeyedKind::ConfigMap,
                &source.name,
                &source.items,
                source.optional,
            );
            return self.keyed(model, keyed, style, age).await;
        }
        if let Some(source) = &projection.secret {
            let keyed = Keyed::new(
                KeyedKind::Secret,
                &source.name,
                &source.items,
                source.optional,
            );
            return self.keyed(model, keyed, style, age).await;
        }
        if let Some(source) = &projection.downward_api {
            return downward(
                model,
                facts,
                source.items.as_deref().unwrap_or_default(),
                style,
            );
        }
        if let Some(source) = &projection.service_account_token {
            let token = self.tokens.token(model, volume, source).await?;
            let guarded = Guarded::new(model, style, source.user)?;
            return Ok(vec![guarded.file(&source.path, token.into_bytes())]);
        }
        if let Some(source) = &projection.cluster_trust_bundle {
            let anchors = self.bundles.anchors(source, age).await?;
            let guarded = Guarded::new(model, style, source.user)?;
            return Ok(vec![guarded.file(&source.path, anchors)]);
        }
        if let Some(source) = &projection.pod_certificate {
            let certificates = &self.certificates;
            let made = certificates
                .credentials(model, volume, index, source)
                .await?;
            let guarded = Guarded::new(model, style, source.user)?;
            let both = format!("{}{}", made.key, made.chain);
            let files = [
                (&source.credential_bundle_path, both),
                (&source.key_path, made.key),
                (&source.certificate_chain_path, made.chain),
            ];
            let wanted = files.into_iter().filter_map(|(path, text)| {
                let path = path.as_deref().filter(|path| !path.is_empty())?;
                Some(guarded.file(path, text.into_bytes()))
            });
            return Ok(wanted.collect());
        }
        Ok(Vec::new())
    }

    /// The files of a config map or secret.
    async fn keyed(
        &self,
        model: &PodModel,
        source: Keyed<'_>,
        style: Style,
        age: SignedDuration,
    ) -> Result<Files, String> {
        let (namespace, name) = (model.namespace(), source.name);
        let failed = |error: kube::Error| api_text(&error);
        let objects = &self.objects;
        // The object is held while its bytes are borrowed.
        let (map, secret);
        let data: Option<BTreeMap<&str, &[u8]>> = match source.kind {
            KeyedKind::ConfigMap => {
                map = objects
                    .config_map(namespace, name, age)
                    .await
                    .map_err(failed)?;
                map.as_ref().map(|map| {
                    let text = map.data.iter().flatten();
                    let binary = map.binary_data.iter().flatten();
                    text.map(|(key, value)| (key.as_str(), value.as_bytes()))
                        .chain(binary.map(|(key, value)| (key.as_str(), value.0.as_slice())))
                        .collect()
                })
            }
            KeyedKind::Secret => {
                secret = objects.secret(namespace, name, age).await.map_err(failed)?;
                secret.as_ref().map(|secret| {
                    let data = secret.data.iter().flatten();
                    data.map(|(key, value)| (key.as_str(), value.0.as_slice()))
                        .collect()
                })
            }
        };
        match data {
            Some(data) => pick(&data, &source, style),
            None if source.optional => Ok(Vec::new()),
            None => Err(format!("{} \"{name}\" not found", source.kind.word())),
        }
    }
}

/// The kinds whose keys become files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyedKind {
    ConfigMap,
    Secret,
}

impl KeyedKind {
    /// As kubelet's messages say it.
    fn word(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        }
    }
}

/// A reference to a config map or secret whose keys become files.
#[derive(Debug, Clone, Copy)]
struct Keyed<'a> {
    kind: KeyedKind,
    name: &'a str,
    items: Option<&'a [KeyToPath]>,
    optional: bool,
}

impl<'a> Keyed<'a> {
    fn new(
        kind: KeyedKind,
        name: &'a str,
        items: &'a Option<Vec<KeyToPath>>,
        optional: Option<bool>,
    ) -> Self {
        Self {
            kind,
            name,
            items: items.as_deref().filter(|items| !items.is_empty()),
            optional: optional == Some(true),
        }
    }
}

/// What the API said, without the client's frame around it.
pub(crate) fn api_text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

#[derive(Debug, Clone, Copy)]
struct Style {
    mode: u32,
    user: Option<u32>,
}

impl Style {
    fn new(mode: Option<i32>, user: Option<i64>) -> Result<Self, String> {
        Ok(Self {
            mode: bits(mode.unwrap_or(DEFAULT_MODE))?,
            user: user.map(uid).transpose()?,
        })
    }
}

/// How a file is kept that says who a pod is, or whom it trusts.
#[derive(Debug, Clone, Copy)]
struct Guarded {
    mode: u32,
    user: Option<u32>,
}

impl Guarded {
    fn new(model: &PodModel, style: Style, user: Option<i64>) -> Result<Self, String> {
        let fs_user = common_user(model);
        let fs_group = model
            .spec()
            .and_then(|spec| spec.security_context.as_ref())
            .and_then(|context| context.fs_group);
        // With an owner or a group to give the file to, nobody else needs to read it.
        let mode = if fs_user.is_some() || fs_group.is_some() {
            0o600
        } else {
            style.mode
        };
        let user = user.map(uid).transpose()?.or(style.user).or(fs_user);
        Ok(Self { mode, user })
    }

    fn file(self, path: &str, data: Vec<u8>) -> FileEntry {
        FileEntry {
            path: path.to_owned(),
            data,
            mode: self.mode,
            user: self.user,
        }
    }
}

fn bits(mode: i32) -> Result<u32, String> {
    u32::try_from(mode).map_err(|_| format!("invalid mode {mode}"))
}

fn uid(user: i64) -> Result<u32, String> {
    u32::try_from(user).map_err(|_| format!("invalid user {user}"))
}

/// The user all containers of a pod run as, when the specification says so for each.
fn common_user(model: &PodModel) -> Option<u32> {
    let pod_user = model
        .spec()
        .and_then(|spec| spec.security_context.as_ref())
        .and_then(|context| context.run_as_user);
    let mut users = model.containers.iter().map(|container| {
        let own = container.spec.security_context.as_ref();
        own.and_then(|own| own.run_as_user).or(pod_user)
    });
    let first = users.next()??;
    users
        .all(|user| user == Some(first))
        .then(|| u32::try_from(first).ok())
        .flatten()
}

fn pick(data: &BTreeMap<&str, &[u8]>, source: &Keyed<'_>, style: Style) -> Result<Files, String> {
    let entry = |path: &str, value: &[u8], mode: u32, user: Option<u32>| FileEntry {
        path: path.to_owned(),
        data: value.to_vec(),
        mode,
        user,
    };
    let Some(items) = source.items else {
        return Ok(data
            .iter()
            .map(|(key, value)| entry(key, value, style.mode, style.user))
            .collect());
    };
    let mut files = Vec::with_capacity(items.len());
    for item in items {
        match data.get(item.key.as_str()) {
            Some(value) => {
                let mode = item.mode.map(bits).transpose()?.unwrap_or(style.mode);
                let user = item.user.map(uid).transpose()?.or(style.user);
                files.push(entry(&item.path, value, mode, user));
            }
            None if source.optional => {}
            None => {
                return Err(match source.kind {
                    KeyedKind::ConfigMap => {
                        format!("configmap references non-existent config key: {}", item.key)
                    }
                    KeyedKind::Secret => {
                        format!("references non-existent secret key: {}", item.key)
                    }
                });
            }
        }
    }
    Ok(files)
}

fn downward(
    model: &PodModel,
    facts: &NodeFacts,
    items: &[DownwardAPIVolumeFile],
    style: Style,
) -> Result<Files, String> {
    items
        .iter()
        .map(|item| {
            let text = if let Some(reference) = &item.field_ref {
                field(model, facts, &reference.field_path).map_err(|error| error.to_string())?
            } else if let Some(reference) = &item.resource_field_ref {
                resource(model, facts, None, reference).map_err(|error| error.to_string())?
            } else {
                String::new()
            };
            Ok(FileEntry {
                path: item.path.clone(),
                data: text.into_bytes(),
                mode: item.mode.map(bits).transpose()?.unwrap_or(style.mode),
                user: item.user.map(uid).transpose()?.or(style.user),
            })
        })
        .collect()
}
