//! A directory for one test.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::volume::release;

/// So often its removal is tried, with this pause between.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// A directory of this process that goes when it is dropped, with what is mounted in it (an agent
/// that ends leaves its pods' volumes as they are), and also while somebody who was told to end
/// still writes a last file.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one, empty.
    pub fn new() -> io::Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = MADE.fetch_add(1, Ordering::Relaxed);
            let name = format!("evenkeel-test-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                // Of an earlier process with this number.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for _ in 0..TRIES {
            if release::remove_pod_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_although_somebody_still_writes() {
        let scratch = Scratch::new().expect("a directory");
        let path = scratch.path().to_owned();
        let inner = path.join("inner");
        fs::create_dir(&inner).expect("a directory in it");
        let writer = thread::spawn(move || {
            // Fails from when the directory is gone.
            (0..2000).all(|each| fs::write(inner.join(each.to_string()), "").is_ok())
        });
        drop(scratch);
        writer.join().expect("it ends");
        assert!(!path.exists());
    }
}
