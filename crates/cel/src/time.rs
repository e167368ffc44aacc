//! Timestamps and durations, with the ranges and the texts of the language.
//!
//! Timestamps reach from year 1 to the end of year 9999, a little further than the calendar
//! library goes, so the proleptic calendar is computed here; only zones by name come from it.

use std::fmt;

/// Seconds and nanoseconds since 1970 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    seconds: i64,
    nanos: u32,
}

/// Nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(pub i64);

const MIN_SECONDS: i64 = -62_135_596_800;
const MAX_SECONDS: i64 = 253_402_300_799;
const NANOS: i128 = 1_000_000_000;

/// A day of the calendar and a time of day.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Civil {
    pub(crate) year: i64,
    /// From one.
    pub(crate) month: i64,
    /// From one.
    pub(crate) day: i64,
    pub(crate) hour: i64,
    pub(crate) minute: i64,
    pub(crate) second: i64,
    pub(crate) nanos: u32,
    /// Sunday is zero.
    pub(crate) weekday: i64,
    /// January 1 is zero.
    pub(crate) yearday: i64,
}

impl Timestamp {
    /// A timestamp within the language's range.
    pub fn new(seconds: i64, nanos: u32) -> Option<Self> {
        ((MIN_SECONDS..=MAX_SECONDS).contains(&seconds) && i128::from(nanos) < NANOS)
            .then_some(Self { seconds, nanos })
    }

    /// Seconds since 1970.
    pub fn seconds(self) -> i64 {
        self.seconds
    }

    fn total(self) -> i128 {
        i128::from(self.seconds) * NANOS + i128::from(self.nanos)
    }

    fn from_total(total: i128) -> Option<Self> {
        let seconds = i64::try_from(total.div_euclid(NANOS)).ok()?;
        let nanos = u32::try_from(total.rem_euclid(NANOS)).ok()?;
        Self::new(seconds, nanos)
    }

    pub(crate) fn add(self, duration: Duration) -> Option<Self> {
        Self::from_total(self.total() + i128::from(duration.0))
    }

    pub(crate) fn sub(self, duration: Duration) -> Option<Self> {
        Self::from_total(self.total() - i128::from(duration.0))
    }

    pub(crate) fn since(self, other: Self) -> Option<Duration> {
        i64::try_from(self.total() - other.total())
            .ok()
            .map(Duration)
    }

