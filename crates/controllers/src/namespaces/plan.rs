//! What a terminating namespace reports: pure, with the reference's texts.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The finalizer that this loop removes last.
pub const KUBERNETES: &str = "kubernetes";

/// It is being deleted.
#[must_use]
pub fn is_terminating(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
}

/// What was found while deleting.
#[derive(Debug, Default)]
pub struct Found {
    /// Why the door could not say what it serves.
    pub discovery: Option<String>,
    /// Why some things could not be deleted.
    pub failures: Vec<String>,
    /// Instances left, by `plural.group`.
    pub remaining: BTreeMap<String, usize>,
    /// Instances held, by finalizer.
    pub finalizers: BTreeMap<String, usize>,
    /// Seconds the pods on their way out may still take.
    pub grace_seconds: i64,
}

impl Found {
    /// Nothing is left and nothing went wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.discovery.is_none() && self.failures.is_empty() && self.remaining.is_empty()
    }
}

/// A condition's type, what is wrong (reason and message), and what it says if nothing is.
type Row<'a> = (&'a str, Option<(&'a str, String)>, (&'a str, &'a str));

/// The status that tells it.
#[must_use]
pub fn status(namespace: &Namespace, found: &Found, now: Timestamp) -> NamespaceStatus {
    let remaining: usize = found.remaining.values().sum();
    let rows: [Row<'_>; 5] = [
        (
            "NamespaceDeletionDiscoveryFailure",
            found.discovery.as_ref().map(|why| {
                (
                    "DiscoveryFailed",
                    format!("Discovery failed for some groups, 1 failing: {why}"),
                )
            }),
            (
                "ResourcesDiscovered",
                "All resources successfully discovered",
            ),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            (
                "ParsedGroupVersions",
                "All legacy kube types successfully parsed",
            ),
        ),
        (
            "NamespaceDeletionContentFailure",
            (!found.failures.is_empty()).then(|| {
                let text = format!(
                    "Failed to delete all resource types, {} remaining: {}",
                    found.failures.len(),
                    found.failures.join(", ")
                );
                ("ContentDeletionFailed", text)
            }),
            (
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization",
            ),
        ),
        (
            "NamespaceContentRemaining",
            (remaining > 0).then(|| {
                let each = found.remaining.iter();
                let each =
                    each.map(|(what, count)| format!("{what} has {count} resource instances"));
                let each: Vec<_> = each.collect();
                let text = format!("Some resources are remaining: {}", each.join(", "));
                ("SomeResourcesRemain", text)
            }),
            ("ContentRemoved", "All content successfully removed"),
        ),
        (
            "NamespaceFinalizersRemaining",
            (!found.finalizers.is_empty()).then(|| {
                let each = found.finalizers.iter();
                let each =
                    each.map(|(name, count)| format!("{name} in {count} resource instances"));
                let each: Vec<_> = each.collect();
                let text = format!(
                    "Some content in the namespace has finalizers remaining: {}",
                    each.join(", ")
                );
                ("SomeFinalizersRemain", text)
            }),
            (
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished",
            ),
        ),
    ];
    let mut status = namespace.status.clone().unwrap_or_default();
    status.phase = Some("Terminating".to_owned());
    let mut conditions = status.conditions.take().unwrap_or_default();
    for (kind, wrong, right) in rows {
        let (state, reason, message) = match wrong {
            Some((reason, message)) => ("True", reason, message),
            None => ("False", right.0, right.1.to_owned()),
        };
        let old = conditions.iter().position(|item| item.type_ == kind);
        let was = old.map(|at| &conditions[at]);
        let since = was.filter(|item| item.status == state);
        let since = since.and_then(|item| item.last_transition_time.clone());
        let new = NamespaceCondition {
            type_: kind.to_owned(),
            status: state.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: since.or(Some(Time(now))),
        };
        match old {
            Some(at) => conditions[at] = new,
            None => conditions.push(new),
        }
    }
    status.conditions = Some(conditions);
    status
}
