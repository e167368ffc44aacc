//! A second machine joins: the agent alone, in a network namespace of its own, with nothing of the
//! cluster's but a kubeconfig, or a token and a hash.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::machine::{Machine, ip};
use crate::common::{self, Cluster, EVENKEEL, kill, pause};

const SLOT: u8 = 14;
const HERE: &str = "172.31.214.1";
const THERE: &str = "172.31.214.2";

fn ok(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect("the program starts");
    assert!(
        output.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn machine() -> Machine {
    let machine = Machine::new("ekj", &format!("{HERE}/30"), &format!("{THERE}/30"));
    machine.ip(&["route", "add", "default", "via", HERE]);
    machine
}

/// The agent on the machine; what it left is removed when dropped.
struct Joined<'m> {
    machine: &'m Machine,
    process: Child,
    data: PathBuf,
}

impl<'m> Joined<'m> {
    fn start(machine: &'m Machine, data: &Path, flags: &[String]) -> Self {
        let log = File::create(data.with_extension("log")).expect("a log");
        let process = machine
            .command(EVENKEEL)
            .arg("node")
            .arg(format!("--data-dir={}", data.display()))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the agent starts");
        Self {
            machine,
            process,
            data: data.to_path_buf(),
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.data.with_extension("log")).unwrap_or_default()
    }

    fn end(&mut self) {
        let pid = self.process.id().to_string();
        let begin = Instant::now();
        let mut signal = "-TERM";
        while matches!(self.process.try_wait(), Ok(None)) {
            if begin.elapsed() > Duration::from_secs(20) {
                signal = "-KILL";
            }
            if let Err(error) = kill(signal, &pid) {
                eprintln!("kill: {error}");
            }
            pause();
        }
    }
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the agent's log:\n{}", self.log());
        }
        self.end();
        let cleaned = self
            .machine
            .command(EVENKEEL)
            .arg("clean")
            .arg(format!("--data-dir={}", self.data.display()))
            .output();
        match cleaned {
            Ok(output) if output.status.success() => {}
            other => eprintln!("evenkeel clean: {other:?}"),
        }
    }
}

