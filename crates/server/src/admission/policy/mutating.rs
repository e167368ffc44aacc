//! Mutating policies: how they change an object.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_api::patch::{json_patch, lay_over};
use evenkeel_api::row::Subresource;
use evenkeel_api::status::StatusCause;
use evenkeel_api::{Status, object};
use evenkeel_cel::Budget;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::Change;
use super::super::webhook::review::seen_as;
use super::super::webhook::{Shown, put_back, take_back};
use super::compiled::{Binding, Code, Mutation, Policy, error_type, evaluate};
use super::inputs::{Inputs, Scope};
use super::params;
use crate::auth::Authorizer;
use crate::registry::Registry;

/// Which policies have been asked, and which must be asked again.
#[derive(Debug, Default)]
pub(in crate::admission) struct Rounds {
    again: bool,
    needed: bool,
    asked: HashSet<String>,
    waiting: HashSet<String>,
    /// What the object was after the last policy.
    last: Value,
}

impl Rounds {
    /// Begins the second round, in which only those go that want to see what others have changed
    /// since. Answers whether policies need one.
    pub(in crate::admission) fn begin_second(&mut self) -> bool {
        self.again = true;
        self.needed
    }
}

/// Lets every mutating policy change an object.
///
/// # Errors
/// The first failure of those that must not fail.
pub(super) async fn mutate(
    policies: &[Policy],
    registry: &Registry,
    change: &Change<'_>,
    object: &mut Value,
    authorizer: &Arc<dyn Authorizer>,
    rounds: &mut Rounds,
) -> Result<(), Status> {
    if rounds.again && rounds.last != *object {
        rounds.waiting.extend(rounds.asked.drain());
    }
    let mut failures = Vec::new();
    for policy in policies.iter().filter(|policy| !policy.bindings.is_empty()) {
        let mut failed = |binding: Option<&Binding>, why: String| {
            if !policy.ignores_failure {
                failures.push(denial(policy, binding, &why));
            }
        };
        let version = match policy.matcher.concerns(registry, change, object) {
            Ok(Some(version)) => version,
            Ok(None) => continue,
            Err(status) => {
                failed(
                    None,
                    format!("failed to configure policy: {}", status.message),
                );
                continue;
            }
        };
        let code = match &policy.code {
            Ok(code) => code,
            Err(why) => {
                failed(None, format!("failed to configure policy: {why}"));
                continue;
            }
        };
        let shown = match Shown::new(registry, change, object, version).await {
            Ok(shown) => shown,
            Err(status) => {
                failed(None, status.message);
                continue;
            }
        };
        let as_shown = shown.change(change);
        // In another version it is changed there, and brought back at the end.
        let mut other = match &shown {
            Shown::AsIs => None,
            Shown::Converted { object, .. } => Some(object.clone()),
        };
        let mut touched = false;
        for binding in &policy.bindings {
            let found = match binding.matcher.matches(registry, change, object) {
                Ok(false) => continue,
                Ok(true) => {
                    let kind = &policy.param_kind;
                    params::collect(registry, kind, &binding.param_ref, change.namespace)
                }
                Err(status) => Err(status.message),
            };
            let found = match found {
                Ok(found) => found,
                Err(why) => {
                    failed(Some(binding), format!("failed to configure binding: {why}"));
                    continue;
                }
            };
            for param in &found {
                let place = (object::namespace(param), object::name(param));
                let key = format!("{}|{}|{place:?}", policy.name, binding.name);
                if rounds.again && !rounds.waiting.remove(&key) {
                    continue;
                }
                let target = match &mut other {
                    Some(other) => other,
                    None => &mut *object,
                };
                let before = target.clone();
                let scope = |object: &Value| {
                    let inputs =
                        Inputs::of(registry, &as_shown, object, param, authorizer, change.row);
                    Scope::new(inputs, code.variables())
                };
                let about = (&*registry.counted, policy.name.as_str(), change.operation);
                match code.concerns(&scope(target), about) {
                    Ok(false) => continue,
                    Ok(true) => {}
                    Err(why) => {
                        failed(Some(binding), why);
                        continue;
                    }
                }
                let counted = |error: &str, took: Duration| {
                    registry
                        .counted
                        .mutated(&policy.name, &binding.name, error, took);
                };
                for why in steps(code, registry, &as_shown, target, &scope, &counted) {
                    failed(Some(binding), why);
                }
                if *target != before {
                    touched = true;
                    rounds.needed = true;
                    rounds.waiting.extend(rounds.asked.drain());
                }
                if policy.reinvocable {
                    rounds.asked.insert(key);
                }
            }
        }
        if let Some(other) = other
            && touched
            && let Err(status) = take_back(registry, change, &as_shown, other, object).await
        {
            failed(None, status.message);
        }
    }
    rounds.last = object.clone();
    match failures.split_first() {
        None => Ok(()),
        Some((first, _)) => Err(refuse(change, object, first, &failures)),
    }
}

