//! Resizing pods that run, with real containers and the kernel's own limits.

use std::path::{Path, PathBuf};

use crate::common::{self, Cluster};
use serde_json::{Value, json};

const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: sized}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: busybox:test
    imagePullPolicy: IfNotPresent
    command: [sleep, '3600']
    resizePolicy:
    - {resourceName: cpu, restartPolicy: NotRequired}
    - {resourceName: memory, restartPolicy: RestartContainer}
    resources:
      requests: {cpu: 50m, memory: 32Mi}
      limits: {cpu: 200m, memory: 64Mi}
";

const STATUS: &str = "{.status.containerStatuses[0]";
const PENDING: &str = "{.status.conditions[?(@.type==\"PodResizePending\")].reason}";

/// Sends the pod through `pods/resize` with other resources.
fn resize(cluster: &mut Cluster, requests: &Value, limits: &Value) {
    let path = "/api/v1/namespaces/default/pods/sized";
    cluster.until("the resize is taken", |cluster| {
        let mut pod: Value = serde_json::from_str(&cluster.ok(&["get", "--raw", path])).ok()?;
        pod["spec"]["containers"][0]["resources"] = json!({"requests": requests, "limits": limits});
        let to = format!("{path}/resize");
        let sent = cluster.kubectl_with(&["replace", "--raw", &to, "-f", "-"], &pod.to_string());
        let conflict = sent.all().contains("the object has been modified");
        assert!(sent.code == 0 || conflict, "{}", sent.all());
        (sent.code == 0).then_some(())
    });
}

/// The directories of a container's control group.
fn groups(below: &Path, id: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(below).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy() == id {
            found.push(entry.path());
        } else {
            groups(&entry.path(), id, found);
        }
    }
}

/// µs of processor time that the container, and its pod, may use in 100 ms.
fn quotas(cluster: &Cluster) -> (String, String) {
    let id = cluster.value("pod sized", &format!("{STATUS}.containerID}}"));
    quotas_of(id.trim_start_matches("evenkeel://"))
}

fn quotas_of(id: &str) -> (String, String) {
    let mut found = Vec::new();
    groups(Path::new("/sys/fs/cgroup"), id, &mut found);
    let read = |directory: &Path| {
        ["cpu.max", "cpu.cfs_quota_us"]
            .iter()
            .find_map(|file| std::fs::read_to_string(directory.join(file)).ok())
            .map(|text| {
                text.split_whitespace()
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            })
    };
    found
        .iter()
        .find_map(|own| Some((read(own)?, read(own.parent()?)?)))
        .unwrap_or_default()
}

#[test]
fn a_running_pod_gets_other_resources_as_its_policies_and_the_node_allow() {
    if !common::can_run_containers() {
        return;
    }
    let mut cluster = Cluster::with_node(23);
    cluster.import_busybox();
    cluster.apply(POD);
    cluster.value_becomes("pod sized", &format!("{STATUS}.ready}}"), "true");
    let limit = format!("{STATUS}.resources.limits.cpu}}");
    let restarts = format!("{STATUS}.restartCount}}");
    assert_eq!(cluster.value("pod sized", &limit), "200m");
    assert_eq!(quotas(&cluster), ("20000".to_owned(), "20000".to_owned()));

    // Processor time, in place: more, then less.
    for (milli, quota) in [("400m", "40000"), ("300m", "30000")] {
        resize(
            &mut cluster,
            &json!({"cpu": "60m", "memory": "32Mi"}),
            &json!({"cpu": milli, "memory": "64Mi"}),
        );
        cluster.value_becomes("pod sized", &limit, milli);
        cluster.until("the kernel has it", |cluster| {
            (quotas(cluster) == (quota.to_owned(), quota.to_owned())).then_some(())
        });
    }
    let allocated = format!("{STATUS}.allocatedResources.cpu}}");
    cluster.value_becomes("pod sized", &allocated, "60m");
    let progress = "{.status.conditions[?(@.type==\"PodResizeInProgress\")].status}";
    cluster.value_becomes("pod sized", progress, "");
    assert_eq!(cluster.value("pod sized", &restarts), "0");

    // More than the node has: nothing changes but the condition, until the wish is withdrawn.
    resize(
        &mut cluster,
        &json!({"cpu": "900", "memory": "32Mi"}),
        &json!({"cpu": "900", "memory": "64Mi"}),
    );
    cluster.value_becomes("pod sized", PENDING, "Infeasible");
    assert_eq!(cluster.value("pod sized", &limit), "300m");
    assert_eq!(cluster.value("pod sized", &allocated), "60m");
    resize(
        &mut cluster,
        &json!({"cpu": "60m", "memory": "32Mi"}),
        &json!({"cpu": "300m", "memory": "64Mi"}),
    );
    cluster.value_becomes("pod sized", PENDING, "");

    // Memory, for which the container asked to be started anew.
    resize(
        &mut cluster,
        &json!({"cpu": "60m", "memory": "48Mi"}),
        &json!({"cpu": "300m", "memory": "96Mi"}),
    );
    cluster.value_becomes("pod sized", &restarts, "1");
    let memory = format!("{STATUS}.resources.limits.memory}}");
    cluster.value_becomes("pod sized", &memory, "96Mi");
    cluster.value_becomes("pod sized", progress, "");
    let said = cluster.ok(&["describe", "pod", "sized"]);
    for reason in ["ResizeStarted", "ResizeCompleted", "ResizeInfeasible"] {
        assert!(said.contains(reason), "{reason}: {said}");
    }
    assert!(said.contains("resize requires restart"), "{said}");

    // A new agent goes on from what is.
    cluster.down("-KILL");
    cluster.up();
    resize(
        &mut cluster,
        &json!({"cpu": "60m", "memory": "48Mi"}),
        &json!({"cpu": "500m", "memory": "96Mi"}),
    );
    cluster.value_becomes("pod sized", &limit, "500m");
    assert_eq!(quotas(&cluster).0, "50000");
    assert_eq!(cluster.value("pod sized", &restarts), "1");
}

