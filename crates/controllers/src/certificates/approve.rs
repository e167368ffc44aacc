//! Approves requests of node agents: for client certificates of those who may ask for them
//! (`nodeclient`, `selfnodeclient`), as the reference does; and for serving certificates with the
//! node's own names and addresses, which the reference leaves to people.
//!
//! Without the latter no node could renew what it serves with. An agent could claim another
//! node's address in its own status, so an address that two nodes have is nobody's.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use evenkeel_client::Api;
use evenkeel_client::{LoopContext, ObjectKey, Outcome, View, WorkQueue, run_loop};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition,
};
use k8s_openapi::api::core::v1::Node;
use kube::api::PostParams;

use super::request::{
    Asked, KUBELET_CLIENT, KUBELET_SERVING, NODE_USER, NODES, has, is_issued, kubelet_client,
    kubelet_serving, read, usages,
};
use crate::error::ReconcileError;

/// Who has to be asked before a request is approved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is nobody's business here.
    Leave,
    /// If its author may create this subresource of requests; the texts say so.
    If(Vec<(&'static str, &'static str)>),
    /// It is what it should be.
    Approve(&'static str),
}

/// Decides about a request.
///
/// # Errors
/// It can't be read.
pub fn judge(request: &CertificateSigningRequest, nodes: &[Arc<Node>]) -> Result<Verdict, String> {
    if is_issued(request) || has(request, "Approved") || has(request, "Denied") {
        return Ok(Verdict::Leave);
    }
    let signer = request.spec.signer_name.as_str();
    if signer != KUBELET_CLIENT && signer != KUBELET_SERVING {
        return Ok(Verdict::Leave);
    }
    let asked = read(&request.spec.request.0)?;
    let author = request.spec.username.as_deref().unwrap_or_default();
    let is_self = author == asked.common_name;
    if signer == KUBELET_CLIENT {
        if kubelet_client(&asked, usages(request)).is_err() {
            return Ok(Verdict::Leave);
        }
        let mut ask = Vec::new();
        if is_self {
            ask.push((
                "selfnodeclient",
                "Auto approving self kubelet client certificate after SubjectAccessReview.",
            ));
        }
        ask.push((
            "nodeclient",
            "Auto approving kubelet client certificate after SubjectAccessReview.",
        ));
        return Ok(Verdict::If(ask));
    }
    let groups = request.spec.groups.as_deref().unwrap_or_default();
    let is_agent = is_self && groups.iter().any(|group| group == NODES);
    if is_agent && kubelet_serving(&asked, usages(request)).is_ok() && is_own(&asked, nodes) {
        return Ok(Verdict::Approve(
            "Auto approving kubelet serving certificate: its names and addresses are those of the \
             node.",
        ));
    }
    Ok(Verdict::Leave)
}

/// Are all names and addresses those of the node, and of no other?
fn is_own(asked: &Asked, nodes: &[Arc<Node>]) -> bool {
    let Some(name) = asked.common_name.strip_prefix(NODE_USER) else {
        return false;
    };
    let known = |node: &Node| -> Vec<String> {
        let status = node.status.as_ref();
        let addresses = status.and_then(|status| status.addresses.as_ref());
        let addresses = addresses.into_iter().flatten().map(|it| it.address.clone());
        node.metadata
            .name
            .iter()
            .cloned()
            .chain(addresses)
            .collect()
    };
    let is_it = |node: &&Arc<Node>| node.metadata.name.as_deref() == Some(name);
    let Some(own) = nodes.iter().find(is_it).map(|node| known(node)) else {
        return false;
    };
    let foreign: Vec<String> = nodes
        .iter()
        .filter(|node| !is_it(node))
        .flat_map(|node| known(node))
        .collect();
    let admits = |text: &String| own.contains(text) && !foreign.contains(text);
    !asked.others
        && asked.dns.iter().all(admits)
        && asked
            .addresses
            .iter()
            .map(IpAddr::to_string)
            .all(|text| admits(&text))
}

