//! Estimated costs: what the reference's own tests say for the same expressions.

use evenkeel_cel::{CostEstimate, Env, Schema, Value};
use serde_json::json;

fn estimate(source: &str) -> CostEstimate {
    let schema = json!({"type": "object", "properties": {
        "text": {"type": "string", "maxLength": 10},
        "list": {"type": "array", "maxItems": 100, "items": {"type": "string", "maxLength": 5}},
        "numbers": {"type": "array", "maxItems": 10, "items": {"type": "integer"}},
        "map": {"type": "object", "maxProperties": 20, "additionalProperties": {"type": "string"}},
        "open": {"type": "array", "items": {"type": "string"}},
    }});
    let schema = Schema::from_openapi(&schema, "selfType", false).unwrap();
    Env::kubernetes()
        .with_variable("self", schema)
        .compile(source)
        .unwrap()
        .estimated_cost()
}

#[test]
fn estimates_follow_the_schemas() {
    for (source, min, max) in [
        ("true", 0, 0),
        ("1 in [1, 2, 3]", 13, 13),
        ("[1, 2, 3].size() == 3", 12, 12),
        ("has(self.text)", 1, 1),
        ("self.text == 'abc'", 3, 3),
        // A code point has up to four bytes: forty are read, a tenth each.
        ("self.text.startsWith(self.text)", 4, 8),
        ("self.numbers.all(x, x > 0)", 3, 53),
        ("self.list.all(x, x == 'abcde')", 3, 503),
        // Numbers have no size that comparing them could cost.
        ("self.numbers.all(x, self.numbers.all(y, y == x))", 3, 563),
    ] {
        assert_eq!(estimate(source), CostEstimate { min, max }, "{source}");
    }
}

#[test]
fn what_is_not_bounded_costs_a_request() {
    assert!(estimate("self.open.all(x, self.open.all(y, x == y))").max > 1_000_000_000_000);
    assert!(estimate("self.list.all(x, self.list.all(y, x == y))").max < 1_000_000);
}

#[test]
fn evaluation_stays_within_the_estimate() {
    let schema = Schema::list(Schema::dynamic()).with_max(10);
    let env = Env::kubernetes().with_variable("l", schema);
    let list = Value::list((0..10).map(Value::Int).collect());
    for source in [
        "l.all(x, x > -1)",
        "l.map(x, x * 2).size() == 10",
        "l.filter(x, x > 5).exists(x, x == 7)",
        "l.exists_one(x, x == 3)",
        "l[0] == 1 || l[1] == 1",
        "'abc'.matches('^a.*$') && 'abc'.contains('b')",
    ] {
        let program = env.compile(source).unwrap();
        let (value, cost) = program.evaluate_metered(&[("l", list.clone())], 1_000_000);
        let estimate = program.estimated_cost();
        assert!(value.is_ok(), "{source}: {value:?}");
        assert!(
            estimate.min <= cost && cost <= estimate.max,
            "{source}: {cost} is outside {estimate:?}"
        );
    }
}

/// Estimates and counted costs that the reference's own tests name. What is constant is counted
/// as free here, as on the reference's servers, so only the estimates of lists are compared.
#[test]
fn costs_of_the_libraries_are_the_reference_s() {
    for (source, estimate, counted) in [
        ("[1, 2, 3, 4, 5].sum()", (15, 15), None),
        (
            "[uint(1), uint(2), uint(3), uint(4), uint(5)].max()",
            (20, 20),
            None,
        ),
        (
            "'01234567890123456789012345678901234567890123456789'.indexOf('123')",
            (5, 5),
            Some(5),
        ),
        ("ip('192.168.0.1')", (2, 2), Some(2)),
        (
            "ip('2001:db8:3333:4444:5555:6666:7777:8888').family()",
            (5, 5),
            Some(5),
        ),
        (
            "ip.isCanonical('2001:db8:3333:4444:5555:6666:7777:8888')",
            (8, 8),
            Some(8),
        ),
        ("cidr('192.168.0.0/16').prefixLength()", (3, 3), Some(3)),
        (
            "cidr('192.168.0.0/16').containsCIDR(cidr('192.0.0.0/30'))",
            (7, 11),
            Some(7),
        ),
        (
            "cidr('192.168.0.0/16').containsIP('192.169.0.1')",
            (5, 8),
            Some(5),
        ),
        (
            "cidr('2001:db8::/32').containsIP(ip('2001:db8::1'))",
            (5, 8),
            Some(5),
        ),
        (
            "'ABCDEFGHIJ abcdefghij'.lowerAscii() == 'abcdefghij ABCDEFGHIJ'.lowerAscii()",
            (7, 9),
            Some(9),
        ),
        ("strings.quote('ABCDEFGHIJ abcdefghij')", (3, 3), Some(3)),
        ("'abc 123 def 123'.replace('123', '456')", (3, 3), Some(3)),
        ("'abc 123 def 123'.split(' ', 1)", (3, 3), Some(3)),
        ("'abc 123 def 123'.substring(5, 8)", (2, 2), Some(2)),
        ("'abc 123 def 123'.findAll('123')", (2, 2), Some(2)),
        (
            "quantity('50k').add(20).sub(quantity('100k')).asInteger() > 0",
            (6, 6),
            Some(6),
        ),
        ("sets.contains([1, 2, 3, 4], [2, 3])", (29, 29), None),
        ("!sets.equivalent([2, 1], [1])", (26, 26), None),
    ] {
        let program = Env::kubernetes().compile(source).unwrap();
        let (min, max) = estimate;
        assert_eq!(
            program.estimated_cost(),
            CostEstimate { min, max },
            "{source}"
        );
        if let Some(counted) = counted {
            let none: [(&str, Value); 0] = [];
            assert_eq!(
                program.evaluate_metered(&none, 1_000_000).1,
                counted,
                "{source}"
            );
        }
    }
}
