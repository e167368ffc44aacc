//! The math extension; the general environment has it, Kubernetes' has not.

use std::cmp::Ordering;

use super::{Library, Outcome};
use crate::errors::EvalError;
use crate::ops;
use crate::value::Value;

pub(crate) const LIBRARY: Library = Library {
    declarations: "
math.@min math_@min_double (double)->double
math.@min math_@min_int (int)->int
math.@min math_@min_uint (uint)->uint
math.@min math_@min_any_any (dyn,dyn)->dyn
math.@min math_@min_list (list<dyn>)->dyn
math.@max math_@max_double (double)->double
math.@max math_@max_int (int)->int
math.@max math_@max_uint (uint)->uint
math.@max math_@max_any_any (dyn,dyn)->dyn
math.@max math_@max_list (list<dyn>)->dyn
math.ceil math_ceil_double (double)->double
math.floor math_floor_double (double)->double
math.round math_round_double (double)->double
math.trunc math_trunc_double (double)->double
math.sqrt math_sqrt_double (double)->double
math.sqrt math_sqrt_int (int)->double
math.sqrt math_sqrt_uint (uint)->double
math.abs math_abs_double (double)->double
math.abs math_abs_int (int)->int
math.abs math_abs_uint (uint)->uint
math.sign math_sign_double (double)->double
math.sign math_sign_int (int)->int
math.sign math_sign_uint (uint)->uint
math.isNaN math_isNaN_double (double)->bool
math.isInf math_isInf_double (double)->bool
math.isFinite math_isFinite_double (double)->bool
math.bitAnd math_bitAnd_int_int (int,int)->int
math.bitAnd math_bitAnd_uint_uint (uint,uint)->uint
math.bitOr math_bitOr_int_int (int,int)->int
math.bitOr math_bitOr_uint_uint (uint,uint)->uint
math.bitXor math_bitXor_int_int (int,int)->int
math.bitXor math_bitXor_uint_uint (uint,uint)->uint
math.bitNot math_bitNot_int_int (int)->int
math.bitNot math_bitNot_uint_uint (uint)->uint
math.bitShiftLeft math_bitShiftLeft_int_int (int,int)->int
math.bitShiftLeft math_bitShiftLeft_uint_int (uint,int)->uint
math.bitShiftRight math_bitShiftRight_int_int (int,int)->int
math.bitShiftRight math_bitShiftRight_uint_int (uint,int)->uint
",
    functions: &[
        ("math.@min", |a| {
            extreme(
                a,
                Ordering::Greater,
                "math.@min(list) argument must not be empty",
            )
        }),
        ("math.@max", |a| {
            extreme(
                a,
                Ordering::Less,
                "math.@max(list) argument must not be empty",
            )
        }),
        ("math.ceil", |a| double(a, f64::ceil)),
        ("math.floor", |a| double(a, f64::floor)),
        ("math.round", |a| double(a, f64::round)),
        ("math.trunc", |a| double(a, f64::trunc)),
        ("math.sqrt", sqrt),
        ("math.abs", abs),
        ("math.sign", sign),
        ("math.isNaN", |a| test(a, f64::is_nan)),
        ("math.isInf", |a| test(a, f64::is_infinite)),
        ("math.isFinite", |a| test(a, f64::is_finite)),
        ("math.bitAnd", |a| bits(a, |a, b| a & b)),
        ("math.bitOr", |a| bits(a, |a, b| a | b)),
        ("math.bitXor", |a| bits(a, |a, b| a ^ b)),
        ("math.bitNot", not),
        ("math.bitShiftLeft", |a| {
            shift(a, "Left", |n, by| n.checked_shl(by).unwrap_or(0))
        }),
        ("math.bitShiftRight", |a| {
            shift(a, "Right", |n, by| n.checked_shr(by).unwrap_or(0))
        }),
    ],
};

fn extreme(args: &[Value], replace: Ordering, empty: &str) -> Outcome {
    let items = match args {
        [Value::List(list)] => list.items.as_slice(),
        args => args,
    };
    let Some(mut best) = items.first() else {
        return Some(Err(EvalError::new(empty)));
    };
    if !items
        .iter()
        .all(|v| matches!(v, Value::Int(_) | Value::Uint(_) | Value::Double(_)))
    {
        return None;
    }
    for item in &items[1..] {
        match ops::compare(best, item) {
            Ok(order) if order == replace => best = item,
            Ok(_) => {}
            Err(error) => return Some(Err(error)),
        }
    }
    Some(Ok(best.clone()))
}

fn double(args: &[Value], of: fn(f64) -> f64) -> Outcome {
    let [Value::Double(n)] = args else {
        return None;
    };
    Some(Ok(Value::Double(of(*n))))
}

fn test(args: &[Value], of: fn(f64) -> bool) -> Outcome {
    let [Value::Double(n)] = args else {
        return None;
    };
    Some(Ok(Value::Bool(of(*n))))
}

#[allow(
    clippy::cast_precision_loss,
    reason = "the conversion that was asked for"
)]
fn sqrt(args: &[Value]) -> Outcome {
    let n = match args {
        [Value::Double(n)] => *n,
        [Value::Int(n)] => *n as f64,
        [Value::Uint(n)] => *n as f64,
        _ => return None,
    };
    Some(Ok(Value::Double(n.sqrt())))
}

fn abs(args: &[Value]) -> Outcome {
    Some(match args {
        [Value::Double(n)] => Ok(Value::Double(n.abs())),
        [Value::Int(n)] => n
            .checked_abs()
            .map(Value::Int)
            .ok_or_else(|| EvalError::new("integer overflow")),
        [Value::Uint(n)] => Ok(Value::Uint(*n)),
        _ => return None,
    })
}

fn sign(args: &[Value]) -> Outcome {
    Some(Ok(match args {
        [Value::Double(n)] if n.is_nan() || *n == 0.0 => Value::Double(*n),
        [Value::Double(n)] => Value::Double(n.signum()),
        [Value::Int(n)] => Value::Int(n.signum()),
        [Value::Uint(n)] => Value::Uint(u64::from(*n > 0)),
        _ => return None,
    }))
}

fn bits(args: &[Value], of: fn(u64, u64) -> u64) -> Outcome {
    Some(Ok(match args {
        [Value::Int(a), Value::Int(b)] => {
            Value::Int(of(a.cast_unsigned(), b.cast_unsigned()).cast_signed())
        }
        [Value::Uint(a), Value::Uint(b)] => Value::Uint(of(*a, *b)),
        _ => return None,
    }))
}

fn not(args: &[Value]) -> Outcome {
    Some(Ok(match args {
        [Value::Int(n)] => Value::Int(!n),
        [Value::Uint(n)] => Value::Uint(!n),
        _ => return None,
    }))
}

fn shift(args: &[Value], side: &str, of: fn(u64, u32) -> u64) -> Outcome {
    let [value, Value::Int(by)] = args else {
        return None;
    };
    if *by < 0 {
        return Some(Err(EvalError::new(format!(
            "math.bitShift{side}() negative offset: {by}"
        ))));
    }
    let by = u32::try_from(*by).unwrap_or(u32::MAX);
    Some(Ok(match value {
        Value::Int(n) => Value::Int(of(n.cast_unsigned(), by).cast_signed()),
        Value::Uint(n) => Value::Uint(of(*n, by)),
        _ => return None,
    }))
}
