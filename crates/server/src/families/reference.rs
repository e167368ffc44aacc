//! What the families are called, what they say of themselves, their labels and their buckets: to the
//! letter as in the reference, so that what people have built on them goes on.

use super::Families;
use crate::metrics::LATENCIES;
use crate::series::{Counters, Histograms, Marks};

const STORAGE: &[&str] = &["group", "operation", "resource"];

const ADMISSION: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
const WEBHOOK: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
const CONVERSION: &[f64] = &[
    0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0,
];
const FILTERS: &[f64] = &[
    0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 5.0, 10.0, 15.0, 30.0,
];
const POLICIES: &[f64] = &[0.000_000_5, 0.001, 0.01, 0.1, 1.0];
const CONDITIONS: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.1, 0.2, 0.25];
/// What conditions are told apart by; `kind` is `webhook` or the policy's.
const CONDITION: &[&str] = &["kind", "name", "operation", "type"];
const RIGHTS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// From 1 KiB to 128 KiB.
const EVENTS: &[f64] = &[
    1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0, 131_072.0,
];

/// From a millisecond, doubling.
const DOUBLING: &[f64] = &[
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096,
    8.192, 16.384,
];
/// The buckets of who names none.
const DEFAULT: &[f64] = RIGHTS;

impl Default for Families {
    fn default() -> Self {
        Self {
            steps: Histograms::new(
                "apiserver_admission_step_admission_duration_seconds",
                "Admission sub-step latency histogram in seconds, broken out for each operation \
                 and API resource and step type (validate or admit).",
                &["operation", "rejected", "type"],
                ADMISSION,
            ),
            plugins: Histograms::new(
                "apiserver_admission_controller_admission_duration_seconds",
                "Admission controller latency histogram in seconds, identified by name and broken \
                 out for each operation and API resource and type (validate or admit).",
                &["name", "operation", "rejected", "type"],
                ADMISSION,
            ),
            webhooks: Histograms::new(
                "apiserver_admission_webhook_admission_duration_seconds",
                "Admission webhook latency histogram in seconds, identified by name and broken out \
                 for each operation and API resource and type (validate or admit).",
                &["name", "operation", "rejected", "type"],
                WEBHOOK,
            ),
            webhook_requests: Counters::new(
                "apiserver_admission_webhook_request_total",
                "Admission webhook request total, identified by name and broken out for each \
                 admission type (validating or mutating) and operation.",
                &["code", "name", "operation", "rejected", "type"],
            ),
            webhook_rejections: Counters::new(
                "apiserver_admission_webhook_rejection_count",
                "Admission webhook rejection count, identified by name and broken out for each \
                 admission type (validating or admit) and operation.",
                &["error_type", "name", "operation", "rejection_code", "type"],
            ),
            webhooks_failed_open: Counters::new(
                "apiserver_admission_webhook_fail_open_count",
                "Admission webhook fail open count, identified by name and broken out for each \
                 admission type (validating or mutating).",
                &["name", "type"],
            ),
            validations: Counters::new(
                "apiserver_validating_admission_policy_check_total",
                "Validation admission policy check total, labeled by policy and further identified \
                 by binding and enforcement action taken.",
                &[
                    "enforcement_action",
                    "error_type",
                    "policy",
                    "policy_binding",
                ],
            ),
            validations_took: Histograms::new(
                "apiserver_validating_admission_policy_check_duration_seconds",
                "Validation admission latency for individual validation expressions in seconds, \
                 labeled by policy and further including binding and enforcement action taken.",
                &[
                    "enforcement_action",
                    "error_type",
                    "policy",
                    "policy_binding",
                ],
                POLICIES,
            ),
            mutations: Counters::new(
                "apiserver_mutating_admission_policy_check_total",
                "Mutation admission policy check total, labeled by policy and further identified \
                 by binding.",
                &["error_type", "policy", "policy_binding"],
            ),
            mutations_took: Histograms::new(
                "apiserver_mutating_admission_policy_check_duration_seconds",
                "Mutation admission latency for individual mutation expressions in seconds, \
                 labeled by policy and binding.",
                &["error_type", "policy", "policy_binding"],
                POLICIES,
            ),
            conditions_failed: Counters::new(
                "apiserver_admission_match_condition_evaluation_errors_total",
                "Admission match condition evaluation errors count, identified by name of resource \
                 containing the match condition and broken out for each kind containing \
                 matchConditions (webhook or policy), operation and admission type (validate or \
                 admit).",
                CONDITION,
            ),
            conditions_excluded: Counters::new(
                "apiserver_admission_match_condition_exclusions_total",
                "Admission match condition evaluation exclusions count, identified by name of \
                 resource containing the match condition and broken out for each kind containing \
                 matchConditions (webhook or policy), operation and admission type (validate or \
                 admit).",
                CONDITION,
            ),
            conditions_took: Histograms::new(
                "apiserver_admission_match_condition_evaluation_seconds",
                "Admission match condition evaluation time in seconds, identified by name and \
                 broken out for each kind containing matchConditions (webhook or policy), \
                 operation and type (validate or admit).",
                CONDITION,
                CONDITIONS,
            ),
            conversions: Histograms::new(
                "apiserver_conversion_webhook_duration_seconds",
                "Conversion webhook request latency",
                &["failure_type", "result"],
                CONVERSION,
            ),
            conversion_requests: Counters::new(
                "apiserver_conversion_webhook_request_total",
                "Counter for conversion webhook requests with success/failure and failure error \
                 type",
                &["failure_type", "result"],
            ),
            watch_events: Counters::new(
                "apiserver_watch_events_total",
                "Number of events sent in watch clients",
                &["group", "resource", "version"],
            ),
            watch_sizes: Histograms::new(
                "apiserver_watch_events_sizes",
                "Watch event size distribution in bytes",
                &["group", "resource", "version"],
                EVENTS,
            ),
            watch_lists: Histograms::new(
                "apiserver_watch_list_duration_seconds",
                "Response latency distribution in seconds for watch list requests broken by group, \
                 version, resource and scope.",
                &["group", "resource", "scope", "version"],
                LATENCIES,
            ),
            valid_tokens: Counters::new(
                "serviceaccount_valid_tokens_total",
                "Cumulative valid projected service account tokens used",
                &[],
            ),
            legacy_tokens: Counters::new(
                "serviceaccount_legacy_tokens_total",
                "Cumulative legacy service account tokens used",
                &[],
            ),
            stale_tokens: Counters::new(
                "serviceaccount_stale_tokens_total",
                "Cumulative stale projected service account tokens used",
                &[],
            ),
            deprecated: Marks::new(
                "apiserver_requested_deprecated_apis",
                "Gauge of deprecated APIs that have been requested, broken out by API group, \
                 version, resource, subresource, and removed_release.",
                &[
                    "group",
                    "removed_release",
                    "resource",
                    "subresource",
                    "version",
                ],
            ),
            impersonations: Counters::new(
                "apiserver_impersonation_attempts_total",
                "Total number of impersonation attempts split by mode and decision.",
                &["decision", "mode"],
            ),
            impersonations_took: Histograms::new(
                "apiserver_impersonation_attempts_duration_seconds",
                "Latency of impersonation attempts in seconds split by mode and decision.",
                &["decision", "mode"],
                DOUBLING,
            ),
            impersonation_rights: Counters::new(
                "apiserver_impersonation_authorization_attempts_total",
                "Total number of authorization checks made by the impersonation handler split by \
                 mode and decision.",
                &["decision", "mode"],
            ),
            impersonation_rights_took: Histograms::new(
                "apiserver_impersonation_authorization_attempts_duration_seconds",
                "Latency of authorization checks made by the impersonation handler in seconds split \
                 by mode and decision.",
                &["decision", "mode"],
                DOUBLING,
            ),
            cel_compilation: Histograms::new(
                "apiserver_cel_compilation_duration_seconds",
                "CEL compilation time in seconds.",
                &[],
                DEFAULT,
            ),
            cel_evaluation: Histograms::new(
                "apiserver_cel_evaluation_duration_seconds",
                "CEL evaluation time in seconds.",
                &[],
                DEFAULT,
            ),
            webhooks_without_names: Counters::new(
                "apiserver_webhooks_x509_missing_san_total",
                "Counts the number of requests to servers missing SAN extension in their serving \
                 certificate OR the number of connection failures due to the lack of x509 \
                 certificate SAN extension missing (either/or, based on the runtime environment)",
                &[],
            ),
            webhooks_with_sha1: Counters::new(
                "apiserver_webhooks_x509_insecure_sha1_total",
                "Counts the number of requests to servers with insecure SHA1 signatures in their \
                 serving certificate OR the number of connection failures due to the insecure SHA1 \
                 signatures (either/or, based on the runtime environment)",
                &[],
            ),
            filters: Histograms::new(
                "apiserver_request_filter_duration_seconds",
                "Request filter latency distribution in seconds, for each filter type",
                &["filter"],
                FILTERS,
            ),
            rights: Counters::new(
                "apiserver_authorization_webhook_evaluations_total",
                "Round-trips to authorization webhooks.",
                &["name", "result"],
            ),
            rights_took: Histograms::new(
                "apiserver_authorization_webhook_duration_seconds",
                "Request latency in seconds.",
                &["name", "result"],
                RIGHTS,
            ),
            rights_failed_open: Counters::new(
                "apiserver_authorization_webhook_evaluations_fail_open_total",
                "NoOpinion results due to webhook timeout or error.",
                &["name", "result"],
            ),
            // Whatever the store is: these are the names that people watch.
            storage_took: Histograms::new(
                "etcd_request_duration_seconds",
                "Etcd request latency in seconds for each operation and object type.",
                STORAGE,
                LATENCIES,
            ),
            storage: Counters::new(
                "etcd_requests_total",
                "Etcd request counts for each operation and object type.",
                STORAGE,
            ),
            storage_failed: Counters::new(
                "etcd_request_errors_total",
                "Etcd failed request counts for each operation and object type.",
                STORAGE,
            ),
        }
    }
}
