//! What does not compile, and in which words.

use evenkeel_cel::{Env, Schema, Type};

fn error(env: &Env, source: &str) -> String {
    env.compile(source).unwrap_err().to_string()
}

#[test]
fn errors_show_the_place() {
    let env = Env::kubernetes();
    assert_eq!(
        error(&env, "1 + foo"),
        "ERROR: <input>:1:5: undeclared reference to 'foo' (in container '')\n | 1 + foo\n | ....^"
    );
    assert_eq!(
        error(&env, "1 == 1 &&\n  bar(2)"),
        "ERROR: <input>:2:6: undeclared reference to 'bar' (in container '')\n |   bar(2)\n | .....^"
    );
    assert_eq!(
        error(&env, "1 + 'a'"),
        "ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, string)'\n | 1 + 'a'\n | ..^"
    );
    assert_eq!(
        error(&env, "'a'.size(1)"),
        "ERROR: <input>:1:9: found no matching overload for 'size' applied to 'string.(int)'\n | 'a'.size(1)\n | ........^"
    );
    assert_eq!(
        error(&env, "1 &&"),
        "ERROR: <input>:1:5: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', \
         'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n | 1 &&\n | ....^"
    );
    assert_eq!(
        error(&env, "1 && true"),
        "ERROR: <input>:1:1: expected type 'bool' but found 'int'\n | 1 && true\n | ^"
    );
}

#[test]
fn all_findings_are_reported_in_order() {
    let text = error(&Env::kubernetes(), "b == a");
    let lines: Vec<_> = text.lines().filter(|l| l.starts_with("ERROR")).collect();
    assert_eq!(
        lines,
        [
            "ERROR: <input>:1:1: undeclared reference to 'b' (in container '')",
            "ERROR: <input>:1:6: undeclared reference to 'a' (in container '')",
        ]
    );
}

#[test]
fn objects_are_known_field_by_field() {
    let inner = Schema::object(
        "object.spec",
        [("replicas".to_owned(), Schema::simple(Type::Int))],
    );
    let object = Schema::object("object", [("spec".to_owned(), inner)]);
    let env = Env::kubernetes().with_variable("object", object);
    assert!(env.compile("object.spec.replicas > 3").is_ok());
    assert!(error(&env, "object.spec.foo > 3").starts_with(
        "ERROR: <input>:1:12: undefined field 'foo'\n | object.spec.foo > 3\n | ...........^"
    ));
    assert!(
        error(&env, "object.spec.replicas > 'a'")
            .contains("found no matching overload for '_>_' applied to '(int, string)'")
    );
    assert!(error(&env, "object.all(x, true)").contains(
        "expression of type 'object' cannot be range of a comprehension (must be list, map, or dynamic)"
    ));
}

#[test]
fn literals_are_checked_early() {
    let env = Env::kubernetes();
    for (source, words) in [
        (
            "duration('x') == duration('1s')",
            "invalid duration argument",
        ),
        (
            "timestamp('x') > timestamp('2020-01-01T00:00:00Z')",
            "invalid timestamp argument",
        ),
        ("'a'.matches('(')", "invalid matches argument"),
        (
            "[1, 'a'].size() == 2",
            "expected type 'int' but found 'string'",
        ),
        ("has(1)", "invalid argument to has() macro"),
        ("[1].all(1, true)", "argument must be a simple name"),
        ("for == 1", "reserved identifier: for"),
        ("9223372036854775808 > 0", "invalid int literal"),
        ("'\\q' == ''", "unable to unescape string"),
        ("1 $ 2", "Syntax error: token recognition error at: '$'"),
    ] {
        assert!(
            error(&env, source).contains(words),
            "{source}: {}",
            error(&env, source)
        );
    }
}

#[test]
fn the_type_of_a_program_is_known() {
    let env = Env::kubernetes().with_variable("x", Schema::dynamic());
    for (source, t) in [
        ("1 == 1", "bool"),
        ("'a' + 'b'", "string"),
        ("[1].map(x, string(x))", "list(string)"),
        ("x.y", "dyn"),
        ("{'a': 1}", "map(string, int)"),
        ("optional.of(1)", "optional_type(int)"),
        ("quantity('1')", "kubernetes.Quantity"),
    ] {
        assert_eq!(
            env.compile(source).unwrap().output().to_string(),
            t,
            "{source}"
        );
    }
}
