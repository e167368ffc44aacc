//! Query parameters.

/// Decoded query parameters, in order.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=b&c=d`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self(
            text.split('&')
                .filter(|part| !part.is_empty())
                .map(|part| {
                    let (name, value) = part.split_once('=').unwrap_or((part, ""));
                    (decode(name), decode(value))
                })
                .collect(),
        )
    }

    /// The first value of a parameter; empty when it is not there.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value)
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Is the parameter there?
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// A boolean as Go's API decodes it: there and neither `false` nor `0`.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.has(name) && !matches!(self.get(name), "false" | "0")
    }

    /// An integer, when the parameter is there and is one.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i64> {
        self.get(name).parse().ok()
    }
}

/// Percent-decodes a query component; `+` is a space.
fn decode(text: &str) -> String {
    percent(text, true)
}

/// Percent-decodes a path segment.
pub(crate) fn decode_segment(text: &str) -> String {
    percent(text, false)
}

fn percent(text: &str, plus: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
        let hex = || u8::try_from(digit(at + 1)? << 4 | digit(at + 2)?).ok();
        match (byte, if *byte == b'%' { hex() } else { None }) {
            (_, Some(decoded)) => {
                out.push(decoded);
                at += 2;
            }
            (b'+', _) if plus => out.push(b' '),
            (other, _) => out.push(*other),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query =
            Query::parse("labelSelector=a%3Db%2Cc&limit=5&watch&dry=a+b&dry=%zz&pretty=false");
        assert_eq!(query.get("labelSelector"), "a=b,c");
        assert_eq!(query.number("limit"), Some(5));
        assert!(query.flag("watch"));
        assert!(!query.flag("pretty"));
        assert_eq!(query.all("dry").collect::<Vec<_>>(), ["a b", "%zz"]);
    }

    #[test]
    fn a_sign_is_no_digit_of_an_escape() {
        assert_eq!(Query::parse("a=%+f%-1%4").get("a"), "% f%-1%4");
        assert_eq!(decode_segment("%+f%2F"), "%+f/");
    }
}
