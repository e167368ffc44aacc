//! Rights: nobody does anything to any row without being allowed to.

use evenkeel_api::row::Storage;
use evenkeel_server::Identity;
use serde_json::{Value, json};

use super::{Kind, MERGE_PATCH, NAMESPACE, kinds, open};

/// Every verb of a row as method, path and body.
fn requests(kind: &Kind) -> Vec<(&'static str, &'static str, String, Option<Value>)> {
    let (all, one) = (kind.path.clone(), kind.named("x"));
    let body = Some(json!({"metadata": {"name": "x"}}));
    vec![
        ("get", "GET", one.clone(), None),
        ("list", "GET", all.clone(), None),
        ("watch", "GET", format!("{all}?watch=true"), None),
        ("create", "POST", all.clone(), body.clone()),
        ("update", "PUT", one.clone(), body.clone()),
        ("patch", "PATCH", one.clone(), body),
        ("delete", "DELETE", one, None),
        ("deletecollection", "DELETE", all, None),
    ]
}

#[tokio::test]
async fn strangers_are_refused_every_verb_of_every_row() {
    let (cluster, _admin) = open().await;
    let door = cluster.the_door();
    for identity in [
        Identity::anonymous(),
        Identity::user("nobody", &["system:authenticated"]),
    ] {
        let user = identity.user.clone();
        let caller = cluster.caller(identity);
        for kind in door
            .rows()
            .iter()
            .filter(|row| row.storage == Storage::Stored)
            .map(Kind::of)
        {
            for (verb, method, path, body) in requests(&kind) {
                let headers = [("content-type", MERGE_PATCH)];
                let headers = if method == "PATCH" { &headers[..] } else { &[] };
                let reply = caller.send(method, &path, headers, body.as_ref()).await;
                assert_eq!(
                    (reply.code, reply.reason()),
                    (403, "Forbidden"),
                    "{method} {path}"
                );
                let place = if kind.row.namespaced() {
                    format!("in the namespace \"{NAMESPACE}\"")
                } else if kind.row.gvk.kind == "Namespace" && path.ends_with("/x") {
                    // A namespace is in itself, as far as rights go.
                    "in the namespace \"x\"".to_owned()
                } else {
                    "at the cluster scope".to_owned()
                };
                let expected = format!(
                    "User \"{user}\" cannot {verb} resource \"{}\" in API group \"{}\" {place}",
                    kind.row.plural, kind.row.gvk.group
                );
                assert!(reply.message().contains(&expected), "{}", reply.message());
            }
        }
        let reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        assert_eq!(caller.post(reviews, &json!({})).await.code, 403);
    }
}

