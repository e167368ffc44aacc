//! Validating admission policies: what their expressions say under the types that they are about.
//!
//! The findings are warnings in the policy's status; the policy works with or without them. Kinds
//! that are not built in are read from the documents that the door publishes of them.

use std::sync::{Arc, LazyLock};

use evenkeel_api::Rows;
use evenkeel_api::expressions::{Documents, documents, type_check};
use evenkeel_client::Api;
use evenkeel_client::{Client, LoopContext, ObjectKey, Outcome, WorkQueue, errors, run_loop};
use k8s_openapi::api::admissionregistration::v1::{
    ExpressionWarning, TypeChecking, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyStatus,
};
use kube::api::PostParams;

use crate::error::ReconcileError;

/// The status that a policy must have, unless it has it.
#[must_use]
pub fn plan(
    policy: &ValidatingAdmissionPolicy,
    rows: &Rows,
    documents: &Documents,
) -> Option<ValidatingAdmissionPolicyStatus> {
    if is_checked(policy) {
        return None;
    }
    let generation = policy.metadata.generation;
    let current = policy.status.as_ref();
    let value = serde_json::to_value(policy).unwrap_or_default();
    let warnings: Vec<ExpressionWarning> = type_check(rows, documents, &value)
        .into_iter()
        .map(|finding| ExpressionWarning {
            field_ref: finding.field,
            warning: finding.warning,
        })
        .collect();
    Some(ValidatingAdmissionPolicyStatus {
        observed_generation: generation,
        type_checking: Some(TypeChecking {
            expression_warnings: (!warnings.is_empty()).then_some(warnings),
        }),
        conditions: current.and_then(|status| status.conditions.clone()),
    })
}

fn is_checked(policy: &ValidatingAdmissionPolicy) -> bool {
    let generation = policy.metadata.generation;
    let current = policy.status.as_ref();
    let observed = current.and_then(|status| status.observed_generation);
    let checked = current.is_some_and(|status| status.type_checking.is_some());
    checked && generation.is_some() && observed >= generation
}

/// The documents that a policy needs. What is not there is not checked, as in the reference.
async fn fetch(
    client: &Client,
    policy: &ValidatingAdmissionPolicy,
    rows: &Rows,
) -> Result<Documents, ReconcileError> {
    let value = serde_json::to_value(policy).unwrap_or_default();
    let mut found = Documents::new();
    for (group, version) in documents(rows, &value) {
        let request = http::Request::get(format!("/openapi/v3/apis/{group}/{version}"))
            .header(http::header::ACCEPT, "application/json")
            .body(Vec::new())
            .map_err(|error| ReconcileError::State(error.to_string()))?;
        match client.request(request).await {
            Ok(document) => {
                found.insert((group, version), document);
            }
            Err(error) if errors::is_not_found(&error) => {}
            Err(error) => return Err(ReconcileError::from(error)),
        }
    }
    Ok(found)
}

