//! Custom resources as kubectl works with them, on a control plane alone.

use crate::common::Cluster;
use serde_json::Value;

/// The definition of the documentation, with a status, a scale, columns and a rule.
const DEFINITION: &str = r#"apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: crontabs.stable.example.com
spec:
  group: stable.example.com
  scope: Namespaced
  names:
    plural: crontabs
    singular: crontab
    kind: CronTab
    shortNames: [ct]
    categories: [all]
  versions:
    - name: v1
      served: true
      storage: true
      subresources:
        status: {}
        scale:
          specReplicasPath: .spec.replicas
          statusReplicasPath: .status.replicas
          labelSelectorPath: .status.labelSelector
      additionalPrinterColumns:
        - {name: Spec, type: string, jsonPath: .spec.cronSpec, description: The cron spec}
        - {name: Replicas, type: integer, jsonPath: .spec.replicas}
        - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
      schema:
        openAPIV3Schema:
          type: object
          description: CronTab runs something at certain times.
          properties:
            spec:
              type: object
              description: What is wanted.
              x-kubernetes-validations:
                - {rule: "self.replicas <= 5", message: at most five}
              properties:
                cronSpec:
                  type: string
                  description: When it runs, in five fields.
                  pattern: '^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$'
                image: {type: string}
                replicas: {type: integer, default: 1, minimum: 1, maximum: 10}
            status:
              type: object
              properties:
                replicas: {type: integer}
                labelSelector: {type: string}
"#;

fn tab(name: &str, spec: &str, extra: &str) -> String {
    format!(
        "apiVersion: stable.example.com/v1\nkind: CronTab\nmetadata: {{name: {name}}}\nspec:\n  \
         cronSpec: \"{spec}\"\n{extra}"
    )
}

#[test]
fn a_session_with_a_custom_kind() {
    let mut cluster = Cluster::without_node(8);
    let unknown = cluster.fails(&["get", "crontabs"]);
    assert!(
        unknown.contains("the server doesn't have a resource type \"crontabs\""),
        "{unknown}"
    );
    let said = cluster.apply(DEFINITION);
    assert_eq!(
        said,
        "customresourcedefinition.apiextensions.k8s.io/crontabs.stable.example.com created\n"
    );
    let said = cluster.ok(&[
        "wait",
        "--for=condition=established",
        "--timeout=60s",
        "crd/crontabs.stable.example.com",
    ]);
    assert!(said.contains("condition met"), "{said}");
    let said = cluster.apply(DEFINITION);
    assert!(said.contains("unchanged"), "{said}");
    let table = cluster.ok(&["get", "crd"]);
    assert!(table.contains("crontabs.stable.example.com"), "{table}");
    working(&mut cluster);
    explaining(&cluster);
    changing(&mut cluster);
    ending(&mut cluster);
}

fn working(cluster: &mut Cluster) {
    let said = cluster.apply(&tab("my-tab", "* * * * */5", "  image: one\n"));
    assert_eq!(said, "crontab.stable.example.com/my-tab created\n");
    let table = cluster.ok(&["get", "ct"]);
    let head: Vec<&str> = table
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    assert_eq!(head, ["NAME", "SPEC", "REPLICAS", "AGE"], "{table}");
    assert!(table.contains("my-tab   * * * * */5   1 "), "{table}");
    let all = cluster.ok(&["get", "all", "-o", "name"]);
    assert!(all.contains("crontab.stable.example.com/my-tab"), "{all}");
    let listed = cluster.ok(&["api-resources", "--api-group=stable.example.com"]);
    assert!(
        listed.contains("ct") && listed.contains("stable.example.com/v1"),
        "{listed}"
    );
    for (manifest, text) in [
        (
            tab("wrong", "never", ""),
            "spec.cronSpec: Invalid value: \"never\": spec.cronSpec in body should match",
        ),
        (
            tab("wrong", "* * * * *", "  replicas: 7\n"),
            "spec: Invalid value: at most five",
        ),
        (
            tab("wrong", "* * * * *", "  bogus: 1\n"),
            "strict decoding error: unknown field \"spec.bogus\"",
        ),
    ] {
        let answer = cluster.kubectl_with(&["apply", "-f", "-"], &manifest);
        assert_ne!(answer.code, 0, "{manifest}");
        // Before 1.25 kubectl looks at fields itself, by the published schema.
        let by_client = r#"unknown field "bogus" in com.example.stable.v1.CronTab.spec"#;
        let said = answer.err.contains(text) || answer.err.contains(by_client);
        assert!(said, "{}", answer.all());
    }
    let server_side = cluster.kubectl_with(
        &["apply", "--server-side", "--field-manager=me", "-f", "-"],
        &tab("other", "1 * * * *", "  replicas: 2\n"),
    );
    assert_eq!(server_side.code, 0, "{}", server_side.all());
    let said = cluster.ok(&["describe", "ct", "other"]);
    assert!(
        said.contains("Cron Spec:") && said.contains("1 * * * *"),
        "{said}"
    );
}

