//! Rules in CEL when a definition is made: they compile, and can't cost too much.
//!
//! The limits are part of the API: which rules a definition may have follows from the estimates,
//! which follow from the bounds (`maxItems` and the like) around the place of a rule.

use evenkeel_cel::Schema;
use serde_json::Value;

use super::super::Structural;
use super::super::rules::{Compiled, node_schema};
use super::{is_true, part, properties, text};
use crate::field::{ErrorList, FieldError, Path};

/// What one rule may cost at most, by estimate.
const RULE_LIMIT: u64 = 10_000_000;
/// What all rules of a schema may cost at most.
const SCHEMA_LIMIT: u64 = 100_000_000;
/// A whole request has no more bytes than this, so that nothing can be in it more often.
const REQUEST_BYTES: u64 = 3 << 20;
const ADVICE: &str = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength \
     where arrays, maps, and strings are declared)";

/// What is wrong with the rules of a schema that is structural. Rules that `old` has already may
/// be as expensive as they are.
pub(super) fn check(path: &Path, schema: &Value, unchanged: bool, out: &mut ErrorList) {
    let mut walk = Walk {
        total: 0,
        expensive: Vec::new(),
        unchanged,
        out,
    };
    let place = Place {
        times: Some(1),
        torn: None,
    };
    walk.node(path, schema, true, &place);
    let Walk {
        total,
        mut expensive,
        ..
    } = walk;
    if total > SCHEMA_LIMIT {
        expensive.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        for (_, at) in expensive.iter().take(4) {
            let wrong = "contributed to estimated rule cost total exceeding cost limit for entire \
                         OpenAPIv3 schema";
            out.push(FieldError::forbidden(at, wrong));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        let wrong = too_expensive(what, total, SCHEMA_LIMIT);
        out.push(FieldError::forbidden(path, &wrong));
    }
}

/// Where a node stands.
#[derive(Clone)]
struct Place {
    /// How often it can be in an object; `None` when nothing says.
    times: Option<u64>,
    /// The part above it whose items can't be told to succeed old ones.
    torn: Option<Path>,
}

struct Walk<'o> {
    total: u64,
    expensive: Vec<(u64, Path)>,
    unchanged: bool,
    out: &'o mut ErrorList,
}

impl Walk<'_> {
    fn node(&mut self, path: &Path, schema: &Value, root: bool, place: &Place) {
        self.own(path, schema, root, place);
        let times = place
            .times
            .and_then(|times| Some(times.saturating_mul(factor(schema)?)));
        let below = Place {
            times,
            torn: place.torn.clone(),
        };
        for (name, shape) in properties(schema) {
            let at = path.child("properties").key(name);
            self.node(&at, shape, false, &below);
        }
        if let Some(shape) = part(schema, "additionalProperties") {
            self.node(&path.child("additionalProperties"), shape, false, &below);
        }
        if let Some(items) = part(schema, "items") {
            let keyed = text(schema, "x-kubernetes-list-type") == "map";
            let below = Place {
                torn: below.torn.or_else(|| (!keyed).then(|| path.clone())),
                ..below
            };
            self.node(&path.child("items"), items, false, &below);
        }
    }

    fn own(&mut self, path: &Path, schema: &Value, root: bool, place: &Place) {
        let Ok(structural) = Structural::read(schema) else {
            return;
        };
        if structural.rules.is_empty() {
            return;
        }
        let at = path.child("x-kubernetes-validations");
        let embedded = is_true(schema, "x-kubernetes-embedded-resource");
        let Some(cel) = node_schema(schema, root || embedded) else {
            let wrong = "internal error: failed to construct type information for \
                         x-kubernetes-validations rules: unable to convert structural schema to \
                         CEL declarations";
            self.out.push(FieldError::internal(&at, wrong));
            return;
        };
        for (index, rule) in structural.rules.iter().enumerate() {
            let compiled = Compiled::new(rule, &structural, &cel);
            let shown = super::parts(schema, "x-kubernetes-validations")
                .get(index)
                .cloned()
                .unwrap_or_default();
            self.rule(&at.index(index), &compiled, &shown, &cel, place);
        }
    }

    fn rule(&mut self, at: &Path, rule: &Compiled, shown: &Value, cel: &Schema, place: &Place) {
        let rule_at = at.child("rule");
        let message_at = at.child("messageExpression");
        match &rule.program {
            Err(error) => {
                let error = FieldError::invalid(&rule_at, shown.clone(), error);
                self.out.push(error);
            }
            Ok(program) => {
                let most = REQUEST_BYTES / (cel.min_size() + 1);
                let times = place.times.unwrap_or(most);
                let cost = program.estimated_cost().max.saturating_mul(times);
                self.cost("estimated rule cost", cost, &rule_at);
            }
        }
        match &rule.message {
            None => {}
            Some(Err(error)) => {
                let error = FieldError::invalid(&message_at, shown.clone(), error);
                self.out.push(error);
            }
            Some(Ok(program)) => {
                let cost = program.estimated_cost().max;
                self.cost("estimated messageExpression cost", cost, &message_at);
            }
        }
        if rule.uses_old() {
            if let Some(torn) = &place.torn {
                let wrong = format!(
                    "oldSelf cannot be used on the uncorrelatable portion of the schema within \
                     {torn}"
                );
                let error = FieldError::invalid(&rule_at, &*rule.rule.rule, &wrong);
                self.out.push(error);
            }
        } else if let Some(given) = shown.get("optionalOldSelf").filter(|it| it.is_boolean()) {
            let wrong = "may not be set if oldSelf is not used in rule";
            let error = FieldError::invalid(&at.child("optionalOldSelf"), given.clone(), wrong);
            self.out.push(error);
        }
    }

    fn cost(&mut self, what: &str, cost: u64, at: &Path) {
        if cost > RULE_LIMIT && !self.unchanged {
            let wrong = too_expensive(what, cost, RULE_LIMIT);
            self.out.push(FieldError::forbidden(at, &wrong));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= SCHEMA_LIMIT / 100 {
            self.expensive.push((cost, at.clone()));
        }
    }
}

/// By how much a node multiplies what is below it; `None` when nothing bounds that.
fn factor(schema: &Value) -> Option<u64> {
    let bound = |name: &str| {
        let given = schema.get(name).and_then(Value::as_i64)?;
        Some(u64::try_from(given).unwrap_or(0))
    };
    let open = schema
        .get("additionalProperties")
        .is_some_and(|it| !it.is_null());
    match text(schema, "type") {
        "object" if open => bound("maxProperties"),
        "array" => bound("maxItems"),
        _ => Some(1),
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a factor for people, shown with one digit"
)]
fn too_expensive(what: &str, cost: u64, limit: u64) -> String {
    let times = cost as f64 / limit as f64;
    let factor = if times > 100.0 {
        "more than 100x".to_owned()
    } else if times < 1.5 {
        format!("{times:.6}x")
    } else {
        format!("{times:.1}x")
    };
    format!("{what} exceeds budget by factor of {factor} {ADVICE}")
}
