//! Dynamic resources with real containers: a driver registers, prepares a claim's device before the
//! pod starts, and has it back when the pod has gone, also over a kill of the process in between.

use std::path::PathBuf;

use crate::common::{self, Cluster};
use evenkeel_node::testing::dra::FakeResourceDriver;

const READY: &str = "{.status.conditions[?(@.type==\"Ready\")].status}";

/// A vendor's file; gone when dropped.
struct Vendor(PathBuf);

impl Vendor {
    fn new(kind: &str, edits: &str) -> Self {
        let directory = PathBuf::from("/var/run/cdi");
        std::fs::create_dir_all(&directory).expect("the directory of CDI");
        let name = format!("{}.yaml", kind.replace('/', "-"));
        let path = directory.join(name);
        let text = format!(
            "cdiVersion: 0.6.0\nkind: {kind}\ndevices:\n- name: one\n  containerEdits:\n{edits}"
        );
        std::fs::write(&path, text).expect("the vendor's file");
        Self(path)
    }
}

impl Drop for Vendor {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

fn objects(driver: &str, node: &str) -> String {
    format!(
        "apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: {{name: card}}
spec: {{selectors: [{{cel: {{expression: \"device.driver == '{driver}'\"}}}}]}}
---
apiVersion: resource.k8s.io/v1
kind: ResourceSlice
metadata: {{name: cards}}
spec:
  driver: {driver}
  nodeName: {node}
  pool: {{name: pool, generation: 1, resourceSliceCount: 1}}
  devices: [{{name: one}}]
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {{name: card}}
spec: {{spec: {{devices: {{requests: [{{name: card, exactly: {{deviceClassName: card}}}}]}}}}}}
"
    )
}

fn pod(name: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  resourceClaims: [{{name: card, resourceClaimTemplateName: card}}]
  containers:
  - name: main
    image: busybox:test
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'exec sleep 3600']
    resources: {{claims: [{{name: card}}]}}
  - name: without
    image: busybox:test
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'exec sleep 3600']
"
    )
}

#[test]
fn a_driver_prepares_devices_before_a_pod_and_has_them_back_after_it() {
    if !common::can_run_containers() {
        return;
    }
    let mut cluster = Cluster::with_node(24);
    cluster.import_busybox();
    let id = std::process::id();
    let (driver, kind) = (
        format!("card-{id}.example.com"),
        format!("v{id}.example.com/card"),
    );
    let shared = cluster.home().join("shared");
    std::fs::create_dir(&shared).expect("a directory");
    std::fs::write(shared.join("given"), "by the vendor\n").expect("a file");
    let edits = format!(
        "    env: [CARD=one]\n    deviceNodes:\n    - {{path: /dev/card, hostPath: /dev/null}}\n    \
         mounts:\n    - {{hostPath: {}, containerPath: /card, options: [ro, rbind]}}\n",
        shared.display()
    );
    let _vendor = Vendor::new(&kind, &edits);
    let node = cluster.node_name();
    cluster.apply(&objects(&driver, &node));

    // Nobody prepares it yet: the pod has a node and says what it waits for.
    cluster.apply(&pod("one"));
    cluster.until("it says who is missing", |cluster| {
        let told = cluster.ok(&["describe", "pod", "one"]);
        let missing = format!("DRA driver {driver} is not registered");
        (told.contains("FailedPrepareDynamicResources") && told.contains(&missing)).then_some(())
    });
    let registry = cluster.home().join("data/node/agent/plugins_registry");
    let home = cluster.home().join("driver");
    let fake = FakeResourceDriver::start(&driver, &format!("{kind}=one"), &home, &registry);
    cluster.until("it is registered", |_| {
        (fake.registered() == Some(Ok(()))).then_some(())
    });
    cluster.value_becomes("pod one", READY, "True");
    let script = "echo $CARD; cat /card/given; test -c /dev/card && echo a device";
    let said = cluster.ok(&["exec", "one", "-c", "main", "--", "sh", "-c", script]);
    assert_eq!(said, "one\nby the vendor\na device\n");
    // A container that names no claim has none of it.
    let other = cluster.kubectl(&["exec", "one", "-c", "without", "--", "sh", "-c", script]);
    assert!(!other.out.contains("one"), "{}", other.all());
    assert_eq!(fake.calls().len(), 1, "{:?}", fake.calls());

    // The one device is taken; the next pod waits for it.
    cluster.apply(&pod("two"));
    cluster.down("-KILL");
    cluster.up();
    cluster.until("it is registered again", |_| {
        (fake.registered() == Some(Ok(()))).then_some(())
    });
    cluster.ok(&["delete", "pod", "one", "--wait=false"]);
    cluster.value_becomes("pod two", READY, "True");
    let calls: Vec<String> = fake
        .calls()
        .iter()
        .filter_map(|call| call.split(' ').next().map(str::to_owned))
        .collect();
    // Taken back from the first before it is prepared for the second, and each once.
    assert_eq!(
        calls,
        ["prepare", "unprepare", "prepare"],
        "{:?}",
        fake.calls()
    );
    cluster.ok(&["delete", "pod", "two"]);
    cluster.until("nothing is prepared", |_| {
        fake.prepared().is_empty().then_some(())
    });
}
