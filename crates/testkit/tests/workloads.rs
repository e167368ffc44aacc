//! The workload kinds on the whole cluster in a process: the real door and its rules, the real
//! loops under their own identities, the scheduler, and agents whose containers are pretended.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use evenkeel_node::testing::Behaviour;
use evenkeel_server::Identity;
use evenkeel_testkit::{ADMIN, Caller, Cluster, Reply};
use serde_json::{Value, json};

const APPS: &str = "/apis/apps/v1/namespaces/default";
const BATCH: &str = "/apis/batch/v1/namespaces/default";
const CORE: &str = "/api/v1/namespaces/default";
const POLICY: &str = "/apis/policy/v1/namespaces/default";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const MERGE: &str = "application/merge-patch+json";

fn admin(cluster: &Cluster) -> Caller {
    cluster.caller(Identity::user("admin", &[ADMIN]))
}

/// Creates once the namespace has what pods need.
async fn create(caller: &Caller, path: &str, object: &Value) -> Reply {
    caller
        .until(
            &format!("{CORE}/serviceaccounts/default"),
            "the account",
            |it| it["kind"] == "ServiceAccount",
        )
        .await;
    caller.post(path, object).await.expect(201)
}

fn template(app: &str, image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": app}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": app, "image": image}],
        },
    })
}

fn numbers(value: &Value, names: &[&str]) -> Vec<i64> {
    let number = |name: &&str| value["status"][*name].as_i64().unwrap_or(0);
    names.iter().map(number).collect()
}

