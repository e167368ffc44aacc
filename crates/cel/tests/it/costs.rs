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
