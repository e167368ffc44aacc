//! Certificate requests: approved, signed with the cluster's authority, and cleaned up; and the
//! bundle by which the API server is trusted.
//!
//! What never lives here: the authority's key. Whoever starts the loops hands in what signs.

pub mod approve;
pub mod clean;
pub mod clean_pods;
pub mod publish;
pub mod request;
pub mod sign;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use evenkeel_client::{ObjectKey, View, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

/// A request that may be signed.
#[derive(Debug, Clone, Copy)]
pub struct ToSign<'r> {
    /// The request, PEM.
    pub pem: &'r [u8],
    /// What the certificate is for, in the words of the certificates API.
    pub usages: &'r [String],
    /// How long it should live; the authority has bounds.
    pub seconds: Option<i32>,
    /// Now.
    pub now: Timestamp,
}

/// Signs; answers the certificate in PEM, or why not.
pub type Signer = Arc<dyn Fn(&ToSign<'_>) -> Result<String, String> + Send + Sync>;

fn follow(view: &View<CertificateSigningRequest>, queue: &Arc<WorkQueue<ObjectKey>>) {
    let queue = Arc::clone(queue);
    view.on_change(move |change| {
        if change.new.is_some() {
            queue.add(change.key.clone());
        }
    });
}
