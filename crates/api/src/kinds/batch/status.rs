//! What a job's status may become: checked only where a change touches it, so that older statuses
//! that break a newer rule can still be completed.

use serde_json::Value;

use super::indexes;
use crate::field::{ErrorList, FieldError};
use crate::kinds::pod::has_condition;
use crate::object;
use crate::validation::{Cursor, nonnegative};

/// The facts about a job that the rules are made of.
struct Facts<'a> {
    job: &'a Value,
    status: Cursor<'a>,
}

impl<'a> Facts<'a> {
    fn of(job: &'a Value) -> Self {
        Self {
            job,
            status: Cursor::root(job).child("status"),
        }
    }

    fn is(&self, condition: &str) -> bool {
        has_condition(self.job, condition)
    }

    fn finished(&self) -> bool {
        self.is("Complete") || self.is("Failed")
    }

    fn uncounted(&self) -> &'a Value {
        self.status.raw("uncountedTerminatedPods")
    }
}

/// Checks a status and its change.
pub(super) fn validate(new: &Value, old: &Value) -> ErrorList {
    let mut out = ErrorList::new();
    let (now, before) = (Facts::of(new), Facts::of(old));
    for name in ["active", "succeeded", "failed", "ready", "terminating"] {
        nonnegative(&now.status, name, &mut out);
    }
    uncounted_pods(&now.status.child("uncountedTerminatedPods"), &mut out);
    conditions(&now, &before, &mut out);
    times(&now, &before, &mut out);
    finished(&now, &before, &mut out);
    index_sets(&now, &before, &mut out);
    policies(&now, &before, &mut out);
    counters(&now, &before, &mut out);
    out
}

fn uncounted_pods(at: &Cursor<'_>, out: &mut ErrorList) {
    let mut seen = Vec::new();
    for list in ["succeeded", "failed"] {
        for item in at.items(list) {
            let uid = item.value.as_str().unwrap_or_default();
            if uid.is_empty() {
                out.push(FieldError::invalid(&item.path, uid, "must not be empty"));
            } else if seen.contains(&uid) {
                out.push(FieldError::duplicate(&item.path, uid));
            } else {
                seen.push(uid);
            }
        }
    }
}

fn conditions(now: &Facts<'_>, before: &Facts<'_>, out: &mut ErrorList) {
    let path = now.status.at("conditions");
    let mut wrong = |detail: &str| out.push(FieldError::invalid_omitted(&path, detail));
    let changed = |condition: &str| now.is(condition) != before.is(condition);
    let complete = now.is("Complete");
    let complete_changed = changed("Complete");
    if (complete_changed || changed("Failed")) && complete && now.is("Failed") {
        wrong("cannot set Complete=True and Failed=true conditions");
    }
    if (complete_changed || changed("FailureTarget")) && complete && now.is("FailureTarget") {
        wrong("cannot set Complete=True and FailureTarget=true conditions");
    }
    let failed_indexes = now.status.raw("failedIndexes") != before.status.raw("failedIndexes");
    if (changed("Failed") || failed_indexes) && now.is("Failed") && !now.is("FailureTarget") {
        wrong("cannot set Failed=True condition without the FailureTarget=true condition");
    }
    if (complete_changed || changed("SuccessCriteriaMet"))
        && complete
        && !now.is("SuccessCriteriaMet")
    {
        wrong("cannot set Complete=True condition without the SuccessCriteriaMet=true condition");
    }
    for condition in ["Failed", "Complete", "FailureTarget"] {
        if before.is(condition) && !now.is(condition) {
            wrong(&format!(
                "cannot disable the terminal {condition}=True condition"
            ));
        }
    }
}

fn times(now: &Facts<'_>, before: &Facts<'_>, out: &mut ErrorList) {
    let (status, old) = (&now.status, &before.status);
    let changed = |name: &str| status.raw(name) != old.raw(name);
    let complete_changed = now.is("Complete") != before.is("Complete");
    let (start, end) = (status.text("startTime"), status.text("completionTime"));
    let end_path = status.at("completionTime");
    let mut wrong = |name: &str, detail: &str| {
        out.push(FieldError::invalid(
            &status.at(name),
            status.raw(name).clone(),
            detail,
        ));
    };
    if (complete_changed || changed("completionTime")) && !end.is_empty() && !now.is("Complete") {
        wrong(
            "completionTime",
            "cannot set completionTime when there is no Complete=True condition",
        );
    }
    // Times in canonical form sort as text.
    if (changed("startTime") || changed("completionTime"))
        && !start.is_empty()
        && !end.is_empty()
        && end < start
    {
        wrong("completionTime", "must be equal to or after `startTime`");
    }
    if !end.is_empty() && old.has("completionTime") && changed("completionTime") {
        wrong("completionTime", "field is immutable");
    }
    let suspended = |facts: &Facts<'_>, status: &str| {
        object::list(facts.job, &["status", "conditions"])
            .iter()
            .any(|condition| {
                object::text(condition, &["type"]) == "Suspended"
                    && object::text(condition, &["status"]) == status
            })
    };
    let resuming = suspended(before, "True") && suspended(now, "False");
    let held = object::at(now.job, &["spec", "suspend"]) == Some(&Value::Bool(true));
    if changed("startTime") && !resuming && old.has("startTime") && !held {
        wrong(
            "startTime",
            "field is immutable for unsuspended job once set",
        );
    }
    if (complete_changed || changed("completionTime")) && end.is_empty() && now.is("Complete") {
        out.push(FieldError::required(
            &end_path,
            "completionTime is required for Complete jobs",
        ));
    }
}

