//! What the containers of a pod share, and what sandboxes are given.

use std::collections::BTreeMap;

use evenkeel_runtime::{ContainerConfig, DnsConfig, ExecRequest, Runtime, SandboxConfig};

use crate::common::{Fixture, shell};

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_pod_share_network_names_and_memory() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox().await;
    let named = |name: &str, script: &str| ContainerConfig {
        name: name.into(),
        log_path: format!("{name}.log").into(),
        ..shell(script)
    };
    let one = fixture
        .start_in(
            &sandbox,
            &named("one", "nc -l -p 7777 -e echo hello; sleep 1000"),
        )
        .await;
    let two = fixture
        .start_in(&sandbox, &named("two", "sleep 1000"))
        .await;
    let said = crate::common::until("the neighbour answers", async || {
        let output = fixture.exec(&two, &["nc", "127.0.0.1", "7777"]).await;
        (output.exit_code == 0).then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    })
    .await;
    assert_eq!(said, "hello\n");
    fixture
        .exec(
            &one,
            &[
                "sh",
                "-c",
                "echo shared > /dev/shm/note; echo own > /tmp/note",
            ],
        )
        .await;
    assert_eq!(
        fixture.exec(&two, &["cat", "/dev/shm/note"]).await.stdout,
        b"shared\n"
    );
    assert_ne!(fixture.exec(&two, &["cat", "/tmp/note"]).await.exit_code, 0);
    let links = |id: String| {
        let fixture = &fixture;
        async move {
            let output = fixture.exec(&id, &["sh", "-c", "for n in net ipc uts pid mnt; do ls -l /proc/self/ns/$n | sed 's/.*-> //'; done"]).await;
            String::from_utf8_lossy(&output.stdout)
                .lines()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        }
    };
    let (first, second) = (links(one).await, links(two).await);
    assert_eq!(first[..3], second[..3]);
    assert!(first[3] != second[3] && first[4] != second[4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_process_namespace() {
    let fixture = Fixture::new().await;
    let config = SandboxConfig {
        share_process_namespace: true,
        ..fixture.pod()
    };
    let sandbox = fixture
        .runtime()
        .run_sandbox(&config)
        .await
        .expect("a sandbox");
    let one = fixture
        .start_in(&sandbox, &shell("sleep 4321 & wait"))
        .await;
    let two = fixture.start_in(&sandbox, &shell("sleep 1000")).await;
    let output = fixture.exec(&two, &["ps"]).await;
    let listing = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        listing.contains("sleep 4321") && listing.contains("pause"),
        "{listing}"
    );
    // The reaper shows nothing of the host.
    let peek = fixture.exec(&two, &["ls", "/proc/1/root/usr"]).await;
    assert_ne!(peek.exit_code, 0);
    // What a container started ends with it.
    fixture
        .runtime()
        .stop_container(&one, std::time::Duration::ZERO)
        .await
        .expect("stops");
    let listing = fixture.exec(&two, &["ps"]).await;
    assert!(!String::from_utf8_lossy(&listing.stdout).contains("sleep 4321"));
    fixture
        .runtime()
        .remove_sandbox(&sandbox)
        .await
        .expect("removes");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_namespaces_on_request() {
    let fixture = Fixture::new().await;
    let config = SandboxConfig {
        host_network: true,
        host_pid: true,
        host_ipc: true,
        ..fixture.pod()
    };
    let sandbox = fixture
        .runtime()
        .run_sandbox(&config)
        .await
        .expect("a sandbox");
    let status = &fixture.runtime().list_sandboxes().await.expect("lists")[0];
    assert!(status.ips.is_empty() && status.netns.is_none());
    let id = fixture
        .start_in(&sandbox, &shell("sleep 1000 & sleep 1000"))
        .await;
    let output = fixture
        .exec(
            &id,
            &[
                "sh",
                "-c",
                "for n in net ipc uts pid; do ls -l /proc/self/ns/$n | sed 's/.*-> //'; done",
            ],
        )
        .await;
    let inside: Vec<_> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect();
    let own: Vec<_> = ["net", "ipc", "uts", "pid"]
        .iter()
        .map(|name| {
            std::fs::read_link(format!("/proc/self/ns/{name}"))
                .expect("a link")
                .display()
                .to_string()
        })
        .collect();
    assert_eq!(inside, own);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_servers_and_sysctls() {
    let fixture = Fixture::new().await;
    let config = SandboxConfig {
        dns: DnsConfig {
            servers: vec!["10.96.0.10".into()],
            searches: vec![
                "default.svc.cluster.local".into(),
                "svc.cluster.local".into(),
            ],
            options: vec!["ndots:5".into()],
        },
        sysctls: BTreeMap::from([("net.ipv4.ip_unprivileged_port_start".into(), "80".into())]),
        ..fixture.pod()
    };
    let sandbox = fixture
        .runtime()
        .run_sandbox(&config)
        .await
        .expect("a sandbox");
    let id = fixture.start_in(&sandbox, &shell("sleep 1000")).await;
    let output = fixture
        .exec(
            &id,
            &[
                "cat",
                "/etc/resolv.conf",
                "/proc/sys/net/ipv4/ip_unprivileged_port_start",
            ],
        )
        .await;
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "search default.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n80\n"
    );
    let unsafe_one = SandboxConfig {
        sysctls: BTreeMap::from([("kernel.panic".into(), "1".into())]),
        ..fixture.pod()
    };
    let error = fixture
        .runtime()
        .run_sandbox(&unsafe_one)
        .await
        .expect_err("refused");
    assert!(error.to_string().contains("kernel.panic"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_rotate() {
    let fixture = Fixture::new().await;
    let config = ContainerConfig {
        stdin: true,
        ..shell("while read l; do echo $l; done")
    };
    let id = fixture.start(&config).await;
    let path = fixture
        .runtime()
        .container_status(&id)
        .await
        .expect("a status")
        .log_path;
    let wish = ExecRequest {
        stdin: true,
        ..ExecRequest::default()
    };
    let mut session = fixture
        .runtime()
        .attach(&id, &wish)
        .await
        .expect("attaches");
    let mut stdin = session.stdin.take().expect("stdin");
    let say = async |stdin: &mut evenkeel_runtime::Writer, word: &str| {
        use tokio::io::AsyncWriteExt as _;
        stdin
            .write_all(format!("{word}\n").as_bytes())
            .await
            .expect("writes");
        crate::common::until("it is logged", async || {
            crate::common::text(&crate::common::log(&path))
                .contains(word)
                .then_some(())
        })
        .await;
    };
    say(&mut stdin, "one").await;
    let rotated = path.with_extension("log.1");
    std::fs::rename(&path, &rotated).expect("rotates");
    fixture.runtime().reopen_log(&id).await.expect("reopens");
    say(&mut stdin, "two").await;
    assert_eq!(crate::common::text(&crate::common::log(&rotated)), "one\n");
    assert_eq!(crate::common::text(&crate::common::log(&path)), "two\n");
}
