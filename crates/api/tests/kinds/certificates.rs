//! Bundles of trust and requests for pods' certificates, with the reference's words.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evenkeel_api::clock::rfc3339;
use jiff::{SignedDuration, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use super::{check, create_errors, pod, prepared, row_of, texts, update_errors, with};

/// Requests by keys that nobody has: P-521, P-224, and RSA of 3072 and 2048 bits.
const P521: &[&str] = &[
    "MIIBQzCBpQIBADAAMIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQAAkZfbSoFSTIY9Tfq2LvWIouQAu8KYFwxNOzakv",
    "Hs7PbfXlZJ8P96spcwsIVnT/5YJe8rcRF4ke5Nikw5yHwcQfUABrU5V63zxjsw8MhvyqzxZhyL/4SMq9D/4Sv6s3Va",
    "0JKihYp4GBh9LhmvExDNMWXrQnHg7p0wYLpoBRL9+nDN9FegADAKBggqhkjOPQQDBAOBjAAwgYgCQgG+sqTDsPbJ2P",
    "IIM4bmn9AxNKLvGAv2mFHgeDOs4/spLCWyz0QQzarcJB41EKtqrYTNh4mQ2o/JVF2xGObBqlytcwJCAaVw9nKakVso",
    "ZpzHDSoza8f0jcVlMwebFbvTbpa8A9e0Nw8LYlGCN+whazSSswiLU4y/nuk8vKvktcpkFoxteWas",
];
const P224: &[&str] = &[
    "MIGoMFcCAQAwADBOMBAGByqGSM49AgEGBSuBBAAhAzoABJq5pR6e2EmpAlSAkNGNtjEc6VeftBmA+rd+M9pOqtYcRd",
    "RvcNQrf+h+roLnexflt1diz9dTClM1oAAwCgYIKoZIzj0EAwIDQQAwPgIdANHQMUUnNYOzXxXHFEGsi6t7hdH33DB8",
    "fNiG4ioCHQD2cx9sEyOg1amzQxJjdyYhiKp67AvvXtzK9crU",
];
const R3072: &[&str] = &[
    "MIIDRTCCAa0CAQAwADCCAaIwDQYJKoZIhvcNAQEBBQADggGPADCCAYoCggGBAL7XRUfqIQ8If4lvddGcCDzSQvkRjA",
    "u9bC+77bswZLBtl84+HPaaZ3dtA855kawRj0rgyqWrbjbZ9N0YCde0wwbT4iFg8JW0t3pgxskrwsKPLhWmcCYw9E34",
    "6CZMj8shaBQaeK4U6GcIWK8PU9MkEi52jq4+T2fjGunWkMO6m1PpvJFYuD/qNJ71+9dwiHXlXRobsnHgAyWHIsryPK",
    "c28D30mUrk0FAEZ6Eu+K98ZwJzr/hOaT/NUCidQa6pd+8ezS0qxvgDxE0IB8Ma6sljDxAJhNgeIiHNKDCnwNVkeDyj",
    "JjW1qxNPSSriVxlCMrBrRglUFGTFjb3g9LYOZxZ90C1fHJeAt05zjPOY/8WFJUZyWiwyMSxWnGlhheACXbociRHpNJ",
    "od4NZ6oQoqbnFqC7Si9HSfCDywlXKPm0KQNvQqdr6QGYZMxNIqwL5t9bWbKhVYjZ6Gv9Md3qJtx/aicEp16jFKl1wi",
    "3747/dNmqTsEPsgbQrZh0qZQ8FG7FijtLwIDAQABoAAwDQYJKoZIhvcNAQELBQADggGBALtikSD0r2mLneqhkergqL",
    "wUWsZ2YsyuKdCNR7lqWFAS7J+Asgt1OCW2VQL+1byvgkaAOFcYuNy3BnsBsCRXs6JP6QYp1D9mR/7kvMyaMF230Pzx",
    "fYj3+gxRHVTHOnYGSUfxAhuS56xGxn0OoimcPdjfeyMpEnMo9kjFplcwknMkDhdO/zrtubT5XdJEKmK+WdGwxB3JlM",
    "5+b71WpO8T7Fm3JKJc3Vr/pYD+A5U0AroaNwiFGyJXHKUd0u8yKcikRqgKMN3u6844ZDoYrLmLi4gZF8SRbsYZ6aL6",
    "U06VSB9ZMK82VjCgSldWBIa1OZB5SGToCSOH0PG7NnA90NNKvIWH1H7Ph1EW+TTt0AI0u8bKdBJytlCv4rJe2TBOtP",
    "bumS8bdyqY94+RaeS+FHP6nZglXydQtMu6b10gtqheB4uMU7OcmA/J3B5Rvx7n2C6JdX6Ns+AxGNzoMK5Tx1n8G3oW",
    "0Aice6fQnqe333lZjKlX5QybvT5nbvWpf0sbBGU+Dw==",
];
const R2048: &[&str] = &[
    "MIICRTCCAS0CAQAwADCCASIwDQYJKoZIhvcNAQEBBQADggEPADCCAQoCggEBAMBBfF2PhHIwRNL7an8Iux9JpegHIO",
    "Bsey8znALCUopitCYnHs3NKl+j3Y2WR5Nhc+HqYT2rwNhk1Ryj0aQwu6QG5SVPt0pdbwLVAK6oiMTybXq4xd4XDoqx",
    "k5ss6XCBw0heuKtp8sVhk+3QRM4k0w921qfVUht/gnX8V31ROa0eC5GQb6UuiEDhjBFiNNWZ8c3BdyPoEDIb62MgOs",
    "yZlSMMb8ydUz9PlZcV0vRGUiH2/QTHNLMMoxVLOjzTMS65Ci4GUaASsIHDh7u4k17P8vhe3Mi3ZFTkZe8KOGxoY7n2",
    "Qhd4VLSvP4TOvjfEmEH9+ZpVGD2dbTrzl/TeQV/TeeMCAwEAAaAAMA0GCSqGSIb3DQEBCwUAA4IBAQADLjOn3CA+8y",
    "87okORAuUvi3w4DxxQHGtw/De/vdJdtZ3rimFMDlhkE1Qe7xPa6nOgC+Yh6bLgqTSVnXFQoKrKkuKj/e4ehXRSD96M",
    "nnY4VhEuEXBkRSxldt8ijtz9ub1uNNWmQUsTV4/5R5ZfPcxVn/hrkOI0RbLRl1xXyG/V8jnmoUOfRRENS6dSQMTMr0",
    "xn+ZIiBWAfYVe7nI0sbEahgQBWYS2Titi92WMrRB0d2YEkCQaRnh2icbkfIoymObizeELeysT7jLCsiBn7hgNSdw2c",
    "6RsZokG3El1o2n76cV4VY5+iwoGEZN2+xrDTJfbYPe+MuuYP1taumPKo5wEJ",
];

fn authority(name: &str, ca: bool) -> String {
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    if ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let key = KeyPair::generate().expect("a key");
    params.self_signed(&key).expect("a certificate").pem()
}

fn bundle(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "certificates.k8s.io/v1", "kind": "ClusterTrustBundle",
        "metadata": {"name": name}, "spec": spec})
}

