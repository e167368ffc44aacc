//! Small languages: selectors, amounts, paths, schedules, expressions.

use std::sync::LazyLock;

use evenkeel_api::quantity::Quantity;
use evenkeel_api::selector::{FieldSelector, LabelSelector};
use evenkeel_api::validation::{self, Cursor};
use evenkeel_api::{ErrorList, Path, cron, jsonpath, names};
use evenkeel_cel::{Budget, Env, Schema as CelSchema, Type, Value as CelValue};

use serde_json::{Value, json};

use super::text;
use crate::Shape;

pub(super) fn labels(input: &[u8]) -> Shape {
    let Some(text) = text(input) else {
        return Shape(0);
    };
    match LabelSelector::parse(text) {
        Ok(selector) => {
            let all = selector.matches_with(|_| Some("a"));
            let none = selector.matches_with(|_| None);
            Shape::of((
                0,
                all,
                none,
                selector.is_everything(),
                selector.is_nothing(),
            ))
        }
        Err(error) => Shape::of_message(&error.to_string()),
    }
}

/// The structured form of label selectors, as kinds have it in their objects.
pub(super) fn label_spec(input: &[u8]) -> Shape {
    let Ok(value) = serde_json::from_slice::<Value>(input) else {
        return Shape(0);
    };
    let mut wrong = ErrorList::new();
    validation::label_selector(&Cursor::root(&value), &mut wrong);
    let labels = json!({"a": "b", "app": "web", "n": "5"});
    let selects = validation::selects(&value, &labels);
    let told: Vec<String> = wrong.iter().map(ToString::to_string).collect();
    let Ok(spec) = serde_json::from_value(value) else {
        return Shape::of((1, selects));
    };
    match LabelSelector::from_spec(Some(&spec)) {
        Ok(selector) => {
            let chosen = selector.matches_with(|key| labels[key].as_str());
            if told.is_empty() {
                assert_eq!(selects, Some(chosen), "both read it alike");
            }
            Shape::of((2, chosen, told.len().min(4)))
        }
        Err(error) => {
            assert!(!told.is_empty(), "what can't be read is wrong");
            Shape::of_message(&error.to_string())
        }
    }
}

pub(super) fn fields(input: &[u8]) -> Shape {
    let Some(text) = text(input) else {
        return Shape(0);
    };
    match FieldSelector::parse(text) {
        Ok(selector) => {
            let matches = selector.matches_with(|_| "a");
            let written: Vec<String> = selector.terms.iter().map(written).collect();
            let again = FieldSelector::parse(&written.join(","));
            assert_eq!(
                again.as_ref(),
                Ok(&selector),
                "{written:?} is read as it was"
            );
            Shape::of((0, matches, selector.terms.len().min(4)))
        }
        Err(error) => Shape::of_message(&error.to_string()),
    }
}

