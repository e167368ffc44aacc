//! Writes bindings: `POST pods/{name}/binding`.

use std::sync::Arc;

use evenkeel_client::{Api, Client};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Binding as BindingObject, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::Semaphore;

use crate::framework::{Bind, BindError, Binding, ClusterEvent, Plugin};
use crate::pod::PodInfo;

/// Requests at the door at once. By default a door serves 98 of the scheduler's at once, lets 300 wait
/// and refuses more; what waits here costs nothing.
const MOST_REQUESTS: usize = 96;

/// Binds through the door.
#[derive(Clone)]
pub struct DefaultBinder {
    client: Client,
    requests: Arc<Semaphore>,
}

impl DefaultBinder {
    /// Binds as the client's identity, which needs create on `pods/binding`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            requests: Arc::new(Semaphore::new(MOST_REQUESTS)),
        }
    }

    /// What it binds with.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    async fn write(&self, binding: &Binding) -> Result<(), BindError> {
        // It is never closed.
        let _request = self.requests.acquire().await.ok();
        let meta = &binding.pod.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let name = meta.name.as_deref().unwrap_or_default();
        let body = BindingObject {
            metadata: ObjectMeta {
                namespace: meta.namespace.clone(),
                name: meta.name.clone(),
                // A pod of the same name that came later is not meant.
                uid: meta.uid.clone(),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(binding.node.to_string()),
                ..ObjectReference::default()
            },
        };
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let body = serde_json::to_vec(&body).map_err(kube::Error::SerdeError)?;
        pods.post_subresource("binding", name, body).await?;
        Ok(())
    }
}

impl std::fmt::Debug for DefaultBinder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DefaultBinder").finish_non_exhaustive()
    }
}

impl Plugin for DefaultBinder {
    fn name(&self) -> &'static str {
        "DefaultBinder"
    }

    fn hint(&self, _pod: &PodInfo, _event: &ClusterEvent<'_>) -> bool {
        true
    }
}

impl Bind for DefaultBinder {
    fn bind<'a>(&'a self, binding: &'a Binding) -> BoxFuture<'a, Option<Result<(), BindError>>> {
        async { Some(self.write(binding).await) }.boxed()
    }
}
