//! The cluster's CA certificate in every namespace, for pods to trust the door by.
//!
//! Only these config maps are watched, by a field selector: all others are nobody's business here.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use evenkeel_client::view::{Event, Sink, Target, reflect};
use evenkeel_client::{LoopContext, ObjectKey, Outcome, WorkQueue, errors, run_loop};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;

use super::plan;
use crate::error::ReconcileError;

/// Name of the config map.
pub const NAME: &str = "kube-root-ca.crt";
const FIELD: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using \
                    internal endpoints such as the internal service IP or \
                    kubernetes.default.svc. No other usage is guaranteed across distributions of \
                    Kubernetes clusters.";

/// What each namespace's config map says: `None` where there is none.
struct Published {
    certificates: Mutex<HashMap<String, String>>,
    queue: Arc<WorkQueue<ObjectKey>>,
    listed: watch::Sender<bool>,
}

impl Published {
    fn put(&self, map: &ConfigMap) {
        let namespace = map.metadata.namespace.clone().unwrap_or_default();
        let text = map.data.as_ref().and_then(|data| data.get(FIELD)).cloned();
        let text = text.unwrap_or_default();
        self.certificates.lock().insert(namespace.clone(), text);
        self.queue.add(ObjectKey::new("", namespace));
    }
}

impl Sink<ConfigMap> for Published {
    fn replace(&self, items: Vec<ConfigMap>, _: u64) {
        let before = std::mem::take(&mut *self.certificates.lock());
        for map in &items {
            self.put(map);
        }
        for namespace in before.into_keys() {
            self.queue.add(ObjectKey::new("", namespace));
        }
        self.listed.send_replace(true);
    }

    fn event(&self, event: Event<ConfigMap>, _: u64) {
        match event {
            Event::Put(map) => self.put(&map),
            Event::Gone(map) => {
                let namespace = map.metadata.namespace.unwrap_or_default();
                self.certificates.lock().remove(&namespace);
                self.queue.add(ObjectKey::new("", namespace));
            }
        }
    }

    fn bookmark(&self, _: u64) {}
}

/// Publishes `certificate` (PEM). Runs until the context's shutdown.
pub async fn run(context: LoopContext, certificate: String) {
    let queue = WorkQueue::new(context.metrics.of("root-ca-publisher"));
    let namespaces = context.views.of::<Namespace>();
    let published = Arc::new(Published {
        certificates: Mutex::new(HashMap::new()),
        queue: Arc::clone(&queue),
        listed: watch::Sender::new(false),
    });
    let target = Target {
        field_selector: Some(format!("metadata.name={NAME}")),
        ..Target::of::<ConfigMap>()
    };
    let (client, sink) = (context.client.clone(), Arc::clone(&published));
    let following = reflect(client, target, sink, context.shutdown.clone());
    {
        let queue = Arc::clone(&queue);
        namespaces.on_change(move |change| queue.add(change.key.clone()));
    }
    let reconciler = Reconciler {
        context: context.clone(),
        published,
        certificate,
    };
    let working = async {
        // The sender lives in the reconciler.
        let mut listed = reconciler.published.listed.subscribe();
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            listed = listed.wait_for(|listed| *listed) => drop(listed),
        }
        let shutdown = context.shutdown.clone();
        run_loop("root-ca-publisher", 4, queue, shutdown, |key| {
            reconciler.reconcile(key)
        })
        .await;
    };
    tokio::join!(following, working);
}

struct Reconciler {
    context: LoopContext,
    published: Arc<Published>,
    certificate: String,
}

impl Reconciler {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ReconcileError> {
        let namespaces = self.context.views.of::<Namespace>();
        let namespace = namespaces.get("", &key.name);
        if namespace.is_none_or(|namespace| plan::is_terminating(&namespace)) {
            return Ok(Outcome::Done);
        }
        let found = self.published.certificates.lock().get(&key.name).cloned();
        let api: Api<ConfigMap> = Api::namespaced(self.context.client.clone(), &key.name);
        let written = match found {
            Some(text) if text == self.certificate => return Ok(Outcome::Done),
            Some(_) => {
                let patch = json!({
                    "metadata": {"annotations": {DESCRIPTION: TEXT}},
                    "data": {FIELD: self.certificate},
                });
                api.patch(NAME, &PatchParams::default(), &Patch::Merge(&patch))
                    .await
            }
            None => {
                api.create(&PostParams::default(), &self.map(&key.name))
                    .await
            }
        };
        match written {
            Ok(map) => {
                let text = map
                    .data
                    .and_then(|mut data| data.remove(FIELD))
                    .unwrap_or_default();
                self.published.certificates.lock().insert(key.name, text);
                Ok(Outcome::Done)
            }
            Err(error)
                if errors::is_namespace_terminating(&error)
                    || errors::is_not_found(&error)
                    || errors::is_already_exists(&error) =>
            {
                Ok(Outcome::Done)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn map(&self, namespace: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                namespace: Some(namespace.to_owned()),
                annotations: Some(BTreeMap::from([(DESCRIPTION.to_owned(), TEXT.to_owned())])),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(
                FIELD.to_owned(),
                self.certificate.clone(),
            )])),
            ..ConfigMap::default()
        }
    }
}
