//! Macros: calls that become other trees while parsing.
//!
//! The expansions are the language definition's, node for node, because costs are counted on
//! them. All nodes of an expansion stand at the macro's own place.

use crate::ast::{ACCUMULATOR, Comprehension, Expr, Item, Kind, op};
use crate::parser::{Parser, Stop};
use crate::value::Value;

type Expanded = Option<Result<Expr, Stop>>;

/// `has(a.b)`.
pub(crate) fn global(p: &mut Parser<'_, '_>, pos: usize, name: &str, args: &[Expr]) -> Expanded {
    if name != "has" || args.len() != 1 {
        return None;
    }
    Some(match &args[0].kind {
        Kind::Select {
            operand,
            field,
            test_only: false,
        } => {
            let kind = Kind::Select {
                operand: operand.clone(),
                field: field.clone(),
                test_only: true,
            };
            p.node(pos, kind)
        }
        _ => p.stop(args[0].pos, "invalid argument to has() macro"),
    })
}

/// Macros with a receiver, among them the namespaced ones.
pub(crate) fn method(
    p: &mut Parser<'_, '_>,
    pos: usize,
    target: &Expr,
    name: &str,
    args: &[Expr],
) -> Expanded {
    let namespace = match &target.kind {
        Kind::Ident(ident) => ident.as_str(),
        _ => "",
    };
    let two = p.features.two_variables;
    let mut m = Macro { p, pos };
    Some(match (name, args.len()) {
        ("bind", 3) if namespace == "cel" && m.p.features.bindings => m.bind(args),
        ("least" | "greatest", _) if namespace == "math" && m.p.features.math => {
            m.extreme(target, name, args)
        }
        ("all" | "exists" | "exists_one" | "existsOne", 2) => m.quantifier(target, name, args),
        ("map", 2 | 3) => m.map(target, args),
        ("filter", 2) => m.filter(target, args),
        ("optMap" | "optFlatMap", 2) if m.p.features.optional_types => {
            m.opt_map(target, name, args)
        }
        ("all" | "exists" | "exists_one" | "existsOne", 3) if two => {
            m.quantifier(target, name, args)
        }
        ("transformList" | "transformMap" | "transformMapEntry", 3 | 4) if two => {
            m.transform(target, name, args)
        }
        _ => return None,
    })
}

struct Macro<'m, 'a, 'i> {
    p: &'m mut Parser<'a, 'i>,
    pos: usize,
}

/// The parts of a fold that differ from macro to macro.
struct Fold {
    init: Expr,
    condition: Expr,
    step: Expr,
    result: Expr,
}

