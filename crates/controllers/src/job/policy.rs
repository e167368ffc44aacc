//! What a pod's failure means, and when some successes are enough: the pod failure policy
//! (KEP-3329) and the success policy (KEP-3998).

use k8s_openapi::api::batch::v1::{
    Job, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};

use super::indexes::Indexes;

/// What a failure policy does about a failed pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It does not count.
    Ignore,
    /// It counts, as without a policy.
    Count,
    /// Its index has failed.
    FailIndex,
    /// The whole job has failed.
    FailJob,
}

/// How a failed pod is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The rule's action; `None`: no rule matched.
    pub action: Option<Action>,
    /// Why the job fails, where it does.
    pub message: Option<String>,
}

impl Verdict {
    /// The failure counts towards the limits.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.action != Some(Action::Ignore)
    }
}

/// Judges a failed pod by the job's failure policy: the first rule that matches.
#[must_use]
pub fn judge(job: &Job, pod: &Pod) -> Verdict {
    let rules = job.spec.as_ref().and_then(|spec| {
        let policy = spec.pod_failure_policy.as_ref()?;
        Some(policy.rules.as_slice())
    });
    let empty = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&empty);
    for (at, rule) in rules.unwrap_or_default().iter().enumerate() {
        let Some(cause) = matches(rule, pod, status) else {
            continue;
        };
        let action = match rule.action.as_str() {
            "Ignore" => Action::Ignore,
            "Count" => Action::Count,
            "FailIndex" => Action::FailIndex,
            "FailJob" => Action::FailJob,
            // A newer server's action: as if the rule were not there.
            _ => continue,
        };
        let message = (action == Action::FailJob)
            .then(|| format!("{cause} matching {} rule at index {at}", rule.action));
        return Verdict {
            action: Some(action),
            message,
        };
    }
    Verdict {
        action: None,
        message: None,
    }
}

/// What of the pod a rule matches, in words.
fn matches(rule: &PodFailurePolicyRule, pod: &Pod, status: &PodStatus) -> Option<String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    if let Some(wanted) = &rule.on_exit_codes {
        let main = status.container_statuses.as_deref().unwrap_or_default();
        let init = status
            .init_container_statuses
            .as_deref()
            .unwrap_or_default();
        let (found, code) = main
            .iter()
            .chain(init)
            .find_map(|container| Some((container, exit_code(container, wanted)?)))?;
        return Some(format!(
            "Container {} for pod {namespace}/{name} failed with exit code {code}",
            found.name
        ));
    }
    let wanted = rule.on_pod_conditions.as_deref()?;
    let found = status.conditions.iter().flatten().find(|condition| {
        wanted.iter().any(|pattern| {
            let state = pattern.status.as_deref().unwrap_or("True");
            pattern.type_ == condition.type_ && state == condition.status
        })
    })?;
    Some(format!(
        "Pod {namespace}/{name} has condition {}",
        found.type_
    ))
}

fn exit_code(
    container: &ContainerStatus,
    wanted: &PodFailurePolicyOnExitCodesRequirement,
) -> Option<i32> {
    let ended = container.state.as_ref()?.terminated.as_ref()?;
    let named = wanted.container_name.as_ref();
    if named.is_some_and(|name| *name != container.name) || ended.exit_code == 0 {
        return None;
    }
    let listed = wanted.values.contains(&ended.exit_code);
    let matches = match wanted.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    };
    matches.then_some(ended.exit_code)
}

/// The rule of the success policy that the succeeded indexes satisfy, in words.
#[must_use]
pub fn enough(job: &Job, succeeded: &Indexes) -> Option<String> {
    let spec = job.spec.as_ref()?;
    let policy = spec.success_policy.as_ref()?;
    if succeeded.is_empty() {
        return None;
    }
    let completions = spec.completions.unwrap_or(0);
    let at = policy.rules.iter().position(|rule| {
        let count = rule.succeeded_count;
        match &rule.succeeded_indexes {
            Some(text) => {
                let wanted = Indexes::parse(text, completions);
                let common = wanted.common(succeeded);
                !wanted.is_empty()
                    && (common == wanted.total() || count.is_some_and(|count| common >= count))
            }
            None => count.is_some_and(|count| succeeded.total() >= count),
        }
    })?;
    Some(format!("Matched rules at index {at}"))
}
