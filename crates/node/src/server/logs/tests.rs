//! Lines, tails and rotation as tables and against a slow reference.

use std::io::Write;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::line::{LogStream, Renderer, parse};
use super::options::LogOptions;
use super::rotate::{RotationPolicy, plan, rotate};
use super::tail;
use crate::server::tests::fake::FakeRuntime;

const TIME: &str = "2026-01-02T03:04:05.000000001Z";

#[test]
fn entries_are_read_in_all_their_forms() {
    for (line, expected) in [
        (
            format!("{TIME} stdout F text with  spaces "),
            Some((LogStream::Stdout, false, "text with  spaces ")),
        ),
        (
            format!("{TIME} stderr P piece"),
            Some((LogStream::Stderr, true, "piece")),
        ),
        (
            format!("{TIME} stdout F "),
            Some((LogStream::Stdout, false, "")),
        ),
        (
            format!("{TIME} stdout F"),
            Some((LogStream::Stdout, false, "")),
        ),
        (
            format!("{TIME} stdout P:x:y text"),
            Some((LogStream::Stdout, true, "text")),
        ),
        (
            "2026-01-02T03:04:05.000000001+02:00 stderr F text".to_owned(),
            Some((LogStream::Stderr, false, "text")),
        ),
        // Whoever looks for the last lines would not see its tag.
        (format!("{TIME}{TIME} stdout F text"), None),
        (format!("{TIME} stdlog F text"), None),
        (format!("{TIME} stdout X text"), None),
        ("{\"log\":\"docker json\"}".to_owned(), None),
        (String::new(), None),
    ] {
        let got = parse(line.as_bytes()).map(|entry| {
            (
                entry.stream,
                entry.partial,
                std::str::from_utf8(entry.text).unwrap(),
            )
        });
        assert_eq!(got, expected, "{line}");
    }
}

#[test]
fn pieces_of_both_streams_are_joined_apart() {
    let mut renderer = Renderer::new(&LogOptions {
        timestamps: true,
        ..LogOptions::default()
    });
    let mut out = Vec::new();
    for line in ["stdout P a", "stderr F x", "stdout P b", "stdout F c"] {
        assert!(renderer.render(format!("{TIME} {line}").as_bytes(), &mut out));
    }
    assert_eq!(
        String::from_utf8(out).unwrap(),
        format!("{TIME} x\n{TIME} abc\n")
    );
}

fn file(text: &str) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

proptest! {
    #[test]
    fn the_tail_is_what_reading_all_would_give(
        entries in prop::collection::vec((any::<bool>(), any::<bool>(), 0usize..3000), 0..120),
        lines in 0u64..60,
        finished: bool,
    ) {
        let mut text = String::new();
        for (first, partial, length) in &entries {
            let stream = if *first { "stdout" } else { "stderr" };
            let tag = if *partial { 'P' } else { 'F' };
            text += &format!("{TIME} {stream} {tag} {}\n", "x".repeat(*length));
        }
        if !finished && !text.is_empty() {
            text.pop();
        }
        // One stream only, so that pieces of a line are neighbours.
        let wanted = Some(LogStream::Stdout);
        let offset = tail::offset(&file(&text), text.len() as u64, lines, wanted).unwrap();
        let whole = rendered(&text);
        let tailed = rendered(&text[usize::try_from(offset).unwrap()..]);
        let whole: Vec<&str> = whole.split_inclusive('\n').collect();
        let skip = whole.len().saturating_sub(usize::try_from(lines).unwrap());
        prop_assert_eq!(tailed, whole[skip..].concat());
    }

    #[test]
    fn arbitrary_lines_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut renderer = Renderer::new(&LogOptions::default());
        renderer.render(&bytes, &mut Vec::new());
        tail::offset(&file(&String::from_utf8_lossy(&bytes)), 0, 3, None).unwrap();
    }
}

fn rendered(text: &str) -> String {
    let options = LogOptions {
        stream: Some(LogStream::Stdout),
        ..LogOptions::default()
    };
    let mut renderer = Renderer::new(&options);
    let mut out = Vec::new();
    for line in text.lines() {
        renderer.render(line.as_bytes(), &mut out);
    }
    renderer.flush(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn the_last_lines_of_a_large_log_are_found_without_reading_it() {
    let mut log = tempfile::tempfile().unwrap();
    let block = format!("{TIME} stdout F {}\n", "x".repeat(100)).repeat(10_000);
    for _ in 0..40 {
        log.write_all(block.as_bytes()).unwrap();
    }
    let last = format!("{TIME} stdout F last\n");
    log.write_all(last.as_bytes()).unwrap();
    let size = log.metadata().unwrap().len();
    assert_eq!(
        tail::offset(&log, size, 1, None).unwrap(),
        size - last.len() as u64
    );
}

#[test]
fn rotation_keeps_five_and_compresses_the_older() {
    let log = Path::new("/logs/0.log");
    let now = "2026-01-02T03:04:05Z".parse().unwrap();
    let policy = RotationPolicy::default();
    assert_eq!(plan(log, policy.max_size, &[], now, policy), None);
    let same_second = ["0.log.20260102-030405".to_owned()];
    assert_eq!(
        plan(log, policy.max_size + 1, &same_second, now, policy),
        None
    );
    let siblings = [
        "0.log",
        "0.log.20260101-000001.gz",
        "0.log.20260101-000002.gz",
        "0.log.20260101-000003",
        "0.log.20260101-000003.gz",
        "0.log.20260101-000004",
        "0.log.20260101-000004.tmp",
        "1.log",
    ]
    .map(str::to_owned);
    let plan = plan(log, policy.max_size + 1, &siblings, now, policy).unwrap();
    let paths = |names: &[&str]| -> Vec<PathBuf> {
        names
            .iter()
            .map(|name| Path::new("/logs").join(name))
            .collect()
    };
    assert_eq!(
        plan.remove,
        paths(&[
            "0.log.20260101-000004.tmp",
            "0.log.20260101-000003",
            "0.log.20260101-000001.gz"
        ])
    );
    assert_eq!(plan.compress, paths(&["0.log.20260101-000004"]));
    assert_eq!(plan.rename_to, Path::new("/logs/0.log.20260102-030405"));
}

#[tokio::test]
async fn a_rotated_log_is_reopened_and_the_older_one_compressed() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("0.log");
    let policy = RotationPolicy {
        max_size: 10,
        max_files: 3,
    };
    let runtime = FakeRuntime::new();
    for second in 1..=4 {
        std::fs::write(&log, format!("more than ten bytes {second}")).unwrap();
        let now = format!("2026-01-02T03:04:0{second}Z").parse().unwrap();
        assert!(rotate(&*runtime, "id-c", &log, now, policy).await.unwrap());
        assert!(!rotate(&*runtime, "id-c", &log, now, policy).await.unwrap());
    }
    let mut names: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["0.log.20260102-030403.gz", "0.log.20260102-030404"]);
    // Four rotations, and four times the log that was not there had to be made.
    assert_eq!(runtime.reopened.lock().len(), 8);
}
