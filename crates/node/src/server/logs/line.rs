//! Lines of the CRI log format: `2026-01-02T03:04:05.678901234Z stdout F text`.
//!
//! The tag `P` marks a piece of a line that goes on in the next entry of the same stream, `F` the
//! last piece. Pieces are joined again for the client.

use jiff::Timestamp;

use super::options::LogOptions;

/// Longest start of an entry that its tag can lie in, bytes.
pub(super) const HEAD: usize = 64;
/// How long a time is, bytes: seconds without an offset, nanoseconds with one. A longer one would reach
/// beyond the head, where who looks for the last lines does not see it.
const TIMES: std::ops::RangeInclusive<usize> = 20..=35;
/// Pieces of one line held back at most, bytes; longer ones go out unfinished.
const MAX_PENDING: usize = 256 * 1024;

/// Where a line was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogStream {
    Stdout,
    Stderr,
}

/// One entry of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogEntry<'a> {
    /// RFC 3339 with nanoseconds, as written.
    pub(crate) time: &'a str,
    pub(crate) stream: LogStream,
    /// The line goes on in a later entry.
    pub(crate) partial: bool,
    pub(crate) text: &'a [u8],
}

/// Reads an entry without its newline; `None` when it is none.
pub(crate) fn parse(line: &[u8]) -> Option<LogEntry<'_>> {
    let (time, rest) = split(line)?;
    let time = std::str::from_utf8(time)
        .ok()
        .filter(|time| TIMES.contains(&time.len()))?;
    let (stream, rest) = split(rest)?;
    let stream = match stream {
        b"stdout" => LogStream::Stdout,
        b"stderr" => LogStream::Stderr,
        _ => return None,
    };
    // An empty line may have been written without the space after its tag.
    let (tags, text) = split(rest).unwrap_or((rest, b""));
    let partial = match tags.split(|&byte| byte == b':').next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    Some(LogEntry {
        time,
        stream,
        partial,
        text,
    })
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|&byte| byte == b' ')?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// Turns entries into what the client sees.
#[derive(Debug)]
pub(super) struct Renderer {
    timestamps: bool,
    since: Option<Timestamp>,
    stream: Option<LogStream>,
    left: Option<u64>,
    lines: [Line; 2],
}

/// A line of one stream that is not finished.
#[derive(Debug, Default)]
struct Line {
    /// Its time was written already.
    begun: bool,
    pending: Vec<u8>,
}

impl Renderer {
    pub(super) fn new(options: &LogOptions) -> Self {
        Self {
            timestamps: options.timestamps,
            since: options.since,
            stream: options.stream,
            left: options.limit,
            lines: [Line::default(), Line::default()],
        }
    }

    /// Adds an entry's text to `out`; false once the byte limit is reached.
    pub(super) fn render(&mut self, raw: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(entry) = parse(raw) else {
            if !raw.is_empty() {
                tracing::debug!("skipping a line that is not in the CRI log format");
            }
            return true;
        };
        if self.stream.is_some_and(|stream| stream != entry.stream) || self.too_old(&entry) {
            return true;
        }
        let line = &mut self.lines[entry.stream as usize];
        if self.timestamps && !line.begun {
            line.pending.extend_from_slice(entry.time.as_bytes());
            line.pending.push(b' ');
        }
        line.begun = entry.partial;
        line.pending.extend_from_slice(entry.text);
        if !entry.partial {
            line.pending.push(b'\n');
        } else if line.pending.len() < MAX_PENDING {
            return true;
        }
        let text = std::mem::take(&mut line.pending);
        self.put(&text, out)
    }

    /// Adds the unfinished lines to `out`, when nothing more comes for now.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) -> bool {
        for at in 0..self.lines.len() {
            let text = std::mem::take(&mut self.lines[at].pending);
            if !self.put(&text, out) {
                return false;
            }
        }
        true
    }

    fn put(&mut self, text: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(left) = &mut self.left else {
            out.extend_from_slice(text);
            return true;
        };
        let fits = usize::try_from(*left).unwrap_or(usize::MAX).min(text.len());
        out.extend_from_slice(&text[..fits]);
        *left -= fits as u64;
        *left > 0
    }

    fn too_old(&mut self, entry: &LogEntry<'_>) -> bool {
        let Some(since) = self.since else {
            return false;
        };
        if entry
            .time
            .parse::<Timestamp>()
            .is_ok_and(|time| time < since)
        {
            return true;
        }
        // Times do not go back in a log: from here on everything is wanted.
        self.since = None;
        false
    }
}
