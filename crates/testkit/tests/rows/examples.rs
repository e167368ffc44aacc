//! The smallest valid object of each kind. A kind without one fails the suite: adding a row means
//! adding a line here.

use serde_json::{Value, json};

/// A signing request of `CN=dora, O=dev` with a P-256 key that nobody has.
const REQUEST: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIWU1IOENBUUF3SFRFTU1Bb0dBMVVFQ2d3RFpHVjJNUTB3Q3dZRFZRUUREQVJrYjNKaE1Ga3dFd1lIS29aSQp6ajBDQVFZSUtvWkl6ajBEQVFjRFFnQUVwN1NNeExuMmlSSDZOb0Fvcmh5Q0cveE42UTFMWmUrTFdaWHlNcUpSCmpZd1JxS3pSNVNYZ09pOUdaMXhoM3VOUXBVblR6ZGI0V2g2S0JVaHJodXcrWmFBQU1Bb0dDQ3FHU000OUJBTUMKQTBrQU1FWUNJUURFRmNvcktnazdYbHVFa04yMm8vR2JsdVprVTliTCs5a1JLOEVLUmo3V0dRSWhBTTJCZTRnTgpWZVFTQVZoTGVwdHp1MTVnSzF5ck5STTN2MTUwOW1wNmNmWGQKLS0tLS1FTkQgQ0VSVElGSUNBVEUgUkVRVUVTVC0tLS0tCg==";

/// The certificate of an authority with the same fate.
const ANCHOR: &str = "-----BEGIN CERTIFICATE-----\nMIIBeTCCAR+gAwIBAgIUaWZmBHUuAdTdslECLqzzv866DWowCgYIKoZIzj0EAwIwETEPMA0GA1UEAwwGbm9ib2R5MCAXDTI2MTEyMTIxNTIyOVoYDzIxMjYxMDI4MjE1MjI5WjARMQ8wDQYDVQQDDAZub2JvZHkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQ6SR4kqQFoxz8uuq6i2xNMSAxp1ALcESHU+tnikFCdjqVWnEW/NR80aYm3Jdhkp6fOpQuSohA1DXn/F95d8bODo1MwUTAdBgNVHQ4EFgQUa2kQYXPbxBhx3OKl9hgROVLdebcwHwYDVR0jBBgwFoAUa2kQYXPbxBhx3OKl9hgROVLdebcwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiEAtyj+h1L8JWsLSSLoqNS/4kGNNdsgCeERCTsxumYMDekCIHFYatuehGYwIpNJKOEn4TrSPqwwXu7XFC2B2156R4rh\n-----END CERTIFICATE-----\n";

/// An empty request in DER with a P-256 key, base64.
const STUB: &str = "MIG6MGICAQAwADBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABDpJHiSpAWjHPy66rqLbE0xIDGnUAtwRIdT62eKQUJ2OpVacRb81HzRpibcl2GSnp86lC5KiEDUNef8X3l3xs4OgADAKBggqhkjOPQQDAgNIADBFAiEAoBZ+OWSh3KRzhpittyERDpc7AMHlteI7t/nIwTDHBZECIBIS42PpTJW9XUzgTp2F/nmrERTIpus23A9Q2c756yEH";

