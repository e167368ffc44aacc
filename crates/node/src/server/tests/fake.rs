//! An agent with one pod whose container "runs" programs of this machine.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_runtime::contract::{
    ContainerConfig, ContainerEvent, ContainerState, ContainerStats, ContainerStatus, ExecOutput,
    ExecRequest, Resources, Result as RuntimeResult, Runtime, RuntimeError, SandboxConfig,
    SandboxStatus, SharedRuntime, StreamSession, TerminalSize,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::{broadcast, mpsc};

use crate::server::backend::Result;
use crate::server::{
    BackendError, ContainerTarget, LogSource, NodeBackend, PodTarget, PortForwardTarget,
};

pub(crate) struct FakeRuntime {
    events: broadcast::Sender<ContainerEvent>,
    running: Mutex<bool>,
    pub(crate) reopened: Mutex<Vec<String>>,
    /// What the front's clients were upgraded to.
    pub(crate) upgrades: Mutex<Vec<String>>,
}

impl FakeRuntime {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            events: broadcast::channel(16).0,
            running: Mutex::new(true),
            reopened: Mutex::default(),
            upgrades: Mutex::default(),
        })
    }

    pub(crate) fn end_container(&self) {
        *self.running.lock() = false;
        let event = ContainerEvent {
            container_id: "id-c".to_owned(),
            sandbox_id: "sandbox".to_owned(),
            state: ContainerState::Exited,
        };
        drop(self.events.send(event));
    }
}

fn unsupported<T: Send + 'static>(what: &str) -> BoxFuture<'static, RuntimeResult<T>> {
    std::future::ready(Err(RuntimeError::Unsupported(what.to_owned()))).boxed()
}

/// A terminal that prints each size it gets and ends at `q`.
fn fake_terminal() -> StreamSession {
    let (mut program_in, stdin) = tokio::io::duplex(1024);
    let (stdout, mut program_out) = tokio::io::duplex(1024);
    let (resize, mut resized) = mpsc::channel::<TerminalSize>(4);
    let exit = async move {
        let mut key = [0u8; 1];
        loop {
            tokio::select! {
                Some(size) = resized.recv() => {
                    let text = format!("{}x{}\r\n", size.width, size.height);
                    program_out.write_all(text.as_bytes()).await.unwrap();
                }
                read = program_in.read(&mut key) => {
                    if read.unwrap() == 0 || key[0] == b'q' {
                        return Ok(0);
                    }
                }
            }
        }
    };
    StreamSession {
        stdin: Some(Box::new(stdin)),
        stdout: Some(Box::new(stdout)),
        stderr: None,
        resize,
        exit: exit.boxed(),
    }
}

