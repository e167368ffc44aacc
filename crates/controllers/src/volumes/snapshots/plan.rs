//! Decides what becomes of a snapshot and of its content: one step at a time, each of which leaves
//! objects from which the next follows.
//!
//! The order is the external controller's: the claim is held, the content is written, its node makes
//! the snapshot and says so, and what it says is shown on the snapshot. Names, finalizers and texts
//! are that controller's too, so that whoever knows it reads what he knows.

use evenkeel_api::local_volume::{
    BEING_DELETED, CONTENT_FINALIZER, FINALIZER, NODE_LABEL, PROVISIONER, SIZE, SNAPSHOTS,
    parse_handle,
};
use evenkeel_api::quantity::Quantity;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::{Value, json};

use super::kinds::{Class, Content, Snapshot, SnapshotStatus};
use crate::volumes::facts::{annotation, capacity, claim_phase, name, volume_name};
use crate::volumes::local_path;
use crate::volumes::plan::Told;

/// Keeps a snapshot that has a content.
pub const BOUND: &str = "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection";
/// Keeps a snapshot from which volumes may be made.
pub const AS_SOURCE: &str = "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection";
/// Keeps a claim while a snapshot of it is made.
pub const CLAIM: &str = "snapshot.storage.kubernetes.io/pvc-as-source-protection";
/// What makes a class the default one of its driver.
pub const DEFAULT_CLASS: &str = "snapshot.storage.kubernetes.io/is-default-class";
/// So long a node may be missing before its snapshots are let go without it.
const NODE_GONE: SignedDuration = SignedDuration::from_mins(5);

/// What a snapshot's plan looks at.
#[derive(Debug, Default)]
pub struct Seen {
    /// The claim it is of.
    pub claim: Option<PersistentVolumeClaim>,
    /// The volume of that claim.
    pub volume: Option<PersistentVolume>,
    /// All classes.
    pub classes: Vec<Class>,
    /// The content that it has, or would have.
    pub content: Option<Content>,
    /// Volumes are being made from it.
    pub restoring: bool,
    /// Other snapshots of the claim are being made.
    pub others: bool,
}

/// What is to be done about a snapshot.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing: it is as it should be, or somebody else's.
    Stay,
    /// It can't be made; said in its status and told.
    Fail(Told),
    /// It gets the default class.
    Class(String),
    /// It is kept by these finalizers from now on.
    Finalizers(Vec<String>),
    /// Its claim is kept by these.
    Claim(Vec<String>),
    /// Its volume's node is made to look.
    Mark,
    /// The content to write.
    Create(Value),
    /// What its content is to be told: a merge patch.
    Content(Value),
    /// The content is deleted.
    Delete,
    /// Volumes are being made from it: it stays for as long.
    Await(Told),
    /// What its status is to be, as a merge patch, and what is told then.
    Status(Value, Vec<Told>),
}

/// The name of the content that is made for a snapshot.
#[must_use]
pub fn content_name(snapshot: &Snapshot) -> String {
    let uid = snapshot.metadata.uid.as_deref().unwrap_or_default();
    format!("snapcontent-{uid}")
}

fn key(snapshot: &Snapshot) -> String {
    let meta = &snapshot.metadata;
    format!(
        "{}/{}",
        meta.namespace.as_deref().unwrap_or_default(),
        name(meta)
    )
}

fn has(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers.iter().flatten().any(|it| it == finalizer)
}

fn with(meta: &ObjectMeta, add: &[&str], remove: &[&str]) -> Option<Vec<String>> {
    let before = meta.finalizers.clone().unwrap_or_default();
    let mut after = before.clone();
    after.retain(|it| !remove.contains(&it.as_str()));
    for finalizer in add {
        if !after.iter().any(|it| it == finalizer) {
            after.push((*finalizer).to_owned());
        }
    }
    (before != after).then_some(after)
}

/// Does the content stand for this snapshot?
#[must_use]
pub fn is_for(content: &Content, snapshot: &Snapshot) -> bool {
    let of = &content.spec.volume_snapshot_ref;
    of.name == snapshot.metadata.name
        && of.namespace == snapshot.metadata.namespace
        && (of.uid.is_none() || of.uid == snapshot.metadata.uid)
}

