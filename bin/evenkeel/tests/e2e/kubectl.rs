//! The session that README promises: the real kubectl against real containers.

use crate::common::{self, Cluster, http, image, repository};

/// A busybox that prints its name, serves a page and can be told to crash.
const WEB: &str = "apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels: {app: web}
spec:
  replicas: 3
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: web
          image: busybox:test
          command: [sh, -c]
          args:
            - |
              echo one; echo two; echo started as $HOSTNAME
              mkdir -p /www && hostname > /www/index.html
              exec httpd -f -p 8080 -h /www
          ports:
            - {name: http, containerPort: 8080}
          readinessProbe:
            httpGet: {path: /index.html, port: http}
            periodSeconds: 1
---
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  selector: {app: web}
  ports:
    - {port: 80, targetPort: http}
";

#[test]
fn a_session() {
    if !common::can_run_containers() {
        return;
    }
    let mut cluster = Cluster::with_node(4);
    cluster.import_busybox();
    assert!(cluster.apply(WEB).contains("deployment.apps/web created"));
    let said = cluster.ok(&["rollout", "status", "deploy/web", "--timeout=60s"]);
    assert!(
        said.contains("deployment \"web\" successfully rolled out"),
        "{said}"
    );

    reading(&cluster);
    inside(&mut cluster);
    forwarding(&cluster);
    changing(&mut cluster);
    crashing(&mut cluster);
    deleting(&mut cluster);
}

fn first_pod(cluster: &Cluster) -> String {
    cluster.value(
        "pods -l app=web --sort-by=.metadata.name",
        "{.items[0].metadata.name}",
    )
}

