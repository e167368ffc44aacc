//! From the claims of a token to somebody, as the configuration maps them.

use std::collections::BTreeMap;

use evenkeel_cel::{Budget, Program, Schema, Type, Value as Cel};
use serde_json::{Map, Value, json};

use crate::auth::{AUTHENTICATED, Identity};

/// How one thing comes from claims.
#[derive(Debug)]
pub(super) enum Mapping {
    /// A claim as it is, behind a prefix.
    Claim { claim: String, prefix: String },
    /// What an expression says.
    Expression(Program),
}

/// What a token must have.
#[derive(Debug)]
pub(super) enum Required {
    Value { claim: String, value: String },
    Expression { program: Program, message: String },
}

/// Everything about the claims of one issuer.
#[derive(Debug)]
pub(super) struct Mappings {
    pub(super) user: Mapping,
    pub(super) groups: Option<Mapping>,
    pub(super) uid: Option<Mapping>,
    pub(super) extra: Vec<(String, Program)>,
    pub(super) required: Vec<Required>,
    /// What holds of the one who comes out.
    pub(super) user_rules: Vec<(Program, String)>,
}

/// The form of `user` in rules.
pub(super) fn user_schema() -> Schema {
    let text = || Schema::simple(Type::String);
    Schema::object(
        "kubernetes.UserInfo",
        [
            ("username".to_owned(), text()),
            ("uid".to_owned(), text()),
            ("groups".to_owned(), Schema::list(text())),
            ("extra".to_owned(), Schema::map(Schema::list(text()))),
        ],
    )
}

type Claims = Map<String, Value>;

fn evaluate(program: &Program, variable: &str, value: &Cel) -> Result<Cel, String> {
    let variables = [(variable, value.clone())];
    program
        .evaluate(&variables, &mut Budget::default())
        .map_err(|error| {
            let source = program.source();
            format!("expression '{source}' resulted in error: {error}")
        })
}

