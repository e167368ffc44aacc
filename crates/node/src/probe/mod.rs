//! Probes: who is started, ready and alive.
//!
//! One task for each probe of a running container, ended with it. Results reach the pod's worker
//! the moment they change. What an answer means (thresholds) is in [`tally`]; how it is asked for
//! in `http`, `grpc`, `dial` and the runtime's exec.

mod dial;
mod grpc;
mod http;
mod prober;
pub mod tally;
pub mod target;

pub use dial::Dialers;
pub use prober::{Probes, Report};

/// Which probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    /// Holds the others back until it passes.
    Startup,
    /// Restarts the container when it fails.
    Liveness,
    /// Takes the pod out of its services when it fails.
    Readiness,
}

impl ProbeKind {
    /// As events name it.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// What one attempt came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It passed.
    Passed,
    /// It passed, with something to say.
    Warned(String),
    /// It failed.
    Failed(String),
    /// Nobody listens: a failure that may only mean that the program is not up yet.
    Refused(String),
    /// It could not be carried out.
    Errored(String),
}
