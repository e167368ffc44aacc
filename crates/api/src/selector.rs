//! Label and field selectors: the query syntax of lists and the structured form of specs.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use serde_json::Value;

use crate::names;

/// Why a selector could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

/// How a requirement compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// The key has one of the values (`=`, `==`, `in`).
    In,
    /// The key is absent or has none of the values (`!=`, `notin`).
    NotIn,
    /// The key is there.
    Exists,
    /// The key is not there.
    DoesNotExist,
    /// The value is an integer above the given one.
    GreaterThan,
    /// The value is an integer below the given one.
    LessThan,
}

/// One condition on one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// The comparison.
    pub operator: Operator,
    /// What it is compared with.
    pub values: Vec<String>,
}

impl Requirement {
    /// Does a label's value (or its absence) satisfy this?
    #[must_use]
    pub fn matches(&self, value: Option<&str>) -> bool {
        let listed = |found: &str| self.values.iter().any(|wanted| wanted == found);
        match self.operator {
            Operator::In => value.is_some_and(listed),
            Operator::NotIn => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let (Some(found), Some(limit)) = (
                    value.and_then(|text| text.parse::<i64>().ok()),
                    self.values
                        .first()
                        .and_then(|text| text.parse::<i64>().ok()),
                ) else {
                    return false;
                };
                if self.operator == Operator::GreaterThan {
                    found > limit
                } else {
                    found < limit
                }
            }
        }
    }
}

/// A conjunction of requirements on labels. The empty selector matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// All must hold.
    pub requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    /// Matches no object.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            requirements: Vec::new(),
            nothing: true,
        }
    }

    /// Matches objects that carry all of the given labels.
    #[must_use]
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let requirements = labels
            .into_iter()
            .map(|(key, value)| Requirement {
                key: key.clone(),
                operator: Operator::In,
                values: vec![value.clone()],
            })
            .collect();
        Self {
            requirements,
            nothing: false,
        }
    }

    /// Reads the structured form. `None` matches nothing; an empty one matches everything, as
    /// `metav1.LabelSelectorAsSelector` does.
    ///
    /// # Errors
    /// An operator that does not exist.
    pub fn from_spec(spec: Option<&meta::LabelSelector>) -> Result<Self, SelectorError> {
        let Some(spec) = spec else {
            return Ok(Self::nothing());
        };
        let empty = BTreeMap::new();
        let mut selector = Self::from_labels(spec.match_labels.as_ref().unwrap_or(&empty));
        for expression in spec.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError(format!(
                        "\"{other}\" is not a valid label selector operator"
                    )));
                }
            };
            selector.requirements.push(Requirement {
                key: expression.key.clone(),
                operator,
                values: expression.values.clone().unwrap_or_default(),
            });
        }
        Ok(selector)
    }

    /// Does it match everything?
    #[must_use]
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Does it match nothing at all?
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    /// Does an object with these labels match?
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_with(|key| labels.get(key).map(String::as_str))
    }

    /// Does an object match whose labels are looked up by a function?
    pub fn matches_with<'a>(&self, look_up: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing
            && self
                .requirements
                .iter()
                .all(|item| item.matches(look_up(&item.key)))
    }

    /// Reads the query form: `a=b,c!=d,e in (f,g),h,!i,j>1`.
    ///
    /// # Errors
    /// What is wrong and where, in the reference's words.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        let mut parser = Parser {
            rest: text.trim(),
            whole: text,
        };
        if parser.rest.is_empty() {
            return Ok(Self::default());
        }
        loop {
            let requirement = parser.requirement()?;
            check(&requirement)?;
            requirements.push(requirement);
            match parser.next_token() {
                "" => break,
                "," => {}
                other => {
                    return Err(parser.fail(&format!(
                        "found '{other}', expected: ',' or 'end of string'"
                    )));
                }
            }
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self {
            requirements,
            nothing: false,
        })
    }
}

fn check(requirement: &Requirement) -> Result<(), SelectorError> {
    let wrong = names::qualified_name(&requirement.key);
    if let Some(text) = wrong.first() {
        return Err(SelectorError(format!(
            "key: Invalid value: {:?}: {text}",
            requirement.key
        )));
    }
    for (index, value) in requirement.values.iter().enumerate() {
        if matches!(
            requirement.operator,
            Operator::GreaterThan | Operator::LessThan
        ) {
            if value.parse::<i64>().is_err() {
                return Err(SelectorError(format!(
                    "values[{index}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the \
                     value must be an integer"
                )));
            }
        } else if let Some(text) = names::label_value(value).first() {
            return Err(SelectorError(format!(
                "values[{index}][{}]: Invalid value: {value:?}: {text}",
                requirement.key
            )));
        }
    }
    Ok(())
}

