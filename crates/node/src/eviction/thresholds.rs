//! Eviction thresholds as kubelet's `--eviction-hard` writes them:
//! `memory.available<100Mi,nodefs.available<10%`.

use std::fmt;
use std::str::FromStr;

use evenkeel_api::quantity::Quantity;

use super::pressure::Signals;

/// Kubelet's own thresholds, but for the disk: it wants 10 % and for images 15 % free, which evicts
/// everything from a laptop whose disk is fairly full.
pub const DEFAULT: &str =
    "memory.available<100Mi,nodefs.available<5%,nodefs.inodesFree<5%,imagefs.available<5%";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// `memory.available`
    MemoryAvailable,
    /// `imagefs.available`; images lie on the agent's file system.
    ImageFsAvailable,
    /// `nodefs.available`
    NodeFsAvailable,
    /// `nodefs.inodesFree`
    NodeFsInodesFree,
}

impl Signal {
    const ALL: [Self; 4] = [
        Self::MemoryAvailable,
        Self::ImageFsAvailable,
        Self::NodeFsAvailable,
        Self::NodeFsInodesFree,
    ];

    /// As thresholds name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "memory.available",
            Self::ImageFsAvailable => "imagefs.available",
            Self::NodeFsAvailable => "nodefs.available",
            Self::NodeFsInodesFree => "nodefs.inodesFree",
        }
    }

    /// The resource that runs short, as messages name it.
    #[must_use]
    pub fn resource(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "memory",
            Self::ImageFsAvailable | Self::NodeFsAvailable => "ephemeral-storage",
            Self::NodeFsInodesFree => "inodes",
        }
    }

    /// Is it about the disk?
    #[must_use]
    pub fn is_disk(self) -> bool {
        self != Self::MemoryAvailable
    }
}

/// How much must be left.
#[derive(Debug, Clone, PartialEq)]
pub enum Bound {
    /// Bytes or inodes.
    Quantity(Quantity),
    /// Hundredths of the capacity.
    Percent(f64),
}

/// One threshold: the node is short when the signal is below.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    /// What is measured.
    pub signal: Signal,
    /// Its bound.
    pub bound: Bound,
}

impl Threshold {
    /// What must be left of `capacity`.
    #[must_use]
    pub fn least(&self, capacity: i64) -> i64 {
        match &self.bound {
            Bound::Quantity(quantity) => quantity.units(),
            #[allow(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                reason = "a share of a capacity needs no exact bytes"
            )]
            Bound::Percent(percent) => (capacity as f64 * percent / 100.0) as i64,
        }
    }

    /// Is the node short of it? A signal that can't be read says nothing.
    #[must_use]
    pub fn is_met(&self, signals: &Signals) -> bool {
        signals
            .of(self.signal)
            .is_some_and(|(left, capacity)| left < self.least(capacity))
    }
}

/// All thresholds; none means that the node never evicts for its own sake.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Thresholds(Vec<Threshold>);

impl Thresholds {
    /// No thresholds at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them, the most urgent signal first.
    pub fn iter(&self) -> impl Iterator<Item = &Threshold> {
        self.0.iter()
    }
}

/// Why a text is no list of thresholds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ThresholdError {
    /// Not `signal<quantity`.
    #[error("invalid eviction threshold {0:?}: expected SIGNAL<QUANTITY or SIGNAL<PERCENT%")]
    Form(String),
    /// A signal that is not measured.
    #[error(
        "eviction signal {0:?} is not supported; there are memory.available, nodefs.available, \
         nodefs.inodesFree and imagefs.available"
    )]
    Signal(String),
}

impl FromStr for Thresholds {
    type Err = ThresholdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut list = Vec::new();
        for part in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let form = || ThresholdError::Form(part.to_owned());
            let (name, bound) = part.split_once('<').ok_or_else(form)?;
            let signal = Signal::ALL
                .into_iter()
                .find(|signal| signal.name() == name)
                .ok_or_else(|| ThresholdError::Signal(name.to_owned()))?;
            let bound = match bound.strip_suffix('%') {
                Some(number) => {
                    let percent: f64 = number.parse().map_err(|_| form())?;
                    if !(0.0..=100.0).contains(&percent) {
                        return Err(form());
                    }
                    Bound::Percent(percent)
                }
                None => Bound::Quantity(bound.parse().map_err(|_| form())?),
            };
            list.push(Threshold { signal, bound });
        }
        list.sort_by_key(|threshold| threshold.signal);
        Ok(Self(list))
    }
}

impl fmt::Display for Threshold {
    /// The bound alone, as eviction messages show it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.bound {
            Bound::Quantity(quantity) => write!(f, "{quantity}"),
            Bound::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}
