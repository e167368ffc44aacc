//! Schedules: what is read, what is refused and with which words, and which time is next.

use jiff::Timestamp;

use super::{Schedule, time_zone};

#[test]
fn wrong_schedules_are_named_as_the_reference_names_them() {
    for (text, wrong) in [
        ("", "empty spec string"),
        ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
        ("error", "expected exactly 5 fields, found 1: [error]"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("* * * * 7", "end of range (7) above maximum (6): 7"),
        (
            "*/0 * * * *",
            "step of range should be a positive number: */0",
        ),
        (
            "5-1 * * * *",
            "beginning of range (5) beyond end of range (1): 5-1",
        ),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("1/2/3 * * * *", "too many slashes: 1/2/3"),
        (
            "a * * * *",
            "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax",
        ),
        ("@never", "unrecognized descriptor: @never"),
        (
            "@every x",
            "failed to parse duration @every x: time: invalid duration \"x\"",
        ),
        (
            "@every 5",
            "failed to parse duration @every 5: time: missing unit in duration \"5\"",
        ),
        (
            "TZ=Nowhere 0 * * * *",
            "provided bad location Nowhere: unknown time zone Nowhere",
        ),
    ] {
        let found = text.parse::<Schedule>().map_err(|error| error.to_string());
        assert_eq!(found, Err(wrong.to_owned()), "{text}");
    }
}

#[test]
fn the_next_time() {
    for (schedule, zone, after, next) in [
        (
            "*/5 * * * *",
            "UTC",
            "2026-11-21T08:04:30Z",
            Some("2026-11-21T08:05:00Z"),
        ),
        (
            "*/5 * * * *",
            "UTC",
            "2026-11-21T08:05:00Z",
            Some("2026-11-21T08:10:00Z"),
        ),
        (
            "0 0 * * *",
            "UTC",
            "2026-11-21T08:05:00Z",
            Some("2026-11-22T00:00:00Z"),
        ),
        (
            "@monthly",
            "UTC",
            "2026-11-21T08:05:00Z",
            Some("2026-12-01T00:00:00Z"),
        ),
        (
            "30 4 1 jan ?",
            "UTC",
            "2026-11-21T08:05:00Z",
            Some("2027-01-01T04:30:00Z"),
        ),
        (
            "0 9 * * MON-FRI",
            "UTC",
            "2026-11-21T08:05:00Z",
            Some("2026-11-23T09:00:00Z"),
        ),
        // Both days restricted: either is enough.
        (
            "0 0 13 * FRI",
            "UTC",
            "2026-11-21T08:05:00Z",
            Some("2026-11-27T00:00:00Z"),
        ),
        ("0 0 30 2 *", "UTC", "2026-11-21T08:05:00Z", None),
        (
            "@every 90s",
            "UTC",
            "2026-11-21T08:05:00.5Z",
            Some("2026-11-21T08:06:30Z"),
        ),
        (
            "0 9 * * *",
            "Europe/Berlin",
            "2026-11-21T08:05:00Z",
            Some("2026-11-22T08:00:00Z"),
        ),
        (
            "TZ=Asia/Tokyo 0 9 * * *",
            "UTC",
            "2026-11-21T08:05:00Z",
            Some("2026-11-22T00:00:00Z"),
        ),
        // The clock leaps over this hour on that day.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2027-03-27T12:00:00Z",
            Some("2027-03-29T00:30:00Z"),
        ),
        // And shows this one twice.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-25T00:30:00Z",
            Some("2026-10-25T01:30:00Z"),
        ),
    ] {
        let after: Timestamp = after.parse().unwrap();
        let found = schedule
            .parse::<Schedule>()
            .unwrap()
            .next_after(after, &time_zone(zone).unwrap())
            .map(|at| at.to_string());
        assert_eq!(found.as_deref(), next, "{schedule} after {after}");
    }
}
