//! The type checker: gives each node a type and each call its overloads.
//!
//! Inference is Hindley–Milner's, with overloads and `dyn`. It never gives up at the first
//! finding: a node with an error has the type `!error!`, which fits everywhere.

mod unify;

use std::collections::HashMap;
use std::sync::Arc;

use crate::ast::{Comprehension, Expr, Field, Kind, op};
use crate::env::{Constructor, Env};
use crate::errors::Issues;
use crate::library::Overload;
use crate::types::{ObjectType, Type};
use crate::value::Value;
use unify::{Bindings, most_general};

/// What the checker found out, by the ids of nodes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Checked {
    pub(crate) types: Vec<Type>,
    /// The overloads of each call that its arguments allow.
    pub(crate) overloads: Vec<Vec<Arc<str>>>,
    /// Identifiers that name a type.
    pub(crate) constants: HashMap<usize, Value>,
}

impl Checked {
    /// The type of a node.
    pub(crate) fn type_of(&self, expr: &Expr) -> &Type {
        self.types.get(expr.id).unwrap_or(&Type::Dyn)
    }
}

/// Checks a tree. Qualified names are resolved in place.
pub(crate) fn check(env: &Env, expr: &mut Expr, ids: usize, issues: &mut Issues<'_>) -> Checked {
    let mut checker = Checker {
        env,
        issues,
        bindings: Bindings::default(),
        scopes: Vec::new(),
        free: 0,
        found: Checked {
            types: vec![Type::Error; ids],
            overloads: vec![Vec::new(); ids],
            constants: HashMap::new(),
        },
    };
    checker.check(expr);
    let Checker {
        bindings,
        mut found,
        ..
    } = checker;
    for t in &mut found.types {
        *t = bindings.substitute(t, true);
    }
    found
}

struct Checker<'a, 'i, 'c> {
    env: &'a Env,
    issues: &'i mut Issues<'c>,
    bindings: Bindings,
    /// Variables of comprehensions, innermost last.
    scopes: Vec<(String, Type)>,
    free: usize,
    found: Checked,
}

