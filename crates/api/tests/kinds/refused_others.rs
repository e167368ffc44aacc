//! Services, configuration, RBAC and the rest that are refused, with the reference's words.

use serde_json::{Value, json};

use super::{LABEL_VALUE, SUBDOMAIN, check, create_errors, service, with};

#[test]
fn services() {
    let selector = format!("spec.selector: Invalid value: \"a b\": {LABEL_VALUE}");
    check(
        vec![
            (json!({}), vec![]),
            (json!({"ports": []}), vec!["spec.ports: Required value"]),
            (json!({"ports": [], "clusterIP": "None"}), vec![]),
            (
                json!({"ports": [{"port": 80}, {"port": 81}]}),
                vec![
                    "spec.ports[0].name: Required value",
                    "spec.ports[1].name: Required value",
                ],
            ),
            (
                json!({"ports": [{"name": "a", "port": 80}, {"name": "a", "port": 81}]}),
                vec!["spec.ports[1].name: Duplicate value: \"a\""],
            ),
            (
                json!({"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80}]}),
                vec![
                    "spec.ports[1]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\"Port\":80,\"TargetPort\":0,\"NodePort\":0}",
                ],
            ),
            (
                json!({"ports": [{"port": 70000, "targetPort": 80}]}),
                vec![
                    "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
                ],
            ),
            (
                json!({"ports": [{"port": 80, "nodePort": 30080}]}),
                vec![
                    "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
                ],
            ),
            (
                json!({"ports": [{"port": 80, "targetPort": "a_b"}]}),
                vec![
                    "spec.ports[0].targetPort: Invalid value: \"a_b\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
                ],
            ),
            (
                json!({"type": "Cluster"}),
                vec![
                    "spec.type: Unsupported value: \"Cluster\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
                ],
            ),
            (
                json!({"type": "ExternalName"}),
                vec!["spec.externalName: Required value"],
            ),
            (
                json!({"type": "NodePort", "clusterIP": "None"}),
                vec![
                    "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
                ],
            ),
            (
                json!({"clusterIP": "10.0.0"}),
                vec![
                    "spec.clusterIPs[0]: Invalid value: \"10.0.0\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                ],
            ),
            (
                json!({"sessionAffinity": "Sticky"}),
                vec![
                    "spec.sessionAffinity: Unsupported value: \"Sticky\": supported values: \"ClientIP\", \"None\"",
                ],
            ),
            (
                json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}}),
                vec![
                    "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and less than 86400",
                ],
            ),
            (
                json!({"externalIPs": ["127.0.0.1"]}),
                vec![
                    "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                ],
            ),
            (
                json!({"externalTrafficPolicy": "Local"}),
                vec![
                    "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
                ],
            ),
            (
                json!({"loadBalancerClass": "a/b"}),
                vec![
                    "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
                ],
            ),
            (
                json!({"ipFamilyPolicy": "Dual"}),
                vec![
                    "spec.ipFamilyPolicy: Unsupported value: \"Dual\": supported values: \"PreferDualStack\", \"RequireDualStack\", \"SingleStack\"",
                ],
            ),
            (json!({"selector": {"app": "a b"}}), vec![selector.as_str()]),
        ],
        |patch| with(service(), &json!({"spec": patch})),
    );
}

fn secret(patch: &Value) -> Value {
    with(
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}),
        patch,
    )
}

