//! The program as a child of a test: started on a directory of its own, killed or stopped, and
//! always gone when the test ends.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::common::port;

/// Longest wait for anything.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A port that nobody has now.
pub(crate) fn free_port() -> u16 {
    port::free(Ipv4Addr::LOCALHOST)
}

/// The program without the settings of the shell that runs the tests.
pub(crate) fn evenkeel() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("EVENKEEL_") {
            command.env_remove(name);
        }
    }
    command.env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
    command
}

/// A running `evenkeel up`.
pub(crate) struct Instance {
    child: Child,
    pub(crate) data: PathBuf,
    pub(crate) port: u16,
    log: PathBuf,
}

impl Instance {
    /// Starts it; the log goes beside the data directory, all starts into one file.
    pub(crate) fn start(data: &Path, port: u16, more: &[&str]) -> Self {
        Self::start_with(data, port, more, |_| {})
    }

    pub(crate) fn start_with(
        data: &Path,
        port: u16,
        more: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> Self {
        let log = data.with_extension("log");
        let out = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let mut command = evenkeel();
        command
            .arg("up")
            .arg("--data-dir")
            .arg(data)
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(more)
            .stdout(out.try_clone().unwrap())
            .stderr(out);
        change(&mut command);
        Self {
            child: command.spawn().unwrap(),
            data: data.to_owned(),
            port,
            log,
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(
            status.signal(),
            Some(9),
            "it ended before it was killed:\n{}",
            self.log()
        );
    }

    /// SIGTERM, and the exit code.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.wait()
    }

    /// Waits for it to end by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait_child(&mut self.child).unwrap_or_else(|| panic!("it does not end:\n{}", self.log()))
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// A client with connections of its own, by the administrator's kubeconfig.
    pub(crate) async fn client(&self) -> kube::Client {
        let text = std::fs::read_to_string(self.data.join("kubeconfig")).unwrap();
        let file = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        let mut config = kube::Config::from_custom_kubeconfig(file, &Default::default())
            .await
            .unwrap();
        config.connect_timeout = Some(Duration::from_secs(5));
        kube::Client::try_from(config).unwrap()
    }

    /// Waits for `/readyz`; how long that took.
    pub(crate) async fn ready(&mut self) -> Duration {
        let began = Instant::now();
        let address = format!("127.0.0.1:{}", self.port);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("it ended with {status}:\n{}", self.log());
            }
            assert!(began.elapsed() < LIMIT, "not ready:\n{}", self.log());
            // The port is bound before the kubeconfig is written, so wait for both.
            if tokio::net::TcpStream::connect(&address).await.is_ok()
                && self.data.join("kubeconfig").exists()
            {
                let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
                if self.client().await.request_text(request).await.is_ok() {
                    return began.elapsed();
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // It may have ended already; there is nobody to tell.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Waits for a child with a bound.
pub(crate) fn wait_child(child: &mut Child) -> Option<ExitStatus> {
    let began = Instant::now();
    while began.elapsed() < LIMIT {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

/// Waits for a condition with a bound.
pub(crate) async fn until<T>(
    what: &str,
    limit: Duration,
    mut check: impl AsyncFnMut() -> Option<T>,
) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(began.elapsed() < limit, "still waiting for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
