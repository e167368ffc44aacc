//! Equality, order and arithmetic.
//!
//! Equality is defined between all types: values of different types are unequal, numbers compare
//! by what they stand for. Order and arithmetic are not, and fail with `no such overload`.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::errors::EvalError;
use crate::time::{Duration, Timestamp};
use crate::value::{Key, List, ListKind, Value};

const TWO_63: f64 = 9_223_372_036_854_775_808.0;
const TWO_64: f64 = 18_446_744_073_709_551_616.0;

pub(crate) fn no_overload() -> EvalError {
    EvalError::new("no such overload")
}

/// The integer part, where it fits.
pub(crate) fn double_to_int(n: f64) -> Option<i64> {
    // Both limits are excluded, as the reference excludes them: they aren't exact there.
    #[allow(clippy::cast_possible_truncation, reason = "the range is checked")]
    (n > -TWO_63 && n < TWO_63).then_some(n as i64)
}

/// The integer part, where it fits.
pub(crate) fn double_to_uint(n: f64) -> Option<u64> {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range is checked"
    )]
    (0.0..TWO_64).contains(&n).then_some(n as u64)
}

/// Order of an integer and a double: as doubles, where the double is within the integer's range.
#[allow(clippy::cast_precision_loss, reason = "the language compares them so")]
fn compare_int_double(a: i128, b: f64, least: f64, most: f64) -> Option<Ordering> {
    if b.is_nan() {
        return None;
    }
    if b > most {
        return Some(Ordering::Less);
    }
    if b < least {
        return Some(Ordering::Greater);
    }
    (a as f64).partial_cmp(&b)
}

/// Order of two numbers; `None` where one is not a number.
fn compare_numbers(a: &Value, b: &Value) -> Option<Option<Ordering>> {
    let int = |v: &Value| match v {
        Value::Int(n) => Some(i128::from(*n)),
        Value::Uint(n) => Some(i128::from(*n)),
        _ => None,
    };
    let mixed = |v: &Value, d: f64| {
        let (least, most) = match v {
            Value::Int(_) => (-TWO_63, TWO_63),
            _ => (0.0, TWO_64),
        };
        Some(compare_int_double(int(v)?, d, least, most))
    };
    Some(match (a, b) {
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Double(a), b) => mixed(b, *a)?.map(Ordering::reverse),
        (a, Value::Double(b)) => mixed(a, *b)?,
        (a, b) => Some(int(a)?.cmp(&int(b)?)),
    })
}

/// Whether two values are equal.
pub(crate) fn equals(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::String(a), Value::String(b)) | (Value::Type(a), Value::Type(b)) => a == b,
        (Value::Bytes(a), Value::Bytes(b)) => a == b,
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::List(a), Value::List(b)) => lists_equal(a, b),
        (Value::Map(a), Value::Map(b)) => {
            Arc::ptr_eq(a, b)
                || (a.len() == b.len()
                    && a.iter()
                        .zip(b.iter())
                        .all(|((ka, va), (kb, vb))| ka == kb && equals(va, vb)))
        }
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (Some(a), Some(b)) => equals(a, b),
            (None, None) => true,
            _ => false,
        },
        (Value::Opaque(a), Value::Opaque(b)) => a.equals(&**b),
        (a, b) => compare_numbers(a, b) == Some(Some(Ordering::Equal)),
    }
}

fn lists_equal(a: &List, b: &List) -> bool {
    if a.items.len() != b.items.len() {
        return false;
    }
    match &a.kind {
        ListKind::Atomic => a.items.iter().zip(&b.items).all(|(a, b)| equals(a, b)),
        ListKind::Set => match (keys(&a.items), keys(&b.items)) {
            (Some(have), Some(want)) => want.iter().all(|(key, _)| have.contains_key(key)),
            _ => b.items.iter().all(|b| a.items.iter().any(|a| equals(a, b))),
        },
        ListKind::Map(fields) => {
            let index: BTreeMap<_, _> = a
                .items
                .iter()
                .map(|item| (identity(item, fields), item))
                .collect();
            b.items.iter().all(|item| {
                index
                    .get(&identity(item, fields))
                    .is_some_and(|other| equals(other, item))
            })
        }
    }
}