fn denial(policy: &Policy, binding: Option<&Binding>, why: &str) -> String {
    let name = &policy.name;
    match binding {
        Some(binding) => {
            format!(
                "policy '{name}' with binding '{}' denied request: {why}",
                binding.name
            )
        }
        None => format!("policy '{name}' denied request: {why}"),
    }
}

fn refuse(change: &Change<'_>, object: &Value, first: &str, all: &[String]) -> Status {
    let mut status = change.forbidden(object, "");
    status.message = first.to_owned();
    status.reason = "Invalid".to_owned();
    status.details.get_or_insert_default().causes = all
        .iter()
        .map(|message| StatusCause {
            reason: String::new(),
            message: message.clone(),
            field: String::new(),
        })
        .collect();
    status
}

/// Carries out a policy's mutations in order; each sees what the one before made. Failures do not
/// stop the next.
fn steps(
    code: &Code,
    registry: &Registry,
    change: &Change<'_>,
    object: &mut Value,
    scope: &dyn Fn(&Value) -> Scope,
    counted: &dyn Fn(&str, Duration),
) -> Vec<String> {
    let mut failures = Vec::new();
    for mutation in &code.mutations {
        let (began, mut budget) = (Instant::now(), Budget::default());
        let said = step(
            mutation,
            registry,
            change,
            object,
            &scope(object),
            &mut budget,
        );
        counted(error_type(&said, &budget), began.elapsed());
        match said {
            Ok(Some(next)) => {
                if let Err(status) = put_back(registry, change, next, object) {
                    failures.push(status.message);
                }
            }
            Ok(None) => {}
            Err(why) => failures.push(why),
        }
    }
    failures
}

fn step(
    mutation: &Mutation,
    registry: &Registry,
    change: &Change<'_>,
    object: &Value,
    scope: &Scope,
    budget: &mut Budget,
) -> Result<Option<Value>, String> {
    let object = &seen_as(change, object);
    match mutation {
        Mutation::Apply(program) => {
            let value = evaluate(program, scope, budget)?;
            let mut config = value.to_json().map_err(|error| error.to_string())?;
            for field in ["apiVersion", "kind"] {
                config[field] = object[field].clone();
            }
            let rows = &registry.rows;
            let own = match change.subresource {
                Some(Subresource::Scale) => rows.by_kind("autoscaling", "v1", "Scale"),
                _ => None,
            };
            let (schema, ty) = rows.shape(own.map_or(change.row, |row| &**row));
            lay_over(schema, &ty, object, &config)
                .map(Some)
                .map_err(|why| format!("error applying patch: {why}"))
        }
        Mutation::Patch(program) => {
            let value = evaluate(program, scope, budget)?;
            let patch = value.to_json().map_err(|error| {
                format!("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {error}")
            })?;
            patched(object, &patch)
        }
    }
}

/// Applies patch operations. Where a test operation fails, nothing changes.
fn patched(object: &Value, patch: &Value) -> Result<Option<Value>, String> {
    let mut current = object.clone();
    for operation in patch.as_array().into_iter().flatten() {
        let next = json_patch(&current, &json!([operation]));
        match next {
            Ok(next) => current = next,
            Err(_) if operation["op"] == "test" => return Ok(None),
            Err(error) => return Err(format!("JSONPath: {error}")),
        }
    }
    Ok(Some(current))
}
