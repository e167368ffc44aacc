//! The last decisions, for `evenkeel why`: which node failed what, which scored how.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use evenkeel_client::ObjectKey;
use jiff::Timestamp;
use parking_lot::Mutex;

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
