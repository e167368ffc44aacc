//! Mutated inputs for everything that reads what strangers send: decoders, patches, selectors,
//! expressions.
//!
//! [`TARGETS`] are functions from bytes to a [`Shape`] of what came of them; a target that panics
//! or breaks a promise of its own (what was written is read back, what was admitted is admitted
//! again unchanged) has found a bug. [`Driver`] feeds them: it starts from the seeds in `seeds/`,
//! mutates bytes and, where there is JSON, values, and keeps every input whose shape is new. That
//! works on stable Rust without instrumentation; the same functions are the targets of
//! `cargo fuzz` in `crates/fuzz/libfuzzer`, where a nightly toolchain is at hand.
//!
//! With a fixed seed a run is the same every time: that is what the tests do.

mod driver;
mod mutate;
mod scratch;
mod targets;

pub use driver::{Crash, Driver, Outcome};
pub(crate) use scratch::Scratch;
pub use targets::{TARGETS, Target};

use std::hash::{DefaultHasher, Hash, Hasher as _};

/// Removes what targets have made on disk. They can't be run afterwards.
pub fn tidy() {
    targets::close();
    scratch::clear();
}

/// What came of an input, as far as it tells one way through the code from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape(pub u64);

impl Shape {
    /// Of anything that can be hashed.
    #[must_use]
    pub fn of(what: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        Self(hasher.finish())
    }

    /// Of a message: numbers and quoted parts differ from input to input, the words don't.
    #[must_use]
    pub fn of_message(text: &str) -> Self {
        let mut words = String::new();
        let mut quoted = false;
        for letter in text.chars().take(400) {
            match letter {
                '"' | '\'' | '`' => quoted = !quoted,
                _ if quoted || letter.is_numeric() || !letter.is_ascii() => {}
                letter => words.push(letter),
            }
        }
        Self::of(words)
    }
}
