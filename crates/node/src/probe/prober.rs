//! The tasks that probe one pod's containers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_runtime::{ContainerState, RuntimeError};
use k8s_openapi::api::core::v1::Probe;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::tally::Tally;
use super::target::{authority, http_target, resolve_port};
use super::{Answer, ProbeKind};
use crate::context::Context;
use crate::events::Kind;
use crate::pod::memory::Memory;
use crate::pod::model::{ContainerModel, PodModel, Role};
use crate::pod::observed::Observed;
use crate::pod::plan::{started, timestamp};

/// First wait after a refused connection while a program starts.
const QUICK_FIRST: Duration = Duration::from_millis(10);
/// Longest of those waits.
const QUICK_MAX: Duration = Duration::from_secs(1);
/// Tries of a probe that could not be carried out.
const ERROR_RETRIES: usize = 3;

/// A result, made or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Container.
    pub container: String,
    /// Its instance.
    pub container_id: String,
    /// Which probe.
    pub kind: ProbeKind,
    /// Passed?
    pub passed: bool,
}

struct Running {
    container_id: String,
    _task: AbortOnDropHandle<()>,
}

/// The probes of a pod. Dropping it ends them.
#[derive(Default)]
pub struct Probes {
    running: HashMap<(String, ProbeKind), Running>,
}

impl std::fmt::Debug for Probes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probes")
            .field("running", &self.running.len())
            .finish()
    }
}

impl Probes {
    /// Starts the probes that should run and ends those that should not.
    pub fn reconcile(
        &mut self,
        context: &Arc<Context>,
        model: &Arc<PodModel>,
        observed: &Observed,
        memory: &Memory,
        reports: &mpsc::Sender<Report>,
    ) {
        let ending = memory.termination.is_some();
        let mut wanted: HashMap<(String, ProbeKind), String> = HashMap::new();
        for container in model.with_role(&[Role::App, Role::Sidecar]) {
            let Some(status) = observed.running(container.name()) else {
                continue;
            };
            let known = memory.containers.get(container.name());
            if known.is_some_and(|known| known.starting) {
                continue;
            }
            let up = started(container, status, memory);
            let results = known
                .map(|known| &known.probes)
                .filter(|p| p.container_id == status.id);
            for (kind, probe) in kinds(container) {
                let over = results.is_some_and(|results| match kind {
                    ProbeKind::Startup => results.startup.is_some(),
                    ProbeKind::Liveness => results.liveness == Some(false),
                    ProbeKind::Readiness => false,
                });
                let wait =
                    (kind != ProbeKind::Startup && !up) || (ending && kind != ProbeKind::Readiness);
                if probe.is_some() && !over && !wait {
                    let key = (container.name().to_owned(), kind);
                    wanted.insert(key, status.id.clone());
                }
            }
        }
        self.running
            .retain(|key, running| wanted.get(key) == Some(&running.container_id));
        for ((name, kind), container_id) in wanted {
            if self.running.contains_key(&(name.clone(), kind)) {
                continue;
            }
            let Some(container) = model.container(&name).cloned() else {
                continue;
            };
            let found = kinds(&container)
                .into_iter()
                .find(|(have, _)| *have == kind);
            let Some(probe) = found.and_then(|(_, probe)| probe.cloned()) else {
                continue;
            };
            let started_at = observed
                .running(&name)
                .map_or(0, |status| status.started_at);
            let prober = Prober {
                context: Arc::clone(context),
                model: Arc::clone(model),
                container,
                container_id: container_id.clone(),
                kind,
                probe,
                reports: reports.clone(),
            };
            let task = AbortOnDropHandle::new(tokio::spawn(prober.run(started_at)));
            self.running.insert(
                (name, kind),
                Running {
                    container_id,
                    _task: task,
                },
            );
        }
    }
}

fn kinds(container: &ContainerModel) -> [(ProbeKind, Option<&Probe>); 3] {
    let spec = &container.spec;
    [
        (ProbeKind::Startup, spec.startup_probe.as_ref()),
        (ProbeKind::Liveness, spec.liveness_probe.as_ref()),
        (ProbeKind::Readiness, spec.readiness_probe.as_ref()),
    ]
}

struct Prober {
    context: Arc<Context>,
    model: Arc<PodModel>,
    container: ContainerModel,
    container_id: String,
    kind: ProbeKind,
    probe: Probe,
    reports: mpsc::Sender<Report>,
}

fn seconds(given: Option<i32>, default: u64) -> Duration {
    let given = given.and_then(|n| u64::try_from(n).ok());
    Duration::from_secs(given.unwrap_or(default))
}

impl Prober {
    async fn run(self, started_at: i64) {
        let delay = seconds(self.probe.initial_delay_seconds, 0);
        let age = self
            .context
            .config
            .clock
            .now()
            .duration_since(timestamp(started_at));
        let age = Duration::try_from(age).unwrap_or(Duration::ZERO);
        tokio::time::sleep(delay.saturating_sub(age)).await;
        let period = seconds(self.probe.period_seconds, 10).max(Duration::from_secs(1));
        let mut tally = Tally::new(
            self.kind,
            self.probe.success_threshold,
            self.probe.failure_threshold,
        );
        let mut quick = (self.kind != ProbeKind::Liveness).then_some(QUICK_FIRST);
        let mut tick = Instant::now();
        loop {
            let answer = self.attempt().await;
            // While a program starts, nobody listening is no answer yet: it is asked again soon,
            // and counted when the period is over. So a pod is ready when its program is, not a
            // period later.
            if let (Answer::Refused(_), Some(wait)) = (&answer, quick)
                && tick.elapsed() + wait < period
            {
                tokio::time::sleep(wait).await;
                quick = Some((wait * 2).min(QUICK_MAX));
                continue;
            }
            quick = None;
            let passed = self.tell(&answer);
            if let Some(passed) = tally.count(passed) {
                let report = Report {
                    container: self.container.name().to_owned(),
                    container_id: self.container_id.clone(),
                    kind: self.kind,
                    passed,
                };
                if self.reports.send(report).await.is_err() {
                    return;
                }
            }
            tick += period;
            if tick < Instant::now() {
                tick = Instant::now();
            }
            tokio::time::sleep_until(tick).await;
        }
    }

