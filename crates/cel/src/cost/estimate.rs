//! The cost that a checked expression may have, from the sizes its inputs may have.
//!
//! Sizes come from schemas (`maxItems`, `maxLength` and what fits a request), so each node carries
//! the part of a schema that it denotes, as long as there is one.

use std::collections::HashMap;

use super::library::{self, CallEstimate};
use super::{REGEX, TRAVERSAL, runtime, scaled};
use crate::ast::{Comprehension, Expr, Kind};
use crate::checker::Checked;
use crate::env::Env;
use crate::schema::Schema;
use crate::types::Type;
use crate::value::Value;

/// A range of costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CostEstimate {
    /// At least.
    pub min: u64,
    /// At most; `u64::MAX` where nothing bounds it.
    pub max: u64,
}

impl CostEstimate {
    const ZERO: Self = Self { min: 0, max: 0 };
    const ONE: Self = Self { min: 1, max: 1 };

    fn fixed(cost: u64) -> Self {
        Self {
            min: cost,
            max: cost,
        }
    }

    pub(super) fn add(self, other: Self) -> Self {
        Self {
            min: self.min.saturating_add(other.min),
            max: self.max.saturating_add(other.max),
        }
    }

    pub(super) fn times(self, other: Self) -> Self {
        Self {
            min: self.min.saturating_mul(other.min),
            max: self.max.saturating_mul(other.max),
        }
    }

    pub(super) fn scaled(self, factor: f64) -> Self {
        Self {
            min: scaled(self.min, factor),
            max: scaled(self.max, factor),
        }
    }

    fn union(self, other: Self) -> Self {
        Self {
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        }
    }
}

/// A range of sizes, in what `size()` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) min: u64,
    pub(super) max: u64,
}

impl Size {
    const UNKNOWN: Self = Self {
        min: 0,
        max: u64::MAX,
    };

    fn fixed(size: u64) -> Self {
        Self {
            min: size,
            max: size,
        }
    }

    pub(super) fn add(self, other: Self) -> Self {
        Self {
            min: self.min.saturating_add(other.min),
            max: self.max.saturating_add(other.max),
        }
    }

    pub(super) fn times(self, other: Self) -> Self {
        Self {
            min: self.min.saturating_mul(other.min),
            max: self.max.saturating_mul(other.max),
        }
    }

    pub(super) fn scaled(self, factor: f64) -> CostEstimate {
        CostEstimate {
            min: scaled(self.min, factor),
            max: scaled(self.max, factor),
        }
    }

    pub(super) fn times_cost(self, cost: CostEstimate) -> CostEstimate {
        CostEstimate {
            min: self.min.saturating_mul(cost.min),
            max: self.max.saturating_mul(cost.max),
        }
    }

    fn union(self, other: Self) -> Self {
        Self {
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        }
    }
}

/// Sizes of the elements of a list or a map.
#[derive(Debug, Clone, Copy)]
struct Entries {
    list: bool,
    key: Size,
    value: Size,
}

impl Entries {
    fn union(self, other: Self) -> Self {
        Self {
            list: self.list,
            key: self.key.union(other.key),
            value: self.value.union(other.value),
        }
    }
}

/// An argument, as functions see it.
pub(super) struct Operand {
    pub(super) t: Type,
    pub(super) literal: Option<Value>,
    schema: Option<Schema>,
    computed: Option<Size>,
}

impl Operand {
    pub(super) fn size(&self) -> Size {
        self.computed
            .or_else(|| self.schema.as_ref().map(bound))
            .unwrap_or(Size::UNKNOWN)
    }

    /// The elements, if this is a list.
    pub(super) fn item(&self) -> Option<Self> {
        let t = match &self.t {
            Type::List(item) => (**item).clone(),
            Type::Map(key, _) => (**key).clone(),
            _ => return None,
        };
        let schema = self.schema.as_ref().and_then(Schema::items);
        Some(Self {
            t,
            literal: None,
            schema,
            computed: None,
        })
    }
}

