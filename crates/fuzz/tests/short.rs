//! Every target, for so many inputs that follow from a fixed number: the same each time.

use std::path::Path;

use evenkeel_fuzz::{Driver, TARGETS};

/// Inputs for each target; fewer where each costs more.
const INPUTS: usize = 20_000;

#[test]
fn no_target_breaks() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let mut broken = Vec::new();
    for target in TARGETS {
        let mut driver = Driver::new(*target, 0);
        driver
            .load(&seeds.join(target.name))
            .expect("every target has seeds");
        let mut outcome = driver.replay();
        for _ in 0..INPUTS / target.cost {
            outcome = outcome.and_then(|()| driver.step());
        }
        println!("{}: {:?}", target.name, driver.outcome());
        if let Err(crash) = outcome {
            let input = String::from_utf8_lossy(&crash.input).into_owned();
            broken.push(format!("{}: {}\n{input:?}", target.name, crash.message));
        }
        assert!(
            driver.outcome().shapes > 5,
            "{} goes one way only",
            target.name
        );
    }
    evenkeel_fuzz::tidy();
    assert!(broken.is_empty(), "{}", broken.join("\n\n"));
}

/// `make fuzz-lib` goes by the directories.
#[test]
fn every_directory_of_seeds_has_a_target() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let mut found: Vec<String> = std::fs::read_dir(seeds)
        .expect("there are seeds")
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    found.sort();
    let mut wanted: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    wanted.sort_unstable();
    assert_eq!(found, wanted);
}
