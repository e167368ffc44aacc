//! Copies a directory with everything in it: by reflinks where the file system has them, else what
//! is there.
//!
//! Whoever writes to the source may be at work, and may be hostile: every step goes from an open
//! directory to a name in it and follows no link, so that a name that becomes a link in between
//! leads nowhere. Passes are made until one finds that nothing has changed since it was copied;
//! then the copy is what the source was at one moment. A source that never holds still is told.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid,
    XattrFlags,
};
use rustix::io::Errno;

/// Passes that are made before a source counts as one that does not hold still.
const PASSES: usize = 6;
/// Directories in directories. Each level holds two descriptors.
const DEPTH: usize = 256;
/// Bytes copied between two looks at whether to stop.
const CHUNK: usize = 1 << 20;
/// Two changes within this time may bear the same time: the kernel's clock for files is coarse.
const TICK: i128 = 20_000_000;

/// What a copy came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// The source held still: the copy is what it was at one moment.
    pub still: bool,
    /// Bytes of regular files.
    pub bytes: u64,
}

/// What a name was when it was copied. Another value is another state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    changed: i128,
    size: i64,
}

fn changed(stat: &Stat) -> i128 {
    i128::from(stat.st_ctime) * 1_000_000_000 + i128::from(stat.st_ctime_nsec)
}

impl Stamp {
    fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            changed: changed(stat),
            size: stat.st_size,
        }
    }

    /// One that nothing equals: it has been changed so lately that the next change may not show.
    fn unless_fresh(stat: &Stat, now: i128) -> Self {
        let mut stamp = Self::of(stat);
        if now - stamp.changed < TICK {
            stamp.changed = -1;
        }
        stamp
    }
}

struct Copy<'a> {
    stop: &'a AtomicBool,
    device: u64,
    /// What has been copied, by its path below the source.
    known: BTreeMap<PathBuf, Stamp>,
    /// Where a file with several names lies in the copy.
    links: HashMap<u64, PathBuf>,
    changes: usize,
    bytes: u64,
    target: PathBuf,
}

fn told(path: &Path, error: Errno) -> String {
    format!("{}: {}", path.display(), io::Error::from(error))
}

/// Copies what is in `source` into `target`, which is made and must not be there. `target` is
/// nothing until this has returned: whoever calls gives it its name then.
///
/// # Errors
/// What failed, with the path; that it was stopped.
pub fn copy_tree(
    source: &Path,
    target: &Path,
    prepare: impl FnOnce(&Path) -> Result<(), String>,
    stop: &AtomicBool,
) -> Result<Copied, String> {
    let open = |path: &Path| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).map_err(|error| told(path, error))
    };
    let from = open(source)?;
    // What programs have not handed over yet is nobody's state; what they have is made to last.
    rustix::fs::syncfs(&from).map_err(|error| told(source, error))?;
    std::fs::create_dir(target).map_err(|error| format!("{}: {error}", target.display()))?;
    prepare(target)?;
    let into = open(target)?;
    let stat = rustix::fs::fstat(&from).map_err(|error| told(source, error))?;
    let mut copy = Copy {
        stop,
        device: stat.st_dev,
        known: BTreeMap::new(),
        links: HashMap::new(),
        changes: 0,
        bytes: 0,
        target: target.to_owned(),
    };
    let mut still = false;
    for pass in 0..PASSES {
        if pass > 0 {
            // Beyond the tick of the kernel's clock, so that a write since then bears another time.
            std::thread::sleep(Duration::from_millis(25));
        }
        copy.changes = 0;
        copy.bytes = 0;
        copy.directory(&from, &into, Path::new(""), 0)
            .map_err(|why| format!("{}: {why}", source.display()))?;
        if copy.changes == 0 {
            still = true;
            break;
        }
    }
    rustix::fs::syncfs(&into).map_err(|error| told(target, error))?;
    Ok(Copied {
        still,
        bytes: copy.bytes,
    })
}

fn named(name: &CStr) -> &OsStr {
    OsStr::from_bytes(name.to_bytes())
}

