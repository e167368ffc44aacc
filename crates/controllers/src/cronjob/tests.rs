//! CronJobs: rules by table and property, and lives against the fake.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_client::testing::{FakeApi, FakeClock};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::plan::{Plan, SCHEDULED, plan};
use crate::testing;

/// 2026-01-01T00:00:00Z.
fn start() -> Timestamp {
    Timestamp::from_second(1_767_225_600).unwrap()
}

fn after(seconds: i64) -> Timestamp {
    start() + SignedDuration::from_secs(seconds)
}

fn cron(spec: Value) -> CronJob {
    let mut whole = json!({
        "metadata": {
            "name": "tick", "namespace": "a", "uid": "cron-1",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "schedule": "*/10 * * * *", "concurrencyPolicy": "Allow",
            "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
            "jobTemplate": {
                "metadata": {"labels": {"app": "tick"}},
                "spec": {"template": {"spec": {"containers": []}}},
            },
        },
    });
    for (key, value) in spec.as_object().unwrap() {
        whole["spec"][key] = value.clone();
    }
    serde_json::from_value(whole).unwrap()
}

fn job(name: &str, started: i64, end: Option<&str>) -> Arc<Job> {
    let mut owner = testing::owner("CronJob", "tick", "cron-1");
    owner.api_version = "batch/v1".into();
    let conditions = match end {
        Some(end) => json!([{"type": end, "status": "True"}]),
        None => json!([]),
    };
    let job = json!({
        "metadata": {
            "name": name, "namespace": "a", "uid": format!("uid-{name}"),
            "ownerReferences": [owner],
        },
        "status": {
            "startTime": Time(after(started)), "conditions": conditions,
            "completionTime": end.map(|_| Time(after(started + 5))),
        },
    });
    Arc::new(serde_json::from_value(job).unwrap())
}

fn active(cron: &mut CronJob, names: &[&str], last: i64) {
    let active: Vec<Value> = names
        .iter()
        .map(|name| json!({"name": name, "namespace": "a", "uid": format!("uid-{name}")}))
        .collect();
    let status = json!({"active": active, "lastScheduleTime": Time(after(last))});
    cron.status = Some(serde_json::from_value(status).unwrap());
}

fn started(plan: &Plan) -> Option<String> {
    plan.start
        .as_ref()
        .and_then(|(job, _)| job.metadata.name.clone())
}

fn reasons(plan: &Plan) -> Vec<&'static str> {
    plan.events.iter().map(|event| event.1).collect()
}

const MINUTES: i64 = 1_767_225_600 / 60;

#[test]
fn a_job_is_due_when_its_time_has_come_and_named_for_it() {
    let cron = cron(json!({}));
    let early = plan(&cron, &[], after(599));
    assert_eq!(started(&early), None);
    let wait = early.look_again.unwrap().duration_since(after(599));
    assert_eq!(wait, SignedDuration::from_millis(1100));
    let due = plan(&cron, &[], after(600));
    assert_eq!(started(&due), Some(format!("tick-{}", MINUTES + 10)));
    let (job, at) = due.start.unwrap();
    assert_eq!(at, after(600));
    let annotations = job.metadata.annotations.unwrap();
    assert_eq!(annotations[SCHEDULED], "2026-01-01T00:10:00Z");
    assert_eq!(job.metadata.labels.unwrap()["app"], "tick");
}

#[test]
fn of_missed_times_only_the_last_is_made_up_for() {
    let due = plan(&cron(json!({})), &[], after(3 * 600 + 30));
    assert_eq!(started(&due), Some(format!("tick-{}", MINUTES + 30)));
    assert!(reasons(&due).is_empty());
    let many = plan(&cron(json!({})), &[], after(600 * 600));
    assert_eq!(started(&many), Some(format!("tick-{}", MINUTES + 6000)));
    assert_eq!(reasons(&many), ["TooManyMissedTimes"]);
}

#[test]
fn too_late_is_told_and_not_made_up_for() {
    // Looked at 30 s after the time, but may be 10 s late only: the time is not even seen.
    let cron = cron(json!({"startingDeadlineSeconds": 10}));
    let late = plan(&cron, &[], after(630));
    assert_eq!(started(&late), None);
    assert!(late.look_again.is_some());
    let in_time = plan(&cron, &[], after(609));
    assert!(started(&in_time).is_some());
}

#[test]
fn concurrency_is_as_asked() {
    for (policy, begins, replaced, told) in [
        ("Allow", true, 0, vec![]),
        ("Forbid", false, 0, vec!["JobAlreadyActive"]),
        ("Replace", true, 1, vec![]),
    ] {
        let mut cron = cron(json!({"concurrencyPolicy": policy}));
        active(&mut cron, &["old"], 600);
        let plan = plan(&cron, &[job("old", 600, None)], after(1200));
        assert_eq!(plan.start.is_some(), begins, "{policy}");
        assert_eq!(plan.replace.len(), replaced, "{policy}");
        assert_eq!(reasons(&plan), told, "{policy}");
    }
}

#[test]
fn suspended_or_unreadable_ones_start_nothing() {
    for (spec, told) in [
        (json!({"suspend": true}), vec![]),
        (json!({"timeZone": "Mars/Olympus"}), vec!["UnknownTimeZone"]),
        (json!({"schedule": "often"}), vec!["UnparseableSchedule"]),
        (json!({"schedule": "0 0 31 2 *"}), vec!["InvalidSchedule"]),
    ] {
        let plan = plan(&cron(spec.clone()), &[], after(86_400));
        assert!(plan.start.is_none(), "{spec}");
        assert_eq!(plan.look_again, None, "{spec}");
        assert_eq!(reasons(&plan), told, "{spec}");
    }
}

