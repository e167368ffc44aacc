//! Front proxies before the door, by certificate and headers.

use evenkeel_server::pki::LeafSpec;
use evenkeel_testkit::{ADMIN, Cluster};
use serde_json::Value;

use super::wire::Wire;

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const REVIEW: &str = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_front_proxy_says_who_asks_and_a_client_does_not() {
    let cluster = Cluster::door().await;
    let wire = Wire::open(&cluster).await;
    let now = cluster.the_door().clock().now();
    let leaf = |name: &str, organization: &str, front_proxy: bool| {
        let spec = LeafSpec {
            name: name.to_owned(),
            common_name: name.to_owned(),
            organizations: vec![organization.to_owned()],
            client: true,
            front_proxy,
            ..LeafSpec::default()
        };
        cluster.pki().issue(&spec, now).unwrap()
    };
    let headers = [
        ("X-Remote-User", "jane"),
        ("X-Remote-Group", "dev"),
        ("X-Remote-Uid", "u1"),
        ("X-Remote-Extra-Scopes", "a"),
    ];
    let front = leaf("front-proxy-client", ADMIN, true);
    let (code, said) = wire
        .ask(Some(&front), "POST", REVIEWS, &headers, REVIEW)
        .await;
    assert_eq!(code, 201, "{said}");
    let said: Value = serde_json::from_str(&said).unwrap();
    let who = &said["status"]["userInfo"];
    assert_eq!(who["username"], "jane");
    assert_eq!(who["uid"], "u1");
    assert_eq!(who["groups"][0], "dev");
    assert_eq!(who["extra"]["scopes"][0], "a");
    // Without headers it is nobody: its authority vouches for no client.
    let (code, _) = wire
        .ask(Some(&front), "GET", "/api/v1/secrets", &[], "")
        .await;
    assert_eq!(code, 403);
    // Another name of that authority is refused.
    let other = leaf("other", ADMIN, true);
    let (code, _) = wire
        .ask(Some(&other), "POST", REVIEWS, &headers, REVIEW)
        .await;
    assert_eq!(code, 401);
    // A client's headers say nothing.
    let client = leaf("front-proxy-client", ADMIN, false);
    let (code, said) = wire
        .ask(Some(&client), "POST", REVIEWS, &headers, REVIEW)
        .await;
    assert_eq!(code, 201, "{said}");
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["status"]["userInfo"]["username"], "front-proxy-client");
}
