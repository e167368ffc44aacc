//! Gangs on the whole cluster in a process: the door's rules and rights, the scheduler under its own
//! identity, what `PodGroup` and `Pod` say meanwhile, and the end of a group.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use evenkeel_server::Identity;
use evenkeel_testkit::{ADMIN, BOUND, Caller, Cluster};
use serde_json::{Value, json};

const CORE: &str = "/api/v1/namespaces/default";
const GROUPS: &str = "/apis/scheduling.k8s.io/v1beta1/namespaces/default/podgroups";
const GATE: &str = "GenericWorkload";

fn group(name: &str, min: i64) -> Value {
    json!({
        "apiVersion": "scheduling.k8s.io/v1beta1", "kind": "PodGroup", "metadata": {"name": name},
        "spec": {"schedulingPolicy": {"gang": {"minCount": min}}},
    })
}

fn pod(name: &str, group: &str, cpu: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "containers": [{"name": "main", "image": "app:1",
                "resources": {"requests": {"cpu": cpu}}}],
            "schedulingGroup": {"podGroupName": group},
            "terminationGracePeriodSeconds": 0,
        },
    })
}

fn condition<'a>(group: &'a Value, name: &str) -> &'a Value {
    let all = group["status"]["conditions"].as_array();
    all.and_then(|all| all.iter().find(|it| it["type"] == name))
        .unwrap_or(&Value::Null)
}

async fn account(admin: &Caller) {
    admin
        .until(
            &format!("{CORE}/serviceaccounts/default"),
            "the account",
            |it| it["kind"] == "ServiceAccount",
        )
        .await;
}

async fn why(cluster: &Cluster, question: &str, words: &[&str]) {
    let mut last = String::new();
    let asking = async {
        loop {
            let found = evenkeel_explain::why(&cluster.admin(), question, "default").await;
            last = found.map_or_else(|error| error.to_string(), |chain| chain.to_string());
            if words.iter().all(|word| last.contains(word)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(BOUND, asking).await.is_err() {
        panic!("{question} does not say {words:?}, but:\n{last}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gang_comes_as_a_whole_and_says_what_it_waits_for() {
    let mut cluster = Cluster::door_options(|options| options.gates = vec![GATE.to_owned()]).await;
    cluster.run_loops();
    let admin = cluster.caller(Identity::user("admin", &[ADMIN]));
    let node = cluster.node("one");
    node.images.put("app:1");
    account(&admin).await;
    let pods = format!("{CORE}/pods");
    // The fake node has some CPU; two thirds of it fit once.
    let ready = admin
        .until("/api/v1/nodes/one", "the node", |it| {
            it["status"]["allocatable"]["cpu"].is_string()
        })
        .await;
    let cpu = ready["status"]["allocatable"]["cpu"].as_str().unwrap();
    let cpu: evenkeel_api::quantity::Quantity = cpu.parse().unwrap();
    let large = format!("{}m", cpu.milli() * 2 / 3);
    // No group yet.
    admin
        .post(&pods, &pod("a", "trainers", "1m"))
        .await
        .expect(201);
    why(
        &cluster,
        "pod/a",
        &["waits for the other pods of its group", "does not exist"],
    )
    .await;
    // A group, and too few pods.
    let made = admin.post(GROUPS, &group("trainers", 3)).await.expect(201);
    let finalizer = "scheduling.k8s.io/podgroup-protection";
    assert_eq!(made.body["metadata"]["finalizers"], json!([finalizer]));
    assert_eq!(made.body["spec"]["priority"], 0);
    admin
        .post(&pods, &pod("b", "trainers", &large))
        .await
        .expect(201);
    let few = ["places at least 3 pods at once, and 2 of them exist"];
    why(&cluster, "pod/b", &few).await;
    why(&cluster, "podgroup/trainers", &few).await;
    // Enough pods, and too little room: nobody gets a node.
    admin
        .post(&pods, &pod("c", "trainers", &large))
        .await
        .expect(201);
    let path = format!("{GROUPS}/trainers");
    let told = admin
        .until(&path, "the group says that it waits", |it| {
            condition(it, "PodGroupInitiallyScheduled")["status"] == "False"
        })
        .await;
    let told = condition(&told, "PodGroupInitiallyScheduled");
    assert_eq!(told["reason"], "Unschedulable");
    let text = told["message"].as_str().unwrap();
    assert!(
        text.starts_with("minCount (3) cannot be satisfied: 2 scheduled, 0 remaining"),
        "{text}"
    );
    why(
        &cluster,
        "pod/a",
        &[
            "minCount (3) cannot be satisfied",
            "Insufficient cpu",
            "next:",
        ],
    )
    .await;
    let all = admin.get(&pods).await.expect(200).body;
    let all = all["items"].as_array().unwrap();
    assert!(
        all.iter().all(|pod| pod["spec"]["nodeName"].is_null()),
        "{all:#?}"
    );
    // Room for all of them.
    let second = cluster.node("two");
    second.images.put("app:1");
    for name in ["a", "b", "c"] {
        admin
            .until(&format!("{pods}/{name}"), "its node", |pod| {
                pod["spec"]["nodeName"].is_string()
            })
            .await;
    }
    let done = admin
        .until(&path, "the group says that it is placed", |it| {
            condition(it, "PodGroupInitiallyScheduled")["status"] == "True"
        })
        .await;
    let told = condition(&done, "PodGroupInitiallyScheduled");
    assert_eq!(told["reason"], "Scheduled", "{done:#}");
    // The group stays until its pods are gone.
    admin.delete(&path, None).await.expect(200);
    let still = admin.get(&path).await.expect(200).body;
    assert!(still["metadata"]["deletionTimestamp"].is_string());
    for name in ["a", "b", "c"] {
        admin
            .delete(&format!("{pods}/{name}"), None)
            .await
            .expect(200);
    }
    admin
        .until(&path, "the group is gone", |it| it["code"] == 404)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_gate_there_are_no_groups_and_pods_belong_to_none() {
    let cluster = Cluster::start().await;
    let admin = cluster.caller(Identity::user("admin", &[ADMIN]));
    let _node = cluster.node("one");
    account(&admin).await;
    admin.get(GROUPS).await.expect(404);
    let pods = format!("{CORE}/pods");
    let told = "299 - \"spec.schedulingGroup: dropped, its feature gate GenericWorkload is closed \
                (--feature-gates GenericWorkload=true opens it)\"";
    let made = admin.post(&pods, &pod("a", "trainers", "1m")).await;
    let made = made.expect(201);
    assert_eq!(made.warnings, [told]);
    let made = made.body;
    assert_eq!(made["spec"]["schedulingGroup"], Value::Null, "{made:#}");
    // Who is refused is told too.
    let again = admin.post(&pods, &pod("a", "trainers", "1m")).await;
    assert_eq!(again.expect(409).warnings, [told]);
    why(&cluster, "pod/a", &["is ready"]).await;
}
