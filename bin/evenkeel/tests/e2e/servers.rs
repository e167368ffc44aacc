//! Two servers on one etcd: what one writes the other reads, nothing is given out twice, one of them
//! runs the loops, and the other takes over when it is killed.

#[path = "../../../../crates/store/tests/etcd_support/mod.rs"]
mod etcd_support;

use std::collections::BTreeSet;
use std::process::Command;

use crate::common::Cluster;
use etcd_support::Etcd;

const SLOT: u8 = 8;

fn copy(from: &Cluster, to: &Cluster) {
    let data = to.home().join("data");
    std::fs::create_dir_all(&data).unwrap();
    let status = Command::new("cp")
        .arg("-a")
        .arg(from.home().join("data/pki"))
        .arg(data.join("pki"))
        .status();
    assert!(status.unwrap().success());
}

fn deployment(replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: \
         {replicas}\n  selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: \
         {{labels: {{app: web}}}}\n    spec: {{containers: [{{name: c, image: none}}]}}\n"
    )
}

fn service(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{type: NodePort, \
         ports: [{{port: 80}}]}}\n"
    )
}

fn pods(cluster: &Cluster) -> usize {
    let names = cluster.kubectl(&["get", "pods", "-o", "name"]).out;
    names.lines().count()
}

#[test]
fn two_servers_on_one_etcd() {
    let Some(etcd) = Etcd::start(1) else {
        return etcd_support::skipped();
    };
    let flags = [
        "--store=etcd".to_owned(),
        format!("--etcd-endpoints={}", etcd.endpoints().join(",")),
        "--etcd-prefix=/e2e".to_owned(),
    ];
    let mut one = Cluster::prepared(SLOT, false, &flags);
    one.up();
    let mut two = Cluster::prepared(SLOT, false, &flags);

    // With certificates of its own a second server would be another cluster.
    let refused = two.command(&["up", "--no-node", "--listen=127.0.0.1:0"]);
    assert_ne!(refused.code, 0);
    assert!(
        refused.err.contains("certificate authority"),
        "{}",
        refused.all()
    );
    std::fs::remove_dir_all(two.home().join("data")).unwrap();
    copy(&one, &two);
    two.up();

    // Each reads what the other has just written.
    one.ok(&["create", "configmap", "from-one", "--from-literal=a=1"]);
    assert_eq!(two.value("configmap from-one", "{.data.a}"), "1");
    two.ok(&["create", "configmap", "from-two", "--from-literal=a=2"]);
    assert_eq!(one.value("configmap from-two", "{.data.a}"), "2");

    // Somebody else on the same etcd makes revisions that neither sees.
    let other = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args([
            "--endpoints",
            &etcd.endpoints()[0],
            "put",
            "/elsewhere",
            "1",
        ])
        .output();
    if other.is_ok_and(|output| output.status.success()) {
        assert_eq!(one.value("configmap from-two", "{.data.a}"), "2");
    }

    // Services made at both at once: no address and no port twice.
    let manifests = |server: &str| {
        let names = (0..20).map(|number| service(&format!("{server}-{number}")));
        names.collect::<Vec<_>>().join("---\n")
    };
    std::thread::scope(|scope| {
        let (one, two) = (&one, &two);
        scope.spawn(move || one.apply(&manifests("one")));
        scope.spawn(move || two.apply(&manifests("two")));
    });
    for path in [
        "{range .items[*]}{.spec.clusterIP}{\"\\n\"}{end}",
        "{range .items[*]}{.spec.ports[0].nodePort}{\"\\n\"}{end}",
    ] {
        let given = one.value("services", path);
        let given: Vec<&str> = given.lines().filter(|line| !line.is_empty()).collect();
        let distinct: BTreeSet<&str> = given.iter().copied().collect();
        assert_eq!(given.len(), distinct.len(), "{given:?}");
        assert!(given.len() >= 40, "{given:?}");
    }

    // One of them runs the loops: a Deployment gets the pods it asks for, and no more.
    one.apply(&deployment(3));
    two.until("three pods", |two| (pods(two) == 3).then_some(()));
    let leads = |cluster: &Cluster| cluster.log().contains("leading");
    assert!(leads(&one) != leads(&two), "exactly one leads");
    let (mut leader, mut follower) = if leads(&one) { (one, two) } else { (two, one) };
    follower.apply(&deployment(5));
    leader.until("five pods", |leader| (pods(leader) == 5).then_some(()));

    // It is killed: the other leads when the lease has run out, and serves all the while.
    leader.down("-KILL");
    follower.apply(&deployment(2));
    follower.until("two pods", |follower| (pods(follower) == 2).then_some(()));
    assert!(leads(&follower));

    // And back: the first one follows now.
    leader.up();
    leader.apply(&deployment(4));
    follower.until("four pods", |follower| (pods(follower) == 4).then_some(()));
    follower.down("-TERM");
    leader.apply(&deployment(1));
    leader.until("one pod", |leader| (pods(leader) == 1).then_some(()));
}