struct Reconciler {
    requests: Arc<View<CertificateSigningRequest>>,
    nodes: Arc<View<Node>>,
    context: LoopContext,
}

impl Reconciler {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(request) = self.requests.get_key(&key) else {
            return Ok(Outcome::Done);
        };
        let unreadable = |why| ReconcileError::State(format!("unable to parse csr {key:?}: {why}"));
        let message = match judge(&request, &self.nodes.list()).map_err(unreadable)? {
            Verdict::Leave => return Ok(Outcome::Done),
            Verdict::Approve(message) => message,
            Verdict::If(asks) => {
                let mut found = None;
                for (subresource, message) in asks {
                    if self.may(&request, subresource).await? {
                        found = Some(message);
                        break;
                    }
                }
                match found {
                    Some(message) => message,
                    // Rights may come; the reference tries again as well.
                    None => {
                        let why = format!(
                            "recognized csr {:?} but subject access review was not approved",
                            key.name
                        );
                        return Err(ReconcileError::State(why));
                    }
                }
            }
        };
        let mut wanted = (*request).clone();
        let status = wanted.status.get_or_insert_default();
        let condition = CertificateSigningRequestCondition {
            type_: "Approved".to_owned(),
            status: "True".to_owned(),
            reason: Some("AutoApproved".to_owned()),
            message: Some(message.to_owned()),
            ..CertificateSigningRequestCondition::default()
        };
        status.conditions.get_or_insert_default().push(condition);
        let api: Api<CertificateSigningRequest> = Api::all(self.context.client.clone());
        let written: CertificateSigningRequest = api
            .replace_subresource("approval", &key.name, &PostParams::default(), &wanted)
            .await?;
        self.requests.note_written(written);
        Ok(Outcome::Done)
    }

    /// May the author of a request create this subresource of requests?
    async fn may(
        &self,
        request: &CertificateSigningRequest,
        subresource: &str,
    ) -> Result<bool, kube::Error> {
        let extra = request.spec.extra.clone().unwrap_or_default();
        let extra: BTreeMap<String, Vec<String>> = extra.into_iter().collect();
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: request.spec.username.clone(),
                uid: request.spec.uid.clone(),
                groups: request.spec.groups.clone(),
                extra: Some(extra).filter(|extra| !extra.is_empty()),
                resource_attributes: Some(ResourceAttributes {
                    group: Some("certificates.k8s.io".to_owned()),
                    resource: Some("certificatesigningrequests".to_owned()),
                    verb: Some("create".to_owned()),
                    subresource: Some(subresource.to_owned()),
                    version: Some("*".to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.context.client.clone());
        let answer = api.create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let requests = context.views.of::<CertificateSigningRequest>();
    let nodes = context.views.of::<Node>();
    requests.synced().await;
    nodes.synced().await;
    let queue = WorkQueue::new(context.metrics.of("csrapproving"));
    super::follow(&requests, &queue);
    {
        // A node that says its addresses may have asked before.
        let (queue, requests) = (Arc::clone(&queue), Arc::clone(&requests));
        nodes.on_change(move |change| {
            let addresses = |node: &Option<Arc<Node>>| {
                let status = node.as_ref().and_then(|node| node.status.as_ref());
                status.and_then(|status| status.addresses.clone())
            };
            if addresses(&change.old) == addresses(&change.new) {
                return;
            }
            for request in requests.list() {
                if request.spec.signer_name == KUBELET_SERVING && !is_issued(&request) {
                    queue.add(ObjectKey::of(request.as_ref()));
                }
            }
        });
    }
    let reconciler = Reconciler {
        requests,
        nodes,
        context: context.clone(),
    };
    run_loop("csrapproving", 4, queue, context.shutdown, |key| {
        reconciler.reconcile(key)
    })
    .await;
}
