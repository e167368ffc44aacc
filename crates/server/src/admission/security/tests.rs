//! Each check, in the reference's words, and when it holds.

use evenkeel_api::object;
use serde_json::{Value, json};

use super::checks::{PodLike, violations};
use super::policy::{self, Level, LevelVersion, Version};

fn found(level: Level, version: Version, pod: &Value) -> Vec<String> {
    let pod = PodLike {
        metadata: object::at(pod, &["metadata"]).unwrap_or(&Value::Null),
        spec: object::at(pod, &["spec"]).unwrap_or(&Value::Null),
    };
    violations(LevelVersion { level, version }, pod)
        .into_iter()
        .map(|one| format!("{} ({})", one.reason, one.detail))
        .collect()
}

fn baseline(spec: Value) -> Vec<String> {
    found(Level::Baseline, Version::Latest, &json!({ "spec": spec }))
}

/// A pod that passes restricted, with more security context for its container.
fn hardened(more: &Value) -> Value {
    let mut context = json!({
        "allowPrivilegeEscalation": false, "runAsNonRoot": true,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        context[name] = value.clone();
    }
    json!({"spec": {"containers": [{"name": "c", "securityContext": context}]}})
}

#[test]
fn a_plain_pod_passes_baseline_and_fails_restricted_on_four_counts() {
    let pod = json!({"spec": {"containers": [{"name": "c"}]}});
    assert_eq!(
        found(Level::Baseline, Version::Latest, &pod),
        [] as [&str; 0]
    );
    assert_eq!(
        found(Level::Restricted, Version::Latest, &pod),
        [
            "allowPrivilegeEscalation != false (container \"c\" must set \
             securityContext.allowPrivilegeEscalation=false)",
            "unrestricted capabilities (container \"c\" must set \
             securityContext.capabilities.drop=[\"ALL\"])",
            "runAsNonRoot != true (pod or container \"c\" must set \
             securityContext.runAsNonRoot=true)",
            "seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type \
             to \"RuntimeDefault\" or \"Localhost\")",
        ]
    );
    assert_eq!(
        found(Level::Privileged, Version::Latest, &pod),
        [] as [&str; 0]
    );
    let good = hardened(&json!({}));
    assert_eq!(
        found(Level::Restricted, Version::Latest, &good),
        [] as [&str; 0]
    );
}

#[test]
fn baseline_in_the_words_of_the_reference() {
    let one = |context: Value| {
        baseline(json!({"containers": [{"name": "a", "securityContext": context}]}))
    };
    let cases: Vec<(Vec<String>, &str)> = vec![
        (
            baseline(json!({"hostNetwork": true, "hostPID": true, "hostIPC": true})),
            "host namespaces (hostNetwork=true, hostPID=true, hostIPC=true)",
        ),
        (
            baseline(json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}},
                {"name": "w", "hostPath": {"path": "/"}}, {"name": "x", "emptyDir": {}}]})),
            "hostPath volumes (volumes \"v\", \"w\")",
        ),
        (
            baseline(
                json!({"initContainers": [{"name": "i", "ports": [{"hostPort": 81}]}],
                "containers": [{"name": "c", "ports": [{"hostPort": 80}, {"hostPort": 0}]}]}),
            ),
            "hostPort (containers \"i\", \"c\" use hostPorts 80, 81)",
        ),
        (
            baseline(json!({"containers": [
                {"name": "c", "livenessProbe": {"httpGet": {"host": "b"}}},
                {"name": "d", "lifecycle": {"preStop": {"tcpSocket": {"host": "a"}}}}]})),
            "probe or lifecycle host (containers \"c\", \"d\" use probe or lifecycle hosts \"a\", \
             \"b\")",
        ),
        (
            one(json!({"privileged": true})),
            "privileged (container \"a\" must not set securityContext.privileged=true)",
        ),
        (
            one(json!({"procMount": "Unmasked"})),
            "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            one(json!({"capabilities": {"add": ["NET_RAW", "CHOWN", "BPF"]}})),
            "non-default capabilities (container \"a\" must not include \"BPF\", \"NET_RAW\" in \
             securityContext.capabilities.add)",
        ),
        (
            one(json!({"seLinuxOptions": {"type": "t", "user": "u", "role": "r"}})),
            "seLinuxOptions (container \"a\" set forbidden securityContext.seLinuxOptions: type \
             \"t\"; user may not be set; role may not be set)",
        ),
        (
            baseline(
                json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}},
                "containers": [{"name": "c", "securityContext":
                    {"seccompProfile": {"type": "Unconfined"}}}]}),
            ),
            "seccompProfile (pod and container \"c\" must not set \
             securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            baseline(json!({"securityContext": {"sysctls":
                [{"name": "kernel.shm_rmid_forced"}, {"name": "kernel.msgmax"}]}})),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            one(json!({"windowsOptions": {"hostProcess": true}})),
            "hostProcess (container \"a\" must not set \
             securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            one(json!({"appArmorProfile": {"type": "Unconfined"}})),
            "forbidden AppArmor profile (container \"a\" must not set AppArmor profile type to \
             \"Unconfined\")",
        ),
    ];
    for (found, wanted) in cases {
        assert_eq!(found, [wanted]);
    }
    let annotated = json!({"metadata": {"annotations":
        {"container.apparmor.security.beta.kubernetes.io/c": "unconfined"}}, "spec": {}});
    assert_eq!(
        found(Level::Baseline, Version::Latest, &annotated),
        [
            "forbidden AppArmor profile (annotation must not set AppArmor profile type to \
             \"container.apparmor.security.beta.kubernetes.io/c=\"unconfined\"\")"
        ]
    );
}

