//! Validating policies: what they say to a change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_api::Status;
use evenkeel_api::status::StatusCause;
use evenkeel_cel::{Budget, Value as Cel};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::webhook::Shown;
use super::super::{Change, Operation};
use super::compiled::{Binding, Code, Policy, error_type, evaluate};
use super::inputs::{Inputs, Scope};
use super::params;
use crate::auth::Authorizer;
use crate::families::Families;
use crate::registry::Registry;

/// Longest evaluated message, in bytes.
const MAX_MESSAGE: usize = 5 * 1024;
/// Longest value of an audit annotation, in bytes.
const MAX_ANNOTATION: usize = 10 * 1024;

/// What kind of error there was, and how long it took to find out.
type Figures = (&'static str, Duration);

/// A rule that does not hold, or could not be decided.
struct Refusal {
    index: usize,
    message: String,
    reason: String,
    figures: Figures,
}

/// A refusal with who it comes from.
struct Denied {
    message: String,
    reason: String,
}

/// Asks every validating policy about a change.
///
/// # Errors
/// The first refusal of those that deny.
pub(super) async fn validate(
    policies: &[Policy],
    registry: &Registry,
    change: &Change<'_>,
    object: &Value,
    authorizer: &Arc<dyn Authorizer>,
) -> Result<(), Status> {
    let mut denied = Vec::new();
    for policy in policies.iter().filter(|policy| !policy.bindings.is_empty()) {
        let version = match policy.matcher.concerns(registry, change, object) {
            Ok(Some(version)) => version,
            Ok(None) => continue,
            Err(status) => {
                failed(policy, None, &status.message, &mut denied);
                continue;
            }
        };
        let code = match &policy.code {
            Ok(code) => code,
            Err(why) => {
                failed(policy, None, why, &mut denied);
                continue;
            }
        };
        let shown = match Shown::new(registry, change, object, version).await {
            Ok(shown) => shown,
            Err(status) => {
                failed(policy, None, &status.message, &mut denied);
                continue;
            }
        };
        let (as_shown, seen) = (shown.change(change), shown.object(object));
        let mut annotations: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for binding in &policy.bindings {
            match binding.matcher.matches(registry, change, object) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(status) => {
                    failed(policy, Some(binding), &status.message, &mut denied);
                    continue;
                }
            }
            let kind = &policy.param_kind;
            let found = params::collect(registry, kind, &binding.param_ref, change.namespace);
            let found = match found {
                Ok(found) => found,
                Err(why) => {
                    failed(policy, Some(binding), &why, &mut denied);
                    continue;
                }
            };
            for param in &found {
                let inputs = Inputs::of(registry, &as_shown, seen, param, authorizer, change.row);
                let scope = Scope::new(inputs, code.variables());
                let counted = &*registry.counted;
                let about = (counted, policy.name.as_str(), change.operation);
                let (refusals, ignored, noted) = decide(policy, code, &scope, about);
                for figures in ignored {
                    counted.validated(&policy.name, &binding.name, "allow", figures);
                }
                for refusal in refusals {
                    for action in &binding.actions {
                        let action = action.to_lowercase();
                        let figures = refusal.figures;
                        counted.validated(&policy.name, &binding.name, &action, figures);
                    }
                    act(policy, binding, &refusal, change, &mut denied);
                }
                for (key, value) in noted {
                    match value {
                        Ok(value) => {
                            let known = annotations.entry(key).or_default();
                            if !known.contains(&value) {
                                known.push(value);
                            }
                        }
                        Err(why) => denied.push(deny(policy, Some(binding), &why, "")),
                    }
                }
            }
        }
        for (key, values) in annotations {
            let key = format!("{}/{key}", policy.name);
            change.notes().annotate(key, values.join(", "));
        }
    }
    match denied.into_iter().next() {
        None => Ok(()),
        Some(first) => Err(refuse(change, object, first)),
    }
}

/// A policy or binding that can't be carried out refuses, unless its failures are ignored.
fn failed(policy: &Policy, binding: Option<&Binding>, why: &str, denied: &mut Vec<Denied>) {
    let what = if binding.is_some() {
        "binding"
    } else {
        "policy"
    };
    if !policy.ignores_failure {
        let message = format!("failed to configure {what}: {why}");
        denied.push(deny(policy, binding, &message, ""));
    }
}

fn deny(policy: &Policy, binding: Option<&Binding>, message: &str, reason: &str) -> Denied {
    let name = &policy.name;
    let message = match binding {
        Some(binding) => format!(
            "ValidatingAdmissionPolicy '{name}' with binding '{}' denied request: {message}",
            binding.name
        ),
        None => format!("ValidatingAdmissionPolicy '{name}' denied request: {message}"),
    };
    Denied {
        message,
        reason: reason.to_owned(),
    }
}

