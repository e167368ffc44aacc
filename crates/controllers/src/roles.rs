//! Aggregated cluster roles: the rules of a role that says so are those of the roles that its
//! selectors find.
//!
//! Whoever adds a kind adds a role with a label, and `view`, `edit` and `admin` know it.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_api::selector::LabelSelector;
use evenkeel_client::Api;
use evenkeel_client::{LoopContext, ObjectKey, Outcome, WorkQueue, errors, run_loop};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::api::PostParams;

use crate::error::ReconcileError;

/// The rules that a role must have, when others say them: those of the selected roles in the order
/// of their names, each once. `None`: the role speaks for itself.
#[must_use]
pub fn plan(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?;
    let mut named: Vec<&Arc<ClusterRole>> = all.iter().collect();
    named.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let nothing = BTreeMap::new();
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in selectors.cluster_role_selectors.iter().flatten() {
        // A selector that can't be read was refused when the role was written.
        let Ok(selector) = LabelSelector::from_spec(Some(selector)) else {
            continue;
        };
        for other in &named {
            let labels = other.metadata.labels.as_ref().unwrap_or(&nothing);
            if other.metadata.name == role.metadata.name || !selector.matches(labels) {
                continue;
            }
            for rule in other.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Some(rules)
}

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    let queue = WorkQueue::new(context.metrics.of("clusterrole-aggregation"));
    let roles = context.views.of::<ClusterRole>();
    {
        let queue = Arc::clone(&queue);
        let view = Arc::clone(&roles);
        // There are few aggregated roles; any role may belong to any of them.
        roles.on_change(move |change| {
            if change.latest().aggregation_rule.is_some() {
                queue.add(change.key.clone());
            }
            for role in view.list() {
                if role.aggregation_rule.is_some() {
                    queue.add(ObjectKey::of(role.as_ref()));
                }
            }
        });
    }
    roles.synced().await;
    let api: Api<ClusterRole> = Api::all(context.client.clone());
    run_loop(
        "clusterrole-aggregation",
        1,
        queue,
        context.shutdown,
        |key: ObjectKey| {
            let (roles, api) = (Arc::clone(&roles), api.clone());
            async move {
                let Some(role) = roles.get("", &key.name) else {
                    return Ok(Outcome::Done);
                };
                let Some(rules) = plan(&role, &roles.list()) else {
                    return Ok(Outcome::Done);
                };
                if role.rules.as_deref().unwrap_or_default() == rules {
                    return Ok(Outcome::Done);
                }
                let mut wanted = ClusterRole::clone(&role);
                wanted.rules = Some(rules);
                match api
                    .replace(&key.name, &PostParams::default(), &wanted)
                    .await
                {
                    Ok(written) => {
                        roles.note_written(written);
                        Ok(Outcome::Done)
                    }
                    Err(error) if errors::is_not_found(&error) => Ok(Outcome::Done),
                    Err(error) => Err(ReconcileError::from(error)),
                }
            }
        },
    )
    .await;
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn role(name: &str, labels: &Value, rules: &Value) -> Arc<ClusterRole> {
        let value = json!({"metadata": {"name": name, "labels": labels}, "rules": rules});
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn rule(resource: &str) -> Value {
        json!({"apiGroups": [""], "resources": [resource], "verbs": ["get"]})
    }

    #[test]
    fn rules_come_from_the_selected_roles_by_name_and_once() {
        let all = [
            role("z", &json!({"to-view": "true"}), &json!([rule("pods")])),
            role(
                "a",
                &json!({"to-view": "true"}),
                &json!([rule("secrets"), rule("pods")]),
            ),
            role("other", &json!({}), &json!([rule("nodes")])),
        ];
        let view: ClusterRole = serde_json::from_value(json!({
            "metadata": {"name": "view", "labels": {"to-view": "true"}},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to-view": "true"}}]},
            "rules": [rule("stale")],
        }))
        .unwrap();
        let wanted: Vec<PolicyRule> =
            serde_json::from_value(json!([rule("secrets"), rule("pods")])).unwrap();
        assert_eq!(plan(&view, &all), Some(wanted));
        assert_eq!(plan(&all[0], &all), None);
    }
}
