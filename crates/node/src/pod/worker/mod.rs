//! One pod's worker: observe, plan, begin, wait. Everything it waits for can end the wait: a
//! change of the object, of the runtime, of a probe's result, the end of an operation, a time.

mod announce;
mod begin;
mod outcome;
mod publish;
mod resizing;

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
use tracing::debug;

use super::memory::{Ending, Memory, Op, Termination, VolumesState};
use super::message;
use super::model::PodModel;
use super::ops::{self, Outcome};
use super::plan::{Action, DEADLINE_EXCEEDED, EVICTED, Inputs, plan};
use super::resize::{self, Allocation};
use crate::admission::Rejection;
use crate::context::Context;
use crate::events::Kind;
use crate::eviction::Eviction;
use crate::probe::{Probes, Report};
use crate::register;
use crate::volume::{PodVolumes, payload};

/// Wait after an operation failed that has no wait of its own.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
/// Contents of volumes are read again this often, and up to half as much later.
const REFRESH: Duration = Duration::from_secs(60);
/// How old an object may be that a refresh uses.
const REFRESH_AGE: SignedDuration = SignedDuration::from_secs(30);

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
    /// The pod as it runs: with the resources that were granted.
    model: Arc<PodModel>,
    /// The pod as the API has it.
    told: Arc<Pod>,
    granted: Allocation,
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
    /// Since when the volumes are not there, or when that was told last.
    volumes_wait_since: Option<Timestamp>,
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
        let granted = resize::shown(&pod);
        Self {
            context,
            mailbox,
            model: Arc::new(PodModel::new(resize::with(&pod, &granted))),
            told: pod,
            granted,
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
            volumes_wait_since: None,
            over: false,
        }
    }

    /// Works until nothing of the pod is left.
    pub async fn run(mut self) {
        self.admit().await;
        while !self.over {
            self.read_mail();
            self.note_eviction();
            self.consider_resize();
            let wake_at = self.step();
            let judge_at = self.memory.resize.pending.as_ref().and_then(|it| it.again);
            let wake_at = wake_at.into_iter().chain(judge_at).min();
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
        self.told = Arc::clone(&told.pod);
        let model = PodModel::new(resize::with(&told.pod, &self.granted));
        if model.api_uid() != self.model.api_uid() {
            // Another mirror knows nothing of what was written into the one before.
            self.written = model.pod.status.clone().unwrap_or_default();
        }
        let changed = model.pod.metadata.generation != self.model.pod.metadata.generation;
        self.model = Arc::new(model);
        if changed && self.memory.termination.is_none() {
            self.hold();
        }
        self.memory.api_deleted |= told.gone;
        if told.gone {
            self.context.release(self.model.uid());
        }
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

    /// A pod that came past the scheduler must fit before anything of it is made.
    async fn admit(&mut self) {
        if self.model.phase_is_final() || self.model.deletion().is_some() {
            return;
        }
        let observed = self.context.view.observed(self.model.uid());
        let ran = self.written.start_time.is_some()
            || !observed.containers.is_empty()
            || self.model.is_static();
        let capacity = self.context.capacity();
        let ledger = &self.context.admitted;
        let held = ledger.admit(self.model.uid(), &self.model.pod, &capacity, ran);
        let allowed = match (&held, self.model.spec()) {
            (Ok(()), Some(spec)) if !ran => register::may_be_here(&self.context, spec).await,
            _ => Ok(true),
        };
        let sysctls = match self.model.spec() {
            Some(spec) if !ran => self.context.config.unsafe_sysctls.admit(spec),
            _ => Ok(()),
        };
        let held = sysctls.and(held);
        let rejection = match (held, allowed) {
            (Err(rejection), _) => Some(rejection),
            (Ok(()), Ok(false)) => Some(Rejection::elsewhere()),
            (Ok(()), Ok(true)) => None,
            (Ok(()), Err(error)) => {
                // The scheduler has looked already; a node that can't ask goes by that.
                debug!(pod = self.model.full_name(), %error, "the node's labels are not known");
                None
            }
        };
        let rejection = match rejection {
            None if !ran => {
                let devices = &self.context.devices;
                let given = devices.admit(self.model.uid(), &self.model.pod).await;
                given.err().map(Rejection::unexpected)
            }
            other => other,
        };
        let Some(rejection) = rejection else {
            return;
        };
        self.context.release(self.model.uid());
        let Rejection { reason, message } = rejection;
        self.context
            .recorder
            .pod(&self.model, Kind::Warning, reason, message.clone());
        let ending = Ending::Failed {
            reason: reason.to_owned(),
            message: format!("Pod was rejected: {message}"),
        };
        let now = self.now();
        self.terminate(ending, now);
    }

    /// What the pod asks for may have changed while it runs.
    fn hold(&self) {
        let (uid, capacity) = (self.model.uid(), self.context.capacity());
        let held = self
            .context
            .admitted
            .admit(uid, &self.model.pod, &capacity, true);
        debug_assert!(held.is_ok(), "a pod that runs is not rejected");
    }

    /// Begins the end when the node wants the pod gone.
    fn note_eviction(&mut self) {
        let Some(eviction) = self.context.evictions.take(self.model.uid()) else {
            return;
        };
        if self.memory.termination.is_some() || self.model.phase_is_final() {
            return;
        }
        let Eviction {
            message,
            grace_seconds,
            disruption,
        } = eviction;
        self.context
            .recorder
            .pod(&self.model, Kind::Warning, EVICTED, message.clone());
        self.memory.disruption = disruption.then(|| message.clone());
        let ending = Ending::Failed {
            reason: EVICTED.to_owned(),
            message,
        };
        let deadline = self.now() + SignedDuration::from_secs(grace_seconds);
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
                if let Ending::Failed { reason, message } = &ending
                    && reason == DEADLINE_EXCEEDED
                {
                    let recorder = &self.context.recorder;
                    recorder.pod(
                        &self.model,
                        Kind::Normal,
                        DEADLINE_EXCEEDED,
                        message.clone(),
                    );
                }
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

    /// Contents are read again some time later, and at the latest when a token or certificate
    /// wants to be replaced. One that could not be is not asked for all the time.
    fn plan_refresh(&mut self) {
        self.refresh_at = next_refresh();
        let renew = self.context.gatherer.renew_at(self.model.uid());
        let left = renew.map(|at| at.duration_since(self.now()));
        if let Some(left) = left.and_then(|left| Duration::try_from(left).ok()) {
            let then = tokio::time::Instant::now() + left + Duration::from_millis(1);
            self.refresh_at = self.refresh_at.min(then);
        }
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
}

fn next_refresh() -> tokio::time::Instant {
    let jitter = rand::random_range(0..REFRESH.as_secs() / 2);
    tokio::time::Instant::now() + REFRESH + Duration::from_secs(jitter)
}
