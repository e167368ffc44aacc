//! Certificate requests by table, and a request's life against the fake.

use std::sync::Arc;

use evenkeel_client::testing::{FakeApi, FakeClock};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, ClusterTrustBundle, PodCertificateRequest,
};
use k8s_openapi::api::core::v1::Node;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use serde_json::{Value, json};

use super::approve::{self, Verdict};
use super::request::{self, CLIENT, KUBELET_CLIENT, KUBELET_SERVING};
use super::{Signer, clean, clean_pods, publish, sign};
use crate::testing::start;

fn pem(common_name: &str, organization: &str, names: &[SanType]) -> Vec<u8> {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, organization);
    subject.push(DnType::CommonName, common_name);
    params.distinguished_name = subject;
    params.subject_alt_names = names.to_vec();
    let key = KeyPair::generate().unwrap();
    params
        .serialize_request(&key)
        .unwrap()
        .pem()
        .unwrap()
        .into_bytes()
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn ip(address: &str) -> SanType {
    SanType::IpAddress(address.parse().unwrap())
}

const TO_CLIENT: [&str; 2] = ["digital signature", "client auth"];
const TO_SERVE: [&str; 3] = ["digital signature", "key encipherment", "server auth"];

fn asked(signer: &str, author: &str, usages: &[&str], pem: Vec<u8>) -> CertificateSigningRequest {
    let mut request: CertificateSigningRequest = serde_json::from_value(json!({
        "metadata": {"name": "r"},
        "spec": {"signerName": signer, "username": author, "usages": usages, "request": "",
            "groups": ["system:nodes", "system:authenticated"]},
    }))
    .unwrap();
    request.spec.request = ByteString(pem);
    request
}

