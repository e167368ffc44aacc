//! `PodSecurity`: the Pod Security Standards, asked for by labels of a namespace.
//!
//! Pods are refused, workloads that make pods are only warned of, and a namespace whose label
//! becomes stricter tells which of its pods would not pass. There are no exemptions: nothing
//! configures any.

mod checks;
mod policy;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};

use evenkeel_api::row::Subresource;
use evenkeel_api::{Status, object};
use serde_json::Value;

use self::checks::{PodLike, Violation, violations};
use self::policy::{Level, LevelVersion, Policy};
use super::{Change, Operation, Plugin, look_up};
use crate::registry::Registry;

/// So many pods are looked at when the label of a namespace changes.
const PODS_MOST: usize = 3_000;
/// Violations are recorded under this name.
const AUDIT: &str = "pod-security.kubernetes.io/";

pub(super) struct PodSecurity;

impl Plugin for PodSecurity {
    fn validate(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &Value,
    ) -> Result<(), Status> {
        if change.operation == Operation::Delete || change.operation == Operation::Connect {
            return Ok(());
        }
        if change.is_core("Namespace") {
            return of_namespace(registry, change, object);
        }
        if change.is_core("Pod") {
            return of_pod(registry, change, object);
        }
        if let Some(template) = template(change, object) {
            let (policy, errors) = policy_of(registry, change)?;
            if errors.is_empty()
                && policy.warn.level == Level::Privileged
                && policy.audit.level == Level::Privileged
            {
                return Ok(());
            }
            return evaluate(change, template, policy, None);
        }
        Ok(())
    }
}

/// The template that a workload makes its pods of.
fn template<'v>(change: &Change<'_>, object: &'v Value) -> Option<PodLike<'v>> {
    if change.subresource.is_some() {
        return None;
    }
    let gvk = &change.row.gvk;
    let path: &[&str] = match (gvk.group.as_ref(), gvk.kind.as_ref()) {
        ("", "PodTemplate") => &["template"],
        ("", "ReplicationController")
        | ("apps", "ReplicaSet" | "Deployment" | "StatefulSet" | "DaemonSet")
        | ("batch", "Job") => &["spec", "template"],
        ("batch", "CronJob") => &["spec", "jobTemplate", "spec", "template"],
        _ => return None,
    };
    let template = object::at(object, path)?;
    Some(PodLike {
        metadata: template.get("metadata").unwrap_or(&Value::Null),
        spec: template.get("spec")?,
    })
}

/// The policy of the namespace of a change, and what is wrong with the labels that say it.
fn policy_of(
    registry: &Registry,
    change: &Change<'_>,
) -> Result<(Policy, Vec<evenkeel_api::FieldError>), Status> {
    let name = change.namespace;
    let namespace = look_up::object(registry, ("", "v1", "Namespace"), "", name)
        .ok_or_else(|| Status::internal(format!("failed to lookup namespace \"{name}\"")))?;
    Ok(policy::of_namespace(&namespace))
}

fn of_pod(registry: &Registry, change: &Change<'_>, pod: &Value) -> Result<(), Status> {
    let is_pod = matches!(
        change.subresource,
        None | Some(Subresource::EphemeralContainers | Subresource::Resize)
    );
    if !is_pod {
        return Ok(());
    }
    let (policy, errors) = policy_of(registry, change)?;
    if errors.is_empty() && policy.is_privileged() {
        let enforced = policy.enforce.to_string();
        change
            .notes()
            .annotate(format!("{AUDIT}enforce-policy"), enforced);
        return Ok(());
    }
    if !errors.is_empty() {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        change.notes().annotate(
            format!("{AUDIT}error"),
            format!("Failed to parse policy: {}", texts.join(", ")),
        );
    }
    if change.old.is_some_and(|old| !matters(pod, old)) {
        return Ok(());
    }
    let parts = PodLike {
        metadata: pod.get("metadata").unwrap_or(&Value::Null),
        spec: pod.get("spec").unwrap_or(&Value::Null),
    };
    evaluate(change, parts, policy, Some(pod))
}

/// Has anything changed that a policy looks at? Only images and ephemeral containers can.
fn matters(pod: &Value, old: &Value) -> bool {
    let images = |pod: &Value, list: &str| -> Vec<(String, String)> {
        object::list(pod, &["spec", list])
            .iter()
            .map(|container| {
                let text = |name: &str| object::text(container, &[name]).to_owned();
                (text("name"), text("image"))
            })
            .collect()
    };
    let same = |list: &str| images(pod, list) == images(old, list);
    let before = images(old, "ephemeralContainers");
    !same("containers")
        || !same("initContainers")
        || images(pod, "ephemeralContainers")
            .iter()
            .any(|container| !before.contains(container))
}

