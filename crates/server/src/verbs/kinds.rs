//! Kinds that are answered and not kept: reviews of tokens and of access, and bindings.

use evenkeel_api::{Status, clock, object};
use http::StatusCode;
use serde_json::{Value, json};

use super::show::encode;
use super::{Request, decode, subresource, write};
use crate::auth::{Decision, Identity};
use crate::http::{Answer, Attributes};

pub(super) async fn answer(mut request: Request<'_>) -> Result<Answer, Status> {
    // Reviews read the caches: what the client wrote just before must be there.
    request.door.registry.fresh().await?;
    let kind = request.row.gvk.kind.to_string();
    if kind == "Binding" {
        return bind(request).await;
    }
    let mut body = decode::body(&mut request)?;
    write::place(&request, &mut body)?;
    match kind.as_str() {
        // They say nothing of what was sent.
        "SelfSubjectReview" => {
            let now = clock::rfc3339(request.door.clock().now());
            body["metadata"] = json!({"creationTimestamp": now});
        }
        "SelfSubjectRulesReview" => {}
        _ => {
            write::track(&request, None, &mut body, None).await;
            check_review(&request, &body)?;
        }
    }
    body["status"] = match kind.as_str() {
        "TokenReview" => token_review(&request, &body).await?,
        "SelfSubjectReview" => json!({"userInfo": user_info(&request.call.identity)}),
        "SelfSubjectAccessReview" => {
            access_review(&request, &request.call.identity.clone(), &body).await?
        }
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            access_review(&request, &subject(&body), &body).await?
        }
        "SelfSubjectRulesReview" => rules_review(&request, &body)?,
        other => return Err(Status::internal(format!("no answer for {other}"))),
    };
    if kind == "SelfSubjectRulesReview" {
        body["metadata"] = json!({});
        body["spec"] = json!({});
    }
    request.door.rows().fill(&request.row, &mut body);
    encode(&request, StatusCode::CREATED, &body)
}

/// Reviews of access are refused in words that do not name their kind, as in the reference.
fn check_review(request: &Request<'_>, body: &Value) -> Result<(), Status> {
    if !request.row.gvk.kind.ends_with("AccessReview") {
        return Ok(());
    }
    let errors = request.row.strategy.validate(body);
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(&request.row.gvk.group, "", "", &errors))
}

/// `POST bindings` names the pod in its metadata.
async fn bind(mut request: Request<'_>) -> Result<Answer, Status> {
    let parsed = decode::body(&mut request)?;
    let pods = request
        .door
        .rows()
        .by_kind("", "v1", "Pod")
        .cloned()
        .ok_or_else(Status::no_such_path)?;
    request.call.attributes.name = object::name(&parsed).to_owned();
    request.row = pods;
    subresource::binding(request).await
}

/// Who somebody is, as a `UserInfo`.
pub(super) fn user_info(identity: &Identity) -> Value {
    let mut info = json!({"username": identity.user, "groups": identity.groups});
    if !identity.uid.is_empty() {
        info["uid"] = identity.uid.clone().into();
    }
    if !identity.extra.is_empty() {
        info["extra"] = json!(identity.extra);
    }
    info
}

async fn token_review(request: &Request<'_>, body: &Value) -> Result<Value, Status> {
    let token = object::text(body, &["spec", "token"]);
    if token.is_empty() {
        let why = "token is required for TokenReview in authentication";
        return Err(Status::bad_request(why));
    }
    let audiences: Vec<&str> = object::list(body, &["spec", "audiences"])
        .iter()
        .filter_map(Value::as_str)
        .collect();
    Ok(match request.door.review_token(token, &audiences).await {
        Ok((identity, audiences)) => {
            json!({"authenticated": true, "user": user_info(&identity), "audiences": audiences})
        }
        Err(error) => json!({"user": {}, "error": error.to_string()}),
    })
}

