//! Backup while serving, restore, check, a move, and encryption at rest, as an administrator does
//! them.

use std::path::Path;

use crate::common::Cluster;

const SLOT: u8 = 9;

fn stored(cluster: &Cluster, text: &str) -> bool {
    let directory = cluster.home().join("data/store");
    let files = std::fs::read_dir(directory).unwrap().flatten();
    files.into_iter().any(|file| {
        let bytes = std::fs::read(file.path()).unwrap_or_default();
        bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    })
}

#[test]
fn a_backup_brings_a_cluster_back() {
    let mut cluster = Cluster::without_node(SLOT);
    cluster.ok(&["create", "configmap", "kept", "--from-literal=a=1"]);
    cluster.ok(&[
        "create",
        "secret",
        "generic",
        "sealed",
        "--from-literal=a=hidden",
    ]);
    let file = cluster.home().join("backup").display().to_string();
    let taken = cluster.command(&["backup", &file]);
    assert_eq!(taken.code, 0, "{}", taken.all());
    let again = cluster.command(&["backup", &file]);
    assert_ne!(again.code, 0, "an earlier backup is not overwritten");
    let running = cluster.command(&["check"]);
    assert!(running.err.contains("in use"), "{}", running.all());
    assert_eq!(cluster.command(&["check", &file]).code, 0);
    cluster.ok(&["create", "configmap", "lost", "--from-literal=a=1"]);
    cluster.ok(&["delete", "configmap", "kept"]);
    let before: u64 = cluster
        .value("configmap lost", "{.metadata.resourceVersion}")
        .parse()
        .unwrap();
    cluster.down("-TERM");
    let sound = cluster.command(&["check"]);
    assert_eq!(sound.code, 0, "{}", sound.all());

    let damaged = cluster.home().join("damaged");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    let damaged = damaged.display().to_string();
    for words in [
        &["check", &damaged][..],
        &["restore", "--replace", &damaged],
    ] {
        let refused = cluster.command(words);
        assert_ne!(refused.code, 0);
        assert!(refused.err.contains("is damaged") && refused.err.contains(&damaged));
    }
    let there = cluster.command(&["restore", &file]);
    assert!(there.err.contains("--replace"), "{}", there.all());
    let restored = cluster.command(&["restore", "--replace", &file]);
    assert_eq!(restored.code, 0, "{}", restored.all());
    assert!(cluster.home().join("data/store.replaced").exists());

    cluster.up();
    assert_eq!(cluster.value("configmap kept", "{.data.a}"), "1");
    assert_eq!(cluster.value("secret sealed", "{.data.a}"), "aGlkZGVu");
    assert!(
        cluster
            .fails(&["get", "configmap", "lost"])
            .contains("not found")
    );
    cluster.ok(&["create", "configmap", "after", "--from-literal=a=1"]);
    let after: u64 = cluster
        .value("configmap after", "{.metadata.resourceVersion}")
        .parse()
        .unwrap();
    assert!(after > before, "{after} after {before}");
}

fn configuration(path: &Path, providers: &str) {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources: [secrets, configmaps]\n  providers:\n{providers}"
    );
    std::fs::write(path, text).unwrap();
}

#[test]
fn encryption_keys_rotate() {
    const OLD: &str =
        "  - aescbc: {keys: [{name: old, secret: AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=}]}\n";
    const NEW: &str = "  - secretbox: {keys: [{name: new, secret: AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=}]}\n";
    let mut cluster = Cluster::without_node(SLOT + 1);
    cluster.ok(&[
        "create",
        "secret",
        "generic",
        "first",
        "--from-literal=a=hidden",
    ]);
    cluster.ok(&[
        "create",
        "configmap",
        "plain",
        "--from-literal=a=visible-once",
    ]);
    assert!(stored(&cluster, "visible-once") && !stored(&cluster, "aGlkZGVu"));
    cluster.down("-TERM");

    let config = cluster.home().join("encryption.yaml");
    configuration(&config, &format!("{OLD}  - identity: {{}}\n"));
    cluster.flag(format!("--encryption-provider-config={}", config.display()));
    cluster.up();
    // What the key of the first start has sealed is still read.
    assert_eq!(cluster.value("secret first", "{.data.a}"), "aGlkZGVu");
    cluster.ok(&[
        "create",
        "secret",
        "generic",
        "second",
        "--from-literal=a=hidden",
    ]);
    cluster.ok(&[
        "create",
        "configmap",
        "covered",
        "--from-literal=a=never-visible",
    ]);
    assert!(stored(&cluster, "k8s:enc:aescbc:v1:old:") && !stored(&cluster, "never-visible"));
    cluster.down("-TERM");

    configuration(&config, &format!("{NEW}{OLD}  - identity: {{}}\n"));
    cluster.up();
    let before = cluster.value("secret second", "{.metadata.resourceVersion}");
    let data = cluster.home().join("data").display().to_string();
    let rewritten = cluster.command(&["secrets", "rewrite"]);
    assert_eq!(rewritten.code, 0, "{} in {data}", rewritten.all());
    assert_ne!(
        before,
        cluster.value("secret second", "{.metadata.resourceVersion}")
    );
    // Once is enough: what is sealed with the newest key is not written again.
    let before = cluster.value("secret second", "{.metadata.resourceVersion}");
    assert_eq!(cluster.command(&["secrets", "rewrite"]).code, 0);
    assert_eq!(
        before,
        cluster.value("secret second", "{.metadata.resourceVersion}")
    );
    cluster.ok(&["delete", "configmap", "covered"]);
    cluster.down("-TERM");

    // The old key is not needed any more.
    configuration(&config, &format!("{NEW}  - identity: {{}}\n"));
    cluster.up();
    for secret in ["first", "second"] {
        let value = cluster.value(&format!("secret {secret}"), "{.data.a}");
        assert_eq!(value, "aGlkZGVu", "{secret}");
    }
    cluster.down("-TERM");

    configuration(
        &config,
        "  - kms: {apiVersion: v1, name: k, endpoint: unix:///k}\n",
    );
    let refused = cluster.command(&["up", "--no-node", "--listen=127.0.0.1:0"]);
    assert_ne!(refused.code, 0);
    assert!(
        refused.err.contains("providers[0].kms"),
        "{}",
        refused.all()
    );
}
