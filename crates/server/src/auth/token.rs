//! Service account tokens: JSON Web Tokens (RFC 7519) signed with ES256, bound to an account and,
//! if asked, to a pod or a secret.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use evenkeel_api::{Status, clock, object};
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Identity;
use crate::door::Issued;
use crate::registry::{self, Registry};

/// Tokens that ask for less live at least ten minutes.
const SHORTEST: i64 = 600;
/// Tokens live an hour unless asked otherwise.
const USUAL: i64 = 3600;
/// `2^32` seconds is the most that the API accepts.
const LONGEST: i64 = 1 << 32;

/// Why a token is no good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token of this form.
    #[error("invalid bearer token")]
    Malformed,
    /// Signed by somebody else, or changed.
    #[error("invalid bearer token, signature is not valid")]
    Signature,
    /// Issued by somebody else.
    #[error("invalid bearer token")]
    Issuer(String),
    /// Too old, or not yet good.
    #[error("service account token has expired")]
    Expired,
    /// Meant for somebody else.
    #[error("token audiences {0:?} is invalid for the target audiences")]
    Audience(Vec<String>),
    /// Somebody outside, who knows it, does not let it pass.
    #[error("{0}")]
    Outside(String),
    /// What it is bound to is gone or was replaced.
    #[error("service account token has been invalidated: {0} is gone")]
    Unbound(String),
}

/// What a token says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenClaims {
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    iss: String,
    jti: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Bound,
    nbf: i64,
    sub: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Bound {
    namespace: String,
    serviceaccount: Named,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<Named>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Named {
    name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    uid: String,
}

/// Signs and verifies tokens.
pub struct TokenKeys {
    key: EcdsaKeyPair,
    id: String,
    issuer: String,
    random: SystemRandom,
}

impl std::fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKeys")
    }
}

