//! Bootstrap tokens: `ID.SECRET`, kept as Secrets in `kube-system`, by which a machine that knows
//! nobody joins.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evenkeel_api::object;
use serde_json::Value;

use super::Identity;
use crate::registry::{self, Registry};

const KIND: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";

/// Reads `abcdef.0123456789abcdef`; `None` for what is no bootstrap token.
fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str, length: usize| {
        text.len() == length
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    (plain(id, 6) && plain(secret, 16)).then_some((id, secret))
}

/// Who a bootstrap token belongs to; `None` when it is none, or none that is good.
pub(super) fn verify(registry: &Registry, now: jiff::Timestamp, token: &str) -> Option<Identity> {
    let (id, secret) = split(token)?;
    let row = registry.rows.by_kind("", "v1", "Secret")?;
    let cache = registry.caches.of(row)?;
    let path = registry::path("kube-system", &format!("bootstrap-token-{id}"));
    let kept = cache.get(&path)?.value();
    judge(&kept, now, id, secret)
        .map_err(|why| tracing::debug!(id, why, "a bootstrap token was refused"))
        .ok()
}

fn judge(
    kept: &Value,
    now: jiff::Timestamp,
    id: &str,
    secret: &str,
) -> Result<Identity, &'static str> {
    let data = |name: &str| -> String {
        let text = object::text(kept, &["data", name]);
        let bytes = STANDARD.decode(text).unwrap_or_default();
        String::from_utf8(bytes).unwrap_or_default()
    };
    if object::deletion_timestamp(kept).is_some() {
        return Err("it is being deleted");
    }
    if object::text(kept, &["type"]) != KIND {
        return Err("its secret is of another type");
    }
    if !same(data("token-secret").as_bytes(), secret.as_bytes()) {
        return Err("its secret part is wrong");
    }
    if data("token-id") != id {
        return Err("its secret is about another token");
    }
    let expiration = data("expiration");
    if !expiration.is_empty() {
        let until: jiff::Timestamp = expiration
            .parse()
            .map_err(|_| "its expiration can't be read")?;
        if now >= until {
            return Err("it has expired");
        }
    }
    if data("usage-bootstrap-authentication") != "true" {
        return Err("it is not meant for authentication");
    }
    let mut groups = vec![GROUP.to_owned()];
    for group in data("auth-extra-groups").split(',').map(str::trim) {
        if group.is_empty() {
            continue;
        }
        if !is_group(group) {
            return Err("one of its groups is not one of bootstrappers");
        }
        if !groups.iter().any(|known| known == group) {
            groups.push(group.to_owned());
        }
    }
    groups.sort();
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    Ok(Identity::user(format!("system:bootstrap:{id}"), &groups))
}

/// When a Secret stops being a bootstrap token; `None` for what is none, and for one without end.
pub(crate) fn expiration(kept: &Value) -> Option<jiff::Timestamp> {
    if object::text(kept, &["type"]) != KIND {
        return None;
    }
    let text = STANDARD.decode(object::text(kept, &["data", "expiration"]));
    String::from_utf8(text.ok()?).ok()?.parse().ok()
}

/// Compares without telling by its time how much is right.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differences = a.iter().zip(b).fold(0, |differences, (a, b)| {
        std::hint::black_box(differences | (a ^ b))
    });
    a.len() == b.len() && differences == 0
}

/// `system:bootstrappers:` and lower-case letters, digits, colons and dashes, with a letter or
/// digit at the end.
fn is_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else {
        return false;
    };
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    rest.len() <= 256
        && rest.bytes().last().is_some_and(letter)
        && rest
            .bytes()
            .all(|byte| letter(byte) || matches!(byte, b':' | b'-'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kept(data: &[(&str, &str)]) -> Value {
        let mut value = json!({"type": KIND, "data": {
            "token-id": STANDARD.encode("abcdef"),
            "token-secret": STANDARD.encode("0123456789abcdef"),
            "usage-bootstrap-authentication": STANDARD.encode("true"),
        }});
        for (name, text) in data {
            value["data"][*name] = STANDARD.encode(text).into();
        }
        value
    }

    #[test]
    fn a_token_is_judged_by_its_secret() {
        let now = "2026-01-01T00:00:00Z".parse().expect("a time");
        let judge = |data: &[(&str, &str)]| judge(&kept(data), now, "abcdef", "0123456789abcdef");
        let groups = [(
            "auth-extra-groups",
            "system:bootstrappers:a, system:bootstrappers:b",
        )];
        let identity = judge(&groups).expect("good");
        assert_eq!(identity.user, "system:bootstrap:abcdef");
        assert_eq!(
            identity.groups,
            [
                "system:bootstrappers",
                "system:bootstrappers:a",
                "system:bootstrappers:b",
                "system:authenticated"
            ]
        );
        for wrong in [
            ("token-secret", "0123456789abcdee"),
            ("token-id", "abcdee"),
            ("usage-bootstrap-authentication", "false"),
            ("expiration", "2025-12-31T23:59:59Z"),
            ("expiration", "soon"),
            ("auth-extra-groups", "system:masters"),
            ("auth-extra-groups", "system:bootstrappers:A"),
        ] {
            assert!(judge(&[wrong]).is_err(), "{wrong:?}");
        }
        assert!(judge(&[("expiration", "2026-01-01T00:00:01Z")]).is_ok());
    }

    #[test]
    fn only_six_and_sixteen_small_letters_are_tokens() {
        assert!(split("abcdef.0123456789abcdef").is_some());
        for wrong in [
            "abcdef",
            "abcde.0123456789abcdef",
            "ABCDEF.0123456789abcdef",
            "a.b.c",
        ] {
            assert!(split(wrong).is_none(), "{wrong}");
        }
    }
}