/// What makes an object of this kind valid, beside its metadata.
pub(crate) fn example(kind: &str) -> Option<Value> {
    let containers = json!([{"name": "app", "image": "app:1"}]);
    let template = json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": containers.clone()},
    });
    let claim = json!({"devices": {"requests": [{"name": "gpu", "exactly": {
        "deviceClassName": "gpus", "allocationMode": "ExactCount", "count": 1}}]}});
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
        // With all defaults, because two owners of one list must say the same of it.
        "LimitRange" => json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"},
            "default": {"cpu": "1"}, "defaultRequest": {"cpu": "1"}}]}}),
        "ResourceQuota" => json!({"spec": {"hard": {"secrets": "100"}}}),
        "PodDisruptionBudget" => json!({"spec": {"minAvailable": 1, "selector": selector}}),
        "PriorityClass" => json!({"value": 10}),
        "StorageVersionMigration" => {
            json!({"spec": {"resource": {"group": "apps", "resource": "deployments"}}})
        }
        "PodGroup" => json!({"spec": {"schedulingPolicy": {"gang": {"minCount": 2}}}}),
        "Workload" => json!({"spec": {"podGroupTemplates": [
            {"name": "workers", "schedulingPolicy": {"gang": {"minCount": 2}}}]}}),
        "Ingress" => json!({"spec": {"defaultBackend": {
            "service": {"name": "web", "port": {"number": 80}}}}}),
        "IngressClass" => json!({"spec": {"controller": "example.com/proxy"}}),
        "NetworkPolicy" | "CSINode" | "CSIDriver" => json!({"spec": {}}),
        "IPAddress" => json!({"spec": {"parentRef": {"resource": "services", "name": "web"}}}),
        "ServiceCIDR" => json!({"spec": {"cidrs": ["10.99.0.0/24"]}}),
        "CSIStorageCapacity" => json!({"storageClassName": "fast"}),
        "VolumeAttachment" => json!({"spec": {"attacher": "disks.example.com", "nodeName": "n1",
            "source": {"persistentVolumeName": "disk"}}}),
        "VolumeAttributesClass" => {
            json!({"driverName": "disks.example.com", "parameters": {"iops": "5"}})
        }
        "RuntimeClass" => json!({"handler": "runc"}),
        "CertificateSigningRequest" => json!({"spec": {"request": REQUEST,
            "signerName": "example.com/clients", "usages": ["client auth"]}}),
        "ClusterTrustBundle" => json!({"spec": {"trustBundle": ANCHOR}}),
        "PodCertificateRequest" => json!({"spec": {"signerName": "example.com/pods",
            "podName": "p", "podUID": "pu", "serviceAccountName": "s", "serviceAccountUID": "su",
            "nodeName": "n", "nodeUID": "nu", "stubPKCS10Request": STUB}}),
        "FlowSchema" => json!({"spec": {"priorityLevelConfiguration": {"name": "low"}}}),
        "PriorityLevelConfiguration" => json!({"spec": {"type": "Limited",
            "limited": {"limitResponse": {"type": "Reject"}}}}),
        "DeviceClass" => {
            json!({"spec": {"selectors": [{"cel": {"expression": "device.driver == 'd'"}}]}})
        }
        "DeviceTaintRule" => json!({"spec": {"deviceSelector": {"driver": "gpus.example.com"},
            "taint": {"key": "example.com/broken", "effect": "NoSchedule"}}}),
        "ResourceClaim" => json!({"spec": claim}),
        "ResourceClaimTemplate" => json!({"spec": {"spec": claim}}),
        "ResourceSlice" => json!({"spec": {"driver": "gpus.example.com", "nodeName": "n1",
            "pool": {"name": "n1", "generation": 1, "resourceSliceCount": 1}}}),
        "HorizontalPodAutoscaler" => json!({"spec": {
            "maxReplicas": 3,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        }}),
        "EndpointSlice" => {
            // The list is one value: with what is filled in, so that two owners say the same.
            json!({"addressType": "IPv4",
                "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {}}]})
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
            "objectSelector": {"matchLabels": {"nobody": "has-this"}},
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
        "Ingress" => json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}),
        // What would be in it is behind a gate that is closed.
        "CSINode" => json!({}),
        "VolumeAttachment" => json!({"attached": true}),
        "ResourceClaim" => json!({"allocation": {"devices": {"results": [
            {"request": "gpu", "driver": "gpus.example.com", "pool": "n1", "device": "gpu-0"}]}}}),
        "PodCertificateRequest" => json!({"conditions": [{"type": "Denied", "status": "True",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "reason": "Test", "message": "m"}]}),
        "CertificateSigningRequest" => json!({"conditions": [{"type": "Tested", "status": "True",
            "lastUpdateTime": "2026-01-01T00:00:00Z",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]}),
        _ => json!({"conditions": [{"type": "Tested", "status": "True",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "reason": "Test", "message": "m"}]}),
    }
}

/// Rules that match nothing which the suite makes.
fn policy_rules() -> Value {
    // With the defaults: it is one value to whoever applies it, not several.
    json!({"matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {},
    "resourceRules": [{
        "operations": ["CREATE"], "apiGroups": ["nobody.test"], "apiVersions": ["v1"],
        "resources": ["nothings"], "scope": "*",
    }]})
}
