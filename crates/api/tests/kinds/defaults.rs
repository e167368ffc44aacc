//! Defaults of every kind, and what pods derive from their resources.

use evenkeel_api::kinds::{compute_qos, pod as pods, pod_limits, pod_requests};
use serde_json::{Value, json};

use super::{pod, pod_with_container, prepared, row_of, service, with};

#[test]
fn pods() {
    let object = prepared(pod_with_container(&json!({
        "image": "nginx",
        "ports": [{"containerPort": 80}],
        "resources": {"limits": {"cpu": "1", "memory": "64Mi"}, "requests": {"cpu": "100u"}},
        "livenessProbe": {"httpGet": {"port": 80}},
        "readinessProbe": {"grpc": {"port": 80}, "periodSeconds": 3},
        "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}],
    })));
    assert_eq!(
        object["spec"],
        json!({
            "containers": [{
                "name": "web", "image": "nginx", "imagePullPolicy": "Always",
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "resources": {"limits": {"cpu": "1", "memory": "64Mi"},
                    "requests": {"cpu": "1m", "memory": "64Mi"}},
                "livenessProbe": {"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"},
                    "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1,
                    "failureThreshold": 3},
                "readinessProbe": {"grpc": {"port": 80, "service": ""}, "timeoutSeconds": 1,
                    "periodSeconds": 3, "successThreshold": 1, "failureThreshold": 3},
                "env": [
                    {"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
                    {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "0"}}},
                ],
            }],
            "dnsPolicy": "ClusterFirst", "restartPolicy": "Always",
            "schedulerName": "default-scheduler", "securityContext": {},
            "terminationGracePeriodSeconds": 30, "enableServiceLinks": true,
        })
    );
    assert_eq!(
        object["status"],
        json!({"phase": "Pending", "qosClass": "Burstable"})
    );
}

#[test]
fn volumes_and_host_ports() {
    let object = prepared(with(
        pod(),
        &json!({"spec": {
            "hostNetwork": true, "serviceAccountName": "a",
            "containers": [{"name": "a", "image": "b:latest", "ports": [{"containerPort": 80}]}],
            "volumes": [
                {"name": "a"},
                {"name": "b", "secret": {"secretName": "s"}},
                {"name": "c", "hostPath": {"path": "/c"}},
                {"name": "d", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "t"}},
                    {"downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "metadata.name"}}]}},
                ]}},
            ],
        }}),
    ));
    let spec = &object["spec"];
    assert_eq!(spec["serviceAccount"], "a");
    assert_eq!(spec["containers"][0]["ports"][0]["hostPort"], 80);
    assert_eq!(spec["containers"][0]["imagePullPolicy"], "Always");
    assert_eq!(
        spec["volumes"],
        json!([
            {"name": "a", "emptyDir": {}},
            {"name": "b", "secret": {"secretName": "s", "defaultMode": 420}},
            {"name": "c", "hostPath": {"path": "/c", "type": ""}},
            {"name": "d", "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}},
                {"downwardAPI": {"items": [{"path": "p",
                    "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}]}},
            ]}},
        ])
    );
}

#[test]
fn pull_policies() {
    for (image, policy) in [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.24", "IfNotPresent"),
        ("registry:5000/nginx", "Always"),
        ("registry:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:abc", "IfNotPresent"),
        ("", "IfNotPresent"),
        ("localhost/a", "Always"),
        ("a__b/c--d.e", "Always"),
        ("[::1]:5000/a", "Always"),
        // These are no names, so they lead to no newest version.
        ("Bad_Name!", "IfNotPresent"),
        ("-a", "IfNotPresent"),
        ("a..b", "IfNotPresent"),
        ("a_/b", "IfNotPresent"),
        ("a:-x", "IfNotPresent"),
        ("example.com:x/a", "IfNotPresent"),
    ] {
        assert_eq!(pods::pull_policy(image), policy, "{image}");
    }
}

#[test]
fn services_and_configuration() {
    let object = prepared(service());
    assert_eq!(
        object["spec"],
        json!({
            "selector": {"app": "web"}, "type": "ClusterIP", "sessionAffinity": "None",
            "internalTrafficPolicy": "Cluster",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        })
    );
    assert_eq!(object["status"], json!({"loadBalancer": {}}));
    let balancer = prepared(with(
        service(),
        &json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP"}}),
    ));
    assert_eq!(balancer["spec"]["externalTrafficPolicy"], "Cluster");
    assert_eq!(balancer["spec"]["allocateLoadBalancerNodePorts"], true);
    assert_eq!(
        balancer["spec"]["sessionAffinityConfig"],
        json!({"clientIP": {"timeoutSeconds": 10800}})
    );
    let headless = prepared(with(service(), &json!({"spec": {"clusterIP": "None"}})));
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    let secret = prepared(
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
        "data": {"a": "YQ=="}, "stringData": {"a": "b", "c": "d"}}),
    );
    assert_eq!(secret["type"], "Opaque");
    assert_eq!(secret["data"], json!({"a": "Yg==", "c": "ZA=="}));
    assert!(secret.get("stringData").is_none());
    let namespace =
        prepared(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}));
    assert_eq!(
        namespace["metadata"]["labels"],
        json!({"kubernetes.io/metadata.name": "a"})
    );
}

