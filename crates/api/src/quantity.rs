//! `resource.Quantity`: fixed-point numbers with suffixes, parsed, compared and written in the
//! canonical form of `k8s.io/apimachinery/pkg/api/resource`.
//!
//! A quantity is held as an integer count of nano-units (10⁻⁹), which is the precision the
//! reference keeps; finer digits are rounded up, away from zero.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

const NANO: i128 = 1_000_000_000;
/// The reference caps magnitudes at 2⁶³-1.
const MAX: i128 = (i64::MAX as i128) * NANO;

/// The text that the reference prints for a quantity it can't read.
pub const FORMAT_ERROR: &str = "quantities must match the regular expression \
     '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// Why a quantity could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{FORMAT_ERROR}")]
pub struct QuantityError;

/// How a quantity was written, and will be written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// `12e6`
    DecimalExponent,
    /// `12Mi`
    BinarySi,
    /// `12M`
    DecimalSi,
}

/// A fixed-point number.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl Default for Quantity {
    fn default() -> Self {
        Self {
            nano: 0,
            format: Format::DecimalSi,
        }
    }
}

const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];
const BINARY: [(&str, u32); 6] = [
    ("Ki", 10),
    ("Mi", 20),
    ("Gi", 30),
    ("Ti", 40),
    ("Pi", 50),
    ("Ei", 60),
];

impl Quantity {
    /// A whole number of units.
    #[must_use]
    pub fn from_units(units: i64, format: Format) -> Self {
        Self {
            nano: i128::from(units) * NANO,
            format,
        }
    }

    /// A number of thousandths, for example millicores.
    #[must_use]
    pub fn from_milli(milli: i64) -> Self {
        Self {
            nano: i128::from(milli) * (NANO / 1000),
            format: Format::DecimalSi,
        }
    }

    /// Units, rounded up (away from zero).
    #[must_use]
    pub fn units(&self) -> i64 {
        clamp(div_up(self.nano, NANO))
    }

    /// Thousandths, rounded up: millicores for CPU.
    #[must_use]
    pub fn milli(&self) -> i64 {
        clamp(div_up(self.nano, NANO / 1000))
    }

    /// Thousandths, where they say it exactly and fit.
    #[must_use]
    pub fn exact_milli(&self) -> Option<i64> {
        let each = NANO / 1000;
        let exact = self.nano % each == 0;
        exact
            .then(|| i64::try_from(self.nano / each).ok())
            .flatten()
    }

    /// Below zero?
    #[must_use]
    pub fn is_negative(&self) -> bool {
        self.nano < 0
    }

    /// Zero?
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.nano == 0
    }

    /// A whole number of units?
    #[must_use]
    pub fn is_integer(&self) -> bool {
        self.nano % NANO == 0
    }

    /// The sum, in the format of `self` unless that is zero.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let format = if self.is_zero() {
            other.format
        } else {
            self.format
        };
        Self {
            nano: self.nano.saturating_add(other.nano),
            format,
        }
    }

    /// The first of `from`, `from + step`, `from + 2 step` and so on that is at least `self`, in the
    /// format of `step`; `self` where the step leads nowhere.
    #[must_use]
    pub fn stepped(&self, from: &Self, step: &Self) -> Self {
        if step.nano <= 0 {
            return *self;
        }
        let over = self.nano.saturating_sub(from.nano).max(0);
        let steps = over / step.nano + i128::from(over % step.nano != 0);
        Self {
            nano: from.nano.saturating_add(steps.saturating_mul(step.nano)),
            format: step.format,
        }
    }

    /// The difference, in the format of `self`.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self {
            nano: self.nano.saturating_sub(other.nano),
            format: self.format,
        }
    }
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// Division that rounds away from zero.
fn div_up(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    if value % by == 0 {
        quotient
    } else {
        quotient + value.signum()
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
            None => return Err(QuantityError),
        };
        let digits_end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(digits_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError);
        }
        let (format, decimal_shift, binary_shift) = suffix_of(suffix)?;
        let magnitude = scale(whole, fraction, decimal_shift, binary_shift);
        Ok(Self {
            nano: if negative { -magnitude } else { magnitude },
            format,
        })
    }
}

fn suffix_of(suffix: &str) -> Result<(Format, i32, u32), QuantityError> {
    if let Some((_, shift)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Ok((Format::BinarySi, 0, *shift));
    }
    if let Some((_, shift)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Ok((Format::DecimalSi, *shift, 0));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError)?;
    let shift: i32 = exponent.parse().map_err(|_| QuantityError)?;
    Ok((Format::DecimalExponent, shift, 0))
}

