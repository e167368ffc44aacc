//! The levels and schemas that a cluster has from the start: the mandatory ones, and those that
//! the reference suggests (`pkg/apis/flowcontrol/bootstrap` at 1.37).

use evenkeel_api::kinds::flow_control::{mandatory_level, mandatory_schema};
use serde_json::{Value, json};

use super::{CATCH_ALL, EXEMPT};

/// An object that is kept.
#[derive(Debug)]
pub(super) struct Default {
    pub(super) name: &'static str,
    pub(super) spec: Value,
    /// Whatever is changed in it is changed back.
    pub(super) mandatory: bool,
}

/// `(name, shares, lendable percent, queues, hand)`; 50 wait in a queue at most.
const LEVELS: [(&str, u32, u32, u32, u32); 6] = [
    ("system", 30, 33, 64, 6),
    ("node-high", 40, 25, 64, 6),
    ("leader-election", 10, 0, 16, 4),
    ("workload-high", 40, 50, 128, 6),
    ("workload-low", 100, 90, 128, 6),
    ("global-default", 20, 50, 128, 6),
];

pub(super) fn levels() -> Vec<Default> {
    let suggested = LEVELS.map(|(name, shares, lendable, queues, hand)| Default {
        name,
        spec: json!({"type": "Limited", "limited": {
            "nominalConcurrencyShares": shares,
            "lendablePercent": lendable,
            "limitResponse": {"type": "Queue", "queuing": {
                "queues": queues, "handSize": hand, "queueLengthLimit": 50,
            }},
        }}),
        mandatory: false,
    });
    with_mandatory(suggested, mandatory_level)
}

fn with_mandatory<const N: usize>(
    suggested: [Default; N],
    of: fn(&str) -> Option<Value>,
) -> Vec<Default> {
    let mandatory = [EXEMPT, CATCH_ALL].into_iter().filter_map(|name| {
        Some(Default {
            name,
            spec: of(name)?,
            mandatory: true,
        })
    });
    suggested.into_iter().chain(mandatory).collect()
}

fn groups(names: &[&str]) -> Value {
    names
        .iter()
        .map(|name| json!({"kind": "Group", "group": {"name": name}}))
        .collect()
}

fn users(names: &[&str]) -> Value {
    names
        .iter()
        .map(|name| json!({"kind": "User", "user": {"name": name}}))
        .collect()
}

fn system_accounts() -> Value {
    json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "kube-system"}})
}

fn everything(subjects: &Value) -> Value {
    json!([{
        "subjects": subjects,
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
            "clusterScope": true, "namespaces": ["*"]}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    }])
}

fn schema(name: &'static str, level: &str, precedence: u32, by: &str, rules: &Value) -> Default {
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": level},
        "matchingPrecedence": precedence,
        "rules": rules,
    });
    if !by.is_empty() {
        spec["distinguisherMethod"] = json!({"type": by});
    }
    Default {
        name,
        spec,
        mandatory: false,
    }
}

pub(super) fn schemas() -> Vec<Default> {
    let (user, namespace) = ("ByUser", "ByNamespace");
    let everybody = groups(&["system:unauthenticated", "system:authenticated"]);
    let nodes = groups(&["system:nodes"]);
    let manager = users(&["system:kube-controller-manager"]);
    let scheduler = users(&["system:kube-scheduler"]);
    let electing = json!([
        {"kind": "User", "user": {"name": "system:kube-controller-manager"}},
        {"kind": "User", "user": {"name": "system:kube-scheduler"}},
        system_accounts(),
    ]);
    let probes = json!([{
        "subjects": everybody,
        "nonResourceRules": [{"verbs": ["get"],
            "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}],
    }]);
    let leases = json!([{
        "subjects": electing,
        "resourceRules": [{"verbs": ["get", "create", "update"],
            "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "namespaces": ["*"]}],
    }]);
    let node_high = json!([{
        "subjects": nodes,
        "resourceRules": [
            {"verbs": ["*"], "apiGroups": [""], "resources": ["nodes", "nodes/status"],
                "clusterScope": true, "namespaces": ["*"]},
            {"verbs": ["*"], "apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
                "namespaces": ["*"]},
        ],
    }]);
    let accounts = groups(&["system:serviceaccounts"]);
    let suggested = [
        schema("system-nodes", "system", 500, user, &everything(&nodes)),
        schema("system-node-high", "node-high", 400, user, &node_high),
        schema("probes", EXEMPT, 2, "", &probes),
        schema(
            "system-leader-election",
            "leader-election",
            100,
            user,
            &leases,
        ),
        schema(
            "kube-controller-manager",
            "workload-high",
            800,
            namespace,
            &everything(&manager),
        ),
        schema(
            "kube-scheduler",
            "workload-high",
            800,
            namespace,
            &everything(&scheduler),
        ),
        schema(
            "kube-system-service-accounts",
            "workload-high",
            900,
            namespace,
            &everything(&json!([system_accounts()])),
        ),
        schema(
            "service-accounts",
            "workload-low",
            9000,
            user,
            &everything(&accounts),
        ),
        schema(
            "global-default",
            "global-default",
            9900,
            user,
            &everything(&everybody),
        ),
    ];
    with_mandatory(suggested, mandatory_schema)
}
