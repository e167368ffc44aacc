//! What a node's agent may not do although its role lets it.

use evenkeel_server::Identity;
use serde_json::{Value, json};

use super::{MERGE_PATCH, open, pod};

#[tokio::test]
async fn an_agent_keeps_to_itself() {
    let (cluster, admin) = open("x", &json!({})).await;
    let mut uid = String::new();
    for name in ["n1", "n2"] {
        let node = json!({"metadata": {"name": name}});
        let made = admin.post("/api/v1/nodes", &node).await.expect(201);
        if name == "n1" {
            made.body["metadata"]["uid"]
                .as_str()
                .unwrap()
                .clone_into(&mut uid);
        }
    }
    let pods = "/api/v1/namespaces/x/pods";
    for (name, node) in [("mine", "n1"), ("theirs", "n2")] {
        let mut pod = pod(name);
        pod["spec"]["nodeName"] = node.into();
        admin.post(pods, &pod).await.expect(201);
    }
    let node = cluster.caller(Identity::user("system:node:n1", &["system:nodes"]));
    let labels = |labels: Value| json!({"metadata": {"labels": labels}});
    let own = "/api/v1/nodes/n1";
    let good = labels(json!({"topology.kubernetes.io/zone": "a", "x": "y",
        "node.kubernetes.io/of-mine": "z"}));
    node.patch(own, MERGE_PATCH, &good).await.expect(200);
    let mirror = |annotations: Value, owners: Value| {
        let mut pod = pod("m");
        pod["metadata"]["annotations"] = annotations;
        pod["metadata"]["ownerReferences"] = owners;
        pod["spec"]["nodeName"] = "n1".into();
        pod
    };
    let marked = json!({"kubernetes.io/config.mirror": "1"});
    let owner = |uid: &str| json!([{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": uid, "controller": true}]);
    let lease = json!({"metadata": {"name": "n1"}});
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": "theirs"}});
    let accounts = "/api/v1/namespaces/x/serviceaccounts/default/token";
    let token = json!({"spec": {"audiences": []}});
    let mut secretive = mirror(marked.clone(), owner(&uid));
    secretive["spec"]["volumes"] = json!([{"name": "s", "secret": {"secretName": "s"}}]);
    let cases = [
        (
            node.patch(
                own,
                MERGE_PATCH,
                &labels(json!({"node-restriction.kubernetes.io/a": "b", "kubernetes.io/c": "d"})),
            )
            .await,
            "nodes \"n1\" is forbidden: is not allowed to modify labels: kubernetes.io/c, \
             node-restriction.kubernetes.io/a",
        ),
        (
            node.post(pods, &mirror(json!({}), json!([]))).await,
            "pods \"m\" is forbidden: pod does not have \"kubernetes.io/config.mirror\" \
             annotation, node \"n1\" can only create mirror pods",
        ),
        (
            node.post(pods, &mirror(marked.clone(), json!([]))).await,
            "pods \"m\" is forbidden: node \"n1\" can only create pods with an owner reference \
             set to itself",
        ),
        (
            node.post(pods, &secretive).await,
            "pods \"m\" is forbidden: node \"n1\" can not create pods that reference secrets",
        ),
        (
            node.post(&format!("{pods}/theirs/eviction"), &eviction)
                .await,
            "pods \"theirs\" is forbidden: node n1 can only evict pods with spec.nodeName set to \
             itself",
        ),
        (
            node.post(accounts, &token).await,
            "serviceaccounts \"default\" is forbidden: node requested token not bound to a pod",
        ),
        (
            node.post("/apis/coordination.k8s.io/v1/namespaces/x/leases", &lease)
                .await,
            "leases.coordination.k8s.io is forbidden: User \"system:node:n1\" cannot create \
             resource \"leases\" in API group \"coordination.k8s.io\" in the namespace \"x\": \
             node: can only access leases in the \"kube-node-lease\" system namespace",
        ),
    ];
    for (reply, message) in cases {
        assert_eq!((reply.code, reply.message()), (403, message));
    }
    node.post(pods, &mirror(marked, owner(&uid)))
        .await
        .expect(201);
    let mine = node.get(&format!("{pods}/mine")).await.expect(200);
    let bound = json!({"spec": {"audiences": [], "boundObjectRef": {"apiVersion": "v1",
        "kind": "Pod", "name": "mine", "uid": mine.body["metadata"]["uid"]}}});
    let token = node.post(accounts, &bound).await.expect(201);
    let other = json!({"spec": {"boundObjectRef": {"apiVersion": "apps/v1", "kind": "Pod", "name": "mine"}}});
    let refused = admin.post(accounts, &other).await.expect(400);
    let said = "cannot bind token to object of type apps/v1, Kind=Pod";
    assert_eq!(refused.message(), said);
    // Who shows it is known to run there, and may act as that node when he is allowed to.
    let review = json!({"spec": {"token": token.body["status"]["token"]}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let said = admin.post(reviews, &review).await.expect(201).body;
    let text = admin.get("/metrics").await.expect(200).body;
    let tokens = "serviceaccount_valid_tokens_total{} 1\n";
    assert!(text.as_str().unwrap().contains(tokens));
    let extra = &said["status"]["user"]["extra"];
    let known = |key: &str| extra[&format!("authentication.kubernetes.io/{key}")].clone();
    assert_eq!(known("node-name"), json!(["n1"]), "{said}");
    assert_eq!(known("node-uid"), json!([uid]));
    assert_eq!(known("pod-name"), json!(["mine"]));
    let agent = "system:serviceaccount:x:default";
    let rules = json!([
        {"apiGroups": [""], "resources": ["configmaps"],
            "verbs": ["impersonate-on:associated-node:list"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["nodes"], "resourceNames": ["*"],
            "verbs": ["impersonate:associated-node"]}]);
    super::rights::let_user(&admin, "agent", agent, rules).await;
    let mut identity = Identity::service_account("x", "default");
    for (key, values) in extra.as_object().unwrap() {
        let values = serde_json::from_value(values.clone()).unwrap();
        identity.extra.insert(key.clone(), values);
    }
    let caller = cluster.caller(identity);
    let as_node = |name: &'static str| [("impersonate-user", name)];
    let maps = "/api/v1/namespaces/x/configmaps";
    let own = caller
        .send("GET", maps, &as_node("system:node:n1"), None)
        .await
        .expect(403);
    let said = "User \"system:node:n1\" cannot list";
    assert!(own.message().contains(said), "{}", own.message());
    let other = caller
        .send("GET", maps, &as_node("system:node:n2"), None)
        .await
        .expect(403);
    let said = format!("User \"{agent}\" cannot impersonate-on:arbitrary-node:list");
    assert!(other.message().contains(&said), "{}", other.message());
}
