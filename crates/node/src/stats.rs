//! What containers, pods and the node use: sampled only while somebody asks.
//!
//! Rates come from two samples of the same container and from nothing else; before there are two,
//! there is no rate. Nothing is estimated.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_runtime::{ContainerState, ContainerStats};
use futures::StreamExt;
use futures::stream;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::debug;

use crate::context::Context;
use crate::machine::meminfo;

/// A sample this old is taken anew when somebody asks.
const FRESH: Duration = Duration::from_secs(10);
/// Time between samples while somebody asks.
const PERIOD: Duration = Duration::from_secs(15);
/// Somebody who asked this long ago does not ask any more.
const INTEREST: Duration = Duration::from_secs(90);
/// Samples closer together than this, in ns, give no rate worth reporting.
const SHORTEST_WINDOW_NS: i64 = 1_000_000_000;
/// A second sample follows the first after this.
const SECOND_SAMPLE: Duration = Duration::from_millis(1_050);
/// Containers read at the same time.
const AT_ONCE: usize = 16;
/// Nanoseconds of one tick of /proc/stat (`USER_HZ` is 100 on all Linux machines).
const NS_PER_TICK: u64 = 10_000_000;

/// What one container uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerUsage {
    /// Name within the pod.
    pub name: String,
    /// Start of the container, ns since the epoch.
    pub started_at: i64,
    /// When it was read, ns since the epoch.
    pub timestamp: i64,
    /// CPU time since its start, ns.
    pub cpu_total_ns: u64,
    /// Billionths of a core over [`Self::window`]; `None` before there are two samples.
    pub cpu_nanocores: Option<u64>,
    /// Time between the two samples; zero without a rate.
    pub window: Duration,
    /// Bytes that can't be taken back at once.
    pub memory_working_set: u64,
    /// Bytes charged.
    pub memory_usage: u64,
    /// Bytes in the writable layer.
    pub rootfs_used: u64,
    /// Processes.
    pub pids: u64,
}

/// What one pod's running containers use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodUsage {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Its containers.
    pub containers: Vec<ContainerUsage>,
}

impl PodUsage {
    /// Millicores of all containers together, rounded up; `None` while one has no rate yet.
    #[must_use]
    pub fn cpu_milli(&self) -> Option<u64> {
        let nano: Option<u64> = self.containers.iter().map(|c| c.cpu_nanocores).sum();
        nano.map(|nano| nano.div_ceil(1_000_000))
    }

    /// Working set of all containers together, bytes.
    #[must_use]
    pub fn memory_working_set(&self) -> u64 {
        self.containers
            .iter()
            .map(|container| container.memory_working_set)
            .sum()
    }
}

/// What the machine uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeUsage {
    /// When it was read, ns since the epoch.
    pub timestamp: i64,
    /// CPU time of all cores since boot, ns.
    pub cpu_total_ns: u64,
    /// Billionths of a core; `None` before there are two samples.
    pub cpu_nanocores: Option<u64>,
    /// Time between the two samples; zero without a rate.
    pub window: Duration,
    /// Bytes that are free or can be freed.
    pub memory_available: u64,
    /// Bytes that can't be taken back at once.
    pub memory_working_set: u64,
}

#[derive(Clone)]
struct Sampled {
    previous: Option<(i64, u64)>,
    current: ContainerStats,
}

#[derive(Default)]
struct State {
    containers: HashMap<String, Sampled>,
    node: NodeUsage,
    taken: Option<Instant>,
    asked: Option<Instant>,
}

/// Samples while somebody asks.
pub struct StatsSampler {
    context: Arc<Context>,
    state: Mutex<State>,
    interest: Notify,
    /// One sampling at a time.
    turn: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for StatsSampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatsSampler").finish_non_exhaustive()
    }
}

