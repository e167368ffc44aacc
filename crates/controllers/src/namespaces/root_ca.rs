//! The cluster's CA certificate in every namespace, for pods to trust the door by.
//!
//! Only these config maps are watched, by a field selector: all others are nobody's business here.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use evenkeel_client::Api;
use evenkeel_client::view::{Event, Sink, Target, reflect};
use evenkeel_client::{LoopContext, ObjectKey, Outcome, WorkQueue, errors, run_loop};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use parking_lot::Mutex;
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

/// The config map of each namespace that has one; without its contents where they are right.
struct Published {
    certificate: String,
    maps: Mutex<HashMap<String, Option<ConfigMap>>>,
    queue: Arc<WorkQueue<ObjectKey>>,
    listed: watch::Sender<bool>,
}

impl Published {
    fn put(&self, map: &ConfigMap) {
        let namespace = map.metadata.namespace.clone().unwrap_or_default();
        let text = map.data.as_ref().and_then(|data| data.get(FIELD));
        let wrong = text != Some(&self.certificate);
        self.maps
            .lock()
            .insert(namespace.clone(), wrong.then(|| map.clone()));
        self.queue.add(ObjectKey::new("", namespace));
    }
}

impl Sink<ConfigMap> for Published {
    fn replace(&self, items: Vec<ConfigMap>, _: u64) {
        let before = std::mem::take(&mut *self.maps.lock());
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
                self.maps.lock().remove(&namespace);
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
        certificate,
        maps: Mutex::new(HashMap::new()),
        queue: Arc::clone(&queue),
        listed: watch::Sender::new(false),
    });
    let target = Target {
        field_selector: Some(format!("metadata.name={NAME}")),
        ..Target::of::<ConfigMap>()
    };
    let (client, sink) = (context.views.client().clone(), Arc::clone(&published));
    let following = reflect(client, target, sink, context.shutdown.clone());
    {
        let queue = Arc::clone(&queue);
        namespaces.on_change(move |change| queue.add(change.key.clone()));
    }
    let reconciler = Reconciler {
        context: context.clone(),
        published,
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
}

impl Reconciler {
    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, ReconcileError> {
        let namespaces = self.context.views.of::<Namespace>();
        let namespace = namespaces.get("", &key.name);
        if namespace.is_none_or(|namespace| plan::is_terminating(&namespace)) {
            return Ok(Outcome::Done);
        }
        let found = self.published.maps.lock().get(&key.name).cloned();
        let api: Api<ConfigMap> = Api::namespaced(self.context.client.clone(), &key.name);
        let params = PostParams::default();
        let written = match found {
            Some(None) => return Ok(Outcome::Done),
            Some(Some(mut map)) => {
                let data = map.data.get_or_insert_default();
                data.insert(FIELD.to_owned(), self.published.certificate.clone());
                let annotations = map.metadata.annotations.get_or_insert_default();
                annotations.insert(DESCRIPTION.to_owned(), TEXT.to_owned());
                api.replace(NAME, &params, &map).await
            }
            None => api.create(&params, &self.map(&key.name)).await,
        };
        match written {
            // The watch brings it back, and with it the note that it is right.
            Ok(_) => Ok(Outcome::Done),
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
                self.published.certificate.clone(),
            )])),
            ..ConfigMap::default()
        }
    }
}
