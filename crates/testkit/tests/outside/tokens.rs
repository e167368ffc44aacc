//! Tokens that others have issued or know.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use evenkeel_server::{Identity, Outside};
use evenkeel_testkit::{Caller, Cluster};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::site::Site;
use super::wire::Wire;
use super::{admin, until};

const OWN: &str = "https://kubernetes.default.svc.cluster.local";

/// A key that signs tokens.
struct Signer {
    id: String,
    key: EcdsaKeyPair,
}

impl Signer {
    fn new(id: &str) -> Self {
        let random = SystemRandom::new();
        let how = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(how, &random).unwrap();
        Self {
            id: id.to_owned(),
            key: EcdsaKeyPair::from_pkcs8(how, document.as_ref(), &random).unwrap(),
        }
    }

    fn public(&self) -> Value {
        let point = self.key.public_key().as_ref();
        json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.id,
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]),
            "y": URL_SAFE_NO_PAD.encode(&point[33..])})
    }

    fn token(&self, claims: &Value) -> String {
        let head = json!({"alg": "ES256", "kid": self.id}).to_string();
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(head),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let signature = self
            .key
            .sign(&SystemRandom::new(), signed.as_bytes())
            .unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// An issuer's two documents.
fn publishes(site: &Site, keys: &[&Signer]) {
    let issuer = site.url();
    let keys: Vec<Value> = keys.iter().map(|key| key.public()).collect();
    site.says(move |path, _| match path {
        "/.well-known/openid-configuration" => {
            Some(json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")}))
        }
        "/keys" => Some(json!({"keys": keys})),
        _ => None,
    });
}

async fn review(admin: &Caller, token: &str) -> Value {
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": token}});
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    admin.post(path, &body).await.expect(201).body["status"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_an_issuer_are_taken_as_the_configuration_maps_them() {
    let site = Site::start().await;
    let (first, second) = (Signer::new("one"), Signer::new("two"));
    publishes(&site, &[&first]);
    let ca = site.certificate.replace('\n', "\n        ");
    let config = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n\
         - issuer:\n    url: {}\n    audiences: [kubernetes, other]\n    audienceMatchPolicy: \
         MatchAny\n    certificateAuthority: |\n        {ca}\n  claimValidationRules:\n  - claim: \
         hd\n    requiredValue: example.com\n  - expression: 'claims.level > 1'\n    message: too \
         low\n  claimMappings:\n    username:\n      expression: '\"oidc:\" + claims.sub'\n    \
         groups: {{claim: roles, prefix: 'oidc:'}}\n    uid: {{claim: id}}\n    extra:\n    - key: \
         example.com/tenant\n      valueExpression: claims.tenant\n  userValidationRules:\n  - \
         expression: \"!user.username.startsWith('oidc:system')\"\n    message: reserved\n\
         anonymous:\n  enabled: true\n  conditions: [{{path: /livez}}]\n",
        site.url()
    );
    let outside = Outside::default()
        .with_authentication(&config, OWN)
        .unwrap();
    let cluster = Cluster::door_options(|options| options.outside = outside).await;
    let admin = admin(&cluster);
    let now = cluster.the_door().clock().now().as_second();
    let claims = json!({"iss": site.url(), "sub": "jane", "aud": ["x", "kubernetes"],
        "exp": now + 600, "hd": "example.com", "level": 2, "roles": ["dev", "ops"],
        "id": "u1", "tenant": "t", "jti": "j"});
    let with = |field: &str, value: Value| {
        let mut claims = claims.clone();
        claims[field] = value;
        claims
    };

    let said = review(&admin, &first.token(&claims)).await;
    assert_eq!(said["authenticated"], true, "{said}");
    let user = &said["user"];
    assert_eq!(user["username"], "oidc:jane");
    assert_eq!(user["uid"], "u1");
    assert_eq!(
        user["groups"],
        json!(["oidc:dev", "oidc:ops", "system:authenticated"])
    );
    assert_eq!(user["extra"]["example.com/tenant"], json!(["t"]));
    assert_eq!(
        user["extra"]["authentication.kubernetes.io/credential-id"],
        json!(["JTI=j"])
    );

    for (wrong, told) in [
        (
            with("hd", "b.com".into()),
            "required claim hd value does not match",
        ),
        (with("level", 1.into()), "failed: too low"),
        (with("sub", "system:x".into()), "failed: reserved"),
        (with("aud", "x".into()), "expected audience in"),
        (with("exp", (now - 1).into()), "token is expired"),
        (with("nbf", (now + 1000).into()), "before the nbf"),
        (with("id", 5.into()), "parse uid claim"),
    ] {
        let said = review(&admin, &first.token(&wrong)).await;
        let error = said["error"].as_str().unwrap_or_default();
        assert!(error.contains(told), "{told}: {said}");
    }
    let mut forged = first.token(&claims).into_bytes();
    let last = forged.len() - 10;
    forged[last] = if forged[last] == b'A' { b'B' } else { b'A' };
    let said = review(&admin, &String::from_utf8(forged).unwrap()).await;
    assert!(
        said["error"].as_str().unwrap().contains("failed to verify"),
        "{said}"
    );

    // New keys are found when a token names one.
    let token = second.token(&claims);
    let said = review(&admin, &token).await;
    assert!(said["error"].is_string(), "{said}");
    publishes(&site, &[&second]);
    until("the new key", || async {
        (review(&admin, &token).await["authenticated"] == true).then_some(())
    })
    .await;
    let said = review(&admin, &first.token(&claims)).await;
    assert!(said["error"].is_string(), "the old key is gone: {said}");

    // On the wire: a token is a credential, and nobody is let in at one path only.
    let wire = Wire::open(&cluster).await;
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str())];
    let (code, said) = wire.ask(None, "GET", "/api/v1/nodes", &headers, "").await;
    assert_eq!(code, 403);
    assert!(
        said.contains("User \\\"oidc:jane\\\" cannot list"),
        "{said}"
    );
    assert_eq!(wire.ask(None, "GET", "/livez", &[], "").await.0, 200);
    assert_eq!(wire.ask(None, "GET", "/version", &[], "").await.0, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_that_stand_elsewhere_are_asked_for_there() {
    let (site, other) = (Site::start().await, Site::start().await);
    let (key, its_key) = (Signer::new("one"), Signer::new("two"));
    publishes(&site, &[&key]);
    let ca = format!("{}{}", site.certificate, other.certificate).replace('\n', "\n        ");
    let config = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n\
         - issuer:\n    url: {}\n    audiences: [kubernetes]\n    certificateAuthority: |\n        \
         {ca}\n  claimMappings:\n    username: {{claim: sub, prefix: ''}}\n    groups: {{claim: \
         groups, prefix: 'oidc:'}}\n",
        site.url()
    );
    let outside = Outside::default()
        .with_authentication(&config, OWN)
        .unwrap();
    let cluster = Cluster::door_options(|options| options.outside = outside).await;
    let admin = admin(&cluster);
    let now = cluster.the_door().clock().now().as_second();
    // The other place has an issuer of its own, and wants a token.
    let said = json!({"iss": other.url(), "aud": "kubernetes", "exp": now + 600,
        "groups": ["dev", "ops"]});
    let (good, mut stranger) = (its_key.token(&said), said.clone());
    stranger["aud"] = "others".into();
    let stranger = its_key.token(&stranger);
    let (issuer, public) = (other.url(), its_key.public());
    other.says(move |path, _| match path {
        "/.well-known/openid-configuration" => {
            Some(json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")}))
        }
        "/keys" => Some(json!({"keys": [public]})),
        "/groups" => Some(good.clone().into()),
        "/stranger" => Some(stranger.clone().into()),
        _ => None,
    });
    let token = |endpoint: &str| {
        key.token(
            &json!({"iss": site.url(), "sub": "jane", "aud": "kubernetes",
            "exp": now + 600, "_claim_names": {"groups": "src"}, "_claim_sources": {"src": {
                "endpoint": format!("{}{endpoint}", other.url()), "access_token": "let-me"}}}),
        )
    };
    let said = review(&admin, &token("/groups")).await;
    assert_eq!(said["authenticated"], true, "{said}");
    assert_eq!(
        said["user"]["groups"],
        json!(["oidc:dev", "oidc:ops", "system:authenticated"])
    );
    let asked = other.asked.lock().clone();
    let asked = asked.iter().find(|(path, _, _)| path == "/groups");
    assert_eq!(asked.unwrap().2, "Bearer let-me");
    for (endpoint, told) in [
        (
            "/stranger",
            "verify distributed claim token: oidc: expected audience in",
        ),
        ("/nothing", "while getting distributed claim \"groups\""),
    ] {
        let said = review(&admin, &token(endpoint)).await;
        let error = said["error"].as_str().unwrap_or_default();
        let whole = format!("oidc: could not expand distributed claims: {told}");
        assert!(error.contains(&whole), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_knows_tokens() {
    let site = Site::start().await;
    site.says(|path, body| {
        assert_eq!(path, "/tokens");
        assert_eq!(body["spec"]["audiences"], json!([OWN]));
        let status = match body["spec"]["token"].as_str().unwrap() {
            "good" => json!({"authenticated": true, "user": {"username": "jane", "uid": "u",
                "groups": ["dev"], "extra": {"k": ["v"]}}}),
            "odd" => json!({"authenticated": false, "error": "who is that"}),
            _ => json!({"authenticated": false}),
        };
        Some(
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "status": status}),
        )
    });
    let keep = Duration::from_secs(300);
    let outside = Outside::default()
        .with_token_webhook(&site.kubeconfig("/tokens"), Path::new("/"), keep)
        .unwrap();
    let cluster = Cluster::door_options(|options| options.outside = outside).await;
    let admin = admin(&cluster);
    for _ in 0..3 {
        let said = review(&admin, "good").await;
        assert_eq!(said["user"]["username"], "jane", "{said}");
        assert_eq!(
            said["user"]["groups"],
            json!(["dev", "system:authenticated"])
        );
        assert_eq!(said["user"]["extra"]["k"], json!(["v"]));
    }
    assert_eq!(site.count(), 1, "the answer is kept");
    assert_eq!(site.asked.lock()[0].2, "Bearer door");
    assert_eq!(review(&admin, "odd").await["error"], "who is that");
    let said = review(&admin, "bad").await;
    assert!(
        said["authenticated"] != true && said["error"].is_string(),
        "{said}"
    );
    let wire = Wire::open(&cluster).await;
    let headers = [("Authorization", "Bearer good")];
    let (code, said) = wire.ask(None, "GET", "/api/v1/nodes", &headers, "").await;
    assert!(code == 403 && said.contains("jane"), "{said}");
    let headers = [("Authorization", "Bearer bad")];
    assert_eq!(
        wire.ask(None, "GET", "/api/v1/nodes", &headers, "").await.0,
        401
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_token_goes_when_its_time_is_up() {
    let cluster = Cluster::door().await;
    let admin = admin(&cluster);
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    let secret = |name: &str, kind: &str, end: &str| json!({"metadata": {"name": name}, "type": kind, "stringData": {"expiration": end}});
    let token = "bootstrap.kubernetes.io/token";
    for (name, kind, end) in [
        ("bootstrap-token-aaaaaa", token, "2020-01-01T00:00:00Z"),
        ("bootstrap-token-bbbbbb", token, "2999-01-01T00:00:00Z"),
        ("other", "Opaque", "2020-01-01T00:00:00Z"),
    ] {
        admin
            .post(secrets, &secret(name, kind, end))
            .await
            .expect(201);
    }
    let door = std::sync::Arc::clone(cluster.the_door());
    let cleaning =
        tokio_util::task::AbortOnDropHandle::new(tokio::spawn(door.expire_bootstrap_tokens()));
    let gone = |name: &str| format!("{secrets}/bootstrap-token-{name}");
    until("the end of the first", || async {
        (admin.get(&gone("aaaaaa")).await.code == 404).then_some(())
    })
    .await;
    admin.get(&gone("bbbbbb")).await.expect(200);
    admin.get(&format!("{secrets}/other")).await.expect(200);
    let late = secret("bootstrap-token-cccccc", token, "2020-01-01T00:00:00Z");
    admin.post(secrets, &late).await.expect(201);
    until("the end of the late one", || async {
        (admin.get(&gone("cccccc")).await.code == 404).then_some(())
    })
    .await;
    drop(cleaning);
}

/// A machine that has nothing but a token finds the cluster, and can tell that it is the right one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_info_is_for_everybody_and_signed_with_tokens() {
    let mut cluster = Cluster::door().await;
    cluster.run_controllers();
    let (door, server) = (cluster.the_door(), "https://192.0.2.1:6443");
    let authority = cluster.pki().ca().to_owned();
    door.publish_cluster_info(server, &authority).await.unwrap();
    let admin = admin(&cluster);
    let token = json!({"metadata": {"name": "bootstrap-token-abcdef"},
        "type": "bootstrap.kubernetes.io/token",
        "stringData": {"token-id": "abcdef", "token-secret": "0123456789abcdef",
            "usage-bootstrap-signing": "true"}});
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    admin.post(secrets, &token).await.expect(201);
    let anybody = cluster.caller(Identity::anonymous());
    let maps = "/api/v1/namespaces/kube-public/configmaps";
    let path = format!("{maps}/cluster-info");
    let signature = |signed: bool| {
        let (anybody, path) = (anybody.clone(), path.clone());
        until("the signature", move || {
            let (anybody, path) = (anybody.clone(), path.clone());
            async move {
                let data = anybody.get(&path).await.expect(200).body["data"].clone();
                (data["jws-kubeconfig-abcdef"].is_string() == signed).then_some(data)
            }
        })
    };
    let data = signature(true).await;
    let kubeconfig = data["kubeconfig"].as_str().unwrap();
    assert!(kubeconfig.contains(&format!("    server: {server}\n")));
    let encoded = base64::engine::general_purpose::STANDARD.encode(&authority);
    assert!(kubeconfig.contains(&encoded));
    let jws = data["jws-kubeconfig-abcdef"].as_str().unwrap();
    let (header, tag) = jws.split_once("..").unwrap();
    let url = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"0123456789abcdef");
    let signed = format!("{header}.{}", url.encode(kubeconfig));
    ring::hmac::verify(&key, signed.as_bytes(), &url.decode(tag).unwrap()).unwrap();
    // Nothing else there is for everybody.
    anybody.get(maps).await.expect(403);
    let gone = format!("{secrets}/bootstrap-token-abcdef");
    admin.delete(&gone, None).await.expect(200);
    signature(false).await;
}
