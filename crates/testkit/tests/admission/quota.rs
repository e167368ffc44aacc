//! `ResourceQuota`: what is charged and refused, and what is counted again.

use std::time::Duration;

use evenkeel_server::Identity;
use evenkeel_testkit::{ADMIN, Caller, Cluster};
use serde_json::{Value, json};

use super::{MERGE_PATCH, open, pod};

const QUOTAS: &str = "/api/v1/namespaces/bounded/resourcequotas";
const PODS: &str = "/api/v1/namespaces/bounded/pods";

/// A quota whose status is known, as after a count.
async fn quota(admin: &Caller, name: &str, spec: &Value, used: &Value) {
    let body = json!({"metadata": {"name": name}, "spec": spec});
    admin.post(QUOTAS, &body).await.expect(201);
    let status = json!({"status": {"hard": spec["hard"], "used": used}});
    admin
        .patch(&format!("{QUOTAS}/{name}/status"), MERGE_PATCH, &status)
        .await
        .expect(200);
}

async fn used(admin: &Caller, name: &str) -> Value {
    let quota = admin.get(&format!("{QUOTAS}/{name}")).await.expect(200);
    quota.body["status"]["used"].clone()
}

#[tokio::test]
async fn what_exceeds_a_quota_is_refused_and_the_rest_is_charged() {
    let (_cluster, admin) = open("bounded", &json!({})).await;
    let hard = json!({"hard": {"pods": "2", "requests.cpu": "1", "limits.memory": "1Gi"}});
    admin
        .post(
            QUOTAS,
            &json!({"metadata": {"name": "unknown"}, "spec": {"hard": {"pods": "2"}}}),
        )
        .await
        .expect(201);
    let status = json!({"status": {"hard": {"pods": "2"}}});
    admin
        .patch(&format!("{QUOTAS}/unknown/status"), MERGE_PATCH, &status)
        .await
        .expect(200);
    let refused = admin.post(PODS, &pod("a")).await.expect(403);
    assert_eq!(
        refused.message(),
        "pods \"a\" is forbidden: status unknown for quota: unknown, resources: pods"
    );
    admin
        .delete(&format!("{QUOTAS}/unknown"), None)
        .await
        .expect(200);
    let zero = json!({"pods": "0", "requests.cpu": "0", "limits.memory": "0"});
    quota(&admin, "q", &hard, &zero).await;
    let refused = admin.post(PODS, &pod("a")).await.expect(403);
    assert_eq!(
        refused.message(),
        "pods \"a\" is forbidden: failed quota: q: must specify limits.memory for: c; \
         requests.cpu for: c"
    );
    let asking = |name: &str, cpu: &str| {
        let mut pod = pod(name);
        pod["spec"]["containers"][0]["resources"] =
            json!({"requests": {"cpu": cpu}, "limits": {"memory": "100Mi"}});
        pod
    };
    admin
        .post(&format!("{PODS}?dryRun=All"), &asking("dry", "100m"))
        .await
        .expect(201);
    assert_eq!(used(&admin, "q").await, zero);
    admin.post(PODS, &asking("a", "600m")).await.expect(201);
    assert_eq!(
        used(&admin, "q").await,
        json!({"pods": "1", "requests.cpu": "600m", "limits.memory": "100Mi"})
    );
    let refused = admin.post(PODS, &asking("b", "500m")).await.expect(403);
    assert_eq!(
        refused.message(),
        "pods \"b\" is forbidden: exceeded quota: q, requested: requests.cpu=500m, used: \
         requests.cpu=600m, limited: requests.cpu=1"
    );
    assert_eq!(refused.reason(), "Forbidden");
    admin.post(PODS, &asking("b", "400m")).await.expect(201);
    let refused = admin.post(PODS, &asking("c", "0")).await.expect(403);
    assert_eq!(
        refused.message(),
        "pods \"c\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: \
         pods=2"
    );
}

