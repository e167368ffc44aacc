//! Starts that can't succeed end with exit code 1 and one line that says what and what to do;
//! starts that can are told to the service manager, and end cleanly.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::instance::{self, Instance, evenkeel, free_port, is_root, until, wait_child};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;

/// Runs `evenkeel up` with these arguments; it must fail. Answers its line.
fn refused(arguments: &[&str]) -> String {
    refused_with(arguments, |_| {})
}

fn refused_with(arguments: &[&str], change: impl FnOnce(&mut Command)) -> String {
    let mut command = evenkeel();
    command.arg("up").arg("--no-node").args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    change(&mut command);
    let mut child = command.spawn().unwrap();
    let status = wait_child(&mut child);
    if status.is_none() {
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    let status = status.unwrap_or_else(|| panic!("it goes on though {arguments:?}:\n{text}"));
    assert_eq!(status.code(), Some(1), "{arguments:?}:\n{text}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "",
        "nothing belongs on stdout"
    );
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), 1, "one line, not:\n{text}");
    assert!(lines[0].starts_with("evenkeel: "), "{text}");
    lines[0].to_owned()
}

fn says(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in: {line}");
    }
}

#[test]
fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let line = refused(&["--listen", &address, "--data-dir", data.to_str().unwrap()]);
    says(&line, &[&address, "--listen", "in use"]);
    assert!(
        !data.join("store").exists() && !data.join("pki").exists(),
        "nothing half-made"
    );
}

#[test]
fn a_data_directory_that_is_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("data");
    std::fs::write(&file, "mine").unwrap();
    let path = file.to_str().unwrap();
    let line = refused(&["--listen", "127.0.0.1:0", "--data-dir", path]);
    says(&line, &[path, "--data-dir"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    let below = file.join("deeper");
    let line = refused(&[
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        below.to_str().unwrap(),
    ]);
    says(&line, &[path, "--data-dir"]);
}

#[test]
fn a_data_directory_that_is_not_writable() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let line = if is_root() {
        // Root writes everywhere but to what is read-only.
        let _mount = Tmpfs::mount(&data, "size=1m,ro");
        refused(&[
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            data.to_str().unwrap(),
        ])
    } else {
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o555)).unwrap();
        refused(&[
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            data.to_str().unwrap(),
        ])
    };
    says(&line, &[data.to_str().unwrap(), "--data-dir"]);
}

/// An answer to HEAD with a body is a broken stream to clients that speak HTTP/2; and a time that is
/// none is refused.
#[tokio::test]
async fn what_curl_asks_for_by_head_has_no_body() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Instance::start(&directory.path().join("data"), free_port(), &["--no-node"]);
    server.ready().await;
    let ask = |version: &str, head: bool, path: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-sk", version, "-o", "/dev/null", "-w", "%{http_code}"]);
        if head {
            curl.arg("-I");
        }
        let url = format!("https://127.0.0.1:{}{path}", server.port);
        let out = curl.arg(url).output().unwrap();
        (out.status.code(), String::from_utf8(out.stdout).unwrap())
    };
    for version in ["--http1.1", "--http2"] {
        // Of paths that are no resources HEAD is a verb of its own, which nobody may by default.
        for path in ["/readyz", "/api/v1/pods"] {
            let got = ask(version, true, path);
            assert_eq!(got, (Some(0), "403".to_owned()), "{version} {path}");
        }
    }
    let (_, code) = ask("--http2", false, "/readyz?timeout=soon");
    assert_eq!(code, "400");
    let (_, code) = ask("--http2", false, "/readyz?timeout=10s");
    assert_eq!(code, "200");
    assert_eq!(server.stop().code(), Some(0), "{}", server.log());
}

#[tokio::test]
async fn a_second_instance_on_the_same_directory() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut first = Instance::start(&data, free_port(), &["--no-node"]);
    first.ready().await;
    let kubeconfig = std::fs::read(data.join("kubeconfig")).unwrap();
    let line = refused(&[
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        data.to_str().unwrap(),
    ]);
    says(&line, &[data.to_str().unwrap(), "another"]);
    assert_eq!(
        std::fs::read(data.join("kubeconfig")).unwrap(),
        kubeconfig,
        "untouched"
    );
    first.ready().await;
    assert_eq!(first.stop().code(), Some(0), "{}", first.log());
    // The lock goes with its owner.
    let mut second = Instance::start(&data, free_port(), &["--no-node"]);
    second.ready().await;
    assert_eq!(second.stop().code(), Some(0), "{}", second.log());
}

#[tokio::test]
async fn a_damaged_store_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut instance = Instance::start(&data, free_port(), &["--no-node"]);
    instance.ready().await;
    assert!(instance.stop().success());
    let files: Vec<_> = std::fs::read_dir(data.join("store"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.metadata().unwrap().len() > 8192)
        .collect();
    assert!(!files.is_empty(), "a store has files");
    for file in &files {
        let size = usize::try_from(file.metadata().unwrap().len()).unwrap();
        std::fs::write(file, vec![0x5a; size]).unwrap();
    }
    let line = refused(&[
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        data.to_str().unwrap(),
    ]);
    says(&line, &[data.to_str().unwrap(), "damaged"]);
    for file in &files {
        assert!(
            std::fs::read(file)
                .unwrap()
                .iter()
                .all(|byte| *byte == 0x5a),
            "it was changed"
        );
    }
}