fn bound(schema: &Schema) -> Size {
    Size {
        min: 0,
        max: schema.max_elements(),
    }
}

#[derive(Clone)]
struct Local {
    schema: Option<Schema>,
    size: Option<Size>,
    entries: Option<Entries>,
}

struct Estimator<'a> {
    env: &'a Env,
    checked: &'a Checked,
    schemas: HashMap<usize, Schema>,
    sizes: HashMap<usize, Size>,
    entries: HashMap<usize, Entries>,
    locals: Vec<(String, Local)>,
}

/// The cost of a checked expression.
pub(crate) fn estimate(env: &Env, expr: &Expr, checked: &Checked) -> CostEstimate {
    Estimator {
        env,
        checked,
        schemas: HashMap::new(),
        sizes: HashMap::new(),
        entries: HashMap::new(),
        locals: Vec::new(),
    }
    .cost(expr)
}

/// Whether an expression names a variable.
pub(crate) fn uses(expr: &Expr, variable: &str) -> bool {
    match &expr.kind {
        Kind::Literal(_) => false,
        Kind::Ident(name) => name.trim_start_matches('.') == variable,
        Kind::Select { operand, .. } => uses(operand, variable),
        Kind::Call { target, args, .. } => args
            .iter()
            .chain(target.as_deref())
            .any(|e| uses(e, variable)),
        Kind::List { items } => items.iter().any(|i| uses(&i.value, variable)),
        Kind::Map { entries } => entries
            .iter()
            .any(|e| uses(&e.key, variable) || uses(&e.value, variable)),
        Kind::Struct { fields, .. } => fields.iter().any(|f| uses(&f.value, variable)),
        Kind::Comprehension(c) => [&c.range, &c.accu_init, &c.condition, &c.step, &c.result]
            .into_iter()
            .any(|e| uses(e, variable)),
    }
}

