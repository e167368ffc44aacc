//! The language itself, where the specification's vectors are silent or Kubernetes differs.

use evenkeel_cel::{Budget, Env, EvalError, Schema, Value};

use super::{eval, fail, hold};

#[test]
fn operators_and_macros() {
    hold(&[
        "1 + 2 * 3 == 7 && 7 / 2 == 3 && -7 % 3 == -1",
        "'a' + 'b' == 'ab' && b'a' + b'b' == b'ab' && [1] + [2] == [1, 2]",
        "[1, 2, 3].all(x, x > 0) && [1, 2, 3].exists(x, x == 2) && [1, 2, 3].exists_one(x, x > 2)",
        "[1, 2, 3].map(x, x * 2) == [2, 4, 6] && [1, 2, 3].map(x, x > 1, x * 2) == [4, 6]",
        "[1, 2, 3].filter(x, x != 2) == [1, 3] && {'a': 1}.map(k, k) == ['a']",
        "[[1, 2], [3]].map(l, l.map(x, x + 1)) == [[2, 3], [4]]",
        "{'a': 1, 'b': 2}.all(k, v, v > 0) && [5, 6].exists(i, v, i == 1 && v == 6)",
        "[1, 2].transformList(i, v, i + v) == [1, 3]",
        "{'a': 1}.transformMap(k, v, v + 1) == {'a': 2}",
        "{'a': 'x'}.transformMapEntry(k, v, {v: k}) == {'x': 'a'}",
        "has({'a': 1}.a) && !has({'a': 1}.b)",
        "true || 1 / 0 == 1",
        "!(false && 1 / 0 == 1)",
        "[1, 0].exists(x, 1 / x == 1)",
        "2 in [1, 2] && 'a' in {'a': 1} && !('b' in {'a': 1})",
        "dyn(1) == 1.0 && dyn(1) == 1u && dyn([1, 2]) != dyn('a')",
        "type(1) == int && type([]) == list && type(duration('1s')) == google.protobuf.Duration",
        "(1 > 2 ? 'a' : 'b') == 'b'",
        "'\\u00e9'.size() == 1 && size(b'\\xff') == 1 && r'\\n'.size() == 2",
        "'''a\n'b'''.size() == 4",
    ]);
}

#[test]
fn optional_values() {
    hold(&[
        "{'a': {'b': 1}}.?a.b.orValue(2) == 1 && {'a': {'b': 1}}.?x.b.orValue(2) == 2",
        "[1][?3].orValue(9) == 9 && [1][?0].value() == 1 && !{'a': 1}[?'b'].hasValue()",
        "optional.of(1).optMap(x, x + 1).value() == 2 && !optional.none().hasValue()",
        "optional.of(1).optFlatMap(x, optional.of(x + 1)).value() == 2",
        "optional.none().or(optional.of(3)).value() == 3",
        "[1, ?optional.none(), ?optional.of(2)] == [1, 2] && {?'a': optional.none()} == {}",
        "optional.ofNonZeroValue('').orValue('x') == 'x'",
        "[1, 2].first().value() == 1 && ![].last().hasValue()",
    ]);
    fail(&[(
        "optional.none().value() == 1",
        "optional.none() dereference",
    )]);
}

#[test]
fn time() {
    hold(&[
        "timestamp('2024-02-29T23:59:59.5Z') + duration('1s') == timestamp('2024-03-01T00:00:00.5Z')",
        "timestamp('2024-01-01T00:00:00Z') - timestamp('2023-12-31T00:00:00Z') == duration('24h')",
        "timestamp('2024-01-01T00:00:00+02:00').getHours() == 22",
        "timestamp('2024-01-01T00:00:00Z').getHours('+05:30') == 5",
        "timestamp('2024-05-26T00:00:00Z').getDayOfWeek() == 0",
        "string(duration('90m')) == '5400s' && string(duration('1.5s')) == '1.5s'",
        "string(timestamp('9999-12-31T23:59:59Z')) == '9999-12-31T23:59:59Z'",
        "duration('1h') > duration('59m') && int(timestamp('1970-01-01T00:01:00Z')) == 60",
    ]);
    fail(&[(
        "timestamp('9999-12-31T23:59:59Z') + duration('1s') > timestamp('2020-01-01T00:00:00Z')",
        "timestamp overflow",
    )]);
}

#[test]
fn failures_speak_as_the_reference() {
    fail(&[
        ("1 / 0 == 1", "division by zero"),
        ("1 % 0 == 1", "modulus by zero"),
        ("9223372036854775807 + 1 > 0", "integer overflow"),
        ("0u - 1u == 0u", "unsigned integer overflow"),
        ("{'a': 1}['b'] == 1", "no such key: b"),
        ("{'a': 1}.b == 1", "no such key: b"),
        ("[1][3] == 1", "index out of bounds: 3"),
        ("dyn(1) + dyn('a') == 1", "no such overload"),
        (
            "int('x') == 1",
            "type conversion error from 'string' to 'int'",
        ),
        (
            "dyn('a').startsWith(dyn(1))",
            "no such overload: startsWith(string, int)",
        ),
        ("dyn(1).all(x, true)", "got 'int', expected iterable type"),
        (
            "'x'.matches('a' + '(')",
            "error parsing regexp: unclosed group: `a(`",
        ),
    ]);
}

#[test]
fn limits_end_what_would_run_long() {
    let env = Env::kubernetes().with_variable("l", Schema::list(Schema::dynamic()));
    let list = Value::list((0..1_000).map(Value::Int).collect());
    let program = env
        .compile("l.all(x, l.all(y, l.all(z, x + y + z >= 0)))")
        .unwrap();
    let mut budget = Budget::default();
    let variables = [("l", list)];
    assert_eq!(
        program.evaluate(&variables, &mut budget),
        Err(EvalError::CostLimitExceeded)
    );
    let small = env.compile("l.all(x, x >= 0)").unwrap();
    let mut budget = Budget::new(1_000_000, 100);
    assert_eq!(
        small.evaluate(&variables, &mut budget),
        Err(EvalError::BudgetExhausted)
    );
    assert_eq!(budget.remaining(), 0);
}

#[test]
fn deep_sources_are_refused_and_deep_trees_evaluated() {
    let deep = format!("{}1{}", "(".repeat(300), ")".repeat(300));
    assert!(
        eval(&deep)
            .unwrap_err()
            .contains("expression recursion limit exceeded: 250")
    );
    let chain = vec!["1"; 300].join(" + ");
    assert_eq!(eval(&chain), Ok(Value::Int(300)));
    let long = vec!["1"; 5_000].join(" + ");
    assert!(
        eval(&long)
            .unwrap_err()
            .contains("expression recursion limit exceeded")
    );
    let balanced = vec!["true"; 5_000].join(" && ");
    assert_eq!(eval(&balanced), Ok(Value::Bool(true)));
    let nested = format!("{}true{}", "[1].all(x, ".repeat(60), ")".repeat(60));
    assert_eq!(eval(&nested), Ok(Value::Bool(true)));
    let doubling = format!("optional.of(1){}", ".optMap(x, x)".repeat(100));
    assert!(eval(&doubling).unwrap_err().contains("too many nodes"));
}
