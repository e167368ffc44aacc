//! Encryption at rest through the door, with keys that a key management service keeps.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_server::seal::Seal;
use evenkeel_store::{Op, Range, Store as _, Txn};
use serde_json::{Value, json};

use super::Opened;
use super::kms::FakeKms;

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
/// 32 bytes in base64.
const KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const NO_KEY: &str = "/nonexistent/key";

fn configuration(socket: &Path, before: &str) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources: [secrets]\n  providers:\n{before}  - kms:\n      apiVersion: v2\n      \
         name: fake\n      endpoint: unix://{}\n      timeout: 20s\n",
        socket.display()
    )
}

fn seal(socket: &Path) -> Arc<Seal> {
    let seal = Seal::configured(&configuration(socket, ""), Path::new(NO_KEY));
    Arc::new(seal.unwrap())
}

async fn open(seal: &Arc<Seal>) -> Opened {
    Opened::sealed(tempfile::tempdir().unwrap(), seal).await
}

fn secret(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
        "stringData": {"word": format!("the word of {name}")}})
}

async fn stored(opened: &Opened, name: &str) -> Bytes {
    let key = format!("/registry/secrets/default/{name}");
    let found = opened.store.range(Range::key(key)).await.unwrap();
    found.kvs[0].value.clone()
}

fn holds(stored: &[u8], part: &[u8]) -> bool {
    stored.windows(part.len()).any(|window| window == part)
}

/// The key of a stored value, as it stands in the second field.
fn key_of(stored: &[u8]) -> u8 {
    let keys = (1..=3).filter(|key| holds(stored, &[0x12, 1, b'0' + key, 0x1a]));
    let keys: Vec<u8> = keys.collect();
    assert_eq!(keys.len(), 1, "{stored:?}");
    keys[0]
}

#[tokio::test]
async fn a_service_keeps_the_key_and_can_change_it() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("kms.sock");
    let kms = FakeKms::start(&socket);
    let opened = open(&seal(&socket)).await;
    for name in ["a", "b"] {
        opened.post(SECRETS, &secret(name)).await.expect(201);
        let stored = stored(&opened, name).await;
        assert!(stored.starts_with(b"k8s:enc:kms:v2:fake:"), "{stored:?}");
        assert!(!holds(&stored, b"the word"));
        assert_eq!(key_of(&stored), 1);
    }
    // One seed for both, and nobody had to be asked for it again.
    let says = kms.says.lock().clone();
    assert_eq!((says.encrypted, says.decrypted), (1, 0));

    // Another process knows no seed: it asks once for both, and makes one of its own.
    let after = seal(&socket);
    let opened = opened.again(&after).await;
    let read = opened.get(&format!("{SECRETS}/a")).await.expect(200);
    assert_eq!(read.body["data"]["word"], "dGhlIHdvcmQgb2YgYQ==");
    let listed = opened.get(SECRETS).await.expect(200);
    assert_eq!(listed.body["items"].as_array().unwrap().len(), 2);
    // History is read from the store.
    let at = format!(
        "{SECRETS}?resourceVersion={}&resourceVersionMatch=Exact",
        read.revision()
    );
    opened.get(&at).await.expect(200);
    let says = kms.says.lock().clone();
    assert_eq!((says.encrypted, says.decrypted), (2, 1));

    // The service changes its key: what is written again is written with the new one.
    kms.says.lock().key = 2;
    after.refresh().await;
    let before = stored(&opened, "a").await;
    assert_eq!(key_of(&before), 1);
    let same = opened.put(&format!("{SECRETS}/a"), &read.body).await;
    assert!(same.expect(200).revision() > read.revision());
    assert_eq!(key_of(&stored(&opened, "a").await), 2);
    assert_eq!(key_of(&stored(&opened, "b").await), 1);
    let again = opened.get(&format!("{SECRETS}/a")).await.expect(200);
    let unchanged = opened.put(&format!("{SECRETS}/a"), &again.body).await;
    assert_eq!(unchanged.expect(200).revision(), again.revision());

    // Both keys are read, by the next process too.
    let opened = opened.again(&seal(&socket)).await;
    let listed = opened.get(SECRETS).await.expect(200);
    assert_eq!(listed.body["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn health_says_how_the_service_is() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("kms.sock");
    let kms = FakeKms::start(&socket);
    let seal = seal(&socket);
    let opened = open(&seal).await;
    for path in ["healthz", "livez", "readyz"] {
        opened
            .get(&format!("/{path}/kms-provider-0"))
            .await
            .expect(200);
        let all = opened.get(&format!("/{path}?verbose")).await.expect(200);
        let text = all.text();
        assert!(text.contains("[+]kms-provider-0 ok\n"), "{text}");
    }
    kms.says.lock().healthz = "sealed".to_owned();
    seal.refresh().await;
    let said = opened.get("/readyz").await.expect(500);
    let text = said.text();
    assert!(text.contains("unexpected healthz status: sealed"), "{text}");
    opened
        .get("/readyz?exclude=kms-provider-0")
        .await
        .expect(200);
    kms.says.lock().healthz = "ok".to_owned();
    seal.refresh().await;
    opened.get("/readyz").await.expect(200);

    // Without the service, what is known goes on.
    drop(kms);
    seal.refresh().await;
    opened.get("/livez").await.expect(500);
    opened.post(SECRETS, &secret("a")).await.expect(201);
    opened.get(&format!("{SECRETS}/a")).await.expect(200);
}

#[tokio::test]
async fn a_start_waits_for_the_service_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("kms.sock");
    let kms = FakeKms::start(&socket);
    let opened = open(&seal(&socket)).await;
    opened.post(SECRETS, &secret("a")).await.expect(201);
    drop(kms);
    std::fs::remove_file(&socket).unwrap();
    let late = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        FakeKms::start(&socket)
    };
    let seal = seal(&socket);
    let (opened, _kms) = tokio::join!(opened.again(&seal), late);
    opened.get(&format!("{SECRETS}/a")).await.expect(200);
}

