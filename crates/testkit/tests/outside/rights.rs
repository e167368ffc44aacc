//! A webhook that knows rights.

use evenkeel_server::{Identity, Outside};
use evenkeel_testkit::Cluster;
use serde_json::{Value, json};

use super::admin;
use super::site::Site;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn answer(body: &Value) -> Value {
    let spec = &body["spec"];
    let about = &spec["resourceAttributes"];
    let status = match (spec["user"].as_str().unwrap(), about["verb"].as_str()) {
        ("jane", Some("list")) => json!({"allowed": true, "reason": "she may"}),
        ("joe", _) => json!({"allowed": false, "denied": true, "reason": "not joe"}),
        _ => json!({"allowed": false, "reason": "no idea"}),
    };
    json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "status": status})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_before_roles_allows_denies_and_has_no_opinion() {
    let site = Site::start().await;
    site.says(|_, body| Some(answer(body)));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("webhook.yaml");
    std::fs::write(&path, site.kubeconfig("/rights")).unwrap();
    let config = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n\
         - {{type: Node, name: node}}\n- type: Webhook\n  name: outside\n  webhook:\n    timeout: \
         20s\n    authorizedTTL: 10m\n    unauthorizedTTL: 10m\n    subjectAccessReviewVersion: \
         v1\n    matchConditionSubjectAccessReviewVersion: v1\n    failurePolicy: Deny\n    \
         connectionInfo: {{type: KubeConfigFile, kubeConfigFile: {}}}\n    matchConditions:\n    - \
         expression: has(request.resourceAttributes)\n    - expression: \
         \"request.resourceAttributes.namespace == 'default'\"\n    - expression: \
         \"!request.user.startsWith('system:')\"\n- {{type: RBAC, name: rbac}}\n",
        path.display()
    );
    let outside = Outside::default().with_authorization(&config).unwrap();
    let cluster = Cluster::door_options(|options| options.outside = outside).await;
    let caller = |name: &str| cluster.caller(Identity::user(name, &[]));
    let (jane, joe) = (caller("jane"), caller("joe"));
    for _ in 0..3 {
        jane.get(MAPS).await.expect(200);
    }
    assert_eq!(site.count(), 1, "the answer is kept");
    let (_, asked, credential) = site.asked.lock()[0].clone();
    assert_eq!(credential, "Bearer door");
    assert_eq!(
        asked["spec"],
        json!({"user": "jane", "groups": ["system:authenticated"], "resourceAttributes": {
            "namespace": "default", "verb": "list", "version": "v1",
            "resource": "configmaps"}})
    );
    // Selectors are told, each requirement by itself.
    let selected = "labelSelector=app+in+(b,a),!old&fieldSelector=metadata.namespace!%3Dx";
    jane.get(&format!("{MAPS}?{selected}")).await.expect(200);
    let (_, asked, _) = site.asked.lock()[1].clone();
    let about = &asked["spec"]["resourceAttributes"];
    assert_eq!(
        about["labelSelector"]["requirements"],
        json!([{"key": "app", "operator": "In", "values": ["a", "b"]},
            {"key": "old", "operator": "DoesNotExist"}])
    );
    assert_eq!(
        about["fieldSelector"]["requirements"],
        json!([{"key": "metadata.namespace", "operator": "NotIn", "values": ["x"]}])
    );
    let refused = jane.get(&format!("{MAPS}/m")).await.expect(403);
    assert!(
        refused.message().ends_with(": no idea"),
        "{}",
        refused.message()
    );
    // What is denied stays so, whatever roles say.
    let admin = admin(&cluster);
    let binding = json!({"metadata": {"name": "all"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
            "name": "cluster-admin"},
        "subjects": [{"kind": "User", "name": "joe",
            "apiGroup": "rbac.authorization.k8s.io"}]});
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    admin.post(bindings, &binding).await.expect(201);
    let refused = joe.get(MAPS).await.expect(403);
    assert!(
        refused.message().ends_with(": not joe"),
        "{}",
        refused.message()
    );
    // Where conditions do not hold the webhook is not asked.
    let before = site.count();
    joe.get("/api/v1/namespaces/kube-system/configmaps")
        .await
        .expect(200);
    assert_eq!(site.count(), before);
    // Reviews answer as requests are.
    let review = |user: &str| {
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"user": user, "resourceAttributes": {"namespace": "default",
                "verb": "list", "version": "v1", "resource": "configmaps"}}})
    };
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let said = admin.post(path, &review("joe")).await.expect(201).body;
    assert_eq!(
        said["status"],
        json!({"allowed": false, "denied": true, "reason": "not joe"})
    );
    let mut selected = review("jane");
    selected["spec"]["resourceAttributes"]["labelSelector"] =
        json!({"requirements": [{"key": "app", "operator": "NotIn", "values": ["b", "c"]}]});
    admin.post(path, &selected).await.expect(201);
    let (_, asked, _) = site.asked.lock().last().cloned().unwrap();
    assert_eq!(
        asked["spec"]["resourceAttributes"]["labelSelector"],
        selected["spec"]["resourceAttributes"]["labelSelector"]
    );
    let rules = json!({"apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview", "spec": {"namespace": "default"}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let said = joe.post(path, &rules).await.expect(201).body;
    assert_eq!(said["status"]["incomplete"], true);
    let metrics = admin.get("/metrics").await.expect(200).body;
    let count =
        "apiserver_authorization_webhook_evaluations_total{name=\"outside\",result=\"success\"} ";
    assert!(metrics.as_str().unwrap().contains(count));
    // One that can't be asked denies, where its policy says so; the door's own loops go on.
    site.says(|_, _| None);
    caller("john").get(MAPS).await.expect(403);
    joe.get("/api/v1/nodes").await.expect(200);
}
