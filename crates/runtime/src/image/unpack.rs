//! A layer's tar stream to an overlay directory.
//!
//! Layers come from strangers. Every path is resolved component by component within the layer,
//! links included, so that nothing is ever written outside; `..` and absolute names are taken
//! relative to the layer's root. Directories that a layer merely implies take their attributes
//! from the layers below, because in an overlay the upper directory's attributes win.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{
    FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, lchown, symlink,
};
use std::path::{Component, Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, utimensat};
use tar::EntryType;

const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";
const OPAQUE_ATTRIBUTE: &str = "trusted.overlay.opaque";
/// Links followed while resolving one path.
const MAX_LINKS: usize = 40;

/// Unpacks `stream` into the empty directory `into`; `below` are the lower layers' directories,
/// the topmost first. Answers the bytes of file content.
pub(crate) fn unpack(stream: impl Read, into: &Path, below: &[PathBuf]) -> io::Result<u64> {
    let mut unpacker = Unpacker {
        root: into,
        below,
        size: 0,
        directory_times: Vec::new(),
    };
    let mut archive = tar::Archive::new(stream);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = PathBuf::from(OsString::from_vec(entry.path_bytes().into_owned()));
        unpacker.entry(&mut entry, &name).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("layer entry {}: {error}", name.display()),
            )
        })?;
    }
    // What was written into a directory changed its time; so these come last, deepest first.
    for (path, seconds) in unpacker.directory_times.iter().rev() {
        if path.is_dir() {
            set_time(path, *seconds)?;
        }
    }
    // The padding after the end mark belongs to the digest.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(unpacker.size)
}

struct Unpacker<'a> {
    root: &'a Path,
    below: &'a [PathBuf],
    size: u64,
    directory_times: Vec<(PathBuf, u64)>,
}

/// Components of a name from a stranger: only normal ones; `None` when it climbs out.
fn clean(path: &Path) -> Option<Vec<OsString>> {
    let mut out: Vec<OsString> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => out.push(name.to_owned()),
            Component::ParentDir => {
                out.pop()?;
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Some(out)
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.to_owned())
}