impl Runtime for FakeRuntime {
    fn version(&self) -> String {
        "fake://0".to_owned()
    }
    fn run_sandbox<'a>(&'a self, _: &'a SandboxConfig) -> BoxFuture<'a, RuntimeResult<String>> {
        unsupported("run_sandbox")
    }
    fn stop_sandbox<'a>(&'a self, _: &'a str) -> BoxFuture<'a, RuntimeResult<()>> {
        unsupported("stop_sandbox")
    }
    fn remove_sandbox<'a>(&'a self, _: &'a str) -> BoxFuture<'a, RuntimeResult<()>> {
        unsupported("remove_sandbox")
    }
    fn list_sandboxes(&self) -> BoxFuture<'_, RuntimeResult<Vec<SandboxStatus>>> {
        unsupported("list_sandboxes")
    }
    fn create_container<'a>(
        &'a self,
        _: &'a str,
        _: &'a ContainerConfig,
    ) -> BoxFuture<'a, RuntimeResult<String>> {
        unsupported("create_container")
    }
    fn start_container<'a>(&'a self, _: &'a str) -> BoxFuture<'a, RuntimeResult<()>> {
        unsupported("start_container")
    }
    fn stop_container<'a>(&'a self, _: &'a str, _: Duration) -> BoxFuture<'a, RuntimeResult<()>> {
        unsupported("stop_container")
    }
    fn remove_container<'a>(&'a self, _: &'a str) -> BoxFuture<'a, RuntimeResult<()>> {
        unsupported("remove_container")
    }
    fn list_containers(&self) -> BoxFuture<'_, RuntimeResult<Vec<ContainerStatus>>> {
        unsupported("list_containers")
    }
    fn container_status<'a>(
        &'a self,
        id: &'a str,
    ) -> BoxFuture<'a, RuntimeResult<ContainerStatus>> {
        let running = *self.running.lock();
        let status = ContainerStatus {
            id: id.to_owned(),
            sandbox_id: "sandbox".to_owned(),
            name: "c".to_owned(),
            attempt: 0,
            state: if running {
                ContainerState::Running
            } else {
                ContainerState::Exited
            },
            created_at: 1,
            started_at: 1,
            finished_at: 0,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: String::new(),
            image_id: String::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            log_path: PathBuf::new(),
            pid: None,
            user: None,
        };
        std::future::ready(Ok(status)).boxed()
    }
    fn container_stats<'a>(&'a self, _: &'a str) -> BoxFuture<'a, RuntimeResult<ContainerStats>> {
        unsupported("container_stats")
    }
    fn update_resources<'a>(
        &'a self,
        _: &'a str,
        _: &'a Resources,
    ) -> BoxFuture<'a, RuntimeResult<()>> {
        unsupported("update_resources")
    }
    fn reopen_log<'a>(&'a self, id: &'a str) -> BoxFuture<'a, RuntimeResult<()>> {
        self.reopened.lock().push(id.to_owned());
        std::future::ready(Ok(())).boxed()
    }

    fn exec<'a>(
        &'a self,
        _: &'a str,
        request: &'a ExecRequest,
    ) -> BoxFuture<'a, RuntimeResult<StreamSession>> {
        async move {
            if request.command[0] == "fake-terminal" {
                return Ok(fake_terminal());
            }
            let pipe = |open: bool| if open { Stdio::piped() } else { Stdio::null() };
            let mut child = Command::new(&request.command[0])
                .args(&request.command[1..])
                .stdin(pipe(request.stdin))
                .stdout(pipe(request.stdout))
                .stderr(pipe(request.stderr))
                .kill_on_drop(true)
                .spawn()
                .map_err(|error| RuntimeError::CannotRun(error.to_string()))?;
            Ok(StreamSession {
                stdin: child.stdin.take().map(|pipe| Box::new(pipe) as _),
                stdout: child.stdout.take().map(|pipe| Box::new(pipe) as _),
                stderr: child.stderr.take().map(|pipe| Box::new(pipe) as _),
                resize: mpsc::channel(1).0,
                exit: async move { Ok(child.wait().await.unwrap().code().unwrap_or(137)) }.boxed(),
            })
        }
        .boxed()
    }
    fn exec_sync<'a>(
        &'a self,
        _: &'a str,
        command: &'a [String],
        _: Duration,
    ) -> BoxFuture<'a, RuntimeResult<ExecOutput>> {
        async move {
            let output = Command::new(&command[0])
                .args(&command[1..])
                .output()
                .await
                .unwrap();
            Ok(ExecOutput {
                stdout: output.stdout,
                stderr: output.stderr,
                exit_code: output.status.code().unwrap_or(137),
            })
        }
        .boxed()
    }
    fn attach<'a>(
        &'a self,
        id: &'a str,
        request: &'a ExecRequest,
    ) -> BoxFuture<'a, RuntimeResult<StreamSession>> {
        async move {
            let command = ["sh", "-c", "echo attached; exit 3"]
                .map(str::to_owned)
                .to_vec();
            self.exec(
                id,
                &ExecRequest {
                    command,
                    ..request.clone()
                },
            )
            .await
        }
        .boxed()
    }
    fn events(&self) -> broadcast::Receiver<ContainerEvent> {
        self.events.subscribe()
    }
}

