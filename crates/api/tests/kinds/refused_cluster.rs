//! Networking, drivers, certificates, flow control and devices that are refused, with the
//! reference's words.

use serde_json::{Value, json};

use super::{SUBDOMAIN, check, create_errors, prepared, row_of, texts, update_errors, with};

/// A signing request of `CN=dora, O=dev` with a P-256 key that nobody has.
pub(super) const REQUEST: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIWU1IOENBUUF3SFRFTU1Bb0dBMVVFQ2d3RFpHVjJNUTB3Q3dZRFZRUUREQVJrYjNKaE1Ga3dFd1lIS29aSQp6ajBDQVFZSUtvWkl6ajBEQVFjRFFnQUVwN1NNeExuMmlSSDZOb0Fvcmh5Q0cveE42UTFMWmUrTFdaWHlNcUpSCmpZd1JxS3pSNVNYZ09pOUdaMXhoM3VOUXBVblR6ZGI0V2g2S0JVaHJodXcrWmFBQU1Bb0dDQ3FHU000OUJBTUMKQTBrQU1FWUNJUURFRmNvcktnazdYbHVFa04yMm8vR2JsdVprVTliTCs5a1JLOEVLUmo3V0dRSWhBTTJCZTRnTgpWZVFTQVZoTGVwdHp1MTVnSzF5ck5STTN2MTUwOW1wNmNmWGQKLS0tLS1FTkQgQ0VSVElGSUNBVEUgUkVRVUVTVC0tLS0tCg==";

pub(super) fn named(api_version: &str, kind: &str, rest: &Value) -> Value {
    let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}});
    for (name, value) in rest.as_object().into_iter().flatten() {
        object[name] = value.clone();
    }
    object
}

#[test]
fn ingresses() {
    let ingress = |spec: &Value| named("networking.k8s.io/v1", "Ingress", &json!({"spec": spec}));
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let rule = |path: Value| json!({"rules": [{"http": {"paths": [path]}}]});
    let path = |patch: Value| {
        rule(with(
            json!({"path": "/", "pathType": "Prefix", "backend": backend.clone()}),
            &patch,
        ))
    };
    check(
        vec![
            (json!({"defaultBackend": backend.clone()}), vec![]),
            (path(json!({})), vec![]),
            (
                json!({}),
                vec![
                    "spec: Invalid value: null: either `defaultBackend` or `rules` must be specified",
                ],
            ),
            (
                path(json!({"pathType": null})),
                vec![
                    "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
                ],
            ),
            (
                path(json!({"path": "a//b/.."})),
                vec![
                    "spec.rules[0].http.paths[0].path: Invalid value: \"a//b/..\": must be an absolute path",
                    "spec.rules[0].http.paths[0].path: Invalid value: \"a//b/..\": must not contain '//'",
                    "spec.rules[0].http.paths[0].path: Invalid value: \"a//b/..\": cannot end with '/..'",
                ],
            ),
            (
                path(json!({"backend": {"service": {"port": {"number": null}}}})),
                vec![
                    "spec.rules[0].http.paths[0].backend: Required value: port name or number is required",
                ],
            ),
            (
                path(json!({"backend": {"service": null}})),
                vec![
                    "spec.rules[0].http.paths[0].backend: Invalid value: \"\": resource or service backend is required",
                ],
            ),
            (
                json!({"defaultBackend": backend.clone(), "rules": [{"host": "10.0.0.1"}]}),
                vec![
                    "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
                ],
            ),
        ],
        ingress,
    );
    let class = named(
        "networking.k8s.io/v1",
        "IngressClass",
        &json!({"spec": {"controller": "example.com/proxy", "parameters": {"kind": "K", "name": "n"}}}),
    );
    assert_eq!(create_errors(class.clone()), [""; 0]);
    assert_eq!(
        prepared(class.clone())["spec"]["parameters"]["scope"],
        "Cluster"
    );
    assert_eq!(
        update_errors(class, &json!({"spec": {"controller": "example.com/other"}})),
        ["spec.controller: Invalid value: \"example.com/other\": field is immutable"]
    );
}

