//! Events as lines of a file that is exchanged when it is full, or of standard output.

use std::cmp::Reverse;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use evenkeel_api::clock::SharedClock;
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use jiff::civil::DateTime;
use parking_lot::Mutex;

/// The time in the name of a file that was full.
const STAMP: &str = "%Y-%m-%dT%H-%M-%S%.3f";

/// When a file is full, and how long full ones are kept.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// Days that full files are kept; 0: for ever.
    pub max_age_days: u32,
    /// So many full files are kept; 0: all.
    pub max_backups: u32,
    /// Megabytes at which a file is full; 0: never.
    pub max_size_mb: u32,
    /// Full files are compressed.
    pub compress: bool,
}

/// Where lines go.
#[derive(Debug)]
pub(super) enum Lines {
    Stdout,
    File(Mutex<Rotating>),
}

impl Lines {
    /// Opens a file, or standard output for `-`. Only the owner may read what is written.
    pub(super) fn open(path: &Path, rotation: Rotation, clock: SharedClock) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Stdout);
        }
        let directory = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        if let Some(directory) = directory {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)?;
        }
        let file = append(path)?;
        let size = file.metadata()?.len();
        let rotating = Rotating {
            path: path.to_owned(),
            file,
            size,
            rotation,
            clock,
        };
        Ok(Self::File(Mutex::new(rotating)))
    }

    /// Writes a line, its end included.
    pub(super) fn write(&self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(line)?;
                out.flush()
            }
            Self::File(file) => file.lock().write(line),
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

/// A file that is exchanged when it is full.
#[derive(Debug)]
pub(super) struct Rotating {
    path: PathBuf,
    file: File,
    size: u64,
    rotation: Rotation,
    clock: SharedClock,
}

impl Rotating {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let most = u64::from(self.rotation.max_size_mb) << 20;
        let length = line.len() as u64;
        if most > 0 {
            if length > most {
                return Err(io::Error::other(format!(
                    "write length {length} exceeds maximum file size {most}"
                )));
            }
            if self.size + length > most {
                self.rotate()?;
            }
        }
        self.file.write_all(line)?;
        self.size += length;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let now = self.clock.now();
        let names = Names::of(&self.path);
        fs::rename(&self.path, names.full(now))?;
        self.file = append(&self.path)?;
        self.size = 0;
        let rotation = self.rotation.clone();
        let tidy = move || {
            if let Err(error) = names.tidy(&rotation, now) {
                tracing::warn!(%error, "old audit logs can't be tidied up");
            }
        };
        // Nobody waits for files to be compressed.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(tidy)),
            Err(_) => tidy(),
        }
        Ok(())
    }
}

/// The names of the files that were full: `NAME-TIME.EXTENSION`, with `.gz` when compressed.
struct Names {
    directory: PathBuf,
    prefix: String,
    extension: String,
}

impl Names {
    fn of(path: &Path) -> Self {
        let text = |part: Option<&std::ffi::OsStr>| {
            part.map(|part| part.to_string_lossy().into_owned())
                .unwrap_or_default()
        };
        let extension = text(path.extension());
        let directory = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        Self {
            directory: directory.map_or_else(|| PathBuf::from("."), Path::to_owned),
            prefix: format!("{}-", text(path.file_stem())),
            extension: if extension.is_empty() {
                String::new()
            } else {
                format!(".{extension}")
            },
        }
    }

    fn full(&self, now: Timestamp) -> PathBuf {
        let stamp = now.strftime(STAMP);
        self.directory
            .join(format!("{}{stamp}{}", self.prefix, self.extension))
    }

    /// When a file was full, and whether it is compressed; `None`: it is none of ours.
    fn read(&self, name: &str) -> Option<(Timestamp, bool)> {
        let rest = name.strip_prefix(self.prefix.as_str())?;
        let (rest, compressed) = match rest.strip_suffix(".gz") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let stamp = rest.strip_suffix(self.extension.as_str())?;
        let at = DateTime::strptime(STAMP, stamp).ok()?;
        let at = at.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
        Some((at, compressed))
    }

