//! Following a container's shim: requests to it, and the news of the container's end.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;
use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use super::container::Container;
use super::{Inner, blocking, zygote};
use crate::clock;
use crate::contract::{Result, RuntimeError};
use crate::files;
use crate::sys;
use crate::wire::{self, Exited, Started, frame};

/// A request with the place for its answer.
type Request = (Vec<u8>, oneshot::Sender<Result<()>>);

/// How requests reach the task that owns the connection.
#[derive(Clone)]
pub(super) struct ShimHandle(mpsc::Sender<Request>);

fn gone() -> RuntimeError {
    RuntimeError::Invalid("the container is not running".to_owned())
}

/// Sends a frame to the shim and waits for its answer.
pub(super) async fn request(container: &Container, bytes: Vec<u8>) -> Result<()> {
    let handle = container.shim.lock().clone().ok_or_else(gone)?;
    let (answer, answered) = oneshot::channel();
    handle.0.send((bytes, answer)).await.map_err(|_| gone())?;
    answered.await.map_err(|_| gone())?
}

/// Signals the container's first process.
pub(super) async fn signal(container: &Container, signal: i32) -> Result<()> {
    let number = u8::try_from(signal)
        .map_err(|_| RuntimeError::Invalid(format!("{signal} is no signal")))?;
    request(container, wire::encode(frame::SIGNAL, &[number])).await
}

/// Connects to a shim's socket. The path may be longer than a socket address holds, so it goes
/// through the directory's descriptor.
pub(super) fn connect(dir: &Path) -> std::io::Result<std::os::unix::net::UnixStream> {
    let handle = std::fs::File::open(dir)?;
    let path = format!("/proc/self/fd/{}/shim.sock", handle.as_fd().as_raw_fd());
    std::os::unix::net::UnixStream::connect(path)
}

/// Owns the connection from now on, until the container has ended.
pub(super) fn follow(inner: &Arc<Inner>, container: &Arc<Container>, stream: UnixStream) {
    let (sender, requests) = mpsc::channel(16);
    *container.shim.lock() = Some(ShimHandle(sender));
    // The task must not keep a runtime alive that everybody else has dropped.
    let inner = Arc::downgrade(inner);
    let container = Arc::clone(container);
    tokio::spawn(async move {
        let heard = listen(&inner, &container, stream, requests).await;
        *container.shim.lock() = None;
        if let Some(inner) = inner.upgrade() {
            conclude(&inner, &container, heard).await;
        }
    });
}

async fn listen(
    inner: &std::sync::Weak<Inner>,
    container: &Container,
    stream: UnixStream,
    mut requests: mpsc::Receiver<Request>,
) -> Option<Exited> {
    let (mut reader, mut writer) = stream.into_split();
    let mut waiting: std::collections::VecDeque<oneshot::Sender<Result<()>>> =
        std::collections::VecDeque::new();
    let (frames, mut arrived) = mpsc::channel(16);
    // Reading a frame is not cancel-safe, so it has a task of its own.
    tokio::spawn(async move {
        while let Ok(Some(frame)) = wire::read_async(&mut reader).await {
            if frames.send(frame).await.is_err() {
                break;
            }
        }
    });
    loop {
        tokio::select! {
            Some((bytes, answer)) = requests.recv() => {
                if writer.write_all(&bytes).await.is_ok() {
                    waiting.push_back(answer);
                }
            }
            frame = arrived.recv() => match frame? {
                (frame::EXITED, body) => return zygote::body(&body).ok(),
                (frame::STARTED, body) => {
                    // Told to whoever connects; news only after an adoption mid-start.
                    if let (Some(inner), Ok(started)) =
                        (inner.upgrade(), zygote::body::<Started>(&body))
                    {
                        inner.advance(container, |life| {
                            life.started.get_or_insert(started);
                        });
                    }
                }
                (frame::DONE, _) => {
                    // The asker may have stopped waiting.
                    waiting.pop_front().map(|answer| answer.send(Ok(())).ok());
                }
                (frame::FAILED, body) => {
                    waiting.pop_front().map(|answer| answer.send(Err(zygote::failure(&body))).ok());
                }
                _ => {}
            },
        }
    }
}

/// The shim has gone: find out how the container ended.
pub(super) async fn conclude(
    inner: &Arc<Inner>,
    container: &Arc<Container>,
    heard: Option<Exited>,
) {
    let path = inner.container_dir(&container.record.id).join("exit.json");
    let recorded = heard.or_else(|| files::read_json::<Exited>(&path).ok().flatten());
    let exited = match recorded {
        Some(exited) => exited,
        None => abandoned(inner, container).await,
    };
    inner.advance(container, |life| {
        life.exited.get_or_insert(exited);
    });
}

/// A container whose shim died without a word: nobody reads its output or reaps it any more, so
/// it is ended.
async fn abandoned(inner: &Arc<Inner>, container: &Arc<Container>) -> Exited {
    let id = container.record.id.clone();
    tracing::warn!(
        container = id,
        "the container's shim is gone; ending the container"
    );
    let group = inner.container_group(&container.record.pod_uid, &id);
    let cgroups = Arc::clone(&inner.cgroups);
    let pid = container
        .life
        .borrow()
        .started
        .as_ref()
        .map(|s| (s.pid, s.start_ticks));
    let killed = blocking(move || {
        if let Some((pid, ticks)) = pid
            && let Ok(handle) = sys::pidfd_open(pid)
            && crate::shim::start_ticks(pid) == Some(ticks)
        {
            // The group's kill below reaches it as well; this covers a group that is gone.
            sys::pidfd_send_signal(handle.as_fd(), libc::SIGKILL).ok();
        }
        cgroups.kill(&group).map_err(|source| RuntimeError::Io {
            context: format!("kill cgroup {group}"),
            source,
        })
    })
    .await;
    if let Err(error) = killed {
        tracing::warn!(container = id, %error, "ending a container without shim");
    }
    let exited = Exited {
        code: 137,
        finished_at: clock::now_ns(),
        oom_killed: false,
        reason: "Error".to_owned(),
        message: "the container's shim ended unexpectedly".to_owned(),
    };
    let path = inner.container_dir(&id).join("exit.json");
    if let Err(error) = files::write_json(&path, &exited) {
        tracing::warn!(container = id, %error, "recording the end of a container");
    }
    exited
}
