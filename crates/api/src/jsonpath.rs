//! JSONPath as `k8s.io/client-go/util/jsonpath` reads it, as far as columns and selectable fields
//! use it: names, indexes, slices, `*`, `..`, unions and filters that compare a path with a
//! literal. Templates with text between paths are kubectl's business, not the door's.

use serde_json::Value;

/// A path that has been read.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(Box<str>),
    Index(i64),
    Slice(Option<i64>, Option<i64>, i64),
    Wildcard,
    Recursive,
    Union(Vec<Step>),
    Filter(Box<Filter>),
}

#[derive(Debug, Clone, PartialEq)]
struct Filter {
    left: Operand,
    /// `None` asks whether the left side is there.
    right: Option<(Comparison, Operand)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Path(JsonPath),
    Literal(Value),
}

/// Why a text is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonPathError {
    /// A bracket or quote is not closed.
    #[error("unterminated {0}")]
    Unterminated(&'static str),
    /// What stands in brackets means nothing.
    #[error("invalid array index {0}")]
    Index(String),
    /// A character that begins nothing.
    #[error("unrecognized character in action: {0:?}")]
    Character(char),
}

impl JsonPath {
    /// Reads a path like `.status.conditions[?(@.type=="Ready")].status`.
    ///
    /// # Errors
    /// What can't be read.
    pub fn parse(text: &str) -> Result<Self, JsonPathError> {
        let text = text.trim();
        let text = text
            .strip_prefix('{')
            .and_then(|text| text.strip_suffix('}'))
            .unwrap_or(text);
        let letters: Vec<char> = text.chars().collect();
        Parser {
            letters: &letters,
            at: 0,
        }
        .path()
    }

    /// What the path finds, in order.
    #[must_use]
    pub fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        self.steps
            .iter()
            .fold(vec![value], |found, step| step.apply(&found))
    }
}

struct Parser<'t> {
    letters: &'t [char],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.letters.get(self.at).copied()
    }

    fn path(&mut self) -> Result<JsonPath, JsonPathError> {
        let mut steps = Vec::new();
        while let Some(c) = self.peek() {
            self.at += 1;
            match c {
                '$' | '@' | ' ' => {}
                '.' if self.peek() == Some('.') => {
                    self.at += 1;
                    steps.push(Step::Recursive);
                    if self.peek().is_some_and(|next| next != '[') {
                        steps.push(self.field());
                    }
                }
                '.' => {
                    if self.peek().is_some_and(|next| next != '[') {
                        steps.push(self.field());
                    }
                }
                '[' => {
                    let inner = self.brackets()?;
                    steps.push(bracketed(&inner)?);
                }
                c if c.is_alphanumeric() || c == '_' => {
                    self.at -= 1;
                    steps.push(self.field());
                }
                other => return Err(JsonPathError::Character(other)),
            }
        }
        Ok(JsonPath { steps })
    }

    fn field(&mut self) -> Step {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            match c {
                '\\' => {
                    self.at += 1;
                    if let Some(escaped) = self.peek() {
                        name.push(escaped);
                        self.at += 1;
                    }
                }
                '.' | '[' | ' ' => break,
                other => {
                    name.push(other);
                    self.at += 1;
                }
            }
        }
        if name == "*" {
            Step::Wildcard
        } else {
            Step::Field(name.into())
        }
    }

    /// The text up to the closing bracket, quotes and inner brackets respected.
    fn brackets(&mut self) -> Result<String, JsonPathError> {
        let mut depth = 1;
        let mut quote = None;
        let mut out = String::new();
        while let Some(c) = self.peek() {
            self.at += 1;
            match (quote, c) {
                (Some(open), c) if c == open => quote = None,
                (Some(_), _) => {}
                (None, '\'' | '"') => quote = Some(c),
                (None, '[') => depth += 1,
                (None, ']') => {
                    depth -= 1;
                    if depth == 0 {
                        return Ok(out);
                    }
                }
                (None, _) => {}
            }
            out.push(c);
        }
        Err(JsonPathError::Unterminated("array"))
    }
}

