//! Certificates of pods: a key is made here and stays here, a signer that the pod names is asked for
//! a certificate, and asked again with a new key when the signer says that it is time.
//!
//! Nothing is kept when the agent ends: the next one asks anew, as kubelet does.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use evenkeel_api::clock::SharedClock;
use evenkeel_api::kinds::certificates::pem;
use evenkeel_client::{Api, Target, Update, follow};
use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{PodCertificateRequest, PodCertificateRequestSpec};
use k8s_openapi::api::core::v1::{Node, PodCertificateProjection, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{ListParams, PostParams};
use kube::{Client, Resource as _};
use parking_lot::Mutex;

use super::payload::api_text;
use super::{blocking, keys};
use crate::events::{Kind, Recorder};
use crate::pod::model::PodModel;

/// So long is an answer waited for at once; what takes longer is looked at with the next refresh.
const PATIENCE: Duration = Duration::from_secs(10);
/// Nodes do not all ask again at the same moment.
const JITTER_SECONDS: i64 = 5 * 60;
/// A certificate that should have been replaced so long ago is told of.
const OVERDUE: SignedDuration = SignedDuration::from_mins(10);

const NOT_YET: &str = "credential bundle is not issued yet";

/// Pod UID, volume, place among its sources.
type Key = (String, String, usize);

/// A key and its certificate, PEM.
#[derive(Clone)]
pub struct Credentials {
    /// The private key.
    pub key: String,
    /// The certificate and those between it and an authority.
    pub chain: String,
}

#[derive(Clone)]
struct Current {
    credentials: Credentials,
    refresh_at: Timestamp,
    not_after: Timestamp,
    told_overdue: bool,
    told_expired: bool,
}

#[derive(Clone)]
struct Asked {
    key: String,
    request: String,
}

/// How it stands with one source.
#[derive(Clone, Default)]
struct Held {
    current: Option<Current>,
    asked: Option<Asked>,
    /// For good.
    refused: Option<String>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Issued {
        chain: String,
        refresh_at: Timestamp,
        not_after: Timestamp,
    },
    Refused {
        what: &'static str,
        reason: String,
        message: String,
    },
    Gone,
    Pending,
}

/// The certificates in use on this node.
pub struct PodCertificates {
    client: Client,
    clock: SharedClock,
    node: String,
    recorder: Recorder,
    held: Mutex<HashMap<Key, Held>>,
}

impl std::fmt::Debug for PodCertificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PodCertificates").finish_non_exhaustive()
    }
}

impl PodCertificates {
    /// None yet.
    #[must_use]
    pub fn new(client: Client, clock: SharedClock, node: String, recorder: Recorder) -> Self {
        Self {
            client,
            clock,
            node,
            recorder,
            held: Mutex::default(),
        }
    }

    /// Forgets a pod's certificates.
    pub fn forget(&self, uid: &str) {
        self.held.lock().retain(|(pod, _, _), _| pod != uid);
    }

    /// When the first of a pod's certificates is to be replaced.
    #[must_use]
    pub fn renew_at(&self, uid: &str) -> Option<Timestamp> {
        let held = self.held.lock();
        let held = held.iter().filter(|((pod, _, _), _)| pod == uid);
        held.filter_map(|(_, held)| Some(held.current.as_ref()?.refresh_at))
            .min()
    }

    /// The key and certificate of a source; new ones when it is time.
    ///
    /// # Errors
    /// In kubelet's words: when there are none yet, or never will be.
    pub async fn credentials(
        &self,
        model: &PodModel,
        volume: &str,
        index: usize,
        source: &PodCertificateProjection,
    ) -> Result<Credentials, String> {
        let key: Key = (model.uid().to_owned(), volume.to_owned(), index);
        let mut held = self.held.lock().get(&key).cloned().unwrap_or_default();
        if let Some(why) = held.refused {
            return Err(why);
        }
        if let Some(current) = &held.current
            && self.clock.now() < current.refresh_at
        {
            return Ok(current.credentials.clone());
        }
        let went = self.proceed(model, source, &mut held).await;
        if let Some(current) = &mut held.current {
            self.tell_of_age(model, current);
        }
        let answer = match (&held.refused, &held.current, went) {
            (Some(why), ..) => Err(why.clone()),
            // One that still holds is better than none.
            (None, Some(current), _) => Ok(current.credentials.clone()),
            (None, None, Err(why)) => Err(why),
            (None, None, Ok(())) => Err(NOT_YET.to_owned()),
        };
        self.held.lock().insert(key, held);
        answer
    }