/// get and describe, in all their forms.
fn reading(cluster: &Cluster) {
    let table = cluster.ok(&["get", "pods"]);
    assert!(table.starts_with("NAME "), "{table}");
    assert_eq!(table.matches(" 1/1 ").count(), 3, "{table}");
    assert_eq!(table.matches(" Running ").count(), 3, "{table}");
    let wide = cluster.ok(&["get", "pods", "-o", "wide", "-A"]);
    assert!(
        wide.contains("NAMESPACE") && wide.contains("NOMINATED NODE"),
        "{wide}"
    );
    assert!(wide.contains("10.184."), "pod addresses: {wide}");
    let deploy = cluster.ok(&["get", "deploy", "web", "-o", "wide"]);
    assert!(
        deploy.contains("3/3") && deploy.contains("busybox:test"),
        "{deploy}"
    );
    let yaml = cluster.ok(&["get", "deploy", "web", "-o", "yaml"]);
    assert!(yaml.starts_with("apiVersion: apps/v1\n"), "{yaml}");
    let json = cluster.ok(&["get", "svc", "web", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["kind"], "Service");
    assert_eq!(json["spec"]["ports"][0]["protocol"], "TCP");
    assert_eq!(cluster.value("deploy web", "{.status.readyReplicas}"), "3");
    assert_eq!(
        cluster
            .ok(&["get", "pods", "-l", "app=web", "-o", "name"])
            .lines()
            .count(),
        3
    );
    assert_eq!(
        cluster.ok(&["get", "pods", "-l", "app!=web,app in (a)", "-o", "name"]),
        ""
    );
    assert!(
        cluster
            .fails(&["get", "pod", "nothing"])
            .contains("pods \"nothing\" not found")
    );
    let running = cluster.ok(&[
        "get",
        "pods",
        "--field-selector=status.phase=Running",
        "-o",
        "name",
    ]);
    assert_eq!(running.lines().count(), 3, "{running}");
    let mut watch = cluster.background(&["get", "pods", "--watch"]);
    watch.read_until(|text| text.lines().count() >= 4);

    let pod = first_pod(cluster);
    let said = cluster.ok(&["describe", "pod", &pod]);
    for part in [
        "Scheduled",
        "Pulled",
        "Created",
        "Started",
        "Controlled By:  ReplicaSet/web-",
        "Ready             True",
    ] {
        assert!(said.contains(part), "{part} is missing:\n{said}");
    }
    let said = cluster.ok(&["describe", "deploy", "web"]);
    for part in [
        "3 desired | 3 updated | 3 total | 3 available | 0 unavailable",
        "ScalingReplicaSet",
        "NewReplicaSetAvailable",
    ] {
        assert!(said.contains(part), "{part} is missing:\n{said}");
    }
    let said = cluster.ok(&["describe", "svc", "web"]);
    assert!(said.contains(":8080"), "{said}");
    let node = cluster.node_name();
    let said = cluster.ok(&["describe", "node", &node]);
    for part in [
        "KubeletReady",
        "Allocated resources",
        "MemoryPressure",
        &pod,
    ] {
        assert!(said.contains(part), "{part} is missing:\n{said}");
    }
    let said = cluster.ok(&["get", "events"]);
    assert!(
        said.contains("SuccessfulCreate") && said.contains("Started"),
        "{said}"
    );
    let said = cluster.ok(&["api-resources"]);
    assert!(
        said.contains("horizontalpodautoscalers") && said.contains("deploy "),
        "{said}"
    );
    assert_eq!(
        cluster.ok(&["auth", "can-i", "create", "deployments"]),
        "yes\n"
    );
    let other = [
        "auth",
        "can-i",
        "create",
        "pods",
        "--as=system:serviceaccount:default:default",
    ];
    assert_eq!(cluster.kubectl(&other).out, "no\n");
    let said = cluster.ok(&["explain", "deployment.spec.replicas"]);
    assert!(said.contains("replicas <integer>"), "{said}");
}

/// logs, exec, cp.
fn inside(cluster: &mut Cluster) {
    let pod = first_pod(cluster);
    let logs = cluster.ok(&["logs", &pod]);
    assert_eq!(logs, format!("one\ntwo\nstarted as {pod}\n"));
    assert_eq!(
        cluster.ok(&["logs", &pod, "--tail=1"]),
        format!("started as {pod}\n")
    );
    let stamped = cluster.ok(&["logs", &pod, "--timestamps", "--tail=1"]);
    let (stamp, _) = stamped.split_once(' ').expect("a time before the line");
    assert!(stamp.ends_with('Z') && stamp.contains('T'), "{stamped}");
    assert_eq!(cluster.ok(&["logs", "-l", "app=web"]).lines().count(), 9);
    let mut follow = cluster.background(&["logs", "-f", &pod]);
    cluster.ok(&["exec", &pod, "--", "sh", "-c", "echo later > /proc/1/fd/1"]);
    follow.read_until(|text| text.contains("later\n"));

    assert_eq!(
        cluster.ok(&["exec", &pod, "--", "hostname"]),
        format!("{pod}\n")
    );
    assert_eq!(
        cluster
            .kubectl(&["exec", &pod, "--", "sh", "-c", "exit 7"])
            .code,
        7
    );
    let echoed = cluster.kubectl_with(&["exec", "-i", &pod, "--", "cat"], "through and back\n");
    assert_eq!(echoed.out, "through and back\n", "{}", echoed.all());
    let split = cluster.kubectl(&["exec", &pod, "--", "sh", "-c", "echo a; echo b >&2"]);
    assert_eq!((split.out.as_str(), split.err.as_str()), ("a\n", "b\n"));
    assert_ne!(
        cluster
            .kubectl(&["exec", &pod, "--", "no-such-program"])
            .code,
        0
    );
    let resolved = cluster.ok(&[
        "exec",
        &pod,
        "--",
        "wget",
        "-qO-",
        "http://web.default.svc.cluster.local/",
    ]);
    assert!(resolved.starts_with("web-"), "{resolved}");
    let short = cluster.ok(&["exec", &pod, "--", "wget", "-qO-", "http://web/"]);
    assert!(short.starts_with("web-"), "{short}");

    let text = "some bytes\n".repeat(10_000);
    let there = cluster.home().join("there");
    std::fs::write(&there, &text).expect("a file to copy");
    cluster.ok(&["cp", "there", &format!("{pod}:/tmp/there")]);
    cluster.ok(&["cp", &format!("{pod}:/tmp/there"), "back"]);
    let back = std::fs::read_to_string(cluster.home().join("back")).expect("it came back");
    assert_eq!(back, text);
}

fn forwarding(cluster: &Cluster) {
    let mut forward = cluster.background(&["port-forward", "deploy/web", ":8080"]);
    let said = forward.read_until(|text| text.contains("->"));
    let address = said
        .split_whitespace()
        .find(|word| word.starts_with("127.0.0.1:"))
        .expect("the address that kubectl listens on");
    for _ in 0..3 {
        let answer = http(address, "GET", "/").expect("an answer");
        assert!(
            answer.contains("200 OK") && answer.contains("web-"),
            "{answer}"
        );
    }
}

/// scale, set image, rollout, patch, edit, apply, label.
fn changing(cluster: &mut Cluster) {
    cluster.ok(&["scale", "deploy/web", "--replicas=1"]);
    cluster.value_becomes("deploy web", "{.status.replicas}", "1");
    // Drift: what was applied comes back when it is applied again.
    assert!(
        cluster
            .apply(WEB)
            .contains("deployment.apps/web configured")
    );
    cluster.value_becomes("deploy web", "{.status.readyReplicas}", "3");
    assert!(cluster.apply(WEB).contains("deployment.apps/web unchanged"));
    let rest = [
        "scale",
        "deploy/web",
        "--replicas=5",
        "--current-replicas=2",
    ];
    assert!(
        cluster
            .fails(&rest)
            .contains("Expected replicas to be 2, was 3")
    );

    cluster.ok(&["rollout", "restart", "deploy/web"]);
    cluster.ok(&["rollout", "status", "deploy/web", "--timeout=60s"]);
    cluster.ok(&["set", "env", "deploy/web", "COLOUR=green"]);
    cluster.ok(&["rollout", "status", "deploy/web", "--timeout=60s"]);
    let history = cluster.ok(&["rollout", "history", "deploy/web"]);
    assert_eq!(
        history
            .lines()
            .filter(|line| line.contains("<none>"))
            .count(),
        3,
        "{history}"
    );
    let second = cluster.ok(&["rollout", "history", "deploy/web", "--revision=3"]);
    assert!(
        second.contains("COLOUR:\tgreen") || second.contains("COLOUR"),
        "{second}"
    );
    cluster.ok(&["rollout", "undo", "deploy/web"]);
    cluster.ok(&["rollout", "status", "deploy/web", "--timeout=60s"]);
    assert_eq!(
        cluster.value("deploy web", "{.spec.template.spec.containers[0].env}"),
        ""
    );
    cluster.ok(&["rollout", "pause", "deploy/web"]);
    cluster.ok(&["set", "image", "deploy/web", "web=busybox:other"]);
    cluster.value_becomes("deploy web", "{.status.updatedReplicas}", "");
    cluster.ok(&["set", "image", "deploy/web", "web=busybox:test"]);
    cluster.ok(&["rollout", "resume", "deploy/web"]);
    cluster.ok(&["rollout", "status", "deploy/web", "--timeout=60s"]);

    let env = "{.spec.template.spec.containers[*].env[*].name}";
    let strategic = r#"{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"A","value":"1"}]}]}}}}"#;
    cluster.ok(&["patch", "deploy", "web", "-p", strategic]);
    assert_eq!(cluster.value("deploy web", env), "A");
    assert_eq!(
        cluster.value("deploy web", "{.spec.template.spec.containers[0].image}"),
        "busybox:test"
    );
    let merge = r#"{"metadata":{"annotations":{"note":"merge"}},"spec":{"replicas":2}}"#;
    cluster.ok(&["patch", "deploy", "web", "--type=merge", "-p", merge]);
    assert_eq!(
        cluster.value(
            "deploy web",
            "{.metadata.annotations.note} {.spec.replicas}"
        ),
        "merge 2"
    );
    let json = r#"[{"op":"test","path":"/spec/replicas","value":2},{"op":"remove","path":"/metadata/annotations/note"}]"#;
    cluster.ok(&["patch", "deploy", "web", "--type=json", "-p", json]);
    assert_eq!(
        cluster.value("deploy web", "{.metadata.annotations.note}"),
        ""
    );
    let failed = cluster.fails(&[
        "patch",
        "deploy",
        "web",
        "--type=json",
        "-p",
        &json.replace(":2", ":9"),
    ]);
    assert!(failed.contains("The request is invalid"), "{failed}");

    let edited = cluster.kubectl_env(
        "KUBE_EDITOR",
        "sed -i s/replicas:.2/replicas:\\ 3/",
        &["edit", "deploy", "web"],
    );
    assert!(
        edited.out.contains("deployment.apps/web edited"),
        "{}",
        edited.all()
    );
    assert_eq!(cluster.value("deploy web", "{.spec.replicas}"), "3");

    cluster.ok(&["label", "deploy", "web", "tier=front"]);
    assert!(
        cluster
            .fails(&["label", "deploy", "web", "tier=back"])
            .contains("already has a value")
    );
    cluster.ok(&["label", "deploy", "web", "tier-"]);
    cluster.ok(&["annotate", "deploy", "web", "note=x", "--overwrite"]);
    assert_eq!(
        cluster.value(
            "deploy web",
            "{.metadata.labels.tier}{.metadata.annotations.note}"
        ),
        "x"
    );

    server_side_apply(cluster);
    namespaces(cluster);
}

fn server_side_apply(cluster: &mut Cluster) {
    let manifest = |value: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: shared}}\ndata: {{a: '{value}'}}\n"
        )
    };
    let apply = |manager: &str, value: &str, more: &[&str]| {
        let manager = format!("--field-manager={manager}");
        let mut arguments = vec!["apply", "--server-side", "-f", "-", &manager];
        arguments.extend(more);
        cluster.kubectl_with(&arguments, &manifest(value))
    };
    assert!(
        apply("one", "1", &[])
            .out
            .contains("configmap/shared serverside-applied")
    );
    let refused = apply("two", "2", &[]);
    assert_ne!(refused.code, 0);
    assert!(
        refused
            .err
            .contains("Apply failed with 1 conflict: conflict with \"one\": .data.a"),
        "{}",
        refused.all()
    );
    assert_eq!(apply("two", "2", &["--force-conflicts"]).code, 0);
    assert_eq!(cluster.value("cm shared", "{.data.a}"), "2");
    // kubectl 1.20 knows no `--show-managed-fields`.
    let shared = cluster.ok(&[
        "get",
        "--raw",
        "/api/v1/namespaces/default/configmaps/shared",
    ]);
    let shared: serde_json::Value = serde_json::from_str(&shared).expect("an object");
    let managed = &shared["metadata"]["managedFields"];
    assert_eq!(managed.as_array().map(Vec::len), Some(1), "{managed}");
    assert_eq!(managed[0]["manager"], "two");
}

