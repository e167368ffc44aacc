//! Small file habits that everything here shares: records that are whole or absent, removal that
//! does not mind absence.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::contract::RuntimeError;

/// Adds what was being done to an I/O error.
pub(crate) trait Context<T> {
    /// `context` is a phrase with the object's name: `create /x/y`.
    fn context(self, context: impl FnOnce() -> String) -> Result<T, RuntimeError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, context: impl FnOnce() -> String) -> Result<T, RuntimeError> {
        self.map_err(|error| RuntimeError::Io {
            context: context(),
            source: error.into(),
        })
    }
}

/// Writes a file so that readers see the old content or the new, never a part.
///
/// Not synced: what is kept by this describes processes and mounts of the running kernel, which a
/// power failure ends anyway. Image records use [`write_durable`].
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary_name(path);
    fs::write(&temporary, bytes)?;
    fs::rename(&temporary, path)
}

/// As [`write_atomic`], and on disk when it returns.
pub(crate) fn write_durable(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary_name(path);
    let mut file = fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    if let Some(parent) = path.parent() {
        fs::File::open(parent)?.sync_all()?;
    }
    Ok(())
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

/// Writes a record as JSON, atomically.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    write_atomic(path, &serde_json::to_vec(value)?)
}

/// Reads a record; `None` when there is none.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Accepts that something is not there (any more).
pub(crate) fn absent_ok(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Names of the entries of a directory; none when it is not there.
pub(crate) fn entries(dir: &Path) -> io::Result<Vec<String>> {
    let listing = match fs::read_dir(dir) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in listing {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// 64 random hex digits.
pub(crate) fn random_id() -> String {
    let mut id = String::with_capacity(64);
    for _ in 0..2 {
        id.push_str(&uuid::Uuid::new_v4().simple().to_string());
    }
    id
}