impl Unpacker<'_> {
    fn entry<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, name: &Path) -> io::Result<()> {
        let mut parts = clean(name).ok_or_else(|| invalid("the path leads out of the layer"))?;
        let kind = entry.header().entry_type();
        let Some(last) = parts.pop() else {
            // The root directory itself.
            return if kind.is_dir() {
                self.attributes(entry, self.root)
            } else {
                Ok(())
            };
        };
        if matches!(kind, EntryType::XGlobalHeader | EntryType::XHeader) {
            return Ok(());
        }
        let parent = self.parent(&parts)?;
        if last.as_bytes().starts_with(WHITEOUT.as_bytes()) {
            return whiteout(&parent, &last);
        }
        let path = parent.join(&last);
        match fs::symlink_metadata(&path) {
            Ok(there) if there.is_dir() && kind.is_dir() => {}
            Ok(there) if there.is_dir() => {
                fs::remove_dir_all(&path)?;
                // What stands there from now on may be a link that leads anywhere.
                self.directory_times
                    .retain(|(gone, _)| !gone.starts_with(&path));
            }
            Ok(_) => fs::remove_file(&path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.make(entry, kind, &path)
    }

    fn make<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        kind: EntryType,
        path: &Path,
    ) -> io::Result<()> {
        let bits = Mode::from_bits_truncate(entry.header().mode()? & 0o777);
        match kind {
            EntryType::Directory => {
                if !path.is_dir() {
                    fs::create_dir(path)?;
                }
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let mut file = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(path)?;
                self.size += io::copy(entry, &mut file)?;
                file.flush()?;
            }
            EntryType::Symlink => {
                let target = entry
                    .link_name_bytes()
                    .ok_or_else(|| invalid("a link without a target"))?;
                symlink(OsString::from_vec(target.into_owned()), path)?;
            }
            EntryType::Link => {
                let target = entry
                    .link_name_bytes()
                    .ok_or_else(|| invalid("a link without a target"))?;
                let target = PathBuf::from(OsString::from_vec(target.into_owned()));
                let source = self.hard_link_source(&target)?;
                fs::hard_link(source, path)?;
                // It shares the inode, whose attributes came with its first name.
                return Ok(());
            }
            EntryType::Char | EntryType::Block => {
                let header = entry.header();
                let major = header.device_major()?.unwrap_or(0);
                let minor = header.device_minor()?.unwrap_or(0);
                let flag = if kind == EntryType::Char {
                    SFlag::S_IFCHR
                } else {
                    SFlag::S_IFBLK
                };
                if (major, minor) == (0, 0) && kind == EntryType::Char {
                    return Err(invalid("a device 0:0 would be taken for a whiteout"));
                }
                mknod(path, flag, bits, makedev(major.into(), minor.into()))?;
            }
            EntryType::Fifo => mknod(path, SFlag::S_IFIFO, bits, 0)?,
            other => return Err(invalid(&format!("entry type {other:?} is not supported"))),
        }
        self.attributes(entry, path)
    }

    fn attributes<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        path: &Path,
    ) -> io::Result<()> {
        let mut extended: HashMap<String, Vec<u8>> = HashMap::new();
        if let Some(extensions) = entry.pax_extensions()? {
            for extension in extensions {
                let extension = extension?;
                if let Ok(key) = extension.key()
                    && let Some(name) = key.strip_prefix("SCHILY.xattr.")
                {
                    extended.insert(name.to_owned(), extension.value_bytes().to_vec());
                }
            }
        }
        let header = entry.header();
        let id = |id: u64| u32::try_from(id).map_err(|_| invalid("an owner id is too large"));
        lchown(path, Some(id(header.uid()?)?), Some(id(header.gid()?)?))?;
        let link = header.entry_type().is_symlink();
        if !link {
            // After chown, which clears the set-id bits.
            fs::set_permissions(path, fs::Permissions::from_mode(header.mode()? & 0o7777))?;
        }
        for (name, value) in &extended {
            // The overlay's own attributes would let a layer speak for others.
            if name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.") {
                continue;
            }
            match rustix::fs::lsetxattr(path, name.as_str(), value, XattrFlags::empty()) {
                // user.* on links and file systems without a kind of attribute: as containerd,
                // do without.
                Ok(()) | Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let seconds = header.mtime()?;
        if header.entry_type().is_dir() {
            self.directory_times.push((path.to_path_buf(), seconds));
            Ok(())
        } else {
            set_time(path, seconds)
        }
    }

    /// The real directory for a path's parent parts, made where missing.
    fn parent(&self, parts: &[OsString]) -> io::Result<PathBuf> {
        let mut todo: Vec<OsString> = parts.iter().rev().cloned().collect();
        let mut done = PathBuf::new();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == ".." {
                done.pop();
                continue;
            }
            let place = done.join(&part);
            let here = self.root.join(&place);
            let target = match fs::symlink_metadata(&here) {
                Ok(metadata) if metadata.is_dir() => None,
                Ok(metadata) if metadata.is_symlink() => Some(fs::read_link(&here)?),
                Ok(metadata) if is_whiteout(&metadata) => {
                    // Deleted and made anew by the same layer: nothing below shows through.
                    fs::remove_file(&here)?;
                    fs::create_dir(&here)?;
                    set_opaque(&here)?;
                    None
                }
                Ok(_) => return Err(invalid("a parent of the path is not a directory")),
                Err(error) if error.kind() == io::ErrorKind::NotFound => match self.lower(&place) {
                    Some((path, metadata)) if metadata.is_symlink() => Some(fs::read_link(path)?),
                    Some((path, metadata)) if metadata.is_dir() => {
                        fs::create_dir(&here)?;
                        copy_attributes(&path, &metadata, &here)?;
                        None
                    }
                    _ => {
                        fs::create_dir(&here)?;
                        fs::set_permissions(&here, fs::Permissions::from_mode(0o755))?;
                        None
                    }
                },
                Err(error) => return Err(error),
            };
            match target {
                None => done.push(part),
                Some(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(invalid("too many links in the path"));
                    }
                    if target.is_absolute() {
                        done = PathBuf::new();
                    }
                    for component in target.components().rev() {
                        match component {
                            Component::Normal(name) => todo.push(name.to_owned()),
                            Component::ParentDir => todo.push(OsString::from("..")),
                            _ => {}
                        }
                    }
                }
            }
        }
        Ok(self.root.join(done))
    }

    /// What the layers below show at a path without links among its parents.
    fn lower(&self, place: &Path) -> Option<(PathBuf, Metadata)> {
        for layer in self.below {
            match look(layer, place) {
                Seen::Here(path, metadata) => return Some((path, metadata)),
                Seen::Hidden => return None,
                Seen::Further => {}
            }
        }
        None
    }

    /// The file that a hard link names; copied up when it lies in a layer below.
    fn hard_link_source(&self, target: &Path) -> io::Result<PathBuf> {
        let mut parts = clean(target).ok_or_else(|| invalid("the link leads out of the layer"))?;
        let last = parts
            .pop()
            .ok_or_else(|| invalid("a hard link to the root"))?;
        let source = self.parent(&parts)?.join(&last);
        if fs::symlink_metadata(&source).is_err() {
            let place = source
                .strip_prefix(self.root)
                .unwrap_or(&source)
                .to_path_buf();
            let (path, metadata) = self
                .lower(&place)
                .ok_or_else(|| invalid("the link's target does not exist"))?;
            if !metadata.is_file() {
                return Err(invalid("the link's target is not a regular file"));
            }
            let mut from = File::open(&path)?;
            let mut to = OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&source)?;
            io::copy(&mut from, &mut to)?;
            copy_attributes(&path, &metadata, &source)?;
        }
        Ok(source)
    }
}

