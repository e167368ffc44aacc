//! Numbers as Go's `%v` writes them, and the arithmetic of bounds.

/// A float as Go's `%v`: shortest form, with an exponent below 1e-4 and from 1e6 on.
pub(super) fn plain(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let magnitude = value.abs();
    if (1e-4..1e6).contains(&magnitude) {
        return format!("{value}");
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// A float without its fraction, as Go converts it.
#[allow(
    clippy::cast_possible_truncation,
    reason = "bounds beyond 64 bits are cut to them, as the reference's are on amd64"
)]
pub(super) fn whole(value: f64) -> i64 {
    value.trunc() as i64
}

/// Is it a whole number, as far as a float can tell? The tolerance is go-openapi's.
pub(super) fn is_whole(value: f64) -> bool {
    const MOST: f64 = 9_007_199_254_740_991.0;
    if value.is_nan() || value.is_infinite() || value.abs() > MOST {
        return false;
    }
    let truncated = value.trunc();
    let difference = (value - truncated).abs();
    difference < 1e-9 * value.abs().max(f64::MIN_POSITIVE) || difference == 0.0
}

#[cfg(test)]
mod tests {
    use super::{is_whole, plain};

    #[test]
    fn floats_read_as_in_go() {
        for (value, text) in [
            (0.0, "0"),
            (1.5, "1.5"),
            (100.0, "100"),
            (123_456.0, "123456"),
            (1_000_000.0, "1e+06"),
            (123_456_789.0, "1.23456789e+08"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-2.25, "-2.25"),
        ] {
            assert_eq!(plain(value), text);
        }
        assert!(is_whole(3.0) && !is_whole(3.5));
    }
}
