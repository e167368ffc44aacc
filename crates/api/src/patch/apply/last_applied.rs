//! The way from client-side to server-side apply.
//!
//! `kubectl apply` without `--server-side` keeps what it applied in an annotation. When kubectl
//! then applies server-side, what the annotation says and the object still has is kubectl's own,
//! whoever the managed fields name; and the annotation is kept up to date, so that the way back
//! works too. Other managers opt out by their name.

use serde_json::Value;

use super::{Contested, ManagerRequest};
use crate::object;
use crate::patch::structured::{New, Shape, compare, fields_of, validate};

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
const KUBECTL: &str = "kubectl";

/// Most bytes of all annotations of an object.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// The conflicts that the annotation does not resolve.
pub(super) fn unresolved(
    shape: Shape<'_>,
    live: &Value,
    conflicts: &Contested,
    request: &ManagerRequest<'_>,
) -> Contested {
    let allowed = (request.manager == KUBECTL)
        .then(|| applied_by_client(shape, live, request.api_version))
        .flatten();
    let Some(allowed) = allowed else {
        return conflicts.clone();
    };
    conflicts
        .iter()
        .map(|(owner, set)| (owner.clone(), set.difference(&allowed)))
        .filter(|(_, set)| !set.is_empty())
        .collect()
}

/// The fields of the last client-side apply that the object still has as applied.
fn applied_by_client(
    shape: Shape<'_>,
    live: &Value,
    api_version: &str,
) -> Option<crate::patch::FieldSet> {
    let text = object::annotation(live, ANNOTATION).filter(|text| !text.is_empty())?;
    let applied: Value = serde_json::from_str(text).ok()?;
    if object::text(&applied, &["apiVersion"]) != api_version || validate(shape, &applied).is_err()
    {
        return None;
    }
    let difference = compare(shape, Some(&applied), Some(live), New::Object);
    Some(
        fields_of(shape, &applied)
            .difference(&difference.modified)
            .difference(&difference.added)
            .difference(&difference.removed),
    )
}

/// Writes what kubectl applied into the annotation, where there is one.
pub(super) fn refresh(merged: &mut Value, config: &Value, manager: &str) {
    if manager != KUBECTL
        || object::annotation(merged, ANNOTATION).is_none_or(|text| text.is_empty())
    {
        return;
    }
    let mut config = config.clone();
    let annotations = config.pointer_mut("/metadata/annotations");
    if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
        annotations.remove(ANNOTATION);
    }
    let text = html_safe(&config.to_string());
    let Some(annotations) = merged.pointer_mut("/metadata/annotations") else {
        return;
    };
    let annotations = object::fields(annotations);
    annotations.insert(ANNOTATION.to_owned(), Value::String(text + "\n"));
    let size: usize = annotations
        .iter()
        .map(|(name, value)| name.len() + value.as_str().map_or(0, str::len))
        .sum();
    if size > MAX_ANNOTATIONS {
        annotations.remove(ANNOTATION);
    }
}

/// JSON as Go's encoder writes it; these characters stand only in strings.
fn html_safe(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}
