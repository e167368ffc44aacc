//! Claims with real containers: data outlives the pod, the process and a restart, and goes when
//! its owner says so and at no other time.

use std::path::{Path, PathBuf};

use crate::common::{self, Cluster};

const READY: &str = "{.status.conditions[?(@.type==\"Ready\")].status}";
const PHASE: &str = "{.status.phase}";

/// Where a claim's volume lies.
fn directory(cluster: &Cluster, claim: &str) -> PathBuf {
    let volume = cluster.value(&format!("pvc {claim}"), "{.spec.volumeName}");
    let path = cluster.value(&format!("pv {volume}"), "{.spec.local.path}");
    assert!(
        path.ends_with(&volume) && !volume.is_empty(),
        "{claim}: {volume:?} at {path:?}"
    );
    PathBuf::from(path)
}

fn pod(name: &str, claim: &str, more: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: busybox:test
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'echo {name} >> /data/log; exec sleep 3600']
    volumeMounts: [{{name: data, mountPath: /data{more}}}]
  volumes:
  - name: data
    persistentVolumeClaim: {{claimName: {claim}}}
"
    )
}

fn claim(name: &str, class: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {name}}}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: {class}
  resources: {{requests: {{storage: 32Mi}}}}
"
    )
}

const DATABASE: &str = "apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 1
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 0
      securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000}
      containers:
      - name: main
        image: busybox:test
        imagePullPolicy: IfNotPresent
        command: [sh, -c, 'id -G; echo $HOSTNAME >> /data/log; echo x > /part/x; exec sleep 3600']
        volumeMounts:
        - {name: data, mountPath: /data}
        - {name: data, mountPath: /part, subPath: a/b}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec:
      accessModes: [ReadWriteOnce]
      resources: {requests: {storage: 64Mi}}
";

fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path)
        .unwrap_or_default()
        .lines()
        .count()
}

#[test]
fn data_outlives_pods_and_the_process_and_goes_when_it_should() {
    if !common::can_run_containers() {
        return;
    }
    let mut cluster = Cluster::with_node(25);
    cluster.import_busybox();
    let default = "{.metadata.annotations.storageclass\\.kubernetes\\.io/is-default-class}";
    cluster.value_becomes("storageclass local-path", default, "true");

    // A set's claim gets the default class, waits for the pod, and keeps what the pod wrote.
    cluster.apply(DATABASE);
    cluster.value_becomes("pod db-0", READY, "True");
    cluster.value_becomes("pvc data-db-0", PHASE, "Bound");
    let data = directory(&cluster, "data-db-0");
    assert!(
        data.starts_with(cluster.home().join("data/volumes")),
        "{}",
        data.display()
    );
    cluster.until("the first line", |_| {
        (lines(&data.join("log")) == 1).then_some(())
    });
    cluster.until("the part", |_| data.join("a/b/x").exists().then_some(()));
    {
        use std::os::unix::fs::MetadataExt as _;
        let meta = std::fs::metadata(&data).expect("it is there");
        assert_eq!(meta.gid(), 2000, "fsGroup");
    }
    let uid = cluster.value("pod db-0", "{.metadata.uid}");
    cluster.ok(&["delete", "pod", "db-0", "--wait=false"]);
    cluster.until("another pod", |cluster| {
        let now = cluster.value("pod db-0", "{.metadata.uid}");
        (!now.is_empty() && now != uid).then_some(())
    });
    cluster.value_becomes("pod db-0", READY, "True");
    cluster.until("the second line", |_| {
        (lines(&data.join("log")) == 2).then_some(())
    });

    // The process is killed; the container goes on, and what it has mounted too.
    cluster.down("-KILL");
    cluster.up();
    cluster.value_becomes("pod db-0", READY, "True");
    assert_eq!(
        cluster.value("pod db-0", "{.status.containerStatuses[0].restartCount}"),
        "0"
    );
    let said = cluster.ok(&["exec", "db-0", "--", "cat", "/data/log", "/part/x"]);
    assert_eq!(said, "db-0\ndb-0\nx\n");

    // It grows.
    let larger = r#"{"spec":{"resources":{"requests":{"storage":"128Mi"}}}}"#;
    cluster.ok(&["patch", "pvc", "data-db-0", "-p", larger]);
    cluster.value_becomes("pvc data-db-0", "{.status.capacity.storage}", "128Mi");

    // While a pod has it, it stays; then claim, volume and directory go.
    cluster.ok(&["delete", "pvc", "data-db-0", "--wait=false"]);
    cluster.value_becomes(
        "pvc data-db-0",
        "{.metadata.finalizers[0]}",
        "kubernetes.io/pvc-protection",
    );
    assert!(data.join("log").exists());
    let volume = cluster.value("pvc data-db-0", "{.spec.volumeName}");
    cluster.ok(&["delete", "statefulset", "db"]);
    cluster.until("the directory goes", |_| (!data.exists()).then_some(()));
    cluster.until("the volume goes", |cluster| {
        (cluster.kubectl(&["get", "pv", &volume]).code != 0).then_some(())
    });

    kept(&mut cluster);
    with_the_pod(&mut cluster);
    foreign(&mut cluster);
    last_words(&mut cluster);
}

