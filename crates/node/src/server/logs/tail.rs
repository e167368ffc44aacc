//! Finds where the last lines of a log begin, from its end, in blocks.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::line::{HEAD, LogStream, parse};

const BLOCK: u64 = 64 * 1024;

/// The offset at which the last `lines` lines begin (of one stream, if given). A line in several
/// pieces counts once. The cost grows with the bytes of those lines, not with the file.
pub(super) fn offset(
    file: &File,
    size: u64,
    lines: u64,
    stream: Option<LogStream>,
) -> io::Result<u64> {
    if lines == 0 {
        return Ok(size);
    }
    let mut count = Count {
        wanted: lines,
        seen: 0,
        start: size,
        stream,
    };
    // The first bytes of the entry that the block before ends in.
    let mut carry: Vec<u8> = Vec::new();
    let mut position = size;
    let mut block = Vec::new();
    while position > 0 {
        let length = position.min(BLOCK);
        position -= length;
        block.resize(usize::try_from(length).unwrap_or(0), 0);
        file.read_exact_at(&mut block, position)?;
        let mut end = block.len();
        while let Some(newline) = block[..end].iter().rposition(|&byte| byte == b'\n') {
            let head = head(&block[newline + 1..end], &carry);
            carry.clear();
            if !count.entry(position + newline as u64 + 1, &head) {
                return Ok(count.start);
            }
            end = newline;
        }
        carry = head(&block[..end], &carry);
    }
    count.entry(0, &carry);
    Ok(count.start)
}

fn head(first: &[u8], then: &[u8]) -> Vec<u8> {
    first.iter().chain(then).take(HEAD).copied().collect()
}

struct Count {
    wanted: u64,
    seen: u64,
    start: u64,
    stream: Option<LogStream>,
}

impl Count {
    /// Takes the entry before the ones seen; false when there are enough.
    fn entry(&mut self, offset: u64, head: &[u8]) -> bool {
        let Some(entry) = parse(head) else {
            return true;
        };
        if self.stream.is_some_and(|stream| stream != entry.stream) {
            return true;
        }
        // The last piece of a line, or an unfinished line at the very end.
        if !entry.partial || self.seen == 0 {
            if self.seen == self.wanted {
                return false;
            }
            self.seen += 1;
        }
        self.start = offset;
        true
    }
}