/// A term as a client writes it.
fn written((field, equal, value): &(String, bool, String)) -> String {
    let operator = if *equal { "=" } else { "!=" };
    let mut out = format!("{field}{operator}");
    for letter in value.chars() {
        if matches!(letter, '\\' | ',' | '=') {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

/// Names, addresses and networks by every rule that there is.
pub(super) fn names(input: &[u8]) -> Shape {
    let Some(text) = text(input) else {
        return Shape(0);
    };
    let rules = [
        names::dns1123_label,
        names::dns1123_subdomain,
        names::wildcard_dns1123_subdomain,
        names::dns1035_label,
        names::path_segment,
        names::qualified_name,
        names::label_value,
        validation::text::port_name,
        validation::text::env_name,
        validation::text::config_key,
        validation::text::header_name,
        validation::text::percent,
        validation::text::subdomain_with_underscore,
    ];
    let holds = rules.map(|rule| rule(text).is_empty());
    assert!(!holds[0] || holds[1], "a label is a subdomain");
    assert!(!holds[3] || holds[0], "an old label is a label");
    assert!(!holds[0] || holds[4], "and a segment of a path");
    let checks = [
        validation::ip,
        validation::legacy_ip,
        validation::cidr,
        validation::legacy_cidr,
        validation::non_special_ip,
        validation::domain_prefixed_path,
    ];
    let good = checks.map(|check| {
        let mut wrong = ErrorList::new();
        check(text, &Path::root(), &mut wrong);
        wrong.is_empty()
    });
    assert!(!good[0] || good[1], "what is allowed now was always");
    assert!(!good[2] || good[3], "networks too");
    if good[0] {
        assert_eq!(validation::parse_ip_sloppy(text), text.parse().ok());
    }
    let (left, right) = text.split_once(' ').unwrap_or((text, ""));
    let order = names::version_order(left, right);
    assert_eq!(names::version_order(right, left), order.reverse());
    Shape::of((holds, good, order, names::any(text).len()))
}

pub(super) fn quantity(input: &[u8]) -> Shape {
    let Some(text) = text(input) else {
        return Shape(0);
    };
    match text.parse::<Quantity>() {
        Ok(quantity) => {
            let written = quantity.to_string();
            let again: Quantity = written.parse().expect("what was written is read");
            assert_eq!(again, quantity, "and is the same amount");
            // A binary amount written in decimal is decimal from then on.
            let settled = again.to_string();
            let once_more: Quantity = settled.parse().expect("what was written is read");
            assert_eq!(once_more.to_string(), settled, "and written the same");
            assert_eq!(again.units(), quantity.units());
            assert_eq!(again.is_negative(), quantity.is_negative());
            let none = quantity.minus(&quantity);
            assert!(
                none.is_zero(),
                "nothing is left of {written} without itself"
            );
            let suffix: String = written.chars().filter(|c| !c.is_numeric()).collect();
            Shape::of((0, suffix))
        }
        Err(error) => Shape::of_message(&error.to_string()),
    }
}

pub(super) fn jsonpath(input: &[u8]) -> Shape {
    let Some(text) = text(input) else {
        return Shape(0);
    };
    let value = serde_json::json!({"a": [{"b": 1, "c": "x"}, {"b": 2}], "d": {"e.f": true}});
    match jsonpath::JsonPath::parse(text) {
        Ok(path) => Shape::of((0, path.find(&value).len())),
        Err(error) => Shape::of_message(&error.to_string()),
    }
}

pub(super) fn cron(input: &[u8]) -> Shape {
    let Some(text) = text(input) else {
        return Shape(0);
    };
    match text.parse::<cron::Schedule>() {
        Ok(schedule) => {
            let now = jiff::Timestamp::UNIX_EPOCH;
            let next = schedule.next_after(now, &jiff::tz::TimeZone::UTC);
            assert!(next.is_none_or(|next| next > now), "time goes on");
            Shape::of((0, next.is_some()))
        }
        Err(error) => Shape::of_message(&error.to_string()),
    }
}

static ENV: LazyLock<Env> = LazyLock::new(|| {
    let any = || CelSchema::simple(Type::Dyn);
    Env::kubernetes()
        .with_variable("object", any())
        .with_variable("self", any())
        .with_variable("x", CelSchema::simple(Type::Int))
        .with_variable("s", CelSchema::simple(Type::String))
});

pub(super) fn cel(input: &[u8]) -> Shape {
    let Some(text) = text(input) else {
        return Shape(0);
    };
    let program = match ENV.compile(text) {
        Ok(program) => program,
        Err(errors) => return Shape::of_message(&errors.to_string()),
    };
    let estimate = program.estimated_cost();
    let values = [
        ("object", CelValue::Int(1)),
        ("self", CelValue::Int(2)),
        ("x", CelValue::Int(3)),
        ("s", CelValue::String("a-b".into())),
    ];
    // A small budget: what costs more ends with an error, and soon.
    let mut budget = Budget::new(20_000, 20_000);
    let output = match program.evaluate(&values, &mut budget) {
        Ok(_) => Shape(0),
        Err(error) => Shape::of_message(&error.to_string()),
    };
    let cost = format!("{estimate:?}").len() / 8;
    Shape::of((0, output, format!("{:?}", program.output()), cost))
}
