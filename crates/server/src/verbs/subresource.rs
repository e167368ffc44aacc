//! Parts of objects and actions on them.

use evenkeel_api::kinds::pod;
use evenkeel_api::row::{GroupVersionKind, ScalePaths, Subresource};
use evenkeel_api::selector::LabelSelector;
use evenkeel_api::{Status, clock, object};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::show::encode;
use super::write::{Owners, Replaced, finish, replace, rewrite};
use super::{Request, decode, patch, streams, write};
use crate::admission::{Change, Operation};
use crate::http::{Answer, status_answer_as};

const SCALE_TYPE: &str = "io.k8s.api.autoscaling.v1.Scale";
const BINDING_TYPE: &str = "io.k8s.api.core.v1.Binding";
const TOKEN_TYPE: &str = "io.k8s.api.authentication.v1.TokenRequest";

pub(super) async fn serve(
    request: Request<'_>,
    subresource: Subresource,
) -> Result<Answer, Status> {
    let method = request.call.parts.method.clone();
    if is_stream(subresource) {
        // Apart on the heap, so that other requests are not futures of this one's size.
        return Box::pin(streams::serve(request, subresource)).await;
    }
    let reads = method == Method::GET || method == Method::HEAD;
    if !reads {
        request.check_write_options()?;
    }
    match (subresource, &method) {
        (
            Subresource::Status
            | Subresource::Approval
            | Subresource::EphemeralContainers
            | Subresource::Resize,
            _,
        ) if reads => super::read::get(request).await,
        (Subresource::Status | Subresource::Approval | Subresource::Resize, &Method::PUT) => {
            write::update(request, Some(subresource)).await
        }
        (Subresource::Status | Subresource::Approval | Subresource::Resize, &Method::PATCH) => {
            patch::patch(request, Some(subresource)).await
        }
        (Subresource::EphemeralContainers, &Method::PUT | &Method::PATCH) => {
            Box::pin(ephemeral_containers(request)).await
        }
        (Subresource::Finalize, &Method::PUT) => Box::pin(finalize(request)).await,
        (Subresource::Scale, _) if reads => {
            let found = current(&request).await?;
            let scale = to_scale(&request, &found.value())?;
            encode(&request, StatusCode::OK, &scale)
        }
        (Subresource::Scale, &Method::PUT | &Method::PATCH) => Box::pin(scale(request)).await,
        (Subresource::Binding, &Method::POST) => binding(request).await,
        (Subresource::Eviction, &Method::POST) => Box::pin(super::eviction::evict(request)).await,
        (Subresource::Token, &Method::POST) => Box::pin(token(request)).await,
        _ => {
            let mut status = Status::failure(
                405,
                "MethodNotAllowed",
                "the server does not allow this method on the requested resource",
            );
            status.details = Some(Box::default());
            Err(status)
        }
    }
}

fn is_stream(subresource: Subresource) -> bool {
    matches!(
        subresource,
        Subresource::Log
            | Subresource::Exec
            | Subresource::Attach
            | Subresource::PortForward
            | Subresource::Proxy
    )
}

/// Shows admission what is sent to a subresource that has a kind of its own.
pub(super) async fn admit(
    request: &Request<'_>,
    operation: Operation,
    subresource: Subresource,
    body: &mut Value,
) -> Result<(), Status> {
    let change = Change {
        row: &request.row,
        operation,
        subresource: Some(subresource),
        identity: &request.call.identity,
        namespace: request.namespace(),
        old: None,
        dry_run: request.dry_run(),
        call: &request.call,
    };
    let door = request.door;
    // Admission reads the caches: what the client wrote just before must be there.
    door.registry.fresh().await?;
    door.admission.mutate(&door.registry, &change, body).await?;
    door.admission.validate(&door.registry, &change, body).await
}

/// The request's object as it is now.
pub(super) async fn current(
    request: &Request<'_>,
) -> Result<std::sync::Arc<crate::object::Object>, Status> {
    request
        .door
        .registry
        .get(&request.row, request.namespace(), request.name())
        .await?
        .ok_or_else(|| request.not_found())
}

