//! Config maps, secrets and tokens that pods refer to, fetched when they are needed.
//!
//! The agent may read only what pods bound to its node refer to, so nothing is listed or watched;
//! what must not cost a request for each pod (the cluster's CA, periodic refreshes) is kept for a
//! short while.

use std::collections::HashMap;
use std::sync::Arc;

use evenkeel_api::clock::SharedClock;
use evenkeel_client::Api;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Client;
use parking_lot::Mutex;

/// Entries kept at most; beyond it, old ones are dropped.
const CACHE: usize = 1024;
/// The config map with the cluster's CA, which every pod mounts.
const ROOT_CA: &str = "kube-root-ca.crt";
/// How old an answer for it may be.
const ROOT_CA_AGE: SignedDuration = SignedDuration::from_secs(60);

type Cache<K> = Mutex<HashMap<(String, String), (Timestamp, Option<Arc<K>>)>>;

/// Fetches objects.
pub struct Objects {
    client: Client,
    clock: SharedClock,
    config_maps: Cache<ConfigMap>,
    secrets: Cache<Secret>,
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Objects").finish_non_exhaustive()
    }
}

impl Objects {
    /// Over a client.
    #[must_use]
    pub fn new(client: Client, clock: SharedClock) -> Self {
        Self {
            client,
            clock,
            config_maps: Cache::default(),
            secrets: Cache::default(),
        }
    }

    /// What it asks with.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A config map, `None` when it does not exist; at most `age` old.
    ///
    /// # Errors
    /// When the API can't be asked.
    pub async fn config_map(
        &self,
        namespace: &str,
        name: &str,
        age: SignedDuration,
    ) -> Result<Option<Arc<ConfigMap>>, kube::Error> {
        let age = if name == ROOT_CA {
            age.max(ROOT_CA_AGE)
        } else {
            age
        };
        self.get(&self.config_maps, namespace, name, age).await
    }

    /// A secret, `None` when it does not exist; at most `age` old.
    ///
    /// # Errors
    /// When the API can't be asked.
    pub async fn secret(
        &self,
        namespace: &str,
        name: &str,
        age: SignedDuration,
    ) -> Result<Option<Arc<Secret>>, kube::Error> {
        self.get(&self.secrets, namespace, name, age).await
    }

    async fn get<K>(
        &self,
        cache: &Cache<K>,
        namespace: &str,
        name: &str,
        age: SignedDuration,
    ) -> Result<Option<Arc<K>>, kube::Error>
    where
        K: evenkeel_client::Kind + kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
    {
        let key = (namespace.to_owned(), name.to_owned());
        let now = self.clock.now();
        if let Some((at, value)) = cache.lock().get(&key)
            && value.is_some()
            && now.duration_since(*at) < age
        {
            return Ok(value.clone());
        }
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let value = api.get_opt(name).await?.map(Arc::new);
        let mut cache = cache.lock();
        if cache.len() >= CACHE {
            cache.retain(|_, (at, _)| now.duration_since(*at) < ROOT_CA_AGE);
        }
        cache.insert(key, (now, value.clone()));
        Ok(value)
    }
}
