//! A cluster for one test: the real binary on a directory of its own, and the real kubectl.
//!
//! Nothing here knows Evenkeel from the inside; the tests see what a stranger sees. The process
//! and everything it left in the kernel are removed when the cluster is dropped, also when the
//! test panics. Waits poll for their condition and have a bound; none of them is a plain sleep.

pub(crate) mod machine;
pub(crate) mod port;

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The binary under test.
pub(crate) const EVENKEEL: &str = env!("CARGO_BIN_EXE_evenkeel");

/// How long anything may take on a busy machine before the test says that it does not happen.
pub(crate) const BOUND: Duration = Duration::from_secs(90);

/// What a command answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// Its exit code; -1 when a signal ended it.
    pub(crate) code: i32,
    /// Its standard output.
    pub(crate) out: String,
    /// Its standard error.
    pub(crate) err: String,
}

impl Answer {
    /// Both outputs, for messages.
    pub(crate) fn all(&self) -> String {
        format!("exit {}\n{}{}", self.code, self.out, self.err)
    }
}

/// A running cluster; dropping it removes it.
#[derive(Debug)]
pub(crate) struct Cluster {
    home: tempfile::TempDir,
    flags: Vec<String>,
    up: Option<Child>,
    node: bool,
}

/// Whether a whole cluster can run here; says why when not.
///
/// # Panics
/// When kubectl is missing: every test here drives it.
pub(crate) fn can_run_containers() -> bool {
    let uid = Command::new("id")
        .arg("-u")
        .output()
        .expect("id runs")
        .stdout;
    if String::from_utf8_lossy(&uid).trim() == "0" {
        return true;
    }
    eprintln!("SKIPPED: containers need root; run the tests as root");
    false
}

impl Cluster {
    /// Starts a cluster with a node. `slot` tells the networks of tests apart that run at the
    /// same time on one machine: no two of them may share it.
    pub(crate) fn with_node(slot: u8) -> Self {
        Self::start(slot, true, &[])
    }

    /// Starts a cluster with a node and with more flags.
    pub(crate) fn with_flags(slot: u8, more: &[&str]) -> Self {
        Self::start(slot, true, more)
    }

    /// Starts a control plane alone.
    pub(crate) fn without_node(slot: u8) -> Self {
        Self::start(slot, false, &[])
    }

    fn start(slot: u8, node: bool, more: &[&str]) -> Self {
        let more: Vec<_> = more.iter().map(|flag| (*flag).to_owned()).collect();
        let mut cluster = Self::prepared(slot, node, &more);
        cluster.up();
        cluster
    }

    /// A cluster that is not started yet, with more flags.
    pub(crate) fn prepared(slot: u8, node: bool, more: &[String]) -> Self {
        assert!(
            Command::new("kubectl")
                .args(["version", "--client"])
                .output()
                .is_ok(),
            "kubectl is not on PATH; `make packages` installs it"
        );
        let home = tempfile::Builder::new()
            .prefix(&format!("evenkeel-e2e-{slot}-"))
            .tempdir()
            .expect("a temporary directory");
        let port = port::free(Ipv4Addr::LOCALHOST);
        let mut flags = vec![
            format!("--data-dir={}", home.path().join("data").display()),
            format!("--listen=127.0.0.1:{port}"),
            format!("--cluster-cidr=10.{}.0.0/16", 180 + slot),
            format!("--service-cidr=10.{}.0.0/16", 210 + slot),
            format!("--node-name=e2e-{slot}"),
            "--node-port=0".to_owned(),
            // A test machine's disk may be nearly full; what is tested here must not depend on it.
            "--eviction-hard=".to_owned(),
        ];
        if !node {
            flags.push("--no-node".to_owned());
        }
        for flag in more {
            let name = flag.split('=').next().unwrap_or(flag);
            flags.retain(|have| have.split('=').next() != Some(name));
            flags.push(flag.clone());
        }
        Self {
            home,
            flags,
            up: None,
            node,
        }
    }

