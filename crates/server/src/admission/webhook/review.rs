//! `AdmissionReview`: what a webhook is asked, and what its answer means.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evenkeel_api::row::{ResourceDef, Subresource};
use evenkeel_api::{Status, object};
use serde_json::{Value, json};

use super::super::{Change, Operation};
use super::hook::Hook;
use crate::auth::Identity;

/// What a webhook says.
#[derive(Debug, Default)]
pub(super) struct Response {
    pub(super) allowed: bool,
    /// Why not.
    pub(super) status: Option<Value>,
    /// JSON patch operations; empty for no change.
    pub(super) patch: Vec<u8>,
    pub(super) patch_type: String,
    pub(super) warnings: Vec<String>,
    pub(super) annotations: Vec<(String, String)>,
}

/// Somebody as reviews describe him.
fn user_info(identity: &Identity) -> Value {
    let mut info = json!({"username": identity.user});
    if !identity.uid.is_empty() {
        info["uid"] = identity.uid.clone().into();
    }
    if !identity.groups.is_empty() {
        info["groups"] = json!(identity.groups);
    }
    if !identity.extra.is_empty() {
        info["extra"] = json!(identity.extra);
    }
    info
}

/// The options of the request as an object.
fn options(change: &Change<'_>) -> Value {
    let call = change.call;
    let method = call.parts.method.as_str();
    let kind = match (change.operation, method) {
        (Operation::Create | Operation::Update, "PATCH") => "PatchOptions",
        (Operation::Create, _) => "CreateOptions",
        (Operation::Update, _) => "UpdateOptions",
        (Operation::Delete, _) => "DeleteOptions",
        (Operation::Connect, _) => return Value::Null,
    };
    let mut options = json!({"apiVersion": "meta.k8s.io/v1", "kind": kind});
    let query = &call.query;
    if change.operation == Operation::Delete {
        if let Ok(Value::Object(body)) = serde_json::from_slice(&call.body) {
            for (name, value) in body {
                if !matches!(name.as_str(), "apiVersion" | "kind") {
                    options[name] = value;
                }
            }
        }
        if let Some(seconds) = query.number("gracePeriodSeconds") {
            options["gracePeriodSeconds"] = seconds.into();
        }
        if query.has("propagationPolicy") {
            options["propagationPolicy"] = query.get("propagationPolicy").into();
        }
    } else {
        for name in ["fieldManager", "fieldValidation"] {
            if query.has(name) {
                options[name] = query.get(name).into();
            }
        }
        if query.flag("force") {
            options["force"] = true.into();
        }
    }
    if change.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    options
}

/// `autoscaling/v1 Scale` of an object; what else passes under `scale` is the whole object.
pub(in crate::admission) fn seen_as(change: &Change<'_>, object: &Value) -> Value {
    let (Some(Subresource::Scale), Some(paths)) = (change.subresource, &change.row.scale) else {
        return object.clone();
    };
    let number = |path: &str| {
        path.split('.')
            .try_fold(object, |value, name| value.get(name))
            .cloned()
            .unwrap_or_else(|| 0.into())
    };
    let metadata = object.get("metadata").cloned().unwrap_or_default();
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
    json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": kept,
        "spec": {"replicas": number(&paths.spec_replicas)},
        "status": {"replicas": number(&paths.status_replicas)},
    })
}

/// Writes in which version the request was about, where a webhook is shown another.
pub(in crate::admission) fn requested(request: &mut Value, change: &Change<'_>, row: &ResourceDef) {
    if row.gvk != change.row.gvk {
        let gvk = &row.gvk;
        request["requestKind"] =
            json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind});
        request["requestResource"] =
            json!({"group": gvk.group, "version": gvk.version, "resource": row.plural});
    }
}

/// The review that asks a webhook about a change, which is shown as a row has it that need not be
/// the request's.
pub(super) fn request(
    hook: &Hook,
    change: &Change<'_>,
    uid: &str,
    object: &Value,
    of_request: &ResourceDef,
) -> Value {
    let shown = |object: Option<&Value>| match object {
        Some(object) if !object.is_null() => seen_as(change, object),
        _ => Value::Null,
    };
    let mut request = attributes(change, uid, object);
    requested(&mut request, change, of_request);
    request["object"] = shown(Some(object));
    request["oldObject"] = shown(change.old);
    json!({
        "apiVersion": format!("admission.k8s.io/{}", hook.review_version),
        "kind": "AdmissionReview",
        "request": request,
    })
}

