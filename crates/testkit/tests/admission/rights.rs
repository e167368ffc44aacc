//! Who somebody is and what he may: impersonation, bootstrap tokens, aggregated roles.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evenkeel_server::Identity;
use evenkeel_testkit::{ADMIN, Caller, Cluster};
use serde_json::{Value, json};

use super::open;

const REVIEW: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";

async fn who(caller: &Caller, headers: &[(&str, &str)]) -> evenkeel_testkit::Reply {
    caller.send("POST", REVIEW, headers, Some(&json!({}))).await
}

#[tokio::test]
async fn somebody_is_impersonated_part_by_part() {
    let (cluster, admin) = open("x", &json!({})).await;
    let reply = who(
        &admin,
        &[
            ("impersonate-user", "jane"),
            ("impersonate-group", "dev"),
            ("impersonate-group", "ops"),
            ("impersonate-extra-example.org%2fscope", "a"),
            ("impersonate-extra-example.org%2fscope", "b"),
            ("impersonate-uid", "7"),
        ],
    )
    .await
    .expect(201);
    assert_eq!(
        reply.body["status"]["userInfo"],
        json!({"username": "jane", "uid": "7",
            "groups": ["dev", "ops", "system:authenticated"],
            "extra": {"example.org/scope": ["a", "b"]}})
    );
    let reply = who(&admin, &[("impersonate-user", "system:anonymous")])
        .await
        .expect(403);
    assert!(
        reply.message().contains("User \"system:anonymous\" cannot"),
        "{}",
        reply.message()
    );
    let account = [("impersonate-user", "system:serviceaccount:x:default")];
    let reply = who(&admin, &account).await.expect(201);
    assert_eq!(
        reply.body["status"]["userInfo"]["groups"],
        json!([
            "system:serviceaccounts",
            "system:serviceaccounts:x",
            "system:authenticated"
        ])
    );
    let text = admin.get("/metrics").await.expect(200).body;
    let text = text.as_str().unwrap();
    for wanted in [
        "apiserver_impersonation_attempts_total{decision=\"allowed\",mode=\"",
        "apiserver_impersonation_attempts_duration_seconds_count{decision=\"allowed\",mode=\"",
        "apiserver_impersonation_authorization_attempts_total{decision=\"allowed\",mode=\"",
    ] {
        assert!(text.contains(wanted), "{wanted} in\n{text}");
    }
    let reply = who(&admin, &[("impersonate-group", "dev")])
        .await
        .expect(400);
    assert_eq!(
        reply.message(),
        "requested &user.DefaultInfo{Name:\"\", UID:\"\", Groups:[]string{\"dev\"}, \
         Extra:map[string][]string(nil)} without impersonating a user name"
    );

    // Each part is a right of its own.
    let role = json!({"metadata": {"name": "as-jane"}, "rules": [
        {"apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"],
            "resourceNames": ["jane"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["userextras/scope"],
            "verbs": ["impersonate"], "resourceNames": ["a"]}]});
    admin.post(ROLES, &role).await.expect(201);
    let binding = json!({"metadata": {"name": "as-jane"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
            "name": "as-jane"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "joe"}]});
    admin.post(BINDINGS, &binding).await.expect(201);
    let joe = cluster.caller(Identity::user("joe", &[]));
    let jane = ("impersonate-user", "jane");
    who(&joe, &[jane, ("impersonate-extra-scope", "a")])
        .await
        .expect(201);
    let cases = [
        (
            ("impersonate-extra-scope", "b"),
            "userextras.authentication.k8s.io \"b\" is forbidden: User \"joe\" cannot impersonate \
             resource \"userextras/scope\" in API group \"authentication.k8s.io\" at the cluster \
             scope",
        ),
        (
            ("impersonate-uid", "7"),
            "uids.authentication.k8s.io \"7\" is forbidden: User \"joe\" cannot impersonate \
             resource \"uids\" in API group \"authentication.k8s.io\" at the cluster scope",
        ),
        (
            ("impersonate-group", "dev"),
            "groups \"dev\" is forbidden: User \"joe\" cannot impersonate resource \"groups\" in \
             API group \"\" at the cluster scope",
        ),
    ];
    for (header, message) in cases {
        let refused = who(&joe, &[jane, header]).await.expect(403);
        assert_eq!(refused.message(), message);
    }
}