    /// Adds a flag for the next start.
    pub(crate) fn flag(&mut self, flag: String) {
        self.flags.push(flag);
    }

    /// Runs another command of the binary on the same data directory and store.
    pub(crate) fn command(&self, words: &[&str]) -> Answer {
        let about: &[&str] = match words {
            ["secrets", ..] => &["--data-dir="],
            _ => &["--data-dir=", "--store=", "--etcd-", "--encryption-"],
        };
        let flags = self.flags.iter();
        let flags = flags.filter(|flag| about.iter().any(|about| flag.starts_with(about)));
        run(Command::new(EVENKEEL).args(words).args(flags), "")
    }

    /// Starts the process (again) and waits until it serves.
    pub(crate) fn up(&mut self) {
        assert!(self.up.is_none(), "the process runs already");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.home.path().join("log"))
            .expect("the log opens");
        let child = Command::new(EVENKEEL)
            .arg("up")
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log is a file"))
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        self.up = Some(child);
        self.until("the API server is ready", |cluster| {
            let ended = cluster
                .up
                .as_mut()
                .is_some_and(|up| !matches!(up.try_wait(), Ok(None)));
            assert!(!ended, "evenkeel up ended:\n{}", cluster.log());
            (cluster.kubectl(&["get", "--raw", "/readyz"]).out == "ok").then_some(())
        });
        self.until("the default service account is there", |cluster| {
            let found = cluster.kubectl(&["get", "serviceaccount", "default"]);
            (found.code == 0).then_some(())
        });
        if self.node {
            let node = self.node_name();
            // `wait` does not wait for what is not there yet.
            self.until("the node is registered", |cluster| {
                (cluster.kubectl(&["get", "node", &node]).code == 0).then_some(())
            });
            self.ok(&[
                "wait",
                "--for=condition=Ready",
                "--timeout=60s",
                "node",
                &node,
            ]);
        }
    }

    /// The name of the node.
    pub(crate) fn node_name(&self) -> String {
        self.flags
            .iter()
            .find_map(|flag| flag.strip_prefix("--node-name="))
            .expect("the name is always given")
            .to_owned()
    }

    /// Sends the process a signal and waits for its end.
    pub(crate) fn down(&mut self, signal: &str) {
        let mut up = self.up.take().expect("the process runs");
        let pid = up.id().to_string();
        kill(signal, &pid).expect("kill runs");
        let begin = Instant::now();
        while matches!(up.try_wait(), Ok(None)) {
            assert!(
                begin.elapsed() < Duration::from_secs(20),
                "{signal} does not end the process"
            );
            pause();
        }
    }

    /// The directory of this test; kubectl's HOME.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// What the process logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    fn kubectl_command(&self) -> Command {
        let mut command = Command::new("kubectl");
        // HOME holds kubectl's discovery cache, which must not outlive this cluster.
        command
            .env("KUBECONFIG", self.home.path().join("data/kubeconfig"))
            .env("HOME", self.home.path())
            .env_remove("KUBECTL_EXTERNAL_DIFF")
            .current_dir(self.home.path());
        command
    }

    /// Runs kubectl.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Answer {
        run(self.kubectl_command().args(arguments), "")
    }

    /// kubectl's minor version: 32 of 1.32.
    pub(crate) fn kubectl_minor(&self) -> u32 {
        let answer = self.ok(&["version", "--client", "-o", "json"]);
        let version: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        let minor = version["clientVersion"]["minor"].as_str().expect("a minor");
        minor
            .trim_end_matches('+')
            .parse()
            .expect("a number as minor")
    }

    /// Runs kubectl with text on its standard input.
    pub(crate) fn kubectl_with(&self, arguments: &[&str], input: &str) -> Answer {
        run(self.kubectl_command().args(arguments), input)
    }

    /// Runs kubectl with a variable in its environment.
    pub(crate) fn kubectl_env(&self, name: &str, value: &str, arguments: &[&str]) -> Answer {
        run(self.kubectl_command().env(name, value).args(arguments), "")
    }

    /// Runs kubectl, which must succeed; its standard output.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let answer = self.kubectl(arguments);
        assert_eq!(
            answer.code,
            0,
            "kubectl {}: {}",
            arguments.join(" "),
            answer.all()
        );
        answer.out
    }

    /// Applies a manifest, which must succeed.
    pub(crate) fn apply(&self, manifest: &str) -> String {
        let answer = self.kubectl_with(&["apply", "-f", "-"], manifest);
        assert_eq!(
            answer.code,
            0,
            "kubectl apply: {}\n{manifest}",
            answer.all()
        );
        answer.out
    }

    /// Runs kubectl, which must fail; everything it said.
    pub(crate) fn fails(&self, arguments: &[&str]) -> String {
        let answer = self.kubectl(arguments);
        assert_ne!(
            answer.code,
            0,
            "kubectl {} did not fail: {}",
            arguments.join(" "),
            answer.all()
        );
        answer.all()
    }

    /// One value by JSONPath; empty when it is not there.
    pub(crate) fn value(&self, object: &str, path: &str) -> String {
        let mut arguments = vec!["get"];
        arguments.extend(object.split_whitespace());
        let path = format!("-o=jsonpath={path}");
        arguments.push(&path);
        self.kubectl(&arguments).out
    }

    /// Waits until a value is as expected.
    pub(crate) fn value_becomes(&mut self, object: &str, path: &str, expected: &str) {
        let mut last = String::new();
        let begin = Instant::now();
        while begin.elapsed() < BOUND {
            last = self.value(object, path);
            if last == expected {
                return;
            }
            pause();
        }
        panic!(
            "{object} {path} is {last:?} and not {expected:?}\n{}",
            self.state()
        );
    }

    /// Waits until the question has an answer.
    pub(crate) fn until<T>(
        &mut self,
        what: &str,
        mut question: impl FnMut(&mut Self) -> Option<T>,
    ) -> T {
        let begin = Instant::now();
        loop {
            if let Some(answer) = question(self) {
                return answer;
            }
            assert!(
                begin.elapsed() < BOUND,
                "never happened: {what}\n{}",
                self.state()
            );
            pause();
        }
    }

    /// Starts kubectl in the background; it is killed when dropped.
    pub(crate) fn background(&self, arguments: &[&str]) -> Background {
        let child = self
            .kubectl_command()
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("kubectl starts");
        Background(child)
    }

    /// `evenkeel why`.
    pub(crate) fn why(&self, what: &str) -> String {
        let data = self.home.path().join("data");
        run(
            Command::new(EVENKEEL)
                .args(["why", what, "--data-dir"])
                .arg(data),
            "",
        )
        .all()
    }

    /// Imports an image of the Makefile's under another name.
    pub(crate) fn import(&self, file: &Path, reference: &str) {
        let answer = run(
            Command::new(EVENKEEL)
                .args(["image", "import"])
                .arg(file)
                .args(["--as", reference, "--data-dir"])
                .arg(self.home.path().join("data")),
            "",
        );
        assert_eq!(answer.code, 0, "image import: {}", answer.all());
    }

    /// Imports an image with busybox and a shell, as `busybox:test`.
    pub(crate) fn import_busybox(&self) {
        let file = self.home.path().join("busybox.tar");
        evenkeel_runtime::testing::ImageBuilder::busybox()
            .and_then(|image| image.docker_archive("busybox:test", &file))
            .expect("busybox-static is installed; `make packages` does it");
        self.import(&file, "busybox:test");
    }

    /// What is not healthy, for a message of a test that failed.
    pub(crate) fn state(&self) -> String {
        let log = self.log();
        let tail: Vec<&str> = log.lines().rev().take(25).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        format!(
            "{}\n{}\n{}",
            self.kubectl(&["get", "pods,deploy,rs,svc,hpa", "-A", "-o", "wide"])
                .all(),
            self.kubectl(&["get", "events", "-A"]).all(),
            tail.join("\n")
        )
    }
}

