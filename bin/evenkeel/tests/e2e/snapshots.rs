//! Snapshots and clones with real containers: what was is there again, what changes does not show,
//! and nothing half done is served, also when the process is killed in between.

use std::path::{Path, PathBuf};

use crate::common::{self, Cluster};

const READY: &str = "{.status.conditions[?(@.type==\"Ready\")].status}";
const USABLE: &str = "{.status.readyToUse}";

fn claim(name: &str, size: &str, source: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {name}}}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: local-path
  resources: {{requests: {{storage: {size}}}}}
  {source}
"
    )
}

fn from_snapshot(name: &str) -> String {
    format!("dataSource: {{apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: {name}}}")
}

fn from_claim(name: &str) -> String {
    format!("dataSourceRef: {{kind: PersistentVolumeClaim, name: {name}}}")
}

fn pod(name: &str, claim: &str, script: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: busybox:test
    imagePullPolicy: IfNotPresent
    command: [sh, -c, '{script}; exec sleep 3600']
    volumeMounts: [{{name: data, mountPath: /data}}]
  volumes:
  - name: data
    persistentVolumeClaim: {{claimName: {claim}}}
"
    )
}

fn snapshot(name: &str, source: &str, class: &str) -> String {
    format!(
        "---
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {{name: {name}}}
spec:
  {class}
  source: {{{source}}}
"
    )
}