fn finished(now: &Facts<'_>, before: &Facts<'_>, out: &mut ErrorList) {
    let (status, old) = (&now.status, &before.status);
    let ended = now.finished();
    let changed = |name: &str| ended != before.finished() || status.raw(name) != old.raw(name);
    if ended && changed("active") && status.number("active") > 0 {
        out.push(FieldError::invalid(
            &status.at("active"),
            status.number("active"),
            "active>0 is invalid for finished job",
        ));
    }
    let spec = Cursor::root(now.job).child("spec");
    let never_started = spec.is_true("suspend") && spec.integer("completions") == Some(0);
    if ended && changed("startTime") && !never_started && !status.has("startTime") {
        out.push(FieldError::required(
            &status.at("startTime"),
            "startTime is required for finished job",
        ));
    }
    let left = ["succeeded", "failed"]
        .iter()
        .any(|list| !object::list(now.uncounted(), &[list]).is_empty());
    if ended && changed("uncountedTerminatedPods") && left {
        out.push(FieldError::invalid(
            &status.at("uncountedTerminatedPods"),
            now.uncounted().clone(),
            "must be empty for finished job",
        ));
    }
    if ended && changed("terminating") && status.number("terminating") > 0 {
        out.push(FieldError::invalid(
            &status.at("terminating"),
            status.number("terminating"),
            "terminating>0 is invalid for finished job",
        ));
    }
    let counted =
        status.raw("ready") != old.raw("ready") || status.raw("active") != old.raw("active");
    if counted && status.number("ready") > status.number("active") {
        out.push(FieldError::invalid(
            &status.at("ready"),
            status.number("ready"),
            "cannot set more ready pods than active",
        ));
    }
}

fn index_sets(now: &Facts<'_>, before: &Facts<'_>, out: &mut ErrorList) {
    let (status, old) = (&now.status, &before.status);
    let changed = |name: &str| status.raw(name) != old.raw(name);
    let spec = Cursor::root(now.job).child("spec");
    let completions = spec.integer("completions");
    let (completed, failed) = (
        status.text("completedIndexes"),
        status.text("failedIndexes"),
    );
    let per_index = spec.has("backoffLimitPerIndex");
    let mut wrong = |name: &str, detail: &str| {
        out.push(FieldError::invalid(
            &status.at(name),
            status.text(name),
            detail,
        ));
    };
    if let Some(completions) = completions {
        if changed("completedIndexes")
            && let Err(why) = indexes::count(completed, completions)
        {
            wrong(
                "completedIndexes",
                &format!("error parsing completedIndexes: {why}"),
            );
        }
        if changed("failedIndexes")
            && per_index
            && let Err(why) = indexes::count(failed, completions)
        {
            wrong(
                "failedIndexes",
                &format!("error parsing failedIndexes: {why}"),
            );
        }
    }
    if changed("completedIndexes")
        && !completed.is_empty()
        && spec.text("completionMode") != "Indexed"
    {
        wrong(
            "completedIndexes",
            "cannot set non-empty completedIndexes when non-indexed completion mode",
        );
    }
    if changed("failedIndexes") && !per_index && status.has("failedIndexes") {
        wrong(
            "failedIndexes",
            "cannot set non-null failedIndexes when backoffLimitPerIndex is null",
        );
    }
    if (changed("failedIndexes") || changed("completedIndexes"))
        && let Some(index) = indexes::overlap(completed, failed, completions.unwrap_or(0))
    {
        wrong(
            "failedIndexes",
            &format!("failedIndexes and completedIndexes overlap at index: {index}"),
        );
    }
}

fn policies(now: &Facts<'_>, before: &Facts<'_>, out: &mut ErrorList) {
    let path = now.status.at("conditions");
    let mut wrong = |detail: &str| out.push(FieldError::invalid_omitted(&path, detail));
    let met = now.is("SuccessCriteriaMet");
    if met && now.is("Failed") {
        wrong("cannot set SuccessCriteriaMet=True and Failed=true conditions");
    }
    if met && now.is("FailureTarget") {
        wrong("cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
    }
    let with_policy = Cursor::root(now.job).child("spec").has("successPolicy");
    if with_policy && !met && now.is("Complete") {
        wrong("cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True");
    }
    if before.is("SuccessCriteriaMet") && !met {
        wrong("cannot disable the SuccessCriteriaMet=True condition");
    }
    if before.is("Complete") && !before.is("SuccessCriteriaMet") && met {
        wrong("cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions");
    }
}

fn counters(now: &Facts<'_>, before: &Facts<'_>, out: &mut ErrorList) {
    let spec = Cursor::root(now.job).child("spec");
    // Elastic indexed jobs shrink: then finished indexes leave the count.
    let elastic = spec.text("completionMode") == "Indexed"
        && spec.raw("completions") == spec.raw("parallelism");
    for name in ["failed", "succeeded"] {
        let count = now.status.number(name);
        if count < before.status.number(name) && !(elastic && name == "succeeded") {
            out.push(FieldError::invalid(
                &now.status.at(name),
                count,
                &format!("cannot decrease the {name} counter"),
            ));
        }
    }
}
