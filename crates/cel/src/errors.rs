//! What goes wrong: at compilation with a place in the source, at evaluation with a message.
//!
//! Texts are the reference's, because people search for them and controllers match on them.

use std::fmt;
use std::sync::Arc;

/// One finding at a place in the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileError {
    /// Line, from one.
    pub line: usize,
    /// Column in code points, from zero.
    pub column: usize,
    /// The finding itself, as `undeclared reference to 'foo' (in container '')`.
    pub message: String,
    snippet: String,
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ERROR: <input>:{}:{}: {}",
            self.line,
            self.column + 1,
            self.message
        )?;
        if !self.snippet.is_empty() || self.column == 0 {
            write!(f, "\n | {}\n | {}^", self.snippet, ".".repeat(self.column))?;
        }
        Ok(())
    }
}

/// Why an expression does not compile. Displays as the reference's list, a caret under each place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileErrors(pub Vec<CompileError>);

impl fmt::Display for CompileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().take(MAX_REPORTED).enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        if self.0.len() > MAX_REPORTED {
            write!(
                f,
                "\n{} more errors were truncated",
                self.0.len() - MAX_REPORTED
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for CompileErrors {}

const MAX_REPORTED: usize = 100;

/// Collects findings by code point and turns them into lines and columns at the end.
pub(crate) struct Issues<'a> {
    chars: &'a [char],
    found: Vec<(usize, String)>,
}

impl<'a> Issues<'a> {
    pub(crate) fn new(chars: &'a [char]) -> Self {
        Self {
            chars,
            found: Vec::new(),
        }
    }

    pub(crate) fn report(&mut self, pos: usize, message: impl Into<String>) {
        self.found.push((pos, message.into()));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The findings in the order of the source, or nothing when there are none.
    pub(crate) fn finish(mut self) -> Option<CompileErrors> {
        if self.found.is_empty() {
            return None;
        }
        self.found.sort_by_key(|(pos, _)| *pos);
        let chars = self.chars;
        let errors = self.found.into_iter().map(|(pos, message)| {
            let before = &chars[..pos.min(chars.len())];
            let line = before.iter().filter(|c| **c == '\n').count();
            let start = before
                .iter()
                .rposition(|c| *c == '\n')
                .map_or(0, |at| at + 1);
            let snippet = chars[start..]
                .iter()
                .take_while(|c| **c != '\n')
                .map(|c| if *c == '\t' { ' ' } else { *c })
                .collect();
            CompileError {
                line: line + 1,
                column: before.len() - start,
                message,
                snippet,
            }
        });
        Some(CompileErrors(errors.collect()))
    }
}

/// Why an evaluation gave no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// The expression itself failed, as `no such key: x` or `division by zero`.
    #[error("{0}")]
    Failed(Arc<str>),
    /// The expression cost more than one evaluation may.
    #[error("operation cancelled: actual cost limit exceeded")]
    CostLimitExceeded,
    /// The evaluations together cost more than the whole budget.
    #[error(
        "validation failed due to running out of cost budget, no further validation rules will be run"
    )]
    BudgetExhausted,
}

impl EvalError {
    /// An error of the expression, with its message.
    pub fn new(message: impl AsRef<str>) -> Self {
        Self::Failed(message.as_ref().into())
    }

    /// Whether `&&`, `||` and the comprehensions may absorb it: limits can't be.
    pub(crate) fn is_absorbable(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}
