//! Signs approved requests with the cluster's authority, each by the rules of its signer.

use std::sync::Arc;

use evenkeel_client::Api;
use evenkeel_client::{LoopContext, ObjectKey, Outcome, View, WorkQueue, run_loop};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::PostParams;

use super::request::{
    CLIENT, KUBELET_CLIENT, KUBELET_SERVING, client, has, is_issued, kubelet_client,
    kubelet_serving, read, usages,
};
use super::{Signer, ToSign};
use crate::error::ReconcileError;

/// What is to be done about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Leave,
    /// It is signed.
    Sign,
    /// It never will be: why.
    Fail(String),
}

/// Decides about a request.
///
/// # Errors
/// It can't be read.
pub fn judge(request: &CertificateSigningRequest) -> Result<Verdict, String> {
    let approved = has(request, "Approved") && !has(request, "Denied");
    if !approved || has(request, "Failed") || is_issued(request) {
        return Ok(Verdict::Leave);
    }
    let signer = request.spec.signer_name.as_str();
    if ![CLIENT, KUBELET_CLIENT, KUBELET_SERVING].contains(&signer) {
        return Ok(Verdict::Leave);
    }
    let asked = read(&request.spec.request.0)?;
    let fits = match signer {
        CLIENT => client(usages(request)),
        KUBELET_CLIENT => kubelet_client(&asked, usages(request)),
        _ => kubelet_serving(&asked, usages(request)),
    };
    Ok(fits.map_or_else(Verdict::Fail, |()| Verdict::Sign))
}

/// The request with the condition that it failed.
#[must_use]
pub fn failed(
    request: &CertificateSigningRequest,
    why: String,
    now: Timestamp,
) -> CertificateSigningRequest {
    let mut wanted = request.clone();
    let status = wanted.status.get_or_insert_default();
    let condition = CertificateSigningRequestCondition {
        type_: "Failed".to_owned(),
        status: "True".to_owned(),
        reason: Some("SignerValidationFailure".to_owned()),
        message: Some(why),
        last_update_time: Some(Time(now)),
        ..CertificateSigningRequestCondition::default()
    };
    status.conditions.get_or_insert_default().push(condition);
    wanted
}

struct Reconciler {
    requests: Arc<View<CertificateSigningRequest>>,
    signer: Signer,
    context: LoopContext,
}

impl Reconciler {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(request) = self.requests.get_key(&key) else {
            return Ok(Outcome::Done);
        };
        let now = self.context.clock.now();
        let unreadable = |why| ReconcileError::State(format!("unable to parse csr {key:?}: {why}"));
        let wanted = match judge(&request).map_err(unreadable)? {
            Verdict::Leave => return Ok(Outcome::Done),
            Verdict::Fail(why) => failed(&request, why, now),
            Verdict::Sign => {
                let signed = (self.signer)(&ToSign {
                    pem: &request.spec.request.0,
                    usages: usages(&request),
                    seconds: request.spec.expiration_seconds,
                    now,
                });
                let certificate = signed.map_err(|why| {
                    ReconcileError::State(format!("error auto signing csr: {why}"))
                })?;
                let mut wanted = (*request).clone();
                let status = wanted.status.get_or_insert_default();
                status.certificate = Some(ByteString(certificate.into_bytes()));
                wanted
            }
        };
        let api: Api<CertificateSigningRequest> = Api::all(self.context.client.clone());
        let written = api
            .replace_status(&key.name, &PostParams::default(), &wanted)
            .await?;
        self.requests.note_written(written);
        Ok(Outcome::Done)
    }
}

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext, signer: Signer) {
    let requests = context.views.of::<CertificateSigningRequest>();
    requests.synced().await;
    let queue = WorkQueue::new(context.metrics.of("csrsigning"));
    super::follow(&requests, &queue);
    let reconciler = Reconciler {
        requests,
        signer,
        context: context.clone(),
    };
    run_loop("csrsigning", 4, queue, context.shutdown, |key| {
        reconciler.reconcile(key)
    })
    .await;
}
