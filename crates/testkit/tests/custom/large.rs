//! A definition as large as those that people install, and very many small ones.

use super::*;

/// A pod template's worth of schema, repeated for several workloads: wide, deep and wordy.
fn machines() -> Value {
    let words = "What this field means is said at length, because generators copy the comments of \
                 the types into the schema, and people read them with explain.";
    let text = || json!({"type": "string", "description": words});
    let mut containers = json!({"type": "array", "description": words,
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": {"type": "object", "required": ["name"], "properties": {"name": text()}}});
    for index in 0..60 {
        containers["items"]["properties"][format!("field{index}")] = match index % 6 {
            0 => text(),
            1 => json!({"type": "integer", "format": "int32", "minimum": 0, "description": words}),
            2 => json!({"x-kubernetes-int-or-string": true,
                "anyOf": [{"type": "integer"}, {"type": "string"}], "description": words,
                "pattern": "^(\\+|-)?(([0-9]+(\\.[0-9]*)?)|(\\.[0-9]+))(([KMGTPE]i)|[numkMGTPE])?$"}),
            3 => json!({"type": "object", "additionalProperties": {"type": "string"}}),
            4 => json!({"type": "array", "items": {"type": "object", "properties": {
                "key": text(), "operator": text(),
                "values": {"type": "array", "items": {"type": "string"}}}}}),
            _ => json!({"type": "object", "properties": {"enabled": {"type": "boolean"},
                "limits": {"type": "object", "additionalProperties": {
                    "x-kubernetes-int-or-string": true,
                    "anyOf": [{"type": "integer"}, {"type": "string"}]}}}}),
        };
    }
    let mut template = json!({"type": "object", "description": words, "properties": {
        "containers": containers.clone(), "initContainers": containers,
        "strategy": {"type": "object", "properties": {"type": {"type": "string"},
            "rollingUpdate": {"type": "object"}, "recreate": {"type": "object"}},
            "oneOf": [{"required": ["rollingUpdate"]}, {"required": ["recreate"]}]},
    }});
    for index in 0..40 {
        template["properties"][format!("option{index}")] = text();
    }
    json!({
        "metadata": {"name": "machines.big.example.com"},
        "spec": {"group": "big.example.com", "scope": "Namespaced",
            "names": {"plural": "machines", "kind": "Machine"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"web": template.clone(),
                        "worker": template.clone(), "batch": template}},
                    "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                }}}}]},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_schema_holds() {
    let (_cluster, admin) = open().await;
    let definition = machines();
    assert!(definition.to_string().len() > 100_000);
    establish(&admin, &definition).await;
    let all = format!("/apis/big.example.com/v1/namespaces/{NAMESPACE}/machines");
    let machine = |strategy: Value| {
        json!({"apiVersion": "big.example.com/v1", "kind": "Machine",
            "metadata": {"name": "m"}, "spec": {"web": {
            "containers": [{"name": "a", "field1": 5, "field2": "1Gi", "field8": 3, "nope": 1,
                "field4": [{"key": "k", "values": ["v"]}], "field5": {"limits": {"cpu": 1}}}],
            "strategy": strategy}}})
    };
    let wrong = admin
        .post(&all, &machine(json!({"type": "x"})))
        .await
        .expect(422);
    assert!(
        wrong.message().contains(
            "<nil>: Invalid value: \"\": \"spec.web.strategy\" must validate one and only one \
             schema (oneOf). Found none valid"
        ),
        "{}",
        wrong.message()
    );
    let made = admin
        .post(&all, &machine(json!({"type": "x", "recreate": {}})))
        .await
        .expect(201);
    assert_eq!(
        made.warnings,
        ["299 - \"unknown field \\\"spec.web.containers[0].nope\\\"\""]
    );
    let container = &made.body["spec"]["web"]["containers"][0];
    assert_eq!(container["field2"], "1Gi");
    assert!(container.get("nope").is_none());
    let document = admin
        .get("/openapi/v3/apis/big.example.com/v1")
        .await
        .expect(200)
        .body;
    let model = &document["components"]["schemas"]["com.example.big.v1.Machine"];
    assert!(model["properties"]["spec"]["properties"]["web"]["description"].is_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_definitions_are_served_side_by_side() {
    const MANY: usize = 40;
    let (_cluster, admin) = open().await;
    let mut made = tokio::task::JoinSet::new();
    for index in 0..MANY {
        let admin = admin.clone();
        made.spawn(async move {
            let definition = json!({
                "metadata": {"name": format!("things{index}.many.example.com")},
                "spec": {"group": "many.example.com", "scope": "Cluster",
                    "names": {"plural": format!("things{index}"), "kind": format!("Thing{index}")},
                    "versions": [{"name": "v1", "served": true, "storage": true,
                        "schema": {"openAPIV3Schema": {"type": "object",
                            "x-kubernetes-preserve-unknown-fields": true}}}]}});
            establish(&admin, &definition).await;
            let all = format!("/apis/many.example.com/v1/things{index}");
            let thing = json!({"apiVersion": "many.example.com/v1", "kind": format!("Thing{index}"),
                "metadata": {"name": "t"}, "spec": {"any": index}});
            let made = admin.post(&all, &thing).await.expect(201).body;
            assert_eq!(made["spec"]["any"], index);
            assert_eq!(made["kind"], format!("Thing{index}"));
        });
    }
    while let Some(done) = made.join_next().await {
        done.unwrap();
    }
    let resources = admin
        .get("/apis/many.example.com/v1")
        .await
        .expect(200)
        .body;
    assert_eq!(resources["resources"].as_array().unwrap().len(), MANY);
}

/// Resident memory of this process, in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Prints what a thousand definitions cost. Run by hand: it takes a while and asserts no figure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn a_thousand_definitions_are_weighed() {
    const MANY: usize = 1_000;
    let (_cluster, admin) = open().await;
    let words = "A description of the usual length, which generators copy from comments.";
    let mut properties = json!({});
    for field in 0..60 {
        properties[format!("field{field}")] = json!({"type": "string", "description": words});
    }
    let before = resident();
    let began = std::time::Instant::now();
    let mut bytes = 0;
    for index in 0..MANY {
        let definition = json!({
            "metadata": {"name": format!("things{index}.many{}.example.com", index % 50)},
            "spec": {"group": format!("many{}.example.com", index % 50), "scope": "Cluster",
                "names": {"plural": format!("things{index}"), "kind": format!("Thing{index}")},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                        "spec": {"type": "object", "properties": properties}}}}}]}});
        bytes += definition.to_string().len();
        admin.post(DEFINITIONS, &definition).await.expect(201);
    }
    let last = format!(
        "/apis/many{}.example.com/v1/things{}",
        (MANY - 1) % 50,
        MANY - 1
    );
    until("the last one", || async {
        (admin.get(&last).await.code == 200).then_some(())
    })
    .await;
    println!(
        "{MANY} definitions of {} KiB in all: {:?}, {} KiB more resident",
        bytes >> 10,
        began.elapsed(),
        resident().saturating_sub(before)
    );
    let began = std::time::Instant::now();
    admin.get("/openapi/v3").await.expect(200);
    println!("index of OpenAPI: {:?}", began.elapsed());
    let began = std::time::Instant::now();
    admin
        .get_as(
            "/apis",
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        )
        .await
        .expect(200);
    println!("aggregated discovery: {:?}", began.elapsed());
    println!("{} KiB more resident", resident().saturating_sub(before));
    let began = std::time::Instant::now();
    let mut one = cron_tabs();
    one["metadata"]["name"] = "crontabs.stable.example.com".into();
    establish(&admin, &one).await;
    admin.get(&path()).await.expect(200);
    println!(
        "one more, from its creation to its first list: {:?}",
        began.elapsed()
    );
}
