//! Optional values. Selection and indexing through them is evaluation's own work; here are the
//! functions, and the signatures of what looks like an operator.

use super::{Library, Outcome};
use crate::errors::EvalError;
use crate::value::Value;

pub(crate) const LIBRARY: Library = Library {
    declarations: "
optional.of optional_of (A)->optional<A>
optional.ofNonZeroValue optional_ofNonZeroValue (A)->optional<A>
optional.none optional_none ()->optional<A>
optional.unwrap optional_unwrap (list<optional<A>>)->list<A>
unwrapOpt optional_unwrapOpt list<optional<A>>.()->list<A>
first list_first list<A>.()->optional<A>
last list_last list<A>.()->optional<A>
hasValue optional_hasValue optional<A>.()->bool
value optional_value optional<A>.()->A
or optional_or_optional optional<A>.(optional<A>)->optional<A>
orValue optional_orValue_value optional<A>.(A)->A
_[?_] list_optindex_optional_int (list<A>,int)->optional<A>
_[?_] optional_list_optindex_optional_int (optional<list<A>>,int)->optional<A>
_[?_] map_optindex_optional_value (map<A,B>,A)->optional<B>
_[?_] optional_map_optindex_optional_value (optional<map<A,B>>,A)->optional<B>
_[_] optional_list_index_int (optional<list<A>>,int)->optional<A>
_[_] optional_map_index_value (optional<map<A,B>>,A)->optional<B>
",
    functions: &[
        ("optional.of", |a| Some(Ok(Value::some(a.first()?.clone())))),
        ("optional.ofNonZeroValue", of_non_zero),
        ("optional.none", |_| Some(Ok(Value::Optional(None)))),
        ("optional.unwrap", unwrap),
        ("unwrapOpt", unwrap),
        ("first", |a| end(a, |items| items.first())),
        ("last", |a| end(a, |items| items.last())),
        ("hasValue", has_value),
        ("value", value),
    ],
};

fn of_non_zero(args: &[Value]) -> Outcome {
    let [value] = args else { return None };
    let zero = match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Int(n) => *n == 0,
        Value::Uint(n) => *n == 0,
        Value::Double(n) => *n == 0.0,
        Value::Duration(d) => d.0 == 0,
        Value::String(s) => s.is_empty(),
        Value::Bytes(b) => b.is_empty(),
        Value::List(list) => list.items.is_empty(),
        Value::Map(map) => map.is_empty(),
        Value::Optional(inner) => inner.is_none(),
        Value::Timestamp(_) | Value::Type(_) | Value::Opaque(_) => false,
    };
    Some(Ok(if zero {
        Value::Optional(None)
    } else {
        Value::some(value.clone())
    }))
}

fn unwrap(args: &[Value]) -> Outcome {
    let [Value::List(list)] = args else {
        return None;
    };
    let mut items = Vec::new();
    for item in &list.items {
        match item {
            Value::Optional(inner) => items.extend(inner.as_deref().cloned()),
            other => {
                return Some(Err(EvalError::new(format!(
                    "value {other} is not optional"
                ))));
            }
        }
    }
    Some(Ok(Value::list(items)))
}

fn end(args: &[Value], pick: fn(&[Value]) -> Option<&Value>) -> Outcome {
    let [Value::List(list)] = args else {
        return None;
    };
    Some(Ok(match pick(&list.items) {
        Some(item) => Value::some(item.clone()),
        None => Value::Optional(None),
    }))
}

fn has_value(args: &[Value]) -> Outcome {
    let [Value::Optional(inner)] = args else {
        return None;
    };
    Some(Ok(Value::Bool(inner.is_some())))
}

fn value(args: &[Value]) -> Outcome {
    let [Value::Optional(inner)] = args else {
        return None;
    };
    Some(match inner {
        Some(value) => Ok((**value).clone()),
        None => Err(EvalError::new("optional.none() dereference")),
    })
}