#[test]
fn bundles_of_trust() {
    let (one, two) = (authority("one", true), authority("two", true));
    let leaf = authority("leaf", false);
    let wrong = |text: &str| create_errors(bundle("a", &json!({"trustBundle": text})));
    let said = |what: &str| {
        vec![format!(
            "spec.trustBundle: Invalid value: \"<value omitted>\": {what}"
        )]
    };
    let none: Vec<String> = Vec::new();
    assert_eq!(wrong(&format!("words\n{one}between\n{two}")), none);
    assert_eq!(
        wrong(""),
        said("at least one trust anchor must be provided")
    );
    assert_eq!(
        wrong(&format!("{one}{two}{one}")),
        said("duplicate trust anchor (indices [0 2])")
    );
    assert_eq!(
        wrong(&format!("{one}{leaf}")),
        said("entry 1 does not have the CA bit set")
    );
    let other = one.replace("CERTIFICATE", "PUBLIC KEY");
    assert_eq!(
        wrong(&other),
        said("entry 0 has bad block type: PUBLIC KEY")
    );
    let begin = "-----BEGIN CERTIFICATE-----\n";
    let headed = one.replace(begin, &format!("{begin}Name: value\n\n"));
    assert_eq!(wrong(&headed), said("entry 0 has PEM block headers"));
    assert_eq!(
        wrong(&format!("{begin}AAAA\n-----END CERTIFICATE-----\n")),
        said("entry 0 does not parse as X.509")
    );
    assert_eq!(
        wrong(&"x".repeat(1024 * 1024 + 1)),
        ["spec.trustBundle: Too long: may not be more than 1048576 bytes"]
    );
    let of = |name: &str, signer: &str| {
        create_errors(bundle(
            name,
            &json!({"signerName": signer, "trustBundle": one}),
        ))
    };
    assert_eq!(of("example.com:foo:v1", "example.com/foo"), none);
    assert_eq!(
        of("v1", "example.com/foo"),
        [
            "metadata.name: Invalid value: \"v1\": ClusterTrustBundle for signerName \
          example.com/foo must be named with prefix example.com:foo:"
        ]
    );
    assert_eq!(
        of("example.com:foo:v1", ""),
        [
            "metadata.name: Invalid value: \"example.com:foo:v1\": ClusterTrustBundle without \
          signer name must not have \":\" in its name"
        ]
    );
    let mine = bundle(
        "example.com:foo:v1",
        &json!({"signerName": "example.com/foo",
        "trustBundle": "not read again"}),
    );
    let other = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(update_errors(mine.clone(), &other), none);
    assert_eq!(
        update_errors(mine, &json!({"spec": {"signerName": "example.com/bar"}}))[1],
        "spec.signerName: Invalid value: \"example.com/bar\": field is immutable"
    );
}