fn node(name: &str, address: &str) -> Arc<Node> {
    Arc::new(
        serde_json::from_value(json!({"metadata": {"name": name}, "status": {"addresses": [
            {"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]}}))
        .unwrap(),
    )
}

const AGENT: &str = "system:node:n";
const NODES: &str = "system:nodes";

#[test]
fn requests_of_agents_are_told_from_others() {
    let nodes = [node("n", "10.0.0.1"), node("m", "10.0.0.2")];
    let judge = |signer: &str, author: &str, usages: &[&str], pem: Vec<u8>| {
        approve::judge(&asked(signer, author, usages, pem), &nodes).unwrap()
    };
    let ask = |verdict: Verdict| match verdict {
        Verdict::If(asks) => asks
            .into_iter()
            .map(|(what, _)| what)
            .collect::<Vec<_>>()
            .join(","),
        other => format!("{other:?}").chars().take(7).collect(),
    };
    let plain = || pem(AGENT, NODES, &[]);
    let cases = [
        (
            KUBELET_CLIENT,
            AGENT,
            &TO_CLIENT[..],
            plain(),
            "selfnodeclient,nodeclient",
        ),
        (
            KUBELET_CLIENT,
            "system:bootstrap:abcdef",
            &TO_CLIENT,
            plain(),
            "nodeclient",
        ),
        (KUBELET_CLIENT, AGENT, &TO_SERVE, plain(), "Leave"),
        (
            KUBELET_CLIENT,
            AGENT,
            &TO_CLIENT,
            pem(AGENT, "system:masters", &[]),
            "Leave",
        ),
        (
            KUBELET_CLIENT,
            AGENT,
            &TO_CLIENT,
            pem("n", NODES, &[]),
            "Leave",
        ),
        (
            KUBELET_CLIENT,
            AGENT,
            &TO_CLIENT,
            pem(AGENT, NODES, &[dns("n")]),
            "Leave",
        ),
        (CLIENT, AGENT, &TO_CLIENT, plain(), "Leave"),
        (
            KUBELET_SERVING,
            AGENT,
            &TO_SERVE,
            pem(AGENT, NODES, &[dns("n"), ip("10.0.0.1")]),
            "Approve",
        ),
        (KUBELET_SERVING, AGENT, &TO_SERVE, plain(), "Leave"),
        // Another node's name or address, or one that nobody knows.
        (
            KUBELET_SERVING,
            AGENT,
            &TO_SERVE,
            pem(AGENT, NODES, &[dns("m")]),
            "Leave",
        ),
        (
            KUBELET_SERVING,
            AGENT,
            &TO_SERVE,
            pem(AGENT, NODES, &[ip("10.0.0.2")]),
            "Leave",
        ),
        (
            KUBELET_SERVING,
            AGENT,
            &TO_SERVE,
            pem(AGENT, NODES, &[dns("kubernetes")]),
            "Leave",
        ),
        (
            KUBELET_SERVING,
            "system:node:m",
            &TO_SERVE,
            pem(AGENT, NODES, &[dns("n")]),
            "Leave",
        ),
    ];
    for (signer, author, usages, pem, wanted) in cases {
        let found = ask(judge(signer, author, usages, pem));
        assert_eq!(found, wanted, "{signer} {author} {usages:?}");
    }
    let both = [node("n", "10.0.0.1"), node("m", "10.0.0.1")];
    let contested = asked(
        KUBELET_SERVING,
        AGENT,
        &TO_SERVE,
        pem(AGENT, NODES, &[ip("10.0.0.1")]),
    );
    assert_eq!(
        approve::judge(&contested, &both).unwrap(),
        Verdict::Leave,
        "nobody's"
    );
}

#[test]
fn the_rules_of_the_signers_have_the_references_words() {
    let read = |pem: &[u8]| request::read(pem).unwrap();
    let agent = |names: &[SanType]| read(&pem(AGENT, NODES, names));
    let list = |usages: &[&str]| usages.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    let (to_client, to_serve) = (list(&TO_CLIENT), list(&TO_SERVE));
    let wrong = |result: Result<(), String>| result.err().unwrap_or_default();
    for (found, wanted) in [
        (request::kubelet_client(&agent(&[]), &to_client), ""),
        (
            request::kubelet_client(&agent(&[]), &to_serve),
            "usages did not match [client auth digital signature key encipherment]",
        ),
        (
            request::kubelet_client(&agent(&[ip("10.0.0.1")]), &to_client),
            "IP subjectAltNames are not allowed",
        ),
        (
            request::kubelet_client(&read(&pem(AGENT, "x", &[])), &to_client),
            "subject organization is not system:nodes",
        ),
        (request::kubelet_serving(&agent(&[dns("n")]), &to_serve), ""),
        (
            request::kubelet_serving(&agent(&[]), &to_serve),
            "DNS or IP subjectAltName is required",
        ),
        (
            request::kubelet_serving(&read(&pem("n", NODES, &[dns("n")])), &to_serve),
            "subject common name does not begin with system:node:",
        ),
        (request::client(&to_client), ""),
        (
            request::client(&to_serve),
            "invalid usage for client certificate: server auth",
        ),
        (
            request::client(&list(&["digital signature"])),
            "missing required usage for client certificate: client auth",
        ),
    ] {
        assert_eq!(wrong(found), wanted);
    }
    assert!(request::read(b"nothing").is_err());
}

#[test]
fn answered_requests_go_after_an_hour_and_others_after_a_day() {
    let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
    let old = |minutes: i64, conditions: Value, certificate: bool| {
        let at = now
            .checked_sub(jiff::SignedDuration::from_mins(minutes))
            .unwrap();
        let at = evenkeel_api::clock::rfc3339(at);
        let mut request = asked(CLIENT, "a", &[], Vec::new());
        request.metadata.creation_timestamp = serde_json::from_value(json!(at)).unwrap();
        let mut status = json!({"conditions": conditions});
        for condition in status["conditions"].as_array_mut().unwrap() {
            condition["status"] = "True".into();
            condition["lastUpdateTime"] = at.clone().into();
        }
        request.status = serde_json::from_value(status).unwrap();
        if certificate {
            request.status.as_mut().unwrap().certificate = Some(ByteString(b"x".to_vec()));
        }
        clean::is_old(&request, now)
    };
    let of = |kind: &str| json!([{"type": kind}]);
    for (minutes, conditions, certificate, wanted) in [
        (23 * 60, json!([]), false, false),
        (25 * 60, json!([]), false, true),
        (59, of("Approved"), true, false),
        (61, of("Approved"), true, true),
        (61, of("Approved"), false, false),
        (25 * 60, of("Approved"), false, true),
        (61, of("Denied"), false, true),
        (59, of("Failed"), false, false),
        (61, of("Failed"), false, true),
    ] {
        assert_eq!(
            old(minutes, conditions.clone(), certificate),
            wanted,
            "{minutes} {conditions}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn approved_requests_are_signed_or_say_why_not() {
    let fake = FakeApi::new(FakeClock::shared());
    let signer: Signer = Arc::new(|it| Ok(format!("signed for {}", it.usages.join("+"))));
    let world = start(&fake, |context| Box::pin(sign::run(context, signer)));
    let put = |name: &str, usages: &[&str], condition: &str| {
        let mut request = asked(CLIENT, "a", usages, pem("somebody", "group", &[]));
        request.metadata.name = Some(name.to_owned());
        let condition = json!({"conditions": [{"type": condition, "status": "True"}]});
        request.status = serde_json::from_value(condition).unwrap();
        fake.put(&request);
    };
    put("good", &TO_CLIENT, "Approved");
    put("bad", &TO_SERVE, "Approved");
    put("denied", &TO_CLIENT, "Denied");
    let get = |fake: &FakeApi, name: &str| fake.get::<CertificateSigningRequest>("", name).unwrap();
    fake.wait_for("the good one is signed", |fake| {
        request::is_issued(&get(fake, "good")).then_some(())
    })
    .await;
    fake.wait_for("the bad one failed", |fake| {
        request::has(&get(fake, "bad"), "Failed").then_some(())
    })
    .await;
    let why = get(&fake, "bad")
        .status
        .unwrap()
        .conditions
        .unwrap()
        .pop()
        .unwrap();
    assert_eq!(why.reason.as_deref(), Some("SignerValidationFailure"));
    assert!(!request::is_issued(&get(&fake, "denied")));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn requests_for_pods_go_after_a_quarter_of_an_hour() {
    let clock = FakeClock::shared();
    let fake = FakeApi::new(Arc::clone(&clock));
    let put = |name: &str, minutes: i64| {
        let made = clock.now() - jiff::SignedDuration::from_mins(minutes);
        let request: PodCertificateRequest = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "x",
                "creationTimestamp": evenkeel_api::clock::rfc3339(made)},
            "spec": {"signerName": "example.com/a", "podName": "p", "podUID": "u",
                "serviceAccountName": "s", "serviceAccountUID": "u", "nodeName": "n",
                "nodeUID": "u", "stubPKCS10Request": ""},
        }))
        .unwrap();
        fake.put(&request);
    };
    put("old", 15);
    put("young", 1);
    let world = start(&fake, |context| Box::pin(clean_pods::run(context)));
    fake.wait_for("the old one is gone", |fake| {
        let gone = fake.get::<PodCertificateRequest>("x", "old").is_none();
        gone.then_some(())
    })
    .await;
    assert!(fake.get::<PodCertificateRequest>("x", "young").is_some());
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn one_bundle_says_how_the_api_server_is_trusted() {
    assert_eq!(
        publish::name_of(publish::SIGNER, "PEM"),
        "kubernetes.io:kube-apiserver-serving:384fb9a44fabe158be2757b9"
    );
    let fake = FakeApi::new(FakeClock::shared());
    let put = |name: &str, signer: &str| {
        let bundle: ClusterTrustBundle = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"signerName": signer, "trustBundle": "old"},
        }))
        .unwrap();
        fake.put(&bundle);
    };
    put("kubernetes.io:kube-apiserver-serving:old", publish::SIGNER);
    put("example.com:foo:a", "example.com/foo");
    let world = start(&fake, |context| {
        Box::pin(publish::run(context, "PEM".to_owned()))
    });
    let name = publish::name_of(publish::SIGNER, "PEM");
    let good = |fake: &FakeApi| {
        let bundles = fake.all::<ClusterTrustBundle>();
        let mut of_signer = bundles
            .iter()
            .filter(|it| it.spec.signer_name.as_deref() == Some(publish::SIGNER));
        let only = of_signer.next()?;
        let right = only.metadata.name.as_deref() == Some(&name)
            && only.spec.trust_bundle == "PEM"
            && of_signer.next().is_none();
        right.then_some(())
    };
    fake.wait_for("the bundle is there", good).await;
    let mut bundle = fake.get::<ClusterTrustBundle>("", &name).unwrap();
    bundle.spec.trust_bundle = "changed".to_owned();
    fake.put(&bundle);
    fake.wait_for("it is right again", good).await;
    fake.remove::<ClusterTrustBundle>("", &name);
    fake.wait_for("it is back", good).await;
    assert!(
        fake.get::<ClusterTrustBundle>("", "example.com:foo:a")
            .is_some()
    );
    world.end().await;
}
