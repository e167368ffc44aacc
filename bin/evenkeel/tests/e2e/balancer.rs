//! Services of type LoadBalancer: a machine on the link reaches a pod by an address of a pool, and
//! whoever gets none is told why.

use crate::common::machine::Machine;
use crate::common::{Cluster, can_run_containers};

const SLOT: u8 = 19;

/// The page at an address, asked for from another machine.
fn get(machine: &Machine, address: &str) -> String {
    let script = "exec 3<>\"/dev/tcp/$0/80\" && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3";
    let output = machine
        .command("timeout")
        .args(["5", "bash", "-c", script, address])
        .output()
        .expect("nsenter runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn service(name: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{type: LoadBalancer, selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}
---
"
    )
}

fn pool(addresses: &str, link: &str) -> String {
    format!(
        "apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {{name: test, namespace: kube-system}}
spec: {{addresses: [{addresses:?}]}}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {{name: test, namespace: kube-system}}
spec: {{ipAddressPools: [test], interfaces: [{link}]}}
"
    )
}

#[test]
fn a_machine_on_the_link_reaches_a_service_by_an_address_of_a_pool() {
    if !can_run_containers() {
        return;
    }
    let neighbour = Machine::new("ekl", "172.31.218.1/24", "172.31.218.2/24");
    let mut cluster = Cluster::with_node(SLOT);
    cluster.import_busybox();
    cluster.apply(
        "apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:test
    command: [sh, -c, 'mkdir /www; echo from the pool >/www/index.html; exec httpd -f -p 8080 -h /www']
    readinessProbe: {tcpSocket: {port: 8080}}
",
    );
    // Without a pool it waits, and says for what.
    cluster.apply(&service("first"));
    cluster.until("a reason", |cluster| {
        let why = cluster.why("service/first");
        why.contains("no IPAddressPool is declared").then_some(())
    });
    cluster.until("the pools' kinds are served", |cluster| {
        (cluster
            .kubectl(&["get", "ipaddresspools,l2advertisements", "-A"])
            .code
            == 0)
            .then_some(())
    });
    let refused = cluster.kubectl_with(&["apply", "-f", "-"], &pool("192.0.2.9", neighbour.link()));
    assert!(
        refused
            .err
            .contains("must be a network (192.0.2.0/28) or a range"),
        "{}",
        refused.all()
    );
    let refused = cluster.kubectl_with(
        &["apply", "-f", "-"],
        &pool("172.31.218.100-172.31.218.300", neighbour.link()),
    );
    assert!(
        refused.err.contains("must be a network"),
        "{}",
        refused.all()
    );
    cluster.apply(&pool("172.31.218.100-172.31.218.101", neighbour.link()));
    let address = "{.status.loadBalancer.ingress[0].ip}";
    cluster.value_becomes("service first", address, "172.31.218.100");
    let test = "ipaddresspool test -n kube-system";
    cluster.value_becomes(
        test,
        "{.status.assignedIPv4}/{.status.availableIPv4}",
        "1/1",
    );
    cluster.until("the page over the link", |_| {
        get(&neighbour, "172.31.218.100")
            .contains("from the pool")
            .then_some(())
    });
    let wide = cluster.ok(&["get", "service", "first"]);
    assert!(wide.contains("172.31.218.100"), "{wide}");

    // Two more want one: the one that comes too late is told, and gets what becomes free.
    cluster.apply(&service("second"));
    cluster.value_becomes("service second", address, "172.31.218.101");
    cluster.apply(&service("third"));
    cluster.until("an event", |cluster| {
        let events = cluster.ok(&[
            "get",
            "events",
            "--field-selector=involvedObject.name=third",
        ]);
        events
            .contains("no available IPs in pool \"test\"")
            .then_some(())
    });
    let why = cluster.why("service/third");
    assert!(
        why.contains("no available IPs") && why.contains("next: "),
        "{why}"
    );
    cluster.ok(&["delete", "service", "first"]);
    cluster.value_becomes("service third", address, "172.31.218.100");
    cluster.until("the page of the third", |_| {
        get(&neighbour, "172.31.218.100")
            .contains("from the pool")
            .then_some(())
    });
    // No longer of that type: nothing of the address is left.
    cluster.ok(&[
        "patch",
        "service",
        "third",
        "-p",
        "{\"spec\":{\"type\":\"ClusterIP\"}}",
    ]);
    cluster.value_becomes(
        "service third",
        "{.metadata.annotations.evenkeel\\.io/announced-by}",
        "",
    );
    cluster.until("it leads nowhere", |_| {
        get(&neighbour, "172.31.218.100").is_empty().then_some(())
    });
    cluster.ok(&["delete", "pod", "web", "--wait=false"]);
}