impl StatsSampler {
    /// A sampler that has read nothing.
    #[must_use]
    pub fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            state: Mutex::default(),
            interest: Notify::new(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Keeps samples coming while somebody asks; does nothing otherwise. Ends with the future.
    pub async fn run(&self) {
        loop {
            let asked = self.state.lock().asked;
            if asked.is_none_or(|asked| asked.elapsed() > INTEREST) {
                self.interest.notified().await;
                continue;
            }
            tokio::time::sleep(PERIOD).await;
            self.refresh(FRESH).await;
        }
    }

    /// What the pods and the node use now. Where a rate lacks its second sample, that is taken
    /// after a second: whoever asks for the first time waits that long.
    pub async fn usage(&self) -> (NodeUsage, Vec<PodUsage>) {
        self.state.lock().asked = Some(Instant::now());
        self.interest.notify_one();
        self.refresh(FRESH).await;
        let first = {
            let state = self.state.lock();
            let lacking = state.node.cpu_nanocores.is_none()
                || state.containers.values().any(|one| one.previous.is_none());
            state.taken.filter(|_| lacking)
        };
        if let Some(first) = first {
            tokio::time::sleep_until(first + SECOND_SAMPLE).await;
            self.refresh(SECOND_SAMPLE).await;
        }
        // A lock taken inside the answer's expression would be held while `pods` takes it again.
        let node = self.state.lock().node;
        (node, self.pods())
    }

    async fn refresh(&self, age: Duration) {
        let _turn = self.turn.lock().await;
        if self
            .state
            .lock()
            .taken
            .is_some_and(|taken| taken.elapsed() < age)
        {
            return;
        }
        let mut ids = Vec::new();
        for uid in self.context.view.uids() {
            let observed = self.context.view.observed(&uid);
            let running = observed
                .containers
                .iter()
                .filter(|c| c.state == ContainerState::Running);
            ids.extend(running.map(|container| container.id.clone()));
        }
        let runtime = &self.context.config.runtime;
        let read: Vec<_> = stream::iter(ids)
            .map(|id| async move {
                let stats = runtime.container_stats(&id).await;
                (id, stats)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let node = self.read_node();
        let mut state = self.state.lock();
        let mut before = std::mem::take(&mut state.containers);
        for (id, stats) in read {
            match stats {
                Ok(current) => {
                    let previous = before.remove(&id).and_then(|old| {
                        let at = (old.current.timestamp, old.current.cpu_usage_ns);
                        let long = current.timestamp - at.0 >= SHORTEST_WINDOW_NS;
                        if long { Some(at) } else { old.previous }
                    });
                    state.containers.insert(id, Sampled { previous, current });
                }
                // It ended meanwhile; it has no figures.
                Err(error) => debug!(%error, id, "no figures"),
            }
        }
        let old = state.node;
        let rate = rate(
            (old.timestamp, old.cpu_total_ns),
            (node.timestamp, node.cpu_total_ns),
        );
        state.node = NodeUsage {
            cpu_nanocores: rate.map(|(nano, _)| nano),
            window: rate.map_or(Duration::ZERO, |(_, window)| window),
            ..node
        };
        state.taken = Some(Instant::now());
    }

    fn read_node(&self) -> NodeUsage {
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = stat.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = line
            .split_whitespace()
            .skip(1)
            .filter_map(|word| word.parse().ok())
            .collect();
        // user, nice, system, idle, iowait, irq, softirq, steal; guest time is in user already.
        let busy: u64 = [0, 1, 2, 5, 6, 7]
            .iter()
            .filter_map(|index| ticks.get(*index))
            .sum();
        let bytes = |name| {
            meminfo(name)
                .and_then(|bytes| u64::try_from(bytes).ok())
                .unwrap_or(0)
        };
        let (total, available) = (bytes("MemTotal"), bytes("MemAvailable"));
        NodeUsage {
            timestamp: nanoseconds(self.context.config.clock.now()),
            cpu_total_ns: busy * NS_PER_TICK,
            cpu_nanocores: None,
            window: Duration::ZERO,
            memory_available: available,
            memory_working_set: total.saturating_sub(available),
        }
    }

    fn pods(&self) -> Vec<PodUsage> {
        let state = self.state.lock();
        let mut pods = Vec::new();
        for uid in self.context.view.uids() {
            let observed = self.context.view.observed(&uid);
            let Some(sandbox) = observed.sandbox() else {
                continue;
            };
            let containers: Vec<ContainerUsage> = observed
                .containers
                .iter()
                .filter_map(|container| {
                    let sampled = state.containers.get(&container.id)?;
                    Some(usage(&container.name, container.started_at, sampled))
                })
                .collect();
            if !containers.is_empty() {
                pods.push(PodUsage {
                    namespace: sandbox.pod.namespace.clone(),
                    name: sandbox.pod.name.clone(),
                    uid,
                    containers,
                });
            }
        }
        pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        pods
    }
}

fn usage(name: &str, started_at: i64, sampled: &Sampled) -> ContainerUsage {
    let now = &sampled.current;
    let rate = sampled
        .previous
        .and_then(|old| rate(old, (now.timestamp, now.cpu_usage_ns)));
    ContainerUsage {
        name: name.to_owned(),
        started_at,
        timestamp: now.timestamp,
        cpu_total_ns: now.cpu_usage_ns,
        cpu_nanocores: rate.map(|(nano, _)| nano),
        window: rate.map_or(Duration::ZERO, |(_, window)| window),
        memory_working_set: now.memory_working_set,
        memory_usage: now.memory_usage,
        rootfs_used: now.rootfs_used_bytes,
        pids: now.pids,
    }
}

/// Billionths of a core between two readings of (time, CPU time), and the time between them.
fn rate(old: (i64, u64), new: (i64, u64)) -> Option<(u64, Duration)> {
    let window = new.0 - old.0;
    if old.0 == 0 || window < SHORTEST_WINDOW_NS {
        return None;
    }
    let window = u64::try_from(window).ok()?;
    let used = u128::from(new.1.checked_sub(old.1)?);
    let nano = used * 1_000_000_000 / u128::from(window);
    Some((u64::try_from(nano).ok()?, Duration::from_nanos(window)))
}

/// ns since the epoch.
pub(crate) fn nanoseconds(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_two_readings_of_the_same_counter() {
        let second = 1_000_000_000;
        assert_eq!(rate((0, 0), (5 * second, 7)), None);
        assert_eq!(rate((second, 5), (second + 1, 6)), None);
        assert_eq!(rate((second, 900), (3 * second, 100)), None);
        assert_eq!(
            rate((second, 0), (3 * second, 500_000_000)),
            Some((250_000_000, Duration::from_secs(2)))
        );
    }
}