fn bracketed(text: &str) -> Result<Step, JsonPathError> {
    let text = text.trim();
    if let Some(filter) = text
        .strip_prefix("?(")
        .and_then(|text| text.strip_suffix(')'))
    {
        return Ok(Step::Filter(Box::new(self::filter(filter)?)));
    }
    let parts = split(text, ',');
    if parts.len() > 1 {
        let steps: Result<Vec<Step>, JsonPathError> =
            parts.iter().map(|part| bracketed(part)).collect();
        return Ok(Step::Union(steps?));
    }
    let wrong = || JsonPathError::Index(text.to_owned());
    if text == "*" {
        return Ok(Step::Wildcard);
    }
    for quote in ['\'', '"'] {
        if let Some(name) = text
            .strip_prefix(quote)
            .and_then(|text| text.strip_suffix(quote))
        {
            return Ok(Step::Field(name.replace('\\', "").into()));
        }
    }
    let parts: Vec<&str> = text.split(':').collect();
    let number = |text: &&str| -> Result<Option<i64>, JsonPathError> {
        if text.is_empty() {
            Ok(None)
        } else {
            text.parse().map(Some).map_err(|_| wrong())
        }
    };
    let numbers: Vec<Option<i64>> = parts.iter().map(number).collect::<Result<_, _>>()?;
    match numbers.as_slice() {
        [Some(index)] => Ok(Step::Index(*index)),
        [from, to] => Ok(Step::Slice(*from, *to, 1)),
        [from, to, by] => Ok(Step::Slice(*from, *to, by.unwrap_or(1))),
        _ => Err(wrong()),
    }
}

/// Splits where no quote is open.
fn split(text: &str, at: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, c) if c == at => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    parts
}

fn filter(text: &str) -> Result<Filter, JsonPathError> {
    const OPERATORS: [(&str, Comparison); 6] = [
        ("==", Comparison::Equal),
        ("!=", Comparison::Unequal),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ];
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, _) => {
                let rest = &text[at..];
                if let Some((sign, comparison)) =
                    OPERATORS.iter().find(|(sign, _)| rest.starts_with(sign))
                {
                    return Ok(Filter {
                        left: operand(&text[..at])?,
                        right: Some((*comparison, operand(&rest[sign.len()..])?)),
                    });
                }
            }
        }
    }
    Ok(Filter {
        left: operand(text)?,
        right: None,
    })
}

fn operand(text: &str) -> Result<Operand, JsonPathError> {
    let text = text.trim();
    for quote in ['\'', '"'] {
        if let Some(inner) = text.strip_prefix(quote) {
            let inner = inner
                .strip_suffix(quote)
                .ok_or(JsonPathError::Unterminated("quoted string"))?;
            return Ok(Operand::Literal(inner.into()));
        }
    }
    if text.starts_with(['@', '.', '$']) {
        return JsonPath::parse(text).map(Operand::Path);
    }
    Ok(Operand::Literal(
        serde_json::from_str(text).unwrap_or_else(|_| text.into()),
    ))
}

impl Operand {
    fn value<'v>(&'v self, item: &'v Value) -> Option<&'v Value> {
        match self {
            Self::Literal(value) => Some(value),
            Self::Path(path) => path.find(item).into_iter().next(),
        }
    }
}

