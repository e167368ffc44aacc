//! The last decisions, for `evenkeel why`: which node failed what, which scored how. The door
//! shows them under `/debug/scheduler/trace/NAMESPACE/NAME` ([`Traces::page`]).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use evenkeel_client::ObjectKey;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::cycle::Decision;

/// Pods whose last decision is kept.
const KEPT: usize = 512;

/// One decision.
#[derive(Debug, Clone)]
pub struct Trace {
    /// The pod.
    pub pod: ObjectKey,
    /// When it was made.
    pub at: Timestamp,
    /// How many times the pod has been tried, this one included, while its trace was kept.
    pub attempts: u32,
    /// What was decided.
    pub decision: Decision,
}

impl Trace {
    fn page(&self, uid: &str) -> Value {
        let decision = &self.decision;
        let scores: Vec<Value> = decision
            .scores
            .iter()
            .map(|score| {
                let plugins: serde_json::Map<String, Value> = score
                    .by_plugin
                    .iter()
                    .map(|(plugin, score)| ((*plugin).to_owned(), (*score).into()))
                    .collect();
                json!({"node": &*score.node, "total": score.total, "plugins": plugins})
            })
            .collect();
        let rejections: Vec<Value> = decision
            .rejections
            .iter()
            .map(|rejection| {
                json!({
                    "node": &*rejection.node,
                    "plugin": rejection.plugin,
                    "reasons": rejection.reasons,
                    "detail": rejection.detail,
                })
            })
            .collect();
        let preemption = decision.preemption.as_ref().map(|preemption| {
            let victims: Vec<String> = preemption
                .victims
                .iter()
                .map(|victim| victim.key.to_string())
                .collect();
            json!({
                "node": &*preemption.node,
                "victims": victims,
                "budgetViolations": preemption.violations,
            })
        });
        let message = decision.node.is_none().then(|| decision.message());
        json!({
            "kind": "SchedulingTrace",
            "pod": {"namespace": self.pod.namespace, "name": self.pod.name, "uid": uid},
            "at": self.at.to_string(),
            "attempts": self.attempts,
            "node": decision.node.as_deref(),
            "nodes": decision.nodes,
            "evaluated": decision.evaluated,
            "feasible": decision.feasible,
            "message": message,
            "group": decision.group,
            "reasons": decision.reasons,
            "rejections": rejections,
            "scores": scores,
            "preemption": preemption,
        })
    }
}

#[derive(Debug, Default)]
struct Ring {
    order: VecDeque<Arc<str>>,
    traces: HashMap<Arc<str>, Arc<Trace>>,
}

/// The last decision of each of the last 512 pods. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Traces(Arc<Mutex<Ring>>);

impl Traces {
    /// The last decision about the pod with this uid.
    #[must_use]
    pub fn explain(&self, uid: &str) -> Option<Arc<Trace>> {
        self.0.lock().traces.get(uid).cloned()
    }

    /// The last decision about a pod, as JSON. `path` is what follows `/debug/scheduler/`:
    /// `trace`, namespace, name. `None` when no decision about such a pod is kept.
    #[must_use]
    pub fn page(&self, path: &[&str]) -> Option<Value> {
        let ["trace", namespace, name] = path else {
            return None;
        };
        let ring = self.0.lock();
        let of_name = ring
            .traces
            .iter()
            .filter(|(_, trace)| trace.pod.namespace == *namespace && trace.pod.name == *name);
        // Of pods that had the name one after another, the last.
        let (uid, trace) = of_name.max_by_key(|(_, trace)| trace.at)?;
        Some(trace.page(uid))
    }

    pub(crate) fn note(&self, uid: &Arc<str>, pod: &ObjectKey, at: Timestamp, decision: Decision) {
        let mut ring = self.0.lock();
        let before = ring.traces.get(uid).map(|trace| trace.attempts);
        let trace = Trace {
            pod: pod.clone(),
            at,
            attempts: before.unwrap_or(0).saturating_add(1),
            decision,
        };
        ring.traces.insert(Arc::clone(uid), Arc::new(trace));
        if before.is_none() {
            ring.order.push_back(Arc::clone(uid));
            if ring.order.len() > KEPT
                && let Some(oldest) = ring.order.pop_front()
            {
                ring.traces.remove(&oldest);
            }
        }
    }
}
