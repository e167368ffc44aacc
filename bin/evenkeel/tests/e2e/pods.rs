//! What pods are promised, seen in real containers: hooks, probes over the wire, parts of volumes,
//! owners of files, tokens, and limits on disk.

mod server;

use serde_json::{Value, json};

use crate::common::{self, Cluster};

const READY: &str = "{.status.conditions[?(@.type==\"Ready\")].status}";

/// What a container sees in a file.
fn read(cluster: &Cluster, pod: &str, file: &str) -> String {
    cluster.ok(&["exec", pod, "--", "cat", file])
}

/// Messages of the events of a reason about a pod.
fn events(cluster: &Cluster, pod: &str, reason: &str) -> String {
    let selector = format!("--field-selector=involvedObject.name={pod},reason={reason}");
    cluster.ok(&[
        "get",
        "events",
        &selector,
        "-o=jsonpath={.items[*].message}",
    ])
}

#[test]
#[ignore = "runs in a container of another test here"]
fn the_server_that_probes_ask() {
    if let Ok(which) = std::env::var(server::SERVES) {
        server::serve(&which);
    }
}

fn hooked(name: &str, post_start: &str, pre_stop: &str, script: &str, directory: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 20
  containers:
  - name: main
    image: busybox:test
    command: [sh, -c, '{script}']
    lifecycle:
      postStart: {post_start}
      preStop: {pre_stop}
    volumeMounts: [{{name: notes, mountPath: /notes}}]
  volumes: [{{name: notes, hostPath: {{path: \"{directory}\", type: DirectoryOrCreate}}}}]
"
    )
}

#[test]
fn hooks_run_before_a_container_counts_as_started_and_before_it_is_told_to_stop() {
    if !common::can_run_containers() {
        return;
    }
    let mut cluster = Cluster::with_node(8);
    cluster.import_busybox();
    let directory = cluster.home().join("notes");
    let notes = directory.display().to_string();
    let note = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap_or_default();

    // exec: the hook's note is there before the container runs, and the program is told to stop
    // only after the other hook.
    let told = "trap \"cat /notes/hook >/notes/told; exit 0\" TERM; while true; do sleep 0.1; done";
    cluster.apply(&hooked(
        "exec",
        "{exec: {command: [sh, -c, \"sleep 1; echo started >/notes/hook\"]}}",
        "{exec: {command: [sh, -c, \"sleep 1; echo stopping >/notes/hook\"]}}",
        told,
        &notes,
    ));
    cluster.value_becomes("pod exec", READY, "True");
    assert_eq!(note("hook"), "started\n");
    cluster.ok(&["delete", "pod", "exec"]);
    assert_eq!(note("told"), "stopping\n");

    // httpGet: the program itself is asked, at its own port.
    let serve = "mkdir -p /www/cgi-bin; for name in begin end; do \
                 printf \"#!/bin/sh\\necho \\$0 >>/notes/asked\\nprintf \\\"\\\\r\\\\n\\\"\\n\" \
                 >/www/cgi-bin/$name; chmod +x /www/cgi-bin/$name; done; \
                 exec httpd -f -p 8080 -h /www";
    cluster.apply(&hooked(
        "http",
        "{exec: {command: [sh, -c, \"until wget -qO- 127.0.0.1:8080/cgi-bin/begin; do sleep 0.1; done\"]}}",
        "{httpGet: {port: 8080, path: /cgi-bin/end}}",
        serve,
        &notes,
    ));
    cluster.value_becomes("pod http", READY, "True");
    cluster.ok(&["delete", "pod", "http"]);
    let asked = note("asked");
    let last = asked.lines().last().unwrap_or_default();
    assert!(last.ends_with("end"), "{asked:?}");

    // sleep: the program goes on for that long.
    let alive = "trap \"touch /notes/slept; exit 0\" TERM; while true; do sleep 0.1; done";
    cluster.apply(&hooked(
        "sleep",
        "{sleep: {seconds: 1}}",
        "{sleep: {seconds: 2}}",
        alive,
        &notes,
    ));
    cluster.value_becomes("pod sleep", READY, "True");
    let begin = std::time::Instant::now();
    cluster.ok(&["delete", "pod", "sleep"]);
    assert!(begin.elapsed() >= std::time::Duration::from_secs(2));
    assert!(directory.join("slept").exists());

    // A hook that fails ends the container; the pod says why, and tries again.
    cluster.apply(&hooked(
        "wrong",
        "{exec: {command: [sh, -c, \"echo no >&2; exit 3\"]}}",
        "{sleep: {seconds: 0}}",
        alive,
        &notes,
    ));
    cluster.until("the hook's failure is told", |cluster| {
        let text = events(cluster, "wrong", "FailedPostStartHook");
        text.contains("PostStartHook failed").then_some(())
    });
    // In an event nobody is told what the hook said, which may be a secret.
    assert!(!events(&cluster, "wrong", "FailedPostStartHook").contains("exited with"));
    cluster.until("the container is started again", |cluster| {
        let count = cluster.value("pod wrong", "{.status.containerStatuses[0].restartCount}");
        (count.parse::<u32>().unwrap_or(0) >= 1).then_some(())
    });
}

#[test]
fn probes_ask_over_grpc_and_tls() {
    if !common::can_run_containers() {
        return;
    }
    let mut cluster = Cluster::with_node(9);
    cluster.import_busybox();
    cluster.apply(&server::served_pod());
    cluster.until("both probes have been answered and say no", |cluster| {
        let text = events(cluster, "served", "Unhealthy");
        let grpc = text.contains("service unhealthy (responded with \"NOT_SERVING\")");
        let tls = text.contains("HTTP probe failed with statuscode: 503");
        (grpc && tls).then_some(())
    });
    let each = "{.status.containerStatuses[*].ready}";
    assert_eq!(cluster.value("pod served", each), "false false");
    cluster.ok(&[
        "exec",
        "served",
        "-c",
        "grpc",
        "--",
        "touch",
        "/state/serving",
    ]);
    cluster.value_becomes("pod served", each, "true true");
    cluster.value_becomes("pod served", READY, "True");
    cluster.ok(&["exec", "served", "-c", "tls", "--", "rm", "/state/serving"]);
    cluster.value_becomes("pod served", each, "false false");
}

const VOLUMES: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {a: one, b: two}
---
apiVersion: v1
kind: Pod
metadata: {name: parts, labels: {stage: first}}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {fsGroup: 4321, runAsUser: 1000, supplementalGroups: [77], supplementalGroupsPolicy: Strict}
  initContainers:
  - name: fill
    image: busybox:test
    securityContext: {runAsUser: 0}
    command: [sh, -c, 'mkdir -p /all/deep/er; echo within >/all/deep/er/file; echo single >/all/one']
    volumeMounts: [{name: scratch, mountPath: /all}]
  containers:
  - name: main
    image: busybox:test
    command: [sleep, \"600\"]
    env:
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    volumeMounts:
    - {name: scratch, mountPath: /whole}
    - {name: scratch, mountPath: /dir, subPath: deep/er}
    - {name: scratch, mountPath: /file, subPath: one}
    - {name: scratch, mountPath: /own, subPathExpr: logs/$(POD)}
    - {name: settings, mountPath: /etc/app/b, subPath: b}
    - {name: about, mountPath: /about}
    - {name: files, mountPath: /files}
    - {name: files, mountPath: /programs, subPath: bin}
  volumes:
  - {name: files, image: {reference: busybox:test}}
  - {name: scratch, emptyDir: {}}
  - {name: settings, configMap: {name: settings}}
  - name: about
    projected:
      sources:
      - serviceAccountToken: {path: token, expirationSeconds: 600}
      - downwardAPI: {items: [{path: stage, fieldRef: {fieldPath: 'metadata.labels[''stage'']'}}]}
";

#[test]
fn volumes_are_mounted_in_part_owned_by_the_group_and_kept_up_to_date() {
    if !common::can_run_containers() {
        return;
    }
    let mut cluster = Cluster::with_node(10);
    cluster.import_busybox();
    cluster.apply(VOLUMES);
    cluster.value_becomes("pod parts", READY, "True");
    assert_eq!(read(&cluster, "parts", "/dir/file"), "within\n");
    assert_eq!(read(&cluster, "parts", "/file"), "single\n");
    assert_eq!(read(&cluster, "parts", "/etc/app/b"), "two");
    cluster.ok(&["exec", "parts", "--", "ls", "/whole/logs/parts"]);

    // The files of an image are there to be read.
    cluster.ok(&["exec", "parts", "--", "test", "-f", "/files/etc/passwd"]);
    cluster.ok(&["exec", "parts", "--", "test", "-f", "/programs/busybox"]);
    let ran = cluster.fails(&["exec", "parts", "--", "/programs/busybox", "true"]);
    assert!(ran.contains("ermission denied"), "{ran}");
    let written = cluster.fails(&["exec", "parts", "--", "touch", "/files/x"]);
    assert!(written.contains("Read-only file system"), "{written}");

    // The group owns what it mounts, may write there, and its files stay its own.
    let ids = cluster.ok(&["exec", "parts", "--", "id"]);
    assert!(ids.contains("uid=1000") && ids.contains("4321"), "{ids}");
    let groups = cluster.ok(&["exec", "parts", "--", "id", "-G"]);
    // Strict: the image has user 1000 in the group audio (29), the pod does not.
    assert!(groups.contains("77") && !groups.contains("29"), "{groups}");
    cluster.ok(&["exec", "parts", "--", "touch", "/whole/mine"]);
    let owner = cluster.ok(&["exec", "parts", "--", "stat", "-c", "%u:%g", "/whole/mine"]);
    assert_eq!(owner.trim(), "1000:4321");
    let token = cluster.ok(&[
        "exec",
        "parts",
        "--",
        "stat",
        "-L",
        "-c",
        "%a:%g",
        "/about/token",
    ]);
    assert_eq!(token.trim(), "640:4321");

    // Projected files change under the running program, all at once.
    let before = read(&cluster, "parts", "/about/token");
    assert_eq!(before.split('.').count(), 3);
    cluster.ok(&["label", "--overwrite", "pod", "parts", "stage=second"]);
    cluster.until("the label is seen in the container", |cluster| {
        (read(cluster, "parts", "/about/stage") == "second").then_some(())
    });
    assert_eq!(read(&cluster, "parts", "/about/token"), before);

    // A new agent asks for a new token, and the container, which ran on, reads it.
    let id = cluster.value("pod parts", "{.status.containerStatuses[0].containerID}");
    cluster.down("-KILL");
    cluster.up();
    cluster.until("the token is another one", |cluster| {
        (read(cluster, "parts", "/about/token") != before).then_some(())
    });
    assert_eq!(
        cluster.value("pod parts", "{.status.containerStatuses[0].containerID}"),
        id
    );
}

#[test]
#[ignore = "takes ten minutes: no token may live shorter"]
fn a_token_is_replaced_in_the_container_before_it_ends() {
    if !common::can_run_containers() {
        return;
    }
    let mut cluster = Cluster::with_node(11);
    cluster.import_busybox();
    cluster.apply(VOLUMES);
    cluster.value_becomes("pod parts", READY, "True");
    let first = read(&cluster, "parts", "/about/token");
    let begin = std::time::Instant::now();
    while read(&cluster, "parts", "/about/token") == first {
        assert!(
            begin.elapsed().as_secs() < 600,
            "the token has ended in its place"
        );
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    eprintln!("replaced after {} s", begin.elapsed().as_secs());
    assert!(begin.elapsed().as_secs() >= 470);
}

const GREEDY: &str = "apiVersion: v1
kind: Pod
metadata: {name: hoarder}
spec:
  terminationGracePeriodSeconds: 30
  containers:
  - name: main
    image: busybox:test
    command: [sh, -c, 'dd if=/dev/zero of=/scratch/big bs=1024 count=2048; sleep 600']
    volumeMounts: [{name: scratch, mountPath: /scratch}]
  volumes: [{name: scratch, emptyDir: {sizeLimit: 1Mi}}]
---
apiVersion: v1
kind: Pod
metadata: {name: sprawler}
spec:
  terminationGracePeriodSeconds: 30
  containers:
  - name: main
    image: busybox:test
    command: [sh, -c, 'dd if=/dev/zero of=/tmp/big bs=1024 count=2048; sleep 600']
    resources: {limits: {ephemeral-storage: 1Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: modest}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:test
    command: [sh, -c, 'dd if=/dev/zero of=/scratch/big bs=1024 count=512; sleep 600']
    resources: {limits: {ephemeral-storage: 2Mi}}
    volumeMounts: [{name: scratch, mountPath: /scratch}]
  volumes: [{name: scratch, emptyDir: {sizeLimit: 1Mi}}]
";

#[test]
fn pods_over_their_limits_on_disk_are_evicted() {
    if !common::can_run_containers() {
        return;
    }
    let mut cluster = Cluster::with_node(12);
    cluster.import_busybox();
    cluster.apply(GREEDY);
    for (pod, message) in [
        (
            "hoarder",
            "Usage of EmptyDir volume \"scratch\" exceeds the limit \"1Mi\". ",
        ),
        (
            "sprawler",
            "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ",
        ),
    ] {
        let object = format!("pod {pod}");
        cluster.value_becomes(
            &object,
            "{.status.phase} {.status.reason}",
            "Failed Evicted",
        );
        assert_eq!(cluster.value(&object, "{.status.message}"), message);
        assert_eq!(events(&cluster, pod, "Evicted"), message);
        cluster.value_becomes(
            &object,
            "{.status.containerStatuses[0].state.terminated.exitCode}",
            "137",
        );
    }
    assert_eq!(cluster.value("pod modest", "{.status.phase}"), "Running");
}

#[test]
fn top_shows_what_pods_and_nodes_use() {
    if !common::can_run_containers() {
        return;
    }
    let mut cluster = Cluster::with_node(15);
    cluster.import_busybox();
    cluster.apply(
        "apiVersion: v1
kind: Pod
metadata: {name: busy, labels: {app: busy}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: worker, image: \"busybox:test\", command: [sh, -c, 'while true; do :; done'], resources: {limits: {cpu: 200m}}}
  - {name: idle, image: \"busybox:test\", command: [sleep, \"600\"]}
",
    );
    cluster.value_becomes("pod busy", "{.status.phase}", "Running");
    let cell = |text: &str, unit: &str| -> u64 {
        let number = text.trim_end_matches(unit);
        number
            .parse()
            .unwrap_or_else(|_| panic!("{text:?} is no number of {unit}"))
    };
    let cpu = cluster.until("the pod has figures", |cluster| {
        let top = cluster.kubectl(&["top", "pods", "-l", "app=busy", "--no-headers"]);
        let cells: Vec<String> = top.out.split_whitespace().map(str::to_owned).collect();
        let [name, cpu, memory] = cells.as_slice() else {
            return None;
        };
        assert_eq!(name, "busy");
        assert!(memory.ends_with("Mi"), "{memory}");
        // How much it gets depends on who else works here, but not that it works.
        let cpu = cell(cpu, "m");
        (cpu > 0).then_some(cpu)
    });
    assert!(cpu <= 1000, "{cpu}");
    let each = cluster.ok(&["top", "pod", "busy", "--containers", "--no-headers"]);
    assert_eq!(each.lines().count(), 2, "{each}");
    let nodes = cluster.ok(&["top", "nodes", "--no-headers"]);
    assert!(nodes.contains("e2e-15") && nodes.contains('%'), "{nodes}");
    // The raw forms: the window is the one that was measured.
    let raw = cluster.ok(&[
        "get",
        "--raw",
        "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/busy",
    ]);
    assert!(
        raw.contains("\"window\"") && raw.contains("\"PodMetrics\""),
        "{raw}"
    );
    let missing = cluster.fails(&["get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes/nobody"]);
    assert!(
        missing.contains("\"nobody\" not found") || missing.contains("NotFound"),
        "{missing}"
    );
    let resources = cluster.ok(&["api-resources", "--api-group=metrics.k8s.io", "-o", "name"]);
    assert_eq!(resources, "nodes.metrics.k8s.io\npods.metrics.k8s.io\n");
}

const RULES: &str = "apiVersion: v1
kind: Pod
metadata: {name: picky}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - name: again
    image: busybox:test
    command: [sh, -c, 'test -e /notes/once && exit 3; touch /notes/once; exit 42']
    restartPolicy: Never
    restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]
    volumeMounts: [{name: notes, mountPath: /notes}]
  volumes: [{name: notes, emptyDir: {}}]
---
apiVersion: v1
kind: Pod
metadata: {name: watched}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: \"busybox:test\", command: [sleep, \"4242\"]}
";

#[test]
fn rules_restart_a_container_and_a_debugger_sees_its_target() {
    if !common::can_run_containers() {
        return;
    }
    let mut cluster = Cluster::with_node(16);
    cluster.import_busybox();
    cluster.apply(RULES);
    // Exit code 42 is started again though the pod says Never; 3 is not.
    cluster.value_becomes("pod picky", "{.status.phase}", "Failed");
    let status = "{.status.containerStatuses[0].restartCount} \
                  {.status.containerStatuses[0].state.terminated.exitCode}";
    assert_eq!(cluster.value("pod picky", status), "1 3");
    cluster.value_becomes("pod watched", READY, "True");
    if cluster.kubectl_minor() >= 23 {
        cluster.ok(&[
            "debug",
            "watched",
            "--image=busybox:test",
            "--target=main",
            "-c",
            "look",
            "--quiet",
            "--",
            "sh",
            "-c",
            "ps; sleep 600",
        ]);
    } else {
        // Older clients send an alpha form that no server takes any more.
        let mut pod: Value =
            serde_json::from_str(&cluster.ok(&["get", "pod", "watched", "-o", "json"]))
                .expect("JSON");
        pod["spec"]["ephemeralContainers"] = json!([{
            "name": "look",
            "image": "busybox:test",
            "targetContainerName": "main",
            "command": ["sh", "-c", "ps; sleep 600"],
        }]);
        let path = "/api/v1/namespaces/default/pods/watched/ephemeralcontainers";
        let answer = cluster.kubectl_with(&["replace", "--raw", path, "-f", "-"], &pod.to_string());
        assert_eq!(answer.code, 0, "{}", answer.all());
    }
    cluster.until("the other container's program is seen", |cluster| {
        let log = cluster.kubectl(&["logs", "watched", "-c", "look"]).out;
        log.contains("sleep 4242").then_some(())
    });
}

const FROM_FILE: &str = "apiVersion: v1
kind: Pod
metadata: {name: filed, labels: {tier: control}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: \"busybox:test\", command: [sh, -c, 'echo from a file; exec sleep 600']}
";

#[test]
fn a_file_on_the_node_is_a_pod_that_the_api_only_mirrors() {
    if !common::can_run_containers() {
        return;
    }
    let files = tempfile::tempdir().expect("a directory");
    let flag = format!("--static-pod-path={}", files.path().display());
    let mut cluster = Cluster::with_flags(18, &[&flag]);
    cluster.import_busybox();
    let file = files.path().join("filed.yaml");
    std::fs::write(&file, FROM_FILE).expect("written");
    let pod = "pod filed-e2e-18";
    let container = "{.status.containerStatuses[0].containerID}";
    cluster.value_becomes(pod, READY, "True");
    assert_eq!(cluster.ok(&["logs", "filed-e2e-18"]), "from a file\n");
    let (id, uid) = (
        cluster.value(pod, container),
        cluster.value(pod, "{.metadata.uid}"),
    );
    assert_eq!(
        cluster.value(pod, "{.metadata.ownerReferences[0].kind}"),
        "Node"
    );
    // The mirror comes back, and the container never noticed.
    cluster.ok(&["delete", "pod", "filed-e2e-18", "--wait=false"]);
    cluster.until("there is another mirror, with the status", |cluster| {
        let now = cluster.value(pod, "{.metadata.uid}");
        let ready = cluster.value(pod, READY) == "True";
        (!now.is_empty() && now != uid && ready).then_some(())
    });
    assert_eq!(cluster.value(pod, container), id);
    // So it is after a restart of the agent.
    cluster.down("-KILL");
    cluster.up();
    cluster.value_becomes(pod, READY, "True");
    assert_eq!(cluster.value(pod, container), id);
    std::fs::remove_file(&file).expect("removed");
    cluster.until("file and pod are gone", |cluster| {
        (cluster.kubectl(&["get", "pod", "filed-e2e-18"]).code != 0).then_some(())
    });
}

#[test]
fn a_node_short_of_memory_ends_pods_and_says_so() {
    if !common::can_run_containers() {
        return;
    }
    // No machine has all of its memory left.
    let mut cluster = Cluster::with_flags(17, &["--eviction-hard=memory.available<100%"]);
    cluster.import_busybox();
    cluster.apply(
        "apiVersion: v1
kind: Pod
metadata: {name: victim}
spec:
  nodeName: e2e-17
  containers: [{name: main, image: \"busybox:test\", command: [sleep, \"600\"]}]
",
    );
    cluster.value_becomes(
        "pod victim",
        "{.status.phase} {.status.reason}",
        "Failed Evicted",
    );
    let message = cluster.value("pod victim", "{.status.message}");
    assert!(
        message.starts_with("The node was low on resource: memory. Threshold quantity: ")
            && message.contains("Container main was using")
            && message.ends_with("request is 0, has larger consumption of memory. "),
        "{message}"
    );
    let target = "{.status.conditions[?(@.type==\"DisruptionTarget\")].reason}";
    assert_eq!(cluster.value("pod victim", target), "TerminationByKubelet");
    let pressure = "{.status.conditions[?(@.type==\"MemoryPressure\")].reason}";
    cluster.value_becomes("node e2e-17", pressure, "KubeletHasInsufficientMemory");
    cluster.value_becomes(
        "node e2e-17",
        "{.spec.taints[*].key}",
        "node.kubernetes.io/memory-pressure",
    );
}