#[test]
fn network_policies() {
    let policy = |spec: &Value| {
        named(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            &json!({"spec": spec}),
        )
    };
    let from = |peer: Value| json!({"ingress": [{"from": [peer]}]});
    check(
        vec![
            (json!({}), vec![]),
            (
                from(json!({})),
                vec!["spec.ingress[0].from[0]: Required value: must specify a peer"],
            ),
            (
                from(json!({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}})),
                vec![
                    "spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer",
                ],
            ),
            (
                from(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}})),
                vec![
                    "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`",
                ],
            ),
            (
                json!({"egress": [{"ports": [{"endPort": 5}, {"port": 9, "endPort": 5},
                    {"port": "web", "protocol": "QUIC"}]}]}),
                vec![
                    "spec.egress[0].ports[0].endPort: Invalid value: 5: may not be specified when `port` is not specified",
                    "spec.egress[0].ports[1].endPort: Invalid value: 5: must be greater than or equal to `port`",
                    "spec.egress[0].ports[2].protocol: Unsupported value: \"QUIC\": supported values: \"TCP\", \"UDP\", \"SCTP\"",
                ],
            ),
            (
                json!({"policyTypes": ["Sideways"]}),
                vec![
                    "spec.policyTypes[0]: Unsupported value: \"Sideways\": supported values: \"Ingress\", \"Egress\"",
                ],
            ),
        ],
        policy,
    );
    let made = prepared(policy(&json!({"egress": [{"ports": [{"port": 53}]}]})));
    assert_eq!(made["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(made["spec"]["egress"][0]["ports"][0]["protocol"], "TCP");
    // What was there before a rule was stricter may stay.
    let loose = policy(&from(json!({"ipBlock": {"cidr": "10.0.0.1/8"}})));
    assert_eq!(create_errors(loose.clone()).len(), 1);
    let labelled = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(update_errors(loose, &labelled), [""; 0]);
}

#[test]
fn addresses() {
    let address = |name: &str| {
        let mut object = named(
            "networking.k8s.io/v1",
            "IPAddress",
            &json!({"spec": {"parentRef": {"resource": "services", "namespace": "d", "name": "s"}}}),
        );
        object["metadata"]["name"] = name.into();
        object
    };
    assert_eq!(create_errors(address("10.0.0.1")), [""; 0]);
    assert_eq!(
        create_errors(address("10.0.0.01")),
        ["metadata.name: Invalid value: \"10.0.0.01\": must not have leading 0s"]
    );
    let cidr = |list: Value| {
        named(
            "networking.k8s.io/v1",
            "ServiceCIDR",
            &json!({"spec": {"cidrs": list}}),
        )
    };
    assert_eq!(create_errors(cidr(json!(["10.0.0.0/24"]))), [""; 0]);
    assert_eq!(
        create_errors(cidr(json!(["10.0.0.0/24", "10.0.1.0/24"]))),
        [
            "spec.cidrs: Invalid value: [\"10.0.0.0/24\",\"10.0.1.0/24\"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
        ]
    );
    assert_eq!(
        update_errors(
            cidr(json!(["10.0.0.0/24"])),
            &json!({"spec": {"cidrs": ["10.0.1.0/24"]}})
        ),
        ["spec.cidrs[0]: Invalid value: \"10.0.1.0/24\": field is immutable"]
    );
    let both = json!({"spec": {"cidrs": ["10.0.0.0/24", "fd00::/64"]}});
    assert_eq!(update_errors(cidr(json!(["10.0.0.0/24"])), &both), [""; 0]);
}

#[test]
fn drivers_of_volumes() {
    let driver = |spec: &Value| named("storage.k8s.io/v1", "CSIDriver", &json!({"spec": spec}));
    check(
        vec![
            (json!({}), vec![]),
            (
                json!({"fsGroupPolicy": "Maybe"}),
                vec![
                    "spec.fsGroupPolicy: Unsupported value: \"Maybe\": supported values: \"File\", \"None\", \"ReadWriteOnceWithFSType\"",
                ],
            ),
            (
                json!({"tokenRequests": [{"audience": "a", "expirationSeconds": 5}, {"audience": "a"}]}),
                vec![
                    "spec.tokenRequests[0].expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes",
                    "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
                ],
            ),
        ],
        driver,
    );
    assert_eq!(
        update_errors(
            driver(&json!({})),
            &json!({"spec": {"attachRequired": false}})
        ),
        ["spec.attachedRequired: Invalid value: false: field is immutable"]
    );
    let node = named(
        "storage.k8s.io/v1",
        "CSINode",
        &json!({"spec": {"drivers": [{"name": "d.example.com", "nodeID": ""}]}}),
    );
    assert_eq!(
        create_errors(node),
        ["spec.drivers[0].nodeID: Required value"]
    );
    let attachment = |source: &Value| {
        named(
            "storage.k8s.io/v1",
            "VolumeAttachment",
            &json!({"spec": {"attacher": "d.example.com", "nodeName": "n1", "source": source}}),
        )
    };
    check(
        vec![
            (json!({"persistentVolumeName": "disk"}), vec![]),
            (
                json!({}),
                vec![
                    "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
                ],
            ),
            (
                json!({"inlineVolumeSpec": {"hostPath": {"path": "/a"}, "accessModes": ["ReadWriteOnce"]}}),
                vec![
                    "spec.source.inlineVolumeSpec.csi: Required value: has to be specified in the context of inline volumes",
                ],
            ),
        ],
        attachment,
    );
    let class = named(
        "storage.k8s.io/v1",
        "VolumeAttributesClass",
        &json!({"driverName": "d.example.com", "parameters": {"iops": "5"}}),
    );
    assert_eq!(
        update_errors(class, &json!({"parameters": {"iops": "6"}})),
        ["parameters: Forbidden: updates to parameters are forbidden."]
    );
    let runtime = named(
        "node.k8s.io/v1",
        "RuntimeClass",
        &json!({"handler": "Kata"}),
    );
    assert_eq!(create_errors(runtime).len(), 1);
}

#[test]
fn signing_requests() {
    let request = |spec: &Value| {
        let base = json!({"request": REQUEST, "usages": ["client auth"],
            "signerName": "kubernetes.io/kube-apiserver-client"});
        named(
            "certificates.k8s.io/v1",
            "CertificateSigningRequest",
            &json!({"spec": with(base, spec)}),
        )
    };
    let nonsense = "bm9uc2Vuc2U=";
    let usages = create_errors(request(&json!({"usages": ["sing"]})));
    assert!(usages[0].starts_with("spec.usages[0]: Unsupported value: \"sing\": supported values"));
    check(
        vec![
            (json!({}), vec![]),
            (
                json!({"request": nonsense}),
                vec![
                    "spec.request: Invalid value: \"bm9uc2Vuc2U=\": PEM block type must be CERTIFICATE REQUEST",
                ],
            ),
            (json!({"usages": null}), vec!["spec.usages: Required value"]),
            (
                json!({"signerName": "me"}),
                vec![
                    "spec.signerName: Invalid value: \"me\": must be a fully qualified domain and path of the form 'example.com/signer-name'",
                ],
            ),
            (
                json!({"expirationSeconds": 5}),
                vec![
                    "spec.expirationSeconds: Invalid value: 5: may not specify a duration less than 600 seconds (10 minutes)",
                ],
            ),
        ],
        request,
    );
    let read = evenkeel_api::kinds::certificates::pem::signing_request(REQUEST).expect("good");
    assert_eq!(
        (read.common_name.as_str(), &read.organizations[..]),
        ("dora", &["dev".to_owned()][..])
    );

    let old = prepared(request(&json!({})));
    let row = row_of(&old);
    let now = "2026-01-01T00:00:00Z";
    let mut new = old.clone();
    new["status"]["conditions"] = json!([{"type": "Approved", "status": "True"}]);
    // Approval goes through its own path.
    let errors = row.strategy.validate_status(&new, &old);
    assert_eq!(
        texts(&errors),
        ["status.conditions: Forbidden: updates may not add a condition of type \"Approved\""]
    );
    new["status"]["certificate"] = "x".into();
    row.strategy.prepare_approval(&mut new, &old, now);
    assert_eq!(texts(&row.strategy.validate_approval(&new, &old)), [""; 0]);
    assert_eq!(
        new["status"],
        json!({"conditions": [{"type": "Approved", "status": "True",
            "lastUpdateTime": now, "lastTransitionTime": now}]})
    );
    let mut both = new.clone();
    both["status"]["conditions"]
        .as_array_mut()
        .expect("a list")
        .push(json!({"type": "Denied", "status": "True"}));
    assert_eq!(
        texts(&row.strategy.validate_approval(&both, &new)),
        [
            "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive"
        ]
    );
}

#[test]
fn flow_control() {
    let schema = |spec: &Value| {
        let base = json!({"priorityLevelConfiguration": {"name": "low"}});
        named(
            "flowcontrol.apiserver.k8s.io/v1",
            "FlowSchema",
            &json!({"spec": with(base, spec)}),
        )
    };
    check(
        vec![
            (json!({}), vec![]),
            (
                json!({"matchingPrecedence": 1}),
                vec![
                    "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
                ],
            ),
            (
                json!({"priorityLevelConfiguration": {"name": null}}),
                vec![
                    "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
                ],
            ),
            (
                json!({"rules": [{"subjects": [{"kind": "User", "group": {"name": "g"}}],
                    "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["a"]}]}]}),
                vec![
                    "spec.rules[0].subjects[0].user: Required value: user is required when subject kind is 'User'",
                    "spec.rules[0].subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'",
                    "spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"a\": must start with slash",
                ],
            ),
        ],
        schema,
    );
    let level = |spec: &Value| {
        named(
            "flowcontrol.apiserver.k8s.io/v1",
            "PriorityLevelConfiguration",
            &json!({"spec": spec}),
        )
    };
    check(
        vec![
            (
                json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {}}}}),
                vec![],
            ),
            (
                json!({"type": "Exempt"}),
                vec![
                    "spec.type: Invalid value: \"Exempt\": must be 'Exempt' if and only if `name` is 'exempt'",
                ],
            ),
            (
                json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue",
                    "queuing": {"queues": 4, "handSize": 6}}}}),
                vec![
                    "spec.limited.limitResponse.queuing.handSize: Invalid value: 6: should not be greater than queues (4)",
                ],
            ),
        ],
        level,
    );
}

