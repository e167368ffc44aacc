//! A runtime without processes.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use evenkeel_api::clock::SharedClock;
use evenkeel_runtime::{
    ContainerConfig, ContainerEvent, ContainerState, ContainerStats, ContainerStatus, ExecOutput,
    ExecRequest, Resources, Result, Runtime, RuntimeError, SandboxConfig, SandboxState,
    SandboxStatus, StreamSession,
};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::broadcast;

/// What a container does once it is started.
#[derive(Debug, Clone, Default)]
pub struct Behaviour {
    /// Ends by itself after that time with that code.
    pub exits: Option<(Duration, i32)>,
    /// Can't be started.
    pub cannot_run: Option<String>,
    /// Time it takes to end after the stop signal; longer than the grace means it is killed.
    pub stops_in: Duration,
    /// Exit code after the stop signal.
    pub stop_code: i32,
    /// What `exec_sync` answers.
    pub exec: ExecOutput,
    /// CPU that it uses, in thousandths of a core.
    pub cpu_milli: u64,
    /// Memory that it uses, bytes.
    pub memory: u64,
}

struct Container {
    status: ContainerStatus,
    config: ContainerConfig,
}

#[derive(Default)]
struct State {
    sandboxes: HashMap<String, (SandboxStatus, SandboxConfig)>,
    containers: HashMap<String, Container>,
    behaviours: BTreeMap<String, Behaviour>,
    sandbox_error: Option<String>,
    calls: Vec<String>,
}

struct Shared {
    state: Mutex<State>,
    events: broadcast::Sender<ContainerEvent>,
    clock: SharedClock,
    ids: AtomicU64,
}

/// A runtime whose containers are entries in a map.
#[derive(Clone)]
pub struct FakeRuntime {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for FakeRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeRuntime").finish_non_exhaustive()
    }
}

impl FakeRuntime {
    /// An empty runtime.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                events: broadcast::Sender::new(4096),
                clock,
                ids: AtomicU64::new(1),
            }),
        }
    }

    /// Says what containers of that name do from their next start on.
    pub fn behave(&self, container: &str, behaviour: Behaviour) {
        self.shared
            .state
            .lock()
            .behaviours
            .insert(container.to_owned(), behaviour);
    }

    /// Makes sandbox creation fail with that text, or succeed again.
    pub fn refuse_sandboxes(&self, error: Option<&str>) {
        self.shared.state.lock().sandbox_error = error.map(str::to_owned);
    }

    /// What was asked for so far: `run_sandbox web`, `start app#0` …
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.shared.state.lock().calls.clone()
    }

    /// The configuration of the newest container of that name.
    #[must_use]
    pub fn config(&self, name: &str) -> Option<ContainerConfig> {
        let state = self.shared.state.lock();
        let newest = state
            .containers
            .values()
            .filter(|container| container.config.name == name)
            .max_by_key(|container| (container.status.created_at, container.config.attempt))?;
        Some(newest.config.clone())
    }

    /// Ends the running containers of that name, as a crash does.
    pub fn crash(&self, name: &str, code: i32) {
        let ids: Vec<String> = {
            let state = self.shared.state.lock();
            state
                .containers
                .values()
                .filter(|c| c.config.name == name && c.status.state == ContainerState::Running)
                .map(|c| c.status.id.clone())
                .collect()
        };
        for id in ids {
            self.end(&id, code, "Error");
        }
    }

    /// Number of running containers.
    #[must_use]
    pub fn running(&self) -> usize {
        let state = self.shared.state.lock();
        state
            .containers
            .values()
            .filter(|c| c.status.state == ContainerState::Running)
            .count()
    }

    /// Nothing left?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let state = self.shared.state.lock();
        state.sandboxes.is_empty() && state.containers.is_empty()
    }

    fn now(&self) -> i64 {
        i64::try_from(self.shared.clock.now().as_nanosecond()).unwrap_or(0)
    }

    fn id(&self) -> String {
        format!("{:064x}", self.shared.ids.fetch_add(1, Ordering::Relaxed))
    }

    fn note(&self, call: String) {
        self.shared.state.lock().calls.push(call);
    }

    fn end(&self, id: &str, code: i32, reason: &str) {
        let now = self.now();
        let mut state = self.shared.state.lock();
        let Some(container) = state.containers.get_mut(id) else {
            return;
        };
        if container.status.state == ContainerState::Exited {
            return;
        }
        container.status.state = ContainerState::Exited;
        container.status.finished_at = now;
        container.status.exit_code = code;
        container.status.reason = if code == 0 {
            "Completed".to_owned()
        } else {
            reason.to_owned()
        };
        container.status.pid = None;
        let sandbox_id = container.status.sandbox_id.clone();
        drop(state);
        self.tell(id, &sandbox_id, ContainerState::Exited);
    }

    fn tell(&self, id: &str, sandbox_id: &str, state: ContainerState) {
        let event = ContainerEvent {
            container_id: id.to_owned(),
            sandbox_id: sandbox_id.to_owned(),
            state,
        };
        // Nobody may be listening; that is fine.
        let _listeners = self.shared.events.send(event).unwrap_or(0);
    }

    fn not_found<T>(kind: &'static str, id: &str) -> Result<T> {
        Err(RuntimeError::NotFound {
            kind,
            id: id.to_owned(),
        })
    }

    fn behaviour(&self, id: &str) -> Option<(Behaviour, String)> {
        let state = self.shared.state.lock();
        let container = state.containers.get(id)?;
        let behaviour = state
            .behaviours
            .get(&container.config.name)
            .cloned()
            .unwrap_or_default();
        Some((behaviour, container.status.sandbox_id.clone()))
    }
}

