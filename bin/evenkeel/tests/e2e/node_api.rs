//! The node's own HTTPS port, as a monitoring system in the cluster uses it.

use std::process::Command;

use crate::common::{self, Cluster};

const SCRAPER: &str = "apiVersion: v1
kind: ServiceAccount
metadata: {name: scraper, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: scraper}
rules:
- {apiGroups: [''], resources: [nodes/metrics], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: scraper}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: scraper}
subjects:
- {kind: ServiceAccount, name: scraper, namespace: default}
";

#[test]
fn figures_are_for_who_has_a_token_and_the_right() {
    if !common::can_run_containers() {
        return;
    }
    let cluster = Cluster::with_node(20);
    cluster.apply(SCRAPER);
    let node = format!("node/{}", cluster.node_name());
    let address = cluster.value(
        &node,
        "{.status.addresses[?(@.type==\"InternalIP\")].address}",
    );
    let port = cluster.value(&node, "{.status.daemonEndpoints.kubeletEndpoint.Port}");
    let authority = cluster.home().join("data/pki/ca.crt");
    let token = cluster.ok(&["create", "token", "scraper"]);
    let ask = |token: &str, path: &str| {
        let output = Command::new("curl")
            .args(["-sS", "-w", " %{http_code}", "--cacert"])
            .arg(&authority)
            .args(["-H", &format!("Authorization: Bearer {token}")])
            .arg(format!("https://{address}:{port}{path}"))
            .output()
            .expect("curl");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let figures = ask(token.trim(), "/metrics/resource");
    assert!(
        figures.contains("node_cpu_usage_seconds_total"),
        "{figures}"
    );
    assert!(figures.ends_with(" 200"), "{figures}");
    let refused = ask(token.trim(), "/pods");
    let named = "user=system:serviceaccount:default:scraper, verb=get, resource=nodes, \
                 subresource(s)=[pods proxy]";
    assert!(
        refused.contains(named) && refused.ends_with(" 403"),
        "{refused}"
    );
    assert_eq!(ask("forged", "/metrics/resource"), "Unauthorized 401");
}