struct Parser<'a> {
    rest: &'a str,
    whole: &'a str,
}

impl<'a> Parser<'a> {
    fn fail(&self, why: &str) -> SelectorError {
        SelectorError(format!("unable to parse requirement: {why}"))
    }

    fn peek(&self) -> &'a str {
        let mut copy = Parser {
            rest: self.rest,
            whole: self.whole,
        };
        copy.next_token()
    }

    fn next_token(&mut self) -> &'a str {
        self.rest = self.rest.trim_start();
        let bytes = self.rest.as_bytes();
        let length = match bytes.first() {
            None => 0,
            Some(b'=') if bytes.get(1) == Some(&b'=') => 2,
            Some(b'!') if bytes.get(1) == Some(&b'=') => 2,
            Some(b'=' | b'!' | b',' | b'(' | b')' | b'<' | b'>') => 1,
            Some(_) => self
                .rest
                .find(|c: char| c.is_whitespace() || "=!,()<>".contains(c))
                .unwrap_or(self.rest.len()),
        };
        let (token, rest) = self.rest.split_at(length);
        self.rest = rest;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let first = self.next_token();
        if first == "!" {
            let key = self.next_token().to_owned();
            return Ok(Requirement {
                key,
                operator: Operator::DoesNotExist,
                values: Vec::new(),
            });
        }
        if first.is_empty() || "=!,()<>".contains(first) || first == "==" || first == "!=" {
            return Err(self.fail(&format!(
                "found '{first}', expected: !, identifier, or 'end of string'"
            )));
        }
        let key = first.to_owned();
        if matches!(self.peek(), "" | ",") {
            return Ok(Requirement {
                key,
                operator: Operator::Exists,
                values: Vec::new(),
            });
        }
        let (operator, values) = match self.next_token() {
            "=" | "==" => (Operator::In, vec![self.exact_value()]),
            "!=" => (Operator::NotIn, vec![self.exact_value()]),
            ">" => (Operator::GreaterThan, vec![self.exact_value()]),
            "<" => (Operator::LessThan, vec![self.exact_value()]),
            "in" => (Operator::In, self.value_list()?),
            "notin" => (Operator::NotIn, self.value_list()?),
            other => {
                return Err(self.fail(&format!(
                    "found '{other}', expected: in, notin, =, ==, !=, gt, lt"
                )));
            }
        };
        Ok(Requirement {
            key,
            operator,
            values,
        })
    }

    fn exact_value(&mut self) -> String {
        if matches!(self.peek(), "" | ",") {
            String::new()
        } else {
            self.next_token().to_owned()
        }
    }

    fn value_list(&mut self) -> Result<Vec<String>, SelectorError> {
        if self.next_token() != "(" {
            return Err(self.fail("found no '(' after in or notin, expected: '('"));
        }
        let mut values = Vec::new();
        loop {
            match self.next_token() {
                ")" => {
                    if values.is_empty() {
                        values.push(String::new());
                    }
                    return Ok(values);
                }
                "," => {
                    if values.is_empty() || matches!(self.peek(), ")") {
                        values.push(String::new());
                    }
                }
                "" => {
                    return Err(
                        self.fail("found 'end of string', expected: ',', ')' or identifier")
                    );
                }
                value => values.push(value.to_owned()),
            }
        }
    }
}

/// A conjunction of conditions on the selectable fields of a kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// (field, equal?, value); all must hold.
    pub terms: Vec<(String, bool, String)>,
}

impl FieldSelector {
    /// Reads `a=b,c==d,e!=f`. A comma, equals sign or backslash in a value is written with a
    /// backslash before it.
    ///
    /// # Errors
    /// A term without an operator.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for term in split_unescaped(text) {
            if term.is_empty() {
                continue;
            }
            let (field, equal, value) = split_term(term).ok_or_else(|| {
                SelectorError(format!(
                    "invalid selector: '{text}'; can't understand '{term}'"
                ))
            })?;
            terms.push((field.to_owned(), equal, unescape(value)?));
        }
        Ok(Self { terms })
    }

    /// No condition?
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value that a field must have, if the selector says so.
    #[must_use]
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms
            .iter()
            .find(|(name, equal, _)| *equal && name == field)
            .map(|(_, _, value)| value.as_str())
    }

    /// Does an object match whose fields are looked up by a function (empty when unset)?
    pub fn matches_with<'a>(&self, look_up: impl Fn(&str) -> &'a str) -> bool {
        self.terms
            .iter()
            .all(|(field, equal, value)| (look_up(field) == value) == *equal)
    }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// A term at its first operator: field, whether it must be equal, and the value as written.
fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let mut places = term.match_indices(['=', '!']).map(|(at, _)| at);
    places.find_map(|at| {
        let (field, rest) = term.split_at(at);
        if let Some(value) = rest.strip_prefix("!=") {
            return Some((field, false, value));
        }
        let value = rest.strip_prefix('=')?;
        Some((field, true, value.strip_prefix('=').unwrap_or(value)))
    })
}

/// Reads a value as the reference does: what means something in a selector must be escaped, and
/// nothing else may be.
fn unescape(text: &str) -> Result<String, SelectorError> {
    let odd = |sequence: String| {
        SelectorError(format!(
            "invalid field selector: invalid escape sequence: {sequence}"
        ))
    };
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some(escaped @ ('\\' | ',' | '=')) => out.push(escaped),
                Some(other) => return Err(odd(format!("\\{other}"))),
                None => return Err(odd("\\".to_owned())),
            },
            ',' | '=' => {
                return Err(SelectorError(format!(
                    "invalid field selector: unescaped character in value: {}",
                    u32::from(letter)
                )));
            }
            other => out.push(other),
        }
    }
    Ok(out)
}

/// The text of a scalar at a dotted path, as field selectors compare it; empty when unset.
#[must_use]
pub fn field_text(object: &Value, path: &str) -> String {
    text_at(object, path.split('.'))
}

/// The text of what stands in an object where field names lead; empty when there is nothing.
#[must_use]
pub fn text_at<'p>(object: &Value, path: impl IntoIterator<Item = &'p str>) -> String {
    let mut at = object;
    for part in path {
        match at.get(part) {
            Some(next) => at = next,
            None => return String::new(),
        }
    }
    match at {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn query_form() {
        let objects = labels(&[("app", "shop"), ("tier", "web"), ("n", "5")]);
        for (query, wanted) in [
            ("", true),
            ("app=shop", true),
            ("app==shop,tier=web", true),
            ("app = shop , tier != db", true),
            ("app!=shop", false),
            ("missing!=x", true),
            ("app in (a,shop)", true),
            ("app in (a, b)", false),
            ("app notin (a,b),tier", true),
            ("!missing", true),
            ("!app", false),
            ("n>4,n<6", true),
            ("n>5", false),
            ("missing=", false),
            ("missing in ()", false),
        ] {
            assert_eq!(
                LabelSelector::parse(query).expect(query).matches(&objects),
                wanted,
                "{query}"
            );
        }
        for bad in [
            "a in b", "=b", "a=b c", "a in (b", "a,,b", "x y", "a=!", "n>x", "/a=b",
        ] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn structured_form() {
        assert!(LabelSelector::from_spec(None).expect("good").is_nothing());
        let everything = meta::LabelSelector::default();
        assert!(
            LabelSelector::from_spec(Some(&everything))
                .expect("good")
                .is_everything()
        );
    }

    #[test]
    fn field_form() {
        let selector = FieldSelector::parse("metadata.name=a,spec.x!=b\\,c").expect("good");
        assert_eq!(selector.exact("metadata.name"), Some("a"));
        assert!(selector.matches_with(|field| if field == "metadata.name" { "a" } else { "z" }));
        assert!(!selector.matches_with(|field| if field == "metadata.name" { "a" } else { "b,c" }));
        assert!(FieldSelector::parse("nonsense").is_err());
    }

    #[test]
    fn a_field_selector_is_cut_at_its_first_operator_and_escapes_only_what_has_a_meaning() {
        let terms = |text: &str| FieldSelector::parse(text).map(|selector| selector.terms);
        let one = |field: &str, equal: bool, value: &str| {
            Ok(vec![(field.to_owned(), equal, value.to_owned())])
        };
        assert_eq!(terms("a==b"), one("a", true, "b"));
        assert_eq!(terms("a!b=c"), one("a!b", true, "c"));
        assert_eq!(terms(r"a=b\=\,\\c"), one("a", true, r"b=,\c"));
        // As the reference does, by the number of the letter.
        for (text, wrong) in [
            ("a=b!=c", "unescaped character in value: 61"),
            ("a===b", "unescaped character in value: 61"),
            (r"a=\b", r"invalid escape sequence: \b"),
            (r"a=b\", r"invalid escape sequence: \"),
        ] {
            let wanted = SelectorError(format!("invalid field selector: {wrong}"));
            assert_eq!(terms(text), Err(wanted), "{text}");
        }
    }
}
