//! Rules in CEL (`x-kubernetes-validations`), compiled and run.
//!
//! Each node of a schema that has rules is compiled with types of its own. A rule that names
//! `oldSelf` runs only where there is an old value that the new one can be told to succeed: by
//! name in objects, by keys in lists. All rules for one object share one budget.

use evenkeel_cel::{
    Budget, CompileErrors, Env, EvalError, Program, Schema, Type as CelType, Value as CelValue,
};
use serde_json::Value;

use super::{ListKind, Rule, Structural, field_at};
use crate::field::{ErrorList, FieldError, Path};

/// A message by expression may not be longer, in bytes.
const MOST_MESSAGE: usize = 5 << 10;

/// The rules of a schema.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    own: Option<Own>,
    items: Option<Box<Rules>>,
    additional: Option<Box<Rules>>,
    properties: Vec<(Box<str>, Rules)>,
}

/// The rules of one node.
#[derive(Debug, Clone)]
struct Own {
    schema: Schema,
    /// The declared type, which errors show for a value.
    ty: &'static str,
    rules: Vec<Compiled>,
}

/// A rule with its programs.
#[derive(Debug, Clone)]
pub(super) struct Compiled {
    pub(super) rule: Rule,
    pub(super) program: Result<Program, String>,
    pub(super) message: Option<Result<Program, String>>,
    field_path: Option<String>,
}

impl Compiled {
    /// Compiles a rule of a node.
    pub(super) fn new(rule: &Rule, node: &Structural, schema: &Schema) -> Self {
        let old = if rule.optional_old_self {
            Schema::simple(CelType::optional(schema.ty()))
        } else {
            schema.clone()
        };
        let env = Env::kubernetes()
            .with_variable("self", schema.clone())
            .with_variable("oldSelf", old);
        let failed = |errors: CompileErrors| format!("compilation failed: {errors}");
        let program = env.compile(&rule.rule).map_err(failed).and_then(|program| {
            if *program.output() == CelType::Bool {
                Ok(program)
            } else {
                Err("cel expression must evaluate to a bool".to_owned())
            }
        });
        let message = (!rule.message_expression.is_empty()).then(|| {
            let failed =
                |errors: CompileErrors| format!("messageExpression compilation failed: {errors}");
            let program = env.compile(&rule.message_expression).map_err(failed)?;
            if *program.output() == CelType::String {
                Ok(program)
            } else {
                Err("messageExpression must evaluate to a string".to_owned())
            }
        });
        let field_path = field_at(node, &rule.field_path, true)
            .ok()
            .filter(|(names, _)| !names.is_empty())
            .map(|_| rule.field_path.trim_start_matches('.').to_owned());
        Self {
            rule: rule.clone(),
            program,
            message,
            field_path,
        }
    }

    /// Does it compare with what was before?
    pub(super) fn uses_old(&self) -> bool {
        self.program
            .as_ref()
            .is_ok_and(|program| program.uses("oldSelf"))
    }

    /// The rule as errors name it.
    fn name(&self) -> &str {
        if self.rule.message.is_empty() {
            self.rule.rule.trim()
        } else {
            self.rule.message.trim()
        }
    }
}

/// The schema that expressions see of a node; `root` says that it is a whole object.
pub(super) fn node_schema(json: &Value, root: bool) -> Option<Schema> {
    let embedded = json.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true));
    Schema::from_openapi(json, "selfType", root || embedded)
}

impl Rules {
    /// Compiles the rules of a schema, given as it is written and compiled; `None` when it has
    /// none.
    #[must_use]
    pub fn compile(json: &Value, schema: &Structural) -> Option<Self> {
        schema.has_rules().then(|| Self::node(json, schema, true))
    }