#[test]
fn times_are_of_the_zone_asked_for() {
    let cron = cron(json!({"schedule": "30 9 * * *", "timeZone": "Asia/Tokyo"}));
    let due = plan(&cron, &[], after(1800));
    let (job, at) = due.start.unwrap();
    assert_eq!(at, after(1800));
    let annotations = job.metadata.annotations.unwrap();
    assert_eq!(annotations[SCHEDULED], "2026-01-01T09:30:00+09:00");
}

#[test]
fn ended_jobs_leave_the_list_and_the_oldest_go() {
    let mut cron = cron(json!({"suspend": true}));
    active(&mut cron, &["e", "f"], 600);
    let ok = Some("Complete");
    let jobs = [
        job("b", 20, ok),
        job("a", 10, ok),
        job("c", 30, ok),
        job("e", 50, ok),
        job("d", 40, Some("Failed")),
        job("f", 60, Some("Failed")),
    ];
    let plan = plan(&cron, &jobs, after(700));
    let gone: Vec<_> = plan
        .forget
        .iter()
        .map(|job| job.metadata.name.clone().unwrap())
        .collect();
    assert_eq!(gone, ["a", "d"]);
    assert_eq!(plan.status.active, None);
    assert_eq!(plan.status.last_successful_time, Some(Time(after(55))));
    assert_eq!(reasons(&plan), ["SawCompletedJob", "SawCompletedJob"]);
    assert_eq!(
        plan.events[0].2,
        "Saw completed job: e, condition: Complete"
    );
}

proptest! {
    #[test]
    fn no_time_is_started_twice_and_none_early(
        steps in prop::collection::vec((1i64..2000, any::<bool>()), 1..60),
        policy in prop_oneof![Just("Allow"), Just("Forbid"), Just("Replace")],
    ) {
        let mut cron = cron(json!({"concurrencyPolicy": policy}));
        let mut jobs: Vec<Arc<Job>> = Vec::new();
        let mut now = start();
        let mut seen: Vec<Timestamp> = Vec::new();
        for (wait, ends) in steps {
            now += SignedDuration::from_secs(wait);
            if ends && let Some(running) = jobs.iter_mut().find(|job| {
                crate::job::facts::ended(job).is_none()
            }) {
                let mut ended = running.as_ref().clone();
                let status = json!({"conditions": [{"type": "Complete", "status": "True"}]});
                ended.status = Some(serde_json::from_value(status).unwrap());
                *running = Arc::new(ended);
            }
            let mut plan = plan(&cron, &jobs, now);
            for gone in &plan.forget {
                jobs.retain(|job| job.metadata.uid != gone.metadata.uid);
            }
            for gone in plan.replace.clone() {
                jobs.retain(|job| job.metadata.uid != gone.uid);
                plan.note_deleted(gone.uid.as_ref());
            }
            if let Some((mut job, due)) = plan.start.take() {
                prop_assert!(due <= now);
                prop_assert!(!seen.contains(&due), "twice");
                seen.push(due);
                job.metadata.uid = job.metadata.name.clone();
                plan.note_started(evenkeel_client::recorder::reference(job.as_ref()), due);
                jobs.push(Arc::new(*job));
            }
            cron.status = Some(plan.status);
            let running = jobs.iter().filter(|job| crate::job::facts::ended(job).is_none());
            prop_assert!(policy == "Allow" || running.count() <= 1, "{policy}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_schedule_is_kept_over_an_hour() {
    let fake = FakeApi::new(FakeClock::shared());
    let world = testing::start(&fake, |context| Box::pin(super::run(context)));
    let mut made = cron(json!({"concurrencyPolicy": "Forbid"}));
    made.metadata.uid = None;
    fake.put(&made);
    for round in 1..=6 {
        tokio::time::sleep(Duration::from_secs(600)).await;
        let name = format!("tick-{}", MINUTES + 10 * round);
        let mut job = fake
            .wait_for("the job", |fake| fake.get::<Job>("a", &name))
            .await;
        let end = json!({
            "completionTime": "2026-01-01T00:00:00Z",
            "conditions": [{"type": "Complete", "status": "True"}],
        });
        job.status = Some(serde_json::from_value(end).unwrap());
        fake.put(&job);
    }
    fake.wait_for("history", |fake| {
        (fake.all::<Job>().len() == 3).then_some(())
    })
    .await;
    fake.wait_for("no active one", |fake| {
        fake.get::<CronJob>("a", "tick")?
            .status?
            .active
            .is_none()
            .then_some(())
    })
    .await;
    assert_eq!(fake.count("create", "jobs"), 6);
    let events = fake.all::<Event>();
    let told = |reason: &str| events.iter().any(|it| it.reason.as_deref() == Some(reason));
    assert!(told("SuccessfulCreate") && told("SawCompletedJob") && told("SuccessfulDelete"));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_made_before_a_crash_is_found_not_made_again() {
    let fake = FakeApi::new(FakeClock::shared());
    let mut made = cron(json!({}));
    made.metadata.uid = None;
    // Its time has come just now.
    made.metadata.creation_timestamp = Some(Time(after(-300)));
    let made = fake.put(&made);
    let name = format!("tick-{MINUTES}");
    let mut orphan = job(&name, 0, None).as_ref().clone();
    orphan.metadata.uid = None;
    let owners = orphan.metadata.owner_references.as_mut().unwrap();
    owners[0].uid = made.metadata.uid.clone().unwrap();
    fake.put(&orphan);
    let world = testing::start(&fake, |context| Box::pin(super::run(context)));
    fake.wait_for("it is known", |fake| {
        let active = fake.get::<CronJob>("a", "tick")?.status?.active?;
        (active.len() == 1).then_some(())
    })
    .await;
    assert_eq!(fake.all::<Job>().len(), 1);
    world.end().await;
}