#[test]
fn settings_that_make_no_sense() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let start = [
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        data.to_str().unwrap(),
    ];
    let config = directory.path().join("config.yaml");
    let path = config.to_str().unwrap();
    for (text, parts) in [
        ("data-dri: /tmp\n", &["data-dri"][..]),
        ("listen: nowhere\n", &["listen"]),
        ("cluster-cidr: 10.0.0.0/33\n", &["cluster-cidr"]),
        ("log-format: loud\n", &["loud"]),
        ("listen: [1\n", &[]),
    ] {
        std::fs::write(&config, text).unwrap();
        let line = refused(&[&start[..], &["--config", path]].concat());
        says(&line, &[&[path][..], parts].concat());
    }
    let missing = directory.path().join("missing.yaml");
    let missing = missing.to_str().unwrap();
    says(
        &refused(&[&start[..], &["--config", missing]].concat()),
        &[missing, "No such file"],
    );
    for (more, parts) in [
        (
            &[
                "--cluster-cidr",
                "10.1.0.0/16",
                "--service-cidr",
                "10.1.2.0/24",
            ][..],
            &["overlap", "10.1.2.0/24"][..],
        ),
        (
            &["--cluster-cidr", "10.1.0.0/25"],
            &["--cluster-cidr", "/24"],
        ),
        (
            &["--node-name", "Not A Name"],
            &["--node-name", "Not A Name"],
        ),
        (
            &["--node-ip", "127.0.0.1"],
            &["--node-ip 127.0.0.1", "other machines"],
        ),
        (
            &["--registry-mirror", "nothing"],
            &["--registry-mirror", "HOST=URL"],
        ),
        (
            &["--feature-gates", "Nonsense=true"],
            &["--feature-gates", "unknown feature Nonsense"],
        ),
        (&["--log", "a=b=c"], &["--log"]),
        (&["--listen", "192.0.2.1:1"], &["192.0.2.1:1", "--listen"]),
    ] {
        let mut arguments = more.to_vec();
        if !more.contains(&"--listen") {
            arguments.extend(["--listen", "127.0.0.1:0"]);
        }
        arguments.extend(["--data-dir", data.to_str().unwrap()]);
        says(&refused(&arguments), parts);
    }
    assert!(!data.join("store").exists(), "nothing half-made");
}

#[test]
fn flags_that_do_not_parse() {
    for arguments in [
        &["--listen", "nowhere"][..],
        &["--cluster-cidr", "x"],
        &["--log-format", "loud"],
        &["--nonsense"],
    ] {
        says(&refused(arguments), &[arguments[0], "--help"]);
    }
}

#[tokio::test]
async fn flag_before_environment_before_file() {
    let directory = tempfile::tempdir().unwrap();
    let [flag, env, file] = ["flag", "env", "file"].map(|name| directory.path().join(name));
    let config = directory.path().join("config.yaml");
    let kubeconfig = directory.path().join("written");
    let text = format!(
        "data-dir: {}\nlog-format: json\nwrite-kubeconfig: {}\n",
        file.display(),
        kubeconfig.display()
    );
    std::fs::write(&config, text).unwrap();
    let run = async |with_env: bool, with_flag: bool, wins: &Path| {
        let mut command = evenkeel();
        command
            .args(["up", "--no-node", "--listen", "127.0.0.1:0"])
            .arg("--config")
            .arg(&config);
        if with_env {
            command.env("EVENKEEL_DATA_DIR", &env);
        }
        if with_flag {
            command.arg("--data-dir").arg(&flag);
        }
        let out = std::fs::File::create(directory.path().join("log")).unwrap();
        let mut child = command.stdout(Stdio::null()).stderr(out).spawn().unwrap();
        let ready = until("the log", instance::LIMIT, async || {
            let log = std::fs::read_to_string(directory.path().join("log")).unwrap();
            log.contains("ready").then_some(log)
        })
        .await;
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(wins.join("kubeconfig").exists(), "{ready}");
        assert!(
            ready.starts_with('{'),
            "the log format comes from the file: {ready}"
        );
        assert!(kubeconfig.exists());
    };
    run(false, false, &file).await;
    assert!(!env.exists() && !flag.exists());
    run(true, false, &env).await;
    assert!(!flag.exists());
    run(true, true, &flag).await;
}