fn pod(node: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: far, labels: {{app: far}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:test
    command: [sh, -c, 'echo from afar; exec sleep 600']
    readinessProbe: {{exec: {{command: [\"true\"]}}}}
"
    )
}

#[test]
fn a_second_machine_joins_with_a_kubeconfig_and_a_third_with_a_token() {
    if !common::can_run_containers() {
        return;
    }
    let machine = machine();
    let port = common::port::free(HERE.parse().expect("an address"));
    let (listen, address) = (
        format!("--listen={HERE}:{port}"),
        format!("--node-ip={HERE}"),
    );
    let mut cluster = Cluster::with_flags(SLOT, &[&listen, &address]);
    cluster.import_busybox();
    let internal = "{.status.addresses[?(@.type==\"InternalIP\")].address}";
    let first = cluster.value(&format!("node e2e-{SLOT}"), internal);
    assert_eq!(
        first, HERE,
        "the first node tells the address that it was given"
    );
    let second = format!("e2e-{SLOT}-b");
    let home = cluster.home().to_path_buf();
    let kubeconfig = home.join("node.kubeconfig");
    let data = home.join("second");
    let own = home.join("data").display().to_string();
    let text = ok(
        EVENKEEL,
        &[
            "kubeconfig",
            "node",
            &second,
            "--address",
            THERE,
            "--data-dir",
            &own,
        ],
    );
    std::fs::write(&kubeconfig, text).expect("the kubeconfig is written");
    ok(
        EVENKEEL,
        &[
            "image",
            "import",
            &home.join("busybox.tar").display().to_string(),
            "--as",
            "busybox:test",
            "--data-dir",
            &data.display().to_string(),
        ],
    );
    let flags = |name: &str| {
        vec![
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--node-name={name}"),
            format!("--node-ip={THERE}"),
            "--node-port=0".to_owned(),
            format!("--cluster-cidr=10.{}.0.0/16", 180 + SLOT),
            format!("--service-cidr=10.{}.0.0/16", 210 + SLOT),
            "--eviction-hard=".to_owned(),
        ]
    };

    // A certificate lets in whom it names, and nobody else.
    let mut other = Joined::start(&machine, &data, &flags("somebody-else"));
    cluster.until("the wrong name is refused", |_| {
        other
            .log()
            .contains("is system:node:e2e-14-b's")
            .then_some(())
    });
    other.end();
    drop(other);

    let joined = Joined::start(&machine, &data, &flags(&second));
    let node = format!("node {second}");
    cluster.until("the node is ready", |cluster| {
        let ready = cluster.value(&node, "{.status.conditions[?(@.type==\"Ready\")].status}");
        (ready == "True").then_some(())
    });
    // Its pods have addresses of their own, given by the cluster.
    let cidr = cluster.value(&node, "{.spec.podCIDR}");
    let first = cluster.value(&format!("node e2e-{SLOT}"), "{.spec.podCIDR}");
    assert!(!cidr.is_empty() && cidr != first, "{cidr} {first}");
    ip(&["route", "add", &cidr, "via", THERE]);

    cluster.apply(&pod(&second));
    cluster.value_becomes(
        "pod far",
        "{.status.conditions[?(@.type==\"Ready\")].status}",
        "True",
    );
    assert_eq!(cluster.value("pod far", "{.status.hostIP}"), THERE);
    // The door reaches the agent there, each showing its certificate.
    assert_eq!(cluster.ok(&["logs", "far"]), "from afar\n");
    assert_eq!(cluster.ok(&["exec", "far", "--", "echo", "here"]), "here\n");
    // The pod has the cluster's services: the API answers at its address.
    let connect = "nc -w 20 $KUBERNETES_SERVICE_HOST 443 </dev/null && echo reached";
    let reached = cluster.ok(&["exec", "far", "--", "sh", "-c", connect]);
    assert!(reached.contains("reached"), "{reached}");
    cluster.until("both nodes have figures", |cluster| {
        let top = cluster.kubectl(&["top", "nodes", "--no-headers"]).out;
        (top.lines().count() == 2 && !top.contains("unknown")).then_some(())
    });
    // It may not even read another node, as kubectl does before it changes one.
    let config = format!("--kubeconfig={}", kubeconfig.display());
    let refused = cluster.fails(&[&config, "label", "node", &format!("e2e-{SLOT}"), "a=b"]);
    assert!(refused.contains("only its own Node object"), "{refused}");
    drop(joined);
    // It gets other certificates by the one in the file, keeps them, and serves with them; the file
    // stays as it is.
    let before = std::fs::read_to_string(&kubeconfig).expect("a kubeconfig");
    let mut again = flags(&second);
    again.push("--renew-certificates".to_owned());
    let joined = Joined::start(&machine, &data, &again);
    cluster.until("certificates of its own", |_| {
        let kept = std::fs::read_to_string(data.join("node.kubeconfig")).ok()?;
        (kept != before && data.join("serving.crt").exists()).then_some(())
    });
    cluster.until("the agent answers again", |cluster| {
        let answer = cluster.kubectl(&["exec", "far", "--", "echo", "again"]);
        (answer.out == "again\n").then_some(())
    });
    let after = std::fs::read_to_string(&kubeconfig).expect("a kubeconfig");
    assert_eq!(before, after);
    let kept = std::fs::read_to_string(data.join("node.kubeconfig")).expect("a kubeconfig");
    drop(joined);
    // The next start goes on with what is kept.
    let joined = Joined::start(&machine, &data, &flags(&second));
    cluster.until("the agent answers once more", |cluster| {
        let answer = cluster.kubectl(&["exec", "far", "--", "echo", "more"]);
        (answer.out == "more\n").then_some(())
    });
    let still = std::fs::read_to_string(data.join("node.kubeconfig")).expect("a kubeconfig");
    assert_eq!(kept, still);
    cluster.ok(&["delete", "pod", "far"]);
    drop(joined);
    // The cluster signs for no address that another node has.
    cluster.ok(&["delete", "node", &second]);
    with_a_token(&mut cluster, &machine, &own);
}

/// The same machine again, as another node: it knows a token and a hash, and asks for the rest.
fn with_a_token(cluster: &mut Cluster, machine: &Machine, own: &str) {
    let third = format!("e2e-{SLOT}-c");
    let home = cluster.home().to_path_buf();
    let data = home.join("third");
    let join = ok(
        EVENKEEL,
        &["token", "create", "--print-join-command", "--data-dir", own],
    );
    let words: Vec<String> = join.split_whitespace().map(str::to_owned).collect();
    assert_eq!(words[..2], ["evenkeel", "node"], "{join}");
    let token = words[5].clone();
    let list = ok(EVENKEEL, &["token", "list", "--data-dir", own]);
    assert!(list.starts_with("TOKEN") && list.contains(&token), "{list}");

    // Everything else is in a file; flags come first.
    let config = home.join("node.yaml");
    let text = format!(
        "node-name: {third}\ndata-dir: /nonexistent\nnode-port: 0\neviction-hard: \"\"\n\
         cluster-cidr: 10.{}.0.0/16\nservice-cidr: 10.{}.0.0/16\n",
        180 + SLOT,
        210 + SLOT
    );
    std::fs::write(&config, text).expect("the config file is written");
    let config = format!("--config={}", config.display());
    let image = home.join("busybox.tar").display().to_string();
    let to = data.display().to_string();
    ok(
        EVENKEEL,
        &[
            "image",
            "import",
            &image,
            "--as",
            "busybox:test",
            "--data-dir",
            &to,
        ],
    );

    // Another cluster's authority is not believed, and hears no token.
    let mut flags: Vec<String> = words[2..].to_vec();
    flags.push(config.clone());
    let mut wrong = flags.clone();
    wrong[5] = format!("sha256:{}", "0".repeat(64));
    let mut other = Joined::start(machine, &data, &wrong);
    cluster.until("the wrong cluster is refused", |_| {
        let log = other.log();
        log.contains("this is not the cluster that was meant")
            .then_some(())
    });
    other.end();
    drop(other);

    let joined = Joined::start(machine, &data, &flags);
    let node = format!("node {third}");
    let ready = "{.status.conditions[?(@.type==\"Ready\")].status}";
    cluster.value_becomes(&node, ready, "True");
    let address = "{.status.addresses[?(@.type==\"InternalIP\")].address}";
    assert_eq!(cluster.value(&node, address), THERE);
    let pods = cluster.value(&node, "{.spec.podCIDR}");
    ip(&["route", "replace", &pods, "via", THERE]);
    cluster.apply(&pod(&third));
    cluster.value_becomes("pod far", ready, "True");
    // The door believes what the agent serves with.
    assert_eq!(cluster.ok(&["logs", "far"]), "from afar\n");
    let deleted = ok(EVENKEEL, &["token", "delete", &token, "--data-dir", own]);
    assert!(deleted.contains("deleted"), "{deleted}");
    let before = std::fs::read_to_string(data.join("node.kubeconfig")).expect("a kubeconfig");
    let served = std::fs::read_to_string(data.join("serving.crt")).expect("a certificate");
    drop(joined);

    // From now on it needs no token: it has certificates, and gets others by them.
    let _joined = Joined::start(machine, &data, &[config, "--renew-certificates".to_owned()]);
    cluster.until("new certificates", |_| {
        let kept = std::fs::read_to_string(data.join("node.kubeconfig")).ok()?;
        let serving = std::fs::read_to_string(data.join("serving.crt")).ok()?;
        (kept != before && serving != served).then_some(())
    });
    cluster.until("the agent answers again", |cluster| {
        let answer = cluster.kubectl(&["exec", "far", "--", "echo", "again"]);
        (answer.out == "again\n").then_some(())
    });
    cluster.ok(&["delete", "pod", "far", "--wait=false"]);
}