impl Runtime for FakeRuntime {
    fn version(&self) -> String {
        "fake://1".to_owned()
    }

    fn run_sandbox<'a>(&'a self, config: &'a SandboxConfig) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            self.note(format!("run_sandbox {}", config.pod.name));
            if let Some(error) = self.shared.state.lock().sandbox_error.clone() {
                return Err(RuntimeError::Invalid(error));
            }
            let id = self.id();
            let number = self.shared.ids.load(Ordering::Relaxed);
            let [.., b, c, d] = number.to_be_bytes();
            let status = SandboxStatus {
                id: id.clone(),
                pod: config.pod.clone(),
                state: SandboxState::Ready,
                created_at: self.now(),
                ips: if config.host_network {
                    Vec::new()
                } else {
                    vec![IpAddr::V4(Ipv4Addr::new(10, b, c, d))]
                },
                netns: None,
                labels: config.labels.clone(),
                annotations: config.annotations.clone(),
            };
            self.shared
                .state
                .lock()
                .sandboxes
                .insert(id.clone(), (status, config.clone()));
            Ok(id)
        })
    }

    fn stop_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.note("stop_sandbox".to_owned());
            let running: Vec<String> = {
                let mut state = self.shared.state.lock();
                if let Some((status, _)) = state.sandboxes.get_mut(id) {
                    status.state = SandboxState::NotReady;
                    status.ips.clear();
                }
                state
                    .containers
                    .values()
                    .filter(|c| c.status.sandbox_id == id)
                    .filter(|c| c.status.state == ContainerState::Running)
                    .map(|c| c.status.id.clone())
                    .collect()
            };
            for id in running {
                self.end(&id, 137, "Error");
            }
            Ok(())
        })
    }

    fn remove_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.stop_sandbox(id).await?;
            let mut state = self.shared.state.lock();
            state.sandboxes.remove(id);
            state
                .containers
                .retain(|_, container| container.status.sandbox_id != id);
            Ok(())
        })
    }

    fn list_sandboxes(&self) -> BoxFuture<'_, Result<Vec<SandboxStatus>>> {
        Box::pin(async move {
            let state = self.shared.state.lock();
            Ok(state
                .sandboxes
                .values()
                .map(|(status, _)| status.clone())
                .collect())
        })
    }

    fn sandbox_status<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<SandboxStatus>> {
        Box::pin(async move {
            match self.shared.state.lock().sandboxes.get(id) {
                Some((status, _)) => Ok(status.clone()),
                None => Self::not_found("sandbox", id),
            }
        })
    }

    fn create_container<'a>(
        &'a self,
        sandbox_id: &'a str,
        config: &'a ContainerConfig,
    ) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            self.note(format!("create {}#{}", config.name, config.attempt));
            let id = self.id();
            let created_at = self.now();
            let mut state = self.shared.state.lock();
            let Some((_, sandbox)) = state.sandboxes.get(sandbox_id) else {
                return Self::not_found("sandbox", sandbox_id);
            };
            let status = ContainerStatus {
                id: id.clone(),
                sandbox_id: sandbox_id.to_owned(),
                name: config.name.clone(),
                attempt: config.attempt,
                state: ContainerState::Created,
                created_at,
                started_at: 0,
                finished_at: 0,
                exit_code: 0,
                reason: String::new(),
                message: String::new(),
                image: config.image.clone(),
                image_id: config.image.clone(),
                labels: config.labels.clone(),
                annotations: config.annotations.clone(),
                log_path: sandbox.log_directory.join(&config.log_path),
                pid: None,
                user: None,
            };
            state.containers.insert(
                id.clone(),
                Container {
                    status,
                    config: config.clone(),
                },
            );
            Ok(id)
        })
    }

    fn start_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let Some((behaviour, sandbox_id)) = self.behaviour(id) else {
                return Self::not_found("container", id);
            };
            if let Some(text) = behaviour.cannot_run {
                self.end(id, 128, "StartError");
                return Err(RuntimeError::CannotRun(text));
            }
            let now = self.now();
            {
                let mut state = self.shared.state.lock();
                let Some(container) = state.containers.get_mut(id) else {
                    return Self::not_found("container", id);
                };
                container.status.state = ContainerState::Running;
                container.status.started_at = now;
                container.status.pid = Some(1);
                let call = format!(
                    "start {}#{}",
                    container.config.name, container.config.attempt
                );
                state.calls.push(call);
            }
            self.tell(id, &sandbox_id, ContainerState::Running);
            if let Some((after, code)) = behaviour.exits {
                let (this, id) = (self.clone(), id.to_owned());
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    this.end(&id, code, "Error");
                });
            }
            Ok(())
        })
    }

    fn stop_container<'a>(&'a self, id: &'a str, grace: Duration) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let Some((behaviour, _)) = self.behaviour(id) else {
                return Ok(());
            };
            let name = {
                let state = self.shared.state.lock();
                state
                    .containers
                    .get(id)
                    .map(|c| c.config.name.clone())
                    .unwrap_or_default()
            };
            self.note(format!("stop {name} {}", grace.as_secs()));
            if behaviour.stops_in < grace || (behaviour.stops_in.is_zero() && !grace.is_zero()) {
                tokio::time::sleep(behaviour.stops_in).await;
                self.end(id, behaviour.stop_code, "Error");
            } else {
                tokio::time::sleep(grace).await;
                self.end(id, 137, "Error");
            }
            Ok(())
        })
    }

    fn remove_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.shared.state.lock().containers.remove(id);
            Ok(())
        })
    }

    fn list_containers(&self) -> BoxFuture<'_, Result<Vec<ContainerStatus>>> {
        Box::pin(async move {
            let state = self.shared.state.lock();
            Ok(state
                .containers
                .values()
                .map(|container| container.status.clone())
                .collect())
        })
    }

    fn container_status<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<ContainerStatus>> {
        Box::pin(async move {
            match self.shared.state.lock().containers.get(id) {
                Some(container) => Ok(container.status.clone()),
                None => Self::not_found("container", id),
            }
        })
    }

    fn container_stats<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<ContainerStats>> {
        Box::pin(async move {
            let Some((behaviour, _)) = self.behaviour(id) else {
                return Self::not_found("container", id);
            };
            let now = self.now();
            let started = {
                let state = self.shared.state.lock();
                state
                    .containers
                    .get(id)
                    .map_or(now, |c| c.status.started_at)
            };
            let ran = u64::try_from(now - started).unwrap_or(0);
            Ok(ContainerStats {
                timestamp: now,
                cpu_usage_ns: ran / 1000 * behaviour.cpu_milli,
                memory_working_set: behaviour.memory,
                memory_usage: behaviour.memory,
                pids: 1,
                rootfs_used_bytes: 0,
            })
        })
    }

    fn update_resources<'a>(
        &'a self,
        id: &'a str,
        resources: &'a Resources,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            match self.shared.state.lock().containers.get_mut(id) {
                Some(container) => {
                    container.config.resources = resources.clone();
                    Ok(())
                }
                None => Self::not_found("container", id),
            }
        })
    }

    fn update_sandbox<'a>(
        &'a self,
        _id: &'a str,
        _resources: &'a Resources,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn reopen_log<'a>(&'a self, _id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { Ok(()) })
    }

    fn exec<'a>(
        &'a self,
        _id: &'a str,
        _request: &'a ExecRequest,
    ) -> BoxFuture<'a, Result<StreamSession>> {
        Box::pin(async move {
            Err(RuntimeError::Unsupported(
                "exec in the fake runtime".to_owned(),
            ))
        })
    }

    fn exec_sync<'a>(
        &'a self,
        id: &'a str,
        command: &'a [String],
        _timeout: Duration,
    ) -> BoxFuture<'a, Result<ExecOutput>> {
        Box::pin(async move {
            let Some((behaviour, _)) = self.behaviour(id) else {
                return Self::not_found("container", id);
            };
            self.note(format!("exec {}", command.join(" ")));
            Ok(behaviour.exec)
        })
    }

    fn attach<'a>(
        &'a self,
        _id: &'a str,
        _request: &'a ExecRequest,
    ) -> BoxFuture<'a, Result<StreamSession>> {
        Box::pin(async move {
            Err(RuntimeError::Unsupported(
                "attach in the fake runtime".to_owned(),
            ))
        })
    }

    fn events(&self) -> broadcast::Receiver<ContainerEvent> {
        self.shared.events.subscribe()
    }
}