    /// Asks, unless that is done, and waits a moment for the answer.
    async fn proceed(
        &self,
        model: &PodModel,
        source: &PodCertificateProjection,
        held: &mut Held,
    ) -> Result<(), String> {
        let asked = match &held.asked {
            Some(asked) => asked.clone(),
            None => {
                let asked = self.ask(model, source).await?;
                held.asked.insert(asked).clone()
            }
        };
        let name = format!("{}/{}", model.namespace(), asked.request);
        match self.answer(model.namespace(), &asked.request).await? {
            Answer::Pending => {}
            Answer::Gone => {
                held.asked = None;
                return Err(format!(
                    "PodCertificateRequest {name:?} appears to have been deleted"
                ));
            }
            Answer::Issued {
                chain,
                refresh_at,
                not_after,
            } => {
                let jitter = rand::random_range(0..JITTER_SECONDS);
                held.asked = None;
                held.current = Some(Current {
                    credentials: Credentials {
                        key: asked.key,
                        chain,
                    },
                    refresh_at: refresh_at + SignedDuration::from_secs(jitter),
                    not_after,
                    told_overdue: false,
                    told_expired: false,
                });
            }
            Answer::Refused {
                what,
                reason,
                message,
            } => {
                let (event, was) = match what {
                    "denied" => ("Denied", "was denied"),
                    _ => ("Failed", "failed"),
                };
                let told = format!(
                    "PodCertificateRequest {name} {was}, reason={reason:?}, message={message:?}"
                );
                self.recorder.pod(model, Kind::Warning, event, told);
                held.asked = None;
                held.refused = Some(format!(
                    "PodCertificateRequest was permanently {what}: reason={reason:?} \
                     message={message:?}"
                ));
            }
        }
        Ok(())
    }

    /// Says once that a certificate is late, and once that it has ended.
    fn tell_of_age(&self, model: &PodModel, current: &mut Current) {
        let now = self.clock.now();
        if now > current.refresh_at + OVERDUE && !current.told_overdue {
            current.told_overdue = true;
            let (reason, told) = (
                "CertificateOverdueForRefresh",
                "PodCertificate refresh overdue",
            );
            self.recorder.pod(model, Kind::Warning, reason, told);
        }
        if now > current.not_after && !current.told_expired {
            current.told_expired = true;
            let (reason, told) = ("CertificateExpired", "PodCertificate expired");
            self.recorder.pod(model, Kind::Warning, reason, told);
        }
    }

