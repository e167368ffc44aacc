//! A compiled expression.

use std::sync::Arc;

use crate::ast::Expr;
use crate::checker::Checked;
use crate::cost::{CostEstimate, estimate};
use crate::env::Env;
use crate::errors::EvalError;
use crate::eval::{Activation, Budget, Meter, evaluate};
use crate::plan::Plan;
use crate::types::Type;
use crate::value::Value;

/// A compiled expression: checked, planned, ready to evaluate any number of times. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Program(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: String,
    env: Env,
    expr: Expr,
    checked: Checked,
    plan: Plan,
}

impl Program {
    pub(crate) fn new(source: &str, env: Env, expr: Expr, checked: Checked, plan: Plan) -> Self {
        Self(Arc::new(Inner {
            source: source.to_owned(),
            env,
            expr,
            checked,
            plan,
        }))
    }

    /// The source it was compiled from.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// The type of its value.
    pub fn output(&self) -> &Type {
        self.0.checked.type_of(&self.0.expr)
    }

    /// Evaluates once, within the budget.
    pub fn evaluate<A: Activation>(
        &self,
        activation: &A,
        budget: &mut Budget,
    ) -> Result<Value, EvalError> {
        self.evaluate_with(activation, budget)
    }

    /// The same for an activation whose type is not known here.
    pub fn evaluate_with(
        &self,
        activation: &dyn Activation,
        budget: &mut Budget,
    ) -> Result<Value, EvalError> {
        let mut meter = Meter::new(budget.per_call());
        let value = evaluate(&self.0.plan, activation, &mut meter);
        budget.spend(meter.total())?;
        value
    }

    /// Evaluates on behalf of another evaluation, as a variable of a policy is: with a limit of its
    /// own, charged to the same budget.
    pub fn evaluate_within(
        &self,
        activation: &dyn Activation,
        outer: &mut Meter,
    ) -> Result<Value, EvalError> {
        let mut meter = outer.inner();
        let value = evaluate(&self.0.plan, activation, &mut meter);
        outer.absorb(&meter);
        value
    }

    /// Evaluates without a budget for more than one call and says what it cost.
    pub fn evaluate_metered(
        &self,
        activation: &dyn Activation,
        limit: u64,
    ) -> (Result<Value, EvalError>, u64) {
        let mut meter = Meter::new(limit);
        let value = evaluate(&self.0.plan, activation, &mut meter);
        (value, meter.own())
    }

    /// What it can cost at least and at most, from the sizes that the variables' schemas allow.
    pub fn estimated_cost(&self) -> CostEstimate {
        estimate(&self.0.env, &self.0.expr, &self.0.checked)
    }

    /// Whether a variable is used.
    pub fn uses(&self, variable: &str) -> bool {
        crate::cost::uses(&self.0.expr, variable)
    }
}