impl Estimator<'_> {
    fn local(&self, name: &str) -> Option<&Local> {
        self.locals
            .iter()
            .rev()
            .find(|(n, _)| n == name)
            .map(|(_, local)| local)
    }

    fn schema(&self, expr: &Expr) -> Option<Schema> {
        if let Kind::Ident(name) = &expr.kind
            && let Some(local) = self.local(name)
        {
            return local.schema.clone();
        }
        self.schemas.get(&expr.id).cloned()
    }

    fn place(&mut self, expr: &Expr, schema: Option<Schema>) {
        match schema {
            Some(schema) => self.schemas.insert(expr.id, schema),
            None => self.schemas.remove(&expr.id),
        };
    }

    fn size(&mut self, expr: &Expr) -> Option<Size> {
        if let Some(size) = self.sizes.get(&expr.id) {
            return Some(*size);
        }
        let own = match &expr.kind {
            Kind::Literal(value) => Some(Size::fixed(value.size())),
            Kind::List { items } => Some(Size::fixed(items.len() as u64)),
            Kind::Map { entries } => Some(Size::fixed(entries.len() as u64)),
            _ => None,
        };
        if own.is_some() {
            return own;
        }
        if let Some(schema) = self.schema(expr) {
            let size = bound(&schema);
            self.sizes.insert(expr.id, size);
            return Some(size);
        }
        if self.checked.type_of(expr).is_scalar() {
            return Some(Size::fixed(1));
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name).and_then(|local| local.size),
            _ => None,
        }
    }

    fn size_or_unknown(&mut self, expr: &Expr) -> Size {
        self.size(expr).unwrap_or(Size::UNKNOWN)
    }

    fn entries(&self, expr: &Expr) -> Option<Entries> {
        self.entries
            .get(&expr.id)
            .copied()
            .or_else(|| match &expr.kind {
                Kind::Ident(name) => self.local(name).and_then(|local| local.entries),
                _ => None,
            })
    }

    fn operand(&mut self, expr: &Expr) -> Operand {
        let literal = match &expr.kind {
            Kind::Literal(value) => Some(value.clone()),
            _ => None,
        };
        Operand {
            t: self.checked.type_of(expr).clone(),
            literal,
            schema: self.schema(expr),
            computed: self.size(expr),
        }
    }

    fn cost(&mut self, expr: &Expr) -> CostEstimate {
        match &expr.kind {
            Kind::Literal(_) => CostEstimate::ZERO,
            Kind::Ident(name) => {
                let schema = match self.local(name) {
                    Some(local) => local.schema.clone(),
                    None => self.env.variable(name.trim_start_matches('.')).cloned(),
                };
                self.place(expr, schema);
                CostEstimate::ONE
            }
            Kind::Select {
                operand,
                field,
                test_only,
            } => {
                let mut sum = self.cost(operand);
                if *test_only {
                    return sum;
                }
                if matches!(
                    self.checked.type_of(operand),
                    Type::Map(..) | Type::Object(_) | Type::Param(_)
                ) {
                    sum = sum.add(CostEstimate::ONE);
                }
                let schema = self.schema(operand).and_then(|s| s.field(field));
                self.place(expr, schema);
                sum
            }
            Kind::Call {
                target,
                function,
                args,
            } => self.call(expr, target.as_deref(), function, args),
            Kind::List { items } => {
                let (mut sum, mut each) = (CostEstimate::ZERO, None::<Size>);
                for item in items {
                    sum = sum.add(self.cost(&item.value));
                    let size = self.size_or_unknown(&item.value);
                    each = Some(each.map_or(size, |each| each.union(size)));
                }
                let value = each.unwrap_or(Size { min: 0, max: 0 });
                self.entries.insert(
                    expr.id,
                    Entries {
                        list: true,
                        key: Size::fixed(1),
                        value,
                    },
                );
                sum.add(CostEstimate::fixed(runtime::LIST_BASE))
            }
            Kind::Map { entries } => {
                let (mut sum, mut each) = (CostEstimate::ZERO, None::<(Size, Size)>);
                for entry in entries {
                    sum = sum.add(self.cost(&entry.key)).add(self.cost(&entry.value));
                    let (key, value) = (
                        self.size_or_unknown(&entry.key),
                        self.size_or_unknown(&entry.value),
                    );
                    each = Some(each.map_or((key, value), |(k, v)| (k.union(key), v.union(value))));
                }
                let none = Size { min: 0, max: 0 };
                let (key, value) = each.unwrap_or((none, none));
                self.entries.insert(
                    expr.id,
                    Entries {
                        list: false,
                        key,
                        value,
                    },
                );
                sum.add(CostEstimate::fixed(runtime::MAP_BASE))
            }
            Kind::Struct { fields, .. } => fields
                .iter()
                .map(|f| self.cost(&f.value))
                .fold(CostEstimate::fixed(runtime::STRUCT_BASE), CostEstimate::add),
            Kind::Comprehension(c) if c.is_bind() => {
                // The empty range is a list like any other.
                let sum = self.cost(&c.range).add(self.cost(&c.accu_init));
                self.push_bound(&c.accu_var, &c.accu_init);
                let sum = sum.add(self.cost(&c.result));
                if let Some(size) = self.size(&c.result) {
                    self.sizes.insert(expr.id, size);
                }
                if let Some(entries) = self.entries(&c.result) {
                    self.entries.insert(expr.id, entries);
                }
                self.locals.pop();
                sum
            }
            Kind::Comprehension(c) => self.comprehension(expr, c),
        }
    }

    fn push_bound(&mut self, name: &str, value: &Expr) {
        let local = Local {
            schema: self.schema(value),
            size: self.size(value),
            entries: self.entries(value),
        };
        self.locals.push((name.to_owned(), local));
    }

    fn comprehension(&mut self, expr: &Expr, c: &Comprehension) -> CostEstimate {
        let mut sum = self.cost(&c.range).add(self.cost(&c.accu_init));
        self.push_bound(&c.accu_var, &c.accu_init);
        let entries = self.entries(&c.range);
        let range = self.schema(&c.range);
        let list = match entries {
            Some(entries) => entries.list,
            None => matches!(self.checked.type_of(&c.range), Type::List(_)),
        };
        let (keys, values) = (
            range.as_ref().and_then(Schema::keys),
            range.as_ref().and_then(Schema::items),
        );
        let key = Local {
            schema: keys,
            size: entries.map(|e| e.key),
            entries: None,
        };
        let value = Local {
            schema: values,
            size: entries.map(|e| e.value),
            entries: None,
        };
        let depth = self.locals.len();
        match &c.iter_var2 {
            Some(second) => {
                self.locals.push((c.iter_var.clone(), key));
                self.locals.push((second.clone(), value));
            }
            None => self
                .locals
                .push((c.iter_var.clone(), if list { value } else { key })),
        }
        let turn = self.cost(&c.condition).add(self.cost(&c.step));
        self.locals.truncate(depth);
        sum = sum.add(self.cost(&c.result));
        self.locals.pop();
        let count = self.size_or_unknown(&c.range);
        sum = sum.add(count.times_cost(turn));
        match &c.accu_init.kind {
            Kind::Literal(value) => {
                self.sizes.insert(expr.id, Size::fixed(value.size()));
            }
            Kind::List { .. } | Kind::Map { .. } => {
                self.sizes.insert(expr.id, count);
                if let Some(entries) = self.entries(&c.step) {
                    self.entries.insert(expr.id, entries);
                }
            }
            _ => {}
        }
        sum
    }

    fn call(
        &mut self,
        expr: &Expr,
        target: Option<&Expr>,
        function: &str,
        args: &[Expr],
    ) -> CostEstimate {
        if function == "dyn"
            && let [arg] = args
        {
            let cost = self.cost(arg);
            if let Some(size) = self.size(arg) {
                self.sizes.insert(expr.id, size);
            }
            if let Some(entries) = self.entries(arg) {
                self.entries.insert(expr.id, entries);
            }
            return cost.add(CostEstimate::ONE);
        }
        let costs: Vec<CostEstimate> = args.iter().map(|a| self.cost(a)).collect();
        let operands: Vec<Operand> = args.iter().map(|a| self.operand(a)).collect();
        let checked = self.checked;
        let overloads = &checked.overloads[expr.id];
        if overloads.is_empty() {
            return CostEstimate::ZERO;
        }
        let mut sum = CostEstimate::ZERO;
        let mut receiver = None;
        if let Some(target) = target {
            sum = self.cost(target);
            receiver = Some(self.operand(target));
        }
        let mut total: Option<CostEstimate> = None;
        let mut result: Option<Size> = None;
        for overload in overloads {
            let call = self.overload(
                expr,
                function,
                overload,
                receiver.as_ref(),
                args,
                &operands,
                &costs,
            );
            total = Some(total.map_or(call.cost, |t| t.union(call.cost)));
            if let Some(size) = call.result {
                result = Some(result.map_or(size, |have| have.union(size)));
            }
            if let ("index_list" | "index_map", [range, ..]) = (&**overload, args) {
                result = self.entries(range).map(|e| e.value);
                let schema = self.schema(range).and_then(|s| s.items());
                self.place(expr, schema);
            }
            if result.is_none() {
                result = self.size(expr);
            }
        }
        if let Some(size) = result {
            self.sizes.insert(expr.id, size);
        }
        sum.add(total.unwrap_or(CostEstimate::ZERO))
    }

    #[allow(clippy::too_many_arguments, reason = "one call, seen from all sides")]
    fn overload(
        &mut self,
        expr: &Expr,
        function: &str,
        overload: &str,
        target: Option<&Operand>,
        args: &[Expr],
        operands: &[Operand],
        costs: &[CostEstimate],
    ) -> CallEstimate {
        let arguments = costs
            .iter()
            .fold(CostEstimate::ZERO, |sum, cost| sum.add(*cost));
        let with = |cost: CostEstimate, result: Option<Size>| CallEstimate {
            cost: cost.add(arguments),
            result,
        };
        if let Some(call) = library::call(function, overload, target, operands) {
            return with(call.cost, call.result);
        }
        let size = |at: usize| {
            operands
                .get(at)
                .map_or(Size::UNKNOWN, |o| o.computed.unwrap_or(Size::UNKNOWN))
        };
        let own = |target: &Operand| target.computed.unwrap_or(Size::UNKNOWN);
        match (overload, target, args) {
            ("string_format", Some(target), _) => with(own(target).scaled(TRAVERSAL), None),
            ("string_to_bytes", _, [_]) => {
                let s = size(0);
                with(
                    s.scaled(TRAVERSAL),
                    Some(Size {
                        min: s.min,
                        max: s.max.saturating_mul(4),
                    }),
                )
            }
            ("bytes_to_string", _, [_]) => {
                let s = size(0);
                with(
                    s.scaled(TRAVERSAL),
                    Some(Size {
                        min: s.min / 4,
                        max: s.max,
                    }),
                )
            }
            ("strings_quote", _, [_]) => {
                let s = size(0);
                let quoted = Size {
                    min: s.min + 2,
                    max: s.max.saturating_mul(2).saturating_add(2),
                };
                with(s.scaled(TRAVERSAL), Some(quoted))
            }
            ("starts_with_string" | "ends_with_string", _, [_]) => {
                with(size(0).scaled(TRAVERSAL), None)
            }
            ("in_list", _, [_, _]) => with(size(1).scaled(1.0), None),
            ("matches_string", Some(target), [_]) => {
                let subject = own(target).add(Size::fixed(1)).scaled(TRAVERSAL);
                with(subject.times(size(0).scaled(REGEX)), None)
            }
            ("contains_string", Some(target), [_]) => with(
                own(target)
                    .scaled(TRAVERSAL)
                    .times(size(0).scaled(TRAVERSAL)),
                None,
            ),
            ("logical_and" | "logical_or", _, _) => {
                let min = costs.first().map_or(0, |c| c.min);
                CallEstimate {
                    cost: CostEstimate {
                        min,
                        max: arguments.max,
                    },
                    result: None,
                }
            }
            ("conditional", _, [_, yes, no]) => {
                if let (Some(a), Some(b)) = (self.entries(yes), self.entries(no)) {
                    self.entries.insert(expr.id, a.union(b));
                }
                let cost = costs[0].add(costs[1].union(costs[2]));
                CallEstimate {
                    cost,
                    result: Some(size(1).union(size(2))),
                }
            }
            ("add_string" | "add_bytes" | "add_list", _, [a, b]) => {
                if let (Some(a), Some(b)) = (self.entries(a), self.entries(b)) {
                    self.entries.insert(expr.id, a.union(b));
                }
                let joined = size(0).add(size(1));
                let cost = if overload == "add_list" {
                    CostEstimate::ONE
                } else {
                    joined.scaled(TRAVERSAL)
                };
                with(cost, Some(joined))
            }
            (id, _, _) if compares_text(id) => {
                let max = size(0).max.min(size(1).max);
                with(
                    CostEstimate {
                        min: u64::from(max > 0),
                        max,
                    }
                    .scaled(TRAVERSAL),
                    None,
                )
            }
            _ => with(CostEstimate::ONE, None),
        }
    }
}

fn compares_text(id: &str) -> bool {
    matches!(id, "equals" | "not_equals")
        || ((id.starts_with("less_") || id.starts_with("greater_"))
            && (id.ends_with("_string") || id.ends_with("_bytes")))
}
