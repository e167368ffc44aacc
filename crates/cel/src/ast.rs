//! The syntax tree, as the parser builds it and the checker annotates it.
//!
//! Macros are already expanded here: only seven kinds of node exist, as in the language's
//! definition, so that the checker, the estimator and the evaluator share one small tree.

use crate::value::Value;

/// One node. `id` is its place in the checker's tables; `pos` the code point it is reported at.
#[derive(Debug, Clone)]
pub(crate) struct Expr {
    pub(crate) id: usize,
    pub(crate) pos: usize,
    /// Height of the tree below, for the recursion limit.
    pub(crate) depth: usize,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Literal(Value),
    /// A variable; a leading dot means the root namespace.
    Ident(String),
    Select {
        operand: Box<Expr>,
        field: String,
        test_only: bool,
    },
    Call {
        target: Option<Box<Expr>>,
        function: String,
        args: Vec<Expr>,
    },
    List {
        items: Vec<Item>,
    },
    Map {
        entries: Vec<Entry>,
    },
    /// A message: `name{field: value}`.
    Struct {
        name: String,
        fields: Vec<Field>,
    },
    Comprehension(Box<Comprehension>),
}

#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) value: Expr,
    pub(crate) optional: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: Expr,
    pub(crate) value: Expr,
    pub(crate) optional: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) pos: usize,
    pub(crate) name: String,
    pub(crate) value: Expr,
    pub(crate) optional: bool,
}

/// A fold over a list or a map; every comprehension macro becomes one.
#[derive(Debug, Clone)]
pub(crate) struct Comprehension {
    pub(crate) iter_var: String,
    pub(crate) iter_var2: Option<String>,
    pub(crate) range: Expr,
    pub(crate) accu_var: String,
    pub(crate) accu_init: Expr,
    pub(crate) condition: Expr,
    pub(crate) step: Expr,
    pub(crate) result: Expr,
}

impl Comprehension {
    /// Whether this is `cel.bind`: a fold over nothing that names a value.
    pub(crate) fn is_bind(&self) -> bool {
        matches!(&self.range.kind, Kind::List { items } if items.is_empty())
            && matches!(self.condition.kind, Kind::Literal(Value::Bool(false)))
            && self.accu_var != ACCUMULATOR
    }
}

/// The accumulator of the macros; no user can name it.
pub(crate) const ACCUMULATOR: &str = "@result";

/// Names of operators, as the reference spells them in its messages.
pub(crate) mod op {
    pub(crate) const CONDITIONAL: &str = "_?_:_";
    pub(crate) const AND: &str = "_&&_";
    pub(crate) const OR: &str = "_||_";
    pub(crate) const NOT: &str = "!_";
    pub(crate) const NEGATE: &str = "-_";
    pub(crate) const INDEX: &str = "_[_]";
    pub(crate) const OPT_INDEX: &str = "_[?_]";
    pub(crate) const OPT_SELECT: &str = "_?._";
    pub(crate) const IN: &str = "@in";
    pub(crate) const ADD: &str = "_+_";
    pub(crate) const EQUALS: &str = "_==_";
    pub(crate) const NOT_EQUALS: &str = "_!=_";
    pub(crate) const NOT_STRICTLY_FALSE: &str = "@not_strictly_false";
    pub(crate) const MAP_INSERT: &str = "cel.@mapInsert";
}

impl Expr {
    /// Heights of the direct children, to compute this node's.
    pub(crate) fn height(kind: &Kind) -> usize {
        let tallest = match kind {
            Kind::Literal(_) | Kind::Ident(_) => 0,
            Kind::Select { operand, .. } => operand.depth,
            Kind::Call { target, args, .. } => args
                .iter()
                .map(|a| a.depth)
                .chain(target.iter().map(|t| t.depth))
                .max()
                .unwrap_or(0),
            Kind::List { items } => items.iter().map(|i| i.value.depth).max().unwrap_or(0),
            Kind::Map { entries } => entries
                .iter()
                .map(|e| e.key.depth.max(e.value.depth))
                .max()
                .unwrap_or(0),
            Kind::Struct { fields, .. } => fields.iter().map(|f| f.value.depth).max().unwrap_or(0),
            Kind::Comprehension(c) => [&c.range, &c.accu_init, &c.condition, &c.step, &c.result]
                .iter()
                .map(|e| e.depth)
                .max()
                .unwrap_or(0),
        };
        tallest + 1
    }
}