fn refuse(change: &Change<'_>, object: &Value, denied: Denied) -> Status {
    let mut status = change.forbidden(object, &denied.message);
    let (reason, code) = match denied.reason.as_str() {
        "Forbidden" => ("Forbidden", 403),
        "Unauthorized" => ("Unauthorized", 401),
        "RequestEntityTooLarge" => ("RequestEntityTooLarge", 413),
        _ => ("Invalid", 422),
    };
    status.reason = reason.to_owned();
    status.code = code;
    status
        .details
        .get_or_insert_default()
        .causes
        .push(StatusCause {
            reason: String::new(),
            message: denied.message,
            field: String::new(),
        });
    status
}

/// Carries out a binding's actions for a rule that does not hold.
fn act(
    policy: &Policy,
    binding: &Binding,
    refusal: &Refusal,
    change: &Change<'_>,
    denied: &mut Vec<Denied>,
) {
    for action in &binding.actions {
        match action.as_str() {
            "Deny" => denied.push(deny(
                policy,
                Some(binding),
                &refusal.message,
                &refusal.reason,
            )),
            "Warn" => change.notes().warn(format!(
                "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                policy.name, binding.name, refusal.message
            )),
            "Audit" => {
                let failure = json!([{
                    "message": refusal.message,
                    "policy": policy.name,
                    "binding": binding.name,
                    "expressionIndex": refusal.index,
                    "validationActions": binding.actions,
                }]);
                let key = "validation.policy.admission.k8s.io/validation_failure";
                change.notes().annotate(key, failure.to_string());
            }
            _ => {}
        }
    }
}

type Noted<'p> = Vec<(&'p str, Result<String, String>)>;

/// Evaluates a policy: the rules that do not hold, failures that are ignored, and its audit
/// annotations.
fn decide<'p>(
    policy: &Policy,
    code: &'p Code,
    scope: &Scope,
    about: (&Families, &str, Operation),
) -> (Vec<Refusal>, Vec<Figures>, Noted<'p>) {
    let (mut refusals, mut ignored) = (Vec::new(), Vec::new());
    let mut undecided = |refusals: &mut Vec<Refusal>, index, message, figures| {
        if policy.ignores_failure {
            ignored.push(figures);
        } else {
            refusals.push(Refusal {
                index,
                message,
                reason: String::new(),
                figures,
            });
        }
    };
    let began = Instant::now();
    match code.concerns(scope, about) {
        Ok(true) => {}
        Ok(false) => return (refusals, ignored, Vec::new()),
        Err(why) => {
            let figures = ("invalid_error", began.elapsed());
            undecided(&mut refusals, 0, why, figures);
            return (refusals, ignored, Vec::new());
        }
    }
    let mut budget = Budget::default();
    for (index, rule) in code.validations.iter().enumerate() {
        let began = Instant::now();
        let said = evaluate(&rule.expression, scope, &mut budget);
        let figures = (error_type(&said, &budget), began.elapsed());
        match said {
            Ok(Cel::Bool(true)) => {}
            Ok(_) => {
                let message = message(rule, scope, &mut budget);
                refusals.push(Refusal {
                    index,
                    message,
                    reason: rule.reason.clone(),
                    figures,
                });
            }
            Err(why) => {
                undecided(&mut refusals, index, why, figures);
                if budget.remaining() == 0 {
                    return (refusals, ignored, Vec::new());
                }
            }
        }
    }
    let mut budget = Budget::default();
    let mut noted = Vec::new();
    for (key, program) in &code.annotations {
        match evaluate(program, scope, &mut budget) {
            Ok(Cel::String(text)) => {
                let text = text.trim();
                if !text.is_empty() {
                    noted.push((key.as_str(), Ok(cut(text))));
                }
            }
            Ok(_) => {}
            Err(why) if !policy.ignores_failure => noted.push((key.as_str(), Err(why))),
            Err(_) => {}
        }
    }
    (refusals, ignored, noted)
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_ANNOTATION);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// The evaluated message, or the given one, or the expression itself.
fn message(rule: &super::compiled::Validation, scope: &Scope, budget: &mut Budget) -> String {
    let evaluated = rule.message_expression.as_ref().and_then(|program| {
        let value = evaluate(program, scope, budget).ok()?;
        let text = value.as_str()?.trim().to_owned();
        (!text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains('\n')).then_some(text)
    });
    if let Some(message) = evaluated {
        return message;
    }
    if rule.message.is_empty() {
        return format!("failed expression: {}", rule.expression.source().trim());
    }
    rule.message.clone()
}
