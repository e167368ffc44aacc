//! What the loop counts of its own work, under the reference's names and labels.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_client::{Family, FamilyKind, LoopRegistry};

/// From a millisecond, doubling: 15 buckets.
const BUCKETS: &[f64] = &[
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096,
    8.192, 16.384,
];
const DONE: &[&str] = &["action", "error"];
const COMPUTED: &[&str] = &["action", "error", "metric_type"];

/// What went wrong, if anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The autoscaler says something that can't be.
    Spec,
    /// Something else did not answer, or not well.
    Internal,
}

impl Fault {
    fn label(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Spec => "spec",
            Self::Internal => "internal",
        }
    }
}

/// The label of a move from one number of replicas to another.
pub(crate) fn action(from: i32, to: i32) -> &'static str {
    match to.cmp(&from) {
        std::cmp::Ordering::Greater => "scale_up",
        std::cmp::Ordering::Less => "scale_down",
        std::cmp::Ordering::Equal => "none",
    }
}

/// The families of the loop.
#[derive(Debug)]
pub(crate) struct Monitor {
    reconciled: Arc<Family>,
    reconciled_took: Arc<Family>,
    computed: Arc<Family>,
    computed_took: Arc<Family>,
    scalers: Arc<Family>,
    desired: Arc<Family>,
}

impl Monitor {
    pub(crate) fn new(registry: &LoopRegistry) -> Self {
        let family = |name, help, labels, kind| {
            let family = Arc::new(Family::new(name, help, labels, kind));
            registry.keep(&family);
            family
        };
        let histogram = FamilyKind::Histogram(BUCKETS);
        Self {
            reconciled: family(
                "horizontal_pod_autoscaler_controller_reconciliations_total",
                "Number of reconciliations of HPA controller. The label 'action' should be either \
                 'scale_down', 'scale_up', or 'none'. Also, the label 'error' should be either \
                 'spec', 'internal', or 'none'. Note that if both spec and internal errors happen \
                 during a reconciliation, the first one to occur is reported in `error` label.",
                DONE,
                FamilyKind::Counter,
            ),
            reconciled_took: family(
                "horizontal_pod_autoscaler_controller_reconciliation_duration_seconds",
                "The time(seconds) that the HPA controller takes to reconcile once. The label \
                 'action' should be either 'scale_down', 'scale_up', or 'none'. Also, the label \
                 'error' should be either 'spec', 'internal', or 'none'. Note that if both spec and \
                 internal errors happen during a reconciliation, the first one to occur is reported \
                 in `error` label.",
                DONE,
                histogram,
            ),
            computed: family(
                "horizontal_pod_autoscaler_controller_metric_computation_total",
                "Number of metric computations. The label 'action' should be either 'scale_down', \
                 'scale_up', or 'none'. Also, the label 'error' should be either 'spec', \
                 'internal', or 'none'. The label 'metric_type' corresponds to \
                 HPA.spec.metrics[*].type",
                COMPUTED,
                FamilyKind::Counter,
            ),
            computed_took: family(
                "horizontal_pod_autoscaler_controller_metric_computation_duration_seconds",
                "The time(seconds) that the HPA controller takes to calculate one metric. The label \
                 'action' should be either 'scale_down', 'scale_up', or 'none'. The label 'error' \
                 should be either 'spec', 'internal', or 'none'. The label 'metric_type' \
                 corresponds to HPA.spec.metrics[*].type",
                COMPUTED,
                histogram,
            ),
            scalers: family(
                "horizontal_pod_autoscaler_controller_num_horizontal_pod_autoscalers",
                "Current number of controlled HPA objects.",
                &[],
                FamilyKind::Gauge,
            ),
            desired: family(
                "horizontal_pod_autoscaler_controller_desired_replicas",
                "Current desired replica count for HPA objects.",
                &["namespace", "hpa_name"],
                FamilyKind::Gauge,
            ),
        }
    }

    /// A look at an autoscaler is over.
    pub(crate) fn reconciled(&self, action: &str, fault: Fault, took: Duration) {
        let labels = [action, fault.label()];
        self.reconciled.add(&labels, 1.0);
        self.reconciled_took.observe(&labels, took.as_secs_f64());
    }

    /// One of its metrics was calculated, or could not be.
    pub(crate) fn computed(&self, metric: &str, action: &str, fault: Fault, took: Duration) {
        let labels = [action, fault.label(), metric];
        self.computed.add(&labels, 1.0);
        self.computed_took.observe(&labels, took.as_secs_f64());
    }

    /// An autoscaler came.
    pub(crate) fn came(&self) {
        self.scalers.add(&[], 1.0);
    }

    /// An autoscaler went.
    pub(crate) fn went(&self, namespace: &str, name: &str) {
        self.scalers.add(&[], -1.0);
        self.desired.remove(&[namespace, name]);
    }

    /// What an autoscaler wants now.
    pub(crate) fn desires(&self, namespace: &str, name: &str, replicas: i32) {
        self.desired.set(&[namespace, name], f64::from(replicas));
    }
}
