//! Named formats: Kubernetes' rules for names and some of OpenAPI's formats.

use std::any::Any;

use base64::Engine;

use super::{Library, Outcome, regex};
use crate::time::Timestamp;
use crate::value::{Opaque, Value};

pub(crate) const LIBRARY: Library = Library {
    declarations: "
format.named format-named (string)->optional<kubernetes.NamedFormat>
format.dns1123Label format.dns1123Label ()->kubernetes.NamedFormat
format.dns1123Subdomain format.dns1123Subdomain ()->kubernetes.NamedFormat
format.dns1035Label format.dns1035Label ()->kubernetes.NamedFormat
format.qualifiedName format.qualifiedName ()->kubernetes.NamedFormat
format.dns1123LabelPrefix format.dns1123LabelPrefix ()->kubernetes.NamedFormat
format.dns1123SubdomainPrefix format.dns1123SubdomainPrefix ()->kubernetes.NamedFormat
format.dns1035LabelPrefix format.dns1035LabelPrefix ()->kubernetes.NamedFormat
format.labelValue format.labelValue ()->kubernetes.NamedFormat
format.uri format.uri ()->kubernetes.NamedFormat
format.uuid format.uuid ()->kubernetes.NamedFormat
format.byte format.byte ()->kubernetes.NamedFormat
format.date format.date ()->kubernetes.NamedFormat
format.datetime format.datetime ()->kubernetes.NamedFormat
validate format-validate kubernetes.NamedFormat.(string)->optional<list<string>>
",
    functions: &[
        ("format.named", named),
        ("format.dns1123Label", |_| of("dns1123Label")),
        ("format.dns1123Subdomain", |_| of("dns1123Subdomain")),
        ("format.dns1035Label", |_| of("dns1035Label")),
        ("format.qualifiedName", |_| of("qualifiedName")),
        ("format.dns1123LabelPrefix", |_| of("dns1123LabelPrefix")),
        ("format.dns1123SubdomainPrefix", |_| {
            of("dns1123SubdomainPrefix")
        }),
        ("format.dns1035LabelPrefix", |_| of("dns1035LabelPrefix")),
        ("format.labelValue", |_| of("labelValue")),
        ("format.uri", |_| of("uri")),
        ("format.uuid", |_| of("uuid")),
        ("format.byte", |_| of("byte")),
        ("format.date", |_| of("date")),
        ("format.datetime", |_| of("datetime")),
        ("validate", validate),
    ],
};

/// `kubernetes.NamedFormat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NamedFormat(&'static str);

impl Opaque for NamedFormat {
    fn type_name(&self) -> &str {
        "kubernetes.NamedFormat"
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref() == Some(self)
    }
}

const NAMES: [&str; 13] = [
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
];

impl NamedFormat {
    /// The length of the pattern that the reference matches with, for costs.
    pub(crate) fn regex_size(self) -> u64 {
        match self.0 {
            "dns1123Label" | "dns1035Label" | "dns1123LabelPrefix" | "dns1035LabelPrefix" => 30,
            "dns1123Subdomain" | "qualifiedName" | "dns1123SubdomainPrefix" => 60,
            "labelValue" => 40,
            "uri" => 1_500,
            "byte" => 72,
            "uuid" => 82,
            _ => 120,
        }
    }

    fn check(self, text: &str) -> Vec<String> {
        let name = self.0.strip_suffix("Prefix").unwrap_or(self.0);
        // The reference checks a prefix as if a letter followed its last dash.
        let masked = if name == self.0 {
            text.to_owned()
        } else {
            mask(text)
        };
        match name {
            "dns1123Label" => label(&masked, 63, LABEL, LABEL_WORDS),
            "dns1035Label" => label(&masked, 63, LABEL_1035, LABEL_1035_WORDS),
            "dns1123Subdomain" => label(&masked, 253, SUBDOMAIN, SUBDOMAIN_WORDS),
            "qualifiedName" => qualified(text),
            "labelValue" => label(text, 63, VALUE, VALUE_WORDS),
            "uri" => match super::urls::check(text) {
                Ok(()) => Vec::new(),
                Err(why) => vec![why],
            },
            "uuid" => only(matches(UUID, text), "does not match the UUID format"),
            "byte" => {
                let valid = base64::engine::general_purpose::STANDARD
                    .decode(text)
                    .is_ok();
                only(valid, "invalid base64")
            }
            "date" => only(Timestamp::parse_date(text).is_some(), "invalid date"),
            _ => only(Timestamp::parse(text).is_some(), "invalid datetime"),
        }
    }
}

fn only(valid: bool, message: &str) -> Vec<String> {
    if valid {
        Vec::new()
    } else {
        vec![message.into()]
    }
}

fn mask(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(front) if !front.is_empty() => format!("{front}a"),
        _ => text.into(),
    }
}

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const LABEL_WORDS: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const LABEL_1035_WORDS: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const SUBDOMAIN_WORDS: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const VALUE: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
const VALUE_WORDS: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const NAME: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const NAME_WORDS: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const UUID: &str = "(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}";

fn matches(pattern: &str, text: &str) -> bool {
    regex::compile(&format!("^(?:{pattern})$")).is_ok_and(|regex| regex.is_match(text))
}

fn label(text: &str, most: usize, pattern: &str, words: &str) -> Vec<String> {
    let mut found = Vec::new();
    if text.len() > most {
        found.push(format!("must be no more than {most} characters"));
    }
    if !matches(pattern, text) {
        found.push(words.into());
    }
    found
}

fn qualified(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                found.push("prefix part must be non-empty".into());
            } else {
                let bad = label(prefix, 253, SUBDOMAIN, SUBDOMAIN_WORDS);
                found.extend(bad.into_iter().map(|why| format!("prefix part {why}")));
            }
            *name
        }
        _ => {
            return vec![format!(
                "a qualified name {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                NAME_WORDS
            )];
        }
    };
    if name.is_empty() {
        found.push("name part must be non-empty".into());
    } else if name.len() > 63 {
        found.push("name part must be no more than 63 characters".into());
    }
    if !matches(NAME, name) {
        found.push(format!("name part {NAME_WORDS}"));
    }
    found
}

fn of(name: &'static str) -> Outcome {
    Some(Ok(Value::opaque(NamedFormat(name))))
}

fn named(args: &[Value]) -> Outcome {
    let [Value::String(name)] = args else {
        return None;
    };
    Some(Ok(match NAMES.iter().find(|known| ***known == **name) {
        Some(known) => Value::some(Value::opaque(NamedFormat(known))),
        None => Value::Optional(None),
    }))
}

fn validate(args: &[Value]) -> Outcome {
    let [format, Value::String(text)] = args else {
        return None;
    };
    let found = format.downcast::<NamedFormat>()?.check(text);
    Some(Ok(if found.is_empty() {
        Value::Optional(None)
    } else {
        Value::some(Value::list(found.into_iter().map(Value::from).collect()))
    }))
}

/// Whether a text keeps to a named format.
pub(crate) fn is_name(format: &'static str, text: &str) -> bool {
    NamedFormat(format).check(text).is_empty()
}
