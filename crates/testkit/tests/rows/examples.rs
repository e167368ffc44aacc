//! The smallest valid object of each kind. A kind without one fails the suite: adding a row means
//! adding a line here.

use serde_json::{Value, json};

/// What makes an object of this kind valid, beside its metadata.
pub(crate) fn example(kind: &str) -> Option<Value> {
    let containers = json!([{"name": "app", "image": "app:1"}]);
    let template = json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": containers.clone()},
    });
    let once = json!({"spec": {"restartPolicy": "Never", "containers": containers.clone()}});
    let selector = json!({"matchLabels": {"app": "web"}});
    let role =
        json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"});
    Some(match kind {
        "Namespace" | "Node" | "Endpoints" | "ConfigMap" | "Secret" | "ServiceAccount"
        | "Lease" => {
            json!({})
        }
        "Pod" => json!({"spec": {"containers": containers}}),
        "Service" => json!({"spec": {"ports": [{"port": 80}]}}),
        "Event" => json!({
            "involvedObject": {"kind": "Pod", "name": "p", "namespace": "rows"},
            "reason": "Tested", "message": "told", "type": "Normal",
        }),
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" => {
            json!({"spec": {"selector": selector, "template": template}})
        }
        "ReplicationController" => {
            json!({"spec": {"selector": {"app": "web"}, "template": template}})
        }
        "PodTemplate" => json!({"template": template}),
        "ControllerRevision" => json!({"data": {"spec": {}}, "revision": 1}),
        "Job" => json!({"spec": {"template": once}}),
        "CronJob" => json!({"spec": {
            "schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": once}},
        }}),
        "PersistentVolume" => json!({"spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "hostPath": {"path": "/data"},
        }}),
        "PersistentVolumeClaim" => json!({"spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
        }}),
        "StorageClass" => json!({"provisioner": "example.com/disks"}),
        "LimitRange" => json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}}),
        "ResourceQuota" => json!({"spec": {"hard": {"secrets": "100"}}}),
        "PodDisruptionBudget" => json!({"spec": {"minAvailable": 1, "selector": selector}}),
        "PriorityClass" => json!({"value": 10}),
        "HorizontalPodAutoscaler" => json!({"spec": {
            "maxReplicas": 3,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        }}),
        "EndpointSlice" => {
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}]})
        }
        "ValidatingAdmissionPolicy" => json!({"spec": {
            "matchConstraints": policy_rules(),
            "validations": [{"expression": "object.spec.replicas < 100"}],
        }}),
        "MutatingAdmissionPolicy" => json!({"spec": {
            "matchConstraints": policy_rules(), "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {
                "expression": "Object{metadata: Object.metadata{labels: {'a': 'b'}}}",
            }}],
        }}),
        "ValidatingAdmissionPolicyBinding" => json!({"spec": {
            "policyName": "nobody", "validationActions": ["Deny"],
        }}),
        "MutatingAdmissionPolicyBinding" => json!({"spec": {"policyName": "nobody"}}),
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => json!({"webhooks": [{
            "name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://localhost:1/"},
            "objectSelector": {"matchLabels": {"nobody": "has this"}},
        }]}),
        "ClusterRole" | "Role" => {
            json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]})
        }
        "ClusterRoleBinding" | "RoleBinding" => json!({"roleRef": role, "subjects": [
            {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "dora"}]}),
        _ => return None,
    })
}

/// A part of the status of a kind that a status update may set.
pub(crate) fn status(kind: &str) -> Value {
    match kind {
        "PersistentVolume" => json!({"reason": "Tested"}),
        "ResourceQuota" => json!({"hard": {"secrets": "100"}, "used": {"secrets": "1"}}),
        "CronJob" => json!({"lastScheduleTime": "2026-01-01T00:00:00Z"}),
        "ValidatingAdmissionPolicy" => json!({"observedGeneration": 1}),
        _ => json!({"conditions": [{"type": "Tested", "status": "True",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "reason": "Test", "message": "m"}]}),
    }
}

/// Rules that match nothing which the suite makes.
fn policy_rules() -> Value {
    json!({"resourceRules": [{
        "operations": ["CREATE"], "apiGroups": ["nobody.test"], "apiVersions": ["v1"],
        "resources": ["nothings"],
    }]})
}
