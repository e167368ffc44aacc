//! Holds the arrows of the house against the real dependency graph: a wrong one fails here.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// What each crate may build on, beyond foreign crates. Test code may use `testkit` and, for
/// checks across rooms, what is named behind a `+`.
const ARROWS: &[(&str, &str)] = &[
    ("api", "cel"),
    ("cel", ""),
    (
        "fuzz",
        "api cel grpc network node runtime scheduler server testkit",
    ),
    ("grpc", ""),
    ("store", "grpc"),
    ("server", "api cel grpc store"),
    ("client", "api"),
    ("controllers", "api client"),
    ("scheduler", "api client"),
    ("autoscaling", "api client"),
    ("explain", "api client"),
    ("runtime", "api"),
    ("network", "api client runtime"),
    ("node", "api client grpc network runtime"),
    (
        "testkit",
        "api client controllers node scheduler server store",
    ),
    (
        "evenkeel",
        "api autoscaling client controllers explain network node runtime scheduler server store",
    ),
    // Programs beside the product: examples know nothing of it, the bench only measures.
    ("shop", ""),
    ("bench", "api client runtime server store testkit"),
];

/// Crate name as the house says it, and its own dependencies: normal and build, then dev.
fn graph() -> BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--offline",
            "--no-deps",
            "--format-version",
            "1",
        ])
        .current_dir(root)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let short = |name: &str| name.strip_prefix("evenkeel-").unwrap_or(name).to_owned();
    packages
        .iter()
        .map(|package| {
            let mut all = (BTreeSet::new(), BTreeSet::new());
            for dependency in package["dependencies"].as_array().unwrap() {
                // Ours are the ones found by path.
                if dependency["path"].is_null() {
                    continue;
                }
                let name = short(dependency["name"].as_str().unwrap());
                let test = dependency["kind"] == "dev";
                if test {
                    all.1.insert(name)
                } else {
                    all.0.insert(name)
                };
            }
            (short(package["name"].as_str().unwrap()), all)
        })
        .collect()
}

#[test]
fn dependencies_point_down_only() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> = ARROWS
        .iter()
        .map(|(name, list)| (*name, list.split_whitespace().collect()))
        .collect();
    let mut wrong = Vec::new();
    for (name, (normal, _)) in graph() {
        let Some(allowed) = allowed.get(name.as_str()) else {
            wrong.push(format!(
                "{name} has no place in the house: add it to ARROWS"
            ));
            continue;
        };
        for to in normal {
            if !allowed.contains(to.as_str()) {
                wrong.push(format!("{name} must not depend on {to}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_door_the_binary_and_tests_open_the_store() {
    for (name, (normal, dev)) in graph() {
        if normal.contains("store") || dev.contains("store") {
            let may = ["server", "evenkeel", "testkit", "bench"];
            assert!(may.contains(&name.as_str()), "{name} opens the store");
        }
    }
}

#[test]
fn nothing_ships_test_code() {
    for (name, (normal, _)) in graph() {
        assert!(!normal.contains("evenkeel"), "{name} depends on the binary");
        // Nor does anybody ship these.
        let beside = matches!(name.as_str(), "bench" | "fuzz");
        assert!(
            beside || !normal.contains("testkit"),
            "{name} ships the testkit"
        );
    }
}

#[test]
fn every_arrow_names_a_crate_that_is_there() {
    let graph = graph();
    for (name, list) in ARROWS {
        for crate_ in list.split_whitespace().chain([*name]) {
            assert!(
                graph.contains_key(crate_),
                "{crate_} is named in ARROWS and is not there"
            );
        }
    }
}