    /// Reads RFC 3339.
    pub fn parse(text: &str) -> Option<Self> {
        let b = text.as_bytes();
        if b.len() < 20 || !text.is_ascii() {
            return None;
        }
        let number = |from: usize, to: usize| -> Option<i64> {
            let part = text.get(from..to)?;
            part.bytes()
                .all(|c| c.is_ascii_digit())
                .then(|| part.parse().ok())?
        };
        let at = |i: usize, c: u8| b.get(i) == Some(&c);
        if !(at(4, b'-')
            && at(7, b'-')
            && (at(10, b'T') || at(10, b't'))
            && at(13, b':')
            && at(16, b':'))
        {
            return None;
        }
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        if !(1..=12).contains(&month) || day < 1 || day > month_days(year, month) {
            return None;
        }
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let mut end = 19;
        let mut nanos = 0u32;
        if at(19, b'.') {
            let digits = b[20..].iter().take_while(|c| c.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            end = 20 + digits;
            let kept = &text[20..20 + digits.min(9)];
            nanos = format!("{kept:0<9}").parse().ok()?;
        }
        let offset = match text.get(end..)? {
            "Z" | "z" => 0,
            zone if zone.len() == 6 => {
                let sign = match zone.as_bytes()[0] {
                    b'+' => 1,
                    b'-' => -1,
                    _ => return None,
                };
                let (h, m) = (number(end + 1, end + 3)?, number(end + 4, end + 6)?);
                if zone.as_bytes()[3] != b':' || h > 23 || m > 59 {
                    return None;
                }
                sign * (h * 3600 + m * 60)
            }
            _ => return None,
        };
        let seconds =
            days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
        Self::new(seconds - offset, nanos)
    }

    /// Midnight of a day written as `2006-01-02`.
    pub fn parse_date(text: &str) -> Option<Self> {
        (text.len() == 10).then(|| Self::parse(&format!("{text}T00:00:00Z")))?
    }

    /// The calendar day and time, `offset` seconds east of UTC.
    pub(crate) fn civil(self, offset: i64) -> Civil {
        let local = self.seconds + offset;
        let (days, rest) = (local.div_euclid(86_400), local.rem_euclid(86_400));
        let (year, month, day) = civil_from_days(days);
        Civil {
            year,
            month,
            day,
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
            nanos: self.nanos,
            weekday: (days + 4).rem_euclid(7),
            yearday: days - days_from_civil(year, 1, 1),
        }
    }

    /// Seconds east of UTC of a zone: `+05:30`, `-08:00`, `UTC` or a name as `Europe/Berlin`.
    pub(crate) fn zone_offset(self, zone: &str) -> Result<i64, String> {
        let unknown = || format!("unknown time zone {zone}");
        if zone.is_empty() || zone == "UTC" || zone == "Z" {
            return Ok(0);
        }
        let fixed = zone.contains(':').then(|| {
            let (sign, rest) = match zone.as_bytes().first() {
                Some(b'-') => (-1, &zone[1..]),
                Some(b'+') => (1, &zone[1..]),
                _ => (1, zone),
            };
            let (h, m) = rest.split_once(':')?;
            let (h, m): (i64, i64) = (h.parse().ok()?, m.parse().ok()?);
            (h.abs() < 24 && m < 60).then_some(sign * (h * 3600 + m * 60))
        });
        if let Some(fixed) = fixed {
            return fixed.ok_or_else(unknown);
        }
        let zone = jiff::tz::TimeZone::get(zone).map_err(|_| unknown())?;
        let clamped = self.seconds.clamp(
            jiff::Timestamp::MIN.as_second(),
            jiff::Timestamp::MAX.as_second(),
        );
        let at = jiff::Timestamp::from_second(clamped).map_err(|_| unknown())?;
        Ok(i64::from(zone.to_offset(at).seconds()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = self.civil(0);
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{}Z",
            c.year,
            c.month,
            c.day,
            c.hour,
            c.minute,
            c.second,
            fraction(i64::from(c.nanos))
        )
    }
}

/// `.5` for half a second; nothing for none.
fn fraction(nanos: i64) -> String {
    if nanos == 0 {
        return String::new();
    }
    format!(".{}", format!("{nanos:09}").trim_end_matches('0'))
}

/// The language writes durations in seconds.
impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let total = self.0.unsigned_abs();
        let (seconds, nanos) = (total / 1_000_000_000, total % 1_000_000_000);
        write!(f, "{sign}{seconds}{}s", fraction(nanos.cast_signed()))
    }
}

impl Duration {
    /// Reads Go's form: `1h30m`, `-1.5s`, `100ms`, `0`.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, mut rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Some(Self(0));
        }
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let whole = rest.bytes().take_while(u8::is_ascii_digit).count();
            let mut value: i128 = if whole > 0 {
                rest[..whole].parse().ok()?
            } else {
                0
            };
            rest = &rest[whole..];
            let (mut part, mut scale) = (0i128, 1i128);
            let mut fraction = 0;
            if let Some(after) = rest.strip_prefix('.') {
                fraction = after.bytes().take_while(u8::is_ascii_digit).count();
                for digit in after.bytes().take(fraction.min(18)) {
                    part = part * 10 + i128::from(digit - b'0');
                    scale *= 10;
                }
                rest = &after[fraction..];
            }
            if whole == 0 && fraction == 0 {
                return None;
            }
            let letters = rest
                .bytes()
                .take_while(|c| *c != b'.' && !c.is_ascii_digit())
                .count();
            let unit: i128 = match rest.get(..letters)? {
                "ns" => 1,
                "us" | "µs" | "μs" => 1_000,
                "ms" => 1_000_000,
                "s" => 1_000_000_000,
                "m" => 60_000_000_000,
                "h" => 3_600_000_000_000,
                _ => return None,
            };
            rest = &rest[letters..];
            value = value
                .checked_mul(unit)?
                .checked_add(part.checked_mul(unit)? / scale)?;
            total = total.checked_add(value)?;
        }
        i64::try_from(if negative { -total } else { total })
            .ok()
            .map(Self)
    }
}

fn month_days(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970 of a day of the proleptic Gregorian calendar, by eras of 400 years.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}
