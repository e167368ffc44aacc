//! Service addresses for environment variables, kept by one watch.
//!
//! Only name, address and ports are kept; whatever else a service has is dropped as it arrives.

use std::collections::{BTreeMap, HashMap};

use evenkeel_client::{Client, Target, Update, follow};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::spec::service_env::{ServiceFacts, add};

type ByName = BTreeMap<String, ServiceFacts>;

/// The services of the cluster, as far as variables need them.
#[derive(Debug)]
pub struct Services {
    by_namespace: Mutex<HashMap<String, ByName>>,
    synced: watch::Sender<bool>,
    fallback: ServiceFacts,
}

impl Services {
    /// None yet. `fallback` stands in for `default/kubernetes` while that does not exist.
    #[must_use]
    pub fn new(fallback: ServiceFacts) -> Self {
        Self {
            by_namespace: Mutex::default(),
            synced: watch::Sender::new(false),
            fallback,
        }
    }

    /// Follows the API until the future is dropped.
    pub async fn run(&self, client: Client) {
        let mut updates = follow::<Service>(client, Target::of::<Service>()).boxed();
        while let Some(update) = updates.next().await {
            match update {
                Update::All(services) => {
                    let mut fresh = HashMap::new();
                    for service in &services {
                        put(&mut fresh, service);
                    }
                    *self.by_namespace.lock() = fresh;
                    self.synced.send_replace(true);
                }
                Update::Put(service) => put(&mut self.by_namespace.lock(), &service),
                Update::Gone(service) => {
                    let (namespace, name) = key(&service);
                    if let Some(services) = self.by_namespace.lock().get_mut(&namespace) {
                        services.remove(&name);
                    }
                }
            }
        }
    }

    /// The variables for a pod, once the services have been read.
    pub async fn variables(&self, namespace: &str, links: bool) -> BTreeMap<String, String> {
        let mut synced = self.synced.subscribe();
        // The sender lives in `self`: the wait can't fail.
        let _synced = synced.wait_for(|synced| *synced).await.is_ok();
        let all = self.by_namespace.lock();
        let mut vars = BTreeMap::new();
        let kubernetes = all
            .get("default")
            .and_then(|services| services.get("kubernetes"));
        add(&mut vars, kubernetes.unwrap_or(&self.fallback));
        if links {
            for service in all.get(namespace).into_iter().flat_map(BTreeMap::values) {
                add(&mut vars, service);
            }
        }
        vars
    }
}

fn key(service: &Service) -> (String, String) {
    let meta = &service.metadata;
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

fn put(all: &mut HashMap<String, ByName>, service: &Service) {
    let (namespace, name) = key(service);
    let spec = service.spec.as_ref();
    let cluster_ip = spec
        .and_then(|spec| spec.cluster_ip.clone())
        .filter(|ip| !ip.is_empty() && ip != "None");
    let services = all.entry(namespace).or_default();
    let Some(cluster_ip) = cluster_ip else {
        services.remove(&name);
        return;
    };
    let ports = spec
        .and_then(|spec| spec.ports.as_ref())
        .into_iter()
        .flatten()
        .map(|port| {
            (
                port.name.clone().unwrap_or_default(),
                port.port,
                port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            )
        })
        .collect();
    services.insert(
        name.clone(),
        ServiceFacts {
            name,
            cluster_ip,
            ports,
        },
    );
}
