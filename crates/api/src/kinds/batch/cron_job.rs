//! Cron jobs.

use serde_json::Value;

use super::job;
use crate::cron::Schedule;
use crate::field::{ErrorList, FieldError, Path};
use crate::kinds::workloads::name_warning;
use crate::object::{self, child, default_field};
use crate::row::Strategy;
use crate::validation::{Cursor, is_new, nonnegative};

/// A job's name is the cron job's, a dash and ten digits, and at most 63 characters long.
const NAME_MAX: usize = 52;
const CONCURRENCY: [&str; 3] = ["Allow", "Forbid", "Replace"];
const ZONE_PART_MAX: usize = 14;

/// What cron jobs do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct CronJobs;

impl Strategy for CronJobs {
    fn defaults(&self, object: &mut Value) {
        let spec = child(object, "spec");
        default_field(spec, "concurrencyPolicy", "Allow");
        default_field(spec, "suspend", false);
        default_field(spec, "successfulJobsHistoryLimit", 3);
        default_field(spec, "failedJobsHistoryLimit", 1);
        let template = child(spec, "jobTemplate");
        child(template, "metadata");
        job::template_defaults(child(template, "spec"));
    }

    fn prepare_create(&self, object: &mut Value) {
        object::clear_status(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        object::keep_status(new, old);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let spec = Cursor::root(object).child("spec");
        let new = is_new(object);
        if new {
            schedule(&spec, None, &mut out);
        }
        nonnegative(&spec, "startingDeadlineSeconds", &mut out);
        if new {
            time_zone(&spec, &mut out);
        }
        match spec.text("concurrencyPolicy") {
            "" => out.push(FieldError::required(&spec.at("concurrencyPolicy"), "")),
            found if CONCURRENCY.contains(&found) => {}
            other => out.push(FieldError::not_supported(
                &spec.at("concurrencyPolicy"),
                other,
                &CONCURRENCY,
            )),
        }
        job_template(&spec.child("jobTemplate").child("spec"), &mut out);
        nonnegative(&spec, "successfulJobsHistoryLimit", &mut out);
        nonnegative(&spec, "failedJobsHistoryLimit", &mut out);
        let name = object::name(object);
        if new && name.len() > NAME_MAX {
            out.push(FieldError::invalid(
                &Path::new("metadata").child("name"),
                name,
                &format!("must be no more than {NAME_MAX} characters"),
            ));
        }
        out
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let (spec, before) = (
            Cursor::root(new).child("spec"),
            Cursor::root(old).child("spec"),
        );
        schedule(&spec, Some(before.text("schedule")), &mut out);
        if spec.raw("timeZone") != before.raw("timeZone") {
            time_zone(&spec, &mut out);
        }
        out
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let mut out = Vec::new();
        if old.is_none() {
            name_warning(object::name(new), &mut out);
        }
        let spec = Cursor::root(new).child("spec");
        if old.is_none_or(|old| old.get("spec") != new.get("spec")) {
            job::spec_warnings(&spec.child("jobTemplate").child("spec"), &mut out);
        }
        if old.is_some() && spec.text("schedule").contains("TZ") {
            out.push(
                "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more \
                 details"
                    .to_owned(),
            );
        }
        out
    }
}

/// Checks the schedule. Older objects may have the time zone in it and keep it.
fn schedule(spec: &Cursor<'_>, before: Option<&str>, out: &mut ErrorList) {
    let path = spec.at("schedule");
    let text = spec.text("schedule");
    if text.is_empty() {
        out.push(FieldError::required(&path, "").declared());
        return;
    }
    if let Err(error) = text.parse::<Schedule>() {
        out.push(FieldError::invalid(&path, text, &error.to_string()));
    }
    if !text.contains("TZ") {
        return;
    }
    if before.is_some_and(|before| before.contains("TZ")) {
        if spec.has("timeZone") {
            out.push(FieldError::invalid(
                &path,
                text,
                "cannot use both timeZone field and TZ or CRON_TZ in schedule",
            ));
        }
    } else {
        out.push(FieldError::invalid(
            &path,
            text,
            "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        ));
    }
}

fn time_zone(spec: &Cursor<'_>, out: &mut ErrorList) {
    let Some(zone) = spec.get("timeZone") else {
        return;
    };
    let name = zone.value.as_str().unwrap_or_default();
    let mut wrong = |detail: &str| out.push(FieldError::invalid(&zone.path, name, detail));
    if name.is_empty() {
        wrong("timeZone must be nil or non-empty string");
        return;
    }
    let part = |part: &str| {
        (1..=ZONE_PART_MAX).contains(&part.len())
            && !matches!(part, "." | "..")
            && !part.starts_with('-')
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-_+".contains(&byte))
    };
    if !name.split('/').all(part) {
        wrong(&format!("unknown time zone {name}"));
        return;
    }
    if name.eq_ignore_ascii_case("Local") {
        wrong(
            "timeZone must be an explicit time zone as defined in \
             https://www.iana.org/time-zones",
        );
    } else if !crate::cron::is_time_zone(name) {
        wrong(&format!("unknown time zone {name}"));
    }
}

/// A template of jobs: the selector is always generated.
fn job_template(spec: &Cursor<'_>, out: &mut ErrorList) {
    job::validate_spec(spec, out);
    if spec.has("selector") {
        out.push(FieldError::invalid(
            &spec.at("selector"),
            spec.raw("selector").clone(),
            "`selector` will be auto-generated",
        ));
    }
    if spec.is_true("manualSelector") {
        out.push(FieldError::not_supported(
            &spec.at("manualSelector"),
            true,
            &["nil", "false"],
        ));
    }
}
