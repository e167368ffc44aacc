//! One pod's worker: observe, plan, begin, wait. Everything it waits for can end the wait: a
//! change of the object, of the runtime, of a probe's result, the end of an operation, a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::kill::{self, Kill};
use super::memory::{
    Ending, ImageState, Memory, Op, ProbeResults, Refusal, Termination, VolumesState,
};
use super::message;
use super::model::PodModel;
use super::observed::Observed;
use super::ops::{self, Outcome};
use super::plan::{Action, Inputs, Plan, plan};
use super::pull::{self, Pulled};
use super::start::{self, Start};
use super::status::{StatusInputs, compute};
use super::status_patch::{diff, merged};
use crate::context::Context;
use crate::events::Kind;
use crate::probe::{ProbeKind, Probes, Report};
use crate::volume::{PodVolumes, payload};

/// How long status changes are gathered before one is written.
const STATUS_GATHER: Duration = Duration::from_millis(2);
/// Wait after an operation failed that has no wait of its own.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
/// Wait after a status could not be written.
const STATUS_RETRY: SignedDuration = SignedDuration::from_secs(1);
/// Wait after a start could not be tried.
const START_RETRY: SignedDuration = SignedDuration::from_secs(5);
/// First wait after a volume could not be made; it doubles from there. Short, because what is
/// missing in a new namespace (the CA's config map) is about to be published.
const VOLUME_RETRY_MS: i64 = 100;
/// Longest of those waits.
const VOLUME_RETRY_MAX_MS: i64 = 10_000;
/// Contents of volumes are read again this often, and up to half as much later.
const REFRESH: Duration = Duration::from_secs(60);
/// How old an object may be that a refresh uses.
const REFRESH_AGE: SignedDuration = SignedDuration::from_secs(30);
/// Longest wait between tries to make a sandbox.
const SANDBOX_RETRY_MAX: i64 = 60;

/// What a worker is told from outside. Only the newest counts.
#[derive(Debug, Default)]
pub struct Mailbox {
    latest: Mutex<Option<Told>>,
    bell: Arc<Notify>,
}

#[derive(Debug)]
struct Told {
    pod: Arc<Pod>,
    gone: bool,
}

impl Mailbox {
    /// With the bell that the runtime view rings too.
    #[must_use]
    pub fn new(bell: Arc<Notify>) -> Self {
        Self {
            latest: Mutex::default(),
            bell,
        }
    }

    /// The pod is now like this; `gone` when the API has it no more.
    pub fn tell(&self, pod: Arc<Pod>, gone: bool) {
        *self.latest.lock() = Some(Told { pod, gone });
        self.bell.notify_one();
    }
}

type Running = BoxFuture<'static, (Option<Op>, Outcome)>;

/// A pod's worker.
pub struct Worker {
    context: Arc<Context>,
    mailbox: Arc<Mailbox>,
    model: Arc<PodModel>,
    memory: Memory,
    volumes: PodVolumes,
    messages: BTreeMap<String, String>,
    running: FuturesUnordered<Running>,
    probes: Probes,
    reports: (mpsc::Sender<Report>, mpsc::Receiver<Report>),
    /// The status that the API has.
    written: PodStatus,
    writing: bool,
    write_retry: Option<Timestamp>,
    stop: CancellationToken,
    deadline: watch::Sender<Option<Timestamp>>,
    refresh_at: tokio::time::Instant,
    /// The back-off last told of, by container.
    announced: BTreeMap<String, String>,
    volume_failures: u32,
    over: bool,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("pod", &self.model.full_name())
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker for a pod.
    #[must_use]
    pub fn new(context: Arc<Context>, mailbox: Arc<Mailbox>, pod: Arc<Pod>) -> Self {
        let written = pod.status.clone().unwrap_or_default();
        let memory = Memory {
            seen_at: Some(context.config.clock.now()),
            ..Memory::default()
        };
        Self {
            context,
            mailbox,
            model: Arc::new(PodModel::new(pod)),
            memory,
            volumes: PodVolumes::new(),
            messages: BTreeMap::new(),
            running: FuturesUnordered::new(),
            probes: Probes::default(),
            reports: mpsc::channel(16),
            written,
            writing: false,
            write_retry: None,
            stop: CancellationToken::new(),
            deadline: watch::Sender::new(None),
            refresh_at: next_refresh(),
            announced: BTreeMap::new(),
            volume_failures: 0,
            over: false,
        }
    }

