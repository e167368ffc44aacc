//! The container's log file in the CRI format, which kubectl, kubelets and log shippers read.
//!
//! `TIMESTAMP STREAM TAG LINE`: the tag is `F` for a line that ended with a newline, `P` for a
//! piece of a longer one (cut at 16 KiB) or for a last line without its newline.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use crate::clock;

/// The longest piece of a line.
const MAX_LINE: usize = 16 << 10;

/// One stream's unfinished line.
#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
}

/// The log writer.
#[derive(Debug)]
pub(super) struct Log {
    path: Option<PathBuf>,
    file: Option<File>,
    pending: [Pending; 2],
    out: Vec<u8>,
}

/// Which stream bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

impl Log {
    /// Opens the file for appending; without a path nothing is kept.
    pub(super) fn open(path: Option<PathBuf>) -> io::Result<Self> {
        let mut log = Self {
            path,
            ..Self::discard()
        };
        log.reopen()?;
        Ok(log)
    }

    /// A log that keeps nothing.
    pub(super) fn discard() -> Self {
        Self {
            path: None,
            file: None,
            pending: Default::default(),
            out: Vec::new(),
        }
    }

    /// Opens the file again under its name, after it was rotated away.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let open = || {
            OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o640)
                .open(path)
        };
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent)?;
                }
                open()?
            }
            other => other?,
        };
        self.file = Some(file);
        Ok(())
    }

    /// Takes what was read from a stream.
    pub(super) fn take(&mut self, stream: Stream, mut bytes: &[u8]) {
        let now = clock::rfc3339(clock::now_ns());
        let index = usize::from(stream == Stream::Stderr);
        while !bytes.is_empty() {
            let room = MAX_LINE - self.pending[index].bytes.len();
            match bytes.iter().take(room + 1).position(|byte| *byte == b'\n') {
                Some(end) => {
                    self.entry(&now, stream, b'F', &bytes[..end]);
                    bytes = &bytes[end + 1..];
                }
                None if bytes.len() > room => {
                    self.entry(&now, stream, b'P', &bytes[..room]);
                    bytes = &bytes[room..];
                }
                None => {
                    self.pending[index].bytes.extend_from_slice(bytes);
                    break;
                }
            }
        }
        self.flush();
    }

    /// The stream ended.
    pub(super) fn end(&mut self, stream: Stream) {
        if !self.pending[usize::from(stream == Stream::Stderr)]
            .bytes
            .is_empty()
        {
            let now = clock::rfc3339(clock::now_ns());
            self.entry(&now, stream, b'P', &[]);
            self.flush();
        }
    }

    fn entry(&mut self, now: &[u8; 30], stream: Stream, tag: u8, rest: &[u8]) {
        let (name, index): (&[u8], usize) = match stream {
            Stream::Stdout => (b" stdout ", 0),
            Stream::Stderr => (b" stderr ", 1),
        };
        self.out.extend_from_slice(now);
        self.out.extend_from_slice(name);
        self.out.push(tag);
        self.out.push(b' ');
        self.out.append(&mut self.pending[index].bytes);
        self.out.extend_from_slice(rest);
        self.out.push(b'\n');
    }

    fn flush(&mut self) {
        if let Some(file) = &mut self.file {
            // A full disk costs log lines, not the container.
            file.write_all(&self.out).ok();
        }
        self.out.clear();
        // Bursts must not make an idle shim large for ever.
        self.out.shrink_to(MAX_LINE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<(String, usize)> {
        let dir = std::env::temp_dir().join(format!("evenkeel-log-{}", crate::files::random_id()));
        let path = dir.join("0.log");
        let mut log = Log::open(Some(path.clone())).expect("opens");
        for chunk in chunks {
            log.take(Stream::Stdout, chunk);
        }
        log.end(Stream::Stdout);
        let text = std::fs::read_to_string(&path).expect("reads");
        std::fs::remove_dir_all(&dir).expect("removes");
        text.lines()
            .map(|line| {
                let mut parts = line.splitn(4, ' ');
                let stamp = parts.next().expect("timestamp");
                assert_eq!((stamp.len(), parts.next()), (30, Some("stdout")));
                let tag = parts.next().expect("tag").to_owned();
                (tag, parts.next().expect("content").len())
            })
            .collect()
    }

    #[test]
    fn lines_end_with_their_newline_wherever_reads_cut_them() {
        assert_eq!(
            lines(&[b"one\ntw", b"o\n", b"\n"]),
            [
                ("F".to_owned(), 3),
                ("F".to_owned(), 3),
                ("F".to_owned(), 0)
            ]
        );
    }

    #[test]
    fn long_lines_are_cut_and_unended_ones_are_partial() {
        let long = vec![b'x'; MAX_LINE * 2 + 5];
        assert_eq!(
            lines(&[&long, b"\nrest"]),
            [
                ("P".to_owned(), MAX_LINE),
                ("P".to_owned(), MAX_LINE),
                ("F".to_owned(), 5),
                ("P".to_owned(), 4)
            ]
        );
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_whole() {
        let mut exact = vec![b'x'; MAX_LINE];
        exact.push(b'\n');
        assert_eq!(lines(&[&exact]), [("F".to_owned(), MAX_LINE)]);
    }
}