    /// Removes what is too old or too many, and compresses the rest if it is to be.
    fn tidy(&self, rotation: &Rotation, now: Timestamp) -> io::Result<()> {
        let mut full = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if let Some((at, compressed)) = self.read(&name.to_string_lossy()) {
                full.push((at, compressed, entry.path()));
            }
        }
        full.sort_by_key(|(at, ..)| Reverse(*at));
        let most = match rotation.max_backups {
            0 => usize::MAX,
            most => most as usize,
        };
        let life = jiff::SignedDuration::from_hours(24 * i64::from(rotation.max_age_days));
        for (place, (at, compressed, path)) in full.into_iter().enumerate() {
            let is_old = rotation.max_age_days > 0 && now.duration_since(at) > life;
            if place >= most || is_old {
                fs::remove_file(&path)?;
            } else if rotation.compress && !compressed {
                compress(&path)?;
            }
        }
        Ok(())
    }
}

fn compress(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    let target = PathBuf::from(name);
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&target)?;
    let mut encoder = GzEncoder::new(file, Compression::default());
    let done = io::copy(&mut File::open(path)?, &mut encoder)
        .and_then(|_| encoder.finish())
        .and_then(|file| file.sync_all());
    match done {
        Ok(()) => fs::remove_file(path),
        Err(error) => {
            // The whole file is still there.
            fs::remove_file(&target)?;
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use evenkeel_api::Clock;

    use super::*;

    #[derive(Debug, Default)]
    struct Steps(AtomicI64);

    impl Clock for Steps {
        fn now(&self) -> Timestamp {
            let day = self.0.fetch_add(1, Ordering::Relaxed);
            Timestamp::from_second(1_700_000_000 + day * 86_400).unwrap()
        }
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn write_days(rotation: Rotation, days: usize) -> (tempfile::TempDir, Vec<String>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("logs/audit.log");
        let clock: SharedClock = Arc::<Steps>::default();
        let lines = Lines::open(&path, rotation, clock).unwrap();
        let line = vec![b'x'; 600 << 10];
        // Two of these are more than a megabyte.
        for _ in 0..=days {
            lines.write(&line).unwrap();
        }
        let found = names(path.parent().unwrap());
        (directory, found)
    }

    #[test]
    fn full_files_are_put_aside_and_the_oldest_go() {
        let rotation = |max_age_days, max_backups| Rotation {
            max_age_days,
            max_backups,
            max_size_mb: 1,
            compress: false,
        };
        let (directory, all) = write_days(rotation(0, 0), 4);
        assert_eq!(all.len(), 5, "{all:?}");
        assert_eq!(all[0], "audit-2023-11-14T22-13-20.000.log");
        assert_eq!(all[4], "audit.log");
        let mode = fs::metadata(directory.path().join("logs/audit.log"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let (_directory, few) = write_days(rotation(0, 2), 4);
        assert_eq!(
            few,
            [
                "audit-2023-11-16T22-13-20.000.log",
                "audit-2023-11-17T22-13-20.000.log",
                "audit.log"
            ]
        );
        let (_directory, young) = write_days(rotation(1, 0), 4);
        assert_eq!(young.len(), 3, "{young:?}");
    }

    #[test]
    fn full_files_are_compressed_if_they_are_to_be() {
        let rotation = Rotation {
            max_age_days: 0,
            max_backups: 0,
            max_size_mb: 1,
            compress: true,
        };
        let (directory, all) = write_days(rotation, 1);
        assert_eq!(all, ["audit-2023-11-14T22-13-20.000.log.gz", "audit.log"]);
        let file = File::open(directory.path().join("logs").join(&all[0])).unwrap();
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(file)
            .read_to_end(&mut plain)
            .unwrap();
        assert_eq!(plain.len(), 600 << 10);
    }

    #[test]
    fn a_line_longer_than_a_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let rotation = Rotation {
            max_age_days: 0,
            max_backups: 0,
            max_size_mb: 1,
            compress: false,
        };
        let path = directory.path().join("audit.log");
        let lines = Lines::open(&path, rotation, Arc::<Steps>::default()).unwrap();
        assert!(lines.write(&vec![b'x'; (1 << 20) + 1]).is_err());
        lines.write(b"short\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"short\n");
    }
}
