//! Who a pod of a StatefulSet is: its ordinal, its names, its volumes.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::history::{HASH_LABEL, label};
use crate::{claim, pod_control};

/// The label with the pod's own name, for a Service of one pod.
pub const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// The label with the pod's ordinal.
pub const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

pub(super) fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// Parent and ordinal as the name of a pod says.
#[must_use]
pub fn parse(pod_name: &str) -> Option<(&str, i32)> {
    let (parent, digits) = pod_name.rsplit_once('-')?;
    let digital = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let ordinal = digits.parse().ok().filter(|_| digital)?;
    Some((parent, ordinal))
}

/// The ordinal of a pod.
#[must_use]
pub fn ordinal(pod: &Pod) -> Option<i32> {
    parse(name(&pod.metadata)).map(|pair| pair.1)
}

/// The name says that the pod belongs to the set.
#[must_use]
pub fn is_member(set: &StatefulSet, pod: &Pod) -> bool {
    parse(name(&pod.metadata)).is_some_and(|pair| pair.0 == name(&set.metadata))
}

/// The first ordinal.
#[must_use]
pub fn start(set: &StatefulSet) -> i32 {
    let ordinals = set.spec.ordinals.as_ref();
    ordinals.and_then(|it| it.start).unwrap_or(0)
}

/// Replicas asked for.
#[must_use]
pub fn wanted(set: &StatefulSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

/// The ordinals the set is to have.
pub fn range(set: &StatefulSet) -> std::ops::Range<i32> {
    start(set)..start(set).saturating_add(wanted(set))
}

/// The pod's ordinal is one that the set is to have.
#[must_use]
pub fn in_range(set: &StatefulSet, pod: &Pod) -> bool {
    ordinal(pod).is_some_and(|ordinal| range(set).contains(&ordinal))
}

/// The revision a pod was made from.
#[must_use]
pub fn revision(pod: &Pod) -> &str {
    label(&pod.metadata, HASH_LABEL)
}

/// The claim's name for an ordinal.
#[must_use]
pub fn claim_name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> String {
    let (template, set) = (name(&template.metadata), name(&set.metadata));
    format!("{template}-{set}-{ordinal}")
}

/// The claims of an ordinal, each with the name of its template.
#[must_use]
pub fn claims(set: &StatefulSet, ordinal: i32) -> Vec<(String, PersistentVolumeClaim)> {
    let templates = set.spec.volume_claim_templates.iter().flatten();
    templates
        .map(|template| {
            let mut claim = template.clone();
            claim.metadata.name = Some(claim_name(set, template, ordinal));
            claim.metadata.namespace = set.metadata.namespace.clone();
            claim.status = None;
            let labels = claim.metadata.labels.get_or_insert_default();
            labels.extend(set.spec.selector.match_labels.clone().unwrap_or_default());
            (name(&template.metadata).to_owned(), claim)
        })
        .collect()
}

/// Labels and name are as the set wants them.
#[must_use]
pub fn identity_matches(set: &StatefulSet, pod: &Pod) -> bool {
    is_member(set, pod) && label(&pod.metadata, POD_NAME) == name(&pod.metadata)
}

/// The pod mounts the claims of its ordinal.
#[must_use]
pub fn storage_matches(set: &StatefulSet, pod: &Pod) -> bool {
    let Some(ordinal) = ordinal(pod) else {
        return false;
    };
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref());
    let volumes = volumes.unwrap_or_default();
    let templates = set.spec.volume_claim_templates.iter().flatten();
    templates.into_iter().all(|template| {
        let wanted = claim_name(set, template, ordinal);
        let found = volumes
            .iter()
            .find(|volume| volume.name == name(&template.metadata))
            .and_then(|volume| volume.persistent_volume_claim.as_ref());
        found.is_some_and(|claim| claim.claim_name == wanted)
    })
}

/// Gives a pod the labels of its ordinal.
pub fn set_identity(pod: &mut Pod, ordinal: i32) {
    let name = name(&pod.metadata).to_owned();
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.to_owned(), name);
    labels.insert(POD_INDEX.to_owned(), ordinal.to_string());
}

/// Lets a pod mount the claims of its ordinal, in place of volumes of the same names.
pub fn set_storage(set: &StatefulSet, pod: &mut Pod, ordinal: i32) {
    let spec = pod.spec.get_or_insert_default();
    let claims = claims(set, ordinal);
    let mut volumes: Vec<Volume> = claims
        .iter()
        .map(|(volume, claim)| Volume {
            name: volume.clone(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: name(&claim.metadata).to_owned(),
                read_only: None,
            }),
            ..Volume::default()
        })
        .collect();
    let others = spec.volumes.take().unwrap_or_default();
    let is_claim = |volume: &Volume| claims.iter().any(|(name, _)| *name == volume.name);
    volumes.extend(others.into_iter().filter(|volume| !is_claim(volume)));
    spec.volumes = Some(volumes).filter(|volumes| !volumes.is_empty());
}

/// The pod of an ordinal from a revision's template.
#[must_use]
pub fn new_pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let mut pod = pod_control::from_template(template, &set.metadata, claim::reference_to(set));
    let name = format!("{}-{ordinal}", name(&set.metadata));
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name.clone());
    set_identity(&mut pod, ordinal);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain = set.spec.service_name.clone().filter(|it| !it.is_empty());
    set_storage(set, &mut pod, ordinal);
    pod
}
