//! URLs, as Go's `ParseRequestURI` takes them apart.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Library, Outcome};
use crate::errors::EvalError;
use crate::value::{Key, Opaque, Value};

pub(crate) const LIBRARY: Library = Library {
    declarations: "
url string_to_url (string)->kubernetes.URL
getScheme url_get_scheme kubernetes.URL.()->string
getHost url_get_host kubernetes.URL.()->string
getHostname url_get_hostname kubernetes.URL.()->string
getPort url_get_port kubernetes.URL.()->string
getEscapedPath url_get_escaped_path kubernetes.URL.()->string
getQuery url_get_query kubernetes.URL.()->map<string,list<string>>
isURL is_url_string (string)->bool
",
    functions: &[
        ("url", url),
        ("getScheme", |a| part(a, |u| Value::from(u.scheme.as_str()))),
        ("getHost", |a| part(a, |u| Value::from(u.host.as_str()))),
        ("getHostname", |a| part(a, |u| Value::from(u.hostname()))),
        ("getPort", |a| part(a, |u| Value::from(u.port()))),
        ("getEscapedPath", |a| {
            part(a, |u| Value::from(u.escaped_path()))
        }),
        ("getQuery", |a| part(a, Url::query)),
        ("isURL", is_url),
    ],
};

/// `kubernetes.URL`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Url {
    text: String,
    scheme: String,
    host: String,
    /// As written.
    path: String,
    query: String,
}

impl Opaque for Url {
    fn type_name(&self) -> &str {
        "kubernetes.URL"
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn equals(&self, other: &dyn Opaque) -> bool {
        other
            .as_any()
            .downcast_ref::<Self>()
            .is_some_and(|o| o.text == self.text)
    }
}

fn unescape(text: &str, plus: bool) -> Result<String, String> {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => {
                let digits = text
                    .get(at + 1..at + 3)
                    .and_then(|d| u8::from_str_radix(d, 16).ok());
                match digits {
                    Some(byte) => out.push(byte),
                    None => {
                        let bad: String = text[at..].chars().take(3).collect();
                        return Err(format!("invalid URL escape {bad:?}"));
                    }
                }
                at += 2;
            }
            b'+' if plus => out.push(b' '),
            byte => out.push(byte),
        }
        at += 1;
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

impl Url {
    /// An absolute URL or an absolute path.
    fn parse(text: &str) -> Result<Self, String> {
        let failed = |why: &str| format!("parse {text:?}: {why}");
        if text.chars().any(|c| c < ' ' || c == '\u{7f}') {
            return Err(failed("net/url: invalid control character in URL"));
        }
        if text.is_empty() {
            return Err(failed("empty url"));
        }
        let (mut scheme, mut rest) = ("", text);
        if let Some((before, after)) = text.split_once(':')
            && !before.contains(['/', '?', '#'])
        {
            let first_letter = before.starts_with(|c: char| c.is_ascii_alphabetic());
            if before.is_empty() {
                return Err(failed("missing protocol scheme"));
            }
            if first_letter
                && before
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
            {
                (scheme, rest) = (before, after);
            } else if before.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
                return Err(failed("first path segment in URL cannot contain colon"));
            }
        }
        let fragment = rest.split_once('#');
        let rest = fragment.map_or(rest, |(before, _)| before);
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !rest.starts_with('/') {
            if scheme.is_empty() {
                return Err(failed("invalid URI for request"));
            }
            // Opaque, as mailto:someone.
            return Ok(Self {
                text: text.into(),
                scheme: scheme.to_ascii_lowercase(),
                host: String::new(),
                path: String::new(),
                query: query.into(),
            });
        }
        let (mut host, mut path) = ("", rest);
        if (!scheme.is_empty() || !rest.starts_with("///"))
            && let Some(after) = rest.strip_prefix("//")
        {
            let end = after.find('/').unwrap_or(after.len());
            (host, path) = after.split_at(end);
        }
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        check_host(host).map_err(|why| failed(&why))?;
        unescape(path, false).map_err(|why| failed(&why))?;
        Ok(Self {
            text: text.into(),
            scheme: scheme.to_ascii_lowercase(),
            host: unescape(host, false).unwrap_or_default(),
            path: path.into(),
            query: query.into(),
        })
    }

    fn split_host(&self) -> (&str, &str) {
        let host = self.host.as_str();
        if let Some(end) = host.strip_prefix('[').and_then(|h| h.find(']')) {
            let port = host[end + 2..].strip_prefix(':').unwrap_or_default();
            return (&host[1..=end], port);
        }
        match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (name, port),
            _ => (host, ""),
        }
    }

    fn hostname(&self) -> &str {
        self.split_host().0
    }

    fn port(&self) -> &str {
        self.split_host().1
    }

    fn escaped_path(&self) -> String {
        let valid = |c: char| c.is_ascii_alphanumeric() || "-_.~!$&'()*+,;=:@/[]%".contains(c);
        if self.path.chars().all(valid) {
            return self.path.clone();
        }
        let plain = unescape(&self.path, false).unwrap_or_default();
        let mut out = String::new();
        for byte in plain.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte) {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
        }
        out
    }

    fn query(&self) -> Value {
        let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for pair in self
            .query
            .split('&')
            .filter(|pair| !pair.is_empty() && !pair.contains(';'))
        {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if let (Ok(key), Ok(value)) = (unescape(key, true), unescape(value, true)) {
                found.entry(key).or_default().push(Value::from(value));
            }
        }
        let entries = found
            .into_iter()
            .map(|(k, v)| (Key::String(k.into()), Value::list(v)));
        Value::Map(Arc::new(entries.collect()))
    }
}

fn check_host(host: &str) -> Result<(), String> {
    let port = match host.strip_prefix('[') {
        Some(rest) => match rest.rsplit_once(']') {
            Some((_, after)) => after,
            None => return Err("missing ']' in host".into()),
        },
        None => host.find(':').map_or("", |at| &host[at..]),
    };
    if !port.is_empty()
        && !port
            .strip_prefix(':')
            .is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()))
    {
        return Err(format!("invalid port {port:?} after host"));
    }
    if let Some(bad) = host.chars().find(|c| " <>\"{}|\\^`".contains(*c)) {
        return Err(format!(
            "invalid character {:?} in host name",
            bad.to_string()
        ));
    }
    unescape(host, false).map(drop)
}

fn url(args: &[Value]) -> Outcome {
    let [Value::String(s)] = args else {
        return None;
    };
    Some(Url::parse(s).map(Value::opaque).map_err(|why| {
        EvalError::new(format!(
            "URL parse error during conversion from string: {why}"
        ))
    }))
}

fn is_url(args: &[Value]) -> Outcome {
    let [Value::String(s)] = args else {
        return None;
    };
    Some(Ok(Value::Bool(Url::parse(s).is_ok())))
}

fn part(args: &[Value], of: fn(&Url) -> Value) -> Outcome {
    let [value] = args else { return None };
    value.downcast::<Url>().map(|url| Ok(of(url)))
}

/// Whether a text is a URL, and if not, why.
pub(crate) fn check(text: &str) -> Result<(), String> {
    Url::parse(text).map(drop)
}