/// Sends a signal through the shell's own `kill`: a bare Debian has no command of that name.
pub(crate) fn kill(signal: &str, pid: &str) -> std::io::Result<std::process::ExitStatus> {
    Command::new("sh")
        .args(["-c", "kill \"$0\" \"$1\"", signal, pid])
        .status()
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("state of the cluster at the panic:\n{}", self.state());
        }
        if let Some(mut up) = self.up.take() {
            let pid = up.id().to_string();
            if let Err(error) = kill("-TERM", &pid) {
                eprintln!("kill: {error}");
            }
            let begin = Instant::now();
            while matches!(up.try_wait(), Ok(None)) && begin.elapsed() < Duration::from_secs(10) {
                pause();
            }
            if matches!(up.try_wait(), Ok(None)) {
                eprintln!("SIGTERM did not end the process in 10 s");
                if let Err(error) = up.kill().and_then(|()| up.wait().map(drop)) {
                    eprintln!("kill: {error}");
                }
            }
        }
        if self.node {
            let cleaned = run(Command::new(EVENKEEL).arg("clean").args(&self.flags), "");
            if cleaned.code != 0 {
                eprintln!("evenkeel clean: {}", cleaned.all());
            }
        }
    }
}

/// kubectl in the background.
#[derive(Debug)]
pub(crate) struct Background(Child);

