//! A pod as the runtime shows it: its sandboxes and containers, newest first.

use std::sync::Arc;

use evenkeel_runtime::{ContainerState, ContainerStatus, SandboxState, SandboxStatus};

/// What the runtime holds for one pod.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Newest first.
    pub sandboxes: Vec<Arc<SandboxStatus>>,
    /// Newest first.
    pub containers: Vec<Arc<ContainerStatus>>,
}

impl Observed {
    /// Puts both lists in order.
    pub fn sort(&mut self) {
        self.sandboxes
            .sort_by_key(|s| std::cmp::Reverse((s.pod.attempt, s.created_at)));
        self.containers
            .sort_by_key(|c| std::cmp::Reverse((c.created_at, c.attempt)));
    }

    /// Nothing at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.containers.is_empty()
    }

    /// The newest sandbox.
    #[must_use]
    pub fn sandbox(&self) -> Option<&SandboxStatus> {
        self.sandboxes.first().map(Arc::as_ref)
    }

    /// The newest sandbox, if containers can run in it.
    #[must_use]
    pub fn ready_sandbox(&self) -> Option<&SandboxStatus> {
        self.sandbox()
            .filter(|sandbox| sandbox.state == SandboxState::Ready)
    }

    /// The newest container of that name, in whatever sandbox.
    #[must_use]
    pub fn latest(&self, name: &str) -> Option<&ContainerStatus> {
        self.containers
            .iter()
            .map(Arc::as_ref)
            .find(|container| container.name == name)
    }

    /// All containers of that name, newest first.
    pub fn instances<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a ContainerStatus> {
        self.containers
            .iter()
            .map(Arc::as_ref)
            .filter(move |c| c.name == name)
    }

    /// The newest container of that name in the newest sandbox.
    #[must_use]
    pub fn current(&self, name: &str) -> Option<&ContainerStatus> {
        let sandbox = self.sandbox()?;
        self.latest(name)
            .filter(|container| container.sandbox_id == sandbox.id)
    }

    /// Does a container of that name run?
    #[must_use]
    pub fn running(&self, name: &str) -> Option<&ContainerStatus> {
        self.latest(name)
            .filter(|container| container.state == ContainerState::Running)
    }
}
