//! What an agent remembers of a pod beyond what API and runtime can tell it.
//!
//! All of it may be lost: a new agent starts with nothing here and comes to the same end, only
//! back-offs begin anew, as they do with kubelet.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::pull::Needed;
use super::resize::Resize;

/// First wait after a failure.
pub const BACKOFF_FIRST: SignedDuration = SignedDuration::from_secs(10);
/// Longest wait after failures.
pub const BACKOFF_MAX: SignedDuration = SignedDuration::from_secs(300);
/// A failure this long after the one before starts from the first wait again.
pub const BACKOFF_RESET: SignedDuration = SignedDuration::from_secs(600);
/// How long `ErrImagePull` is shown before it turns into `ImagePullBackOff`.
pub const PULL_ERROR_SHOWN: SignedDuration = SignedDuration::from_secs(1);

/// Doubling waits, as client-go's `flowcontrol.Backoff` keeps them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backoff {
    entry: Option<(SignedDuration, Timestamp)>,
}

impl Backoff {
    /// How long a failure at `event` holds things up from there, if it does.
    #[must_use]
    pub fn since(&self, event: Timestamp) -> Option<SignedDuration> {
        let (delay, updated) = self.entry?;
        (event.duration_since(updated) <= BACKOFF_RESET).then_some(delay)
    }

    /// Counts a failure at `event`, tried again at `now`.
    pub fn next(&mut self, event: Timestamp, now: Timestamp) {
        let delay = match self.since(event) {
            None => BACKOFF_FIRST,
            Some(delay) => (delay * 2).min(BACKOFF_MAX),
        };
        self.entry = Some((delay, now));
    }
}

/// What is known of the image a container is about to start from.
#[derive(Debug, Clone, Default)]
pub enum ImageState {
    /// Not asked yet for the next start.
    #[default]
    Unknown,
    /// Here, with those that it has as volumes.
    Present(Box<Needed>),
    /// The last try failed.
    Failed {
        /// Which one: the container's own, or that of a volume.
        image: String,
        /// `ErrImagePull`, `InvalidImageName`, `ErrImageNeverPull` …
        reason: String,
        /// What went wrong.
        message: String,
        /// When.
        at: Timestamp,
        /// When the local store was last looked at.
        checked_at: Timestamp,
    },
}

/// Why the last start did not come about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `CreateContainerConfigError`, `RunContainerError` …
    pub reason: String,
    /// What went wrong.
    pub message: String,
    /// When it is tried again.
    pub retry_at: Timestamp,
}

/// What probes said of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProbeResults {
    /// The container they looked at; results of an earlier one say nothing.
    pub container_id: String,
    /// Startup probe: passed or failed for good.
    pub startup: Option<bool>,
    /// Readiness.
    pub readiness: Option<bool>,
    /// Liveness: failed for good when false.
    pub liveness: Option<bool>,
}

/// What is remembered of a container.
#[derive(Debug, Clone, Default)]
pub struct ContainerMemory {
    /// Its image.
    pub image: ImageState,
    /// Waits between pulls.
    pub pull_backoff: Backoff,
    /// Waits between restarts.
    pub crash_backoff: Backoff,
    /// Why the last start failed.
    pub refusal: Option<Refusal>,
    /// Results of its probes.
    pub probes: ProbeResults,
    /// A start is under way, its postStart hook included: it shows as waiting until that is over.
    pub starting: bool,
    /// The instance that was ended last for another one to take its place at once.
    pub replaced: Option<String>,
}

/// What can be under way at most once at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// Preparing or releasing volumes.
    Volumes,
    /// Making or stopping a sandbox.
    Sandbox,
    /// Anything with the container of that name.
    Container(String),
    /// Changing limits of what runs.
    Resize,
    /// Deleting the pod from the API.
    ApiDelete,
    /// Removing what is left in the runtime.
    Cleanup,
}

/// Where the pod's volumes stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum VolumesState {
    /// Nothing done yet.
    #[default]
    NotStarted,
    /// All there.
    Ready,
    /// The last try failed.
    Failed {
        /// When it is tried again.
        retry_at: Timestamp,
    },
    /// Taken down.
    Released,
}

/// Why a pod is being ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// `deletionTimestamp` is set.
    Deleted,
    /// It is gone from the API already.
    Gone,
    /// The agent ends it: reason and message go into the status, the phase is `Failed`.
    Failed {
        /// `DeadlineExceeded` …
        reason: String,
        /// For people.
        message: String,
    },
}

/// A pod's end, once it has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Termination {
    /// Why.
    pub ending: Ending,
    /// When grace is over.
    pub deadline: Timestamp,
}

/// Everything remembered of a pod.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// By container name.
    pub containers: BTreeMap<String, ContainerMemory>,
    /// What is under way.
    pub busy: BTreeSet<Op>,
    /// Volumes.
    pub volumes: VolumesState,
    /// Sandboxes that were stopped on purpose.
    pub stopped_sandboxes: BTreeSet<String>,
    /// Sandbox creation failed; tried again then.
    pub sandbox_retry: Option<Timestamp>,
    /// Failures of sandbox creation in a row.
    pub sandbox_failures: u32,
    /// The end has begun.
    pub termination: Option<Termination>,
    /// The final status has been written.
    pub final_status_written: bool,
    /// The pod has been deleted from the API, by us or by somebody else.
    pub api_deleted: bool,
    /// When the pod was first seen, for `status.startTime`.
    pub seen_at: Option<Timestamp>,
    /// The node ends the pod to have its room back: what `DisruptionTarget` says.
    pub disruption: Option<String>,
    /// When deleting from the API is tried again.
    pub delete_retry: Option<Timestamp>,
    /// Other resources than it was started with.
    pub resize: Resize,
}

impl Memory {
    /// The container's entry, empty when there is none.
    pub fn container(&mut self, name: &str) -> &mut ContainerMemory {
        self.containers.entry(name.to_owned()).or_default()
    }

    /// Is anything under way with that container?
    #[must_use]
    pub fn container_busy(&self, name: &str) -> bool {
        self.busy
            .iter()
            .any(|op| matches!(op, Op::Container(busy) if busy == name))
    }
}
