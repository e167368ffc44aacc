//! Claims, volumes and storage classes as the scheduler reads them, and which volume on which
//! node would serve a claim. Pure: nothing is bound here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use evenkeel_api::placement::NodeTerm;
use evenkeel_api::quantity::Quantity;
use evenkeel_api::selector::LabelSelector;
use evenkeel_client::ObjectKey;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIStorageCapacity, StorageClass};

use crate::snapshot::NodeInfo;

/// On a claim: the node for which its volume is to be made.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a claim: its binding is complete on both sides.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// The provisioner of classes whose volumes people make.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// What is known of storage.
#[derive(Debug, Default)]
pub struct Storage {
    /// Claims.
    pub claims: HashMap<ObjectKey, Arc<PersistentVolumeClaim>>,
    /// Volumes by name.
    pub volumes: BTreeMap<String, Arc<PersistentVolume>>,
    /// Classes by name.
    pub classes: BTreeMap<String, Arc<StorageClass>>,
    /// How many volumes of a driver a node holds, by node and driver; nothing where nobody says.
    pub csi_nodes: BTreeMap<String, BTreeMap<String, i64>>,
    /// Drivers that tell how much room there is.
    pub counted: BTreeSet<String>,
    /// How much room there is, and where.
    pub capacities: HashMap<ObjectKey, Arc<CSIStorageCapacity>>,
}

/// A claim that a pod uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodClaim {
    /// The claim's name, in the pod's namespace.
    pub name: String,
    /// It is made for this pod from a template.
    pub ephemeral: bool,
}

/// The claims of a pod.
#[must_use]
pub fn pod_claims(pod: &Pod) -> Vec<PodClaim> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    volumes
        .into_iter()
        .flatten()
        .filter_map(|volume| {
            if let Some(source) = &volume.persistent_volume_claim {
                return Some(PodClaim {
                    name: source.claim_name.clone(),
                    ephemeral: false,
                });
            }
            volume.ephemeral.as_ref().map(|_| PodClaim {
                name: format!("{name}-{}", volume.name),
                ephemeral: true,
            })
        })
        .collect()
}

fn annotation<'c>(claim: &'c PersistentVolumeClaim, name: &str) -> Option<&'c str> {
    let annotations = claim.metadata.annotations.as_ref()?;
    annotations.get(name).map(String::as_str)
}

/// The volume that a claim is bound to for good.
#[must_use]
pub fn bound_volume(claim: &PersistentVolumeClaim) -> Option<&str> {
    let name = claim.spec.as_ref()?.volume_name.as_deref()?;
    (!name.is_empty() && annotation(claim, BIND_COMPLETED).is_some()).then_some(name)
}

/// The node for which its volume is being made.
#[must_use]
pub fn selected_node(claim: &PersistentVolumeClaim) -> Option<&str> {
    annotation(claim, SELECTED_NODE).filter(|node| !node.is_empty())
}

fn class_of(claim: &PersistentVolumeClaim) -> &str {
    let spec = claim.spec.as_ref();
    annotation(claim, "volume.beta.kubernetes.io/storage-class")
        .or_else(|| spec?.storage_class_name.as_deref())
        .unwrap_or_default()
}

fn bytes(
    list: Option<&BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>,
) -> i64 {
    let storage = list.and_then(|list| list.get("storage"));
    let parsed = storage.and_then(|text| text.0.parse::<Quantity>().ok());
    parsed.map_or(0, |amount| amount.units())
}

/// Can the volume be reached from the node?
#[must_use]
pub fn reaches(volume: &PersistentVolume, node: &NodeInfo) -> bool {
    let spec = volume.spec.as_ref();
    let required = spec.and_then(|spec| spec.node_affinity.as_ref()?.required.as_ref());
    required.is_none_or(|required| {
        let mut terms = required
            .node_selector_terms
            .iter()
            .filter_map(NodeTerm::read);
        terms.any(|term| term.matches(node))
    })
}

impl Storage {
    /// Does the claim's class bind when a pod comes? A claim without a class that exists does not.
    #[must_use]
    pub fn waits_for_consumer(&self, claim: &PersistentVolumeClaim) -> bool {
        let class = self.classes.get(class_of(claim));
        class.is_some_and(|class| {
            class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
        })
    }