impl Filter {
    fn holds(&self, item: &Value) -> bool {
        let left = self.left.value(item);
        let Some((comparison, right)) = &self.right else {
            return left.is_some();
        };
        let (Some(left), Some(right)) = (left, right.value(item)) else {
            return false;
        };
        let order = match (left, right) {
            (Value::Number(left), Value::Number(right)) => {
                left.as_f64().partial_cmp(&right.as_f64())
            }
            (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
            (left, right) if left == right => Some(std::cmp::Ordering::Equal),
            _ => None,
        };
        match comparison {
            Comparison::Equal => order.is_some_and(std::cmp::Ordering::is_eq),
            Comparison::Unequal => !order.is_some_and(std::cmp::Ordering::is_eq),
            Comparison::Less => order.is_some_and(std::cmp::Ordering::is_lt),
            Comparison::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
            Comparison::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
            Comparison::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
        }
    }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Object(fields) => fields.values().collect(),
        Value::Array(items) => items.iter().collect(),
        _ => Vec::new(),
    }
}

fn descendants<'v>(value: &'v Value, out: &mut Vec<&'v Value>) {
    out.push(value);
    for child in children(value) {
        descendants(child, out);
    }
}

impl Step {
    fn apply<'v>(&self, found: &[&'v Value]) -> Vec<&'v Value> {
        let mut out = Vec::new();
        for value in found {
            match self {
                Self::Field(name) => out.extend(value.get(&**name)),
                Self::Wildcard => out.extend(children(value)),
                Self::Recursive => descendants(value, &mut out),
                Self::Union(steps) => {
                    for step in steps {
                        out.extend(step.apply(&[value]));
                    }
                }
                Self::Index(index) => {
                    let items = value.as_array().map_or(&[][..], Vec::as_slice);
                    out.extend(place(*index, items.len()).and_then(|at| items.get(at)));
                }
                Self::Slice(from, to, by) => {
                    let items = value.as_array().map_or(&[][..], Vec::as_slice);
                    let bound = |given: Option<i64>, otherwise: usize| {
                        given.map_or(otherwise, |at| {
                            place(at, items.len()).unwrap_or(0).min(items.len())
                        })
                    };
                    let (from, to) = (bound(*from, 0), bound(*to, items.len()));
                    let by = usize::try_from(*by).unwrap_or(1).max(1);
                    out.extend(items.iter().take(to).skip(from).step_by(by));
                }
                Self::Filter(filter) => {
                    let items = value.as_array().map_or(&[][..], Vec::as_slice);
                    out.extend(items.iter().filter(|item| filter.holds(item)));
                }
            }
        }
        out
    }
}

/// Negative places count from the end.
fn place(index: i64, length: usize) -> Option<usize> {
    if index >= 0 {
        usize::try_from(index).ok()
    } else {
        length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_find_their_values() {
        let object = json!({
            "spec": {"a.b": 1, "list": [{"n": 1}, {"n": 2}, {"n": 3}], "map": {"x": 1, "y": 2}},
            "status": {"conditions": [
                {"type": "Ready", "status": "True"}, {"type": "Synced", "status": "False"},
            ]},
        });
        for (path, wanted) in [
            (".spec.list[0].n", json!([1])),
            (".spec.list[-1:].n", json!([3])),
            (".spec.list[*].n", json!([1, 2, 3])),
            (".spec.list[0,2].n", json!([1, 3])),
            (".spec.list[1:].n", json!([2, 3])),
            (".spec['a.b']", json!([1])),
            (r".spec.a\.b", json!([1])),
            (
                r#".status.conditions[?(@.type=="Ready")].status"#,
                json!(["True"]),
            ),
            (
                ".status.conditions[?(@.type=='Synced')].status",
                json!(["False"]),
            ),
            (".spec.list[?(@.n>1)].n", json!([2, 3])),
            (".spec.map.*", json!([1, 2])),
            ("..n", json!([1, 2, 3])),
            ("{.spec.map.x}", json!([1])),
            (".spec.nothing", json!([])),
        ] {
            let found = JsonPath::parse(path).unwrap();
            let found: Vec<Value> = found.find(&object).into_iter().cloned().collect();
            assert_eq!(json!(found), wanted, "{path}");
        }
        assert!(JsonPath::parse(".a[").is_err());
        assert!(JsonPath::parse(".a[x]").is_err());
    }
}
