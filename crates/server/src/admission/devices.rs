//! Access of administrators to devices that others use: only in namespaces that are labelled for it.
//! The reference checks it with the claims themselves; what another object says is looked up here.

use evenkeel_api::field::{FieldError, Path};
use evenkeel_api::row::Subresource;
use evenkeel_api::{Status, object};
use serde_json::Value;

use super::{Change, Plugin, look_up};
use crate::registry::Registry;

const GROUP: &str = "resource.k8s.io";
const LABEL: &str = "resource.kubernetes.io/admin-access";

pub(super) struct DeviceAdminAccess;

impl Plugin for DeviceAdminAccess {
    fn validate(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &Value,
    ) -> Result<(), Status> {
        let gvk = &change.row.gvk;
        let template = gvk.kind == "ResourceClaimTemplate";
        if gvk.group != GROUP || !(template || gvk.kind == "ResourceClaim") {
            return Ok(());
        }
        let path = match (change.old, change.subresource) {
            (None, None) if template => asked(object.get("spec").unwrap_or(&Value::Null)),
            (None, None) => asked(object),
            (Some(old), Some(Subresource::Status)) if granted(old).is_none() => granted(object),
            // What is asked for does not change.
            _ => None,
        };
        let Some(path) = path else { return Ok(()) };
        let namespace = look_up::object(registry, ("", "v1", "Namespace"), "", change.namespace);
        let label = namespace.as_ref().map_or("", |namespace| {
            object::text(namespace, &["metadata", "labels", LABEL])
        });
        if label == "true" {
            return Ok(());
        }
        let why = format!(
            "admin access to devices requires the `{LABEL}: true` label on the containing namespace"
        );
        let error = FieldError::forbidden(&path, &why);
        let name = object::name(object);
        Err(Status::invalid(&gvk.group, &gvk.kind, name, &[error]))
    }
}

/// Where a claim asks for it.
fn asked(claim: &Value) -> Option<Path> {
    let requests = object::list(claim, &["spec", "devices", "requests"]);
    let path = Path::new("spec").child("devices").child("requests");
    first(requests, &["exactly", "adminAccess"], &path)
}

/// Where an allocation grants it.
fn granted(claim: &Value) -> Option<Path> {
    let results = object::list(claim, &["status", "allocation", "devices", "results"]);
    let path = ["allocation", "devices", "results"]
        .iter()
        .fold(Path::new("status"), |path, name| path.child(name));
    first(results, &["adminAccess"], &path)
}

fn first(items: &[Value], field: &[&str], path: &Path) -> Option<Path> {
    let is_set = |item: &Value| object::at(item, field) == Some(&Value::Bool(true));
    let found = items.iter().position(is_set)?;
    Some(path.index(found).child("adminAccess"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{asked, granted};

    #[test]
    fn the_first_request_that_asks_for_admin_access_is_named() {
        let claim = json!({"spec": {"devices": {"requests": [
            {"name": "a", "exactly": {"adminAccess": false}},
            {"name": "b", "firstAvailable": [{"name": "c"}]},
            {"name": "d", "exactly": {"adminAccess": true}},
        ]}}, "status": {"allocation": {"devices": {"results": [{"adminAccess": true}]}}}});
        let path = asked(&claim).map(|path| path.to_string());
        assert_eq!(
            path.as_deref(),
            Some("spec.devices.requests[2].adminAccess")
        );
        let path = granted(&claim).map(|path| path.to_string());
        assert_eq!(
            path.as_deref(),
            Some("status.allocation.devices.results[0].adminAccess")
        );
        assert!(asked(&json!({"spec": {}})).is_none() && granted(&json!({})).is_none());
    }
}