/// Is a snapshot of a claim being made: asked for, and neither there nor given up?
#[must_use]
pub fn is_under_way(snapshot: &Snapshot) -> bool {
    let status = snapshot.status.as_ref();
    let bound = status.is_some_and(|it| it.bound_volume_snapshot_content_name.is_some());
    let ready = status.and_then(|it| it.ready_to_use) == Some(true);
    bound && !ready && snapshot.metadata.deletion_timestamp.is_none()
}

fn fail(reason: &'static str, message: impl Into<String>) -> Step {
    Step::Fail(Told::warning(reason, message))
}

fn driver(volume: &PersistentVolume) -> &str {
    if local_path::is_ours(volume) {
        return PROVISIONER;
    }
    let csi = volume.spec.as_ref().and_then(|spec| spec.csi.as_ref());
    csi.map_or("", |csi| csi.driver.as_str())
}

/// Whose business is the snapshot? `Ok(None)`: another driver's.
fn class_of<'s>(snapshot: &Snapshot, seen: &'s Seen) -> Result<Option<&'s Class>, Step> {
    let of_volume = seen.volume.as_ref().map(driver);
    if let Some(wanted) = &snapshot.spec.volume_snapshot_class_name {
        let class = seen
            .classes
            .iter()
            .find(|class| name(&class.metadata) == wanted);
        return match class {
            Some(class) if class.driver == PROVISIONER => Ok(Some(class)),
            Some(class) if of_volume == Some(PROVISIONER) => Err(fail(
                "SnapshotContentCreationFailed",
                format!(
                    "Failed to create snapshot content with error the volume of the claim is of \
                     driver {PROVISIONER}, and snapshot class {wanted} of driver {}",
                    class.driver
                ),
            )),
            None if of_volume == Some(PROVISIONER) => Err(fail(
                "GetSnapshotClassFailed",
                format!(
                    "Failed to get snapshot class with error \
                     volumesnapshotclass.snapshot.storage.k8s.io {wanted:?} not found"
                ),
            )),
            _ => Ok(None),
        };
    }
    if of_volume != Some(PROVISIONER) {
        return Ok(None);
    }
    let defaults: Vec<&Class> = seen
        .classes
        .iter()
        .filter(|class| {
            class.driver == PROVISIONER
                && annotation(&class.metadata, DEFAULT_CLASS) == Some("true")
        })
        .collect();
    let failed = |why: String| {
        fail(
            "SetDefaultSnapshotClassFailed",
            format!("Failed to set default snapshot class with error {why}"),
        )
    };
    match defaults.as_slice() {
        [one] => Err(Step::Class(name(&one.metadata).to_owned())),
        [] => Err(failed("cannot find default snapshot class".to_owned())),
        several => Err(failed(format!(
            "{} default snapshot classes were found",
            several.len()
        ))),
    }
}

/// What is to be done next about a snapshot.
#[must_use]
pub fn snapshot(snapshot: &Snapshot, seen: &Seen) -> Step {
    if snapshot.metadata.deletion_timestamp.is_some() {
        return going(snapshot, seen);
    }
    match &snapshot.spec.source.volume_snapshot_content_name {
        Some(content) => given(snapshot, seen, content),
        None => made(snapshot, seen),
    }
}

