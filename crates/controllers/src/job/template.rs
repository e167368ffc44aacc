//! The pods of a Job.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use super::facts::{self, FINALIZER, INDEX, INDEX_FAILURES, INDEX_IGNORED};
use super::policy;
use crate::{claim, pod_control};

/// The variable with the pod's index.
const VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// Longest prefix of a generated name.
const PREFIX: usize = 58;

/// A pod that takes part in the job, under an index where the job has such; `held` is the pod of
/// the index before it.
#[must_use]
pub fn new_pod(job: &Job, index: Option<i32>, held: Option<&Arc<Pod>>) -> Pod {
    let template = &facts::spec(job).template;
    let mut pod = pod_control::from_template(template, &job.metadata, claim::reference_to(job));
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|item| item == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let Some(index) = index else {
        return pod;
    };
    let name = job.metadata.name.as_deref().unwrap_or_default();
    pod.metadata.generate_name = Some(prefix(name, index));
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(INDEX.to_owned(), index.to_string());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), index.to_string());
    if facts::is_per_index(job) {
        let (failures, ignored) = failures(job, held);
        annotations.insert(INDEX_FAILURES.to_owned(), failures.to_string());
        if ignored > 0 {
            annotations.insert(INDEX_IGNORED.to_owned(), ignored.to_string());
        }
    }
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(format!("{name}-{index}"));
    let init = spec.init_containers.iter_mut().flatten();
    for container in init.chain(&mut spec.containers) {
        add_variable(container);
    }
    pod
}

/// Failures of an index with its last pod: those that count, and those that do not.
fn failures(job: &Job, held: Option<&Arc<Pod>>) -> (i32, i32) {
    let Some(held) = held else {
        return (0, 0);
    };
    let (failures, ignored) = facts::failures_before(held);
    if policy::judge(job, held).counts() {
        (failures + 1, ignored)
    } else {
        (failures, ignored + 1)
    }
}

fn prefix(name: &str, index: i32) -> String {
    let end = format!("-{index}-");
    let mut cut = name.len().min(PREFIX.saturating_sub(end.len()));
    while !name.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}{end}", &name[..cut])
}

fn add_variable(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|item| item.name == VARIABLE) {
        return;
    }
    variables.push(EnvVar {
        name: VARIABLE.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: None,
                field_path: format!("metadata.labels['{INDEX}']"),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    });
}
