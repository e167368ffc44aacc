//! A directory of a target's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

static MADE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn made() -> std::sync::MutexGuard<'static, Vec<PathBuf>> {
    MADE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes all directories of this process.
pub(crate) fn clear() {
    for path in made().drain(..) {
        if let Err(error) = fs::remove_dir_all(&path) {
            eprintln!("{}: {error}", path.display());
        }
    }
}

/// A directory below that for temporary files. It stays until [`clear`]: targets live as long as
/// their process.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// A directory of this name, for this process.
    pub(crate) fn new(name: &str) -> Self {
        let own = format!("evenkeel-fuzz-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(own);
        if path.exists() {
            fs::remove_dir_all(&path).expect("it goes");
        }
        fs::create_dir_all(&path).expect("a directory");
        made().push(path.clone());
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}