/// The subject that a review asks about.
fn subject(body: &Value) -> Identity {
    let spec = body.get("spec").cloned().unwrap_or_default();
    let groups: Vec<String> = object::list(&spec, &["groups"])
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    Identity {
        user: object::text(&spec, &["user"]).to_owned(),
        groups,
        uid: object::text(&spec, &["uid"]).to_owned(),
        extra: spec
            .get("extra")
            .and_then(|extra| serde_json::from_value(extra.clone()).ok())
            .unwrap_or_default(),
    }
}

/// The requirements of a selector in a review: key, operator and values.
fn requirements(selector: &Value) -> impl Iterator<Item = (&str, &str, Vec<&str>)> {
    let all = object::list(selector, &["requirements"]).iter();
    all.map(|one| {
        let values = object::list(one, &["values"]).iter();
        (
            object::text(one, &["key"]),
            object::text(one, &["operator"]),
            values.filter_map(Value::as_str).collect(),
        )
    })
}

/// A label selector of a review as requests have it.
fn label_selector(selector: &Value) -> String {
    let raw = object::text(selector, &["rawSelector"]);
    if !raw.is_empty() {
        return raw.to_owned();
    }
    let terms = requirements(selector).filter_map(|(key, operator, values)| {
        let values = values.join(",");
        Some(match operator {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        })
    });
    terms.collect::<Vec<_>>().join(",")
}

/// A field selector of a review as requests have it: it compares with one value.
fn field_selector(selector: &Value) -> String {
    let raw = object::text(selector, &["rawSelector"]);
    if !raw.is_empty() {
        return raw.to_owned();
    }
    let terms = requirements(selector).filter_map(|(key, operator, values)| {
        let [value] = values.as_slice() else {
            return None;
        };
        let value = value.replace('\\', "\\\\");
        let value = value.replace(',', "\\,").replace('=', "\\=");
        match operator {
            "In" => Some(format!("{key}={value}")),
            "NotIn" => Some(format!("{key}!={value}")),
            _ => None,
        }
    });
    terms.collect::<Vec<_>>().join(",")
}

/// What a checked review asks whether it is allowed.
fn asked(body: &Value) -> Attributes {
    let spec = body.get("spec").cloned().unwrap_or_default();
    let Some(given) = spec.get("resourceAttributes") else {
        let given = spec.get("nonResourceAttributes").unwrap_or(&Value::Null);
        return Attributes {
            verb: object::text(given, &["verb"]).to_owned(),
            path: object::text(given, &["path"]).to_owned(),
            ..Attributes::default()
        };
    };
    let text = |name: &str| object::text(given, &[name]).to_owned();
    Attributes {
        verb: text("verb"),
        resource_request: true,
        group: text("group"),
        version: text("version"),
        resource: text("resource"),
        subresource: text("subresource"),
        namespace: text("namespace"),
        name: text("name"),
        label_selector: label_selector(&given["labelSelector"]),
        field_selector: field_selector(&given["fieldSelector"]),
        ..Attributes::default()
    }
}

async fn access_review(
    request: &Request<'_>,
    identity: &Identity,
    body: &Value,
) -> Result<Value, Status> {
    let attributes = asked(body);
    let authorizer = request.door.authorizer();
    if let Some(preparing) = authorizer.prepare(identity, &attributes) {
        preparing.await;
    }
    let (mut status, reason) = match authorizer.authorize(identity, &attributes) {
        Decision::Allow(reason) => (json!({"allowed": true}), reason),
        Decision::NoOpinion(reason) => (json!({"allowed": false}), reason),
        Decision::Deny(reason) => (json!({"allowed": false, "denied": true}), reason),
    };
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    Ok(status)
}

fn rules_review(request: &Request<'_>, body: &Value) -> Result<Value, Status> {
    let namespace = object::text(body, &["spec", "namespace"]);
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let (resources, others) = request
        .door
        .authorizer()
        .rules(&request.call.identity, namespace);
    let gap = request.door.authorizer().rules_gap();
    let mut status = json!({"resourceRules": resources, "nonResourceRules": others,
        "incomplete": gap.is_some()});
    if let Some(gap) = gap {
        status["evaluationError"] = gap.into();
    }
    Ok(status)
}