#[test]
fn secrets() {
    check(
        vec![
            (json!({"stringData": {"a": "b"}}), vec![]),
            (
                json!({"type": "kubernetes.io/tls", "stringData": {"tls.crt": "x"}}),
                vec!["data[tls.key]: Required value"],
            ),
            (
                json!({"type": "kubernetes.io/basic-auth"}),
                vec![
                    "data[username]: Required value",
                    "data[password]: Required value",
                ],
            ),
            (
                json!({"type": "kubernetes.io/ssh-auth"}),
                vec!["data[ssh-privatekey]: Required value"],
            ),
            (
                json!({"type": "kubernetes.io/dockerconfigjson"}),
                vec!["data[.dockerconfigjson]: Required value"],
            ),
            (
                json!({"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "{"}}),
                vec![
                    "data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": unexpected end of JSON input",
                ],
            ),
            (
                json!({"type": "kubernetes.io/service-account-token"}),
                vec!["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
            ),
            (
                json!({"stringData": {"a": "x".repeat(1024 * 1024 + 1)}}),
                vec!["data: Too long: may not be more than 1048576 bytes"],
            ),
        ],
        secret,
    );
}

#[test]
fn config_maps() {
    check(
        vec![
            (json!({"data": {"a": "b"}}), vec![]),
            (
                json!({"data": {"..a": "b"}}),
                vec!["data[..a]: Invalid value: \"..a\": must not start with '..'"],
            ),
            (
                json!({"data": {"a": "b"}, "binaryData": {"a": "YQ=="}}),
                vec!["data[a]: Invalid value: \"a\": duplicate of key present in binaryData"],
            ),
            (
                json!({"data": {"a": "x".repeat(1024 * 1024 + 1)}}),
                vec!["[]: Too long: may not be more than 1048576 bytes"],
            ),
        ],
        |patch| {
            with(
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}),
                patch,
            )
        },
    );
}

#[test]
fn namespaces_and_nodes() {
    assert_eq!(
        create_errors(json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"},
            "spec": {"finalizers": ["mine"]},
        })),
        [
            "spec.finalizers: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully qualified"
        ]
    );
    assert_eq!(
        create_errors(json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"},
            "spec": {"taints": [{"key": "a", "effect": "No"}, {"key": "b", "effect": "NoSchedule"},
                {"key": "b", "effect": "NoSchedule"}]},
            "status": {"capacity": {"cpu": "-1"}, "declaredFeatures": ["x"]},
        })),
        [
            "metadata.taints[0].effect: Unsupported value: \"No\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
            "metadata.taints[2]: Duplicate value: {\"Key\":\"b\",\"Value\":\"\",\"Effect\":\"NoSchedule\",\"TimeAdded\":null}: taints must be unique by key and effect pair",
            "status.capacity.cpu: Invalid value: \"-1\": must be greater than or equal to 0",
            "status.allocatable.cpu: Invalid value: \"-1\": must be greater than or equal to 0",
            "status.declaredFeatures[0]: Invalid value: \"x\": invalid feature name \"x\": must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes",
        ]
    );
    let node = |spec: Value| {
        create_errors(
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}, "spec": spec}),
        )
    };
    assert_eq!(
        node(json!({"podCIDR": "x", "podCIDRs": ["10.0.0.0/24"]})),
        [
            "spec.podCIDRs[0]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
        ]
    );
    let none: [&str; 0] = [];
    assert_eq!(
        node(json!({"podCIDR": "10.0.0.0/24", "podCIDRs": ["x"]})),
        none,
        "the single one counts"
    );
}

