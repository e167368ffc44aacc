//! What a CronJob needs: pure.

use std::sync::Arc;

use evenkeel_api::cron::{self, Schedule};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use crate::claim;
use crate::job::facts::ended;

/// The annotation of a job with the time it is for.
pub const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// A little later than the time itself, so that a clock that lags finds it has come.
const MARGIN: SignedDuration = SignedDuration::from_millis(100);

/// Something to tell: warning or not, reason, message.
pub type Told = (bool, &'static str, String);

/// What to do.
#[derive(Debug, Default)]
pub struct Plan {
    /// Ended jobs beyond the history limits.
    pub forget: Vec<Arc<Job>>,
    /// Active jobs that make room for the next.
    pub replace: Vec<ObjectReference>,
    /// The job that is due, and the time it is for.
    pub start: Option<(Box<Job>, Timestamp)>,
    /// The status with what was seen of jobs.
    pub status: CronJobStatus,
    /// References to jobs that are not among the owned: to be looked for at the door.
    pub missing: Vec<ObjectReference>,
    /// What is told.
    pub events: Vec<Told>,
    /// When to look again though nothing changed.
    pub look_again: Option<Timestamp>,
}

fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// Decides from the jobs the CronJob controls.
#[must_use]
pub fn plan(cron: &CronJob, jobs: &[Arc<Job>], now: Timestamp) -> Plan {
    let mut plan = Plan {
        status: cron.status.clone().unwrap_or_default(),
        ..Plan::default()
    };
    plan.note_ended(jobs);
    plan.forget_old(cron, jobs);
    plan.note_missing(jobs);
    if cron.metadata.deletion_timestamp.is_none() {
        plan.keep_time(cron, now);
    }
    plan
}

impl Plan {
    fn active(&self) -> &[ObjectReference] {
        self.status.active.as_deref().unwrap_or_default()
    }

    fn is_active(&self, job: &Job) -> bool {
        self.active().iter().any(|it| it.uid == job.metadata.uid)
    }

    fn deactivate(&mut self, uid: Option<&String>) {
        if let Some(active) = &mut self.status.active {
            active.retain(|it| it.uid.as_ref() != uid);
        }
        self.status.active = self.status.active.take().filter(|all| !all.is_empty());
    }

    /// Jobs that ended leave the list of active ones.
    fn note_ended(&mut self, jobs: &[Arc<Job>]) {
        for job in jobs {
            let is_active = self.is_active(job);
            let Some(end) = ended(job) else {
                if !is_active {
                    let text = format!(
                        "Saw a job that the controller did not create or forgot: {}",
                        name(&job.metadata)
                    );
                    self.events.push((true, "UnexpectedJob", text));
                }
                continue;
            };
            if is_active {
                self.deactivate(job.metadata.uid.as_ref());
                let text = format!(
                    "Saw completed job: {}, condition: {}",
                    name(&job.metadata),
                    end.type_
                );
                self.events.push((false, "SawCompletedJob", text));
            }
            if end.type_ == "Complete" {
                let at = job
                    .status
                    .as_ref()
                    .and_then(|it| it.completion_time.clone());
                let last = self.status.last_successful_time.clone();
                if at.as_ref().map(|it| it.0) > last.as_ref().map(|it| it.0) {
                    self.status.last_successful_time = at;
                }
            }
        }
    }

    /// The oldest ended jobs beyond the limits go.
    fn forget_old(&mut self, cron: &CronJob, jobs: &[Arc<Job>]) {
        let spec = &cron.spec;
        for (kind, limit) in [
            ("Complete", spec.successful_jobs_history_limit),
            ("Failed", spec.failed_jobs_history_limit),
        ] {
            let Some(limit) = limit else { continue };
            let mut of_kind: Vec<&Arc<Job>> = jobs
                .iter()
                .filter(|job| ended(job).is_some_and(|end| end.type_ == kind))
                .collect();
            of_kind.sort_by_key(|job| {
                let start = job.status.as_ref().and_then(|it| it.start_time.as_ref());
                let start = start.map(|time| time.0);
                (start.is_none(), start, job.metadata.name.clone())
            });
            let limit = usize::try_from(limit).unwrap_or(0);
            let excess = of_kind.len().saturating_sub(limit);
            let gone = of_kind.into_iter().take(excess);
            let gone = gone.filter(|job| job.metadata.deletion_timestamp.is_none());
            self.forget.extend(gone.cloned());
        }
    }

    fn note_missing(&mut self, jobs: &[Arc<Job>]) {
        let known = |it: &ObjectReference| jobs.iter().any(|job| job.metadata.uid == it.uid);
        let missing = self.active().iter().filter(|it| !known(it)).cloned();
        self.missing = missing.collect();
    }

    /// Takes out references whose jobs are verified to be gone.
    pub fn note_gone(&mut self, gone: &[ObjectReference]) {
        for reference in gone {
            let job = reference.name.as_deref().unwrap_or_default();
            let text = format!("Active job went missing: {job}");
            self.events.push((false, "MissingJob", text));
            self.deactivate(reference.uid.as_ref());
        }
    }

    fn keep_time(&mut self, cron: &CronJob, now: Timestamp) {
        let spec = &cron.spec;
        let zone_name = spec.time_zone.as_deref().unwrap_or_default();
        let Some(zone) = cron::time_zone(zone_name) else {
            let text = format!("invalid timeZone: {zone_name:?}: unknown time zone {zone_name}");
            self.events.push((true, "UnknownTimeZone", text));
            return;
        };
        if spec.suspend == Some(true) {
            return;
        }
        if spec.schedule.contains("TZ") {
            let text = format!(
                "CRON_TZ or TZ used in schedule {:?} is not officially supported, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more \
                 details",
                spec.schedule
            );
            self.events.push((true, "UnsupportedSchedule", text));
        }
        let times = match spec.schedule.parse() {
            Ok(schedule) => Times {
                schedule,
                zone: zone.clone(),
            },
            Err(error) => {
                let text = format!("unparseable schedule: {:?} : {error}", spec.schedule);
                self.events.push((true, "UnparseableSchedule", text));
                return;
            }
        };
        let Some(first) = times.next(earliest(cron, now, false)) else {
            // Grammatical, but no such day.
            let text = format!(
                "invalid schedule: {} : time difference between two schedules is less than 1 \
                 second",
                spec.schedule
            );
            self.events.push((true, "InvalidSchedule", text));
            return;
        };
        let (due, missed) = most_recent(&times, earliest(cron, now, true), now);
        let upcoming = if first > now {
            Some(first)
        } else {
            times.next(due.unwrap_or(now))
        };
        self.look_again = upcoming.and_then(|at| at.checked_add(MARGIN).ok());
        let Some(due) = due else { return };
        if missed > 100 {
            let text = "too many missed start times. Set or decrease \
                        .spec.startingDeadlineSeconds or check clock skew";
            self.events
                .push((true, "TooManyMissedTimes", text.to_owned()));
        }
        self.start_at(cron, due, now, &zone);
    }

    fn start_at(&mut self, cron: &CronJob, due: Timestamp, now: Timestamp, zone: &TimeZone) {
        let spec = &cron.spec;
        let too_late = spec.starting_deadline_seconds.is_some_and(|seconds| {
            let last = due.checked_add(SignedDuration::from_secs(seconds));
            last.is_ok_and(|last| last < now)
        });
        if too_late {
            let time = due.strftime("%a, %d %b %Y %H:%M:%S UTC");
            let text = format!("Missed scheduled time to start a job: {time}");
            self.events.push((true, "MissSchedule", text));
            return;
        }
        let job = new_job(cron, due, zone);
        let last = self.status.last_schedule_time.as_ref().map(|time| time.0);
        let is_started = self.active().iter().any(|it| it.name == job.metadata.name);
        if is_started || last == Some(due) {
            return;
        }
        if !self.active().is_empty() {
            match spec.concurrency_policy.as_deref() {
                Some("Forbid") => {
                    let text = "Not starting job because prior execution is running and \
                                concurrency policy is Forbid";
                    self.events
                        .push((false, "JobAlreadyActive", text.to_owned()));
                    return;
                }
                Some("Replace") => self.replace = self.active().to_vec(),
                _ => {}
            }
        }
        self.start = Some((Box::new(job), due));
    }

    /// After the job for `due` was made, or found.
    pub fn note_started(&mut self, reference: ObjectReference, due: Timestamp) {
        self.status.active.get_or_insert_default().push(reference);
        self.status.last_schedule_time = Some(Time(due));
    }

    /// After a job was deleted.
    pub fn note_deleted(&mut self, uid: Option<&String>) {
        self.deactivate(uid);
    }
}

/// A schedule and the zone its fields are of, where it names none itself.
struct Times {
    schedule: Schedule,
    zone: TimeZone,
}

impl Times {
    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.schedule.next_after(after, &self.zone)
    }
}

