//! Pods that are refused, with the reference's words.

use serde_json::{Value, json};

use super::{LABEL, LABEL_VALUE, NAME_PART, SUBDOMAIN, check, pod, pod_with_container, with};

#[test]
fn containers() {
    let bad_label = format!("spec.containers[0].name: Invalid value: \"We_b\": {LABEL}");
    check(
        vec![
            (json!({}), vec![]),
            (
                json!({"name": null}),
                vec!["spec.containers[0].name: Required value"],
            ),
            (
                json!({"image": null}),
                vec!["spec.containers[0].image: Required value"],
            ),
            (json!({"name": "We_b"}), vec![bad_label.as_str()]),
            (
                json!({"name": "a.b"}),
                vec!["spec.containers[0].name: Invalid value: \"a.b\": must not contain dots"],
            ),
            (
                json!({"image": " nginx"}),
                vec![
                    "spec.containers[0].image: Invalid value: \" nginx\": must not have leading or trailing whitespace",
                ],
            ),
            (
                json!({"imagePullPolicy": "Sometimes"}),
                vec![
                    "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
                ],
            ),
            (
                json!({"terminationMessagePolicy": "x"}),
                vec![
                    "spec.containers[0].terminationMessagePolicy: Unsupported value: \"x\": supported values: \"File\", \"FallbackToLogsOnError\"",
                ],
            ),
            (
                json!({"restartPolicy": "Sometimes"}),
                vec![
                    "spec.containers[0].restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\", \"OnFailure\"",
                ],
            ),
            (
                json!({"restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]}),
                vec![
                    "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used",
                ],
            ),
            (
                json!({"restartPolicy": "Never", "restartPolicyRules": [
                    {"action": "RestartAllContainers", "exitCodes": {"operator": "NotIn", "values": [0]}},
                    {"action": "Stop", "exitCodes": {"operator": "Equals", "values": [1]}},
                    {"action": "Restart"},
                ]}),
                vec![
                    "spec.containers[0].restartPolicyRules[1].action: Unsupported value: \"Stop\": supported values: \"Restart\", \"RestartAllContainers\"",
                    "spec.containers[0].restartPolicyRules[1].exitCodes.operator: Unsupported value: \"Equals\": supported values: \"In\", \"NotIn\"",
                    "spec.containers[0].restartPolicyRules[2].exitCodes: Required value: must be specified",
                ],
            ),
            (
                json!({"ports": [{"containerPort": 0}]}),
                vec!["spec.containers[0].ports[0].containerPort: Required value"],
            ),
            (
                json!({"ports": [{"containerPort": 65536}]}),
                vec![
                    "spec.containers[0].ports[0].containerPort: Invalid value: 65536: must be between 1 and 65535, inclusive",
                ],
            ),
            (
                json!({"ports": [{"containerPort": 80, "hostPort": -1}]}),
                vec![
                    "spec.containers[0].ports[0].hostPort: Invalid value: -1: must be between 1 and 65535, inclusive",
                ],
            ),
            (
                json!({"ports": [{"containerPort": 80, "protocol": "tcp"}]}),
                vec![
                    "spec.containers[0].ports[0].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                ],
            ),
            (
                json!({"ports": [{"containerPort": 80, "name": "a"}, {"containerPort": 81, "name": "a"}]}),
                vec!["spec.containers[0].ports[1].name: Duplicate value: \"a\""],
            ),
            (
                json!({"ports": [{"containerPort": 80, "name": "80"}]}),
                vec![
                    "spec.containers[0].ports[0].name: Invalid value: \"80\": must contain at least one letter (a-z)",
                ],
            ),
            (
                json!({"ports": [{"containerPort": 80, "name": "a-very-long-port-name"}]}),
                vec![
                    "spec.containers[0].ports[0].name: Invalid value: \"a-very-long-port-name\": must be no more than 15 characters",
                ],
            ),
            (
                json!({"ports": [{"containerPort": 80, "name": "A--b"}]}),
                vec![
                    "spec.containers[0].ports[0].name: Invalid value: \"A--b\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
                    "spec.containers[0].ports[0].name: Invalid value: \"A--b\": must not contain consecutive hyphens",
                ],
            ),
            (
                json!({"ports": [{"containerPort": 80, "hostPort": 80}, {"containerPort": 81, "hostPort": 80}]}),
                vec!["spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//80\""],
            ),
        ],
        pod_with_container,
    );
}

#[test]
fn environment() {
    let key = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
    let bad_key = format!(
        "spec.containers[0].env[0].valueFrom.configMapKeyRef.key: Invalid value: \"a b\": {key}"
    );
    let from = |source: Value| json!({"env": [{"name": "A", "valueFrom": source}]});
    check(
        vec![
            (
                json!({"env": [{"name": "A", "value": "b"}, {"name": "A"}]}),
                vec![],
            ),
            (
                json!({"env": [{"value": "b"}]}),
                vec!["spec.containers[0].env[0].name: Required value"],
            ),
            (
                json!({"env": [{"name": "A=B"}]}),
                vec![
                    "spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist only of printable ASCII characters other than '='",
                ],
            ),
            (
                from(json!({})),
                vec![
                    "spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
                ],
            ),
            (
                json!({"env": [{"name": "A", "value": "b", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
                vec![
                    "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
                ],
            ),
            (
                from(
                    json!({"fieldRef": {"fieldPath": "metadata.name"}, "secretKeyRef": {"name": "a", "key": "b"}}),
                ),
                vec![
                    "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not have more than one field specified at a time",
                ],
            ),
            (
                from(json!({"fieldRef": {"fieldPath": "metadata.labels['app']"}})),
                vec![],
            ),
            (
                from(json!({"fieldRef": {"fieldPath": "metadata.labels"}})),
                vec![
                    "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"metadata.labels\": supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
                ],
            ),
            (
                from(json!({"fieldRef": {"fieldPath": "metadata.whatever"}})),
                vec![
                    "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"metadata.whatever\": error converting fieldPath: field label not supported: metadata.whatever",
                ],
            ),
            (
                from(json!({"fieldRef": {"apiVersion": "v2", "fieldPath": "metadata.name"}})),
                vec![
                    "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"metadata.name\": error converting fieldPath: unsupported pod version: v2",
                ],
            ),
            (
                from(json!({"resourceFieldRef": {"resource": "limits.disk"}})),
                vec![
                    "spec.containers[0].env[0].valueFrom.resourceFieldRef.resource: Unsupported value: \"limits.disk\": supported values: \"limits.cpu\", \"limits.ephemeral-storage\", \"limits.memory\", \"requests.cpu\", \"requests.ephemeral-storage\", \"requests.memory\"",
                ],
            ),
            (
                from(json!({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}})),
                vec![
                    "spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with the cpu resource",
                ],
            ),
            (
                from(json!({"configMapKeyRef": {"name": "a", "key": "a b"}})),
                vec![bad_key.as_str()],
            ),
            (
                from(json!({"fileKeyRef": {"volumeName": "none", "path": "../a", "key": "k"}})),
                vec![
                    "spec.containers[0].env[0].valueFrom.fileKeyRef.path: Invalid value: \"../a\": must not contain '..'",
                    "spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName: Not found: \"none\"",
                ],
            ),
            (
                from(json!({"secretKeyRef": {"name": "a"}})),
                vec!["spec.containers[0].env[0].valueFrom.secretKeyRef.key: Required value"],
            ),
            (
                json!({"envFrom": [{}]}),
                vec![
                    "spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
                ],
            ),
            (
                json!({"envFrom": [{"configMapRef": {}}]}),
                vec!["spec.containers[0].envFrom[0].configMapRef.name: Required value"],
            ),
        ],
        pod_with_container,
    );
}

#[test]
fn resources() {
    let of = |limits: Value, requests: Value| json!({"resources": {"limits": limits, "requests": requests}});
    check(
        vec![
            (
                of(json!({"cpu": "1"}), json!({"cpu": "2"})),
                vec![
                    "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
                ],
            ),
            (
                of(json!({"memory": "-1Mi"}), json!({})),
                vec![
                    "spec.containers[0].resources.limits[memory]: Invalid value: \"-1Mi\": must be greater than or equal to 0",
                    "spec.containers[0].resources.requests[memory]: Invalid value: \"-1Mi\": must be greater than or equal to 0",
                ],
            ),
            (
                of(json!({"disk": "1"}), json!({"disk": "1"})),
                vec![
                    "spec.containers[0].resources.limits[disk]: Invalid value: \"disk\": must be a standard resource type or fully qualified",
                    "spec.containers[0].resources.limits[disk]: Invalid value: \"disk\": must be a standard resource for containers",
                    "spec.containers[0].resources.requests[disk]: Invalid value: \"disk\": must be a standard resource type or fully qualified",
                    "spec.containers[0].resources.requests[disk]: Invalid value: \"disk\": must be a standard resource for containers",
                ],
            ),
            (
                json!({"resources": {"requests": {"example.com/gpu": "1"}}}),
                vec![
                    "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
                ],
            ),
            (
                of(json!({"example.com/gpu": "1500m"}), json!({})),
                vec![
                    "spec.containers[0].resources.limits[example.com/gpu]: Invalid value: \"1500m\": must be an integer",
                    "spec.containers[0].resources.requests[example.com/gpu]: Invalid value: \"1500m\": must be an integer",
                ],
            ),
            (
                of(json!({"hugepages-2Mi": "3Mi", "cpu": "1"}), json!({})),
                vec![
                    "spec.containers[0].resources.limits[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi",
                    "spec.containers[0].resources.requests[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi",
                ],
            ),
            (
                of(json!({"hugepages-2Mi": "4Mi"}), json!({})),
                vec!["spec.containers[0].resources: Forbidden: HugePages require cpu or memory"],
            ),
            (
                json!({"resources": {"claims": [{"name": "gpu"}]}}),
                vec![
                    "spec.containers[0].resources.claims[0]: Not found: \"gpu\": must be one of the names in pod.spec.resourceClaims which is empty",
                ],
            ),
        ],
        pod_with_container,
    );
}

#[test]
fn probes_and_hooks() {
    let http = json!({"httpGet": {"port": 80}});
    let probe = |name: &str, patch: Value| json!({name: with(http.clone(), &patch)});
    check(
        vec![
            (probe("livenessProbe", json!({})), vec![]),
            (
                json!({"livenessProbe": {"periodSeconds": 5}}),
                vec![
                    "spec.containers[0].livenessProbe: Required value: must specify a handler type",
                ],
            ),
            (
                probe("livenessProbe", json!({"tcpSocket": {"port": 80}})),
                vec![
                    "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
                ],
            ),
            (
                probe("livenessProbe", json!({"successThreshold": 2})),
                vec![
                    "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
                ],
            ),
            (
                probe(
                    "readinessProbe",
                    json!({"terminationGracePeriodSeconds": 5}),
                ),
                vec![
                    "spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for readinessProbes",
                ],
            ),
            (
                probe("startupProbe", json!({"failureThreshold": -1})),
                vec![
                    "spec.containers[0].startupProbe.failureThreshold: Invalid value: -1: must be greater than or equal to 0",
                ],
            ),
            (
                json!({"readinessProbe": {"httpGet": {"port": 0}}}),
                vec![
                    "spec.containers[0].readinessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
                ],
            ),
            (
                json!({"readinessProbe": {"httpGet": {"port": 80, "scheme": "http"}}}),
                vec![
                    "spec.containers[0].readinessProbe.httpGet.scheme: Unsupported value: \"http\": supported values: \"HTTP\", \"HTTPS\"",
                ],
            ),
            (
                json!({"readinessProbe": {"exec": {}}}),
                vec!["spec.containers[0].readinessProbe.exec.command: Required value"],
            ),
            (
                json!({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}}),
                vec![
                    "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
                ],
            ),
            (
                json!({"lifecycle": {"postStart": {}}}),
                vec![
                    "spec.containers[0].lifecycle.postStart: Required value: must specify a handler type",
                ],
            ),
        ],
        pod_with_container,
    );
}

#[test]
fn mounts() {
    let volume = json!({"name": "data", "emptyDir": {}});
    let object = |mounts: &Value| {
        let mut object = pod_with_container(&json!({"volumeMounts": mounts}));
        object["spec"]["volumes"] = json!([volume]);
        object
    };
    check(
        vec![
            (json!([{"name": "data", "mountPath": "/a"}]), vec![]),
            (
                json!([{"name": "x", "mountPath": "/a"}]),
                vec!["spec.containers[0].volumeMounts[0].name: Not found: \"x\""],
            ),
            (
                json!([{"name": "data"}]),
                vec!["spec.containers[0].volumeMounts[0].mountPath: Required value"],
            ),
            (
                json!([{"name": "data", "mountPath": "/a"}, {"name": "data", "mountPath": "/a"}]),
                vec![
                    "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique",
                ],
            ),
            (
                json!([{"name": "data", "mountPath": "/a", "subPath": "/b"}]),
                vec![
                    "spec.containers[0].volumeMounts.subPath: Invalid value: \"/b\": must be a relative path",
                ],
            ),
            (
                json!([{"name": "data", "mountPath": "/a", "subPath": "../b"}]),
                vec![
                    "spec.containers[0].volumeMounts.subPath: Invalid value: \"../b\": must not contain '..'",
                ],
            ),
            (
                json!([{"name": "data", "mountPath": "/a", "mountPropagation": "Bidirectional"}]),
                vec![
                    "spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
                ],
            ),
        ],
        object,
    );
}

#[test]
fn volumes() {
    let label = format!("spec.volumes[0].name: Invalid value: \"A\": {LABEL}");
    check(
        vec![
            (json!([{"name": "a"}]), vec![]),
            (
                json!([{"emptyDir": {}}]),
                vec!["spec.volumes[0].name: Required value"],
            ),
            (json!([{"name": "A"}]), vec![label.as_str()]),
            (
                json!([{"name": "a"}, {"name": "a"}]),
                vec!["spec.volumes[1].name: Duplicate value: \"a\""],
            ),
            (
                json!([{"name": "a", "emptyDir": {}, "configMap": {"name": "c"}}]),
                vec![
                    "spec.volumes[0].configMap: Forbidden: may not specify more than 1 volume type",
                ],
            ),
            (
                json!([{"name": "a", "configMap": {}}]),
                vec!["spec.volumes[0].configMap.name: Required value"],
            ),
            (
                json!([{"name": "a", "secret": {}}]),
                vec!["spec.volumes[0].secret.secretName: Required value"],
            ),
            (
                json!([{"name": "a", "secret": {"secretName": "s", "defaultMode": 512}}]),
                vec![
                    "spec.volumes[0].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
                ],
            ),
            (
                json!([{"name": "a", "configMap": {"name": "c", "items": [{"key": "k", "path": "../p"}]}}]),
                vec![
                    "spec.volumes[0].configMap.items[0].path: Invalid value: \"../p\": must not contain '..'",
                ],
            ),
            (
                json!([{"name": "a", "hostPath": {"path": "/a/../b"}}]),
                vec![
                    "spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
                ],
            ),
            (
                json!([{"name": "a", "hostPath": {"path": "/a", "type": "Dir"}}]),
                vec![
                    "spec.volumes[0].hostPath.type: Unsupported value: \"Dir\": supported values: \"\", \"BlockDevice\", \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
                ],
            ),
            (
                json!([{"name": "a", "persistentVolumeClaim": {}}]),
                vec!["spec.volumes[0].persistentVolumeClaim.claimName: Required value"],
            ),
            (
                json!([{"name": "a", "downwardAPI": {"items": [{"path": "p"}]}}]),
                vec![
                    "spec.volumes[0].downwardAPI: Required value: one of fieldRef and resourceFieldRef is required",
                ],
            ),
            (
                json!([{"name": "a", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 60}}]}}]),
                vec![
                    "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes",
                    "spec.volumes[0].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set",
                ],
            ),
        ],
        |volumes| with(pod(), &json!({"spec": {"volumes": volumes}})),
    );
}

#[test]
fn pod_specs() {
    let label = format!("spec.hostname: Invalid value: \"a_b\": {LABEL}");
    let account = format!("spec.serviceAccountName: Invalid value: \"A\": {SUBDOMAIN}");
    let selector = format!("spec.nodeSelector: Invalid value: \"a b\": {LABEL_VALUE}");
    let override_name = format!("spec.hostnameOverride: Invalid value: \"a_b\": {SUBDOMAIN}");
    let gate = format!("spec.readinessGates[0].conditionType: Invalid value: \"a b\": {NAME_PART}");
    check(
        vec![
            (
                json!({"containers": []}),
                vec!["spec.containers: Required value"],
            ),
            (
                json!({"containers": [{"name": "a", "image": "b"}, {"name": "a", "image": "c"}]}),
                vec!["spec.containers[1].name: Duplicate value: \"a\""],
            ),
            (
                json!({"initContainers": [{"name": "web", "image": "b"}]}),
                vec!["spec.initContainers[0].name: Duplicate value: \"web\""],
            ),
            (
                json!({"initContainers": [{"name": "i", "image": "b", "restartPolicy": "Never"}]}),
                vec![],
            ),
            (
                json!({"initContainers": [{"name": "i", "image": "b", "restartPolicy": "Once"}]}),
                vec![
                    "spec.initContainers[0].restartPolicy: Unsupported value: \"Once\": supported values: \"Always\", \"Never\", \"OnFailure\"",
                ],
            ),
            (
                json!({"initContainers": [{"name": "i", "image": "b", "livenessProbe": {"exec": {"command": ["a"]}}}]}),
                vec![
                    "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
                ],
            ),
            (
                json!({"initContainers": [{"name": "i", "image": "b", "restartPolicy": "Always", "livenessProbe": {"exec": {"command": ["a"]}}}]}),
                vec![],
            ),
            (
                json!({"ephemeralContainers": [{"name": "e", "image": "b"}]}),
                vec!["spec.ephemeralContainers: Forbidden: cannot be set on create"],
            ),
            (
                json!({"restartPolicy": "Sometimes"}),
                vec![
                    "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
                ],
            ),
            (
                json!({"dnsPolicy": "x"}),
                vec![
                    "spec.dnsPolicy: Unsupported value: \"x\": supported values: \"ClusterFirstWithHostNet\", \"ClusterFirst\", \"Default\", \"None\"",
                ],
            ),
            (
                json!({"dnsPolicy": "None"}),
                vec![
                    "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
                ],
            ),
            (
                json!({"dnsConfig": {"nameservers": ["1.2.3"]}}),
                vec![
                    "spec.dnsConfig.nameservers[0]: Invalid value: \"1.2.3\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                ],
            ),
            (json!({"hostname": "a_b"}), vec![label.as_str()]),
            (json!({"serviceAccountName": "A"}), vec![account.as_str()]),
            (
                json!({"nodeSelector": {"a": "a b"}}),
                vec![selector.as_str()],
            ),
            (
                json!({"readinessGates": [{"conditionType": "a b"}]}),
                vec![gate.as_str()],
            ),
            (
                json!({"activeDeadlineSeconds": 0}),
                vec![
                    "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
                ],
            ),
            (
                json!({"hostAliases": [{"ip": "x"}]}),
                vec![
                    "spec.hostAliases[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                ],
            ),
            (
                json!({"hostNetwork": true, "containers": [{"name": "a", "image": "b", "ports": [{"containerPort": 80, "hostPort": 81}]}]}),
                vec![
                    "spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` is true",
                ],
            ),
            (
                json!({"nodeName": "n", "schedulingGates": [{"name": "a"}]}),
                vec![
                    "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared",
                ],
            ),
            (
                json!({"schedulingGates": [{"name": "a"}, {"name": "a"}]}),
                vec!["spec.schedulingGates[1]: Duplicate value: \"a\""],
            ),
            (
                json!({"hostUsers": false, "hostNetwork": true}),
                vec!["spec.hostNetwork: Forbidden: when `hostUsers` is false"],
            ),
            (
                json!({"hostUsers": false, "containers": [{"name": "a", "image": "b", "volumeDevices": [{"name": "v", "devicePath": "/v"}]}],
                    "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}),
                vec!["spec.containers[0].volumeDevices: Forbidden: when `hostUsers` is false"],
            ),
            (
                json!({"hostnameOverride": "a_b", "hostNetwork": true}),
                vec![
                    "spec.hostnameOverride: Forbidden: may not be specified when hostNetwork is true",
                    override_name.as_str(),
                ],
            ),
            (
                json!({"securityContext": {"windowsOptions": {"hostProcess": true}}}),
                vec![
                    "spec.hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers",
                ],
            ),
            (
                json!({"os": {"name": "plan9"}}),
                vec![
                    "spec.os: Unsupported value: \"plan9\": supported values: \"linux\", \"windows\"",
                ],
            ),
            (
                json!({"resources": {}, "containers": [{"name": "a", "image": "b", "resources": {"requests": {"cpu": "1"}}}]}),
                vec![],
            ),
            (
                json!({"resources": {"requests": {"cpu": "100m"}}, "containers": [{"name": "a", "image": "b", "resources": {"requests": {"cpu": "1"}}}]}),
                vec![
                    "spec.resources.requests[cpu]: Invalid value: \"100m\": must be greater than or equal to aggregate container requests of 1",
                ],
            ),
        ],
        |patch| with(pod(), &json!({"spec": patch})),
    );
}

#[test]
fn security_contexts() {
    check(
        vec![
            (
                json!({"securityContext": {"runAsUser": -1}}),
                vec![
                    "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                ],
            ),
            (
                json!({"securityContext": {"seccompProfile": {"type": "Localhost"}}}),
                vec![
                    "spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
                ],
            ),
            (
                json!({"securityContext": {"seccompProfile": {"type": "Off"}}}),
                vec![
                    "spec.securityContext.seccompProfile.type: Unsupported value: \"Off\": supported values: \"Localhost\", \"RuntimeDefault\", \"Unconfined\"",
                ],
            ),
            (
                json!({"securityContext": {"sysctls": [{"name": "net.ipv4.ip_forward", "value": "1"}]}, "hostNetwork": true}),
                vec![
                    "spec.securityContext.sysctls[0].name: Invalid value: \"net.ipv4.ip_forward\": may not be specified when 'hostNetwork' is true",
                ],
            ),
            (
                json!({"securityContext": {"fsGroupChangePolicy": "Never"}}),
                vec![
                    "spec.securityContext.fsGroupChangePolicy: Unsupported value: \"Never\": supported values: \"Always\", \"OnRootMismatch\"",
                ],
            ),
            (
                json!({"securityContext": {"appArmorProfile": {"type": "Localhost"}}}),
                vec![
                    "spec.securityContext.appArmorProfile.localhostProfile: Required value: must be set when AppArmor type is Localhost",
                ],
            ),
            (
                json!({"shareProcessNamespace": true, "hostPID": true}),
                vec![
                    "spec.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled",
                ],
            ),
            (
                json!({"os": {"name": "linux"}, "containers": [{"name": "a", "image": "b",
                    "securityContext": {"windowsOptions": {}}}]}),
                vec![
                    "spec.containers[0].securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod",
                ],
            ),
            (
                json!({"os": {"name": "windows"}, "hostUsers": true, "hostPID": false, "hostIPC": true,
                    "shareProcessNamespace": false,
                    "securityContext": {"seLinuxOptions": {}, "fsGroup": 1, "runAsNonRoot": true},
                    "initContainers": [{"name": "i", "image": "b", "securityContext": {"privileged": false}}],
                    "containers": [{"name": "a", "image": "b",
                        "securityContext": {"capabilities": {}, "runAsUser": 1}}]}),
                vec![
                    "spec.securityContext.seLinuxOptions: Forbidden: cannot be set for a windows pod",
                    "spec.hostUsers: Forbidden: cannot be set for a windows pod",
                    "spec.hostIPC: Forbidden: cannot be set for a windows pod",
                    "spec.shareProcessNamespace: Forbidden: cannot be set for a windows pod",
                    "spec.securityContext.fsGroup: Forbidden: cannot be set for a windows pod",
                    "spec.initContainers[0].securityContext.privileged: Forbidden: cannot be set for a windows pod",
                    "spec.containers[0].securityContext.capabilities: Forbidden: cannot be set for a windows pod",
                    "spec.containers[0].securityContext.runAsUser: Forbidden: cannot be set for a windows pod",
                ],
            ),
            (
                json!({"tolerations": [{"key": "a", "operator": "Gt", "value": "5"}]}),
                vec![
                    "spec.tolerations[0].operator: Unsupported value: \"Gt\": supported values: \"Equal\", \"Exists\", \"Lt\", \"Gt\"",
                ],
            ),
            (
                json!({"restartPolicy": "Never", "initContainers": [{"name": "i", "image": "b",
                    "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]}]}),
                vec![
                    "spec.initContainers[0].resizePolicy: Invalid value: \"RestartContainer\": must be 'NotRequired' when pod `restartPolicy` is 'Never'",
                    "spec.initContainers[0].resizePolicy[0].restartPolicy: Invalid value: \"RestartContainer\": must not be set to 'RestartContainer' for non-sidecar initContainers",
                ],
            ),
            (
                // A part of an image is as good as all of it.
                json!({"volumes": [{"name": "v", "image": {"reference": "a:1"}}],
                    "containers": [{"name": "a", "image": "b",
                        "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "x"}]}]}),
                vec![],
            ),
            (
                json!({"containers": [{"name": "a", "image": "b", "securityContext": {"procMount": "Unmasked"}}]}),
                vec![
                    "spec.containers[0].securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`",
                ],
            ),
        ],
        |patch| with(pod(), &json!({"spec": patch})),
    );
}

#[test]
fn placement() {
    let key = format!(
        "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Invalid value: \"\": {NAME_PART}"
    );
    check(
        vec![
            (json!({"tolerations": [{"operator": "Exists"}]}), vec![]),
            (
                json!({"tolerations": [{"operator": "Equal", "value": "a"}]}),
                vec![
                    "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
                ],
            ),
            (
                json!({"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}),
                vec![
                    "spec.tolerations[0].operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists'",
                ],
            ),
            (
                json!({"tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 1}]}),
                vec![
                    "spec.tolerations[0].effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute' when `tolerationSeconds` is set",
                ],
            ),
            (
                json!({"tolerations": [{"key": "a", "operator": "Exists", "effect": "No"}]}),
                vec![
                    "spec.tolerations[0].effect: Unsupported value: \"No\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
                ],
            ),
            (
                json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}}),
                vec![
                    "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
                ],
            ),
            (
                json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "In"}]}]}}}}),
                vec![
                    "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
                ],
            ),
            (
                json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 101, "preference": {}}]}}}),
                vec![
                    "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: must be in the range 1-100",
                ],
            ),
            (
                json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": {}}]}}}),
                vec![
                    "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: can not be empty",
                    "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Invalid value: \"\": name part must be non-empty",
                    key.as_str(),
                ],
            ),
            (
                json!({"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "Never"}]}),
                vec![
                    "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
                    "spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"Never\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\"",
                ],
            ),
        ],
        |patch| with(pod(), &json!({"spec": patch})),
    );
}