#[test]
fn roles_and_bindings() {
    let role = |kind: &str, rules: Value| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
            "metadata": {"name": "r"}, "rules": rules})
    };
    assert_eq!(
        create_errors(role("Role", json!([{"verbs": ["get"]}]))),
        [
            "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
            "rules[0].resources: Required value: resource rules must supply at least one resource",
        ]
    );
    assert_eq!(
        create_errors(role("ClusterRole", json!([{"nonResourceURLs": ["/a"]}]))),
        ["rules[0].verbs: Required value"]
    );
    assert_eq!(
        create_errors(role(
            "Role",
            json!([{"verbs": ["get"], "nonResourceURLs": ["/a"]}])
        )),
        [
            "rules[0].nonResourceURLs: Invalid value: [\"/a\"]: namespaced rules cannot apply to non-resource URLs"
        ]
    );
    let binding = |kind: &str, role: Value, subjects: Value| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
            "metadata": {"name": "b"}, "roleRef": role, "subjects": subjects})
    };
    assert_eq!(
        create_errors(binding(
            "RoleBinding",
            json!({"kind": "Roll"}),
            json!([{"kind": "Robot", "name": "r2"}]),
        )),
        [
            "roleRef.kind: Unsupported value: \"Roll\": supported values: \"Role\", \"ClusterRole\"",
            "roleRef.name: Required value",
            "subjects[0].kind: Unsupported value: \"Robot\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
        ]
    );
    assert_eq!(
        create_errors(binding(
            "ClusterRoleBinding",
            json!({"kind": "ClusterRole", "name": "view"}),
            json!([{"kind": "ServiceAccount", "name": "a"}, {"kind": "User", "name": "u", "apiGroup": "x"}]),
        )),
        [
            "subjects[0].namespace: Required value",
            "subjects[1].apiGroup: Unsupported value: \"x\": supported values: \"rbac.authorization.k8s.io\"",
        ]
    );
}

#[test]
fn autoscalers() {
    let base = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h"},
        "spec": {"maxReplicas": 3, "scaleTargetRef":
            {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}},
    });
    check(
        vec![
            (json!({}), vec![]),
            (
                json!({"maxReplicas": 0}),
                vec![
                    "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
                    "spec.maxReplicas: Required value",
                ],
            ),
            (
                json!({"minReplicas": -1}),
                vec!["spec.minReplicas: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                json!({"minReplicas": 0}),
                vec![
                    "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas",
                ],
            ),
            (
                json!({"minReplicas": 4}),
                vec![
                    "spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`",
                ],
            ),
            (
                json!({"scaleTargetRef": {"kind": null}}),
                vec!["spec.scaleTargetRef.kind: Required value"],
            ),
            (
                json!({"scaleTargetRef": {"apiVersion": "v1"}}),
                vec![
                    "spec.scaleTargetRef.apiVersion: Invalid value: \"v1\": apiVersion must specify API group",
                ],
            ),
            (
                json!({"scaleTargetRef": {"apiVersion": "a/b/c"}}),
                vec![
                    "spec.scaleTargetRef.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
                ],
            ),
            (
                json!({"scaleTargetRef": {"apiVersion": null, "kind": "ReplicationController"}}),
                vec![],
            ),
            (
                json!({"metrics": [{"type": "ContainerResource", "containerResource": {"name": "x", "container": "c",
                    "target": {"type": "Utilization", "averageUtilization": 1}}}]}),
                vec![
                    "spec.metrics[0].containerResource.name: Invalid value: \"x\": must be a standard resource type or fully qualified",
                    "spec.metrics[0].containerResource.name: Invalid value: \"x\": must be a standard resource for containers",
                ],
            ),
            (
                json!({"behavior": {"scaleUp": {"tolerance": "-1"}}}),
                vec![
                    "spec.behavior.scaleUp.tolerance: Invalid value: \"-1\": must be greater than or equal to 0",
                ],
            ),
            (
                json!({"metrics": [{"type": "Resource"}]}),
                vec![
                    "spec.metrics[0].resource: Required value: must populate information for the given metric source",
                ],
            ),
            (
                json!({"metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}}]}),
                vec![
                    "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization",
                ],
            ),
            (
                json!({"metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Much", "averageUtilization": 0}}}]}),
                vec![
                    "spec.metrics[0].resource.target.type: Invalid value: \"Much\": must be either Utilization, Value, or AverageValue",
                    "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0",
                ],
            ),
            (
                json!({"behavior": {"scaleUp": {"stabilizationWindowSeconds": 3601}}}),
                vec![
                    "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
                ],
            ),
            (
                json!({"behavior": {"scaleDown": {"policies": [{"type": "Pods", "value": 0, "periodSeconds": 1801}]}}}),
                vec![
                    "spec.behavior.scaleDown.policies[0].value: Invalid value: 0: must be greater than zero",
                    "spec.behavior.scaleDown.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
                ],
            ),
        ],
        |patch| with(base.clone(), &json!({"spec": patch})),
    );
}