/// Runs until the context's shutdown.
pub async fn run(context: LoopContext) {
    static ROWS: LazyLock<Rows> = LazyLock::new(Rows::builtin);
    const NAME: &str = "validatingadmissionpolicy-status";
    let queue = WorkQueue::new(context.metrics.of(NAME));
    let policies = context.views.of::<ValidatingAdmissionPolicy>();
    {
        let queue = Arc::clone(&queue);
        policies.on_change(move |change| queue.add(change.key.clone()));
    }
    policies.synced().await;
    let api: Api<ValidatingAdmissionPolicy> = Api::all(context.client.clone());
    run_loop(NAME, 1, queue, context.shutdown, |key: ObjectKey| {
        let (policies, api) = (Arc::clone(&policies), api.clone());
        let client = context.client.clone();
        async move {
            let Some(policy) = policies.get("", &key.name) else {
                return Ok(Outcome::Done);
            };
            if is_checked(&policy) {
                return Ok(Outcome::Done);
            }
            let documents = fetch(&client, &policy, &ROWS).await?;
            let Some(status) = plan(&policy, &ROWS, &documents) else {
                return Ok(Outcome::Done);
            };
            let mut wanted = ValidatingAdmissionPolicy::clone(&policy);
            wanted.status = Some(status);
            match api
                .replace_status(&key.name, &PostParams::default(), &wanted)
                .await
            {
                Ok(written) => {
                    policies.note_written(written);
                    Ok(Outcome::Done)
                }
                Err(error) if errors::is_not_found(&error) => Ok(Outcome::Done),
                Err(error) => Err(ReconcileError::from(error)),
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(expression: &str) -> ValidatingAdmissionPolicy {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "generation": 2},
            "spec": {
                "matchConstraints": {"resourceRules": [{"apiGroups": ["apps"],
                    "apiVersions": ["v1"], "operations": ["*"],
                    "resources": ["deployments", "replicasets"]}]},
                "variables": [{"name": "n", "expression": "object.spec.replicas"}],
                "validations": [{"expression": expression}],
            },
        }))
        .unwrap()
    }

    #[test]
    fn misspelt_fields_are_told_type_by_type() {
        let rows = Rows::builtin();
        let status = plan(
            &policy("object.spec.relpicas > 1"),
            &rows,
            &Documents::new(),
        )
        .unwrap();
        assert_eq!(status.observed_generation, Some(2));
        let warnings = status.type_checking.unwrap().expression_warnings.unwrap();
        assert_eq!(warnings[0].field_ref, "spec.validations[0].expression");
        let caret = "\n | object.spec.relpicas > 1\n | ...........^\n";
        assert_eq!(
            warnings[0].warning,
            format!(
                "apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'relpicas'{caret}\n\
                 apps/v1, Kind=ReplicaSet: ERROR: <input>:1:12: undefined field 'relpicas'{caret}"
            )
        );
    }

    #[test]
    fn what_fits_has_no_warnings_and_is_checked_once() {
        let rows = Rows::builtin();
        let mut policy = policy("variables.n > 1 && object.metadata.namespace != 'x'");
        let status = plan(&policy, &rows, &Documents::new()).unwrap();
        assert_eq!(
            status.type_checking.as_ref().unwrap().expression_warnings,
            None
        );
        policy.status = Some(status);
        assert_eq!(plan(&policy, &rows, &Documents::new()), None);
        policy.metadata.generation = Some(3);
        assert!(plan(&policy, &rows, &Documents::new()).is_some());
    }

    #[test]
    fn custom_kinds_are_checked_by_their_documents() {
        let rows = Rows::builtin();
        let mut policy = policy("object.spec.szie > 1 && params.spec.most > 2");
        let mut value = serde_json::to_value(&policy).unwrap();
        value["spec"]["matchConstraints"]["resourceRules"] = json!([{"apiGroups": ["x.io"],
            "apiVersions": ["v1"], "operations": ["*"], "resources": ["widgets"]}]);
        value["spec"]["paramKind"] = json!({"apiVersion": "x.io/v1", "kind": "Widget"});
        value["spec"]["variables"] = json!([]);
        policy = serde_json::from_value(value.clone()).unwrap();
        let key = ("x.io".to_owned(), "v1".to_owned());
        assert!(documents(&rows, &value).contains(&key));
        let kind = json!({"group": "x.io", "version": "v1", "kind": "Widget"});
        let document = json!({
            "paths": {"/apis/x.io/v1/namespaces/{namespace}/widgets":
                {"get": {"x-kubernetes-group-version-kind": kind}}},
            "components": {"schemas": {
                "io.x.v1.Widget": {"type": "object", "x-kubernetes-group-version-kind": [kind],
                    "properties": {
                        "metadata": {"allOf": [{"$ref": "#/components/schemas/Meta"}]},
                        "spec": {"type": "object",
                            "properties": {"size": {"type": "integer"}}}}},
                "Meta": {"type": "object", "properties": {"name": {"type": "string"}}},
            }},
        });
        let found = Documents::from([(key, document)]);
        let status = plan(&policy, &rows, &found).unwrap();
        let warnings = status.type_checking.unwrap().expression_warnings.unwrap();
        let told = &warnings[0].warning;
        assert!(
            told.starts_with("x.io/v1, Kind=Widget: ERROR: <input>:1:12: undefined field 'szie'"),
            "{told}"
        );
        assert!(told.contains("undefined field 'most'"), "{told}");
        let good = "object.spec.size > 1 && object.metadata.name != '' && params.spec.size > 2";
        policy.spec.as_mut().unwrap().validations.as_mut().unwrap()[0].expression = good.into();
        let status = plan(&policy, &rows, &found).unwrap();
        assert_eq!(status.type_checking.unwrap().expression_warnings, None);
        // Nobody knows the kind yet: nothing is said of it.
        let status = plan(&policy, &rows, &Documents::new()).unwrap();
        assert_eq!(status.type_checking.unwrap().expression_warnings, None);
    }
}
