//! Tokens of accounts in Secrets, and keys that are changed.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use evenkeel_server::TokenOptions;
use evenkeel_server::auth::{SecretToken, SigningKeys, TokenKeys};
use evenkeel_testkit::{Caller, Cluster};
use serde_json::{Value, json};

use super::admin;

const SPACE: &str = "/api/v1/namespaces/default";
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const TYPE: &str = "kubernetes.io/service-account-token";

async fn review(admin: &Caller, token: &str) -> Value {
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let body = json!({"spec": {"token": token}});
    let reviewed = admin.post(path, &body).await.expect(201);
    reviewed.body["status"].clone()
}

async fn account(admin: &Caller, name: &str) -> String {
    let body = json!({"metadata": {"name": name}});
    let path = format!("{SPACE}/serviceaccounts");
    let made = admin.post(&path, &body).await.expect(201);
    made.body["metadata"]["uid"].as_str().unwrap().to_owned()
}

async fn secret(admin: &Caller, account: &str, data: Value) {
    let body = json!({"metadata": {"name": "s", "annotations": {
        "kubernetes.io/service-account.name": account}}, "type": TYPE, "data": data});
    admin
        .post(&format!("{SPACE}/secrets"), &body)
        .await
        .expect(201);
}

fn token_of(secret: &Value) -> String {
    let token = secret["data"]["token"].as_str().unwrap_or_default();
    String::from_utf8(BASE64_STANDARD.decode(token).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_of_an_account_gets_a_token_that_is_good_as_long_as_both_are_there() {
    let mut cluster = Cluster::door().await;
    cluster.run_controllers();
    let admin = admin(&cluster);
    let uid = account(&admin, "bot").await;
    secret(&admin, "bot", json!({})).await;
    let path = format!("{SPACE}/secrets/s");
    let has_token = |it: &Value| it["data"]["token"].is_string();
    let filled = admin.until(&path, "it has a token", has_token).await;
    let data = &filled["data"];
    assert!(data["ca.crt"].is_string());
    assert_eq!(data["namespace"], BASE64_STANDARD.encode("default"));
    let annotations = &filled["metadata"]["annotations"];
    assert_eq!(annotations["kubernetes.io/service-account.uid"], uid);
    let token = token_of(&filled);
    let status = review(&admin, &token).await;
    assert_eq!(status["authenticated"], true, "{status:#}");
    let user = &status["user"];
    assert_eq!(user["username"], "system:serviceaccount:default:bot");
    assert_eq!(user["uid"], uid);
    assert_eq!(
        user["groups"],
        json!([
            "system:serviceaccounts",
            "system:serviceaccounts:default",
            "system:authenticated"
        ])
    );
    // The day of its use is noted.
    let label = "kubernetes.io/legacy-token-last-used";
    let noted = |it: &Value| it["metadata"]["labels"][label].is_string();
    let used = admin.until(&path, "its use is noted", noted).await;
    let day = used["metadata"]["labels"][label].as_str().unwrap();
    assert_eq!(day.len(), "2026-11-23".len(), "{day}");
    // A label says that it is not taken any more.
    let marked = json!({"metadata": {"labels": {
        "kubernetes.io/legacy-token-invalid-since": "2026-01-01"}}});
    let merge = "application/merge-patch+json";
    admin.patch(&path, merge, &marked).await.expect(200);
    let status = review(&admin, &token).await;
    assert_ne!(status["authenticated"], true, "{status:#}");
    let cleared = json!({"metadata": {"labels": {
        "kubernetes.io/legacy-token-invalid-since": null}}});
    admin.patch(&path, merge, &cleared).await.expect(200);
    assert_eq!(review(&admin, &token).await["authenticated"], true);
    // With another token in the Secret this one is none any more; a new one is made where it is taken off.
    let taken = json!({"data": {"token": null}});
    admin.patch(&path, merge, &taken).await.expect(200);
    admin.until(&path, "it has a token again", has_token).await;
    // It goes with its account, and the token with it.
    let accounts = format!("{SPACE}/serviceaccounts/bot");
    admin.delete(&accounts, None).await.expect(200);
    let gone = |it: &Value| it["code"] == 404;
    admin.until(&path, "it is gone", gone).await;
    assert_ne!(review(&admin, &token).await["authenticated"], true);
    // One that names nobody does not stay.
    secret(&admin, "nobody", json!({})).await;
    admin.until(&path, "it is gone again", gone).await;
}

/// A door that signs by one key and knows others, with an account `bot`.
async fn door(signs: &rcgen::KeyPair, knows: &[&rcgen::KeyPair]) -> (Cluster, Caller, String) {
    let mut keys = SigningKeys::new(&signs.serialize_pem()).unwrap();
    for key in knows {
        keys = keys.also(&key.public_key_pem()).unwrap();
    }
    let cluster = Cluster::door_options(|options| {
        options.tokens = TokenOptions {
            keys: Some(keys),
            issuers: vec!["https://before.example.com".to_owned()],
        };
    })
    .await;
    let admin = admin(&cluster);
    let uid = account(&admin, "bot").await;
    (cluster, admin, uid)
}

#[tokio::test]
async fn tokens_of_an_older_key_are_good_as_long_as_it_is_known() {
    let old = rcgen::KeyPair::generate().unwrap();
    let new = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    for (knows, is_good) in [(vec![&old], true), (vec![], false)] {
        let (_cluster, admin, uid) = door(&new, &knows).await;
        let before = SigningKeys::new(&old.serialize_pem()).unwrap();
        let before = TokenKeys::new(before, vec![ISSUER.to_owned()]);
        let of = SecretToken {
            namespace: "default",
            secret: "s",
            account: "bot",
            uid: &uid,
        };
        let token = before.of_secret(&of).unwrap();
        let held = json!({"token": BASE64_STANDARD.encode(&token)});
        secret(&admin, "bot", held).await;
        let status = review(&admin, &token).await;
        assert_eq!(status["authenticated"] == true, is_good, "{status:#}");
        // What is issued now is of the new key.
        let request = json!({"spec": {}});
        let path = format!("{SPACE}/serviceaccounts/bot/token");
        let issued = admin.post(&path, &request).await.expect(201).body;
        let token = issued["status"]["token"].as_str().unwrap();
        let status = review(&admin, token).await;
        assert_eq!(status["authenticated"], true, "{status:#}");
        assert_eq!(status["audiences"], json!([ISSUER]));
        let known = admin.get("/openid/v1/jwks").await.expect(200).body;
        assert_eq!(
            known["keys"].as_array().map(Vec::len),
            Some(1 + knows.len())
        );
        let told = admin.get("/.well-known/openid-configuration").await;
        let algorithms = &told.expect(200).body["id_token_signing_alg_values_supported"];
        let wanted = if is_good {
            json!(["ES256", "ES384"])
        } else {
            json!(["ES384"])
        };
        assert_eq!(*algorithms, wanted);
    }
}
