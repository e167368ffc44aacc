//! Tells a torn write-ahead log, which a power cut leaves and which is in order, from a damaged
//! one, which must not be accepted.
//!
//! SQLite reads its log up to the first frame whose checksum is wrong and drops the rest without a
//! word. That is right when the last commit was torn. When the frame lies further back, commits
//! that were acknowledged would vanish. A commit is begun only after the one before it is on disk:
//! so if anything of a later commit follows the wrong frame, it was damaged afterwards.
//!
//! The format is the one of <https://www.sqlite.org/fileformat2.html#walformat>.

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const MAGIC: u32 = 0x377f_0682;

/// Whether commits that were once whole are lost in this log; says where.
pub(crate) fn damage(wal: &[u8]) -> Option<String> {
    if wal.len() < HEADER {
        return None;
    }
    let (header, frames) = wal.split_at(HEADER);
    if header.iter().all(|byte| *byte == 0) {
        // SQLite syncs the header before the first frame.
        return frames
            .iter()
            .any(|byte| *byte != 0)
            .then(|| "its header is gone".to_owned());
    }
    let magic = word(header, 0);
    let mut sum = Sum {
        big_endian: magic & 1 == 1,
        sums: (0, 0),
    };
    sum.add(&header[..24]);
    if magic & !1 != MAGIC || sum.sums != (word(header, 24), word(header, 28)) {
        return Some("its header is damaged".to_owned());
    }
    let page = word(header, 8) as usize;
    if !(512..=65536).contains(&page) || !page.is_power_of_two() {
        return Some("its header is damaged".to_owned());
    }
    let salts = &header[16..24];
    let mut broken = None;
    let mut commit_after = false;
    for (at, frame) in frames.chunks_exact(FRAME_HEADER + page).enumerate() {
        sum.add(&frame[..8]);
        sum.add(&frame[FRAME_HEADER..]);
        // The checksums are chained: after a wrong frame, the next ones are right by what it says
        // about itself. What an abandoned commit left behind is not.
        let written = (word(frame, 16), word(frame, 20));
        let right = &frame[8..16] == salts && sum.sums == written;
        sum.sums = written;
        match broken {
            None if right => {}
            None => broken = Some(at),
            Some(broken) if right && commit_after => {
                return Some(format!(
                    "frame {broken} is damaged and later commits follow it"
                ));
            }
            Some(_) => commit_after |= right && word(frame, 4) != 0,
        }
    }
    None
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes[at..]
        .first_chunk::<4>()
        .map_or(0, |word| u32::from_be_bytes(*word))
}

/// The running checksum of the format: two sums over pairs of words.
struct Sum {
    big_endian: bool,
    sums: (u32, u32),
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        let read = if self.big_endian {
            u32::from_be_bytes
        } else {
            u32::from_le_bytes
        };
        let (mut a, mut b) = self.sums;
        for pair in bytes.chunks_exact(8) {
            let at = |i| pair[i..].first_chunk::<4>().map_or(0, |word| read(*word));
            a = a.wrapping_add(at(0)).wrapping_add(b);
            b = b.wrapping_add(at(4)).wrapping_add(a);
        }
        self.sums = (a, b);
    }
}