#[test]
fn autoscalers_and_bindings() {
    let autoscaler = prepared(json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"},
            "behavior": {"scaleUp": {}}},
    }));
    assert_eq!(autoscaler["spec"]["minReplicas"], 1);
    assert_eq!(
        autoscaler["spec"]["metrics"],
        json!([{"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": 80}}}])
    );
    assert_eq!(
        autoscaler["spec"]["behavior"],
        json!({
            "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
                {"type": "Pods", "value": 4, "periodSeconds": 15},
                {"type": "Percent", "value": 100, "periodSeconds": 15}]},
            "scaleDown": {"selectPolicy": "Max", "policies": [
                {"type": "Percent", "value": 100, "periodSeconds": 15}]},
        })
    );
    let binding = prepared(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "b"}, "roleRef": {"kind": "Role", "name": "a"},
        "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}],
    }));
    assert_eq!(binding["roleRef"]["apiGroup"], "rbac.authorization.k8s.io");
    assert_eq!(
        binding["subjects"][0]["apiGroup"],
        "rbac.authorization.k8s.io"
    );
    assert!(binding["subjects"][1].get("apiGroup").is_none());
    let slice = prepared(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "e"},
        "addressType": "IPv4", "endpoints": [], "ports": [{"port": 80}],
    }));
    assert_eq!(
        slice["ports"],
        json!([{"name": "", "port": 80, "protocol": "TCP"}])
    );
}

#[test]
fn quality_of_service() {
    let of = |limits: Value, requests: Value| {
        compute_qos(&prepared(pod_with_container(
            &json!({"resources": {"limits": limits, "requests": requests}}),
        )))
    };
    assert_eq!(of(json!({}), json!({})), "BestEffort");
    assert_eq!(
        of(json!({"cpu": "1", "memory": "1Gi"}), json!({})),
        "Guaranteed"
    );
    assert_eq!(of(json!({"cpu": "1"}), json!({})), "Burstable");
    assert_eq!(
        of(json!({"cpu": "1", "memory": "1Gi"}), json!({"cpu": "500m"})),
        "Burstable"
    );
    assert_eq!(
        of(json!({"ephemeral-storage": "1Gi"}), json!({})),
        "BestEffort"
    );
}