const WHOLE: &str = "apiVersion: v1
kind: Pod
metadata: {name: whole}
spec:
  terminationGracePeriodSeconds: 0
  resources:
    requests: {cpu: 50m, memory: 32Mi}
    limits: {cpu: 200m, memory: 64Mi}
  containers:
  - name: main
    image: busybox:test
    imagePullPolicy: IfNotPresent
    command: [sleep, '3600']
";

#[test]
fn the_pod_as_a_whole_gets_other_resources() {
    if !common::can_run_containers() {
        return;
    }
    let mut cluster = Cluster::with_node(27);
    cluster.import_busybox();
    cluster.apply(WHOLE);
    cluster.value_becomes("pod whole", &format!("{STATUS}.ready}}"), "true");
    let limit = "{.status.resources.limits.cpu}";
    cluster.value_becomes("pod whole", limit, "200m");
    let allocated = "{.status.allocatedResources.cpu}";
    assert_eq!(cluster.value("pod whole", allocated), "50m");
    let pods_quota = |cluster: &Cluster| {
        let id = cluster.value("pod whole", &format!("{STATUS}.containerID}}"));
        quotas_of(id.trim_start_matches("evenkeel://")).1
    };
    assert_eq!(pods_quota(&cluster), "20000");
    let resize = |cluster: &mut Cluster, cpu: &str| {
        let path = "/api/v1/namespaces/default/pods/whole";
        cluster.until("the resize is taken", |cluster| {
            let mut pod: Value = serde_json::from_str(&cluster.ok(&["get", "--raw", path])).ok()?;
            pod["spec"]["resources"]["limits"]["cpu"] = json!(cpu);
            pod["spec"]["resources"]["requests"]["cpu"] = json!("60m");
            let to = format!("{path}/resize");
            let send = ["replace", "--raw", to.as_str(), "-f", "-"];
            let sent = cluster.kubectl_with(&send, &pod.to_string());
            let conflict = sent.all().contains("the object has been modified");
            assert!(sent.code == 0 || conflict, "{}", sent.all());
            (sent.code == 0).then_some(())
        });
    };
    for (milli, quota) in [("400m", "40000"), ("300m", "30000")] {
        resize(&mut cluster, milli);
        cluster.value_becomes("pod whole", limit, milli);
        cluster.until("the kernel has it", |cluster| {
            (pods_quota(cluster) == quota).then_some(())
        });
    }
    assert_eq!(cluster.value("pod whole", allocated), "60m");
    assert_eq!(
        cluster.value("pod whole", &format!("{STATUS}.restartCount}}")),
        "0"
    );
    // A new agent goes on from what is.
    cluster.down("-KILL");
    cluster.up();
    resize(&mut cluster, "500m");
    cluster.value_becomes("pod whole", limit, "500m");
    assert_eq!(pods_quota(&cluster), "50000");
}