    /// Where a volume of the class has room for the claim; `None` when its driver does not tell.
    #[must_use]
    pub fn room(&self, claim: &PersistentVolumeClaim) -> Option<Vec<LabelSelector>> {
        let class = self.class(claim)?;
        if !self.counted.contains(&class.provisioner) {
            return None;
        }
        let spec = claim.spec.as_ref();
        let resources = spec.and_then(|spec| spec.resources.as_ref());
        let wanted = bytes(resources.and_then(|all| all.requests.as_ref()));
        let found = self.capacities.values().filter_map(|capacity| {
            if Some(&capacity.storage_class_name) != class.metadata.name.as_ref() {
                return None;
            }
            // The largest volume counts, where that is told.
            let largest = capacity.maximum_volume_size.as_ref();
            let room = largest
                .or(capacity.capacity.as_ref())?
                .0
                .parse::<Quantity>();
            let topology = capacity.node_topology.as_ref()?;
            let selector = LabelSelector::from_spec(Some(topology)).ok()?;
            (room.ok()?.units() >= wanted).then_some(selector)
        });
        Some(found.collect())
    }

    /// The class of a claim, if it exists.
    #[must_use]
    pub fn class(&self, claim: &PersistentVolumeClaim) -> Option<&Arc<StorageClass>> {
        self.classes.get(class_of(claim))
    }

    /// The free volumes that could serve the claim, wherever they are: first those that were made
    /// for it, then the smallest.
    #[must_use]
    pub fn candidates(&self, claim: &PersistentVolumeClaim) -> Vec<Arc<PersistentVolume>> {
        let mut found: Vec<(bool, i64, &Arc<PersistentVolume>)> = self
            .volumes
            .values()
            .filter_map(|volume| {
                let made_for_it = serves(volume, claim)?;
                let size = bytes(volume.spec.as_ref()?.capacity.as_ref());
                Some((!made_for_it, size, volume))
            })
            .collect();
        found.sort_by_key(|(other, size, _)| (*other, *size));
        found
            .into_iter()
            .map(|(_, _, volume)| Arc::clone(volume))
            .collect()
    }
}

/// Could a volume of the class be made on the node?
#[must_use]
pub fn provisions(class: &StorageClass, node: &NodeInfo) -> bool {
    if class.provisioner.is_empty() || class.provisioner == NO_PROVISIONER {
        return false;
    }
    let topologies = class.allowed_topologies.as_deref().unwrap_or_default();
    topologies.is_empty()
        || topologies.iter().any(|term| {
            let mut wanted = term.match_label_expressions.iter().flatten();
            wanted.all(|wanted| {
                node.label(&wanted.key)
                    .is_some_and(|value| wanted.values.iter().any(|known| known == value))
            })
        })
}

/// Could the volume serve the claim, and if so, was it made for it?
fn serves(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<bool> {
    let (offer, spec) = (volume.spec.as_ref()?, claim.spec.as_ref()?);
    let wanted = bytes(
        spec.resources
            .as_ref()
            .and_then(|all| all.requests.as_ref()),
    );
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let made_for_it = offer.claim_ref.as_ref().map(|held| {
        let uid = held.uid.as_deref().unwrap_or_default();
        held.name == claim.metadata.name
            && held.namespace == claim.metadata.namespace
            && (uid.is_empty() || Some(uid) == claim.metadata.uid.as_deref())
    });
    let phase = volume
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let free = made_for_it.unwrap_or(phase == Some("Available"));
    let offered = offer.access_modes.as_deref().unwrap_or_default();
    let empty = BTreeMap::new();
    let selected = spec.selector.as_ref().is_none_or(|selector| {
        let labels = volume.metadata.labels.as_ref().unwrap_or(&empty);
        LabelSelector::from_spec(Some(selector)).is_ok_and(|selector| selector.matches(labels))
    });
    let fits = free
        && selected
        && volume.metadata.deletion_timestamp.is_none()
        && offer.storage_class_name.as_deref().unwrap_or_default() == class_of(claim)
        && mode(&offer.volume_mode) == mode(&spec.volume_mode)
        && text(&offer.volume_attributes_class_name) == text(&spec.volume_attributes_class_name)
        && spec
            .access_modes
            .iter()
            .flatten()
            .all(|wanted| offered.contains(wanted))
        && bytes(offer.capacity.as_ref()) >= wanted;
    fits.then_some(made_for_it.unwrap_or(false))
}