async fn revisions(caller: &Caller, app: &str) -> Vec<Value> {
    let path = format!("{APPS}/controllerrevisions?labelSelector=app%3D{app}");
    let list = caller.get(&path).await.expect(200).body;
    let mut found = list["items"].as_array().unwrap().clone();
    found.sort_by_key(|it| it["revision"].as_i64());
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_comes_up_rolls_and_goes_back() {
    let cluster = Cluster::start().await;
    let admin = admin(&cluster);
    let _node = cluster.node("one");
    let set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"},
        "spec": {
            "replicas": 2, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
            "template": template("db", "db:1"),
        },
    });
    create(&admin, &format!("{APPS}/statefulsets"), &set).await;
    let path = format!("{APPS}/statefulsets/db");
    let counts = [
        "readyReplicas",
        "updatedReplicas",
        "currentReplicas",
        "observedGeneration",
    ];
    let arrived = |generation: i64| {
        move |it: &Value| {
            numbers(it, &counts) == [2, 2, 2, generation]
                && it["status"]["currentRevision"] == it["status"]["updateRevision"]
        }
    };
    admin.until(&path, "two pods", arrived(1)).await;
    let pod = admin
        .get(&format!("{CORE}/pods/db-1"))
        .await
        .expect(200)
        .body;
    assert_eq!(pod["spec"]["hostname"], "db-1");
    assert_eq!(
        pod["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"],
        "db-1"
    );
    let image = json!({"spec": {"template": {"spec": {
        "containers": [{"name": "db", "image": "db:2"}],
    }}}});
    admin.patch(&path, STRATEGIC, &image).await.expect(200);
    admin.until(&path, "the roll-out", arrived(2)).await;
    // What kubectl's undo sends is what the revision holds.
    let first = revisions(&admin, "db").await.remove(0);
    admin
        .patch(&path, STRATEGIC, &first["data"])
        .await
        .expect(200);
    let back = admin.until(&path, "the way back", arrived(3)).await;
    assert_eq!(
        back["spec"]["template"]["spec"]["containers"][0]["image"],
        "db:1"
    );
    let numbers: Vec<_> = revisions(&admin, "db")
        .await
        .iter()
        .map(|it| it["revision"].as_i64())
        .collect();
    assert_eq!(numbers, [Some(2), Some(3)]);
    let scale = json!({"spec": {"replicas": 1}});
    admin
        .patch(&format!("{path}/scale"), MERGE, &scale)
        .await
        .expect(200);
    admin
        .until(&format!("{CORE}/pods/db-1"), "the end of the last", |it| {
            it["code"] == 404
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_set_is_on_every_node_and_rolls() {
    let cluster = Cluster::start().await;
    let admin = admin(&cluster);
    let _nodes = (cluster.node("one"), cluster.node("two"));
    let set = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agent"},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}}, "template": template("agent", "a:1"),
            "updateStrategy": {
                "type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
        },
    });
    create(&admin, &format!("{APPS}/daemonsets"), &set).await;
    let path = format!("{APPS}/daemonsets/agent");
    let counts = [
        "desiredNumberScheduled",
        "numberAvailable",
        "updatedNumberScheduled",
        "observedGeneration",
    ];
    let arrived = |generation: i64| move |it: &Value| numbers(it, &counts) == [2, 2, 2, generation];
    admin.until(&path, "a pod on each node", arrived(1)).await;
    let image = json!({"spec": {"template": {"spec": {
        "containers": [{"name": "agent", "image": "a:2"}],
    }}}});
    admin.patch(&path, STRATEGIC, &image).await.expect(200);
    admin.until(&path, "the roll-out", arrived(2)).await;
    let first = revisions(&admin, "agent").await.remove(0);
    admin
        .patch(&path, STRATEGIC, &first["data"])
        .await
        .expect(200);
    admin.until(&path, "the way back", arrived(3)).await;
    // A third node gets its own.
    let _third = cluster.node("three");
    admin
        .until(&path, "a third pod", |it| numbers(it, &counts)[1] == 3)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_complete_fail_and_are_counted() {
    let cluster = Cluster::start().await;
    let admin = admin(&cluster);
    let node = cluster.node("one");
    for (name, code) in [("good", 0), ("bad", 3)] {
        let behaviour = Behaviour {
            exits: Some((Duration::from_millis(50), code)),
            ..Behaviour::default()
        };
        node.runtime.behave(name, behaviour);
    }
    let job = |name: &str, spec: Value| {
        let mut template = template(name, "x");
        template["spec"]["restartPolicy"] = json!("Never");
        let mut job = json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
            "spec": {"template": template},
        });
        for (key, value) in spec.as_object().unwrap() {
            job["spec"][key] = value.clone();
        }
        job
    };
    let jobs = format!("{BATCH}/jobs");
    let indexed = json!({"completions": 3, "parallelism": 2, "completionMode": "Indexed"});
    create(&admin, &jobs, &job("good", indexed)).await;
    create(&admin, &jobs, &job("bad", json!({"backoffLimit": 0}))).await;
    let is = |kind: &'static str| {
        move |it: &Value| {
            let all = it["status"]["conditions"].as_array().into_iter().flatten();
            all.into_iter()
                .any(|item| item["type"] == kind && item["status"] == "True")
        }
    };
    let good = admin
        .until(&format!("{jobs}/good"), "completion", is("Complete"))
        .await;
    assert_eq!(good["status"]["succeeded"], 3);
    assert_eq!(good["status"]["completedIndexes"], "0-2");
    assert!(good["status"]["completionTime"].is_string());
    let bad = admin
        .until(&format!("{jobs}/bad"), "failure", is("Failed"))
        .await;
    assert_eq!(bad["status"]["failed"], 1);
    let pods = admin.get(&format!("{CORE}/pods")).await.expect(200).body;
    for pod in pods["items"].as_array().unwrap() {
        assert!(pod["metadata"]["finalizers"].is_null(), "{pod:#}");
    }
    // Background deletion takes the pods along: nothing holds them any more.
    let options = json!({"propagationPolicy": "Background"});
    admin
        .delete(&format!("{jobs}/good"), Some(&options))
        .await
        .expect(200);
    let left = format!("{CORE}/pods?labelSelector=job-name%3Dgood");
    admin
        .until(&left, "no pods", |it| {
            it["items"].as_array().is_some_and(Vec::is_empty)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cron_job_starts_jobs_and_forgets_the_old() {
    let cluster = Cluster::start().await;
    let admin = admin(&cluster);
    let node = cluster.node("one");
    let behaviour = Behaviour {
        exits: Some((Duration::from_millis(10), 0)),
        ..Behaviour::default()
    };
    node.runtime.behave("tick", behaviour);
    let mut template = template("tick", "x");
    template["spec"]["restartPolicy"] = json!("Never");
    let cron = json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tick"},
        "spec": {
            "schedule": "@every 1s", "concurrencyPolicy": "Forbid",
            "jobTemplate": {"spec": {"template": template}},
        },
    });
    create(&admin, &format!("{BATCH}/cronjobs"), &cron).await;
    let path = format!("{BATCH}/cronjobs/tick");
    admin
        .until(&path, "a success", |it| {
            it["status"]["lastSuccessfulTime"].is_string()
        })
        .await;
    let jobs = admin.get(&format!("{BATCH}/jobs")).await.expect(200).body;
    let job = &jobs["items"][0];
    assert_eq!(job["metadata"]["ownerReferences"][0]["kind"], "CronJob");
    assert!(
        job["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"]
            .is_string()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_is_honoured_by_evictions() {
    let cluster = Cluster::start().await;
    let admin = admin(&cluster);
    let _node = cluster.node("one");
    let controller = json!({
        "apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "web"},
        "spec": {"replicas": 2, "selector": {"app": "web"}, "template": template("web", "w:1")},
    });
    create(
        &admin,
        &format!("{CORE}/replicationcontrollers"),
        &controller,
    )
    .await;
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"},
        "spec": {"maxUnavailable": 0, "selector": {"matchLabels": {"app": "web"}}},
    });
    admin
        .post(&format!("{POLICY}/poddisruptionbudgets"), &budget)
        .await
        .expect(201);
    let path = format!("{CORE}/replicationcontrollers/web");
    admin
        .until(&path, "two pods", |it| {
            numbers(it, &["readyReplicas"]) == [2]
        })
        .await;
    let path = format!("{POLICY}/poddisruptionbudgets/web");
    let counts = [
        "currentHealthy",
        "desiredHealthy",
        "expectedPods",
        "disruptionsAllowed",
    ];
    let known = admin
        .until(&path, "the budget's status", |it| {
            numbers(it, &counts) == [2, 2, 2, 0]
        })
        .await;
    assert_eq!(
        known["status"]["conditions"][0]["reason"],
        "InsufficientPods"
    );
    let pods = admin
        .get(&format!("{CORE}/pods?labelSelector=app%3Dweb"))
        .await
        .expect(200)
        .body;
    let names: Vec<String> = pods["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
        .collect();
    let evict = async |name: &str| {
        let body = json!({
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": name, "namespace": "default"},
        });
        admin
            .post(&format!("{CORE}/pods/{name}/eviction"), &body)
            .await
    };
    let refused = evict(&names[0]).await.expect(429);
    let wanted = "Cannot evict pod as it would violate the pod's disruption budget.";
    assert_eq!(
        (refused.message(), refused.reason()),
        (wanted, "TooManyRequests")
    );
    let cause = &refused.body["details"]["causes"][0];
    assert_eq!(cause["reason"], "DisruptionBudget");
    let wanted = "The disruption budget web needs 2 healthy pods and has 2 currently";
    assert_eq!(cause["message"], wanted);
    let more = json!({"spec": {"maxUnavailable": 1}});
    admin.patch(&path, MERGE, &more).await.expect(200);
    admin
        .until(&path, "room for one", |it| numbers(it, &counts)[3] == 1)
        .await;
    // Both at once: only one is let go.
    let (one, two) = tokio::join!(evict(&names[0]), evict(&names[1]));
    let mut codes = [one.code, two.code];
    codes.sort_unstable();
    assert_eq!(codes, [201, 429], "{:#} {:#}", one.body, two.body);
    admin
        .until(&path, "the next", |it| numbers(it, &counts)[3] == 1)
        .await;
}