#[tokio::test]
async fn what_another_server_has_sealed_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("kms.sock");
    let kms = FakeKms::start(&socket);
    let opened = open(&seal(&socket)).await;
    opened.post(SECRETS, &secret("a")).await.expect(201);
    let read = opened.get(&format!("{SECRETS}/a")).await.expect(200);
    // The same words under another seed, put past the door as by another server.
    let other = seal(&socket);
    other.prepare().await;
    let key = "/registry/secrets/default/a";
    let own = Arc::clone(&opened.door.registry().seal);
    let was = stored(&opened, "a").await;
    let plain = own.unseal("secrets", key.as_bytes(), &was).unwrap();
    let sealed = other.seal("secrets", key.as_bytes(), &plain).unwrap();
    assert!(!own.knows(&sealed));
    let put = Txn {
        compare: Vec::new(),
        success: vec![Op::Put {
            key: Bytes::from_static(key.as_bytes()),
            value: sealed.clone(),
        }],
        failure: Vec::new(),
    };
    opened.store.txn(put).await.unwrap();
    let again = opened.get(&format!("{SECRETS}/a")).await.expect(200);
    assert!(again.revision() > read.revision());
    assert_eq!(again.body["data"], read.body["data"]);
    assert!(own.knows(&sealed));
    assert_eq!(kms.says.lock().decrypted, 1);
}

#[tokio::test]
async fn a_changed_configuration_is_taken_over_while_it_is_right() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("kms.sock");
    let _kms = FakeKms::start(&socket);
    let seal = seal(&socket);
    let opened = open(&seal).await;
    opened.post(SECRETS, &secret("a")).await.expect(201);
    let box_first = format!("  - secretbox: {{keys: [{{name: k, secret: {KEY}}}]}}\n");
    assert!(seal.reload("kind: Nonsense").await.is_err());
    opened.post(SECRETS, &secret("b")).await.expect(201);
    assert_eq!(key_of(&stored(&opened, "b").await), 1);
    seal.reload(&configuration(&socket, &box_first))
        .await
        .unwrap();
    opened.post(SECRETS, &secret("c")).await.expect(201);
    let sealed = stored(&opened, "c").await;
    assert!(sealed.starts_with(b"k8s:enc:secretbox:v1:k:"));
    let read = opened.get(&format!("{SECRETS}/a")).await.expect(200);
    opened
        .put(&format!("{SECRETS}/a"), &read.body)
        .await
        .expect(200);
    let sealed = stored(&opened, "a").await;
    assert!(sealed.starts_with(b"k8s:enc:secretbox:v1:k:"));
}

#[tokio::test]
async fn a_configuration_with_a_dead_service_is_not_taken_over() {
    let key = format!("  - aesgcm: {{keys: [{{name: k, secret: {KEY}}}]}}\n");
    let nobody = configuration(Path::new("/nonexistent/kms.sock"), &key);
    let seal = Seal::configured(&nobody, Path::new(NO_KEY)).unwrap();
    let refused = seal.reload(&nobody).await.unwrap_err().to_string();
    assert!(refused.contains("failed to perform status"), "{refused}");
    let plain = Bytes::from_static(b"plain");
    let sealed = seal.seal("secrets", b"k", &plain).unwrap();
    assert!(sealed.starts_with(b"k8s:enc:aesgcm:v1:k:"));
}
