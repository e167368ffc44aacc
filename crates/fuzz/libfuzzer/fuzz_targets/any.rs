//! One target of `evenkeel-fuzz`, named by `EVENKEEL_FUZZ_TARGET`, under libFuzzer.

#![no_main]

use std::sync::LazyLock;

use evenkeel_fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var("EVENKEEL_FUZZ_TARGET").unwrap_or_else(|_| "json".to_owned());
    let found = TARGETS.iter().find(|target| target.name == wanted);
    *found.unwrap_or_else(|| panic!("no target {wanted}"))
});

fuzz_target!(|input: &[u8]| {
    (TARGET.run)(input);
});
