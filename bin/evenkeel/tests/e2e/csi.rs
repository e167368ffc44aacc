//! Volumes of a CSI driver with real containers: the driver is a stand-in that mounts
//! directories, and this test plays the external attacher and resizer, which are others' work.

use crate::common::{self, Cluster};
use evenkeel_node::testing::csi::{Call, FakeDriver};
use serde_json::{Value, json};

const READY: &str = "{.status.conditions[?(@.type==\"Ready\")].status}";
const DRIVER: &str = "csi.example";
const UNIQUE: &str = "kubernetes.io/csi/csi.example^disk-1";
const FINALIZER: &str = "external-attacher/csi-example";

const OBJECTS: &str = "apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: csi.example}
spec:
  attachRequired: true
  podInfoOnMount: true
  fsGroupPolicy: File
  volumeLifecycleModes: [Persistent, Ephemeral]
  tokenRequests: [{audience: vault}]
---
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: none.example}
spec: {attachRequired: false}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: disks}
provisioner: csi.example
allowVolumeExpansion: true
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {password: hidden}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: disk}
spec:
  capacity: {storage: 32Mi}
  accessModes: [ReadWriteOnce]
  storageClassName: disks
  persistentVolumeReclaimPolicy: Retain
  claimRef: {namespace: default, name: disk}
  csi:
    driver: csi.example
    volumeHandle: disk-1
    fsType: ext4
    volumeAttributes: {kind: fast}
    nodeStageSecretRef: {namespace: default, name: keys}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: disk}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: disks
  volumeName: disk
  resources: {requests: {storage: 32Mi}}
";

fn pod(name: &str, volume: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {{fsGroup: 2000}}
  containers:
  - name: main
    image: busybox:test
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'echo {name} >> /data/log; exec sleep 3600']
    volumeMounts: [{{name: data, mountPath: /data}}]
  volumes:
  - name: data
    {volume}
"
    )
}

/// An object as the door has it.
fn get(cluster: &Cluster, path: &str) -> Option<Value> {
    let answer = cluster.kubectl(&["get", "--raw", path]);
    serde_json::from_str(&answer.out)
        .ok()
        .filter(|it: &Value| it["kind"] != "Status")
}

/// Changes an object, again when somebody else did in between.
fn edit(cluster: &mut Cluster, read: &str, write: &str, change: impl Fn(&mut Value)) {
    cluster.until(&format!("{write} is written"), |cluster| {
        let mut object = get(cluster, read)?;
        change(&mut object);
        let answer =
            cluster.kubectl_with(&["replace", "--raw", write, "-f", "-"], &object.to_string());
        (answer.code == 0).then_some(())
    });
}

/// The only attachment.
fn attachment(cluster: &Cluster) -> Option<(String, Value)> {
    let all = get(cluster, "/apis/storage.k8s.io/v1/volumeattachments")?;
    let one = all["items"].as_array()?.first()?.clone();
    let name = one["metadata"]["name"].as_str()?.to_owned();
    Some((
        format!("/apis/storage.k8s.io/v1/volumeattachments/{name}"),
        one,
    ))
}

fn methods(driver: &FakeDriver) -> Vec<String> {
    driver.calls().into_iter().map(|call| call.method).collect()
}

fn call(driver: &FakeDriver, method: &str) -> Call {
    let mut calls = driver.calls().into_iter();
    calls
        .find(|call| call.method == method)
        .unwrap_or_else(|| panic!("no {method} in {:?}", driver.calls()))
}