fn explaining(cluster: &Cluster) {
    // Clients differ in how they set the words.
    let explain = |path: &str| {
        let said = cluster.ok(&["explain", path]);
        said.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let said = explain("crontabs");
    for part in [
        "stable.example.com",
        "KIND: CronTab",
        "CronTab runs something at certain times.",
        "What is wanted.",
    ] {
        assert!(said.contains(part), "{part} is missing:\n{said}");
    }
    let said = explain("ct.spec.cronSpec");
    assert!(
        said.contains("FIELD: cronSpec <string>") && said.contains("When it runs, in five fields."),
        "{said}"
    );
    let said = cluster.ok(&["explain", "ct.metadata.labels"]);
    assert!(said.contains("map[string]string"), "{said}");
}

fn changing(cluster: &mut Cluster) {
    let said = cluster.apply(&tab("my-tab", "2 * * * *", "  image: two\n"));
    assert_eq!(said, "crontab.stable.example.com/my-tab configured\n");
    assert_eq!(cluster.value("ct my-tab", "{.spec.image}"), "two");
    assert_eq!(cluster.value("ct my-tab", "{.metadata.generation}"), "2");
    let said = cluster.ok(&["scale", "ct/my-tab", "--replicas=3"]);
    assert!(said.contains("scaled"), "{said}");
    assert_eq!(cluster.value("ct my-tab", "{.spec.replicas}"), "3");
    cluster.ok(&["label", "ct", "my-tab", "team=a"]);
    // `kubectl patch --subresource` came with 1.24.
    let mut told: Value =
        serde_json::from_str(&cluster.ok(&["get", "ct", "my-tab", "-o", "json"])).expect("JSON");
    told["status"]["replicas"] = 3.into();
    let path = "/apis/stable.example.com/v1/namespaces/default/crontabs/my-tab/status";
    let replaced = cluster.kubectl_with(&["replace", "--raw", path, "-f", "-"], &told.to_string());
    assert_eq!(replaced.code, 0, "{}", replaced.all());
    assert_eq!(cluster.value("ct my-tab", "{.status.replicas}"), "3");
    // An editor that changes a word, as a person would.
    let edited = cluster.kubectl_env(
        "KUBE_EDITOR",
        "sed -i s/two/three/",
        &["edit", "ct", "my-tab"],
    );
    assert_eq!(edited.code, 0, "{}", edited.all());
    assert_eq!(cluster.value("ct my-tab", "{.spec.image}"), "three");
    let diff = cluster.kubectl_with(&["diff", "-f", "-"], &tab("my-tab", "3 * * * *", ""));
    assert_eq!(diff.code, 1, "{}", diff.all());
    assert!(
        diff.out.contains("+  cronSpec: 3 * * * *"),
        "{}",
        diff.all()
    );
}

fn ending(cluster: &mut Cluster) {
    cluster.ok(&["delete", "ct", "other"]);
    let said = cluster.ok(&[
        "delete",
        "crd",
        "crontabs.stable.example.com",
        "--timeout=60s",
    ]);
    assert!(said.contains("deleted"), "{said}");
    cluster.until("the kind is gone", |cluster| {
        let answer = cluster.kubectl(&["get", "crontabs"]);
        // The second where kubectl remembers what it discovered.
        [
            "the server doesn't have a resource type",
            "the server could not find the requested resource",
        ]
        .iter()
        .any(|gone| answer.err.contains(gone))
        .then_some(())
    });
}