fn keys(items: &[Value]) -> Option<BTreeMap<Key, usize>> {
    items
        .iter()
        .enumerate()
        .map(|(i, item)| Some((item.as_key()?, i)))
        .collect()
}

/// What identifies an element of a list that is a map.
fn identity(item: &Value, fields: &[String]) -> Vec<Option<Key>> {
    let Value::Map(map) = item else {
        return Vec::new();
    };
    fields
        .iter()
        .map(|field| {
            map.get(&Key::String(field.as_str().into()))
                .and_then(Value::as_key)
        })
        .collect()
}

/// Order, where the types have one.
pub(crate) fn compare(a: &Value, b: &Value) -> Result<Ordering, EvalError> {
    Ok(match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
        (a, b) => {
            let order = compare_numbers(a, b).ok_or_else(no_overload)?;
            order.ok_or_else(|| EvalError::new("NaN values cannot be ordered"))?
        }
    })
}

fn fits<T>(value: Option<T>, message: &str, wrap: fn(T) -> Value) -> Result<Value, EvalError> {
    value.map(wrap).ok_or_else(|| EvalError::new(message))
}

const INT: &str = "integer overflow";
const UINT: &str = "unsigned integer overflow";
const DURATION: &str = "duration overflow";
const TIMESTAMP: &str = "timestamp overflow";

/// `a + b`.
pub(crate) fn add(a: &Value, b: &Value) -> Result<Value, EvalError> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => fits(a.checked_add(*b), INT, Value::Int),
        (Value::Uint(a), Value::Uint(b)) => fits(a.checked_add(*b), UINT, Value::Uint),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        (Value::String(a), Value::String(b)) => Ok(Value::String([&**a, &**b].concat().into())),
        (Value::Bytes(a), Value::Bytes(b)) => Ok(Value::Bytes([&**a, &**b].concat().into())),
        (Value::List(a), Value::List(b)) => Ok(Value::List(Arc::new(concat(a, b)))),
        (Value::Duration(a), Value::Duration(b)) => fits(
            a.0.checked_add(b.0).map(Duration),
            DURATION,
            Value::Duration,
        ),
        (Value::Timestamp(t), Value::Duration(d)) | (Value::Duration(d), Value::Timestamp(t)) => {
            fits(t.add(*d), TIMESTAMP, Value::Timestamp)
        }
        _ => Err(no_overload()),
    }
}

/// Concatenation, union or merge: the left list decides.
fn concat(a: &List, b: &List) -> List {
    let mut items = a.items.clone();
    match &a.kind {
        ListKind::Atomic => {
            items.extend_from_slice(&b.items);
            return List {
                items,
                kind: ListKind::Atomic,
            };
        }
        ListKind::Set => {
            for item in &b.items {
                if !items.iter().any(|have| equals(have, item)) {
                    items.push(item.clone());
                }
            }
        }
        ListKind::Map(fields) => {
            let mut places: BTreeMap<_, _> = items
                .iter()
                .enumerate()
                .map(|(i, item)| (identity(item, fields), i))
                .collect();
            for item in &b.items {
                let key = identity(item, fields);
                match places.get(&key) {
                    Some(place) => items[*place] = item.clone(),
                    None => {
                        places.insert(key, items.len());
                        items.push(item.clone());
                    }
                }
            }
        }
    }
    List {
        items,
        kind: a.kind.clone(),
    }
}