#[test]
fn devices() {
    let claim = |devices: &Value| {
        named(
            "resource.k8s.io/v1",
            "ResourceClaim",
            &json!({"spec": {"devices": devices}}),
        )
    };
    let gpu = json!({"name": "gpu", "exactly": {"deviceClassName": "gpus"}});
    check(
        vec![
            (json!({"requests": [gpu.clone()]}), vec![]),
            (
                json!({"requests": [{"name": "gpu"}]}),
                vec![
                    "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
                ],
            ),
            (
                json!({"requests": [gpu.clone(), gpu.clone()]}),
                vec!["spec.devices.requests[1]: Duplicate value: \"gpu\""],
            ),
            (
                json!({"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpus",
                    "allocationMode": "All", "count": 2}}]}),
                vec![
                    "spec.devices.requests[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'",
                ],
            ),
            (
                json!({"requests": [gpu.clone()], "constraints": [
                    {"distinctAttribute": "x"}, {"distinctAttribute": "a.b/"}]}),
                vec![
                    "spec.devices.constraints[0].distinctAttribute: Invalid value: \"x\": a fully qualified name must be a domain and a name separated by a slash",
                    "spec.devices.constraints[1].distinctAttribute: Invalid value: \"\": name must not be empty",
                ],
            ),
            (
                json!({"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpus",
                    "tolerations": [{}]}}]}),
                vec![],
            ),
            (
                json!({"requests": [gpu.clone()],
                    "constraints": [{"requests": ["cpu"], "matchAttribute": "example.com/numa"}]}),
                vec![
                    "spec.devices.constraints[0].requests[0]: Invalid value: \"cpu\": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'",
                ],
            ),
        ],
        claim,
    );
    let made = prepared(claim(&json!({"requests": [gpu]})));
    assert_eq!(
        made["spec"]["devices"]["requests"][0]["exactly"],
        json!({"deviceClassName": "gpus", "allocationMode": "ExactCount", "count": 1})
    );
    let template = named(
        "resource.k8s.io/v1",
        "ResourceClaimTemplate",
        &json!({"spec": {"metadata": {"name": "x", "uid": "u", "labels": {"a": "b"}},
            "spec": {"devices": {}}}}),
    );
    assert_eq!(
        create_errors(template),
        [
            "spec.metadata.name: Forbidden: cannot be set",
            "spec.metadata.uID: Forbidden: cannot be set",
        ]
    );
    let slice = |spec: &Value| {
        let base = json!({"driver": "d.example.com", "nodeName": "n1",
            "pool": {"name": "n1", "generation": 0, "resourceSliceCount": 1}});
        named(
            "resource.k8s.io/v1",
            "ResourceSlice",
            &json!({"spec": with(base, spec)}),
        )
    };
    let upper = format!("spec.nodeName: Invalid value: \"N\": {SUBDOMAIN}");
    check(
        vec![
            (json!({}), vec![]),
            (json!({"nodeName": "N"}), vec![upper.as_str()]),
            (
                json!({"allNodes": true}),
                vec![
                    "spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set",
                ],
            ),
            (
                json!({"devices": [{"name": "a", "attributes": {"v": {"version": "1.2"}}}]}),
                vec![
                    "spec.devices[0].attributes[v].version: Invalid value: \"1.2\": must be a string compatible with semver.org spec 2.0.0",
                ],
            ),
            (
                json!({"devices": [{"name": "a", "attributes": {"9x": {"int": 1}}}]}),
                vec![
                    "spec.devices[0].attributes[9x]: Invalid value: \"9x\": a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')",
                ],
            ),
        ],
        slice,
    );
}

