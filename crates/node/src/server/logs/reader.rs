//! Reads a log file in bounded steps. Blocking: runs on blocking threads only.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::line::Renderer;
use super::options::LogOptions;
use super::tail;

const CHUNK: usize = 64 * 1024;

/// How far a step came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Step {
    /// There may be more at once.
    More,
    /// All that is written was read.
    End,
    /// The byte limit is reached.
    Limit,
}

/// A log being read.
#[derive(Debug)]
pub(in crate::server) struct LogReader {
    path: PathBuf,
    file: File,
    inode: u64,
    position: u64,
    /// The start of a line whose end is not written yet.
    rest: Vec<u8>,
    renderer: Renderer,
    /// A new file stands in our path; ours is read to its end once more, then left.
    replaced: bool,
}

impl LogReader {
    /// Opens the log where the wanted lines begin.
    pub(in crate::server) fn open(path: &Path, options: &LogOptions) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        let position = match options.tail {
            Some(lines) => tail::offset(&file, metadata.len(), lines, options.stream)?,
            None => 0,
        };
        file.seek(SeekFrom::Start(position))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            inode: metadata.ino(),
            position,
            rest: Vec::new(),
            renderer: Renderer::new(options),
            replaced: false,
        })
    }

    /// Reads a chunk and appends what the client sees of it.
    pub(in crate::server) fn step(&mut self, out: &mut Vec<u8>) -> io::Result<Step> {
        let kept = self.rest.len();
        let chunk = u64::try_from(CHUNK).unwrap_or(u64::MAX);
        let read = (&mut self.file).take(chunk).read_to_end(&mut self.rest)?;
        self.position += read as u64;
        let mut from = 0;
        let mut search = kept;
        while let Some(at) = self.rest[search..].iter().position(|&byte| byte == b'\n') {
            let end = search + at;
            if !self.renderer.render(&self.rest[from..end], out) {
                return Ok(Step::Limit);
            }
            from = end + 1;
            search = from;
        }
        self.rest.drain(..from);
        if read == CHUNK {
            return Ok(Step::More);
        }
        if !self.renderer.flush(out) {
            return Ok(Step::Limit);
        }
        Ok(Step::End)
    }

    /// After [`Step::End`], when following: goes over to the file that replaced this one, or back
    /// to the start of one that was cut. True when there is something to read.
    pub(super) fn advance(&mut self) -> io::Result<bool> {
        if self.replaced {
            let file = match File::open(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                file => file?,
            };
            self.inode = file.metadata()?.ino();
            self.file = file;
            self.position = 0;
            self.rest.clear();
            self.replaced = false;
            return Ok(true);
        }
        match std::fs::metadata(&self.path) {
            Ok(metadata) if metadata.ino() != self.inode => {
                self.replaced = true;
                Ok(true)
            }
            Ok(metadata) if metadata.len() < self.position => {
                self.position = 0;
                self.rest.clear();
                self.file.rewind()?;
                Ok(true)
            }
            Ok(_) => Ok(false),
            // Between rename and reopen there is no file; its creation wakes us.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}