impl Macro<'_, '_, '_> {
    fn literal(&mut self, value: Value) -> Result<Expr, Stop> {
        self.p.node(self.pos, Kind::Literal(value))
    }

    fn ident(&mut self, name: &str) -> Result<Expr, Stop> {
        self.p.node(self.pos, Kind::Ident(name.into()))
    }

    fn accu(&mut self) -> Result<Expr, Stop> {
        self.ident(ACCUMULATOR)
    }

    fn call(&mut self, function: &str, args: Vec<Expr>) -> Result<Expr, Stop> {
        self.p.call(self.pos, function, args)
    }

    fn list(&mut self, items: Vec<Expr>) -> Result<Expr, Stop> {
        let items = items
            .into_iter()
            .map(|value| Item {
                value,
                optional: false,
            })
            .collect();
        self.p.node(self.pos, Kind::List { items })
    }

    /// The iteration variables: one, or two where the macro has `total` arguments for it.
    fn variables(
        &mut self,
        args: &[Expr],
        two: bool,
        words: &str,
    ) -> Result<(String, Option<String>), Stop> {
        let mut name = |arg: &Expr| match &arg.kind {
            Kind::Ident(name) if name == ACCUMULATOR => self.p.stop(
                arg.pos,
                "iteration variable overwrites accumulator variable",
            ),
            Kind::Ident(name) if !name.starts_with('.') => Ok(name.clone()),
            _ => self.p.stop(arg.pos, words),
        };
        let first = name(&args[0])?;
        if !two {
            return Ok((first, None));
        }
        let second = name(&args[1])?;
        if first == second {
            return self
                .p
                .stop(args[1].pos, format!("duplicate variable name: {first}"));
        }
        Ok((first, Some(second)))
    }

    fn fold(
        &mut self,
        range: &Expr,
        vars: (String, Option<String>),
        fold: Fold,
    ) -> Result<Expr, Stop> {
        let kind = Kind::Comprehension(Box::new(Comprehension {
            iter_var: vars.0,
            iter_var2: vars.1,
            range: range.clone(),
            accu_var: ACCUMULATOR.into(),
            accu_init: fold.init,
            condition: fold.condition,
            step: fold.step,
            result: fold.result,
        }));
        self.p.node(self.pos, kind)
    }

    fn quantifier(&mut self, range: &Expr, name: &str, args: &[Expr]) -> Result<Expr, Stop> {
        let vars = self.variables(args, args.len() == 3, "argument must be a simple name")?;
        let predicate = args[args.len() - 1].clone();
        let fold = match name {
            "all" => {
                let (accu, again) = (self.accu()?, self.accu()?);
                Fold {
                    init: self.literal(Value::Bool(true))?,
                    condition: self.call(op::NOT_STRICTLY_FALSE, vec![accu])?,
                    step: self.call(op::AND, vec![again, predicate])?,
                    result: self.accu()?,
                }
            }
            "exists" => {
                let (accu, again) = (self.accu()?, self.accu()?);
                let not = self.call(op::NOT, vec![accu])?;
                Fold {
                    init: self.literal(Value::Bool(false))?,
                    condition: self.call(op::NOT_STRICTLY_FALSE, vec![not])?,
                    step: self.call(op::OR, vec![again, predicate])?,
                    result: self.accu()?,
                }
            }
            _ => {
                let (accu, one) = (self.accu()?, self.literal(Value::Int(1))?);
                let more = self.call(op::ADD, vec![accu, one])?;
                let same = self.accu()?;
                let (accu, one) = (self.accu()?, self.literal(Value::Int(1))?);
                Fold {
                    init: self.literal(Value::Int(0))?,
                    condition: self.literal(Value::Bool(true))?,
                    step: self.call(op::CONDITIONAL, vec![predicate, more, same])?,
                    result: self.call(op::EQUALS, vec![accu, one])?,
                }
            }
        };
        self.fold(range, vars, fold)
    }

    /// A fold that grows a list: `accu + [value]`, guarded by a predicate if there is one.
    fn growing(&mut self, predicate: Option<Expr>, value: Expr) -> Result<Fold, Stop> {
        let (accu, item) = (self.accu()?, self.list(vec![value])?);
        let grown = self.call(op::ADD, vec![accu, item])?;
        let init = self.list(Vec::new())?;
        self.guarded(predicate, grown, init)
    }

    fn guarded(&mut self, predicate: Option<Expr>, grown: Expr, init: Expr) -> Result<Fold, Stop> {
        let step = match predicate {
            Some(predicate) => {
                let same = self.accu()?;
                self.call(op::CONDITIONAL, vec![predicate, grown, same])?
            }
            None => grown,
        };
        let condition = self.literal(Value::Bool(true))?;
        Ok(Fold {
            init,
            condition,
            step,
            result: self.accu()?,
        })
    }

    fn map(&mut self, range: &Expr, args: &[Expr]) -> Result<Expr, Stop> {
        let vars = self.variables(args, false, "argument is not an identifier")?;
        let predicate = (args.len() == 3).then(|| args[1].clone());
        let fold = self.growing(predicate, args[args.len() - 1].clone())?;
        self.fold(range, vars, fold)
    }

    fn filter(&mut self, range: &Expr, args: &[Expr]) -> Result<Expr, Stop> {
        let vars = self.variables(args, false, "argument is not an identifier")?;
        let item = args[0].clone();
        let fold = self.growing(Some(args[1].clone()), item)?;
        self.fold(range, vars, fold)
    }

    fn transform(&mut self, range: &Expr, name: &str, args: &[Expr]) -> Result<Expr, Stop> {
        let vars = self.variables(args, true, "argument must be a simple name")?;
        let predicate = (args.len() == 4).then(|| args[2].clone());
        let value = args[args.len() - 1].clone();
        let fold = if name == "transformList" {
            self.growing(predicate, value)?
        } else {
            let mut inserted = vec![self.accu()?];
            if name == "transformMap" {
                inserted.push(args[0].clone());
            }
            inserted.push(value);
            let grown = self.call(op::MAP_INSERT, inserted)?;
            let init = self.p.node(
                self.pos,
                Kind::Map {
                    entries: Vec::new(),
                },
            )?;
            self.guarded(predicate, grown, init)?
        };
        self.fold(range, vars, fold)
    }

    /// `name` stands for `value` in `body`: a fold over nothing.
    fn bound(&mut self, name: &str, value: Expr, body: Expr) -> Result<Expr, Stop> {
        let range = self.list(Vec::new())?;
        let condition = self.literal(Value::Bool(false))?;
        let step = self.ident(name)?;
        let kind = Kind::Comprehension(Box::new(Comprehension {
            iter_var: "#unused".into(),
            iter_var2: None,
            range,
            accu_var: name.into(),
            accu_init: value,
            condition,
            step,
            result: body,
        }));
        self.p.node(self.pos, kind)
    }

    fn bind(&mut self, args: &[Expr]) -> Result<Expr, Stop> {
        let Kind::Ident(name) = &args[0].kind else {
            return self.p.stop(
                args[0].pos,
                "cel.bind() variable names must be simple identifiers",
            );
        };
        self.bound(name, args[1].clone(), args[2].clone())
    }

    fn opt_map(&mut self, target: &Expr, name: &str, args: &[Expr]) -> Result<Expr, Stop> {
        let Kind::Ident(variable) = &args[0].kind else {
            let message = format!("{name}() variable name must be a simple identifier");
            return self.p.stop(args[0].pos, message);
        };
        let copy = self.p.copy(target)?;
        let method = |target: Expr, function: &str| Kind::Call {
            target: Some(Box::new(target)),
            function: function.into(),
            args: Vec::new(),
        };
        let has = self.p.node(self.pos, method(target.clone(), "hasValue"))?;
        let value = self.p.node(self.pos, method(copy, "value"))?;
        let mut mapped = self.bound(variable, value, args[1].clone())?;
        if name == "optMap" {
            mapped = self.call("optional.of", vec![mapped])?;
        }
        let none = self.call("optional.none", Vec::new())?;
        self.call(op::CONDITIONAL, vec![has, mapped, none])
    }

    /// `math.least(...)` and `math.greatest(...)`.
    fn extreme(&mut self, target: &Expr, name: &str, args: &[Expr]) -> Result<Expr, Stop> {
        let function = if name == "least" {
            "math.@min"
        } else {
            "math.@max"
        };
        let numeric = |e: &Expr| match &e.kind {
            Kind::Literal(v) => matches!(v, Value::Int(_) | Value::Uint(_) | Value::Double(_)),
            Kind::List { .. } | Kind::Map { .. } | Kind::Struct { .. } => false,
            _ => true,
        };
        match args {
            [] => self.p.stop(
                target.pos,
                format!("math.{name}() requires at least one argument"),
            ),
            [one] => {
                let list = matches!(&one.kind, Kind::List { items } if !items.is_empty()
                    && items.iter().all(|i| numeric(&i.value)));
                if !list && !numeric(one) {
                    return self.p.stop(
                        one.pos,
                        format!("math.{name}() invalid single argument value"),
                    );
                }
                self.call(function, vec![one.clone()])
            }
            many => {
                if let Some(bad) = many.iter().find(|a| !numeric(a)) {
                    let message = format!("math.{name}() simple literal arguments must be numeric");
                    return self.p.stop(bad.pos, message);
                }
                if many.len() == 2 {
                    return self.call(function, many.to_vec());
                }
                let list = self.list(many.to_vec())?;
                self.call(function, vec![list])
            }
        }
    }
}