/// `a (which), b (which)`.
fn details(found: &[Violation]) -> String {
    let texts: Vec<String> = found
        .iter()
        .map(|one| format!("{} ({})", one.reason, one.detail))
        .collect();
    texts.join(", ")
}

/// Records and warns as a policy says, and refuses what is a pod itself.
fn evaluate(
    change: &Change<'_>,
    pod: PodLike<'_>,
    policy: Policy,
    itself: Option<&Value>,
) -> Result<(), Status> {
    let broken = |mode: LevelVersion| {
        let found = violations(mode, pod);
        (!found.is_empty()).then(|| format!("violate PodSecurity \"{mode}\": {}", details(&found)))
    };
    let notes = change.notes();
    if itself.is_some() {
        notes.annotate(format!("{AUDIT}enforce-policy"), policy.enforce.to_string());
    }
    if let Some(text) = broken(policy.audit) {
        notes.annotate(format!("{AUDIT}audit-violations"), format!("would {text}"));
    }
    if let Some(object) = itself {
        let found = violations(policy.enforce, pod);
        if !found.is_empty() {
            return Err(change.forbidden(
                object,
                &format!(
                    "violates PodSecurity \"{}\": {}",
                    policy.enforce,
                    details(&found)
                ),
            ));
        }
    }
    if let Some(text) = broken(policy.warn) {
        notes.warn(format!("would {text}"));
    }
    Ok(())
}

/// Labels must be readable when they are set, and a stricter one tells of pods that break it.
fn of_namespace(registry: &Registry, change: &Change<'_>, new: &Value) -> Result<(), Status> {
    if change.subresource.is_some() {
        return Ok(());
    }
    let (policy, errors) = policy::of_namespace(new);
    let before = change.old.map(policy::of_namespace);
    let (before, old_errors) = match before {
        Some((policy, errors)) => (Some(policy.enforce), errors),
        None => (None, Vec::new()),
    };
    if !errors.is_empty() && errors != old_errors {
        return Err(Status::invalid("", "Namespace", object::name(new), &errors));
    }
    let Some(before) = before else {
        return Ok(());
    };
    let now = policy.enforce;
    let relaxed = now.version == before.version && now.level <= before.level;
    if now == before || now.level == Level::Privileged || relaxed {
        return Ok(());
    }
    for warning in standing(registry, object::name(new), now) {
        change.notes().warn(warning);
    }
    Ok(())
}

/// What to say of the pods that stand in a namespace when a policy is to be enforced there.
fn standing(registry: &Registry, namespace: &str, policy: LevelVersion) -> Vec<String> {
    let pods = look_up::objects(registry, ("", "v1", "Pod"), namespace);
    let total = pods.len();
    // One pod of each controller comes first: they are alike.
    let mut seen = HashSet::new();
    let (mut first, rest): (Vec<Value>, Vec<Value>) = pods.into_iter().partition(|pod| {
        object::list(pod, &["metadata", "ownerReferences"])
            .iter()
            .find(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true))
            .is_none_or(|owner| seen.insert(object::text(owner, &["uid"]).to_owned()))
    });
    first.extend(rest);
    first.truncate(PODS_MOST);
    let mut broken: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pod in &first {
        let found = violations(
            policy,
            PodLike {
                metadata: pod.get("metadata").unwrap_or(&Value::Null),
                spec: pod.get("spec").unwrap_or(&Value::Null),
            },
        );
        if found.is_empty() {
            continue;
        }
        let reasons: Vec<String> = found.into_iter().map(|one| one.reason).collect();
        broken
            .entry(reasons.join(", "))
            .or_default()
            .push(object::name(pod).to_owned());
    }
    let mut warnings = Vec::new();
    if first.len() < total {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {} of {total} existing \
             pods",
            first.len()
        ));
    }
    if !broken.is_empty() {
        warnings.push(format!(
            "existing pods in namespace \"{namespace}\" violate the new PodSecurity enforce level \
             \"{policy}\""
        ));
    }
    let mut by_pod: Vec<String> = broken
        .into_iter()
        .filter_map(|(reasons, mut names)| {
            names.sort();
            let name = names.first()?;
            Some(match names.len() {
                1 => format!("{name}: {reasons}"),
                2 => format!("{name} (and 1 other pod): {reasons}"),
                more => format!("{name} (and {} other pods): {reasons}", more - 1),
            })
        })
        .collect();
    by_pod.sort();
    warnings.append(&mut by_pod);
    warnings
}
