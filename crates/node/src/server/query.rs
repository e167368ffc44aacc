//! Query strings and path segments as kubelet reads them.
//!
//! Pure: text in, values out. Booleans follow Go's `strconv.ParseBool`, and what can't be read as
//! one counts as false, as it does there for exec and attach.

use http::{StatusCode, Uri};

use super::backend::BackendError;

/// The decoded pairs of a query string, in order; a key can appear more than once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes `application/x-www-form-urlencoded` pairs; broken escapes stay as written.
    pub(super) fn parse(text: &str) -> Self {
        let pairs = text
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decode(key, true), decode(value, true))
            })
            .collect();
        Self(pairs)
    }

    /// The query of a request.
    pub(super) fn of(uri: &Uri) -> Self {
        uri.query().map(Self::parse).unwrap_or_default()
    }

    /// The first value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }

    /// All values of a key, in order.
    pub(super) fn all(&self, key: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(name, _)| name == key)
            .map(|(_, value)| value.clone())
            .collect()
    }

    /// True when any of the keys has a true value.
    pub(super) fn flag(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| {
            self.get(key)
                .is_some_and(|value| parse_bool(value) == Some(true))
        })
    }

    /// A number, `None` when absent or empty.
    pub(super) fn number(&self, key: &str) -> Result<Option<i64>, BackendError> {
        match self.get(key) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| undecodable(key, text)),
        }
    }

    /// A boolean that must be one when it is there.
    pub(super) fn boolean(&self, key: &str) -> Result<bool, BackendError> {
        match self.get(key) {
            None | Some("") => Ok(false),
            Some(text) => parse_bool(text).ok_or_else(|| undecodable(key, text)),
        }
    }
}

/// The 400 that kubelet gives for a parameter of the wrong type, with the parameter's name.
pub(super) fn undecodable(key: &str, text: &str) -> BackendError {
    BackendError::new(
        StatusCode::BAD_REQUEST,
        format!("Unable to decode query: {key}={text:?} is not valid"),
    )
}

fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// The decoded segments of a path, without empty ones at its ends.
pub(super) fn segments(path: &str) -> Vec<String> {
    path.trim_matches('/')
        .split('/')
        .map(|segment| decode(segment, false))
        .collect()
}

fn decode(text: &str, plus_is_space: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escape = (byte == b'%')
            .then(|| Some((hex(*bytes.get(at + 1)?)?, hex(*bytes.get(at + 2)?)?)))
            .flatten();
        match escape {
            Some((high, low)) => {
                out.push(high << 4 | low);
                at += 3;
            }
            None => {
                out.push(if byte == b'+' && plus_is_space {
                    b' '
                } else {
                    byte
                });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_keep_order_spaces_and_percent_signs() {
        let query =
            Query::parse("command=sh&command=-c&command=echo+100%25%20%zz&stdin=true&tty=1");
        assert_eq!(query.all("command"), ["sh", "-c", "echo 100% %zz"]);
        assert!(query.flag(&["stdin", "input"]));
        assert!(query.flag(&["tty"]));
        assert!(!query.flag(&["stdout", "output"]));
    }

    #[test]
    fn numbers_of_the_wrong_type_are_refused_with_their_name() {
        let query = Query::parse("tailLines=x&limitBytes=");
        assert_eq!(query.number("limitBytes"), Ok(None));
        let error = query.number("tailLines").expect_err("x is no number");
        assert!(error.message.contains("tailLines"), "{error}");
    }

    #[test]
    fn a_path_is_split_before_it_is_decoded() {
        assert_eq!(segments("/exec/ns/a%2Fb/c"), ["exec", "ns", "a/b", "c"]);
    }
}