/// A snapshot of a content that somebody says is there.
fn given(snapshot: &Snapshot, seen: &Seen, wanted: &str) -> Step {
    let Some(content) = &seen.content else {
        // Whose it would be nobody knows; a class of ours says.
        let class = snapshot.spec.volume_snapshot_class_name.as_deref();
        let ours = seen
            .classes
            .iter()
            .any(|found| Some(name(&found.metadata)) == class && found.driver == PROVISIONER);
        return if ours || status(snapshot).is_some_and(is_bound) {
            fail("SnapshotContentMissing", "VolumeSnapshotContent is missing")
        } else {
            Step::Stay
        };
    };
    if content.spec.driver != PROVISIONER {
        return Step::Stay;
    }
    if content.spec.source.snapshot_handle.is_none() {
        return fail(
            "SnapshotContentMismatch",
            "VolumeSnapshotContent is dynamically provisioned while expecting a pre-provisioned one",
        );
    }
    if !is_for(content, snapshot) {
        let text = format!("VolumeSnapshotContent [{wanted}] is bound to a different snapshot");
        return fail("SnapshotContentMisbound", text);
    }
    let handle = content
        .spec
        .source
        .snapshot_handle
        .as_deref()
        .unwrap_or_default();
    let Some((node, _)) = parse_handle(handle) else {
        let text = format!("snapshotHandle {handle:?} of {wanted} is not of the form NODE/NAME");
        return fail("SnapshotContentMismatch", text);
    };
    if let Some(finalizers) = with(&snapshot.metadata, &[AS_SOURCE, BOUND], &[]) {
        return Step::Finalizers(finalizers);
    }
    if content.spec.volume_snapshot_ref.uid.is_none() {
        return Step::Content(json!({"spec": {"volumeSnapshotRef": reference(snapshot)}}));
    }
    let labels = content.metadata.labels.as_ref();
    let label = labels.and_then(|labels| labels.get(NODE_LABEL));
    let finalizers = with(&content.metadata, &[CONTENT_FINALIZER, FINALIZER], &[]);
    if label.map(String::as_str) != Some(node) || finalizers.is_some() {
        let mut metadata = json!({"labels": {NODE_LABEL: node}});
        if let Some(finalizers) = finalizers {
            metadata["finalizers"] = json!(finalizers);
        }
        return Step::Content(json!({"metadata": metadata}));
    }
    shown(snapshot, content)
}

fn reference(snapshot: &Snapshot) -> Value {
    let meta = &snapshot.metadata;
    json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
        "namespace": meta.namespace, "name": meta.name, "uid": meta.uid,
        "resourceVersion": meta.resource_version,
    })
}

/// A snapshot that is made of a claim's volume.
fn made(snapshot: &Snapshot, seen: &Seen) -> Step {
    let Some(wanted) = &snapshot.spec.source.persistent_volume_claim_name else {
        return Step::Stay;
    };
    if let Some(content) = &seen.content {
        if content.spec.driver != PROVISIONER {
            return Step::Stay;
        }
        if !is_for(content, snapshot) {
            let text = format!(
                "VolumeSnapshotContent [{}] is bound to a different snapshot",
                name(&content.metadata)
            );
            return fail("SnapshotContentMisbound", text);
        }
        return match shown(snapshot, content) {
            Step::Stay => released(snapshot, seen),
            step => step,
        };
    }
    if status(snapshot).is_some_and(is_bound) {
        let class = snapshot.spec.volume_snapshot_class_name.as_deref();
        let ours = seen
            .classes
            .iter()
            .any(|found| Some(name(&found.metadata)) == class && found.driver == PROVISIONER);
        return if ours {
            fail("SnapshotContentMissing", "VolumeSnapshotContent is missing")
        } else {
            Step::Stay
        };
    }
    let class = match class_of(snapshot, seen) {
        Ok(Some(class)) => class,
        Ok(None) => return Step::Stay,
        Err(step) => return step,
    };
    let failed = |why: String| {
        let text = format!("Failed to create snapshot content with error {why}");
        fail("SnapshotContentCreationFailed", text)
    };
    let input = |why: String| {
        let own = name(&snapshot.metadata);
        failed(format!(
            "failed to get input parameters to create snapshot {own}: {why:?}"
        ))
    };
    let Some(claim) = &seen.claim else {
        return failed(format!(
            "snapshot controller failed to update {} on API server: cannot get claim from snapshot",
            name(&snapshot.metadata)
        ));
    };
    if claim.metadata.deletion_timestamp.is_some() && !has(&claim.metadata, CLAIM) {
        return failed(format!("the claim {wanted} is being deleted"));
    }
    let bound = claim_phase(claim) == "Bound" && volume_name(claim).is_some();
    let Some(volume) = seen.volume.as_ref().filter(|_| bound) else {
        return input(format!(
            "the PVC {wanted} is not yet bound to a PV, will not attempt to take a snapshot"
        ));
    };
    if !local_path::is_ours(volume) {
        return failed(format!(
            "cannot find {PROVISIONER} source for volume {}",
            name(&volume.metadata)
        ));
    }
    if let Some(parameter) = class.parameters.iter().flatten().next() {
        return input(format!(
            "parameter {:?} of the class is not known",
            parameter.0
        ));
    }
    if let Some(finalizers) = with(&snapshot.metadata, &[AS_SOURCE, BOUND], &[]) {
        return Step::Finalizers(finalizers);
    }
    if let Some(finalizers) = with(&claim.metadata, &[CLAIM], &[])
        && claim.metadata.deletion_timestamp.is_none()
    {
        return Step::Claim(finalizers);
    }
    if annotation(&volume.metadata, SNAPSHOTS).is_none() {
        return Step::Mark;
    }
    Step::Create(content(snapshot, class, volume))
}