    fn node(json: &Value, schema: &Structural, root: bool) -> Self {
        let inner = |json: Option<&Value>, schema: Option<&Structural>| {
            let (json, schema) = (json?, schema?);
            schema
                .has_rules()
                .then(|| Box::new(Self::node(json, schema, false)))
        };
        let own = (!schema.rules.is_empty())
            .then(|| node_schema(json, root))
            .flatten()
            .map(|cel| Own {
                ty: schema.ty.as_str(),
                rules: schema
                    .rules
                    .iter()
                    .map(|rule| Compiled::new(rule, schema, &cel))
                    .collect(),
                schema: cel,
            });
        let properties = schema
            .properties
            .iter()
            .filter(|(_, property)| property.has_rules())
            .filter_map(|(name, property)| {
                let json = json.get("properties")?.get(&**name)?;
                Some((name.clone(), Self::node(json, property, false)))
            })
            .collect();
        Self {
            own,
            items: inner(json.get("items"), schema.items.as_deref()),
            additional: inner(json.get("additionalProperties"), schema.additional.schema()),
            properties,
        }
    }

    /// What does not hold of an object, or of its change.
    #[must_use]
    pub fn check(
        &self,
        schema: &Structural,
        path: &Path,
        value: &Value,
        old: Option<&Value>,
    ) -> ErrorList {
        let mut run = Run {
            errors: ErrorList::new(),
            budget: Budget::default(),
            spent: false,
        };
        let forgiving = Forgiving {
            current: old,
            parent_same: false,
        };
        run.node(self, schema, path, value, old, forgiving);
        run.errors
    }
}

/// Whether errors are forgiven because nothing has changed.
#[derive(Clone, Copy)]
struct Forgiving<'v> {
    /// The old value, where it can be told.
    current: Option<&'v Value>,
    /// The nearest part above that could be compared has not changed.
    parent_same: bool,
}

impl<'v> Forgiving<'v> {
    fn forgives(&self, value: &Value) -> bool {
        self.current
            .map_or(self.parent_same, |current| current == value)
    }

    fn below(&self, value: &Value, current: Option<&'v Value>) -> Self {
        match self.current {
            None => *self,
            Some(own) => Self {
                current,
                parent_same: own == value,
            },
        }
    }
}

struct Run {
    errors: ErrorList,
    budget: Budget,
    /// Nothing more is run.
    spent: bool,
}

