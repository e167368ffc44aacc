//! One binding: the wait of `Permit`, then `PreBind`, `Bind`, `PostBind`. Runs beside the cycles.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_client::{Api, Backoff, Client, errors};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::framework::{BindError, Binding};
use crate::pod::node_name;
use crate::profile::Profile;

/// Pods that a `Permit` plugin holds back, by uid. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Waiting(Arc<Mutex<HashMap<Arc<str>, oneshot::Sender<bool>>>>);

impl Waiting {
    pub(crate) fn hold(&self, uid: &Arc<str>) -> Held {
        let (sender, answer) = oneshot::channel();
        self.0.lock().insert(Arc::clone(uid), sender);
        Held {
            waiting: self.clone(),
            uid: Arc::clone(uid),
            answer,
        }
    }

    /// Lets a pod go on (`true`) or rejects it. `false` when it does not wait.
    pub fn answer(&self, uid: &str, allow: bool) -> bool {
        let held = self.0.lock().remove(uid);
        held.is_some_and(|sender| sender.send(allow).is_ok())
    }

    /// The uids of the pods that wait.
    #[must_use]
    pub fn uids(&self) -> Vec<Arc<str>> {
        self.0.lock().keys().cloned().collect()
    }
}

/// One pod held back.
#[derive(Debug)]
pub(crate) struct Held {
    waiting: Waiting,
    uid: Arc<str>,
    answer: oneshot::Receiver<bool>,
}

impl Held {
    async fn answered(mut self, within: Duration) -> Result<(), BindError> {
        let answer = tokio::time::timeout(within, &mut self.answer).await;
        self.waiting.0.lock().remove(&self.uid);
        match answer {
            Ok(Ok(true)) => Ok(()),
            Ok(_) => Err(BindError::Refused(
                "rejected while waiting on permit".to_owned(),
            )),
            Err(_) => Err(BindError::Refused(
                "rejected due to timeout after waiting on permit".to_owned(),
            )),
        }
    }
}

/// Carries out a binding.
pub(crate) async fn bind(
    profile: &Profile,
    client: &Client,
    binding: &Binding,
    held: Option<(Held, Duration)>,
) -> Result<(), BindError> {
    if let Some((held, within)) = held {
        held.answered(within).await?;
    }
    for (_, plugin) in &profile.pre_bind {
        plugin.pre_bind(binding).await.map_err(|error| {
            BindError::Refused(format!(
                "running PreBind plugin \"{}\": {error}",
                plugin.name()
            ))
        })?;
    }
    let mut written = false;
    for (_, plugin) in &profile.bind {
        match plugin.bind(binding).await {
            None => {}
            Some(Ok(())) => {
                written = true;
                break;
            }
            Some(Err(error)) => {
                if is_unclear(&error) && is_bound(client, binding).await {
                    written = true;
                    break;
                }
                return Err(BindError::Refused(format!(
                    "running Bind plugin \"{}\": {error}",
                    plugin.name()
                )));
            }
        }
    }
    if !written {
        return Err(BindError::Refused("no Bind plugin took the pod".to_owned()));
    }
    for (_, plugin) in &profile.post_bind {
        plugin.post_bind(binding);
    }
    Ok(())
}

/// May the binding have been written all the same? After a broken connection, or when it was
/// already written by a request that was sent twice.
fn is_unclear(error: &BindError) -> bool {
    match error {
        BindError::Door(kube::Error::Api(status)) => status.code == 409 || status.code >= 500,
        BindError::Door(_) => true,
        BindError::Refused(_) => false,
    }
}

/// Asks the door where the pod is, until it answers: without knowing, its room on the node can be
/// neither kept nor given away.
async fn is_bound(client: &Client, binding: &Binding) -> bool {
    let meta = &binding.pod.metadata;
    let pods: Api<Pod> = Api::namespaced(
        client.clone(),
        meta.namespace.as_deref().unwrap_or_default(),
    );
    let mut wait = Backoff::new(Duration::from_millis(50), Duration::from_secs(5), 0);
    loop {
        match pods.get(meta.name.as_deref().unwrap_or_default()).await {
            Ok(pod) => {
                return pod.metadata.uid == meta.uid && node_name(&pod) == Some(&*binding.node);
            }
            Err(error) if errors::is_not_found(&error) || errors::is_forbidden(&error) => {
                return false;
            }
            Err(error) => {
                tracing::debug!(error = errors::message(&error), "is the pod bound?");
                tokio::time::sleep(wait.next_wait()).await;
            }
        }
    }
}
