//! What the built-in provisioner and the agents of nodes say to each other about volumes that are
//! directories of a node.
//!
//! The provisioner writes a volume with a label, a path and a finalizer; the node's agent makes
//! the directory and says so in an annotation; when the volume is deleted the agent removes the
//! directory, if the reclaim policy says so, and then the finalizer. Everything goes through the
//! volume object, so that either side may end at any time.

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
