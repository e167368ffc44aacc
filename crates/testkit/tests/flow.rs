//! Priority and fairness through the door: the objects that a cluster has from the start, and that
//! one greedy client does not starve another.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use evenkeel_server::Identity;
use evenkeel_testkit::{ADMIN, Caller, Cluster, Reply, until};
use serde_json::{Value, json};

const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";
const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
const MERGE_PATCH: &str = "application/merge-patch+json";

fn admin(cluster: &Cluster) -> Caller {
    cluster.caller(Identity::user("admin", &[ADMIN]))
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap().iter();
    items
        .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

fn dangling(schema: &Value) -> Option<(String, String)> {
    let condition = schema["status"]["conditions"].as_array()?.first()?;
    assert_eq!(condition["type"], "Dangling");
    Some((
        condition["status"].as_str()?.to_owned(),
        condition["message"].as_str()?.to_owned(),
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_has_the_references_levels_and_schemas() {
    let cluster = Cluster::door().await;
    let admin = admin(&cluster);
    let levels = admin.get(LEVELS).await.expect(200).body;
    assert_eq!(
        names(&levels),
        [
            "catch-all",
            "exempt",
            "global-default",
            "leader-election",
            "node-high",
            "system",
            "workload-high",
            "workload-low"
        ]
    );
    let schemas = admin.get(SCHEMAS).await.expect(200).body;
    assert_eq!(
        names(&schemas),
        [
            "catch-all",
            "exempt",
            "global-default",
            "kube-controller-manager",
            "kube-scheduler",
            "kube-system-service-accounts",
            "probes",
            "service-accounts",
            "system-leader-election",
            "system-node-high",
            "system-nodes"
        ]
    );
    for schema in schemas["items"].as_array().unwrap() {
        assert_eq!(schema["metadata"]["annotations"][AUTOUPDATE], "true");
        let (status, message) = dangling(schema).unwrap();
        let level = &schema["spec"]["priorityLevelConfiguration"]["name"];
        assert_eq!(status, "False");
        assert_eq!(
            message,
            format!(
                "This FlowSchema references the PriorityLevelConfiguration object named {level} \
                 and it exists"
            )
        );
        let managers: Vec<&str> = schema["metadata"]["managedFields"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["manager"].as_str().unwrap())
            .collect();
        let ours = "api-priority-and-fairness-config-";
        assert!(
            managers.iter().all(|name| name.starts_with(ours)),
            "{managers:?}"
        );
    }
    let revision = |list: &Value| -> Vec<Value> {
        let items = list["items"].as_array().unwrap().iter();
        items
            .map(|item| item["metadata"]["resourceVersion"].clone())
            .collect()
    };
    let before = (revision(&levels), revision(&schemas));
    // What is as it should be is not written again.
    let cluster = cluster.restarted().await;
    let admin = self::admin(&cluster);
    let levels = admin.get(LEVELS).await.expect(200).body;
    let schemas = admin.get(SCHEMAS).await.expect(200).body;
    assert_eq!((revision(&levels), revision(&schemas)), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_change_stays_and_what_is_mandatory_comes_back() {
    let cluster = Cluster::door().await;
    let admin = admin(&cluster);
    let shares = |shares: i64, annotation: &str| {
        json!({"metadata": {"annotations": {AUTOUPDATE: annotation}},
            "spec": {"limited": {"nominalConcurrencyShares": shares}}})
    };
    let system = format!("{LEVELS}/system");
    let low = format!("{LEVELS}/workload-low");
    admin
        .patch(&system, MERGE_PATCH, &shares(77, "false"))
        .await
        .expect(200);
    admin
        .patch(&low, MERGE_PATCH, &shares(77, "true"))
        .await
        .expect(200);
    // The share of exempt traffic may be changed, and stays.
    let exempt = json!({"spec": {"exempt": {"nominalConcurrencyShares": 9}}});
    admin
        .patch(&format!("{LEVELS}/exempt"), MERGE_PATCH, &exempt)
        .await
        .expect(200);
    admin
        .delete(&format!("{LEVELS}/catch-all"), None)
        .await
        .expect(200);
    admin
        .delete(&format!("{SCHEMAS}/catch-all"), None)
        .await
        .expect(200);
    admin
        .delete(&format!("{SCHEMAS}/global-default"), None)
        .await
        .expect(200);
    // A default of an earlier version, and somebody's own.
    let level = |name: &str, annotations: Value| {
        json!({"metadata": {"name": name, "annotations": annotations}, "spec": {"type": "Limited",
            "limited": {"limitResponse": {"type": "Reject"}}}})
    };
    let old = level("old", json!({AUTOUPDATE: "true"}));
    admin.post(LEVELS, &old).await.expect(201);
    admin
        .post(LEVELS, &level("own", json!({})))
        .await
        .expect(201);
    let cluster = cluster.restarted().await;
    let admin = self::admin(&cluster);
    let found = async |path: String, field: &str| {
        let body = admin.get(&path).await.expect(200).body;
        body["spec"][field]["nominalConcurrencyShares"].clone()
    };
    assert_eq!(found(system, "limited").await, 77);
    assert_eq!(found(low, "limited").await, 100);
    assert_eq!(found(format!("{LEVELS}/exempt"), "exempt").await, 9);
    assert_eq!(found(format!("{LEVELS}/catch-all"), "limited").await, 5);
    admin.get(&format!("{SCHEMAS}/catch-all")).await.expect(200);
    admin
        .get(&format!("{SCHEMAS}/global-default"))
        .await
        .expect(200);
    admin.get(&format!("{LEVELS}/old")).await.expect(404);
    admin.get(&format!("{LEVELS}/own")).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_says_whether_its_level_is_there_and_answers_say_the_schema() {
    let cluster = Cluster::door().await;
    let admin = admin(&cluster);
    let ann = cluster.caller(Identity::user("ann", &[]));
    let schema = json!({"metadata": {"name": "mine"}, "spec": {
        "priorityLevelConfiguration": {"name": "mine"}, "matchingPrecedence": 20,
        "rules": [{"subjects": [{"kind": "User", "user": {"name": "ann"}}],
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/version"]}]}],
    }});
    let schema = admin.post(SCHEMAS, &schema).await.expect(201).body;
    let path = format!("{SCHEMAS}/mine");
    let told = async |wanted: &'static str| {
        until("the condition", || async {
            let found = admin.get(&path).await.expect(200).body;
            dangling(&found).filter(|(status, _)| status == wanted)
        })
        .await
    };
    let (_, message) = told("True").await;
    assert!(
        message.ends_with("\"mine\" but there is no such object"),
        "{message}"
    );
    let uid = |object: &Value| object["metadata"]["uid"].as_str().unwrap().to_owned();
    let general = admin.get(&format!("{SCHEMAS}/global-default")).await.body;
    let reply = ann.get("/version").await.expect(200);
    assert_eq!(
        reply.header("x-kubernetes-pf-flowschema-uid"),
        uid(&general)
    );
    let level = json!({"metadata": {"name": "mine"}, "spec": {"type": "Limited",
        "limited": {"nominalConcurrencyShares": 5, "limitResponse": {"type": "Reject"}}}});
    let level = admin.post(LEVELS, &level).await.expect(201).body;
    told("False").await;
    let reply = ann.get("/version").await.expect(200);
    assert_eq!(reply.header("x-kubernetes-pf-flowschema-uid"), uid(&schema));
    assert_eq!(
        reply.header("x-kubernetes-pf-prioritylevel-uid"),
        uid(&level)
    );
    // Refusals say it too.
    let refused = ann.get("/api/v1/nodes").await.expect(403);
    assert_eq!(
        refused.header("x-kubernetes-pf-flowschema-uid"),
        uid(&general)
    );
    let metrics = admin.get("/metrics").await.expect(200);
    let text = metrics.body.as_str().unwrap();
    let labels = "{priority_level=\"mine\",flow_schema=\"mine\"}";
    let counted = format!("apiserver_flowcontrol_dispatched_requests_total{labels} 1");
    assert!(text.contains(&counted), "{text}");
    let page = "/debug/api_priority_and_fairness/dump_priority_levels";
    let page = admin.get(page).await.expect(200);
    assert!(
        page.body.as_str().unwrap().contains("mine,"),
        "{:?}",
        page.body
    );
    // The one who asks is served while he does.
    let page = "/debug/api_priority_and_fairness/dump_requests";
    let page = admin.get(page).await.expect(200);
    let text = page.body.as_str().unwrap();
    let own = text.lines().find(|line| line.starts_with("exempt,"));
    let own: Vec<&str> = own.unwrap_or(text).split(',').map(str::trim).collect();
    assert_eq!(own[1..4], ["exempt", "-1", "-1"], "{text}");
    assert!(own[9] > "2000-", "{text}");
    ann.get("/debug/api_priority_and_fairness/dump_queues")
        .await
        .expect(403);
}

/// A namespace in which two people may write.
async fn shop(cluster: &Cluster) -> [Caller; 2] {
    let admin = admin(cluster);
    let namespace = json!({"metadata": {"name": "shop"}});
    admin
        .post("/api/v1/namespaces", &namespace)
        .await
        .expect(201);
    let role = json!({"metadata": {"name": "both"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
            "name": "cluster-admin"},
        "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "both"}]});
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    admin.post(path, &role).await.expect(201);
    ["greedy", "modest"].map(|name| cluster.caller(Identity::user(name, &["both"])))
}

fn config(name: String) -> Value {
    json!({"metadata": {"name": name}, "data": {"key": "value"}})
}

const CONFIGS: &str = "/api/v1/namespaces/shop/configmaps";

#[tokio::test(flavor = "multi_thread")]
async fn one_greedy_client_never_starves_another() {
    // The level of people has two seats.
    let cluster = Cluster::door_options(|door| door.seats = 20).await;
    let [greedy, modest] = shop(&cluster).await;
    let flood: Vec<_> = (0..600)
        .map(|number| {
            let greedy = greedy.clone();
            let body = config(format!("greedy-{number}"));
            tokio::spawn(async move { greedy.post(CONFIGS, &body).await })
        })
        .collect();
    let mut served = 0;
    for number in 0..30 {
        let body = config(format!("modest-{number}"));
        modest.post(CONFIGS, &body).await.expect(201);
        served += 1;
    }
    assert_eq!(served, 30);
    let mut refused: Vec<Reply> = Vec::new();
    for one in flood {
        let reply = one.await.unwrap();
        match reply.code {
            201 => {}
            429 => refused.push(reply),
            _ => panic!("{:?}", reply.body),
        }
    }
    // Six queues of fifty and two seats: the rest of six hundred at once is told to come again,
    // unless the door was faster than the flood.
    for reply in refused {
        assert_eq!(reply.body, "Too many requests, please try again later.\n");
        assert_eq!(reply.content_type, "text/plain; charset=utf-8");
        assert!(reply.header("retry-after").parse::<u64>().unwrap() >= 1);
        assert!(!reply.header("x-kubernetes-pf-flowschema-uid").is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_level_without_seats_refuses_and_one_beside_it_serves() {
    let cluster = Cluster::door().await;
    let admin = admin(&cluster);
    let [greedy, modest] = shop(&cluster).await;
    let level = json!({"metadata": {"name": "none"}, "spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": 0, "borrowingLimitPercent": 0,
        "limitResponse": {"type": "Queue",
            "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 1}},
    }}});
    admin.post(LEVELS, &level).await.expect(201);
    let schema = json!({"metadata": {"name": "none"}, "spec": {
        "priorityLevelConfiguration": {"name": "none"}, "matchingPrecedence": 20,
        "rules": [{"subjects": [{"kind": "User", "user": {"name": "greedy"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
                "namespaces": ["*"]}]}],
    }});
    admin.post(SCHEMAS, &schema).await.expect(201);
    until("the schema leads there", || async {
        let found = admin.get(&format!("{SCHEMAS}/none")).await.expect(200).body;
        dangling(&found).filter(|(status, _)| status == "False")
    })
    .await;
    // One waits, in vain; all beyond it are refused at once.
    let waits = Arc::new(greedy.clone());
    let waiting = tokio::spawn(async move { waits.get(&format!("{CONFIGS}?timeout=60s")).await });
    let refused = until("the queue is full", || async {
        let reply = greedy.get(&format!("{CONFIGS}?timeout=1ms")).await;
        assert_eq!(reply.code, 429);
        let metrics = admin.get("/metrics").await.expect(200);
        let text = metrics.body.as_str().unwrap().to_owned();
        text.contains("flow_schema=\"none\",reason=\"queue-full\"")
            .then_some(reply)
    })
    .await;
    assert_eq!(refused.code, 429);
    modest.get(CONFIGS).await.expect(200);
    // Streams need no seats, and who may do everything needs none either.
    greedy
        .get("/api/v1/namespaces/shop/pods/x/log")
        .await
        .expect(404);
    admin.get(CONFIGS).await.expect(200);
    // It would wait for a quarter of a minute.
    waiting.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_hold_no_seats_once_they_have_begun() {
    let cluster = Cluster::door_options(|door| door.seats = 20).await;
    let admin = admin(&cluster);
    let [watcher, other] = shop(&cluster).await;
    let mut watches = Vec::new();
    for _ in 0..50 {
        let watch = watcher.watch(&format!("{CONFIGS}?watch=true")).await;
        assert_eq!(watch.code, 200);
        watches.push(watch);
    }
    other
        .post(CONFIGS, &config("one".to_owned()))
        .await
        .expect(201);
    for watch in &mut watches {
        assert_eq!(watch.event().await.1, "one");
    }
    let text = async || {
        let metrics = admin.get("/metrics").await.expect(200);
        metrics.body.as_str().unwrap().to_owned()
    };
    let running = "apiserver_longrunning_requests{verb=\"WATCH\",group=\"\",version=\"v1\",\
                   resource=\"configmaps\",subresource=\"\",scope=\"namespace\",\
                   component=\"apiserver\"} 50";
    assert!(text().await.contains(running));
    drop(watches);
    assert!(
        !text()
            .await
            .contains("apiserver_longrunning_requests{verb=\"WATCH\"")
    );
}