    async fn ask(
        &self,
        model: &PodModel,
        source: &PodCertificateProjection,
    ) -> Result<Asked, String> {
        let namespace = model.namespace();
        let account = model
            .spec()
            .and_then(|spec| spec.service_account_name.clone())
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "default".to_owned());
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let found = accounts
            .get(&account)
            .await
            .map_err(|error| format!("while fetching service account: {}", api_text(&error)))?;
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = nodes
            .get(&self.node)
            .await
            .map_err(|error| format!("while getting node object: {}", api_text(&error)))?;
        let key_type = source.key_type.clone();
        let pair = blocking(move || keys::generate(&key_type))
            .await
            .map_err(|error| format!("while generating keypair: {error}"))?;
        let request = PodCertificateRequest {
            metadata: ObjectMeta {
                generate_name: Some("req-".to_owned()),
                namespace: Some(namespace.to_owned()),
                owner_references: Some(vec![OwnerReference {
                    api_version: "v1".to_owned(),
                    kind: "Pod".to_owned(),
                    name: model.name().to_owned(),
                    uid: model.uid().to_owned(),
                    ..OwnerReference::default()
                }]),
                ..ObjectMeta::default()
            },
            spec: PodCertificateRequestSpec {
                signer_name: source.signer_name.clone(),
                pod_name: model.name().to_owned(),
                pod_uid: model.uid().to_owned(),
                service_account_name: account,
                service_account_uid: found.metadata.uid.unwrap_or_default(),
                node_name: self.node.clone(),
                node_uid: node.metadata.uid.unwrap_or_default(),
                max_expiration_seconds: source.max_expiration_seconds,
                stub_pkc_s10_request: ByteString(pair.request),
                unverified_user_annotations: source.user_annotations.clone(),
            },
            status: None,
        };
        let api: Api<PodCertificateRequest> = Api::namespaced(self.client.clone(), namespace);
        let made = api
            .create(&PostParams::default(), &request)
            .await
            .map_err(|error| {
                let error = api_text(&error);
                format!("while creating PodCertificateRequest: {error}")
            })?;
        Ok(Asked {
            key: pair.key,
            request: made.metadata.name.unwrap_or_default(),
        })
    }

    /// What became of a request; waits a moment for it. Only what names this node may be seen.
    async fn answer(&self, namespace: &str, name: &str) -> Result<Answer, String> {
        let failed = |error: kube::Error| {
            format!("while getting PodCertificateRequest: {}", api_text(&error))
        };
        let until = tokio::time::Instant::now() + PATIENCE;
        let api: Api<PodCertificateRequest> = Api::namespaced(self.client.clone(), namespace);
        let fields = format!("metadata.name={name},spec.nodeName={}", self.node);
        let named =
            |request: &PodCertificateRequest| request.metadata.name.as_deref() == Some(name);
        let list = api
            .list(&ListParams::default().fields(&fields))
            .await
            .map_err(failed)?;
        match list.items.iter().find(|request| named(request)) {
            None => return Ok(Answer::Gone),
            Some(request) => {
                if let Some(answer) = read(request) {
                    return Ok(answer);
                }
            }
        }
        let target = Target {
            path: PodCertificateRequest::url_path(&(), Some(namespace)),
            field_selector: Some(fields),
            ..Target::of::<PodCertificateRequest>()
        };
        let mut updates = pin!(follow::<PodCertificateRequest>(self.client.clone(), target));
        let watching = async {
            while let Some(update) = updates.next().await {
                let request = match update {
                    Update::All(requests) => requests.into_iter().find(&named),
                    Update::Put(request) | Update::Gone(request) if !named(&request) => continue,
                    Update::Put(request) => Some(request),
                    Update::Gone(_) => None,
                };
                match request.as_ref().map(read) {
                    None => return Answer::Gone,
                    Some(Some(answer)) => return answer,
                    Some(None) => {}
                }
            }
            Answer::Pending
        };
        Ok(tokio::time::timeout_at(until, watching)
            .await
            .unwrap_or(Answer::Pending))
    }
}

/// The end of a request, if it has come to one.
fn read(request: &PodCertificateRequest) -> Option<Answer> {
    let status = request.status.as_ref()?;
    let conditions = status.conditions.iter().flatten();
    conditions
        .filter(|it| it.status == "True")
        .find_map(|condition| {
            let refused = |what| Answer::Refused {
                what,
                reason: condition.reason.clone(),
                message: condition.message.clone(),
            };
            match condition.type_.as_str() {
                "Denied" => Some(refused("denied")),
                "Failed" => Some(refused("failed")),
                "Issued" => {
                    // What is between the blocks and in front of their contents is left out.
                    let blocks =
                        pem::blocks(status.certificate_chain.as_deref().unwrap_or_default());
                    Some(Answer::Issued {
                        chain: blocks.iter().map(pem::Block::to_text).collect(),
                        refresh_at: status.begin_refresh_at.as_ref()?.0,
                        not_after: status.not_after.as_ref()?.0,
                    })
                }
                _ => None,
            }
        })
}
