//! Service account tokens: JSON Web Tokens (RFC 7519), bound to an account and, if asked, to a pod, a
//! secret or a node; and those of Secrets, which live as long as their Secret.

mod legacy;
mod signing;

use evenkeel_api::{Status, clock, object};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use legacy::SecretToken;
pub use signing::{KeyError, SigningKeys};

use super::Identity;
use super::outside::jwt;
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

/// Issues tokens, and knows those that were.
#[derive(Debug)]
pub struct TokenKeys {
    keys: SigningKeys,
    /// The first one issues; tokens of the others are good still.
    issuers: Vec<String>,
}

impl TokenKeys {
    /// Signs by the first of the keys, and issues as the first of the issuers.
    #[must_use]
    pub fn new(keys: SigningKeys, issuers: Vec<String>) -> Self {
        Self { keys, issuers }
    }

    /// Who issues the tokens; also the audience that the door itself is.
    pub(crate) fn issuer(&self) -> &str {
        self.issuers.first().map_or("", String::as_str)
    }

    /// The public keys as a JSON Web Key Set (RFC 7517).
    #[must_use]
    pub fn key_set(&self) -> Value {
        self.keys.set()
    }

    /// The algorithms of these keys.
    #[must_use]
    pub fn algorithms(&self) -> Vec<&'static str> {
        self.keys.algorithms()
    }

    fn sign(&self, claims: &impl Serialize) -> Result<String, Status> {
        let claims =
            serde_json::to_vec(claims).map_err(|error| Status::internal(error.to_string()))?;
        self.keys.sign(&claims).map_err(Status::internal)
    }

    /// The token of a Secret of an account, which never expires.
    ///
    /// # Errors
    /// It can't be signed.
    pub fn of_secret(&self, of: &SecretToken<'_>) -> Result<String, Status> {
        self.sign(&legacy::Claims::of(of))
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
            audiences.push(self.issuer().to_owned());
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
            let version = object::text(reference, &["apiVersion"]);
            let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
            if !group.is_empty() || !matches!(kind.as_str(), "Pod" | "Secret" | "Node") {
                return Err(Status::bad_request(format!(
                    "cannot bind token to object of type {group}/{version}, Kind={kind}"
                )));
            }
            let found = look_up(registry, &kind, namespace, name)
                .ok_or_else(|| Status::not_found("", &format!("{}s", kind.to_lowercase()), name))?;
            let uid = object::text(reference, &["uid"]);
            if !uid.is_empty() && uid != object::uid(&found) {
                return Err(Status::conflict(
                    "",
                    &kind,
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
                _ => bound.node = Some(named(&found)),
            }
        }
        let issued_at = now.as_second();
        let claims = TokenClaims {
            aud: audiences.clone(),
            exp: issued_at + seconds,
            iat: issued_at,
            iss: self.issuer().to_owned(),
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
        let issuer = object::text(&claims, &["iss"]);
        if issuer == legacy::ISSUER {
            // It is for nobody, so it is for the door.
            let own = [self.issuer().to_owned()];
            let good = self.wanted(&own, audiences)?;
            let identity = legacy::verify(registry, now, token, &claims)?;
            return Ok((identity, good));
        }
        if !self.issuers.iter().any(|known| known == issuer) {
            return Err(TokenError::Issuer(issuer.to_owned()));
        }
        let claims: TokenClaims =
            serde_json::from_value(claims).map_err(|_| TokenError::Malformed)?;
        if now.as_second() >= claims.exp || now.as_second() + 10 < claims.nbf {
            return Err(TokenError::Expired);
        }
        let good = self.wanted(&claims.aud, audiences)?;
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

    /// Those of a token's audiences that are asked for; none asked: those that the door is, under
    /// any of its issuers' names.
    fn wanted(&self, given: &[String], asked: &[&str]) -> Result<Vec<String>, TokenError> {
        let is_wanted = |audience: &&String| {
            if asked.is_empty() {
                self.issuers.contains(audience)
            } else {
                asked.contains(&audience.as_str())
            }
        };
        let good: Vec<String> = given.iter().filter(is_wanted).cloned().collect();
        if good.is_empty() {
            return Err(TokenError::Audience(given.to_vec()));
        }
        Ok(good)
    }

    /// What a token says, if one of these keys has signed it.
    fn open(&self, token: &str) -> Result<Value, TokenError> {
        let parts = jwt::split(token).ok_or(TokenError::Malformed)?;
        if !self.keys.have_signed(&parts) {
            return Err(if self.keys.know(&parts) {
                TokenError::Signature
            } else {
                TokenError::Malformed
            });
        }
        Ok(Value::Object(parts.claims))
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