fn content(snapshot: &Snapshot, class: &Class, volume: &PersistentVolume) -> Value {
    let node = crate::claim::labels(&volume.metadata).get(NODE_LABEL);
    json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
        "metadata": {
            "name": content_name(snapshot),
            "labels": {NODE_LABEL: node},
            "annotations": {SIZE: capacity(volume).units().to_string()},
            "finalizers": [CONTENT_FINALIZER, FINALIZER],
        },
        "spec": {
            "volumeSnapshotRef": reference(snapshot),
            "source": {"volumeHandle": name(&volume.metadata)},
            "sourceVolumeMode": "Filesystem",
            "volumeSnapshotClassName": name(&class.metadata),
            "deletionPolicy": class.deletion_policy,
            "driver": PROVISIONER,
        },
    })
}

fn status(snapshot: &Snapshot) -> Option<&SnapshotStatus> {
    snapshot.status.as_ref()
}

fn is_bound(status: &SnapshotStatus) -> bool {
    status.bound_volume_snapshot_content_name.is_some()
}

/// What the content says is shown on the snapshot.
fn shown(snapshot: &Snapshot, content: &Content) -> Step {
    let none = SnapshotStatus::default();
    let before = status(snapshot).unwrap_or(&none);
    let says = content.status.clone().unwrap_or_default();
    let time = says
        .creation_time
        .and_then(|at| Timestamp::from_nanosecond(i128::from(at)).ok())
        .and_then(|at| Timestamp::from_second(at.as_second()).ok())
        .map(Time);
    let size = says.restore_size.and_then(|bytes| {
        let quantity: Quantity = bytes.to_string().parse().ok()?;
        Some(readable(bytes).unwrap_or_else(|| quantity.to_string()))
    });
    let ready = says.ready_to_use.unwrap_or(false);
    let own = name(&content.metadata);
    let mut told = Vec::new();
    let same = before.bound_volume_snapshot_content_name.as_deref() == Some(own)
        && before.ready_to_use == Some(ready)
        && before.creation_time == time
        && before.restore_size.as_ref().map(|it| it.0.as_str()) == size.as_deref()
        && before.error.as_ref().map(|it| &it.message) == says.error.as_ref().map(|it| &it.message);
    if same {
        return Step::Stay;
    }
    if before.bound_volume_snapshot_content_name.is_none() && !ready {
        let text = format!(
            "Waiting for a snapshot {} to be created by the CSI driver.",
            key(snapshot)
        );
        told.push(Told::normal("CreatingSnapshot", text));
    }
    if before.creation_time.is_none() && time.is_some() {
        let text = format!(
            "Snapshot {} was successfully created by the CSI driver.",
            key(snapshot)
        );
        told.push(Told::normal("SnapshotCreated", text));
    }
    if before.ready_to_use != Some(true) && ready {
        let text = format!("Snapshot {} is ready to use.", key(snapshot));
        told.push(Told::normal("SnapshotReady", text));
    }
    if let Some(message) = says.error.as_ref().and_then(|error| error.message.clone())
        && before
            .error
            .as_ref()
            .and_then(|error| error.message.as_ref())
            != Some(&message)
    {
        told.push(Told::warning("SnapshotFailed", message));
    }
    let status = json!({
        "boundVolumeSnapshotContentName": own,
        "readyToUse": ready,
        "creationTime": time,
        "restoreSize": size,
        "error": says.error,
    });
    Step::Status(status, told)
}

/// `10Gi`, where that says all of it.
fn readable(bytes: i64) -> Option<String> {
    let units = [
        (1 << 40, "Ti"),
        (1 << 30, "Gi"),
        (1 << 20, "Mi"),
        (1 << 10, "Ki"),
    ];
    let (unit, name) = units
        .into_iter()
        .find(|(unit, _)| bytes > 0 && bytes % unit == 0)?;
    Some(format!("{}{name}", bytes / unit))
}