/// From when on times are looked for.
fn earliest(cron: &CronJob, now: Timestamp, within_deadline: bool) -> Timestamp {
    let status = cron.status.as_ref();
    let last = status.and_then(|it| it.last_schedule_time.as_ref());
    let created = cron.metadata.creation_timestamp.as_ref();
    let from = last.or(created).map_or(now, |time| time.0);
    let deadline = cron.spec.starting_deadline_seconds;
    let deadline = deadline.filter(|_| within_deadline);
    let limit = deadline.and_then(|it| now.checked_sub(SignedDuration::from_secs(it)).ok());
    limit.map_or(from, |limit| limit.max(from))
}

/// The last time that has come since `from`, and about how many have.
///
/// Times between are not walked one by one: after years of being down that would be millions.
fn most_recent(times: &Times, from: Timestamp, now: Timestamp) -> (Option<Timestamp>, i64) {
    let Some(first) = times.next(from).filter(|first| *first <= now) else {
        return (None, 0);
    };
    let Some(second) = times.next(first).filter(|second| *second <= now) else {
        return (Some(first), 1);
    };
    let step = second.duration_since(first).as_secs().max(1);
    let missed = now.duration_since(first).as_secs() / step + 1;
    // Back by one more than needed: the times may be uneven.
    let back = SignedDuration::from_secs((missed - 2).max(0).saturating_mul(step));
    let mut recent = None;
    let mut at = first.checked_add(back).unwrap_or(first);
    while let Some(next) = times.next(at).filter(|next| *next <= now) {
        recent = Some(next);
        at = next;
    }
    // None: the times are so uneven that the estimate went past the last of them.
    (recent, missed)
}

/// The job for a time. Its name says the minute, so that none is made twice.
fn new_job(cron: &CronJob, due: Timestamp, zone: &TimeZone) -> Job {
    let template = cron.spec.job_template.clone();
    let meta = template.metadata.unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    let shown = due.to_zoned(zone.clone());
    let shown = if shown.offset() == jiff::tz::Offset::UTC {
        shown.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    } else {
        shown.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    };
    annotations.insert(SCHEDULED.to_owned(), shown);
    let minute = due.as_second().div_euclid(60);
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-{minute}", name(&cron.metadata))),
            namespace: cron.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![claim::reference_to(cron)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}
