//! Manifests that are broken, each in its own way, given to the real kubectl: the answer is the
//! one that Kubernetes gives, and nothing stays behind.

use crate::common::Cluster;

/// A manifest that must be refused.
struct Broken {
    what: &'static str,
    manifest: String,
    /// Parts of the answer, in Kubernetes' words.
    says: &'static [&'static str],
    /// The same where kubectl itself checks manifests against OpenAPI, before version 1.25.
    says_by_old_client: Option<&'static [&'static str]>,
}

impl Broken {
    fn or_by_old_client(mut self, says: &'static [&'static str]) -> Self {
        self.says_by_old_client = Some(says);
        self
    }
}

/// A Deployment with parts replaced.
fn deployment(name: &str, change: &[(&str, &str)]) -> String {
    let mut text = format!(
        "apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
spec:
  replicas: 1
  selector:
    matchLabels:
      app: web
  template:
    metadata:
      labels:
        app: web
    spec:
      restartPolicy: Always
      containers:
        - name: web
          image: busybox:test
          ports:
            - containerPort: 8080
"
    );
    for (from, to) in change {
        assert!(text.contains(from), "{from:?} is no part of the manifest");
        text = text.replacen(from, to, 1);
    }
    text
}

fn broken(what: &'static str, manifest: String, says: &'static [&'static str]) -> Broken {
    Broken {
        what,
        manifest,
        says,
        says_by_old_client: None,
    }
}

/// A change of the Deployment above, and what must be said about it.
fn changed(what: &'static str, from: &str, to: &str, says: &'static [&'static str]) -> Broken {
    broken(what, deployment("web", &[(from, to)]), says)
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn table() -> Vec<Broken> {
    const CONTAINER: &str = "          image: busybox:test\n";
    let after = |more: &str| format!("{CONTAINER}{more}");
    vec![
        changed(
            "wrong type",
            "replicas: 1",
            "replicas: three",
            &["(BadRequest)", "cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"],
        )
        .or_by_old_client(&["ValidationError(Deployment.spec.replicas): invalid type for io.k8s.api.apps.v1.DeploymentSpec.replicas: got \"string\", expected \"integer\""]),
        changed(
            "unknown field",
            "replicas: 1",
            "replica: 1",
            &["strict decoding error: unknown field \"spec.replica\""],
        )
        .or_by_old_client(&["ValidationError(Deployment.spec): unknown field \"replica\" in io.k8s.api.apps.v1.DeploymentSpec"]),
        changed(
            "bad quantity",
            CONTAINER,
            &after("          resources: {limits: {memory: 64Megs}}\n"),
            &["quantities must match the regular expression"],
        ),
        broken(
            "bad name",
            deployment("Web_1", &[]),
            &["metadata.name: Invalid value: \"Web_1\": a lowercase RFC 1123 subdomain must consist of"],
        ),
        changed(
            "selector that does not match",
            "      app: web\n  template",
            "      app: other\n  template",
            &["spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`"],
        ),
        changed(
            "missing namespace",
            "name: web\n",
            "name: web\n  namespace: nowhere\n",
            &["(NotFound)", "namespaces \"nowhere\" not found"],
        ),
        broken(
            "oversized ConfigMap",
            format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: big}}\ndata: {{a: {}}}\n",
                "x".repeat((1 << 20) + 1)
            ),
            &["Too long: may not be more than 1048576 bytes"],
        ),
        broken(
            "not YAML",
            "apiVersion: v1\nkind: ConfigMap\n  metadata: [\n".to_owned(),
            &["error", "YAML"],
        ),
        broken(
            "no kind",
            "apiVersion: v1\nmetadata: {name: a}\n".to_owned(),
            &["kind not set"],
        ),
        // kubectl looks among the CustomResourceDefinitions for a kind that it misses in a group
        // it knows.
        changed(
            "wrong kind",
            "kind: Deployment",
            "kind: Deploymnt",
            &["no matches for kind \"Deploymnt\" in version \"apps/v1\""],
        ),
        changed(
            "wrong apiVersion",
            "apps/v1",
            "apps/v1beta9",
            &["no matches for kind \"Deployment\" in version \"apps/v1beta9\""],
        ),
        changed(
            "duplicate container names",
            "          ports",
            "        - name: web\n          image: busybox:test\n          ports",
            &["spec.template.spec.containers[1].name: Duplicate value: \"web\""],
        ),
        changed(
            "bad port",
            "8080",
            "80800",
            &["containerPort: Invalid value: 80800: must be between 1 and 65535, inclusive"],
        ),
        changed(
            "bad label",
            "        app: web\n    spec",
            "        app: web\n        tier: \"a b\"\n    spec",
            &["spec.template.labels: Invalid value: \"a b\": a valid label must be an empty string or consist of"],
        ),
        changed(
            "missing image name",
            CONTAINER,
            "",
            &["spec.template.spec.containers[0].image: Required value"],
        ),
        changed(
            "negative replicas",
            "replicas: 1",
            "replicas: -1",
            &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
        ),
        changed(
            "bad restartPolicy",
            "restartPolicy: Always",
            "restartPolicy: Never",
            &["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
        ),
        changed(
            "volumeMount without volume",
            CONTAINER,
            &after("          volumeMounts: [{name: data, mountPath: /data}]\n"),
            &["spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"data\""],
        ),
        changed(
            "invalid env name",
            CONTAINER,
            &after("          env: [{name: \"A=B\", value: x}]\n"),
            &["spec.template.spec.containers[0].env[0].name: Invalid value: \"A=B\""],
        ),
        changed(
            "bad protocol",
            "containerPort: 8080",
            "containerPort: 8080\n              protocol: HTTP",
            &["ports[0].protocol: Unsupported value: \"HTTP\": supported values: \"SCTP\", \"TCP\", \"UDP\""],
        ),
        changed(
            "requests above limits",
            CONTAINER,
            &after("          resources: {requests: {cpu: 2}, limits: {cpu: 1}}\n"),
            &["resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"],
        ),
        changed(
            "bad pull policy",
            CONTAINER,
            &after("          imagePullPolicy: Sometimes\n"),
            &["imagePullPolicy: Unsupported value: \"Sometimes\""],
        ),
        changed(
            "probe with two handlers",
            CONTAINER,
            &after(
                "          livenessProbe: {tcpSocket: {port: 80}, exec: {command: [\"true\"]}}\n",
            ),
            &["livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"],
        ),
        broken(
            "secret that is not base64",
            "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: \"%%%\"}\n".to_owned(),
            &["(BadRequest)", "illegal base64 data at input byte 0"],
        ),
        broken(
            "bad ConfigMap key",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {\"a b\": x}\n".to_owned(),
            &["data[a b]: Invalid value: \"a b\": a valid config key must consist of"],
        ),
        broken(
            "service without ports",
            "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {selector: {a: b}}\n"
                .to_owned(),
            &["spec.ports: Required value"],
        ),
        broken(
            "service address out of the network",
            "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {clusterIP: 1.2.3.4, ports: [{port: 80}]}\n"
                .to_owned(),
            &["spec.clusterIPs: Invalid value: [\"1.2.3.4\"]: failed to allocate IP 1.2.3.4"],
        ),
        broken(
            "autoscaler with its bounds crossed",
            "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: h}\n\
             spec: {minReplicas: 3, maxReplicas: 1, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}}\n"
                .to_owned(),
            &["spec.maxReplicas: Invalid value: 1: must be greater than or equal to `minReplicas`"],
        ),
    ]
}

fn leftovers(cluster: &Cluster) -> String {
    cluster.ok(&[
        "get",
        "deploy,rs,pods,svc,cm,secrets,hpa",
        "-A",
        "-o",
        "name",
    ])
}

#[test]
fn broken_manifests_are_refused_and_leave_nothing() {
    let cluster = Cluster::without_node(1);
    let before = leftovers(&cluster);
    let old = cluster.kubectl_minor() < 25;
    let mut wrong = Vec::new();
    for Broken {
        what,
        manifest,
        says,
        says_by_old_client,
    } in table()
    {
        let says = says_by_old_client.filter(|_| old).unwrap_or(says);
        for verb in ["create", "apply"] {
            // Oversized objects do not even fit into apply's annotation, which is another answer.
            if verb == "apply" && manifest.len() > 1 << 18 {
                continue;
            }
            let answer = cluster.kubectl_with(&[verb, "-f", "-"], &manifest);
            let missing: Vec<_> = says
                .iter()
                .filter(|part| !answer.err.contains(**part))
                .collect();
            if answer.code == 0 || !missing.is_empty() {
                let said: String = answer.all().chars().take(1500).collect();
                wrong.push(format!(
                    "== {what} ({verb})\nexpected {missing:#?}\ngot {said}"
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} answers are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert_eq!(leftovers(&cluster), before, "something stayed");
}

#[test]
fn what_must_not_change_does_not() {
    let cluster = Cluster::without_node(2);
    let good = deployment("web", &[]);
    cluster.apply(&good);
    cluster
        .apply("apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80}]}\n");
    cluster.apply(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\nimmutable: true\ndata: {a: b}\n",
    );
    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: a, image: a}]}\n",
    );
    let spec = |object: &str| cluster.value(object, "{.spec}{.data}");
    let cases: [(&str, String, &[&str]); 5] = [
        (
            "deploy web",
            good.replace("app: web", "app: other"),
            &["spec.selector: Invalid value: ", "field is immutable"],
        ),
        (
            "service s",
            "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {clusterIP: 10.212.0.99, ports: [{port: 80}]}\n"
                .to_owned(),
            &["spec.clusterIPs[0]: Invalid value: [\"10.212.0.99\"]: may not change once set"],
        ),
        (
            "configmap c",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\nimmutable: true\ndata: {a: c}\n"
                .to_owned(),
            &["data: Forbidden: field is immutable when `immutable` is set"],
        ),
        (
            "pod p",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {hostname: x, containers: [{name: a, image: a}]}\n"
                .to_owned(),
            &["spec: Forbidden: pod updates may not change fields other than"],
        ),
        (
            "deploy web",
            good.replace("  name: web\nspec", "  name: web\n  resourceVersion: \"1\"\nspec"),
            &["(Conflict)", "the object has been modified; please apply your changes to the latest version and try again"],
        ),
    ];
    for (object, manifest, says) in cases {
        let before = spec(object);
        let answer = cluster.kubectl_with(&["apply", "-f", "-"], &manifest);
        assert_ne!(answer.code, 0, "{object}: {}", answer.all());
        for part in says {
            assert!(
                answer.err.contains(part),
                "{object}: expected {part:?}\n{}",
                answer.all()
            );
        }
        assert_eq!(spec(object), before, "{object} changed");
    }
}

#[test]
fn bodies_that_no_client_sends_are_refused() {
    let cluster = Cluster::without_node(3);
    let path = "/api/v1/namespaces/default/configmaps";
    let file = cluster.home().join("body.json");
    let post = |body: &str| {
        std::fs::write(&file, body).expect("the body is written");
        let name = file.to_string_lossy().into_owned();
        let answer = cluster.kubectl(&["create", "--raw", path, "-f", &name]);
        assert_ne!(answer.code, 0, "{}", answer.all());
        answer.err
    };
    // The server goes on afterwards, whatever came in.
    let deep = format!(
        "{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{{\"name\":\"d\"}},\"data\":{}{}}}",
        "{\"a\":".repeat(100_000),
        "1".to_owned() + &"}".repeat(100_000)
    );
    let said = post(&deep);
    assert!(
        said.contains("BadRequest") || said.contains("exceeded max depth"),
        "{said}"
    );
    let said = post("{\"apiVersion\": ");
    assert!(
        said.contains("unexpected end of JSON input") || said.contains("BadRequest"),
        "{said}"
    );
    let huge = format!("{{\"data\":{{\"a\":\"{}\"}}}}", "x".repeat(4 << 20));
    let said = post(&huge);
    assert!(said.contains("too large"), "{said}");
    assert_eq!(cluster.ok(&["get", "--raw", "/readyz"]), "ok");
    assert_eq!(
        cluster.ok(&["get", "cm", "-o", "name"]),
        "configmap/kube-root-ca.crt\n"
    );
}
