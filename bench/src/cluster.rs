//! An `evenkeel up` of our own: started, asked whether it is ready, stopped, cleaned up.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::Value;

use crate::client::{Connection, Protocol, Target};

/// Nothing that is waited for may take longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How often something is looked at that can't tell.
const LOOK: Duration = Duration::from_millis(1);

const NODE: &str = "/api/v1/nodes/bench";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/bench";

/// Where a cluster is kept and where it listens; it may run or not.
pub(crate) struct Place {
    program: PathBuf,
    data: PathBuf,
    address: SocketAddr,
}

/// A running cluster. Dropped, it is killed.
pub(crate) struct Cluster {
    child: Child,
    began: Instant,
    /// The same moment by the wall clock, which the node's lease is held against.
    since: jiff::Timestamp,
    pub(crate) target: Target,
}

impl Place {
    /// A place in `directory`, on a port that is free now.
    pub(crate) fn new(program: &Path, directory: &Path, name: &str) -> anyhow::Result<Self> {
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let program = fs::canonicalize(program)
            .with_context(|| format!("{} (cargo build --release)", program.display()))?;
        fs::create_dir_all(directory)?;
        let data = fs::canonicalize(directory)?.join(format!("{name}-{}", std::process::id()));
        Ok(Self {
            program,
            data,
            address,
        })
    }

    /// Where the kubeconfig is.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.data.join("kubeconfig")
    }

    /// The directory of its data, which is on the disk that writes go to.
    pub(crate) fn directory(&self) -> &Path {
        self.data.parent().unwrap_or(Path::new("."))
    }

    /// A command of the same program for this data directory.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        // Settings of whoever runs this must not leak in.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("EVENKEEL_") {
                command.env_remove(name);
            }
        }
        command.args(arguments).arg("--data-dir").arg(&self.data);
        command
    }

    /// What the cluster itself says of a Deployment that does not come up.
    pub(crate) fn why(&self, deployment: &str) -> String {
        let asked = self
            .command(&["why", &format!("deployment/{deployment}")])
            .output();
        asked.map_or_else(
            |error| format!("evenkeel why: {error}"),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
    }

    fn log(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    /// Starts the cluster and waits for `/readyz`; answers how long that took since the process
    /// was started.
    pub(crate) async fn start(&self) -> anyhow::Result<(Cluster, Duration)> {
        let log = fs::File::create(self.log())?;
        let mut command = self.command(&["up"]);
        command
            .args([
                "--listen",
                &self.address.to_string(),
                "--node-name",
                "bench",
            ])
            .args([
                "--cluster-cidr",
                "10.211.0.0/16",
                "--service-cidr",
                "10.212.0.0/16",
            ])
            .args(["--node-port", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let (began, since) = (Instant::now(), jiff::Timestamp::now());
        let mut child = command.spawn().context("evenkeel up")?;
        match self.ready(&mut child, began).await {
            Ok(target) => Ok((
                Cluster {
                    child,
                    began,
                    since,
                    target,
                },
                began.elapsed(),
            )),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                let said = fs::read_to_string(self.log()).unwrap_or_default();
                let last: Vec<&str> = said.lines().rev().take(3).collect();
                Err(error.context(format!("evenkeel up did not become ready: {last:?}")))
            }
        }
    }

    /// The kubeconfig is written before the first connection is served, and a connection waits
    /// until it is.
    async fn ready(&self, child: &mut Child, began: Instant) -> anyhow::Result<Target> {
        loop {
            if let Some(status) = child.try_wait()? {
                anyhow::bail!("it ended: {status}");
            }
            anyhow::ensure!(began.elapsed() < PATIENCE, "it takes too long");
            if let Ok(target) = Target::of_kubeconfig(&self.kubeconfig(), self.address)
                && let Ok(mut connection) = target.connect(Protocol::Http1).await
            {
                let asked = connection.count(Method::GET, "/readyz", Bytes::new()).await;
                if asked.is_ok_and(|(status, _)| status == StatusCode::OK) {
                    return Ok(target);
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Imports an image.
    pub(crate) fn import(&self, file: &Path) -> anyhow::Result<()> {
        let mut command = self.command(&["image", "import"]);
        let output = command.arg(file).output()?;
        anyhow::ensure!(
            output.status.success(),
            "image import {}: {}",
            file.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    /// How long a process of this program takes that does nothing.
    pub(crate) fn nothing(&self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let output = Command::new(&self.program).arg("version").output()?;
        anyhow::ensure!(output.status.success(), "evenkeel version failed");
        Ok(began.elapsed())
    }

    /// Removes all that the cluster has left, in the kernel and on disk.
    pub(crate) fn clean(&self) -> anyhow::Result<()> {
        let output = self
            .command(&["clean", "--node-name", "bench"])
            .args([
                "--cluster-cidr",
                "10.211.0.0/16",
                "--service-cidr",
                "10.212.0.0/16",
            ])
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "evenkeel clean: {}", said.trim());
        for gone in [fs::remove_dir_all(&self.data), fs::remove_file(self.log())] {
            match gone {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Cluster {
    /// The server's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A connection.
    pub(crate) async fn connect(&self) -> anyhow::Result<Connection> {
        self.target.connect(Protocol::Http1).await
    }

    /// Reads an object or a list.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let mut connection = self.connect().await?;
        let (status, body) = connection.read(Method::GET, path, Bytes::new()).await?;
        anyhow::ensure!(status == StatusCode::OK, "GET {path}: {status}");
        Ok(serde_json::from_slice(&body)?)
    }

    /// Waits until a pod could be scheduled: a node is Ready, has no taint, and its agent has
    /// renewed its lease since the start (what is stored may be left from before). Answers how
    /// long that took since the process was started.
    pub(crate) async fn schedulable(&self) -> anyhow::Result<Duration> {
        let mut connection = self.connect().await?;
        while self.began.elapsed() < PATIENCE {
            let node = read(&mut connection, NODE).await?;
            let lease = read(&mut connection, LEASE).await?;
            let renewed = lease["spec"]["renewTime"].as_str().unwrap_or_default();
            let renewed = renewed
                .parse::<jiff::Timestamp>()
                .is_ok_and(|time| time >= self.since);
            if renewed && is_schedulable(&node) {
                return Ok(self.began.elapsed());
            }
            tokio::time::sleep(LOOK).await;
        }
        anyhow::bail!("no node became ready")
    }

    /// Ends it as a service manager would. Containers go on running.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id())?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGTERM)?;
        let began = Instant::now();
        while self.child.try_wait()?.is_none() {
            anyhow::ensure!(
                began.elapsed() < PATIENCE,
                "evenkeel up does not end at SIGTERM"
            );
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

/// An object, or the `Status` that says why there is none.
async fn read(connection: &mut Connection, path: &str) -> anyhow::Result<Value> {
    let (_, body) = connection.read(Method::GET, path, Bytes::new()).await?;
    Ok(serde_json::from_slice(&body)?)
}

/// Is a condition true?
pub(crate) fn is_true(object: &Value, condition: &str) -> bool {
    object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|found| found["type"] == condition && found["status"] == "True")
}

fn is_schedulable(node: &Value) -> bool {
    let tainted = node["spec"]["taints"]
        .as_array()
        .is_some_and(|taints| !taints.is_empty());
    is_true(node, "Ready") && !tainted
}
