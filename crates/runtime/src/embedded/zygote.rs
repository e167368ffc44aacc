//! The runtime's end of the zygote: starting it, handing it requests.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use crate::cgroup::{Cgroups, Placement};
use crate::contract::{Result, RuntimeError};
use crate::files::Context as _;
use crate::sys;
use crate::wire::{self, Failure, FailureKind, frame};

/// Starts the helper process on demand and again should it die.
pub(super) struct Zygote {
    program: PathBuf,
    args: Vec<String>,
    cgroups: Arc<dyn Cgroups>,
    /// Group of the zygote and, by inheritance, of every shim.
    group: String,
    control: Mutex<Option<OwnedFd>>,
}

impl Zygote {
    pub(super) fn new(
        program: PathBuf,
        args: Vec<String>,
        cgroups: Arc<dyn Cgroups>,
        group: String,
    ) -> Self {
        Self {
            program,
            args,
            cgroups,
            group,
            control: Mutex::new(None),
        }
    }

    fn start(&self) -> io::Result<OwnedFd> {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        let mut child = Command::new(&self.program)
            .args(&self.args)
            .arg("zygote")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()?;
        self.adopt(child.id());
        // It ends when `ours` is closed, then it must be reaped; by nothing else than a thread,
        // since it outlives any one task.
        std::thread::Builder::new()
            .name("zygote-reaper".into())
            .spawn(move || match child.wait() {
                Ok(status) => tracing::debug!(%status, "the runtime helper ended"),
                Err(error) => tracing::warn!(%error, "waiting for the runtime helper"),
            })?;
        Ok(ours)
    }

    /// Moves the zygote out of the service's group: whoever stops the service by its group (as
    /// systemd does) must not reach the shims. Best effort, since containers run without it.
    fn adopt(&self, pid: u32) {
        let moved = self
            .cgroups
            .create(&self.group, &crate::contract::Resources::default(), None)
            .and_then(|()| {
                let Placement { mut join, into, .. } = self.cgroups.placement(&self.group);
                join.extend(into.map(|dir| dir.join("cgroup.procs")));
                join.iter()
                    .try_for_each(|file| std::fs::write(file, pid.to_string()))
            });
        if let Err(error) = moved {
            tracing::warn!(%error, "moving the runtime helper to a group of its own");
        }
    }

    /// Hands a request over; the answer comes on the stream.
    pub(super) async fn send<T: Serialize>(
        &self,
        op: u8,
        request: &T,
        fds: &[BorrowedFd<'_>],
    ) -> Result<UnixStream> {
        let (ours, theirs) =
            std::os::unix::net::UnixStream::pair().context(|| "make a socket pair".to_owned())?;
        {
            let mut all = vec![theirs.as_fd()];
            all.extend_from_slice(fds);
            let mut control = self.control.lock();
            let alive = match control.as_ref() {
                Some(socket) => sys::send_fds(socket.as_fd(), &[op], &all).is_ok(),
                None => false,
            };
            if !alive {
                let socket = self
                    .start()
                    .context(|| format!("start the runtime helper {}", self.program.display()))?;
                sys::send_fds(socket.as_fd(), &[op], &all)
                    .context(|| "reach the runtime helper".to_owned())?;
                *control = Some(socket);
            }
        }
        drop(theirs);
        ours.set_nonblocking(true)
            .context(|| "set up a socket".to_owned())?;
        let mut stream = UnixStream::from_std(ours).context(|| "set up a socket".to_owned())?;
        stream
            .write_all(&wire::encode_json(frame::REQUEST, request))
            .await
            .context(|| "reach the runtime helper".to_owned())?;
        Ok(stream)
    }

    /// Makes sure that it runs, so that the first request does not wait for it.
    pub(super) fn warm(&self) -> Result<()> {
        let mut control = self.control.lock();
        if control.is_none() {
            *control = Some(
                self.start()
                    .context(|| format!("start the runtime helper {}", self.program.display()))?,
            );
        }
        Ok(())
    }
}

/// Reads the next frame and insists that there is one.
pub(super) async fn answer(stream: &mut UnixStream) -> Result<(u8, Vec<u8>)> {
    match wire::read_async(stream).await {
        Ok(Some((frame::FAILED, body))) => Err(failure(&body)),
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(RuntimeError::Io {
            context: "hear from the runtime helper".to_owned(),
            source: io::ErrorKind::UnexpectedEof.into(),
        }),
        Err(source) => Err(RuntimeError::Io {
            context: "hear from the runtime helper".to_owned(),
            source,
        }),
    }
}

/// A JSON body.
pub(super) fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| RuntimeError::Io {
        context: "understand the runtime helper".to_owned(),
        source: error.into(),
    })
}

/// A helper's failure as the contract has it.
pub(super) fn failure(bytes: &[u8]) -> RuntimeError {
    match body::<Failure>(bytes) {
        Ok(Failure {
            kind: FailureKind::CannotRun,
            message,
        }) => RuntimeError::CannotRun(message),
        Ok(Failure {
            kind: FailureKind::Invalid,
            message,
        }) => RuntimeError::Invalid(message),
        Ok(Failure {
            kind: FailureKind::System,
            message,
        }) => RuntimeError::Io {
            context: "runtime helper".to_owned(),
            source: io::Error::other(message),
        },
        Err(error) => error,
    }
}
