//! Volumes through claims: the claim is read, then its volume, then what the volume is.
//!
//! Local volumes and host paths are handed to containers as they are, those of CSI drivers are made
//! by the drivers ([`crate::csi`]). Everything else is refused by name.

use std::path::{Path, PathBuf};

use evenkeel_api::placement::NodeTerm;
use evenkeel_client::Api;
use k8s_openapi::api::core::v1::{
    Node, NodeSelectorTerm, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, Volume,
};
use kube::Client;

use super::{Gatherer, MountedVolume, VolumeError, blocking, host_path, ownership};
use crate::csi::set_up::{Source, Wanted};
use crate::pod::model::PodModel;

/// The claim that a pod's volume names, and whether it is mounted to be read only.
#[must_use]
pub fn named(model: &PodModel, volume: &Volume) -> Option<(String, bool)> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some((source.claim_name.clone(), source.read_only.unwrap_or(false)));
    }
    let ephemeral = volume.ephemeral.as_ref();
    ephemeral.map(|_| (format!("{}-{}", model.name(), volume.name), false))
}

fn api_text(error: kube::Error) -> String {
    match error {
        kube::Error::Api(answer) => answer.message.clone(),
        other => other.to_string(),
    }
}

/// The claim of a pod and the volume that it is bound to.
async fn bound_volume(
    client: &Client,
    model: &PodModel,
    volume: &Volume,
    claim: &str,
) -> Result<(PersistentVolumeClaim, PersistentVolume), String> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), model.namespace());
    let full = format!("{}/{claim}", model.namespace());
    let found = claims
        .get(claim)
        .await
        .map_err(|error| format!("failed to fetch PVC from API server: {}", api_text(error)))?;
    // A volume that goes must not get another user.
    if found.metadata.deletion_timestamp.is_some() {
        return Err("PVC is being deleted".to_owned());
    }
    if volume.ephemeral.is_some() {
        let owners = found.metadata.owner_references.iter().flatten();
        let mut owners = owners.filter(|owner| owner.controller == Some(true));
        if !owners.any(|owner| owner.uid == model.uid()) {
            return Err(format!(
                "PVC {full} was not created for pod {} (pod is not owner)",
                model.full_name()
            ));
        }
    }
    let name = found
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_name.clone());
    let phase = found
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let Some(name) = name.filter(|name| !name.is_empty() && phase == Some("Bound")) else {
        return Err(format!("PVC {full} is not bound"));
    };
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let bound = volumes.get(&name).await.map_err(|error| {
        format!(
            "failed to get PV {name} from API server: {}",
            api_text(error)
        )
    })?;
    let held = bound.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    if held.is_none_or(|held| held.uid != found.metadata.uid) {
        return Err(format!(
            "PV {name} spec.claimRef is not bound to PVC {full}"
        ));
    }
    Ok((found, bound))
}

/// Can a node reach a volume? A term without requirements matches nothing.
fn reaches(terms: &[NodeSelectorTerm], node: &Node) -> bool {
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let mut terms = terms.iter().filter_map(NodeTerm::read);
    terms.any(|term| term.matches(&(name, &labels)))
}

/// The field that names what a volume is.
fn source_name(spec: &PersistentVolumeSpec) -> String {
    const OTHERS: [&str; 12] = [
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
        "local",
        "hostPath",
        "csi",
    ];
    let value = serde_json::to_value(spec).unwrap_or_default();
    let fields = value.as_object();
    fields
        .and_then(|fields| fields.keys().find(|key| !OTHERS.contains(&key.as_str())))
        .cloned()
        .unwrap_or_else(|| "(none)".to_owned())
}

/// Who may write to a volume and how it is handed over.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wishes {
    /// The pod's group for files.
    pub fs_group: Option<u32>,
    /// Leave a volume alone whose root is right already (`OnRootMismatch`).
    pub only_on_mismatch: bool,
}

/// A volume of a claim or a driver that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Where.
    pub volume: MountedVolume,
    /// A driver made it and may want to be called again.
    pub driven: bool,
}

/// The volume of a claim that a driver made may want to be published again, or to grow.
///
/// # Errors
/// As [`prepare`].
pub async fn keep_up(
    gatherer: &Gatherer,
    model: &PodModel,
    volume: &Volume,
    wishes: Wishes,
) -> Result<(), VolumeError> {
    let Some((claim, read_only)) = named(model, volume) else {
        return Ok(());
    };
    // A claim that can't be read, or goes, changes nothing for a pod that has its volume.
    let client = gatherer.objects.client();
    let Ok((found, bound)) = bound_volume(client, model, volume, &claim).await else {
        return Ok(());
    };
    let Some(source) = bound.spec.as_ref().and_then(|spec| spec.csi.as_ref()) else {
        return Ok(());
    };
    let wanted = Wanted {
        model,
        volume: &volume.name,
        source: Source::Claim(&found, &bound, source),
        wishes,
        read_only,
        tokens: &gatherer.tokens,
    };
    gatherer.csi.keep_up(wanted).await
}

