//! Certificates come to their end, and nobody notices.

use crate::common::{self, Cluster};

const TALKER: &str = "apiVersion: v1
kind: Pod
metadata: {name: talker}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:test
    command: [sh, -c, 'echo here; sleep 600']
";

#[test]
fn every_certificate_is_exchanged_before_it_ends() {
    if !common::can_run_containers() {
        return;
    }
    // A third of this is left when a new one is made: time enough for a slow machine.
    let mut cluster = Cluster::with_flags(13, &["--certificate-validity=60s"]);
    cluster.import_busybox();
    cluster.apply(TALKER);
    cluster.value_becomes("pod talker", "{.status.phase}", "Running");
    assert_eq!(cluster.ok(&["logs", "talker"]), "here\n");
    let data = cluster.home().join("data");
    let old = cluster.home().join("first-kubeconfig");
    std::fs::copy(data.join("kubeconfig"), &old).expect("a kubeconfig");
    let names = ["apiserver", "apiserver-kubelet-client", "kubelet", "admin"];
    let certificates = || {
        names.map(|name| {
            std::fs::read_to_string(data.join(format!("pki/{name}.crt"))).expect("a certificate")
        })
    };
    let first = certificates();
    let kubeconfig = format!("--kubeconfig={}", old.display());
    cluster.ok(&[&kubeconfig, "get", "pods"]);
    cluster.until("the first certificates have ended", |cluster| {
        let answer = cluster.kubectl(&[&kubeconfig, "get", "pods"]);
        (answer.code != 0).then_some(())
    });
    for (name, (before, after)) in names.iter().zip(first.iter().zip(certificates())) {
        assert_ne!(*before, after, "{name}");
    }
    // The door reaches the node, each showing the other a certificate that holds.
    assert_eq!(cluster.ok(&["logs", "talker"]), "here\n");
    assert_eq!(
        cluster.ok(&["exec", "talker", "--", "echo", "well"]),
        "well\n"
    );
}