fn directory(cluster: &Cluster, claim: &str) -> PathBuf {
    let volume = cluster.value(&format!("pvc {claim}"), "{.spec.volumeName}");
    PathBuf::from(cluster.value(&format!("pv {volume}"), "{.spec.local.path}"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn said(cluster: &mut Cluster, claim: &str, words: &str) {
    cluster.until(&format!("{claim} says {words:?}"), |cluster| {
        let told = cluster.ok(&["describe", "pvc", claim]);
        (told.contains("ProvisioningFailed") && told.contains(words)).then_some(())
    });
}

#[test]
fn a_snapshot_is_what_was_and_a_clone_is_what_is() {
    if !common::can_run_containers() {
        return;
    }
    let mut cluster = Cluster::with_node(26);
    cluster.import_busybox();
    // Nobody installed anything.
    cluster.value_becomes(
        "volumesnapshotclass local-path",
        "{.driver}",
        "evenkeel.io/local-path",
    );
    cluster.apply(&claim("db", "32Mi", ""));
    cluster.apply(&pod(
        "db",
        "db",
        "echo one > /data/log; ln -s log /data/link",
    ));
    cluster.value_becomes("pod db", READY, "True");
    let data = directory(&cluster, "db");
    cluster.until("it writes", |_| data.join("link").exists().then_some(()));

    // Without a class it gets the default one; status and columns say how it is.
    cluster.apply(&snapshot("first", "persistentVolumeClaimName: db", ""));
    cluster.value_becomes("volumesnapshot first", USABLE, "true");
    cluster.value_becomes("vs first", "{.status.restoreSize}", "32Mi");
    let shown = cluster.ok(&["get", "vs", "first"]);
    assert!(
        shown.contains("READYTOUSE") && shown.contains("local-path"),
        "{shown}"
    );
    let content = cluster.value("vs first", "{.status.boundVolumeSnapshotContentName}");
    let kept = cluster
        .home()
        .join("data/volumes/.snapshots")
        .join(&content);
    assert_eq!(read(&kept.join("data/log")), "one\n");
    std::fs::write(data.join("log"), "two\n").expect("a file");

    // Of the snapshot what was, of the claim what is; with a pod and without.
    cluster.apply(&claim("old", "32Mi", &from_snapshot("first")));
    cluster.apply(&claim("new", "64Mi", &from_claim("db")));
    cluster.apply(&pod("old", "old", "cp /data/log /data/seen"));
    cluster.value_becomes("pod old", READY, "True");
    let old = directory(&cluster, "old");
    cluster.until("it has seen what was", |_| {
        (read(&old.join("seen")) == "one\n").then_some(())
    });
    let summary = format!("/api/v1/nodes/{}/proxy/stats/summary", cluster.node_name());
    cluster.until("the summary says what its volume holds", |cluster| {
        let all: serde_json::Value =
            serde_json::from_str(&cluster.ok(&["get", "--raw", &summary])).ok()?;
        let pods = all["pods"].as_array()?;
        let mut volumes = pods
            .iter()
            .filter_map(|pod| pod["volume"].as_array())
            .flatten();
        let of_old = volumes.find(|volume| volume["pvcRef"]["name"] == "old")?;
        (of_old["usedBytes"].as_u64()? > 0 && of_old["inodesUsed"].as_u64()? >= 3).then_some(())
    });
    cluster.value_becomes("pvc new", "{.status.phase}", "Bound");
    let new = directory(&cluster, "new");
    cluster.until("the clone is whole", |_| {
        (read(&new.join("link")) == "two\n").then_some(())
    });
    assert_eq!(read(&data.join("seen")), "", "they are apart");

    refused(&mut cluster);
    outlives_its_source(&mut cluster, &kept);
    killed(&mut cluster);
    kept_and_taken_up_again(&mut cluster);
}

/// What can't be made says why.
fn refused(cluster: &mut Cluster) {
    cluster.apply(&claim("small", "1Mi", &from_snapshot("first")));
    cluster.apply(&claim("none", "32Mi", &from_snapshot("nobody")));
    cluster.apply(&claim("less", "1Mi", &from_claim("db")));
    said(
        cluster,
        "small",
        "requested volume size 1048576 is less than the size 33554432 for the source snapshot first",
    );
    said(
        cluster,
        "none",
        "error getting snapshot nobody from api server",
    );
    said(
        cluster,
        "less",
        "error, new PVC request must be greater than or equal in size",
    );
    cluster.ok(&["delete", "pvc", "small", "none", "less"]);
    cluster.apply(&snapshot(
        "lost",
        "persistentVolumeClaimName: nobody",
        "volumeSnapshotClassName: local-path",
    ));
    cluster.until("it says that there is no claim", |cluster| {
        let why = cluster.value("vs lost", "{.status.error.message}");
        why.contains("cannot get claim from snapshot").then_some(())
    });
    cluster.ok(&["delete", "vs", "lost"]);
    let both = "persistentVolumeClaimName: db, volumeSnapshotContentName: x";
    let answer = cluster.kubectl_with(&["apply", "-f", "-"], &snapshot("both", both, ""));
    assert!(answer.all().contains("exactly one of"), "{}", answer.all());
}

/// A snapshot needs nothing of the claim that it was made of, and goes when it is deleted.
fn outlives_its_source(cluster: &mut Cluster, kept: &Path) {
    cluster.ok(&["delete", "pod", "db"]);
    cluster.ok(&["delete", "pvc", "db"]);
    cluster.apply(&claim("again", "32Mi", &from_snapshot("first")));
    cluster.value_becomes("pvc again", "{.status.phase}", "Bound");
    let again = directory(cluster, "again");
    cluster.until("it is restored", |_| {
        (read(&again.join("log")) == "one\n").then_some(())
    });
    cluster.ok(&["delete", "vs", "first"]);
    cluster.until("the directory goes", |_| (!kept.exists()).then_some(()));
    assert_eq!(cluster.ok(&["get", "vsc", "-o", "name"]), "");
    assert_eq!(read(&again.join("log")), "one\n");
}

/// Killed while it copies, the process begins again, and what is served is whole.
fn killed(cluster: &mut Cluster) {
    let source = directory(cluster, "new");
    let many = source.join("many");
    std::fs::create_dir(&many).expect("a directory");
    for number in 0..20_000 {
        std::fs::write(many.join(number.to_string()), number.to_string()).expect("a file");
    }
    std::fs::write(source.join("large"), vec![7_u8; 48 << 20]).expect("a file");
    cluster.apply(&snapshot("whole", "persistentVolumeClaimName: new", ""));
    cluster.apply(&claim("copy", "64Mi", &from_claim("new")));
    let home = cluster.home().join("data/volumes");
    let begun = |home: &Path| {
        let found = std::fs::read_dir(home).into_iter().flatten().flatten();
        found
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .any(|name| name.starts_with(".making-") || name.starts_with("snapcontent-"))
    };
    cluster.until("it has begun", |_| {
        begun(&home.join(".snapshots")).then_some(())
    });
    cluster.down("-KILL");
    cluster.up();
    cluster.value_becomes("vs whole", USABLE, "true");
    let content = cluster.value("vs whole", "{.status.boundVolumeSnapshotContentName}");
    cluster.value_becomes("pvc copy", "{.status.phase}", "Bound");
    let copy = directory(cluster, "copy");
    cluster.until("the clone is there", |_| copy.exists().then_some(()));
    for tree in [home.join(".snapshots").join(content).join("data"), copy] {
        let files = std::fs::read_dir(tree.join("many"))
            .expect("it is there")
            .count();
        assert_eq!(files, 20_000, "{}", tree.display());
        assert_eq!(read(&tree.join("many/19999")), "19999");
        let large = std::fs::metadata(tree.join("large")).expect("it is there");
        assert_eq!(large.len(), 48 << 20);
    }
    cluster.until("nothing half done is left", |_| {
        let left = |at: &Path| {
            let found = std::fs::read_dir(at).into_iter().flatten().flatten();
            found
                .map(|entry| entry.file_name())
                .any(|name| name.to_string_lossy().starts_with(".making-"))
        };
        (!left(&home) && !left(&home.join(".snapshots"))).then_some(())
    });
    cluster.ok(&["delete", "vs", "whole"]);
}

/// With `Retain` the data stays, and is taken up again by its handle.
fn kept_and_taken_up_again(cluster: &mut Cluster) {
    cluster.apply(
        "apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshotClass
metadata: {name: kept}
driver: evenkeel.io/local-path
deletionPolicy: Retain
",
    );
    cluster.apply(&snapshot(
        "safe",
        "persistentVolumeClaimName: again",
        "volumeSnapshotClassName: kept",
    ));
    cluster.value_becomes("vs safe", USABLE, "true");
    let content = cluster.value("vs safe", "{.status.boundVolumeSnapshotContentName}");
    let handle = cluster.value(&format!("vsc {content}"), "{.status.snapshotHandle}");
    assert_eq!(handle, format!("{}/{content}", cluster.node_name()));
    cluster.ok(&["delete", "vs", "safe"]);
    cluster.ok(&["delete", "vsc", &content]);
    let kept = cluster
        .home()
        .join("data/volumes/.snapshots")
        .join(&content);
    assert_eq!(read(&kept.join("data/log")), "one\n");
    cluster.apply(&format!(
        "apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshotContent
metadata: {{name: found}}
spec:
  deletionPolicy: Delete
  driver: evenkeel.io/local-path
  source: {{snapshotHandle: {handle}}}
  volumeSnapshotRef: {{namespace: default, name: found}}
{}",
        snapshot(
            "found",
            "volumeSnapshotContentName: found",
            "volumeSnapshotClassName: kept"
        )
    ));
    cluster.value_becomes("vs found", USABLE, "true");
    cluster.apply(&claim("last", "32Mi", &from_snapshot("found")));
    cluster.value_becomes("pvc last", "{.status.phase}", "Bound");
    let last = directory(cluster, "last");
    cluster.until("it is restored", |_| {
        (read(&last.join("log")) == "one\n").then_some(())
    });
    cluster.ok(&["delete", "vs", "found"]);
    cluster.until("the directory goes", |_| (!kept.exists()).then_some(()));
}
