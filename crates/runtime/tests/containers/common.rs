//! A runtime in a directory of its own, cleaned up whatever the test does.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use evenkeel_runtime::testing::{ImageBuilder, NoNetwork};
use evenkeel_runtime::{
    ContainerConfig, ContainerState, ContainerStatus, EmbeddedOptions, EmbeddedRuntime, ExecOutput,
    ImageOptions, ImageStore, Images, PodRef, Runtime, SandboxConfig, cleanup,
};

pub(crate) const IMAGE: &str = "example.test/busybox:1";
pub(crate) const BOUND: Duration = Duration::from_secs(20);

/// How many times longer than [`BOUND`] anything may take: an emulated machine asks for patience.
fn patience() -> u32 {
    let given = std::env::var("EVENKEEL_TEST_PATIENCE").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(1)
}

pub(crate) struct Fixture {
    pub(crate) dir: PathBuf,
    pub(crate) instance: String,
    pub(crate) images: Arc<ImageStore>,
    runtime: Option<EmbeddedRuntime>,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

pub(crate) fn require_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test runs real containers and needs root; run it as root"
    );
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        require_root();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let instance = format!("t{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(format!("evenkeel-{instance}"));
        std::fs::create_dir_all(&dir).expect("a directory");
        let images = Arc::new(
            ImageStore::open(dir.join("images"), ImageOptions::default()).expect("an image store"),
        );
        let mut fixture = Self {
            dir,
            instance,
            images,
            runtime: None,
        };
        fixture.open();
        fixture
            .import(&ImageBuilder::busybox().expect("busybox-static"), IMAGE)
            .await;
        fixture
    }

    /// A second process's view of a fixture's directory; the first one cleans up.
    pub(crate) fn at(dir: PathBuf) -> Self {
        let instance = dir
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .replace("evenkeel-", "");
        let images = Arc::new(
            ImageStore::open(dir.join("images"), ImageOptions::default()).expect("an image store"),
        );
        let mut fixture = Self {
            dir,
            instance,
            images,
            runtime: None,
        };
        fixture.open();
        fixture
    }

    pub(crate) fn options(&self) -> EmbeddedOptions {
        EmbeddedOptions {
            root: self.root(),
            instance: self.instance.clone(),
            network: Arc::new(NoNetwork),
            images: Arc::clone(&self.images),
            helper: PathBuf::from(env!("CARGO_BIN_EXE_runtime-helper")),
            helper_args: Vec::new(),
        }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.join("node")
    }

    /// Opens the runtime, again if it was closed.
    pub(crate) fn open(&mut self) {
        self.runtime = None;
        self.runtime = Some(EmbeddedRuntime::new(self.options()).expect("a runtime"));
    }

    pub(crate) fn close(&mut self) {
        self.runtime = None;
    }

    pub(crate) fn runtime(&self) -> &EmbeddedRuntime {
        self.runtime.as_ref().expect("an open runtime")
    }

    pub(crate) async fn import(&self, image: &ImageBuilder, name: &str) {
        let file = self.dir.join("image.tar");
        image.docker_archive(name, &file).expect("an archive");
        self.images.import(&file, None).await.expect("imports");
    }

    pub(crate) fn pod(&self) -> SandboxConfig {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        SandboxConfig {
            pod: PodRef {
                namespace: "default".into(),
                name: format!("pod-{number}"),
                uid: format!("uid-{number}"),
                attempt: 0,
            },
            hostname: format!("pod-{number}"),
            log_directory: self.dir.join(format!("logs/{number}")),
            ..SandboxConfig::default()
        }
    }

    pub(crate) async fn sandbox(&self) -> String {
        self.runtime()
            .run_sandbox(&self.pod())
            .await
            .expect("a sandbox")
    }

    /// Creates and starts a container in a sandbox of its own.
    pub(crate) async fn start(&self, config: &ContainerConfig) -> String {
        let sandbox = self.sandbox().await;
        self.start_in(&sandbox, config).await
    }

    pub(crate) async fn start_in(&self, sandbox: &str, config: &ContainerConfig) -> String {
        let id = self
            .runtime()
            .create_container(sandbox, config)
            .await
            .expect("a container");
        self.runtime().start_container(&id).await.expect("starts");
        id
    }

    pub(crate) async fn ended(&self, id: &str) -> ContainerStatus {
        until("the container ends", async || {
            let status = self.runtime().container_status(id).await.expect("a status");
            (status.state == ContainerState::Exited).then_some(status)
        })
        .await
    }

    /// Runs to the end; answers the status and the log's lines as (stream, tag, text).
    pub(crate) async fn run(&self, config: &ContainerConfig) -> (ContainerStatus, Vec<Line>) {
        let id = self.start(config).await;
        let status = self.ended(&id).await;
        let lines = log(&status.log_path);
        (status, lines)
    }

    /// Runs a shell script to its end and answers what it printed.
    pub(crate) async fn sh(&self, script: &str) -> String {
        let (status, lines) = self.run(&shell(script)).await;
        let text = text(&lines);
        assert_eq!(status.exit_code, 0, "{script}: {text}");
        text
    }

    pub(crate) async fn exec(&self, id: &str, command: &[&str]) -> ExecOutput {
        let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        self.runtime()
            .exec_sync(id, &command, BOUND * patience())
            .await
            .expect("exec")
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.runtime = None;
        let cleaned = cleanup(&self.root(), &self.instance);
        let removed = std::fs::remove_dir_all(&self.dir);
        if !std::thread::panicking() {
            cleaned.expect("cleans up");
            removed.expect("removes its directory");
            let leftover = leftovers(&self.instance);
            assert!(leftover.is_empty(), "left behind: {leftover:?}");
        }
    }
}

/// Mounts and cgroups that still carry the instance's name.
pub(crate) fn leftovers(instance: &str) -> Vec<String> {
    let mut out: Vec<String> = std::fs::read_to_string("/proc/self/mountinfo")
        .expect("mounts")
        .lines()
        .filter(|line| line.contains(&format!("evenkeel-{instance}/")))
        .map(str::to_owned)
        .collect();
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup")
        .expect("cgroups")
        .flatten()
    {
        let group = hierarchy.path().join(format!("evenkeel-{instance}"));
        if group.exists() {
            out.push(group.display().to_string());
        }
    }
    out
}

pub(crate) fn shell(script: &str) -> ContainerConfig {
    ContainerConfig {
        name: "main".into(),
        image: IMAGE.into(),
        command: vec!["sh".into(), "-c".into(), script.into()],
        log_path: "main.log".into(),
        ..ContainerConfig::default()
    }
}

pub(crate) type Line = (String, String, String);

pub(crate) fn log(path: &Path) -> Vec<Line> {
    std::fs::read_to_string(path)
        .expect("a log")
        .lines()
        .map(|line| {
            let mut parts = line.splitn(4, ' ');
            let mut next = || parts.next().expect("a CRI line").to_owned();
            let stamp = next();
            assert!(stamp.len() == 30 && stamp.ends_with('Z'), "{stamp}");
            (next(), next(), next())
        })
        .collect()
}

pub(crate) fn text(lines: &[Line]) -> String {
    lines
        .iter()
        .map(|(_, tag, text)| {
            if tag == "F" {
                format!("{text}\n")
            } else {
                text.clone()
            }
        })
        .collect()
}

/// Polls a condition until it holds, for at most [`BOUND`].
pub(crate) async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let poll = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    bounded(what, poll).await
}

pub(crate) async fn bounded<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(BOUND * patience(), future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain: {what}"),
    }
}
