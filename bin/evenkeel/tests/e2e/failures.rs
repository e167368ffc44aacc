//! What goes wrong in containers, and what a user sees of it; and that a restart of Evenkeel is
//! none of these things.

use crate::common::{self, Cluster, http, image};

/// One pod of the shop's image with fast probes.
fn shop(name: &str, more: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: {name}
  labels: {{app: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: shop
      image: shop:latest
      imagePullPolicy: IfNotPresent
      ports: [{{containerPort: 8080}}]
      startupProbe: {{httpGet: {{path: /health/live, port: 8080}}, periodSeconds: 1, failureThreshold: 60}}
      readinessProbe: {{httpGet: {{path: /health/ready, port: 8080}}, periodSeconds: 1, failureThreshold: 1}}
      livenessProbe: {{httpGet: {{path: /health/live, port: 8080}}, periodSeconds: 1, timeoutSeconds: 1, failureThreshold: 2}}
      {more}
---
apiVersion: v1
kind: Service
metadata:
  name: {name}
spec:
  selector: {{app: {name}}}
  ports: [{{port: 80, targetPort: 8080}}]
"
    )
}

const READY: &str = "{.status.conditions[?(@.type==\"Ready\")].status}";
const RESTARTS: &str = "{.status.containerStatuses[0].restartCount}";
const LAST: &str = "{.status.containerStatuses[0].lastState.terminated.reason} \
                    {.status.containerStatuses[0].lastState.terminated.exitCode}";

fn address(cluster: &Cluster, pod: &str) -> String {
    cluster.value(&format!("pod {pod}"), "{.status.podIP}:8080")
}

/// Tells the shop in a pod what to do. It may die of it before it answers.
fn fault(cluster: &Cluster, pod: &str, what: &str) {
    let address = address(cluster, pod);
    if http(&address, "POST", &format!("/fault/{what}")).is_none() {
        eprintln!("{pod} did not answer to {what}");
    }
}

fn ready_endpoints(cluster: &Cluster, service: &str) -> String {
    cluster.value(
        &format!("endpointslices -l kubernetes.io/service-name={service}"),
        "{.items[*].endpoints[*].conditions.ready}",
    )
}

#[test]
fn failures_are_seen_and_explained() {
    if !common::can_run_containers() {
        return;
    }
    let mut cluster = Cluster::with_node(6);
    cluster.import(&image("shop.tar"), "shop:latest");
    for (name, more) in [
        ("killed", ""),
        ("hung", ""),
        ("unready", ""),
        ("eater", "resources: {limits: {memory: 48Mi}}"),
    ] {
        cluster.apply(&shop(name, more));
    }
    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: noimage}\nspec: {containers: [{name: a, image: 'nothing.invalid/there:1'}]}\n",
    );
    for pod in ["killed", "hung", "unready", "eater"] {
        cluster.value_becomes(&format!("pod {pod}"), READY, "True");
    }

    // Killed: it comes back, and is counted.
    let pid = pids("killed").concat();
    let killed = common::kill("-KILL", &pid);
    assert!(killed.is_ok_and(|status| status.success()), "kill {pid}");
    cluster.value_becomes("pod killed", RESTARTS, "1");
    cluster.value_becomes("pod killed", READY, "True");
    assert_eq!(cluster.value("pod killed", LAST), "Error 137");

    // Not ready: out of the service at once, running on.
    cluster.value_becomes("svc unready", "{.spec.type}", "ClusterIP");
    assert_eq!(ready_endpoints(&cluster, "unready"), "true");
    let service = cluster.value("svc unready", "{.spec.clusterIP}:80");
    cluster.until("the service answers", |_| {
        http(&service, "GET", "/health/ready")
    });
    fault(&cluster, "unready", "unready");
    cluster.until("the endpoint is not ready", |cluster| {
        (ready_endpoints(cluster, "unready") == "false").then_some(())
    });
    cluster.until("the service refuses", |_| {
        http(&service, "GET", "/health/live")
            .is_none()
            .then_some(())
    });
    assert_eq!(cluster.value("pod unready", RESTARTS), "0");
    let why = cluster.why("pod/unready");
    assert!(why.to_lowercase().contains("readiness"), "{why}");
    let said = cluster.ok(&["describe", "pod", "unready"]);
    assert!(
        said.contains("Readiness probe failed: HTTP probe failed with statuscode: 503"),
        "{said}"
    );
    fault(&cluster, "unready", "heal");
    cluster.value_becomes("pod unready", READY, "True");

    // Hung: liveness ends it.
    fault(&cluster, "hung", "hang");
    cluster.value_becomes("pod hung", RESTARTS, "1");
    let said = cluster.ok(&["describe", "pod", "hung"]);
    assert!(said.contains("Liveness probe failed"), "{said}");
    assert!(
        said.contains("Container shop failed liveness probe, will be restarted"),
        "{said}"
    );
    cluster.value_becomes("pod hung", READY, "True");

    // Memory.
    fault(&cluster, "eater", "eat?mb=200");
    cluster.value_becomes("pod eater", RESTARTS, "1");
    assert_eq!(cluster.value("pod eater", LAST), "OOMKilled 137");
    let why = cluster.why("pod/eater");
    assert!(why.contains("OOMKilled"), "{why}");
    let why = cluster.why("pod/killed");
    assert!(why.contains("exit code 137"), "{why}");

    // A missing image.
    let waiting = "{.status.containerStatuses[0].state.waiting.reason}";
    cluster.until("the image is missed", |cluster| {
        matches!(
            cluster.value("pod noimage", waiting).as_str(),
            "ErrImagePull" | "ImagePullBackOff"
        )
        .then_some(())
    });
    let why = cluster.why("pod/noimage");
    assert!(why.contains("nothing.invalid/there:1"), "{why}");
    cluster.value_becomes("pod noimage", waiting, "ImagePullBackOff");
}

/// The processes of a pod's containers, as the host sees them, by the environment of the pod.
fn pids(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let wanted = format!("HOSTNAME={name}");
        if environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == wanted.as_bytes())
        {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found.sort();
    found
}

#[test]
fn a_restart_touches_no_container() {
    if !common::can_run_containers() {
        return;
    }
    let mut cluster = Cluster::with_node(7);
    cluster.import(&image("shop.tar"), "shop:latest");
    cluster.apply(&shop("steady", ""));
    cluster.value_becomes("pod steady", READY, "True");
    let before = pids("steady");
    assert_eq!(before.len(), 1, "the shop is one process");
    let id = cluster.value("pod steady", "{.status.containerStatuses[0].containerID}");
    for signal in ["-TERM", "-KILL"] {
        cluster.down(signal);
        assert_eq!(pids("steady"), before, "{signal}");
        cluster.up();
        cluster.value_becomes("pod steady", READY, "True");
        assert_eq!(pids("steady"), before, "{signal}");
        assert_eq!(cluster.value("pod steady", RESTARTS), "0");
        assert_eq!(
            cluster.value("pod steady", "{.status.containerStatuses[0].containerID}"),
            id
        );
        // It is in the agent's hands again: a fault is noticed.
    }
    fault(&cluster, "steady", "exit?code=0");
    cluster.value_becomes("pod steady", RESTARTS, "1");
    cluster.value_becomes("pod steady", READY, "True");
}
