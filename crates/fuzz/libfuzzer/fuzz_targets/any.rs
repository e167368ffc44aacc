//! One target of `evenkeel-fuzz`, named by `EVENKEEL_FUZZ_TARGET`, under libFuzzer.

#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use evenkeel_fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;
use rustix::time::{ClockId, clock_gettime};

/// No input of 64 KiB may take longer. It is processor time: a machine that is busy, or a process
/// that is held for a while, proves nothing against an input.
const SLOWEST: Duration = Duration::from_secs(1);

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var("EVENKEEL_FUZZ_TARGET").unwrap_or_else(|_| "json".to_owned());
    let found = TARGETS.iter().find(|target| target.name == wanted);
    *found.unwrap_or_else(|| panic!("no target {wanted}"))
});

fn spent() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let nanoseconds = u32::try_from(now.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), nanoseconds)
}

/// How long the target takes for an input.
fn time(input: &[u8]) -> Duration {
    let before = spent();
    (TARGET.run)(input);
    spent().saturating_sub(before)
}

fuzz_target!(|input: &[u8]| {
    let first = time(input);
    // What a target makes once, with the first input that needs it, is no input's fault.
    if first >= SLOWEST {
        let again = time(input);
        assert!(
            again < SLOWEST,
            "{} bytes took {first:?} and {again:?}",
            input.len()
        );
    }
});
