//! Quantities: exact decimal numbers with a suffix.
//!
//! Kept in billionths, the finest unit that quantities have, in 128 bits: more than the range that
//! the reference caps values to.

use std::any::Any;
use std::cmp::Ordering;

use super::{Library, Outcome};
use crate::errors::EvalError;
use crate::value::{Opaque, Value};

pub(crate) const LIBRARY: Library = Library {
    declarations: "
quantity string_to_quantity (string)->kubernetes.Quantity
isQuantity is_quantity_string (string)->bool
sign quantity_sign (kubernetes.Quantity)->int
sign quantity_sign_member kubernetes.Quantity.()->int
isGreaterThan quantity_is_greater_than kubernetes.Quantity.(kubernetes.Quantity)->bool
isLessThan quantity_is_less_than kubernetes.Quantity.(kubernetes.Quantity)->bool
compareTo quantity_compare_to kubernetes.Quantity.(kubernetes.Quantity)->int
asApproximateFloat quantity_get_float kubernetes.Quantity.()->double
asInteger quantity_get_int kubernetes.Quantity.()->int
isInteger quantity_is_integer kubernetes.Quantity.()->bool
add quantity_add kubernetes.Quantity.(kubernetes.Quantity)->kubernetes.Quantity
add quantity_add_int kubernetes.Quantity.(int)->kubernetes.Quantity
sub quantity_sub kubernetes.Quantity.(kubernetes.Quantity)->kubernetes.Quantity
sub quantity_sub_int kubernetes.Quantity.(int)->kubernetes.Quantity
",
    functions: &[
        ("quantity", quantity),
        ("isQuantity", is_quantity),
        ("sign", |a| own(a, |q| Ok(Value::Int(q.0.signum() as i64)))),
        ("isGreaterThan", |a| {
            super::semver::compare(a, |o| Value::Bool(o == Ordering::Greater))
        }),
        ("isLessThan", |a| {
            super::semver::compare(a, |o| Value::Bool(o == Ordering::Less))
        }),
        ("compareTo", |a| {
            super::semver::compare(a, |o| Value::Int(o as i64))
        }),
        ("asApproximateFloat", |a| {
            own(a, |q| Ok(Value::Double(q.approximate())))
        }),
        ("asInteger", |a| {
            own(a, |q| {
                q.integer()
                    .map(Value::Int)
                    .ok_or_else(|| EvalError::new("cannot convert value to integer"))
            })
        }),
        ("isInteger", |a| {
            own(a, |q| Ok(Value::Bool(q.integer().is_some())))
        }),
        ("add", |a| arithmetic(a, i128::saturating_add)),
        ("sub", |a| arithmetic(a, i128::saturating_sub)),
    ],
};

/// `kubernetes.Quantity`, in billionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Quantity(i128);

const NANO: i128 = 1_000_000_000;

impl Opaque for Quantity {
    fn type_name(&self) -> &str {
        "kubernetes.Quantity"
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref() == Some(self)
    }
}

impl Quantity {
    /// Reads `[+-]digits[.digits]suffix`; fractions finer than a billionth round away from zero.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        const FORMAT: &str = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
        if text.is_empty() {
            return Err(
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            );
        }
        let (negative, rest) = match text.as_bytes()[0] {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(FORMAT);
        }
        let (binary, exponent) = suffix_of(suffix).ok_or("unable to parse quantity's suffix")?;
        let mut digits: i128 = 0;
        let mut scale: i32 = 9 + exponent;
        let mut inexact = false;
        for c in whole.bytes() {
            digits = digits
                .checked_mul(10)
                .and_then(|d| d.checked_add(i128::from(c - b'0')))
                .unwrap_or(i128::MAX);
        }
        for c in fraction.bytes() {
            if digits < i128::MAX / 100 {
                digits = digits * 10 + i128::from(c - b'0');
                scale -= 1;
            } else {
                inexact |= c != b'0';
            }
        }
        let mut value = if digits == 0 {
            0
        } else {
            digits.saturating_mul(1i128 << binary)
        };
        while scale > 0 && value < i128::MAX && value != 0 {
            value = value.saturating_mul(10);
            scale -= 1;
        }
        while scale < 0 {
            inexact |= value % 10 != 0;
            value /= 10;
            scale += 1;
        }
        if inexact {
            value = value.saturating_add(1);
        }
        Ok(Self(if negative { -value } else { value }))
    }

    fn integer(self) -> Option<i64> {
        (self.0 % NANO == 0).then(|| i64::try_from(self.0 / NANO).ok())?
    }

    #[allow(clippy::cast_precision_loss, reason = "approximate, as its name says")]
    fn approximate(self) -> f64 {
        if self.0 % NANO == 0 {
            (self.0 / NANO) as f64
        } else {
            self.0 as f64 / NANO as f64
        }
    }
}

/// A suffix as a power of two and a power of ten.
fn suffix_of(suffix: &str) -> Option<(u32, i32)> {
    Some(match suffix {
        "" => (0, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        exponent => {
            let digits = exponent.strip_prefix(['e', 'E'])?;
            let power: i32 = digits.parse().ok()?;
            (0, power.clamp(-1000, 1000))
        }
    })
}

fn quantity(args: &[Value]) -> Outcome {
    let [Value::String(s)] = args else {
        return None;
    };
    Some(
        Quantity::parse(s)
            .map(Value::opaque)
            .map_err(EvalError::new),
    )
}

fn is_quantity(args: &[Value]) -> Outcome {
    let [Value::String(s)] = args else {
        return None;
    };
    Some(Ok(Value::Bool(Quantity::parse(s).is_ok())))
}

fn own(args: &[Value], of: fn(Quantity) -> Result<Value, EvalError>) -> Outcome {
    let [value] = args else { return None };
    value.downcast::<Quantity>().map(|q| of(*q))
}

fn arithmetic(args: &[Value], op: fn(i128, i128) -> i128) -> Outcome {
    let [left, right] = args else { return None };
    let left = left.downcast::<Quantity>()?;
    let right = match right {
        Value::Int(n) => i128::from(*n) * NANO,
        other => other.downcast::<Quantity>()?.0,
    };
    Some(Ok(Value::opaque(Quantity(op(left.0, right)))))
}