impl Background {
    /// Reads its output until `enough` holds of what came so far.
    pub(crate) fn read_until(&mut self, enough: impl Fn(&str) -> bool) -> String {
        let mut stdout = self.0.stdout.take().expect("output is piped and read once");
        let (send, receive) = std::sync::mpsc::channel();
        // A read can't be bounded in time, so it happens elsewhere; it ends with the process.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stdout.read(&mut buffer) {
                // Read on when nobody listens any more: a full or closed pipe would end kubectl.
                drop(send.send(buffer[..read].to_vec()));
            }
        });
        let mut text = String::new();
        let begin = Instant::now();
        while !enough(&text) {
            let left = BOUND.saturating_sub(begin.elapsed());
            match receive.recv_timeout(left) {
                Ok(bytes) => text.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("the output ended, or nothing more came, after:\n{text}"),
            }
        }
        text
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait().map(drop)) {
            eprintln!("kubectl in the background: {error}");
        }
    }
}

/// Waits a little between two looks at a condition.
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(100));
}

/// Where `make images` put an image.
///
/// # Panics
/// When it is not there.
pub(crate) fn image(name: &str) -> PathBuf {
    let target = Path::new(EVENKEEL)
        .ancestors()
        .nth(2)
        .expect("target/PROFILE/evenkeel");
    let found = target.join("images").join(name);
    assert!(
        found.exists(),
        "{} is missing; run `make images`",
        found.display()
    );
    found
}

/// A file of the repository.
pub(crate) fn repository(path: &str) -> String {
    format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"))
}

/// One HTTP request to `address`; status line, headers and body.
pub(crate) fn http(address: &str, method: &str, path: &str) -> Option<String> {
    let address = address.parse().expect("an address with a port");
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(3)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    // A peer that dies after its answer resets the connection; what came before counts.
    if stream.read_to_end(&mut answer).is_err() && answer.is_empty() {
        return None;
    }
    Some(String::from_utf8_lossy(&answer).into_owned())
}

fn run(command: &mut Command, input: &str) -> Answer {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut stdin = child.stdin.take().expect("input is piped");
    let input = input.to_owned();
    // Written elsewhere, since the command may answer before it has read everything.
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("the command ends");
    // A command that needs no input closes the pipe: that is no error.
    drop(writer.join());
    Answer {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