#[tokio::test]
async fn a_wrong_token_is_401_and_none_is_anonymous() {
    let (cluster, _admin) = open().await;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    for (token, code) in [(Some("nonsense"), 401), (Some("a.b.c"), 401), (None, 403)] {
        let mut request = http::Request::get(&path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = http_body_util::Empty::<bytes::Bytes>::new();
        let answer = cluster
            .the_door()
            .serve(request.body(body).unwrap(), None)
            .await;
        assert_eq!(answer.status().as_u16(), code, "{token:?}");
    }
    for open in ["/livez", "/readyz", "/healthz", "/version"] {
        let body = http_body_util::Empty::<bytes::Bytes>::new();
        let request = http::Request::get(open).body(body).unwrap();
        assert_eq!(
            cluster.the_door().serve(request, None).await.status(),
            200,
            "{open}"
        );
    }
}

#[tokio::test]
async fn a_role_gives_what_it_names_where_it_is_bound() {
    let (cluster, admin) = open().await;
    let user = cluster.caller(Identity::user("dora", &["system:authenticated"]));
    let roles = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}");
    let role = json!({"metadata": {"name": "one"}, "rules": [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"], "resourceNames": ["a"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}]});
    admin
        .post(&format!("{roles}/roles"), &role)
        .await
        .expect(201);
    let binding = json!({"metadata": {"name": "one"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "one"},
        "subjects": [{"kind": "User", "name": "dora", "apiGroup": "rbac.authorization.k8s.io"}]});
    admin
        .post(&format!("{roles}/rolebindings"), &binding)
        .await
        .expect(201);
    let maps = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    for name in ["a", "b"] {
        admin
            .post(&maps, &json!({"metadata": {"name": name}}))
            .await
            .expect(201);
    }
    user.get(&format!("{maps}/a")).await.expect(200);
    for (path, code) in [
        (format!("{maps}/b"), 403),
        (maps.clone(), 403),
        ("/api/v1/namespaces/default/configmaps/a".to_owned(), 403),
        (format!("/api/v1/namespaces/{NAMESPACE}/pods/p"), 403),
        // Allowed, and not there.
        (format!("/api/v1/namespaces/{NAMESPACE}/pods/p/log"), 404),
    ] {
        assert_eq!(user.get(&path).await.code, code, "{path}");
    }
    // Nobody hands out more than they have.
    let wider = json!({"metadata": {"name": "two"}, "rules": [
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]});
    let role = json!({"metadata": {"name": "roles"}, "rules": [
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["create"]}]});
    admin
        .post(&format!("{roles}/roles"), &role)
        .await
        .expect(201);
    let mut binding = binding;
    binding["metadata"]["name"] = "roles".into();
    binding["roleRef"]["name"] = "roles".into();
    admin
        .post(&format!("{roles}/rolebindings"), &binding)
        .await
        .expect(201);
    let refused = user.post(&format!("{roles}/roles"), &wider).await;
    assert_eq!(
        (refused.code, refused.reason()),
        (403, "Forbidden"),
        "{:#}",
        refused.body
    );
    assert!(
        refused.message().contains("attempting to grant"),
        "{}",
        refused.message()
    );
}

#[tokio::test]
async fn a_node_touches_only_its_own() {
    let (cluster, admin) = open().await;
    for name in ["n1", "n2"] {
        let node = cluster.caller(Identity::user(
            format!("system:node:{name}"),
            &["system:nodes"],
        ));
        node.post("/api/v1/nodes", &json!({"metadata": {"name": name}}))
            .await
            .expect(201);
    }
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    for (name, node) in [("mine", "n1"), ("theirs", "n2")] {
        let pod = json!({"metadata": {"name": name},
            "spec": {"nodeName": node, "containers": [{"name": "app", "image": "app:1"}],
                "volumes": [{"name": "s", "secret": {"secretName": format!("{name}-secret")}}]}});
        admin.post(&pods, &pod).await.expect(201);
        let secret = json!({"metadata": {"name": format!("{name}-secret")}});
        let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets");
        admin.post(&path, &secret).await.expect(201);
    }
    let node = cluster.caller(Identity::user("system:node:n1", &["system:nodes"]));
    let status = json!({"status": {"phase": "Running"}});
    let secret = |name: &str| format!("/api/v1/namespaces/{NAMESPACE}/secrets/{name}-secret");
    node.patch(&format!("{pods}/mine/status"), MERGE_PATCH, &status)
        .await
        .expect(200);
    node.get(&secret("mine")).await.expect(200);
    node.get(&format!("{pods}?fieldSelector=spec.nodeName%3Dn1"))
        .await
        .expect(200);
    let label = json!({"metadata": {"labels": {"x": "y"}}});
    for (what, reply) in [
        (
            "status of a stranger's pod",
            node.patch(&format!("{pods}/theirs/status"), MERGE_PATCH, &status)
                .await,
        ),
        (
            "a pod's specification",
            node.patch(&format!("{pods}/mine"), MERGE_PATCH, &label)
                .await,
        ),
        (
            "a stranger's pod",
            node.delete(&format!("{pods}/theirs"), None).await,
        ),
        (
            "another node",
            node.patch("/api/v1/nodes/n2", MERGE_PATCH, &label).await,
        ),
        ("a stranger's secret", node.get(&secret("theirs")).await),
        (
            "all secrets",
            node.get(&format!("/api/v1/namespaces/{NAMESPACE}/secrets"))
                .await,
        ),
        (
            "a new pod",
            node.post(
                &pods,
                &json!({"metadata": {"name": "p"},
            "spec": {"nodeName": "n1", "containers": [{"name": "a", "image": "a"}]}}),
            )
            .await,
        ),
        (
            "roles",
            node.get("/apis/rbac.authorization.k8s.io/v1/clusterroles")
                .await,
        ),
        ("its own end", node.delete("/api/v1/nodes/n1", None).await),
    ] {
        assert_eq!(
            (reply.code, reply.reason()),
            (403, "Forbidden"),
            "{what}: {:#}",
            reply.body
        );
    }
}

#[tokio::test]
async fn a_node_sees_what_concerns_it() {
    let (cluster, admin) = open().await;
    let node = cluster.caller(Identity::user("system:node:n1", &["system:nodes"]));
    node.post("/api/v1/nodes", &json!({"metadata": {"name": "n1"}}))
        .await
        .expect(201);
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    for (name, place) in [("mine", "n1"), ("theirs", "n2")] {
        let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": place,
            "containers": [{"name": "app", "image": "app:1"}]}});
        admin.post(&pods, &pod).await.expect(201);
    }
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let lease = json!({"metadata": {"name": "n1"}, "spec": {}});
    node.post(leases, &lease).await.expect(201);
    for path in [
        "/api/v1/nodes/n1".to_owned(),
        "/api/v1/nodes?fieldSelector=metadata.name%3Dn1".to_owned(),
        "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1".to_owned(),
        format!("{pods}/mine"),
        format!("{leases}/n1"),
        // What it routes services by.
        "/api/v1/services".to_owned(),
        "/apis/discovery.k8s.io/v1/endpointslices".to_owned(),
        "/apis/node.k8s.io/v1/runtimeclasses".to_owned(),
        "/apis/storage.k8s.io/v1/csidrivers".to_owned(),
        "/apis/resource.k8s.io/v1/resourceslices?fieldSelector=spec.nodeName%3Dn1".to_owned(),
    ] {
        node.get(&path).await.expect(200);
    }
    for (path, why) in [
        (
            "/api/v1/nodes".to_owned(),
            "node 'n1' cannot read all nodes, only its own Node object",
        ),
        (
            "/api/v1/nodes/n2".to_owned(),
            "node 'n1' cannot read 'n2', only its own Node object",
        ),
        (
            "/api/v1/pods".to_owned(),
            "can only list/watch pods with spec.nodeName field selector",
        ),
        (
            format!("{pods}/theirs"),
            "no relationship found between node 'n1' and this object",
        ),
        (
            format!("{leases}/n2"),
            "can only access node lease with the same name as the requesting node",
        ),
        (
            "/apis/storage.k8s.io/v1/csinodes/n2".to_owned(),
            "can only access CSINode with the same name as the requesting node",
        ),
        (
            "/api/v1/secrets".to_owned(),
            "node: can only read namespaced object of this type",
        ),
        (
            format!("/api/v1/namespaces/{NAMESPACE}/configmaps"),
            "node: No Object name found",
        ),
        (
            "/apis/resource.k8s.io/v1/resourceslices".to_owned(),
            "with nodeName field selector",
        ),
    ] {
        let refused = node.get(&path).await.expect(403);
        assert!(refused.message().contains(why), "{}", refused.message());
    }
    // Who is in the group and no node has nothing of it.
    let other = cluster.caller(Identity::user("n1", &["system:nodes"]));
    other.get("/api/v1/nodes/n1").await.expect(403);
}