/// `a - b`.
pub(crate) fn subtract(a: &Value, b: &Value) -> Result<Value, EvalError> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => fits(a.checked_sub(*b), INT, Value::Int),
        (Value::Uint(a), Value::Uint(b)) => fits(a.checked_sub(*b), UINT, Value::Uint),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a - b)),
        (Value::Duration(a), Value::Duration(b)) => fits(
            a.0.checked_sub(b.0).map(Duration),
            DURATION,
            Value::Duration,
        ),
        (Value::Timestamp(t), Value::Duration(d)) => fits(t.sub(*d), TIMESTAMP, Value::Timestamp),
        (Value::Timestamp(a), Value::Timestamp(b)) => {
            fits(Timestamp::since(*a, *b), DURATION, Value::Duration)
        }
        _ => Err(no_overload()),
    }
}

/// `a * b`.
pub(crate) fn multiply(a: &Value, b: &Value) -> Result<Value, EvalError> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => fits(a.checked_mul(*b), INT, Value::Int),
        (Value::Uint(a), Value::Uint(b)) => fits(a.checked_mul(*b), UINT, Value::Uint),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a * b)),
        _ => Err(no_overload()),
    }
}

/// `a / b`.
pub(crate) fn divide(a: &Value, b: &Value) -> Result<Value, EvalError> {
    match (a, b) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => {
            Err(EvalError::new("division by zero"))
        }
        (Value::Int(a), Value::Int(b)) => fits(a.checked_div(*b), INT, Value::Int),
        (Value::Uint(a), Value::Uint(b)) => Ok(Value::Uint(a / b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a / b)),
        _ => Err(no_overload()),
    }
}

/// `a % b`.
pub(crate) fn modulo(a: &Value, b: &Value) -> Result<Value, EvalError> {
    match (a, b) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => {
            Err(EvalError::new("modulus by zero"))
        }
        (Value::Int(a), Value::Int(b)) => fits(a.checked_rem(*b), INT, Value::Int),
        (Value::Uint(a), Value::Uint(b)) => Ok(Value::Uint(a % b)),
        _ => Err(no_overload()),
    }
}

/// `-a`.
pub(crate) fn negate(a: &Value) -> Result<Value, EvalError> {
    match a {
        Value::Int(n) => fits(n.checked_neg(), INT, Value::Int),
        Value::Double(n) => Ok(Value::Double(-n)),
        Value::Duration(d) => fits(d.0.checked_neg().map(Duration), DURATION, Value::Duration),
        _ => Err(no_overload()),
    }
}

/// `a in b`.
pub(crate) fn contains(item: &Value, range: &Value) -> Result<Value, EvalError> {
    match range {
        Value::List(list) => Ok(Value::Bool(
            list.items.iter().any(|have| equals(have, item)),
        )),
        Value::Map(map) => Ok(Value::Bool(
            item.as_key().is_some_and(|key| map.contains_key(&key)),
        )),
        Value::Opaque(opaque) => opaque
            .contains(item)
            .map(Value::Bool)
            .ok_or_else(no_overload),
        _ => Err(no_overload()),
    }
}

/// `range[index]`; `None` where there is nothing.
pub(crate) fn lookup(range: &Value, index: &Value) -> Result<Option<Value>, EvalError> {
    match range {
        Value::Map(map) => match index.as_key() {
            Some(key) => Ok(map.get(&key).cloned()),
            None if matches!(index, Value::Double(_)) => Ok(None),
            None => Err(EvalError::new(format!(
                "unsupported key type: {}",
                index.type_name()
            ))),
        },
        Value::List(list) => {
            let at = match index {
                Value::Int(n) => usize::try_from(*n).ok(),
                Value::Uint(n) => usize::try_from(*n).ok(),
                Value::Double(n) => match double_to_int(*n) {
                    #[allow(
                        clippy::cast_precision_loss,
                        reason = "compared with what it came from"
                    )]
                    Some(whole) if whole as f64 == *n => usize::try_from(whole).ok(),
                    _ => return Err(EvalError::new(format!("unsupported index value: {index}"))),
                },
                _ => {
                    return Err(EvalError::new(format!(
                        "unsupported index type '{}' in list",
                        index.type_name()
                    )));
                }
            };
            Ok(at.and_then(|at| list.items.get(at)).cloned())
        }
        _ => Err(no_overload()),
    }
}