#[test]
fn restricted_in_the_words_of_the_reference() {
    let mut volumes = hardened(&json!({}));
    volumes["spec"]["volumes"] = json!([{"name": "h", "hostPath": {"path": "/"}},
        {"name": "n", "nfs": {"server": "s", "path": "/"}}, {"name": "i", "image": {}}]);
    let mut root = hardened(&json!({"runAsUser": 0}));
    root["spec"]["securityContext"] = json!({"runAsUser": 0, "runAsNonRoot": false});
    let cases = [
        (
            volumes,
            vec![
                "restricted volume types (volumes \"h\", \"n\" use restricted volume types \
                 \"hostPath\", \"nfs\")",
            ],
        ),
        (
            root,
            vec![
                "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)",
                "runAsUser=0 (pod and container \"c\" must not set runAsUser=0)",
            ],
        ),
        (
            hardened(&json!({"capabilities": {"add": ["NET_BIND_SERVICE", "CHOWN"]}})),
            vec![
                "unrestricted capabilities (container \"c\" must set \
                 securityContext.capabilities.drop=[\"ALL\"]; container \"c\" must not include \
                 \"CHOWN\" in securityContext.capabilities.add)",
            ],
        ),
        (
            hardened(&json!({"procMount": "Unmasked"})),
            vec![
                "procMount (container \"c\" must not set securityContext.procMount to \
                 \"Unmasked\")",
            ],
        ),
    ];
    for (pod, wanted) in cases {
        assert_eq!(found(Level::Restricted, Version::Latest, &pod), wanted);
    }
}

#[test]
fn a_pinned_version_judges_as_its_release_did() {
    let at = |level, minor, pod: &Value| found(level, Version::Minor(minor), pod).len();
    let sysctl = json!({"spec": {"securityContext":
        {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}}});
    assert_eq!(at(Level::Baseline, 31, &sysctl), 1);
    assert_eq!(at(Level::Baseline, 32, &sysctl), 0);
    let probe = json!({"spec": {"containers":
        [{"name": "c", "readinessProbe": {"httpGet": {"host": "h"}}}]}});
    assert_eq!(at(Level::Baseline, 33, &probe), 0);
    assert_eq!(at(Level::Baseline, 34, &probe), 1);
    let mut user = hardened(&json!({"runAsUser": 0}));
    user["spec"]["hostUsers"] = json!(false);
    assert_eq!(at(Level::Restricted, 22, &user), 0, "not yet a check");
    assert_eq!(at(Level::Restricted, 23, &user), 1);
    assert_eq!(at(Level::Restricted, 35, &user), 0, "in a user namespace");
    let windows = json!({"spec": {"os": {"name": "windows"},
        "securityContext": {"runAsNonRoot": true}, "containers": [{"name": "c"}]}});
    assert_eq!(at(Level::Restricted, 24, &windows), 3);
    assert_eq!(at(Level::Restricted, 25, &windows), 0);
    // Before the stricter check was there, the one of baseline held for restricted too.
    let added = json!({"spec": {"securityContext": {"runAsNonRoot": true}, "containers":
        [{"name": "c", "securityContext": {"capabilities": {"add": ["BPF"]}}}]}});
    assert_eq!(
        found(Level::Restricted, Version::Minor(7), &added),
        [
            "non-default capabilities (container \"c\" must not include \"BPF\" in \
             securityContext.capabilities.add)"
        ]
    );
    assert_eq!(at(Level::Restricted, 10_000, &hardened(&json!({}))), 0);
}

#[test]
fn labels_say_the_policy() {
    let labelled = |labels: Value| policy::of_namespace(&json!({"metadata": {"labels": labels}}));
    let key = |name: &str| format!("pod-security.kubernetes.io/{name}");
    let (policy, errors) = labelled(json!({key("enforce"): "baseline",
        key("enforce-version"): "v1.30"}));
    assert!(errors.is_empty());
    assert_eq!(policy.enforce.to_string(), "baseline:v1.30");
    assert_eq!(policy.audit.to_string(), "privileged:latest");
    assert_eq!(policy.warn.to_string(), "baseline:v1.30", "as enforced");
    let (policy, _) = labelled(json!({key("enforce"): "baseline", key("warn"): "privileged"}));
    assert_eq!(policy.warn.to_string(), "privileged:latest", "as said");
    let (policy, errors) = labelled(json!({key("enforce"): "strict",
        key("warn"): "strict", key("audit-version"): "1.3"}));
    assert_eq!(policy.enforce.to_string(), "restricted:latest");
    assert_eq!(policy.warn.to_string(), "privileged:latest");
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must \
             be one of privileged, baseline, restricted",
            "metadata.labels[pod-security.kubernetes.io/audit-version]: Invalid value: \"1.3\": \
             must be \"latest\" or \"v1.x\"",
            "metadata.labels[pod-security.kubernetes.io/warn]: Invalid value: \"strict\": must be \
             one of privileged, baseline, restricted",
        ]
    );
    for wrong in ["v1.01", "v2.0", "v1", "v1.", "v1.-1", "latest ", ""] {
        let (_, errors) = labelled(json!({key("enforce-version"): wrong}));
        assert_eq!(errors.len(), 1, "{wrong}");
    }
}
