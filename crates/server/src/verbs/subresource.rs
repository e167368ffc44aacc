//! Parts of objects and actions on them.

use std::sync::Arc;

use evenkeel_api::field::{FieldError, Path};
use evenkeel_api::json::Duplicates;
use evenkeel_api::kinds::pod;
use evenkeel_api::row::{GroupVersionKind, ScalePaths, Subresource};
use evenkeel_api::selector::LabelSelector;
use evenkeel_api::{Status, clock, object};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::forms::Forms;
use super::show::{encode, show_value};
use super::write::{Owners, Replaced, replace, rewrite};
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
    if subresource != Subresource::Proxy {
        super::refuse_head(&request.row, &method)?;
    }
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
        (
            Subresource::Status
            | Subresource::Approval
            | Subresource::EphemeralContainers
            | Subresource::Finalize
            | Subresource::Resize,
            &Method::PUT,
        ) => write::update(request, Some(subresource)).await,
        (
            Subresource::Status
            | Subresource::Approval
            | Subresource::EphemeralContainers
            | Subresource::Resize,
            &Method::PATCH,
        ) => patch::patch(request, Some(subresource)).await,
        (Subresource::Scale, _) if reads => {
            let found = current(&request).await?;
            let scale = to_scale(&request, &found.value())?;
            show_scale(request, scale)
        }
        (Subresource::Scale, &Method::PUT | &Method::PATCH) => Box::pin(scale(request)).await,
        (Subresource::Binding, &Method::POST) => binding(request).await,
        (Subresource::Eviction, &Method::POST) => Box::pin(super::eviction::evict(request)).await,
        (Subresource::Token, &Method::POST) => Box::pin(token(request)).await,
        _ => Err(super::unsupported(&request)),
    }
}

