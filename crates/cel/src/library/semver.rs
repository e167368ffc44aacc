//! Semantic versions.

use std::any::Any;
use std::cmp::Ordering;

use super::quantity::Quantity;
use super::{Library, Outcome};
use crate::errors::EvalError;
use crate::value::{Opaque, Value};

pub(crate) const LIBRARY: Library = Library {
    declarations: "
semver string_to_semver (string)->kubernetes.Semver
semver string_bool_to_semver (string,bool)->kubernetes.Semver
isSemver is_semver_string (string)->bool
isSemver is_semver_string_bool (string,bool)->bool
isGreaterThan semver_is_greater_than kubernetes.Semver.(kubernetes.Semver)->bool
isLessThan semver_is_less_than kubernetes.Semver.(kubernetes.Semver)->bool
compareTo semver_compare_to kubernetes.Semver.(kubernetes.Semver)->int
major semver_major kubernetes.Semver.()->int
minor semver_minor kubernetes.Semver.()->int
patch semver_patch kubernetes.Semver.()->int
",
    functions: &[
        ("semver", semver),
        ("isSemver", is_semver),
        ("major", |a| number(a, |v| v.numbers[0])),
        ("minor", |a| number(a, |v| v.numbers[1])),
        ("patch", |a| number(a, |v| v.numbers[2])),
    ],
};

/// `kubernetes.Semver`. Build metadata is kept and does not count in comparisons.
#[derive(Debug, Clone)]
struct Semver {
    numbers: [u64; 3],
    pre: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// Numbers come before words.
    Number(u64),
    Word(String),
}

impl Opaque for Semver {
    fn type_name(&self) -> &str {
        "kubernetes.Semver"
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn equals(&self, other: &dyn Opaque) -> bool {
        other
            .as_any()
            .downcast_ref::<Self>()
            .is_some_and(|o| self.compare(o) == Ordering::Equal)
    }
}

impl Semver {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("Version string empty".into());
        }
        let mut parts = text.splitn(3, '.');
        let (Some(major), Some(minor), Some(rest)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err("No Major.Minor.Patch elements found".into());
        };
        let (rest, build) = match rest.split_once('+') {
            Some((rest, build)) => (rest, Some(build)),
            None => (rest, None),
        };
        let (patch, pre) = match rest.split_once('-') {
            Some((patch, pre)) => (patch, Some(pre)),
            None => (rest, None),
        };
        let named = [("major", major), ("minor", minor), ("patch", patch)];
        let mut numbers = [0; 3];
        for (at, (name, digits)) in named.into_iter().enumerate() {
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(format!(
                    "Invalid character(s) found in {name} number {digits:?}"
                ));
            }
            if digits.len() > 1 && digits.starts_with('0') {
                let title = format!("{}{}", name[..1].to_uppercase(), &name[1..]);
                return Err(format!(
                    "{title} number must not contain leading zeroes {digits:?}"
                ));
            }
            numbers[at] = digits
                .parse()
                .map_err(|_| format!("{name} number {digits:?} is out of range"))?;
        }
        let word = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        let mut found = Vec::new();
        for part in pre.into_iter().flat_map(|pre| pre.split('.')) {
            if !word(part) {
                return Err(format!("Invalid character(s) found in prerelease {part:?}"));
            }
            if part.bytes().all(|b| b.is_ascii_digit()) {
                if part.len() > 1 && part.starts_with('0') {
                    return Err(format!(
                        "Numeric PreRelease version must not contain leading zeroes {part:?}"
                    ));
                }
                found
                    .push(Part::Number(part.parse().map_err(|_| {
                        format!("prerelease {part:?} is out of range")
                    })?));
            } else {
                found.push(Part::Word(part.into()));
            }
        }
        if let Some(bad) = build
            .into_iter()
            .flat_map(|b| b.split('.'))
            .find(|part| !word(part))
        {
            return Err(format!(
                "Invalid character(s) found in build meta data {bad:?}"
            ));
        }
        Ok(Self {
            numbers,
            pre: found,
        })
    }

    /// The same after taking off a `v`, taking off zeros and filling up what is missing.
    fn normalized(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let mut parts: Vec<String> = text
            .splitn(3, '.')
            .map(|part| {
                if part.len() < 2 {
                    return part.to_owned();
                }
                let trimmed = part.trim_start_matches('0');
                let zero = if trimmed.starts_with(|c: char| c.is_ascii_digit()) {
                    ""
                } else {
                    "0"
                };
                format!("{zero}{trimmed}")
            })
            .collect();
        if parts.len() < 3 && parts.last().is_some_and(|last| last.contains(['+', '-'])) {
            return Err("short version cannot contain PreRelease/Build meta data".into());
        }
        parts.resize(3, "0".into());
        Self::parse(&parts.join("."))
    }

    fn compare(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| {
            match (self.pre.is_empty(), other.pre.is_empty()) {
                (true, false) => Ordering::Greater,
                (false, true) => Ordering::Less,
                _ => self.pre.cmp(&other.pre),
            }
        })
    }
}

fn read(args: &[Value]) -> Option<Result<Semver, String>> {
    match args {
        [Value::String(s)] | [Value::String(s), Value::Bool(false)] => Some(Semver::parse(s)),
        [Value::String(s), Value::Bool(true)] => Some(Semver::normalized(s)),
        _ => None,
    }
}

fn semver(args: &[Value]) -> Outcome {
    Some(read(args)?.map(Value::opaque).map_err(EvalError::new))
}

fn is_semver(args: &[Value]) -> Outcome {
    Some(Ok(Value::Bool(read(args)?.is_ok())))
}

fn number(args: &[Value], of: fn(&Semver) -> u64) -> Outcome {
    let [value] = args else { return None };
    let found =
        i64::try_from(of(value.downcast()?)).map_err(|_| EvalError::new("integer overflow"));
    Some(found.map(Value::Int))
}

/// Compares two versions or two quantities: both libraries name their functions the same.
pub(crate) fn compare(args: &[Value], of: fn(Ordering) -> Value) -> Outcome {
    let [a, b] = args else { return None };
    let order = match a.downcast::<Semver>() {
        Some(a) => a.compare(b.downcast()?),
        None => a.downcast::<Quantity>()?.cmp(b.downcast::<Quantity>()?),
    };
    Some(Ok(of(order)))
}