fn request(spec: &Value) -> Value {
    let base = json!({"signerName": "example.com/pods", "podName": "p", "podUID": "pu",
        "serviceAccountName": "s", "serviceAccountUID": "su", "nodeName": "n", "nodeUID": "nu",
        "stubPKCS10Request": P521.concat()});
    json!({"apiVersion": "certificates.k8s.io/v1", "kind": "PodCertificateRequest",
        "metadata": {"name": "a"}, "spec": with(base, spec)})
}

#[test]
fn requests_for_pods() {
    assert_eq!(
        prepared(request(&json!({})))["spec"]["maxExpirationSeconds"],
        86400
    );
    let stub = |what: &[&str]| json!({"stubPKCS10Request": what.concat()});
    let mut changed = STANDARD.decode(P521.concat()).unwrap();
    let last = changed.len() - 1;
    changed[last] ^= 1;
    check(
        vec![
            (json!({}), vec![]),
            (stub(R3072), vec![]),
            (
                stub(P224),
                vec![
                    "spec.stubPKCS10Request: Invalid value: \"curve P-224\": elliptic public keys must use curve P256, P384, or P521",
                ],
            ),
            (
                stub(R2048),
                vec![
                    "spec.stubPKCS10Request: Invalid value: \"2048-bit modulus\": RSA keys must have modulus size 3072 or 4096",
                ],
            ),
            (
                stub(&["bm9uc2Vuc2U="]),
                vec!["spec.stubPKCS10Request: Invalid value: must be a valid PKCS#10 CSR"],
            ),
            (
                json!({"stubPKCS10Request": STANDARD.encode(changed)}),
                vec!["spec.stubPKCS10Request: Invalid value: invalid signature"],
            ),
            (
                json!({"stubPKCS10Request": ""}),
                vec![
                    "spec: Invalid value: exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set",
                ],
            ),
            (
                json!({"podUID": "", "nodeUID": "n".repeat(129)}),
                vec![
                    "spec.podUID: Invalid value: \"\": must not be empty",
                    "spec.nodeUID: Too long: may not be more than 128 bytes",
                ],
            ),
            (
                json!({"maxExpirationSeconds": 3599}),
                vec![
                    "spec.maxExpirationSeconds: Invalid value: 3599: must be in the range [3600, 7862400]",
                ],
            ),
            (
                json!({"maxExpirationSeconds": 86401, "signerName": "kubernetes.io/kube-apiserver-client-pod"}),
                vec![
                    "spec.maxExpirationSeconds: Invalid value: 86401: must be in the range [3600, 86400]",
                ],
            ),
            (
                json!({"unverifiedUserAnnotations": {"plain": "x", "example.com/Good": "y"}}),
                vec![
                    "spec.unverifiedUserAnnotations: Invalid value: \"plain\": must be a domain-prefixed key (such as \"acme.io/foo\")",
                ],
            ),
        ],
        request,
    );
    let wrong = update_errors(request(&json!({})), &json!({"spec": {"podName": "q"}}));
    assert!(wrong[0].ends_with(": field is immutable"), "{wrong:?}");
    assert_eq!(wrong.len(), 1);
}

