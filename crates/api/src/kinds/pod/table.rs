//! The columns of pods: readiness, the one word that says how it goes, and restarts.

use jiff::Timestamp;
use serde_json::Value;

use crate::kinds::table::{age, column, or_none, since, wide};
use crate::object;
use crate::row::{Cell, Column};
use crate::validation::Cursor;

/// The columns of pods after the name.
#[must_use]
pub fn columns() -> Vec<Column> {
    vec![
        column(
            "Ready",
            "string",
            Cell::Of(|pod| {
                let found = summary(pod);
                format!("{}/{}", found.ready, found.total).into()
            }),
            "The aggregate readiness state of this pod for accepting traffic.",
        ),
        column(
            "Status",
            "string",
            Cell::Of(|pod| status_text(pod).into()),
            "The aggregate status of the containers in this pod.",
        ),
        column(
            "Restarts",
            "string",
            Cell::At(restarts),
            "The number of times the containers in this pod have been restarted and when the \
             last container in this pod has restarted.",
        ),
        age(),
        wide(
            "IP",
            "string",
            Cell::Of(|pod| {
                let first = object::list(pod, &["status", "podIPs"]).first();
                or_none(first.map_or("", |ip| object::text(ip, &["ip"])))
            }),
            "IP address allocated to the pod.",
        ),
        wide(
            "Node",
            "string",
            Cell::Of(|pod| or_none(object::text(pod, &["spec", "nodeName"]))),
            "The node that this pod is scheduled to.",
        ),
        wide(
            "Nominated Node",
            "string",
            Cell::Of(|pod| or_none(object::text(pod, &["status", "nominatedNodeName"]))),
            "The node that this pod is going to run on when it has preempted others there.",
        ),
        wide(
            "Readiness Gates",
            "string",
            Cell::Of(readiness_gates),
            "Additional conditions that are evaluated for pod readiness.",
        ),
    ]
}

/// The word that stands for a pod's state: its phase or, where a container says more, that
/// container's reason (`CrashLoopBackOff`, `Init:0/1`, `Completed`, `Terminating` …).
#[must_use]
pub fn status_text(pod: &Value) -> String {
    summary(pod).reason
}

struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

/// Restarts of some containers and when the last one was.
#[derive(Default, Clone, Copy)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &Cursor<'_>) {
        self.count += container.number("restartCount");
        let finished = container
            .child("lastState")
            .child("terminated")
            .text("finishedAt")
            .parse()
            .ok();
        self.last = self.last.max(finished);
    }
}

/// Why a container has ended, when it has.
fn ended(state: &Cursor<'_>) -> Option<String> {
    let ended = state.get("terminated")?;
    let reason = ended.text("reason");
    Some(if !reason.is_empty() {
        reason.to_owned()
    } else if ended.number("signal") != 0 {
        format!("Signal:{}", ended.number("signal"))
    } else {
        format!("ExitCode:{}", ended.number("exitCode"))
    })
}

fn summary(pod: &Value) -> Summary {
    let root = Cursor::root(pod);
    let (spec, status) = (root.child("spec"), root.child("status"));
    let phase = status.text("phase");
    let mut reason = match status.text("reason") {
        "" => phase.to_owned(),
        reason => reason.to_owned(),
    };
    let gated = status.items("conditions").any(|condition| {
        condition.text("type") == "PodScheduled" && condition.text("reason") == "SchedulingGated"
    });
    if gated {
        "SchedulingGated".clone_into(&mut reason);
    }
    let sidecars: Vec<&str> = spec
        .items("initContainers")
        .filter(|container| container.text("restartPolicy") == "Always")
        .map(|container| container.text("name"))
        .collect();
    let total = spec.list("containers").len() + sidecars.len();
    let mut ready = 0;
    let (mut restarts, mut of_sidecars) = (Restarts::default(), Restarts::default());
    let mut initializing = false;
    for (index, container) in status.items("initContainerStatuses").enumerate() {
        let sidecar = sidecars.contains(&container.text("name"));
        restarts.add(&container);
        if sidecar {
            of_sidecars.add(&container);
        }
        let state = container.child("state");
        if state.has("terminated") && state.child("terminated").number("exitCode") == 0 {
            continue;
        }
        if sidecar && container.is_true("started") {
            ready += usize::from(container.is_true("ready"));
            continue;
        }
        let waiting = state.child("waiting").text("reason");
        reason = if let Some(why) = ended(&state) {
            format!("Init:{why}")
        } else if !matches!(waiting, "" | "PodInitializing") {
            format!("Init:{waiting}")
        } else {
            format!("Init:{index}/{}", spec.list("initContainers").len())
        };
        initializing = true;
        break;
    }
    if !initializing || super::has_condition(pod, "Initialized") {
        restarts = of_sidecars;
        let mut running = false;
        let statuses: Vec<Cursor<'_>> = status.items("containerStatuses").collect();
        for container in statuses.iter().rev() {
            restarts.add(container);
            let state = container.child("state");
            let waiting = state.child("waiting").text("reason");
            if !waiting.is_empty() {
                waiting.clone_into(&mut reason);
            } else if let Some(why) = ended(&state) {
                reason = why;
            } else if container.is_true("ready") && state.has("running") {
                running = true;
                ready += 1;
            }
        }
        if reason == "Completed" && running {
            let word = if super::is_ready(pod) {
                "Running"
            } else {
                "NotReady"
            };
            word.clone_into(&mut reason);
        }
    }
    if object::deletion_timestamp(pod).is_some() {
        if status.text("reason") == "NodeLost" {
            "Unknown".clone_into(&mut reason);
        } else if !super::is_finished(pod) {
            "Terminating".clone_into(&mut reason);
        }
    }
    Summary {
        reason,
        ready,
        total,
        restarts: restarts.count,
        last_restart: restarts.last,
    }
}

fn restarts(pod: &Value, now: Timestamp) -> Value {
    let found = summary(pod);
    match found.last_restart {
        Some(last) if found.restarts != 0 => {
            format!("{} ({} ago)", found.restarts, since(&last.to_string(), now)).into()
        }
        _ => found.restarts.to_string().into(),
    }
}

fn readiness_gates(pod: &Value) -> Value {
    let gates = object::list(pod, &["spec", "readinessGates"]);
    if gates.is_empty() {
        return "<none>".into();
    }
    let open = gates
        .iter()
        .filter(|gate| super::has_condition(pod, object::text(gate, &["conditionType"])))
        .count();
    format!("{open}/{}", gates.len()).into()
}
