//! The audit log as an administrator sets it up: by flags and the config file, over real
//! connections; and that no secret is in any log.

use std::process::Command;

use crate::common::{Cluster, EVENKEEL};
use serde_json::Value;

const SLOT: u8 = 23;

/// What is recommended: secrets as metadata, everything else with its objects.
const POLICY: &str = r#"apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: Metadata
  resources:
  - {group: "", resources: [secrets, configmaps, serviceaccounts/token]}
  - {group: authentication.k8s.io, resources: [tokenreviews]}
- level: RequestResponse
  users: [admin, kubernetes-admin, system:admin]
- level: Metadata
  userGroups: ["system:masters"]
"#;

#[test]
fn requests_are_recorded_and_no_secret_is_in_any_log() {
    // Everything that our own parts may ever say.
    let parts = [
        "",
        "_server",
        "_store",
        "_client",
        "_controllers",
        "_scheduler",
    ];
    let filter: Vec<String> = parts.map(|part| format!("evenkeel{part}=trace")).into();
    let mut cluster = Cluster::prepared(SLOT, false, &[format!("--log=info,{}", filter.join(","))]);
    let home = cluster.home().to_owned();
    let (policy, config) = (home.join("policy.yaml"), home.join("config.yaml"));
    let log = home.join("audit/audit.log");
    std::fs::write(&policy, POLICY).unwrap();
    let text = format!(
        "audit-policy-file: {}\naudit-log-path: /nowhere/at/all\naudit-log-maxsize: 10\n",
        policy.display()
    );
    std::fs::write(&config, text).unwrap();
    cluster.flag(format!("--config={}", config.display()));
    // The flag wins over the file.
    cluster.flag(format!("--audit-log-path={}", log.display()));
    cluster.up();
    cluster.ok(&[
        "create",
        "secret",
        "generic",
        "s",
        "--from-literal=password=hunter2hunter2",
    ]);
    cluster.ok(&["get", "secret", "s", "-o", "yaml"]);
    cluster.value_becomes("sa default", "{.metadata.name}", "default");
    // `kubectl create token` came with 1.24.
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let request = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{}}"#;
    let made = cluster.kubectl_with(&["create", "--raw", path, "-f", "-"], request);
    let made: Value = serde_json::from_str(&made.out).expect("a token request");
    let token = made["status"]["token"].as_str().expect("a token");
    assert!(token.len() > 100, "{made}");
    cluster.ok(&["create", "namespace", "shop"]);
    cluster.fails(&["--as=ann", "get", "nodes"]);
    cluster.down("-TERM");
    let audited = std::fs::read_to_string(&log).unwrap();
    let logged = cluster.log();
    for secret in ["hunter2", "aHVudGVy", token] {
        assert!(!audited.contains(secret), "{secret} is in the audit log");
        assert!(!logged.contains(secret), "{secret} is in the log");
    }
    let events: Vec<Value> = audited
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |verb: &str, resource: &str| -> &Value {
        let found = events.iter().find(|event| {
            let by_kubectl = event["userAgent"]
                .as_str()
                .is_some_and(|agent| agent.starts_with("kubectl"));
            by_kubectl && event["verb"] == verb && event["objectRef"]["resource"] == resource
        });
        found.unwrap_or_else(|| panic!("nobody did {verb} {resource}:\n{audited}"))
    };
    let secret = of("create", "secrets");
    assert_eq!(secret["level"], "Metadata");
    assert_eq!(secret["objectRef"]["name"], "s");
    assert_eq!(secret["responseStatus"]["code"], 201);
    assert_eq!(secret["sourceIPs"], serde_json::json!(["127.0.0.1"]));
    assert_eq!(of("get", "secrets")["level"], "Metadata");
    assert_eq!(
        of("create", "serviceaccounts")["objectRef"]["subresource"],
        "token"
    );
    let namespace = of("create", "namespaces");
    assert_eq!(namespace["objectRef"]["name"], "shop");
    let refused = of("list", "nodes");
    assert_eq!(refused["impersonatedUser"]["username"], "ann");
    assert_eq!(
        refused["annotations"]["authorization.k8s.io/decision"],
        "forbid"
    );
}

/// What `evenkeel up` says when it can't start.
fn refused(flags: &[&str]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let data = format!("--data-dir={}", directory.path().join("data").display());
    let output = Command::new(EVENKEEL)
        .args(["up", "--no-node", "--listen=127.0.0.1:0", &data])
        .args(flags)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    let last = text.lines().last().unwrap_or_default();
    last.to_owned()
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let policy = directory.path().join("policy.yaml");
    let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
    std::fs::write(&policy, format!("{head}rules: [{{level: All}}]")).unwrap();
    let by_policy = format!("--audit-policy-file={}", policy.display());
    let line = refused(&[&by_policy, "--audit-log-path=-"]);
    assert!(
        line.contains("policy.yaml: rules[0].level: Unsupported value: \"All\""),
        "{line}"
    );
    let line = refused(&["--audit-log-path=-"]);
    assert!(line.contains("--audit-policy-file"), "{line}");
    let line = refused(&[&by_policy]);
    assert!(line.contains("--audit-log-path"), "{line}");
    let line = refused(&[
        "--max-requests-inflight=0",
        "--max-mutating-requests-inflight=0",
    ]);
    assert!(line.contains("at least one must be positive"), "{line}");
}
