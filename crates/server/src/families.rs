//! Counters and histograms whose labels are only known while the door serves: admission, webhooks,
//! conversion, watches, the steps of a request.
//!
//! Their names, labels and buckets are in `reference`; what counts requests themselves is in
//! [`crate::metrics`].

mod reference;

use std::sync::Arc;
use std::time::Duration;

use evenkeel_api::custom::Stopwatch;
use evenkeel_api::row::ResourceDef;
use evenkeel_store::StoreError;
use tokio::time::Instant;

pub(crate) use crate::series::nanoseconds;
use crate::series::{Counters, Histograms, Marks};

/// Everything that is counted beside requests.
#[derive(Debug)]
pub(crate) struct Families {
    /// `operation`, `rejected`, `type` (`admit` or `validate`).
    pub(crate) steps: Histograms,
    /// `name`, `operation`, `rejected`, `type`.
    pub(crate) plugins: Histograms,
    /// `name`, `operation`, `rejected`, `type` (`admit` or `validating`).
    pub(crate) webhooks: Histograms,
    /// `code`, `name`, `operation`, `rejected`, `type`.
    pub(crate) webhook_requests: Counters,
    /// `error_type`, `name`, `operation`, `rejection_code`, `type`.
    pub(crate) webhook_rejections: Counters,
    /// `name`, `type`.
    pub(crate) webhooks_failed_open: Counters,
    /// `enforcement_action`, `error_type`, `policy`, `policy_binding`.
    validations: Counters,
    /// The same.
    validations_took: Histograms,
    /// `error_type`, `policy`, `policy_binding`.
    mutations: Counters,
    /// The same.
    mutations_took: Histograms,
    /// `kind`, `name`, `operation`, `type`.
    conditions_failed: Counters,
    /// The same.
    conditions_excluded: Counters,
    /// The same.
    conditions_took: Histograms,
    /// `failure_type`, `result`.
    pub(crate) conversions: Histograms,
    /// The same.
    pub(crate) conversion_requests: Counters,
    /// `group`, `resource`, `version`.
    pub(crate) watch_events: Counters,
    /// The same; bytes.
    pub(crate) watch_sizes: Histograms,
    /// `group`, `resource`, `scope`, `version`.
    pub(crate) watch_lists: Histograms,
    /// No labels.
    pub(crate) valid_tokens: Counters,
    /// No labels: tokens that were kept in Secrets. The door takes none.
    legacy_tokens: Counters,
    /// No labels: tokens used beyond the time that they were asked for. The door extends none.
    stale_tokens: Counters,
    /// `group`, `removed_release`, `resource`, `subresource`, `version`.
    pub(crate) deprecated: Marks,
    /// `decision`, `mode`.
    impersonations: Counters,
    /// The same.
    impersonations_took: Histograms,
    /// The same: the questions that were asked for them.
    impersonation_rights: Counters,
    /// The same.
    impersonation_rights_took: Histograms,
    /// No labels.
    cel_compilation: Histograms,
    /// No labels.
    cel_evaluation: Histograms,
    /// No labels.
    pub(crate) webhooks_without_names: Counters,
    /// No labels.
    pub(crate) webhooks_with_sha1: Counters,
    /// `filter`.
    pub(crate) filters: Histograms,
    /// `name`, `result`.
    pub(crate) rights: Counters,
    /// The same.
    pub(crate) rights_took: Histograms,
    /// The same.
    pub(crate) rights_failed_open: Counters,
    /// `group`, `operation`, `resource`.
    storage_took: Histograms,
    /// The same.
    storage: Counters,
    /// The same.
    storage_failed: Counters,
}

impl Stopwatch for Families {
    fn compile(&self, work: &mut dyn FnMut()) {
        let began = Instant::now();
        work();
        self.cel_compilation.took(&[], began.elapsed());
    }

    fn evaluate(&self, work: &mut dyn FnMut()) {
        let began = Instant::now();
        work();
        self.cel_evaluation.took(&[], began.elapsed());
    }
}

impl Families {
    /// What is counted beside requests, with the series that are there from the start.
    pub(crate) fn shared() -> Arc<Self> {
        let families = Self::default();
        for counters in [
            &families.valid_tokens,
            &families.legacy_tokens,
            &families.stale_tokens,
            &families.webhooks_without_names,
            &families.webhooks_with_sha1,
        ] {
            counters.of(&[]);
        }
        Arc::new(families)
    }