/// What a container said before it died is in the answer.
fn last_words(cluster: &mut Cluster) {
    cluster.apply(
        "apiVersion: v1
kind: Pod
metadata: {name: dies}
spec:
  containers:
  - name: main
    image: busybox:test
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'echo the disk is on fire; exit 3']
",
    );
    let why = cluster.until("the chain has its last words", |cluster| {
        let why = cluster.why("pod/dies");
        why.contains("the disk is on fire").then_some(why)
    });
    assert!(why.contains("exit code 3"), "{why}");
}

/// With `Retain` data stays, whatever is deleted.
fn kept(cluster: &mut Cluster) {
    cluster.apply(&format!(
        "apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {{name: kept}}
provisioner: evenkeel.io/local-path
reclaimPolicy: Retain
volumeBindingMode: WaitForFirstConsumer
{}---
{}",
        claim("archive", "kept"),
        pod("writer", "archive", "")
    ));
    cluster.value_becomes("pod writer", READY, "True");
    let data = directory(cluster, "archive");
    let volume = cluster.value("pvc archive", "{.spec.volumeName}");
    cluster.until("it writes", |_| {
        (lines(&data.join("log")) == 1).then_some(())
    });
    cluster.ok(&[
        "delete",
        "pod,pvc",
        "writer",
        "archive",
        "--ignore-not-found",
    ]);
    cluster.value_becomes(&format!("pv {volume}"), PHASE, "Released");
    assert!(data.join("log").exists());
    cluster.ok(&["delete", "pv", &volume]);
    cluster.until("the object goes", |cluster| {
        (cluster.kubectl(&["get", "pv", &volume]).code != 0).then_some(())
    });
    assert_eq!(lines(&data.join("log")), 1, "the data stays");
}

/// A claim made for a pod goes with it.
fn with_the_pod(cluster: &mut Cluster) {
    cluster.apply(
        "apiVersion: v1
kind: Pod
metadata: {name: scratch}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: busybox:test
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'echo x > /data/x; exec sleep 3600']
    volumeMounts: [{name: work, mountPath: /data}]
  volumes:
  - name: work
    ephemeral:
      volumeClaimTemplate:
        spec:
          accessModes: [ReadWriteOnce]
          resources: {requests: {storage: 16Mi}}
",
    );
    cluster.value_becomes("pod scratch", READY, "True");
    let data = directory(cluster, "scratch-work");
    cluster.ok(&["delete", "pod", "scratch"]);
    cluster.until("the claim goes", |cluster| {
        (cluster.kubectl(&["get", "pvc", "scratch-work"]).code != 0).then_some(())
    });
    cluster.until("the directory goes", |_| (!data.exists()).then_some(()));
}

/// Volumes that people made: a host path to be read only, and a driver that nobody has.
fn foreign(cluster: &mut Cluster) {
    let shared = cluster.home().join("shared");
    std::fs::create_dir(&shared).expect("a directory");
    std::fs::write(shared.join("given"), "given\n").expect("a file");
    let manifest = |name: &str, source: &str| {
        format!(
            "---
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {name}}}
spec:
  capacity: {{storage: 32Mi}}
  accessModes: [ReadWriteOnce]
  storageClassName: by-hand
  claimRef: {{namespace: default, name: {name}}}
  {source}
{}",
            claim(name, "by-hand")
        )
    };
    let host = format!("hostPath: {{path: {}, type: Directory}}", shared.display());
    let driver = "csi: {driver: none.example, volumeHandle: a}";
    cluster.apply(&format!(
        "{}{}---
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {{name: none.example}}
spec: {{attachRequired: false}}
",
        manifest("given", &host),
        manifest("driven", driver)
    ));
    cluster.apply(&format!(
        "{}---\n{}",
        pod("reader", "given", ", readOnly: true"),
        pod("driven", "driven", "")
    ));
    cluster.value_becomes("pod reader", READY, "True");
    let said = cluster.kubectl(&[
        "exec",
        "reader",
        "--",
        "sh",
        "-c",
        "cat /data/given; echo x > /data/x",
    ]);
    assert!(
        said.out.contains("given") && said.all().contains("Read-only"),
        "{}",
        said.all()
    );
    assert!(!shared.join("log").exists());
    cluster.until("the driver is refused by name", |cluster| {
        let said = cluster.ok(&["describe", "pod", "driven"]);
        let refused = "driver name none.example not found in the list of registered CSI drivers";
        (said.contains("FailedMount") && said.contains(refused)).then_some(())
    });
    let why = cluster.why("pod/driven");
    assert!(why.contains("driver name none.example not found"), "{why}");
    cluster.ok(&["delete", "pod,pvc", "--all"]);
    for volume in ["given", "driven"] {
        cluster.value_becomes(&format!("pv {volume}"), PHASE, "Released");
    }
    assert!(shared.join("given").exists());
}
