//! Literals that can be checked before anything runs: durations, timestamps, patterns.

use crate::ast::{Expr, Kind};
use crate::convert;
use crate::errors::Issues;
use crate::library::regex;
use crate::value::Value;

/// Reports each literal argument that could only fail.
pub(crate) fn validate(expr: &Expr, issues: &mut Issues<'_>) {
    if let Kind::Call { function, args, .. } = &expr.kind
        && let Some(arg) = args.first()
        && let Kind::Literal(value) = &arg.kind
    {
        let one = std::slice::from_ref(value);
        let bad = match function.as_str() {
            "duration" => matches!(convert::to_duration(one), Some(Err(_))),
            "timestamp" => matches!(convert::to_timestamp(one), Some(Err(_))),
            "matches" => {
                matches!(value, Value::String(pattern) if regex::compile(pattern).is_err())
            }
            _ => false,
        };
        if bad {
            issues.report(arg.pos, format!("invalid {function} argument"));
        }
    }
    match &expr.kind {
        Kind::Literal(_) | Kind::Ident(_) => {}
        Kind::Select { operand, .. } => validate(operand, issues),
        Kind::Call { target, args, .. } => {
            target.iter().for_each(|t| validate(t, issues));
            args.iter().for_each(|a| validate(a, issues));
        }
        Kind::List { items } => items.iter().for_each(|i| validate(&i.value, issues)),
        Kind::Map { entries } => entries.iter().for_each(|e| {
            validate(&e.key, issues);
            validate(&e.value, issues);
        }),
        Kind::Struct { fields, .. } => fields.iter().for_each(|f| validate(&f.value, issues)),
        Kind::Comprehension(c) => {
            for part in [&c.range, &c.accu_init, &c.condition, &c.step, &c.result] {
                validate(part, issues);
            }
        }
    }
}