fn gvk(subresource: Subresource) -> GroupVersionKind {
    let (group, version, kind) = subresource.own_kind().unwrap_or_default();
    GroupVersionKind {
        group: group.into(),
        version: version.into(),
        kind: kind.into(),
    }
}

async fn ephemeral_containers(mut request: Request<'_>) -> Result<Answer, Status> {
    let only = Some(Subresource::EphemeralContainers);
    let replaced = if request.call.parts.method == Method::PUT {
        let sent = decode::body(&mut request)?;
        replace(&mut request, only, Owners::Tracked, |_, _| Ok(sent.clone())).await?
    } else {
        let patch = patch::Patch::read(&request)?;
        let type_name = request.row.type_name.to_string();
        let gvk = request.row.gvk.clone();
        replace(&mut request, only, Owners::Tracked, |request, old| {
            let mut new = patch.on(request, old, &type_name)?;
            decode::settle(request, &gvk, &type_name, &mut new, &[])?;
            Ok(new)
        })
        .await?
    };
    finish(&request, replaced)
}

async fn finalize(mut request: Request<'_>) -> Result<Answer, Status> {
    let sent = decode::body(&mut request)?;
    let only = Some(Subresource::Finalize);
    let replaced = replace(&mut request, only, Owners::Tracked, |_, _| Ok(sent.clone())).await?;
    finish(&request, replaced)
}

/// The value at a dotted path.
fn dotted<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.')
        .try_fold(value, |value, name| value.get(name))
}

fn paths(request: &Request<'_>) -> Result<ScalePaths, Status> {
    request.row.scale.clone().ok_or_else(Status::no_such_path)
}

fn to_scale(request: &Request<'_>, value: &Value) -> Result<Value, Status> {
    let paths = paths(request)?;
    if request.row.custom.is_some() && dotted(value, &paths.spec_replicas).is_none() {
        return Err(Status::internal(format!(
            "the spec replicas field \".{}\" does not exist",
            paths.spec_replicas
        )));
    }
    let number = |path: &str| dotted(value, path).and_then(Value::as_i64).unwrap_or(0);
    let selector = match dotted(value, &paths.selector) {
        Some(Value::String(text)) => text.clone(),
        Some(selector) => query_form(selector),
        None => String::new(),
    };
    let metadata = value.get("metadata").cloned().unwrap_or_default();
    let mut kept = json!({});
    for name in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        if let Some(found) = metadata.get(name) {
            kept[name] = found.clone();
        }
    }
    Ok(json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": kept,
        "spec": {"replicas": number(&paths.spec_replicas)},
        "status": {"replicas": number(&paths.status_replicas), "selector": selector},
    }))
}

