//! The one binary: composition and flags, nothing else.

fn main() {}