impl TokenKeys {
    /// Who issues the tokens; also the audience that the door itself is.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Uses a P-256 key in PKCS #8 form.
    #[must_use]
    pub fn new(pkcs8: &[u8], issuer: &str) -> Option<Self> {
        let random = SystemRandom::new();
        let key =
            EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random)
                .ok()?;
        let digest = ring::digest::digest(&ring::digest::SHA256, key.public_key().as_ref());
        let id = URL_SAFE_NO_PAD.encode(digest.as_ref());
        Some(Self {
            key,
            id,
            issuer: issuer.to_owned(),
            random,
        })
    }

    /// The public key as a JSON Web Key Set (RFC 7517).
    #[must_use]
    pub fn key_set(&self) -> Value {
        // An uncompressed point: 0x04, x, y.
        let point = self.key.public_key().as_ref();
        let part = |range: std::ops::Range<usize>| {
            URL_SAFE_NO_PAD.encode(point.get(range).unwrap_or_default())
        };
        json!({"keys": [{
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.id,
            "x": part(1..33), "y": part(33..65),
        }]})
    }

    fn sign(&self, claims: &TokenClaims) -> Result<String, Status> {
        let header = json!({"alg": "ES256", "kid": self.id}).to_string();
        let claims =
            serde_json::to_vec(claims).map_err(|error| Status::internal(error.to_string()))?;
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let signature = self
            .key
            .sign(&self.random, signed.as_bytes())
            .map_err(|_| Status::internal("a token can't be signed"))?;
        Ok(format!(
            "{signed}.{}",
            URL_SAFE_NO_PAD.encode(signature.as_ref())
        ))
    }

    /// Issues the token that a `TokenRequest` asks for.
    pub(crate) fn issue(
        &self,
        registry: &Registry,
        now: jiff::Timestamp,
        namespace: &str,
        account: &Value,
        request: &Value,
    ) -> Result<Issued, Status> {
        let invalid = |error: evenkeel_api::FieldError| {
            Status::invalid("authentication.k8s.io", "TokenRequest", "", &[error])
        };
        let spec = evenkeel_api::Path::new("spec");
        let seconds = object::integer(request, &["spec", "expirationSeconds"]).unwrap_or(USUAL);
        if seconds < SHORTEST {
            return Err(invalid(evenkeel_api::FieldError::invalid(
                &spec.child("expirationSeconds"),
                seconds,
                "may not specify a duration less than 10 minutes",
            )));
        }
        if seconds > LONGEST {
            return Err(invalid(evenkeel_api::FieldError::invalid(
                &spec.child("expirationSeconds"),
                seconds,
                "may not specify a duration larger than 2^32 seconds",
            )));
        }
        let mut audiences: Vec<String> = object::list(request, &["spec", "audiences"])
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        if audiences.is_empty() {
            audiences.push(self.issuer.clone());
        }
        let named = |value: &Value| Named {
            name: object::name(value).to_owned(),
            uid: object::uid(value).to_owned(),
        };
        let mut bound = Bound {
            namespace: namespace.to_owned(),
            serviceaccount: named(account),
            pod: None,
            secret: None,
            node: None,
        };
        let reference = object::at(request, &["spec", "boundObjectRef"]);
        if let Some(reference) = reference.filter(|reference| !reference.is_null()) {
            let kind = object::text(reference, &["kind"]).to_owned();
            let name = object::text(reference, &["name"]);
            let found = look_up(registry, &kind, namespace, name)
                .ok_or_else(|| Status::not_found("", &format!("{}s", kind.to_lowercase()), name))?;
            let uid = object::text(reference, &["uid"]);
            if !uid.is_empty() && uid != object::uid(&found) {
                return Err(Status::conflict(
                    "",
                    &format!("{}s", kind.to_lowercase()),
                    name,
                    &format!(
                        "the UID in the bound object reference ({uid}) does not match the UID in \
                         record. The object might have been deleted and then recreated"
                    ),
                ));
            }
            match kind.as_str() {
                "Pod" => {
                    bound.pod = Some(named(&found));
                    // Where the pod runs is told too: who holds the token may act as that node,
                    // when he is allowed to.
                    bound.node = Some(object::text(&found, &["spec", "nodeName"]))
                        .filter(|name| !name.is_empty())
                        .map(|name| match look_up(registry, "Node", "", name) {
                            Some(node) => named(&node),
                            None => Named {
                                name: name.to_owned(),
                                uid: String::new(),
                            },
                        });
                }
                "Secret" => bound.secret = Some(named(&found)),
                "Node" => bound.node = Some(named(&found)),
                _ => {
                    return Err(invalid(evenkeel_api::FieldError::invalid(
                        &spec.child("boundObjectRef").child("kind"),
                        kind.as_str(),
                        "cannot bind token to object of this kind",
                    )));
                }
            }
        }
        let issued_at = now.as_second();
        let claims = TokenClaims {
            aud: audiences.clone(),
            exp: issued_at + seconds,
            iat: issued_at,
            iss: self.issuer.clone(),
            jti: uuid::Uuid::new_v4().to_string(),
            kubernetes: bound,
            nbf: issued_at,
            sub: format!(
                "system:serviceaccount:{namespace}:{}",
                object::name(account)
            ),
        };
        let expires = jiff::Timestamp::from_second(claims.exp).unwrap_or(now);
        let mut answered = json!({"audiences": audiences, "expirationSeconds": seconds});
        answered["boundObjectRef"] = reference.cloned().unwrap_or_default();
        Ok(Issued {
            token: self.sign(&claims)?,
            expires: clock::rfc3339(expires),
            spec: answered,
        })
    }

    /// Who a token belongs to, and for which audiences.
    pub(crate) fn verify(
        &self,
        registry: &Registry,
        now: jiff::Timestamp,
        token: &str,
        audiences: &[&str],
    ) -> Result<(Identity, Vec<String>), TokenError> {
        let claims = self.open(token)?;
        if claims.iss != self.issuer {
            return Err(TokenError::Issuer(claims.iss));
        }
        if now.as_second() >= claims.exp || now.as_second() + 10 < claims.nbf {
            return Err(TokenError::Expired);
        }
        let own = [self.issuer.as_str()];
        let wanted = if audiences.is_empty() {
            &own[..]
        } else {
            audiences
        };
        let good: Vec<String> = claims
            .aud
            .iter()
            .filter(|aud| wanted.contains(&aud.as_str()))
            .cloned()
            .collect();
        if good.is_empty() {
            return Err(TokenError::Audience(claims.aud));
        }
        let bound = &claims.kubernetes;
        check_bound(registry, bound)?;
        let account = &bound.serviceaccount;
        let mut identity = Identity::service_account(&bound.namespace, &account.name);
        identity.uid.clone_from(&account.uid);
        let mut extra = |key: &str, value: &str| {
            identity.extra.insert(
                format!("authentication.kubernetes.io/{key}"),
                vec![value.to_owned()],
            );
        };
        extra("credential-id", &format!("JTI={}", claims.jti));
        if let Some(pod) = &bound.pod {
            extra("pod-name", &pod.name);
            extra("pod-uid", &pod.uid);
        }
        if let Some(node) = &bound.node {
            extra("node-name", &node.name);
            if !node.uid.is_empty() {
                extra("node-uid", &node.uid);
            }
        }
        Ok((identity, good))
    }

    fn open(&self, token: &str) -> Result<TokenClaims, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let decode = |text: &str| {
            URL_SAFE_NO_PAD
                .decode(text)
                .map_err(|_| TokenError::Malformed)
        };
        let header: Value =
            serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::Malformed)?;
        if object::text(&header, &["alg"]) != "ES256" {
            return Err(TokenError::Malformed);
        }
        let key = UnparsedPublicKey::new(
            &signature::ECDSA_P256_SHA256_FIXED,
            self.key.public_key().as_ref(),
        );
        key.verify(signed.as_bytes(), &decode(signature)?)
            .map_err(|_| TokenError::Signature)?;
        serde_json::from_slice(&decode(claims)?).map_err(|_| TokenError::Malformed)
    }
}

/// The object that a token is bound to, as the cache has it.
fn look_up(registry: &Registry, kind: &str, namespace: &str, name: &str) -> Option<Value> {
    let row = registry.rows.by_kind("", "v1", kind)?;
    let namespace = if row.namespaced() { namespace } else { "" };
    Some(
        registry
            .caches
            .of(row)?
            .get(&registry::path(namespace, name))?
            .value(),
    )
}

/// A token dies with its account and with what it is bound to.
fn check_bound(registry: &Registry, bound: &Bound) -> Result<(), TokenError> {
    let ties = [
        ("ServiceAccount", Some(&bound.serviceaccount)),
        ("Pod", bound.pod.as_ref()),
        ("Secret", bound.secret.as_ref()),
        // A pod's token outlives the node that it names beside the pod.
        ("Node", bound.node.as_ref().filter(|_| bound.pod.is_none())),
    ];
    for (kind, tie) in ties {
        let Some(tie) = tie else { continue };
        let found = look_up(registry, kind, &bound.namespace, &tie.name);
        if found.as_ref().map(object::uid) != Some(tie.uid.as_str()) {
            return Err(TokenError::Unbound(format!(
                "{kind} {}/{}",
                bound.namespace, tie.name
            )));
        }
    }
    Ok(())
}