/// The pod `default/p` with the containers `c` (runs) and `w` (waits).
pub(crate) struct FakeNode {
    pub(crate) runtime: Arc<FakeRuntime>,
    pub(crate) log: PathBuf,
    pub(crate) netns: Option<PathBuf>,
}

impl FakeNode {
    pub(crate) fn new(log: &Path) -> Arc<Self> {
        Arc::new(Self {
            runtime: FakeRuntime::new(),
            log: log.to_owned(),
            netns: None,
        })
    }

    fn pod(&self, target: &PodTarget) -> Result<()> {
        let known = target.namespace == "default"
            && target.pod == "p"
            && target.uid.as_deref().is_none_or(|uid| uid == "uid-p");
        if known {
            Ok(())
        } else {
            Err(BackendError::pod_not_found(&target.pod))
        }
    }
}

impl NodeBackend for FakeNode {
    fn now(&self) -> jiff::Timestamp {
        "2026-01-02T03:05:00Z".parse().unwrap()
    }
    fn runtime(&self) -> SharedRuntime {
        self.runtime.clone()
    }
    fn running_container<'a>(
        &'a self,
        target: &'a ContainerTarget,
    ) -> BoxFuture<'a, Result<String>> {
        async move {
            self.pod(&target.pod)?;
            match target.container.as_str() {
                "c" => Ok("id-c".to_owned()),
                "w" => Err(BackendError::container_not_running("w")),
                other => Err(BackendError::container_not_valid(other, &target.pod.pod)),
            }
        }
        .boxed()
    }
    fn container_log<'a>(
        &'a self,
        target: &'a ContainerTarget,
        previous: bool,
    ) -> BoxFuture<'a, Result<LogSource>> {
        async move {
            self.pod(&target.pod)?;
            let pod = &target.pod.pod;
            match target.container.as_str() {
                "c" if previous => Err(BackendError::no_previous("c", pod)),
                "c" => {
                    let running = *self.runtime.running.lock();
                    let writer = running.then(|| "id-c".to_owned());
                    Ok(LogSource {
                        path: self.log.clone(),
                        writer,
                    })
                }
                "w" => Err(BackendError::waiting_to_start(
                    "w",
                    pod,
                    "ContainerCreating",
                )),
                other => Err(BackendError::container_not_valid(other, pod)),
            }
        }
        .boxed()
    }
    fn port_forward<'a>(
        &'a self,
        target: &'a PodTarget,
    ) -> BoxFuture<'a, Result<PortForwardTarget>> {
        let found = self.pod(target).map(|()| PortForwardTarget {
            netns: self.netns.clone(),
        });
        std::future::ready(found).boxed()
    }
    fn pods(&self) -> BoxFuture<'_, Result<Vec<Value>>> {
        std::future::ready(Ok(vec![json!({"metadata": {"name": "p"}})])).boxed()
    }
    fn stats_summary(&self) -> BoxFuture<'_, Result<Value>> {
        std::future::ready(Ok(json!({"node": {"nodeName": "n"}, "pods": []}))).boxed()
    }
    fn metrics(&self) -> BoxFuture<'_, Result<String>> {
        std::future::ready(Ok("up 1\n".to_owned())).boxed()
    }
    fn metrics_resource(&self) -> BoxFuture<'_, Result<String>> {
        std::future::ready(Ok("node_cpu_usage_seconds_total 1\n".to_owned())).boxed()
    }
    fn healthy(&self) -> BoxFuture<'_, std::result::Result<(), String>> {
        std::future::ready(Ok(())).boxed()
    }
    fn config(&self) -> Value {
        json!({"kind": "KubeletConfiguration"})
    }
}

/// Serves one TCP connection after the other on loopback by `serve`, until dropped.
pub(crate) async fn tcp_service<F>(serve: fn(tokio::net::TcpStream) -> F) -> u16
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    port
}

/// Sends back what comes.
pub(crate) async fn echo(mut stream: tokio::net::TcpStream) {
    let (mut from, mut to) = stream.split();
    tokio::io::copy(&mut from, &mut to).await.ok();
}

/// The most memory this process has used, KiB.
pub(crate) fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