/// An `AdmissionRequest` without the objects.
pub(in crate::admission) fn attributes(change: &Change<'_>, uid: &str, object: &Value) -> Value {
    let gvk = &change.row.gvk;
    let own = change.subresource.and_then(Subresource::own_kind);
    let kind = match own {
        Some((group, version, kind)) => json!({"group": group, "version": version, "kind": kind}),
        None if change.subresource == Some(Subresource::Proxy) => {
            let kind = format!("{}ProxyOptions", gvk.kind);
            json!({"group": "", "version": "v1", "kind": kind})
        }
        None => json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind}),
    };
    let resource =
        json!({"group": gvk.group, "version": gvk.version, "resource": change.row.plural});
    let name = change.name(object);
    let namespace = if change.is_core("Namespace") {
        name
    } else {
        change.namespace
    };
    let mut request = json!({
        "uid": uid,
        "kind": kind,
        "resource": resource,
        "requestKind": kind,
        "requestResource": resource,
        "operation": change.operation.as_str(),
        "userInfo": user_info(change.identity),
        "dryRun": change.dry_run,
        "options": options(change),
    });
    for (field, text) in [("name", name), ("namespace", namespace)] {
        if !text.is_empty() {
            request[field] = text.into();
        }
    }
    if let Some(subresource) = change.subresource {
        request["subResource"] = subresource.as_str().into();
        request["requestSubResource"] = subresource.as_str().into();
    }
    request
}

/// Reads the answer to a review.
///
/// # Errors
/// Why it is no answer to what was asked, in the reference's words.
pub(super) fn response(
    hook: &Hook,
    mutating: bool,
    uid: &str,
    review: &Value,
) -> Result<Response, String> {
    let response = review
        .get("response")
        .filter(|response| response.is_object())
        .ok_or("webhook response was absent")?;
    let text = |name: &str| object::text(response, &[name]);
    let strict = hook.review_version == "v1";
    let mut patch_type = text("patchType").to_owned();
    let patch = STANDARD
        .decode(text("patch"))
        .map_err(|error| format!("illegal base64 data: {error}"))?;
    if strict {
        if text("uid") != uid {
            return Err(format!(
                "expected response.uid=\"{uid}\", got \"{}\"",
                text("uid")
            ));
        }
        let wanted = ("admission.k8s.io/v1", "AdmissionReview");
        let found = (
            object::text(review, &["apiVersion"]),
            object::text(review, &["kind"]),
        );
        if found != wanted {
            let slash = if found.0.contains('/') { "" } else { "/" };
            return Err(format!(
                "expected webhook response of {}, Kind={}, got {slash}{}, Kind={}",
                wanted.0, wanted.1, found.0, found.1
            ));
        }
        let typed = response
            .get("patchType")
            .is_some_and(|kind| !kind.is_null());
        match (mutating, patch.is_empty(), typed) {
            (true, false, false) => {
                return Err("webhook returned response.patch but not response.patchType".into());
            }
            (true, true, true) => {
                return Err("webhook returned response.patchType but not response.patch".into());
            }
            (true, _, true) if patch_type.is_empty() => {
                return Err("webhook returned invalid response.patchType of \"\"".into());
            }
            (false, false, _) => {
                return Err("validating webhook may not return response.patch".into());
            }
            (false, _, true) => {
                return Err("validating webhook may not return response.patchType".into());
            }
            _ => {}
        }
    } else if !patch.is_empty() {
        patch_type = "JSONPatch".to_owned();
    }
    Ok(Response {
        allowed: response.get("allowed").and_then(Value::as_bool) == Some(true),
        status: response.get("status").cloned(),
        patch: if mutating { patch } else { Vec::new() },
        patch_type,
        warnings: object::list(response, &["warnings"])
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        annotations: response
            .get("auditAnnotations")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect(),
    })
}

/// The refusal of a webhook as the client sees it.
pub(super) fn denial(hook: &str, given: Option<&Value>) -> Status {
    let given = given.cloned().unwrap_or_default();
    let text = |name: &str| object::text(&given, &[name]);
    let by = format!("admission webhook \"{hook}\" denied the request");
    let message = match (text("message"), text("reason")) {
        ("", "") => format!("{by} without explanation"),
        ("", reason) => format!("{by}: {reason}"),
        (message, _) => format!("{by}: {message}"),
    };
    let code = object::integer(&given, &["code"])
        .and_then(|code| u16::try_from(code).ok())
        .filter(|code| (400..=599).contains(code))
        .unwrap_or(400);
    let mut status = Status::failure(code, text("reason"), message);
    status.details = given
        .get("details")
        .and_then(|details| serde_json::from_value(details.clone()).ok());
    status
}