/// Gone between two steps: whoever writes has taken it away.
fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::LOOP | Errno::NOTDIR)
}

impl Copy<'_> {
    fn go_on(&self) -> Result<(), String> {
        if self.stop.load(Ordering::Relaxed) {
            return Err("the copy was given up: what it was for is gone".to_owned());
        }
        Ok(())
    }

    /// One directory, and all below it.
    fn directory(
        &mut self,
        from: &OwnedFd,
        into: &OwnedFd,
        below: &Path,
        depth: usize,
    ) -> Result<(), String> {
        let failed = |error| told(below, error);
        if depth > DEPTH {
            return Err(format!("{}: nested too deeply", below.display()));
        }
        let before = rustix::fs::fstat(from).map_err(failed)?;
        let mut names = BTreeSet::new();
        for entry in Dir::read_from(from).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.insert(entry.file_name().to_owned());
            }
        }
        self.forget(into, &names, below)?;
        for name in &names {
            self.go_on()?;
            let path = below.join(named(name));
            self.entry(from, into, name, &path, depth)?;
        }
        let stamp = Stamp::of(&before);
        if self.known.get(below) != Some(&stamp) {
            self.changes += 1;
            metadata(from.as_fd(), into.as_fd(), &before).map_err(failed)?;
            self.known.insert(below.to_owned(), stamp);
        }
        // What was made in the copy has moved its times.
        rustix::fs::futimens(into, &times(&before)).map_err(failed)
    }

    /// Removes from the copy what the source no longer has.
    fn forget(
        &mut self,
        into: &OwnedFd,
        names: &BTreeSet<CString>,
        below: &Path,
    ) -> Result<(), String> {
        let failed = |error| told(below, error);
        let mut gone = Vec::new();
        for entry in Dir::read_from(into).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") && !names.contains(name) {
                gone.push(name.to_owned());
            }
        }
        for name in gone {
            self.changes += 1;
            self.remove(into, &name, &below.join(named(&name)))?;
        }
        Ok(())
    }

    fn remove(&mut self, into: &OwnedFd, name: &CStr, path: &Path) -> Result<(), String> {
        let at = self.target.join(path);
        let removed = match rustix::fs::statat(into, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(told(path, error)),
            // The copy is below a directory of the agent alone: nobody exchanges names in it.
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => {
                std::fs::remove_dir_all(&at)
            }
            Ok(_) => std::fs::remove_file(&at),
        };
        self.known.retain(|known, _| !known.starts_with(path));
        self.links.retain(|_, link| !link.starts_with(path));
        removed.map_err(|error| format!("{}: {error}", at.display()))
    }

    fn entry(
        &mut self,
        from: &OwnedFd,
        into: &OwnedFd,
        name: &CStr,
        path: &Path,
        depth: usize,
    ) -> Result<(), String> {
        let failed = |error| told(path, error);
        let stat = match rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(error) if is_gone(error) => {
                self.changes += 1;
                return Ok(());
            }
            Err(error) => return Err(failed(error)),
        };
        // Another file system is mounted there: it is not the volume's.
        if stat.st_dev != self.device {
            return Ok(());
        }
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind.is_dir() {
            return self.below(from, into, name, path, depth);
        }
        if kind.is_file() {
            self.bytes += u64::try_from(stat.st_size).unwrap_or(0);
        }
        if self.known.get(path) == Some(&Stamp::of(&stat)) {
            return Ok(());
        }
        self.changes += 1;
        self.remove(into, name, path)?;
        let link = (stat.st_nlink > 1)
            .then(|| self.links.get(&stat.st_ino).cloned())
            .flatten();
        if let Some(first) = link.filter(|first| first != path) {
            // If the other name is copied once more, so is this one.
            let stamp = self.known.get(&first).copied();
            let first = self.target.join(first);
            rustix::fs::linkat(rustix::fs::CWD, &first, into, name, AtFlags::empty())
                .map_err(failed)?;
            let stamp = stamp.unwrap_or_else(|| Stamp::of(&stat));
            self.known.insert(path.to_owned(), stamp);
            return Ok(());
        }
        let stamp = match self.leaf(from, into, name, &stat, kind) {
            Ok(stamp) => stamp,
            Err(Leaf::Gone) => return Ok(()),
            Err(Leaf::Stopped(why)) => return Err(why),
            Err(Leaf::Failed(error)) => return Err(failed(error)),
        };
        if stat.st_nlink > 1 {
            self.links.insert(stat.st_ino, path.to_owned());
        }
        self.known.insert(path.to_owned(), stamp);
        Ok(())
    }

    fn below(
        &mut self,
        from: &OwnedFd,
        into: &OwnedFd,
        name: &CStr,
        path: &Path,
        depth: usize,
    ) -> Result<(), String> {
        let failed = |error| told(path, error);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let inner = match rustix::fs::openat(from, name, flags, Mode::empty()) {
            Ok(inner) => inner,
            Err(error) if is_gone(error) => {
                self.changes += 1;
                return Ok(());
            }
            Err(error) => return Err(failed(error)),
        };
        let is_dir = |stat: Stat| FileType::from_raw_mode(stat.st_mode).is_dir();
        match rustix::fs::statat(into, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_dir(stat) => {}
            Ok(_) => self.remove(into, name, path)?,
            Err(_) => {}
        }
        match rustix::fs::mkdirat(into, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed(error)),
        }
        let outer = rustix::fs::openat(into, name, flags, Mode::empty()).map_err(failed)?;
        self.directory(&inner, &outer, path, depth + 1)
    }

    /// Anything that is no directory. The stamp is what it was before it was read.
    fn leaf(
        &self,
        from: &OwnedFd,
        into: &OwnedFd,
        name: &CStr,
        stat: &Stat,
        kind: FileType,
    ) -> Result<Stamp, Leaf> {
        if kind.is_file() {
            return self.file(from, into, name);
        }
        if kind.is_symlink() {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(target.as_c_str(), into, name)?;
        } else {
            let mode = Mode::from_raw_mode(stat.st_mode);
            rustix::fs::mknodat(into, name, kind, mode, stat.st_rdev)?;
        }
        let (user, group) = owner(stat);
        rustix::fs::chownat(into, name, user, group, AtFlags::SYMLINK_NOFOLLOW)?;
        if !kind.is_symlink() {
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
            rustix::fs::chmodat(into, name, mode, AtFlags::empty())?;
        }
        rustix::fs::utimensat(into, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(Stamp::of(stat))
    }

    fn file(&self, from: &OwnedFd, into: &OwnedFd, name: &CStr) -> Result<Stamp, Leaf> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let target = rustix::fs::openat(into, name, flags, Mode::RUSR | Mode::WUSR)?;
        let before = rustix::fs::fstat(&source)?;
        if !FileType::from_raw_mode(before.st_mode).is_file() {
            return Err(Leaf::Gone);
        }
        // The file just made tells what time it is for files.
        let now = changed(&rustix::fs::fstat(&target)?);
        if rustix::fs::ioctl_ficlone(&target, &source).is_err() {
            self.content(&source, &target, &before)?;
        }
        metadata(source.as_fd(), target.as_fd(), &before)?;
        Ok(Stamp::unless_fresh(&before, now))
    }

    /// The bytes, without those that were never written.
    fn content(&self, source: &OwnedFd, target: &OwnedFd, stat: &Stat) -> Result<(), Leaf> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        rustix::fs::ftruncate(target, size)?;
        let mut reader = File::from(source.try_clone().map_err(Leaf::of)?);
        let mut writer = File::from(target.try_clone().map_err(Leaf::of)?);
        let mut at = 0;
        let mut buffer = vec![0; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK).max(1))];
        while at < size {
            let start = match rustix::fs::seek(source, SeekFrom::Data(at)) {
                Ok(start) => start,
                // Nothing but a hole is left.
                Err(Errno::NXIO) => break,
                Err(Errno::INVAL) => at,
                Err(error) => return Err(error.into()),
            };
            let hole = rustix::fs::seek(source, SeekFrom::Hole(start)).unwrap_or(size);
            let end = hole.min(size);
            rustix::fs::seek(source, SeekFrom::Start(start))?;
            rustix::fs::seek(target, SeekFrom::Start(start))?;
            at = start;
            while at < end {
                self.go_on().map_err(Leaf::Stopped)?;
                let want = usize::try_from(end - at).unwrap_or(CHUNK).min(buffer.len());
                let got = reader.read(&mut buffer[..want]).map_err(Leaf::of)?;
                if got == 0 {
                    // Made shorter meanwhile; the next pass sees that.
                    return Ok(());
                }
                writer.write_all(&buffer[..got]).map_err(Leaf::of)?;
                at += u64::try_from(got).unwrap_or(0);
            }
        }
        Ok(())
    }
}

