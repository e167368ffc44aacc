//! The loop: changes in, cycles, bindings and texts out.
//!
//! One task owns the [`Core`] and runs cycles; bindings and status writes run beside it, so that
//! the door's latency never holds up a cycle. Nothing is remembered that the door does not know:
//! killed anywhere and started again, the loop reads where the pods are and goes on.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use evenkeel_client::{EventType, LoopContext, LoopMetrics, View};
use futures::FutureExt as _;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::bind::{self, Waiting};
use crate::condition;
use crate::config::{self, ProfileConfig};
use crate::core::{Action, Core, Eviction, Nomination};
use crate::extenders::Extenders;
use crate::framework::{BindError, Binding, CycleState};
use crate::group_status;
use crate::inputs::Inputs;
use crate::plugins::{self, binder::DefaultBinder, dynamic_resources};
use crate::pod::PodInfo;
use crate::preempt::Evictor;
use crate::profile::{Profile, Profiles};
use crate::trace::Traces;

/// Bindings under way at once; more wait, so that a burst does not become as many open requests.
const MAX_BINDINGS: usize = 512;
/// So many cycles follow one another before their bindings begin, unless they take longer than
/// [`LONGEST_RUN`]. A binding that begins alone begins on the thread of the cycles, and the next cycle
/// waits for it: only of several can another thread take some.
const RUN: u32 = 16;
const LONGEST_RUN: Duration = Duration::from_millis(1);

/// What to say of a pod that could not be scheduled.
struct Failure {
    reason: &'static str,
    message: String,
    nomination: Nomination,
}

/// Work beside the cycles that is not a binding.
#[derive(Default)]
struct Beside {
    texts: JoinSet<()>,
    /// Each ends with its pod, and whether it failed.
    evictions: JoinSet<(Arc<str>, bool)>,
}

/// The scheduler of one or several profiles.
#[derive(Debug)]
pub struct Scheduler {
    context: LoopContext,
    core: Core,
    traces: Traces,
    waiting: Waiting,
}

/// How a binding ended.
struct Ended {
    pod: Arc<PodInfo>,
    node: Arc<str>,
    state: CycleState,
    result: Result<(), BindError>,
}

impl Scheduler {
    /// The scheduler of `default-scheduler` and `bin-packing-scheduler`. The context's client needs, as
    /// `system:kube-scheduler`: create on `pods/binding`, patch on `pods/status`, get and delete on
    /// pods; its views list and watch pods, nodes, namespaces, services, replicasets and disruption
    /// budgets.
    #[must_use]
    pub fn new(context: LoopContext) -> Self {
        Self::configured(context, &config::defaults())
    }

    /// A scheduler of configured profiles.
    #[must_use]
    pub fn configured(context: LoopContext, configs: &[ProfileConfig]) -> Self {
        let configured = configs.first().map(|config| config.extenders.as_slice());
        let extenders = Extenders::new(configured.unwrap_or_default());
        let binder = DefaultBinder::new(context.client.clone());
        let profiles = plugins::configured(configs, &extenders, &binder, &context);
        Self::with_profiles(context, profiles)
    }

    /// A scheduler with its own plugins.
    #[must_use]
    pub fn with_profile(context: LoopContext, profile: Profile) -> Self {
        Self::with_profiles(context, profile.into())
    }

    /// A scheduler of several names.
    #[must_use]
    pub fn with_profiles(context: LoopContext, profiles: Profiles) -> Self {
        // How ties fall need not be unpredictable, only different from start to start.
        let seed = context.clock.now().as_nanosecond().unsigned_abs();
        let seed = u64::try_from(seed & u128::from(u64::MAX)).unwrap_or(1);
        Self {
            core: Core::new(profiles, seed),
            context,
            traces: Traces::default(),
            waiting: Waiting::default(),
        }
    }

    /// The last decisions, for `evenkeel why`: [`Traces::explain`].
    #[must_use]
    pub fn traces(&self) -> Traces {
        self.traces.clone()
    }

