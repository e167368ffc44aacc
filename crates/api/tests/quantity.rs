//! How amounts are written, by what apimachinery's `resource.Quantity` writes for the same text.

use evenkeel_api::quantity::Quantity;

/// What was read, and what the reference writes for it.
const WRITTEN: &[(&str, &str)] = &[
    ("0", "0"),
    ("1500m", "1500m"),
    ("1024Mi", "1Gi"),
    ("1.5Gi", "1536Mi"),
    ("1000Ki", "1000Ki"),
    // Below 1,024 a binary amount is written in decimal.
    ("0.5Ki", "512"),
    // A binary amount that is no whole number is written in decimal, without loss.
    ("1.1Gi", "1181116006400m"),
    ("-1.1Mi", "-1153433600m"),
    ("0.001161Ti", "1276532999847936u"),
    ("1e3", "1e3"),
    ("12000", "12k"),
];

#[test]
fn amounts_are_written_as_the_reference_writes_them() {
    for (text, written) in WRITTEN {
        let amount: Quantity = text.parse().expect("an amount");
        assert_eq!(amount.to_string(), *written, "{text}");
        let again: Quantity = written.parse().expect("what was written");
        assert_eq!(again, amount, "{text} is what was written of it");
    }
}