/// The claim is let go when nothing is made of it any more.
fn released(snapshot: &Snapshot, seen: &Seen) -> Step {
    if is_under_way(snapshot) || seen.others {
        return Step::Stay;
    }
    let claim = seen.claim.as_ref();
    claim
        .and_then(|claim| with(&claim.metadata, &[], &[CLAIM]))
        .map_or(Step::Stay, Step::Claim)
}

/// A snapshot that is deleted.
fn going(snapshot: &Snapshot, seen: &Seen) -> Step {
    if !has(&snapshot.metadata, BOUND) && !has(&snapshot.metadata, AS_SOURCE) {
        return Step::Stay;
    }
    let content = seen
        .content
        .as_ref()
        .filter(|content| is_for(content, snapshot));
    if content.is_some_and(|content| content.spec.driver != PROVISIONER) {
        return Step::Stay;
    }
    let ours = content.is_some()
        || seen.classes.iter().any(|class| {
            Some(name(&class.metadata)) == snapshot.spec.volume_snapshot_class_name.as_deref()
                && class.driver == PROVISIONER
        })
        || seen.volume.as_ref().is_some_and(local_path::is_ours);
    if let Some(content) = content {
        if seen.restoring {
            let text = "Snapshot is being used to restore a PVC";
            return Step::Await(Told::warning("SnapshotDeletePending", text));
        }
        if annotation(&content.metadata, BEING_DELETED) != Some("yes") {
            return Step::Content(json!({"metadata": {"annotations": {BEING_DELETED: "yes"}}}));
        }
        if content.spec.deletion_policy == "Delete" {
            // Its own finalizers go next, and with the object the snapshot's.
            return if content.metadata.deletion_timestamp.is_none() {
                Step::Delete
            } else {
                Step::Stay
            };
        }
    }
    match released(snapshot, seen) {
        Step::Stay => {}
        step => return step,
    }
    // Without a content, and of nobody's class: it may be another controller's.
    if !ours && status(snapshot).is_some_and(is_bound) && foreign_class(snapshot, seen) {
        return Step::Stay;
    }
    with(&snapshot.metadata, &[], &[BOUND, AS_SOURCE]).map_or(Step::Stay, Step::Finalizers)
}

fn foreign_class(snapshot: &Snapshot, seen: &Seen) -> bool {
    seen.classes.iter().any(|class| {
        Some(name(&class.metadata)) == snapshot.spec.volume_snapshot_class_name.as_deref()
            && class.driver != PROVISIONER
    })
}

/// What is to be done about a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentStep {
    /// Nothing.
    Stay,
    /// Its node has to act; look again later, in case the node is gone.
    Await,
    /// It is kept by these finalizers from now on.
    Finalizers(Vec<String>),
    /// Its node is gone for good: it is let go, and whatever it held stays where it is.
    LetGo(Vec<String>),
}

/// Decides about a content; `snapshot` is the one it stands for.
#[must_use]
pub fn content_step(
    content: &Content,
    snapshot: Option<&Snapshot>,
    node_exists: bool,
    now: Timestamp,
) -> ContentStep {
    let meta = &content.metadata;
    let Some(since) = &meta.deletion_timestamp else {
        return ContentStep::Stay;
    };
    if content.spec.driver != PROVISIONER {
        return ContentStep::Stay;
    }
    let wanted = snapshot.is_some_and(|snapshot| {
        snapshot.metadata.uid == content.spec.volume_snapshot_ref.uid
            && snapshot.metadata.deletion_timestamp.is_none()
    });
    if has(meta, CONTENT_FINALIZER) {
        if wanted {
            return ContentStep::Stay;
        }
        let left = with(meta, &[], &[CONTENT_FINALIZER]);
        return left.map_or(ContentStep::Stay, ContentStep::Finalizers);
    }
    if !has(meta, FINALIZER) {
        return ContentStep::Stay;
    }
    if node_exists || now.duration_since(since.0) < NODE_GONE {
        return ContentStep::Await;
    }
    with(meta, &[], &[FINALIZER]).map_or(ContentStep::Stay, ContentStep::LetGo)
}
