//! From checked tree to what is evaluated: names resolved to slots, functions to pointers, constants
//! folded.
//!
//! Folding is visible in costs (a constant list is free), so it folds what the reference folds and
//! no more.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ast::{Comprehension, Expr, Kind, op};
use crate::checker::Checked;
use crate::env::Env;
use crate::library::Function;
use crate::ops;
use crate::value::{Key, Value};

/// A step of evaluation.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    Const(Value),
    Variable(Arc<str>),
    Local(usize),
    Select {
        operand: Box<Node>,
        field: Arc<str>,
        relative: bool,
        optional: bool,
    },
    Has {
        operand: Box<Node>,
        field: Arc<str>,
    },
    Index {
        operand: Box<Node>,
        index: Box<Node>,
        relative: bool,
        optional: bool,
    },
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    Conditional(Box<[Node; 3]>),
    Equal {
        sides: Box<[Node; 2]>,
        negate: bool,
    },
    /// `x in [constants]`, which costs nothing beyond `x`.
    InConstant {
        item: Box<Node>,
        list: Value,
    },
    NotStrictlyFalse(Box<Node>),
    /// `a.or(b)` and `a.orValue(b)`: `b` is evaluated only if needed.
    Otherwise {
        sides: Box<[Node; 2]>,
        value: bool,
    },
    Call(Box<Call>),
    List(Vec<(Node, bool)>),
    Map(Vec<(Node, Node, bool)>),
    Struct(Vec<(Arc<str>, Node, bool)>),
    Fold(Box<Fold>),
    Bind {
        slot: usize,
        value: Box<Node>,
        body: Box<Node>,
    },
    /// `accumulator + [item]`, in place.
    Append {
        slot: usize,
        item: Box<Node>,
    },
    /// Insertion into the accumulator, in place.
    Insert {
        slot: usize,
        key: Option<Box<Node>>,
        value: Box<Node>,
    },
}

#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) name: Arc<str>,
    pub(crate) function: Option<Function>,
    /// The overload, if the types allow just one.
    pub(crate) overload: Option<Arc<str>>,
    pub(crate) args: Vec<Node>,
}

#[derive(Debug, Clone)]
pub(crate) struct Fold {
    pub(crate) range: Node,
    pub(crate) first: usize,
    pub(crate) second: Option<usize>,
    pub(crate) accu: usize,
    pub(crate) init: Node,
    pub(crate) condition: Node,
    pub(crate) step: Node,
    pub(crate) result: Node,
}

/// What evaluation needs.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) root: Node,
    /// Slots for variables of comprehensions.
    pub(crate) slots: usize,
}

/// Plans a checked tree.
pub(crate) fn plan(env: &Env, expr: &Expr, checked: &Checked) -> Plan {
    let mut planner = Planner {
        env,
        checked,
        scopes: Vec::new(),
        slots: 0,
    };
    let root = planner.node(expr);
    Plan {
        root,
        slots: planner.slots,
    }
}

struct Planner<'a> {
    env: &'a Env,
    checked: &'a Checked,
    scopes: Vec<(String, usize)>,
    slots: usize,
}