/// What is wrong with an answer to a request that has `before` for its status.
fn answer(before: &Value, status: &Value, now: Timestamp, spec: &Value) -> Vec<String> {
    let mut old = prepared(request(spec));
    old["status"] = before.clone();
    let mut new = old.clone();
    new["status"] = status.clone();
    let row = row_of(&old);
    row.strategy
        .prepare_status_at(&mut new, &old, &rfc3339(now));
    texts(&row.strategy.validate_status_at(&new, &old, now))
}

fn condition(kind: &str) -> Value {
    json!({"type": kind, "status": "True", "reason": "Tested", "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

#[test]
fn answers_to_requests_for_pods() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let stub = params.serialize_request(&key).unwrap();
    let spec = json!({"stubPKCS10Request": STANDARD.encode(stub.der())});
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    let at = |minutes: i64| now + SignedDuration::from_mins(minutes);
    let issuer_key = KeyPair::generate().unwrap();
    let issuer = Issuer::new(CertificateParams::default(), &issuer_key);
    let sign = |key: &KeyPair, minutes: i64, name: &str| {
        let mut params = CertificateParams::default();
        let moment = |at: Timestamp| {
            std::time::SystemTime::UNIX_EPOCH
                + std::time::Duration::from_secs(u64::try_from(at.as_second()).unwrap())
        };
        params.not_before = moment(now).into();
        params.not_after = moment(at(minutes)).into();
        if !name.is_empty() {
            let name = rcgen::SanType::DnsName(name.try_into().unwrap());
            params.subject_alt_names = vec![name];
        }
        params.signed_by(key, &issuer).unwrap().pem()
    };
    let issued = |chain: &str, minutes: i64, refresh: i64| {
        json!({"conditions": [condition("Issued")], "certificateChain": chain,
            "notBefore": rfc3339(now), "notAfter": rfc3339(at(minutes)),
            "beginRefreshAt": rfc3339(at(refresh))})
    };
    let none: Vec<String> = Vec::new();
    let empty = json!({});
    let judge = |status: &Value| answer(&empty, status, now, &spec);
    let good = sign(&key, 120, "");
    let status = issued(&good, 120, 60);
    assert_eq!(judge(&status), none);
    assert_eq!(
        answer(&status, &issued(&good, 120, 61), now, &spec),
        [
            "status: Invalid value: immutable after PodCertificateRequest is issued, denied, or failed"
        ]
    );
    assert_eq!(answer(&status, &status, now, &spec), none);
    let chain = |what: &Value| what.to_string();
    let says = |wrong: Vec<String>, what: &str| {
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        assert!(wrong[0].ends_with(what), "{wrong:?}");
    };
    let other = sign(&KeyPair::generate().unwrap(), 120, "");
    says(
        judge(&issued(&other, 120, 60)),
        "leaf certificate was not issued to the requested public key",
    );
    says(
        judge(&issued("", 120, 60)),
        "\"\": issued certificate chain must contain at least one certificate",
    );
    says(
        judge(&issued(&good, 121, 60)),
        "must be set to the NotAfter time encoded in the leaf certificate",
    );
    says(
        answer(&empty, &status, at(6), &spec),
        "must be set to within 5 minutes of kube-apiserver's current time",
    );
    says(
        judge(&issued(&sign(&key, 59, ""), 59, 30)),
        "3540000000000: leaf certificate lifetime must be >= 1 hour",
    );
    says(
        judge(&issued(&sign(&key, 1441, ""), 1441, 30)),
        "leaf certificate lifetime must be <= spec.maxExpirationSeconds (86400)",
    );
    says(
        judge(&issued(&good, 120, 9)),
        "must be at least 10 minutes after status.notBefore",
    );
    says(
        judge(&issued(&good, 120, 111)),
        "must be at least 10 minutes before status.notAfter",
    );
    says(
        judge(&issued(&sign(&key, 120, "a..b"), 120, 60)),
        "\"a..b\": leaf certificate's DNSName should not contain '..'",
    );
    let missing = with(status.clone(), &json!({"beginRefreshAt": null}));
    says(
        judge(&missing),
        "must be present and in the range [notbefore+10min, notafter-10min]",
    );
    let mixed = format!("{good}{}", good.replace("CERTIFICATE", "X"));
    says(
        judge(&issued(&mixed, 120, 60)),
        "issued certificate chain must consist entirely of CERTFICATE PEM blocks",
    );
    assert_eq!(judge(&json!({"conditions": [condition("Denied")]})), none);
    says(
        judge(&json!({"conditions": [condition("Denied")], "certificateChain": good})),
        "non-condition status fields must be empty when denying or failing the PodCertificateRequest",
    );
    assert_eq!(
        judge(&json!({"conditions": [condition("Denied"), condition("Failed")]})),
        [
            "status.conditions.[1].type: Invalid value: \"Failed\": There may be at most one condition with type \"Issued\", \"Denied\", or \"Failed\""
        ]
    );
    assert_eq!(
        judge(&json!({"conditions": [condition("Tested")]})),
        [
            "status.conditions.[0].type: Unsupported value: \"Tested\": supported values: \"Issued\", \"Denied\", \"Failed\""
        ]
    );
    says(
        judge(&json!({"certificateChain": chain(&json!("x"))})),
        "status is immutable unless transitioning to \"Issued\", \"Denied\", or \"Failed\"",
    );
}

#[test]
fn what_pods_project_of_both() {
    let projecting = |source: Value| {
        let mut pod = pod();
        pod["spec"]["volumes"] = json!([{"name": "v", "projected": {"sources": [source]}}]);
        pod
    };
    let certificate = |patch: &Value| {
        let base = json!({"signerName": "example.com/pods", "keyType": "ED25519",
            "credentialBundlePath": "bundle.pem"});
        projecting(json!({"podCertificate": with(base, patch)}))
    };
    check(
        vec![
            (json!({}), vec![]),
            (
                json!({"keyType": "RSA2048"}),
                vec![
                    "spec.volumes[0].projected.sources[0].podCertificate.keyType: Unsupported value: \"RSA2048\": supported values: \"RSA3072\", \"RSA4096\", \"ECDSAP256\", \"ECDSAP384\", \"ECDSAP521\", \"ED25519\"",
                ],
            ),
            (
                json!({"maxExpirationSeconds": 60}),
                vec![
                    "spec.volumes[0].projected.sources[0].podCertificate.maxExpirationSeconds: Invalid value: 60: if provided, maxExpirationSeconds must be >= 3600",
                ],
            ),
            (
                json!({"keyPath": "bundle.pem"}),
                vec![
                    "spec.volumes[0].projected: Invalid value: \"bundle.pem\": conflicting duplicate paths",
                ],
            ),
            (
                json!({"credentialBundlePath": null}),
                vec![
                    "spec.volumes[0].projected.sources[0].podCertificate: Required value: specify at least one of credentialBundlePath, keyPath, and certificateChainPath",
                ],
            ),
        ],
        certificate,
    );
    let bundle = |patch: &Value| {
        let base = json!({"path": "ca.pem"});
        projecting(json!({"clusterTrustBundle": with(base, patch)}))
    };
    check(
        vec![
            (json!({"name": "example.com:foo:v1"}), vec![]),
            (json!({"signerName": "example.com/foo"}), vec![]),
            (
                json!({}),
                vec![
                    "spec.volumes[0].projected.sources[0].clusterTrustBundle: Required value: either name or signerName must be specified",
                ],
            ),
            (
                json!({"name": "A"}),
                vec![
                    "spec.volumes[0].projected.sources[0].clusterTrustBundle.name: Invalid value: \"A\": not a valid clustertrustbundlename: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                ],
            ),
            (
                json!({"signerName": "foo"}),
                vec![
                    "spec.volumes[0].projected.sources[0].clusterTrustBundle.signerName: Invalid value: \"foo\": must be a fully qualified domain and path of the form 'example.com/signer-name'",
                ],
            ),
        ],
        bundle,
    );
}
