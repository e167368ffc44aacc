//! The objects that a policy is given as parameters.

use std::sync::Arc;

use evenkeel_api::object;
use evenkeel_api::validation::selects;
use serde_json::Value;

use crate::convert::converted;
use crate::registry::{self, Registry};

/// All parameters of a binding for a change in a namespace: one null where the policy takes none.
///
/// # Errors
/// Why they can't be had, in the reference's words.
pub(super) fn collect(
    registry: &Registry,
    kind: &Value,
    reference: &Value,
    namespace: &str,
) -> Result<Vec<Value>, String> {
    if !kind.is_object() || !reference.is_object() {
        return Ok(vec![Value::Null]);
    }
    let text = |value: &Value, name: &str| object::text(value, &[name]).to_owned();
    let (api_version, kind) = (text(kind, "apiVersion"), text(kind, "kind"));
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let rows = registry.caches.kinds().rows();
    let found = rows
        .by_kind(group, version, &kind)
        .and_then(|row| Some((row, registry.caches.of(row)?)));
    let Some((row, cache)) = found else {
        return Err(format!(
            "paramKind kind `&ParamKind{{APIVersion:{api_version},Kind:{kind},}}` not known"
        ));
    };
    let given = text(reference, "namespace");
    let place = if row.namespaced() {
        if !given.is_empty() {
            given
        } else if namespace.is_empty() {
            return Err(
                "cannot use namespaced paramRef in policy binding that matches \
                        cluster-scoped resources"
                    .to_owned(),
            );
        } else {
            namespace.to_owned()
        }
    } else if given.is_empty() {
        String::new()
    } else {
        return Err(
            "paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned(),
        );
    };
    let name = text(reference, "name");
    let params: Vec<Value> = if name.is_empty() {
        let selector = &reference["selector"];
        cache
            .list(&place, None)
            .iter()
            .map(|object| converted(Arc::clone(object)).value())
            .filter(|value| selects(selector, &value["metadata"]["labels"]).unwrap_or(false))
            .collect()
    } else {
        let found = cache.get(&registry::path(&place, &name));
        found
            .into_iter()
            .map(|object| converted(object).value())
            .collect()
    };
    if params.is_empty() && object::text(reference, &["parameterNotFoundAction"]) == "Deny" {
        return Err(
            "no params found for policy binding with `Deny` parameterNotFoundAction".to_owned(),
        );
    }
    Ok(params)
}
