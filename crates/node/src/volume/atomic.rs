//! Writes a set of files so that readers see all of the old or all of the new ones, with the
//! layout of kubelet's atomic writer: `..data` leads to a directory named after the time, and
//! every visible name leads through `..data`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

/// The link that is switched.
const DATA: &str = "..data";
/// Its name before it takes the place of the old one.
const DATA_TMP: &str = "..data_tmp";

/// A file to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Relative to the volume.
    pub path: String,
    /// Content.
    pub data: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Owner; root when `None`.
    pub user: Option<u32>,
}

/// Writes the files into `target`, which exists. Nothing is touched when nothing changed.
///
/// # Errors
/// What failed, with the path.
pub fn write(target: &Path, files: &[FileEntry], group: Option<u32>) -> Result<(), String> {
    for file in files {
        validate(&file.path)?;
    }
    let old = fs::read_link(target.join(DATA)).ok();
    if let Some(old) = &old
        && unchanged(&target.join(old), files)
    {
        return Ok(());
    }
    let name = new_name(target)?;
    let dir = target.join(&name);
    fs::create_dir(&dir).map_err(|error| text(&dir, &error))?;
    set_mode(&dir, 0o755)?;
    for file in files {
        write_file(&dir, file)?;
    }
    if let Some(group) = group {
        give_to_group(&dir, group)?;
    }
    let tmp = target.join(DATA_TMP);
    remove_if_there(&tmp)?;
    symlink(&name, &tmp).map_err(|error| text(&tmp, &error))?;
    let data = target.join(DATA);
    fs::rename(&tmp, &data).map_err(|error| text(&data, &error))?;
    link_names(target, files)?;
    if let Some(old) = old {
        let old = target.join(old);
        fs::remove_dir_all(&old)
            .or_else(not_there)
            .map_err(|error| text(&old, &error))?;
    }
    Ok(())
}

fn validate(path: &str) -> Result<(), String> {
    let bad = path.is_empty()
        || path.len() > 4096
        || path.starts_with("..")
        || !Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
    if bad {
        Err(format!("invalid path: {path:?}"))
    } else {
        Ok(())
    }
}

fn unchanged(dir: &Path, files: &[FileEntry]) -> bool {
    let mut have = BTreeSet::new();
    if walk(dir, Path::new(""), &mut have).is_err() || have.len() != files.len() {
        return false;
    }
    files.iter().all(|file| {
        have.contains(Path::new(&file.path))
            && fs::read(dir.join(&file.path)).is_ok_and(|data| data == file.data)
    })
}

fn walk(root: &Path, below: &Path, out: &mut BTreeSet<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            walk(root, &path, out)?;
        } else {
            out.insert(path);
        }
    }
    Ok(())
}

/// `..2026_11_21_05_40_00.123456789`: counts up so that two writes never meet.
fn new_name(target: &Path) -> Result<OsString, String> {
    for serial in 0_u32..1000 {
        let name = format!("..{}_{serial}", uuid::Uuid::new_v4().simple());
        if !target.join(&name).exists() {
            return Ok(name.into());
        }
    }
    Err(format!("no free name in {}", target.display()))
}

fn write_file(dir: &Path, file: &FileEntry) -> Result<(), String> {
    let path = dir.join(&file.path);
    if let Some(parent) = Path::new(&file.path).parent() {
        let mut at = dir.to_owned();
        for part in parent.components() {
            at.push(part);
            match fs::create_dir(&at) {
                Ok(()) => set_mode(&at, 0o755)?,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(text(&at, &error)),
            }
        }
    }
    let mut handle = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| text(&path, &error))?;
    handle
        .write_all(&file.data)
        .map_err(|error| text(&path, &error))?;
    // Set after creation: the process's umask must not decide.
    set_mode(&path, file.mode)?;
    if let Some(user) = file.user {
        chown(&path, Some(user), None).map_err(|error| text(&path, &error))?;
    }
    Ok(())
}

/// Group ownership and the rights of the group, as kubelet sets them for `fsGroup`.
pub(super) fn give_to_group(path: &Path, group: u32) -> Result<(), String> {
    let meta = fs::symlink_metadata(path).map_err(|error| text(path, &error))?;
    if meta.file_type().is_symlink() {
        return Ok(());
    }
    chown(path, None, Some(group)).map_err(|error| text(path, &error))?;
    let mode = meta.permissions().mode() & 0o7777;
    if meta.is_dir() {
        set_mode(path, mode | 0o2770)?;
        for entry in fs::read_dir(path).map_err(|error| text(path, &error))? {
            give_to_group(&entry.map_err(|error| text(path, &error))?.path(), group)?;
        }
        return Ok(());
    }
    set_mode(path, mode | 0o440)
}

fn link_names(target: &Path, files: &[FileEntry]) -> Result<(), String> {
    let wanted: BTreeSet<&str> = files
        .iter()
        .filter_map(|file| file.path.split('/').next())
        .collect();
    for name in &wanted {
        let link = target.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link).map_err(|error| text(&link, &error))?;
        }
    }
    for entry in fs::read_dir(target).map_err(|error| text(target, &error))? {
        let entry = entry.map_err(|error| text(target, &error))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !wanted.contains(name.as_ref()) {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> Result<(), String> {
    fs::remove_file(path)
        .or_else(not_there)
        .map_err(|error| text(path, &error))
}

fn not_there(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == ErrorKind::NotFound {
        Ok(())
    } else {
        Err(error)
    }
}

pub(super) fn set_mode(path: &Path, mode: u32) -> Result<(), String> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|error| text(path, &error))
}

pub(crate) fn text(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}