/// A structured selector in query form.
fn query_form(selector: &Value) -> String {
    let structured =
        selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some();
    let labels = if structured {
        selector.get("matchLabels")
    } else {
        Some(selector)
    };
    let mut terms: Vec<String> = labels
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    for expression in object::list(selector, &["matchExpressions"]) {
        let key = object::text(expression, &["key"]);
        let values: Vec<&str> = object::list(expression, &["values"])
            .iter()
            .filter_map(Value::as_str)
            .collect();
        terms.push(match object::text(expression, &["operator"]) {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    let text = terms.join(",");
    // What is written must be readable again.
    debug_assert!(LabelSelector::parse(&text).is_ok());
    text
}

async fn scale(mut request: Request<'_>) -> Result<Answer, Status> {
    let paths = paths(&request)?;
    let gvk = gvk(Subresource::Scale);
    let is_put = request.call.parts.method == Method::PUT;
    let sent = if is_put {
        Some(decode::body_of(&mut request, &gvk, SCALE_TYPE)?)
    } else {
        None
    };
    let patch = if is_put {
        None
    } else {
        Some(patch::Patch::read(&request)?)
    };
    let replaced = replace(
        &mut request,
        Some(Subresource::Scale),
        Owners::Tracked,
        |request, old| {
            let wanted = match (&sent, &patch) {
                (Some(sent), _) => sent.clone(),
                (None, Some(patch)) => {
                    let mut new = patch.on(request, &to_scale(request, old)?, SCALE_TYPE)?;
                    decode::settle(request, &gvk, SCALE_TYPE, &mut new, &[])?;
                    new
                }
                (None, None) => Value::Null,
            };
            for (wanted, found) in [
                (object::uid(&wanted), object::uid(old)),
                (
                    object::resource_version(&wanted),
                    object::resource_version(old),
                ),
            ] {
                if !wanted.is_empty() && wanted != found {
                    let row = &request.row;
                    let (group, plural) = (&row.gvk.group, &row.plural);
                    return Err(Status::modified(group, plural, object::name(old)).into());
                }
            }
            let replicas = object::integer(&wanted, &["spec", "replicas"]).unwrap_or(0);
            if replicas < 0 {
                let path = evenkeel_api::Path::new("spec").child("replicas");
                let error = evenkeel_api::FieldError::invalid(
                    &path,
                    replicas,
                    "must be greater than or equal to 0",
                );
                let name = object::name(old);
                return Err(Status::invalid("autoscaling", "Scale", name, &[error]).into());
            }
            let mut new = old.clone();
            set_dotted(&mut new, &paths.spec_replicas, replicas.into());
            Ok(new)
        },
    )
    .await?;
    let value = match replaced {
        Replaced::Stored(found) => found.value(),
        Replaced::Dry(value) => value,
    };
    let mut answer = encode(&request, StatusCode::OK, &to_scale(&request, &value)?)?;
    crate::http::warn(&mut answer, &request.warnings);
    Ok(answer)
}

fn set_dotted(value: &mut Value, path: &str, new: Value) {
    let mut at = value;
    let mut parts: Vec<&str> = path.split('.').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        at = object::child(at, part);
    }
    object::fields(at).insert(last.to_owned(), new);
}

/// `pods/NAME/binding`: gives the pod to a node.
pub(super) async fn binding(mut request: Request<'_>) -> Result<Answer, Status> {
    let gvk = gvk(Subresource::Binding);
    let mut body = decode::body_of(&mut request, &gvk, BINDING_TYPE)?;
    admit(&request, Operation::Create, Subresource::Binding, &mut body).await?;
    if object::text(&body, &["target", "name"]).is_empty() {
        let path = evenkeel_api::Path::new("target").child("name");
        let error = evenkeel_api::FieldError::required(&path, "");
        return Err(Status::invalid("", "Binding", request.name(), &[error]));
    }
    let wanted_uid = object::uid(&body).to_owned();
    let now = clock::rfc3339(request.door.clock().now());
    let name = request.name().to_owned();
    rewrite(&request, |pod| {
        let refuse = |why: String| Err(Status::conflict("", "pods/binding", &name, &why));
        if !wanted_uid.is_empty() && wanted_uid != object::uid(pod) {
            return refuse(format!(
                "Precondition failed: UID in precondition: {wanted_uid}, UID in object meta: {}",
                object::uid(pod)
            ));
        }
        pod::bind(pod, &body, &now).or_else(refuse)
    })
    .await?;
    Ok(created(&request))
}

fn created(request: &Request<'_>) -> Answer {
    let status = Status {
        code: 201,
        ..Status::success()
    };
    status_answer_as(request.media.encoding, &status)
}

/// `serviceaccounts/NAME/token`: a bound token.
async fn token(mut request: Request<'_>) -> Result<Answer, Status> {
    let gvk = gvk(Subresource::Token);
    let mut body = decode::body_of(&mut request, &gvk, TOKEN_TYPE)?;
    admit(&request, Operation::Create, Subresource::Token, &mut body).await?;
    let account = current(&request).await?.value();
    let issued =
        request
            .door
            .issue_token(&request.call.identity, request.namespace(), &account, &body)?;
    let metadata = object::metadata(&mut body);
    metadata.insert("name".to_owned(), object::name(&account).into());
    metadata.insert("namespace".to_owned(), request.namespace().into());
    metadata.insert(
        "creationTimestamp".to_owned(),
        clock::rfc3339(request.door.clock().now()).into(),
    );
    body["spec"] = issued.spec;
    body["status"] = json!({"token": issued.token, "expirationTimestamp": issued.expires});
    encode(&request, StatusCode::CREATED, &body)
}
