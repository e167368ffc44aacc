//! `TaintNodesByCondition`: a new node is not trusted with pods until it says that it is ready.

use evenkeel_api::{Status, object};
use serde_json::{Value, json};

use super::{Change, Operation, Plugin};
use crate::registry::Registry;

/// `TaintNodesByCondition`: new nodes are tainted as not ready.
pub(super) struct TaintNodesByCondition;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

impl Plugin for TaintNodesByCondition {
    fn mutate(&self, _: &Registry, change: &Change<'_>, object: &mut Value) -> Result<(), Status> {
        if !change.is_core("Node") || change.operation != Operation::Create {
            return Ok(());
        }
        let spec = object::child(object, "spec");
        let tainted = object::list(spec, &["taints"])
            .iter()
            .any(|taint| object::text(taint, &["key"]) == NOT_READY);
        if !tainted {
            let taints = object::fields(spec)
                .entry("taints")
                .or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(taints) = taints {
                taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
            }
        }
        Ok(())
    }
}