#[test]
fn resources_of_the_whole_pod() {
    let of = |whole: Value| {
        let container =
            json!({"name": "a", "image": "x:1", "resources": {"requests": {"cpu": "1"}}});
        let object = with(
            pod(),
            &json!({"spec": {"resources": whole, "containers": [container]}}),
        );
        let made = prepared(object);
        let class = made["status"]["qosClass"].clone();
        (made["spec"]["resources"].clone(), class)
    };
    let (whole, class) = of(json!({}));
    assert_eq!(whole, json!({}), "nothing said, nothing added");
    assert_eq!(class, "Burstable", "by what the containers say");
    let (whole, _) = of(json!({"limits": {"cpu": "5"}}));
    assert_eq!(
        whole,
        json!({"limits": {"cpu": "5"}, "requests": {"cpu": "1"}})
    );
    let (whole, _) = of(json!({"requests": {"memory": "1Gi"}}));
    assert_eq!(whole, json!({"requests": {"cpu": "1", "memory": "1Gi"}}));
}

#[test]
fn requests_of_a_pod() {
    let resources = |cpu: &str| json!({"requests": {"cpu": cpu}, "limits": {"cpu": "2"}});
    let object = with(
        pod(),
        &json!({"spec": {
            "overhead": {"cpu": "10m"},
            "containers": [
                {"name": "a", "image": "x:1", "resources": resources("100m")},
                {"name": "b", "image": "x:1", "resources": resources("200m")},
            ],
            "initContainers": [
                {"name": "s", "image": "x:1", "restartPolicy": "Always", "resources": resources("50m")},
                {"name": "i", "image": "x:1", "resources": resources("1")},
            ],
        }}),
    );
    assert_eq!(pod_requests(&object)["cpu"].to_string(), "1060m");
    assert_eq!(pod_limits(&object)["cpu"].to_string(), "6010m");
}

#[test]
fn warnings_name_what_is_probably_a_mistake() {
    let object = prepared(pod_with_container(&json!({
        "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}],
        "ports": [{"containerPort": 80}, {"containerPort": 80}],
    })));
    let wanted = [
        "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
        "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
    ];
    let row = super::row_of(&object);
    assert_eq!(row.strategy.warnings(&object, None), wanted);
    let mut workload = prepared(super::deployment());
    workload["spec"]["template"]["spec"] = object["spec"].clone();
    let row = super::row_of(&workload);
    assert_eq!(
        row.strategy.warnings(&workload, None)[0],
        format!("spec.template.{}", wanted[0])
    );
    assert!(row.strategy.warnings(&workload, Some(&workload)).is_empty());
}

#[test]
fn a_job_without_labels_has_those_of_its_template_with_the_generated_ones() {
    let made = |labels: Value, later: Value| {
        let mut job = prepared(json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "sum", "labels": labels},
            "spec": {"template": {"metadata": {"labels": {"app": "sum"}},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}}},
        }));
        json_patch::merge(&mut job, &json!({"metadata": {"labels": later}}));
        let unlabelled = labels.is_null();
        row_of(&job).strategy.prepare_new(&mut job, unlabelled);
        job["metadata"]["labels"].take()
    };
    let labels = made(Value::Null, json!({}));
    assert_eq!(labels["app"], "sum");
    assert_eq!(labels["batch.kubernetes.io/job-name"], "sum");
    // Its own labels stay as they are, though they be the same.
    assert_eq!(
        made(json!({"app": "sum"}), json!({})),
        json!({"app": "sum"})
    );
    // So do those that admission gave it.
    let later = json!({"by": "hook"});
    assert_eq!(
        made(Value::Null, later),
        json!({"app": "sum", "by": "hook"})
    );
}

#[test]
fn secrets_of_service_accounts_are_told_by_name() {
    let account = prepared(json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"},
        "secrets": [{"name": "s", "kind": "Secret", "namespace": "other"}],
    }));
    assert_eq!(account["secrets"], json!([{"name": "s"}]));
    let strategy = &row_of(&account).strategy;
    let enforced =
        json!({"metadata": {"annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}}});
    let said = strategy.warnings(&enforced, None);
    assert!(said[0].contains("deprecated in v1.32+"), "{said:?}");
    assert!(strategy.warnings(&enforced, Some(&enforced)).is_empty());
    assert!(strategy.warnings(&account, None).is_empty());
}