#[test]
fn a_driver_gets_pods_their_volumes_and_takes_them_back() {
    if !common::can_run_containers() {
        return;
    }
    let mut cluster = Cluster::with_node(22);
    cluster.import_busybox();
    let node = cluster.node_name();
    let driver = FakeDriver::start(
        DRIVER,
        &cluster.home().join("driver"),
        &cluster.home().join("data/node/agent/plugins_registry"),
    );
    let told = cluster.until("the driver is registered", |_| driver.registered());
    assert_eq!(told, Ok(()));
    let of_node = |cluster: &Cluster| {
        let path = format!("/apis/storage.k8s.io/v1/csinodes/{node}");
        get(cluster, &path).expect("a CSINode")
    };
    let described = of_node(&cluster);
    assert_eq!(
        described["spec"]["drivers"],
        json!([{"name": DRIVER, "nodeID": "csi.example-node",
            "topologyKeys": ["topology.csi.example/rack"], "allocatable": {"count": 7}}])
    );
    assert_eq!(described["metadata"]["ownerReferences"][0]["kind"], "Node");
    let label = "{.metadata.labels.topology\\.csi\\.example/rack}";
    assert_eq!(cluster.value(&format!("node {node}"), label), "r1");

    cluster.apply(OBJECTS);
    let claim = "persistentVolumeClaim: {claimName: disk}";
    cluster.apply(&pod("first", claim));
    attached(&mut cluster, &driver, &node);
    grown_over_a_restart(&mut cluster, &driver);
    shared_and_let_go(&mut cluster, &driver, &node, claim);
    inline(&mut cluster, &driver);

    // A driver that nobody has is named.
    cluster.apply(&pod("lost", "csi: {driver: none.example}"));
    cluster.until("the driver that is missing is named", |cluster| {
        let said = cluster.ok(&["describe", "pod", "lost"]);
        said.contains("driver name none.example not found in the list of registered CSI drivers")
            .then_some(())
    });
    cluster.ok(&["delete", "pod", "lost"]);

    // It goes, and the node says so.
    drop(driver);
    cluster.until("the driver is gone", |cluster| {
        let drivers = of_node(cluster)["spec"]["drivers"].clone();
        drivers.as_array().is_none_or(Vec::is_empty).then_some(())
    });
}

/// The pod waits for the attacher; then the volume is staged and published with everything that
/// the driver is to know.
fn attached(cluster: &mut Cluster, driver: &FakeDriver, node: &str) {
    let (path, object) = cluster.until("an attachment is asked for", |it| attachment(it));
    assert_eq!(object["spec"]["attacher"], DRIVER);
    assert_eq!(object["spec"]["nodeName"], node);
    assert_eq!(object["spec"]["source"]["persistentVolumeName"], "disk");
    let this = format!("node {node}");
    cluster.value_becomes(&this, "{.status.volumesInUse[0]}", UNIQUE);
    assert_eq!(methods(driver), Vec::<String>::new(), "it is not attached");

    // The attacher first says that it failed, then that it did it.
    let status = format!("{path}/status");
    edit(cluster, &path, &status, |object| {
        object["status"] = json!({"attached": false,
            "attachError": {"message": "no rack", "time": "2026-01-01T00:00:00Z"}});
    });
    cluster.until("the pod says why it waits", |cluster| {
        let said = cluster.ok(&["describe", "pod", "first"]);
        said.contains("AttachVolume.Attach failed for volume \"disk\" : no rack")
            .then_some(())
    });
    edit(cluster, &path, &path, |object| {
        object["metadata"]["finalizers"] = json!([FINALIZER]);
    });
    edit(cluster, &path, &status, |object| {
        object["status"] = json!({"attached": true, "attachmentMetadata": {"slot": "7"}});
    });
    cluster.value_becomes("pod first", READY, "True");
    cluster.value_becomes(&this, "{.status.volumesAttached[0].name}", UNIQUE);
    assert_eq!(methods(driver), ["NodeStageVolume", "NodePublishVolume"]);
    // What is used the driver knows.
    let summary = format!("/api/v1/nodes/{node}/proxy/stats/summary");
    cluster.until("the summary says what the driver says", |cluster| {
        let all: Value = serde_json::from_str(&cluster.ok(&["get", "--raw", &summary])).ok()?;
        let pods = all["pods"].as_array()?;
        let mut volumes = pods
            .iter()
            .filter_map(|pod| pod["volume"].as_array())
            .flatten();
        let disk = volumes.find(|volume| volume["pvcRef"]["name"] == "disk")?;
        (disk["usedBytes"] == 400 && disk["inodesUsed"] == 7).then_some(())
    });
    let staged = call(driver, "NodeStageVolume");
    assert_eq!(staged.secrets["password"], "hidden");
    assert_eq!(staged.publish_context["slot"], "7");
    assert_eq!(staged.context["kind"], "fast");
    assert_eq!(staged.context.len(), 1, "nothing of the pod");
    let published = call(driver, "NodePublishVolume");
    let told = |name: &str| published.context.get(&format!("csi.storage.k8s.io/{name}"));
    assert_eq!(told("pod.name").map(String::as_str), Some("first"));
    assert_eq!(told("ephemeral").map(String::as_str), Some("false"));
    let tokens: Value = told("serviceAccount.tokens")
        .and_then(|text| serde_json::from_str(text).ok())
        .expect("tokens");
    assert!(
        tokens["vault"]["token"]
            .as_str()
            .is_some_and(|it| it.contains('.'))
    );
    assert!(tokens["vault"]["expirationTimestamp"].is_string());
    assert!(
        published
            .path
            .ends_with("/volumes/kubernetes.io~csi/disk/mount")
    );
    let said = cluster.ok(&["describe", "pod", "first"]);
    assert!(
        said.contains("AttachVolume.Attach succeeded for volume \"disk\""),
        "{said}"
    );
    let data = driver.data("disk-1");
    cluster.until("the pod writes", |_| {
        data.join("log").exists().then_some(())
    });
    {
        use std::os::unix::fs::MetadataExt as _;
        let meta = std::fs::metadata(&data).expect("it is there");
        assert_eq!(meta.gid(), 2000, "fsGroup");
    }
}