fn namespaces(cluster: &mut Cluster) {
    cluster.ok(&["create", "namespace", "away"]);
    cluster.ok(&[
        "create",
        "configmap",
        "c",
        "-n",
        "away",
        "--from-literal=a=b",
    ]);
    // The first process of a container ignores signals it has no handler for.
    let mut create = vec![
        "create",
        "deployment",
        "idle",
        "-n",
        "away",
        "--image=busybox:test",
    ];
    create.extend(["--", "sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]);
    cluster.ok(&create);
    cluster.ok(&[
        "rollout",
        "status",
        "deploy/idle",
        "-n",
        "away",
        "--timeout=60s",
    ]);
    cluster.ok(&["delete", "namespace", "away", "--timeout=60s"]);
    assert!(
        cluster
            .fails(&["get", "ns", "away"])
            .contains("namespaces \"away\" not found")
    );
    assert_eq!(
        cluster
            .kubectl(&["get", "deploy,pods,cm", "-n", "away", "-o", "name"])
            .out,
        ""
    );
}

/// A container that ends: restarts, back-off, and the log of the one before.
fn crashing(cluster: &mut Cluster) {
    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: crash}\nspec: {terminationGracePeriodSeconds: 0, \
         containers: [{name: c, image: 'busybox:test', command: [sh, -c, 'echo last words; exit 3']}]}\n",
    );
    cluster.value_becomes(
        "pod crash",
        "{.status.containerStatuses[0].state.waiting.reason}",
        "CrashLoopBackOff",
    );
    let status = "{.status.containerStatuses[0].lastState.terminated.exitCode}";
    assert_eq!(cluster.value("pod crash", status), "3");
    assert_eq!(cluster.ok(&["logs", "crash", "--previous"]), "last words\n");
    cluster.until("an event BackOff", |cluster| {
        cluster
            .ok(&["describe", "pod", "crash"])
            .contains("BackOff")
            .then_some(())
    });
    cluster.ok(&["delete", "pod", "crash", "--timeout=30s"]);
}

