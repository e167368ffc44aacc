//! Expressions and what becomes of them.

#![allow(clippy::unwrap_used, reason = "tests")]

mod checking;
mod costs;
mod language;
mod libraries;
mod schemas;

use evenkeel_cel::{Budget, Env, Value};

/// Compiles and evaluates without variables.
fn eval(source: &str) -> Result<Value, String> {
    let program = Env::kubernetes()
        .compile(source)
        .map_err(|e| e.to_string())?;
    let none: [(&str, Value); 0] = [];
    program
        .evaluate(&none, &mut Budget::default())
        .map_err(|e| e.to_string())
}

/// All of these are true.
fn hold(sources: &[&str]) {
    for source in sources {
        assert_eq!(eval(source), Ok(Value::Bool(true)), "{source}");
    }
}

/// Each of these fails at evaluation with these words.
fn fail(cases: &[(&str, &str)]) {
    for (source, words) in cases {
        assert_eq!(eval(source), Err((*words).to_owned()), "{source}");
    }
}