#[tokio::test]
async fn a_review_says_nothing_but_what_it_asks() {
    let (_cluster, admin) = open().await;
    let reviews = "/apis/authorization.k8s.io/v1";
    let local = format!("{reviews}/namespaces/default/localsubjectaccessreviews");
    let about = |namespace: &str| {
        json!({"user": "x", "resourceAttributes":
            {"namespace": namespace, "verb": "get", "resource": "pods"}})
    };
    let found = admin.post(&local, &json!({"spec": about("default")})).await;
    let found = found.expect(201).body;
    assert_eq!(found["metadata"]["namespace"], "default");
    let owners = &found["metadata"]["managedFields"][0];
    assert_eq!(owners["fieldsV1"]["f:spec"]["f:user"], json!({}));
    for (body, code, why) in [
        (
            json!({"spec": about("other")}),
            422,
            "spec.resourceAttributes.namespace: Invalid value: \"other\": must match metadata.namespace",
        ),
        (
            json!({"metadata": {"name": "x"}, "spec": about("default")}),
            422,
            "must be empty except for namespace",
        ),
        (
            json!({"metadata": {"namespace": "x"}, "spec": about("default")}),
            400,
            "the namespace of the provided object does not match",
        ),
        (
            json!({"spec": {"user": "x", "nonResourceAttributes": {"path": "/"}}}),
            422,
            "disallowed on this kind of request",
        ),
        (
            json!({"spec": {}}),
            422,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ),
    ] {
        let refused = admin.post(&local, &body).await.expect(code);
        assert!(refused.message().contains(why), "{}", refused.message());
        // The kind is not named.
        let details = &refused.body["details"];
        assert!(details.get("kind").is_none(), "{details}");
    }
    let tokens = "/apis/authentication.k8s.io/v1/tokenreviews";
    let refused = admin.post(tokens, &json!({"spec": {}})).await.expect(400);
    assert_eq!(
        refused.message(),
        "token is required for TokenReview in authentication"
    );
    let refused = admin.post(tokens, &json!({"spec": {"token": "abc"}})).await;
    let said = &refused.expect(201).body["status"];
    assert_eq!(*said, json!({"user": {}, "error": "invalid bearer token"}));
}

