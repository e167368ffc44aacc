//! Why a reconciliation did not end well.

use evenkeel_client::errors;

/// A reconciliation failed and is tried again later.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The door refused or could not be reached.
    #[error("{}", errors::message(.0))]
    Api(#[from] kube::Error),
    /// Something is not as it must be; the text says what.
    #[error("{0}")]
    State(String),
}