    /// Records what is worth it; true when the answer counts as a success.
    fn tell(&self, answer: &Answer) -> bool {
        let title = self.kind.title();
        let (kind, reason, text) = match answer {
            Answer::Passed => return true,
            Answer::Warned(text) => (
                Kind::Warning,
                "ProbeWarning",
                format!("{title} probe warning: {text}"),
            ),
            Answer::Failed(text) | Answer::Refused(text) => (
                Kind::Warning,
                "Unhealthy",
                format!("{title} probe failed: {text}"),
            ),
            Answer::Errored(text) => (
                Kind::Warning,
                "Unhealthy",
                format!("{title} probe errored and resulted in unknown state: {text}"),
            ),
        };
        // A container that ended meanwhile did not fail its probe.
        let observed = self.context.view.observed(self.model.uid());
        let runs = observed
            .latest(self.container.name())
            .is_some_and(|c| c.id == self.container_id && c.state == ContainerState::Running);
        if runs {
            self.context
                .recorder
                .container(&self.model, &self.container, kind, reason, text);
        }
        matches!(answer, Answer::Warned(_))
    }

    async fn attempt(&self) -> Answer {
        let mut answer = Answer::Errored(String::new());
        for _ in 0..ERROR_RETRIES {
            answer = self.try_once().await;
            if !matches!(answer, Answer::Errored(_)) {
                break;
            }
        }
        answer
    }

    async fn try_once(&self) -> Answer {
        let limit = seconds(self.probe.timeout_seconds, 1).max(Duration::from_secs(1));
        let dialers = &self.context.dialers;
        let ip = self
            .context
            .pod_ips(&self.model)
            .into_iter()
            .next()
            .unwrap_or_default();
        if let Some(exec) = &self.probe.exec {
            return self
                .exec(exec.command.clone().unwrap_or_default(), limit)
                .await;
        }
        if let Some(get) = &self.probe.http_get {
            let port = match resolve_port(&get.port, &self.container.spec) {
                Ok(port) => port,
                Err(error) => return Answer::Errored(error),
            };
            let target = http_target(get, &ip, port, "kube-probe/1.37");
            let probe = dialers.probe_http(&target);
            return match tokio::time::timeout(limit, probe).await {
                Ok(answer) => answer,
                Err(_) => Answer::Failed(format!(
                    "Get \"{}\": context deadline exceeded (Client.Timeout exceeded while \
                     awaiting headers)",
                    target.url()
                )),
            };
        }
        if let Some(tcp) = &self.probe.tcp_socket {
            let port = match resolve_port(&tcp.port, &self.container.spec) {
                Ok(port) => port,
                Err(error) => return Answer::Errored(error),
            };
            let host = tcp
                .host
                .clone()
                .filter(|host| !host.is_empty())
                .unwrap_or(ip);
            return match tokio::time::timeout(limit, dialers.tcp(&host, port)).await {
                Ok(Ok(_)) => Answer::Passed,
                Ok(Err(error)) if error.refused => Answer::Refused(error.text),
                Ok(Err(error)) => Answer::Failed(error.text),
                Err(_) => {
                    Answer::Failed(format!("dial tcp {}: i/o timeout", authority(&host, port)))
                }
            };
        }
        if let Some(grpc) = &self.probe.grpc {
            let Ok(port) = u16::try_from(grpc.port) else {
                return Answer::Errored(format!("invalid port number: {}", grpc.port));
            };
            if grpc
                .mode
                .as_deref()
                .is_some_and(|mode| !mode.is_empty() && mode != "PlainText")
            {
                let mode = grpc.mode.as_deref().unwrap_or_default();
                return Answer::Errored(format!("grpc mode {mode} is not supported by this node"));
            }
            let service = grpc.service.as_deref().unwrap_or_default();
            let probe = dialers.probe_grpc(&ip, port, service);
            return match tokio::time::timeout(limit, probe).await {
                Ok(answer) => answer,
                Err(_) => Answer::Failed(format!(
                    "timeout: health rpc did not complete within {}s",
                    limit.as_secs()
                )),
            };
        }
        Answer::Errored("missing probe handler".to_owned())
    }

    async fn exec(&self, command: Vec<String>, limit: Duration) -> Answer {
        let runtime = &self.context.config.runtime;
        match runtime.exec_sync(&self.container_id, &command, limit).await {
            Ok(output) if output.exit_code == 0 => Answer::Passed,
            Ok(output) => {
                let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
                text.push_str(&String::from_utf8_lossy(&output.stderr));
                Answer::Failed(text)
            }
            Err(RuntimeError::Timeout(_)) => Answer::Failed(format!(
                "command timed out: \"{}\" timed out after {}s",
                command.join(" "),
                limit.as_secs()
            )),
            // A program that can't be run is a failure of the container, not of the node.
            Err(RuntimeError::CannotRun(text)) => Answer::Failed(text),
            Err(error) => Answer::Errored(crate::pod::pull::error_chain(&error)),
        }
    }
}
