//! `LimitRanger`.

use serde_json::{Value, json};

use super::{open, pod};

async fn limited(limits: &Value) -> (evenkeel_testkit::Cluster, evenkeel_testkit::Caller) {
    let (cluster, admin) = open("limited", &json!({})).await;
    let range = json!({"metadata": {"name": "r"}, "spec": {"limits": limits}});
    admin
        .post("/api/v1/namespaces/limited/limitranges", &range)
        .await
        .expect(201);
    (cluster, admin)
}

#[tokio::test]
async fn containers_get_what_they_leave_open_and_it_is_told() {
    let (_cluster, admin) = limited(&json!([{"type": "Container",
        "default": {"cpu": "500m", "memory": "1Gi"},
        "defaultRequest": {"cpu": "100m"}}]))
    .await;
    let mut asked = pod("p");
    asked["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "2Gi"}});
    asked["spec"]["initContainers"] = json!([{"name": "i", "image": "i:1"}]);
    let made = admin
        .post("/api/v1/namespaces/limited/pods", &asked)
        .await
        .expect(201);
    let resources = &made.body["spec"]["containers"][0]["resources"];
    assert_eq!(resources["limits"], json!({"cpu": "500m", "memory": "2Gi"}));
    assert_eq!(resources["requests"]["cpu"], "100m");
    assert_eq!(
        made.body["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c; cpu, \
         memory request for init container i; cpu, memory limit for init container i"
    );
}

#[tokio::test]
async fn limits_are_kept_in_the_words_of_the_reference() {
    let (_cluster, admin) = limited(&json!([
        {"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "1"},
            "maxLimitRequestRatio": {"cpu": "2"},
            "default": {"cpu": "1"}, "defaultRequest": {"cpu": "500m"}},
        {"type": "Pod", "max": {"cpu": "1500m"}},
        {"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}},
    ]))
    .await;
    let pods = "/api/v1/namespaces/limited/pods";
    let asking = |requests: &str, limits: &str| {
        let mut pod = pod("p");
        pod["spec"]["containers"][0]["resources"] =
            json!({"requests": {"cpu": requests}, "limits": {"cpu": limits}});
        pod
    };
    let cases = [
        (
            asking("50m", "100m"),
            "minimum cpu usage per Container is 100m, but request is 50m",
        ),
        (
            asking("1", "1200m"),
            "maximum cpu usage per Container is 1, but limit is 1200m",
        ),
        (
            asking("100m", "300m"),
            "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
        ),
    ];
    for (pod, why) in cases {
        let refused = admin.post(pods, &pod).await.expect(403);
        assert_eq!(refused.message(), format!("pods \"p\" is forbidden: {why}"));
    }
    let mut two = asking("500m", "1");
    two["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "d", "image": "i:1",
            "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "1"}}}));
    let refused = admin.post(pods, &two).await.expect(403);
    assert_eq!(
        refused.message(),
        "pods \"p\" is forbidden: maximum cpu usage per Pod is 1500m, but limit is 2"
    );
    admin.post(pods, &asking("500m", "1")).await.expect(201);
    let claim = |size: &str| {
        json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}}}})
    };
    let claims = "/api/v1/namespaces/limited/persistentvolumeclaims";
    let refused = admin.post(claims, &claim("3Gi")).await.expect(403);
    assert_eq!(
        refused.message(),
        "persistentvolumeclaims \"c\" is forbidden: maximum storage usage per \
         PersistentVolumeClaim is 2Gi, but request is 3Gi"
    );
    admin.post(claims, &claim("1Gi")).await.expect(201);
}
