//! The bundle by which the API server is trusted, for whoever mounts it: one object whose name says
//! what is in it, and no other of the same signer.
//!
//! Only that signer's bundles are watched: those of others are nobody's business here.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_client::Api;
use evenkeel_client::view::{Event, Sink, Target, reflect};
use evenkeel_client::{LoopContext, ObjectKey, Outcome, WorkQueue, errors, run_loop};
use k8s_openapi::api::certificates::v1::{ClusterTrustBundle, ClusterTrustBundleSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::error::ReconcileError;

/// Who signs what the API server shows.
pub const SIGNER: &str = "kubernetes.io/kube-apiserver-serving";
/// Bytes of the digest that are in the name.
const DIGEST: usize = 12;

/// The name of the bundle of a signer with this content.
#[must_use]
pub fn name_of(signer: &str, bundle: &str) -> String {
    let digest = Sha256::digest(bundle.as_bytes());
    let digest: String = digest[..DIGEST]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{}:{digest}", signer.replace('/', ":"))
}

/// The bundles of the signer by name.
struct Published {
    bundles: Mutex<BTreeMap<String, ClusterTrustBundle>>,
    queue: Arc<WorkQueue<ObjectKey>>,
    listed: watch::Sender<bool>,
}

impl Published {
    fn key() -> ObjectKey {
        ObjectKey::new("", "")
    }
}

impl Sink<ClusterTrustBundle> for Published {
    fn replace(&self, items: Vec<ClusterTrustBundle>, _: u64) {
        let named = |bundle: ClusterTrustBundle| Some((bundle.metadata.name.clone()?, bundle));
        *self.bundles.lock() = items.into_iter().filter_map(named).collect();
        self.queue.add(Self::key());
        self.listed.send_replace(true);
    }

    fn event(&self, event: Event<ClusterTrustBundle>, _: u64) {
        match event {
            Event::Put(bundle) => {
                let name = bundle.metadata.name.clone().unwrap_or_default();
                self.bundles.lock().insert(name, bundle);
            }
            Event::Gone(bundle) => {
                let name = bundle.metadata.name.unwrap_or_default();
                self.bundles.lock().remove(&name);
            }
        }
        self.queue.add(Self::key());
    }

    fn bookmark(&self, _: u64) {}
}

/// Publishes `certificate` (PEM). Runs until the context's shutdown.
pub async fn run(context: LoopContext, certificate: String) {
    const NAME: &str = "clustertrustbundle-publisher";
    let queue = WorkQueue::new(context.metrics.of(NAME));
    let published = Arc::new(Published {
        bundles: Mutex::default(),
        queue: Arc::clone(&queue),
        listed: watch::Sender::new(false),
    });
    let target = Target {
        field_selector: Some(format!("spec.signerName={SIGNER}")),
        ..Target::of::<ClusterTrustBundle>()
    };
    let (client, sink) = (context.client.clone(), Arc::clone(&published));
    let following = reflect(client, target, sink, context.shutdown.clone());
    let working = async {
        let mut listed = published.listed.subscribe();
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            listed = listed.wait_for(|listed| *listed) => drop(listed),
        }
        let shutdown = context.shutdown.clone();
        run_loop(NAME, 1, queue, shutdown, |_| {
            reconcile(&context, &published, &certificate)
        })
        .await;
    };
    tokio::join!(following, working);
}

async fn reconcile(
    context: &LoopContext,
    published: &Published,
    certificate: &str,
) -> Result<Outcome, ReconcileError> {
    let api: Api<ClusterTrustBundle> = Api::all(context.client.clone());
    let wanted = name_of(SIGNER, certificate);
    let bundles = published.bundles.lock().clone();
    let params = PostParams::default();
    match bundles.get(&wanted) {
        None => {
            let bundle = ClusterTrustBundle {
                metadata: ObjectMeta {
                    name: Some(wanted.clone()),
                    ..ObjectMeta::default()
                },
                spec: ClusterTrustBundleSpec {
                    signer_name: Some(SIGNER.to_owned()),
                    trust_bundle: certificate.to_owned(),
                },
            };
            match api.create(&params, &bundle).await {
                Ok(_) => {}
                // The watch brings it.
                Err(error) if errors::is_already_exists(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Some(bundle) if bundle.spec.trust_bundle != certificate => {
            let mut bundle = bundle.clone();
            certificate.clone_into(&mut bundle.spec.trust_bundle);
            api.replace(&wanted, &params, &bundle).await?;
        }
        Some(_) => {}
    }
    for name in bundles.keys().filter(|name| **name != wanted) {
        match api.delete(name, &DeleteParams::default()).await {
            Err(error) if !errors::is_not_found(&error) => return Err(error.into()),
            _ => {}
        }
    }
    Ok(Outcome::Done)
}
