//! Wall clock readings for records and log lines.
//!
//! The runtime stamps what the kernel did in the real world, partly in processes of its own, so
//! it reads the real clock; nothing here decides anything by time. This is the only place.

/// Nanoseconds since the epoch.
pub(crate) fn now_ns() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(now.tv_nsec)
}

/// Nanoseconds of the monotonic clock, for bounds within one process.
pub(crate) fn monotonic_ns() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(now.tv_nsec)
}

/// Writes `ns` since the epoch as RFC 3339 with nine digits and `Z` into a fixed buffer.
pub(crate) fn rfc3339(ns: i64) -> [u8; 30] {
    let seconds = ns.div_euclid(1_000_000_000);
    let fraction = ns.rem_euclid(1_000_000_000);
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let in_day = seconds.rem_euclid(86_400);
    let mut out = *b"0000-00-00T00:00:00.000000000Z";
    digits(&mut out[0..4], year);
    digits(&mut out[5..7], month);
    digits(&mut out[8..10], day);
    digits(&mut out[11..13], in_day / 3600);
    digits(&mut out[14..16], in_day / 60 % 60);
    digits(&mut out[17..19], in_day % 60);
    digits(&mut out[20..29], fraction);
    out
}

fn digits(out: &mut [u8], mut value: i64) {
    for place in out.iter_mut().rev() {
        *place = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
}

/// Year, month and day of a day count since the epoch, by the proleptic Gregorian calendar in
/// eras of 400 years that begin in March.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let in_era = shifted.rem_euclid(146_097);
    let year = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year + year / 4 - year / 100);
    let month = (5 * in_year + 2) / 153;
    let day = in_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn known_instants() {
        assert_eq!(&rfc3339(0), b"1970-01-01T00:00:00.000000000Z");
        assert_eq!(
            &rfc3339(951_782_400_000_000_001),
            b"2000-02-29T00:00:00.000000001Z"
        );
        assert_eq!(
            &rfc3339(1_767_225_599_123_456_789),
            b"2025-12-31T23:59:59.123456789Z"
        );
    }
}