/// Why a file was not copied.
enum Leaf {
    /// It is not there any more.
    Gone,
    Stopped(String),
    Failed(Errno),
}

impl Leaf {
    #[allow(clippy::needless_pass_by_value, reason = "it is what map_err hands on")]
    fn of(error: io::Error) -> Self {
        Errno::from_io_error(&error).map_or(Self::Failed(Errno::IO), Self::Failed)
    }
}

impl From<Errno> for Leaf {
    fn from(error: Errno) -> Self {
        if is_gone(error) {
            Self::Gone
        } else {
            Self::Failed(error)
        }
    }
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// Owner, extended attributes (access lists and capabilities are such), mode, times.
fn metadata(
    from: std::os::fd::BorrowedFd<'_>,
    into: std::os::fd::BorrowedFd<'_>,
    stat: &Stat,
) -> Result<(), Errno> {
    let (user, group) = owner(stat);
    rustix::fs::fchown(into, user, group)?;
    for (name, value) in attributes(from)? {
        match rustix::fs::fsetxattr(into, name.as_c_str(), &value, XattrFlags::empty()) {
            // Labels that the system sets by itself may be refused.
            Ok(()) | Err(Errno::PERM | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    rustix::fs::fchmod(into, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    rustix::fs::futimens(into, &times(stat))
}

fn attributes(of: std::os::fd::BorrowedFd<'_>) -> Result<Vec<(CString, Vec<u8>)>, Errno> {
    let mut list = vec![0_u8; 64 << 10];
    let length = match rustix::fs::flistxattr(of, list.as_mut_slice()) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for name in list[..length].split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        let mut value = vec![0_u8; 64 << 10];
        match rustix::fs::fgetxattr(of, name, value.as_mut_slice()) {
            Ok(length) => {
                value.truncate(length);
                found.push((name.to_owned(), value));
            }
            // Taken away meanwhile.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    fn copy(source: &Path, target: &Path) -> Result<Copied, String> {
        copy_tree(source, target, |_| Ok(()), &AtomicBool::new(false))
    }

    #[test]
    fn everything_that_a_directory_holds_is_in_its_copy() {
        let home = tempfile::tempdir().expect("a directory");
        let (from, into) = (home.path().join("from"), home.path().join("into"));
        fs::create_dir_all(from.join("a/b")).expect("directories");
        fs::write(from.join("a/b/file"), "words").expect("a file");
        fs::write(from.join("once"), "twice").expect("a file");
        fs::hard_link(from.join("once"), from.join("a/again")).expect("a link");
        symlink("/etc/passwd", from.join("link")).expect("a link");
        let sparse = fs::File::create(from.join("sparse")).expect("a file");
        sparse.set_len(64 << 20).expect("a length");
        fs::set_permissions(from.join("a/b"), fs::Permissions::from_mode(0o2750)).expect("a mode");
        fs::set_permissions(from.join("once"), fs::Permissions::from_mode(0o4711)).expect("a mode");
        let fifo = rustix::fs::mknodat(
            rustix::fs::CWD,
            from.join("fifo"),
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        );
        fifo.expect("a pipe");
        let copied = copy(&from, &into).expect("a copy");
        assert!(copied.still);
        assert_eq!(
            fs::read_to_string(into.join("a/b/file")).expect("it is there"),
            "words"
        );
        let stat = |path: &str| fs::symlink_metadata(into.join(path)).expect("it is there");
        assert_eq!(stat("once").ino(), stat("a/again").ino());
        assert_eq!(stat("once").mode() & 0o7777, 0o4711);
        assert_eq!(stat("a/b").mode() & 0o7777, 0o2750);
        assert!(stat("sparse").len() == 64 << 20 && stat("sparse").blocks() < 4096);
        assert_eq!(
            fs::read_link(into.join("link")).expect("a link"),
            Path::new("/etc/passwd")
        );
        let old = fs::metadata(from.join("a/b/file")).expect("it is there");
        assert_eq!(
            (old.mtime(), old.mtime_nsec()),
            (stat("a/b/file").mtime(), stat("a/b/file").mtime_nsec())
        );
        // What one of them does is nothing to the other.
        fs::write(from.join("a/b/file"), "other").expect("a file");
        assert_eq!(
            fs::read_to_string(into.join("a/b/file")).expect("it is there"),
            "words"
        );
    }

    #[test]
    fn a_change_too_young_to_tell_from_the_next_is_copied_again() {
        let home = tempfile::tempdir().expect("a directory");
        let stat = rustix::fs::stat(home.path()).expect("it is there");
        let at = changed(&stat);
        assert_ne!(Stamp::unless_fresh(&stat, at + 1), Stamp::of(&stat));
        assert_eq!(Stamp::unless_fresh(&stat, at + TICK), Stamp::of(&stat));
    }

    #[test]
    fn a_copy_that_is_stopped_says_so() {
        let home = tempfile::tempdir().expect("a directory");
        let from = home.path().join("from");
        fs::create_dir(&from).expect("a directory");
        fs::write(from.join("file"), "x").expect("a file");
        let stop = AtomicBool::new(true);
        let why = copy_tree(&from, &home.path().join("into"), |_| Ok(()), &stop);
        assert!(why.expect_err("stopped").contains("given up"));
    }

    #[test]
    fn a_source_that_changes_all_the_time_is_copied_and_told() {
        let home = tempfile::tempdir().expect("a directory");
        let (from, into) = (home.path().join("from"), home.path().join("into"));
        fs::create_dir(&from).expect("a directory");
        fs::write(from.join("file"), "x").expect("a file");
        let done = std::sync::Arc::new(AtomicBool::new(false));
        let writer = {
            let (done, file) = (std::sync::Arc::clone(&done), from.join("file"));
            std::thread::spawn(move || {
                let mut text = String::new();
                while !done.load(Ordering::Relaxed) {
                    text.push('x');
                    text.truncate(1 << 10);
                    fs::write(&file, &text).expect("a file");
                }
            })
        };
        let copied = copy(&from, &into).expect("a copy");
        done.store(true, Ordering::Relaxed);
        writer.join().expect("it ends");
        assert!(into.join("file").exists());
        assert!(copied.bytes <= 1 << 10);
    }

    #[test]
    fn names_that_come_and_go_between_passes_come_and_go_in_the_copy() {
        let home = tempfile::tempdir().expect("a directory");
        let (from, into) = (home.path().join("from"), home.path().join("into"));
        fs::create_dir_all(from.join("dir")).expect("a directory");
        fs::write(from.join("dir/old"), "x").expect("a file");
        // Between the preparation and the first pass there is nothing to see; between the first
        // and the second the source is another one.
        let changer = {
            let (from, into) = (from.clone(), into.clone());
            std::thread::spawn(move || {
                while !into.join("dir/old").exists() {
                    std::thread::yield_now();
                }
                fs::remove_dir_all(from.join("dir")).expect("it goes");
                fs::write(from.join("dir"), "a file now").expect("a file");
            })
        };
        let copied = copy(&from, &into).expect("a copy");
        changer.join().expect("it ends");
        if copied.still {
            let same = |path: &Path| fs::read_to_string(path).ok();
            // It was copied before the change, or after; never a mixture.
            assert!(
                same(&into.join("dir")).as_deref() == Some("a file now")
                    || same(&into.join("dir/old")).as_deref() == Some("x")
            );
        }
    }
}