/// What one layer says of a path.
enum Seen {
    /// It is there.
    Here(PathBuf, Metadata),
    /// It is not, and layers further down are not asked.
    Hidden,
    /// Layers further down are asked.
    Further,
}

/// Looks for a path in one layer, step by step: a link among its parents would lead out of the
/// layer, to this machine's own files. As in an overlay, whatever is no directory hides all that
/// is below it.
fn look(layer: &Path, place: &Path) -> Seen {
    let mut path = layer.to_path_buf();
    let mut opaque = false;
    let mut components = place.components().peekable();
    while let Some(component) = components.next() {
        path.push(component);
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !opaque => {
                return Seen::Further;
            }
            Err(_) => return Seen::Hidden,
        };
        if is_whiteout(&metadata) {
            return Seen::Hidden;
        }
        if components.peek().is_none() {
            return Seen::Here(path, metadata);
        }
        if !metadata.is_dir() {
            return Seen::Hidden;
        }
        opaque |= is_opaque(&path);
    }
    Seen::Further
}

fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

fn whiteout(parent: &Path, name: &std::ffi::OsStr) -> io::Result<()> {
    if name == OPAQUE {
        return set_opaque(parent);
    }
    let hidden = std::ffi::OsStr::from_bytes(&name.as_bytes()[WHITEOUT.len()..]);
    if hidden.is_empty() || hidden == "." || hidden == ".." || hidden.as_bytes().contains(&b'/') {
        return Err(invalid("the whiteout names nothing"));
    }
    if hidden.as_bytes().starts_with(b".wh.") {
        // Bookkeeping of the AUFS days (`.wh..wh.plnk` …), meaningless here.
        return Ok(());
    }
    let path = parent.join(hidden);
    if let Ok(there) = fs::symlink_metadata(&path) {
        // The whiteout speaks of the layers below; what this layer itself has stays.
        return if there.is_dir() {
            set_opaque(&path)
        } else {
            Ok(())
        };
    }
    Ok(mknod(&path, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))?)
}

fn is_opaque(dir: &Path) -> bool {
    let mut value = [0; 2];
    let length = rustix::fs::lgetxattr(dir, OPAQUE_ATTRIBUTE, &mut value);
    length.is_ok_and(|length| value[..length] == *b"y")
}

fn set_opaque(dir: &Path) -> io::Result<()> {
    Ok(rustix::fs::lsetxattr(
        dir,
        OPAQUE_ATTRIBUTE,
        b"y",
        XattrFlags::empty(),
    )?)
}

fn copy_attributes(from: &Path, metadata: &Metadata, to: &Path) -> io::Result<()> {
    lchown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    let mut value = vec![0; 64 << 10];
    for name in [
        "security.capability",
        "system.posix_acl_access",
        "system.posix_acl_default",
    ] {
        if let Ok(length) = rustix::fs::lgetxattr(from, name, &mut value) {
            rustix::fs::lsetxattr(to, name, &value[..length], XattrFlags::empty())?;
        }
    }
    set_time(to, u64::try_from(metadata.mtime()).unwrap_or(0))
}

fn set_time(path: &Path, seconds: u64) -> io::Result<()> {
    let time = Timespec {
        tv_sec: i64::try_from(seconds).unwrap_or(0),
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
