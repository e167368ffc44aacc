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

/// Reads a log through: whether anything lies behind its last commit, which the next commits would
/// not cover at once. The error says where commits that were once whole are lost.
pub(crate) fn check(wal: &[u8]) -> Result<bool, String> {
    if wal.len() < HEADER {
        return Ok(false);
    }
    let (header, frames) = wal.split_at(HEADER);
    if header.iter().all(|byte| *byte == 0) {
        // SQLite syncs the header before the first frame.
        if frames.iter().any(|byte| *byte != 0) {
            return Err("its header is gone".to_owned());
        }
        return Ok(false);
    }
    let magic = word(header, 0);
    let mut sum = Sum {
        big_endian: magic & 1 == 1,
        sums: (0, 0),
    };
    sum.add(&header[..24]);
    if magic & !1 != MAGIC || sum.sums != (word(header, 24), word(header, 28)) {
        return Err("its header is damaged".to_owned());
    }
    let page = word(header, 8) as usize;
    if !(512..=65536).contains(&page) || !page.is_power_of_two() {
        return Err("its header is damaged".to_owned());
    }
    let salts = &header[16..24];
    let mut broken = None;
    let mut commit_after = false;
    let mut uncommitted = false;
    for (at, frame) in frames.chunks_exact(FRAME_HEADER + page).enumerate() {
        // The checksums are chained: after a wrong frame, the next ones are right by what it says
        // about itself.
        let written = (word(frame, 16), word(frame, 20));
        // Others are from before the log was begun anew, or room that was made for it.
        let ours = &frame[8..16] == salts;
        if ours {
            sum.add(&frame[..8]);
            sum.add(&frame[FRAME_HEADER..]);
        }
        let right = ours && sum.sums == written;
        let commits = word(frame, 4) != 0;
        sum.sums = written;
        match broken {
            None if right => uncommitted = !commits,
            None => {
                broken = Some(at);
                uncommitted |= ours;
            }
            Some(broken) if right && commit_after => {
                return Err(format!(
                    "frame {broken} is damaged and later commits follow it"
                ));
            }
            Some(_) => {
                commit_after |= right && commits;
                uncommitted |= ours;
            }
        }
    }
    Ok(uncommitted)
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

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 512;

    fn put(out: &mut Vec<u8>, words: &[u32]) {
        out.extend(words.iter().flat_map(|word| word.to_be_bytes()));
    }

    fn little(sums: (u32, u32)) -> Sum {
        Sum {
            big_endian: false,
            sums,
        }
    }

    fn header() -> (Vec<u8>, (u32, u32)) {
        let mut out = Vec::new();
        put(&mut out, &[MAGIC, 3_007_000, 512, 0, 7, 9]);
        let mut sum = little((0, 0));
        sum.add(&out);
        put(&mut out, &[sum.sums.0, sum.sums.1]);
        (out, sum.sums)
    }

    /// The frames of one commit behind what has these sums; and the sums after it.
    fn commit(frames: u8, content: u8, sums: (u32, u32)) -> (Vec<Vec<u8>>, (u32, u32)) {
        let mut sum = little(sums);
        let made = (1..=frames).map(|at| {
            let size = if at == frames { 10 } else { 0 };
            let mut frame = Vec::new();
            put(&mut frame, &[u32::from(at), size]);
            let page = [content ^ at; PAGE];
            sum.add(&frame);
            sum.add(&page);
            put(&mut frame, &[7, 9, sum.sums.0, sum.sums.1]);
            frame.extend(page);
            frame
        });
        let made = made.collect();
        (made, sum.sums)
    }

    #[test]
    fn tells_what_a_torn_commit_left_behind() {
        let (mut wal, sums) = header();
        let (first, sums) = commit(2, 1, sums);
        wal.extend(first.concat());
        assert_eq!(check(&wal), Ok(false));
        // What stood there before the log was begun anew means nothing.
        let stale = vec![0xaa; 3 * (FRAME_HEADER + PAGE)];
        assert_eq!(check(&[&wal[..], &stale].concat()), Ok(false));
        let (torn, _) = commit(6, 2, sums);
        let unfinished = [&wal[..], &torn[..4].concat()].concat();
        assert_eq!(check(&unfinished), Ok(true));
        let mut whole_but_one = torn.clone();
        whole_but_one[2][FRAME_HEADER + 1] ^= 1;
        assert_eq!(
            check(&[&wal[..], &whole_but_one.concat()].concat()),
            Ok(true)
        );
        // A shorter one over it.
        let (next, _) = commit(2, 3, sums);
        let over = [&wal[..], &next.concat(), &torn[2..].concat()].concat();
        assert_eq!(check(&over), Ok(true));
    }

    #[test]
    fn a_wrong_frame_before_later_commits_is_damage() {
        let (mut wal, mut sums) = header();
        for content in 1..5 {
            let (frames, after) = commit(2, content, sums);
            wal.extend(frames.concat());
            sums = after;
        }
        assert_eq!(check(&wal), Ok(false));
        // In every frame that a whole commit and more follows.
        let frame = FRAME_HEADER + PAGE;
        for at in 0..5 {
            let byte = HEADER + at * frame + FRAME_HEADER + 5;
            wal[byte] ^= 1;
            let said = check(&wal).expect_err("commits are lost");
            assert!(said.contains(&format!("frame {at} ")), "{said}");
            wal[byte] ^= 1;
        }
        // Torn in the last commit, as by a loss of power.
        wal[HEADER + 6 * frame + FRAME_HEADER + 5] ^= 1;
        assert_eq!(check(&wal), Ok(true));
    }
}