/// The volume has grown while the process was away: the node has the driver grow the file system.
fn grown_over_a_restart(cluster: &mut Cluster, driver: &FakeDriver) {
    let larger = r#"{"spec":{"resources":{"requests":{"storage":"64Mi"}}}}"#;
    cluster.ok(&["patch", "pvc", "disk", "-p", larger]);
    cluster.until("somebody else is to grow it", |cluster| {
        let said = cluster.ok(&["describe", "pvc", "disk"]);
        said.contains("waiting for an external controller to expand this PVC")
            .then_some(())
    });
    let larger = r#"{"spec":{"capacity":{"storage":"64Mi"}}}"#;
    cluster.ok(&["patch", "pv", "disk", "-p", larger]);
    driver.forget();
    cluster.down("-KILL");
    cluster.up();
    cluster.value_becomes("pvc disk", "{.status.capacity.storage}", "64Mi");
    let grown = call(driver, "NodeExpandVolume");
    assert_eq!(grown.context["bytes"], (64 << 20).to_string());
    assert_eq!(
        cluster.value("pod first", "{.status.containerStatuses[0].restartCount}"),
        "0"
    );
    assert_eq!(
        cluster.ok(&["exec", "first", "--", "cat", "/data/log"]),
        "first\n"
    );
}

/// A second pod of the node shares what is staged; with the last pod it is unstaged, and only
/// then detached.
fn shared_and_let_go(cluster: &mut Cluster, driver: &FakeDriver, node: &str, claim: &str) {
    driver.forget();
    cluster.apply(&pod("second", claim));
    cluster.value_becomes("pod second", READY, "True");
    assert_eq!(methods(driver), ["NodePublishVolume"]);
    cluster.ok(&["delete", "pod", "first"]);
    cluster.until("the first pod's mount goes", |_| {
        (methods(driver).len() == 2).then_some(())
    });
    assert_eq!(methods(driver)[1], "NodeUnpublishVolume");
    let this = format!("node {node}");
    assert_eq!(cluster.value(&this, "{.status.volumesInUse[0]}"), UNIQUE);
    cluster.ok(&["delete", "pod", "second"]);
    let (path, _) = cluster.until("it is to be detached", |cluster| {
        let going = |object: &Value| object["metadata"]["deletionTimestamp"].is_string();
        attachment(cluster).filter(|(_, object)| going(object))
    });
    let all = methods(driver);
    assert_eq!(all[2..], ["NodeUnpublishVolume", "NodeUnstageVolume"]);
    cluster.value_becomes(&this, "{.status.volumesInUse}", "");
    cluster.value_becomes(&this, "{.status.volumesAttached}", "");
    edit(cluster, &path, &path, |object| {
        object["metadata"]["finalizers"] = json!([]);
    });
    cluster.until("the attachment goes", |it| {
        attachment(it).is_none().then_some(())
    });
    let data = driver.data("disk-1").join("log");
    let log = std::fs::read_to_string(data).expect("the data stays");
    assert_eq!(log, "first\nsecond\n");
}

/// A volume that is made for a pod alone is published and nothing else.
fn inline(cluster: &mut Cluster, driver: &FakeDriver) {
    driver.forget();
    let source = "csi: {driver: csi.example, readOnly: false, volumeAttributes: {size: small}}";
    cluster.apply(&pod("alone", source));
    cluster.value_becomes("pod alone", READY, "True");
    let published = call(driver, "NodePublishVolume");
    assert_eq!(published.context["csi.storage.k8s.io/ephemeral"], "true");
    assert_eq!(published.context["size"], "small");
    assert!(published.volume.starts_with("csi-"), "{}", published.volume);
    assert!(attachment(cluster).is_none());
    cluster.ok(&["delete", "pod", "alone"]);
    cluster.until("it is unpublished", |_| {
        (methods(driver) == ["NodePublishVolume", "NodeUnpublishVolume"]).then_some(())
    });
}
