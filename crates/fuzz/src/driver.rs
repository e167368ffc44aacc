//! Feeds a target, keeps what is new, and tells what broke it.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::mutate::mutate;
use crate::{Shape, Target};

/// So many inputs are kept to start from; then new ones take the place of old ones.
const KEPT: usize = 4096;

/// An input that broke a target.
#[derive(Debug, Clone)]
pub struct Crash {
    /// The input.
    pub input: Vec<u8>,
    /// What the target said.
    pub message: String,
}

/// What a run came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Inputs that were tried.
    pub tried: u64,
    /// Different ways through the code that they took.
    pub shapes: usize,
}

/// Feeds one target.
#[derive(Debug)]
pub struct Driver {
    target: Target,
    rng: StdRng,
    corpus: Vec<Vec<u8>>,
    shapes: HashSet<Shape>,
    tried: u64,
    /// Every input is written here before it is tried: what ends the process is found there.
    note: Option<File>,
}

impl Driver {
    /// A driver whose choices follow from `seed`.
    #[must_use]
    pub fn new(target: Target, seed: u64) -> Self {
        Self {
            target,
            rng: StdRng::seed_from_u64(seed),
            corpus: vec![Vec::new()],
            shapes: HashSet::new(),
            tried: 0,
            note: None,
        }
    }

    /// Writes every input to a file before it is tried: eight bytes that say how long it is, the
    /// lowest first, then the input. What is behind it is of longer ones before.
    pub fn note_in(&mut self, file: File) {
        self.note = Some(file);
    }

    /// Adds the files of a directory to what is started from, in the order of their names. Files
    /// that end in `.hex` hold bytes as digits.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn load(&mut self, directory: &Path) -> io::Result<()> {
        let mut files: Vec<PathBuf> = fs::read_dir(directory)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<_>>()?;
        files.sort();
        for file in files {
            let mut bytes = fs::read(&file)?;
            if file.extension().is_some_and(|ending| ending == "hex") {
                bytes = unhex(&bytes);
            } else if bytes.ends_with(b"\n") {
                bytes.pop();
            }
            self.corpus.push(bytes);
        }
        Ok(())
    }

    /// Tries all that it starts from as it is.
    ///
    /// # Errors
    /// The input that broke the target.
    pub fn replay(&mut self) -> Result<(), Crash> {
        for input in self.corpus.clone() {
            self.attempt(&input)?;
        }
        Ok(())
    }

    /// Tries one changed input.
    ///
    /// # Errors
    /// The input that broke the target.
    pub fn step(&mut self) -> Result<(), Crash> {
        // What was found last is looked into more.
        let newest = self.corpus.len().saturating_sub(64);
        let from = if self.rng.random_ratio(1, 3) {
            newest
        } else {
            0
        };
        let one = self.rng.random_range(from..self.corpus.len());
        let other = self.rng.random_range(0..self.corpus.len());
        let input = mutate(&mut self.rng, &self.corpus[one], &self.corpus[other]);
        if self.attempt(&input)? {
            if self.corpus.len() < KEPT {
                self.corpus.push(input);
            } else {
                let place = self.rng.random_range(0..KEPT);
                self.corpus[place] = input;
            }
        }
        Ok(())
    }

    /// What came of it so far.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        Outcome {
            tried: self.tried,
            shapes: self.shapes.len(),
        }
    }

    /// Tries an input; answers whether it went a new way.
    fn attempt(&mut self, input: &[u8]) -> Result<bool, Crash> {
        if let Some(note) = &self.note {
            let length = (input.len() as u64).to_le_bytes();
            note.write_all_at(&[&length[..], input].concat(), 0)
                .map_err(|error| Crash {
                    input: input.to_vec(),
                    message: format!("the input can't be noted: {error}"),
                })?;
        }
        self.tried += 1;
        let run = self.target.run;
        let shape = catch_unwind(AssertUnwindSafe(|| run(input))).map_err(|panic| Crash {
            input: input.to_vec(),
            message: panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_else(|| "panicked".to_owned()),
        })?;
        Ok(self.shapes.insert(shape))
    }
}

fn unhex(text: &[u8]) -> Vec<u8> {
    let digits: Vec<u8> = text
        .iter()
        .filter_map(|byte| char::from(*byte).to_digit(16))
        .filter_map(|digit| u8::try_from(digit).ok())
        .collect();
    digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}
