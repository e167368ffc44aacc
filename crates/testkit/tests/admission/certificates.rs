//! Who may approve and sign, and for whom nothing is signed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evenkeel_server::Identity;
use evenkeel_testkit::Caller;
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

use super::open;

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

fn request(name: &str, signer: &str, organization: &str) -> Value {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "x");
    params
        .distinguished_name
        .push(DnType::OrganizationName, organization);
    let key = KeyPair::generate().unwrap();
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    json!({"metadata": {"name": name}, "spec": {"request": STANDARD.encode(pem),
        "signerName": signer, "usages": ["client auth"]}})
}

async fn grant(admin: &Caller, user: &str, rules: &Value) {
    let role = json!({"metadata": {"name": user}, "rules": rules});
    let roles = format!("{RBAC}/clusterroles");
    if admin.post(&roles, &role).await.code == 409 {
        let change = json!({ "rules": rules });
        admin
            .patch(&format!("{roles}/{user}"), super::MERGE_PATCH, &change)
            .await
            .expect(200);
        return;
    }
    let binding = json!({"metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]});
    admin
        .post(&format!("{RBAC}/clusterrolebindings"), &binding)
        .await
        .expect(201);
}

fn rule(resource: &str, verb: &str, names: &Value) -> Value {
    json!({"apiGroups": ["certificates.k8s.io"], "resources": [resource], "verbs": [verb],
        "resourceNames": names})
}

#[tokio::test]
async fn signers_say_who_approves_and_who_signs() {
    let (cluster, admin) = open("x", &json!({})).await;
    let refused = admin
        .post(
            REQUESTS,
            &request("m", "kubernetes.io/kube-apiserver-client", "system:masters"),
        )
        .await
        .expect(403);
    assert_eq!(
        refused.message(),
        "certificatesigningrequests.certificates.k8s.io \"m\" is forbidden: use of \
         kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
    );
    let made = admin
        .post(REQUESTS, &request("c", "example.com/clients", "dev"))
        .await
        .expect(201);
    let mut approved = made.body;
    approved["status"] = json!({"conditions": [
        {"type": "Approved", "status": "True", "reason": "Tested", "message": "m"}]});
    let everything = json!([]);
    let update = rule("certificatesigningrequests/approval", "update", &everything);
    grant(&admin, "ann", &json!([update])).await;
    let ann = cluster.caller(Identity::user("ann", &[]));
    let approval = format!("{REQUESTS}/c/approval");
    let refused = ann.put(&approval, &approved).await.expect(403);
    assert_eq!(
        refused.message(),
        "certificatesigningrequests.certificates.k8s.io \"c\" is forbidden: user not permitted to \
         approve requests with signerName \"example.com/clients\""
    );
    let may = rule("signers", "approve", &json!(["example.com/*"]));
    grant(&admin, "ann", &json!([update, may])).await;
    let approved = ann.put(&approval, &approved).await.expect(200);
    let update = rule("certificatesigningrequests/status", "update", &everything);
    grant(&admin, "bob", &json!([update])).await;
    let bob = cluster.caller(Identity::user("bob", &[]));
    let mut signed = approved.body;
    signed["status"]["conditions"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "Failed", "status": "True", "reason": "Tested", "message": "m"}));
    let status = format!("{REQUESTS}/c/status");
    let refused = bob.put(&status, &signed).await.expect(403);
    assert_eq!(
        refused.message(),
        "certificatesigningrequests.certificates.k8s.io \"c\" is forbidden: user not permitted to \
         sign requests with signerName \"example.com/clients\""
    );
    let may = rule("signers", "sign", &json!(["example.com/clients"]));
    grant(&admin, "bob", &json!([update, may])).await;
    bob.put(&status, &signed).await.expect(200);
}