    /// Counts that somebody wanted to be another one; with the way in which he is, if he is.
    pub(crate) fn impersonation_tried(&self, mode: Option<&str>, took: Duration) {
        let decision = if mode.is_some() { "allowed" } else { "denied" };
        let told = [decision, mode.unwrap_or_default()];
        self.impersonations.one(&told);
        self.impersonations_took.took(&told, took);
    }

    /// Counts a question that was asked for that.
    pub(crate) fn impersonation_asked(&self, mode: &str, allowed: bool, took: Duration) {
        let told = [if allowed { "allowed" } else { "denied" }, mode];
        self.impersonation_rights.one(&told);
        self.impersonation_rights_took.took(&told, took);
    }

    /// Counts an answer of the store.
    pub(crate) fn stored<T>(
        &self,
        operation: &str,
        row: &ResourceDef,
        began: Instant,
        answer: &Result<T, StoreError>,
    ) {
        let told = [&*row.gvk.group, operation, &*row.plural];
        self.storage_took.took(&told, began.elapsed());
        self.storage.one(&told);
        if answer.is_err() {
            self.storage_failed.one(&told);
        }
    }

    /// Counts what an expression of a validating policy came to: `allow` (it failed, and failures
    /// are ignored), `deny`, `audit` or `warn`.
    pub(crate) fn validated(
        &self,
        policy: &str,
        binding: &str,
        action: &str,
        (error, took): (&str, Duration),
    ) {
        let told = [action, error, policy, binding];
        self.validations.one(&told);
        self.validations_took.took(&told, took);
    }

    /// Counts a step of a mutating policy.
    pub(crate) fn mutated(&self, policy: &str, binding: &str, error: &str, took: Duration) {
        let told = [error, policy, binding];
        self.mutations.one(&told);
        self.mutations_took.took(&told, took);
    }

    /// Counts what the conditions of somebody came to: they hold, one does not, or that can't be
    /// said. `told` is kind, name, operation and type.
    pub(crate) fn decided<E>(&self, told: [&str; 4], began: Instant, answer: &Result<bool, E>) {
        match answer {
            Ok(true) => {}
            Ok(false) => self.conditions_excluded.one(&told),
            Err(_) => self.conditions_failed.one(&told),
        }
        self.conditions_took.took(&told, began.elapsed());
    }

    /// The text that a scraper reads; a family without a series has none.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        for histograms in [
            &self.steps,
            &self.plugins,
            &self.webhooks,
            &self.validations_took,
            &self.mutations_took,
            &self.conditions_took,
            &self.conversions,
            &self.watch_sizes,
            &self.watch_lists,
            &self.filters,
            &self.rights_took,
            &self.storage_took,
            &self.impersonations_took,
            &self.impersonation_rights_took,
            &self.cel_compilation,
            &self.cel_evaluation,
        ] {
            histograms.write(&mut out);
        }
        self.deprecated.write(&mut out);
        for counters in [
            &self.webhook_requests,
            &self.webhook_rejections,
            &self.webhooks_failed_open,
            &self.validations,
            &self.mutations,
            &self.conditions_failed,
            &self.conditions_excluded,
            &self.conversion_requests,
            &self.watch_events,
            &self.valid_tokens,
            &self.legacy_tokens,
            &self.stale_tokens,
            &self.webhooks_without_names,
            &self.webhooks_with_sha1,
            &self.impersonations,
            &self.impersonation_rights,
            &self.rights,
            &self.rights_failed_open,
            &self.storage,
            &self.storage_failed,
        ] {
            counters.write(&mut out);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_written_under_their_labels() {
        let families = Families::default();
        assert!(families.text().is_empty());
        families.watch_events.one(&["", "pods", "v1"]);
        families.watch_events.one(&["", "pods", "v1"]);
        families.webhooks_failed_open.one(&["a\"b", "admit"]);
        let took = Duration::from_millis(30);
        families.steps.took(&["CREATE", "false", "admit"], took);
        let text = families.text();
        let labels = "operation=\"CREATE\",rejected=\"false\",type=\"admit\"";
        let steps = "apiserver_admission_step_admission_duration_seconds";
        for expected in [
            "apiserver_watch_events_total{group=\"\",resource=\"pods\",version=\"v1\"} 2\n",
            "# TYPE apiserver_watch_events_total counter\n",
            "{name=\"a\\\"b\",type=\"admit\"} 1\n",
            &format!("{steps}_bucket{{{labels},le=\"0.025\"}} 0\n"),
            &format!("{steps}_bucket{{{labels},le=\"0.1\"}} 1\n"),
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
    }
}
