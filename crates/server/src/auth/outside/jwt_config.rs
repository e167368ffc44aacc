//! `AuthenticationConfiguration` (`apiserver.config.k8s.io/v1`, and its beta forms): issuers of
//! tokens, and who is nobody. What is wrong is told with the reference's paths and words.

use std::collections::BTreeSet;

use evenkeel_api::field::{ErrorList, FieldError, Path};
use evenkeel_api::validation;
use evenkeel_cel::{Env, Program, Schema, Type};
use serde::Deserialize;

use super::Anonymous;
use super::claims::{Mapping, Mappings, Required, user_schema};
use super::distributed::Resolver;
use super::jwt::{Issuer, Issuers};
use super::keys::Keys;
use crate::outbound::{Peer, Url};

/// So many issuers may be named.
const ISSUERS_MOST: usize = 64;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    jwt: Vec<Jwt>,
    anonymous: Option<AnonymousFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnonymousFile {
    #[serde(default)]
    enabled: bool,
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    path: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Jwt {
    issuer: IssuerFile,
    #[serde(default)]
    claim_validation_rules: Vec<ClaimRule>,
    claim_mappings: ClaimMappings,
    #[serde(default)]
    user_validation_rules: Vec<UserRule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct IssuerFile {
    #[serde(default)]
    url: String,
    #[serde(default, rename = "discoveryURL")]
    discovery_url: String,
    #[serde(default)]
    certificate_authority: String,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default)]
    audience_match_policy: String,
    #[serde(default)]
    egress_selector_type: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[derive(Default)]
struct ClaimRule {
    claim: String,
    required_value: String,
    expression: String,
    message: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimMappings {
    username: Prefixed,
    #[serde(default)]
    groups: Prefixed,
    #[serde(default)]
    uid: Prefixed,
    #[serde(default)]
    extra: Vec<Extra>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Prefixed {
    claim: String,
    prefix: Option<String>,
    expression: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Extra {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value_expression: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserRule {
    #[serde(default)]
    expression: String,
    #[serde(default)]
    message: String,
}

/// Reads a configuration.
///
/// # Errors
/// Everything that is wrong with it.
pub(super) fn read(text: &str, own_issuer: &str) -> Result<(Issuers, Anonymous), String> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let known =
        ["v1", "v1beta1", "v1alpha1"].map(|version| format!("apiserver.config.k8s.io/{version}"));
    if file.kind != "AuthenticationConfiguration" || !known.contains(&file.api_version) {
        return Err(format!(
            "no kind {:?} is registered for version {:?}",
            file.kind, file.api_version
        ));
    }
    let mut out = ErrorList::new();
    let root = Path::new("jwt");
    if file.jwt.len() > ISSUERS_MOST {
        out.push(FieldError::too_many(&root, file.jwt.len(), ISSUERS_MOST));
    }
    let mut issuers = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, jwt) in file.jwt.iter().enumerate() {
        let at = root.index(index);
        issuers.extend(issuer(jwt, own_issuer, &at, &mut out));
        for (field, url) in [
            ("url", &jwt.issuer.url),
            ("discoveryURL", &jwt.issuer.discovery_url),
        ] {
            if !url.is_empty() && !seen.insert((field, url)) {
                out.push(FieldError::duplicate(
                    &at.child("issuer").child(field),
                    url.as_str(),
                ));
            }
        }
    }
    let anonymous = file
        .anonymous
        .map_or_else(Anonymous::default, |given| Anonymous {
            enabled: given.enabled,
            paths: given.conditions.into_iter().map(|it| it.path).collect(),
        });
    if !anonymous.enabled && !anonymous.paths.is_empty() {
        out.push(FieldError::invalid(
            &Path::new("anonymous").child("conditions"),
            anonymous.paths.clone(),
            "enabled should be set to true when conditions are defined",
        ));
    }
    if out.is_empty() {
        return Ok((Issuers(issuers), anonymous));
    }
    Err(told(&out))
}

/// Several errors in one line, as the reference puts them.
pub(super) fn told(errors: &ErrorList) -> String {
    let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
    match all.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

fn url(text: &str, own: Option<&str>, at: &Path, out: &mut ErrorList) {
    if own == Some(text) {
        let wrong = format!("URL must not overlap with disallowed issuers: [{text}]");
        out.push(FieldError::invalid(at, text, &wrong));
    }
    if !text.starts_with("https://") {
        out.push(FieldError::invalid(at, text, "URL scheme must be https"));
    }
    let authority = text.split("://").nth(1).unwrap_or_default();
    let authority = authority.split('/').next().unwrap_or_default();
    for (found, wrong) in [
        (
            authority.contains('@'),
            "URL must not contain a username or password",
        ),
        (text.contains('?'), "URL must not contain a query"),
        (text.contains('#'), "URL must not contain a fragment"),
    ] {
        if found {
            out.push(FieldError::invalid(at, text, wrong));
        }
    }
}

fn issuer(jwt: &Jwt, own_issuer: &str, at: &Path, out: &mut ErrorList) -> Option<Issuer> {
    let before = out.len();
    let given = &jwt.issuer;
    let place = at.child("issuer");
    if given.url.is_empty() {
        out.push(FieldError::required(&place.child("url"), ""));
    } else {
        url(&given.url, Some(own_issuer), &place.child("url"), out);
    }
    if !given.discovery_url.is_empty() {
        let place = place.child("discoveryURL");
        if given.url.trim_end_matches('/') == given.discovery_url.trim_end_matches('/') {
            let wrong = "discoveryURL must be different from URL";
            out.push(FieldError::invalid(
                &place,
                given.discovery_url.as_str(),
                wrong,
            ));
        }
        url(&given.discovery_url, None, &place, out);
    }
    audiences(given, &place, out);
    if !given.egress_selector_type.is_empty() {
        let wrong = "egress selectors are not supported by this server";
        out.push(FieldError::forbidden(
            &place.child("egressSelectorType"),
            wrong,
        ));
    }
    let peer = Peer::believed(&given.certificate_authority)
        .map_err(|why| {
            let place = place.child("certificateAuthority");
            out.push(FieldError::invalid(&place, "<omitted>", &why));
        })
        .ok();
    let mappings = mappings(jwt, at, out);
    if out.len() > before {
        return None;
    }
    let discovery = if given.discovery_url.is_empty() {
        let root = given.url.trim_end_matches('/');
        format!("{root}/.well-known/openid-configuration")
    } else {
        given.discovery_url.clone()
    };
    let discovery = Url::read(&discovery)
        .map_err(|why| {
            out.push(FieldError::invalid(
                &place.child("url"),
                given.url.as_str(),
                &why,
            ))
        })
        .ok()?;
    let (peer, mappings) = (peer?, mappings?);
    let resolver = match &mappings.groups {
        Some(Mapping::Claim { claim, .. }) => Some(Resolver::new(claim, peer.bearing("").ok()?)),
        _ => None,
    };
    Some(Issuer {
        url: given.url.clone(),
        audiences: given.audiences.clone(),
        keys: Keys::new(&given.url, discovery, peer),
        mappings,
        resolver,
    })
}

fn audiences(given: &IssuerFile, place: &Path, out: &mut ErrorList) {
    let at = place.child("audiences");
    if given.audiences.is_empty() {
        out.push(FieldError::required(
            &at,
            &format!("at least one {at} is required"),
        ));
        return;
    }
    let mut seen = BTreeSet::new();
    for (index, audience) in given.audiences.iter().enumerate() {
        if audience.is_empty() {
            out.push(FieldError::required(&at.index(index), ""));
        }
        if !seen.insert(audience) {
            out.push(FieldError::duplicate(&at.index(index), audience.as_str()));
        }
    }
    let at = place.child("audienceMatchPolicy");
    let policy = given.audience_match_policy.as_str();
    let many = given.audiences.len() > 1;
    if many && policy != "MatchAny" {
        let wrong = "audienceMatchPolicy must be MatchAny for multiple audiences";
        out.push(FieldError::invalid(&at, policy, wrong));
    }
    if !many && !matches!(policy, "" | "MatchAny") {
        let wrong = "audienceMatchPolicy must be empty or MatchAny for single audience";
        out.push(FieldError::invalid(&at, policy, wrong));
    }
}

fn of_claims() -> Env {
    Env::kubernetes().with_variable("claims", Schema::map(Schema::dynamic()))
}

fn of_user() -> Env {
    Env::kubernetes().with_variable("user", user_schema())
}

fn compiled(env: &Env, expression: &str, at: &Path, out: &mut ErrorList) -> Option<Program> {
    env.compile(expression)
        .map_err(|errors| {
            let wrong = format!("compilation failed: {errors}");
            out.push(FieldError::invalid(at, expression, &wrong));
        })
        .ok()
}

/// A rule, which says yes or no.
fn rule(env: &Env, expression: &str, at: &Path, out: &mut ErrorList) -> Option<Program> {
    let program = compiled(env, expression, at, out)?;
    if matches!(program.output(), Type::Bool) {
        return Some(program);
    }
    out.push(FieldError::invalid(at, expression, "must evaluate to bool"));
    None
}

fn mappings(jwt: &Jwt, at: &Path, out: &mut ErrorList) -> Option<Mappings> {
    let env = of_claims();
    let given = &jwt.claim_mappings;
    let place = at.child("claimMappings");
    let required = required(jwt, &env, at, out);
    let user = prefixed(&given.username, &env, &place.child("username"), out);
    if user.is_none() && given.username.claim.is_empty() && given.username.expression.is_empty() {
        let place = place.child("username");
        out.push(FieldError::required(
            &place,
            "claim or expression is required",
        ));
    }
    let groups = prefixed(&given.groups, &env, &place.child("groups"), out);
    let uid_at = place.child("uid");
    let uid = match (given.uid.claim.as_str(), given.uid.expression.as_str()) {
        ("", "") => None,
        ("", expression) => {
            let at = uid_at.child("expression");
            compiled(&env, expression, &at, out).map(Mapping::Expression)
        }
        (claim, "") => Some(Mapping::Claim {
            claim: claim.to_owned(),
            prefix: String::new(),
        }),
        _ => {
            let wrong = "claim and expression can't both be set";
            out.push(FieldError::invalid(&uid_at, "", wrong));
            None
        }
    };
    let extra = extra(&given.extra, &env, &place.child("extra"), out);
    let uses = |source: &str, claim: &str| source.contains(&format!("claims.{claim}"));
    let email = given
        .username
        .expression
        .replace("claims.email_verified", "");
    let verified = std::iter::once(given.username.expression.as_str())
        .chain(given.extra.iter().map(|it| it.value_expression.as_str()))
        .chain(
            jwt.claim_validation_rules
                .iter()
                .map(|it| it.expression.as_str()),
        )
        .any(|source| uses(source, "email_verified") || uses(source, "?email_verified"));
    if uses(&email, "email") && !verified {
        out.push(FieldError::invalid(
            &place.child("username").child("expression"),
            given.username.expression.as_str(),
            "claims.email_verified must be used in claimMappings.username.expression or \
             claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when \
             claims.email is used in claimMappings.username.expression",
        ));
    }
    Some(Mappings {
        user: user?,
        groups,
        uid,
        extra,
        required,
        user_rules: user_rules(jwt, at, out),
    })
}

fn prefixed(given: &Prefixed, env: &Env, at: &Path, out: &mut ErrorList) -> Option<Mapping> {
    match (given.claim.as_str(), given.expression.as_str()) {
        ("", "") => {
            if given.prefix.is_some() {
                let wrong = "non-nil";
                let why = "prefix may not be set when claim is not set";
                out.push(FieldError::invalid(&at.child("prefix"), wrong, why));
            }
            None
        }
        ("", expression) => {
            if given.prefix.is_some() {
                let why = "prefix can't be set when expression is set";
                let shown = given.prefix.clone().unwrap_or_default();
                out.push(FieldError::invalid(at, shown, why));
            }
            compiled(env, expression, &at.child("expression"), out).map(Mapping::Expression)
        }
        (claim, "") => {
            let Some(prefix) = given.prefix.clone() else {
                let why = "prefix is required when claim is set. It can be set to an empty \
                           string to disable prefixing";
                out.push(FieldError::required(&at.child("prefix"), why));
                return None;
            };
            Some(Mapping::Claim {
                claim: claim.to_owned(),
                prefix,
            })
        }
        _ => {
            out.push(FieldError::invalid(
                at,
                "",
                "claim and expression can't both be set",
            ));
            None
        }
    }
}

fn required(jwt: &Jwt, env: &Env, at: &Path, out: &mut ErrorList) -> Vec<Required> {
    let mut all = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, given) in jwt.claim_validation_rules.iter().enumerate() {
        let at = at.child("claimValidationRules").index(index);
        let (claim, expression) = (given.claim.as_str(), given.expression.as_str());
        match (claim.is_empty(), expression.is_empty()) {
            (false, false) => {
                let wrong = "claim and expression can't both be set";
                out.push(FieldError::invalid(&at, claim, wrong));
            }
            (true, true) => {
                out.push(FieldError::required(&at, "claim or expression is required"));
            }
            (false, true) => {
                if !given.message.is_empty() {
                    let wrong = "may not be specified when claim is set";
                    let at = at.child("message");
                    out.push(FieldError::invalid(&at, given.message.as_str(), wrong));
                }
                if !seen.insert(claim) {
                    out.push(FieldError::duplicate(&at.child("claim"), claim));
                }
                all.push(Required::Value {
                    claim: claim.to_owned(),
                    value: given.required_value.clone(),
                });
            }
            (true, false) => {
                if !given.required_value.is_empty() {
                    let wrong = "may not be specified when expression is set";
                    let at = at.child("requiredValue");
                    out.push(FieldError::invalid(
                        &at,
                        given.required_value.as_str(),
                        wrong,
                    ));
                }
                let at = at.child("expression");
                if !seen.insert(expression) {
                    out.push(FieldError::duplicate(&at, expression));
                    continue;
                }
                all.extend(
                    rule(env, expression, &at, out).map(|program| Required::Expression {
                        program,
                        message: given.message.clone(),
                    }),
                );
            }
        }
    }
    all
}

fn user_rules(jwt: &Jwt, at: &Path, out: &mut ErrorList) -> Vec<(Program, String)> {
    let env = of_user();
    let mut all = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, given) in jwt.user_validation_rules.iter().enumerate() {
        let at = at
            .child("userValidationRules")
            .index(index)
            .child("expression");
        if given.expression.is_empty() {
            out.push(FieldError::required(&at, ""));
        } else if !seen.insert(&given.expression) {
            out.push(FieldError::duplicate(&at, given.expression.as_str()));
        } else if let Some(program) = rule(&env, &given.expression, &at, out) {
            all.push((program, given.message.clone()));
        }
    }
    all
}

fn extra(given: &[Extra], env: &Env, at: &Path, out: &mut ErrorList) -> Vec<(String, Program)> {
    let mut all = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, given) in given.iter().enumerate() {
        let at = at.index(index);
        let (key, key_at) = (given.key.as_str(), at.child("key"));
        validation::domain_prefixed_path(key, &key_at, out);
        if key != key.to_lowercase() {
            out.push(FieldError::invalid(&key_at, key, "must be lowercase"));
        }
        let domain = key.split_once('/').map_or("", |(domain, _)| domain);
        let reserved = ["kubernetes.io", "k8s.io"]
            .iter()
            .any(|own| domain == *own || domain.ends_with(&format!(".{own}")));
        if reserved {
            let wrong =
                "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
            out.push(FieldError::invalid(&key_at, key, wrong));
        }
        if !seen.insert(key) {
            out.push(FieldError::duplicate(&key_at, key));
            continue;
        }
        let at = at.child("valueExpression");
        if given.value_expression.is_empty() {
            out.push(FieldError::required(&at, ""));
            continue;
        }
        let program = compiled(env, &given.value_expression, &at, out);
        all.extend(program.map(|program| (key.to_owned(), program)));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "https://kubernetes.default.svc";

    fn config(jwt: &str) -> String {
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n{jwt}"
        )
    }

    #[test]
    fn what_is_wrong_is_told_with_its_path() {
        let text = config(
            "- issuer: {url: 'http://a', audiences: [x, y]}\n  claimMappings:\n    username: \
             {claim: sub}\n    extra: [{key: 'K8s.io/x', valueExpression: 'claims.a +'}]\n",
        );
        let wrong = read(&text, OWN).unwrap_err();
        for part in [
            "jwt[0].issuer.url: Invalid value: \"http://a\": URL scheme must be https",
            "jwt[0].issuer.audienceMatchPolicy: Invalid value: \"\": audienceMatchPolicy must be \
             MatchAny for multiple audiences",
            "jwt[0].claimMappings.username.prefix: Required value",
            "jwt[0].claimMappings.extra[0].key: Invalid value: \"K8s.io/x\": must be lowercase",
            "jwt[0].claimMappings.extra[0].valueExpression: Invalid value: \"claims.a +\": \
             compilation failed",
        ] {
            assert!(wrong.contains(part), "{part}\n{wrong}");
        }
        let text = config(&format!(
            "- issuer: {{url: '{OWN}', audiences: [x]}}\n  claimMappings:\n    username: \
             {{expression: claims.email}}\n"
        ));
        let wrong = read(&text, OWN).unwrap_err();
        assert!(
            wrong.contains("URL must not overlap with disallowed issuers"),
            "{wrong}"
        );
        assert!(
            wrong.contains("claims.email_verified must be used"),
            "{wrong}"
        );
        let unknown = config("- issuer: {url: 'https://a', audience: [x]}\n  claimMappings: {}\n");
        assert!(read(&unknown, OWN).unwrap_err().contains("audience"));
    }

    #[test]
    fn nobody_may_be_let_in_at_some_paths_only() {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";
        let text = format!("{head}anonymous: {{enabled: true, conditions: [{{path: /livez}}]}}\n");
        let (_, anonymous) = read(&text, OWN).unwrap();
        assert!(anonymous.lets("/livez") && !anonymous.lets("/version"));
        let text = format!("{head}anonymous: {{enabled: false}}\n");
        assert!(!read(&text, OWN).unwrap().1.lets("/livez"));
        assert!(read(head, OWN).unwrap().1.lets("/version"));
    }
}