    /// The pods that a `Permit` plugin holds back.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        self.waiting.clone()
    }

    /// Schedules until the context's shutdown. Bindings under way are then dropped; the watch
    /// tells the next start which of them were written.
    pub async fn run(mut self) {
        let metrics = self.context.metrics.of("scheduler");
        let views = self.context.views.clone();
        let shutdown = self.context.shutdown.clone();
        let (pod_view, node_view) = (views.of::<Pod>(), views.of::<Node>());
        let namespace_view = views.of::<Namespace>();
        let service_view = views.of::<Service>();
        let set_view = views.of::<ReplicaSet>();
        let synced = async {
            let mut inputs = Inputs::of(&self.context).await;
            tokio::join!(
                pod_view.synced(),
                node_view.synced(),
                namespace_view.synced(),
                inputs.synced(),
            );
            inputs
        };
        // Before all are known a cycle would take a full node for an empty one, and a claim that
        // exists for one that does not.
        let mut inputs = tokio::select! {
            () = shutdown.cancelled() => return,
            inputs = synced => inputs,
        };
        self.core.serve_groups(inputs.serves_groups());
        let mut nodes = node_view.subscribe();
        let mut namespaces = namespace_view.subscribe();
        let mut services = service_view.subscribe();
        let mut sets = set_view.subscribe();
        let mut pods = pod_view.subscribe();
        let mut bindings: JoinSet<Ended> = JoinSet::new();
        let mut beside = Beside::default();
        let mut run = Run::new(Instant::now());
        'turns: loop {
            let now = Instant::now();
            while let Some(change) = namespaces.try_next() {
                self.core.namespace(&change, now);
            }
            inputs.take_in(&mut self.core, now);
            // These only shade preferences: nobody waits for them, and no cycle is due to them.
            while let Some(change) = services.try_next() {
                self.core.service(&change);
            }
            while let Some(change) = sets.try_next() {
                self.core.replica_set(&change);
            }
            while let Some(change) = nodes.try_next() {
                self.core.node(&change, now);
            }
            while let Some(change) = pods.try_next() {
                self.core.pod(&change, now);
            }
            while let Some(ended) = bindings.try_join_next() {
                self.ended(ended, &pod_view, &mut beside);
            }
            while beside.texts.try_join_next().is_some() {}
            while let Some(evicted) = beside.evictions.try_join_next() {
                self.evicted(evicted);
            }
            self.core.tick(now);
            if bindings.len() < MAX_BINDINGS
                && let Some(mut action) = self.core.cycle(now)
            {
                // The cycle of a group asks for each of its pods, and who preempts asks once more.
                while let Action::Ask(question) = action {
                    let answer = tokio::select! {
                        () = shutdown.cancelled() => return,
                        answer = question.ask() => answer,
                    };
                    match self.core.answered(answer, Instant::now()) {
                        Some(next) => action = next,
                        None => continue 'turns,
                    }
                }
                LoopMetrics::bump(&metrics.reconciles);
                self.carry_out(action, &pod_view, &mut bindings, &mut beside);
                if run.ends(now) {
                    // Lets bindings begin while more pods wait.
                    tokio::task::yield_now().await;
                    run = Run::new(Instant::now());
                }
                if shutdown.is_cancelled() {
                    return;
                }
                continue;
            }
            let depth = self.core.depth();
            let waiting = depth.active + depth.backoff + depth.unschedulable;
            let waiting = u64::try_from(waiting).unwrap_or(u64::MAX);
            metrics.depth.store(waiting, Ordering::Relaxed);
            let tick = self.core.next_tick();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                change = pods.next() => self.core.pod(&change, Instant::now()),
                change = nodes.next() => self.core.node(&change, Instant::now()),
                change = namespaces.next() => self.core.namespace(&change, Instant::now()),
                () = inputs.next(&mut self.core) => {}
                Some(ended) = bindings.join_next(), if !bindings.is_empty() => {
                    self.ended(ended, &pod_view, &mut beside);
                }
                Some(evicted) = beside.evictions.join_next(), if !beside.evictions.is_empty() => {
                    self.evicted(evicted);
                }
                Some(_) = beside.texts.join_next(), if !beside.texts.is_empty() => {}
                () = sleep_until(tick) => {}
            }
        }
    }

    fn carry_out(
        &self,
        action: Action,
        view: &Arc<View<Pod>>,
        bindings: &mut JoinSet<Ended>,
        beside: &mut Beside,
    ) {
        let at = self.context.clock.now();
        match action {
            Action::Bind {
                pod,
                node,
                wait,
                state,
                decision,
            } => {
                self.traces.note(&pod.uid, &pod.key, at, decision);
                let Some(profile) = self.core.profiles().of(&pod).map(Arc::clone) else {
                    return;
                };
                let client = self.context.client.clone();
                let held = wait.map(|time| (self.waiting.hold(&pod.uid), time));
                bindings.spawn(async move {
                    let binding = Binding {
                        pod: Arc::clone(&pod.pod),
                        node: Arc::clone(&node),
                    };
                    // A plugin that panics fails one pod, and its room on the node comes back.
                    let binding = bind::bind(&profile, &client, &binding, held);
                    let result = AssertUnwindSafe(binding).catch_unwind().await;
                    let panicked = |_| Err(BindError::Refused("a plugin panicked".to_owned()));
                    let result = result.unwrap_or_else(panicked);
                    Ended {
                        pod,
                        node,
                        state,
                        result,
                    }
                });
            }
            // Answered where it came from.
            Action::Ask(_) => {}
            Action::Group { group, outcome } => {
                tracing::debug!(
                    group = group.metadata.name,
                    scheduled = outcome.scheduled,
                    message = outcome.message,
                    "a group of pods"
                );
                let (client, clock) = (self.context.client.clone(), &self.context.clock);
                let write = group_status::write(client, Arc::clone(clock), group, outcome);
                beside.texts.spawn(write);
            }
            Action::Failed { pod, message } => {
                let failure = Failure {
                    reason: "SchedulerError",
                    message,
                    nomination: Nomination::Keep,
                };
                self.tell_failure(&pod, failure, view, beside);
            }
            Action::Tell {
                pod,
                decision,
                message,
                nomination,
                eviction,
            } => {
                if let Some(claim) = &decision.deallocate {
                    let client = self.context.client.clone();
                    beside
                        .texts
                        .spawn(dynamic_resources::deallocate(client, Arc::clone(claim)));
                }
                self.traces.note(&pod.uid, &pod.key, at, decision);
                let failure = Failure {
                    reason: "Unschedulable",
                    message,
                    nomination,
                };
                self.tell_failure(&pod, failure, view, beside);
                if let Some(eviction) = eviction {
                    self.evict(pod, eviction, beside);
                }
            }
        }
    }

    fn evict(&self, pod: Arc<PodInfo>, eviction: Eviction, beside: &mut Beside) {
        let evictor = Evictor {
            client: self.context.client.clone(),
            recorder: self.context.recorder.clone(),
            clock: Arc::clone(&self.context.clock),
            waiting: self.waiting.clone(),
        };
        tracing::info!(
            pod = %pod.key,
            node = %eviction.node,
            victims = eviction.victims.len(),
            "preempting"
        );
        beside.evictions.spawn(async move {
            let done = evictor.evict(&pod, &eviction).await;
            (Arc::clone(&pod.uid), !done)
        });
    }

    fn evicted(&mut self, evicted: Result<(Arc<str>, bool), tokio::task::JoinError>) {
        match evicted {
            Ok((uid, failed)) => self.core.evicted(&uid, failed, Instant::now()),
            Err(error) => tracing::error!(%error, "a preemption ended badly"),
        }
    }

    fn tell_failure(
        &self,
        pod: &PodInfo,
        failure: Failure,
        view: &Arc<View<Pod>>,
        beside: &mut Beside,
    ) {
        let Failure {
            reason,
            message,
            nomination,
        } = failure;
        tracing::debug!(pod = %pod.key, message, "not scheduled");
        let recorder = &self.context.recorder;
        recorder.tell(
            &*pod.pod,
            EventType::Warning,
            "FailedScheduling",
            message.clone(),
        );
        let latest = view
            .get_key(&pod.key)
            .unwrap_or_else(|| Arc::clone(&pod.pod));
        let wanted = condition::Unscheduled {
            reason,
            message,
            nomination,
        };
        if !wanted.is_news(&latest) {
            return;
        }
        let (client, view) = (self.context.client.clone(), Arc::clone(view));
        let clock = Arc::clone(&self.context.clock);
        beside
            .texts
            .spawn(async move { condition::write(&client, &view, &clock, latest, wanted).await });
    }

    fn ended(
        &mut self,
        ended: Result<Ended, tokio::task::JoinError>,
        view: &Arc<View<Pod>>,
        beside: &mut Beside,
    ) {
        let ended = match ended {
            Ok(ended) => ended,
            Err(error) => {
                // Panics are caught inside; what is left is the runtime's own end.
                tracing::debug!(%error, "a binding was dropped");
                return;
            }
        };
        let Ended {
            pod,
            node,
            state,
            result,
        } = ended;
        match result {
            Ok(()) => {
                let text = format!("Successfully assigned {} to {node}", pod.key);
                self.context
                    .recorder
                    .tell(&*pod.pod, EventType::Normal, "Scheduled", text);
            }
            Err(error) => {
                let latest = view.get_key(&pod.key);
                self.core
                    .not_bound(&pod, &node, state, latest.as_ref(), Instant::now());
                if latest.is_some() {
                    let message = format!("binding rejected: {error}");
                    let failure = Failure {
                        reason: "SchedulerError",
                        message,
                        nomination: Nomination::Keep,
                    };
                    self.tell_failure(&pod, failure, view, beside);
                }
            }
        }
    }
}

/// Cycles that follow one another.
struct Run {
    began: Instant,
    cycles: u32,
}

impl Run {
    fn new(began: Instant) -> Self {
        Self { began, cycles: 0 }
    }

    /// Counts a cycle that began at `now`; says whether it is the last for the moment.
    fn ends(&mut self, now: Instant) -> bool {
        self.cycles += 1;
        self.cycles >= RUN || now - self.began >= LONGEST_RUN
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Runs [`Scheduler::new`] until the context's shutdown.
pub async fn run(context: LoopContext) {
    Scheduler::new(context).run().await;
}