/// Finds the volume of a claim and prepares it for the pod.
///
/// # Errors
/// In kubelet's words where it has some: what is missing, or which source this node does not have.
pub async fn prepare(
    gatherer: &Gatherer,
    model: &PodModel,
    volume: &Volume,
    wishes: Wishes,
    node: &str,
) -> Result<Option<Made>, VolumeError> {
    let (client, local) = (gatherer.objects.client(), &gatherer.local);
    let Some((claim, read_only)) = named(model, volume) else {
        return Ok(None);
    };
    let fail = |message: String| VolumeError::set_up(&volume.name, message);
    let (found, bound) = bound_volume(client, model, volume, &claim)
        .await
        .map_err(|why| {
            fail(format!(
                "error processing PVC {}/{claim}: {why}",
                model.namespace()
            ))
        })?;
    let name = bound.metadata.name.clone().unwrap_or_default();
    let fail = |message: String| VolumeError::set_up(&name, message);
    let spec = bound.spec.clone().unwrap_or_default();
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err(fail(
            "volumeMode Block is not supported by this node".to_owned(),
        ));
    }
    let affinity = spec
        .node_affinity
        .as_ref()
        .and_then(|it| it.required.as_ref());
    if let Some(required) = affinity {
        let nodes: Api<Node> = Api::all(client.clone());
        let this = nodes
            .get(node)
            .await
            .map_err(|error| fail(api_text(error)))?;
        if !reaches(&required.node_selector_terms, &this) {
            return Err(VolumeError::Elsewhere { volume: name });
        }
    }
    let modes = spec.access_modes.clone().unwrap_or_default();
    let only_reading = !modes.is_empty() && modes.iter().all(|mode| mode == "ReadOnlyMany");
    if let Some(source) = &spec.csi {
        let wanted = Wanted {
            model,
            volume: &volume.name,
            source: Source::Claim(&found, &bound, source),
            wishes,
            read_only,
            tokens: &gatherer.tokens,
        };
        let mut volume = gatherer.csi.set_up(wanted).await?;
        volume.read_only |= only_reading;
        return Ok(Some(Made {
            volume,
            driven: true,
        }));
    }
    let (path, is_local) = if let Some(source) = &spec.local {
        let path = match local.ensure(&bound).await.map_err(fail)? {
            Some(path) => path,
            None => PathBuf::from(&source.path),
        };
        if !path.is_dir() {
            return Err(fail(missing(&path)));
        }
        (path, true)
    } else if let Some(source) = &spec.host_path {
        let path = PathBuf::from(&source.path);
        let (checked, type_) = (path.clone(), source.type_.clone().unwrap_or_default());
        blocking(move || host_path::check(&checked, &type_))
            .await
            .map_err(fail)?;
        (path, false)
    } else {
        return Err(VolumeError::Unsupported {
            volume: name,
            source_name: source_name(&spec),
        });
    };
    if let Some(option) = spec.mount_options.iter().flatten().next() {
        return Err(fail(format!(
            "mount option {option:?} is not supported by this node: nothing is mounted but a \
             directory"
        )));
    }
    // Host paths are nobody's to change; what may only be read need not be written.
    if let Some(group) = wishes.fs_group.filter(|_| is_local && !read_only) {
        let at = path.clone();
        blocking(move || ownership::give(&at, group, wishes.only_on_mismatch))
            .await
            .map_err(fail)?;
    }
    Ok(Some(Made {
        volume: MountedVolume {
            path,
            read_only: read_only || only_reading,
        },
        driven: false,
    }))
}

fn missing(path: &Path) -> String {
    format!("path \"{}\" does not exist", path.display())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_reaches_what_one_term_admits() {
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "n",
            "labels": {"zone": "a", "size": "5"}}}))
        .expect("a node");
        let term = |expressions: serde_json::Value,
                    fields: serde_json::Value|
         -> NodeSelectorTerm {
            serde_json::from_value(json!({"matchExpressions": expressions, "matchFields": fields}))
                .expect("a term")
        };
        let one = |key: &str, operator: &str, values: &[&str]| json!([{"key": key, "operator": operator, "values": values}]);
        for (expressions, wanted) in [
            (one("zone", "In", &["b", "a"]), true),
            (one("zone", "In", &["b"]), false),
            (one("zone", "NotIn", &["b"]), true),
            (one("none", "NotIn", &["b"]), true),
            (one("zone", "Exists", &[]), true),
            (one("none", "DoesNotExist", &[]), true),
            (one("size", "Gt", &["4"]), true),
            (one("size", "Lt", &["5"]), false),
        ] {
            let told = expressions.to_string();
            assert_eq!(
                reaches(&[term(expressions, json!([]))], &node),
                wanted,
                "{told}"
            );
        }
        assert!(reaches(
            &[term(json!([]), one("metadata.name", "In", &["n"]))],
            &node
        ));
        assert!(
            !reaches(&[term(json!([]), json!([]))], &node),
            "an empty term matches nothing"
        );
    }

    #[test]
    fn foreign_sources_have_names() {
        let spec = serde_json::from_value(json!({"capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteMany"], "nfs": {"server": "s", "path": "/"}}))
        .expect("a spec");
        assert_eq!(source_name(&spec), "nfs");
    }
}