#[tokio::test]
async fn ones_rights_are_those_of_all_roles() {
    let (cluster, admin) = open().await;
    let rules = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let asked = json!({"metadata": {"name": "x"}, "spec": {"namespace": "default"}});
    let found = admin.post(rules, &asked).await.expect(201).body;
    // It says nothing of what was asked.
    assert_eq!(
        (&found["metadata"], &found["spec"]),
        (&json!({}), &json!({}))
    );
    let has = |part: &str, rule: Value| {
        let rules = found["status"][part].as_array().cloned();
        rules.unwrap_or_default().contains(&rule)
    };
    let all = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]});
    assert!(has("resourceRules", all), "{found}");
    // Through a group that he is in as well.
    let reviews = json!({"verbs": ["create"], "apiGroups": ["authentication.k8s.io"],
        "resources": ["selfsubjectreviews"]});
    assert!(has("resourceRules", reviews), "{found}");
    let review = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let asked = json!({"spec": {"user": "jane", "groups": ["system:authenticated"],
        "nonResourceAttributes": {"verb": "get", "path": "/api"}}});
    let found = admin.post(review, &asked).await.expect(201).body;
    let why = "RBAC: allowed by ClusterRoleBinding \"system:discovery\" of ClusterRole \
        \"system:discovery\" to Group \"system:authenticated\"";
    assert_eq!(found["status"], json!({"allowed": true, "reason": why}));
    let own = cluster.caller(Identity::user("system:admin", &["system:masters"]));
    let found = own
        .post(
            review,
            &json!({"spec": {"user": "a", "groups": ["system:masters"],
            "resourceAttributes": {"verb": "get", "resource": "pods"}}}),
        )
        .await
        .expect(201);
    assert_eq!(found.body["status"], json!({"allowed": true}));
}

#[tokio::test]
async fn every_row_has_an_example_and_every_example_is_needed() {
    let (cluster, _admin) = open().await;
    for kind in kinds(&cluster) {
        kind.object("a");
    }
}
