//! Waiting for a log to change, by inotify.
#![allow(
    unsafe_code,
    reason = "registering a descriptor with the runtime asks that it stays open"
)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

/// A watch on the directory of a log: sees writes, and the new file after a rotation.
pub(crate) struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    pub(crate) fn new(directory: &Path) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        let events = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::DELETE;
        inotify::add_watch(&fd, directory, events)?;
        // SAFETY: the descriptor is owned by the AsyncFd, which never gives it out mutably, so it
        // stays open and the same until the AsyncFd is dropped.
        let registered = unsafe { AsyncFd::register(fd) };
        Ok(Self(registered.map_err(io::Error::from)?))
    }

    /// Returns after something happened; all that has happened until then counts once.
    pub(crate) async fn changed(&self) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
        let mut events = inotify::Reader::new(self.0.get_ref(), &mut buffer);
        loop {
            match events.next() {
                Ok(_) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    ready.clear_ready();
                    return Ok(());
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