#[tokio::test]
async fn the_service_manager_is_told_and_sigterm_ends_cleanly() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let path = directory.path().join("notify");
    let socket = tokio::net::UnixDatagram::bind(&path).unwrap();
    let mut instance = Instance::start_with(&data, free_port(), &["--no-node"], |command| {
        command.env("NOTIFY_SOCKET", &path);
    });
    let receive = async || {
        let mut buffer = [0; 512];
        let read = tokio::time::timeout(instance::LIMIT, socket.recv(&mut buffer));
        let length = read.await.expect("a message in time").unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert!(receive().await.contains("READY=1"));
    // Told ready means ready: no waiting here.
    let client = instance.client().await;
    let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
    assert_eq!(client.request_text(request).await.unwrap(), "ok");
    // An open watch does not hold it up.
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    let _watch = api.watch(&Default::default(), "0").await.unwrap();
    let began = std::time::Instant::now();
    assert_eq!(instance.stop().code(), Some(0), "{}", instance.log());
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    assert!(receive().await.contains("STOPPING=1"));
}

/// A small file system, gone when dropped.
struct Tmpfs<'p>(&'p Path);

impl<'p> Tmpfs<'p> {
    fn mount(at: &'p Path, options: &str) -> Self {
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "evenkeel-test"])
            .arg(at)
            .status()
            .unwrap();
        assert!(status.success(), "mount");
        Self(at)
    }
}

impl Drop for Tmpfs<'_> {
    fn drop(&mut self) {
        // Lazily: a test that failed may have left something open.
        Command::new("umount").arg("-l").arg(self.0).status().ok();
    }
}

fn filled(name: &str, size: usize) -> ConfigMap {
    let data = json!({"metadata": {"name": name}, "data": {"filler": "x".repeat(size)}});
    serde_json::from_value(data).unwrap()
}

#[tokio::test]
async fn a_disk_that_fills_up_while_serving() {
    if !is_root() {
        println!("skipped: mounting needs root");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let _mount = Tmpfs::mount(&disk, "size=24m");
    let data = disk.join("data");
    let mut instance = Instance::start(&data, free_port(), &["--no-node"]);
    instance.ready().await;
    let api: Api<ConfigMap> = Api::default_namespaced(instance.client().await);
    let mut kept = Vec::new();
    let refusal = loop {
        let name = format!("m{}", kept.len());
        match api
            .create(&PostParams::default(), &filled(&name, 500_000))
            .await
        {
            Ok(_) => kept.push(name),
            Err(kube::Error::Api(status)) => break status,
            Err(error) => panic!("{error}\n{}", instance.log()),
        }
        assert!(kept.len() < 200, "the disk never fills");
    };
    assert_eq!(refusal.code, 507, "{refusal:?}");
    assert!(
        refusal.message.contains("free some disk space"),
        "{refusal:?}"
    );
    assert!(!kept.is_empty());
    // Reads go on.
    let names = async |api: &Api<ConfigMap>| {
        let list = api.list(&ListParams::default()).await.unwrap();
        let names = list.items.into_iter().filter_map(|map| map.metadata.name);
        let mut names: Vec<String> = names.filter(|name| name.starts_with('m')).collect();
        names.sort_by_key(|name| name[1..].parse::<u32>().unwrap());
        names
    };
    assert_eq!(names(&api).await, kept);
    // A start on the full disk either serves what is there or says why not, and damages nothing.
    instance.kill();
    std::fs::write(disk.join("rest"), vec![0; 64 << 20]).unwrap_err();
    let address = "127.0.0.1:0";
    let mut command = evenkeel();
    let out = std::fs::File::create(directory.path().join("full.log")).unwrap();
    command
        .args(["up", "--no-node", "--listen", address])
        .arg("--data-dir")
        .arg(&data);
    let mut child = command.stdout(Stdio::null()).stderr(out).spawn().unwrap();
    let log = || std::fs::read_to_string(directory.path().join("full.log")).unwrap();
    let ended = until(
        "a start on a full disk",
        instance::LIMIT,
        async || match child.try_wait().unwrap() {
            Some(status) => Some(Some(status)),
            None => log().contains("ready").then_some(None),
        },
    )
    .await;
    match ended {
        Some(status) => {
            assert_eq!(status.code(), Some(1), "{}", log());
            let last = log().lines().last().unwrap_or_default().to_owned();
            says(&last, &["evenkeel: ", "space"]);
        }
        None => {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
    // With space again, everything is there and writes work.
    std::fs::remove_file(disk.join("rest")).unwrap();
    let status = Command::new("mount")
        .args(["-o", "remount,size=64m"])
        .arg(&disk)
        .status()
        .unwrap();
    assert!(status.success());
    let mut instance = Instance::start(&data, free_port(), &["--no-node"]);
    instance.ready().await;
    let api: Api<ConfigMap> = Api::default_namespaced(instance.client().await);
    assert_eq!(names(&api).await, kept);
    api.create(&PostParams::default(), &filled("m1000", 500_000))
        .await
        .unwrap();
    assert!(instance.stop().success(), "{}", instance.log());
}

#[test]
fn a_disk_that_is_full_at_the_first_start() {
    if !is_root() {
        println!("skipped: mounting needs root");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let _mount = Tmpfs::mount(&disk, "size=64k");
    let data = disk.join("data");
    let line = refused(&[
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        data.to_str().unwrap(),
    ]);
    says(&line, &[disk.to_str().unwrap(), "space"]);
}