impl Checker<'_, '_, '_> {
    fn check(&mut self, expr: &mut Expr) {
        let t = self.infer(expr);
        self.found.types[expr.id] = t;
    }

    fn type_of(&self, expr: &Expr) -> Type {
        self.found.types[expr.id].clone()
    }

    fn fresh(&mut self) -> Type {
        self.free += 1;
        Type::param(&format!("_var{}", self.free - 1))
    }

    fn undeclared(&mut self, pos: usize, name: &str) -> Type {
        self.issues.report(
            pos,
            format!("undeclared reference to '{name}' (in container '')"),
        );
        Type::Error
    }

    fn mismatch(&mut self, pos: usize, expected: &Type, actual: &Type) {
        let expected = self.bindings.substitute(expected, true);
        let actual = self.bindings.substitute(actual, true);
        self.issues.report(
            pos,
            format!("expected type '{expected}' but found '{actual}'"),
        );
    }

    fn infer(&mut self, expr: &mut Expr) -> Type {
        let (id, pos) = (expr.id, expr.pos);
        match &mut expr.kind {
            Kind::Literal(value) => literal_type(value),
            Kind::Ident(name) => match self.resolve(id, name) {
                Some(t) => t,
                None => {
                    let name = name.clone();
                    self.undeclared(pos, &name)
                }
            },
            Kind::Select { .. } => self.select(expr),
            Kind::Call { .. } => self.call(expr),
            Kind::List { items } => {
                let mut joined = None;
                for item in items {
                    self.check(&mut item.value);
                    let t = self.element(&item.value, item.optional);
                    joined = Some(self.join(item.value.pos, joined, t));
                }
                Type::list(joined.unwrap_or_else(|| self.fresh()))
            }
            Kind::Map { entries } => {
                let mut joined = None;
                for entry in entries {
                    let (keys, values) = match joined {
                        Some((k, v)) => (Some(k), Some(v)),
                        None => (None, None),
                    };
                    self.check(&mut entry.key);
                    let key = self.type_of(&entry.key);
                    let key = self.join(entry.key.pos, keys, key);
                    self.check(&mut entry.value);
                    let value = self.element(&entry.value, entry.optional);
                    joined = Some((key, self.join(entry.value.pos, values, value)));
                }
                let (key, value) = joined.unwrap_or_else(|| (self.fresh(), self.fresh()));
                Type::map(key, value)
            }
            Kind::Struct { name, fields } => self.construct(pos, name, fields),
            Kind::Comprehension(c) => self.comprehension(c),
        }
    }

    /// The type of an element; what is marked optional must be an optional.
    fn element(&mut self, value: &Expr, optional: bool) -> Type {
        let t = self.type_of(value);
        if !optional {
            return t;
        }
        if let Some(inner) = t.unwrap_optional() {
            return inner.clone();
        }
        if !t.is_dyn_or_error() {
            self.mismatch(value.pos, &Type::optional(t.clone()), &t);
        }
        t
    }

    fn join(&mut self, pos: usize, previous: Option<Type>, current: Type) -> Type {
        let Some(previous) = previous else {
            return current;
        };
        if self.bindings.assignable(&previous, &current) {
            return most_general(&previous, &current).clone();
        }
        if !self.env.features().homogeneous {
            return Type::Dyn;
        }
        self.mismatch(pos, &previous, &current);
        Type::Error
    }

    /// A variable of a comprehension, a declared one, or the name of a type.
    fn resolve(&mut self, id: usize, name: &str) -> Option<Type> {
        if let Some((_, t)) = self.scopes.iter().rev().find(|(n, _)| n == name) {
            return Some(t.clone());
        }
        let global = name.trim_start_matches('.');
        if let Some(schema) = self.env.variable(global) {
            return Some(schema.ty());
        }
        let named = self.env.type_named(global)?;
        self.found.constants.insert(id, Value::Type(global.into()));
        Some(Type::Type(Arc::new(named)))
    }

    fn select(&mut self, expr: &mut Expr) -> Type {
        if let Some(name) = qualified(expr)
            && !self.is_local(&name)
            && let Some(t) = self.resolve(expr.id, &name)
        {
            expr.kind = Kind::Ident(name);
            return t;
        }
        let pos = expr.pos;
        let Kind::Select {
            operand,
            field,
            test_only,
        } = &mut expr.kind
        else {
            return Type::Error;
        };
        let test_only = *test_only;
        let t = self.field(pos, operand, field, false);
        if test_only {
            Type::Bool
        } else {
            self.bindings.substitute(&t, false)
        }
    }

    /// Whether the first part of a qualified name is a comprehension's variable.
    fn is_local(&self, name: &str) -> bool {
        let first = name.split('.').next().unwrap_or_default();
        !name.starts_with('.') && self.scopes.iter().any(|(n, _)| n == first)
    }

    fn field(&mut self, pos: usize, operand: &mut Expr, field: &str, optional: bool) -> Type {
        self.check(operand);
        let t = self.bindings.substitute(&self.type_of(operand), false);
        let (target, was_optional) = match t.unwrap_optional() {
            Some(inner) => (inner.clone(), true),
            None => (t, false),
        };
        let result = match &target {
            Type::Map(_, value) => (**value).clone(),
            Type::Object(object) => match object.fields.get(field) {
                Some(t) => t.clone(),
                None => {
                    self.issues
                        .report(pos, format!("undefined field '{field}'"));
                    Type::Error
                }
            },
            Type::Param(_) => {
                self.bindings.assignable(&Type::Dyn, &target);
                Type::Dyn
            }
            Type::Dyn | Type::Error => Type::Dyn,
            _ => {
                self.issues.report(
                    pos,
                    format!("type '{target}' does not support field selection"),
                );
                Type::Dyn
            }
        };
        if was_optional || optional {
            Type::optional(result)
        } else {
            result
        }
    }

    fn call(&mut self, expr: &mut Expr) -> Type {
        let (id, pos) = (expr.id, expr.pos);
        let Kind::Call {
            target,
            function,
            args,
        } = &mut expr.kind
        else {
            return Type::Error;
        };
        if function == op::OPT_SELECT
            && let [operand, field] = args.as_mut_slice()
        {
            self.found.types[field.id] = Type::String;
            let Kind::Literal(Value::String(name)) = &field.kind else {
                return Type::Error;
            };
            let t = self.field(pos, operand, &name.clone(), true);
            self.found.overloads[id] = vec!["select_optional_field".into()];
            return self.bindings.substitute(&t, false);
        }
        for arg in args.iter_mut() {
            self.check(arg);
        }
        if let Some(receiver) = target {
            // A namespace or a value: `math.least(x)` or `list.sum()`.
            let full = prefix(receiver).map(|prefix| format!("{prefix}.{function}"));
            if let Some(full) =
                full.filter(|full| self.env.functions().overloads.contains_key(full))
            {
                *function = full;
                *target = None;
            } else {
                self.check(receiver);
            }
        }
        let name = function.trim_start_matches('.').to_owned();
        let env = self.env;
        let Some(overloads) = env.functions().overloads.get(&name) else {
            return self.undeclared(pos, &name);
        };
        let types: Vec<Type> = target
            .iter()
            .map(|t| &**t)
            .chain(args.iter())
            .map(|e| self.type_of(e))
            .collect();
        if name == op::AND || name == op::OR {
            return self.logical(id, overloads, args, &types);
        }
        let member = target.is_some();
        match self.overload(overloads, &types, member) {
            Some((ids, t)) => {
                self.found.overloads[id] = ids;
                t
            }
            None => {
                let shown: Vec<String> = types
                    .iter()
                    .map(|t| self.bindings.substitute(t, true).to_string())
                    .collect();
                let signature = match shown.split_first() {
                    Some((first, rest)) if member => format!("{first}.({})", rest.join(", ")),
                    _ => format!("({})", shown.join(", ")),
                };
                self.issues.report(
                    pos,
                    format!("found no matching overload for '{name}' applied to '{signature}'"),
                );
                Type::Error
            }
        }
    }

    fn logical(
        &mut self,
        id: usize,
        overloads: &[Overload],
        args: &[Expr],
        types: &[Type],
    ) -> Type {
        self.found.overloads[id] = overloads.iter().map(|o| o.id.clone()).collect();
        let mut result = Type::Bool;
        for (arg, t) in args.iter().zip(types) {
            if !self.bindings.assignable(t, &Type::Bool) {
                self.mismatch(arg.pos, &Type::Bool, t);
                result = Type::Error;
            }
        }
        result
    }

    fn overload(
        &mut self,
        overloads: &[Overload],
        types: &[Type],
        member: bool,
    ) -> Option<(Vec<Arc<str>>, Type)> {
        let mut ids = Vec::new();
        let mut result: Option<Type> = None;
        for overload in overloads
            .iter()
            .filter(|o| o.member == member && o.args.len() == types.len())
        {
            let mut fresh = Bindings::default();
            for param in &overload.params {
                let variable = self.fresh();
                fresh.bind(param.clone(), variable);
            }
            let wanted: Vec<Type> = overload
                .args
                .iter()
                .map(|a| fresh.substitute(a, false))
                .collect();
            if !self.bindings.assignable_all(types, &wanted) {
                continue;
            }
            ids.push(overload.id.clone());
            let t = self
                .bindings
                .substitute(&fresh.substitute(&overload.result, false), false);
            result = Some(match result {
                None => t,
                Some(have) if have.is_dyn() || have == t => have,
                Some(_) => Type::Dyn,
            });
        }
        result.map(|t| (ids, t))
    }

    fn construct(&mut self, pos: usize, name: &mut String, fields: &mut [Field]) -> Type {
        let env = self.env;
        let Some((full, constructor)) = env.constructor(name) else {
            for field in fields {
                self.check(&mut field.value);
            }
            let name = name.clone();
            return self.undeclared(pos, &name);
        };
        let object = match constructor {
            Constructor::Object(object) => Some(object.clone()),
            Constructor::Dynamic => None,
        };
        for field in fields {
            self.check(&mut field.value);
            let given = self.element(&field.value, field.optional);
            let wanted = match &object {
                None => Type::Dyn,
                Some(object) => match object.fields.get(&field.name) {
                    Some(t) => t.clone(),
                    None => {
                        self.issues
                            .report(field.pos, format!("undefined field '{}'", field.name));
                        Type::Error
                    }
                },
            };
            if !self.bindings.assignable(&wanted, &given) {
                let given = self.bindings.substitute(&given, true);
                let message = format!(
                    "expected type of field '{}' is '{wanted}' but provided type is '{given}'",
                    field.name
                );
                self.issues.report(field.pos, message);
            }
        }
        name.clone_from(&full);
        Type::Object(object.unwrap_or_else(|| {
            Arc::new(ObjectType {
                name: full.as_str().into(),
                fields: std::collections::BTreeMap::new(),
            })
        }))
    }

    fn comprehension(&mut self, c: &mut Comprehension) -> Type {
        self.check(&mut c.range);
        self.check(&mut c.accu_init);
        let range = self.bindings.substitute(&self.type_of(&c.range), false);
        let accu = self.type_of(&c.accu_init);
        let depth = self.scopes.len();
        self.scopes.push((c.accu_var.clone(), accu.clone()));
        let two = c.iter_var2.is_some();
        let (first, second) = match &range {
            Type::List(item) if two => (Type::Int, (**item).clone()),
            Type::List(item) => ((**item).clone(), Type::Dyn),
            Type::Map(key, value) => ((**key).clone(), (**value).clone()),
            Type::Dyn | Type::Error | Type::Param(_) => {
                self.bindings.assignable(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            _ => {
                let message = format!(
                    "expression of type '{range}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.issues.report(c.range.pos, message);
                (Type::Error, Type::Error)
            }
        };
        let outer = self.scopes.len();
        self.scopes.push((c.iter_var.clone(), first));
        if let Some(name) = &c.iter_var2 {
            self.scopes.push((name.clone(), second));
        }
        self.check(&mut c.condition);
        self.assert(&c.condition, &Type::Bool);
        self.check(&mut c.step);
        self.assert(&c.step, &accu);
        self.scopes.truncate(outer);
        self.check(&mut c.result);
        self.scopes.truncate(depth);
        self.bindings.substitute(&self.type_of(&c.result), false)
    }

    fn assert(&mut self, expr: &Expr, wanted: &Type) {
        let t = self.type_of(expr);
        if !self.bindings.assignable(wanted, &t) {
            self.mismatch(expr.pos, wanted, &t);
        }
    }
}

/// `a.b.c` as a name, if the expression is nothing but selections.
fn qualified(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Select {
            operand,
            field,
            test_only: false,
        } => match &operand.kind {
            Kind::Ident(name) => Some(format!("{name}.{field}")),
            _ => qualified(operand).map(|name| format!("{name}.{field}")),
        },
        _ => None,
    }
}

/// The same for what stands before a function's name, where one identifier suffices.
fn prefix(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.clone()),
        _ => qualified(expr),
    }
}

pub(crate) fn literal_type(value: &Value) -> Type {
    match value {
        Value::Null => Type::Null,
        Value::Bool(_) => Type::Bool,
        Value::Int(_) => Type::Int,
        Value::Uint(_) => Type::Uint,
        Value::Double(_) => Type::Double,
        Value::String(_) => Type::String,
        Value::Bytes(_) => Type::Bytes,
        _ => Type::Dyn,
    }
}
