//! What concerns nodes: a new one is not trusted with pods until it says it is ready, and an agent
//! touches only its own objects.

use evenkeel_api::row::Subresource;
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

/// `NodeRestriction`: an agent changes its own node, its own lease and the pods bound to it.
pub(super) struct NodeRestriction;

impl Plugin for NodeRestriction {
    fn validate(&self, _: &Registry, change: &Change<'_>, object: &Value) -> Result<(), Status> {
        let identity = change.identity;
        let Some(node) = identity
            .user
            .strip_prefix("system:node:")
            .filter(|_| identity.in_group("system:nodes"))
        else {
            return Ok(());
        };
        if change.operation == Operation::Connect {
            return Ok(());
        }
        let subject = change.old.unwrap_or(object);
        let name = object::name(subject);
        let refuse = |why: String| {
            let row = change.row;
            Err(Status::forbidden(&row.gvk.group, &row.plural, name, &why))
        };
        match change.row.gvk.kind.as_ref() {
            "Node" if name != node => refuse(format!(
                "node \"{node}\" is not allowed to modify node \"{name}\""
            )),
            "Node"
                if change.operation == Operation::Update && taints(object) != taints(subject) =>
            {
                refuse(format!("node \"{node}\" is not allowed to modify taints"))
            }
            "Lease" if change.namespace == "kube-node-lease" && name != node => refuse(
                "can only access node lease with the same name as the requesting node".to_owned(),
            ),
            "Pod" => pod(change, node, subject, name),
            _ => Ok(()),
        }
    }
}

fn taints(node: &Value) -> Option<&Value> {
    object::at(node, &["spec", "taints"])
}

fn pod(change: &Change<'_>, node: &str, pod: &Value, name: &str) -> Result<(), Status> {
    let bound = object::text(pod, &["spec", "nodeName"]);
    let mirror = object::annotation(pod, "kubernetes.io/config.mirror").is_some();
    let refuse = |why: String| Err(Status::forbidden("", "pods", name, &why));
    match (change.operation, change.subresource) {
        (Operation::Create, None) if !mirror => refuse(format!(
            "pod does not have \"kubernetes.io/config.mirror\" annotation, node \"{node}\" can \
             only create mirror pods"
        )),
        (Operation::Update, Some(Subresource::Status)) if bound != node => refuse(format!(
            "node \"{node}\" can only update pod status for pods with spec.nodeName set to itself"
        )),
        (Operation::Update, None) => refuse(format!(
            "node \"{node}\" may not change the specification of pods"
        )),
        (Operation::Delete, _) if bound != node => refuse(format!(
            "node \"{node}\" can only delete pods with spec.nodeName set to itself"
        )),
        _ => Ok(()),
    }
}
