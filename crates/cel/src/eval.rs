//! Evaluation: walks the plan, counts the cost, absorbs errors where the language says so.
//!
//! Nothing here can hang or exhaust the stack: every loop pays, and depth is counted across
//! expressions that evaluate each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cost::runtime;
use crate::errors::EvalError;
use crate::ops;
use crate::plan::{Call, Fold, Node, Plan, in_constant};
use crate::value::{Key, Value};

/// Cost that one evaluation may have.
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// Cost that all evaluations for one object may have together.
pub const RUNTIME_COST_BUDGET: u64 = 10_000_000;

/// Deepest evaluation, counted over expressions that evaluate others.
const MAX_DEPTH: usize = 700;

/// Values of variables.
pub trait Activation {
    /// The value of a variable; `None` where it has none.
    fn variable(&self, name: &str) -> Option<Value>;
}

impl Activation for BTreeMap<String, Value> {
    fn variable(&self, name: &str) -> Option<Value> {
        self.get(name).cloned()
    }
}

impl Activation for [(&str, Value)] {
    fn variable(&self, name: &str) -> Option<Value> {
        self.iter()
            .find(|(n, _)| *n == name)
            .map(|(_, value)| value.clone())
    }
}

impl<const N: usize> Activation for [(&str, Value); N] {
    fn variable(&self, name: &str) -> Option<Value> {
        self.as_slice().variable(name)
    }
}

impl<F: Fn(&str) -> Option<Value>> Activation for F {
    fn variable(&self, name: &str) -> Option<Value> {
        self(name)
    }
}

/// What evaluations may cost, and what is left.
#[derive(Debug, Clone)]
pub struct Budget {
    per_call: u64,
    remaining: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(PER_CALL_LIMIT, RUNTIME_COST_BUDGET)
    }
}

impl Budget {
    /// A limit for each evaluation and one for all together.
    pub fn new(per_call: u64, total: u64) -> Self {
        Self {
            per_call,
            remaining: total,
        }
    }

    /// What is left of the total.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Takes from the total.
    pub(crate) fn spend(&mut self, cost: u64) -> Result<(), EvalError> {
        match self.remaining.checked_sub(cost) {
            Some(left) => {
                self.remaining = left;
                Ok(())
            }
            None => {
                self.remaining = 0;
                Err(EvalError::BudgetExhausted)
            }
        }
    }

    pub(crate) fn per_call(&self) -> u64 {
        self.per_call
    }
}

/// Counts the cost of one evaluation.
#[derive(Debug)]
pub struct Meter {
    cost: u64,
    limit: u64,
    /// Cost of other evaluations that this one caused; they have their own limit.
    nested: u64,
    depth: usize,
}

impl Meter {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            cost: 0,
            limit,
            nested: 0,
            depth: 0,
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.cost.saturating_add(self.nested)
    }

    /// The cost of this evaluation alone.
    pub(crate) fn own(&self) -> u64 {
        self.cost
    }

    pub(crate) fn charge(&mut self, cost: u64) -> Result<(), EvalError> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit {
            Err(EvalError::CostLimitExceeded)
        } else {
            Ok(())
        }
    }

    /// A meter for an evaluation that this one causes: as deep, with a limit of its own.
    pub(crate) fn inner(&self) -> Self {
        Self {
            cost: 0,
            limit: self.limit,
            nested: 0,
            depth: self.depth,
        }
    }

    pub(crate) fn absorb(&mut self, inner: &Self) {
        self.nested = self.nested.saturating_add(inner.total());
    }
}

type Evaluated = Result<Value, EvalError>;

struct Frame<'a> {
    activation: &'a dyn Activation,
    locals: Vec<Evaluated>,
    meter: &'a mut Meter,
}

/// Evaluates a plan.
pub(crate) fn evaluate(plan: &Plan, activation: &dyn Activation, meter: &mut Meter) -> Evaluated {
    let locals = vec![Ok(Value::Null); plan.slots];
    Frame {
        activation,
        locals,
        meter,
    }
    .eval(&plan.root)
}

fn no_key(key: &impl std::fmt::Display) -> EvalError {
    EvalError::new(format!("no such key: {key}"))
}

