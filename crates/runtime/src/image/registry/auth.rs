//! Answering a registry's challenge: Basic (RFC 7617), and the distribution project's Bearer
//! tokens.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;

use crate::contract::RegistryAuth;

/// Credentials and what they have earned so far.
#[derive(Debug, Default)]
pub(super) struct State {
    credentials: Option<RegistryAuth>,
    header: Mutex<Option<String>>,
}

impl State {
    pub(super) fn new(credentials: Option<RegistryAuth>) -> Self {
        let header = credentials
            .as_ref()
            .filter(|credentials| !credentials.token.is_empty())
            .map(|credentials| format!("Bearer {}", credentials.token));
        Self {
            credentials,
            header: Mutex::new(header),
        }
    }

    /// The header to send, once there is one.
    pub(super) fn header(&self) -> Option<String> {
        self.header.lock().clone()
    }

    pub(super) fn set(&self, header: String) {
        *self.header.lock() = Some(header);
    }

    /// The Basic header, with a user's credentials.
    pub(super) fn basic(&self) -> Option<String> {
        let credentials = self.credentials.as_ref()?;
        if credentials.username.is_empty() && credentials.password.is_empty() {
            return None;
        }
        let pair = format!("{}:{}", credentials.username, credentials.password);
        Some(format!("Basic {}", STANDARD.encode(pair)))
    }
}

/// A challenge that can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: String,
        scope: String,
    },
}

/// Reads `WWW-Authenticate`.
pub(crate) fn challenge(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut scope) = (String::new(), String::new(), String::new());
    for (name, value) in parameters(rest) {
        match name.as_str() {
            "realm" => realm = value,
            "service" => service = value,
            "scope" => scope = value,
            _ => {}
        }
    }
    (!realm.is_empty()).then_some(Challenge::Bearer {
        realm,
        service,
        scope,
    })
}

/// `name="value", …`: values may hold commas.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([' ', ',']).to_ascii_lowercase();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        out.push((name, value.trim().to_owned()));
        rest = after;
    }
    out
}

/// The token service's URL for a repository.
pub(crate) fn token_url(realm: &str, service: &str, scope: &str, repository: &str) -> String {
    let scope = if scope.is_empty() {
        format!("repository:{repository}:pull")
    } else {
        scope.to_owned()
    };
    let separator = if realm.contains('?') { '&' } else { '?' };
    let mut url = format!("{realm}{separator}scope={}", escape(&scope));
    if !service.is_empty() {
        url.push_str(&format!("&service={}", escape(service)));
    }
    url
}

fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'/' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        assert_eq!(challenge("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(
            challenge(
                "Bearer realm=\"https://auth.example/token\",service=\"reg\",\
                 scope=\"repository:a/b:pull,push\""
            ),
            Some(Challenge::Bearer {
                realm: "https://auth.example/token".into(),
                service: "reg".into(),
                scope: "repository:a/b:pull,push".into(),
            })
        );
        assert_eq!(challenge("Negotiate"), None);
        assert_eq!(challenge("Bearer service=\"x\""), None);
    }

    #[test]
    fn token_urls_are_escaped() {
        assert_eq!(
            token_url("https://a/t", "my reg", "", "x/y"),
            "https://a/t?scope=repository:x/y:pull&service=my%20reg"
        );
    }
}
