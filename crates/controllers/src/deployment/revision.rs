//! Which ReplicaSet is which revision: hashes, annotations, history.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;

use super::limits;

/// Number of the rollout that made or last used a set.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Revisions a set had before.
pub const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Replicas the deployment asked for when the set was last scaled.
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The same, with surge.
pub const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";
/// The label that tells the pods of one template from those of another.
pub const HASH: &str = "pod-template-hash";

/// Annotations of a Deployment that are not copied to its sets.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAXIMUM,
    "deprecated.deployment.rollback.to",
];

/// Longest revision history kept, in bytes.
const HISTORY_LIMIT: usize = 2000;

/// An annotation of a set.
#[must_use]
pub fn annotation<'a>(set: &'a ReplicaSet, name: &str) -> Option<&'a str> {
    let annotations = set.metadata.annotations.as_ref()?;
    annotations.get(name).map(String::as_str)
}

/// The revision of a set, 0 where it has none.
#[must_use]
pub fn revision_of(set: &ReplicaSet) -> i64 {
    let text = annotation(set, REVISION);
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Writes an annotation; true when that changed something.
pub(super) fn annotate(set: &mut ReplicaSet, name: &str, value: &str) -> bool {
    let annotations = set.metadata.annotations.get_or_insert_with(BTreeMap::new);
    if annotations.get(name).map(String::as_str) == Some(value) {
        return false;
    }
    annotations.insert(name.to_owned(), value.to_owned());
    true
}

/// Writes desired and maximum replicas.
pub(super) fn annotate_replicas(set: &mut ReplicaSet, deployment: &Deployment) {
    let wanted = limits::wanted(deployment);
    let most = wanted.saturating_add(limits::max_surge(deployment));
    annotate(set, DESIRED, &wanted.to_string());
    annotate(set, MAXIMUM, &most.to_string());
}

/// Brings the annotations of the new set up to date: the deployment's own, and its revision.
pub(super) fn annotate_new(
    set: &mut ReplicaSet,
    deployment: &Deployment,
    revision: i64,
    made: bool,
) {
    let own = deployment.metadata.annotations.iter().flatten();
    for (name, value) in own.filter(|pair| !NOT_COPIED.contains(&pair.0.as_str())) {
        annotate(set, name, value);
    }
    let old = annotation(set, REVISION).map(str::to_owned);
    let number = match old.as_deref() {
        None | Some("") => 0,
        Some(text) => match text.parse::<i64>() {
            Ok(number) => number,
            // Somebody wrote something else there: theirs to mend, not ours to overwrite.
            Err(_) => return,
        },
    };
    if number < revision {
        annotate(set, REVISION, &revision.to_string());
        if let Some(old) = old.filter(|text| !text.is_empty()) {
            let history = annotation(set, HISTORY).unwrap_or_default();
            let mut items: Vec<&str> = history.split(',').filter(|item| !item.is_empty()).collect();
            items.push(&old);
            let mut text = items.join(",");
            while text.len() > HISTORY_LIMIT && items.len() > 1 {
                items.remove(0);
                text = items.join(",");
            }
            annotate(set, HISTORY, &text);
        }
    }
    if made {
        annotate_replicas(set, deployment);
    }
}

/// The same template, but for the hash label.
#[must_use]
pub fn is_same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let bare = |template: &PodTemplateSpec| {
        let mut meta = template.metadata.clone().unwrap_or_default();
        if let Some(labels) = &mut meta.labels {
            labels.remove(HASH);
        }
        meta.labels = meta.labels.filter(|labels| !labels.is_empty());
        meta.annotations = meta.annotations.filter(|items| !items.is_empty());
        meta.creation_timestamp = None;
        meta
    };
    a.spec == b.spec && bare(a) == bare(b)
}

/// A hash of the template for names and labels: FNV-1a over its JSON (whose maps are ordered) and
/// the collision count, written in letters that make no words.
#[must_use]
pub fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut text = serde_json::to_vec(template).unwrap_or_default();
    if let Some(collisions) = collisions {
        text.extend(collisions.to_le_bytes());
    }
    let mut hash: u32 = 0x811c_9dc5;
    for byte in text {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    let digits = hash.to_string();
    let letters = digits
        .bytes()
        .map(|digit| LETTERS[usize::from(digit) % LETTERS.len()]);
    letters.map(char::from).collect()
}