/// What is deleted can't be changed any more, and a claim's constraints are checked one and all.
#[test]
fn operations_that_nothing_can_be_changed_in_and_names_of_attributes() {
    let rule = |operation: &str| {
        json!({"resourceRules": [{"operations": [operation], "apiGroups": [""],
            "apiVersions": ["v1"], "resources": ["pods"]}]})
    };
    let told = |at: &str| {
        format!(
            "spec.{at}.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \
             \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\""
        )
    };
    let expression = "[JSONPatch{op: \"remove\", path: \"/spec\"}]";
    let policy = |operation: &str| {
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy",
            "metadata": {"name": "a"},
            "spec": {"matchConstraints": rule(operation), "reinvocationPolicy": "Never",
                "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}]}})
    };
    let binding = |operation: &str| {
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "a"},
            "kind": "MutatingAdmissionPolicyBinding",
            "spec": {"policyName": "a", "matchResources": rule(operation)}})
    };
    for operation in ["*", "CREATE"] {
        assert_eq!(create_errors(binding(operation)), [""; 0]);
    }
    assert_eq!(create_errors(policy("DELETE")), [told("matchConstraints")]);
    assert_eq!(create_errors(binding("DELETE")), [told("matchResources")]);
    let claim = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {"name": "a"},
        "spec": {"devices": {
            "requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}],
            "constraints": [{"matchAttribute": "e.x/a", "distinctAttribute": "b"}]}}});
    assert_eq!(
        create_errors(claim),
        [
            "spec.devices.constraints[0].distinctAttribute: Invalid value: \"b\": a fully qualified name \
          must be a domain and a name separated by a slash"
        ]
    );
}