/// A role for somebody.
pub(super) async fn let_user(admin: &Caller, name: &str, user: &str, rules: Value) {
    let role = json!({"metadata": {"name": name}, "rules": rules});
    admin.post(ROLES, &role).await.expect(201);
    let binding = json!({"metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]});
    admin.post(BINDINGS, &binding).await.expect(201);
}

#[tokio::test]
async fn somebody_is_impersonated_for_what_is_listed_and_nothing_else() {
    let (cluster, admin) = open("x", &json!({})).await;
    let joe = cluster.caller(Identity::user("joe", &[]));
    let account = [("impersonate-user", "system:serviceaccount:x:default")];
    let maps = "/api/v1/namespaces/x/configmaps";
    let list = async |path: &str| joe.send("GET", path, &account, None).await;
    let refused = list(maps).await.expect(403);
    assert_eq!(
        refused.message(),
        "configmaps is forbidden: User \"joe\" cannot impersonate-on:serviceaccount:list resource \
         \"configmaps\" in API group \"\" in the namespace \"x\""
    );
    let on = json!([{"apiGroups": [""], "resources": ["configmaps"],
        "verbs": ["impersonate-on:serviceaccount:list"]}]);
    let_user(&admin, "on", "joe", on).await;
    let refused = list(maps).await.expect(403);
    assert_eq!(
        refused.message(),
        "serviceaccounts.authentication.k8s.io \"default\" is forbidden: User \"joe\" cannot \
         impersonate:serviceaccount resource \"serviceaccounts\" in API group \
         \"authentication.k8s.io\" in the namespace \"x\""
    );
    let as_account = json!([{"apiGroups": ["authentication.k8s.io"],
        "resources": ["serviceaccounts"], "verbs": ["impersonate:serviceaccount"]}]);
    let_user(&admin, "as", "joe", as_account).await;
    // Now it is the account that may not.
    let refused = list(maps).await.expect(403);
    let said = "User \"system:serviceaccount:x:default\" cannot list";
    assert!(refused.message().contains(said), "{}", refused.message());
    let refused = list("/api/v1/namespaces/x/secrets").await.expect(403);
    let said = "User \"joe\" cannot impersonate-on:serviceaccount:list resource \"secrets\"";
    assert!(refused.message().contains(said), "{}", refused.message());
}

#[tokio::test]
async fn a_bootstrap_token_is_good_while_its_secret_says_so() {
    let (_cluster, admin) = open("x", &json!({})).await;
    let encode = |text: &str| STANDARD.encode(text);
    let secret = json!({"metadata": {"name": "bootstrap-token-abcdef"},
        "type": "bootstrap.kubernetes.io/token", "data": {
            "token-id": encode("abcdef"), "token-secret": encode("0123456789abcdef"),
            "usage-bootstrap-authentication": encode("true"),
            "auth-extra-groups": encode("system:bootstrappers:workers")}});
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    admin.post(secrets, &secret).await.expect(201);
    let review = |token: &str| json!({"spec": {"token": token}});
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let reply = admin
        .post(path, &review("abcdef.0123456789abcdef"))
        .await
        .expect(201);
    let status = &reply.body["status"];
    assert_eq!(status["authenticated"], true);
    assert_eq!(status["user"]["username"], "system:bootstrap:abcdef");
    assert_eq!(
        status["user"]["groups"],
        json!([
            "system:bootstrappers",
            "system:bootstrappers:workers",
            "system:authenticated"
        ])
    );
    let reply = admin
        .post(path, &review("abcdef.0123456789abcdee"))
        .await
        .expect(201);
    assert_ne!(reply.body["status"]["authenticated"], true);
    admin
        .delete(&format!("{secrets}/bootstrap-token-abcdef"), None)
        .await
        .expect(200);
    let reply = admin
        .post(path, &review("abcdef.0123456789abcdef"))
        .await
        .expect(201);
    assert_ne!(reply.body["status"]["authenticated"], true);
}

#[tokio::test]
async fn a_labelled_role_joins_the_roles_of_people() {
    let cluster = Cluster::start().await;
    let admin = cluster.caller(Identity::user("admin", &[ADMIN]));
    let rule = json!({"apiGroups": ["example.org"], "resources": ["gadgets"], "verbs": ["get"]});
    let role = json!({"metadata": {"name": "gadgets", "labels":
            {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
        "rules": [rule.clone()]});
    admin.post(ROLES, &role).await.expect(201);
    let has = async |name: &str, rule: &Value| {
        let role = admin.get(&format!("{ROLES}/{name}")).await.expect(200);
        let rules = role.body["rules"].as_array().unwrap().clone();
        rules.contains(rule)
    };
    let wait = async |wanted: bool| {
        for _ in 0..400 {
            let mut reached = 0;
            for name in ["view", "edit", "admin"] {
                reached += usize::from(has(name, &rule).await == wanted);
            }
            if reached == 3 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("roles do not follow to {wanted}");
    };
    wait(true).await;
    admin
        .delete(&format!("{ROLES}/gadgets"), None)
        .await
        .expect(200);
    wait(false).await;
    let view = admin.get(&format!("{ROLES}/view")).await.expect(200);
    assert!(
        view.body["rules"].as_array().unwrap().len() > 3,
        "what it began with is still there"
    );
}
