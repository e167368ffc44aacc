//! What the built-in provisioner and the agents of nodes say to each other about volumes that are
//! directories of a node.
//!
//! The provisioner writes a volume with a label, a path and a finalizer; the node's agent makes
//! the directory and says so in an annotation; when the volume is deleted the agent removes the
//! directory, if the reclaim policy says so, and then the finalizer. Everything goes through the
//! volume object, so that either side may end at any time. Snapshots go the same way, through the
//! content object of the snapshot.

/// The provisioner's name in storage classes.
pub const PROVISIONER: &str = "evenkeel.io/local-path";
/// The class that is made at start.
pub const CLASS: &str = "local-path";
/// Label of a volume: the node that has it.
pub const NODE_LABEL: &str = "evenkeel.io/node";
/// Finalizer of a volume whose directory may still be there.
pub const FINALIZER: &str = "evenkeel.io/local-path";
/// Annotation of a volume: the capacity for which its node has made the directory.
pub const MADE: &str = "evenkeel.io/local-path-made";
/// Annotation of a volume: how its capacity is enforced, [`QUOTA_PROJECT`] or [`QUOTA_NONE`].
pub const QUOTA: &str = "evenkeel.io/local-path-quota";
/// The file system refuses more than the capacity.
pub const QUOTA_PROJECT: &str = "project";
/// Nothing is enforced: the file system has no project quota.
pub const QUOTA_NONE: &str = "none";
/// Annotation of a node: the directory below which it keeps such volumes.
pub const DIRECTORY: &str = "evenkeel.io/local-path-directory";
/// Annotation of a volume: what its directory is a copy of, [`FROM_VOLUME`] or [`FROM_SNAPSHOT`]
/// and a name. It is served when the copy is whole.
pub const SOURCE: &str = "evenkeel.io/local-path-source";
/// Before the name of the volume in [`SOURCE`].
pub const FROM_VOLUME: &str = "volume/";
/// Before the name of the snapshot in [`SOURCE`].
pub const FROM_SNAPSHOT: &str = "snapshot/";
/// Annotation of a volume: snapshots are made of it, so that its node has to look for them.
pub const SNAPSHOTS: &str = "evenkeel.io/local-path-snapshots";
/// Annotation of the content of a snapshot: bytes that a volume made from it needs.
pub const SIZE: &str = "evenkeel.io/local-path-size";
/// The group of the kinds of snapshots.
pub const SNAPSHOT_GROUP: &str = "snapshot.storage.k8s.io";
/// On the content of a snapshot: whoever has asked for the snapshot gives it up.
pub const BEING_DELETED: &str = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted";
/// Keeps the content of a snapshot that somebody asks for.
pub const CONTENT_FINALIZER: &str =
    "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection";

/// What a node calls a snapshot that it has: `NODE/NAME`.
#[must_use]
pub fn snapshot_handle(node: &str, name: &str) -> String {
    format!("{node}/{name}")
}

/// The node and the name in a handle of [`snapshot_handle`].
#[must_use]
pub fn parse_handle(handle: &str) -> Option<(&str, &str)> {
    let (node, name) = handle.split_once('/')?;
    let plain = !node.is_empty() && !name.is_empty() && !name.contains('/');
    (plain && !name.starts_with('.')).then_some((node, name))
}
