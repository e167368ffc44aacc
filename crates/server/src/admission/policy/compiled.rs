//! Policies and bindings as they are carried out: read and compiled once, when they change.

use std::sync::Arc;

use evenkeel_api::expressions::{Declarations, Expressions, Output};
use evenkeel_api::object;
use evenkeel_cel::{Budget, EvalError, Program, Value as Cel};
use serde_json::Value;
use tokio::time::Instant;

use super::super::Operation;
use super::inputs::Scope;
use super::matching::Matcher;
use crate::families::Families;

/// A policy with the bindings that put it to work.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) name: String,
    pub(super) matcher: Matcher,
    pub(super) param_kind: Value,
    /// Failures to decide let the change pass.
    pub(super) ignores_failure: bool,
    /// Changes what others have changed after it.
    pub(super) reinvocable: bool,
    pub(super) bindings: Vec<Binding>,
    /// The expressions, or why they can't be had.
    pub(super) code: Result<Code, String>,
}

/// A binding of a policy.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) name: String,
    pub(super) matcher: Matcher,
    pub(super) param_ref: Value,
    pub(super) actions: Vec<String>,
}

/// The expressions of a policy.
#[derive(Debug)]
pub(super) struct Code {
    conditions: Vec<Program>,
    variables: Arc<[(String, Program)]>,
    pub(super) validations: Vec<Validation>,
    pub(super) annotations: Vec<(String, Program)>,
    pub(super) mutations: Vec<Mutation>,
}

/// A rule of a validating policy.
#[derive(Debug)]
pub(super) struct Validation {
    pub(super) expression: Program,
    pub(super) message: String,
    pub(super) message_expression: Option<Program>,
    pub(super) reason: String,
}

/// A step of a mutating policy.
#[derive(Debug)]
pub(super) enum Mutation {
    /// A part of an object to lay over.
    Apply(Program),
    /// A list of patch operations.
    Patch(Program),
}

impl Policy {
    /// Reads a policy, with the bindings that name it.
    pub(super) fn read(value: &Value, bindings: &[Value], mutating: bool) -> Self {
        let name = object::name(value).to_owned();
        let spec = &value["spec"];
        let bindings = bindings
            .iter()
            .filter(|binding| object::text(binding, &["spec", "policyName"]) == name)
            .map(Binding::read)
            .collect();
        Self {
            matcher: Matcher::read(&spec["matchConstraints"], false),
            param_kind: spec["paramKind"].clone(),
            ignores_failure: object::text(spec, &["failurePolicy"]) == "Ignore",
            reinvocable: object::text(spec, &["reinvocationPolicy"]) == "IfNeeded",
            bindings,
            code: Code::read(spec, mutating),
            name,
        }
    }
}

impl Binding {
    fn read(value: &Value) -> Self {
        let spec = &value["spec"];
        let actions = object::list(spec, &["validationActions"]);
        Self {
            name: object::name(value).to_owned(),
            matcher: Matcher::read(&spec["matchResources"], true),
            param_ref: spec["paramRef"].clone(),
            actions: actions
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
        }
    }
}

impl Code {
    fn read(spec: &Value, mutating: bool) -> Result<Self, String> {
        let declarations = Declarations {
            params: spec["paramKind"].is_object(),
            authorizer: true,
            patches: mutating,
        };
        let text = |value: &Value, name: &str| object::text(value, &[name]).to_owned();
        let mut expressions = Expressions::new(declarations);
        let mut messages = Expressions::new(Declarations {
            authorizer: false,
            ..declarations
        });
        let mut conditions = Vec::new();
        for condition in object::list(spec, &["matchConditions"]) {
            conditions
                .push(expressions.compile(text(condition, "expression").trim(), Output::Bool)?);
        }
        let mut variables = Vec::new();
        for variable in object::list(spec, &["variables"]) {
            let program = expressions.compile(&text(variable, "expression"), Output::Any)?;
            let name = text(variable, "name");
            expressions.declare(&name, program.output().clone());
            messages.declare(&name, program.output().clone());
            variables.push((name, program));
        }
        let mut validations = Vec::new();
        for rule in object::list(spec, &["validations"]) {
            let message = text(rule, "messageExpression");
            validations.push(Validation {
                expression: expressions.compile(&text(rule, "expression"), Output::Bool)?,
                message: text(rule, "message").trim().to_owned(),
                message_expression: match message.trim() {
                    "" => None,
                    _ => Some(messages.compile(&message, Output::Text)?),
                },
                reason: text(rule, "reason"),
            });
        }
        let mut annotations = Vec::new();
        for annotation in object::list(spec, &["auditAnnotations"]) {
            let source = text(annotation, "valueExpression");
            let program = expressions.compile(source.trim(), Output::TextOrNull)?;
            annotations.push((text(annotation, "key"), program));
        }
        let mut mutations = Vec::new();
        for mutation in object::list(spec, &["mutations"]) {
            mutations.push(if text(mutation, "patchType") == "JSONPatch" {
                let source = text(&mutation["jsonPatch"], "expression");
                Mutation::Patch(expressions.compile(&source, Output::Patches)?)
            } else {
                let source = text(&mutation["applyConfiguration"], "expression");
                Mutation::Apply(expressions.compile(&source, Output::Object)?)
            });
        }
        Ok(Self {
            conditions,
            variables: variables.into(),
            validations,
            annotations,
            mutations,
        })
    }

    /// The variables of the policy.
    pub(super) fn variables(&self) -> Arc<[(String, Program)]> {
        Arc::clone(&self.variables)
    }

    /// Whether all match conditions hold. One that does not hold decides, whatever others fail.
    /// What it came to is counted for a policy and an operation.
    ///
    /// # Errors
    /// Why that can't be said.
    pub(super) fn concerns(
        &self,
        scope: &Scope,
        (counted, policy, operation): (&Families, &str, Operation),
    ) -> Result<bool, String> {
        if self.conditions.is_empty() {
            return Ok(true);
        }
        let began = Instant::now();
        let said = self.conditions_hold(scope);
        let told = ["policy", policy, operation.as_str(), "validate"];
        counted.decided(told, began, &said);
        said
    }

    fn conditions_hold(&self, scope: &Scope) -> Result<bool, String> {
        let mut budget = Budget::default();
        let mut failures = Vec::new();
        for condition in &self.conditions {
            match evaluate(condition, scope, &mut budget) {
                Ok(Cel::Bool(false)) => return Ok(false),
                Ok(_) => {}
                Err(why) => failures.push(why),
            }
        }
        match failures.as_slice() {
            [] => Ok(true),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }
}

/// How the reference's metrics name what went wrong with an expression.
pub(super) fn error_type<T>(answer: &Result<T, String>, budget: &Budget) -> &'static str {
    match answer {
        Ok(_) => "no_error",
        Err(_) if budget.remaining() == 0 => "out_of_budget",
        Err(_) => "invalid_error",
    }
}

/// Evaluates an expression; failures name it.
///
/// # Errors
/// What failed, in the reference's words.
pub(super) fn evaluate(
    program: &Program,
    scope: &Scope,
    budget: &mut Budget,
) -> Result<Cel, String> {
    program
        .evaluate(scope, budget)
        .map_err(|error| match error {
            EvalError::BudgetExhausted => error.to_string(),
            error => format!(
                "expression '{}' resulted in error: {error}",
                program.source()
            ),
        })
}