impl Frame<'_> {
    fn eval(&mut self, node: &Node) -> Evaluated {
        self.meter.depth += 1;
        if self.meter.depth > MAX_DEPTH {
            self.meter.depth -= 1;
            return Err(EvalError::new("evaluation recursion limit exceeded"));
        }
        let value = self.step(node);
        self.meter.depth -= 1;
        value
    }

    fn step(&mut self, node: &Node) -> Evaluated {
        match node {
            Node::Const(value) => Ok(value.clone()),
            Node::Variable(name) => {
                self.meter.charge(1)?;
                self.activation
                    .variable(name)
                    .ok_or_else(|| EvalError::new(format!("no such attribute(s): {name}")))
            }
            Node::Local(slot) => {
                self.meter.charge(1)?;
                self.locals[*slot].clone()
            }
            Node::Select {
                operand,
                field,
                relative,
                optional,
            } => self.select(operand, field, *relative, *optional),
            Node::Has { operand, field } => {
                let value = self.eval(operand)?;
                self.present(&value, field)
                    .map(|found| Value::Bool(found.is_some()))
            }
            Node::Index {
                operand,
                index,
                relative,
                optional,
            } => self.index(operand, index, *relative, *optional),
            Node::And(sides) => self.logical(sides, false),
            Node::Or(sides) => self.logical(sides, true),
            Node::Conditional(parts) => match self.eval(&parts[0])? {
                Value::Bool(true) => self.eval(&parts[1]),
                Value::Bool(false) => self.eval(&parts[2]),
                _ => Err(ops::no_overload()),
            },
            Node::Equal { sides, negate } => self.equal(sides, *negate),
            Node::InConstant { item, list } => {
                let item = self.eval(item)?;
                Ok(in_constant(&item, list))
            }
            Node::NotStrictlyFalse(inner) => {
                let value = self.eval(inner);
                self.meter.charge(1)?;
                match value {
                    Ok(Value::Bool(b)) => Ok(Value::Bool(b)),
                    Err(error) if !error.is_absorbable() => Err(error),
                    _ => Ok(Value::Bool(true)),
                }
            }
            Node::Otherwise { sides, value } => self.otherwise(sides, *value),
            Node::Call(call) => self.call(call),
            Node::List(items) => self.list(items),
            Node::Map(entries) => self.map(entries),
            Node::Struct(fields) => self.construct(fields),
            Node::Fold(fold) => self.fold(fold),
            Node::Bind { slot, value, body } => {
                self.locals[*slot] = self.eval(value);
                if let Err(error) = &self.locals[*slot]
                    && !error.is_absorbable()
                {
                    return Err(error.clone());
                }
                self.eval(body)
            }
            Node::Append { slot, item } => self.append(*slot, item),
            Node::Insert { slot, key, value } => self.insert(*slot, key.as_deref(), value),
        }
    }

    #[inline(never)]
    fn select(
        &mut self,
        operand: &Node,
        field: &Arc<str>,
        relative: bool,
        optional: bool,
    ) -> Evaluated {
        let value = self.eval(operand)?;
        self.meter.charge(1 + u64::from(relative))?;
        let lenient = optional || matches!(value, Value::Optional(_));
        let found = self.present(&value, field)?;
        match found {
            Some(found) if lenient => Ok(Value::some(found)),
            Some(found) => Ok(found),
            None if lenient => Ok(Value::Optional(None)),
            None => Err(no_key(field)),
        }
    }

    /// A field's value, if it is there.
    fn present(&mut self, value: &Value, field: &Arc<str>) -> Result<Option<Value>, EvalError> {
        match value {
            Value::Map(map) => Ok(map.get(&Key::String(field.clone())).cloned()),
            Value::Optional(Some(inner)) => self.present(inner, field),
            Value::Opaque(opaque) => opaque.field(field, self.meter).transpose(),
            _ => Ok(None),
        }
    }

    #[inline(never)]
    fn index(&mut self, operand: &Node, index: &Node, relative: bool, optional: bool) -> Evaluated {
        let value = self.eval(operand)?;
        let key = self.eval(index)?;
        self.meter.charge(1 + u64::from(relative))?;
        let lenient = optional || matches!(value, Value::Optional(_));
        let (target, missing) = match &value {
            Value::Optional(Some(inner)) => (&**inner, false),
            Value::Optional(None) => (&value, true),
            value => (value, false),
        };
        if missing {
            return Ok(Value::Optional(None));
        }
        let found = match (target, &key) {
            (Value::Opaque(opaque), Value::String(field)) => {
                opaque.field(field, self.meter).transpose()?
            }
            _ => ops::lookup(target, &key)?,
        };
        match found {
            Some(found) if lenient => Ok(Value::some(found)),
            Some(found) => Ok(found),
            None if lenient => Ok(Value::Optional(None)),
            None if matches!(target, Value::List(_)) => {
                Err(EvalError::new(format!("index out of bounds: {key}")))
            }
            None => Err(no_key(&key)),
        }
    }

    /// `&&` and `||`: a side that decides hides the other's error.
    #[inline(never)]
    fn logical(&mut self, sides: &[Node; 2], decides: bool) -> Evaluated {
        let left = self.eval(&sides[0]);
        match &left {
            Ok(Value::Bool(b)) if *b == decides => return left,
            Err(error) if !error.is_absorbable() => return left,
            _ => {}
        }
        let right = self.eval(&sides[1]);
        match (&left, &right) {
            (_, Ok(Value::Bool(b))) if *b == decides => right,
            (_, Err(error)) if !error.is_absorbable() => right,
            (Ok(Value::Bool(_)), Ok(Value::Bool(_))) => right,
            (Err(_), _) => left,
            (Ok(Value::Bool(_)), Err(_)) => right,
            _ => Err(ops::no_overload()),
        }
    }

    #[inline(never)]
    fn equal(&mut self, sides: &[Node; 2], negate: bool) -> Evaluated {
        let (left, right) = (self.eval(&sides[0])?, self.eval(&sides[1])?);
        self.meter.charge(runtime::equality(&left, &right))?;
        Ok(Value::Bool(ops::equals(&left, &right) != negate))
    }

    #[inline(never)]
    fn otherwise(&mut self, sides: &[Node; 2], unwrap: bool) -> Evaluated {
        match self.eval(&sides[0])? {
            Value::Optional(Some(value)) if unwrap => Ok((*value).clone()),
            some @ Value::Optional(Some(_)) => Ok(some),
            Value::Optional(None) => self.eval(&sides[1]),
            _ => Err(ops::no_overload()),
        }
    }

    #[inline(never)]
    fn call(&mut self, call: &Call) -> Evaluated {
        let mut args = Vec::with_capacity(call.args.len());
        for arg in &call.args {
            args.push(self.eval(arg)?);
        }
        let result = call
            .function
            .and_then(|function| function(&args))
            .unwrap_or_else(|| {
                let types: Vec<&str> = args.iter().map(Value::type_name).collect();
                Err(EvalError::new(format!(
                    "no such overload: {}({})",
                    call.name,
                    types.join(", ")
                )))
            });
        self.meter.charge(runtime::call(
            &call.name,
            call.overload.as_deref(),
            &args,
            result.as_ref().ok(),
        ))?;
        result
    }

    #[inline(never)]
    fn list(&mut self, items: &[(Node, bool)]) -> Evaluated {
        let mut list = Vec::with_capacity(items.len());
        for (item, optional) in items {
            let value = self.eval(item)?;
            match value {
                Value::Optional(inner) if *optional => list.extend(inner.map(|v| (*v).clone())),
                value if *optional => {
                    return Err(EvalError::new(format!(
                        "cannot initialize optional list element from non-optional value {value}"
                    )));
                }
                value => list.push(value),
            }
        }
        self.meter.charge(runtime::LIST_BASE)?;
        Ok(Value::list(list))
    }

    #[inline(never)]
    fn map(&mut self, entries: &[(Node, Node, bool)]) -> Evaluated {
        let mut map = BTreeMap::new();
        for (key, value, optional) in entries {
            let key = self.eval(key)?;
            let value = self.eval(value)?;
            let value = match value {
                Value::Optional(None) if *optional => continue,
                Value::Optional(Some(inner)) if *optional => (*inner).clone(),
                value if *optional => {
                    return Err(EvalError::new(format!(
                        "cannot initialize optional entry '{key}' from non-optional value {value}"
                    )));
                }
                value => value,
            };
            let found = match &key {
                Value::Double(_) => None,
                key => key.as_key(),
            };
            let found = found.ok_or_else(|| {
                EvalError::new(format!("unsupported key type: {}", key.type_name()))
            })?;
            if map.insert(found, value).is_some() {
                return Err(EvalError::new(format!("Failed with repeated key: {key}")));
            }
        }
        self.meter.charge(runtime::MAP_BASE)?;
        Ok(Value::Map(Arc::new(map)))
    }

    #[inline(never)]
    fn construct(&mut self, fields: &[(Arc<str>, Node, bool)]) -> Evaluated {
        let mut map = BTreeMap::new();
        for (name, value, optional) in fields {
            let value = self.eval(value)?;
            let value = match value {
                Value::Optional(None) if *optional => continue,
                Value::Optional(Some(inner)) if *optional => (*inner).clone(),
                value => value,
            };
            map.insert(Key::String(name.clone()), value);
        }
        self.meter.charge(runtime::STRUCT_BASE)?;
        Ok(Value::Map(Arc::new(map)))
    }

    #[inline(never)]
    fn fold(&mut self, fold: &Fold) -> Evaluated {
        let range = self.eval(&fold.range)?;
        self.locals[fold.accu] = self.eval(&fold.init);
        match &range {
            Value::List(list) => {
                for (at, item) in list.items.iter().enumerate() {
                    let at = Value::Int(i64::try_from(at).unwrap_or(i64::MAX));
                    // One variable is the element of a list and the key of a map.
                    let first = if fold.second.is_some() { &at } else { item };
                    if !self.turn(fold, first, item)? {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                for (key, value) in map.iter() {
                    if !self.turn(fold, &key.value(), value)? {
                        break;
                    }
                }
            }
            other => {
                let name = other.type_name();
                return Err(EvalError::new(format!(
                    "got '{name}', expected iterable type"
                )));
            }
        }
        self.eval(&fold.result)
    }

    /// One turn of a fold; `false` ends it.
    fn turn(&mut self, fold: &Fold, first: &Value, value: &Value) -> Result<bool, EvalError> {
        self.locals[fold.first] = Ok(first.clone());
        if let Some(second) = fold.second {
            self.locals[second] = Ok(value.clone());
        }
        match self.eval(&fold.condition) {
            Ok(Value::Bool(false)) => return Ok(false),
            Err(error) if !error.is_absorbable() => return Err(error),
            _ => {}
        }
        let next = self.eval(&fold.step);
        if let Err(error) = &next
            && !error.is_absorbable()
        {
            return Err(error.clone());
        }
        self.locals[fold.accu] = next;
        Ok(true)
    }

    fn accumulator(&mut self, slot: usize) -> Evaluated {
        std::mem::replace(&mut self.locals[slot], Ok(Value::Null))
    }

    #[inline(never)]
    fn append(&mut self, slot: usize, item: &Node) -> Evaluated {
        let constant = matches!(item, Node::Const(_));
        let item = self.eval(item)?;
        // The accumulator is read, a list is made, the two are joined.
        self.meter
            .charge(2 + if constant { 0 } else { runtime::LIST_BASE })?;
        match self.accumulator(slot)? {
            Value::List(mut list) => {
                Arc::make_mut(&mut list).items.push(item);
                Ok(Value::List(list))
            }
            _ => Err(ops::no_overload()),
        }
    }

    #[inline(never)]
    fn insert(&mut self, slot: usize, key: Option<&Node>, value: &Node) -> Evaluated {
        let key = key.map(|key| self.eval(key)).transpose()?;
        let value = self.eval(value)?;
        self.meter.charge(2)?;
        let Value::Map(mut map) = self.accumulator(slot)? else {
            return Err(ops::no_overload());
        };
        let target = Arc::make_mut(&mut map);
        let mut put = |key: Key, value: Value| {
            let text = key.value();
            match target.insert(key, value) {
                None => Ok(()),
                Some(_) => Err(EvalError::new(format!(
                    "insert failed: key {text} already exists"
                ))),
            }
        };
        match (key, value) {
            (Some(key), value) => {
                let found = key.as_key();
                put(
                    found.ok_or_else(|| {
                        EvalError::new(format!("unsupported key type: {}", key.type_name()))
                    })?,
                    value,
                )?;
            }
            (None, Value::Map(more)) => {
                for (key, value) in more.iter() {
                    put(key.clone(), value.clone())?;
                }
            }
            (None, _) => return Err(ops::no_overload()),
        }
        Ok(Value::Map(map))
    }
}