fn deleting(cluster: &mut Cluster) {
    // Orphans first: the ReplicaSet stays when asked so.
    cluster.ok(&["delete", "deploy", "web", "--cascade=orphan"]);
    assert!(
        !cluster
            .ok(&["get", "rs", "-l", "app=web", "-o", "name"])
            .is_empty()
    );
    cluster.apply(WEB);
    cluster.ok(&["rollout", "status", "deploy/web", "--timeout=60s"]);
    cluster.ok(&[
        "delete",
        "deploy/web",
        "svc/web",
        "--cascade=foreground",
        "--timeout=60s",
    ]);
    cluster.until("everything is gone", |cluster| {
        let left = cluster.ok(&[
            "get",
            "deploy,rs,pods,endpointslices",
            "-l",
            "app=web",
            "-o",
            "name",
        ]);
        left.is_empty().then_some(())
    });
}

#[test]
fn the_samples_run_unmodified() {
    if !common::can_run_containers() {
        return;
    }
    let mut cluster = Cluster::with_node(5);
    let shop = image("shop.tar");
    cluster.import(&shop, "shop:latest");
    cluster.import(&image("redis.tar"), "redis:debian");
    cluster.import(&shop, "registry.internal/checkout-service:v1.2.0");
    cluster.import(&shop, "registry.internal/order-service:v2.4.1");
    cluster.import(&shop, "nginx:1.24");

    cluster.ok(&["apply", "-f", &repository("examples/shop/shop.yaml")]);
    cluster.ok(&["apply", "-f", &repository("examples/samples/")]);
    for deploy in ["session-cache", "shop", "order-service", "demo-nginx"] {
        cluster.ok(&[
            "rollout",
            "status",
            &format!("deploy/{deploy}"),
            "--timeout=90s",
        ]);
    }
    cluster.ok(&[
        "rollout",
        "status",
        "deploy/checkout-service",
        "-n",
        "production",
        "--timeout=90s",
    ]);

    // An order is kept in the session store: DNS, services and Redis all work.
    let address = cluster.value("svc shop", "{.spec.clusterIP}:80");
    let answer =
        http(&address, "POST", "/orders?session=e2e").expect("the service answers the host");
    assert!(
        answer.contains(" 200 ") || answer.contains(" 201 "),
        "{answer}"
    );

    cluster.until("the autoscaler has figures", |cluster| {
        let table = cluster.ok(&["get", "hpa", "-n", "production"]);
        (table.contains("%/70%") && table.contains("%/80%")).then_some(())
    });
    // What `describe` shows of conditions depends on kubectl: before 1.23 it asks for `v1`.
    let reason = cluster.value(
        "horizontalpodautoscalers.v2.autoscaling -n production checkout-service-hpa",
        "{.status.conditions[?(@.type==\"ScalingActive\")].reason}",
    );
    assert_eq!(reason, "ValidMetricFound");
}
