//! `hostPath`: the check of what is there, and making it where the type asks for that.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::atomic::{set_mode, text};
use super::release::make_dir;

/// Checks a host path against its type.
///
/// # Errors
/// kubelet's text for what is not as it should be.
pub fn check(path: &Path, type_: &str) -> Result<(), String> {
    let shown = path.display();
    let meta = fs::metadata(path).ok();
    let failed = |what: &str| Err(format!("hostPath type check failed: {shown} is not {what}"));
    match type_ {
        "" => match meta {
            Some(_) => Ok(()),
            // Without a type nothing is checked, and what is missing becomes a directory when it
            // is mounted.
            None => make_dir(path, 0o755),
        },
        "DirectoryOrCreate" => match meta {
            Some(meta) if meta.is_dir() => Ok(()),
            Some(_) => failed("a directory"),
            None => make_dir(path, 0o755),
        },
        "Directory" if meta.as_ref().is_some_and(fs::Metadata::is_dir) => Ok(()),
        "Directory" => failed("a directory"),
        "FileOrCreate" => match meta {
            Some(meta) if meta.is_file() => Ok(()),
            Some(_) => failed("a file"),
            None => {
                fs::File::create(path).map_err(|error| text(path, &error))?;
                set_mode(path, 0o644)
            }
        },
        "File" if meta.as_ref().is_some_and(fs::Metadata::is_file) => Ok(()),
        "File" => failed("a file"),
        "Socket" if meta.as_ref().is_some_and(|m| m.file_type().is_socket()) => Ok(()),
        "Socket" => failed("a socket file"),
        "CharDevice"
            if meta
                .as_ref()
                .is_some_and(|m| m.file_type().is_char_device()) =>
        {
            Ok(())
        }
        "CharDevice" => failed("a character device"),
        "BlockDevice"
            if meta
                .as_ref()
                .is_some_and(|m| m.file_type().is_block_device()) =>
        {
            Ok(())
        }
        "BlockDevice" => failed("a block device"),
        other => Err(format!("{other} is an invalid volume type")),
    }
}