/// A scale is shown as what it is, not as the object that it is of.
fn show_scale(mut request: Request<'_>, scale: Value) -> Result<Answer, Status> {
    let gvk = gvk(Subresource::Scale);
    let row = request.door.rows();
    if let Some(row) = row.by_kind(&gvk.group, &gvk.version, &gvk.kind) {
        request.row = Arc::clone(row);
    }
    show_value(&request, StatusCode::OK, scale)
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

/// How the replicas of an object are to be set.
enum Scaling {
    /// As this says.
    Put(Value),
    /// As this makes of what they are.
    Patched(patch::Patch),
}

async fn scale(mut request: Request<'_>) -> Result<Answer, Status> {
    let gvk = gvk(Subresource::Scale);
    let scaling = if request.call.parts.method == Method::PUT {
        let sent = decode::body_of(&mut request, &gvk, SCALE_TYPE)?;
        decode::check_place(&request, &sent)?;
        Scaling::Put(sent)
    } else {
        Scaling::Patched(patch::Patch::read(&request)?)
    };
    let config = match &scaling {
        Scaling::Patched(patch) => patch.configuration(),
        Scaling::Put(_) => None,
    };
    let replaced = match config {
        Some(config) => apply_scale(&mut request, &gvk, config).await?,
        None => set_scale(&mut request, &gvk, &scaling).await?,
    };
    let value = match replaced {
        Replaced::Stored(found) => found.value(),
        Replaced::Made(value) => value,
    };
    let scale = to_scale(&request, &value)?;
    show_scale(request, scale)
}

/// What is said of a scale, and who says it, is said of the field behind it: the owners stand in
/// the object itself, and are told apart by the subresource.
async fn apply_scale(
    request: &mut Request<'_>,
    gvk: &GroupVersionKind,
    config: &Value,
) -> Result<Replaced, Status> {
    let (api_version, kind) = (
        object::text(config, &["apiVersion"]),
        object::text(config, &["kind"]),
    );
    if api_version != gvk.api_version() || kind != gvk.kind {
        return Err(Status::bad_request(format!(
            "invalid object type: {api_version}, Kind={kind}"
        )));
    }
    if !object::name(config).is_empty() {
        decode::check_name(request, object::name(config))?;
    }
    let row = std::sync::Arc::clone(&request.row);
    let mut own = json!({
        "apiVersion": row.gvk.api_version(), "kind": row.gvk.kind,
        "metadata": {"name": request.name()},
    });
    for name in ["uid", "resourceVersion"] {
        if let Some(given) = object::at(config, &["metadata", name]) {
            own["metadata"][name] = given.clone();
        }
    }
    write::place(request, &mut own)?;
    if let Some(replicas) = object::at(config, &["spec", "replicas"]) {
        set_dotted(&mut own, &paths(request)?.spec_replicas, replicas.clone());
    }
    let only = Some(Subresource::Scale);
    let forms = Forms::of(request);
    let applied = patch::Applied::new(request, only, own, &forms);
    replace(request, only, Owners::Applied(&forms), |request, old| {
        let mut new = applied.to(Some(old))?;
        decode::settle(request, &row.type_name, &mut new, &Duplicates::default())
            .map_err(|why| decode::unhandled(&row.gvk, &why))?;
        Ok(new)
    })
    .await
}

async fn set_scale(
    request: &mut Request<'_>,
    gvk: &GroupVersionKind,
    scaling: &Scaling,
) -> Result<Replaced, Status> {
    let paths = paths(request)?;
    replace(
        request,
        Some(Subresource::Scale),
        Owners::Tracked,
        |request, old| {
            let wanted = match scaling {
                Scaling::Put(sent) => sent.clone(),
                Scaling::Patched(patch) => {
                    patch.settled(request, &to_scale(request, old)?, gvk, SCALE_TYPE)?
                }
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
                let path = Path::new("spec").child("replicas");
                let error =
                    FieldError::invalid(&path, replicas, "must be greater than or equal to 0");
                let name = object::name(old);
                return Err(Status::invalid("autoscaling", "Scale", name, &[error]).into());
            }
            let mut new = old.clone();
            set_dotted(&mut new, &paths.spec_replicas, replicas.into());
            Ok(new)
        },
    )
    .await
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
    if object::name(&body) != request.name() {
        return Err(Status::bad_request(
            "name in URL does not match name in Binding object",
        ));
    }
    admit(&request, Operation::Create, Subresource::Binding, &mut body).await?;
    check_target(&body)?;
    let wanted_uid = object::uid(&body).to_owned();
    let now = clock::rfc3339(request.door.clock().now());
    let name = request.name().to_owned();
    rewrite(&request, |pod| {
        let refuse = |why: String| Err(Status::conflict("", "pods/binding", &name, &why));
        if !wanted_uid.is_empty() && wanted_uid != object::uid(pod) {
            let why = format!(
                "Precondition failed: UID in precondition: {wanted_uid}, UID in object meta: {}",
                object::uid(pod)
            );
            return Err(Status::conflict("", "pods", &name, &why));
        }
        pod::bind(pod, &body, &now).or_else(refuse)
    })
    .await?;
    Ok(created(&request))
}

/// A pod is given to nothing but a node. That the answer is 500 is the reference's.
fn check_target(binding: &Value) -> Result<(), Status> {
    let target = Path::new("target");
    let mut errors = Vec::new();
    let kind = object::text(binding, &["target", "kind"]);
    if !matches!(kind, "" | "Node") {
        let known = ["Node", "<empty>"];
        errors.push(FieldError::not_supported(
            &target.child("kind"),
            kind,
            &known,
        ));
    }
    if object::text(binding, &["target", "name"]).is_empty() {
        errors.push(FieldError::required(&target.child("name"), ""));
    }
    let told: Vec<String> = errors.iter().map(FieldError::to_string).collect();
    match told.as_slice() {
        [] => Ok(()),
        [one] => Err(Status::failure(500, "", one.as_str())),
        many => Err(Status::failure(500, "", format!("[{}]", many.join(", ")))),
    }
}

fn created(request: &Request<'_>) -> Answer {
    let status = Status {
        code: 201,
        ..Status::success()
    };
    status_answer_as(request.media.encoding, &status)
}

/// A request for a token that names an account names that of the path.
fn check_account(
    request: &Request<'_>,
    gvk: &GroupVersionKind,
    body: &Value,
) -> Result<(), Status> {
    let (name, namespace) = (object::name(body), object::namespace(body));
    if !namespace.is_empty() && namespace != request.namespace() {
        return Err(Status::bad_request(decode::WRONG_NAMESPACE));
    }
    if !name.is_empty() && name != request.name() {
        let error = FieldError::invalid(
            &Path::new("metadata").child("name"),
            name,
            "must match the service account name if specified",
        );
        return Err(Status::invalid(
            &gvk.group,
            &gvk.kind,
            request.name(),
            &[error],
        ));
    }
    Ok(())
}

/// `serviceaccounts/NAME/token`: a bound token.
async fn token(mut request: Request<'_>) -> Result<Answer, Status> {
    let gvk = gvk(Subresource::Token);
    let mut body = decode::body_of(&mut request, &gvk, TOKEN_TYPE)?;
    check_account(&request, &gvk, &body)?;
    let row = request.door.rows();
    let row = row.by_kind(&gvk.group, &gvk.version, &gvk.kind).cloned();
    if let Some(row) = row {
        let accounts = std::mem::replace(&mut request.row, row);
        write::track(&request, None, &mut body, Some(Subresource::Token)).await;
        request.row = accounts;
    }
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
        "uid".to_owned(),
        object::text(&account, &["metadata", "uid"]).into(),
    );
    metadata.insert(
        "creationTimestamp".to_owned(),
        clock::rfc3339(request.door.clock().now()).into(),
    );
    body["spec"] = issued.spec;
    body["status"] = json!({"token": issued.token, "expirationTimestamp": issued.expires});
    encode(&request, StatusCode::CREATED, &body)
}