/// `whole.fraction × 10^decimal × 2^binary` in nano-units, rounded up and capped.
fn scale(whole: &str, fraction: &str, decimal: i32, binary: u32) -> i128 {
    let shift = i64::from(decimal) + 9;
    let mut value: i128 = 0;
    let mut inexact = false;
    let mut taken: i64 = 0;
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    let wanted = i64::try_from(whole.len())
        .unwrap_or(i64::MAX)
        .saturating_add(shift);
    // Digits beyond the nano place still count when a binary suffix multiplies them.
    let extra = i64::from(binary.div_ceil(3));
    for digit in whole.bytes().chain(fraction.bytes()) {
        if taken >= wanted.saturating_add(extra) {
            inexact |= digit != b'0';
            continue;
        }
        if value > MAX * 1024 {
            return MAX;
        }
        value = value * 10 + i128::from(digit - b'0');
        taken += 1;
    }
    let mut missing = wanted - taken;
    if value == 0 {
        return i128::from(inexact);
    }
    while missing > 0 {
        if value > MAX {
            return MAX;
        }
        value *= 10;
        missing -= 1;
    }
    let mut shifted = 0;
    while shifted < binary && value <= MAX * 1024 {
        value *= 2;
        shifted += 1;
    }
    if shifted < binary {
        return MAX;
    }
    while missing < 0 {
        inexact |= value % 10 != 0;
        value /= 10;
        missing += 1;
    }
    if inexact {
        value += 1;
    }
    value.min(MAX)
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        let small = self.nano.abs() < 1024 * NANO;
        match self.format {
            Format::BinarySi if !small && self.nano % NANO == 0 => {
                let units = self.nano / NANO;
                let (suffix, shift) = BINARY
                    .iter()
                    .rev()
                    .find(|(_, shift)| units % (1_i128 << shift) == 0)
                    .copied()
                    .unwrap_or(("", 0));
                write!(f, "{}{suffix}", units >> shift)
            }
            Format::DecimalExponent => {
                let (mantissa, exponent) = thousands(self.nano);
                if exponent == 0 {
                    write!(f, "{mantissa}")
                } else {
                    write!(f, "{mantissa}e{exponent}")
                }
            }
            _ => {
                let (mantissa, exponent) = thousands(self.nano);
                let suffix = DECIMAL
                    .iter()
                    .find(|(_, shift)| *shift == exponent)
                    .map_or("", |(suffix, _)| *suffix);
                write!(f, "{mantissa}{suffix}")
            }
        }
    }
}

/// The largest power of a thousand that divides the value, up to 10¹⁸.
fn thousands(nano: i128) -> (i128, i32) {
    let mut mantissa = nano;
    let mut exponent = -9;
    while exponent < 18 && mantissa % 1000 == 0 {
        mantissa /= 1000;
        exponent += 3;
    }
    (mantissa, exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        text.parse::<Quantity>().expect(text).to_string()
    }

    #[test]
    fn canonical_forms_of_the_reference() {
        for (given, wanted) in [
            ("0", "0"),
            ("1.5", "1500m"),
            ("1.5Gi", "1536Mi"),
            ("1000m", "1"),
            ("1000", "1k"),
            ("250m", "250m"),
            ("384Mi", "384Mi"),
            ("1024Mi", "1Gi"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("12e6", "12e6"),
            ("1E", "1E"),
            ("100E3", "100e3"),
            ("-1", "-1"),
            ("+1", "1"),
            ("0.1m", "100u"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            (".5", "500m"),
            ("5.", "5"),
            ("1Ki", "1Ki"),
            ("1023", "1023"),
            ("1.25Ki", "1280"),
        ] {
            assert_eq!(canonical(given), wanted, "{given}");
        }
    }

    #[test]
    fn bad_forms() {
        for bad in [
            "", "a", "1.2.3", "1ki", "1mm", "1 Mi", "--1", "1e", ".", "1Kii", "e3",
        ] {
            assert!(bad.parse::<Quantity>().is_err(), "{bad}");
        }
    }

    #[test]
    fn arithmetic_and_rounding() {
        let half: Quantity = "500m".parse().expect("good");
        assert_eq!(half.units(), 1);
        assert_eq!(half.milli(), 500);
        let sum = half.plus(&"1".parse().expect("good"));
        assert_eq!(sum.to_string(), "1500m");
        assert!("1Gi".parse::<Quantity>().expect("good") > "1G".parse().expect("good"));
        assert_eq!(
            "99999999999999999999999"
                .parse::<Quantity>()
                .expect("capped")
                .units(),
            i64::MAX
        );
    }
}