#[test]
fn endpoints_leases_and_events() {
    assert_eq!(
        create_errors(json!({
            "apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "e"},
            "subsets": [{"ports": [{"port": 80}]}, {"addresses": [{"ip": "169.254.1.1"}]}],
        })),
        [
            "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",
            "subsets[1].addresses[0].ip: Invalid value: \"169.254.1.1\": may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        ]
    );
    assert_eq!(
        create_errors(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "e"},
            "addressType": "IPv4",
            "endpoints": [{"addresses": []}, {"addresses": ["fd00::1"]},
                {"addresses": ["10.0.0.1"], "hints": {"forZones": [{"name": "a"}, {"name": "a"}],
                    "forNodes": [{"name": "N"}]}}],
            "ports": [{"port": 80}, {"port": 81}],
        })),
        [
            "endpoints[0].addresses: Required value",
            "endpoints[1].addresses: Invalid value: \"fd00::1\": must be an IPv4 address",
            "endpoints[2].hints.forZones[1].name: Duplicate value: \"a\"",
            &format!("endpoints[2].hints.forNodes[0].name: Invalid value: \"N\": {SUBDOMAIN}"),
            "ports[1].name: Duplicate value: \"\"",
        ]
    );
    assert_eq!(
        create_errors(json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
            "spec": {"leaseDurationSeconds": 0},
        })),
        ["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"]
    );
    assert_eq!(
        create_errors(json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "a"},
            "involvedObject": {"kind": "Pod", "name": "p", "namespace": "b"},
        })),
        ["involvedObject.namespace: Invalid value: \"b\": does not match event.namespace"]
    );
}

#[test]
fn requests_and_reviews() {
    let validate = |object: Value| {
        let mut object = object;
        let row = super::row_of(&object);
        row.strategy.defaults(&mut object);
        super::texts(&row.strategy.validate(&object))
    };
    assert_eq!(
        validate(
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"expirationSeconds": 60}})
        ),
        [
            "spec.expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes"
        ]
    );
    assert_eq!(
        validate(
            json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {}})
        ),
        [
            "spec: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified",
            "spec.user: Invalid value: \"\": at least one of user or group must be specified",
        ]
    );
    let review = |meta: Value, attributes: Value| {
        validate(
            json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "metadata": meta, "spec": {"user": "u", "resourceAttributes": attributes}}),
        )
    };
    let plain = json!({"verb": "get", "resource": "pods"});
    assert_eq!(
        review(json!({"name": "x"}), plain),
        ["metadata: Invalid value: {\"name\":\"x\"}: must be empty"]
    );
    assert_eq!(
        review(
            json!({}),
            json!({"fieldSelector": {}, "labelSelector": {"rawSelector": "a=b", "requirements": [
                {"key": "a", "operator": "Later"}, {"key": "a", "operator": "In"}]}})
        ),
        [
            "spec.resourceAttributes.fieldSelector.requirements: Required value: when spec.resourceAttributes.fieldSelector is specified, requirements or rawSelector is required",
            "spec.resourceAttributes.labelSelector.rawSelector: Invalid value: \"a=b\": may not specified at the same time as requirements",
            "spec.resourceAttributes.labelSelector.requirements[1].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
        ]
    );
    assert_eq!(
        validate(json!({"apiVersion": "v1", "kind": "Binding", "target": {"kind": "Pod"}})),
        [
            "target.kind: Unsupported value: \"Pod\": supported values: \"Node\", \"<empty>\"",
            "target.name: Required value",
        ]
    );
    assert_eq!(
        validate(
            json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": {"replicas": -1}})
        ),
        ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]
    );
}