fn text_of(claims: &Claims, claim: &str) -> Result<String, String> {
    match claims.get(claim) {
        None => Err("claim not present".to_owned()),
        Some(Value::String(text)) => Ok(text.clone()),
        // As Go reads it.
        Some(Value::Null) => Ok(String::new()),
        Some(other) => Err(format!(
            "json: cannot unmarshal {} into Go value of type string",
            json_type(other)
        )),
    }
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A string, a list of strings, or nothing.
fn texts(value: &Cel) -> Option<Vec<String>> {
    let kept = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    match value.to_json().ok()? {
        Value::Null => Some(Vec::new()),
        Value::String(text) => Some(kept(&text).into_iter().collect()),
        Value::Array(items) => items
            .iter()
            .map(Value::as_str)
            .collect::<Option<Vec<&str>>>()
            .map(|items| items.into_iter().filter_map(kept).collect()),
        _ => None,
    }
}

impl Mappings {
    /// Who the claims are about.
    ///
    /// # Errors
    /// What is missing or forbidden, in the reference's words.
    pub(super) fn identify(&self, claims: &Claims) -> Result<Identity, String> {
        let value = Cel::from_json(&Value::Object(claims.clone()));
        let mut identity = Identity {
            user: self.user(claims, &value)?,
            groups: self.groups(claims, &value)?,
            uid: self.uid(claims, &value)?,
            extra: self.extra(&value)?,
        };
        for rule in &self.required {
            check(rule, claims, &value)?;
        }
        if !self.user_rules.is_empty() {
            let user = json!({"username": identity.user, "groups": identity.groups,
                "uid": identity.uid, "extra": identity.extra});
            let user = user_schema()
                .value(&user)
                .unwrap_or_else(|_| Cel::from_json(&user));
            for (program, message) in &self.user_rules {
                holds(program, "user", &user, message).map_err(|why| {
                    format!("oidc: error evaluating user info validation rule: {why}")
                })?;
            }
        }
        if let Some(id) = claims.get("jti").and_then(Value::as_str) {
            let key = "authentication.kubernetes.io/credential-id".to_owned();
            identity.extra.insert(key, vec![format!("JTI={id}")]);
        }
        if !identity.in_group(AUTHENTICATED) {
            identity.groups.push(AUTHENTICATED.to_owned());
        }
        Ok(identity)
    }

    fn user(&self, claims: &Claims, value: &Cel) -> Result<String, String> {
        match &self.user {
            Mapping::Expression(program) => {
                let failed = |why: String| {
                    format!("oidc: error evaluating username claim expression: {why}")
                };
                match evaluate(program, "claims", value).map_err(failed)? {
                    Cel::String(text) if text.is_empty() => {
                        Err("oidc: empty username via CEL expression is not allowed".to_owned())
                    }
                    Cel::String(text) => Ok(text.to_string()),
                    _ => Err(failed(
                        "username claim expression must return a string".into(),
                    )),
                }
            }
            Mapping::Claim { claim, prefix } => {
                let name = text_of(claims, claim)
                    .map_err(|why| format!("oidc: parse username claims {claim:?}: {why}"))?;
                if claim == "email"
                    && let Some(verified) = claims.get("email_verified")
                {
                    match verified.as_bool() {
                        Some(true) => {}
                        Some(false) => return Err("oidc: email not verified".to_owned()),
                        None => {
                            return Err(format!(
                                "oidc: parse 'email_verified' claim: json: cannot unmarshal {} \
                                 into Go value of type bool",
                                json_type(verified)
                            ));
                        }
                    }
                }
                Ok(format!("{prefix}{name}"))
            }
        }
    }

    fn groups(&self, claims: &Claims, value: &Cel) -> Result<Vec<String>, String> {
        match &self.groups {
            None => Ok(Vec::new()),
            Some(Mapping::Expression(program)) => {
                let failed =
                    |why: String| format!("oidc: error evaluating group claim expression: {why}");
                let said = evaluate(program, "claims", value).map_err(failed)?;
                texts(&said).ok_or_else(|| {
                    failed("expression must return a string or a list of strings".into())
                })
            }
            Some(Mapping::Claim { claim, prefix }) => {
                let Some(found) = claims.get(claim) else {
                    return Ok(Vec::new());
                };
                let wrong = || {
                    format!(
                        "oidc: parse groups claim {claim:?}: not a string or an array of strings"
                    )
                };
                let all = match found {
                    Value::String(one) => vec![one.as_str()],
                    Value::Array(items) => items
                        .iter()
                        .map(Value::as_str)
                        .collect::<Option<Vec<&str>>>()
                        .ok_or_else(wrong)?,
                    _ => return Err(wrong()),
                };
                Ok(all.into_iter().map(|it| format!("{prefix}{it}")).collect())
            }
        }
    }

    fn uid(&self, claims: &Claims, value: &Cel) -> Result<String, String> {
        match &self.uid {
            None => Ok(String::new()),
            Some(Mapping::Expression(program)) => {
                let failed =
                    |why: String| format!("oidc: error evaluating uid claim expression: {why}");
                match evaluate(program, "claims", value).map_err(failed)? {
                    Cel::String(text) => Ok(text.to_string()),
                    _ => Err(failed("uid claim expression must return a string".into())),
                }
            }
            Some(Mapping::Claim { claim, .. }) => text_of(claims, claim)
                .map_err(|why| format!("oidc: parse uid claim {claim:?}: {why}")),
        }
    }

    fn extra(&self, value: &Cel) -> Result<BTreeMap<String, Vec<String>>, String> {
        let mut out = BTreeMap::new();
        for (key, program) in &self.extra {
            let failed =
                |why: String| format!("oidc: error evaluating extra claim expression: {why}");
            let said = evaluate(program, "claims", value).map_err(failed)?;
            let all = texts(&said).ok_or_else(|| {
                failed("expression must return a string or a list of strings".into())
            })?;
            if !all.is_empty() {
                out.insert(key.clone(), all);
            }
        }
        Ok(out)
    }
}

fn holds(program: &Program, variable: &str, value: &Cel, message: &str) -> Result<(), String> {
    match evaluate(program, variable, value)? {
        Cel::Bool(true) => Ok(()),
        Cel::Bool(false) => Err(format!(
            "validation expression '{}' failed: {message}",
            program.source()
        )),
        _ => Err(format!(
            "validation expression '{}' must return a boolean",
            program.source()
        )),
    }
}

fn check(rule: &Required, claims: &Claims, value: &Cel) -> Result<(), String> {
    match rule {
        Required::Value {
            claim,
            value: wanted,
        } => {
            if !claims.contains_key(claim) {
                return Err(format!(
                    "oidc: required claim {claim} not present in ID token"
                ));
            }
            let found = text_of(claims, claim)
                .map_err(|why| format!("oidc: parse claim {claim}: {why}"))?;
            if found != *wanted {
                return Err(format!(
                    "oidc: required claim {claim} value does not match. Got = {found}, want = \
                     {wanted}"
                ));
            }
            Ok(())
        }
        Required::Expression { program, message } => holds(program, "claims", value, message)
            .map_err(|why| format!("oidc: error evaluating claim validation expression: {why}")),
    }
}