#[tokio::test]
async fn any_resource_is_counted_by_its_name() {
    let (_cluster, admin) = open("bounded", &json!({})).await;
    let hard = json!({"hard": {"count/deployments.apps": "1", "configmaps": "1",
        "services.nodeports": "1"}});
    let zero = json!({"count/deployments.apps": "0", "configmaps": "0",
        "services.nodeports": "0"});
    quota(&admin, "q", &hard, &zero).await;
    let deployment = |name: &str| {
        json!({"metadata": {"name": name}, "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}})
    };
    let path = "/apis/apps/v1/namespaces/bounded/deployments";
    admin.post(path, &deployment("a")).await.expect(201);
    let refused = admin.post(path, &deployment("b")).await.expect(403);
    assert_eq!(
        refused.message(),
        "deployments.apps \"b\" is forbidden: exceeded quota: q, requested: \
         count/deployments.apps=1, used: count/deployments.apps=1, limited: \
         count/deployments.apps=1"
    );
    let service = json!({"metadata": {"name": "s"},
        "spec": {"type": "NodePort", "ports": [{"name": "a", "port": 1}]}});
    let services = "/api/v1/namespaces/bounded/services";
    admin.post(services, &service).await.expect(201);
    let more = json!({"spec": {"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]}});
    let refused = admin
        .patch(&format!("{services}/s"), MERGE_PATCH, &more)
        .await
        .expect(403);
    assert_eq!(
        refused.message(),
        "services \"s\" is forbidden: exceeded quota: q, requested: services.nodeports=1, used: \
         services.nodeports=1, limited: services.nodeports=1"
    );
    assert_eq!(used(&admin, "q").await["configmaps"], "0");
}

#[tokio::test]
async fn scopes_choose_whom_a_quota_is_about() {
    let (_cluster, admin) = open("bounded", &json!({})).await;
    let bounded = json!({"hard": {"pods": "0"}, "scopes": ["Terminating"]});
    quota(&admin, "terminating", &bounded, &json!({"pods": "0"})).await;
    admin.post(PODS, &pod("long")).await.expect(201);
    let mut short = pod("short");
    short["spec"]["activeDeadlineSeconds"] = 5.into();
    let refused = admin.post(PODS, &short).await.expect(403);
    assert!(
        refused.message().contains("exceeded quota: terminating"),
        "{}",
        refused.message()
    );
}

#[tokio::test]
async fn many_at_once_never_spend_the_same_rest() {
    let (_cluster, admin) = open("bounded", &json!({})).await;
    quota(
        &admin,
        "q",
        &json!({"hard": {"pods": "5"}}),
        &json!({"pods": "0"}),
    )
    .await;
    let creates = (0..20).map(|index| {
        let admin = admin.clone();
        async move { admin.post(PODS, &pod(&format!("p{index}"))).await.code }
    });
    let codes = futures::future::join_all(creates).await;
    let made = codes.iter().filter(|code| **code == 201).count();
    let refused = codes.iter().filter(|code| **code == 403).count();
    assert_eq!((made, refused), (5, 15), "{codes:?}");
    assert_eq!(used(&admin, "q").await["pods"], "5");
}

#[tokio::test]
async fn a_quota_is_counted_and_what_goes_is_given_back() {
    let cluster = Cluster::start().await;
    let admin = cluster.caller(Identity::user("admin", &[ADMIN]));
    make_namespace_with_loops(&admin, "bounded").await;
    let map = |name: &str| json!({"metadata": {"name": name}});
    let maps = "/api/v1/namespaces/bounded/configmaps";
    admin.post(maps, &map("before")).await.expect(201);
    let body = json!({"metadata": {"name": "q"}, "spec": {"hard":
        {"pods": "3", "count/secrets": "4"}}});
    admin.post(QUOTAS, &body).await.expect(201);
    let wait = async |wanted: Value| {
        for _ in 0..400 {
            if used(&admin, "q").await == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{:#}", admin.get(&format!("{QUOTAS}/q")).await.body);
    };
    wait(json!({"pods": "0", "count/secrets": "0"})).await;
    admin.post(PODS, &pod("p")).await.expect(201);
    let secrets = "/api/v1/namespaces/bounded/secrets";
    admin.post(secrets, &map("s")).await.expect(201);
    assert_eq!(
        used(&admin, "q").await,
        json!({"pods": "1", "count/secrets": "1"})
    );
    admin
        .delete(
            &format!("{PODS}/p"),
            Some(&json!({"gracePeriodSeconds": 0})),
        )
        .await
        .expect(200);
    admin
        .delete(&format!("{secrets}/s"), None)
        .await
        .expect(200);
    wait(json!({"pods": "0", "count/secrets": "0"})).await;
}

/// A namespace whose account the loops make.
async fn make_namespace_with_loops(admin: &Caller, name: &str) {
    let body = json!({"metadata": {"name": name}});
    admin.post("/api/v1/namespaces", &body).await.expect(201);
    let path = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
    for _ in 0..400 {
        if admin.get(&path).await.code == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no account in {name}");
}

#[tokio::test]
async fn devices_are_charged_by_class() {
    let (_cluster, admin) = open("bounded", &json!({})).await;
    let gpus = "gpu.deviceclass.resource.k8s.io/devices";
    let hard = json!({"hard": {gpus: "4"}});
    quota(&admin, "q", &hard, &json!({gpus: "0"})).await;
    let claims = "/apis/resource.k8s.io/v1/namespaces/bounded/resourceclaims";
    let claim = |name: &str, class: &str, count: i64| {
        json!({"metadata": {"name": name}, "spec": {"devices": {"requests": [
            {"name": "r", "exactly": {"deviceClassName": class, "allocationMode": "ExactCount",
                "count": count}}]}}})
    };
    admin.post(claims, &claim("a", "gpu", 3)).await.expect(201);
    assert_eq!(used(&admin, "q").await, json!({gpus: "3"}));
    // Another class is nobody's business.
    admin.post(claims, &claim("n", "nic", 9)).await.expect(201);
    let refused = admin.post(claims, &claim("b", "gpu", 2)).await.expect(403);
    assert_eq!(
        refused.message(),
        format!(
            "resourceclaims.resource.k8s.io \"b\" is forbidden: exceeded quota: q, requested: \
             {gpus}=2, used: {gpus}=3, limited: {gpus}=4"
        )
    );
    let mut all = claim("c", "gpu", 1);
    all["spec"]["devices"]["requests"][0]["exactly"] =
        json!({"deviceClassName": "gpu", "allocationMode": "All"});
    let refused = admin.post(claims, &all).await.expect(403);
    assert!(
        refused
            .message()
            .contains("requested: gpu.deviceclass.resource.k8s.io/devices=32")
    );
    admin.post(claims, &claim("d", "gpu", 1)).await.expect(201);
    assert_eq!(used(&admin, "q").await, json!({gpus: "4"}));
}
