//! The runtime's sandboxes and containers by pod: listed once, then kept by events and by what
//! the agent does itself.
//!
//! A container's state only moves forward here, so that an answer that was asked for earlier and
//! came later changes nothing.

use std::collections::HashMap;
use std::sync::Arc;

use evenkeel_runtime::{
    ContainerState, ContainerStatus, RuntimeError, SandboxStatus, SharedRuntime,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::pod::observed::Observed;
use crate::spec::container::POD_UID;

/// Wakes pod workers by UID.
#[derive(Debug, Default)]
pub struct Wakers {
    by_uid: Mutex<HashMap<String, Arc<Notify>>>,
}

impl Wakers {
    /// The bell of a pod's worker, made at first use.
    pub fn bell(&self, uid: &str) -> Arc<Notify> {
        self.by_uid
            .lock()
            .entry(uid.to_owned())
            .or_default()
            .clone()
    }

    /// Rings it, if anybody listens.
    pub fn wake(&self, uid: &str) {
        if let Some(bell) = self.by_uid.lock().get(uid) {
            bell.notify_one();
        }
    }

    /// Wakes every worker.
    pub fn wake_all(&self) {
        for bell in self.by_uid.lock().values() {
            bell.notify_one();
        }
    }

    /// Forgets a pod.
    pub fn forget(&self, uid: &str) {
        self.by_uid.lock().remove(uid);
    }
}

#[derive(Default)]
struct Inner {
    pods: HashMap<String, Observed>,
    /// Pod by container id.
    containers: HashMap<String, String>,
    /// Pod by sandbox id.
    sandboxes: HashMap<String, String>,
}

/// The view.
pub struct RuntimeView {
    runtime: SharedRuntime,
    wakers: Arc<Wakers>,
    inner: Mutex<Inner>,
}

impl std::fmt::Debug for RuntimeView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuntimeView").finish_non_exhaustive()
    }
}

impl RuntimeView {
    /// An empty view; [`Self::relist`] fills it.
    #[must_use]
    pub fn new(runtime: SharedRuntime, wakers: Arc<Wakers>) -> Self {
        Self {
            runtime,
            wakers,
            inner: Mutex::default(),
        }
    }

    /// What the runtime holds for a pod.
    #[must_use]
    pub fn observed(&self, uid: &str) -> Observed {
        self.inner.lock().pods.get(uid).cloned().unwrap_or_default()
    }

    /// UIDs of all pods that have anything in the runtime.
    #[must_use]
    pub fn uids(&self) -> Vec<String> {
        self.inner.lock().pods.keys().cloned().collect()
    }

    /// Reads everything anew and wakes every worker.
    ///
    /// # Errors
    /// When the runtime can't list.
    pub async fn relist(&self) -> Result<(), RuntimeError> {
        let (sandboxes, containers) = tokio::try_join!(
            self.runtime.list_sandboxes(),
            self.runtime.list_containers()
        )?;
        let mut fresh = Inner::default();
        for sandbox in sandboxes {
            fresh.put_sandbox(sandbox);
        }
        for container in containers {
            fresh.put_container(container);
        }
        *self.inner.lock() = fresh;
        self.wakers.wake_all();
        Ok(())
    }

    /// Reads one container anew.
    ///
    /// # Errors
    /// When the runtime can't tell.
    pub async fn refresh_container(&self, id: &str) -> Result<(), RuntimeError> {
        match self.runtime.container_status(id).await {
            Ok(status) => {
                let uid = self.inner.lock().put_container(status);
                if let Some(uid) = uid {
                    self.wakers.wake(&uid);
                }
                Ok(())
            }
            Err(RuntimeError::NotFound { .. }) => {
                self.forget_container(id);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Reads one sandbox anew.
    ///
    /// # Errors
    /// When the runtime can't tell.
    pub async fn refresh_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        match self.runtime.sandbox_status(id).await {
            Ok(status) => {
                self.inner.lock().put_sandbox(status);
                Ok(())
            }
            Err(RuntimeError::NotFound { .. }) => {
                self.forget_sandbox(id);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Where a container's log lies.
    #[must_use]
    pub fn log_path(&self, id: &str) -> Option<std::path::PathBuf> {
        let inner = self.inner.lock();
        let pod = inner.pods.get(inner.containers.get(id)?)?;
        pod.containers
            .iter()
            .find(|container| container.id == id)
            .map(|c| c.log_path.clone())
    }

    /// A container was removed.
    pub fn forget_container(&self, id: &str) {
        let mut inner = self.inner.lock();
        let Some(uid) = inner.containers.remove(id) else {
            return;
        };
        if let Some(pod) = inner.pods.get_mut(&uid) {
            pod.containers.retain(|container| container.id != id);
            if pod.is_empty() {
                inner.pods.remove(&uid);
            }
        }
        drop(inner);
        self.wakers.wake(&uid);
    }

    /// A sandbox was removed, its containers with it.
    pub fn forget_sandbox(&self, id: &str) {
        let mut inner = self.inner.lock();
        let Some(uid) = inner.sandboxes.remove(id) else {
            return;
        };
        let mut gone = Vec::new();
        if let Some(pod) = inner.pods.get_mut(&uid) {
            pod.sandboxes.retain(|sandbox| sandbox.id != id);
            pod.containers.retain(|container| {
                let stays = container.sandbox_id != id;
                if !stays {
                    gone.push(container.id.clone());
                }
                stays
            });
            if pod.is_empty() {
                inner.pods.remove(&uid);
            }
        }
        for container in gone {
            inner.containers.remove(&container);
        }
        drop(inner);
        self.wakers.wake(&uid);
    }
}

impl Inner {
    fn put_sandbox(&mut self, status: SandboxStatus) {
        let uid = status.pod.uid.clone();
        self.sandboxes.insert(status.id.clone(), uid.clone());
        let pod = self.pods.entry(uid).or_default();
        pod.sandboxes.retain(|sandbox| sandbox.id != status.id);
        pod.sandboxes.push(Arc::new(status));
        pod.sort();
    }

    /// Answers the pod it belongs to.
    fn put_container(&mut self, status: ContainerStatus) -> Option<String> {
        let uid = status
            .labels
            .get(POD_UID)
            .or_else(|| self.sandboxes.get(&status.sandbox_id))
            .cloned()?;
        self.containers.insert(status.id.clone(), uid.clone());
        let pod = self.pods.entry(uid.clone()).or_default();
        if let Some(have) = pod.containers.iter_mut().find(|have| have.id == status.id) {
            if rank(status.state) >= rank(have.state) {
                *have = Arc::new(status);
            }
        } else {
            pod.containers.push(Arc::new(status));
            pod.sort();
        }
        Some(uid)
    }
}

fn rank(state: ContainerState) -> u8 {
    match state {
        ContainerState::Created => 0,
        ContainerState::Running | ContainerState::Unknown => 1,
        ContainerState::Exited => 2,
    }
}