    /// Works until nothing of the pod is left.
    pub async fn run(mut self) {
        while !self.over {
            self.read_mail();
            let wake_at = self.step();
            if !self.over {
                self.wait(wake_at).await;
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.context.config.clock.now()
    }

    fn read_mail(&mut self) {
        let Some(told) = self.mailbox.latest.lock().take() else {
            self.note_deletion();
            return;
        };
        let downward_changed = told.pod.metadata.labels != self.model.pod.metadata.labels
            || told.pod.metadata.annotations != self.model.pod.metadata.annotations;
        if downward_changed {
            self.refresh_at = tokio::time::Instant::now();
        }
        self.model = Arc::new(PodModel::new(told.pod));
        self.memory.api_deleted |= told.gone;
        self.note_deletion();
    }

    /// Begins the end when the API asks for it, and brings it forward when it asks for less grace.
    fn note_deletion(&mut self) {
        let gone = self.memory.api_deleted;
        if !gone && self.model.deletion().is_none() {
            return;
        }
        let ending = if gone { Ending::Gone } else { Ending::Deleted };
        let deadline = self.now() + SignedDuration::from_secs(self.model.grace_seconds());
        let deadline = match &self.memory.termination {
            Some(begun) => begun.deadline.min(deadline),
            None => deadline,
        };
        let keep_reason = matches!(
            self.memory.termination.as_ref().map(|begun| &begun.ending),
            Some(Ending::Failed { .. })
        );
        let ending = match self.memory.termination.take() {
            Some(begun) if keep_reason && !gone => begun.ending,
            _ => ending,
        };
        self.terminate(ending, deadline);
    }

    fn terminate(&mut self, ending: Ending, deadline: Timestamp) {
        self.memory.termination = Some(Termination { ending, deadline });
        self.stop.cancel();
        self.deadline.send_if_modified(|have| {
            let changed = *have != Some(deadline);
            *have = Some(deadline);
            changed
        });
    }

    /// Plans, begins what is to be done, and answers when to look again.
    fn step(&mut self) -> Option<Timestamp> {
        loop {
            let observed = self.context.view.observed(self.model.uid());
            message::read_new(&self.model, &observed, &mut self.messages);
            let now = self.now();
            let plan = plan(Inputs {
                model: &self.model,
                observed: &observed,
                memory: &self.memory,
                now,
            });
            let ended = plan.actions.iter().find_map(|action| match action {
                Action::End(ending) => Some(ending.clone()),
                _ => None,
            });
            if let Some(ending) = ended {
                let grace = SignedDuration::from_secs(self.model.grace_seconds());
                self.terminate(ending, now + grace);
                continue;
            }
            for action in &plan.actions {
                self.begin(action.clone(), &observed);
            }
            self.probes.reconcile(
                &self.context,
                &self.model,
                &observed,
                &self.memory,
                &self.reports.0,
            );
            self.announce(&observed, &plan);
            let settled = self.publish(&observed, &plan, now);
            if settled && !self.memory.final_status_written {
                self.memory.final_status_written = true;
                continue;
            }
            let retry = self.write_retry.filter(|_| !self.writing);
            return match (plan.wake_at, retry) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
    }

    /// Writes the status if it differs; true when nothing runs and the API knows it.
    fn publish(&mut self, observed: &Observed, plan: &Plan, now: Timestamp) -> bool {
        let status = compute(StatusInputs {
            model: &self.model,
            observed,
            memory: &self.memory,
            plan,
            previous: &self.written,
            messages: &self.messages,
            host_ips: &[self.context.config.node_ip],
            now,
        });
        if self.memory.api_deleted {
            return false;
        }
        let Some(patch) = diff(self.model.uid(), &self.written, &status) else {
            self.write_retry = None;
            return plan.stopped && !self.writing;
        };
        if plan.stopped {
            self.memory.final_status_written = false;
        }
        if self.writing || self.write_retry.is_some_and(|retry| retry > now) {
            return false;
        }
        // What changes within a moment is written once: the first change waits for the others.
        let ready = |status: &PodStatus| {
            status
                .conditions
                .iter()
                .flatten()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True")
        };
        let urgent = ready(&status) != ready(&self.written) || plan.stopped;
        self.writing = true;
        let (context, model) = (Arc::clone(&self.context), Arc::clone(&self.model));
        self.running.push(Box::pin(async move {
            if !urgent {
                tokio::time::sleep(STATUS_GATHER).await;
            }
            let result = ops::write_status(&context, &model, &patch).await;
            (None, Outcome::StatusWritten(Box::new(status), result))
        }));
        false
    }

    fn begin(&mut self, action: Action, observed: &Observed) {
        let op = action.op();
        if let Some(op) = &op {
            self.memory.busy.insert(op.clone());
        }
        let context = Arc::clone(&self.context);
        let model = Arc::clone(&self.model);
        let stop = self.stop.clone();
        let work: BoxFuture<'static, Outcome> = match action {
            Action::PrepareVolumes => Box::pin(async move {
                tokio::select! {
                    made = ops::prepare_volumes(&context, &model, SignedDuration::ZERO) => {
                        Outcome::VolumesPrepared(made)
                    }
                    () = stop.cancelled() => Outcome::Cancelled,
                }
            }),
            Action::ReleaseVolumes => Box::pin(async move {
                Outcome::VolumesReleased(ops::release_volumes(&context, model.uid()).await)
            }),
            Action::CreateSandbox { attempt } => Box::pin(async move {
                Outcome::SandboxCreated(ops::create_sandbox(&context, &model, attempt).await)
            }),
            Action::StopSandbox { id } => {
                if self.memory.termination.is_none() && !super::plan::finished(&model, observed) {
                    let text = "Pod sandbox changed, it will be killed and re-created.";
                    context
                        .recorder
                        .pod(&model, Kind::Normal, "SandboxChanged", text);
                }
                Box::pin(async move {
                    let stopped = ops::stop_sandbox(&context, &id).await;
                    Outcome::SandboxStopped(id, stopped)
                })
            }
            Action::EnsureImage {
                container,
                may_pull,
            } => Box::pin(async move {
                let Some(spec) = model.container(&container) else {
                    return Outcome::Cancelled;
                };
                tokio::select! {
                    pulled = pull::ensure(&context, &model, spec, may_pull) => {
                        Outcome::Image(container, pulled)
                    }
                    () = stop.cancelled() => Outcome::Cancelled,
                }
            }),
            Action::StartContainer {
                container,
                attempt,
                sandbox_id,
                after,
            } => {
                let known = self.memory.container(&container);
                known.starting = true;
                let ImageState::Present(image) = std::mem::take(&mut known.image) else {
                    known.starting = false;
                    if let Some(op) = &op {
                        self.memory.busy.remove(op);
                    }
                    return;
                };
                let start = Start {
                    attempt,
                    sandbox_id,
                    image: *image,
                    volumes: self.volumes.clone(),
                    stop,
                };
                Box::pin(async move {
                    let Some(spec) = model.container(&container) else {
                        return Outcome::Cancelled;
                    };
                    let started = start::start(&context, &model, spec, start).await;
                    Outcome::Started(container, after, started)
                })
            }
            Action::KillContainer {
                container,
                id,
                why,
                grace,
            } => {
                let deadline = self.deadline.subscribe();
                Box::pin(async move {
                    let spec = model.container(&container);
                    let kill = Kill {
                        name: container.clone(),
                        id,
                        why,
                        grace,
                        deadline,
                    };
                    let killed = kill::kill(&context, &model, spec, kill).await;
                    Outcome::Killed(container, killed)
                })
            }
            Action::RemoveContainer { container, id } => Box::pin(async move {
                Outcome::Removed(container, ops::remove_container(&context, &id).await)
            }),
            Action::DeleteFromApi => Box::pin(async move {
                Outcome::ApiDeleted(ops::delete_from_api(&context, &model).await)
            }),
            Action::Cleanup => Box::pin(async move {
                let (namespace, name, uid) = (model.namespace(), model.name(), model.uid());
                Outcome::CleanedUp(ops::clean_up(&context, namespace, name, uid).await)
            }),
            Action::End(_) => return,
        };
        self.running.push(Box::pin(async move { (op, work.await) }));
    }

    fn refresh(&mut self) {
        self.refresh_at = next_refresh();
        let refreshable = self
            .model
            .spec()
            .and_then(|spec| spec.volumes.as_ref())
            .is_some_and(|volumes| volumes.iter().any(payload::refreshable));
        let idle = self.memory.volumes == VolumesState::Ready
            && !self.memory.busy.contains(&Op::Volumes)
            && self.memory.termination.is_none()
            && !self.model.phase_is_final();
        if !refreshable || !idle {
            return;
        }
        self.memory.busy.insert(Op::Volumes);
        let (context, model) = (Arc::clone(&self.context), Arc::clone(&self.model));
        self.running.push(Box::pin(async move {
            let made = ops::prepare_volumes(&context, &model, REFRESH_AGE).await;
            (Some(Op::Volumes), Outcome::VolumesRefreshed(made))
        }));
    }

    async fn wait(&mut self, wake_at: Option<Timestamp>) {
        let left = wake_at.map(|at| {
            let left = at.duration_since(self.now());
            // A wake-up a little late is fine, one a little early would only come again.
            Duration::try_from(left).unwrap_or(Duration::ZERO) + Duration::from_millis(1)
        });
        let timer = async {
            match left {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.mailbox.bell.notified() => {}
            Some((op, outcome)) = self.running.next() => {
                let held = self.take(outcome);
                match op {
                    // A failure is not tried again at once.
                    Some(op) if held => self.running.push(Box::pin(async move {
                        tokio::time::sleep(FAILURE_PAUSE).await;
                        (Some(op), Outcome::Cancelled)
                    })),
                    Some(op) => {
                        self.memory.busy.remove(&op);
                    }
                    None => {}
                }
            }
            Some(report) = self.reports.1.recv() => self.take_report(report),
            () = timer => {}
            () = tokio::time::sleep_until(self.refresh_at) => self.refresh(),
        }
    }

    fn take_report(&mut self, report: Report) {
        let known = self.memory.container(&report.container);
        if known.probes.container_id != report.container_id {
            known.probes = ProbeResults {
                container_id: report.container_id,
                ..ProbeResults::default()
            };
        }
        let slot = match report.kind {
            ProbeKind::Startup => &mut known.probes.startup,
            ProbeKind::Liveness => &mut known.probes.liveness,
            ProbeKind::Readiness => &mut known.probes.readiness,
        };
        *slot = Some(report.passed);
    }

    /// Notes what came of an operation; true when it failed and must not be tried again at once.
    fn take(&mut self, outcome: Outcome) -> bool {
        let now = self.now();
        match outcome {
            Outcome::VolumesPrepared(Ok(volumes)) => {
                self.volumes = volumes;
                self.memory.volumes = VolumesState::Ready;
                self.volume_failures = 0;
                self.refresh_at = next_refresh();
            }
            Outcome::VolumesPrepared(Err(error)) => {
                ops::report_volume_failure(&self.context, &self.model, &error);
                let wait = VOLUME_RETRY_MS << self.volume_failures.min(7);
                self.volume_failures += 1;
                let wait = SignedDuration::from_millis(wait.min(VOLUME_RETRY_MAX_MS));
                self.memory.volumes = VolumesState::Failed {
                    retry_at: now + wait,
                };
            }
            Outcome::VolumesRefreshed(Ok(volumes)) => self.volumes = volumes,
            Outcome::VolumesRefreshed(Err(error)) => {
                // What was mounted goes on to serve.
                ops::report_volume_failure(&self.context, &self.model, &error);
            }
            Outcome::VolumesReleased(Ok(())) => self.memory.volumes = VolumesState::Released,
            Outcome::VolumesReleased(Err(error)) => {
                warn!(pod = self.model.full_name(), error, "volumes not released");
                self.memory.volumes = VolumesState::Failed { retry_at: now };
                return true;
            }
            Outcome::SandboxCreated(result) => self.take_sandbox(result, now),
            Outcome::SandboxStopped(id, Ok(())) => {
                self.memory.stopped_sandboxes.insert(id);
            }
            Outcome::SandboxStopped(id, Err(error)) => {
                let text = format!("failed to stop sandbox {id}: {}", pull::error_chain(&error));
                self.context
                    .recorder
                    .pod(&self.model, Kind::Warning, "FailedKillPod", text);
                return true;
            }
            Outcome::Image(container, pulled) => self.take_image(&container, pulled, now),
            Outcome::Started(container, after, result) => {
                self.take_start(&container, after, result, now);
            }
            Outcome::Killed(container, Err(error)) => {
                let text = format!("error killing container {container}: {error}");
                self.context
                    .recorder
                    .pod(&self.model, Kind::Warning, "FailedKillPod", text);
                return true;
            }
            Outcome::Removed(container, Err(error)) => {
                warn!(pod = self.model.full_name(), container, %error, "container not removed");
                return true;
            }
            Outcome::StatusWritten(status, result) => self.take_write(&status, result, now),
            Outcome::ApiDeleted(Ok(())) => self.memory.api_deleted = true,
            Outcome::ApiDeleted(Err(error)) => {
                debug!(pod = self.model.full_name(), %error, "pod not deleted");
                self.memory.delete_retry = Some(now + STATUS_RETRY);
            }
            Outcome::CleanedUp(Ok(())) => self.over = true,
            Outcome::CleanedUp(Err(error)) => {
                warn!(pod = self.model.full_name(), error, "pod not cleaned up");
                return true;
            }
            Outcome::Killed(_, Ok(())) | Outcome::Removed(_, Ok(())) | Outcome::Cancelled => {}
        }
        false
    }

    fn take_sandbox(&mut self, result: Result<(), evenkeel_runtime::RuntimeError>, now: Timestamp) {
        let Err(error) = result else {
            self.memory.sandbox_retry = None;
            self.memory.sandbox_failures = 0;
            return;
        };
        let text = format!(
            "Failed to create pod sandbox: {}",
            pull::error_chain(&error)
        );
        self.context
            .recorder
            .pod(&self.model, Kind::Warning, "FailedCreatePodSandBox", text);
        let failures = self.memory.sandbox_failures.min(6);
        self.memory.sandbox_failures += 1;
        let wait = (1_i64 << failures).min(SANDBOX_RETRY_MAX);
        self.memory.sandbox_retry = Some(now + SignedDuration::from_secs(wait));
    }

    fn take_image(&mut self, container: &str, pulled: Pulled, now: Timestamp) {
        let known = self.memory.container(container);
        match pulled {
            Pulled::Present(image) => known.image = ImageState::Present(image),
            Pulled::StillMissing => {
                if let ImageState::Failed { checked_at, .. } = &mut known.image {
                    *checked_at = now;
                }
            }
            Pulled::Failed { reason, message } => {
                known.pull_backoff.next(now, now);
                known.image = ImageState::Failed {
                    reason,
                    message,
                    at: now,
                    checked_at: now,
                };
            }
        }
    }

    /// Tells once of each wait that a back-off brings.
    fn announce(&mut self, observed: &Observed, plan: &Plan) {
        for (name, waiting) in &plan.waiting {
            let Some(container) = self.model.container(name) else {
                continue;
            };
            let (mark, kind, text) = match waiting.reason.as_str() {
                "CrashLoopBackOff" => {
                    let id = observed.latest(name).map(|status| status.id.clone());
                    let text = format!(
                        "Back-off restarting failed container {name} in pod {}",
                        self.model.full_name()
                    );
                    (id.unwrap_or_default(), Kind::Warning, text)
                }
                "ImagePullBackOff" => {
                    let at = match self.memory.containers.get(name).map(|known| &known.image) {
                        Some(ImageState::Failed { at, .. }) => at.to_string(),
                        _ => String::new(),
                    };
                    let image = container.spec.image.as_deref().unwrap_or_default();
                    (
                        at,
                        Kind::Normal,
                        format!("Back-off pulling image \"{image}\""),
                    )
                }
                _ => continue,
            };
            if self.announced.get(name) == Some(&mark) {
                continue;
            }
            self.announced.insert(name.clone(), mark);
            let recorder = &self.context.recorder;
            recorder.container(&self.model, container, kind, "BackOff", text);
            if waiting.reason == "ImagePullBackOff" {
                let text = "Error: ImagePullBackOff";
                recorder.container(&self.model, container, Kind::Warning, "Failed", text);
            }
        }
    }

    fn take_start(
        &mut self,
        container: &str,
        after: Option<Timestamp>,
        result: Result<(), start::StartFailure>,
        now: Timestamp,
    ) {
        let full_name = self.model.full_name();
        let observed = self.context.view.observed(self.model.uid());
        let known = self.memory.container(container);
        known.starting = false;
        match result {
            Ok(()) => {
                known.refusal = None;
                known.crash_backoff.next(after.unwrap_or(now), now);
                if after.is_none() {
                    // The first start holds nothing back: only restarts are counted.
                    known.crash_backoff = super::memory::Backoff::default();
                }
            }
            Err(failure) => {
                if observed.latest(container).is_some_and(super::plan::ended) {
                    known.crash_backoff.next(after.unwrap_or(now), now);
                }
                debug!(
                    pod = full_name,
                    container,
                    reason = failure.reason,
                    "start failed"
                );
                known.refusal = Some(Refusal {
                    reason: failure.reason.to_owned(),
                    message: failure.message,
                    retry_at: now + START_RETRY,
                });
            }
        }
    }

    fn take_write(&mut self, status: &PodStatus, result: Result<(), kube::Error>, now: Timestamp) {
        self.writing = false;
        match result {
            Ok(()) => {
                self.written = merged(&self.written, status);
                self.write_retry = None;
            }
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => {
                // The pod is gone, or another one has its name; the watch will say so.
                debug!(
                    pod = self.model.full_name(),
                    message = answer.message,
                    "status refused"
                );
                self.write_retry = Some(now + STATUS_RETRY);
            }
            Err(error) => {
                debug!(pod = self.model.full_name(), %error, "status not written");
                self.write_retry = Some(now + STATUS_RETRY);
            }
        }
    }
}

fn next_refresh() -> tokio::time::Instant {
    let jitter = rand::random_range(0..REFRESH.as_secs() / 2);
    tokio::time::Instant::now() + REFRESH + Duration::from_secs(jitter)
}
