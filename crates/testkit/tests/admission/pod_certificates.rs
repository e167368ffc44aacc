//! Who may ask for pods' certificates, answer, and say whom to trust.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evenkeel_server::Identity;
use evenkeel_testkit::{Caller, Cluster};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, IsCa, KeyPair};
use serde_json::{Value, json};

use super::{MERGE_PATCH, open, pod};

const BUNDLES: &str = "/apis/certificates.k8s.io/v1/clustertrustbundles";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/namespaces/x/podcertificaterequests";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// Lets a user do something in the whole cluster, by a role of its own.
async fn grant(admin: &Caller, user: &str, role: &str, rule: &Value) {
    let name = format!("{user}-{role}");
    let body = json!({"metadata": {"name": name}, "rules": [rule]});
    let made = admin.post(&format!("{RBAC}/clusterroles"), &body).await;
    made.expect(201);
    let binding = json!({"metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]});
    admin
        .post(&format!("{RBAC}/clusterrolebindings"), &binding)
        .await
        .expect(201);
}

fn anchor() -> String {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().pem()
}

#[tokio::test]
async fn who_attests_a_signer_writes_its_bundles() {
    let (cluster, admin) = open("x", &json!({})).await;
    let rule = json!({"apiGroups": ["certificates.k8s.io"], "resources": ["clustertrustbundles"],
        "verbs": ["*"]});
    grant(&admin, "ann", "bundles", &rule).await;
    let ann = cluster.caller(Identity::user("ann", &[]));
    let bundle = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    let plain = bundle("plain", json!({"trustBundle": anchor()}));
    ann.post(BUNDLES, &plain).await.expect(201);
    let spec = json!({"trustBundle": anchor(), "signerName": "example.com/foo"});
    let of_signer = bundle("example.com:foo:a", spec);
    let refused = ann.post(BUNDLES, &of_signer).await.expect(403);
    assert_eq!(
        refused.message(),
        "clustertrustbundles.certificates.k8s.io \"example.com:foo:a\" is forbidden: user not \
         permitted to attest for signerName \"example.com/foo\""
    );
    admin.post(BUNDLES, &of_signer).await.expect(201);
    let path = format!("{BUNDLES}/example.com:foo:a");
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    ann.patch(&path, MERGE_PATCH, &labels).await.expect(403);
    // The garbage collector's own fields say nothing of the signer.
    let finalizers = json!({"metadata": {"finalizers": ["example.com/keep"]}});
    ann.patch(&path, MERGE_PATCH, &finalizers).await.expect(200);
    let none = json!({"metadata": {"finalizers": null}});
    ann.patch(&path, MERGE_PATCH, &none).await.expect(200);
    let rule = json!({"apiGroups": ["certificates.k8s.io"], "resources": ["signers"],
        "verbs": ["attest"], "resourceNames": ["example.com/*"]});
    grant(&admin, "ann", "signers", &rule).await;
    ann.patch(&path, MERGE_PATCH, &labels).await.expect(200);
    let found = ann
        .get(&format!(
            "{BUNDLES}?fieldSelector=spec.signerName=example.com/foo"
        ))
        .await
        .expect(200);
    let items = found.body["items"].as_array().unwrap();
    assert_eq!(items.len(), 1, "{items:?}");
    // Every service account reads them.
    let account = cluster.caller(Identity::service_account("x", "default"));
    account.get(BUNDLES).await.expect(200);
    account.post(BUNDLES, &plain).await.expect(403);
}

struct Asking {
    cluster: Cluster,
    admin: Caller,
    node: Caller,
    spec: Value,
    key: KeyPair,
}

async fn asking() -> Asking {
    let (cluster, admin) = open("x", &json!({})).await;
    let uid = |body: &Value| body["metadata"]["uid"].clone();
    let mut nodes = Vec::new();
    for name in ["n1", "n2"] {
        let node = json!({"metadata": {"name": name}});
        let made = admin.post("/api/v1/nodes", &node).await.expect(201);
        nodes.push(uid(&made.body));
    }
    let mut mine = pod("mine");
    mine["spec"]["nodeName"] = "n1".into();
    mine["spec"]["volumes"] = json!([{"name": "v", "projected": {"sources": [
        {"podCertificate": {"signerName": "example.com/pods", "keyType": "ECDSAP256",
            "credentialBundlePath": "all.pem"}}]}}]);
    let pods = "/api/v1/namespaces/x/pods";
    let mine = admin.post(pods, &mine).await.expect(201);
    let account = "/api/v1/namespaces/x/serviceaccounts/default";
    let account = admin.get(account).await.expect(200);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let stub = params.serialize_request(&key).unwrap();
    let spec = json!({"signerName": "example.com/pods", "podName": "mine",
        "podUID": uid(&mine.body), "serviceAccountName": "default",
        "serviceAccountUID": uid(&account.body), "nodeName": "n1", "nodeUID": nodes[0],
        "stubPKCS10Request": STANDARD.encode(stub.der())});
    let node = cluster.caller(Identity::user("system:node:n1", &["system:nodes"]));
    Asking {
        cluster,
        admin,
        node,
        spec,
        key,
    }
}

fn request(name: &str, spec: &Value, patch: &Value) -> Value {
    let mut spec = spec.clone();
    for (field, value) in patch.as_object().unwrap() {
        spec[field] = value.clone();
    }
    json!({"metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn a_node_asks_for_its_own_pods_only() {
    let it = asking().await;
    for (patch, code, told) in [
        (
            json!({"nodeName": "n2"}),
            403,
            "podcertificaterequests.certificates.k8s.io \"r\" is forbidden: \
             PodCertificateRequest.Spec.NodeName=\"n2\", which is not the requesting node \"n1\"",
        ),
        (
            json!({"podName": "theirs"}),
            404,
            "while retrieving pod \"x/theirs\" named in the PodCertificateRequest: pods \
             \"theirs\" not found",
        ),
        (
            json!({"serviceAccountName": "other"}),
            403,
            "podcertificaterequests.certificates.k8s.io \"r\" is forbidden: \
             PodCertificateRequest for pod \"x/mine\" contains serviceAccountName (\"other\") \
             that differs from running pod (\"default\")",
        ),
        (
            json!({"signerName": "example.com/others"}),
            403,
            "podcertificaterequests.certificates.k8s.io \"r\" is forbidden: pod \"x/mine\" does \
             not mount a podCertificate projected volume for signer \"example.com/others\"",
        ),
    ] {
        let refused = it
            .node
            .post(REQUESTS, &request("r", &it.spec, &patch))
            .await;
        assert_eq!(refused.code, code, "{:#}", refused.body);
        assert_eq!(refused.message(), told);
    }
    let stale = request("r", &it.spec, &json!({"podUID": "another"}));
    let refused = it.node.post(REQUESTS, &stale).await;
    assert_eq!(refused.code, 500, "{:#}", refused.body);
    // A signer that the pod does not name may be asked if a rule says so.
    let rule = json!({"apiGroups": ["certificates.k8s.io"], "resources": ["example.com:others"],
        "resourceNames": ["default"], "verbs": ["request-serviceaccounts-podcertificate-signer"]});
    grant(&it.admin, "system:node:n1", "others", &rule).await;
    let others = request("o", &it.spec, &json!({"signerName": "example.com/others"}));
    it.node.post(REQUESTS, &others).await.expect(201);
    let good = request("r", &it.spec, &json!({}));
    let made = it.node.post(REQUESTS, &good).await.expect(201).body;
    assert_eq!(made["spec"]["maxExpirationSeconds"], 86400);
    let path = format!("{REQUESTS}/r");
    it.node.get(&path).await.expect(200);
    it.node.get(REQUESTS).await.expect(403);
    let own = format!("{REQUESTS}?fieldSelector=metadata.name=r,spec.nodeName=n1");
    let listed = it.node.get(&own).await.expect(200).body;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    it.node.delete(&path, None).await.expect(403);
    let other = it
        .cluster
        .caller(Identity::user("system:node:n2", &["system:nodes"]));
    other.get(&path).await.expect(403);
    let denied = json!({"status": {"conditions": [{"type": "Denied", "status": "True",
        "reason": "Tested", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    let status = format!("{path}/status");
    it.node
        .patch(&status, MERGE_PATCH, &denied)
        .await
        .expect(403);
}

#[tokio::test]
async fn signers_answer_once() {
    let it = asking().await;
    let good = request("r", &it.spec, &json!({}));
    it.node.post(REQUESTS, &good).await.expect(201);
    let rule = json!({"apiGroups": ["certificates.k8s.io"],
        "resources": ["podcertificaterequests", "podcertificaterequests/status"], "verbs": ["*"]});
    grant(&it.admin, "bob", "requests", &rule).await;
    let bob = it.cluster.caller(Identity::user("bob", &[]));
    let status = format!("{REQUESTS}/r/status");
    let condition = |kind: &str| {
        json!([{"type": kind, "status": "True", "reason": "Tested", "message": "m",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}])
    };
    let denied = json!({"status": {"conditions": condition("Denied")}});
    let refused = bob.patch(&status, MERGE_PATCH, &denied).await.expect(422);
    assert_eq!(
        refused.message(),
        "PodCertificateRequest.certificates.k8s.io \"r\" is invalid: spec.signerName: Forbidden: \
         User \"bob\" is not permitted to \"sign\" for signer \"example.com/pods\""
    );
    let rule = json!({"apiGroups": ["certificates.k8s.io"], "resources": ["signers"],
        "verbs": ["sign"], "resourceNames": ["example.com/pods"]});
    grant(&it.admin, "bob", "signers", &rule).await;
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap();
    let at = |minutes: i64| now + jiff::SignedDuration::from_mins(minutes);
    let moment = |at: jiff::Timestamp| {
        let seconds = u64::try_from(at.as_second()).unwrap();
        std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds)
    };
    let mut params = CertificateParams::default();
    params.not_before = moment(now).into();
    params.not_after = moment(at(120)).into();
    let chain = params.self_signed(&it.key).unwrap().pem();
    let issued = json!({"status": {"conditions": condition("Issued"), "certificateChain": chain,
        "notBefore": now.to_string(), "notAfter": at(120).to_string(),
        "beginRefreshAt": at(60).to_string()}});
    bob.patch(&status, MERGE_PATCH, &issued).await.expect(200);
    let refused = bob.patch(&status, MERGE_PATCH, &denied).await.expect(422);
    assert_eq!(
        refused.message(),
        "PodCertificateRequest.certificates.k8s.io \"r\" is invalid: status: Invalid value: \
         immutable after PodCertificateRequest is issued, denied, or failed"
    );
}