impl Run {
    fn node(
        &mut self,
        rules: &Rules,
        schema: &Structural,
        path: &Path,
        value: &Value,
        old: Option<&Value>,
        forgiving: Forgiving<'_>,
    ) {
        // Rules about null stand with the surrounding object.
        if value.is_null() || self.spent {
            return;
        }
        if let Some(own) = &rules.own {
            self.own(
                own,
                path,
                value,
                old.filter(|old| !old.is_null()),
                forgiving,
            );
        }
        match value {
            Value::Array(items) => {
                let (Some(rules), Some(schema_of)) = (&rules.items, &schema.items) else {
                    return;
                };
                for (index, item) in items.iter().enumerate() {
                    let old = before(schema, old, item);
                    let below = forgiving.below(value, before(schema, forgiving.current, item));
                    self.node(rules, schema_of, &path.index(index), item, old, below);
                }
            }
            Value::Object(fields) => {
                for (name, inner) in fields {
                    let old = old.and_then(|old| old.get(name));
                    let current = forgiving
                        .current
                        .filter(|_| !schema.atomic_map)
                        .and_then(|current| current.get(name));
                    let below = forgiving.below(value, current);
                    let property = rules.properties.iter().find(|(known, _)| **known == **name);
                    match (property, schema.property(name)) {
                        (Some((_, rules)), Some(schema)) => {
                            self.node(rules, schema, &path.child(name), inner, old, below);
                        }
                        (None, None) => {
                            if let (Some(rules), Some(schema)) =
                                (&rules.additional, schema.additional.schema())
                            {
                                self.node(rules, schema, &path.key(name), inner, old, below);
                            }
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    fn own(
        &mut self,
        own: &Own,
        path: &Path,
        value: &Value,
        old: Option<&Value>,
        forgiving: Forgiving<'_>,
    ) {
        let seen = match own.schema.value(value) {
            Ok(seen) => seen,
            Err(error) => {
                self.errors
                    .push(FieldError::invalid(path, own.ty, &error.to_string()));
                return;
            }
        };
        let before = old.and_then(|old| own.schema.value(old).ok());
        for rule in &own.rules {
            if self.spent {
                return;
            }
            let program = match &rule.program {
                Ok(program) => program,
                Err(error) => {
                    let wrong = format!("rule compile error: {error}");
                    self.errors.push(FieldError::invalid(path, own.ty, &wrong));
                    continue;
                }
            };
            let optional = rule.rule.optional_old_self;
            if rule.uses_old() && before.is_none() && !optional {
                continue;
            }
            let mut variables = vec![("self", seen.clone())];
            if optional {
                let inner = before.clone().map(std::sync::Arc::new);
                variables.push(("oldSelf", CelValue::Optional(inner)));
            } else if let Some(before) = &before {
                variables.push(("oldSelf", before.clone()));
            }
            let held = program.evaluate_with(&Variables(&variables), &mut self.budget);
            match held {
                Ok(CelValue::Bool(true)) => {}
                Ok(_) => {
                    let forgiven = !rule.uses_old() && forgiving.forgives(value);
                    let error = self.refusal(own, rule, &variables, path, value);
                    if !forgiven {
                        self.errors.push(error);
                    }
                }
                Err(error) => self.failed(own, rule, path, &error),
            }
        }
    }

    fn failed(&mut self, own: &Own, rule: &Compiled, path: &Path, error: &EvalError) {
        let name = rule.name();
        let wrong = match error {
            EvalError::BudgetExhausted => {
                self.spent = true;
                error.to_string()
            }
            EvalError::CostLimitExceeded => {
                self.spent = true;
                format!(
                    "'{error}': no further validation rules will be run due to call cost exceeds \
                     limit for rule: {name}"
                )
            }
            EvalError::Failed(text) if text.starts_with("no such overload") => format!(
                "'{error}': call arguments did not match a supported operator, function or macro \
                 signature for rule: {name}"
            ),
            EvalError::Failed(_) => format!("{error} evaluating rule: {name}"),
        };
        self.errors.push(FieldError::invalid(path, own.ty, &wrong));
    }

    /// The error of a rule that does not hold.
    fn refusal(
        &mut self,
        own: &Own,
        rule: &Compiled,
        variables: &[(&str, CelValue)],
        path: &Path,
        value: &Value,
    ) -> FieldError {
        let at = match &rule.field_path {
            Some(below) => path.child(below),
            None => path.clone(),
        };
        let said = match &rule.message {
            Some(Ok(program)) => self.message(program, variables),
            _ => None,
        };
        let detail = said.unwrap_or_else(|| {
            if rule.rule.message.is_empty() {
                format!("failed rule: {}", rule.name())
            } else {
                rule.name().to_owned()
            }
        });
        let shown = (!matches!(own.ty, "object" | "array")).then(|| value.clone());
        match (&*rule.rule.reason, shown) {
            ("FieldValueForbidden", _) => FieldError::forbidden(&at, &detail),
            ("FieldValueRequired", _) => FieldError::required(&at, &detail),
            ("FieldValueDuplicate", Some(value)) => FieldError::duplicate(&at, value),
            ("FieldValueDuplicate", None) => FieldError::duplicate_shown(&at, ""),
            (_, Some(value)) => FieldError::invalid(&at, value, &detail),
            (_, None) => FieldError::invalid_omitted(&at, &detail),
        }
    }

    /// What a message expression says; nothing when it says nothing usable.
    fn message(&mut self, program: &Program, variables: &[(&str, CelValue)]) -> Option<String> {
        let said = program
            .evaluate_with(&Variables(variables), &mut self.budget)
            .inspect_err(|error| {
                if !matches!(error, EvalError::Failed(_)) {
                    self.spent = true;
                }
            })
            .ok()?;
        let text = said.as_str()?.trim().to_owned();
        (!text.is_empty() && text.len() <= MOST_MESSAGE && !text.contains('\n')).then_some(text)
    }
}

/// The old item that an item of a keyed list succeeds.
fn before<'v>(schema: &Structural, old: Option<&'v Value>, item: &Value) -> Option<&'v Value> {
    if schema.list != ListKind::Map {
        return None;
    }
    let key = schema.key_of(item);
    old?.as_array()?
        .iter()
        .find(|candidate| schema.key_of(candidate) == key)
}

/// Variables of an evaluation.
struct Variables<'v>(&'v [(&'v str, CelValue)]);

impl evenkeel_cel::Activation for Variables<'_> {
    fn variable(&self, name: &str) -> Option<CelValue> {
        self.0
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.clone())
    }
}