impl Planner<'_> {
    fn boxed(&mut self, expr: &Expr) -> Box<Node> {
        Box::new(self.node(expr))
    }

    fn slot(&mut self, name: &str) -> usize {
        let slot = self.slots;
        self.slots += 1;
        self.scopes.push((name.to_owned(), slot));
        slot
    }

    fn local(&self, name: &str) -> Option<usize> {
        self.scopes
            .iter()
            .rev()
            .find(|(n, _)| n == name)
            .map(|(_, slot)| *slot)
    }

    fn node(&mut self, expr: &Expr) -> Node {
        match &expr.kind {
            Kind::Literal(value) => Node::Const(value.clone()),
            Kind::Ident(name) => match (self.local(name), self.checked.constants.get(&expr.id)) {
                (Some(slot), _) => Node::Local(slot),
                (None, Some(constant)) => Node::Const(constant.clone()),
                (None, None) => Node::Variable(name.trim_start_matches('.').into()),
            },
            Kind::Select {
                operand,
                field,
                test_only,
            } => {
                let operand = self.boxed(operand);
                let field = field.as_str().into();
                if *test_only {
                    return Node::Has { operand, field };
                }
                let relative = is_relative(&operand);
                Node::Select {
                    operand,
                    field,
                    relative,
                    optional: false,
                }
            }
            Kind::Call {
                target,
                function,
                args,
            } => self.call(expr, target.as_deref(), function, args),
            Kind::List { items } => {
                let items: Vec<_> = items
                    .iter()
                    .map(|i| (self.node(&i.value), i.optional))
                    .collect();
                let constants: Option<Vec<Value>> = items
                    .iter()
                    .map(|(node, optional)| match node {
                        Node::Const(value) if !optional => Some(value.clone()),
                        _ => None,
                    })
                    .collect();
                match constants.filter(|c| !c.is_empty()) {
                    Some(constants) => Node::Const(Value::list(constants)),
                    None => Node::List(items),
                }
            }
            Kind::Map { entries } => {
                let entries: Vec<_> = entries
                    .iter()
                    .map(|e| (self.node(&e.key), self.node(&e.value), e.optional))
                    .collect();
                fold_map(&entries).unwrap_or(Node::Map(entries))
            }
            Kind::Struct { fields, .. } => Node::Struct(
                fields
                    .iter()
                    .map(|f| (f.name.as_str().into(), self.node(&f.value), f.optional))
                    .collect(),
            ),
            Kind::Comprehension(c) => self.comprehension(c),
        }
    }

    fn comprehension(&mut self, c: &Comprehension) -> Node {
        let depth = self.scopes.len();
        if c.is_bind() {
            let value = self.boxed(&c.accu_init);
            let slot = self.slot(&c.accu_var);
            let body = self.boxed(&c.result);
            self.scopes.truncate(depth);
            return Node::Bind { slot, value, body };
        }
        let range = self.node(&c.range);
        let init = self.node(&c.accu_init);
        let accu = self.slot(&c.accu_var);
        let outer = self.scopes.len();
        let first = self.slot(&c.iter_var);
        let second = c.iter_var2.as_ref().map(|name| self.slot(name));
        let condition = self.node(&c.condition);
        let step = self.node(&c.step);
        self.scopes.truncate(outer);
        let result = self.node(&c.result);
        self.scopes.truncate(depth);
        Node::Fold(Box::new(Fold {
            range,
            first,
            second,
            accu,
            init,
            condition,
            step,
            result,
        }))
    }

    fn accumulator(&self, expr: &Expr) -> Option<usize> {
        match &expr.kind {
            Kind::Ident(name) if name == crate::ast::ACCUMULATOR => self.local(name),
            _ => None,
        }
    }

    fn pair(&mut self, a: &Expr, b: &Expr) -> Box<[Node; 2]> {
        Box::new([self.node(a), self.node(b)])
    }

    fn call(&mut self, expr: &Expr, target: Option<&Expr>, function: &str, args: &[Expr]) -> Node {
        let all: Vec<&Expr> = target.into_iter().chain(args).collect();
        match (function, all.as_slice()) {
            (op::AND, [a, b]) => return Node::And(self.pair(a, b)),
            (op::OR, [a, b]) => return Node::Or(self.pair(a, b)),
            (op::CONDITIONAL, [a, b, c]) => {
                return Node::Conditional(Box::new([self.node(a), self.node(b), self.node(c)]));
            }
            (op::EQUALS, [a, b]) => {
                return Node::Equal {
                    sides: self.pair(a, b),
                    negate: false,
                };
            }
            (op::NOT_EQUALS, [a, b]) => {
                return Node::Equal {
                    sides: self.pair(a, b),
                    negate: true,
                };
            }
            (op::NOT_STRICTLY_FALSE, [a]) => return Node::NotStrictlyFalse(self.boxed(a)),
            (op::INDEX | op::OPT_INDEX, [operand, index]) => {
                let operand = self.boxed(operand);
                let relative = is_relative(&operand);
                let index = self.boxed(index);
                return Node::Index {
                    operand,
                    index,
                    relative,
                    optional: function == op::OPT_INDEX,
                };
            }
            (op::OPT_SELECT, [operand, field]) => {
                if let Kind::Literal(Value::String(field)) = &field.kind {
                    let operand = self.boxed(operand);
                    let relative = is_relative(&operand);
                    return Node::Select {
                        operand,
                        field: field.clone(),
                        relative,
                        optional: true,
                    };
                }
            }
            ("or", [a, b]) if target.is_some() => {
                return Node::Otherwise {
                    sides: self.pair(a, b),
                    value: false,
                };
            }
            ("orValue", [a, b]) if target.is_some() => {
                return Node::Otherwise {
                    sides: self.pair(a, b),
                    value: true,
                };
            }
            (op::ADD, [accu, item]) => {
                if let Some(slot) = self.accumulator(accu)
                    && let Kind::List { items } = &item.kind
                    && let [only] = items.as_slice()
                    && !only.optional
                {
                    return Node::Append {
                        slot,
                        item: self.boxed(&only.value),
                    };
                }
            }
            (op::MAP_INSERT, [accu, rest @ ..]) => {
                if let Some(slot) = self.accumulator(accu) {
                    let (key, value) = match rest {
                        [key, value] => (Some(self.boxed(key)), self.boxed(value)),
                        _ => (None, self.boxed(rest.last().unwrap_or(accu))),
                    };
                    return Node::Insert { slot, key, value };
                }
            }
            _ => {}
        }
        let args: Vec<Node> = all.iter().map(|e| self.node(e)).collect();
        self.function(expr, function, args)
    }

    fn function(&self, expr: &Expr, name: &str, args: Vec<Node>) -> Node {
        let name = name.trim_start_matches('.');
        let function = self.env.functions().implementations.get(name).copied();
        if name == op::IN
            && let [item, Node::Const(Value::List(list))] = args.as_slice()
            && list
                .items
                .iter()
                .all(|v| v.as_key().is_some() || matches!(v, Value::Double(_) | Value::Null))
        {
            return Node::InConstant {
                item: Box::new(item.clone()),
                list: Value::List(list.clone()),
            };
        }
        const CONVERSIONS: [&str; 9] = [
            "bool",
            "bytes",
            "double",
            "duration",
            "int",
            "string",
            "timestamp",
            "uint",
            "type",
        ];
        if let ([Node::Const(value)], Some(function)) = (args.as_slice(), function)
            && CONVERSIONS.contains(&name)
            && let Some(Ok(folded)) = function(std::slice::from_ref(value))
        {
            return Node::Const(folded);
        }
        let overload = match self.checked.overloads[expr.id].as_slice() {
            [one] => Some(one.clone()),
            _ => None,
        };
        Node::Call(Box::new(Call {
            name: name.into(),
            function,
            overload,
            args,
        }))
    }
}

/// Whether a selection begins here anew, rather than continuing one: it costs one more.
fn is_relative(operand: &Node) -> bool {
    !matches!(
        operand,
        Node::Variable(_)
            | Node::Local(_)
            | Node::Select { .. }
            | Node::Index { .. }
            | Node::Conditional(_)
    )
}

fn fold_map(entries: &[(Node, Node, bool)]) -> Option<Node> {
    let mut map = BTreeMap::<Key, Value>::new();
    for (key, value, optional) in entries {
        let (Node::Const(key), Node::Const(value), false) = (key, value, optional) else {
            return None;
        };
        let key = match key {
            Value::Double(_) => return None,
            key => key.as_key()?,
        };
        if map.insert(key, value.clone()).is_some() {
            return None;
        }
    }
    (!map.is_empty()).then(|| Node::Const(Value::Map(Arc::new(map))))
}

/// The element that a constant list is searched for.
pub(crate) fn in_constant(item: &Value, list: &Value) -> Value {
    match list {
        Value::List(list) => Value::Bool(list.items.iter().any(|have| ops::equals(have, item))),
        _ => Value::Bool(false),
    }
}
