//! Request headers: somebody in front of the door has found out who asks, and proves by a client
//! certificate that he may say so.

use http::HeaderMap;

use super::{AUTHENTICATED, Identity, PeerCertificate};
use crate::http::decode_segment;

/// Which headers say who asks, and who may set them.
#[derive(Debug, Clone)]
pub struct RequestHeaders {
    /// The authority of front proxies, PEM; the cluster's own where there is none.
    pub client_ca: Option<String>,
    /// Common names of those that are believed; none for all.
    pub allowed_names: Vec<String>,
    /// The user, in the first of these that is there.
    pub user: Vec<String>,
    /// His UID, likewise.
    pub uid: Vec<String>,
    /// Groups, in all of these.
    pub groups: Vec<String>,
    /// Beginnings of headers whose rest is the key of an extra value.
    pub extra_prefixes: Vec<String>,
}

impl Default for RequestHeaders {
    fn default() -> Self {
        let one = |text: &str| vec![text.to_owned()];
        Self {
            client_ca: None,
            allowed_names: one("front-proxy-client"),
            user: one("X-Remote-User"),
            uid: one("X-Remote-Uid"),
            groups: one("X-Remote-Group"),
            extra_prefixes: one("X-Remote-Extra-"),
        }
    }
}

/// What came of looking for a front proxy.
#[derive(Debug, PartialEq)]
pub(super) enum Front {
    /// Nobody who may speak for others, or he speaks for nobody.
    Nobody,
    /// Its certificate is of the authority, and its name is not on the list.
    NotAllowed,
    /// It says who asks.
    Says(Identity),
}

impl RequestHeaders {
    /// Who asks, by a front proxy's word.
    pub(super) fn identify(&self, headers: &HeaderMap, peer: &PeerCertificate) -> Front {
        if !peer.is_front_proxy {
            return Front::Nobody;
        }
        let allowed = self.allowed_names.is_empty() || self.allowed_names.contains(&peer.user);
        if !allowed {
            return Front::NotAllowed;
        }
        let all = |names: &[String]| -> Vec<String> {
            names
                .iter()
                .flat_map(|name| headers.get_all(name.to_lowercase()))
                .map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_owned())
                .filter(|text| !text.is_empty())
                .collect()
        };
        let Some(user) = all(&self.user).into_iter().next() else {
            return Front::Nobody;
        };
        let mut identity = Identity {
            user,
            groups: all(&self.groups),
            uid: all(&self.uid).into_iter().next().unwrap_or_default(),
            ..Identity::default()
        };
        for prefix in self.extra_prefixes.iter().map(|it| it.to_lowercase()) {
            for name in headers.keys() {
                if let Some(key) = name.as_str().strip_prefix(&prefix) {
                    let values = all(&[name.as_str().to_owned()]);
                    identity.extra.insert(decode_segment(key), values);
                }
            }
        }
        if !identity.in_group(AUTHENTICATED) {
            identity.groups.push(AUTHENTICATED.to_owned());
        }
        Front::Says(identity)
    }

    /// What servers behind the door are told, as the reference's ConfigMap has it.
    pub(crate) fn told(&self, client_ca: &str, own_front_ca: &str) -> serde_json::Value {
        let list = |all: &[String]| serde_json::json!(all).to_string();
        serde_json::json!({
            "client-ca-file": client_ca,
            "requestheader-allowed-names": list(&self.allowed_names),
            "requestheader-client-ca-file": self.client_ca.as_deref().unwrap_or(own_front_ca),
            "requestheader-extra-headers-prefix": list(&self.extra_prefixes),
            "requestheader-group-headers": list(&self.groups),
            "requestheader-uid-headers": list(&self.uid),
            "requestheader-username-headers": list(&self.user),
        })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_an_allowed_front_proxy_says_who_asks() {
        let rules = RequestHeaders::default();
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-remote-user", "jane"),
            ("x-remote-group", "a"),
            ("x-remote-group", "b"),
            ("x-remote-extra-example.com%2fk", "v"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let peer = |user: &str, front: bool| PeerCertificate {
            user: user.to_owned(),
            groups: Vec::new(),
            fingerprint: String::new(),
            is_client: !front,
            is_front_proxy: front,
        };
        let Front::Says(jane) = rules.identify(&headers, &peer("front-proxy-client", true)) else {
            panic!("believed");
        };
        assert_eq!(jane.user, "jane");
        assert_eq!(jane.groups, ["a", "b", AUTHENTICATED]);
        assert_eq!(jane.extra["example.com/k"], ["v"]);
        let other = rules.identify(&headers, &peer("other", true));
        assert_eq!(other, Front::NotAllowed);
        let client = rules.identify(&headers, &peer("front-proxy-client", false));
        assert_eq!(client, Front::Nobody);
        let silent = rules.identify(&HeaderMap::new(), &peer("front-proxy-client", true));
        assert_eq!(silent, Front::Nobody);
    }
}
