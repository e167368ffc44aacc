//! The real kubectls on this machine, old ones over SPDY and new ones over WebSocket, through the
//! front against the node's handlers. Without a kubectl these tests say so and pass.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::fake::{FakeNode, echo, tcp_service};
use super::front;

const WITHIN: Duration = Duration::from_secs(60);

/// Every kubectl that is found: the one in PATH, and versioned ones of the Google Cloud SDK.
fn kubectls() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.extend(
        std::env::split_paths(&path)
            .map(|dir| dir.join("kubectl"))
            .find(|p| p.is_file()),
    );
    for minor in 27..40 {
        let versioned = format!("/usr/lib/google-cloud-sdk/bin/kubectl.1.{minor}");
        found.push(versioned.into());
    }
    found.retain(|kubectl| kubectl.is_file());
    if found.is_empty() {
        eprintln!("no kubectl on this machine: nothing was tested");
    }
    found
}

struct Kubectl {
    program: PathBuf,
    front: SocketAddr,
    home: tempfile::TempDir,
}

impl Kubectl {
    fn new(program: PathBuf, front: SocketAddr) -> Self {
        Self {
            program,
            front,
            home: tempfile::tempdir().unwrap(),
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg(format!("--server=http://{}", self.front))
            .args(args)
            .env("HOME", self.home.path())
            .env("KUBECONFIG", "/dev/null")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, args: &[&str], stdin: &[u8]) -> Output {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let stdin = stdin.to_vec();
        let writer = tokio::spawn(async move { pipe.write_all(&stdin).await.ok() });
        let output = tokio::time::timeout(WITHIN, child.wait_with_output()).await;
        writer.abort();
        output
            .unwrap_or_else(|_| panic!("{} {args:?} hangs", self.program.display()))
            .unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn each(test: impl AsyncFn(Kubectl, Arc<FakeNode>)) {
    let mut log = tempfile::NamedTempFile::new().unwrap();
    for line in ["stdout F one", "stderr F two", "stdout F three"] {
        writeln!(log, "2026-01-02T03:04:05.000000001Z {line}").unwrap();
    }
    for program in kubectls() {
        eprintln!("{}", program.display());
        let node = FakeNode::new(log.path());
        let (address, _guard) = front::serve(node.clone()).await;
        let name = program.display().to_string();
        test(Kubectl::new(program, address), node.clone()).await;
        // Without this the newer ones might have fallen back to SPDY unnoticed.
        let minor = name
            .rsplit_once("kubectl.1.")
            .and_then(|(_, minor)| minor.parse::<u32>().ok());
        // 1.30 speaks WebSocket for exec and SPDY for port-forward.
        if let Some(minor) = minor.filter(|minor| *minor != 30) {
            let expected = if minor < 30 { "SPDY/3.1" } else { "websocket" };
            assert!(
                node.runtime
                    .upgrades
                    .lock()
                    .iter()
                    .all(|got| got == expected),
                "{name}"
            );
        }
    }
}

#[tokio::test]
async fn exec_has_output_stdin_and_exit_code() {
    each(async |kubectl, _| {
        let got = kubectl
            .run(
                &[
                    "exec",
                    "p",
                    "-c",
                    "c",
                    "--",
                    "sh",
                    "-c",
                    "echo out; echo err >&2; exit 7",
                ],
                b"",
            )
            .await;
        assert_eq!(
            (got.status.code(), text(&got.stdout)),
            (Some(7), "out\n".into()),
            "{}",
            text(&got.stderr)
        );
        assert!(
            text(&got.stderr).starts_with("err\n"),
            "{}",
            text(&got.stderr)
        );
        let got = kubectl
            .run(
                &["exec", "-i", "p", "-c", "c", "--", "wc", "-c"],
                &[b'x'; 100_000],
            )
            .await;
        assert_eq!(text(&got.stdout).trim(), "100000", "{}", text(&got.stderr));
        let got = kubectl
            .run(&["exec", "p", "-c", "c", "--", "/nonexistent"], b"")
            .await;
        assert_eq!(got.status.code(), Some(1));
        assert!(
            text(&got.stderr).contains("error executing command in container"),
            "{}",
            text(&got.stderr)
        );
        let got = kubectl
            .run(&["exec", "p", "-c", "w", "--", "ls"], b"")
            .await;
        assert!(
            text(&got.stderr).contains("container not found (\"w\")"),
            "{}",
            text(&got.stderr)
        );
        let many = kubectl
            .run(&["exec", "p", "-c", "c", "--", "seq", "200000"], b"")
            .await;
        assert!(text(&many.stdout).ends_with("\n200000\n"));
        let got = kubectl.run(&["attach", "p", "-c", "c"], b"").await;
        assert_eq!(text(&got.stdout), "attached\n", "{}", text(&got.stderr));
    })
    .await;
}

#[tokio::test]
async fn a_terminal_has_the_size_of_the_clients() {
    each(async |kubectl, _| {
        let program = kubectl.program.display();
        let line = format!(
            "stty rows 33 cols 99; exec {program} --server=http://{} exec -it p -c c -- fake-terminal",
            kubectl.front
        );
        // `script` gives kubectl a terminal of its own.
        let mut command = Command::new("script");
        command.args(["-qefc", &line, "/dev/null"]).env("HOME", kubectl.home.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let Ok(mut child) = command.spawn() else {
            return eprintln!("no script(1) on this machine: nothing was tested");
        };
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let size = async {
            loop {
                let line = lines.next_line().await.unwrap().expect("kubectl ended early");
                if line.trim() == "99x33" {
                    return;
                }
            }
        };
        tokio::time::timeout(WITHIN, size).await.unwrap();
        child.stdin.take().unwrap().write_all(b"q").await.unwrap();
        assert!(tokio::time::timeout(WITHIN, child.wait()).await.unwrap().unwrap().success());
    })
    .await;
}

#[tokio::test]
async fn logs_have_their_flags() {
    each(async |kubectl, node| {
        let got = kubectl
            .run(&["logs", "p", "-c", "c", "--tail=2"], b"")
            .await;
        assert_eq!(text(&got.stdout), "two\nthree\n", "{}", text(&got.stderr));
        let got = kubectl
            .run(&["logs", "p", "-c", "c", "--timestamps", "--tail=1"], b"")
            .await;
        assert_eq!(text(&got.stdout), "2026-01-02T03:04:05.000000001Z three\n");
        let got = kubectl.run(&["logs", "p", "-c", "w"], b"").await;
        assert!(
            text(&got.stderr).contains("is waiting to start: ContainerCreating"),
            "{}",
            text(&got.stderr)
        );
        let mut follow = kubectl
            .command(&["logs", "-f", "p", "-c", "c", "--tail=1"])
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(WITHIN, lines.next_line())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(line.as_deref(), Some("three"));
        node.runtime.end_container();
        assert!(
            tokio::time::timeout(WITHIN, follow.wait())
                .await
                .unwrap()
                .unwrap()
                .success()
        );
    })
    .await;
}

#[tokio::test]
async fn ports_are_forwarded() {
    let port = tcp_service(echo).await;
    each(async |kubectl, _| {
        let mut forward = kubectl
            .command(&["port-forward", "p", &format!(":{port}")])
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(forward.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(WITHIN, lines.next_line())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        let local: u16 = line
            .split("127.0.0.1:")
            .nth(1)
            .unwrap()
            .split(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        let talk = async |size: usize| {
            let mut stream = TcpStream::connect(("127.0.0.1", local)).await.unwrap();
            let (mut from, mut to) = stream.split();
            let send = async {
                to.write_all(&vec![7u8; size]).await.unwrap();
                to.shutdown().await.unwrap();
            };
            let mut received = Vec::new();
            let (_, got) = tokio::join!(send, from.read_to_end(&mut received));
            assert_eq!(got.unwrap(), size);
        };
        for size in [4, 1, 10_000_000] {
            tokio::time::timeout(WITHIN, talk(size)).await.unwrap();
        }
        tokio::time::timeout(WITHIN, async {
            tokio::join!(talk(100_000), talk(200_000), talk(1))
        })
        .await
        .unwrap();
        forward.kill().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn fifty_megabytes_are_copied_both_ways() {
    const SIZE: usize = 50 * 1024 * 1024;
    each(async |kubectl, _| {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let bytes: Vec<u8> = (0..SIZE)
            .map(|at| u8::try_from(at * 31 % 251).unwrap())
            .collect();
        std::fs::write(path("from"), &bytes).unwrap();
        for (from, to) in [
            (path("from"), format!("p:{}", path("inside"))),
            (format!("p:{}", path("inside")), path("back")),
        ] {
            let begin = tokio::time::Instant::now();
            let got = kubectl.run(&["cp", "-c", "c", &from, &to], b"").await;
            assert!(got.status.success(), "{}", text(&got.stderr));
            eprintln!("  {} ms", begin.elapsed().as_millis());
        }
        assert!(
            std::fs::read(path("inside")).unwrap() == bytes,
            "{}",
            kubectl.program.display()
        );
        assert!(
            std::fs::read(path("back")).unwrap() == bytes,
            "{}",
            kubectl.program.display()
        );
    })
    .await;
}
