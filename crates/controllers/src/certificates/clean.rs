//! Removes requests that nobody needs any more: an hour after they were answered, a day after they
//! were asked in vain, at once when the certificate has ended.

use std::time::Duration;

use evenkeel_client::Api;
use evenkeel_client::{LoopContext, errors};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::api::{DeleteParams, Preconditions};
use x509_parser::pem::parse_x509_pem;

use super::request::is_issued;

/// Between two looks.
const PASS: Duration = Duration::from_secs(3600);
/// Answered ones are kept so long.
const ANSWERED: SignedDuration = SignedDuration::from_hours(1);
/// Those that wait, and approved ones that nobody signs.
const WAITING: SignedDuration = SignedDuration::from_hours(24);

/// Is it of no use to anybody?
#[must_use]
pub fn is_old(request: &CertificateSigningRequest, now: Timestamp) -> bool {
    let older = |at: Option<Timestamp>, than: SignedDuration| {
        at.is_some_and(|at| now.duration_since(at) > than)
    };
    let status = request.status.as_ref();
    let conditions = status
        .and_then(|it| it.conditions.as_deref())
        .unwrap_or_default();
    if conditions.is_empty() {
        let made = request.metadata.creation_timestamp.as_ref().map(|at| at.0);
        return older(made, WAITING);
    }
    let issued = is_issued(request);
    conditions.iter().any(|condition| {
        let updated = condition.last_update_time.as_ref().map(|at| at.0);
        match condition.type_.as_str() {
            "Denied" | "Failed" => older(updated, ANSWERED),
            "Approved" if issued => older(updated, ANSWERED) || has_ended(request, now),
            "Approved" => older(updated, WAITING),
            _ => false,
        }
    })
}

fn has_ended(request: &CertificateSigningRequest, now: Timestamp) -> bool {
    let certificate = request
        .status
        .as_ref()
        .and_then(|it| it.certificate.as_ref());
    let Some(Ok((_, block))) = certificate.map(|pem| parse_x509_pem(&pem.0)) else {
        return false;
    };
    let parsed = block.parse_x509();
    parsed.is_ok_and(|parsed| parsed.validity().not_after.timestamp() < now.as_second())
}

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let requests = context.views.of::<CertificateSigningRequest>();
    requests.synced().await;
    let api: Api<CertificateSigningRequest> = Api::all(context.client.clone());
    loop {
        let now = context.clock.now();
        for request in requests.list() {
            if !is_old(&request, now) {
                continue;
            }
            let name = request.metadata.name.as_deref().unwrap_or_default();
            let params = DeleteParams::default().preconditions(Preconditions {
                uid: request.metadata.uid.clone(),
                resource_version: None,
            });
            match api.delete(name, &params).await {
                Ok(_) => requests.note_deleted(&request),
                Err(error) if errors::is_not_found(&error) => {}
                Err(error) => {
                    let error = errors::message(&error);
                    tracing::warn!(name, error, "certificate request not removed");
                }
            }
        }
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            () = tokio::time::sleep(PASS) => {}
        }
    }
}
