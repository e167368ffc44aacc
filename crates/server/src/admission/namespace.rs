//! `NamespaceLifecycle`: nothing is made in a namespace that is missing or going, and the
//! system's own namespaces stay.

use evenkeel_api::status::StatusCause;
use evenkeel_api::{Status, object};
use serde_json::Value;

use super::{Change, Operation, Plugin};
use crate::registry::Registry;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) struct NamespaceLifecycle;

impl Plugin for NamespaceLifecycle {
    fn mutate(
        &self,
        registry: &Registry,
        change: &Change<'_>,
        object: &mut Value,
    ) -> Result<(), Status> {
        if change.operation != Operation::Create || change.namespace.is_empty() {
            return Ok(());
        }
        let missing = || Status::not_found("", "namespaces", change.namespace);
        let row = registry
            .rows
            .by_kind("", "v1", "Namespace")
            .ok_or_else(missing)?;
        let namespace = registry
            .cache(row)?
            .get(change.namespace)
            .ok_or_else(missing)?;
        let terminating = namespace
            .head
            .fields
            .first()
            .is_some_and(|phase| &**phase == "Terminating");
        if terminating {
            let namespace = change.namespace;
            let mut status = change.forbidden(
                object,
                &format!(
                    "unable to create new content in namespace {namespace} because it is being \
                     terminated"
                ),
            );
            status.details.get_or_insert_default().causes = vec![StatusCause {
                reason: "NamespaceTerminating".to_owned(),
                message: format!("namespace {namespace} is being terminated"),
                field: "metadata.namespace".to_owned(),
            }];
            return Err(status);
        }
        Ok(())
    }

    fn validate(&self, _: &Registry, change: &Change<'_>, _: &Value) -> Result<(), Status> {
        if change.operation != Operation::Delete || !change.is_core("Namespace") {
            return Ok(());
        }
        let name = change.old.map(object::name).unwrap_or_default();
        if IMMORTAL.contains(&name) {
            return Err(Status::forbidden(
                "",
                "namespaces",
                name,
                "this namespace may not be deleted",
            ));
        }
        Ok(())
    }
}
